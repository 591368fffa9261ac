//! How pipelines and steps are, from Bitbucket's nested states.

use serde::Deserialize;

/// The progress of a pipeline or a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PipelineProgress {
    /// The pipeline or step has not begun.
    Pending,
    /// The pipeline or step runs.
    Running,
    /// The pipeline or step waits until somebody continues it by hand.
    Paused,
    /// The pipeline or step is over.
    Over(PipelineOutcome),
    /// A state that this program does not know; not the end.
    Other(String),
}

impl PipelineProgress {
    /// Whether it is over, however it ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Over(_))
    }
}

/// How a pipeline or a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PipelineOutcome {
    /// The pipeline or step succeeded.
    Successful,
    /// A command failed.
    Failed,
    /// Bitbucket could not run the pipeline or step, for the reason given: no runner was online, or its
    /// definition is wrong.
    Error(String),
    /// Somebody stopped the pipeline or step.
    Stopped,
    /// Nobody continued the pipeline or step in time.
    Expired,
    /// An earlier step did not succeed.
    NotRun,
    /// A result that this program does not know; not success.
    Other(String),
}

/// A state as Bitbucket sends it: its name, and a stage while it is in progress or a result once it is over.
#[derive(Default, Deserialize)]
pub(super) struct SentState {
    #[serde(default)]
    name: String,
    stage: Option<NamedState>,
    result: Option<NamedState>,
}

#[derive(Deserialize)]
struct NamedState {
    #[serde(default)]
    name: String,
    error: Option<Complaint>,
}

#[derive(Deserialize)]
struct Complaint {
    message: Option<String>,
    key: Option<String>,
}

impl From<&SentState> for PipelineProgress {
    fn from(sent: &SentState) -> Self {
        match (&*sent.name, &sent.stage, &sent.result) {
            ("COMPLETED", _, result) => {
                Self::Over(result.as_ref().map_or_else(unknown, PipelineOutcome::from))
            }
            ("PENDING" | "READY" | "PARSING", ..) => Self::Pending,
            ("PAUSED" | "HALTED", ..) => Self::Paused,
            ("IN_PROGRESS", Some(stage), _) if matches!(&*stage.name, "PAUSED" | "HALTED") => Self::Paused,
            ("IN_PROGRESS", ..) => Self::Running,
            _ => Self::Other(sent.name.clone()),
        }
    }
}

fn unknown() -> PipelineOutcome {
    PipelineOutcome::Other(String::new())
}

impl From<&NamedState> for PipelineOutcome {
    fn from(result: &NamedState) -> Self {
        match &*result.name {
            "SUCCESSFUL" => Self::Successful,
            "FAILED" => Self::Failed,
            "ERROR" => {
                let why =
                    result.error.as_ref().and_then(|error| error.message.as_ref().or(error.key.as_ref()));
                Self::Error(why.cloned().unwrap_or_default())
            }
            "STOPPED" => Self::Stopped,
            "EXPIRED" => Self::Expired,
            "NOT_RUN" => Self::NotRun,
            _ => Self::Other(result.name.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_meaning() {
        let result = |name| PipelineProgress::Over(name);
        let cases = [
            (r#"{"name":"PENDING"}"#, PipelineProgress::Pending),
            (r#"{"name":"READY"}"#, PipelineProgress::Pending),
            (r#"{"name":"PARSING"}"#, PipelineProgress::Pending),
            (r#"{"name":"IN_PROGRESS"}"#, PipelineProgress::Running),
            (r#"{"name":"IN_PROGRESS","stage":{"name":"RUNNING"}}"#, PipelineProgress::Running),
            (r#"{"name":"IN_PROGRESS","stage":{"name":"PENDING"}}"#, PipelineProgress::Running),
            (r#"{"name":"IN_PROGRESS","stage":{"name":"PAUSED"}}"#, PipelineProgress::Paused),
            (r#"{"name":"HALTED"}"#, PipelineProgress::Paused),
            (r#"{"name":"DREAMING"}"#, PipelineProgress::Other("DREAMING".into())),
            (r#"{"type":"pipeline_state_new"}"#, PipelineProgress::Other(String::new())),
            (r#"{"name":"COMPLETED","result":{"name":"SUCCESSFUL"}}"#, result(PipelineOutcome::Successful)),
            (
                r#"{"name":"COMPLETED","result":{"name":"FAILED","error":null}}"#,
                result(PipelineOutcome::Failed),
            ),
            (
                r#"{"name":"COMPLETED","result":{"name":"ERROR","error":{"key":"k","message":"no runner"}}}"#,
                result(PipelineOutcome::Error("no runner".into())),
            ),
            (
                r#"{"name":"COMPLETED","result":{"name":"ERROR","error":{"key":"k"}}}"#,
                result(PipelineOutcome::Error("k".into())),
            ),
            (
                r#"{"name":"COMPLETED","result":{"name":"ERROR"}}"#,
                result(PipelineOutcome::Error(String::new())),
            ),
            (r#"{"name":"COMPLETED","result":{"name":"STOPPED"}}"#, result(PipelineOutcome::Stopped)),
            (r#"{"name":"COMPLETED","result":{"name":"EXPIRED"}}"#, result(PipelineOutcome::Expired)),
            (r#"{"name":"COMPLETED","result":{"name":"NOT_RUN"}}"#, result(PipelineOutcome::NotRun)),
            (
                r#"{"name":"COMPLETED","result":{"name":"LOST"}}"#,
                result(PipelineOutcome::Other("LOST".into())),
            ),
            (r#"{"name":"COMPLETED"}"#, result(PipelineOutcome::Other(String::new()))),
        ];
        for (text, expected) in cases {
            let state: SentState = serde_json::from_str(text).unwrap();
            assert_eq!(PipelineProgress::from(&state), expected, "{text}");
        }
    }
}
