//! The lines of a runner's log, each read as an event.

use serde::{Deserialize, Serialize};

/// A longer complaint is cut to this many characters.
const COMPLAINT_LIMIT_CHARS: usize = 500;

/// Something that the runner's log tells, or that is known from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The runner's program began: for the first time, again after it updated itself, or again after it died.
    Starting,
    /// The runner is ready for steps. Some versions say so again and again.
    Online,
    /// The runner goes offline, as its program ends.
    Offline,
    /// The runner replaces itself by a newer version.
    Updating,
    /// The runner cannot clean up after a step, and will get no others.
    Unhealthy,
    /// The runner takes a step.
    StepStarted(StepId),
    /// The step is over, its results and artifacts are with Bitbucket; true if the step passed.
    StepDone(bool),
    /// Something went wrong, in the runner's words. The runner may well go on.
    Complaint(String),
    /// The runner's program is gone, with this exit code if it had one.
    Exited(Option<i32>),
}

/// A step by its ids, in braces; an id is empty where the log does not tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepId {
    /// The id of the step's pipeline.
    pub pipeline: String,
    /// The step's own id.
    pub step: String,
}

impl Event {
    /// The event that a line of the log tells, if any.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
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
            return Self::from_state(state.split('"').next().unwrap_or_default());
        }
        if line.contains("Runner version: ") || line.contains("Runner starting") {
            return Some(Self::Starting);
        }
        if line.contains("Updating runner to version") || line.contains("Runner is updating") {
            return Some(Self::Updating);
        }
        let complains = ["ERROR", "Exception: ", "An error occurred"].iter().any(|word| line.contains(word));
        complains.then(|| Self::Complaint(line.trim().chars().take(COMPLAINT_LIMIT_CHARS).collect()))
    }

    fn from_state(state: &str) -> Option<Self> {
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
