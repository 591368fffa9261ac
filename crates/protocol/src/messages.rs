//! What pipe and supervisor say to each other: one line of JSON each way, over a socket in the machine's
//! home.

use super::runner_log::Phase;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use trainspot_base::clock::stated_fraction;

/// A pipe's word to the supervisor. Each is also a sign of life, and renews the pipe's hold on the machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// A name that this pipe's process made up for itself. Two pipes never share a machine.
    pub owner: String,
    /// What is wanted.
    pub wish: Wish,
}

/// What a pipe wants.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// To be told how things are, and to hold the machine.
    Beat,
    /// To be told how things are, as somebody who only looks in.
    Look,
    /// To start the training.
    Start(Box<Spec>),
    /// To end the training.
    Stop,
    /// To end the training before the machine is taken away, with a last checkpoint. The earliest notice
    /// counts.
    Leave(Notice),
    /// To end the machine.
    End,
    /// To leave the runner to itself: this pipe goes, and its silence means nothing any more.
    Release,
    /// To hold the machine of a runner again that was left to itself.
    Hold,
    /// To end the machine once its runner has no step. Refused to others while a pipe holds it.
    Retire,
    /// To have the runner wait for a step anew: one is coming. Refused to others while a pipe holds it.
    Expect,
    /// To know that Bitbucket sees the runner online.
    Online,
    /// To know that Bitbucket sees the step of this id, in braces, as over.
    StepOver(String),
}

/// A training. The values of `environment` may be secret: they live in memory, and in the training's
/// environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Tells whether a training found on a machine is the one that a pipe was about to start.
    pub fingerprint: String,
    /// Shell commands.
    pub command: String,
    /// Variables of the training.
    pub environment: BTreeMap<String, String>,
    /// The training is ended after this time.
    pub max_runtime: Duration,
    /// Patterns of the files to save as checkpoints.
    pub checkpoints: Vec<String>,
    /// How often they are saved.
    pub checkpoint_interval: Duration,
    /// Whether a checkpoint was restored.
    pub resume: bool,
    /// Present if the command is a runner of Bitbucket's: then the machine lives as that runner does.
    pub runner: Option<Box<Runner>>,
}

/// A runner of Bitbucket's, and how long its machine lives: while a pipe holds it, as that pipe wants; after
/// that, until these limits or [`Spec::max_runtime`] are reached and no step runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runner {
    /// Its id, in braces.
    pub uuid: String,
    /// It goes after this much time without a step.
    pub idle: Duration,
    /// It goes after one step.
    pub single: bool,
    /// How the machine can take it off Bitbucket's list.
    pub registry: Option<Registry>,
}

/// Where a runner is registered, and a token that may change that.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registry {
    /// The API's base.
    pub api_url: String,
    /// The workspace's short name.
    pub workspace: String,
    /// The repository's short name.
    pub repo_slug: String,
    /// Whether the runner is the workspace's.
    pub of_workspace: bool,
    /// The token. It is in memory only.
    pub token: String,
}

impl fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Registry({}/{})", self.workspace, self.repo_slug)
    }
}

/// The supervisor's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// How things are, after the wish was granted.
    Status(Box<Status>),
    /// The wish was not granted, and why.
    Refused(String),
}

/// How things are on the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The training's state.
    pub state: State,
    /// The training's fingerprint, once there is one.
    pub fingerprint: Option<String>,
    /// The number of the newest complete checkpoint.
    pub checkpoint: Option<u64>,
    /// Why the last attempt at a checkpoint failed, if it did.
    pub unsaved: Option<String>,
    /// Which files the newest checkpoint lacks, because they were never whole for long enough.
    #[serde(default)]
    pub left_out: Option<String>,
    /// Present once the machine is about to be taken away.
    pub notice: Option<Notice>,
    /// Present if the command is a runner.
    pub runner: Option<RunnerStatus>,
}

impl Status {
    /// The status of a machine of which nothing is known but its training's state.
    #[must_use]
    pub fn of(state: State) -> Self {
        Self {
            state,
            fingerprint: None,
            checkpoint: None,
            unsaved: None,
            left_out: None,
            notice: None,
            runner: None,
        }
    }
}

/// How a runner is, by its log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerStatus {
    /// Its id, in braces.
    pub uuid: String,
    /// What it is doing.
    pub phase: Phase,
    /// The last thing that went wrong, in its own words.
    pub complaint: Option<String>,
    /// Whether the machine ends as soon as no step runs.
    pub retiring: bool,
}

/// The machine is about to be taken away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Why, in words for people.
    pub why: String,
    /// When, in seconds since 1970; none for at once: the training then gets no more time than to end.
    pub at: Option<u64>,
}

/// A training's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not started yet.
    Idle,
    /// Running.
    Running,
    /// Over.
    Ended(Exit),
}

/// How a training ended. Stands beside the log, in `exit.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// In which way.
    pub how: How,
    /// How long it ran.
    pub seconds: f64,
}

impl Exit {
    /// How long the training ran, as far as the machine can be believed.
    #[must_use]
    pub fn duration(&self) -> Duration {
        stated_fraction(self.seconds)
    }
}

/// In which way a training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// By itself, with this exit code.
    Exited(i32),
    /// By this signal, which the supervisor did not send.
    Signalled(i32),
    /// It ran for `MAX_RUNTIME`.
    TimedOut,
    /// The pipe asked for it.
    Stopped,
    /// The pipe fell silent.
    Orphaned,
    /// The machine is about to be taken away. The newest checkpoint holds what the training saved at its end.
    Interrupted,
}
