//! A runner's state by its log, and the verdict on its machine.

use super::event::{Event, StepId};
use super::{STARTUP_TIMEOUT, STEP_RUN_LIMIT};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// A runner says that a step is complete before it has cleaned up after the step, which takes less than this.
const CLEAN_UP_TIME: Duration = Duration::from_secs(10);

/// How long a runner and its machine live.
#[derive(Clone, Copy, Debug)]
pub struct RunnerLimits {
    /// The runner goes after this much time without a step.
    pub idle_timeout: Duration,
    /// Whether the runner goes after one step.
    pub single_step: bool,
    /// The runner takes no further step after this much time, and goes once it has none.
    pub max_runtime: Duration,
}

/// What the runner is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The runner is not online yet, or not again.
    Starting,
    /// The runner waits for a step.
    Idle,
    /// The runner runs a step.
    Busy(StepId),
    /// The runner cannot clean up after a step, and will get no others.
    Unhealthy,
    /// The runner's program is gone, with this exit code if it had one.
    Gone(Option<i32>),
}

/// Whether the machine stays or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The machine stays.
    Stay,
    /// The machine stays for the step that runs, and its runner should get no other.
    LastStep,
    /// The machine goes.
    Leave(LeaveReason),
}

/// Why a machine goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveReason {
    /// The runner had no step for its idle timeout.
    Idle,
    /// The runner ran the one step that it was for.
    SingleStep,
    /// The runner reached its longest run time.
    MaxRuntime,
    /// Somebody said that the runner is not needed any more.
    Drained,
    /// The runner did not come online.
    NeverOnline,
    /// The runner takes no steps any more.
    Unhealthy,
    /// The runner's program ended.
    Exited,
    /// A step seems to run for longer than Bitbucket lets any.
    StepTooLong,
}

impl LeaveReason {
    /// The reason in words, to follow "the runner goes: ".
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Idle => "it had no step for RUNNER_IDLE_TIMEOUT",
            Self::SingleStep => "it ran the one step that it was for",
            Self::MaxRuntime => "it reached MAX_RUNTIME",
            Self::Drained => "it is not needed any more",
            Self::NeverOnline => "it did not come online",
            Self::Unhealthy => "it takes no steps any more",
            Self::Exited => "its program ended",
            Self::StepTooLong => "a step seems to run for longer than Bitbucket lets any",
        }
    }
}

/// A runner's state, as the lines of its log tell it.
#[derive(Clone, Debug)]
pub struct RunnerState {
    limits: RunnerLimits,
    draining: bool,
    began: Instant,
    phase: Phase,
    /// When the present phase began.
    phase_began: Instant,
    /// When the runner last had a step, or else was first online.
    idle_since: Option<Instant>,
    steps: u32,
    complaint: Option<String>,
}

impl RunnerState {
    /// The state of a runner that is started `now`.
    #[must_use]
    pub fn new(limits: RunnerLimits, now: Instant) -> Self {
        Self {
            limits,
            draining: false,
            began: now,
            phase: Phase::Starting,
            phase_began: now,
            idle_since: None,
            steps: 0,
            complaint: None,
        }
    }

    /// What the runner is doing.
    #[must_use]
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// How many steps the runner has begun.
    #[must_use]
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// The last thing that went wrong, in the runner's words.
    #[must_use]
    pub fn complaint(&self) -> Option<&str> {
        self.complaint.as_deref()
    }

    /// Takes in one line of the log.
    pub fn read_line(&mut self, line: &str, now: Instant) {
        if let Some(event) = Event::parse(line) {
            self.apply(event, now);
        }
    }

    /// Takes in an event.
    pub fn apply(&mut self, event: Event, now: Instant) {
        match (event, &self.phase) {
            (Event::Complaint(complaint), _) => self.complaint = Some(complaint),
            // Online says no more than that a program is there: it ends no step, and mends no health.
            (Event::Online, Phase::Starting) => {
                self.idle_since.get_or_insert(now);
                self.enter(Phase::Idle, now);
            }
            (Event::StepStarted(step), _) => {
                self.steps += 1;
                self.enter(Phase::Busy(step), now);
            }
            (Event::StepDone(_), phase) => {
                // A step whose begin was missed counts too.
                self.steps += u32::from(!matches!(phase, Phase::Busy(_)));
                self.end_step(now);
            }
            (Event::Starting | Event::Updating, Phase::Idle | Phase::Unhealthy | Phase::Gone(_)) => {
                self.enter(Phase::Starting, now);
            }
            (Event::Exited(code), _) => self.enter(Phase::Gone(code), now),
            (Event::Unhealthy, Phase::Starting | Phase::Idle) => self.enter(Phase::Unhealthy, now),
            // Nothing but its end, or that of the program, ends a step: a machine must not go because a line
            // was misunderstood. A program that says that it goes offline goes on until it exits. A program
            // that is gone is back only when it begins again.
            (Event::Online | Event::Offline | Event::Unhealthy | Event::Starting | Event::Updating, _) => {}
        }
    }

    /// Ends the step with this id, of which Bitbucket says that it is over, if the log did not tell its end.
    pub fn finish_step(&mut self, step: &str, now: Instant) {
        if matches!(&self.phase, Phase::Busy(running) if running.step == step) {
            self.end_step(now);
        }
    }

    /// Lets the runner's idle time begin now.
    pub fn reset_idle_timer(&mut self, now: Instant) {
        if self.phase == Phase::Idle {
            self.idle_since = Some(now);
        }
    }

    /// Says whether the runner should go once it has no step, though none of its limits is reached.
    pub fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
    }

    fn end_step(&mut self, now: Instant) {
        self.idle_since = Some(now);
        self.enter(Phase::Idle, now);
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        (self.phase, self.phase_began) = (phase, now);
    }

    /// Whether the machine stays or goes now. A machine never goes while a step runs, as far as anybody can
    /// tell.
    #[must_use]
    pub fn verdict(&self, now: Instant) -> Verdict {
        let lasted = now.saturating_duration_since(self.phase_began);
        let used_up = now.saturating_duration_since(self.began) >= self.limits.max_runtime;
        let had_its_step = self.limits.single_step && self.steps > 0;
        let reason = match self.phase {
            Phase::Busy(_) if lasted >= STEP_RUN_LIMIT => LeaveReason::StepTooLong,
            Phase::Busy(_) if used_up || had_its_step || self.draining => return Verdict::LastStep,
            Phase::Gone(_) => LeaveReason::Exited,
            Phase::Idle | Phase::Starting if had_its_step => {
                return self.leave_when_clean(LeaveReason::SingleStep, now);
            }
            Phase::Idle | Phase::Starting if self.draining => {
                return self.leave_when_clean(LeaveReason::Drained, now);
            }
            Phase::Idle | Phase::Starting if used_up => {
                return self.leave_when_clean(LeaveReason::MaxRuntime, now);
            }
            Phase::Unhealthy => LeaveReason::Unhealthy,
            Phase::Starting if lasted >= STARTUP_TIMEOUT => LeaveReason::NeverOnline,
            Phase::Idle if self.idle_for(now) >= self.limits.idle_timeout => LeaveReason::Idle,
            Phase::Busy(_) | Phase::Starting | Phase::Idle => return Verdict::Stay,
        };
        Verdict::Leave(reason)
    }

    /// The machine goes, but not while the runner may still clean up after a step.
    fn leave_when_clean(&self, reason: LeaveReason, now: Instant) -> Verdict {
        let clean = self.steps == 0 || self.idle_for(now) >= CLEAN_UP_TIME;
        if clean { Verdict::Leave(reason) } else { Verdict::Stay }
    }

    /// How long the runner has had no step.
    fn idle_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.idle_since.unwrap_or(self.began))
    }
}
