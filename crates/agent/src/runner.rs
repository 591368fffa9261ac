//! A runner of Bitbucket's on this machine: watched through its log, and the reason why the machine stays or
//! goes.
//!
//! While a pipe holds the machine, that pipe decides. Once it has released the machine, or has fallen silent
//! for the grace, the runner's own limits hold. Where the pipe left a token, Bitbucket is asked and told too:
//! the runner gets no step that it has no time for, and is off the list when the machine is gone. Without one
//! it stays there as `OFFLINE` until a pipe removes it, and a step that it is given in its very last second
//! is lost.

use super::home::Home;
use super::registrar::{Registrar, Task};
use super::tail::LogTail;
use std::time::{Duration, Instant};
use trainspot_protocol::RunnerActivity;
use trainspot_protocol::runner_log::{Event, LeaveReason, Phase, RunnerLimits, RunnerState, StepId, Verdict};

/// How often Bitbucket is asked about a step that runs. Its answers are for one whose end the log did not
/// tell.
const STEP_POLL_INTERVAL: Duration = Duration::from_mins(1);
/// A disabled runner is ended after this time: a step may be on its way, as runners of old versions ask for
/// steps every 30 s only. The time is never longer than the runner's idle timeout, but at least
/// [`SHORTEST_SETTLE_TIME`].
const DISABLE_SETTLE_TIME: Duration = Duration::from_secs(35);
const SHORTEST_SETTLE_TIME: Duration = Duration::from_secs(5);

/// A runner that is watched.
pub(super) struct SupervisedRunner {
    spec: trainspot_protocol::RunnerSpec,
    state: RunnerState,
    log: LogTail,
    registrar: Option<Registrar>,
    /// Whether a pipe holds the machine.
    claimed: bool,
    draining: bool,
    deregistration: Deregistration,
    /// Whether the step that runs is over, and when that was asked.
    asked: Option<(Instant, StepId, Task<bool>)>,
}

/// Its way off Bitbucket's list.
enum Deregistration {
    /// It takes steps.
    NotBegun,
    Disabling(Task<bool>),
    /// It gets no step from Bitbucket any more, since then.
    Disabled(Instant),
    Deleting(Task<()>),
    Done,
}

/// What is to be done with the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextAction {
    Stay,
    /// The runner's program is to be ended.
    Stop(LeaveReason),
    /// The machine is to be ended.
    End,
}

impl SupervisedRunner {
    pub(super) fn new(home: &Home, spec: &trainspot_protocol::RunnerSpec, max_runtime: Duration) -> Self {
        let limits =
            RunnerLimits { idle_timeout: spec.idle_timeout, single_step: spec.single_step, max_runtime };
        Self {
            registrar: spec.registry.clone().map(|registry| Registrar::new(registry, &spec.uuid)),
            spec: spec.clone(),
            state: RunnerState::new(limits, Instant::now()),
            log: LogTail::new(home.log()),
            claimed: true,
            draining: false,
            deregistration: Deregistration::NotBegun,
            asked: None,
        }
    }

    pub(super) fn status(&self) -> RunnerActivity {
        RunnerActivity {
            uuid: self.spec.uuid.clone(),
            phase: self.state.phase().clone(),
            complaint: self.state.complaint().map(str::to_owned),
            draining: self.draining,
        }
    }

    pub(super) fn is_claimed(&self) -> bool {
        self.claimed
    }

    /// From now on its limits hold, and its idle time begins.
    pub(super) fn release(&mut self) {
        self.claimed = false;
        self.reset_idle_timer();
    }

    /// From now on a pipe decides again, unless the runner is on its way off the list.
    pub(super) fn claim(&mut self) -> bool {
        let stays = matches!(self.deregistration, Deregistration::NotBegun);
        if stays {
            (self.claimed, self.draining) = (true, false);
            self.state.set_draining(false);
        }
        stays
    }

    /// Lets the machine go once no step runs.
    pub(super) fn drain(&mut self) {
        self.claimed = false;
        self.draining = true;
        self.state.set_draining(true);
    }

    /// Lets it wait for a step anew.
    pub(super) fn reset_idle_timer(&mut self) {
        self.state.reset_idle_timer(Instant::now());
    }

    pub(super) fn mark_online(&mut self) {
        self.state.apply(Event::Online, Instant::now());
    }

    pub(super) fn finish_step(&mut self, step: &str) {
        self.state.finish_step(step, Instant::now());
    }

    /// Its program is gone.
    pub(super) fn mark_exited(&mut self, code: Option<i32>) {
        let now = Instant::now();
        let state = &mut self.state;
        while self.log.lines(|line| state.read_line(line, now)) {}
        self.state.apply(Event::Exited(code), now);
    }

    /// Reads what the log has got, and says what follows for the machine.
    pub(super) fn tick(&mut self, now: Instant) -> NextAction {
        let state = &mut self.state;
        self.log.lines(|line| state.read_line(line, now));
        self.ask(now);
        if self.claimed {
            return NextAction::Stay;
        }
        let verdict = self.state.verdict(now);
        let settling = DISABLE_SETTLE_TIME.min(self.spec.idle_timeout).max(SHORTEST_SETTLE_TIME);
        match &mut self.deregistration {
            Deregistration::NotBegun => match (verdict, &self.registrar) {
                (Verdict::Stay, _) | (Verdict::LastStep, None) => NextAction::Stay,
                (Verdict::Leave(LeaveReason::Exited), _) => self.delete(),
                (Verdict::LastStep | Verdict::Leave(_), Some(registrar)) => {
                    self.deregistration = Deregistration::Disabling(registrar.disable());
                    // It gets no more, whatever comes of the step that it has.
                    self.drain();
                    NextAction::Stay
                }
                (Verdict::Leave(why), None) => NextAction::Stop(why),
            },
            Deregistration::Disabling(task) => {
                if task.poll().is_some() {
                    self.deregistration = Deregistration::Disabled(now);
                }
                NextAction::Stay
            }
            Deregistration::Disabled(since) => match verdict {
                Verdict::Leave(LeaveReason::Exited) => self.delete(),
                Verdict::Leave(why) if now.duration_since(*since) >= settling => NextAction::Stop(why),
                // A step that came meanwhile is run.
                Verdict::Stay | Verdict::LastStep | Verdict::Leave(_) => NextAction::Stay,
            },
            Deregistration::Deleting(task) => {
                if task.poll().is_some() {
                    self.deregistration = Deregistration::Done;
                }
                NextAction::Stay
            }
            Deregistration::Done => NextAction::End,
        }
    }

    fn delete(&mut self) -> NextAction {
        let task = self.registrar.as_ref().map(Registrar::delete);
        self.deregistration = task.map_or(Deregistration::Done, Deregistration::Deleting);
        NextAction::Stay
    }

    /// Asks Bitbucket now and then whether the step that runs, by the log, does.
    fn ask(&mut self, now: Instant) {
        if let Some((_, step, task)) = &mut self.asked
            && task.poll() == Some(true)
        {
            let over = step.step.clone();
            self.state.finish_step(&over, now);
        }
        let (Phase::Busy(step), Some(registrar)) = (self.state.phase(), &self.registrar) else { return };
        let due = self.asked.as_ref().is_none_or(|(at, _, _)| now.duration_since(*at) >= STEP_POLL_INTERVAL);
        if due && !step.step.is_empty() {
            self.asked = Some((now, step.clone(), registrar.is_over(step)));
        }
    }
}
