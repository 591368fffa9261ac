//! From the environment to a [`Config`]: the only room that reads the environment.
//!
//! Every mistake is found before anything starts, and all of them are told at once.

mod alternatives;
mod detached;
mod environment;
mod fingerprints;
pub mod help;
mod problems;
mod reader;
mod recorded;
pub mod runner;
mod shapes;
mod spelling;
mod values;
pub mod variables;

pub use detached::{Detach, StoreSettings};
pub use fingerprints::{SecretDifferences, SecretFingerprints};
pub use problems::Problems;
pub use recorded::{RecordedEnvironment, WokenEnvironment};

use reader::ConfigReader;
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use trainspot_base::log::Secret;
use trainspot_bitbucket::{Credential, StepVariables};
use trainspot_compute::RunId;
use trainspot_compute::aws::{AwsSettings, SweepSettings};
use trainspot_dvc::DvcSettings;
use variables::Action;

/// All that a run was asked to do, checked.
#[derive(Debug)]
pub struct Config {
    /// What to do.
    pub action: Action,
    /// Whether to show debugging lines.
    pub debug: bool,
    /// What Pipelines says of the step.
    pub pipeline: StepVariables,
    /// The variables of the table as they were given, but for those that may hold secrets. By them the step
    /// is found in `bitbucket-pipelines.yml`.
    pub given: BTreeMap<String, String>,
    /// The repository's clone: `BITBUCKET_CLONE_DIR`, or the working directory.
    pub clone_dir: PathBuf,
    /// Patterns of the files to commit, relative to the clone.
    pub outputs: Vec<String>,
    /// What DVC keeps of the outputs.
    pub dvc: DvcSettings,
    /// How to train; present for [`Action::Train`], unless [`Self::run`] names the run to go on with.
    pub train: Option<Train>,
    /// What to rent as which runner; present for [`Action::Runner`].
    pub runner: Option<runner::RunnerSettings>,
    /// What to remove; present for [`Action::Sweep`].
    pub sweep: Option<SweepSettings>,
    /// The detached run that the action is about, where one was named. With [`Action::Train`] this
    /// configuration then has only what leads to the run's record in the store, and
    /// [`Self::load_recorded`] makes the whole one.
    pub run: Option<RunId>,
    /// The store of detached runs; present for [`Action::Status`] and [`Action::Stop`], for a run to go on
    /// with, and for [`Action::Sweep`] if one is given. A training that begins a run has it in its
    /// [`Detach`].
    pub store: Option<StoreSettings>,
    /// What a detached run keeps of this configuration; present with [`Train::detach`].
    pub record: Option<RecordedEnvironment>,
    /// The environment, by which a recorded configuration is completed; present with [`Self::run`].
    pub woken: Option<WokenEnvironment>,
    /// How to publish.
    pub publish: Publish,
    /// How to reach Bitbucket.
    pub bitbucket: BitbucketSettings,
    /// Values that must never be shown.
    pub secrets: Vec<Secret>,
    /// What is odd, but not wrong.
    pub warnings: Vec<String>,
}

/// Where to train.
#[derive(Clone, Debug)]
pub enum Cloud {
    /// On the machine that runs the pipe.
    Local,
    /// On a machine rented from AWS.
    Aws(Box<AwsSettings>),
}

/// How to train.
#[derive(Debug)]
pub struct Train {
    /// Where.
    pub cloud: Cloud,
    /// Shell commands, one or more lines.
    pub command: String,
    /// The variables that the training gets, values included.
    pub environment: BTreeMap<String, SecretString>,
    /// Patterns of files to send although git ignores them.
    pub include: Vec<String>,
    /// Patterns of the files from which the training can go on.
    pub checkpoints: Vec<String>,
    /// Whether to go on from such files that are in the clone.
    pub resume: bool,
    /// How often checkpoints are saved.
    pub checkpoint_interval: Duration,
    /// The training is ended after this time.
    pub max_runtime: Duration,
    /// The step's max-time, if the user names it.
    pub step_max_time: Option<Duration>,
    /// How often in a row a lost machine is replaced, without a newer checkpoint in between.
    pub max_restarts: u32,
    /// A machine ends itself after this long without a word from the pipe.
    pub orphan_grace: Duration,
    /// What of the environment describes this machine: paths, locale, proxies, Python's and CUDA's settings.
    pub machine_environment: BTreeMap<String, SecretString>,
    /// Where short-lived files may go.
    pub scratch: PathBuf,
    /// How the training outlives the pipe; none if the pipe stays.
    pub detach: Option<Detach>,
}

/// Where the outputs go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishMode {
    /// To a branch of their own, with a pull request.
    PullRequest,
    /// To the target branch itself.
    Push,
    /// Nowhere.
    None,
}

/// How to publish.
#[derive(Debug)]
pub struct Publish {
    /// Where the outputs go.
    pub mode: PublishMode,
    /// The branch that they are for, if one was named.
    pub target_branch: Option<String>,
    /// The branch to commit to, if one was named.
    pub branch: Option<String>,
    /// The commit's author.
    pub user_name: String,
    /// The commit's author's e-mail.
    pub user_email: String,
    /// The commit's first line, if one was given.
    pub commit_message: Option<String>,
    /// Whether the commit must start no pipeline.
    pub skip_ci: bool,
    /// Whether Bitbucket's usual limits of size hold for the repository.
    pub size_limits: bool,
    /// Patterns of the files with metrics, if any were named.
    pub metrics: Vec<String>,
    /// A Markdown file that opens the report.
    pub report: Option<String>,
    /// The report's name.
    pub report_name: String,
}

/// How to reach Bitbucket.
#[derive(Debug)]
pub struct BitbucketSettings {
    /// The user's credential, else the proxy of Pipelines; none outside Pipelines.
    pub credential: Option<Credential>,
    /// The API's base, without a final slash.
    pub api_url: String,
}

/// What may be secret in an environment from which no [`Config`] could be made.
#[must_use]
pub fn suspects(environment: impl IntoIterator<Item = (String, String)>) -> Vec<Secret> {
    reader::suspects(environment)
}

impl Config {
    /// Reads a whole environment.
    ///
    /// # Errors
    /// Every mistake in it, at once.
    pub fn load(environment: impl IntoIterator<Item = (String, String)>) -> Result<Self, Problems> {
        let mut reader = ConfigReader::new(environment);
        let config = reader.config();
        reader.finish(config)
    }

    /// The configuration of a detached run, as its first pipe recorded it, for a pipe that was woken.
    /// Secrets, credentials, and what is the step's own come from that pipe's environment.
    ///
    /// # Errors
    /// Every mistake in it, at once.
    pub fn load_recorded(record: &RecordedEnvironment, woken: &WokenEnvironment) -> Result<Self, Problems> {
        let mut reader = ConfigReader::recorded(record, woken);
        let config = reader.config();
        reader.finish(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    #[test]
    fn a_variable_reaches_the_training_as_it_is() {
        let given = [
            ("CLOUD", "local"),
            ("TRAIN_COMMAND", "x"),
            ("OUTPUTS", "y"),
            ("TRAIN_ENV", "KEY"),
            ("KEY", "-----\nabc\n-----\n"),
        ];
        let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let train = Config::load(given).unwrap().train.unwrap();
        assert_eq!(train.environment["KEY"].expose_secret(), "-----\nabc\n-----\n");
    }

    /// What is secret in an environment: in each of these variables, and in what they pass on.
    const SECRETS: [&str; 10] = [
        "s3cret-access",
        "s3cret-train",
        "s3cret-proxy",
        "s3cret-key",
        "s3cret-session",
        "s3cret-oidc",
        "s3cret-gdrive",
        "s3cret-runner",
        "s3cret-variable",
        "s3cret-wake",
    ];

    fn shown(given: &[(&str, &str)]) -> String {
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        format!("{:?}", Config::load(given).unwrap())
    }

    /// What a detached run with this environment keeps of it.
    fn stored(given: &[(&str, &str)]) -> String {
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let config = Config::load(given).unwrap();
        let kept = (config.record.as_ref().unwrap(), SecretFingerprints::of(&config));
        serde_json::to_string(&kept).unwrap()
    }

    #[test]
    fn no_configuration_shows_a_secret() {
        let common = [
            ("BITBUCKET_ACCESS_TOKEN", "s3cret-access"),
            ("BITBUCKET_STEP_OIDC_TOKEN", "s3cret-oidc"),
            ("AWS_DEFAULT_REGION", "eu-west-1"),
            ("INSTANCE_TYPE", "m5.large"),
        ];
        let train = [
            ("CLOUD", "aws"),
            ("TRAIN_COMMAND", "x"),
            ("TRAIN_ENV", "HF_TOKEN=s3cret-train"),
            ("HTTPS_PROXY", "http://me:s3cret-proxy@proxy"),
            ("DVC_OUTPUTS", "y"),
            ("GDRIVE_CREDENTIALS_DATA", "s3cret-gdrive"),
        ];
        let keys = [
            ("AWS_ACCESS_KEY_ID", "ASIAEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "s3cret-key"),
            ("AWS_SESSION_TOKEN", "s3cret-session"),
        ];
        let runner = [
            ("ACTION", "runner"),
            ("AWS_OIDC_ROLE_ARN", "arn:aws:iam::123456789012:role/r"),
            ("RUNNER_ACCESS_TOKEN", "s3cret-runner"),
            ("RUN_PIPELINE", "train"),
            ("RUN_BRANCH", "main"),
            ("RUN_VARIABLES", "API_KEY=s3cret-variable"),
            ("BITBUCKET_WORKSPACE", "w"),
            ("BITBUCKET_REPO_SLUG", "r"),
            ("BITBUCKET_REPO_OWNER_UUID", "{o}"),
            ("BITBUCKET_REPO_UUID", "{u}"),
        ];
        let trains = shown(&[&common[..], &train, &keys].concat());
        let runs = shown(&[&common[..], &runner].concat());
        let detached = [
            ("DETACH", "true"),
            ("STORE", "s3://models"),
            ("INSTANCE_PROFILE", "machine"),
            ("WAKE_TOKEN", "s3cret-wake"),
        ];
        let detached = [&common[..], &train, &keys, &detached].concat();
        let woken = shown(&[&detached[..], &[("RUN", "0123456789abcdef")]].concat());
        let (told, stored) = (shown(&detached), stored(&detached));
        for name in ["HF_TOKEN", "HTTPS_PROXY", "ASIAEXAMPLE", "GDRIVE_CREDENTIALS_DATA"] {
            assert!(trains.contains(name), "{name}: {trains}");
        }
        for name in ["role/r", "API_KEY"] {
            assert!(runs.contains(name), "{name}: {runs}");
        }
        assert!(told.contains("WAKE_TOKEN") && woken.contains("HF_TOKEN"), "{told}\n{woken}");
        for name in ["HF_TOKEN", "GDRIVE_CREDENTIALS_DATA", "m5.large"] {
            assert!(stored.contains(name), "{name}: {stored}");
        }
        for secret in SECRETS {
            for text in [&trains, &runs, &told, &woken, &stored] {
                assert!(!text.contains(secret), "{secret}: {text}");
            }
        }
    }
}
