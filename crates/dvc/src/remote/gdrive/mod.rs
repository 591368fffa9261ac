//! Google Drive, through version 3 of its API: `gdrive://<id of a folder>/path`.
//!
//! Drive knows files by their ids. A name is no key there: a folder may hold many files, and folders, of one
//! name, and a reader takes the one whose id is the smallest. So every file under an object's name has to be
//! right, and every folder under a folder's name is looked into. Drive tells the MD5 of what it holds, which
//! is the object's own name: each upload is proven by it, and so is what is there already.
//!
//! A file is visible once its upload is complete, and the last byte only goes with the proof that all were
//! right.
//!
//! Names, ids, and what is written where are those of DVC, except that the path below the folder is made if
//! it is not there, and that what is wrong is put into the trash, never deleted for good.

mod account;
mod api;
mod exchange;
mod failure;
mod file;
mod folders;
mod token;
mod upload;

use super::budget::Budget;
use super::options::{KnownKeys, Options};
use super::source::cannot_send;
use super::web::client;
use super::{Object, Oid, RemoteName, RemoteStore, Settings, each};
use account::DriveAccount;
use api::DriveApi;
use file::{DriveFile, either};
use folders::FolderIds;
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use trainspot_base::error::{Error, Kind, Result};
use trainspot_base::mutex::{into_inner, lock};

const GDRIVE_KEYS: KnownKeys = KnownKeys {
    honoured: &[
        "gdrive_use_service_account",
        "gdrive_service_account_json_file_path",
        "gdrive_service_account_user_email",
        "gdrive_client_id",
        "gdrive_client_secret",
        "gdrive_user_credentials_file",
    ],
    // Where DVC keeps what a browser gave it, how it removes and downloads; and where an emulator of Drive
    // is, which is for programs to say: DVC does not know that key.
    ignored: &["profile", "gdrive_trash_only", "gdrive_acknowledge_abuse", ENDPOINT_KEY],
    refused: &[],
};

const ENDPOINT_KEY: &str = "endpointurl";
const GOOGLE_ENDPOINT: &str = "https://www.googleapis.com";

/// How many objects are sent at a time. Drive takes only a few new files a second from one account.
const CONCURRENT_OBJECTS: usize = 8;
/// Up to this many objects are asked for by name. For more, the folders are listed, at one call for 1,000
/// files.
const LISTING_THRESHOLD: usize = 16;
/// How many folders are listed in one call.
const FOLDERS_PER_LISTING: usize = 50;

/// A folder of Drive that keeps objects.
pub(super) struct DriveRemote {
    api: DriveApi,
    folders: FolderIds,
    place: RemoteName,
    budget: Budget,
    /// What was found under the names of objects that are missing, until they are sent.
    found: Mutex<HashMap<Oid, Vec<DriveFile>>>,
}

impl DriveRemote {
    /// Reads the credential; nothing is asked of the network.
    pub(super) fn open(settings: &Settings, place: RemoteName) -> Result<Self> {
        let options = Options::check(settings, &place, &GDRIVE_KEYS)?;
        let (id, path) = address(settings, &place)?;
        let account = DriveAccount::read(&options)?;
        let base = options.text(ENDPOINT_KEY).unwrap_or(GOOGLE_ENDPOINT).trim_end_matches('/').to_owned();
        let api = DriveApi::new(client::plain(&options)?, base, account, id);
        let folders = FolderIds::below(path);
        Ok(Self { api, folders, place, budget: Budget::new(), found: Mutex::default() })
    }

    /// The files under an object's name.
    async fn named(&self, what: &str, object: &Object) -> Result<Vec<DriveFile>> {
        let folders = self.folders.find(&self.api, what, &object.oid.folder()).await?;
        if folders.is_empty() {
            return Ok(Vec::new());
        }
        let key = object.oid.key();
        let name = key.rsplit('/').next().unwrap_or(&key);
        let query = format!("trashed = false and name = '{name}' and {}", either(&folders));
        let mut files = Vec::new();
        // Drive does not tell upper case from lower.
        self.api.list(what, &query, |file| files.extend(Some(file).filter(|file| file.name == name))).await?;
        Ok(files)
    }

    /// The same for many objects, by listing their folders.
    async fn listed(&self, what: &str, objects: &[Object]) -> Result<HashMap<Oid, Vec<DriveFile>>> {
        let prefixes: HashSet<_> = objects.iter().map(|object| object.oid.folder()).collect();
        let folders = self.folders.find_all(&self.api, what, prefixes).await?;
        let wanted: HashMap<_, _> = objects.iter().map(|object| (object.oid.key(), &object.oid)).collect();
        let ids: Vec<_> = folders.keys().cloned().collect();
        let groups: Vec<_> = ids.chunks(FOLDERS_PER_LISTING).collect();
        let found = Mutex::new(HashMap::<Oid, Vec<DriveFile>>::new());
        let keep = |file: DriveFile| {
            let folder = file.parents.iter().find_map(|id| folders.get(id));
            let oid = folder.and_then(|folder| wanted.get(&format!("{folder}/{}", file.name)));
            if let Some(oid) = oid {
                lock(&found).entry((*oid).clone()).or_default().push(file);
            }
        };
        each(&groups, CONCURRENT_OBJECTS, |group| self.list_group(what, group, &keep)).await?;
        Ok(into_inner(found))
    }

    /// Lists several folders at once. Drive is known to answer, now and then, that several have nothing where
    /// each alone has: nothing is only believed of one.
    async fn list_group(
        &self,
        what: &str,
        group: &[String],
        keep: &(impl Fn(DriveFile) + Sync),
    ) -> Result<()> {
        let mut some = false;
        let query = |ids: &[String]| format!("trashed = false and {}", either(ids));
        self.api
            .list(what, &query(group), |file| {
                some = true;
                keep(file);
            })
            .await?;
        if !some && group.len() > 1 {
            for id in group {
                self.api.list(what, &query(std::slice::from_ref(id)), keep).await?;
            }
        }
        Ok(())
    }
}

impl RemoteStore for DriveRemote {
    async fn missing(&self, objects: &[Object]) -> Result<Vec<Oid>> {
        let what = format!("cannot look into {}", self.place);
        // What DVC 2 kept lies in folders of its own, and is little.
        let few = objects.len() <= LISTING_THRESHOLD;
        let (asked, listed): (Vec<_>, Vec<_>) =
            objects.iter().cloned().partition(|object| few || object.oid.is_of_dvc_2());
        let ask = async |object: &Object| Ok((object.oid.clone(), self.named(&what, object).await?));
        let mut found = self.listed(&what, &listed).await?;
        found.extend(each(&asked, CONCURRENT_OBJECTS, ask).await?);
        let mut missing = Vec::new();
        for object in objects {
            let files = found.remove(&object.oid).unwrap_or_default();
            if files.is_empty() || !files.iter().all(|file| file.holds(object)) {
                lock(&self.found).insert(object.oid.clone(), files);
                missing.push(object.oid.clone());
            }
        }
        Ok(missing)
    }

    async fn put(&self, object: &Object) -> Result<()> {
        let what = cannot_send(object, &self.place);
        let found = lock(&self.found).remove(&object.oid);
        let there = match found {
            Some(files) => files,
            None => self.named(&what, object).await?,
        };
        let (right, wrong): (Vec<_>, Vec<_>) = there.into_iter().partition(|file| file.holds(object));
        if right.is_empty() {
            self.send(&what, object).await?;
        }
        for file in wrong {
            self.api
                .trash(&format!("{what}: cannot put a wrong file of its name into the trash"), &file.id)
                .await?;
        }
        Ok(())
    }

    async fn put_all(&self, objects: &[Object]) -> Result<()> {
        each(objects, CONCURRENT_OBJECTS, |object| self.put(object)).await.map(drop)
    }
}

/// The folder's id, and the path below it, that an address names.
fn address<'a>(settings: &'a Settings, place: &RemoteName) -> Result<(&'a str, &'a str)> {
    let (_, rest) = settings.url.split_once("://").unwrap_or_default();
    let (id, path) = rest.split_once('/').unwrap_or((rest, ""));
    let digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if id.is_empty() || !id.bytes().all(digit) {
        let error = Error::new(format!("{place} names no folder of Google Drive")).kind(Kind::Configuration);
        return Err(error.hint(
            "its url is to be like gdrive://1aBcD…/path: the id is the last part of the folder's address in a browser, and 'root' is My Drive",
        ));
    }
    Ok((id, path))
}
