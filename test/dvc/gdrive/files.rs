//! What Drive does with files: who sees and changes which, and what is told of them.

use super::auth::{SERVICE, Token};
use super::fake::{FOLDER, Node, State};
use super::http::{Answer, Request};
use super::query;
use serde_json::{Map, Value, json};

impl State {
    pub(super) fn list(&mut self, request: &Request, caller: &Token, empty: bool) -> Answer {
        let (corpora, drive) = (request.asked("corpora"), request.asked("driveId"));
        let all_drives = request.asked("supportsAllDrives") == "true";
        let shared = request.asked("includeItemsFromAllDrives") == "true";
        if (corpora == "drive") == drive.is_empty() || shared && !all_drives || corpora == "drive" && !shared
        {
            return Answer::error(400, "invalid", "Invalid combination of corpora, driveId and flags");
        }
        if request.asked("pageSize").parse::<u32>().is_ok_and(|size| size > 1000) {
            return Answer::error(400, "invalid", "Invalid value for pageSize");
        }
        let own_data = request.asked("spaces") == "appDataFolder";
        let mut ids = Vec::new();
        for (id, node) in &self.nodes {
            let within = match corpora {
                "drive" => node.drive.as_deref() == Some(drive),
                // Those of a Shared Drive that the user opened come too, but nobody opens anything here.
                "user" | "" => node.drive.is_none() && self.in_own_data(id) == own_data,
                _ => return Answer::error(400, "invalid", "Invalid value for corpora"),
            };
            match query::fits(request.asked("q"), node) {
                Ok(fits) if fits && within && self.may_read(id, caller) => ids.push(id.clone()),
                Ok(_) => {}
                Err(why) => return Answer::error(400, "invalid", &format!("Invalid Value: {why}")),
            }
        }
        if empty && query::parents(request.asked("q")) > 1 {
            ids.clear();
        }
        let start: usize =
            request.asked("pageToken").strip_prefix("page-").map_or(0, |at| at.parse().unwrap());
        let fields = request.asked("fields");
        let inner = fields
            .split_once("files(")
            .and_then(|(_, rest)| rest.split_once(')'))
            .map_or("", |(inner, _)| inner);
        let files: Vec<_> = ids.iter().skip(start).take(self.page).map(|id| self.told(id, inner)).collect();
        let mut page = json!({ "files": files });
        if start + self.page < ids.len() {
            page["nextPageToken"] = json!(format!("page-{}", start + self.page));
        }
        Answer::json(200, &page)
    }

    /// Makes a file or folder of what is said of it.
    pub(super) fn create(
        &mut self,
        metadata: &Value,
        request: &Request,
        caller: &Token,
        content: Option<&[u8]>,
    ) -> Answer {
        let parents: Vec<_> =
            metadata["parents"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let [parent] = parents[..] else {
            return Answer::error(400, "invalid", "A shared drive item must have exactly one parent");
        };
        let Some(parent) = self.seen(parent, request, caller) else { return not_found(parent) };
        if let Some(refusal) = self.refusal(&parent, caller, content.map_or(0, <[u8]>::len)) {
            return refusal;
        }
        let mime = metadata["mimeType"].as_str().unwrap_or("application/octet-stream");
        if (mime == FOLDER) == content.is_some() {
            return Answer::error(400, "invalid", "A folder has no content, and a file has some");
        }
        let id =
            self.add(metadata["name"].as_str().unwrap_or("Untitled"), Some(&parent), &caller.who, content);
        mime.clone_into(&mut self.nodes.get_mut(&id).unwrap().mime);
        Answer::json(200, &self.told(&id, request.asked("fields")))
    }

    /// Why the caller cannot put a file of this length there.
    pub(super) fn refusal(&self, parent: &str, caller: &Token, length: usize) -> Option<Answer> {
        if !self.may_write(parent, caller) {
            return Some(forbidden());
        }
        let quota = |message: &str| Some(Answer::error(403, "storageQuotaExceeded", message));
        let used = |node: &&Node| node.owner == caller.who && node.drive.is_none();
        let used: u64 = self.nodes.values().filter(used).map(|node| node.content.bytes.len() as u64).sum();
        match (self.nodes[parent].drive.is_some(), caller.who.as_str()) {
            (false, SERVICE) if length > 0 => quota(
                "Service Accounts do not have storage quota. Leverage shared drives, or use OAuth delegation instead.",
            ),
            _ if used + length as u64 > self.room => {
                quota("The user's Drive storage quota has been exceeded.")
            }
            _ => None,
        }
    }

    pub(super) fn update(&mut self, id: &str, request: &Request, caller: &Token) -> Answer {
        if !self.may_write(id, caller) {
            return forbidden();
        }
        let change = request.json();
        if let Some(trashed) = change["trashed"].as_bool() {
            if self.no_trash {
                return forbidden();
            }
            if self.in_own_data(id) {
                return Answer::error(403, "notSupportedForAppDataFolderFiles", "Method not supported there");
            }
            self.nodes.get_mut(id).unwrap().trashed = trashed;
        }
        Answer::json(200, &self.told(id, request.asked("fields")))
    }

    /// The id that the caller means, if it can be seen. Without its flag, a request knows nothing of Shared
    /// Drives.
    pub(super) fn seen(&self, id: &str, request: &Request, caller: &Token) -> Option<String> {
        let id = match id {
            "root" | "appDataFolder" => {
                let own = |(_, node): &(&String, &Node)| node.name == id && node.owner == caller.who;
                self.nodes.iter().find(own).map(|(id, _)| id.clone())?
            }
            id => id.to_owned(),
        };
        let node = self.nodes.get(&id)?;
        let blind = node.drive.is_some() && request.asked("supportsAllDrives") != "true";
        // DVC downloads from Shared Drives without the flag, and gets what it asks for.
        let blind = blind && request.asked("alt") != "media";
        (!blind && self.may_read(&id, caller)).then_some(id)
    }

    fn above<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a Node> {
        let parent = |node: &&Node| node.parents.first().and_then(|id| self.nodes.get(id));
        std::iter::successors(self.nodes.get(id), parent)
    }

    fn in_own_data(&self, id: &str) -> bool {
        self.above(id).any(|node| node.name == "appDataFolder")
    }

    pub(super) fn may_write(&self, id: &str, caller: &Token) -> bool {
        let who = caller.who.as_str();
        self.above(id).any(|node| node.owner == who || node.editors.contains(who))
            && (caller.own_data || !self.in_own_data(id))
    }

    fn may_read(&self, id: &str, caller: &Token) -> bool {
        let who = caller.who.as_str();
        self.may_write(id, caller) || self.above(id).any(|node| node.readers.contains(who))
    }

    /// What is told of a file, where only these fields are asked for.
    pub(super) fn told(&self, id: &str, fields: &str) -> Value {
        let node = &self.nodes[id];
        let mut all = Map::new();
        let mut tell = |name: &str, value: Value| all.insert(name.to_owned(), value);
        tell("kind", json!("drive#file"));
        tell("id", json!(id));
        tell("name", json!(node.name));
        tell("mimeType", json!(node.mime));
        tell("parents", json!(node.parents));
        tell("trashed", json!(node.trashed));
        if let Some(drive) = &node.drive {
            tell("driveId", json!(drive));
        }
        if node.mime != FOLDER {
            tell("size", json!(node.content.bytes.len().to_string()));
            tell("md5Checksum", json!(node.content.md5));
        }
        let asked: Vec<_> = fields.split(',').filter(|field| !field.is_empty()).collect();
        let default = ["kind", "id", "name", "mimeType"];
        let wanted =
            |name: &str| if asked.is_empty() { default.contains(&name) } else { asked.contains(&name) };
        all.retain(|name, _| wanted(name) || fields == "*");
        Value::Object(all)
    }

    /// What a reader such as DVC finds under a path: in any folder of each name, the file with the smallest
    /// id.
    pub(crate) fn read(&self, root: &str, path: &str) -> Option<&Node> {
        let (folders, name) = path.rsplit_once('/').unwrap();
        let mut ids = vec![root.to_owned()];
        for folder in folders.split('/').filter(|name| !name.is_empty()) {
            ids = self.children(&ids, folder);
        }
        self.children(&ids, name).first().map(|id| &self.nodes[id])
    }

    fn children(&self, ids: &[String], name: &str) -> Vec<String> {
        let child = |node: &Node| node.parents.iter().any(|parent| ids.contains(parent));
        let found = self.nodes.iter().filter(|(_, node)| !node.trashed && node.name == name && child(node));
        found.map(|(id, _)| id.clone()).collect()
    }
}

pub(super) fn not_found(id: &str) -> Answer {
    Answer::error(404, "notFound", &format!("File not found: {}.", id.trim_start_matches('/')))
}

pub(super) fn forbidden() -> Answer {
    Answer::error(
        403,
        "insufficientFilePermissions",
        "The user does not have sufficient permissions for this file.",
    )
}
