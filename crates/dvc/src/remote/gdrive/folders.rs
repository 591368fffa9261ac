//! Folders by their path below the remote's own, found once, and made where they are missing.
//!
//! Several folders of one name count as one: all of them are looked into, and the one with the smallest id is
//! written to, as DVC does it. Two runs that make the same folder at the same time thus do no harm.

use super::api::{DriveApi, DriveRetry};
use super::exchange::json;
use super::file::{DriveFile, FILE_FIELDS, FOLDER_MIME_TYPE, either, quoted};
use super::lock;
use crate::remote::web::client::STALL_TIMEOUT;
use reqwest::Method;
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use trainspot_base::error::Result;

/// The ids of the folders of one path; none if that is not known. Held while they are looked for or made.
type FolderSlot = Arc<tokio::sync::Mutex<Option<Vec<String>>>>;

/// The folders of a remote.
pub(super) struct FolderIds {
    /// The path of the remote below its folder, each name after a slash.
    base: String,
    known: Mutex<HashMap<String, FolderSlot>>,
}

impl FolderIds {
    pub(super) fn below(path: &str) -> Self {
        let names = path.split('/').filter(|name| !name.is_empty());
        let base = names.flat_map(|name| ["/", name]).collect();
        Self { base, known: Mutex::default() }
    }

    /// The ids of the folders of this path, such as `files/md5/ab`. None if there are none.
    pub(super) async fn find(&self, api: &DriveApi, what: &str, path: &str) -> Result<Vec<String>> {
        self.walk(api, what, path, false).await
    }

    /// The id of the folder of this path to write to. It is made if it is not there, and so are those above
    /// it.
    pub(super) async fn make(&self, api: &DriveApi, what: &str, path: &str) -> Result<String> {
        let ids = self.walk(api, what, path, true).await?;
        Ok(first(&ids))
    }

    /// The folders of many paths such as `files/md5/ab`, as their ids with the paths: one listing of what
    /// holds them all.
    pub(super) async fn find_all(
        &self,
        api: &DriveApi,
        what: &str,
        paths: HashSet<String>,
    ) -> Result<HashMap<String, String>> {
        let Some((above, _)) = paths.iter().next().and_then(|path| path.rsplit_once('/')) else {
            return Ok(HashMap::new());
        };
        let parents = self.find(api, what, above).await?;
        let mut found: HashMap<String, Vec<String>> = HashMap::new();
        if !parents.is_empty() {
            let query =
                format!("trashed = false and mimeType = '{FOLDER_MIME_TYPE}' and {}", either(&parents));
            let keep =
                |file: DriveFile| found.entry(format!("{above}/{}", file.name)).or_default().push(file.id);
            api.list(what, &query, keep).await?;
        }
        let mut all = HashMap::new();
        for path in &paths {
            let ids = found.remove(path).unwrap_or_default();
            all.extend(ids.iter().map(|id| (id.clone(), path.clone())));
            // Those that are not there need not be looked for again, before they are made.
            *self.slot(&format!("{}/{path}", self.base)).lock().await = Some(ids);
        }
        Ok(all)
    }

    async fn walk(&self, api: &DriveApi, what: &str, path: &str, make: bool) -> Result<Vec<String>> {
        let mut ids = vec![api.root(what).await?.id.clone()];
        let path = format!("{}/{path}", self.base);
        let ends = path.match_indices('/').skip(1).map(|(end, _)| end).chain([path.len()]);
        for end in ends {
            let (_, name) = path[..end].rsplit_once('/').unwrap_or_default();
            let slot = self.slot(&path[..end]);
            let mut slot = slot.lock().await;
            let known = match slot.take() {
                Some(ids) => ids,
                None => named(api, what, &ids, name).await?,
            };
            ids = if known.is_empty() && make { vec![create(api, what, &ids, name).await?] } else { known };
            *slot = Some(ids.clone());
            if ids.is_empty() {
                break;
            }
        }
        Ok(ids)
    }

    fn slot(&self, path: &str) -> FolderSlot {
        Arc::clone(lock(&self.known).entry(path.to_owned()).or_default())
    }
}

/// The folder of several that is written to.
fn first(ids: &[String]) -> String {
    ids.iter().min().cloned().unwrap_or_default()
}

/// The folders of this name in any of these.
async fn named(api: &DriveApi, what: &str, parents: &[String], name: &str) -> Result<Vec<String>> {
    let query = format!(
        "trashed = false and mimeType = '{FOLDER_MIME_TYPE}' and name = {} and {}",
        quoted(name),
        either(parents)
    );
    let mut ids = Vec::new();
    // Drive does not tell upper case from lower.
    api.list(what, &query, |file| ids.extend(Some(file.id).filter(|_| file.name == name))).await?;
    Ok(ids)
}

/// Makes a folder. Where it is not clear whether it was made, it is looked for before it is made again.
async fn create(api: &DriveApi, what: &str, parents: &[String], name: &str) -> Result<String> {
    let folder = json!({ "name": name, "mimeType": FOLDER_MIME_TYPE, "parents": [first(parents)] });
    let request =
        || api.request(Method::POST, "/drive/v3/files").query(&[("fields", FILE_FIELDS)]).json(&folder);
    let mut retry = DriveRetry::new();
    loop {
        let failure = match api.once(STALL_TIMEOUT, &request).await {
            Ok(answer) => match json::<DriveFile>(&answer) {
                Ok(file) => return Ok(file.id),
                Err(failure) => failure,
            },
            Err(failure) => failure,
        };
        if !retry.wait_after(&failure).await {
            return Err(api.explain(what, failure));
        }
        let made = if failure.uncertain { named(api, what, parents, name).await? } else { Vec::new() };
        if !made.is_empty() {
            return Ok(first(&made));
        }
    }
}
