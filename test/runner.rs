//! A runner's whole life against the fake Bitbucket: registered, started in either form, a step, its end; and
//! what the agent's watch makes of the log.

use crate::bitbucket::client;
use fake_bitbucket::{ACCOUNT_UUID, FakeBitbucket, Options, REPOSITORY_UUID, StepDefinition};
use secrecy::ExposeSecret as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use trainspot_bitbucket::{
    Client, NewPipelineRun, NewRegistration, NewRunner, PipelineOutcome, PipelineProgress, PipelineRun,
    PipelineStep, PipelineTarget, Platform, RegistrationStatus, Scope,
};
use trainspot_protocol::runner_log::{Event, LeaveReason, Phase, RunnerLimits, RunnerState, StepId, Verdict};

const LABELS: [&str; 3] = ["self.hosted", "linux.shell", "gpu.train"];
const RUNNER_LIMITS: RunnerLimits = RunnerLimits {
    idle_timeout: Duration::from_mins(5),
    single_step: true,
    max_runtime: Duration::from_hours(1),
};

/// A fake, the stand-in's files on a "machine", and a runner that is registered for it.
struct Scene {
    fake: FakeBitbucket,
    client: Client,
    machine: TempDir,
    registered: NewRegistration,
    level: Scope,
    child: Option<Child>,
}

impl Scene {
    /// Nothing where there is no Python, and that is said.
    async fn new(level: Scope, behaviour: &str) -> Option<Self> {
        let python = Command::new("python3").arg("-V").stdout(Stdio::null()).status();
        if !python.is_ok_and(|status| status.success()) {
            skip::skip("there is no python3 for the stand-in runner");
            return None;
        }
        let fake =
            FakeBitbucket::start_with(Options { silence: Duration::from_secs(2), ..Options::default() });
        let labels = ["gpu.train".to_owned()];
        let new = NewRunner::new("trainspot-7", Platform::LinuxShell, &labels).unwrap();
        let client = client(&fake);
        let registered = client.register_runner(level, &new).await.unwrap();
        let machine = tempfile::tempdir().unwrap();
        let place = machine.path();
        fs::create_dir(place.join("bin")).unwrap();
        for (file, to) in [("runner.py", "runner.py"), ("start.sh", "bin/start.sh"), ("docker", "docker")] {
            fs::copy(stand_in().join(file), place.join(to)).unwrap();
        }
        fs::write(place.join("address"), fake.api_url().trim_end_matches("/2.0")).unwrap();
        fs::write(place.join("behaviour.json"), behaviour).unwrap();
        Some(Self { fake, client, machine, registered, level, child: None })
    }

    /// Starts it as on a machine without Docker.
    fn start_in_shell(&mut self) {
        let secret = self.registered.oauth.secret.expose_secret().to_owned();
        self.start_in_shell_as(&secret);
    }

    fn start_in_shell_as(&mut self, secret: &str) {
        let (runner, oauth) = (&self.registered.runner, &self.registered.oauth);
        let place = self.machine.path();
        let mut command = Command::new(place.join("bin/start.sh"));
        command.args(["--accountUuid", ACCOUNT_UUID, "--runnerUuid", &runner.uuid]);
        if self.level == Scope::Repository {
            command.args(["--repositoryUuid", REPOSITORY_UUID]);
        }
        command.args(["--OAuthClientId", &oauth.id, "--OAuthClientSecret", secret]);
        command.args(["--runtime", "linux-shell", "--workingDirectory", "../temp"]);
        let log = File::create(self.log_file()).unwrap();
        command.current_dir(place.join("bin")).stderr(log.try_clone().unwrap()).stdout(log);
        self.child = Some(command.spawn().unwrap());
    }

    fn docker(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.machine.path().join("docker"));
        command.args(words);
        command
    }

    /// Starts it as a container, its secret not among the arguments.
    fn start_in_docker(&self) {
        let (runner, oauth) = (&self.registered.runner, &self.registered.oauth);
        let mut command = self.docker(&["container", "run", "-d", "-v", "/tmp:/tmp", "--name", "runner"]);
        let variables = [
            ("ACCOUNT_UUID", ACCOUNT_UUID),
            ("REPOSITORY_UUID", REPOSITORY_UUID),
            ("RUNNER_UUID", &runner.uuid),
            ("OAUTH_CLIENT_ID", &oauth.id),
            ("RUNTIME_PREREQUISITES_ENABLED", "true"),
            ("WORKING_DIRECTORY", self.machine.path().to_str().unwrap()),
        ];
        for (name, value) in variables {
            command.arg("-e").arg(format!("{name}={value}"));
        }
        command.args(["-e", "OAUTH_CLIENT_SECRET"]).env("OAUTH_CLIENT_SECRET", oauth.secret.expose_secret());
        command.arg("docker-public.packages.atlassian.com/sox/atlassian/bitbucket-pipelines-runner:5.6.0");
        assert!(command.stdout(Stdio::null()).status().unwrap().success());
    }

    fn log_file(&self) -> PathBuf {
        self.machine.path().join("runner.log")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap()
    }

    /// What the agent's watch makes of the log so far.
    fn state(&self) -> RunnerState {
        let mut state = RunnerState::new(RUNNER_LIMITS, Instant::now());
        self.log().lines().for_each(|line| state.read_line(line, Instant::now()));
        state
    }

    async fn status(&self) -> RegistrationStatus {
        let uuid = &self.registered.runner.uuid;
        self.client.runner(self.level, uuid).await.unwrap().unwrap().status
    }

    async fn comes(&self, wanted: RegistrationStatus) {
        until(&format!("{wanted:?}"), async || (self.status().await == wanted).then_some(())).await;
    }

    /// Runs a pipeline of one step.
    async fn runs(&self, script: &[&str]) -> PipelineRun {
        self.fake.define_pipeline("train", &[StepDefinition::new("Train", &LABELS, script)]);
        let (pipeline, id) = ("train".into(), "id".into());
        let target = PipelineTarget::Branch { name: "main".into(), commit: None };
        let variables = vec![trainspot_bitbucket::PipelineVariable {
            key: "WORD".into(),
            value: "s3same".into(),
            secured: true,
        }];
        let run = NewPipelineRun { pipeline, target, variables, id };
        self.client.run_pipeline(&run).await.unwrap()
    }

    async fn step(&self, pipeline: &PipelineRun) -> PipelineStep {
        self.client.steps(&pipeline.uuid).await.unwrap().remove(0)
    }

    async fn ends(&self, pipeline: &PipelineRun) -> PipelineOutcome {
        let over = async || match self.client.pipeline(&pipeline.uuid).await.unwrap().progress {
            PipelineProgress::Over(outcome) => Some(outcome),
            _ => None,
        };
        until("the pipeline's end", over).await
    }

    /// The step's log, as it comes.
    async fn follow(&self, pipeline: &PipelineRun, wanted: &str) -> String {
        let step = self.step(pipeline).await;
        let mut text = String::new();
        until(wanted, async || {
            let tail = self.client.log_from(&pipeline.uuid, &step.uuid, text.len() as u64).await.unwrap();
            text.push_str(&String::from_utf8(tail.bytes).unwrap());
            text.contains(wanted).then(|| text.clone())
        })
        .await
    }

    fn terminate(&mut self) -> Option<i32> {
        let child = self.child.as_mut().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_child(child), rustix::process::Signal::TERM)
            .unwrap();
        child.wait().unwrap().code()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
        if self.machine.path().join("containers/runner").exists() {
            self.docker(&["rm", "-f", "runner"]).stdout(Stdio::null()).status().ok();
        }
    }
}

fn stand_in() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("test/fake-runner")
}

async fn until<T>(what: &str, mut happens: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(value) = happens().await {
            return value;
        }
        assert!(Instant::now() < end, "this did not come: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn phase_of(step: &PipelineStep, pipeline: &PipelineRun) -> Phase {
    Phase::Busy(StepId { pipeline: pipeline.uuid.clone(), step: step.uuid.clone() })
}

#[tokio::test]
async fn a_step_runs_on_a_runner_in_the_shell_and_its_log_is_followed() {
    for (level, behaviour) in [(Scope::Repository, "{}"), (Scope::Workspace, r#"{"log": 1}"#)] {
        let Some(mut scene) = Scene::new(level, behaviour).await else { return };
        scene.start_in_shell();
        scene.comes(RegistrationStatus::Online).await;
        assert_eq!(scene.state().phase(), &Phase::Idle);
        let script = [
            "echo \"epoch 1 $WORD $OAUTH_CLIENT_SECRET.\"",
            "until [ -e ../go ]; do sleep 0.05; done",
            "pwd",
        ];
        let pipeline = scene.runs(&script).await;
        assert_eq!(scene.follow(&pipeline, "\n").await, "epoch 1 s3same .\n");
        let state = scene.state();
        assert_eq!(state.phase(), &phase_of(&scene.step(&pipeline).await, &pipeline));
        assert_eq!(state.verdict(Instant::now()), Verdict::LastStep);
        fs::write(scene.machine.path().join("temp/go"), "").unwrap();
        assert_eq!(scene.ends(&pipeline).await, PipelineOutcome::Successful);
        assert!(scene.follow(&pipeline, "temp/build\n").await.starts_with("epoch 1"));
        until("the end of the step", async || (scene.state().phase() == &Phase::Idle).then_some(())).await;
        let later = Instant::now() + Duration::from_secs(11);
        assert_eq!(scene.state().verdict(later), Verdict::Leave(LeaveReason::SingleStep));
        assert_eq!(scene.terminate(), Some(143));
        scene.comes(RegistrationStatus::Offline).await;
        assert!(!scene.log().contains(scene.registered.oauth.secret.expose_secret()));
    }
}

#[tokio::test]
async fn a_step_runs_on_a_runner_in_docker() {
    let Some(scene) = Scene::new(Scope::Repository, "{}").await else { return };
    scene.start_in_docker();
    scene.comes(RegistrationStatus::Online).await;
    let pipeline = scene.runs(&["echo out", "exit 3", "echo never"]).await;
    assert_eq!(scene.ends(&pipeline).await, PipelineOutcome::Failed);
    assert_eq!(scene.follow(&pipeline, "out\n").await, "out\n");
    let logs = async || {
        let output = scene.docker(&["container", "logs", "runner"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let done = text
            .lines()
            .find_map(|line| Event::parse(line).filter(|event| matches!(event, Event::StepDone(_))));
        done.map(|done| (done, text.contains("Runner runtime: linux-docker")))
    };
    assert_eq!(until("the end of the step", logs).await, (Event::StepDone(false), true));
    assert!(scene.docker(&["rm", "-f", "runner"]).status().unwrap().success());
    scene.comes(RegistrationStatus::Offline).await;
}

#[tokio::test]
async fn a_stopped_pipeline_frees_the_runner() {
    let Some(mut scene) = Scene::new(Scope::Repository, "{}").await else { return };
    scene.start_in_shell();
    scene.comes(RegistrationStatus::Online).await;
    let pipeline = scene.runs(&["echo begun", "sleep 600"]).await;
    scene.follow(&pipeline, "begun").await;
    scene.client.stop_pipeline(&pipeline.uuid).await.unwrap();
    assert_eq!(scene.ends(&pipeline).await, PipelineOutcome::Stopped);
    until("an idle runner", async || (scene.state().phase() == &Phase::Idle).then_some(())).await;
    assert_eq!(scene.status().await, RegistrationStatus::Online);
}

#[tokio::test]
async fn a_machine_that_is_taken_away_fails_its_step() {
    let Some(mut scene) = Scene::new(Scope::Repository, "{}").await else { return };
    scene.start_in_shell();
    scene.comes(RegistrationStatus::Online).await;
    let pipeline = scene.runs(&["echo begun", "sleep 5"]).await;
    scene.follow(&pipeline, "begun").await;
    scene.child.as_mut().unwrap().kill().unwrap();
    scene.comes(RegistrationStatus::Offline).await;
    let PipelineProgress::Over(PipelineOutcome::Error(why)) = scene.step(&pipeline).await.progress else {
        panic!("an error")
    };
    assert_eq!(why, "The runner has gone offline.");
    // The log ends in the middle of the step: only the program's end says that it is over.
    let mut state = scene.state();
    assert!(matches!(state.phase(), Phase::Busy(_)));
    state.apply(Event::Exited(None), Instant::now());
    assert_eq!(state.verdict(Instant::now()), Verdict::Leave(LeaveReason::Exited));
}

#[tokio::test]
async fn a_disabled_runner_takes_no_step() {
    let Some(mut scene) = Scene::new(Scope::Repository, "{}").await else { return };
    scene.start_in_shell();
    scene.comes(RegistrationStatus::Online).await;
    assert!(scene.client.disable_runner(scene.level, &scene.registered.runner).await.unwrap());
    let pipeline = scene.runs(&["true"]).await;
    assert_eq!(scene.ends(&pipeline).await, PipelineOutcome::Error(String::new()));
    assert_eq!(scene.state().steps(), 0);
    assert_eq!(scene.status().await, RegistrationStatus::Disabled);
}

#[tokio::test]
async fn a_runner_that_cannot_come_online_says_why_in_its_log() {
    let Some(mut scene) = Scene::new(Scope::Repository, "{}").await else { return };
    scene.start_in_shell_as("another secret");
    assert_eq!(scene.child.as_mut().unwrap().wait().unwrap().code(), Some(1));
    let complaint = scene.state().complaint().unwrap().to_owned();
    assert!(complaint.contains("401"), "{complaint}");
    assert_eq!(scene.status().await, RegistrationStatus::Unregistered);
    let Some(mut scene) = Scene::new(Scope::Repository, r#"{"never_online": true}"#).await else { return };
    scene.start_in_shell();
    until("a complaint", async || scene.state().complaint().map(drop)).await;
    let late = Instant::now() + Duration::from_mins(20);
    assert_eq!(scene.state().verdict(late), Verdict::Leave(LeaveReason::NeverOnline));
}

#[tokio::test]
async fn an_update_and_bad_health_are_seen() {
    let Some(mut scene) = Scene::new(Scope::Repository, r#"{"update": true, "unhealthy": true}"#).await
    else {
        return;
    };
    scene.start_in_shell();
    until("an update", async || scene.log().contains("Updating runner to version").then_some(())).await;
    until("an idle runner", async || (scene.state().phase() == &Phase::Idle).then_some(())).await;
    let pipeline = scene.runs(&["true"]).await;
    assert_eq!(scene.ends(&pipeline).await, PipelineOutcome::Successful);
    scene.comes(RegistrationStatus::Unhealthy).await;
    assert_eq!(scene.state().verdict(Instant::now()), Verdict::Leave(LeaveReason::Unhealthy));
    assert!(scene.state().complaint().unwrap().contains("tearing down"));
}
