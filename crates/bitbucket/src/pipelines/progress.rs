//! How pipelines and steps are, from Bitbucket's nested states.

use serde::Deserialize;

/// How a pipeline or a step is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It has not begun.
    Pending,
    /// It runs.
    Running,
    /// It waits for somebody to go on with it by hand.
    Paused,
    /// It is over.
    Over(Outcome),
    /// Something that this program does not know; not the end.
    Other(String),
}

impl Progress {
    /// Whether it is over, however it ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Over(_))
    }
}

/// How a pipeline or a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it had to.
    Successful,
    /// A command failed.
    Failed,
    /// Bitbucket could not run it, and why: no runner was online, or its definition is wrong.
    Error(String),
    /// Somebody stopped it.
    Stopped,
    /// Nobody went on with it in time.
    Expired,
    /// A step before it did not succeed.
    NotRun,
    /// Something that this program does not know; not success.
    Other(String),
}

/// A state as Bitbucket sends it: its name, and a stage while it is in progress or a result once it is over.
#[derive(Default, Deserialize)]
pub(super) struct State {
    #[serde(default)]
    name: String,
    stage: Option<Named>,
    result: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
    error: Option<Complaint>,
}

#[derive(Deserialize)]
struct Complaint {
    message: Option<String>,
    key: Option<String>,
}

impl From<&State> for Progress {
    fn from(sent: &State) -> Self {
        match (&*sent.name, &sent.stage, &sent.result) {
            ("COMPLETED", _, result) => Self::Over(result.as_ref().map_or_else(unknown, Outcome::from)),
            ("PENDING" | "READY" | "PARSING", ..) => Self::Pending,
            ("PAUSED" | "HALTED", ..) => Self::Paused,
            ("IN_PROGRESS", Some(stage), _) if matches!(&*stage.name, "PAUSED" | "HALTED") => Self::Paused,
            ("IN_PROGRESS", ..) => Self::Running,
            _ => Self::Other(sent.name.clone()),
        }
    }
}

fn unknown() -> Outcome {
    Outcome::Other(String::new())
}

impl From<&Named> for Outcome {
    fn from(result: &Named) -> Self {
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
        let result = |name| Progress::Over(name);
        let cases = [
            (r#"{"name":"PENDING"}"#, Progress::Pending),
            (r#"{"name":"READY"}"#, Progress::Pending),
            (r#"{"name":"PARSING"}"#, Progress::Pending),
            (r#"{"name":"IN_PROGRESS"}"#, Progress::Running),
            (r#"{"name":"IN_PROGRESS","stage":{"name":"RUNNING"}}"#, Progress::Running),
            (r#"{"name":"IN_PROGRESS","stage":{"name":"PENDING"}}"#, Progress::Running),
            (r#"{"name":"IN_PROGRESS","stage":{"name":"PAUSED"}}"#, Progress::Paused),
            (r#"{"name":"HALTED"}"#, Progress::Paused),
            (r#"{"name":"DREAMING"}"#, Progress::Other("DREAMING".into())),
            (r#"{"type":"pipeline_state_new"}"#, Progress::Other(String::new())),
            (r#"{"name":"COMPLETED","result":{"name":"SUCCESSFUL"}}"#, result(Outcome::Successful)),
            (r#"{"name":"COMPLETED","result":{"name":"FAILED","error":null}}"#, result(Outcome::Failed)),
            (
                r#"{"name":"COMPLETED","result":{"name":"ERROR","error":{"key":"k","message":"no runner"}}}"#,
                result(Outcome::Error("no runner".into())),
            ),
            (
                r#"{"name":"COMPLETED","result":{"name":"ERROR","error":{"key":"k"}}}"#,
                result(Outcome::Error("k".into())),
            ),
            (r#"{"name":"COMPLETED","result":{"name":"ERROR"}}"#, result(Outcome::Error(String::new()))),
            (r#"{"name":"COMPLETED","result":{"name":"STOPPED"}}"#, result(Outcome::Stopped)),
            (r#"{"name":"COMPLETED","result":{"name":"EXPIRED"}}"#, result(Outcome::Expired)),
            (r#"{"name":"COMPLETED","result":{"name":"NOT_RUN"}}"#, result(Outcome::NotRun)),
            (r#"{"name":"COMPLETED","result":{"name":"LOST"}}"#, result(Outcome::Other("LOST".into()))),
            (r#"{"name":"COMPLETED"}"#, result(Outcome::Other(String::new()))),
        ];
        for (text, expected) in cases {
            let state: State = serde_json::from_str(text).unwrap();
            assert_eq!(Progress::from(&state), expected, "{text}");
        }
    }
}
