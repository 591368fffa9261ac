//! The one table of variables. Parser, `--help`, the README's tables, `pipe.yml` and the tests all read it.

use std::time::Duration;

/// What the pipe can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Train on a machine, then publish.
    Train,
    /// Commit outputs that are in the clone already.
    Publish,
}

impl Action {
    /// Every action, in the order in which the documentation lists them.
    pub const ALL: [Self; 2] = [Self::Train, Self::Publish];

    /// The action's name as a value of `ACTION`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Publish => "publish",
        }
    }
}

/// What a variable's value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text in one line.
    Text,
    /// Shell commands: text of any number of lines, or a list with a command an item.
    Script,
    /// `true` or `false`, in the spellings that YAML knows.
    Switch,
    /// A time with its unit, between two bounds.
    Duration(Duration, Duration),
    /// A whole number, from 0 to this.
    Count(u32),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Paths or globs inside the repository.
    Patterns,
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
}

impl Kind {
    /// Whether Pipelines may pass it as `NAME_COUNT`, `NAME_0`, ….
    #[must_use]
    pub fn is_list(self) -> bool {
        matches!(self, Self::Script | Self::Patterns | Self::Environment)
    }

    /// The kind in a word or two, for tables.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Script => "commands",
            Self::Switch => "boolean",
            Self::Duration(..) => "duration",
            Self::Count(_) => "number",
            Self::Choice(_) => "choice",
            Self::Patterns => "list of paths or globs",
            Self::Path => "path",
            Self::Environment => "list of names",
            Self::Branch => "branch",
            Self::Author => "name",
            Self::Email => "e-mail",
            Self::Url => "URL",
        }
    }
}

/// Whether and when a variable has to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Missing is an error.
    Required,
    /// Missing is fine, and means that the feature is not used.
    Optional,
    /// Missing means this value.
    Default(&'static str),
}

/// One variable of the pipe.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name in the environment.
    pub name: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// Whether it has to be given.
    pub presence: Presence,
    /// The actions that read it.
    pub actions: &'static [Action],
    /// Whether its value must never be shown.
    pub secret: bool,
    /// One line of help, in Markdown.
    pub help: &'static str,
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

const BOTH: &[Action] = &Action::ALL;
const TRAIN: &[Action] = &[Action::Train];

const fn variable(
    name: &'static str,
    kind: Kind,
    presence: Presence,
    actions: &'static [Action],
    help: &'static str,
) -> Variable {
    Variable { name, kind, presence, actions, secret: false, help }
}

const fn secret(name: &'static str, help: &'static str) -> Variable {
    Variable { name, kind: Kind::Text, presence: Presence::Optional, actions: BOTH, secret: true, help }
}

const fn seconds(least: u64, most: u64) -> Kind {
    Kind::Duration(Duration::from_secs(least), Duration::from_secs(most))
}

use Kind::{Author, Branch, Choice, Count, Email, Environment, Path, Patterns, Script, Switch, Text, Url};
use Presence::{Default, Optional, Required};

/// Every variable, in the order in which the documentation lists them.
pub const VARIABLES: &[Variable] = &[
    variable(
        "ACTION",
        Choice(&["train", "publish"]),
        Default("train"),
        BOTH,
        "`train` runs the training and publishes its outputs; `publish` commits outputs that an earlier step left in the clone.",
    ),
    variable(
        "CLOUD",
        Choice(&["local"]),
        Default("local"),
        TRAIN,
        "Where to train: `local` is a process on the machine that runs the pipe.",
    ),
    variable(
        "TRAIN_COMMAND",
        Script,
        Required,
        TRAIN,
        "The training's commands, run by the machine's shell in the repository's folder. The first that fails ends the training.",
    ),
    variable(
        "TRAIN_ENV",
        Environment,
        Optional,
        TRAIN,
        "Variables that the training gets: `NAME` passes on the pipe's own variable, `NAME=value` sets one. It gets no other of yours.",
    ),
    variable("INCLUDE", Patterns, Optional, TRAIN, "Files to send to the machine although git ignores them."),
    variable(
        "OUTPUTS",
        Patterns,
        Required,
        BOTH,
        "The files to commit: paths or globs, `**` included. Each must match something.",
    ),
    variable(
        "CHECKPOINTS",
        Patterns,
        Optional,
        TRAIN,
        "The files from which the training can go on. They are saved every `CHECKPOINT_INTERVAL`, and restored with `TRAINSPOT_RESUME=1` on the next machine when one is lost.",
    ),
    variable(
        "CHECKPOINT_INTERVAL",
        seconds(1, 24 * HOUR),
        Default("10m"),
        TRAIN,
        "How often the checkpoints are saved.",
    ),
    variable(
        "MAX_RUNTIME",
        seconds(1, 30 * 24 * HOUR),
        Default("12h"),
        TRAIN,
        "The training is ended after this time.",
    ),
    variable(
        "MAX_RESTARTS",
        Count(100),
        Default("3"),
        TRAIN,
        "How often the training is started again when its machine is lost.",
    ),
    variable(
        "ORPHAN_GRACE",
        seconds(2, 24 * HOUR),
        Default("10m"),
        TRAIN,
        "A machine that has not heard from the pipe for this time ends itself.",
    ),
    variable(
        "PUBLISH",
        Choice(&["pull-request", "push", "none"]),
        Default("pull-request"),
        BOTH,
        "`pull-request` commits to a branch of its own and opens a pull request; `push` commits to the target branch; `none` commits nothing.",
    ),
    variable(
        "TARGET_BRANCH",
        Branch,
        Optional,
        BOTH,
        "The branch that the outputs are for. Default: the pipeline's branch, or the repository's main branch where the pipeline has none.",
    ),
    variable(
        "BRANCH",
        Branch,
        Optional,
        BOTH,
        "The branch to commit to before the pull request. Default: `trainspot/<target branch>-<short commit>`.",
    ),
    variable("GIT_USER_NAME", Author, Default("trainspot"), BOTH, "The commit's author."),
    variable(
        "GIT_USER_EMAIL",
        Email,
        Default("commits-noreply@bitbucket.org"),
        BOTH,
        "The commit's author's e-mail.",
    ),
    variable("COMMIT_MESSAGE", Text, Optional, BOTH, "The commit's first line. Default: `Update <outputs>`."),
    variable(
        "SKIP_CI",
        Switch,
        Default("true"),
        BOTH,
        "Adds `[skip ci]` to the commit's message, so that the commit starts no pipeline.",
    ),
    variable(
        "METRICS",
        Patterns,
        Optional,
        BOTH,
        "Files with metrics for the report: JSON, YAML, TOML, CSV or `key: value` text. Default: the outputs whose name starts with `metrics`.",
    ),
    variable("REPORT", Path, Optional, BOTH, "A Markdown file of yours that opens the report."),
    variable(
        "REPORT_NAME",
        Text,
        Default("model"),
        BOTH,
        "Tells this report from another step's, in the pull request's comments and the commit's build status.",
    ),
    secret(
        "BITBUCKET_ACCESS_TOKEN",
        "A repository, project or workspace access token with the scopes `repository:write` and `pullrequest:write`. Without any credential the branch is still pushed, but no pull request is opened.",
    ),
    variable(
        "ATLASSIAN_ACCOUNT_EMAIL",
        Email,
        Optional,
        BOTH,
        "Instead of an access token: the e-mail of an Atlassian account, with `ATLASSIAN_API_TOKEN`.",
    ),
    secret(
        "ATLASSIAN_API_TOKEN",
        "Instead of an access token: the account's API token with the same scopes.",
    ),
    variable(
        "BITBUCKET_API_URL",
        Url,
        Default("https://api.bitbucket.org/2.0"),
        BOTH,
        "The address of Bitbucket's API.",
    ),
    variable(
        "PIPELINES_PROXY",
        Url,
        Default("http://host.docker.internal:29418"),
        BOTH,
        "The proxy of Pipelines, through which git and Code Insights work where no credential is given.",
    ),
    variable("DEBUG", Switch, Default("false"), BOTH, "Shows what is done in more detail."),
];

/// The variable of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_helps_are_one_sentence_or_more() {
        let names: BTreeSet<_> = VARIABLES.iter().map(|variable| variable.name).collect();
        assert_eq!(names.len(), VARIABLES.len());
        for variable in VARIABLES {
            assert!(
                variable.help.ends_with('.') && !variable.help.contains(['\n', '|']),
                "{}",
                variable.name
            );
            assert!(!variable.actions.is_empty(), "{}", variable.name);
        }
    }

    #[test]
    fn the_actions_are_the_choices_of_action() {
        let Choice(choices) = find("ACTION").unwrap().kind else { panic!("ACTION is not a choice") };
        assert_eq!(choices, Action::ALL.map(Action::name));
    }
}
