//! What Atlassian's runner says in its log, and what follows for the machine that it runs on.
//!
//! The log is the machine's only way to know whether a step runs: it holds no Bitbucket token, and a runner's
//! state at Bitbucket does not tell. Atlassian documents none of the lines. Those that are read here were
//! seen with versions 1 to 5, by programs that rely on them too; only how it announces an update was never
//! seen, and is a guess. They are looked for anywhere in a line, as what stands before them is a matter of
//! how the runner's logging is set up. Whatever is not known changes nothing.
//!
//! Nothing here reads a clock or a file: the caller gives lines and instants.

use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// A runner that is not online after this much time will not be. A download of its image or archive is
/// counted in.
pub const STARTUP: Duration = Duration::from_mins(15);
/// Bitbucket ends every step after at most twelve hours; the rest is for what the runner does around it. A
/// step that seems to run for longer is one whose end was not logged.
pub const LONGEST_STEP: Duration = Duration::from_hours(13);
/// A runner says that a step is complete before it has cleaned up.
const SETTLING: Duration = Duration::from_secs(10);
/// The longest complaint that is kept, in characters.
const LONGEST_COMPLAINT: usize = 500;

/// Something that the runner's log tells, or that is known from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The runner's program began: for the first time, again after it updated itself, or again after it died.
    Starting,
    /// It is ready for steps. Some versions say so again and again.
    Online,
    /// It goes offline: it ends.
    Offline,
    /// It replaces itself by a newer version.
    Updating,
    /// It cannot clean up after a step, and will get no others.
    Unhealthy,
    /// It takes a step.
    StepStarted(StepId),
    /// The step is over, its results and artifacts with Bitbucket; whether it passed.
    StepDone(bool),
    /// Something went wrong, in the runner's words. It may well go on.
    Complaint(String),
    /// Its program is gone, with this exit code if it had one.
    Exited(Option<i32>),
}

/// A step by its ids, in braces; empty where the log does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepId {
    /// The id of its pipeline.
    pub pipeline: String,
    /// Its own.
    pub step: String,
}

impl Event {
    /// What a line of the log tells, if anything.
    #[must_use]
    pub fn of(line: &str) -> Option<Self> {
        if let Some((_, id)) = line.split_once("Getting step StepId") {
            return Some(Self::StepStarted(StepId {
                pipeline: field(id, "pipelineUuid"),
                step: field(id, "stepUuid"),
            }));
        }
        if let Some((_, result)) = line.split_once("Completing step with result") {
            return Some(Self::StepDone(result.contains("status=PASSED")));
        }
        if let Some((_, state)) =
            after_any(line, &["Updating runner status to \"", "Updating runner state to \""])
        {
            return Self::of_state(state.split('"').next().unwrap_or_default());
        }
        if line.contains("Runner version: ") || line.contains("Runner starting") {
            return Some(Self::Starting);
        }
        if line.contains("Updating runner to version") || line.contains("Runner is updating") {
            return Some(Self::Updating);
        }
        let complains = ["ERROR", "Exception: ", "An error occurred"].iter().any(|word| line.contains(word));
        complains.then(|| Self::Complaint(line.trim().chars().take(LONGEST_COMPLAINT).collect()))
    }

    fn of_state(state: &str) -> Option<Self> {
        match state {
            "ONLINE" => Some(Self::Online),
            "OFFLINE" => Some(Self::Offline),
            "UNHEALTHY" => Some(Self::Unhealthy),
            _ => None,
        }
    }
}

fn after_any<'a>(line: &'a str, markers: &[&str]) -> Option<(&'a str, &'a str)> {
    markers.iter().find_map(|marker| line.split_once(marker))
}

/// The value of `name={value}`, with its braces.
fn field(text: &str, name: &str) -> String {
    let value = text.split_once(name).and_then(|(_, rest)| rest.strip_prefix('='));
    let end = value.and_then(|value| value.find('}'));
    value.zip(end).map_or_else(String::new, |(value, end)| value[..=end].to_owned())
}

/// When the machine has served its purpose.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// It goes after this much time without a step.
    pub idle: Duration,
    /// It goes after one step.
    pub single: bool,
    /// It takes no further step after this much time, and goes once it has none.
    pub max_runtime: Duration,
}

/// What the runner is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It is not online yet, or not again.
    Starting,
    /// It waits for a step.
    Idle,
    /// It runs a step.
    Busy(StepId),
    /// It cannot clean up after a step, and will get no others.
    Unhealthy,
    /// Its program is gone.
    Gone(Option<i32>),
}

/// What is to be done with the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Stay,
    /// It stays for the step that runs, and should get no other.
    LastStep,
    /// It goes.
    Leave(Why),
}

/// Why a machine goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It had no step for as long as it was told to wait for one.
    Idle,
    /// It ran the one step that it was for.
    Single,
    /// It reached its longest run time.
    MaxRuntime,
    /// Somebody said that it is not needed any more.
    Retired,
    /// Its runner did not come online.
    NeverOnline,
    /// Its runner takes no steps any more.
    Unhealthy,
    /// Its runner's program ended.
    Exited,
    /// A step seems to run for longer than Bitbucket lets any.
    Lost,
}

impl Why {
    /// The reason in words, to follow "the runner goes: ".
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Idle => "it had no step for RUNNER_IDLE_TIMEOUT",
            Self::Single => "it ran the one step that it was for",
            Self::MaxRuntime => "it reached MAX_RUNTIME",
            Self::Retired => "it is not needed any more",
            Self::NeverOnline => "it did not come online",
            Self::Unhealthy => "it takes no steps any more",
            Self::Exited => "its program ended",
            Self::Lost => "a step seems to run for longer than Bitbucket lets any",
        }
    }
}

/// A runner, watched through its log.
#[derive(Clone, Debug)]
pub struct Watch {
    limits: Limits,
    retired: bool,
    began: Instant,
    phase: Phase,
    /// When that phase began.
    since: Instant,
    /// When it last had a step, or else was first online.
    idle_since: Option<Instant>,
    steps: u32,
    complaint: Option<String>,
}

impl Watch {
    /// Begins to watch a runner that is started now.
    #[must_use]
    pub fn new(limits: Limits, now: Instant) -> Self {
        let (phase, complaint) = (Phase::Starting, None);
        Self { limits, retired: false, began: now, phase, since: now, idle_since: None, steps: 0, complaint }
    }

    /// What the runner is doing.
    #[must_use]
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// How many steps it has begun.
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
    pub fn read(&mut self, line: &str, now: Instant) {
        if let Some(event) = Event::of(line) {
            self.hear(event, now);
        }
    }

    /// Takes in an event.
    pub fn hear(&mut self, event: Event, now: Instant) {
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
                // One whose begin was missed counts too.
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

    /// Takes Bitbucket's word that a step is over, for one whose end the log did not tell.
    pub fn is_over(&mut self, step: &str, now: Instant) {
        if matches!(&self.phase, Phase::Busy(running) if running.step == step) {
            self.end_step(now);
        }
    }

    /// Lets its idle time begin now.
    pub fn expect(&mut self, now: Instant) {
        if self.phase == Phase::Idle {
            self.idle_since = Some(now);
        }
    }

    /// Lets it go once it has no step, or not for that reason any more.
    pub fn retire(&mut self, retired: bool) {
        self.retired = retired;
    }

    fn end_step(&mut self, now: Instant) {
        self.idle_since = Some(now);
        self.enter(Phase::Idle, now);
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        (self.phase, self.since) = (phase, now);
    }

    /// What is to be done now. A machine never goes while a step runs, as far as anybody can tell.
    #[must_use]
    pub fn verdict(&self, now: Instant) -> Verdict {
        let lasted = now.saturating_duration_since(self.since);
        let used_up = now.saturating_duration_since(self.began) >= self.limits.max_runtime;
        let single = self.limits.single && self.steps > 0;
        let leave = match self.phase {
            Phase::Busy(_) if lasted >= LONGEST_STEP => Why::Lost,
            Phase::Busy(_) if used_up || single || self.retired => return Verdict::LastStep,
            Phase::Gone(_) => Why::Exited,
            Phase::Idle | Phase::Starting if single => return self.once_settled(Why::Single, now),
            Phase::Idle | Phase::Starting if self.retired => return self.once_settled(Why::Retired, now),
            Phase::Idle | Phase::Starting if used_up => return self.once_settled(Why::MaxRuntime, now),
            Phase::Unhealthy => Why::Unhealthy,
            Phase::Starting if lasted >= STARTUP => Why::NeverOnline,
            Phase::Idle if self.idle_for(now) >= self.limits.idle => Why::Idle,
            Phase::Busy(_) | Phase::Starting | Phase::Idle => return Verdict::Stay,
        };
        Verdict::Leave(leave)
    }

    /// To leave, but not in the moment after a step.
    fn once_settled(&self, why: Why, now: Instant) -> Verdict {
        let settled = self.steps == 0 || self.idle_for(now) >= SETTLING;
        if settled { Verdict::Leave(why) } else { Verdict::Stay }
    }

    /// How long it has had no step.
    fn idle_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.idle_since.unwrap_or(self.began))
    }
}

#[cfg(test)]
mod tests;
