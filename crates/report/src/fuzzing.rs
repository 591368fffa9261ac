//! What must hold of any metrics file. The program `metrics` of `fuzz/` looks for one of which it does not.

#![allow(clippy::missing_panics_doc, reason = "what does not hold is a panic")]

use super::metrics::{MetricValue, Metrics, parse};
use super::{COMMENT_LIMIT_CHARS, MetricsFile, Report, ReportedOutcome, RunSuccess, render};
use std::collections::BTreeSet;

/// One path for each format.
const METRICS_PATHS: [&str; 6] = ["m.json", "m.yaml", "m.toml", "m.csv", "m.tsv", "m.txt"];
/// The memory that a metrics file may take, as a multiple of its own size: a short file must not become a
/// long report.
const GROWTH_LIMIT: usize = 64;
/// The memory that the shortest file may take.
const SMALL_FILE_LIMIT_BYTES: usize = 1 << 18;

/// Reads a file of this run and one of the target branch, and reports both. `input` is a digit for the
/// format, then the files with a byte 0 between them.
pub fn metrics(input: &[u8]) {
    let Some((format, files)) = input.split_first() else { return };
    let path = METRICS_PATHS[usize::from(*format) % METRICS_PATHS.len()];
    let mut read = files.splitn(2, |byte| *byte == 0).map(|file| read(path, file));
    let (now, before) = (read.next().flatten(), read.next().flatten());
    let metrics = vec![MetricsFile { path: path.to_owned(), now, before, problem: None }];
    let report = Report {
        name: "model".to_owned(),
        marker: "[marker]: #".to_owned(),
        outcome: ReportedOutcome::Succeeded(RunSuccess::Trained),
        own_markdown: None,
        metrics,
        plots: Vec::new(),
        outputs: Vec::new(),
        machine: None,
        links: Vec::new(),
        notes: Vec::new(),
    };
    let text = render(&report, COMMENT_LIMIT_CHARS);
    assert!(text.chars().count() <= COMMENT_LIMIT_CHARS);
    check_table(&text);
}

fn read(path: &str, file: &[u8]) -> Option<Metrics> {
    let metrics = parse(path, file).ok()?;
    let names: BTreeSet<&str> = metrics.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), metrics.iter().count(), "a name comes twice");
    assert!(!names.is_empty() && !names.contains(""), "{names:?}");
    let size = |(name, value): (&str, &MetricValue)| match value {
        MetricValue::Text(text) => name.len() + text.len(),
        MetricValue::Number(_) | MetricValue::Bool(_) => name.len(),
    };
    let bytes: usize = metrics.iter().map(size).sum();
    assert!(bytes <= SMALL_FILE_LIMIT_BYTES + GROWTH_LIMIT * file.len(), "{bytes} bytes of {}", file.len());
    Some(metrics)
}

/// No name and no value of a file ends its cell, or its line.
fn check_table(report: &str) {
    let mut columns = None;
    for line in
        report.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'))
    {
        let bars = line.replace("\\\\", "").replace("\\|", "").matches('|').count();
        assert_eq!(*columns.get_or_insert(bars), bars, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn it_holds_of_the_seeds() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/metrics");
        for seed in std::fs::read_dir(seeds).unwrap() {
            metrics(&std::fs::read(seed.unwrap().path()).unwrap());
        }
    }
}
