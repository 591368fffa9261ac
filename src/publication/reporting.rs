//! From what a run made to its [`Report`].

use super::outcome::{Losses, RunOutcome, paths};
use super::publisher::Publisher;
use crate::config::variables::Action;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::warn;
use trainspot_base::error::{Context as _, Error, Kind, Result, chain};
use trainspot_base::log::progress::in_words;
use trainspot_bitbucket::StepVariables;
use trainspot_report::metrics::{self, MetricValue, Metrics};
use trainspot_report::{
    MachineSummary, MetricsFile, OutputFile, Plot, Report, ReportLink, ReportedOutcome, RunFailure,
    RunSuccess,
};
use trainspot_transfer::{BundleEntry, EntryKind, find, open_beneath, read_beneath};

/// What is read of a metrics file or of the user's own report.
const READ_LIMIT_BYTES: u64 = 1 << 20;
/// Metrics in the commit's message.
const HEADLINE_METRICS: usize = 8;

/// What the report needs from files in the clone.
pub(super) struct ReportInput {
    pub(super) metrics_files: Vec<PathBuf>,
    metrics: Vec<(PathBuf, Result<Metrics>)>,
    own_markdown: Option<String>,
    commit: String,
}

impl ReportInput {
    pub(super) fn gather(publisher: &Publisher<'_>, outcome: &RunOutcome) -> Result<Self> {
        let config = publisher.config;
        let metrics_files = publisher.metrics_files(outcome)?;
        let metrics = metrics_files.iter().map(|path| (path.clone(), read_metrics(&config.clone_dir, path)));
        let metrics: Vec<_> = metrics.collect();
        for (_, metrics) in &metrics {
            if let Err(error) = metrics {
                warn!("{}", chain(error));
            }
        }
        let own_markdown =
            config.publish.report.as_ref().and_then(|path| own_markdown(&config.clone_dir, path));
        Ok(Self { metrics, metrics_files, own_markdown, commit: publisher.checkout.commit().to_owned() })
    }

    /// The first few numbers, as `name=value, …`.
    pub(super) fn headline(&self) -> String {
        let good = self.metrics.iter().filter_map(|(_, metrics)| metrics.as_ref().ok());
        let numbers = good.flat_map(Metrics::iter).filter_map(|(name, value)| match value {
            MetricValue::Number(number) => Some(format!("{name}={number}")),
            _ => None,
        });
        numbers.take(HEADLINE_METRICS).collect::<Vec<_>>().join(", ")
    }
}

impl Publisher<'_> {
    fn metrics_files(&self, outcome: &RunOutcome) -> Result<Vec<PathBuf>> {
        const KNOWN_ENDINGS: [&str; 6] = ["json", "yaml", "yml", "toml", "csv", "txt"];
        if !self.config.publish.metrics.is_empty() {
            let matches = find(&self.config.clone_dir, &self.config.publish.metrics)?;
            for pattern in &matches.unmatched {
                warn!("METRICS: nothing matches '{pattern}'");
            }
            return Ok(paths(&matches.files));
        }
        let looks_like_metrics = |path: &PathBuf| {
            let named = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("metrics"));
            named && path.extension().is_some_and(|ending| KNOWN_ENDINGS.iter().any(|known| ending == *known))
        };
        Ok(paths(&outcome.outputs).into_iter().filter(looks_like_metrics).collect())
    }

    /// The report of a run that made its outputs. `commit` is the one that was pushed.
    pub(super) fn success_report(
        &self,
        input: &ReportInput,
        outcome: &RunOutcome,
        done: RunSuccess,
        commit: Option<&str>,
        baseline: &BTreeMap<PathBuf, Vec<u8>>,
    ) -> Report {
        let web = commit.and_then(|commit| WebPages::new(&self.config.pipeline, commit));
        let mut report = self.blank_report(&input.commit, ReportedOutcome::Succeeded(done));
        report.own_markdown.clone_from(&input.own_markdown);
        report.metrics =
            input.metrics.iter().map(|(path, now)| compared(path, now, baseline.get(path))).collect();
        report.plots = outcome
            .outputs
            .iter()
            .filter(|entry| is_plot(entry))
            .map(|entry| plot(entry, web.as_ref()))
            .collect();
        report.outputs = outcome.outputs.iter().map(|entry| output(entry, web.as_ref())).collect();
        if let Some(training) = &outcome.training {
            report.machine = Some(MachineSummary {
                description: training.machine.clone(),
                trained: training.took,
                total: outcome.total,
                cost: training.cost.clone(),
            });
            if training.restarts > 0 {
                report.notes.push(interruptions(training.restarts, training.losses));
            }
            report.notes.extend(training.charges.clone());
        }
        report
    }

    /// The report of a run that failed.
    pub(super) fn failure_report(
        &self,
        commit: &str,
        error: &Error,
        tail: &[String],
        took: Duration,
    ) -> Report {
        let failure = match (error.exit_kind(), self.config.action) {
            (Kind::Stopped, _) => RunFailure::Stopped,
            (_, Action::Publish) => RunFailure::NotPublished,
            (Kind::Publication, _) => RunFailure::TrainedNotPublished,
            _ => RunFailure::Failed,
        };
        let outcome = ReportedOutcome::Failed { failure, why: error.render(), log_tail: tail.to_vec() };
        let mut report = self.blank_report(commit, outcome);
        report.notes.push(format!("It ended after {}.", in_words(took)));
        report
    }

    fn blank_report(&self, commit: &str, outcome: ReportedOutcome) -> Report {
        let mut links = Vec::new();
        let short = &commit[..commit.len().min(12)];
        links.push(ReportLink {
            label: format!("Code: {short}"),
            url: WebPages::new(&self.config.pipeline, commit).map(|web| web.commit()),
        });
        if let Some(url) = self.config.pipeline.url() {
            links.push(ReportLink { label: "Pipeline".to_owned(), url: Some(url) });
        }
        Report {
            name: self.config.publish.report_name.clone(),
            marker: marker(&self.config.publish.report_name),
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
}

fn read_metrics(clone_dir: &Path, path: &Path) -> Result<Metrics> {
    let name = path.display().to_string();
    let bytes = read_beneath(clone_dir, path, READ_LIMIT_BYTES);
    metrics::parse(&name, &bytes.with_context(|| format!("cannot read metrics from {name}"))?)
}

/// The beginning of the user's own report: a comment has no room for more.
fn own_markdown(clone_dir: &Path, path: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let file = open_beneath(clone_dir, Path::new(path));
    match file.and_then(|file| file.take(READ_LIMIT_BYTES).read_to_end(&mut bytes)) {
        Ok(_) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) => {
            warn!("REPORT: '{path}' cannot be read, so the report goes without it: {error}");
            None
        }
    }
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
    const KNOWN_ENDINGS: [&str; 6] = ["png", "jpg", "jpeg", "svg", "gif", "webp"];
    entry
        .path
        .to_path()
        .extension()
        .is_some_and(|ending| KNOWN_ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

fn plot(entry: &BundleEntry, web: Option<&WebPages>) -> Plot {
    let path = entry.path.to_string();
    Plot { page: web.map(|web| web.file("src", &path)), image: web.map(|web| web.file("raw", &path)), path }
}

fn output(entry: &BundleEntry, web: Option<&WebPages>) -> OutputFile {
    let path = entry.path.to_string();
    let bytes = match entry.kind {
        EntryKind::File { bytes, .. } => bytes,
        EntryKind::Link { .. } => 0,
    };
    OutputFile { url: web.map(|web| web.file("src", &path)), bytes, path }
}

/// Addresses of Bitbucket's pages for one commit.
pub(super) struct WebPages {
    repository: String,
    commit: String,
}

impl WebPages {
    pub(super) fn new(pipeline: &StepVariables, commit: &str) -> Option<Self> {
        let (workspace, slug) = (pipeline.workspace.as_ref()?, pipeline.repo_slug.as_ref()?);
        Some(Self {
            repository: format!("https://bitbucket.org/{workspace}/{slug}"),
            commit: commit.to_owned(),
        })
    }

    pub(super) fn commit(&self) -> String {
        format!("{}/commits/{}", self.repository, self.commit)
    }

    fn file(&self, view: &str, path: &str) -> String {
        const UNESCAPED_CHARACTERS: percent_encoding::AsciiSet = percent_encoding::NON_ALPHANUMERIC
            .remove(b'/')
            .remove(b'-')
            .remove(b'_')
            .remove(b'.')
            .remove(b'~');
        let path = percent_encoding::utf8_percent_encode(path, &UNESCAPED_CHARACTERS);
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
