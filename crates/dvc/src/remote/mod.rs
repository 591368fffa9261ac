//! A DVC remote: a place that keeps objects under their names.
//!
//! | address | room | proof that an object is whole | tested against |
//! | --- | --- | --- | --- |
//! | a path | `local` | synced to disk, then renamed | ext4, a full tmpfs |
//! | `s3://` | `cloud` | the store's own MD5 of it, or of each part and the size | moto |
//! | `gs://` | `cloud` | as for S3 | gcp-storage-emulator; by parts only moto, which speaks that part of it |
//! | `azure://` | `cloud` | the store's own MD5 of it | azurite |
//! | `oss://` | `cloud` | as for S3 | moto, which is near: there is no emulator |
//! | `http(s)://` | `web` | the size that the server then tells | nginx |
//! | `webdav(s)://` | `web` | the size of the temporary file, then moved | wsgidav |
//! | `ssh://` | `ssh` | the size of the temporary file, synced, then renamed | OpenSSH |
//! | `gdrive://` | `gdrive` | Drive's own MD5 of it | a fake of its API, which Google's client and DVC use too |

mod budget;
mod cloud;
mod gdrive;
mod local;
mod named_by;
mod options;
mod recipient;
mod scheme;
mod source;
mod ssh;
mod web;

use super::{Object, Oid};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
pub(super) use local::Drafts;
pub(super) use named_by::NamedBy;
pub(super) use recipient::Recipient;
use scheme::{RemoteScheme, StoreScheme};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::path::PathBuf;
use trainspot_base::error::Result;
use trainspot_base::exposed;
use trainspot_http::REQUEST_RETRY;

/// How many objects are sent at a time. Each waits for the store's answer most of the time.
const CONCURRENT_OBJECTS: usize = 24;

/// The settings of a remote from `.dvc/config` and the environment.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Settings {
    /// Its name in `.dvc/config`; empty for one given by its address alone.
    pub name: String,
    /// Its address, such as `s3://bucket/prefix`. `remote://` is resolved already.
    pub url: String,
    /// Its other keys in `.dvc/config`, as written there. Some are credentials.
    #[serde(serialize_with = "exposed::map")]
    pub options: BTreeMap<String, SecretString>,
    /// What relative paths in `url` and `options` start from: the folder of the file that says them.
    pub folder: PathBuf,
    /// The credentials and settings that DVC and its SDKs take from the environment, by name. The process's
    /// own environment is never read.
    #[serde(serialize_with = "exposed::map")]
    pub environment: BTreeMap<String, SecretString>,
}

impl Settings {
    /// A path of the configuration: `~` is the home, and other relative paths start from the folder of the
    /// file that says them.
    pub(super) fn path(&self, text: &str) -> PathBuf {
        let home = self.environment.get("HOME").map(SecretString::expose_secret);
        let home = home.filter(|home| !home.is_empty());
        match (text.strip_prefix("~/"), home) {
            (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
            _ => self.folder.join(text),
        }
    }
}

/// By hand, because an address may hold a password.
impl fmt::Debug for Settings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { options, folder, environment, .. } = self;
        out.debug_struct("Settings")
            .field("place", &RemoteName::of(self))
            .field("options", options)
            .field("folder", folder)
            .field("environment", environment)
            .finish()
    }
}

/// A place that keeps objects.
pub trait RemoteStore: Send + Sync {
    /// The names of those `objects` that the remote lacks. The remote has an object only if its size, where
    /// the store tells it, is right.
    fn missing(&self, objects: &[Object]) -> impl Future<Output = Result<Vec<Oid>>> + Send;

    /// Sends an object, and returns when the store has confirmed its checksum or, where it gives none, its
    /// size. Nothing that a reader could take for the whole object is there before. One that is there is
    /// replaced.
    fn put(&self, object: &Object) -> impl Future<Output = Result<()>> + Send;

    /// Sends several objects, some at the same time. After one that failed no other is begun: what keeps one
    /// from being sent mostly keeps all, and each would be tried for minutes.
    fn put_all(&self, objects: &[Object]) -> impl Future<Output = Result<()>> + Send {
        async move { each(objects, CONCURRENT_OBJECTS, |object| self.put(object)).await.map(drop) }
    }
}

/// Does some work for each item, `together` at a time, in any order. After a failure no other work is begun,
/// and work under way is awaited, so that it can undo what it began.
async fn each<'a, T, R, F>(items: &'a [T], together: usize, work: impl Fn(&'a T) -> F) -> Result<Vec<R>>
where
    F: Future<Output = Result<R>>,
{
    let (mut under_way, mut done) = (FuturesUnordered::new(), Vec::with_capacity(items.len()));
    for item in items {
        if under_way.len() >= together
            && let Some(ended) = under_way.next().await
        {
            match ended {
                Ok(result) => done.push(result),
                Err(error) => {
                    while under_way.next().await.is_some() {}
                    return Err(error);
                }
            }
        }
        under_way.push(work(item));
    }
    let mut failed = None;
    while let Some(ended) = under_way.next().await {
        match ended {
            Ok(result) => done.push(result),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(done), Err)
}

/// Where an object is while it arrives, in its own folder: under a name that no reader looks for.
fn temporary(oid: &Oid) -> String {
    format!("{}/.{:016x}.tmp", oid.folder(), fastrand::u64(..))
}

/// A remote of any kind.
pub struct AnyRemote(RemoteKind);

enum RemoteKind {
    Local(local::FolderRemote),
    Cloud(cloud::ObjectStore),
    Http(web::HttpRemote),
    WebDav(web::WebDavRemote),
    Ssh(ssh::SftpRemote),
    Drive(Box<gdrive::DriveRemote>),
}

/// Whether there is a kind of remote for this address. Nothing is asked of the remote.
///
/// # Errors
/// No kind of remote has this address.
pub fn check(settings: &Settings) -> Result<()> {
    RemoteScheme::of(settings).map(drop)
}

/// The remote that these settings describe. What can be checked without the network is checked; some kinds
/// connect.
///
/// # Errors
/// The address or a key of `.dvc/config` is wrong or cannot be honoured, or a file that it names cannot be
/// read.
pub async fn open(settings: &Settings) -> Result<AnyRemote> {
    let place = RemoteName::of(settings);
    Ok(AnyRemote(match RemoteScheme::of(settings)? {
        RemoteScheme::Path => RemoteKind::Local(local::FolderRemote::open(settings, place)?),
        RemoteScheme::Store(store) => {
            RemoteKind::Cloud(cloud::ObjectStore::open(settings, place, store).await?)
        }
        RemoteScheme::Http => RemoteKind::Http(web::HttpRemote::open(settings, &place)?),
        RemoteScheme::WebDav => RemoteKind::WebDav(web::WebDavRemote::open(settings, &place)?),
        RemoteScheme::Ssh => RemoteKind::Ssh(ssh::SftpRemote::open(settings, place)?),
        RemoteScheme::Drive => RemoteKind::Drive(Box::new(gdrive::DriveRemote::open(settings, place)?)),
    }))
}

/// Where copies of files can be made before it is known under which name they belong into this remote: if it
/// is a folder.
pub(super) fn drafts(settings: &Settings) -> Option<Drafts> {
    let Ok(RemoteScheme::Path) = RemoteScheme::of(settings) else { return None };
    // What is wrong with it is told when it is opened to be sent to.
    local::FolderRemote::open(settings, RemoteName::of(settings)).ok().map(local::FolderRemote::drafts)
}

impl RemoteStore for AnyRemote {
    async fn missing(&self, objects: &[Object]) -> Result<Vec<Oid>> {
        match &self.0 {
            RemoteKind::Local(remote) => remote.missing(objects).await,
            RemoteKind::Cloud(remote) => remote.missing(objects).await,
            RemoteKind::Http(remote) => remote.missing(objects).await,
            RemoteKind::WebDav(remote) => remote.missing(objects).await,
            RemoteKind::Ssh(remote) => remote.missing(objects).await,
            RemoteKind::Drive(remote) => remote.missing(objects).await,
        }
    }

    async fn put(&self, object: &Object) -> Result<()> {
        match &self.0 {
            RemoteKind::Local(remote) => remote.put(object).await,
            RemoteKind::Cloud(remote) => remote.put(object).await,
            RemoteKind::Http(remote) => remote.put(object).await,
            RemoteKind::WebDav(remote) => remote.put(object).await,
            RemoteKind::Ssh(remote) => remote.put(object).await,
            RemoteKind::Drive(remote) => remote.put(object).await,
        }
    }

    async fn put_all(&self, objects: &[Object]) -> Result<()> {
        match &self.0 {
            RemoteKind::Local(remote) => remote.put_all(objects).await,
            RemoteKind::Cloud(remote) => remote.put_all(objects).await,
            RemoteKind::Http(remote) => remote.put_all(objects).await,
            RemoteKind::WebDav(remote) => remote.put_all(objects).await,
            RemoteKind::Ssh(remote) => remote.put_all(objects).await,
            RemoteKind::Drive(remote) => remote.put_all(objects).await,
        }
    }
}

/// A remote's name and address, for messages: without a password that the address holds.
#[derive(Clone, Debug)]
pub(super) struct RemoteName(String);

impl RemoteName {
    pub(super) fn of(settings: &Settings) -> Self {
        let url = match settings.url.split_once("://") {
            Some((scheme, rest)) => {
                let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                // The last @: a password may hold one too.
                let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
                format!("{scheme}://{host}{}", path.split('?').next().unwrap_or_default())
            }
            None => settings.url.clone(),
        };
        Self(match settings.name.as_str() {
            "" => format!("the remote {url}"),
            name => format!("the remote '{name}' ({url})"),
        })
    }
}

impl Display for RemoteName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}
