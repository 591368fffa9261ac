//! The table applied to an environment: values, mistakes and warnings.

mod aws;
mod detached;
mod dvc;
mod publish;
mod runner;
mod train;

use super::environment::Environment;
use super::problems::Problems;
use super::recorded::{RecordedEnvironment, WokenEnvironment};
use super::runner::RunnerSettings;
use super::spelling;
use super::values::{self, ParsedValue};
use super::variables::{Action, Provider, Requirement, VARIABLE_TABLE, ValueKind, VariableSpec, find};
use super::{Config, Train};
use secrecy::{ExposeSecret as _, SecretString};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use trainspot_base::log::{Secret, is_secret_name};
use trainspot_bitbucket::StepVariables;
use trainspot_dvc::DvcSettings;

/// Secrets that a step has without any doing of ours.
pub(super) const STEP_SECRETS: [&str; 2] = ["PIPELINES_JWT_TOKEN", OIDC_TOKEN];
/// The token that Pipelines gives a step with `oidc: true`.
const OIDC_TOKEN: &str = "BITBUCKET_STEP_OIDC_TOKEN";
/// The shortest value that the log hides: hiding shorter ones would black out half of the log.
const SHORTEST_SECRET_BYTES: usize = 6;

pub(super) use dvc::secrets as dvc_secrets;

pub(super) struct ConfigReader {
    environment: Environment,
    values: BTreeMap<&'static str, ParsedValue>,
    problems: Problems,
    warnings: Vec<String>,
    action: Action,
    /// The provider that `CLOUD` names; none if the value is wrong. Then it is not known which providers'
    /// variables are read.
    provider: Option<Provider>,
    /// Whether the pipe goes on with a detached run whose record it does not have yet.
    is_woken: bool,
    /// What was recorded of the run, once a woken pipe has it.
    record: Option<RecordedEnvironment>,
}

impl ConfigReader {
    pub(super) fn new(environment: impl IntoIterator<Item = (String, String)>) -> Self {
        Self::over(environment.into_iter().collect(), None)
    }

    fn over(environment: BTreeMap<String, String>, record: Option<RecordedEnvironment>) -> Self {
        let mut reader = Self {
            environment: Environment(environment),
            values: BTreeMap::new(),
            problems: Problems::default(),
            warnings: Vec::new(),
            action: Action::Train,
            provider: None,
            is_woken: false,
            record,
        };
        for variable in VARIABLE_TABLE.iter().filter(|variable| variable.inherited) {
            reader.environment.forget_unexpanded(variable.name, variable.name);
        }
        reader.environment.forget_unexpanded("RUN", detached::RUN_SOURCE);
        reader.environment.let_stand_in("AWS_REGION", "AWS_DEFAULT_REGION");
        for variable in VARIABLE_TABLE {
            reader.read_variable(variable);
            match variable.name {
                "ACTION" => {
                    let name = reader.text("ACTION");
                    let action = Action::ALL.into_iter().find(|action| action.name() == name);
                    reader.action = action.unwrap_or(Action::Train);
                    reader.is_woken = reader.action == Action::Train
                        && reader.record.is_none()
                        && reader.environment.get("RUN").is_some();
                }
                // Nothing else is rented.
                "CLOUD" if matches!(reader.action, Action::Runner | Action::Sweep) => {
                    reader.provider = Some(Provider::Aws);
                }
                "CLOUD" => {
                    let name = reader.text("CLOUD");
                    reader.provider = Provider::ALL.into_iter().find(|provider| provider.name() == name);
                }
                _ => {}
            }
        }
        reader
    }

    pub(super) fn finish(self, config: Config) -> Result<Config, Problems> {
        if self.problems.0.is_empty() { Ok(config) } else { Err(self.problems) }
    }

    fn read_variable(&mut self, variable: &'static VariableSpec) {
        let items = self.environment.items(variable);
        let default = default_of(variable.name).map(|default| vec![default.to_owned()]);
        let idle = self.idle(variable);
        if let Some(why) = &idle {
            // The defaults in `pipe.yml` reach us as if the user had written them.
            let given = !matches!(&items, Ok(items) if items.is_empty() || Some(items) == default.as_ref());
            if given && !why.is_empty() && !variable.inherited {
                self.warnings.push(format!("{} has no effect with {why}", variable.name));
            }
        }
        let items = items.map(|items| if items.is_empty() { default.unwrap_or_default() } else { items });
        let value = items.and_then(|items| match (items.as_slice(), variable.requirement) {
            ([], Requirement::Required) => Err(format!("is missing: {}", plain(variable.help))),
            ([], _) => Ok(None),
            _ => parse(variable, &items).map(Some),
        });
        match value {
            Ok(Some(value)) => drop(self.values.insert(variable.name, value)),
            Err(what) if idle.is_none() => self.problems.add(variable.name, what),
            _ => {}
        }
    }

    /// The setting because of which nobody reads a variable, such as `CLOUD 'local'`; none if the variable is
    /// read. The text is empty where a wrong `CLOUD` leaves that open, or a run's record decides.
    fn idle(&self, variable: &VariableSpec) -> Option<String> {
        if self.is_left_to_record(variable) {
            return Some(String::new());
        }
        if !variable.actions.contains(&self.action) {
            return Some(format!("ACTION '{}'", self.action.name()));
        }
        match self.provider {
            _ if variable.providers.len() == Provider::ALL.len() => None,
            Some(provider) if variable.providers.contains(&provider) => None,
            Some(provider) => Some(format!("CLOUD '{}'", provider.name())),
            None => Some(String::new()),
        }
    }

    pub(super) fn config(&mut self) -> Config {
        let pipeline = self.pipeline();
        let train = (self.action == Action::Train && !self.is_woken).then(|| self.train());
        let sweep = (self.action == Action::Sweep).then(|| self.sweep());
        let store = match (self.action, &sweep) {
            (_, Some(sweep)) => self.store(Some(sweep.account.clone())),
            (Action::Status | Action::Stop, _) => self.watched_store(),
            _ if self.is_woken => self.watched_store(),
            _ => None,
        };
        let bitbucket = self.bitbucket(&pipeline);
        let runner = (self.action == Action::Runner).then(|| self.runner(&pipeline, &bitbucket));
        let dvc = self.dvc();
        self.refuse_misspellings(train.as_ref(), runner.as_ref());
        let secrets = self.secrets(train.as_ref(), runner.as_ref(), &dvc);
        let detached = train.as_ref().filter(|train| train.detach.is_some());
        let record = detached.map(|train| self.record(train, &secrets));
        let (publish, run) = (self.publish(), self.run());
        let clone_dir = pipeline.clone_dir.clone().unwrap_or_else(|| PathBuf::from("."));
        Config {
            action: self.action,
            debug: self.switch("DEBUG"),
            clone_dir,
            given: self.given(),
            outputs: self.list("OUTPUTS"),
            publish,
            secrets,
            woken: run.is_some().then(|| WokenEnvironment::new(&self.environment.0)),
            run,
            store,
            record,
            dvc,
            warnings: std::mem::take(&mut self.warnings),
            pipeline,
            train,
            runner,
            sweep,
            bitbucket,
        }
    }

    fn pipeline(&mut self) -> StepVariables {
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
                StepVariables::default()
            }
        }
    }

    /// The variables of the table that were given, without those that may hold a secret.
    fn given(&self) -> BTreeMap<String, String> {
        let variable = |name: &str| find(name).or_else(|| find(spelling::list_base(name)));
        let open = |variable: &VariableSpec| !variable.secret && variable.kind != ValueKind::Environment;
        let given = self.environment.0.iter().filter(|(name, _)| variable(name).is_some_and(open));
        given.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Refuses variables whose names look like misspelt names of the table.
    fn refuse_misspellings(&mut self, train: Option<&Train>, runner: Option<&RunnerSettings>) {
        // Such a pipe does not know yet what the training's variables are called; its run's first pipe did.
        if self.is_woken || self.record.is_some() {
            return;
        }
        let trains = |name: &str| train.is_some_and(|train| train.environment.contains_key(name));
        let run = runner.and_then(|runner| runner.run.as_ref());
        let passed = |name: &str| run.is_some_and(|run| run.variables.contains_key(name));
        let known = |name: &str| find(name).is_some() || trains(name) || passed(name);
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
    fn secrets(
        &self,
        train: Option<&Train>,
        runner: Option<&RunnerSettings>,
        dvc: &DvcSettings,
    ) -> Vec<Secret> {
        let own = VARIABLE_TABLE.iter().filter(|variable| variable.secret);
        let own = own.filter_map(|variable| Some((variable.name.to_owned(), self.secret(variable.name)?)));
        let training = train.into_iter().flat_map(|train| train.environment.clone());
        let training = training.filter(|(name, _)| is_secret_name(name));
        let of_the_step = STEP_SECRETS
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), self.environment.get(name)?.into())));
        // What the training's variables are is in the run's record.
        let unread = if self.is_woken || self.action == Action::Stop {
            suspects(self.environment.0.clone())
        } else {
            Vec::new()
        };
        own.chain(training)
            .chain(of_the_step)
            .map(|(name, value)| Secret::new(name, value))
            .chain(dvc::secrets(dvc))
            .chain(runner.into_iter().flat_map(runner::secrets))
            .chain(unread)
            .filter(|secret| secret.value.expose_secret().len() >= SHORTEST_SECRET_BYTES)
            .collect()
    }

    /// Whether outputs are brought home and published, as far as this environment says.
    fn publishes(&self) -> bool {
        matches!(self.action, Action::Train | Action::Publish) && !self.is_woken
    }

    /// Whether the variable was given a value other than its default.
    fn chosen(&self, name: &str) -> bool {
        self.environment.get(name).is_some_and(|value| default_of(name) != Some(value))
    }

    /// Whether a variable has neither a value nor a mistake.
    fn missing(&self, name: &str) -> bool {
        !self.values.contains_key(name) && !self.problems.0.iter().any(|problem| problem.variable == name)
    }

    /// What `pick` takes out of the value of a variable of the table. None where the variable has no value,
    /// or one that is wrong.
    fn typed<T>(&self, name: &str, pick: impl Fn(&ParsedValue) -> Option<T>) -> Option<T> {
        debug_assert!(find(name).is_some(), "{name} is not in the table");
        let value = self.values.get(name)?;
        let typed = pick(value);
        debug_assert!(typed.is_some(), "{name} is read as another kind than it has");
        typed
    }

    fn some(&self, name: &str) -> Option<String> {
        self.typed(name, |value| if let ParsedValue::Text(text) = value { Some(text.clone()) } else { None })
    }

    fn secret(&self, name: &str) -> Option<SecretString> {
        self.some(name).map(SecretString::from)
    }

    fn text(&self, name: &str) -> String {
        self.some(name).unwrap_or_default()
    }

    fn list(&self, name: &str) -> Vec<String> {
        let list = |value: &ParsedValue| {
            if let ParsedValue::List(items) = value { Some(items.clone()) } else { None }
        };
        self.typed(name, list).unwrap_or_default()
    }

    fn switch(&self, name: &str) -> bool {
        let switch =
            |value: &ParsedValue| if let ParsedValue::Switch(is_on) = value { Some(*is_on) } else { None };
        self.typed(name, switch).unwrap_or_default()
    }

    fn some_count(&self, name: &str) -> Option<u32> {
        self.typed(name, |value| if let ParsedValue::Count(count) = value { Some(*count) } else { None })
    }

    fn count(&self, name: &str) -> u32 {
        self.some_count(name).unwrap_or_default()
    }

    fn money(&self, name: &str) -> Option<f64> {
        self.typed(name, |value| if let ParsedValue::Money(amount) = value { Some(*amount) } else { None })
    }

    fn duration(&self, name: &str) -> Duration {
        let duration =
            |value: &ParsedValue| if let ParsedValue::Duration(time) = value { Some(*time) } else { None };
        self.typed(name, duration).unwrap_or_default()
    }

    /// The choice that a variable names among `all`, each with its name in the table. `fallback` where the
    /// variable is not read or is wrong, which is a mistake already.
    fn choice<T: Copy>(&self, name: &str, all: &[(&str, T)], fallback: T) -> T {
        let is_complete = |choices: &[&str]| choices.iter().eq(all.iter().map(|(known, _)| known));
        debug_assert!(
            matches!(find(name).map(|spec| spec.kind), Some(ValueKind::Choice(choices)) if is_complete(choices)),
            "{name}: the table has other choices"
        );
        let text = self.text(name);
        all.iter().find(|(known, _)| *known == text).map_or(fallback, |(_, choice)| *choice)
    }
}

/// What may be secret in an environment, whether or not anybody reads it: for a configuration that is wrong.
pub(super) fn suspects(environment: impl IntoIterator<Item = (String, String)>) -> Vec<Secret> {
    let mut found = Vec::new();
    for (name, value) in environment {
        let passed_on =
            find(spelling::list_base(&name)).is_some_and(|known| known.kind == ValueKind::Environment);
        let assigned = value.lines().filter(|_| passed_on).filter_map(|line| line.split_once('='));
        let assigned = assigned.filter(|(name, _)| is_secret_name(name));
        found.extend(assigned.map(|(name, value)| Secret::new(name.trim(), value)));
        if !is_unexpanded(&value) && (is_secret_name(&name) || find(&name).is_some_and(|known| known.secret))
        {
            found.push(Secret::new(name, value));
        }
    }
    found
}

/// Whether a value is the name of a variable that nobody has put its value in place of, such as `$TOKEN`.
fn is_unexpanded(value: &str) -> bool {
    value.strip_prefix('$').is_some_and(|name| {
        let name = name.trim_start_matches('{').trim_end_matches('}');
        !name.is_empty() && name.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_')
    })
}

/// The checked value of a variable, or what is wrong with it, without a secret's value.
fn parse(variable: &VariableSpec, items: &[String]) -> Result<ParsedValue, String> {
    if let Some(item) = items.iter().find(|item| is_unexpanded(item)) {
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
    match find(name)?.requirement {
        Requirement::Default(default) => Some(default),
        _ => None,
    }
}

/// Help without Markdown's marks.
fn plain(help: &str) -> String {
    help.replace('`', "'")
}
