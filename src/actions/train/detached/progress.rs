//! How far a detached run is, as its pipes know it: its machines, its pipelines, and what came of it.

use super::words::MachineWords;
use crate::job::{Cost, cost_of};
use crate::publication::Losses;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use trainspot_base::clock::stated_fraction;
use trainspot_base::error::{Context as _, Error, Kind, Result};
use trainspot_compute::{Machine, Pool, Rate};
use trainspot_detached::RunFolder;
use trainspot_protocol::{CHECKPOINT_NUMBER_LIMIT, ExitReason};
use trainspot_store::{ObjectVersion, Store, WriteCondition, WriteOutcome};

/// The longest progress that is read. A machine and a pipeline take about half a kilobyte.
const PROGRESS_LIMIT_BYTES: usize = 8 << 20;

/// How far a run is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// The machines of the run, in their order. The last one may still train.
    pub(super) attempts: Vec<AttemptRecord>,
    /// The pipelines that acted on the run.
    pub(super) visits: Vec<Visit>,
    /// What came of the run, once it is over.
    pub(super) outcome: Option<Outcome>,
}

/// One machine of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct AttemptRecord {
    /// The provider's id of the machine.
    pub(super) machine: String,
    /// The name of the machine's folder in the store.
    pub(super) folder: String,
    /// The machine in words.
    pub(super) description: String,
    pub(super) is_spot: bool,
    /// The zone and the instance type.
    pub(super) pool: Option<(String, String)>,
    /// Dollars an hour: the machine, the same on demand, disk and address.
    pub(super) rate: Option<(f64, Option<f64>, f64)>,
    /// When the machine began to cost, in seconds since 1970.
    pub(super) since: u64,
    /// What is known of its end; none while it may train.
    pub(super) end: Option<AttemptRecordEnd>,
}

/// The end of a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct AttemptRecordEnd {
    /// Why the machine ended, in words.
    pub(super) why: String,
    /// When it stopped to cost, in seconds since 1970.
    pub(super) at: u64,
    /// Whether its provider took it.
    pub(super) is_reclaimed: bool,
    /// How long it trained, in seconds.
    pub(super) trained_seconds: f64,
    /// How much of that no checkpoint holds, in seconds.
    pub(super) lost_seconds: f64,
    /// The newest checkpoint that it left in the store.
    pub(super) checkpoint: Option<u64>,
}

/// A pipeline that acted on the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Visit {
    /// The pipeline's page, where Pipelines ran it.
    pub(super) pipeline: Option<String>,
    /// When its pipe began, in seconds since 1970.
    pub(super) at: u64,
    /// How long the pipe has taken; none for one that was killed.
    pub(super) seconds: Option<u64>,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// The outputs are published: the last line of the pipe that did it.
    Published(String),
    /// The run failed, for this reason, and with this exit code.
    Failed(String, u8),
    /// The run was stopped by `ACTION: stop`.
    Stopped(String),
}

impl AttemptRecord {
    pub(super) fn new(machine: &Machine, number: usize) -> Self {
        Self {
            machine: machine.id.clone(),
            folder: format!("{number}-{}", machine.id),
            description: machine.description.clone(),
            is_spot: machine.spot,
            pool: machine.pool.clone().map(|pool| (pool.zone, pool.instance_type)),
            rate: machine.rate.map(|rate| (rate.machine, rate.on_demand, rate.extras)),
            since: now().saturating_sub(machine.age.as_secs()),
            end: None,
        }
    }

    /// Closes the account of the machine by what it said last, if it said anything: it trained until then,
    /// and cost until now.
    pub(super) fn close(&mut self, why: &str, words: Option<&MachineWords>) {
        let exit = words.and_then(|words| words.exit.as_ref());
        let state = words.and_then(|words| words.state.as_ref());
        let trained =
            exit.map(|exit| exit.exit.seconds).or_else(|| Some(state?.0.seconds)).unwrap_or_default();
        // What an interrupted training saved at its end is all of it.
        let is_saved = exit.is_some_and(|exit| exit.exit.reason == ExitReason::Interrupted);
        let checkpoint = exit.and_then(|exit| exit.stored_checkpoint);
        let checkpoint = checkpoint.or_else(|| state?.0.stored_checkpoint);
        let saved = state.and_then(|(state, _)| state.stored_seconds).unwrap_or_default();
        let lost = if is_saved && checkpoint.is_some() { 0.0 } else { (trained - saved).max(0.0) };
        self.end = Some(AttemptRecordEnd {
            why: why.to_owned(),
            at: now(),
            is_reclaimed: false,
            trained_seconds: stated_fraction(trained).as_secs_f64(),
            lost_seconds: stated_fraction(lost).as_secs_f64(),
            checkpoint: checkpoint.filter(|number| *number < CHECKPOINT_NUMBER_LIMIT),
        });
    }

    pub(super) fn pool(&self) -> Option<Pool> {
        let (zone, instance_type) = self.pool.clone()?;
        Some(Pool { zone, instance_type })
    }

    pub(super) fn machine(&self) -> Machine {
        Machine {
            id: self.machine.clone(),
            description: self.description.clone(),
            pool: self.pool(),
            spot: self.is_spot,
            rate: self.rate(),
            age: Duration::from_secs(now().saturating_sub(self.since)),
        }
    }

    fn rate(&self) -> Option<Rate> {
        self.rate.map(|(machine, on_demand, extras)| Rate { machine, on_demand, extras })
    }

    fn billed_time(&self) -> Duration {
        let until = self.end.as_ref().map_or_else(now, |end| end.at);
        Duration::from_secs(until.saturating_sub(self.since))
    }
}

impl Progress {
    /// The machine that may still train.
    pub(super) fn open_attempt(&self) -> Option<&AttemptRecord> {
        self.attempts.last().filter(|attempt| attempt.end.is_none())
    }

    fn ends(&self) -> impl DoubleEndedIterator<Item = (&AttemptRecord, &AttemptRecordEnd)> {
        self.attempts.iter().filter_map(|attempt| Some((attempt, attempt.end.as_ref()?)))
    }

    /// The machine that left the newest checkpoint, and that checkpoint's number.
    pub(super) fn newest_checkpoint(&self) -> Option<(&AttemptRecord, u64)> {
        self.ends().rev().find_map(|(attempt, end)| Some((attempt, end.checkpoint?)))
    }

    /// How often the training was started again.
    pub(super) fn restarts(&self) -> u32 {
        u32::try_from(self.attempts.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// How many machines in a row, the last ones, have left no checkpoint.
    pub(super) fn losses_in_a_row(&self) -> usize {
        self.ends().rev().take_while(|(_, end)| end.checkpoint.is_none()).count()
    }

    /// How long machines that are gone have trained.
    pub(super) fn trained(&self) -> Duration {
        self.ends().map(|(_, end)| stated_fraction(end.trained_seconds)).sum()
    }

    /// What the loss of machines cost the training.
    pub(super) fn losses(&self) -> Losses {
        let pairs = self.attempts.iter().zip(self.attempts.iter().skip(1));
        let idle = pairs.filter_map(|(one, next)| Some(next.since.saturating_sub(one.end.as_ref()?.at)));
        let lost = self.ends().map(|(_, end)| stated_fraction(end.lost_seconds)).sum();
        Losses { repeated: lost, idle: Duration::from_secs(idle.sum()) }
    }

    /// The cost of all machines until now; none where a machine's price is not known.
    pub(super) fn cost(&self) -> Option<Cost> {
        cost_of(self.attempts.iter().map(|attempt| {
            let is_reclaimed = attempt.end.as_ref().is_some_and(|end| end.is_reclaimed);
            (attempt.rate(), attempt.billed_time(), is_reclaimed)
        }))
    }

    /// How long machines have been there for the run, all together.
    pub(super) fn held(&self) -> Duration {
        self.attempts.iter().map(AttemptRecord::billed_time).sum()
    }

    /// How long all pipes of the run have taken together.
    pub(super) fn pipe_time(&self) -> Duration {
        self.visits.iter().filter_map(|visit| visit.seconds).map(Duration::from_secs).sum()
    }
}

/// The progress of a run, and the version of it that this pipe has read or written.
pub(super) struct ProgressFile {
    store: Store,
    folder: RunFolder,
    version: Option<ObjectVersion>,
    pub(super) progress: Progress,
}

impl ProgressFile {
    /// Reads the progress; that of a new run is empty.
    pub(super) async fn read(store: &Store, folder: &RunFolder) -> Result<Self> {
        let (store, folder) = (store.clone(), folder.clone());
        let Some(found) = store.read(&folder.progress()?, PROGRESS_LIMIT_BYTES).await? else {
            return Ok(Self { store, folder, version: None, progress: Progress::default() });
        };
        let progress = serde_json::from_slice(&found.bytes)
            .context("the run's progress in the store cannot be read")
            .map_err(|error| error.kind(Kind::Unexpected))?;
        Ok(Self { store, folder, version: Some(found.version), progress })
    }

    /// Writes the progress.
    ///
    /// # Errors
    /// Another pipe has written it since: this one was taken for dead.
    pub(super) async fn save(&mut self) -> Result<()> {
        let bytes = serde_json::to_vec(&self.progress).context("cannot write the run's progress")?;
        let condition = self.version.clone().map_or(WriteCondition::Absent, WriteCondition::Unchanged);
        match self.store.write(&self.folder.progress()?, bytes, condition).await? {
            WriteOutcome::Written(version) => {
                self.version = Some(version);
                Ok(())
            }
            WriteOutcome::ConditionFailed => {
                Err(Error::new("another pipeline has taken this run over").kind(Kind::Machine))
            }
        }
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(since: u64, end: Option<(u64, Option<u64>)>) -> AttemptRecord {
        AttemptRecord {
            machine: format!("i-{since}"),
            folder: format!("{since}"),
            description: String::new(),
            is_spot: true,
            pool: None,
            rate: Some((1.0, Some(4.0), 0.5)),
            since,
            end: end.map(|(at, checkpoint)| AttemptRecordEnd {
                why: "taken".to_owned(),
                at,
                is_reclaimed: false,
                trained_seconds: 100.0,
                lost_seconds: 10.0,
                checkpoint,
            }),
        }
    }

    fn progress(attempts: Vec<AttemptRecord>) -> Progress {
        Progress { attempts, ..Progress::default() }
    }

    #[test]
    fn the_newest_checkpoint_is_that_of_the_last_machine_that_left_one() {
        let ends = [Some((200, Some(7))), Some((400, None)), Some((600, Some(1))), Some((800, None))];
        let mut attempts = Vec::new();
        let mut seen = Vec::new();
        for (number, end) in (0..).zip(ends) {
            attempts.push(attempt(number * 200, end));
            let progress = progress(attempts.clone());
            let newest = progress.newest_checkpoint().map(|(attempt, number)| (attempt.since, number));
            seen.push((newest, progress.losses_in_a_row()));
        }
        let expected = [(Some((0, 7)), 0), (Some((0, 7)), 1), (Some((400, 1)), 0), (Some((400, 1)), 1)];
        assert_eq!(seen, expected);
    }

    #[test]
    fn times_and_costs_are_those_of_all_machines() {
        let run = progress(vec![attempt(0, Some((3600, Some(1)))), attempt(3700, Some((7300, None)))]);
        assert_eq!(run.trained(), Duration::from_secs(200));
        let losses = Losses { repeated: Duration::from_secs(20), idle: Duration::from_secs(100) };
        assert_eq!(run.losses(), losses);
        let cost = run.cost().unwrap();
        assert!((cost.machines - 2.0).abs() < 1e-9 && (cost.extras - 1.0).abs() < 1e-9, "{cost:?}");
        assert_eq!((run.restarts(), run.open_attempt()), (1, None));
    }
}
