//! The messages between pipe and supervisor: one line of JSON each way, over a socket in the machine's home.
//!
//! An agent of one version may be asked by a pipe of another: the words on the wire, which are the names
//! given to serde, never change. A Rust name may.

use super::DetachedSpec;
use super::runner_log::Phase;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use trainspot_base::clock::stated_fraction;
use trainspot_base::exposed;

/// A pipe's request to the supervisor. Each request is also a sign of life, and renews the pipe's claim to
/// the machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentRequest {
    /// A name that this pipe's process made up for itself. Two pipes never share a machine.
    pub owner: String,
    /// What the supervisor is asked to do.
    #[serde(rename = "wish")]
    pub command: AgentCommand,
}

/// What a pipe asks the supervisor to do. The answer to each command is the machine's [`AgentStatus`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentCommand {
    /// Tell the status, and keep the machine for this pipe.
    #[serde(rename = "beat")]
    Heartbeat,
    /// Tell the status to a pipe that need not be the machine's.
    #[serde(rename = "look")]
    Status,
    /// Start the training.
    Start(Box<CommandSpec>),
    /// End the training.
    Stop,
    /// End the training, with a last checkpoint, before the machine is taken away. The earliest notice
    /// counts.
    #[serde(rename = "leave")]
    PrepareToEnd(Notice),
    /// End the machine.
    #[serde(rename = "end")]
    EndMachine,
    /// Leave the runner, or the detached training, to itself: this pipe goes, and its silence no longer ends
    /// the machine.
    Release,
    /// Give this pipe the machine of a runner that was left to itself.
    #[serde(rename = "hold")]
    Claim,
    /// End the machine once its runner has no step. Refused to others while a pipe has the machine.
    #[serde(rename = "retire")]
    Drain,
    /// Let the runner's idle time begin anew: a step is coming. Refused to others while a pipe has the
    /// machine.
    #[serde(rename = "expect")]
    ResetIdleTimer,
    /// Learn that Bitbucket sees the runner online.
    #[serde(rename = "online")]
    RunnerOnline,
    /// Learn that Bitbucket sees the step with this id, in braces, as over.
    #[serde(rename = "step_over")]
    StepFinished(String),
}

/// The command that a machine runs: a training, or a runner of Bitbucket's. The values of `environment` may
/// be secret: they live in memory, and in the command's environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CommandSpec {
    /// Tells whether the training that a pipe finds on a machine is the one that the pipe was about to start.
    pub fingerprint: String,
    /// Shell commands.
    pub command: String,
    /// Environment variables of the command.
    #[serde(serialize_with = "exposed::map")]
    pub environment: BTreeMap<String, SecretString>,
    /// The supervisor ends the command after this time.
    pub max_runtime: Duration,
    /// Patterns of the files to save as checkpoints.
    pub checkpoints: Vec<String>,
    /// The time from one checkpoint to the next.
    pub checkpoint_interval: Duration,
    /// Whether a checkpoint was restored.
    pub resume: bool,
    /// Present if the command is a runner of Bitbucket's: then the machine lives as long as the runner.
    pub runner: Option<Box<RunnerSpec>>,
    /// Present if the command is a training whose pipe goes: then the machine lives until the training is
    /// over and everything of it is in a store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detached: Option<Box<DetachedSpec>>,
}

/// A runner of Bitbucket's, and how long its machine lives: while a pipe has the machine, as that pipe wants;
/// after that, until these limits or [`CommandSpec::max_runtime`] are reached and no step runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunnerSpec {
    /// The runner's id, in braces.
    pub uuid: String,
    /// The runner goes after this much time without a step.
    #[serde(rename = "idle")]
    pub idle_timeout: Duration,
    /// Whether the runner goes after one step.
    #[serde(rename = "single")]
    pub single_step: bool,
    /// How the machine can take the runner off Bitbucket's list.
    pub registry: Option<Registry>,
}

/// Where a runner is registered, and a token that may change the registration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Registry {
    /// The base of the API's addresses.
    pub api_url: String,
    /// The workspace's short name.
    pub workspace: String,
    /// The repository's short name.
    pub repo_slug: String,
    /// Whether the runner is the workspace's.
    pub of_workspace: bool,
    /// The token. The machine keeps it in memory only.
    #[serde(serialize_with = "exposed::text")]
    pub token: SecretString,
}

/// The supervisor's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The machine's status after the command was carried out.
    Status(Box<AgentStatus>),
    /// Why the supervisor refused the command.
    Refused(String),
}

/// The machine's status, as its supervisor tells it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// The training's state.
    pub state: CommandState,
    /// The training's fingerprint, once there is a training.
    pub fingerprint: Option<String>,
    /// The number of the newest complete checkpoint.
    pub checkpoint: Option<u64>,
    /// Why the last attempt at a checkpoint failed, if it did.
    #[serde(rename = "unsaved")]
    pub checkpoint_error: Option<String>,
    /// Which files the newest checkpoint lacks, because they were never whole for long enough.
    #[serde(default)]
    pub left_out: Option<String>,
    /// Present once the machine is about to be taken away.
    pub notice: Option<Notice>,
    /// Present if the command is a runner.
    pub runner: Option<RunnerActivity>,
}

impl AgentStatus {
    /// The status of a machine of which nothing is known but its training's state.
    #[must_use]
    pub fn with_state(state: CommandState) -> Self {
        Self {
            state,
            fingerprint: None,
            checkpoint: None,
            checkpoint_error: None,
            left_out: None,
            notice: None,
            runner: None,
        }
    }
}

/// What a runner is doing, by its log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerActivity {
    /// The runner's id, in braces.
    pub uuid: String,
    /// The phase of the runner's life.
    pub phase: Phase,
    /// The last thing that went wrong, in the runner's own words.
    pub complaint: Option<String>,
    /// Whether the machine ends as soon as no step runs.
    #[serde(rename = "retiring")]
    pub draining: bool,
}

/// The notice that a machine is about to be taken away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Why the machine is taken away, in words for people.
    pub why: String,
    /// When the machine is taken away, in seconds since 1970; none for at once: the training then gets no
    /// more time than to end.
    pub at: Option<u64>,
}

/// The state of a machine's command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandState {
    /// The command has not been started yet.
    Idle,
    /// The command runs.
    Running,
    /// The command is over.
    Ended(CommandExit),
}

/// How a training ended. It stands beside the log, in `exit.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandExit {
    /// What ended the training.
    #[serde(rename = "how")]
    pub reason: ExitReason,
    /// How long the training ran.
    pub seconds: f64,
}

impl CommandExit {
    /// How long the training ran, as far as the machine can be believed.
    #[must_use]
    pub fn duration(&self) -> Duration {
        stated_fraction(self.seconds)
    }
}

/// What ended a training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// The training ended by itself, with this exit code.
    Exited(i32),
    /// This signal, which the supervisor did not send, ended the training.
    Signalled(i32),
    /// The training ran for `MAX_RUNTIME`.
    TimedOut,
    /// The pipe asked for the end.
    Stopped,
    /// The pipe fell silent.
    Orphaned,
    /// The machine is about to be taken away. The newest checkpoint holds what the training saved at its end.
    Interrupted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_training_lasted_no_time_that_cannot_be() {
        for (seconds, duration) in
            [(1.5, Duration::from_millis(1500)), (-1.0, Duration::ZERO), (f64::NAN, Duration::ZERO)]
        {
            assert_eq!(CommandExit { reason: ExitReason::Stopped, seconds }.duration(), duration);
        }
    }

    /// A pipe and an agent of other versions speak these words, whatever the Rust names are.
    #[test]
    fn the_words_on_the_wire_stay() {
        let notice = Notice { why: "w".to_owned(), at: None };
        let commands = [
            (AgentCommand::Heartbeat, r#""beat""#),
            (AgentCommand::Status, r#""look""#),
            (AgentCommand::Stop, r#""stop""#),
            (AgentCommand::PrepareToEnd(notice), r#"{"leave":{"why":"w","at":null}}"#),
            (AgentCommand::EndMachine, r#""end""#),
            (AgentCommand::Release, r#""release""#),
            (AgentCommand::Claim, r#""hold""#),
            (AgentCommand::Drain, r#""retire""#),
            (AgentCommand::ResetIdleTimer, r#""expect""#),
            (AgentCommand::RunnerOnline, r#""online""#),
            (AgentCommand::StepFinished("{s}".to_owned()), r#"{"step_over":"{s}"}"#),
        ];
        for (command, word) in commands {
            let request = AgentRequest { owner: "o".to_owned(), command };
            let expected = format!(r#"{{"owner":"o","wish":{word}}}"#);
            assert_eq!(serde_json::to_string(&request).unwrap(), expected);
        }
        let exit = CommandExit { reason: ExitReason::TimedOut, seconds: 1.5 };
        let activity =
            RunnerActivity { uuid: "{r}".to_owned(), phase: Phase::Idle, complaint: None, draining: true };
        let status = AgentStatus {
            checkpoint_error: Some("full".to_owned()),
            runner: Some(activity),
            ..AgentStatus::with_state(CommandState::Ended(exit))
        };
        let expected = concat!(
            r#"{"state":{"ended":{"how":"timed_out","seconds":1.5}},"fingerprint":null,"checkpoint":null,"#,
            r#""unsaved":"full","left_out":null,"notice":null,"#,
            r#""runner":{"uuid":"{r}","phase":"idle","complaint":null,"retiring":true}}"#
        );
        assert_eq!(serde_json::to_string(&status).unwrap(), expected);
        let runner = RunnerSpec {
            uuid: "{r}".to_owned(),
            idle_timeout: Duration::from_secs(5),
            single_step: true,
            registry: None,
        };
        let expected = r#"{"uuid":"{r}","idle":{"secs":5,"nanos":0},"single":true,"registry":null}"#;
        assert_eq!(serde_json::to_string(&runner).unwrap(), expected);
    }

    /// The start of a training or a runner, as a pipe of another version writes it too.
    const STARTING_REQUEST: &str = concat!(
        r#"{"owner":"o","wish":{"start":{"fingerprint":"f","command":"c","environment":{"A":"s3cret","B":""},"#,
        r#""max_runtime":{"secs":1,"nanos":0},"checkpoints":[],"checkpoint_interval":{"secs":2,"nanos":0},"#,
        r#""resume":false,"runner":{"uuid":"{r}","idle":{"secs":5,"nanos":0},"single":true,"registry":"#,
        r#"{"api_url":"u","workspace":"w","repo_slug":"r","of_workspace":false,"token":"t0ken"}}}}}"#
    );

    #[test]
    fn secrets_travel_as_they_are_and_are_not_shown() {
        let request: AgentRequest = serde_json::from_str(STARTING_REQUEST).unwrap();
        assert_eq!(serde_json::to_string(&request).unwrap(), STARTING_REQUEST);
        let shown = format!("{request:?}");
        assert!(shown.contains("environment") && shown.contains("api_url"), "{shown}");
        assert!(!shown.contains("s3cret") && !shown.contains("t0ken"), "{shown}");
    }
}
