//! A step that rents a machine of the rig as a runner, with the stand-in for Atlassian's program on it.

use super::lab::{Lab, in_lab};
use super::step::{PIPELINE, Pipe, Step};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use fake_bitbucket::{ACCESS_TOKEN, ACCOUNT_UUID, Options, REPOSITORY_UUID, StepDefinition};
use serde_json::Value;
use std::time::{Duration, Instant};
use trainspot_bitbucket::{Client, Credential, NewPipelineRun, PipelineTarget};

/// No step, machine or runner takes as long for anything, however busy the host is.
pub(crate) const LONG: Duration = Duration::from_mins(10);
const ARCHIVE: &str = "https://example.com/runner.tar.gz";

const RUNNER: &str = include_str!("../fake-runner/runner.py");
const START: &str = include_str!("../fake-runner/start.sh");
const DOCKER: &str = include_str!("../fake-runner/docker");

/// What a machine lacks for Atlassian's runner: Docker, Java, git and curl, and the runner itself. Its
/// behaviour as there.
fn stand_in(step: &Step, behaviour: &Value) -> String {
    let address = step.scene.bitbucket.api_url().replace("/2.0", "");
    let file = |name: &str, text: &str| {
        format!("echo {} | base64 -d >{name} && chmod +x {name}\n", BASE64_STANDARD.encode(text))
    };
    let curl =
        format!("#!/bin/sh\ncase $* in *{ARCHIVE}) exec cat /opt/runner/archive ;; *) exit 22 ;; esac\n");
    [
        "mkdir -p /opt/runner/bin && cd /opt/runner\n".to_owned(),
        file("runner.py", RUNNER),
        file("bin/start.sh", START),
        file("address", &address),
        file("behaviour.json", &behaviour.to_string()),
        "tar -czf archive bin runner.py address behaviour.json\n".to_owned(),
        file("docker", DOCKER),
        "ln -s /opt/runner/docker /usr/local/bin/docker\n".to_owned(),
        file("/usr/local/bin/java", "#!/bin/sh\n"),
        file("/usr/local/bin/git", "#!/bin/sh\necho git version 2.43.0\n"),
        file("/usr/local/bin/curl", &curl),
    ]
    .concat()
}

/// A step that rents a runner of this type.
pub(crate) fn rental(lab: &Lab, kind: &str, behaviour: &Value) -> Step {
    // Where machines reach it, too; a runner that is silent is soon offline.
    let address = lab.address().parse().unwrap();
    let options = Options { address, silence: Duration::from_secs(3), ..Options::default() };
    let mut step = Step::with(lab, 0, 0.0, options);
    let script = stand_in(&step, behaviour);
    step.scene.set("ACTION", "runner").set("STARTUP_SCRIPT", &script);
    step.scene.set("RUNNER_TYPE", kind).set("RUNNER_LABELS", "gpu.train").set("RUNNER_IDLE_TIMEOUT", "3s");
    step.scene.set("BITBUCKET_REPO_OWNER_UUID", ACCOUNT_UUID).set("BITBUCKET_REPO_UUID", REPOSITORY_UUID);
    if kind == "shell" {
        step.scene.set("RUNNER_ARCHIVE", ARCHIVE);
    }
    step.scene.bitbucket.set_step(PIPELINE, &step.uuid(), "IN_PROGRESS");
    step
}

pub(crate) fn labels(kind: &str) -> [&str; 3] {
    ["self.hosted", if kind == "shell" { "linux.shell" } else { "linux" }, "gpu.train"]
}

impl Step {
    pub(crate) fn define(&self, kind: &str, scripts: &[&str]) {
        let steps = scripts.iter().enumerate();
        let steps =
            steps.map(|(n, script)| StepDefinition::new(&format!("Train {n}"), &labels(kind), &[script]));
        self.scene.bitbucket.define_pipeline("train", &steps.collect::<Vec<_>>());
    }

    /// Bitbucket, as somebody else sees it.
    pub(crate) fn client(&self) -> Client {
        let (bitbucket, token) = (&self.scene.bitbucket, Credential::AccessToken(ACCESS_TOKEN.into()));
        Client::new(&bitbucket.api_url(), bitbucket.workspace(), bitbucket.slug(), token).unwrap()
    }

    /// Runs the custom pipeline as somebody else would.
    pub(crate) async fn trigger(&self, id: &str) -> String {
        let (pipeline, id) = ("train".into(), id.into());
        let target = PipelineTarget::Branch { name: "main".into(), commit: None };
        self.client()
            .run_pipeline(&NewPipelineRun { pipeline, target, variables: Vec::new(), id })
            .await
            .unwrap()
            .uuid
    }

    /// The results of a pipeline's steps so far, as `SUCCESSFUL`, or their states.
    pub(crate) fn results(&self, pipeline: &str) -> Vec<String> {
        let steps = self.scene.bitbucket.steps().into_iter();
        let steps = steps.filter(|step| step.pipeline == pipeline);
        steps.map(|step| step.result.unwrap_or(step.state)).collect()
    }

    pub(crate) async fn comes(&self, pipeline: &str, results: &[&str]) {
        let what = format!("{results:?}");
        until(&what, async || self.results(pipeline) == results).await;
    }

    /// What is left at EC2 of this step, and how many runners at Bitbucket.
    pub(crate) async fn left(&self, lab: &Lab) -> (usize, usize) {
        (self.leftovers(lab).await.len(), self.scene.bitbucket.runners().len())
    }

    /// Sweeps as the `final` step of the pipeline that rents, or as another one's.
    pub(crate) async fn sweep(&mut self, pipeline: &str) -> Pipe {
        let bitbucket = &self.scene.bitbucket;
        let (renting, sweeping) = (self.uuid(), "{33333333-3333-3333-3333-333333333333}");
        bitbucket.set_step(PIPELINE, &renting, "COMPLETED");
        bitbucket.set_step(pipeline, sweeping, "IN_PROGRESS");
        self.scene.set("ACTION", "sweep").set("BITBUCKET_PIPELINE_UUID", pipeline);
        self.scene.set("BITBUCKET_STEP_UUID", sweeping);
        let mut pipe = self.run().await;
        pipe.expect(0, "a sweep").await;
        let step = self.uuid();
        self.scene.set("ACTION", "runner").set("BITBUCKET_PIPELINE_UUID", PIPELINE);
        self.scene.set("BITBUCKET_STEP_UUID", &step);
        pipe
    }
}

/// Runs a test of each of these cases at the same time, in one lab.
pub(crate) fn each_at_once<T: Copy>(cases: [T; 2], test: &impl AsyncFn(&Lab, T)) {
    in_lab(async |lab: &Lab| {
        tokio::join!(test(lab, cases[0]), test(lab, cases[1]));
        lab.assert_nothing_left().await;
    });
}

pub(crate) async fn until(what: &str, happens: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !happens().await {
        assert!(start.elapsed() < LONG, "this did not come: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
