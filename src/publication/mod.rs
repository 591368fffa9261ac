//! From the files that a run made to their commit, pull request and report.

mod announce;
pub(crate) mod dvc_pointers;
mod outcome;
pub(crate) mod precheck;
mod preflight;
mod push_remote;
mod reporting;

pub(crate) use outcome::{Losses, Made, Training};

use crate::config::{Config, PublishMode};
use crate::step::{Deadline, run_id};
use announce::Pushed;
use outcome::paths;
use push_remote::remote;
use reporting::Facts;
use std::collections::BTreeMap;
use std::time::Duration;
use tracing::{debug, info, warn};
use trainspot_base::error::{Error, Kind, Result, chain};
use trainspot_base::log::progress::{in_words, while_waiting};
use trainspot_base::log::{count, one_line};
use trainspot_git::{Branches, Checkout, Destination, Publication, Published, StepIdentity};
use trainspot_transfer::{BundleEntry, Pattern};

/// Tells how many files a glob of `OUTPUTS` takes although git ignores them: it may take more than was meant.
pub(crate) fn tell_ignored(config: &Config, clone: &Checkout, outputs: &[BundleEntry]) {
    let patterns = config.outputs.iter().filter_map(|pattern| Pattern::parse(pattern).ok());
    let named: Vec<_> = patterns.filter(|pattern| !pattern.is_glob()).collect();
    let paths = outputs.iter().map(|entry| entry.path.to_path());
    let by_glob: Vec<_> = paths.filter(|path| !named.iter().any(|pattern| pattern.matches(path))).collect();
    match clone.ignored(&by_glob).as_deref() {
        Ok([]) => {}
        Ok(ignored @ [first, ..]) => {
            let (files, first) = (count(ignored.len(), "file"), first.display());
            info!("the globs of OUTPUTS match {files} that git ignores, among them {first}");
        }
        Err(error) => debug!("{}", chain(error)),
    }
}

/// Adds files to commit, each once.
pub(crate) fn add(outputs: &mut Vec<BundleEntry>, more: Vec<BundleEntry>) {
    let known = |entry: &BundleEntry| more.iter().any(|other| other.path == entry.path);
    outputs.retain(|entry| !known(entry));
    outputs.extend(more);
}

/// The clone, with the commit that this pipeline runs for.
pub(crate) fn checkout(config: &Config) -> Result<Checkout> {
    let clone = Checkout::open(&config.clone_dir)?;
    Ok(match (&config.pipeline.pr_id, &config.pipeline.commit) {
        (Some(_), Some(source)) => clone.of_pull_request(source),
        _ => clone,
    })
}

/// Commits and announces what was made, or announces that this failed. The answer is the run's last line.
/// `seen` is what the remote had when the run began.
pub(crate) async fn publish(config: &Config, clone: &Checkout, seen: Branches, made: Made) -> Result<String> {
    let (total, deadline) = (made.total, made.deadline);
    let done = commit_and_announce(config, clone, seen, made).await;
    if let Err(error) = &done {
        report_failure(config, clone, error, &[], total, deadline).await;
    }
    done
}

async fn commit_and_announce(
    config: &Config,
    clone: &Checkout,
    seen: Branches,
    made: Made,
) -> Result<String> {
    let facts = Facts::gather(config, clone, &made)?;
    if config.publish.mode == PublishMode::None {
        let done = done(&made, false);
        let report = reporting::report(config, &facts, &made, done, None, &BTreeMap::new());
        announce::show(&report);
        return Ok("done; PUBLISH is 'none', so nothing was committed".to_owned());
    }
    let publication = publication(config, clone, seen, &made, &facts)?;
    let remote = remote(config, clone)?;
    info!("committing {}", count(made.outputs.len(), "file"));
    let published = while_waiting("pushing", clone.publish(&remote, &publication)).await?;
    let title = first_line(config, &made);
    let (pushed, baseline) = match published {
        Published::Pushed { branch, target, commit, baseline, .. } => {
            (Some(Pushed { branch, target, commit, title, done: done(&made, true) }), baseline)
        }
        Published::Unchanged { target, tip, baseline } => {
            (earlier(&publication.destination, target, tip, title, done(&made, true)), baseline)
        }
    };
    let commit = pushed.as_ref().map(|pushed| pushed.commit.as_str());
    let done = done(&made, pushed.is_some());
    let report = reporting::report(config, &facts, &made, done, commit, &baseline);
    if let Some(pushed) = pushed {
        return while_waiting(
            "telling Bitbucket",
            announce::success(config, &report, &pushed, made.deadline),
        )
        .await;
    }
    announce::show(&report);
    Ok("the outputs are the same as those in the repository; nothing was committed".to_owned())
}

/// What the run did, for people: it may not have trained, nor published.
fn done(made: &Made, published: bool) -> trainspot_report::RunSuccess {
    match made.training {
        Some(_) => trainspot_report::RunSuccess::Trained,
        None if published => trainspot_report::RunSuccess::Published,
        None => trainspot_report::RunSuccess::Checked,
    }
}

/// What an earlier run of this step pushed: it may have ended between its push and its pull request.
fn earlier(
    destination: &Destination,
    target: String,
    tip: Option<String>,
    title: String,
    done: trainspot_report::RunSuccess,
) -> Option<Pushed> {
    match (destination, tip) {
        (Destination::PullRequest { branch, .. }, Some(commit)) => {
            Some(Pushed { branch: branch.clone(), target, commit, title, done })
        }
        _ => None,
    }
}

/// Tells of a run that failed, as far as that can be done. What goes wrong here does not hide the failure
/// itself.
pub(crate) async fn report_failure(
    config: &Config,
    clone: &Checkout,
    error: &Error,
    tail: &[String],
    took: Duration,
    deadline: Option<Deadline>,
) {
    let report = reporting::failure(config, clone.commit(), error, tail, took);
    let told = announce::failure(config, clone.commit(), &report, error, deadline);
    let Some(deadline) = deadline else { return told.await };
    if deadline.before_exit(told).await.is_none() {
        warn!("Bitbucket is not told all of the failure: Pipelines is about to kill the step");
    }
}

/// Refuses a remote that will not take the push, before anything is rented. The answer is what branches it
/// has.
pub(crate) async fn check_access(config: &Config, clone: &Checkout) -> Result<Branches> {
    if config.publish.mode == PublishMode::None {
        return Ok(Branches::default());
    }
    let destination = destination(config, clone)?;
    let remote = remote(config, clone)?;
    let branches = remote.check().await?;
    check_name(&destination, &branches)?;
    preflight::check(config, target(config).as_deref()).await?;
    Ok(branches)
}

/// Refuses a branch that the remote cannot make.
fn check_name(destination: &Destination, branches: &Branches) -> Result<()> {
    let (branch, variable) = match destination {
        Destination::PullRequest { branch, .. } => (branch, "BRANCH"),
        Destination::Push { branch, .. } => (branch, "TARGET_BRANCH"),
    };
    match branches.obstacle(branch) {
        None => Ok(()),
        Some(other) => Err(Error::new(format!(
            "the branch {branch} cannot be made: the remote has a branch {other}, and git takes one's name for a folder of the other's"
        ))
        .kind(Kind::Configuration)
        .hint(format!("choose another {variable}, or delete or rename {other}"))),
    }
}

fn publication(
    config: &Config,
    clone: &Checkout,
    seen: Branches,
    made: &Made,
    facts: &Facts,
) -> Result<Publication> {
    let publish = &config.publish;
    let identity = identity(config);
    Ok(Publication {
        outputs: paths(&made.outputs),
        destination: destination(config, clone)?,
        message: message(config, clone.commit(), made, facts, &identity),
        author_name: publish.user_name.clone(),
        author_email: publish.user_email.clone(),
        baseline: facts.metrics_files.clone(),
        identity,
        seen,
        size_limits: publish.size_limits,
    })
}

/// Where the commit goes.
fn destination(config: &Config, clone: &Checkout) -> Result<Destination> {
    let target = target(config);
    if config.pipeline.merge_queue_pr_ids.is_some() && config.publish.target_branch.is_none() {
        return Err(Error::new("this pipeline is a merge queue's, whose branch is gone when it ends")
            .kind(Kind::Configuration)
            .hint("name the branch that the outputs are for in TARGET_BRANCH, or set PUBLISH to 'none'"));
    }
    let branch = config.publish.branch.clone();
    let branch = branch.unwrap_or_else(|| default_branch(config, target.as_deref(), clone.commit()));
    match (config.publish.mode, target) {
        (PublishMode::Push, Some(target)) => {
            Ok(Destination::Push { branch: target, fallback_branch: branch })
        }
        (PublishMode::Push, None) => {
            Err(Error::new("PUBLISH is 'push', but this pipeline runs for no branch")
                .kind(Kind::Configuration)
                .hint("name the branch to push to in TARGET_BRANCH"))
        }
        (_, Some(target)) if target == branch => Err(Error::new(format!(
            "BRANCH is {branch}, for which the outputs are; it cannot be merged into itself"
        ))
        .kind(Kind::Configuration)
        .hint("choose another BRANCH, or PUBLISH: push")),
        (_, target) => Ok(Destination::PullRequest { branch, target }),
    }
}

/// Who publishes, in terms of what is the same when the step is run again ([`StepIdentity`]).
fn identity(config: &Config) -> StepIdentity {
    let outputs = format!("{:?} {:?} {}", config.outputs, config.dvc.outputs, config.publish.report_name);
    let folder = std::fs::canonicalize(&config.clone_dir).unwrap_or_default();
    let run = [run_id(config).as_str(), &folder.to_string_lossy(), &outputs].join("\0");
    let command = config.train.as_ref().map_or("", |train| train.command.as_str());
    let name = |text: &str| blake3::hash(text.as_bytes()).to_hex()[..16].to_owned();
    StepIdentity {
        run: name(&run),
        step: name(&[&outputs, command].join("\0")),
        pipeline: config.pipeline.url(),
    }
}

/// The branch that the outputs are for, as far as the step's environment tells.
fn target(config: &Config) -> Option<String> {
    config.publish.target_branch.clone().or_else(|| config.pipeline.branch.clone())
}

/// `trainspot/<target>-<short commit>`; for a tag's pipeline, the tag.
fn default_branch(config: &Config, target: Option<&str>, commit: &str) -> String {
    let what = target.or(config.pipeline.tag.as_deref()).unwrap_or("run");
    format!("trainspot/{what}-{}", &commit[..commit.len().min(7)])
}

fn first_line(config: &Config, made: &Made) -> String {
    config.publish.commit_message.clone().unwrap_or_else(|| {
        let names: Vec<String> = made.outputs.iter().map(|entry| entry.path.to_string()).collect();
        match names.as_slice() {
            [] => "Update nothing".to_owned(),
            [one] => format!("Update {one}"),
            [one, rest @ ..] => format!("Update {one} and {} more", rest.len()),
        }
    })
}

fn message(config: &Config, commit: &str, made: &Made, facts: &Facts, identity: &StepIdentity) -> String {
    let skip = if config.publish.skip_ci { " [skip ci]" } else { "" };
    // Names of files and metrics are others' words: in a line of their own they would be trailers.
    let line = |text: &str| trainspot_base::log::fit_to_send(&one_line(text));
    let mut lines = vec![format!("{}{skip}", line(&first_line(config, made))), String::new()];
    let mut trailer = |name: &str, value: String| lines.push(line(&format!("Trainspot-{name}: {value}")));
    trailer("Commit", commit.to_owned());
    if let Some(training) = &made.training {
        trailer("Machine", training.machine.clone());
        trailer("Duration", in_words(training.took));
    }
    let metrics = facts.headline();
    if !metrics.is_empty() {
        trailer("Metrics", metrics);
    }
    lines.extend(identity.trailers().iter().map(|trailer| line(trailer)));
    lines.join("\n") + "\n"
}
