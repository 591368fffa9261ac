//! Objects to send, a Drive to send them to, and a look at what arrived.

use super::auth::{self, CLIENT, SERVICE, USER};
use super::fake::Fake;
use md5::{Digest as _, Md5};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tempfile::TempDir;
use trainspot_base::error::Error;
use trainspot_dvc::remote::{AnyRemote, RemoteStore as _, Settings, open};
use trainspot_dvc::{Object, ObjectContent, Oid};

pub(crate) fn md5(bytes: &[u8]) -> String {
    format!("{:032x}", u128::from_be_bytes(Md5::digest(bytes).into()))
}

/// Files and a directory's list.
pub(crate) struct Sample {
    pub(crate) folder: TempDir,
    pub(crate) objects: Vec<Object>,
}

impl Sample {
    /// Files of these lengths with random content, and the list of them all.
    pub(crate) fn of(lengths: &[usize]) -> Self {
        let mut sample = Self { folder: tempfile::tempdir().unwrap(), objects: Vec::new() };
        let mut list = Vec::new();
        for (number, length) in lengths.iter().enumerate() {
            let mut bytes = vec![0; *length];
            fastrand::fill(&mut bytes);
            let object = sample.file(&format!("file {number}"), &bytes);
            list.push(format!(r#"{{"md5": "{}", "relpath": "file {number}"}}"#, object.oid));
            sample.objects.push(object);
        }
        let list = format!("[{}]", list.join(", "));
        let oid = Oid::parse(&format!("{}.dir", md5(list.as_bytes()))).unwrap();
        let size = list.len() as u64;
        sample.objects.push(Object { oid, size, content: ObjectContent::Bytes(list.into()) });
        sample
    }

    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> Object {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        Object {
            oid: Oid::parse(&md5(bytes)).unwrap(),
            size: bytes.len() as u64,
            content: ObjectContent::File(path),
        }
    }
}

/// Where objects go, and as whom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Place {
    /// A folder of a Shared Drive, as a service account.
    SharedDrive,
    /// A folder of a user that is shared with a service account.
    SharedFolder,
    /// A user's own folder, as a service account that acts as the user.
    Delegated,
    /// A user's own folder, with a refresh token.
    User,
    /// `root`, with a refresh token.
    Root,
    /// `appDataFolder`, with a refresh token.
    OwnData,
}

/// A remote in a fake Drive.
pub(crate) struct Scene {
    pub(crate) fake: Fake,
    pub(crate) settings: Settings,
    /// The folder's id.
    pub(crate) root: String,
    /// The path below it, with a slash at its end.
    pub(crate) base: &'static str,
}

impl Scene {
    pub(crate) async fn new(place: Place) -> Self {
        let fake = Fake::start().await;
        let mut state = fake.state();
        let my_drive =
            state.add(if place == Place::OwnData { "appDataFolder" } else { "root" }, None, USER, None);
        let root = match place {
            Place::SharedDrive => {
                let drive = state.shared_drive();
                state.add("models", Some(&drive), "nobody", None)
            }
            Place::Root | Place::OwnData => my_drive.clone(),
            _ => state.add("models", Some(&my_drive), USER, None),
        };
        if place == Place::SharedFolder {
            state.nodes.get_mut(&root).unwrap().editors.insert(SERVICE);
        }
        state.delegation = place == Place::Delegated;
        drop(state);
        let base = if place == Place::Root { "" } else { "team's/store/" };
        let id = match place {
            Place::Root => "root",
            Place::OwnData => "appDataFolder",
            _ => &root,
        };
        let mut settings = settings(&format!("gdrive://{id}/{base}"), &fake);
        match place {
            Place::SharedDrive | Place::SharedFolder => {}
            Place::Delegated => set(&mut settings, "gdrive_service_account_user_email", USER),
            _ => credential(&mut settings, &user_json(&fake)),
        }
        Self { fake, settings, root, base }
    }

    pub(crate) async fn remote(&self) -> AnyRemote {
        remote(&self.settings).await
    }

    /// Whether a reader sees nothing of the object, or all of it.
    pub(crate) fn whole_or_nothing(&self, object: &Object) -> Option<bool> {
        let path = format!("{}{}", self.base, object.oid.key());
        self.fake.state().read(&self.root, &path).map(|node| node.content.md5 == object.oid.md5())
    }

    pub(crate) fn has_all(&self, objects: &[Object]) -> bool {
        objects.iter().all(|object| self.whole_or_nothing(object) == Some(true))
    }

    /// No file of an object's name that is not in the trash is another than the object.
    pub(crate) fn spotless(&self, objects: &[Object]) -> bool {
        let state = self.fake.state();
        objects.iter().all(|object| {
            let key = object.oid.key();
            let name = key.rsplit('/').next().unwrap();
            let wrong = |node: &&super::fake::Node| {
                node.name == name && !node.trashed && node.content.md5 != object.oid.md5()
            };
            !state.nodes.values().any(|node| wrong(&node))
        })
    }

    /// How many files there are outside of the trash.
    pub(crate) fn files(&self) -> usize {
        let state = self.fake.state();
        state.nodes.values().filter(|node| node.mime != super::fake::FOLDER && !node.trashed).count()
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.fake.state().violations.clone()
    }

    /// How many requests were made by this method whose path starts so.
    pub(crate) fn requests(&self, method: &str, path: &str) -> usize {
        let state = self.fake.state();
        state
            .requests
            .iter()
            .filter(|request| request.method == method && request.path.starts_with(path))
            .count()
    }

    /// Sends what is missing, as a run does: files first, then the list.
    pub(crate) async fn push(&self, objects: &[Object]) -> Result<(), Error> {
        let remote = self.remote().await;
        let missing = remote.missing(objects).await?;
        let objects: Vec<_> =
            objects.iter().filter(|object| missing.contains(&object.oid)).cloned().collect();
        let (lists, files): (Vec<_>, Vec<_>) = objects.into_iter().partition(|object| object.oid.is_dir());
        remote.put_all(&files).await?;
        remote.put_all(&lists).await
    }
}

/// Settings of a remote at the fake, as the service account.
pub(crate) fn settings(url: &str, fake: &Fake) -> Settings {
    let mut settings = Settings {
        name: "store".to_owned(),
        url: url.to_owned(),
        options: BTreeMap::new(),
        folder: PathBuf::from("/nowhere"),
        environment: BTreeMap::new(),
    };
    set(&mut settings, "endpointurl", &fake.address());
    let token_uri = fake.state().token_uri();
    credential(&mut settings, &auth::service_json(&token_uri, auth::key()).to_string());
    settings
}

pub(crate) fn set(settings: &mut Settings, key: &str, value: &str) {
    settings.options.insert(key.to_owned(), value.into());
}

pub(crate) fn credential(settings: &mut Settings, json: &str) {
    settings.environment.insert("GDRIVE_CREDENTIALS_DATA".to_owned(), json.into());
}

/// A user's credential as DVC 3 saves it, by way of oauth2client.
pub(crate) fn user_json(fake: &Fake) -> String {
    let state = fake.state();
    json!({
        "access_token": "ya29.long-expired", "client_id": CLIENT.0, "client_secret": CLIENT.1,
        "refresh_token": state.refresh_token, "token_expiry": "2020-01-01T00:00:00Z",
        "token_uri": state.token_uri(), "user_agent": null, "revoke_uri": "https://oauth2.googleapis.com/revoke",
        "id_token": null, "id_token_jwt": null, "token_response": { "access_token": "ya29.long-expired" },
        "scopes": ["https://www.googleapis.com/auth/drive"], "token_info_uri": null, "invalid": false,
        "_class": "OAuth2Credentials", "_module": "oauth2client.client",
    })
    .to_string()
}

pub(crate) async fn remote(settings: &Settings) -> AnyRemote {
    open(settings).await.unwrap_or_else(|error| panic!("{}", error.render()))
}

#[allow(clippy::needless_pass_by_value, reason = "for `unwrap_or_else`")]
pub(crate) fn told<T>(error: Error) -> T {
    panic!("{}", error.render())
}
