//! Pipelines, their steps, and which runner gets which.

use super::{Runner, State};
use std::time::Duration;

/// A step as `bitbucket-pipelines.yml` defines it.
#[derive(Clone, Debug)]
pub struct StepDefinition {
    /// Its name.
    pub name: String,
    /// Its `runs-on`; empty for a step that Bitbucket itself runs, which a test brings to its end.
    pub runs_on: Vec<String>,
    /// Its script.
    pub script: Vec<String>,
}

impl StepDefinition {
    /// A step for runners with these labels.
    #[must_use]
    pub fn new(name: &str, runs_on: &[&str], script: &[&str]) -> Self {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        Self { name: name.into(), runs_on: owned(runs_on), script: owned(script) }
    }
}

/// A run of a custom pipeline.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// Its id, in braces.
    pub uuid: String,
    /// Its number in the repository, from 1.
    pub number: u64,
    /// The custom pipeline's name.
    pub pattern: String,
    /// The branch that it runs on; empty for a commit alone.
    pub branch: String,
    /// The commit, where one was asked for.
    pub commit: Option<String>,
    /// Its variables.
    pub variables: Vec<Variable>,
}

/// A variable of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Whether the value is for the steps only.
    pub secured: bool,
}

/// A step of a pipeline.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// The pipeline's id, in braces.
    pub pipeline: String,
    /// Its own id, in braces.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `PENDING`, `IN_PROGRESS` or `COMPLETED`.
    pub state: String,
    /// `SUCCESSFUL`, `FAILED`, `ERROR`, `STOPPED` or `NOT_RUN`, of one that is over.
    pub result: Option<String>,
    /// Why Bitbucket could not run it.
    pub error: Option<String>,
    /// When it began, as Bitbucket writes moments.
    pub started: Option<String>,
    /// Its log so far.
    pub log: Vec<u8>,
    /// The id of the runner that has it, or had it.
    pub runner: Option<String>,
    pub(crate) runs_on: Vec<String>,
    pub(crate) script: Vec<String>,
}

impl Step {
    /// The `place`th step of a pipeline.
    pub(crate) fn new(pipeline: &Pipeline, place: usize, definition: &StepDefinition) -> Self {
        Self {
            pipeline: pipeline.uuid.clone(),
            id: format!("{{00000000-0000-4000-a000-{:06}{place:06}}}", pipeline.number),
            name: definition.name.clone(),
            state: "PENDING".into(),
            runs_on: definition.runs_on.clone(),
            script: definition.script.clone(),
            ..Self::default()
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state == "COMPLETED"
    }

    pub(crate) fn end(&mut self, result: &str, error: Option<&str>) {
        (self.state, self.result) = ("COMPLETED".into(), Some(result.into()));
        self.error = error.map(str::to_owned);
    }
}

impl State {
    /// A pipeline's state and, once it is over, its result: what its steps come to.
    pub(crate) fn progress(&self, pipeline: &str) -> (&'static str, Option<String>) {
        let steps = || self.steps.iter().filter(|step| step.pipeline == pipeline);
        if steps().all(Step::is_over) {
            let bad = steps().filter_map(|step| step.result.clone()).find(|result| result != "SUCCESSFUL");
            return ("COMPLETED", Some(bad.unwrap_or_else(|| "SUCCESSFUL".into())));
        }
        let begun = steps().any(|step| step.state != "PENDING");
        (if begun { "IN_PROGRESS" } else { "PENDING" }, None)
    }

    /// Lets time have its effects: silent runners go offline, their steps fail, and the next steps begin.
    pub(crate) fn advance(&mut self, silence: Duration) {
        for runner in self.runners.iter_mut().filter(|runner| runner.is_silent(silence)) {
            runner.status = "OFFLINE".into();
        }
        self.lose_steps();
        let pipelines: Vec<String> = self.pipelines.iter().map(|pipeline| pipeline.uuid.clone()).collect();
        for pipeline in &pipelines {
            self.begin_next(pipeline);
        }
    }

    /// Ends the steps of runners that are gone.
    fn lose_steps(&mut self) {
        let gone = |id: &String, runners: &[Runner]| {
            let runner = runners.iter().find(|runner| runner.uuid == *id);
            runner.is_none_or(|runner| runner.status == "OFFLINE")
        };
        for step in self.steps.iter_mut().filter(|step| step.state == "IN_PROGRESS") {
            if step.runner.as_ref().is_some_and(|id| gone(id, &self.runners)) {
                step.end("ERROR", Some("The runner has gone offline."));
            }
        }
        for runner in self.runners.iter_mut().filter(|runner| runner.status == "OFFLINE") {
            runner.step = None;
        }
    }

    /// Looks at the first step of a pipeline that is not over.
    fn begin_next(&mut self, pipeline: &str) {
        let mut steps = self.steps.iter_mut().filter(|step| step.pipeline == pipeline);
        let mut failed = false;
        for step in steps.by_ref() {
            if failed && !step.is_over() {
                step.end("NOT_RUN", None);
            }
            failed |= step.is_over() && step.result.as_deref() != Some("SUCCESSFUL");
            if step.is_over() {
                continue;
            }
            if step.state == "PENDING" && step.runs_on.is_empty() {
                step.state = "IN_PROGRESS".into();
            }
            // The rule that makes renting a runner in the step before worth its while.
            if step.state == "PENDING" && !self.runners.iter().any(|runner| runner.takes(&step.runs_on)) {
                let labels = step.runs_on.join(", ");
                let why = format!("There are no active runners that match the labels: {labels}.");
                step.end("ERROR", Some(&why));
                failed = true;
                continue;
            }
            return;
        }
    }

    /// Gives a runner the first step that it may have.
    pub(crate) fn assign(&mut self, uuid: &str) -> Option<&Step> {
        let runner = self.runners.iter_mut().find(|runner| runner.uuid == uuid)?;
        if runner.step.is_some() {
            return None;
        }
        let mut begun: Vec<&str> = Vec::new();
        let place = self.steps.iter().position(|step| {
            // Of a pipeline only the first step that is not over.
            let first = !begun.contains(&&*step.pipeline);
            if !step.is_over() {
                begun.push(&step.pipeline);
            }
            first && step.state == "PENDING" && !step.runs_on.is_empty() && runner.takes(&step.runs_on)
        })?;
        let step = &mut self.steps[place];
        (step.state, step.runner) = ("IN_PROGRESS".into(), Some(uuid.into()));
        runner.step = Some(step.id.clone());
        Some(step)
    }
}
