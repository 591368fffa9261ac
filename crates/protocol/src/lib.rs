//! What the pipe and the agent on the machine say to each other, and what both read of a runner's log.

mod command_line;
mod messages;
pub mod runner_log;
mod wanted;

pub use command_line::{Ending, VERBS};
pub use messages::{
    Exit, How, Notice, Registry, Reply, Request, Runner, RunnerStatus, Spec, State, Status, Wish,
};
pub use wanted::Wanted;

/// The number that no checkpoint has, nor any above it: no training takes so many.
pub const CHECKPOINT_NUMBER_LIMIT: u64 = u32::MAX as u64;
