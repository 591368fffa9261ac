//! The one table of variables. Parser, `--help`, the documents' tables, `pipe.yml` and the tests all read it.

mod aws;
mod detached;
mod dvc;
mod publish;
mod runner;
mod train;

pub use super::shapes::ValueShape;

use std::time::Duration;

/// What the pipe can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Train on a machine, then publish.
    Train,
    /// Commit outputs that are in the clone already.
    Publish,
    /// Rent a machine as a runner of Bitbucket's.
    Runner,
    /// Remove what earlier runs left at AWS.
    Sweep,
    /// Tell how detached runs stand.
    Status,
    /// End a detached run.
    Stop,
}

impl Action {
    /// Every action, in the order in which the documentation lists them.
    pub const ALL: [Self; 6] =
        [Self::Train, Self::Publish, Self::Runner, Self::Sweep, Self::Status, Self::Stop];

    /// The action's name as a value of `ACTION`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Publish => "publish",
            Self::Runner => "runner",
            Self::Sweep => "sweep",
            Self::Status => "status",
            Self::Stop => "stop",
        }
    }
}

/// Who has the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Provider {
    /// AWS rents the machine out.
    Aws,
    /// The machine is the one that runs the pipe.
    Local,
}

impl Provider {
    /// Every provider, in the order in which the documentation lists them.
    pub const ALL: [Self; 2] = [Self::Aws, Self::Local];

    /// The provider's name as a value of `CLOUD`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Local => "local",
        }
    }
}

/// What a variable's value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// Any text in one line.
    Text,
    /// Shell commands: text of any number of lines, or a list with a command an item.
    Script,
    /// `true` or `false`, in the spellings that YAML knows.
    Switch,
    /// A time with its unit, between two bounds.
    Duration(Duration, Duration),
    /// A whole number, between two bounds.
    Count(u32, u32),
    /// A whole number of GiB, from 1 to this.
    Gib(u32),
    /// An amount in dollars, more than 0.001.
    Money,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Paths or globs inside the repository.
    Patterns,
    /// Paths inside the repository, of which none may be a glob.
    Paths,
    /// One path inside the repository.
    Path,
    /// Names of environment variables, each alone or as `NAME=value`.
    Environment,
    /// A branch's name.
    Branch,
    /// The name of a commit's author.
    Author,
    /// An e-mail address.
    Email,
    /// An `http://` or `https://` address.
    Url,
    /// One value of this shape.
    One(ValueShape),
    /// Values of this shape.
    Each(ValueShape),
}

impl ValueKind {
    /// Whether Pipelines may pass it as `NAME_COUNT`, `NAME_0`, ….
    #[must_use]
    pub fn is_list(self) -> bool {
        matches!(self, Self::Script | Self::Patterns | Self::Paths | Self::Environment | Self::Each(_))
    }

    /// The kind in a word or two, for tables.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Script => "commands",
            Self::Switch => "boolean",
            Self::Duration(..) => "duration",
            Self::Count(..) => "number",
            Self::Gib(_) => "GiB",
            Self::Money => "dollars",
            Self::Choice(_) => "choice",
            Self::Patterns => "list of paths or globs",
            Self::Paths => "list of paths",
            Self::Path => "path",
            Self::Environment => "list of names",
            Self::Branch => "branch",
            Self::Author => "name",
            Self::Email => "e-mail",
            Self::Url => "URL",
            Self::One(shape) => shape.label(),
            Self::Each(shape) => shape.list_label(),
        }
    }
}

/// Whether and when a variable has to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// A variable that must be given.
    Required,
    /// A variable that may be missing: then the feature is not used.
    Optional,
    /// A variable that has this value when it is missing.
    Default(&'static str),
}

/// One variable of the pipe.
#[derive(Clone, Copy, Debug)]
pub struct VariableSpec {
    /// Its name in the environment.
    pub name: &'static str,
    /// What its value may be.
    pub kind: ValueKind,
    /// Whether it has to be given.
    pub requirement: Requirement,
    /// The actions that read it.
    pub actions: &'static [Action],
    /// The providers of machines for which it is read.
    pub providers: &'static [Provider],
    /// Whether its value must never be shown.
    pub secret: bool,
    /// Whether `pipe.yml` takes it from the repository's variable of the same name, so that a step need not
    /// map it. It may then be there for the sake of other steps.
    pub inherited: bool,
    /// One line of help, in Markdown.
    pub help: &'static str,
}

const MINUTE_SECONDS: u64 = 60;
const HOUR_SECONDS: u64 = 60 * MINUTE_SECONDS;

const EVERY_ACTION: &[Action] = &Action::ALL;
const TRAIN_AND_PUBLISH: &[Action] = &[Action::Train, Action::Publish];
const TRAIN_ONLY: &[Action] = &[Action::Train];
const TRAIN_AND_RUNNER: &[Action] = &[Action::Train, Action::Runner];
const AWS_ACTIONS: &[Action] = &[Action::Train, Action::Runner, Action::Sweep];
/// The actions that reach AWS at all: those which look at detached runs make nothing there.
const ACCOUNT_ACTIONS: &[Action] =
    &[Action::Train, Action::Runner, Action::Sweep, Action::Status, Action::Stop];
const STORE_ACTIONS: &[Action] = &[Action::Train, Action::Sweep, Action::Status, Action::Stop];
/// The actions that are about one detached run, or about all.
const RUN_ACTIONS: &[Action] = &[Action::Train, Action::Status, Action::Stop];

const fn variable(
    name: &'static str,
    kind: ValueKind,
    requirement: Requirement,
    actions: &'static [Action],
    help: &'static str,
) -> VariableSpec {
    let providers = &Provider::ALL;
    VariableSpec { name, kind, requirement, actions, providers, secret: false, inherited: false, help }
}

const fn inherited(variable: VariableSpec) -> VariableSpec {
    VariableSpec { inherited: true, ..variable }
}

const fn secret(name: &'static str, help: &'static str) -> VariableSpec {
    VariableSpec {
        secret: true,
        ..inherited(variable(name, ValueKind::Text, Requirement::Optional, EVERY_ACTION, help))
    }
}

const fn seconds(least: u64, most: u64) -> ValueKind {
    ValueKind::Duration(Duration::from_secs(least), Duration::from_secs(most))
}

/// Every variable, in the order in which the documentation lists them.
pub const VARIABLE_TABLE: &[VariableSpec] = &joined::<{ VARIABLE_COUNT }>();

/// The variables by subject: each subject's heading in the documents, and its variables.
pub const VARIABLE_GROUPS: [(&str, &[VariableSpec]); 6] = [
    ("The action and the training", train::TRAIN_VARIABLES),
    ("The machine", aws::AWS_VARIABLES),
    ("Detached runs", detached::DETACHED_VARIABLES),
    ("The machine as a runner", runner::RUNNER_VARIABLES),
    ("Outputs in a DVC remote", dvc::DVC_VARIABLES),
    ("The commit, the report and Bitbucket", publish::PUBLISH_VARIABLES),
];
const VARIABLE_COUNT: usize = {
    let (mut group, mut count) = (0, 0);
    while group < VARIABLE_GROUPS.len() {
        count += VARIABLE_GROUPS[group].1.len();
        group += 1;
    }
    count
};

const fn joined<const VARIABLE_COUNT: usize>() -> [VariableSpec; VARIABLE_COUNT] {
    let mut all = [VARIABLE_GROUPS[0].1[0]; VARIABLE_COUNT];
    let (mut group, mut filled) = (0, 0);
    while group < VARIABLE_GROUPS.len() {
        let mut row = 0;
        while row < VARIABLE_GROUPS[group].1.len() {
            all[filled] = VARIABLE_GROUPS[group].1[row];
            (row, filled) = (row + 1, filled + 1);
        }
        group += 1;
    }
    all
}

/// The variable of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static VariableSpec> {
    VARIABLE_TABLE.iter().find(|variable| variable.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_helps_are_one_sentence_or_more() {
        let names: BTreeSet<_> = VARIABLE_TABLE.iter().map(|variable| variable.name).collect();
        assert_eq!(names.len(), VARIABLE_TABLE.len());
        for variable in VARIABLE_TABLE {
            assert!(
                variable.help.ends_with('.') && !variable.help.contains(['\n', '|']),
                "{}",
                variable.name
            );
            assert!(!variable.actions.is_empty() && !variable.providers.is_empty(), "{}", variable.name);
        }
    }

    #[test]
    fn actions_and_providers_are_the_choices() {
        let choices = |name| {
            let ValueKind::Choice(choices) = find(name).unwrap().kind else {
                panic!("{name} is not a choice")
            };
            choices
        };
        assert_eq!(choices("ACTION"), Action::ALL.map(Action::name));
        assert_eq!(choices("CLOUD"), Provider::ALL.map(Provider::name));
    }
}
