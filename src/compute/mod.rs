//! Machines: how to get one, find one again, and end it.

pub mod local;

use crate::error::Result;
use crate::link::Link;
use std::fmt;
use std::time::Duration;

/// A run's name, known before anything is rented: the same for a step that is run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunId(String);

impl RunId {
    /// The name of the run that these parts identify: repository, pipeline, step.
    #[must_use]
    pub fn new(parts: &[&str]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(part.as_bytes()).update(&[0]);
        }
        Self(hasher.finalize().to_hex()[..16].to_owned())
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What to rent.
#[derive(Clone, Debug)]
pub struct Order {
    /// For which run.
    pub run: RunId,
    /// The machine ends itself after this long without a word from the pipe.
    pub orphan_grace: Duration,
}

/// A machine that exists, or existed a moment ago.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The provider's name for it.
    pub id: String,
    /// What it is, in words for the report.
    pub description: String,
}

/// A provider of machines.
pub trait Compute: Send + Sync {
    /// The way to its machines.
    type Link: Link;

    /// Gets a machine. It carries the run's name from its first moment, and ends itself when the pipe falls silent.
    ///
    /// # Errors
    /// None could be had. What may have been made all the same is named in the error.
    fn launch(&self, order: &Order) -> impl Future<Output = Result<Machine>> + Send;

    /// The machine of a run that was killed, if it is still there.
    fn find(&self, run: &RunId) -> impl Future<Output = Result<Option<Machine>>> + Send;

    /// Opens the way to a machine, whose supervisor then runs.
    fn connect(&self, machine: &Machine) -> impl Future<Output = Result<Self::Link>> + Send;

    /// Ends a machine, and returns when it is gone. A machine that is gone already is no error.
    fn terminate(&self, machine: &Machine) -> impl Future<Output = Result<()>> + Send;
}
