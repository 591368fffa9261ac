//! `WebDAV`: an upload goes to a temporary name, is measured, and is moved to its own.

use super::super::options::{KnownKeys, Options};
use super::super::source::cannot_send;
use super::super::{Object, Oid, RemoteName, RemoteStore, Settings, each, temporary};
use super::failure::WebFailure;
use super::http::{basic, custom, root, secret};
use super::{CONCURRENT_QUESTIONS, WebServer, client, listing};
use crate::remote::budget::Budget;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use reqwest::{Method, StatusCode, Url};
use secrecy::{ExposeSecret as _, SecretString};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use trainspot_base::error::{Error, Result};
use trainspot_base::mutex::lock;
use trainspot_http::Answer;

const WEBDAV_KEYS: KnownKeys = KnownKeys {
    honoured: &[
        "user",
        "password",
        "token",
        "custom_auth_header",
        "cert_path",
        "key_path",
        "timeout",
        "ssl_verify",
    ],
    ignored: &[],
    refused: &[
        ("ask_password", "nobody is there to be asked: set 'password' in .dvc/config.local"),
        ("bearer_token_command", "commands of a configuration are not run: set 'token' in .dvc/config.local"),
    ],
};

/// A folder is listed if at least this many of its objects are asked about.
const LISTING_THRESHOLD: usize = 4;

/// A `WebDAV` server that keeps objects.
pub(crate) struct WebDavRemote {
    server: WebServer,
    /// The folders that are known to be there.
    made: Mutex<HashSet<String>>,
}

impl WebDavRemote {
    pub(crate) fn open(settings: &Settings, place: &RemoteName) -> Result<Self> {
        let options = Options::check(settings, place, &WEBDAV_KEYS)?;
        // webdav:// is http://, webdavs:// is https://.
        let mut root = root(&settings.url.replacen("webdav", "http", 1), place)?;
        let user = options.text("user").map_or_else(|| root.username().to_owned(), str::to_owned);
        let in_url = || root.password().unwrap_or_default().into();
        let password: SecretString = options.secret("password").cloned().unwrap_or_else(in_url);
        // These only fail for addresses without a host.
        _ = root.set_username("");
        _ = root.set_password(None);
        let headers = match (options.secret("token"), user.as_str(), options.text("custom_auth_header")) {
            (Some(token), ..) => {
                let token = format!("Bearer {}", token.expose_secret());
                HeaderMap::from_iter([(AUTHORIZATION, secret(&token)?)])
            }
            (None, "", Some(name)) => custom(&options, name, &password)?,
            (None, "", None) => HeaderMap::new(),
            (None, user, _) => basic(user, &password)?,
        };
        let server = WebServer {
            client: client::build(&options, headers)?,
            root,
            stall_timeout: options.seconds("timeout", client::STALL_TIMEOUT)?,
            budget: Budget::new(),
            place: place.clone(),
            advice: "check 'user' and 'password', or 'token', of the remote: the server does not let this user write",
        };
        Ok(Self { server, made: Mutex::default() })
    }

    async fn length(&self, what: &str, url: &Url) -> Result<Option<u64>> {
        let answer = self.server.ask(what, || self.server.client.head(url.clone())).await?;
        match answer.status {
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(None),
            _ if answer.is_success() => Ok(answer.length()),
            _ => Err(self.refused(what, &answer)),
        }
    }

    fn refused(&self, what: &str, answer: &Answer) -> Error {
        WebFailure::refused(answer, self.server.advice).explain(what)
    }

    fn method(name: &str) -> Method {
        // All names that are used here are valid.
        Method::from_bytes(name.as_bytes()).unwrap_or_default()
    }

    /// Makes the folder and those above it, the highest first; one that is there answers 405.
    async fn make(&self, what: &str, key: &str) -> Result<()> {
        let ends: Vec<_> = key.match_indices('/').map(|(end, _)| end).collect();
        let made = |path: &str| lock(&self.made).contains(path);
        let path = format!("{}{key}", self.server.root.path());
        let ends = ends.into_iter().map(|end| end + self.server.root.path().len());
        // The root first: it is tried last to be made, as it mostly is there.
        let above = path
            .match_indices('/')
            .map(|(end, _)| end)
            .filter(|end| *end > 0 && *end < self.server.root.path().len());
        for end in above.chain(ends) {
            let folder = &path[..=end];
            if made(folder) {
                continue;
            }
            let mut url = self.server.root.clone();
            url.set_path(folder);
            let answer = self
                .server
                .ask(what, || self.server.client.request(Self::method("MKCOL"), url.clone()))
                .await?;
            let above_root = folder.len() < self.server.root.path().len();
            match answer.status {
                status if status.is_success() || status == StatusCode::METHOD_NOT_ALLOWED => {}
                // Above the root there may be what is not ours to see.
                _ if above_root => {}
                _ => return Err(self.refused(what, &answer)),
            }
            lock(&self.made).insert(folder.to_owned());
        }
        Ok(())
    }

    /// Uploads to the temporary name, measures, and moves.
    async fn place(&self, what: &str, object: &Object, temporary: &Url) -> Result<()> {
        self.server.upload(what, &Method::PUT, temporary, object).await?;
        let told = self.length(what, temporary).await?;
        if told.is_some_and(|length| length != object.size) {
            let why = format!("{} bytes arrived, not {}", told.unwrap_or_default(), object.size);
            return Err(Error::new(what).source(why).hint("run again"));
        }
        let target = self.server.url(&object.oid.key());
        let request = || {
            let request = self.server.client.request(Self::method("MOVE"), temporary.clone());
            request.header("destination", target.as_str()).header("overwrite", "T")
        };
        let answer = self.server.ask(what, request).await?;
        if answer.is_success() {
            return Ok(());
        }
        // It was moved, and the answer to that was lost: nobody else knows the name.
        if answer.status == StatusCode::NOT_FOUND && self.length(what, &target).await? == Some(object.size) {
            return Ok(());
        }
        Err(self.refused(what, &answer))
    }

    /// The lengths of a folder's files.
    async fn list(&self, what: &str, folder: &str) -> Result<HashMap<String, u64>> {
        let url = self.server.url(&format!("{folder}/"));
        let request = || {
            let request = self.server.client.request(Self::method("PROPFIND"), url.clone());
            request
                .header("depth", "1")
                .header("content-type", "application/xml")
                .body(listing::PROPFIND_BODY)
        };
        let answer = self.server.ask(what, request).await?;
        match answer.status {
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(HashMap::new()),
            _ if answer.is_success() => listing::lengths(&answer.body),
            _ => Err(self.refused(what, &answer)),
        }
    }

    /// Which of one folder's objects are missing.
    async fn missing_of(&self, what: &str, folder: &str, objects: &[&Object]) -> Result<Vec<Oid>> {
        let mut missing = Vec::new();
        let listed =
            if objects.len() < LISTING_THRESHOLD { None } else { Some(self.list(what, folder).await?) };
        for object in objects {
            let key = object.oid.key();
            let length = match &listed {
                Some(lengths) => key.rsplit('/').next().and_then(|name| lengths.get(name)).copied(),
                None => self.length(what, &self.server.url(&key)).await?,
            };
            if !length.is_some_and(|length| object.fits(length)) {
                missing.push(object.oid.clone());
            }
        }
        Ok(missing)
    }
}

impl RemoteStore for WebDavRemote {
    async fn missing(&self, objects: &[Object]) -> Result<Vec<Oid>> {
        let what = format!("cannot look into {}", self.server.place);
        let mut folders: BTreeMap<String, Vec<&Object>> = BTreeMap::new();
        for object in objects {
            folders.entry(object.oid.folder()).or_default().push(object);
        }
        let folders: Vec<_> = folders.into_iter().collect();
        let missing =
            each(&folders, CONCURRENT_QUESTIONS, |(folder, objects)| self.missing_of(&what, folder, objects));
        Ok(missing.await?.concat())
    }

    async fn put(&self, object: &Object) -> Result<()> {
        let what = cannot_send(object, &self.server.place);
        let key = object.oid.key();
        self.make(&what, &key).await?;
        let temporary = self.server.url(&temporary(&object.oid));
        let placed = self.place(&what, object, &temporary).await;
        if placed.is_err() {
            self.server.ask(&what, || self.server.client.delete(temporary.clone())).await.ok();
        }
        placed
    }
}
