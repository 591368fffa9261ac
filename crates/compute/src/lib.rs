//! Machines: how to get one, find one again, and end it.

pub mod aws;
pub mod checks;
pub mod link;
pub mod local;

use crate::link::Link;
use std::fmt;
use std::time::Duration;
use trainspot_base::error::Result;

/// A run's name, known before anything is rented: the same for a step that is run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunId(String);

impl RunId {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The run of that name, as it was made by [`Self::new`] and written down.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self(name.to_owned())
    }

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
    /// The training is ended after this time, and the machine soon after, whatever happens to its watch.
    pub max_runtime: Duration,
    /// Where machines of this run were taken away: tried last, as what is taken once is soon taken again.
    pub avoid: Vec<Pool>,
    /// Only spot, and only what there is at once: for a machine that is to take the place of one on demand.
    pub spot_now: bool,
}

/// A pool of capacity: what is taken away together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pool {
    /// The zone, such as `eu-west-1b`.
    pub zone: String,
    /// The instance type.
    pub instance_type: String,
}

/// A machine that exists, or existed a moment ago.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// The provider's name for it.
    pub id: String,
    /// What it is, in words for the report.
    pub description: String,
    /// Where it came from; none where machines do not come from pools.
    pub pool: Option<Pool>,
    /// Whether its provider may take it away at any time, for less money.
    pub spot: bool,
    /// What it costs; none where it costs nothing, or nobody can tell.
    pub rate: Option<Rate>,
    /// How long it had been there when it was found; nothing for one that was just launched.
    pub age: Duration,
}

/// What a machine costs, in dollars an hour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// The machine itself, as it was bought.
    pub machine: f64,
    /// The same type on demand, if that is known.
    pub on_demand: Option<f64>,
    /// Its disk and its public address.
    pub extras: f64,
}

/// What the provider says of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// It runs.
    There,
    /// It runs, but is about to be taken away, for this reason.
    Leaving(String),
    /// Its provider took it back, for this reason.
    Reclaimed(String),
    /// It is gone or going, for this reason.
    Gone(String),
}

/// A provider of machines.
pub trait Compute: Send + Sync {
    /// The way to its machines.
    type Link: Link;

    /// Finds out, at the same time as others do other things, what is needed before anything can be launched.
    ///
    /// # Errors
    /// What is wished for cannot be had; nothing was made.
    fn prepare(&self) -> impl Future<Output = Result<()>> + Send;

    /// Gets a machine. It carries the run's name from its first moment, and ends itself when the pipe falls
    /// silent.
    ///
    /// # Errors
    /// None could be had. What may have been made all the same is named in the error.
    fn launch(&self, order: &Order) -> impl Future<Output = Result<Machine>> + Send;

    /// The machines of a run that was killed, if they are still there.
    fn find(&self, run: &RunId) -> impl Future<Output = Result<Vec<Machine>>> + Send;

    /// The machines of a run that this process launched, known or not, and did not end. Waits for a launch
    /// whose caller is gone. What another process has launched for the run since is not among them.
    fn made(&self, run: &RunId) -> impl Future<Output = Result<Vec<Machine>>> + Send;

    /// Opens the way to a machine, and waits until its supervisor runs.
    ///
    /// `order` is what it was launched for: the first that comes to a machine starts its supervisor.
    fn connect(&self, machine: &Machine, order: &Order) -> impl Future<Output = Result<Self::Link>> + Send;

    /// What the provider says of a machine: a link that is silent does not tell slow from gone.
    fn look(&self, machine: &Machine) -> impl Future<Output = Result<Sight>> + Send;

    /// Ends a machine, and returns when it is gone. A machine that is gone already is no error.
    fn terminate(&self, machine: &Machine) -> impl Future<Output = Result<()>> + Send;

    /// Leaves a machine to itself: it lives until it ends itself, and [`Self::made`] does not tell of it any
    /// more. What it does not need of what was made for the run is removed; what it needs is left.
    ///
    /// # Errors
    /// Names each thing that could not be removed, with the command that removes it.
    fn hand_over(&self, machine: &Machine, run: &RunId) -> impl Future<Output = Result<()>> + Send;

    /// Removes what was made for a run as a whole, once its machines are gone. Where another process has
    /// launched one for the run since, it is that one's now.
    ///
    /// # Errors
    /// Names each thing that is still there, with the command that removes it.
    fn clean(&self, run: &RunId) -> impl Future<Output = Result<()>> + Send;
}
