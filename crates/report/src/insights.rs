//! The run as a report of Bitbucket's Code Insights, which needs no credential inside Pipelines.

use super::markdown::cut;
use super::metrics::MetricValue;
use super::render::machine_line;
use super::{Report, ReportedOutcome, numbers};
use serde::Serialize;

/// The most cells that Bitbucket takes.
const MAX_DATA: usize = 10;

/// The longest details that Bitbucket takes, in characters.
const MAX_DETAILS: usize = 2000;

/// The characters of a title that Bitbucket's sidebar shows; Bitbucket takes longer ones.
const MAX_TITLE: usize = 100;

/// The body of `PUT …/commit/{sha}/reports/{id}`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Insights {
    /// The headline.
    pub title: String,
    /// Plain text of at most 2000 characters.
    pub details: String,
    /// `TEST`: of the four types that there are, the one nearest to a measured model.
    pub report_type: &'static str,
    /// Who reports.
    pub reporter: &'static str,
    /// `PASSED` or `FAILED`.
    pub result: &'static str,
    /// Where the title leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// At most ten cells.
    pub data: Vec<Datum>,
}

/// A named cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Datum {
    /// The cell's name.
    pub title: String,
    /// The cell's type and value.
    #[serde(flatten)]
    pub cell: Cell,
}

/// What a cell holds, in the types of Code Insights.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", content = "value", rename_all = "UPPERCASE")]
pub enum Cell {
    /// A finite number.
    Number(f64),
    /// From 0 to 100.
    Percentage(f64),
    /// Milliseconds.
    Duration(u64),
    /// A truth value.
    Boolean(bool),
    /// Plain text.
    Text(String),
    /// An address to follow.
    Link {
        /// What is read.
        text: String,
        /// Where it leads.
        href: String,
    },
}

/// The report as Code Insights takes it: the run's own figures first, then as many metrics as have room.
#[must_use]
pub fn insights(report: &Report) -> Insights {
    let (result, verb) = match report.outcome {
        ReportedOutcome::Succeeded(done) => ("PASSED", done.word()),
        ReportedOutcome::Failed { failure, .. } => ("FAILED", failure.words()),
    };
    Insights {
        title: cut(&format!("{} {verb}", report.name), MAX_TITLE),
        details: details(report),
        report_type: "TEST",
        reporter: "trainspot",
        result,
        link: report.links.iter().find_map(|link| link.url.clone()),
        data: run_data(report).into_iter().chain(metrics_data(report)).take(MAX_DATA).collect(),
    }
}

fn details(report: &Report) -> String {
    let mut lines = Vec::new();
    if let ReportedOutcome::Failed { why, .. } = &report.outcome {
        lines.push(why.clone());
    }
    lines.extend(report.machine.as_ref().map(machine_line));
    lines.extend(report.notes.iter().cloned());
    if lines.is_empty() {
        // Bitbucket refuses a report without details, and `ACTION: publish` has no machine to tell of.
        lines.push("The outputs were in the clone already.".to_owned());
    }
    cut(&lines.join("\n"), MAX_DETAILS)
}

fn run_data(report: &Report) -> Vec<Datum> {
    let datum = |title: &str, cell| Datum { title: title.to_owned(), cell };
    let mut data = Vec::new();
    if let Some(machine) = &report.machine {
        let milliseconds = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        data.push(datum("Training", Cell::Duration(milliseconds(machine.trained))));
        data.push(datum("Machine held", Cell::Duration(milliseconds(machine.total))));
        data.push(datum("Machine", Cell::Text(machine.description.clone())));
        data.extend(machine.cost.iter().map(|cost| datum("Cost", Cell::Text(cost.clone()))));
    }
    // More links would leave too little room for metrics; the comment has them all.
    let links = report.links.iter().filter_map(|link| Some((&link.label, link.url.clone()?)));
    data.extend(links.take(1).map(|(label, href)| datum("See", Cell::Link { text: label.clone(), href })));
    data
}

fn metrics_data(report: &Report) -> impl Iterator<Item = Datum> {
    // Two files may well use the same names.
    let several = report.metrics.len() > 1;
    let files = report.metrics.iter().filter_map(|file| Some((&file.path, file.now.as_ref()?)));
    let all = files.flat_map(|(path, metrics)| metrics.iter().map(move |(name, value)| (path, name, value)));
    all.map(move |(path, name, value)| {
        let title = if several { format!("{path}: {name}") } else { name.to_owned() };
        Datum { title: cut(&title, MAX_TITLE), cell: metric(name, value) }
    })
}

fn metric(name: &str, value: &MetricValue) -> Cell {
    match value {
        MetricValue::Number(number) if number.is_finite() => {
            let rounded = numbers::number(*number).parse().unwrap_or(*number);
            let percentage = name.ends_with('%') && (0.0..=100.0).contains(&rounded);
            if percentage { Cell::Percentage(rounded) } else { Cell::Number(rounded) }
        }
        MetricValue::Number(number) => Cell::Text(number.to_string()), // JSON has no such numbers.
        MetricValue::Bool(truth) => Cell::Boolean(*truth),
        MetricValue::Text(text) => Cell::Text(cut(text, MAX_TITLE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::tests::{failure, success};

    #[test]
    fn a_success_in_the_shape_of_the_api() {
        let body = serde_json::to_string_pretty(&insights(&success())).unwrap();
        assert_eq!(
            body,
            r#"{
  "title": "churn trained",
  "details": "m5.2xlarge, spot, eu-west-1a · trained 12m 34s · held 14m 31s · about $0.03\nThe machine was interrupted once; the training went on from its checkpoint.",
  "report_type": "TEST",
  "reporter": "trainspot",
  "result": "PASSED",
  "link": "https://bitbucket.org/acme/churn/commits/1a2b3c4",
  "data": [
    {
      "title": "Training",
      "type": "DURATION",
      "value": 754300
    },
    {
      "title": "Machine held",
      "type": "DURATION",
      "value": 871000
    },
    {
      "title": "Machine",
      "type": "TEXT",
      "value": "m5.2xlarge, spot, eu-west-1a"
    },
    {
      "title": "Cost",
      "type": "TEXT",
      "value": "about $0.03"
    },
    {
      "title": "See",
      "type": "LINK",
      "value": {
        "text": "commit 1a2b3c4",
        "href": "https://bitbucket.org/acme/churn/commits/1a2b3c4"
      }
    },
    {
      "title": "accuracy",
      "type": "NUMBER",
      "value": 0.912
    },
    {
      "title": "loss",
      "type": "NUMBER",
      "value": 0.3
    },
    {
      "title": "recall %",
      "type": "PERCENTAGE",
      "value": 80.5
    },
    {
      "title": "kind",
      "type": "TEXT",
      "value": "a|b"
    },
    {
      "title": "epochs",
      "type": "NUMBER",
      "value": 20.0
    }
  ]
}"#
        );
    }

    #[test]
    fn a_failure_says_why() {
        let insights = insights(&failure());
        assert_eq!((insights.result, insights.title.as_str()), ("FAILED", "churn failed"));
        assert!(
            insights.details.starts_with("the command was ended by signal 9 (SIGKILL)\n"),
            "{insights:?}"
        );
    }

    #[test]
    fn details_are_never_empty() {
        let report = Report { machine: None, notes: Vec::new(), ..success() };
        assert_eq!(insights(&report).details, "The outputs were in the clone already.");
    }

    #[test]
    fn limits_are_kept() {
        let mut report = failure();
        report.name = "ü".repeat(500);
        report.notes = vec!["ü".repeat(5000)];
        let text = (0..50).map(|n| format!("m{n} : nan\n")).collect::<Vec<_>>().concat();
        report.metrics = success().metrics;
        report.metrics[0].now = crate::metrics::parse("m.txt", text.as_bytes()).ok();
        let insights = insights(&report);
        assert_eq!(insights.title.chars().count(), MAX_TITLE);
        assert_eq!(insights.details.chars().count(), MAX_DETAILS);
        assert_eq!(insights.data.len(), MAX_DATA);
        assert_eq!(insights.data[9].cell, Cell::Text("NaN".to_owned()));
    }
}
