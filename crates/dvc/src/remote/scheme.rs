//! The kinds of remotes, by the schemes of their addresses.

use super::{RemoteName, Settings};
use trainspot_base::error::{Error, Kind, Result};

/// A kind of remote. Each `match` on it names all of them: where a credential goes must be said of a new one.
#[derive(Clone, Copy)]
pub(super) enum RemoteScheme {
    Path,
    Store(StoreScheme),
    Ssh,
    Http,
    WebDav,
    Drive,
}

/// A kind of object store.
#[derive(Clone, Copy)]
pub(super) enum StoreScheme {
    S3,
    Gs,
    Azure,
    Oss,
}

impl RemoteScheme {
    /// The kind of remote that has this address.
    ///
    /// # Errors
    /// No kind of remote has this address.
    pub(super) fn of(settings: &Settings) -> Result<Self> {
        Ok(match settings.url.split_once("://").map_or("", |(scheme, _)| scheme) {
            "" => Self::Path,
            "s3" => Self::Store(StoreScheme::S3),
            "gs" => Self::Store(StoreScheme::Gs),
            "azure" => Self::Store(StoreScheme::Azure),
            "oss" => Self::Store(StoreScheme::Oss),
            "ssh" => Self::Ssh,
            "http" | "https" => Self::Http,
            "webdav" | "webdavs" => Self::WebDav,
            "gdrive" => Self::Drive,
            other => return Err(unsupported(&RemoteName::of(settings), other)),
        })
    }
}

fn unsupported(place: &RemoteName, scheme: &str) -> Error {
    let error = Error::new(format!("{place} is of a kind that is not supported: {scheme}://"));
    error
        .kind(Kind::Configuration)
        .hint("use a path, s3://, gs://, azure://, oss://, ssh://, http(s)://, webdav(s):// or gdrive://")
}
