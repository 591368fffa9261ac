//! When checkpoints are taken: beside the training at its interval and on demand, and a last one after its
//! end.

use super::checkpoint::CheckpointWriter;
use super::home::Home;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use trainspot_protocol::CommandSpec;

/// Takes the checkpoints of one training, on a thread of its own: gigabytes take longer than a tick.
pub(super) struct CheckpointScheduler {
    home: Home,
    patterns: Vec<String>,
    interval: Duration,
    resting: Option<CheckpointWriter>,
    copying: Option<JoinHandle<CheckpointWriter>>,
    /// When the last copy began or ended.
    since: Instant,
    /// Whether a checkpoint was asked for before the interval is over.
    wanted: bool,
    /// Whether the last checkpoint was started: the training is over.
    last: bool,
    longest: Duration,
    problem: Option<String>,
    left_out: Option<String>,
    /// Set when no checkpoint is of use any more, for the thread that may be copying one.
    over: Arc<AtomicBool>,
}

impl CheckpointScheduler {
    /// To be made before the training starts: what it goes on from needs no checkpoint.
    pub(super) fn new(home: &Home, spec: &CommandSpec) -> Self {
        let mut scheduler = Self {
            home: home.clone(),
            patterns: spec.checkpoints.clone(),
            interval: spec.checkpoint_interval,
            resting: None,
            copying: None,
            since: Instant::now(),
            wanted: false,
            last: false,
            longest: Duration::ZERO,
            problem: None,
            left_out: None,
            over: Arc::default(),
        };
        let mut writer = scheduler.writer();
        if spec.resume {
            writer.mark_restored();
        }
        scheduler.resting = Some(writer);
        scheduler
    }

    fn writer(&self) -> CheckpointWriter {
        CheckpointWriter::new(&self.home, &self.patterns, Arc::clone(&self.over))
    }

    /// Asks for a checkpoint as soon as one can be taken.
    pub(super) fn request_now(&mut self) {
        self.wanted = true;
    }

    /// How long the longest copy took, one that is still being made included.
    pub(super) fn longest(&self) -> Duration {
        let copying = self.copying.as_ref().map(|_| self.since.elapsed());
        self.longest.max(copying.unwrap_or_default())
    }

    /// Why the last attempt failed, if it did.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Which files the last checkpoint lacks because they were not whole, if there are any.
    pub(super) fn left_out(&self) -> Option<&str> {
        self.left_out.as_deref()
    }

    /// Takes a checkpoint if one is due.
    pub(super) fn tick(&mut self) {
        self.collect();
        if self.wanted || self.since.elapsed() >= self.interval {
            self.wanted &= !self.start();
        }
    }

    /// Takes the last checkpoint, of files that nothing changes any more. Returns whether that checkpoint is
    /// complete, or cannot be taken.
    pub(super) fn finish(&mut self) -> bool {
        self.collect();
        if self.copying.is_some() || self.last {
            return self.copying.is_none();
        }
        if let Some(writer) = &mut self.resting {
            writer.assume_final();
        }
        self.last = self.start();
        false
    }

    /// Gives up what is being copied.
    pub(super) fn abandon(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Gives up what is being copied, and hands back the thread that copies.
    pub(super) fn end(self) -> Option<JoinHandle<CheckpointWriter>> {
        self.abandon();
        self.copying
    }

    fn collect(&mut self) {
        let Some(done) = self.copying.take_if(|thread| thread.is_finished()) else { return };
        let writer = done.join().unwrap_or_else(|_| self.writer());
        self.longest = self.longest.max(writer.longest());
        self.problem = writer.problem().map(str::to_owned);
        self.left_out = writer.left_out().map(str::to_owned);
        (self.resting, self.since) = (Some(writer), Instant::now());
    }

    /// Tells whether a copy was started. Not while there is one, nor when the training has used up all the
    /// processes that there can be.
    fn start(&mut self) -> bool {
        let Some(mut writer) = self.resting.take() else { return false };
        let copy = move || {
            writer.attempt();
            writer
        };
        self.copying = thread::Builder::new().spawn(copy).ok();
        self.since = Instant::now();
        if self.copying.is_none() {
            self.resting = Some(self.writer());
        }
        self.copying.is_some()
    }
}
