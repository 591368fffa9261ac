//! Ends: of a training that does not want to, and of a machine whose pipe is gone.

use crate::local_machine::{Rig, ended, exists, spec, until};
use crate::support::{is_late, patience, processes_with};
use rustix::process::{Pid, Signal, kill_process_group};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use trainspot_agent::Home;
use trainspot_compute::Compute as _;
use trainspot_compute::link::local::LocalLink;
use trainspot_compute::link::{Agent, AskError};
use trainspot_protocol::{AgentCommand, CommandSpec, CommandState, ExitReason};

/// Starts a number of processes that do not want to be found: each sleeps for this odd time.
fn hiding(seconds: &str) -> String {
    format!(
        "(setsid sleep {seconds} &); (env -i setsid sh -c 'sleep {seconds} & sleep {seconds}' &); \
         (trap '' TERM HUP; nohup sleep {seconds} >/dev/null 2>&1 &) ; sleep {seconds} & "
    )
}

/// A training for which a second is long.
fn limited(command: &str) -> CommandSpec {
    CommandSpec { max_runtime: Duration::from_secs(1), ..spec(command) }
}

#[tokio::test]
async fn max_runtime_ends_what_ignores_sigterm() {
    let (rig, agent) =
        Rig::training(2, limited("trap '' TERM; echo deaf; while :; do sleep 0.1; done")).await;
    let exit = ended(&agent).await;
    assert_eq!(exit.reason, ExitReason::TimedOut);
    let most = patience(Duration::from_secs(6)).as_secs_f64();
    assert!((2.9..most).contains(&exit.seconds), "{}", exit.seconds);
    rig.end().await;
}

#[tokio::test]
async fn a_stopped_training_hears_of_its_end() {
    let stopped = "trap 'echo saved; exit 0' TERM; kill -STOP $$; while :; do sleep 0.1; done";
    let (rig, agent) = Rig::training(10, limited(stopped)).await;
    let exit = ended(&agent).await;
    assert_eq!(exit.reason, ExitReason::TimedOut);
    assert!(exit.seconds < patience(Duration::from_secs(4)).as_secs_f64(), "{}", exit.seconds);
    assert_eq!(std::fs::read_to_string(rig.home().log()).unwrap(), "saved\n");
    rig.end().await;
}

#[tokio::test]
async fn what_a_shell_runs_may_save_its_work_though_the_shell_dies_at_once() {
    let command =
        "bash -c 'trap \"sleep 1; echo saved; exit 0\" TERM; touch ready; while :; do sleep 0.1; done'
        echo never";
    let (rig, agent) = Rig::training(10, spec(command)).await;
    exists(rig.home().work().join("ready")).await;
    agent.ask(AgentCommand::Stop).await.unwrap();
    assert_eq!(ended(&agent).await.reason, ExitReason::Stopped);
    let log = std::fs::read_to_string(rig.home().log()).unwrap();
    assert!(log.contains("saved") && !log.contains("never"), "{log}");
    rig.end().await;
}

#[tokio::test]
async fn a_machine_without_a_pipe_ends_itself_and_all_that_hides_on_it() {
    let seconds = "987651.25";
    let (rig, agent) =
        Rig::training(2, spec(&format!("{} touch up; sleep {seconds}", hiding(seconds)))).await;
    exists(rig.home().work().join("up")).await;
    until(&agent, |_| (processes_with(seconds).len() >= 6).then_some(())).await;
    let start = Instant::now();
    rig.assert_gone_within(Duration::from_secs(7), &[seconds]).await;
    assert!(start.elapsed() > Duration::from_secs(1), "it did not wait");
}

#[tokio::test]
async fn a_machine_whose_folder_the_training_deleted_ends_too() {
    let seconds = "987652.25";
    let command = format!("rm -rf \"$TRAINSPOT_HOME\"; {} sleep {seconds}", hiding(seconds));
    let (rig, _) = Rig::training(2, spec(&command)).await;
    rig.assert_gone_within(Duration::from_secs(7), &[seconds]).await;
}

#[tokio::test]
async fn a_pipe_ends_a_machine_at_once_even_without_its_supervisor() {
    for signal in [None, Some(Signal::KILL), Some(Signal::STOP)] {
        let command = "(setsid sleep 500 &); trap '' TERM; touch up; while :; do sleep 0.1; done";
        let (rig, _) = Rig::training(20, spec(command)).await;
        exists(rig.home().work().join("up")).await;
        for pid in signal.iter().flat_map(|_| rig.agents("supervise")) {
            rustix::process::kill_process(pid, signal.unwrap()).unwrap();
        }
        rig.end().await;
        rig.compute.terminate(&rig.machine).await.unwrap();
    }
}

#[tokio::test]
async fn a_machine_told_to_end_does_not_come_back_by_a_copy_in_progress() {
    let command = "head -c 400000000 /dev/zero > state; sleep 300";
    let spec = CommandSpec {
        checkpoints: vec!["state".to_owned()],
        checkpoint_interval: Duration::from_millis(100),
        ..spec(command)
    };
    let (rig, agent) = Rig::training(10, spec).await;
    exists(rig.home().checkpoints().join("1.partial")).await;
    agent.ask(AgentCommand::EndMachine).await.unwrap();
    rig.assert_gone_within(Duration::from_secs(5), &[]).await;
}

#[tokio::test]
async fn a_training_survives_the_process_that_started_its_machine() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::new(folder.path().join("home"));
    home.create().unwrap();
    let program = env!("CARGO_BIN_EXE_trainspot");
    let mut caller = Command::new("sh");
    caller.args(["-c", "\"$0\" agent supervise --home \"$1\" --grace 3 --ending remove & wait", program]);
    caller.arg(home.path()).process_group(0).stdin(Stdio::null());
    let mut caller = caller.spawn().unwrap();
    exists(home.run().join("socket")).await;
    let link = LocalLink { program: program.into(), home: home.path().to_owned(), environment: [].into() };
    let agent = Agent::new(link, "a");
    agent.ask(AgentCommand::Start(Box::new(spec("sleep 1; exit 5")))).await.unwrap();
    kill_process_group(Pid::from_child(&caller), Signal::KILL).unwrap();
    caller.wait().unwrap();
    assert_eq!(ended(&agent).await.reason, ExitReason::Exited(5));
    agent.ask(AgentCommand::EndMachine).await.unwrap();
    let start = Instant::now();
    while home.path().exists() || !processes_with(home.path().to_str().unwrap()).is_empty() {
        assert!(!is_late(start, Duration::from_secs(5)));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn two_pipes_never_share_a_machine() {
    // The hold is half the grace.
    let (rig, first) = Rig::training(4, spec("sleep 300")).await;
    let second = rig.agent("another").await;
    for command in [
        AgentCommand::Heartbeat,
        AgentCommand::Stop,
        AgentCommand::EndMachine,
        AgentCommand::Start(Box::new(spec("true"))),
    ] {
        first.ask(AgentCommand::Heartbeat).await.unwrap();
        let error = second.ask(command).await.unwrap_err();
        assert!(
            matches!(&error, AskError::Refused(why) if why == "another run of this step is using the machine"),
            "{error:?}"
        );
    }
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(second.ask(AgentCommand::Heartbeat).await.unwrap().state, CommandState::Running);
    assert!(matches!(first.ask(AgentCommand::Heartbeat).await, Err(AskError::Refused(_))));
    rig.end().await;
}
