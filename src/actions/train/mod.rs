//! `ACTION: train`: trains on a machine, fetches the outputs, and publishes them.

mod checkpoints;
mod collect;
mod detached;
mod resume;
mod training;
mod training_clock;
mod training_log;

pub(crate) use checkpoints::Checkpoints;
#[cfg(test)]
pub(crate) use training::Trained;
pub(crate) use training::TrainingWorkload;

pub(super) use detached::{Standing, come_back, standing, stop};

use super::{charges, unless_stopped};
use crate::config::{Cloud, Config, Train};
use crate::job::{self, Job, Workload};
use crate::publication::{
    OutputLocation, Publisher, RunOutcome, TrainingSummary, add_outputs, before_the_step_ends,
};
use crate::step::{self, Deadline, run_id};
use collect::{CollectedOutputs, collect};
use detached::Errand;
use secrecy::ExposeSecret as _;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use trainspot_base::error::{Error, Kind, Result};
use trainspot_base::log::progress::in_words;
use trainspot_compute::aws::Purchase;
use trainspot_compute::link::Agent;
use trainspot_compute::local::LocalCompute;
use trainspot_compute::{Compute, LaunchRequest};
use trainspot_dvc::{DvcSettings, StorePlan};
#[cfg(feature = "aws")]
use trainspot_ec2::{Ec2, Owner};
use trainspot_git::Branches;
use trainspot_protocol::{CommandExit, CommandSpec, ExitReason};
use trainspot_transfer::BundleEntry;

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
    run_for(config, shutdown, Errand::GoOn).await
}

async fn run_for(config: &Config, shutdown: &CancellationToken, errand: Errand) -> Result<String> {
    let train = config.train.as_ref().ok_or_else(|| Error::new("there is nothing to train"))?;
    if train.detach.is_some() && matches!(train.cloud, Cloud::Aws(_)) {
        return Err(Error::new("DETACH is for CLOUD 'local' so far")
            .kind(Kind::Configuration)
            .hint("leave DETACH out: the step then stays until the training is over"));
    }
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
    let deadline = async {
        // The step of a detached run need not live as long as its training.
        if train.detach.is_some() {
            return Ok(step::end(config).await);
        }
        step::deadline(config, train.max_runtime, train.step_max_time).await
    };
    let deadline = unless_stopped(shutdown, "looking at the step", deadline).await?;
    let run = TrainingRun {
        config,
        train,
        publisher: &publisher,
        store_plan: store_plan.as_ref(),
        deadline,
        shutdown,
        errand,
    };
    match &train.cloud {
        Cloud::Local => {
            let local = LocalCompute {
                program: PathBuf::from("/proc/self/exe"),
                root: train.scratch.clone(),
                environment: train.machine_environment.clone(),
                detached: Arc::default(),
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
    /// What the pipe of a detached run comes for.
    errand: Errand,
}

impl TrainingRun<'_> {
    async fn on<C: Compute>(
        &self,
        compute: &C,
        max_cost: Option<f64>,
        files: TrainingFiles,
    ) -> Result<String> {
        if let Some(detach) = &self.train.detach {
            return Box::pin(detached::act(self, detach, compute, max_cost, &files)).await;
        }
        let Self { config, train, publisher, store_plan, deadline, shutdown, errand: _ } = *self;
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
        let published = if let Err(error) = verdict(&finished.done.exit, train.max_runtime) {
            let error = Workload::<C>::salvage(&training, error);
            let tail = &finished.done.tail;
            publisher.report_failure(&error, tail, start.elapsed(), deadline).await;
            repeat_last_lines(tail);
            Err(error)
        } else {
            let bytes = training.checkpoints.received_bytes() + finished.done.outputs.header.bytes();
            let is_rented = matches!(train.cloud, Cloud::Aws(_));
            let charges = is_rented.then(|| charges::in_words(config, start.elapsed(), bytes)).flatten();
            let summary = TrainingSummary {
                machine: finished.machine.description.clone(),
                took: finished.done.took,
                restarts: finished.restarts,
                losses: finished.done.losses,
                cost: finished.cost.map(|cost| cost.in_words()),
                charges,
            };
            let collected = &finished.done.outputs;
            let published =
                published(config, publisher, seen, collected, summary, (start.elapsed(), deadline));
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

/// Publishes what was collected of a training.
async fn published(
    config: &Config,
    publisher: &Publisher<'_>,
    seen: Branches,
    collected: &CollectedOutputs,
    training: TrainingSummary,
    (total, deadline): (Duration, Option<Deadline>),
) -> Result<String> {
    let mut outputs = collected.for_git(config)?;
    publisher.report_ignored(&outputs);
    add_outputs(&mut outputs, publisher.write_pointers(&collected.kept)?);
    let outcome = RunOutcome { outputs, training: Some(training), total, deadline };
    publisher.publish(seen, outcome).await
}

fn verdict(exit: &CommandExit, max_runtime: Duration) -> Result<()> {
    let why = match exit.reason {
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
        detached: None,
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
}
