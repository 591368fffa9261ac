//! Whole reports as they are read, and what holds for every report and limit.

use super::*;
use crate::metrics::{Metrics, parse};
use crate::{RunFailure, RunSuccess};
use std::time::Duration;

const MARKER: &str = "[trainspot:main]: https://bitbucket.org/trainspot/trainspot";

fn of(text: &str) -> Option<Metrics> {
    parse("metrics.txt", text.as_bytes()).ok()
}

fn page(path: &str) -> String {
    format!("https://bitbucket.org/acme/churn/{path}")
}

/// A run that went well, with something in every part.
pub(crate) fn success() -> Report {
    Report {
        name: "churn".to_owned(),
        marker: MARKER.to_owned(),
        outcome: ReportedOutcome::Succeeded(RunSuccess::Trained),
        own_markdown: Some("A *random forest*, 200 trees.\n".to_owned()),
        metrics: vec![MetricsFile {
            path: "model/metrics.txt".to_owned(),
            now: of("accuracy: 0.912\nloss: 0.30000000000000004\nrecall: 80.5%\nkind: a|b\nepochs: 20"),
            before: of("accuracy: 0.9\nloss: 0.35\nkind: a|b\nepochs: 20\nf1: 0.7"),
            problem: None,
        }],
        plots: vec![Plot {
            path: "model/roc.png".to_owned(),
            page: Some(page("src/1a2b3c4/model/roc.png")),
            image: Some(page("raw/1a2b3c4/model/roc.png")),
        }],
        outputs: vec![
            OutputFile {
                path: "model/rf.joblib".to_owned(),
                bytes: 99_614_720,
                url: Some(page("src/1a2b3c4/model/rf.joblib")),
            },
            OutputFile { path: "model/metrics.txt".to_owned(), bytes: 84, url: None },
        ],
        machine: Some(MachineSummary {
            description: "m5.2xlarge, spot, eu-west-1a".to_owned(),
            trained: Duration::from_millis(754_300),
            total: Duration::from_secs(871),
            cost: Some("about $0.03".to_owned()),
        }),
        links: vec![
            ReportLink { label: "commit 1a2b3c4".to_owned(), url: Some(page("commits/1a2b3c4")) },
            ReportLink { label: "pipeline #7".to_owned(), url: Some(page("pipelines/results/7")) },
        ],
        notes: vec!["The machine was interrupted once; the training went on from its checkpoint.".to_owned()],
    }
}

/// A run whose command was killed.
pub(crate) fn failure() -> Report {
    Report {
        outcome: ReportedOutcome::Failed {
            failure: RunFailure::Failed,
            why: "the command was ended by signal 9 (SIGKILL)".to_owned(),
            log_tail: ["epoch 1", "``` in a log", "\u{1b}[31mKilled\u{1b}[0m"].map(str::to_owned).into(),
        },
        own_markdown: None,
        metrics: vec![
            MetricsFile {
                path: "a.json".to_owned(),
                now: None,
                before: of("a: 1"),
                problem: Some("cannot read metrics from a.json: it holds no value".to_owned()),
            },
            MetricsFile { path: "b.json".to_owned(), now: of("b: 1"), before: None, problem: None },
        ],
        plots: Vec::new(),
        outputs: Vec::new(),
        notes: Vec::new(),
        ..success()
    }
}

#[test]
fn a_success_in_full() {
    insta::assert_snapshot!(render(&success(), COMMENT_LIMIT_CHARS));
}

#[test]
fn a_failure_in_full() {
    insta::assert_snapshot!(render(&failure(), COMMENT_LIMIT_CHARS));
}

#[test]
fn the_least_important_goes_first_and_is_named() {
    let mut report = success();
    report.own_markdown = Some("line\n".repeat(5000));
    let text = render(&report, 1500);
    assert!(text.contains("more lines"), "{text}");
    assert!(text.contains("### Outputs") && text.contains("### Plots"), "{text}");
    let text = render(&report, 900);
    assert!(text.contains("| accuracy |"), "{text}");
    assert!(text.contains("about $0.03"), "{text}");
    assert!(text.ends_with("plots, outputs."), "{text}");
}

#[test]
fn a_limit_for_nothing_else_leaves_marker_and_title() {
    let expected = format!("{MARKER}\n\n## ✔ churn trained");
    assert_eq!(render(&success(), 0), expected);
    assert_eq!(render(&success(), 150), expected);
}

#[test]
fn nothing_to_say_is_said_shortly() {
    let report = Report {
        metrics: Vec::new(),
        own_markdown: Some(String::new()),
        machine: None,
        links: vec![ReportLink { label: String::new(), url: None }],
        plots: Vec::new(),
        outputs: Vec::new(),
        notes: Vec::new(),
        ..success()
    };
    assert_eq!(render(&report, COMMENT_LIMIT_CHARS), format!("{MARKER}\n\n## ✔ churn trained"));
}

#[test]
fn no_report_and_no_limit_break_it() {
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..200 {
        let report = random_report(&mut random);
        for _ in 0..3 {
            let limit = random.usize(600..20_000);
            let text = render(&report, limit);
            assert!(length(&text) <= limit, "{} > {limit}", length(&text));
            assert!(text.starts_with(&format!("{MARKER}\n\n## ")));
            assert_sound(&text);
        }
    }
}

/// Every fence is closed; outside of them, every table has its rule, its columns, and blank lines around it.
fn assert_sound(text: &str) {
    let mut fence: Option<(char, usize)> = None;
    let mut columns: Option<usize> = None;
    let mut previous = "";
    for line in text.lines() {
        let unindented = line.trim_start_matches(' ');
        let line = if line.len() - unindented.len() < 4 { unindented } else { line };
        let mark = line.chars().next().filter(|mark| "`~".contains(*mark)).unwrap_or(' ');
        let run = line.chars().take_while(|c| *c == mark).count();
        let rest = &line[run..];
        match fence {
            Some((open, least)) if mark == open && run >= least && rest.trim().is_empty() => fence = None,
            Some(_) => {}
            None if mark != ' ' && run >= 3 && !(mark == '`' && rest.contains('`')) => {
                fence = Some((mark, run));
            }
            None if line.starts_with('|') => {
                let count = bars(line);
                let starts = columns.is_none();
                assert!(!starts || previous.is_empty(), "no blank line before {line}");
                assert_eq!(*columns.get_or_insert(count), count, "{line}");
                let below_header = text.contains(&format!("{line}\n| ---"));
                assert!(!starts || below_header, "{line} heads no table");
            }
            None => {
                assert!(columns.is_none() || line.is_empty(), "no blank line after the table: {line}");
                columns = None;
            }
        }
        previous = line;
    }
    assert_eq!(fence, None, "{text}");
}

fn bars(line: &str) -> usize {
    let mut escaped = false;
    let mut count = 0;
    for character in line.chars() {
        count += usize::from(character == '|' && !escaped);
        escaped = character == '\\' && !escaped;
    }
    count
}

fn random_report(random: &mut fastrand::Rng) -> Report {
    let failed = random.bool();
    Report {
        name: nasty(random, 300),
        outcome: if failed {
            ReportedOutcome::Failed {
                failure: RunFailure::Failed,
                why: nasty(random, 900),
                log_tail: many(random, 400, |random| nasty(random, 600)),
            }
        } else {
            ReportedOutcome::Succeeded(RunSuccess::Trained)
        },
        // Its tables are its own affair, so it has no bars here.
        own_markdown: random
            .bool()
            .then(|| many(random, 300, |random| nasty(random, 60)).join("\n").replace('|', "/")),
        metrics: many(random, 4, |random| MetricsFile {
            path: nasty(random, 90),
            now: random_metrics(random),
            before: random_metrics(random),
            problem: random.bool().then(|| nasty(random, 300)),
        }),
        plots: many(random, 30, |random| Plot {
            path: nasty(random, 90),
            page: random.bool().then(|| nasty(random, 200)),
            image: random.bool().then(|| nasty(random, 200)),
        }),
        outputs: many(random, 300, |random| OutputFile {
            path: nasty(random, 90),
            bytes: random.u64(..),
            url: random.bool().then(|| nasty(random, 200)),
        }),
        links: many(random, 4, |random| ReportLink {
            label: nasty(random, 40),
            url: Some(nasty(random, 90)),
        }),
        notes: many(random, 9, |random| nasty(random, 200)),
        ..success()
    }
}

fn random_metrics(random: &mut fastrand::Rng) -> Option<Metrics> {
    let lines = many(random, 250, |random| format!("{} = {}", nasty(random, 9), nasty(random, 90)));
    of(&lines.join("\n"))
}

fn many<T>(random: &mut fastrand::Rng, most: usize, mut one: impl FnMut(&mut fastrand::Rng) -> T) -> Vec<T> {
    // Mostly few, so that short reports are tried as well as long ones.
    let count = if random.u8(..4) == 0 { random.usize(..=most) } else { random.usize(..=most.min(3)) };
    (0..count).map(|_| one(random)).collect()
}

fn nasty(random: &mut fastrand::Rng, most: usize) -> String {
    const PIECES: [&str; 24] = [
        "|",
        "\\",
        "`",
        "```",
        "~~~",
        "\n",
        "\n\n",
        "\r",
        " ",
        "# ",
        "- ",
        "ü",
        "🎉",
        "[",
        "]",
        "(",
        ")",
        "| --- |",
        "\u{1b}[31m",
        "*",
        "_",
        "word",
        "0.5",
        "=",
    ];
    let length = random.usize(..=most / 4);
    (0..length).map(|_| *random.choice(&PIECES).unwrap()).collect()
}
