//! Self-hosted runners of the repository and of the workspace.
//!
//! Bitbucket's document describes no request bodies. Names need not be unique, and the secret is told once.

use super::{Call, Reply, bad_field, error, not_found};
use crate::state::{Runner, State};
use serde_json::{Value, json};

const TIME: &str = "2026-01-02T03:04:05.678901Z";
const LONGEST: usize = 50;
/// Ten of one's own, and Bitbucket's two.
const MOST_LABELS: usize = 12;
const MOST_RUNNERS: usize = 100;

impl State {
    pub(crate) fn register(&mut self, name: &str, labels: &[String], of_workspace: bool) -> &Runner {
        self.registered += 1;
        self.runners.push(Runner::new(self.registered, name, labels, of_workspace));
        self.runners.last().expect("the runner just added")
    }

    fn of(&mut self, of_workspace: bool) -> impl Iterator<Item = &mut Runner> {
        self.runners.iter_mut().filter(move |runner| runner.of_workspace == of_workspace)
    }
}

impl Call<'_> {
    pub(super) fn list_runners(&self, of_workspace: bool) -> Reply {
        let values: Vec<Value> = self.state().of(of_workspace).map(|runner| show(runner)).collect();
        self.page(&values)
    }

    pub(super) fn register_runner(&self, of_workspace: bool) -> Reply {
        let Some(name) = self.body["name"].as_str().filter(|name| !name.is_empty()) else {
            return bad_field("name", "This field is required.");
        };
        if name.chars().count() > LONGEST {
            return bad_field("name", "The name may have at most 50 characters.");
        }
        let labels: Vec<String> = serde_json::from_value(self.body["labels"].clone()).unwrap_or_default();
        if let Some(complaint) = complaint(&labels) {
            return bad_field("labels", complaint);
        }
        let mut state = self.state();
        if state.of(of_workspace).count() >= MOST_RUNNERS {
            return error(400, "The maximum number of runners has been reached.");
        }
        let runner = state.register(name, &labels, of_workspace);
        let mut shown = show(runner);
        shown["oauth_client"]["secret"] = json!(runner.oauth_secret);
        Reply::Json(200, shown)
    }

    pub(super) fn get_runner(&self, of_workspace: bool, uuid: &str) -> Reply {
        let mut state = self.state();
        let found = state.of(of_workspace).find(|runner| runner.uuid == uuid);
        found.map_or_else(not_found, |runner| Reply::Json(200, show(runner)))
    }

    pub(super) fn update_runner(&self, of_workspace: bool, uuid: &str) -> Reply {
        let mut state = self.state();
        let Some(runner) = state.of(of_workspace).find(|runner| runner.uuid == uuid) else {
            return not_found();
        };
        if let Some(name) = self.body["name"].as_str() {
            name.clone_into(&mut runner.name);
        }
        if let Some(status) = self.body["state"]["status"].as_str().filter(|_| self.shared.options.disables) {
            status.clone_into(&mut runner.status);
        }
        Reply::Json(200, show(runner))
    }

    pub(super) fn delete_runner(&self, of_workspace: bool, uuid: &str) -> Reply {
        let mut state = self.state();
        let before = state.runners.len();
        state.runners.retain(|runner| runner.of_workspace != of_workspace || runner.uuid != uuid);
        if state.runners.len() == before { not_found() } else { Reply::Empty(204) }
    }
}

/// What is wrong with a runner's labels.
fn complaint(labels: &[String]) -> Option<&'static str> {
    let fits = |label: &String| {
        let character = |character: char| matches!(character, 'a'..='z' | '0'..='9' | '.');
        !label.is_empty() && label.len() <= LONGEST && label.chars().all(character)
    };
    let has = |wanted: &str| labels.iter().any(|label| label == wanted);
    if !labels.iter().all(fits) {
        return Some("Labels can only contain lowercase, alphanumeric characters and dots.");
    }
    if labels.len() > MOST_LABELS {
        return Some("A runner can have at most 10 custom labels.");
    }
    let platform = ["linux", "linux.arm64", "linux.shell", "windows", "macos"].into_iter().any(has);
    (!has("self.hosted") || !platform)
        .then_some("A runner needs the label self.hosted and one of its platform.")
}

fn show(runner: &Runner) -> Value {
    json!({
        "type": "pipeline_runner",
        "uuid": runner.uuid,
        "name": runner.name,
        "labels": runner.labels,
        "state": {
            "type": "pipeline_runner_state",
            "status": runner.status,
            "version": { "type": "pipeline_runner_version", "current": "5.7.0" },
            "updated_on": TIME,
            "cordoned": false,
        },
        "created_on": TIME,
        "updated_on": TIME,
        "oauth_client": {
            "type": "pipeline_runner_oauth_client",
            "id": runner.oauth_id,
            "token_endpoint": "https://auth.example.com/oauth/token",
            "audience": "api.example.com",
        },
    })
}
