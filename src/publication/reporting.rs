//! From what a run made to its [`Report`].

use super::outcome::{Losses, Made, paths};
use crate::config::Config;
use crate::config::variables::Action;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::warn;
use trainspot_base::error::{Context as _, Error, Kind, Result, chain};
use trainspot_base::log::progress::in_words;
use trainspot_git::Checkout;
use trainspot_report::metrics::{self, MetricValue, Metrics};
use trainspot_report::{
    MachineSummary, MetricsFile, OutputFile, Plot, Report, ReportLink, ReportedOutcome, RunFailure,
    RunSuccess,
};
use trainspot_transfer::{BundleEntry, EntryKind, find, open_beneath, read_beneath};

/// What is read of a metrics file or of the user's own report.
const SMALL: u64 = 1 << 20;
/// Metrics in the commit's message.
const HEADLINES: usize = 8;

/// What the report needs from files in the clone.
pub(super) struct Facts {
    pub(super) metrics_files: Vec<PathBuf>,
    metrics: Vec<(PathBuf, Result<Metrics>)>,
    own_markdown: Option<String>,
    commit: String,
}

impl Facts {
    pub(super) fn gather(config: &Config, clone: &Checkout, made: &Made) -> Result<Self> {
        let metrics_files = metrics_files(config, made)?;
        let metrics = metrics_files.iter().map(|path| (path.clone(), read_metrics(&config.clone_dir, path)));
        let metrics: Vec<_> = metrics.collect();
        for (_, metrics) in &metrics {
            if let Err(error) = metrics {
                warn!("{}", chain(error));
            }
        }
        let own_markdown =
            config.publish.report.as_ref().and_then(|path| own_markdown(&config.clone_dir, path));
        Ok(Self { metrics, metrics_files, own_markdown, commit: clone.commit().to_owned() })
    }

    /// The first few numbers, as `name=value, …`.
    pub(super) fn headline(&self) -> String {
        let good = self.metrics.iter().filter_map(|(_, metrics)| metrics.as_ref().ok());
        let numbers = good.flat_map(Metrics::iter).filter_map(|(name, value)| match value {
            MetricValue::Number(number) => Some(format!("{name}={number}")),
            _ => None,
        });
        numbers.take(HEADLINES).collect::<Vec<_>>().join(", ")
    }
}

fn metrics_files(config: &Config, made: &Made) -> Result<Vec<PathBuf>> {
    const ENDINGS: [&str; 6] = ["json", "yaml", "yml", "toml", "csv", "txt"];
    if !config.publish.metrics.is_empty() {
        let matches = find(&config.clone_dir, &config.publish.metrics)?;
        for pattern in &matches.unmatched {
            warn!("METRICS: nothing matches '{pattern}'");
        }
        return Ok(paths(&matches.files));
    }
    let looks_like_metrics = |path: &PathBuf| {
        let named = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("metrics"));
        named && path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known))
    };
    Ok(paths(&made.outputs).into_iter().filter(looks_like_metrics).collect())
}

fn read_metrics(clone_dir: &Path, path: &Path) -> Result<Metrics> {
    let name = path.display().to_string();
    let bytes = read_beneath(clone_dir, path, SMALL);
    metrics::parse(&name, &bytes.with_context(|| format!("cannot read metrics from {name}"))?)
}

/// The beginning of the user's own report: a comment has no room for more.
fn own_markdown(clone_dir: &Path, path: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let file = open_beneath(clone_dir, Path::new(path));
    match file.and_then(|file| file.take(SMALL).read_to_end(&mut bytes)) {
        Ok(_) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) => {
            warn!("REPORT: '{path}' cannot be read, so the report goes without it: {error}");
            None
        }
    }
}

/// The report of a run that made its outputs. `commit` is the one that was pushed.
pub(super) fn report(
    config: &Config,
    facts: &Facts,
    made: &Made,
    done: RunSuccess,
    commit: Option<&str>,
    baseline: &BTreeMap<PathBuf, Vec<u8>>,
) -> Report {
    let web = commit.and_then(|commit| Web::new(config, commit));
    let mut report = blank(config, &facts.commit, ReportedOutcome::Succeeded(done));
    report.own_markdown.clone_from(&facts.own_markdown);
    report.metrics =
        facts.metrics.iter().map(|(path, now)| compared(path, now, baseline.get(path))).collect();
    report.plots =
        made.outputs.iter().filter(|entry| is_plot(entry)).map(|entry| plot(entry, web.as_ref())).collect();
    report.outputs = made.outputs.iter().map(|entry| output(entry, web.as_ref())).collect();
    if let Some(training) = &made.training {
        report.machine = Some(MachineSummary {
            description: training.machine.clone(),
            trained: training.took,
            total: made.total,
            cost: training.cost.clone(),
        });
        if training.restarts > 0 {
            report.notes.push(interruptions(training.restarts, training.losses));
        }
        report.notes.extend(training.charges.clone());
    }
    report
}

/// What lost machines cost a training that came to its end.
fn interruptions(restarts: u32, losses: Losses) -> String {
    let times = if restarts == 1 { "once".to_owned() } else { format!("{restarts} times") };
    let idle = in_words(losses.idle);
    let again = if losses.repeated.is_zero() {
        "no training was lost".to_owned()
    } else {
        format!("{} of training was done again", in_words(losses.repeated))
    };
    format!("The machine was lost and replaced {times}: {again}, and {idle} passed without a machine.")
}

/// The report of a run that failed.
pub(super) fn failure(
    config: &Config,
    commit: &str,
    error: &Error,
    tail: &[String],
    took: Duration,
) -> Report {
    let failure = match (error.exit_kind(), config.action) {
        (Kind::Stopped, _) => RunFailure::Stopped,
        (_, Action::Publish) => RunFailure::NotPublished,
        (Kind::Publication, _) => RunFailure::TrainedNotPublished,
        _ => RunFailure::Failed,
    };
    let outcome = ReportedOutcome::Failed { failure, why: error.render(), log_tail: tail.to_vec() };
    let mut report = blank(config, commit, outcome);
    report.notes.push(format!("It ended after {}.", in_words(took)));
    report
}

fn blank(config: &Config, commit: &str, outcome: ReportedOutcome) -> Report {
    let mut links = Vec::new();
    let short = &commit[..commit.len().min(12)];
    links.push(ReportLink {
        label: format!("Code: {short}"),
        url: Web::new(config, commit).map(|web| web.commit()),
    });
    if let Some(url) = config.pipeline.url() {
        links.push(ReportLink { label: "Pipeline".to_owned(), url: Some(url) });
    }
    Report {
        name: config.publish.report_name.clone(),
        marker: marker(&config.publish.report_name),
        outcome,
        own_markdown: None,
        metrics: Vec::new(),
        plots: Vec::new(),
        outputs: Vec::new(),
        machine: None,
        links,
        notes: Vec::new(),
    }
}

/// Bitbucket shows HTML comments, but not a link definition that nothing refers to.
pub(super) fn marker(name: &str) -> String {
    format!("[{}]: https://bitbucket.org/trainspot/trainspot", announce_key(name))
}

/// The report's name as an identifier: in the marker, the build status and Code Insights.
pub(super) fn announce_key(name: &str) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
    let key = format!("trainspot-{}", name.chars().map(plain).collect::<String>());
    if name.is_ascii() {
        return key;
    }
    // Names in another script would be dashes alone, and one report would replace the other.
    format!("{key}-{}", &blake3::hash(name.as_bytes()).to_hex()[..8])
}

fn compared(path: &Path, now: &Result<Metrics>, before: Option<&Vec<u8>>) -> MetricsFile {
    let name = path.display().to_string();
    let before = before.map(|bytes| metrics::parse(&name, bytes));
    let problems = [now.as_ref().err(), before.as_ref().and_then(|before| before.as_ref().err())];
    let problem = problems.into_iter().flatten().next().map(|error| chain(error));
    MetricsFile { problem, now: now.as_ref().ok().cloned(), before: before.and_then(Result::ok), path: name }
}

fn is_plot(entry: &BundleEntry) -> bool {
    const ENDINGS: [&str; 6] = ["png", "jpg", "jpeg", "svg", "gif", "webp"];
    entry
        .path
        .to_path()
        .extension()
        .is_some_and(|ending| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

fn plot(entry: &BundleEntry, web: Option<&Web>) -> Plot {
    let path = entry.path.to_string();
    Plot { page: web.map(|web| web.file("src", &path)), image: web.map(|web| web.file("raw", &path)), path }
}

fn output(entry: &BundleEntry, web: Option<&Web>) -> OutputFile {
    let path = entry.path.to_string();
    let bytes = match entry.kind {
        EntryKind::File { bytes, .. } => bytes,
        EntryKind::Link { .. } => 0,
    };
    OutputFile { url: web.map(|web| web.file("src", &path)), bytes, path }
}

/// Addresses of Bitbucket's pages for one commit.
pub(super) struct Web {
    repository: String,
    commit: String,
}

impl Web {
    pub(super) fn new(config: &Config, commit: &str) -> Option<Self> {
        let (workspace, slug) = (config.pipeline.workspace.as_ref()?, config.pipeline.repo_slug.as_ref()?);
        Some(Self {
            repository: format!("https://bitbucket.org/{workspace}/{slug}"),
            commit: commit.to_owned(),
        })
    }

    pub(super) fn commit(&self) -> String {
        format!("{}/commits/{}", self.repository, self.commit)
    }

    fn file(&self, view: &str, path: &str) -> String {
        const KEPT: percent_encoding::AsciiSet = percent_encoding::NON_ALPHANUMERIC
            .remove(b'/')
            .remove(b'-')
            .remove(b'_')
            .remove(b'.')
            .remove(b'~');
        let path = percent_encoding::utf8_percent_encode(path, &KEPT);
        format!("{}/{view}/{}/{path}", self.repository, self.commit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_training_and_time_without_a_machine_are_told_apart() {
        let losses = |repeated, idle| Losses {
            repeated: Duration::from_secs(repeated),
            idle: Duration::from_secs(idle),
        };
        assert_eq!(
            interruptions(1, losses(0, 63)),
            "The machine was lost and replaced once: no training was lost, and 1m 3s passed without a machine."
        );
        assert_eq!(
            interruptions(2, losses(12, 63)),
            "The machine was lost and replaced 2 times: 12s of training was done again, and 1m 3s passed without a machine."
        );
    }

    #[test]
    fn names_in_any_script_have_keys_of_their_own() {
        assert_eq!(announce_key("Forest v2"), "trainspot-forest-v2");
        assert_ne!(announce_key("模型"), announce_key("森林"));
        assert!(announce_key("模型").is_ascii());
    }
}
