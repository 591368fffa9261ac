//! A web server that takes uploads, such as nginx with `dav_methods PUT` or an artifact store.
//!
//! DVC knows `POST` (its default) and `PUT`, cannot list, and neither can we. Whether an upload in progress
//! can be seen is the server's matter: the size that it tells afterwards has to be right.

use super::super::options::{KnownKeys, Options};
use super::super::source::cannot_send;
use super::super::{Object, Oid, RemoteName, RemoteStore, Settings, each};
use super::failure::WebFailure;
use super::{CONCURRENT_QUESTIONS, WebServer, client};
use crate::remote::budget::Budget;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use secrecy::{ExposeSecret as _, SecretString};
use trainspot_base::error::{Error, Kind, Result};
use trainspot_http::{Answer, NoAnswer};

const HTTP_KEYS: KnownKeys = KnownKeys {
    honoured: &[
        "auth",
        "custom_auth_header",
        "user",
        "password",
        "ssl_verify",
        "method",
        "connect_timeout",
        "read_timeout",
    ],
    ignored: &[],
    refused: &[("ask_password", "nobody is there to be asked: set 'password' in .dvc/config.local")],
};

/// A web server that keeps objects.
pub(crate) struct HttpRemote {
    server: WebServer,
    method: Method,
}

impl HttpRemote {
    pub(crate) fn open(settings: &Settings, place: &RemoteName) -> Result<Self> {
        let options = Options::check(settings, place, &HTTP_KEYS)?;
        let method = match options.text("method").unwrap_or("POST") {
            text if text.eq_ignore_ascii_case("POST") => Method::POST,
            text if text.eq_ignore_ascii_case("PUT") => Method::PUT,
            _ => return Err(options.wrong("method", "is neither POST nor PUT")),
        };
        let server = WebServer {
            client: client::build(&options, authorization(&options)?)?,
            root: root(&settings.url, place)?,
            stall_timeout: options.seconds("read_timeout", client::STALL_TIMEOUT)?,
            budget: Budget::new(),
            place: place.clone(),
            advice: "check 'auth', 'user' and 'password' of the remote: the server does not let this user upload",
        };
        Ok(Self { server, method })
    }

    /// Whether the object is there, and its size if that is told.
    async fn look(&self, what: &str, object: &Object) -> Result<Option<Option<u64>>> {
        let url = self.server.url(&object.oid.key());
        let mut answer = self.server.ask(what, || self.server.client.head(url.clone())).await?;
        if matches!(answer.status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED) {
            let asked = Answer::head_of(self.server.client.get(url));
            let asked = tokio::time::timeout(self.server.stall_timeout, asked).await;
            let asked = asked.unwrap_or_else(|_| Err(NoAnswer::silent(self.server.stall_timeout)));
            answer = asked.map_err(|failure| WebFailure::from(failure).explain(what))?;
        }
        match answer.status {
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(None),
            _ if answer.is_success() => Ok(Some(answer.length())),
            _ => Err(WebFailure::refused(&answer, self.server.advice).explain(what)),
        }
    }
}

impl RemoteStore for HttpRemote {
    async fn missing(&self, objects: &[Object]) -> Result<Vec<Oid>> {
        let what = format!("cannot look into {}", self.server.place);
        let look = async |object: &Object| {
            let found = self.look(&what, object).await?;
            let there = found.is_some_and(|size| size.is_none_or(|size| object.fits(size)));
            Ok((!there).then(|| object.oid.clone()))
        };
        Ok(each(objects, CONCURRENT_QUESTIONS, look).await?.into_iter().flatten().collect())
    }

    async fn put(&self, object: &Object) -> Result<()> {
        let what = cannot_send(object, &self.server.place);
        let url = self.server.url(&object.oid.key());
        self.server.upload(&what, &self.method, &url, object).await?;
        let why = match self.look(&what, object).await? {
            Some(None) => return Ok(()),
            Some(Some(size)) if size == object.size => return Ok(()),
            Some(Some(size)) => format!("{size} bytes are there, not {}", object.size),
            None => "the server took it, but does not have it".to_owned(),
        };
        // Where the server can: wrong is worse than absent.
        self.server.ask(&what, || self.server.client.delete(url.clone())).await.ok();
        Err(Error::new(what)
            .source(why)
            .hint("check that the server keeps an upload under the path that it was sent to"))
    }
}

/// Who we are.
fn authorization(options: &Options<'_>) -> Result<HeaderMap> {
    let Some(kind) = options.text("auth") else { return Ok(HeaderMap::new()) };
    match kind.to_ascii_lowercase().as_str() {
        "basic" => match (options.text("user"), options.secret("password")) {
            (Some(user), Some(password)) => basic(user, password),
            _ => Err(options.wrong("auth", "is basic, and needs 'user' and 'password' beside it")),
        },
        "custom" => {
            match (options.text("custom_auth_header"), options.secret("password")) {
                (Some(name), Some(value)) => custom(options, name, value),
                _ => Err(options
                    .wrong("auth", "is custom, and needs 'custom_auth_header' and 'password' beside it")),
            }
        }
        // DVC's configuration takes the word, but `dvc pull` stops with an error: the objects could not be
        // had back.
        "digest" => Err(options
            .wrong("auth", "is digest, which DVC itself no longer supports")
            .hint("use basic over https")),
        _ => Err(options.wrong("auth", "is neither basic nor custom")),
    }
}

/// A user and a password, as a header.
pub(super) fn basic(user: &str, password: &SecretString) -> Result<HeaderMap> {
    let text = format!("{user}:{}", password.expose_secret());
    let text = format!("Basic {}", BASE64_STANDARD.encode(text));
    Ok(HeaderMap::from_iter([(AUTHORIZATION, secret(&text)?)]))
}

/// A header of the user's own.
pub(super) fn custom(options: &Options<'_>, name: &str, value: &SecretString) -> Result<HeaderMap> {
    let name: HeaderName =
        name.parse().map_err(|_| options.wrong("custom_auth_header", "is no header's name"))?;
    Ok(HeaderMap::from_iter([(name, secret(value.expose_secret())?)]))
}

/// A header's value that is never shown.
pub(super) fn secret(text: &str) -> Result<HeaderValue> {
    let value = HeaderValue::from_str(text);
    let mut value = value.map_err(|_| {
        Error::new("the password has characters that no header takes").kind(Kind::Configuration)
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// The remote's root.
pub(super) fn root(url: &str, place: &RemoteName) -> Result<Url> {
    let mut root = Url::parse(url).map_err(|error| {
        Error::new(format!("{place} is no address")).source(error).kind(Kind::Configuration)
    })?;
    let path = format!("{}/", root.path().trim_end_matches('/'));
    root.set_path(&path);
    Ok(root)
}
