//! Pipelines, their steps, and their logs.

use super::{Call, Reply, error};
use crate::BareRepository;
use crate::state::{Pipeline, State, Step, Variable};
use serde_json::{Value, json};

const TIME: &str = "2026-01-02T03:04:05.678Z";

impl Call<'_> {
    /// Oldest first unless asked otherwise; `q` is ignored.
    pub(super) fn list_pipelines(&self) -> Reply {
        let wanted = |name: &str, value: &str| self.parameter(name).is_none_or(|wanted| wanted == value);
        let state = self.state();
        let fits = |pipeline: &&Pipeline| {
            wanted("target.selector.pattern", &pipeline.pattern) && wanted("target.selector.type", "custom")
        };
        let mut values: Vec<Value> =
            state.pipelines.iter().filter(fits).map(|pipeline| show(&state, pipeline)).collect();
        if self.parameter("sort") == Some("-created_on") {
            values.reverse();
        }
        self.page(&values)
    }

    pub(super) fn run_pipeline(&self) -> Reply {
        let target = &self.body["target"];
        let branch = target["ref_name"].as_str().unwrap_or_default();
        let commit = target["commit"]["hash"].as_str();
        let repository = self.shared.options.repository.as_deref().map(BareRepository::open);
        match (target["type"].as_str(), commit) {
            (Some("pipeline_ref_target"), _) => {
                if repository.is_some_and(|repository| repository.head(branch).is_none()) {
                    return error(404, &format!("Could not find last reference for branch {branch}"));
                }
            }
            (Some("pipeline_commit_target"), Some(hash)) if target["ref_name"].is_null() => {
                if repository.is_some_and(|repository| !repository.has_commit(hash)) {
                    return error(404, &format!("Could not find the commit {hash}"));
                }
            }
            _ => return error(400, "Invalid pipeline target"),
        }
        let pattern = target["selector"]["pattern"].as_str().unwrap_or_default();
        let mut state = self.state();
        let Some(definitions) = state.definitions.get(pattern).cloned() else {
            let detail = "Requested selector is not found in bitbucket-pipelines.yml.";
            let error = json!({ "message": "Bad request", "detail": detail });
            return Reply::Json(400, json!({ "type": "error", "error": error }));
        };
        let number = state.pipelines.len() as u64 + 1;
        let pipeline = Pipeline {
            uuid: format!("{{00000000-0000-4000-9000-{number:012}}}"),
            number,
            pattern: pattern.into(),
            branch: branch.into(),
            commit: commit.map(str::to_owned),
            variables: self.body["variables"].as_array().into_iter().flatten().map(variable).collect(),
        };
        let steps = definitions.iter().enumerate();
        state.steps.extend(steps.map(|(place, definition)| Step::new(&pipeline, place, definition)));
        // As it is now: what a runner that is not there does to its steps is seen later.
        let shown = show(&state, &pipeline);
        state.pipelines.push(pipeline);
        Reply::Json(201, shown)
    }

    pub(super) fn get_pipeline(&self, id: &str) -> Reply {
        let state = self.state();
        let found = state.pipelines.iter().find(|pipeline| pipeline.uuid == id);
        found.map_or_else(nowhere, |pipeline| Reply::Json(200, show(&state, pipeline)))
    }

    pub(super) fn stop_pipeline(&self, id: &str) -> Reply {
        let mut state = self.state();
        if !state.pipelines.iter().any(|pipeline| pipeline.uuid == id) {
            return nowhere();
        }
        if state.progress(id).0 == "COMPLETED" {
            return error(400, "The pipeline has already completed.");
        }
        for step in state.steps.iter_mut().filter(|step| step.pipeline == id && !step.is_over()) {
            step.end("STOPPED", None);
        }
        Reply::Empty(204)
    }

    pub(super) fn list_steps(&self, pipeline: &str) -> Reply {
        let state = self.state();
        let steps = state.steps.iter().filter(|step| step.pipeline == pipeline);
        let values: Vec<Value> = steps.map(show_step).collect();
        drop(state);
        self.page(&values)
    }

    pub(super) fn get_step(&self, pipeline: &str, id: &str) -> Reply {
        let state = self.state();
        let found = state.steps.iter().find(|step| step.pipeline == pipeline && step.id == id);
        found.map_or_else(|| error(404, "Step not found"), |step| Reply::Json(200, show_step(step)))
    }

    /// A running step's log from here; one of a step that is over from elsewhere, as Bitbucket does it.
    pub(super) fn get_log(&self, pipeline: &str, id: &str) -> Reply {
        if self.accept.is_some_and(|accept| !accept.contains("*/*") && !accept.contains("octet-stream")) {
            return error(406, "Not acceptable");
        }
        let state = self.state();
        let found = state.steps.iter().find(|step| step.pipeline == pipeline && step.id == id);
        match found.filter(|step| !step.log.is_empty()) {
            None => error(404, &format!("Log in step {id} does not exist.")),
            Some(step) if step.is_over() => {
                Reply::Moved(format!("http://{}/storage/{id}?signature=fake", self.shared.address))
            }
            Some(step) => Reply::Log(step.log.clone()),
        }
    }
}

fn nowhere() -> Reply {
    error(404, "Pipeline not found")
}

fn variable(sent: &Value) -> Variable {
    let text = |name: &str| sent[name].as_str().unwrap_or_default().to_owned();
    Variable { key: text("key"), value: text("value"), secured: sent["secured"] == true }
}

fn show(state: &State, pipeline: &Pipeline) -> Value {
    let (name, result) = state.progress(&pipeline.uuid);
    let mut target = match pipeline.branch.as_str() {
        "" => json!({ "type": "pipeline_commit_target" }),
        branch => json!({ "type": "pipeline_ref_target", "ref_type": "branch", "ref_name": branch }),
    };
    target["selector"] = json!({ "type": "custom", "pattern": pipeline.pattern });
    if let Some(hash) = &pipeline.commit {
        target["commit"] = json!({ "type": "commit", "hash": hash });
    }
    json!({
        "type": "pipeline",
        "uuid": pipeline.uuid,
        "build_number": pipeline.number,
        "target": target,
        "state": show_state("pipeline_state", name, result.as_deref(), None),
        "variables": pipeline.variables.iter().map(show_variable).collect::<Vec<_>>(),
        "created_on": TIME,
    })
}

fn show_variable(variable: &Variable) -> Value {
    let mut shown = json!({ "type": "pipeline_variable", "key": variable.key, "secured": variable.secured });
    if !variable.secured {
        shown["value"] = json!(variable.value);
    }
    shown
}

fn show_step(step: &Step) -> Value {
    let state = show_state("pipeline_step_state", &step.state, step.result.as_deref(), step.error.as_deref());
    let mut shown = json!({ "type": "pipeline_step", "uuid": step.id, "name": step.name, "state": state });
    if let Some(started) = &step.started {
        shown["started_on"] = json!(started);
    }
    shown
}

fn show_state(kind: &str, name: &str, result: Option<&str>, why: Option<&str>) -> Value {
    let mut shown = json!({ "type": format!("{kind}_{}", name.to_lowercase()), "name": name });
    if let Some(result) = result {
        let kind = format!("{kind}_completed_{}", result.to_lowercase());
        shown["result"] = json!({ "type": kind, "name": result });
        if let Some(why) = why {
            let kind = "pipeline_step_error";
            shown["result"]["error"] = json!({ "type": kind, "key": "fake.error", "message": why });
        }
    } else if name == "IN_PROGRESS" && kind == "pipeline_state" {
        let kind = "pipeline_state_in_progress_running";
        shown["stage"] = json!({ "type": kind, "name": "RUNNING" });
    }
    shown
}
