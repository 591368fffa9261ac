//! Where the server is, who it must be, and who we are.
//!
//! | what | from |
//! | --- | --- |
//! | its keys | the environment's `SSH_KNOWN_HOSTS`, the text of such a file; `~/.ssh/known_hosts`; `/etc/ssh/ssh_known_hosts` |
//! | our key | `keyfile`; the environment's `SSH_PRIVATE_KEY`, the text of such a file; without a password, `~/.ssh/id_ed25519`, `id_ecdsa`, `id_rsa` |
//!
//! Neither `~/.ssh/config` nor an agent is asked.

use super::super::Settings;
use super::super::options::Options;
use russh::keys::{PrivateKey, PublicKey, decode_secret_key, known_hosts::known_host_keys_path};
use secrecy::{ExposeSecret as _, SecretString};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use trainspot_base::error::{Context as _, Error, Kind, Result};
use url::Url;

/// The time from the first byte to the login.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// A server, the keys that prove it, and the credentials for it.
pub(super) struct SftpTarget {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    /// The keys that it may show.
    pub(super) known: Vec<PublicKey>,
    /// The keys that we may show.
    pub(super) keys: Vec<PrivateKey>,
    pub(super) password: Option<SecretString>,
    pub(super) login_timeout: Duration,
}

impl SftpTarget {
    /// The server, and the path of the remote's root on it.
    pub(super) fn of(settings: &Settings, options: &Options<'_>) -> Result<(Self, String)> {
        let place = options.place();
        let wrong = |why: &str| Error::new(format!("{place} {why}")).kind(Kind::Configuration);
        let url = Url::parse(&settings.url).map_err(|error| wrong("is no address").source(error))?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("names no host"))?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let port = match options.text("port") {
            Some(text) => text.parse().map_err(|_| options.wrong("port", "is no port"))?,
            None => url.port().unwrap_or(22),
        };
        let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let in_url = Some(url.username()).filter(|user| !user.is_empty()).map(decode);
        let user = options.text("user").map(str::to_owned).or(in_url);
        let user = user.or_else(|| options.environment("USER").map(str::to_owned));
        let user = user.ok_or_else(|| wrong("says no user").hint("set 'user' of the remote"))?;
        let in_url = || url.password().map(|password| decode(password).into());
        let password = options.secret("password").cloned().or_else(in_url);
        let known = known(options, &host, port)?;
        if known.is_empty() {
            return Err(unknown(&wrong("has a host key that no known_hosts knows").to_string(), &host, port));
        }
        let keys = keys(options, password.is_some())?;
        if keys.is_empty() && password.is_none() {
            return Err(wrong("has no key and no password to log in with")
                .hint("set 'keyfile' of the remote, or SSH_PRIVATE_KEY to the text of a key"));
        }
        let login_timeout = options.seconds("timeout", LOGIN_TIMEOUT)?.min(LOGIN_TIMEOUT);
        let root = decode(url.path()).trim_end_matches('/').to_owned();
        Ok((Self { host, port, user, known, keys, password, login_timeout }, root))
    }
}

/// The server's address with the port that counts.
pub(super) fn address(settings: &Settings, options: &Options<'_>) -> String {
    let url = Url::parse(&settings.url).ok();
    let with_port = url.zip(options.text("port")).and_then(|(mut url, port)| {
        url.set_port(Some(port.parse().ok()?)).ok()?;
        Some(url.to_string())
    });
    with_port.unwrap_or_else(|| settings.url.clone())
}

fn unknown(what: &str, host: &str, port: u16) -> Error {
    Error::new(what).kind(Kind::Configuration).hint(format!(
        "put what `ssh-keyscan -p {port} {host}` prints into SSH_KNOWN_HOSTS or ~/.ssh/known_hosts, and compare it with what the server's owner says"
    ))
}

/// The keys under which the server is known.
fn known(options: &Options<'_>, host: &str, port: u16) -> Result<Vec<PublicKey>> {
    let look = |path: &Path| {
        let found = known_host_keys_path(host, port, path);
        let found = found.with_context(|| format!("cannot read {}", path.display()))?;
        Ok::<_, Error>(found.into_iter().map(|(_, key)| key))
    };
    let mut keys = Vec::new();
    if let Some(text) = options.environment("SSH_KNOWN_HOSTS") {
        let mut file = tempfile::NamedTempFile::new().context("cannot write known_hosts")?;
        file.write_all(text.as_bytes()).context("cannot write known_hosts")?;
        keys.extend(look(file.path())?);
    }
    if let Some(home) = options.environment("HOME") {
        keys.extend(look(&Path::new(home).join(".ssh/known_hosts"))?);
    }
    keys.extend(look(Path::new("/etc/ssh/ssh_known_hosts"))?);
    Ok(keys)
}

/// The keys with which we may log in.
fn keys(options: &Options<'_>, has_password: bool) -> Result<Vec<PrivateKey>> {
    let passphrase = options.secret("passphrase").map(SecretString::expose_secret);
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).map(SecretString::from);
        let text = text.with_context(|| format!("cannot read the key {}", path.display()))?;
        decode_secret_key(text.expose_secret(), passphrase)
            .with_context(|| format!("cannot use the key {}", path.display()))
            .map_err(|error| error.hint("is it a private key, and 'passphrase' right?"))
    };
    // Another machine's path, where the key came as a variable.
    let given = options.secret_variable("SSH_PRIVATE_KEY");
    if let Some(path) = options.path("keyfile").filter(|path| given.is_none() || path.exists()) {
        return Ok(vec![read(path)?]);
    }
    if let Some(text) = given {
        // A pipeline's variable loses the last line's end.
        let text = SecretString::from(format!("{}\n", text.expose_secret().trim_end()));
        let key = decode_secret_key(text.expose_secret(), passphrase);
        return Ok(vec![key.context("cannot use the key in SSH_PRIVATE_KEY")?]);
    }
    let Some(home) = options.environment("HOME").filter(|_| !has_password) else { return Ok(Vec::new()) };
    let usual = ["id_ed25519", "id_ecdsa", "id_rsa"].map(|name| Path::new(home).join(".ssh").join(name));
    Ok(usual.into_iter().filter(|path| path.exists()).filter_map(|path| read(path).ok()).collect())
}
