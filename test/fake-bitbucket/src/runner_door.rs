//! The door for runners' own programs.
//!
//! Atlassian's runner speaks to services that are not public; what it needs of them is here in the smallest
//! form that `test/fake-runner` can use: `/runner/<account>/<repository or
//! ->/<runner>/{state,step,log,result}`, authorised by the runner's OAuth id and secret. Logs of steps that
//! are over are here too, at addresses that are permissions themselves.

use crate::Shared;
use crate::body::{self, Body};
use crate::lock;
use crate::state::{State, Step};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hyper::Response;
use hyper::header::{AUTHORIZATION, RANGE};
use hyper::http::request::Parts;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use std::time::Instant;

/// The workspace's id.
pub const ACCOUNT_UUID: &str = "{00000000-0000-4000-b000-000000000001}";
/// The repository's id.
pub const REPOSITORY_UUID: &str = "{00000000-0000-4000-b000-000000000002}";

pub(crate) fn answer(shared: &Shared, head: &Parts, body: &Bytes) -> Response<Body> {
    let path = percent_decode_str(head.uri.path()).decode_utf8_lossy().into_owned();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let mut state = lock(&shared.state);
    state.advance(shared.options.silence);
    match *segments {
        ["storage", step] => stored(&state, head, step),
        ["runner", account, repository, uuid, verb] => {
            if !is_known(&state, head, [account, repository, uuid]) {
                return plain(401, "The runner's ids, OAuth id or secret are wrong.");
            }
            act(&mut state, uuid, (head.method.as_str(), verb), body, shared)
        }
        _ => plain(404, "Not found"),
    }
}

/// Whether a runner is who it says it is. A workspace's runner names no repository.
fn is_known(state: &State, head: &Parts, [account, repository, uuid]: [&str; 3]) -> bool {
    let given = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    state.runners.iter().any(|runner| {
        let credentials = BASE64_STANDARD.encode(format!("{}:{}", runner.oauth_id, runner.oauth_secret));
        let belongs = if runner.of_workspace { "-" } else { REPOSITORY_UUID };
        [&*runner.uuid, belongs, ACCOUNT_UUID] == [uuid, repository, account]
            && given == Some(&*format!("Basic {credentials}"))
    })
}

fn act(state: &mut State, uuid: &str, call: (&str, &str), body: &Bytes, shared: &Shared) -> Response<Body> {
    let runner =
        state.runners.iter_mut().find(|runner| runner.uuid == uuid).expect("the runner that was found");
    runner.heard = Instant::now();
    let step = runner.step.clone();
    match call {
        ("PUT", "state") => {
            let sent: Value = serde_json::from_slice(body).unwrap_or_default();
            // Whoever disabled it did so for good.
            if runner.status != "DISABLED" {
                runner.status = sent["status"].as_str().unwrap_or("ONLINE").into();
            }
            plain(204, "")
        }
        ("GET", "step") => next_step(state, uuid, shared),
        ("POST", "log" | "result") => {
            let step = state.steps.iter_mut().find(|other| Some(&other.id) == step.as_ref());
            match step.filter(|step| !step.is_over()) {
                // Stopped meanwhile: the runner is to kill it.
                None => {
                    forget_step(state, uuid);
                    plain(410, "The step is over.")
                }
                Some(step) if call.1 == "log" => {
                    step.log.extend_from_slice(body);
                    plain(204, "")
                }
                Some(step) => {
                    step.end(if &body[..] == b"PASSED" { "SUCCESSFUL" } else { "FAILED" }, None);
                    forget_step(state, uuid);
                    plain(204, "")
                }
            }
        }
        _ => plain(404, "Not found"),
    }
}

fn forget_step(state: &mut State, uuid: &str) {
    for runner in state.runners.iter_mut().filter(|runner| runner.uuid == uuid) {
        runner.step = None;
    }
}

fn next_step(state: &mut State, uuid: &str, shared: &Shared) -> Response<Body> {
    let Some(step) = state.assign(uuid).cloned() else { return plain(204, "") };
    let pipeline = state.pipelines.iter().find(|pipeline| pipeline.uuid == step.pipeline);
    let mut environment = Map::new();
    for variable in pipeline.into_iter().flat_map(|pipeline| &pipeline.variables) {
        environment.insert(variable.key.clone(), json!(variable.value));
    }
    for (name, value) in variables(&step, shared) {
        environment.insert(name.into(), json!(value));
    }
    let told = json!({
        "pipeline": step.pipeline, "step": step.id, "script": step.script, "environment": environment,
    });
    plain(200, &told.to_string())
}

fn variables(step: &Step, shared: &Shared) -> [(&'static str, String); 7] {
    [
        ("CI", "true".into()),
        ("BITBUCKET_WORKSPACE", shared.options.workspace.clone()),
        ("BITBUCKET_REPO_SLUG", shared.options.slug.clone()),
        ("BITBUCKET_REPO_OWNER_UUID", ACCOUNT_UUID.into()),
        ("BITBUCKET_REPO_UUID", REPOSITORY_UUID.into()),
        ("BITBUCKET_PIPELINE_UUID", step.pipeline.clone()),
        ("BITBUCKET_STEP_UUID", step.id.clone()),
    ]
}

/// A log in long-term storage, which refuses a request that is authorised twice.
fn stored(state: &State, head: &Parts, step: &str) -> Response<Body> {
    if head.headers.contains_key(AUTHORIZATION) || head.uri.query() != Some("signature=fake") {
        return plain(400, "Only one auth mechanism allowed");
    }
    let found = state.steps.iter().find(|other| other.id == step);
    found.map_or_else(|| plain(404, "NoSuchKey"), |step| ranged(&step.log, head))
}

/// The part of a log that a request asks for.
pub(crate) fn ranged(log: &[u8], head: &Parts) -> Response<Body> {
    let range = head.headers.get(RANGE).and_then(|range| range.to_str().ok());
    let Some((start, end)) = range.and_then(|range| bounds(range, log.len())) else {
        return Response::builder().body(body::full(log.to_vec())).expect("a valid answer");
    };
    if start >= log.len() {
        return plain(416, "The requested range cannot be satisfied.");
    }
    let place = format!("bytes {start}-{end}/{}", log.len());
    let response = Response::builder().status(206).header("Content-Range", place);
    response.body(body::full(log[start..=end].to_vec())).expect("a valid answer")
}

fn bounds(range: &str, length: usize) -> Option<(usize, usize)> {
    let (start, end) = range.strip_prefix("bytes=")?.split_once('-')?;
    let last = length.saturating_sub(1);
    Some((start.parse().ok()?, end.parse().map_or(last, |end: usize| end.min(last))))
}

fn plain(status: u16, text: &str) -> Response<Body> {
    Response::builder().status(status).body(body::full(text.to_owned())).expect("a valid answer")
}
