//! The server that would get a remote's credential, and who named it.
//!
//! Each kind of remote says where its requests go by the same function that it opens itself with, so that
//! what is checked here is what happens.

use super::options::{Options, flag};
use super::{NamedBy, RemoteName, RemoteScheme, Settings, cloud, ssh, web};
use std::fmt::{self, Display};
use std::net::IpAddr;
use trainspot_base::error::{Error, Kind, Result};
use url::Url;

/// A server that gets a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recipient {
    host: String,
    port: Option<u16>,
    /// Whether TLS or SSH hides from others what is sent.
    hidden: bool,
    /// What the configuration says of the server's certificate.
    certificate: Certificate,
    /// Who named the server.
    pub(crate) named_by: NamedBy,
}

/// What is asked of a server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Certificate {
    /// That an authority which every system knows has signed it.
    Usual,
    /// That one of the authorities in this file has.
    Authorities(String),
    /// Nothing.
    Unchecked,
}

impl Recipient {
    /// Who gets the credential of a remote; nobody, where the remote takes none.
    ///
    /// # Errors
    /// The remote's address is none, or of no kind of remote.
    pub(crate) fn of(settings: &Settings) -> Result<Option<Self>> {
        let place = RemoteName::of(settings);
        let options = Options::unchecked(settings, &place);
        let to = match RemoteScheme::of(settings)? {
            RemoteScheme::Store(store) => cloud::recipient(store, &options)?,
            RemoteScheme::Http | RemoteScheme::WebDav => web::recipient(settings, &options),
            RemoteScheme::Ssh => Some((ssh::address(settings, &options), NamedBy::Configuration)),
            // A folder has no credential, and Drive is always Google's.
            RemoteScheme::Path | RemoteScheme::Drive => None,
        };
        to.map(|(url, named_by)| Self::at(&url, named_by, &options)).transpose()
    }

    fn at(url: &str, named_by: NamedBy, options: &Options<'_>) -> Result<Self> {
        let url = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
        let wrong =
            || Error::new(format!("{} has no usable address", options.place())).kind(Kind::Configuration);
        let url = Url::parse(&url).map_err(|error| wrong().source(error))?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        let certificate = match options.text("ssl_verify") {
            None => Certificate::Usual,
            Some(text) => match flag(text) {
                Some(true) => Certificate::Usual,
                Some(false) => Certificate::Unchecked,
                None => Certificate::Authorities(text.to_owned()),
            },
        };
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        let hidden = matches!(url.scheme(), "https" | "ssh");
        Ok(Self { host, port: url.port(), hidden, certificate, named_by })
    }

    /// Whether it is this machine itself, so that nobody else hears what is sent.
    pub(crate) fn is_here(&self) -> bool {
        let address = self.host.parse::<IpAddr>();
        address.map_or(self.host == "localhost", |address| address.is_loopback())
    }

    /// Whether anybody on the way could read what is sent.
    pub(crate) fn is_plain(&self) -> bool {
        !self.hidden
    }

    /// Whether it is believed to be the one that is meant without a proof.
    pub(crate) fn is_unchecked(&self) -> bool {
        self.certificate == Certificate::Unchecked
    }

    /// Whether the configuration has no say in where the credential goes, nor in how the server is known.
    pub(crate) fn is_beyond_configuration(&self) -> bool {
        self.named_by != NamedBy::Configuration && self.certificate == Certificate::Usual
    }

    /// Whether this entry of a list of hosts means it: `host`, or `host:port`.
    pub(crate) fn is_called(&self, entry: &str) -> bool {
        entry.eq_ignore_ascii_case(&self.host) || entry.eq_ignore_ascii_case(&self.to_string())
    }

    /// Whether a credential that goes to `other` may as well go here.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let key = |it: &Self| (it.host.clone(), it.port, it.hidden, it.certificate.clone());
        key(self) == key(other)
    }
}

impl Display for Recipient {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match self.port {
            Some(port) => write!(out, "{host}:{port}"),
            None => out.write_str(&host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The server of a remote with these keys and variables, as words; `-` for none.
    fn to(url: &str, options: &[(&str, &str)], variables: &[(&str, &str)]) -> String {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect()
        };
        let (options, environment) = (map(options), map(variables));
        let settings = Settings { url: url.to_owned(), options, environment, ..Settings::default() };
        match Recipient::of(&settings) {
            Ok(Some(to)) => {
                let plain = if to.is_plain() { " plain" } else { "" };
                let unchecked = if to.is_unchecked() { " unchecked" } else { "" };
                format!("{to} {:?}{plain}{unchecked}", to.named_by)
            }
            Ok(None) => "-".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn each_kind_says_who_gets_its_credential() {
        let sas = ("AZURE_STORAGE_SAS_TOKEN", "sv=1");
        let account = "AZURE_STORAGE_ACCOUNT";
        for (url, options, variables, wanted) in [
            ("/srv/x", &[][..], &[][..], "-"),
            ("gdrive://id", &[], &[], "-"),
            ("s3://b", &[], &[], "s3.amazonaws.com Service"),
            ("s3://b", &[("use_ssl", "false")], &[], "s3.amazonaws.com Service plain"),
            ("s3://b", &[("allow_anonymous_login", "true"), ("endpointurl", "http://h")], &[], "-"),
            ("s3://b", &[("endpointurl", "http://h:9")], &[], "h:9 Configuration plain"),
            ("s3://b", &[], &[("AWS_ENDPOINT_URL", "http://H:9")], "h:9 Step plain"),
            (
                "s3://b",
                &[("endpointurl", "https://h"), ("ssl_verify", "False")],
                &[],
                "h Configuration unchecked",
            ),
            ("gs://b", &[], &[], "storage.googleapis.com Service"),
            ("gs://b", &[("endpointurl", "http://h")], &[], "h Configuration plain"),
            ("azure://c", &[("account_name", "a")], &[sas], "a.blob.core.windows.net Configuration"),
            ("azure://c", &[("account_name", "e.com/#")], &[sas], "e.com Configuration"),
            ("azure://c", &[], &[sas, (account, "a")], "a.blob.core.windows.net Step"),
            ("azure://c", &[("connection_string", "BlobEndpoint=http://h/a")], &[], "h Configuration plain"),
            ("azure://c", &[("account_name", "a"), ("allow_anonymous_login", "true")], &[], "-"),
            ("oss://b", &[("oss_endpoint", "h")], &[], "h Configuration"),
            ("oss://b", &[], &[("OSS_ENDPOINT", "http://h")], "h Step plain"),
            ("http://h/x", &[], &[], "-"),
            ("http://h/x", &[("auth", "basic")], &[], "h Configuration plain"),
            ("https://me:pw@h/x", &[], &[], "h Configuration"),
            ("webdav://h/x", &[("token", "t")], &[], "h Configuration plain"),
            (
                "webdavs://h:1/x",
                &[("password", "t"), ("ssl_verify", "no")],
                &[],
                "h:1 Configuration unchecked",
            ),
            ("ssh://me@h/x", &[("port", "2222")], &[], "h:2222 Configuration"),
            ("ssh://[::1]:5/x", &[], &[], "[::1]:5 Configuration"),
            ("http:///x", &[("auth", "basic")], &[], "x Configuration plain"),
        ] {
            assert_eq!(to(url, options, variables), wanted, "{url} {options:?} {variables:?}");
        }
    }
}
