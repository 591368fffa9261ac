//! What tests do to pipelines and runners, and see of them.

use crate::FakeBitbucket;
use crate::lock;
use crate::state::{Pipeline, Runner, Step, StepDefinition};

impl FakeBitbucket {
    /// Lets Pipelines have a step in this state, by the ids of its pipeline and its own, in braces.
    pub fn set_step(&self, pipeline: &str, id: &str, state: &str) {
        let mut known = lock(&self.shared.state);
        known.steps.retain(|step| step.pipeline != pipeline || step.id != id);
        let (pipeline, id, state) = (pipeline.into(), id.into(), state.into());
        known.steps.push(Step { pipeline, id, state, ..Step::default() });
    }

    /// Lets a step run that began at this moment, `2026-01-02T03:04:05.678Z`, by the ids of its pipeline and
    /// its own.
    pub fn begin_step(&self, pipeline: &str, id: &str, name: &str, moment: &str) {
        self.set_step(pipeline, id, "IN_PROGRESS");
        let begin = |step: &mut Step| (step.name, step.started) = (name.into(), Some(moment.into()));
        self.with_step(id, begin);
    }

    /// Defines a custom pipeline, as the repository's `bitbucket-pipelines.yml` would.
    pub fn define_pipeline(&self, name: &str, steps: &[StepDefinition]) {
        lock(&self.shared.state).definitions.insert(name.into(), steps.into());
    }

    /// Every pipeline that was started, oldest first.
    pub fn pipelines(&self) -> Vec<Pipeline> {
        lock(&self.shared.state).pipelines.clone()
    }

    /// Every step, in the order of its pipelines.
    pub fn steps(&self) -> Vec<Step> {
        let mut state = lock(&self.shared.state);
        state.advance(self.shared.options.silence);
        state.steps.clone()
    }

    /// Ends a step, by its id, as `SUCCESSFUL`, `FAILED` or otherwise.
    pub fn end_step(&self, id: &str, result: &str) {
        self.with_step(id, |step| step.end(result, None));
    }

    /// Adds to a step's log, by its id.
    pub fn write_log(&self, id: &str, bytes: &[u8]) {
        self.with_step(id, |step| step.log.extend_from_slice(bytes));
    }

    fn with_step(&self, id: &str, change: impl FnOnce(&mut Step)) {
        let mut state = lock(&self.shared.state);
        change(state.steps.iter_mut().find(|step| step.id == id).expect("the step to change"));
        state.advance(self.shared.options.silence);
    }

    /// Every runner that is registered, oldest first.
    pub fn runners(&self) -> Vec<Runner> {
        let mut state = lock(&self.shared.state);
        state.advance(self.shared.options.silence);
        state.runners.clone()
    }

    /// Registers a runner as somebody else would, and returns its id.
    pub fn add_runner(&self, name: &str, labels: &[&str], of_workspace: bool) -> String {
        let labels: Vec<String> = labels.iter().map(ToString::to_string).collect();
        lock(&self.shared.state).register(name, &labels, of_workspace).uuid.clone()
    }

    /// Lets a runner have this status, by its id. It stays `ONLINE` for as long as a runner may be silent.
    pub fn set_runner(&self, uuid: &str, status: &str) {
        let mut state = lock(&self.shared.state);
        let runner = state.runners.iter_mut().find(|runner| runner.uuid == uuid).expect("the runner to set");
        (runner.status, runner.heard) = (status.into(), std::time::Instant::now());
        state.advance(self.shared.options.silence);
    }
}
