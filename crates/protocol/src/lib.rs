//! What the pipe and the agent on the machine say to each other, and what both read of a runner's log.

mod command_line;
mod detached;
mod file_selection;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod messages;
pub mod runner_log;
mod wake;

pub use command_line::{AGENT_VERBS, EndMode};
pub use detached::{DetachedSpec, RestoreRequest, StoreAccess, StoreKeys};
pub use file_selection::FileSelection;
pub use messages::{
    AgentCommand, AgentRequest, AgentStatus, CommandExit, CommandSpec, CommandState, ExitReason, Notice,
    Registry, Reply, RunnerActivity, RunnerSpec,
};
pub use wake::{WakeBus, WakeSpec, WakeToken};

/// No checkpoint has this number or a higher one: no training takes so many checkpoints.
pub const CHECKPOINT_NUMBER_LIMIT: u64 = u32::MAX as u64;
