//! Pull requests and their comments.

use super::{Call, Reply, bad_field, error, not_found};
use crate::BareRepository;
use crate::lock;
use crate::state::{Comment, PullRequest};
use serde_json::{Value, json};

/// Longer comments are refused, and not in JSON.
const LONGEST_COMMENT: usize = 32_768;
/// What Bitbucket refuses in other texts; its limit for titles is not documented.
const LONGEST_TITLE: usize = 255;
/// Whose tokens make the calls.
const AUTHOR: &str = "Ada";
const TIME: &str = "2026-01-02T03:04:05.678901+00:00";

impl Call<'_> {
    pub(super) fn list_pull_requests(&self) -> Reply {
        let mut clauses = match self.clauses() {
            Ok(clauses) => clauses,
            Err(reply) => return reply,
        };
        // `state=` counts only where there is no `q=`; open ones are the default.
        if self.parameter("q").is_none() {
            let state = self.parameter("state").unwrap_or("OPEN");
            clauses.push(("state".into(), state.into()));
        }
        let mut values = Vec::new();
        for pull_request in &lock(&self.shared.state).pull_requests {
            match clauses
                .iter()
                .map(|(field, value)| is(pull_request, field, value))
                .collect::<Option<Vec<_>>>()
            {
                Some(holds) if holds.iter().all(|&holds| holds) => values.push(self.show(pull_request)),
                Some(_) => {}
                None => return error(400, "Invalid field in the query string"),
            }
        }
        self.page(&values)
    }

    pub(super) fn open_pull_request(&self) -> Reply {
        let name = |end: &str| self.body[end]["branch"]["name"].as_str();
        let Some(title) = self.body["title"].as_str().filter(|title| !title.is_empty()) else {
            return bad_field("title", "This field is required.");
        };
        let length = title.chars().count();
        if length > LONGEST_TITLE {
            let complaint =
                format!("Ensure this value has at most {LONGEST_TITLE} characters (it has {length}).");
            return bad_field("title", &complaint);
        }
        let Some(source) = name("source") else { return bad_field("source", "This field is required.") };
        let destination = name("destination").unwrap_or("main");
        for (end, branch) in [("source", source), ("destination", destination)] {
            if !self.branch_exists(branch) {
                return bad_field(end, "branch not found");
            }
        }
        if source == destination {
            return bad_field("destination", "source and destination are the same");
        }
        let close = self.body["close_source_branch"].as_bool().unwrap_or(false);
        let reviewers: Vec<String> = (self.body["reviewers"].as_array().into_iter().flatten())
            .map(|reviewer| reviewer["uuid"].as_str().unwrap_or_default().to_owned())
            .collect();
        let mut state = lock(&self.shared.state);
        for uuid in &reviewers {
            match state.default_reviewers.iter().find(|(known, _)| known == uuid) {
                None => return bad_field("reviewers", "Malformed reviewers list"),
                Some((_, name)) if name == AUTHOR => {
                    let complaint = format!("{name} is the author and cannot be included as a reviewer.");
                    return bad_field("reviewers", &complaint);
                }
                Some(_) => {}
            }
        }
        // The trap: one that is already open is answered as if it were new, with its title overwritten.
        let open = |other: &&mut PullRequest| {
            other.state == "OPEN" && other.source == source && other.destination == destination
        };
        if let Some(other) = state.pull_requests.iter_mut().find(open) {
            title.clone_into(&mut other.title);
            other.close_source_branch = close;
            return Reply::Json(201, self.show(other));
        }
        let description = self.body["description"].as_str().unwrap_or_default();
        let opened = state.open(title, description, source, destination);
        opened.close_source_branch = close;
        opened.reviewers = reviewers;
        Reply::Json(201, self.show(opened))
    }

    pub(super) fn get_pull_request(&self, id: &str) -> Reply {
        let mut state = lock(&self.shared.state);
        let found = id.parse().ok().and_then(|id| state.pull_request(id));
        found.map_or_else(not_found, |found| Reply::Json(200, self.show(found)))
    }

    pub(super) fn update_pull_request(&self, id: &str) -> Reply {
        let mut state = lock(&self.shared.state);
        let Some(found) = id.parse().ok().and_then(|id| state.pull_request(id)) else { return not_found() };
        if let Some(title) = self.body["title"].as_str() {
            title.clone_into(&mut found.title);
        }
        if let Some(description) = self.body["description"].as_str() {
            description.clone_into(&mut found.description);
        }
        Reply::Json(200, self.show(found))
    }

    pub(super) fn list_comments(&self, id: &str) -> Reply {
        let clauses = match self.clauses() {
            Ok(clauses) => clauses,
            Err(reply) => return reply,
        };
        let mut state = lock(&self.shared.state);
        let Some(id) = id.parse().ok().and_then(|id| state.pull_request(id)).map(|found| found.id) else {
            return not_found();
        };
        let fits = |comment: &&Comment| {
            let holds = |(field, value): &(String, String)| {
                field == "deleted" && *value == comment.deleted.to_string()
            };
            comment.pull_request == id && clauses.iter().all(holds)
        };
        let values: Vec<Value> =
            state.comments.iter().filter(fits).map(|comment| self.show_comment(comment)).collect();
        self.page(&values)
    }

    pub(super) fn add_comment(&self, id: &str) -> Reply {
        let mut state = lock(&self.shared.state);
        let Some(id) = id.parse().ok().and_then(|id| state.pull_request(id)).map(|found| found.id) else {
            return not_found();
        };
        match self.comment_body() {
            Ok(body) => Reply::Json(201, self.show_comment(state.comment(id, self.author, body))),
            Err(reply) => reply,
        }
    }

    pub(super) fn update_comment(&self, id: &str) -> Reply {
        let mut state = lock(&self.shared.state);
        let living = |comment: &&mut Comment| comment.id.to_string() == id && !comment.deleted;
        let Some(comment) = state.comments.iter_mut().find(living) else { return not_found() };
        if comment.author != self.author {
            return error(403, "You do not have permission to edit this comment.");
        }
        match self.comment_body() {
            Ok(body) => body.clone_into(&mut comment.body),
            Err(reply) => return reply,
        }
        Reply::Json(200, self.show_comment(comment))
    }

    fn comment_body(&self) -> Result<&str, Reply> {
        match self.body["content"]["raw"].as_str() {
            None | Some("") => Err(bad_field("content", "This field is required.")),
            Some(body) if body.len() > LONGEST_COMMENT => {
                Err(Reply::Html(400, "<!DOCTYPE html><html><body><h1>Bad Request (400)</h1></body></html>"))
            }
            Some(body) => Ok(body),
        }
    }

    fn branch_exists(&self, branch: &str) -> bool {
        let repository = self.shared.options.repository.as_deref();
        repository.is_none_or(|path| BareRepository::open(path).head(branch).is_some())
    }

    fn show(&self, shown: &PullRequest) -> Value {
        let PullRequest { id, title, description, source, destination, state, close_source_branch, .. } =
            shown;
        json!({
            "type": "pullrequest",
            "id": id,
            "title": title,
            "description": description,
            "summary": { "raw": description, "markup": "markdown", "html": "" },
            "state": state,
            "close_source_branch": close_source_branch,
            "source": { "branch": { "name": source } },
            "destination": { "branch": { "name": destination } },
            "author": { "type": "user", "display_name": AUTHOR },
            "created_on": TIME,
            "updated_on": TIME,
            "links": {
                "self": { "href": format!("{}/pullrequests/{id}", self.repository()) },
                "html": { "href": format!("{}/pull-requests/{id}", self.site()) },
            },
        })
    }

    fn show_comment(&self, comment: &Comment) -> Value {
        let Comment { id, pull_request, author, body, deleted } = comment;
        let page = format!("{}/pull-requests/{pull_request}/_/diff#comment-{id}", self.site());
        json!({
            "type": "pullrequest_comment",
            "id": id,
            "deleted": deleted,
            "content": { "raw": body, "markup": "markdown", "html": "" },
            "user": { "type": "user", "display_name": "Ada", "uuid": author },
            "created_on": TIME,
            "updated_on": TIME,
            "links": {
                "self": { "href": format!("{}/pullrequests/{pull_request}/comments/{id}", self.repository()) },
                "html": { "href": page },
            },
        })
    }
}

/// Whether a pull request's field has a value; nothing for a field that cannot be asked for.
fn is(pull_request: &PullRequest, field: &str, value: &str) -> Option<bool> {
    Some(match field {
        "source.branch.name" => pull_request.source == value,
        "destination.branch.name" => pull_request.destination == value,
        "state" => pull_request.state == value,
        _ => return None,
    })
}
