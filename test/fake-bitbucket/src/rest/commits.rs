//! What is said about a commit: build statuses and Code Insights reports.

use super::{Call, Reply, bad_field};
use crate::lock;
use crate::state::{BuildStatus, Report};
use serde_json::{Value, json};

const LONGEST_KEY: usize = 40;
const LONGEST_TEXT: usize = 255;
const MOST_DATA: usize = 10;

impl Call<'_> {
    pub(super) fn set_status(&self, commit: &str) -> Reply {
        let Some(key) = self.body["key"].as_str() else { return bad_field("key", "This field is required.") };
        for (field, most) in [("key", LONGEST_KEY), ("name", LONGEST_TEXT), ("description", LONGEST_TEXT)] {
            let length = self.body[field].as_str().map_or(0, |text| text.chars().count());
            if length > most {
                let complaint = format!("Ensure this value has at most {most} characters (it has {length}).");
                return bad_field(field, &complaint);
            }
        }
        let mut state = lock(&self.shared.state);
        state.statuses.retain(|status| status.commit != commit || status.key != key);
        state.statuses.push(BuildStatus { commit: commit.into(), key: key.into(), body: self.body.clone() });
        Reply::Json(201, self.extended("build"))
    }

    pub(super) fn put_report(&self, commit: &str, id: &str) -> Reply {
        if self.body["data"].as_array().is_some_and(|data| data.len() > MOST_DATA) {
            return bad_field("data", "A report can have at most 10 data fields.");
        }
        for field in ["title", "details"] {
            if self.body[field].as_str().is_none_or(str::is_empty) {
                return bad_field(field, "This field is required.");
            }
        }
        let mut state = lock(&self.shared.state);
        state.reports.retain(|report| report.commit != commit || report.id != id);
        state.reports.push(Report { commit: commit.into(), id: id.into(), body: self.body.clone() });
        let mut shown = self.extended("report");
        shown["external_id"] = json!(id);
        Reply::Json(200, shown)
    }

    /// What was sent, with the type that every resource has in an answer.
    fn extended(&self, kind: &str) -> Value {
        let mut shown = self.body.clone();
        shown["type"] = json!(kind);
        shown
    }
}
