//! What Atlassian's runner says in its log, and what follows for the machine that it runs on.
//!
//! The log is the machine's only way to know whether a step runs: the machine holds no Bitbucket token, and a
//! runner's state at Bitbucket does not tell. Atlassian documents none of the log's lines. The lines that are
//! read here were seen with versions 1 to 5, by programs that rely on them too; only the announcement of an
//! update was never seen, and is a guess. The words are looked for anywhere in a line, as what stands before
//! them is a matter of how the runner's logging is set up. A line that is not known changes nothing.
//!
//! Nothing here reads a clock or a file: the caller gives lines and instants.

mod event;
mod state;

pub use event::{Event, StepId};
pub use state::{LeaveReason, Phase, RunnerLimits, RunnerState, Verdict};

use std::time::Duration;

/// A runner that is not online after this much time will not be. The time includes a download of its image or
/// archive.
pub const STARTUP_TIMEOUT: Duration = Duration::from_mins(15);
/// Bitbucket ends every step after at most twelve hours; the rest is for what the runner does around the
/// step. A step that seems to run for longer is one whose end was not logged.
pub const STEP_RUN_LIMIT: Duration = Duration::from_hours(13);

#[cfg(test)]
mod tests;
