//! Version 2 of the API, over the same files, as far as DVC uses it.

use super::auth::Token;
use super::fake::{FOLDER, State};
use super::files::not_found;
use super::http::{Answer, Request};
use serde_json::{Value, json};

fn asked_by_v2(request: &Request) -> bool {
    request.path.contains("/drive/v2/")
}

/// What a request says of a new file, in the words of version 3.
pub(super) fn metadata(request: &Request) -> Value {
    let said = request.json();
    if !asked_by_v2(request) {
        return said;
    }
    let parents: Vec<_> =
        said["parents"].as_array().into_iter().flatten().map(|parent| &parent["id"]).collect();
    let mut metadata = json!({ "name": said["title"], "parents": parents });
    if let Some(mime) = said.get("mimeType") {
        metadata["mimeType"] = mime.clone();
    }
    metadata
}

impl State {
    pub(super) fn answer_v2(&mut self, request: &Request, caller: &Token) -> Answer {
        if request.path.starts_with("/upload/") {
            return self.begin(request, caller);
        }
        let id = request.path.trim_start_matches("/drive/v2/files").trim_start_matches('/').to_owned();
        match (request.method.as_str(), id.as_str()) {
            ("POST", "") => {
                let whole =
                    Request { query: [("fields".to_owned(), "*".to_owned())].into(), ..request.clone() };
                let whole = Request {
                    query: request.query.clone().into_iter().chain(whole.query).collect(),
                    ..whole
                };
                let made = self.create(&metadata(request), &whole, caller, None);
                match serde_json::from_slice::<Value>(&made.body).unwrap()["id"].as_str() {
                    Some(id) => Answer::json(200, &self.told_to(id, request)),
                    None => made,
                }
            }
            ("GET", "") => self.list_v2(request, caller),
            ("GET", id) => match self.seen(id, request, caller) {
                None => not_found(id),
                Some(id) if request.asked("alt") == "media" => {
                    Answer { body: self.nodes[&id].content.bytes.clone(), ..Answer::empty(200) }
                }
                Some(id) => Answer::json(200, &self.told_to(&id, request)),
            },
            _ => Answer::empty(404),
        }
    }

    fn list_v2(&mut self, request: &Request, caller: &Token) -> Answer {
        let mut asked = request.clone();
        asked.query.insert("fields".to_owned(), "files(id)".to_owned());
        asked.query.remove("maxResults");
        if request.asked("corpora") == "default" {
            asked.query.insert("corpora".to_owned(), "user".to_owned());
        }
        let listed = self.list(&asked, caller, false);
        if listed.status != 200 {
            return listed;
        }
        let mut page: Value = serde_json::from_slice(&listed.body).unwrap();
        let files = page["files"].take();
        let ids = files.as_array().unwrap().iter().map(|file| file["id"].as_str().unwrap());
        page["items"] = ids.map(|id| self.told_to(id, request)).collect();
        page.as_object_mut().unwrap().remove("files");
        Answer::json(200, &page)
    }

    /// What is told of a file in the version in which it is asked for.
    pub(super) fn told_to(&self, id: &str, request: &Request) -> Value {
        if !asked_by_v2(request) {
            return self.told(id, request.asked("fields"));
        }
        let node = &self.nodes[id];
        let parents: Vec<_> = node.parents.iter().map(|id| json!({ "id": id })).collect();
        let mut told = json!({
            "id": id, "title": node.name, "mimeType": node.mime, "parents": parents, "labels": { "trashed": node.trashed },
        });
        if let Some(drive) = &node.drive {
            told["driveId"] = json!(drive);
        }
        if node.mime != FOLDER {
            told["fileSize"] = json!(node.content.bytes.len().to_string());
            told["md5Checksum"] = json!(node.content.md5);
        }
        told
    }
}
