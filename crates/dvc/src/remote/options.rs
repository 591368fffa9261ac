//! The keys of a remote in `.dvc/config`: which are known, what they say, and which of them cannot be done.
//!
//! DVC itself refuses a key that it does not know. A key that DVC knows and that we do not honour is refused
//! too, unless it changes only how DVC works and not what it writes: silence would store objects in another
//! way than was asked for.

use super::{RemoteName, Settings};
use secrecy::{ExposeSecret as _, SecretString};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use trainspot_base::clock::LONGEST_STATED;
use trainspot_base::error::{Error, Kind, Result};
use trainspot_base::log::is_secret_name;

/// Keys of every remote that are about DVC's own way of working: its parallelism, and what it checks when it
/// pulls.
const IGNORED_KEYS: [&str; 5] = ["url", "checksum_jobs", "jobs", "no_traverse", "verify"];

/// Keys of every remote that ask for another layout of its objects.
const LAYOUT_KEYS: [&str; 2] = ["version_aware", "worktree"];

/// Keys whose values are credentials.
const CREDENTIAL_KEYS: [&str; 12] = [
    "account_key",
    "client_secret",
    "connection_string",
    "gdrive_client_secret",
    "oss_key_secret",
    "passphrase",
    "password",
    "sas_token",
    "secret_access_key",
    "session_token",
    "sse_customer_key",
    "token",
];

/// The keys of one remote, checked.
#[derive(Clone, Copy)]
pub(super) struct Options<'a> {
    settings: &'a Settings,
    place: &'a RemoteName,
}

/// The keys that a kind of remote may have.
pub(super) struct KnownKeys {
    /// The keys that are honoured.
    pub(super) honoured: &'static [&'static str],
    /// The keys that change nothing here.
    pub(super) ignored: &'static [&'static str],
    /// The keys that DVC knows and that cannot be done, each with what to do instead.
    pub(super) refused: &'static [(&'static str, &'static str)],
}

impl<'a> Options<'a> {
    /// The keys of these settings, if all of them are known and can be done.
    pub(super) fn check(settings: &'a Settings, place: &'a RemoteName, known: &KnownKeys) -> Result<Self> {
        let options = Self { settings, place };
        for (key, value) in &settings.options {
            let key = key.as_str();
            if let Some((_, instead)) = known.refused.iter().find(|(name, _)| *name == key) {
                // A flag that is off asks for nothing.
                if flag(value.expose_secret()) != Some(false) {
                    return Err(options.wrong(key, "is not supported").hint(*instead));
                }
            } else if LAYOUT_KEYS.contains(&key) {
                if options.flag(key, false)? {
                    return Err(options.wrong(key, "is not yet supported").hint(
                        "remove it, or keep the model in a second remote without it: `dvc remote add`, and that remote's name in DVC_REMOTE",
                    ));
                }
            } else if ![known.honoured, known.ignored, &IGNORED_KEYS].iter().any(|keys| keys.contains(&key)) {
                return Err(options.wrong(key, "is not a key that DVC knows there").hint(format!(
                    "remove it from .dvc/config, where it stops every dvc command too; known are {}",
                    known.honoured.join(", ")
                )));
            }
        }
        Ok(options)
    }

    /// The keys of these settings, without a check.
    pub(super) fn unchecked(settings: &'a Settings, place: &'a RemoteName) -> Self {
        Self { settings, place }
    }

    /// Where the remote is, for messages.
    pub(super) fn place(&self) -> &'a RemoteName {
        self.place
    }

    /// The text of a key that holds no credential; an empty text counts as none.
    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        debug_assert!(!CREDENTIAL_KEYS.contains(&key), "'{key}' holds a credential");
        self.secret(key).map(SecretString::expose_secret)
    }

    /// The credential that a key holds; an empty one counts as none.
    pub(super) fn secret(&self, key: &str) -> Option<&'a SecretString> {
        given(&self.settings.options, key)
    }

    /// What a variable says that holds no credential; an empty text counts as none.
    pub(super) fn environment(&self, name: &str) -> Option<&'a str> {
        debug_assert!(!is_secret_name(name), "'{name}' holds a credential");
        self.secret_variable(name).map(SecretString::expose_secret)
    }

    /// The credential that a variable holds; an empty one counts as none.
    pub(super) fn secret_variable(&self, name: &str) -> Option<&'a SecretString> {
        given(&self.settings.environment, name)
    }

    /// A switch, as DVC reads it.
    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        let Some(text) = self.text(key) else { return Ok(default) };
        flag(text).ok_or_else(|| self.wrong(key, "is neither true nor false"))
    }

    /// A number of seconds.
    pub(super) fn seconds(&self, key: &str, default: Duration) -> Result<Duration> {
        let Some(text) = self.text(key) else { return Ok(default) };
        let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let seconds = seconds.ok_or_else(|| self.wrong(key, "is not a number of seconds"))?;
        Ok(seconds.min(LONGEST_STATED))
    }

    /// A file that the configuration names.
    pub(super) fn path(&self, key: &str) -> Option<PathBuf> {
        self.text(key).map(|text| self.resolve(text))
    }

    /// A path from elsewhere, as one of the configuration.
    pub(super) fn resolve(&self, text: &str) -> PathBuf {
        self.settings.path(text)
    }

    /// An error about a key's value. The value itself may be a secret.
    pub(super) fn wrong(&self, key: &str, why: &str) -> Error {
        Error::new(format!("'{key}' of {} {why}", self.place)).kind(Kind::Configuration)
    }
}

fn given<'a>(values: &'a BTreeMap<String, SecretString>, name: &str) -> Option<&'a SecretString> {
    values.get(name).filter(|value| !value.expose_secret().is_empty())
}

/// A boolean, in the spellings of DVC's own configuration.
pub(super) fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE_KEYS: KnownKeys = KnownKeys {
        honoured: &["region", "use_ssl"],
        ignored: &["cache_regions"],
        refused: &[("ask_password", "set the password")],
    };

    fn check(options: &[(&str, &str)]) -> Result<(), String> {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        let settings =
            Settings { name: "store".into(), url: "s3://b".into(), options, ..Settings::default() };
        let place = RemoteName::of(&settings);
        Options::check(&settings, &place, &SAMPLE_KEYS).map(drop).map_err(|error| error.render())
    }

    #[test]
    fn keys_are_honoured_ignored_or_refused() {
        assert_eq!(
            check(&[("region", "x"), ("jobs", "4"), ("cache_regions", "true"), ("verify", "true")]),
            Ok(())
        );
        assert_eq!(check(&[("version_aware", "false"), ("ask_password", "no")]), Ok(()));
        let why = check(&[("version_aware", "True")]).unwrap_err();
        assert!(
            why.starts_with("'version_aware' of the remote 'store' (s3://b) is not yet supported"),
            "{why}"
        );
        let why = check(&[("ask_password", "true")]).unwrap_err();
        assert!(why.ends_with("is not supported\nNext: set the password"), "{why}");
        let why = check(&[("regoin", "x")]).unwrap_err();
        assert!(why.contains("not a key that DVC knows there") && why.ends_with("region, use_ssl"), "{why}");
        let why = check(&[("worktree", "maybe")]).unwrap_err();
        assert!(why.contains("neither true nor false"), "{why}");
    }
}
