//! What is shown beside a commit: build statuses, and Code Insights reports.

use super::Client;
use super::http::Scope;
use crate::error::Result;
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};

const SCOPE: Scope = Scope { access: "repository", api: "read:repository:bitbucket" };

/// Bitbucket refuses longer keys, in characters.
const LONGEST_KEY: usize = 40;
/// Bitbucket refuses longer descriptions of a status, in characters.
const LONGEST_DESCRIPTION: usize = 255;
/// Bitbucket refuses reports with more values.
const MOST_DATA: usize = 10;

/// How a build goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum BuildState {
    /// It is running.
    InProgress,
    /// It did what it had to.
    Successful,
    /// It did not.
    Failed,
    /// Somebody stopped it.
    Stopped,
}

/// A build status: the mark that a commit and its pull request carry.
#[derive(Clone, Debug, Serialize)]
pub struct BuildStatus {
    /// What identifies it on its commit; a second one with the same key replaces the first. Of one that is longer
    /// than 40 characters the end becomes a hash.
    pub key: String,
    /// How the build goes.
    pub state: BuildState,
    /// Its title.
    pub name: String,
    /// One line; cut at 255 characters.
    pub description: String,
    /// Where it leads.
    pub url: String,
    /// The branch; a pull request shows the status only if it is its source branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refname: Option<String>,
}

/// How a report turned out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ReportResult {
    /// Well.
    Passed,
    /// Not well.
    Failed,
    /// It is not yet known.
    Pending,
}

/// A Code Insights report on a commit.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its title.
    pub title: String,
    /// What it is about; plain text.
    pub details: String,
    /// Who made it.
    pub reporter: String,
    /// Where it leads.
    pub link: Option<String>,
    /// How it turned out.
    pub result: ReportResult,
    /// What it shows; only the first ten are sent, as Bitbucket takes no more.
    pub data: Vec<ReportData>,
}

/// One value of a report.
#[derive(Clone, Debug, Serialize)]
pub struct ReportData {
    /// What it is.
    pub title: String,
    /// How much it is.
    #[serde(flatten)]
    pub value: ReportValue,
}

/// A value of a report, with the form in which Bitbucket shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", content = "value", rename_all = "UPPERCASE")]
pub enum ReportValue {
    /// Yes or no.
    Boolean(bool),
    /// A point in time, in ms since 1970.
    Date(u64),
    /// A length of time, in ms.
    Duration(u64),
    /// A link.
    Link {
        /// What is shown.
        text: String,
        /// Where it leads.
        href: String,
    },
    /// A number. One that is not finite is sent as text, as JSON has no such numbers.
    Number(f64),
    /// A percentage, from 0 to 100.
    Percentage(f64),
    /// Anything else.
    Text(String),
}

impl Client {
    /// Sets a build status on a commit.
    pub async fn set_build_status(&self, commit: &str, status: &BuildStatus) -> Result<()> {
        let what = format!("set the build status {} of commit {commit}", status.key);
        let body = json!(BuildStatus {
            key: short_key(&status.key),
            description: cut(&status.description, LONGEST_DESCRIPTION),
            ..status.clone()
        });
        let url = self.url(&["commit", commit, "statuses", "build"]);
        self.call(&what, SCOPE, async || {
            self.send::<Value>(Method::POST, url.clone(), Some(&body)).await.map(drop)
        })
        .await
    }

    /// Sets the Code Insights report `report_id`, of the caller's choice, on a commit.
    pub async fn put_report(&self, commit: &str, report_id: &str, report: &Report) -> Result<()> {
        let what = format!("set the report {report_id} of commit {commit}");
        let body = body(report);
        let url = self.url(&["commit", commit, "reports", report_id]);
        self.call(&what, SCOPE, async || {
            self.send::<Value>(Method::PUT, url.clone(), Some(&body)).await.map(drop)
        })
        .await
    }
}

fn body(report: &Report) -> Value {
    let data: Vec<ReportData> = report.data.iter().take(MOST_DATA).cloned().map(finite).collect();
    let mut body = json!({
        "title": report.title,
        "details": report.details,
        // Of the four types that there are, the one nearest to metrics.
        "report_type": "TEST",
        "reporter": report.reporter,
        "result": report.result,
        "data": data,
    });
    if let Some(link) = &report.link {
        body["link"] = json!(link);
    }
    body
}

fn finite(datum: ReportData) -> ReportData {
    match datum.value {
        ReportValue::Number(number) | ReportValue::Percentage(number) if !number.is_finite() => {
            ReportData { value: ReportValue::Text(number.to_string()), ..datum }
        }
        _ => datum,
    }
}

/// The key itself if it fits, else as much of it as leaves room for a hash of the whole: two long keys that start
/// alike must not replace each other.
fn short_key(key: &str) -> String {
    if key.chars().count() <= LONGEST_KEY {
        return key.to_owned();
    }
    let hash = blake3::hash(key.as_bytes()).to_hex();
    let start: String = key.chars().take(LONGEST_KEY - 9).collect();
    format!("{start}-{}", &hash[..8])
}

/// The first characters of a text, with an ellipsis where there are more.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_too_long_stay_apart() {
        let fits = "k".repeat(40);
        assert_eq!(short_key(&fits), fits);
        let (one, other) = (short_key(&format!("{fits}1")), short_key(&format!("{fits}2")));
        assert_ne!(one, other);
        assert_eq!([one.len(), other.len()], [40, 40]);
        assert_eq!(short_key(&"é".repeat(50)).chars().count(), 40);
    }

    #[test]
    fn descriptions_are_cut_at_a_character() {
        assert_eq!(cut("short", 255), "short");
        let long = cut(&"é".repeat(300), 255);
        assert_eq!((long.chars().count(), long.chars().last()), (255, Some('…')));
    }

    #[test]
    fn numbers_that_json_has_not_are_text() {
        let nan = ReportData { title: "loss".into(), value: ReportValue::Number(f64::NAN) };
        assert_eq!(json!(finite(nan)), json!({ "title": "loss", "type": "TEXT", "value": "NaN" }));
    }
}
