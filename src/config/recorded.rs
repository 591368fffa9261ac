//! What a detached run keeps of its first pipe's environment, and how a woken pipe reads it.
//!
//! A run is what its first pipe was told. Whoever wakes it starts the pipeline with `RUN` alone, without the
//! variables that somebody chose when the run began.

use super::Config;
use super::reader;
use super::spelling::list_base;
use super::variables::{Action, ValueKind, VariableSpec, find};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use trainspot_base::log::is_secret_name;
use trainspot_bitbucket::Credential;

/// The `BITBUCKET_*` variables that say what a run is for. The others are the step's own.
const RUN_VARIABLES: [&str; 11] = [
    "BITBUCKET_WORKSPACE",
    "BITBUCKET_REPO_SLUG",
    "BITBUCKET_REPO_OWNER_UUID",
    REPOSITORY_UUID,
    "BITBUCKET_COMMIT",
    "BITBUCKET_BRANCH",
    "BITBUCKET_TAG",
    "BITBUCKET_PR_ID",
    "BITBUCKET_MERGE_QUEUE_PR_IDS",
    "BITBUCKET_PR_DESTINATION_BRANCH",
    "BITBUCKET_PR_DESTINATION_COMMIT",
];
/// The repository's id, which a repository keeps when it is renamed.
pub(super) const REPOSITORY_UUID: &str = "BITBUCKET_REPO_UUID";
/// The variables of the table that say who a pipe is, where it is, and how it reaches others. None is
/// recorded: a token must go to no address that stands in the store.
const PIPE_VARIABLES: [&str; 11] = [
    "AWS_OIDC_ROLE_ARN",
    "ATLASSIAN_ACCOUNT_EMAIL",
    "BITBUCKET_API_URL",
    "DEBUG",
    "DRY_RUN",
    "PIPELINES_PROXY",
    "PUBLIC_IP_URL",
    "RUN",
    "STEP_MAX_TIME",
    "STORE",
    "STORE_ENDPOINT",
];

/// What the first pipe of a run was told, without secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedEnvironment {
    /// Variables of the table, and of [`RUN_VARIABLES`], as they were given.
    variables: BTreeMap<String, String>,
    /// The variables that the training gets. One without a value is secret: the woken pipe must have it.
    training: BTreeMap<String, Option<String>>,
}

impl RecordedEnvironment {
    /// Records what is no secret. `training` has the training's variables, and `is_secret` knows the values
    /// of secrets.
    pub(super) fn new(
        environment: &BTreeMap<String, String>,
        training: &BTreeMap<String, SecretString>,
        is_secret: impl Fn(&str) -> bool,
    ) -> Self {
        let variables = environment.iter().filter(|(name, _)| is_recorded(name));
        let training = training.iter().map(|(name, value)| {
            let value = value.expose_secret();
            let is_open = !is_secret_name(name) && !has_password(value) && !is_secret(value);
            (name.clone(), is_open.then(|| value.to_owned()))
        });
        Self {
            variables: variables.map(|(name, value)| (name.clone(), value.clone())).collect(),
            training: training.collect(),
        }
    }

    /// The recorded variables of the table and of the step.
    pub(super) fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// The training's variables; those without a value are secret.
    pub(super) fn training(&self) -> &BTreeMap<String, Option<String>> {
        &self.training
    }

    /// The environment of a woken pipe, with the recorded variables in the place of its own. What could have
    /// been recorded and was not is missing, whatever the woken pipe has. What no pipe records is not taken
    /// from the store.
    pub(super) fn over(&self, woken: &WokenEnvironment) -> BTreeMap<String, String> {
        let own = woken.0.iter().filter(|(name, _)| !is_recorded(name));
        let own = own.map(|(name, value)| (name.clone(), value.expose_secret().to_owned()));
        let recorded = self.variables.iter().filter(|(name, _)| is_recorded(name));
        own.chain(recorded.map(|(name, value)| (name.clone(), value.clone()))).collect()
    }
}

/// Whether a variable is what a run was told, and no secret.
fn is_recorded(name: &str) -> bool {
    let listed = |name| find(list_base(name)).filter(|variable| variable.kind.is_list());
    let is_told = |variable: &VariableSpec| {
        !variable.secret
            && variable.kind != ValueKind::Environment
            && variable.actions.contains(&Action::Train)
            && !PIPE_VARIABLES.contains(&variable.name)
    };
    RUN_VARIABLES.contains(&name) || find(name).or_else(|| listed(name)).is_some_and(is_told)
}

/// Whether a text holds an address with a password in it.
pub(super) fn has_password(text: &str) -> bool {
    text.split("://").skip(1).any(|rest| {
        let end = rest.find(|letter: char| letter == '/' || letter.is_whitespace()).unwrap_or(rest.len());
        rest[..end].rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
    })
}

/// The environment of a pipe that looks after a run which another pipe began.
#[derive(Clone, Debug)]
pub struct WokenEnvironment(BTreeMap<String, SecretString>);

impl WokenEnvironment {
    pub(super) fn new(environment: &BTreeMap<String, String>) -> Self {
        let hidden = |(name, value): (&String, &String)| (name.clone(), value.as_str().into());
        Self(environment.iter().map(hidden).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(SecretString::expose_secret)
    }
}

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

/// The secrets of a run that a woken pipe does not have as the first pipe had them, by their variables' names.
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
        let training = config.record.iter().flat_map(|record| &record.training);
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
mod tests;
