//! A machine that is about to be taken away: what the training sees of it, and what is saved.

use super::imds::{Imds, humantime, wall};
use crate::local_machine::{Rig, beating, ended, exists, spec, until};
use crate::support::patience;
use std::time::{Duration, Instant};
use trainspot_protocol::{AgentCommand, CommandSpec, CommandState, ExitReason, Notice};
use trainspot_transfer::HeldFiles;

/// A training that counts until it is told to end, and then takes a moment to save its last count.
const COUNTER: &str = r#"
trap 'date +%s.%N > told; sleep 0.5; echo "$count, saved" > state; exit 0' TERM
for count in $(seq 1 10000); do
  echo $count > state.new; mv state.new state
  for rest in $(seq 1 15); do sleep 0.1; done
done"#;

fn saving(command: &str) -> CommandSpec {
    CommandSpec { checkpoints: vec!["state".to_owned()], ..spec(command) }
}

/// A whole second that is at least this many from now.
fn in_seconds(seconds: u64) -> u64 {
    wall().as_secs() + 1 + seconds
}

/// The time since 1970 of such a second.
fn second(second: u64) -> Duration {
    Duration::from_secs(second)
}

fn leave(at: Option<u64>) -> AgentCommand {
    AgentCommand::PrepareToEnd(Notice { why: "the pipe saw it".to_owned(), at })
}

impl Rig {
    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.home().work().join(name)).unwrap()
    }

    /// When the training was told to end, since 1970.
    fn told(&self) -> Duration {
        Duration::try_from_secs_f64(self.read("told").trim().parse().unwrap()).unwrap()
    }
}

#[tokio::test]
async fn a_training_goes_on_after_the_notice_and_its_last_words_are_saved() {
    let imds = Imds::start();
    let rig = Rig::rented(60, &[("--metadata", &imds.url)]).await;
    let agent = rig.train(saving(COUNTER)).await;
    exists(rig.home().work().join("state")).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(agent.ask(AgentCommand::Heartbeat).await.unwrap().notice, None);
    assert!(!rig.home().notice().exists());

    let (start, at) = (wall(), in_seconds(14));
    imds.interrupt(at);
    let status = until(&agent, |status| status.notice.is_some().then(|| status.clone())).await;
    let seen = wall();
    println!("the notice was seen after {:.2} s", (seen - start).as_secs_f64());
    assert!(seen - start < patience(second(5)), "{:?}", seen - start);
    let why = format!("EC2 takes the spot machine back (terminate at {})", humantime(at));
    assert_eq!(status.notice, Some(Notice { why, at: Some(at) }));
    assert_eq!(status.state, CommandState::Running);
    let text = std::fs::read_to_string(rig.home().notice()).unwrap();
    assert_eq!(text, format!(r#"{{"action":"terminate","time":"{}"}}"#, humantime(at)));

    // One checkpoint at once.
    until(&agent, |status| status.checkpoint.filter(|number| *number >= 1)).await;
    let count: u32 = rig.read("state").trim().parse().unwrap();
    let exit = ended(&agent).await;
    assert_eq!(exit.reason, ExitReason::Interrupted);
    let (end, told) = (second(at), rig.told());
    let half = (end - seen) / 2;
    println!("{half:?} were half of the time; the training was told {:?} before the end", end - told);
    // Never early; late by no more than a busy machine takes to run a trap.
    assert!(end - told < half + second(1) && half < end - told + patience(second(1)));
    assert!(wall() < end, "the last checkpoint took too long");

    let number = agent.ask(AgentCommand::Heartbeat).await.unwrap().checkpoint.unwrap();
    let copy = rig.aside("copy");
    agent.fetch_checkpoint(number, &["state".to_owned()], HeldFiles::default(), &copy).await.unwrap();
    let saved = std::fs::read_to_string(copy.join("state")).unwrap();
    let last: u32 = saved.trim().strip_suffix(", saved").unwrap().parse().unwrap();
    assert!(last > count + 1, "it stood still after the notice: {count}, {last}");
    rig.end().await;
}

#[tokio::test]
async fn metadata_that_fails_is_asked_again_and_a_risk_is_no_notice() {
    let imds = Imds::start();
    imds.set_broken(true);
    let rig = Rig::rented(60, &[("--metadata", &imds.url)]).await;
    let agent = rig.train(saving("echo 1 > state; sleep 300")).await;
    beating(&agent, tokio::time::sleep(Duration::from_secs(5))).await;
    imds.set_broken(false);
    imds.recommend_rebalance();
    let status = until(&agent, |status| status.checkpoint.map(|_| status.clone())).await;
    assert_eq!((status.notice, status.state), (None, CommandState::Running));
    let refused = imds.refused();
    imds.expire_tokens();
    let at = in_seconds(100);
    imds.interrupt(at);
    let start = Instant::now();
    let notice = until(&agent, |status| status.notice.clone()).await;
    println!("the notice was seen after {:.2} s, with a new token", start.elapsed().as_secs_f64());
    assert!(start.elapsed() < patience(Duration::from_secs(5)), "{:?}", start.elapsed());
    assert_eq!(notice.at, Some(at));
    assert_eq!(imds.refused(), refused + 1);
    let words = std::fs::read_to_string(rig.home().agent_log()).unwrap();
    let told = words.matches("cannot read the machine's metadata").count();
    assert_eq!(told, 1, "{words}");
    assert!(words.contains("no token: HTTP 500"), "{words}");
    let peak = rig.peak("supervise");
    println!("the supervisor took {peak} KiB");
    assert!(0 < peak && peak < 40 << 10, "{peak} KiB");
    rig.end().await;
}

#[tokio::test]
async fn a_training_that_ends_by_itself_after_the_notice_is_done_or_interrupted() {
    let cases = [
        ("exit 0", ExitReason::Exited(0)),
        ("echo saved > state; exit 3", ExitReason::Interrupted),
        ("kill -9 $$", ExitReason::Interrupted),
    ];
    for (end, how) in cases {
        let wait = "while [ ! -e \"$TRAINSPOT_NOTICE\" ]; do sleep 0.05; done; cat \"$TRAINSPOT_NOTICE\";";
        let (rig, agent) = Rig::training(20, saving(&format!("{wait} {end}"))).await;
        let at = in_seconds(100);
        let status = agent.ask(leave(Some(at))).await.unwrap();
        assert_eq!(status.notice.unwrap().at, Some(at));
        assert_eq!(ended(&agent).await.reason, how, "{end}");
        let log = std::fs::read_to_string(rig.home().log()).unwrap();
        assert_eq!(log, format!(r#"{{"action":"terminate","time":"{}"}}"#, humantime(at)), "{end}");
        let saved = agent.ask(AgentCommand::Heartbeat).await.unwrap().checkpoint;
        assert_eq!(saved, end.contains("state").then_some(1), "{end}");
        rig.end().await;
    }
}

#[tokio::test]
async fn a_pipe_that_wants_the_training_to_leave_gets_its_last_checkpoint() {
    // Large enough for its copy to be seen.
    let command = "trap 'head -c 300000000 /dev/zero > state; exit 0' TERM
        echo first > state; while :; do sleep 0.1; done";
    let (rig, agent) = Rig::training(20, saving(command)).await;
    exists(rig.home().work().join("state")).await;
    // A later notice changes nothing, as the training must end now.
    agent.ask(leave(None)).await.unwrap();
    let status = agent.ask(leave(Some(in_seconds(1000)))).await.unwrap();
    assert_eq!(status.notice, Some(Notice { why: "the pipe saw it".to_owned(), at: None }));
    let exit = ended(&agent).await;
    assert_eq!(exit.reason, ExitReason::Interrupted);
    let number = agent.ask(AgentCommand::Heartbeat).await.unwrap().checkpoint.unwrap();
    let state = rig.home().checkpoints().join(number.to_string()).join("files/state");
    assert_eq!(state.metadata().unwrap().len(), 300_000_000);
    rig.end().await;
}

#[tokio::test]
async fn what_cannot_be_saved_in_time_leaves_the_checkpoint_before() {
    let command = "trap 'truncate -s 100G state; exit 0' TERM
        echo first > state; while :; do sleep 0.1; done";
    let spec = CommandSpec { checkpoint_interval: Duration::from_millis(100), ..saving(command) };
    let (rig, agent) = Rig::training(20, spec).await;
    until(&agent, |status| status.checkpoint).await;
    let at = in_seconds(2);
    agent.ask(leave(Some(at))).await.unwrap();
    assert_eq!(ended(&agent).await.reason, ExitReason::Interrupted);
    assert!(wall() < second(at + 1), "it was not given up");
    assert_eq!(agent.ask(AgentCommand::Heartbeat).await.unwrap().checkpoint, Some(1));
    let copy = rig.aside("copy");
    agent.fetch_checkpoint(1, &["state".to_owned()], HeldFiles::default(), &copy).await.unwrap();
    assert_eq!(std::fs::read_to_string(copy.join("state")).unwrap(), "first\n");
    rig.end().await;
}

#[tokio::test]
async fn a_training_without_checkpoints_goes_on_as_long() {
    let command = "trap 'date +%s.%N > told; exit 0' TERM; touch up; while :; do sleep 0.05; done";
    let (rig, agent) = Rig::training(20, spec(command)).await;
    exists(rig.home().work().join("up")).await;
    let (start, at) = (wall(), in_seconds(5));
    agent.ask(leave(Some(at))).await.unwrap();
    assert_eq!(ended(&agent).await.reason, ExitReason::Interrupted);
    let waited = rig.told() - start;
    assert!(second(2) < waited && waited < patience(second(4)), "{waited:?}");
    rig.end().await;
}

#[tokio::test]
async fn what_ignores_its_end_is_killed_in_time_for_the_checkpoint() {
    let command = "trap '' TERM; for i in $(seq 1 10000); do echo $i > state; sleep 1.5; done";
    let (rig, agent) = Rig::training(60, saving(command)).await;
    exists(rig.home().work().join("state")).await;
    let at = in_seconds(patience(second(3)).as_secs());
    agent.ask(leave(Some(at))).await.unwrap();
    assert_eq!(ended(&agent).await.reason, ExitReason::Interrupted);
    // SIGTERM at half of the time, SIGKILL at half of what is then left.
    assert!(wall() < second(at), "too late");
    let number = agent.ask(AgentCommand::Heartbeat).await.unwrap().checkpoint.unwrap();
    let saved = rig.home().checkpoints().join(number.to_string()).join("files/state");
    assert_eq!(std::fs::read_to_string(saved).unwrap(), rig.read("state"));
    rig.end().await;
}
