//! Providers of machines: how to launch a machine, find it again, reach it and end it.

pub mod aws;
pub mod checks;
pub mod link;
pub mod local;

use crate::link::Link;
use std::fmt;
use std::time::Duration;
use trainspot_base::error::Result;

/// The hexadecimal digits of a run's name.
const RUN_ID_LENGTH: usize = 16;

/// A run's name, known before anything is rented. A step that is run again has the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunId(String);

impl RunId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The run whose name was made by [`Self::new`] and written down, as in a tag.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The run that a person names. None if the text cannot have been made by [`Self::new`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |letter: u8| letter.is_ascii_digit() || (b'a'..=b'f').contains(&letter);
        let fits = text.len() == RUN_ID_LENGTH && text.bytes().all(is_digit);
        fits.then(|| Self(text.to_owned()))
    }

    /// The name of the run that these parts identify: repository, pipeline, step.
    #[must_use]
    pub fn new(parts: &[&str]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(part.as_bytes()).update(&[0]);
        }
        Self(hasher.finalize().to_hex()[..RUN_ID_LENGTH].to_owned())
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What a machine is launched for, and under which limits.
#[derive(Clone, Debug)]
pub struct LaunchRequest {
    /// The run that the machine is for.
    pub run: RunId,
    /// The machine ends itself after this long without a word from the pipe.
    pub orphan_grace: Duration,
    /// The training is ended after this time, and the machine soon after, even if its supervisor hangs.
    pub max_runtime: Duration,
    /// Pools in which the provider reclaimed a machine of this run. They are tried last, as a pool that lost
    /// one machine soon loses another.
    pub avoid: Vec<Pool>,
    /// Ask for spot only, once, and without waiting for capacity: the machine is to replace one on demand.
    pub spot_now: bool,
}

/// A pool of capacity: machines of one type in one zone, which the provider reclaims together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pool {
    /// The zone, such as `eu-west-1b`.
    pub zone: String,
    /// The instance type.
    pub instance_type: String,
}

/// A machine that exists, or has just ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// The provider's id of the machine.
    pub id: String,
    /// The machine's type, place and way to pay, in words for the log and the report.
    pub description: String,
    /// The pool that the machine came from; none for a provider without pools.
    pub pool: Option<Pool>,
    /// Whether the machine is a spot one: cheaper, and its provider may reclaim it at any time.
    pub spot: bool,
    /// What an hour of the machine costs; none where it costs nothing, or the price is not known.
    pub rate: Option<Rate>,
    /// How long the machine had been running when it was found; zero for one that was just launched.
    pub age: Duration,
}

/// What a machine costs, in dollars an hour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// The machine itself, by the way to pay for which it was launched.
    pub machine: f64,
    /// The same type on demand, if that is known.
    pub on_demand: Option<f64>,
    /// The machine's disk and its public address.
    pub extras: f64,
}

/// The state of a machine, as its provider sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineStatus {
    /// The machine is starting or running.
    Running,
    /// The machine runs, but its provider has announced to reclaim it, for this reason.
    InterruptionNotice(String),
    /// The provider reclaimed the machine, for this reason.
    Reclaimed(String),
    /// The machine has ended or is ending, for this reason.
    Gone(String),
}

/// A provider of machines.
pub trait Compute: Send + Sync {
    /// The link by which the pipe reaches this provider's machines.
    type Link: Link;

    /// Finds out what [`Self::launch`] needs to know. Called early, so that it runs beside other work.
    ///
    /// # Errors
    /// The provider cannot offer what is asked for. Nothing was made.
    fn prepare(&self) -> impl Future<Output = Result<()>> + Send;

    /// Launches a machine. The machine carries the run's name from its first moment, and ends itself when the
    /// pipe falls silent.
    ///
    /// # Errors
    /// No machine could be launched. The error names what may have been made all the same.
    fn launch(&self, request: &LaunchRequest) -> impl Future<Output = Result<Machine>> + Send;

    /// The machines of a run that still exist, also those that a killed pipe launched.
    fn find(&self, run: &RunId) -> impl Future<Output = Result<Vec<Machine>>> + Send;

    /// The machines of a run that this process launched and did not end, those included whose launch was not
    /// answered. Waits for a launch whose caller was dropped. Machines that another process has launched for
    /// the run are left out.
    fn launched_by_this_process(&self, run: &RunId) -> impl Future<Output = Result<Vec<Machine>>> + Send;

    /// Opens a link to a machine, and waits until the machine's supervisor runs.
    ///
    /// `request` is the one by which the machine was launched: the first pipe that connects to a machine
    /// starts the supervisor with its limits.
    fn connect(
        &self,
        machine: &Machine,
        request: &LaunchRequest,
    ) -> impl Future<Output = Result<Self::Link>> + Send;

    /// The state of a machine as the provider sees it: a silent link does not tell a slow machine from an
    /// ended one.
    fn status(&self, machine: &Machine) -> impl Future<Output = Result<MachineStatus>> + Send;

    /// Ends a machine, and returns once it is ending for certain. A machine that has ended already is no
    /// error.
    fn terminate(&self, machine: &Machine) -> impl Future<Output = Result<()>> + Send;

    /// Leaves a machine to itself: the machine lives until it ends itself, and
    /// [`Self::launched_by_this_process`] leaves it out. Resources of the run that the machine does not need
    /// are removed; the others stay.
    ///
    /// # Errors
    /// Names each resource that could not be removed, with the command that removes it.
    fn detach(&self, machine: &Machine, run: &RunId) -> impl Future<Output = Result<()>> + Send;

    /// Removes the resources that the run's machines shared, once these machines have ended. Where another
    /// process has launched a machine for the run since, the resources are left to that process.
    ///
    /// # Errors
    /// Names each resource that still exists, with the command that removes it.
    fn delete_run_resources(&self, run: &RunId) -> impl Future<Output = Result<()>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_a_runs_name_is_taken_for_one() {
        let run = RunId::new(&["acme/forest", "{pipeline}", "{step}"]);
        assert_eq!(RunId::parse(run.as_str()), Some(run));
        for text in [
            "",
            "0123456789abcde",
            "0123456789abcdef0",
            "0123456789ABCDEF",
            "0123456789abcdeg",
            "../../../../abcd",
        ] {
            assert_eq!(RunId::parse(text), None, "{text}");
        }
    }
}
