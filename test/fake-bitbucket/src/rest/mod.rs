//! The REST API 2.0: authorisation, routing, pages and errors.

mod commits;
mod pipelines;
mod pull_requests;
mod repository;
mod runners;

use crate::Shared;
use crate::auth;
use crate::body::{self, Body};
use crate::lock;
use crate::runner_door;
use crate::server::Door;
use crate::state::State;
use bytes::Bytes;
use hyper::Response;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION};
use hyper::http::request::Parts;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use std::sync::MutexGuard;

/// A call on its way through the routes.
struct Call<'a> {
    shared: &'a Shared,
    /// What links start with, such as `http://api.bitbucket.org/2.0`.
    base: &'a str,
    path: &'a str,
    query: Vec<(String, String)>,
    body: Value,
    accept: Option<&'a str>,
    /// Whether a token is what lets the call in, with its scopes.
    with_token: bool,
    /// The `uuid` of who calls.
    author: &'static str,
}

enum Reply {
    Json(u16, Value),
    /// What the service in front of Bitbucket says when it refuses a request by itself.
    Html(u16, &'static str),
    /// Success, without a word.
    Empty(u16),
    /// It is at another address.
    Moved(String),
    /// A log, whole: what was asked of it is cut out later.
    Log(Vec<u8>),
}

pub(crate) fn answer(shared: &Shared, door: Door, head: &Parts, base: &str, body: &Bytes) -> Response<Body> {
    let path = head.uri.path();
    let reply = if auth::rest(&head.headers, door, path) {
        let query = query(head.uri.query().unwrap_or_default());
        let body = serde_json::from_slice(body).unwrap_or_default();
        let accept = head.headers.get(ACCEPT).and_then(|value| value.to_str().ok());
        let with_token = head.headers.contains_key(AUTHORIZATION);
        let author = auth::author(&head.headers);
        Call { shared, base, path, query, body, accept, with_token, author }.route(head.method.as_str())
    } else {
        error(401, "Token is invalid, expired, or not supported for this endpoint.")
    };
    let check = |status, value: &Value| {
        if let Some(contract) = shared.contract {
            let found = contract.answer(head.method.as_str(), path, status, value);
            lock(&shared.violations).extend(found.into_iter().map(|found| format!("the fake: {found}")));
        }
    };
    let (status, header, text) = match reply {
        Reply::Html(status, text) => (status, (CONTENT_TYPE, "text/html".to_owned()), text.to_owned()),
        Reply::Json(status, value) => {
            check(status, &value);
            (status, (CONTENT_TYPE, "application/json".to_owned()), value.to_string())
        }
        Reply::Empty(status) => {
            check(status, &Value::Null);
            return Response::builder()
                .status(status)
                .body(body::full(""))
                .expect("an answer without a body");
        }
        Reply::Moved(place) => {
            check(307, &Value::Null);
            (307, (LOCATION, place), String::new())
        }
        Reply::Log(log) => {
            check(200, &Value::Null);
            return runner_door::ranged(&log, head);
        }
    };
    let mut response = Response::builder().status(status).header(header.0, header.1);
    if shared.options.tells_scopes && head.headers.contains_key(AUTHORIZATION) {
        response = response.header("X-OAuth-Scopes", shared.options.scopes.join(", "));
    }
    response.body(body::full(text)).expect("a valid answer of the fake")
}

impl Call<'_> {
    fn route(&self, method: &str) -> Reply {
        let decoded = |segment| percent_decode_str(segment).decode_utf8_lossy().into_owned();
        let segments: Vec<String> = self.path.split('/').skip(2).map(decoded).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let options = &self.shared.options;
        let rest = match &*segments {
            ["repositories", workspace, slug, rest @ ..]
                if *workspace == options.workspace && *slug == options.slug =>
            {
                rest
            }
            ["repositories", workspace, slug, ..] => {
                return error(404, &format!("Repository {workspace}/{slug} not found"));
            }
            ["workspaces", workspace, "pipelines-config", "runners", rest @ ..]
                if *workspace == options.workspace =>
            {
                if let Some(refusal) = self.out_of_scope(method, &segments[2..]) {
                    return refusal;
                }
                return self.runners(method, true, rest);
            }
            _ => return error(404, "Resource not found"),
        };
        if let Some(refusal) = self.out_of_scope(method, rest) {
            return refusal;
        }
        match (method, rest) {
            (_, ["pipelines-config", "runners", rest @ ..]) => self.runners(method, false, rest),
            ("GET", []) => self.get_repository(),
            ("GET", ["refs", "branches", name]) => self.get_branch(name),
            ("GET", ["effective-default-reviewers"]) => self.list_default_reviewers(),
            ("GET", ["pullrequests"]) => self.list_pull_requests(),
            ("POST", ["pullrequests"]) => self.open_pull_request(),
            ("GET", ["pullrequests", id]) => self.get_pull_request(id),
            ("PUT", ["pullrequests", id]) => self.update_pull_request(id),
            ("GET", ["pullrequests", id, "comments"]) => self.list_comments(id),
            ("POST", ["pullrequests", id, "comments"]) => self.add_comment(id),
            ("PUT", ["pullrequests", _, "comments", id]) => self.update_comment(id),
            ("POST", ["commit", commit, "statuses", "build"]) => self.set_status(commit),
            ("PUT", ["commit", commit, "reports", id]) => self.put_report(commit, id),
            // Reports of both exist for GET. For POST nobody has told of success without the slash.
            ("GET", ["pipelines"] | ["pipelines", ""]) => self.list_pipelines(),
            ("POST", ["pipelines", ""]) => self.run_pipeline(),
            ("POST", ["pipelines"]) => error(404, "Resource not found: There is no API hosted at this URL."),
            ("GET", ["pipelines", pipeline]) => self.get_pipeline(pipeline),
            ("POST", ["pipelines", pipeline, "stopPipeline"]) => self.stop_pipeline(pipeline),
            ("GET", ["pipelines", pipeline, "steps"]) => self.list_steps(pipeline),
            ("GET", ["pipelines", pipeline, "steps", step]) => self.get_step(pipeline, step),
            ("GET", ["pipelines", pipeline, "steps", step, "log"]) => self.get_log(pipeline, step),
            _ => error(404, "Resource not found"),
        }
    }

    /// The refusal of a call that the token's scopes do not allow.
    fn out_of_scope(&self, method: &str, rest: &[&str]) -> Option<Reply> {
        let needed = auth::needed(method, rest).filter(|_| self.with_token)?;
        let refused = !auth::suffices(&self.shared.options.scopes, needed);
        refused.then(|| error(403, "Your credentials lack one or more required privilege scopes."))
    }

    fn runners(&self, method: &str, of_workspace: bool, rest: &[&str]) -> Reply {
        match (method, rest) {
            ("GET", []) => self.list_runners(of_workspace),
            ("POST", []) => self.register_runner(of_workspace),
            ("GET", [uuid]) => self.get_runner(of_workspace, uuid),
            ("PUT", [uuid]) => self.update_runner(of_workspace, uuid),
            ("DELETE", [uuid]) => self.delete_runner(of_workspace, uuid),
            _ => error(404, "Resource not found"),
        }
    }

    /// What Bitbucket knows, with what time has done to runners and pipelines since it was last asked.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = lock(&self.shared.state);
        state.advance(self.shared.options.silence);
        state
    }

    /// The repository's URL, which all links are below.
    fn repository(&self) -> String {
        let options = &self.shared.options;
        format!("{}/repositories/{}/{}", self.base, options.workspace, options.slug)
    }

    /// The repository's address for people.
    fn site(&self) -> String {
        let options = &self.shared.options;
        format!("https://bitbucket.org/{}/{}", options.workspace, options.slug)
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// The clauses of `q=`, each a field and its value.
    fn clauses(&self) -> Result<Vec<(String, String)>, Reply> {
        let q = self.parameter("q").unwrap_or_default();
        clauses(q).ok_or_else(|| error(400, &format!("Invalid query string: {q}")))
    }

    /// One page of a list. The pages are shorter than asked, so that whoever ignores `next` is found out.
    fn page(&self, values: &[Value]) -> Reply {
        let asked = self.parameter("pagelen").and_then(|length| length.parse().ok()).unwrap_or(10);
        let length = self.shared.options.page_length.min(asked).max(1);
        let page = self.parameter("page").and_then(|page| page.parse().ok()).unwrap_or(1).max(1);
        let start = (page - 1) * length;
        let shown: Vec<&Value> = values.iter().skip(start).take(length).collect();
        let mut body = json!({ "pagelen": length, "page": page, "size": values.len(), "values": shown });
        if start + length < values.len() {
            let others = self.query.iter().filter(|(name, _)| name != "page");
            let others: Vec<String> =
                others.map(|(name, value)| format!("{name}={}&", encode(value))).collect();
            let others = others.concat();
            let origin = self.base.trim_end_matches("/2.0");
            body["next"] = json!(format!("{origin}{}?{others}page={}", self.path, page + 1));
        }
        Reply::Json(200, body)
    }
}

/// `a.b="c" AND d=false` → the fields and their values; nothing of Bitbucket's other operators.
fn clauses(q: &str) -> Option<Vec<(String, String)>> {
    let mut clauses = Vec::new();
    let mut rest = q.trim();
    while !rest.is_empty() {
        let (field, value) = rest.split_once('=')?;
        let (value, after) = literal(value.trim_start())?;
        clauses.push((field.trim().to_owned(), value));
        rest = match after.trim_start() {
            "" => "",
            more => more.strip_prefix("AND ")?,
        };
    }
    Some(clauses)
}

/// A text in double quotes with backslash escapes, or a bare word; and what follows it.
fn literal(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(' ').unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let (mut value, mut escaped) = (String::new(), false);
    for (index, character) in quoted.char_indices() {
        match character {
            _ if escaped => {
                value.push(character);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((value, &quoted[index + 1..])),
            _ => value.push(character),
        }
    }
    None
}

/// A query's parameters, decoded.
pub(crate) fn query(query: &str) -> Vec<(String, String)> {
    let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(n, v)| (decoded(n), decoded(v)))
        .collect()
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn error(status: u16, message: &str) -> Reply {
    Reply::Json(status, json!({ "type": "error", "error": { "message": message } }))
}

/// A 400 that names the field at fault.
fn bad_field(field: &str, complaint: &str) -> Reply {
    let mut fields = Map::new();
    fields.insert(field.into(), json!([complaint]));
    Reply::Json(400, json!({ "type": "error", "error": { "message": "Bad request", "fields": fields } }))
}

fn not_found() -> Reply {
    error(404, "Resource not found")
}
