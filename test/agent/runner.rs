//! A runner on a machine: how long the machine lives is the runner's matter, once the pipe has left it to
//! itself.

use crate::bitbucket::client;
use crate::local_machine::{Rig, exists, spec, until};
use fake_bitbucket::{ACCESS_TOKEN, FakeBitbucket};
use std::time::{Duration, Instant};
use trainspot_bitbucket::{RegistrationStatus, Scope};
use trainspot_protocol::runner_log::Phase;
use trainspot_protocol::{AgentCommand, AgentStatus, CommandSpec, Registry, RunnerSpec};

const ONLINE: &str = "echo 'Updating runner state to \"ONLINE\".'";
const TAKES: &str =
    "echo 'Getting step StepId{accountUuid={a}, repositoryUuid={b}, pipelineUuid={c}, stepUuid={d}}.'";
const DONE: &str = "echo 'Completing step with result Result{status=PASSED, error=None}.'";
const STAYS: &str = "sleep 600";

/// A runner of this script, which goes after this many seconds without a step.
fn runner(script: &[&str], idle: u64, registry: Option<(&str, Registry)>) -> CommandSpec {
    let (uuid, registry) = registry.map_or(("{r}", None), |(uuid, registry)| (uuid, Some(registry)));
    let runner = RunnerSpec {
        uuid: uuid.to_owned(),
        idle_timeout: Duration::from_secs(idle),
        single_step: false,
        registry,
    };
    CommandSpec { runner: Some(Box::new(runner)), ..spec(&script.join("; ")) }
}

fn registry(fake: &FakeBitbucket, token: &str) -> Registry {
    Registry {
        api_url: fake.api_url(),
        workspace: fake.workspace().to_owned(),
        repo_slug: fake.slug().to_owned(),
        of_workspace: false,
        token: token.into(),
    }
}

fn phase(status: &AgentStatus) -> Phase {
    status.runner.clone().unwrap().phase
}

#[tokio::test]
async fn an_idle_runner_goes_once_the_pipe_has_left_it_to_itself() {
    let (rig, agent) = Rig::training(30, runner(&[ONLINE, STAYS], 1, None)).await;
    until(&agent, |status| (phase(status) == Phase::Idle).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        phase(&agent.ask(AgentCommand::Heartbeat).await.unwrap()),
        Phase::Idle,
        "the pipe decides while it is there"
    );
    agent.ask(AgentCommand::Release).await.unwrap();
    rig.assert_gone_within(Duration::from_secs(5), &[]).await;
}

#[tokio::test]
async fn a_step_outlives_the_pipe_and_every_limit() {
    let script = [ONLINE, TAKES, "sleep 6", DONE, "touch ../done", STAYS];
    let limited = CommandSpec { max_runtime: Duration::from_secs(1), ..runner(&script, 1, None) };
    // Nobody releases it: a pipe that is killed does not.
    let (rig, _) = Rig::training(2, limited).await;
    let start = Instant::now();
    exists(rig.home().path().join("done")).await;
    assert!(start.elapsed() > Duration::from_secs(5));
    // A runner cleans up after a step, for which it gets ten seconds.
    rig.assert_gone_within(Duration::from_secs(15), &[]).await;
}

#[tokio::test]
async fn a_runner_that_is_told_to_go_does_so_after_its_step() {
    let script = [ONLINE, TAKES, "until [ -e ../go ]; do sleep 0.1; done", DONE, STAYS];
    let (rig, agent) = Rig::training(30, runner(&script, 600, None)).await;
    until(&agent, |status| matches!(phase(status), Phase::Busy(_)).then_some(())).await;
    let status = agent.ask(AgentCommand::Drain).await.unwrap();
    assert!(status.runner.unwrap().draining);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(matches!(phase(&agent.ask(AgentCommand::Heartbeat).await.unwrap()), Phase::Busy(_)));
    std::fs::write(rig.home().path().join("go"), "").unwrap();
    rig.assert_gone_within(Duration::from_secs(15), &[]).await;
}

#[tokio::test]
async fn bitbucket_may_know_better_than_the_log() {
    let (rig, agent) = Rig::training(30, runner(&["echo what?", TAKES, STAYS], 1, None)).await;
    until(&agent, |status| matches!(phase(status), Phase::Busy(_)).then_some(())).await;
    agent.ask(AgentCommand::StepFinished("{another}".to_owned())).await.unwrap();
    assert!(matches!(phase(&agent.ask(AgentCommand::Heartbeat).await.unwrap()), Phase::Busy(_)));
    let status = agent.ask(AgentCommand::StepFinished("{d}".to_owned())).await.unwrap();
    assert_eq!(phase(&status), Phase::Idle);
    rig.end().await;
    let (rig, agent) = Rig::training(30, runner(&["echo what?", STAYS], 1, None)).await;
    until(&agent, |status| (phase(status) == Phase::Starting).then_some(())).await;
    assert_eq!(phase(&agent.ask(AgentCommand::RunnerOnline).await.unwrap()), Phase::Idle);
    rig.end().await;
}

/// With a token the runner is off the list before its machine is gone: when it is idle, and when its program
/// dies.
#[tokio::test]
async fn a_machine_with_a_token_takes_its_runner_off_the_list() {
    for script in [&[ONLINE, STAYS][..], &[ONLINE, "exit 3"]] {
        let fake = FakeBitbucket::start();
        let uuid = fake.add_runner("trainspot-forest-0123456789abcdef", &["self.hosted", "linux"], false);
        let spec = runner(script, 1, Some((&uuid, registry(&fake, ACCESS_TOKEN))));
        assert!(!format!("{spec:?}").contains(ACCESS_TOKEN));
        let (rig, agent) = Rig::training(30, spec).await;
        agent.ask(AgentCommand::Release).await.unwrap();
        rig.assert_gone_within(Duration::from_secs(20), &[]).await;
        assert_eq!(fake.runners().len(), 0);
        let disabled = fake.requests().iter().any(|request| request.method == "PUT");
        assert_eq!(disabled, script[1] == STAYS, "one that is idle is disabled first");
    }
}

/// A Bitbucket that takes nothing keeps no machine.
#[tokio::test]
async fn a_list_that_cannot_be_changed_keeps_no_machine() {
    let fake = FakeBitbucket::start();
    let uuid = fake.add_runner("trainspot-forest-0123456789abcdef", &["self.hosted", "linux"], false);
    let registry = registry(&fake, "a token that is refused");
    let (rig, agent) = Rig::training(30, runner(&[ONLINE, STAYS], 1, Some((&uuid, registry)))).await;
    agent.ask(AgentCommand::Release).await.unwrap();
    rig.assert_gone_within(Duration::from_secs(20), &[]).await;
    let left = client(&fake).runner(Scope::Repository, &uuid).await.unwrap().unwrap();
    assert_eq!(left.status, RegistrationStatus::Unregistered);
}
