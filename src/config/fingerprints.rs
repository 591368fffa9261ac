//! Whether a woken pipe has the secrets of its run.

use super::recorded::RecordedEnvironment;
use super::{Config, reader};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use trainspot_bitbucket::Credential;

/// Tells whether a woken pipe has the secrets that its run began with, without a word about what they are.
///
/// Of each secret it has 12 bits of a keyed BLAKE3 hash. They are so few on purpose: of any 4096 guesses one
/// fits, so who reads the store can confirm none, while 4095 of 4096 changes are noticed. The key is the
/// secret's name, the same in every run: with a key of each run's own, the records of a few runs together
/// would have bits enough to confirm a guess.
///
/// A token that differs in every pipeline, such as a session's, has no hash here: it has to be there, and may
/// be another one. `WAKE_TOKEN` is left out, as no training depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretFingerprints(BTreeMap<String, Option<u16>>);

/// The secrets of a run that a woken pipe does not have as the first pipe had them, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretDifferences {
    /// Secrets that are missing.
    pub missing: Vec<String>,
    /// Secrets that have another value.
    pub changed: Vec<String>,
}

impl SecretFingerprints {
    /// The fingerprints of what a detached run's first pipe has.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let training = config.record.iter().flat_map(RecordedEnvironment::training);
        let training = training.filter(|(_, value)| value.is_none()).map(|(name, _)| name.clone());
        let remotes = reader::dvc_secrets(&config.dvc).map(|secret| secret.name);
        let remotes = remotes.filter(|name| !is_of_session(name));
        let values = values(config);
        let named = training.chain(remotes).chain(own_names(config));
        let prints = named.filter_map(|name| {
            let value = values.get(name.as_str())?;
            let print = (!is_of_session(&name)).then(|| fingerprint(&name, value));
            Some((name, print))
        });
        Self(prints.collect())
    }

    /// Which of these secrets a woken pipe lacks, or has with another value. `config` is the one that was
    /// made from the run's record.
    #[must_use]
    pub fn compare(&self, config: &Config) -> SecretDifferences {
        let values = values(config);
        let mut differences = SecretDifferences::default();
        for (name, print) in &self.0 {
            match values.get(name.as_str()) {
                None => differences.missing.push(name.clone()),
                Some(value) if print.is_some_and(|print| print != fingerprint(name, value)) => {
                    differences.changed.push(name.clone());
                }
                Some(_) => {}
            }
        }
        differences
    }
}

/// Whether a variable holds a credential that is made for one pipeline, and soon ends.
fn is_of_session(name: &str) -> bool {
    name.starts_with("AWS_") || reader::STEP_SECRETS.contains(&name)
}

/// The variables of the credential that the pipe shows to Bitbucket.
fn own_names(config: &Config) -> impl Iterator<Item = String> {
    own(config).into_iter().map(|(name, _)| name.to_owned())
}

fn own(config: &Config) -> Option<(&'static str, &SecretString)> {
    match config.bitbucket.credential.as_ref()? {
        Credential::AccessToken(token) => Some(("BITBUCKET_ACCESS_TOKEN", token)),
        Credential::ApiToken { token, .. } => Some(("ATLASSIAN_API_TOKEN", token)),
        Credential::PipelinesProxy { .. } => None,
    }
}

/// The values of all that may be a run's secret. What the training gets under a name comes first.
fn values(config: &Config) -> BTreeMap<&str, &SecretString> {
    let training = config.train.iter().flat_map(|train| &train.environment);
    let others = own(config)
        .into_iter()
        .chain(config.dvc.environment.iter().map(|(name, value)| (name.as_str(), value)));
    others.chain(training.map(|(name, value)| (name.as_str(), value))).collect()
}

fn fingerprint(name: &str, value: &SecretString) -> u16 {
    const CONTEXT: &str = "trainspot 2026-12-01 fingerprints of a run's secrets";
    const FINGERPRINT_BITS: u16 = 0x0fff;
    let key = blake3::derive_key(CONTEXT, name.as_bytes());
    let hash = blake3::keyed_hash(&key, value.expose_secret().trim().as_bytes());
    let [first, second, ..] = *hash.as_bytes();
    u16::from_be_bytes([first, second]) & FINGERPRINT_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader of the records of many runs has no more than 12 bits of a secret.
    #[test]
    fn a_secret_has_the_same_short_fingerprint_in_every_run() {
        let print = |value: String| fingerprint("HF_TOKEN", &value.into());
        assert_eq!(print("s3cret".to_owned()), print(" s3cret\n".to_owned()));
        let many: std::collections::BTreeSet<u16> =
            (0..20_000).map(|number| print(number.to_string())).collect();
        assert_eq!(many.last(), Some(&0x0fff));
        assert!(many.len() > 4000, "{}", many.len());
        assert_ne!(fingerprint("A", &"value".into()), fingerprint("B", &"value".into()));
    }
}
