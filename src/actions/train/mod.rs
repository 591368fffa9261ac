//! `ACTION: train`: trains on a machine, fetches the outputs, and publishes them.

mod checkpoints;
mod resume;
mod training;
mod training_clock;
mod training_log;

pub(crate) use checkpoints::Checkpoints;
pub(crate) use training::{Trained, TrainingWorkload};

use super::{charges, unless_stopped};
use crate::config::{Cloud, Config, Train};
use crate::job::{self, FinishedJob, Job, Workload};
use crate::publication::{
    OutputLocation, Publisher, RunOutcome, TrainingSummary, add_outputs, before_the_step_ends, unpublished,
};
use crate::step::{self, Deadline, run_id};
use secrecy::ExposeSecret as _;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use trainspot_base::error::{Error, Kind, Result};
use trainspot_base::log::count;
use trainspot_base::log::progress::{in_words, while_waiting};
use trainspot_compute::aws::Purchase;
use trainspot_compute::link::{Agent, Link};
use trainspot_compute::local::LocalCompute;
use trainspot_compute::{Compute, LaunchRequest};
use trainspot_dvc::{DvcSettings, StorePlan, StoredOutputs};
#[cfg(feature = "aws")]
use trainspot_ec2::{Ec2, Owner};
use trainspot_git::Branches;
use trainspot_protocol::{CommandExit, CommandSpec, ExitReason, FileSelection};
use trainspot_transfer::{BundleEntry, BundleHeader};

/// Signals by the names that people know; the others are shown by number.
const SIGNAL_NAMES: [(i32, &str); 8] = [
    (1, "SIGHUP"),
    (2, "SIGINT"),
    (6, "SIGABRT"),
    (7, "SIGBUS"),
    (8, "SIGFPE"),
    (9, "SIGKILL; the kernel does that when memory runs out"),
    (11, "SIGSEGV"),
    (15, "SIGTERM"),
];

pub(super) async fn run(config: &Config, shutdown: &CancellationToken) -> Result<String> {
    let train = config.train.as_ref().ok_or_else(|| Error::new("there is nothing to train"))?;
    #[cfg(feature = "aws")]
    if let Cloud::Aws(aws) = &train.cloud
        && aws.dry_run
    {
        return super::dry_run::train(config, train, aws, shutdown).await;
    }
    // What the clone alone can tell comes before all that needs a network or a credential.
    let publisher = Publisher::open(config)?;
    let location =
        if matches!(train.cloud, Cloud::Local) { OutputLocation::Beside } else { OutputLocation::Rented };
    let store_plan = publisher.dvc_store_plan(location)?;
    let mut files =
        TrainingFiles { workspace: publisher.checkout.workspace(&train.include)?, resumed: Vec::new() };
    publisher.check_outputs(Some(&files.workspace))?;
    files.resumed = resume::left_behind(&config.clone_dir, train)?;
    // A checkpoint goes by itself: a newer one may take its place.
    files.workspace.retain(|entry| files.resumed.iter().all(|resumed| resumed.path != entry.path));
    let deadline = step::deadline(config, train.max_runtime, train.step_max_time);
    let deadline = unless_stopped(shutdown, "looking at the step", deadline).await?;
    let run = TrainingRun {
        config,
        train,
        publisher: &publisher,
        store_plan: store_plan.as_ref(),
        deadline,
        shutdown,
    };
    match &train.cloud {
        Cloud::Local => {
            let local = LocalCompute {
                program: PathBuf::from("/proc/self/exe"),
                root: train.scratch.clone(),
                environment: train.machine_environment.clone(),
            };
            Box::pin(run.on(&local, None, files)).await
        }
        #[cfg(feature = "aws")]
        Cloud::Aws(aws) => {
            let ec2 = Ec2::new(aws.as_ref().clone(), Owner::from(&config.pipeline));
            let ec2 = unless_stopped(shutdown, "looking for AWS credentials", ec2).await?;
            Box::pin(run.on(&ec2, aws.max_cost, files)).await
        }
        #[cfg(not(feature = "aws"))]
        Cloud::Aws(_) => Err(super::built_without_aws()),
    }
}

/// The files that a training gets.
struct TrainingFiles {
    workspace: Vec<BundleEntry>,
    /// A checkpoint to go on from.
    resumed: Vec<BundleEntry>,
}

/// A run whose configuration and clone are known to be good.
struct TrainingRun<'a> {
    config: &'a Config,
    train: &'a Train,
    publisher: &'a Publisher<'a>,
    store_plan: Option<&'a StorePlan>,
    deadline: Option<Deadline>,
    shutdown: &'a CancellationToken,
}

impl TrainingRun<'_> {
    async fn on<C: Compute>(
        &self,
        compute: &C,
        max_cost: Option<f64>,
        files: TrainingFiles,
    ) -> Result<String> {
        let Self { config, train, publisher, store_plan, deadline, shutdown } = *self;
        let start = Instant::now();
        let run = run_id(config);
        let checked = async {
            let checks = (publisher.check_access(), compute.prepare(), compute.find(&run));
            tokio::try_join!(checks.0, checks.1, checks.2).map(|(seen, (), found)| (seen, found))
        };
        let (seen, found) = unless_stopped(shutdown, "looking at the remote", checked).await?;
        let training = TrainingWorkload {
            spec: spec(config, train, publisher.checkout.commit()),
            clone_dir: &config.clone_dir,
            workspace: files.workspace,
            resumed: files.resumed,
            slowest_transfer: Cell::default(),
            commit: publisher.checkout.snapshot(&config.publish.user_name, &config.publish.user_email)?,
            checkpoints: Checkpoints::new(&train.scratch, &run, &train.checkpoints)?,
            fetch_outputs: async |agent: &Agent<C::Link>, exit: &CommandExit, took: Duration| {
                collect(agent, (exit, took), publisher, store_plan).await
            },
            clock: RefCell::default(),
        };
        let job = Job {
            compute,
            found,
            launch_request: LaunchRequest {
                run,
                orphan_grace: train.orphan_grace,
                max_runtime: train.max_runtime,
                avoid: Vec::new(),
                spot_now: false,
            },
            owner: job::owner(),
            max_restarts: train.max_restarts,
            returns_to_spot: returns_to_spot(train),
            max_cost,
            deadline,
            shutdown,
            state: job::JobState::default(),
        };
        let finished = match job.run(&training).await {
            Ok(finished) => finished,
            Err(error) => {
                publisher.report_failure(&error, &[], start.elapsed(), deadline).await;
                return Err(error);
            }
        };
        let published = if let Err(error) = verdict(&finished.done, train.max_runtime) {
            let error = Workload::<C>::salvage(&training, error);
            let tail = &finished.done.tail;
            publisher.report_failure(&error, tail, start.elapsed(), deadline).await;
            repeat_last_lines(tail);
            Err(error)
        } else {
            let bytes = training.checkpoints.received_bytes() + finished.done.outputs.header.bytes();
            let is_rented = matches!(train.cloud, Cloud::Aws(_));
            let charges = is_rented.then(|| charges::in_words(config, start.elapsed(), bytes)).flatten();
            let published = published(config, publisher, seen, &finished, (start, deadline, charges));
            let published = before_the_step_ends(deadline, Box::pin(published));
            unless_stopped(shutdown, "publishing; the outputs are in the clone", published).await
        };
        // It costs nothing, and a later run's sweep finds it: no reason to fail.
        if let Err(error) = job.delete_run_resources().await {
            warn!("{}", error.render());
        }
        let done = published?;
        // The outputs are safe; that a machine may still cost money is then the more important news.
        finished.leftover.map_or(Ok(done), |leftover| Err(leftover.kind(Kind::Machine)))
    }
}

/// Whether a machine on demand is only a stopgap: without checkpoints, leaving it would cost more than it
/// saves.
fn returns_to_spot(train: &Train) -> bool {
    let stopgap = matches!(&train.cloud, Cloud::Aws(aws) if aws.purchase == Purchase::SpotThenOnDemand);
    stopgap && !train.checkpoints.is_empty()
}

async fn published(
    config: &Config,
    publisher: &Publisher<'_>,
    seen: Branches,
    finished: &FinishedJob<Trained<CollectedOutputs>>,
    (start, deadline, charges): (Instant, Option<Deadline>, Option<String>),
) -> Result<String> {
    let collected = &finished.done.outputs;
    let mut outputs = outputs(&collected.header, config)?;
    publisher.report_ignored(&outputs);
    add_outputs(&mut outputs, publisher.write_pointers(&collected.kept)?);
    let outcome = RunOutcome {
        outputs,
        training: Some(TrainingSummary {
            machine: finished.machine.description.clone(),
            took: finished.done.took,
            restarts: finished.restarts,
            losses: finished.done.losses,
            cost: finished.cost.map(|cost| cost.in_words()),
            charges,
        }),
        total: start.elapsed(),
        deadline,
    };
    publisher.publish(seen, outcome).await
}

/// The outputs of a training that are safe on this side or in a DVC remote; nothing of a training that
/// failed.
#[derive(Default)]
struct CollectedOutputs {
    /// The files that were fetched.
    header: BundleHeader,
    /// What DVC keeps.
    kept: StoredOutputs,
}

/// Collects what a training made, unless it failed. `took` is how long it trained.
async fn collect<L: Link>(
    agent: &Agent<L>,
    (exit, took): (&CommandExit, Duration),
    publisher: &Publisher<'_>,
    store_plan: Option<&StorePlan>,
) -> Result<CollectedOutputs> {
    if exit.reason != ExitReason::Exited(0) {
        return Ok(CollectedOutputs::default());
    }
    info!("training done ({})", in_words(took));
    // First what is small, and surely comes.
    let salvage = async |error| publisher.salvage_dvc_outputs(agent, store_plan, error).await;
    let header = or_salvage(fetch_outputs(agent, publisher.config).await, salvage).await?;
    let Some(store_plan) = store_plan else {
        return Ok(CollectedOutputs { header, kept: StoredOutputs::default() });
    };
    let stored = while_waiting("sending to DVC's remote", agent.store(store_plan.request())).await;
    // The pointers are made while the machine is there: what came from it may have DVC refuse them.
    let kept = stored.and_then(|outcome| store_plan.accept(&outcome).map_err(unpublished));
    Ok(CollectedOutputs { header, kept: or_salvage(kept, salvage).await? })
}

/// Has `salvage` take what it can of a machine from which nothing more will be fetched: after an error that
/// no further attempt can mend, the machine ends.
async fn or_salvage<T>(collected: Result<T>, salvage: impl AsyncFn(Error) -> Error) -> Result<T> {
    match collected {
        Err(error) if !error.is_transient() => Err(salvage(error).await),
        collected => collected,
    }
}

/// Brings the outputs into the clone, each at the place where the training wrote it.
async fn fetch_outputs<L: Link>(agent: &Agent<L>, config: &Config) -> Result<BundleHeader> {
    let optional = config.publish.metrics.iter().chain(&config.publish.report).cloned().collect();
    let without = config.dvc.outputs.clone();
    let wanted = FileSelection { required: config.outputs.clone(), optional, without };
    let what = "fetching the outputs";
    let header = agent.fetch(&wanted, &config.clone_dir, what).await?;
    if header.unmatched.is_empty() {
        let files = count(header.entries.len(), "file");
        info!("fetched {files} ({})", indicatif::HumanBytes(header.bytes()));
        return Ok(header);
    }
    // What there is must not be lost with the machine.
    let all = FileSelection {
        required: Vec::new(),
        optional: wanted.required.into_iter().chain(wanted.optional).collect(),
        without: wanted.without,
    };
    let saved = agent.fetch(&all, &config.clone_dir, what).await?;
    let unmatched = header.unmatched.join("', '");
    Err(Error::new(format!(
        "the training ended well, but wrote nothing that matches '{unmatched}' of OUTPUTS"
    ))
    .kind(Kind::Training)
    .leaves(format!("{}, in the clone; nothing was committed", count(saved.entries.len(), "other output")))
    .hint("correct OUTPUTS, or let the training write the files there"))
}

/// The files to commit: what `OUTPUTS` matched, without what came only for the report.
fn outputs(header: &BundleHeader, config: &Config) -> Result<Vec<BundleEntry>> {
    let matched = trainspot_transfer::find(&config.clone_dir, &config.outputs)?;
    let arrived: BTreeSet<&Path> = header.entries.iter().map(|entry| entry.path.as_path()).collect();
    Ok(matched.files.into_iter().filter(|entry| arrived.contains(entry.path.as_path())).collect())
}

fn verdict<T>(trained: &Trained<T>, max_runtime: Duration) -> Result<()> {
    let why = match trained.exit.reason {
        ExitReason::Exited(0) => return Ok(()),
        ExitReason::Exited(code) => format!("the training failed with exit code {code}"),
        ExitReason::Signalled(signal) => format!("the training was killed by {}", signal_name(signal)),
        ExitReason::TimedOut => {
            let limit = in_words(max_runtime);
            return Err(Error::new(format!("the training ran for MAX_RUNTIME ({limit}) and was ended"))
                .kind(Kind::Training)
                .hint("raise MAX_RUNTIME, or train less"));
        }
        ExitReason::Stopped | ExitReason::Interrupted => "the training was stopped".to_owned(),
        ExitReason::Orphaned => "the machine did not hear from the pipe, and ended the training".to_owned(),
    };
    Err(Error::new(why).kind(Kind::Training))
}

fn signal_name(signal: i32) -> String {
    let known = SIGNAL_NAMES.iter().find(|(number, _)| *number == signal);
    known.map_or_else(|| format!("signal {signal}"), |(_, name)| format!("signal {signal} ({name})"))
}

/// The end of the log is the training's own, so that nobody has to scroll for what went wrong.
fn repeat_last_lines(tail: &[String]) {
    const REPEATED_LINES: usize = 20;
    if tail.is_empty() {
        return info!("the training printed nothing");
    }
    info!("the training's last lines:");
    tail.iter()
        .skip(tail.len().saturating_sub(REPEATED_LINES))
        .for_each(|line| trainspot_base::log::training(line));
}

fn spec(config: &Config, train: &Train, commit: &str) -> CommandSpec {
    let mut spec = CommandSpec {
        fingerprint: String::new(),
        command: train.command.clone(),
        environment: train.environment.clone(),
        max_runtime: train.max_runtime,
        checkpoints: train.checkpoints.clone(),
        checkpoint_interval: train.checkpoint_interval,
        resume: false,
        runner: None,
    };
    spec.fingerprint = fingerprint(config, &spec, commit);
    spec
}

/// Tells this training from another one that the step once wanted, by the secrets in its environment too.
fn fingerprint(config: &Config, spec: &CommandSpec, commit: &str) -> String {
    let environment: BTreeMap<_, _> =
        spec.environment.iter().map(|(name, value)| (name, value.expose_secret())).collect();
    let DvcSettings { outputs, push, remote, environment: of_remotes, .. } = &config.dvc;
    let parts = format!(
        "{commit} {:?} {environment:?} {:?} {:?} {:?} {:?} {outputs:?} {push} {remote:?} {:?}",
        spec.command,
        spec.max_runtime,
        spec.checkpoints,
        spec.checkpoint_interval,
        config.outputs,
        of_remotes.keys()
    );
    blake3::hash(parts.as_bytes()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_training_with_another_secret_is_another_training() {
        let fingerprint = |variable: &str| {
            let given =
                [("CLOUD", "local"), ("TRAIN_COMMAND", "x"), ("OUTPUTS", "y"), ("TRAIN_ENV", variable)];
            let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let config = Config::load(given).unwrap();
            spec(&config, config.train.as_ref().unwrap(), "0123").fingerprint
        };
        assert_eq!(fingerprint("TOKEN=a"), fingerprint("TOKEN=a"));
        assert_ne!(fingerprint("TOKEN=a"), fingerprint("TOKEN=b"));
        assert_ne!(fingerprint("TOKEN=a"), fingerprint("OTHER=a"));
    }

    #[tokio::test]
    async fn only_what_will_not_be_fetched_again_is_salvaged_whatever_the_kind() {
        let salvage = async |error: Error| error.leaves("what was salvaged");
        for kind in Kind::ALL {
            let failed = |error: Error| Err::<(), _>(error.kind(kind));
            let error = or_salvage(failed(Error::new("refused")), salvage).await.unwrap_err();
            assert_eq!(error.leftovers().count(), 1);
            let error = or_salvage(failed(Error::new("broke off").transient()), salvage).await.unwrap_err();
            assert_eq!(error.leftovers().count(), 0);
        }
        assert_eq!(or_salvage(Ok(1), salvage).await.unwrap(), 1);
    }
}
