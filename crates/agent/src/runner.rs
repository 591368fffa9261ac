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
use super::tail::Tail;
use std::time::{Duration, Instant};
use trainspot_protocol::RunnerStatus;
use trainspot_protocol::runner_log::{Event, Limits, Phase, StepId, Verdict, Watch, Why};

/// How often Bitbucket is asked about a step that runs. Its answers are for one whose end the log did not
/// tell.
const ASK: Duration = Duration::from_mins(1);
/// Between the word that a runner is to get no step any more, and its end: one may be on its way, as runners
/// of old versions ask for steps every 30 s only. Never longer than its idle timeout, but for
/// [`LEAST_SETTLING`].
const SETTLING: Duration = Duration::from_secs(35);
const LEAST_SETTLING: Duration = Duration::from_secs(5);

/// A runner that is watched.
pub(super) struct Runner {
    told: trainspot_protocol::Runner,
    watch: Watch,
    log: Tail,
    registrar: Option<Registrar>,
    /// Whether a pipe holds the machine.
    held: bool,
    retiring: bool,
    departure: Departure,
    /// Whether the step that runs is over, and when that was asked.
    asked: Option<(Instant, StepId, Task<bool>)>,
}

/// Its way off Bitbucket's list.
enum Departure {
    /// It takes steps.
    No,
    Disabling(Task<bool>),
    /// It gets no step from Bitbucket any more, since then.
    Disabled(Instant),
    Deleting(Task<()>),
    Over,
}

/// What is to be done with the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Stay,
    /// The runner's program is to be ended.
    Stop(Why),
    /// The machine is to be ended.
    End,
}

impl Runner {
    pub(super) fn new(home: &Home, told: &trainspot_protocol::Runner, max_runtime: Duration) -> Self {
        let limits = Limits { idle: told.idle, single: told.single, max_runtime };
        Self {
            registrar: told.registry.clone().map(|registry| Registrar::new(registry, &told.uuid)),
            told: told.clone(),
            watch: Watch::new(limits, Instant::now()),
            log: Tail::of(home.log()),
            held: true,
            retiring: false,
            departure: Departure::No,
            asked: None,
        }
    }

    pub(super) fn status(&self) -> RunnerStatus {
        RunnerStatus {
            uuid: self.told.uuid.clone(),
            phase: self.watch.phase().clone(),
            complaint: self.watch.complaint().map(str::to_owned),
            retiring: self.retiring,
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// From now on its limits hold, and its idle time begins.
    pub(super) fn release(&mut self) {
        self.held = false;
        self.expect();
    }

    /// From now on a pipe decides again, unless the runner is on its way off the list.
    pub(super) fn hold(&mut self) -> bool {
        let stays = matches!(self.departure, Departure::No);
        if stays {
            (self.held, self.retiring) = (true, false);
            self.watch.retire(false);
        }
        stays
    }

    /// Lets the machine go once no step runs.
    pub(super) fn retire(&mut self) {
        self.held = false;
        self.retiring = true;
        self.watch.retire(true);
    }

    /// Lets it wait for a step anew.
    pub(super) fn expect(&mut self) {
        self.watch.expect(Instant::now());
    }

    pub(super) fn is_online(&mut self) {
        self.watch.hear(Event::Online, Instant::now());
    }

    pub(super) fn step_is_over(&mut self, step: &str) {
        self.watch.is_over(step, Instant::now());
    }

    /// Its program is gone.
    pub(super) fn exited(&mut self, code: Option<i32>) {
        let now = Instant::now();
        let watch = &mut self.watch;
        while self.log.lines(|line| watch.read(line, now)) {}
        self.watch.hear(Event::Exited(code), now);
    }

    /// Reads what the log has got, and says what follows for the machine.
    pub(super) fn mind(&mut self, now: Instant) -> Next {
        let watch = &mut self.watch;
        self.log.lines(|line| watch.read(line, now));
        self.ask(now);
        if self.held {
            return Next::Stay;
        }
        let verdict = self.watch.verdict(now);
        let settling = SETTLING.min(self.told.idle).max(LEAST_SETTLING);
        match &mut self.departure {
            Departure::No => match (verdict, &self.registrar) {
                (Verdict::Stay, _) | (Verdict::LastStep, None) => Next::Stay,
                (Verdict::Leave(Why::Exited), _) => self.delete(),
                (Verdict::LastStep | Verdict::Leave(_), Some(registrar)) => {
                    self.departure = Departure::Disabling(registrar.disable());
                    // It gets no more, whatever comes of the step that it has.
                    self.retire();
                    Next::Stay
                }
                (Verdict::Leave(why), None) => Next::Stop(why),
            },
            Departure::Disabling(task) => {
                if task.poll().is_some() {
                    self.departure = Departure::Disabled(now);
                }
                Next::Stay
            }
            Departure::Disabled(since) => match verdict {
                Verdict::Leave(Why::Exited) => self.delete(),
                Verdict::Leave(why) if now.duration_since(*since) >= settling => Next::Stop(why),
                // A step that came meanwhile is run.
                Verdict::Stay | Verdict::LastStep | Verdict::Leave(_) => Next::Stay,
            },
            Departure::Deleting(task) => {
                if task.poll().is_some() {
                    self.departure = Departure::Over;
                }
                Next::Stay
            }
            Departure::Over => Next::End,
        }
    }

    fn delete(&mut self) -> Next {
        let task = self.registrar.as_ref().map(Registrar::delete);
        self.departure = task.map_or(Departure::Over, Departure::Deleting);
        Next::Stay
    }

    /// Asks Bitbucket now and then whether the step that runs, by the log, does.
    fn ask(&mut self, now: Instant) {
        if let Some((_, step, task)) = &mut self.asked
            && task.poll() == Some(true)
        {
            let over = step.step.clone();
            self.watch.is_over(&over, now);
        }
        let (Phase::Busy(step), Some(registrar)) = (self.watch.phase(), &self.registrar) else { return };
        let due = self.asked.as_ref().is_none_or(|(at, _, _)| now.duration_since(*at) >= ASK);
        if due && !step.step.is_empty() {
            self.asked = Some((now, step.clone(), registrar.is_over(step)));
        }
    }
}
