//! What a detached run keeps of its first pipe's environment, and how a woken pipe reads it.
//!
//! A run is what its first pipe was told. Whoever wakes it starts the pipeline with `RUN` alone, without the
//! variables that somebody chose when the run began.

use super::spelling::list_base;
use super::variables::{Action, ValueKind, VariableSpec, find};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use trainspot_base::log::is_secret_name;

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

    /// The recorded texts that might hold a secret, by the names of their variables. What names files,
    /// branches and the like cannot, though a secret may be the name of a file.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        let is_name = |kind| {
            matches!(kind, ValueKind::Patterns | ValueKind::Paths | ValueKind::Path | ValueKind::Branch)
        };
        let of_table = |name: &str| find(name).or_else(|| find(list_base(name)));
        let all = self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        all.filter(move |(name, _)| of_table(name).is_some_and(|variable| !is_name(variable.kind)))
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

/// Whether a text holds an address with a password in it. A variable of the shell's in its place is none.
pub(super) fn has_password(text: &str) -> bool {
    text.split("://").skip(1).any(|rest| {
        let end = rest.find(|letter: char| letter == '/' || letter.is_whitespace()).unwrap_or(rest.len());
        let password = rest[..end].rsplit_once('@').and_then(|(user, _)| user.split_once(':'));
        password.is_some_and(|(_, password)| !password.is_empty() && !password.starts_with('$'))
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

#[cfg(test)]
mod tests;
