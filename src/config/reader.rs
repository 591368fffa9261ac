//! The table applied to an environment: values, mistakes and warnings.

use super::environment::Environment;
use super::problems::Problems;
use super::spelling;
use super::values::{self, Value};
use super::variables::{Action, Presence, VARIABLES, Variable, find};
use super::{Bitbucket, Config, Credential, Pipeline, Publish, PublishMode, Secret, Train};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Secrets that a step has without any doing of ours.
const OF_THE_STEP: [&str; 4] =
    ["PIPELINES_JWT_TOKEN", "BITBUCKET_STEP_OIDC_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
/// Shorter values would black out half of the log.
const SHORTEST_SECRET: usize = 6;

pub(super) struct Reader {
    environment: Environment,
    values: BTreeMap<&'static str, Value>,
    problems: Problems,
    warnings: Vec<String>,
    action: Action,
}

impl Reader {
    pub(super) fn new(environment: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut reader = Self {
            environment: Environment(environment.into_iter().collect()),
            values: BTreeMap::new(),
            problems: Problems::default(),
            warnings: Vec::new(),
            action: Action::Train,
        };
        for variable in VARIABLES {
            reader.read(variable);
            if variable.name == "ACTION" && reader.text("ACTION") == "publish" {
                reader.action = Action::Publish;
            }
        }
        reader
    }

    pub(super) fn finish(self, config: Config) -> Result<Config, Problems> {
        if self.problems.0.is_empty() { Ok(config) } else { Err(self.problems) }
    }

    fn read(&mut self, variable: &'static Variable) {
        let items = match self.environment.items(variable) {
            Ok(items) => items,
            Err(what) => return self.problems.add(variable.name, what),
        };
        let applies = variable.actions.contains(&self.action);
        let default = default_of(variable.name).map(|default| vec![default.to_owned()]);
        if items.is_empty() {
            if applies && variable.presence == Presence::Required {
                self.problems.add(variable.name, format!("is missing: {}", plain(variable.help)));
            }
        } else if !applies && Some(&items) != default.as_ref() {
            // The defaults in `pipe.yml` reach us as if the user had written them.
            let warning = format!("{} has no effect with ACTION '{}'", variable.name, self.action.name());
            self.warnings.push(warning);
        }
        let Some(items) = Some(items).filter(|items| !items.is_empty()).or(default) else { return };
        match parse(variable, &items) {
            Ok(value) => drop(self.values.insert(variable.name, value)),
            Err(what) => self.problems.add(variable.name, what),
        }
    }

    pub(super) fn config(&mut self) -> Config {
        let pipeline = self.pipeline();
        let train = (self.action == Action::Train).then(|| self.train());
        let bitbucket = self.bitbucket();
        self.unknown(train.as_ref());
        let clone_dir = pipeline.clone_dir.clone().unwrap_or_else(|| PathBuf::from("."));
        Config {
            action: self.action,
            debug: self.switch("DEBUG"),
            clone_dir,
            outputs: self.list("OUTPUTS"),
            publish: self.publish(),
            secrets: self.secrets(train.as_ref()),
            warnings: std::mem::take(&mut self.warnings),
            pipeline,
            train,
            bitbucket,
        }
    }

    fn pipeline(&mut self) -> Pipeline {
        let present = self
            .environment
            .0
            .iter()
            .filter(|(_, value)| !value.trim().is_empty())
            .map(|(name, value)| (name.clone(), value.clone()));
        match envy::prefixed("BITBUCKET_").from_iter(present) {
            Ok(pipeline) => pipeline,
            Err(error) => {
                self.problems.add("BITBUCKET_*", format!("cannot be read: {error}"));
                Pipeline::default()
            }
        }
    }

    fn train(&mut self) -> Train {
        let train = Train {
            command: self.text("TRAIN_COMMAND"),
            environment: self.training_environment(),
            include: self.list("INCLUDE"),
            checkpoints: self.list("CHECKPOINTS"),
            checkpoint_interval: self.duration("CHECKPOINT_INTERVAL"),
            max_runtime: self.duration("MAX_RUNTIME"),
            max_restarts: self.count("MAX_RESTARTS"),
            orphan_grace: self.duration("ORPHAN_GRACE"),
            machine_environment: self.machine_environment(),
            scratch: PathBuf::from(self.environment.get("TMPDIR").unwrap_or("/tmp")),
        };
        let interval = self.environment.get("CHECKPOINT_INTERVAL");
        let chosen = interval.is_some_and(|it| default_of("CHECKPOINT_INTERVAL") != Some(it));
        if train.checkpoints.is_empty() && chosen {
            self.warnings.push("CHECKPOINT_INTERVAL has no effect without CHECKPOINTS".to_owned());
        }
        train
    }

    fn training_environment(&mut self) -> BTreeMap<String, String> {
        let mut environment = BTreeMap::new();
        for item in self.list("TRAIN_ENV") {
            if let Some((name, value)) = item.split_once('=') {
                environment.insert(name.to_owned(), value.to_owned());
            } else if self.environment.get(&item).is_some() {
                // As it is: the end of a line that `get` leaves out may be part of a key.
                environment.insert(item.clone(), self.environment.0[&item].clone());
            } else if !values::is_no_secret(&item) {
                self.problems.add(
                    "TRAIN_ENV",
                    "has an item that is no variable of the pipe (not shown, because it may be the value of one); write NAME, not $NAME",
                );
            } else {
                self.problems.add(
                    "TRAIN_ENV",
                    format!("names '{item}', which the pipe does not have; map it, as in {item}: ${item}, or write {item}=value"),
                );
            }
        }
        environment
    }

    /// An allow-list: a variable that is not on it may be a secret, and would be missing on a rented machine.
    fn machine_environment(&self) -> BTreeMap<String, String> {
        const NAMES: [&str; 20] = [
            "PATH",
            "HOME",
            "USER",
            "LOGNAME",
            "SHELL",
            "LANG",
            "LANGUAGE",
            "TZ",
            "TMPDIR",
            "VIRTUAL_ENV",
            "LD_LIBRARY_PATH",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "REQUESTS_CA_BUNDLE",
            "CURL_CA_BUNDLE",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "NO_PROXY",
            "PYENV_ROOT",
            "PYTHONPATH",
        ];
        const FAMILIES: [&str; 6] = ["LC_", "CONDA_", "CUDA_", "NVIDIA_", "PIP_", "XDG_"];
        let described = |name: &str| {
            NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
                || FAMILIES.iter().any(|family| name.starts_with(family))
        };
        let all = self.environment.0.iter().filter(|(name, _)| described(name));
        all.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    fn publish(&mut self) -> Publish {
        let mode = match self.text("PUBLISH").as_str() {
            "push" => PublishMode::Push,
            "none" => PublishMode::None,
            _ => PublishMode::PullRequest,
        };
        if mode == PublishMode::Push && self.values.contains_key("BRANCH") {
            self.problems.add(
                "BRANCH",
                "is given together with PUBLISH 'push', which commits to the target branch; leave it out, or use TARGET_BRANCH",
            );
        }
        if mode == PublishMode::PullRequest
            && self.some("BRANCH").is_some()
            && self.some("BRANCH") == self.some("TARGET_BRANCH")
        {
            self.problems.add("BRANCH", "is the same as TARGET_BRANCH; a pull request needs two branches");
        }
        Publish {
            mode,
            target_branch: self.some("TARGET_BRANCH"),
            branch: self.some("BRANCH"),
            user_name: self.text("GIT_USER_NAME"),
            user_email: self.text("GIT_USER_EMAIL"),
            commit_message: self.some("COMMIT_MESSAGE"),
            skip_ci: self.switch("SKIP_CI"),
            metrics: self.list("METRICS"),
            report: self.some("REPORT"),
            report_name: self.text("REPORT_NAME"),
        }
    }

    fn bitbucket(&mut self) -> Bitbucket {
        let (token, email, api_token) = (
            self.some("BITBUCKET_ACCESS_TOKEN"),
            self.some("ATLASSIAN_ACCOUNT_EMAIL"),
            self.some("ATLASSIAN_API_TOKEN"),
        );
        let given = |name| self.environment.get(name).is_some();
        match (given("ATLASSIAN_ACCOUNT_EMAIL"), given("ATLASSIAN_API_TOKEN")) {
            (true, false) => self
                .problems
                .add("ATLASSIAN_API_TOKEN", "is missing: ATLASSIAN_ACCOUNT_EMAIL is of use only with it"),
            (false, true) => self
                .problems
                .add("ATLASSIAN_ACCOUNT_EMAIL", "is missing: ATLASSIAN_API_TOKEN is of use only with it"),
            _ => {}
        }
        let credential = match (token, email.zip(api_token)) {
            (Some(token), _) => Some(Credential::AccessToken(token)),
            (None, Some((email, token))) => Some(Credential::ApiToken { email, token }),
            (None, None) => None,
        };
        if credential.is_none() && self.environment.get("BITBUCKET_APP_PASSWORD").is_some() {
            self.problems.add(
                "BITBUCKET_APP_PASSWORD",
                "no longer works: Atlassian removed app passwords in July 2026; give BITBUCKET_ACCESS_TOKEN",
            );
        }
        Bitbucket {
            credential,
            api_url: self.text("BITBUCKET_API_URL"),
            proxy_url: self.text("PIPELINES_PROXY"),
        }
    }

    /// Finds names that look like slips of ours.
    fn unknown(&mut self, train: Option<&Train>) {
        let known = |name: &str| {
            find(name).is_some() || train.is_some_and(|train| train.environment.contains_key(name))
        };
        let slips: Vec<(String, &str)> = self
            .environment
            .0
            .keys()
            .filter(|name| !known(name) && !known(spelling::list_base(name)))
            .filter_map(|name| Some((name.clone(), spelling::nearest(name)?)))
            .collect();
        for (name, meant) in slips {
            let meant = if spelling::list_base(&name) == name {
                meant.to_owned()
            } else {
                format!("the list {meant}")
            };
            self.problems.add(name, format!("is not known; did you mean {meant}?"));
        }
    }

    /// The values to hide: our own secrets, and those of the training whose names say that they are secret.
    fn secrets(&self, train: Option<&Train>) -> Vec<Secret> {
        const TELLING: [&str; 9] =
            ["TOKEN", "SECRET", "PASS", "PWD", "KEY", "CREDENTIAL", "AUTH", "JWT", "DSN"];
        let own = VARIABLES.iter().filter(|variable| variable.secret);
        let own = own.filter_map(|variable| Some((variable.name.to_owned(), self.some(variable.name)?)));
        let training = train.into_iter().flat_map(|train| train.environment.clone());
        let training =
            training.filter(|(name, _)| TELLING.iter().any(|word| name.to_ascii_uppercase().contains(word)));
        let of_the_step = OF_THE_STEP
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), self.environment.get(name)?.to_owned())));
        own.chain(training)
            .chain(of_the_step)
            .filter(|(_, value)| value.len() >= SHORTEST_SECRET)
            .map(|(name, value)| Secret { name, value })
            .collect()
    }

    fn some(&self, name: &str) -> Option<String> {
        match self.values.get(name) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    fn text(&self, name: &str) -> String {
        self.some(name).unwrap_or_default()
    }

    fn list(&self, name: &str) -> Vec<String> {
        match self.values.get(name) {
            Some(Value::List(items)) => items.clone(),
            _ => Vec::new(),
        }
    }

    fn switch(&self, name: &str) -> bool {
        self.values.get(name) == Some(&Value::Switch(true))
    }

    fn count(&self, name: &str) -> u32 {
        match self.values.get(name) {
            Some(Value::Count(count)) => *count,
            _ => 0,
        }
    }

    fn duration(&self, name: &str) -> Duration {
        match self.values.get(name) {
            Some(Value::Duration(duration)) => *duration,
            _ => Duration::ZERO,
        }
    }
}

/// The checked value of a variable, or what is wrong with it, without a secret's value.
fn parse(variable: &Variable, items: &[String]) -> Result<Value, String> {
    let unexpanded = items.iter().find(|item| {
        item.strip_prefix('$').is_some_and(|name| {
            let name = name.trim_start_matches('{').trim_end_matches('}');
            !name.is_empty() && name.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_')
        })
    });
    if let Some(item) = unexpanded {
        return Err(format!(
            "is the text '{item}', not its value; is that variable defined for this repository?"
        ));
    }
    if variable.secret && items.iter().any(|item| item.chars().any(char::is_whitespace)) {
        return Err("(value not shown) has white space inside; was it pasted whole?".to_owned());
    }
    values::parse(variable.kind, items).map_err(|wrong| format!("'{}' {}", wrong.item, wrong.why))
}

fn default_of(name: &str) -> Option<&'static str> {
    match find(name)?.presence {
        Presence::Default(default) => Some(default),
        _ => None,
    }
}

/// Help without Markdown's marks.
fn plain(help: &str) -> String {
    help.replace('`', "'")
}
