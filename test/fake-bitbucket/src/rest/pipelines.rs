//! Pipelines and their steps.

use super::{Call, Reply, error};
use crate::lock;
use serde_json::json;

impl Call<'_> {
    pub(super) fn get_step(&self, pipeline: &str, id: &str) -> Reply {
        let state = lock(&self.shared.state);
        let found = state.steps.iter().find(|step| step.pipeline == pipeline && step.id == id);
        let Some(step) = found else { return error(404, "Step not found") };
        let kind = format!("pipeline_step_state_{}", step.state.to_lowercase());
        Reply::Json(
            200,
            json!({"type": "pipeline_step", "uuid": step.id, "state": {"type": kind, "name": step.state}}),
        )
    }
}
