//! Runs that outlive their pipe.

use super::super::detached::{Detach, StoreSettings};
use super::super::recorded::{REPOSITORY_UUID, RecordedEnvironment, WokenEnvironment, has_password};
use super::super::values::{self, ParsedValue};
use super::super::variables::{Action, Provider, ValueKind, VariableSpec};
use super::super::{Cloud, Train};
use super::ConfigReader;
use secrecy::{ExposeSecret as _, SecretString};
use std::collections::BTreeMap;
use std::time::Duration;
use trainspot_base::log::Secret;
use trainspot_compute::RunId;
use trainspot_compute::aws::AwsAccount;
use trainspot_store::{BucketAccess, BucketCredentials, StoreAddress};

/// The variable of the custom pipeline that `RUN` is mapped from. Where somebody starts the pipeline without
/// it, `RUN` is its name.
pub(super) const RUN_SOURCE: &str = "TRAINSPOT_RUN";
/// How long a detached run looks for capacity where nobody says so: to wait is the store's business.
const DETACHED_CAPACITY_WAIT: Duration = Duration::from_mins(2);
/// The region of a bucket that is no bucket of AWS, where nobody names one.
const FOREIGN_REGION: &str = "us-east-1";
/// The shortest secret that is looked for in other variables. A shorter one may be a word.
const SHORTEST_SOUGHT_BYTES: usize = 12;
/// What a woken pipe reads before it has its run's record: all that leads to the store.
const WOKEN_VARIABLES: [&str; 18] = [
    "ACTION",
    "ATLASSIAN_ACCOUNT_EMAIL",
    "ATLASSIAN_API_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "AWS_DEFAULT_REGION",
    "AWS_OIDC_ROLE_ARN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "BITBUCKET_ACCESS_TOKEN",
    "BITBUCKET_API_URL",
    "CLOUD",
    "DEBUG",
    "DETACH",
    "FALLBACK_REGIONS",
    "PIPELINES_PROXY",
    "RUN",
    "STORE",
    "STORE_ENDPOINT",
];

impl ConfigReader {
    /// The reader of a woken pipe's environment, with what was recorded of its run in the place of its own.
    pub(in super::super) fn recorded(record: &RecordedEnvironment, woken: &WokenEnvironment) -> Self {
        let mut reader = Self::over(record.over(woken), Some(record.clone()));
        let recorded = record.variables().get(REPOSITORY_UUID);
        if recorded.zip(woken.get(REPOSITORY_UUID)).is_some_and(|(recorded, own)| recorded != own) {
            reader.problems.add("RUN", "is a run of another repository");
        }
        reader
    }

    /// Whether the run's record has the word on a variable, and not this environment.
    pub(super) fn is_left_to_record(&self, variable: &VariableSpec) -> bool {
        match self.record {
            Some(_) => variable.kind == ValueKind::Environment,
            None => self.is_woken && !WOKEN_VARIABLES.contains(&variable.name),
        }
    }

    /// The training's variables, as they were recorded. A secret that this pipe does not have is left out: it
    /// is not needed to publish what is trained already.
    pub(super) fn recorded_training(&self, record: &RecordedEnvironment) -> BTreeMap<String, SecretString> {
        let own = super::find("TRAIN_ENV").and_then(|list| self.environment.items(list).ok());
        let assigned: BTreeMap<&str, &str> =
            own.iter().flatten().filter_map(|item| item.split_once('=')).collect();
        let own = |name: &str| {
            let of_environment = self.environment.get(name).map(|_| self.environment.0[name].as_str());
            assigned.get(name).copied().or(of_environment)
        };
        let all = record.training().iter();
        all.filter_map(|(name, value)| Some((name.clone(), value.as_deref().or_else(|| own(name))?.into())))
            .collect()
    }

    pub(super) fn run(&self) -> Option<RunId> {
        RunId::parse(&self.some("RUN")?)
    }

    pub(super) fn capacity_wait(&self) -> Duration {
        if self.switch("DETACH") && !self.chosen("CAPACITY_WAIT") {
            return DETACHED_CAPACITY_WAIT;
        }
        self.duration("CAPACITY_WAIT")
    }

    pub(super) fn detach(&mut self, cloud: &Cloud) -> Option<Detach> {
        if !self.switch("DETACH") {
            for name in ["STORE", "STORE_ENDPOINT", "WAKE_BUS", "WAKE_PIPELINE"] {
                if self.some(name).is_some() {
                    self.warnings.push(format!("{name} has no effect without DETACH"));
                }
            }
            return None;
        }
        if self.missing("STORE") {
            self.problems.add("DETACH", "needs STORE, the address of the bucket that keeps the run");
        }
        let account = match cloud {
            Cloud::Aws(aws) => Some(aws.account.clone()),
            Cloud::Local => None,
        };
        if account.is_some() && self.missing("INSTANCE_PROFILE") {
            self.problems.add(
                "DETACH",
                "needs INSTANCE_PROFILE, by which the machine writes to STORE when the pipe has gone",
            );
        }
        Some(Detach {
            store: self.store(account)?,
            instance_profile: self.some("INSTANCE_PROFILE"),
            wake_token: self.secret("WAKE_TOKEN"),
            wake_bus: self.some("WAKE_BUS"),
            wake_pipeline: self.some("WAKE_PIPELINE"),
        })
    }

    /// The store of the actions that look after runs, and of a pipe that is woken.
    pub(super) fn watched_store(&mut self) -> Option<StoreSettings> {
        if self.is_woken && !self.switch("DETACH") {
            self.problems.add("RUN", "is given without DETACH, and only a detached run can be gone on with");
        }
        if self.missing("STORE") {
            self.problems.add("STORE", "is missing: it is the address at which detached runs are kept");
        }
        if self.action == Action::Stop && self.missing("RUN") {
            self.problems.add("RUN", "is missing: name the run to end, as ACTION 'status' lists it");
        }
        let account = (self.provider == Some(Provider::Aws)).then(|| self.account());
        self.store(account)
    }

    /// The store at `STORE`, if that names one.
    pub(super) fn store(&mut self, account: Option<AwsAccount>) -> Option<StoreSettings> {
        let address = StoreAddress::parse(&self.some("STORE")?).ok()?;
        let is_folder = matches!(address, StoreAddress::Folder(_));
        if is_folder && account.is_some() {
            self.problems.add("STORE", "is a folder, which a rented machine cannot reach; name a bucket");
        }
        if is_folder && self.some("STORE_ENDPOINT").is_some() {
            self.warnings.push("STORE_ENDPOINT has no effect where STORE is a folder".to_owned());
        }
        let endpoint = self.some("STORE_ENDPOINT");
        let (region, credentials) = match &account {
            Some(account) => (account.regions.first().cloned().unwrap_or_default(), keys(account)),
            None if is_folder => Default::default(),
            None => self.keys_of_bucket(),
        };
        Some(StoreSettings { address, access: BucketAccess { region, endpoint, credentials }, account })
    }

    /// What reaches a bucket with `CLOUD: local`, where nobody else reads AWS's variables.
    fn keys_of_bucket(&mut self) -> (String, BucketCredentials) {
        let region = self.environment.get("AWS_DEFAULT_REGION").unwrap_or(FOREIGN_REGION).to_owned();
        let [id, secret, session_token] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]
            .map(|name| self.environment.get(name).map(str::to_owned));
        let Some((id, secret)) = id.zip(secret) else {
            self.problems.add(
                "STORE",
                "is a bucket, which with CLOUD 'local' is reached by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; give both, or a folder",
            );
            return (region, BucketCredentials::default());
        };
        let session_token = session_token.map(SecretString::from);
        (region, BucketCredentials::Keys { id, secret: secret.into(), session_token })
    }

    pub(super) fn refuse_detached_runner(&mut self) {
        let given = self.environment.get("DETACH").map(str::to_owned);
        let detach = given.and_then(|given| values::parse(ValueKind::Switch, &[given]).ok());
        if detach == Some(ParsedValue::Switch(true)) {
            self.problems.add(
                "DETACH",
                "is given with ACTION 'runner', whose machine goes on without the pipe already; leave it out",
            );
        }
    }

    /// What a detached run keeps of this environment. Refuses to keep a secret.
    pub(super) fn record(&mut self, train: &Train, secrets: &[Secret]) -> RecordedEnvironment {
        if let Some(record) = &self.record {
            return record.clone();
        }
        let sought: Vec<&Secret> = secrets
            .iter()
            .filter(|secret| secret.value.expose_secret().trim().len() >= SHORTEST_SOUGHT_BYTES)
            .collect();
        let held_in = |text: &str| {
            sought.iter().find(|secret| text.contains(secret.value.expose_secret().trim())).copied()
        };
        let is_secret = |text: &str| held_in(text).is_some();
        let record = RecordedEnvironment::new(&self.environment.0, &train.environment, is_secret);
        for (name, value) in record.texts() {
            if let Some(secret) = held_in(value) {
                let held = &secret.name;
                self.problems.add(
                    name,
                    format!("holds the value of {held}, and STORE would keep it; pass that on by TRAIN_ENV"),
                );
            } else if has_password(value) {
                self.problems.add(
                    name,
                    "holds an address with a password, and STORE would keep it; leave the password out",
                );
            }
        }
        record
    }
}

/// The credentials of a bucket that the account itself has.
fn keys(account: &AwsAccount) -> BucketCredentials {
    account.key.as_ref().map_or_else(BucketCredentials::default, |key| BucketCredentials::Keys {
        id: key.id.clone(),
        secret: key.secret.clone(),
        session_token: key.session_token.clone(),
    })
}
