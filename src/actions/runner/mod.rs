//! `ACTION: runner`: a machine as a runner of Bitbucket's, left to itself or with a pipeline run on it.

mod child;
mod name;
mod reuse;
mod serving;
mod visit;

pub(super) use name::{name, run_of};
pub(super) use visit::visit;

use super::{dry_run, unless_stopped};
use crate::bitbucket_access::full_client;
use crate::config::Config;
use crate::config::runner::RunnerSettings;
use crate::job::{self, FinishedJob, Job};
use crate::publication::Publisher;
use crate::step::{self, run_id};
use child::Child;
use serving::{Served, Serving, spec};
use std::cell::RefCell;
use std::path::Path;
use std::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use trainspot_base::error::{Error, Kind, Result};
use trainspot_bitbucket::{Client, NewRunner};
use trainspot_compute::checks::Check;
use trainspot_compute::{Compute, LaunchRequest};
use trainspot_ec2::{Ec2, Owner};
use trainspot_protocol::runner_log::{STARTUP_TIMEOUT, STEP_RUN_LIMIT};
use trainspot_transfer::text_beneath;

pub(super) async fn run(config: &Config, shutdown: &CancellationToken) -> Result<String> {
    let runner = config.runner.as_ref().ok_or_else(|| Error::new("there is no runner to rent"))?;
    let run = run_id(config);
    let slug = config.pipeline.repo_slug.as_deref().unwrap_or_default();
    let new = NewRunner::new(&name(slug, &run), runner.program.platform(), &runner.labels)?;
    let owner =
        Owner::from(&config.pipeline).with_runner(new.name(), runner.level.name(), runner.run.is_some());
    if runner.aws.dry_run {
        let seen =
            unless_stopped(shutdown, "looking at Bitbucket", async { Ok(see_runners(config, runner).await) });
        let checks = vec![
            Check::from_result("the pipeline to run", check_pipeline(config, runner)),
            Check::from_result("list the runners at Bitbucket", seen.await?),
        ];
        let limits = dry_run::DryRunLimits {
            orphan_grace: runner.orphan_grace,
            max_runtime: runner.max_runtime,
            // A pipe that leaves its machine to later steps does not wait.
            waits: runner.run.is_some(),
        };
        return dry_run::with_aws(config, checks, (owner, &runner.aws), limits, shutdown).await;
    }
    let ec2 =
        unless_stopped(shutdown, "looking for AWS credentials", Ec2::new(runner.aws.clone(), owner)).await?;
    check_pipeline(config, runner)?;
    if runner.run.is_some() {
        // A pipeline goes on without the pipe, and its machine ends itself after it: nothing must be saved in
        // time.
        let told = step::deadline(config, runner.max_runtime, None);
        unless_stopped(shutdown, "looking at the step", told).await?;
    }
    let bitbucket = reachable(config)?;
    let commit = Publisher::open(config).ok().map(|publisher| publisher.checkout.commit().to_owned());
    let commit = commit.or_else(|| config.pipeline.commit.clone());
    let child = runner.run.as_ref().map(|pipeline| Child::new(&bitbucket, pipeline, commit, &run));
    let before = async {
        match &child {
            Some(child) => child.has_succeeded().await,
            None => Ok(None),
        }
    };
    let look =
        async { tokio::try_join!(ec2.prepare(), ec2.find(&run), bitbucket.runners_of(runner.level), before) };
    let ((), found, there, done) = unless_stopped(shutdown, "looking at AWS and Bitbucket", look).await?;
    if found.is_empty() {
        if let Some(words) = done {
            return Ok(words);
        }
        let account = (ec2.clients(), runner.aws.public_ip_url.as_str());
        let reused = reuse::find(runner.reuse, &there, &new, account);
        if let Some(name) = unless_stopped(shutdown, "looking for a runner to use", reused).await? {
            return use_it(&name, child.as_ref(), shutdown).await;
        }
    }
    let spec = spec(config, runner, new.labels());
    let began = Instant::now();
    let registered = RefCell::default();
    let serving = Serving { config, runner, bitbucket: &bitbucket, new, spec, child, began, registered };
    let job = Job {
        compute: &ec2,
        found,
        launch_request: LaunchRequest {
            run,
            orphan_grace: runner.orphan_grace,
            max_runtime: STARTUP_TIMEOUT + runner.max_runtime + STEP_RUN_LIMIT,
            avoid: Vec::new(),
            spot_now: false,
        },
        owner: job::owner(),
        max_restarts: runner.max_restarts,
        returns_to_spot: false,
        max_cost: runner.aws.max_cost,
        deadline: None,
        shutdown,
        state: job::JobState::default(),
    };
    Box::pin(serve(&job, &serving)).await
}

/// Refuses a pipeline that the clone's own file does not define: Bitbucket would tell only when the machine
/// is there.
fn check_pipeline(config: &Config, runner: &RunnerSettings) -> Result<()> {
    let Some(run) = runner.run.as_ref().filter(|run| run.own_commit) else { return Ok(()) };
    let file = text_beneath(&config.clone_dir, Path::new("bitbucket-pipelines.yml")).unwrap_or_default();
    // Without a clone, or with a file that only Bitbucket understands, Bitbucket decides.
    let parsed: serde_json::Value = serde_saphyr::from_str(&file).unwrap_or_default();
    let Some(custom) = parsed["pipelines"]["custom"].as_object() else { return Ok(()) };
    if custom.contains_key(&run.name) {
        return Ok(());
    }
    let known = custom.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    Err(Error::new(format!("RUN_PIPELINE '{}' is no custom pipeline of bitbucket-pipelines.yml", run.name))
        .kind(Kind::Configuration)
        .hint(format!("name one of these: {known}")))
}

fn reachable(config: &Config) -> Result<Client> {
    full_client(config)?.ok_or_else(|| Error::new("Bitbucket cannot be reached without a token"))
}

async fn see_runners(config: &Config, runner: &RunnerSettings) -> Result<()> {
    reachable(config)?.runners_of(runner.level).await.map(drop)
}

/// A runner that is there, in the place of one of our own.
async fn use_it(name: &str, child: Option<&Child<'_>>, shutdown: &CancellationToken) -> Result<String> {
    info!("using the runner {name}, which is online with these labels");
    let Some(child) = child else { return Ok(format!("the runner {name} is online")) };
    let following = async {
        child.start().await?;
        child.follow(async |_| (), || None).await
    };
    let followed = unless_stopped(shutdown, "a pipeline ran", following).await;
    if followed.is_err()
        && let Err(error) = child.stop().await
    {
        warn!("{}", error.render());
    }
    child.verdict(&followed?)
}

async fn serve<C: Compute>(job: &Job<'_, C>, serving: &Serving<'_>) -> Result<String> {
    if job.found.is_empty() {
        // Before anything is rented for it.
        unless_stopped(job.shutdown, "registering the runner", serving.register()).await?;
    }
    // At once: the job's own end may take minutes.
    let stop = async {
        job.shutdown.cancelled().await;
        serving.stop_child().await;
        std::future::pending().await
    };
    let ran = tokio::select! {
        ran = job.run(serving) => ran,
        never = stop => never,
    };
    match ran {
        Ok(finished) if !finished.done.is_over => said(finished),
        Ok(finished) => {
            let (unregistered, cleaned) = tokio::join!(serving.unregister(), job.delete_run_resources());
            for error in [unregistered, cleaned].into_iter().filter_map(Result::err) {
                warn!("{}", error.render());
            }
            said(finished)
        }
        Err(error) if job.is_taken_over() => Err(error),
        Err(error) => {
            serving.stop_child().await;
            match serving.unregister().await {
                Ok(()) => Err(error),
                Err(left) => {
                    warn!("{}", left.render());
                    Err(error.leaves(format!(
                        "the runner {} in Bitbucket's list; ACTION: sweep removes it",
                        serving.new.name()
                    )))
                }
            }
        }
    }
}

fn said(finished: FinishedJob<Served>) -> Result<String> {
    if let Some(leftover) = finished.leftover {
        return Err(leftover.kind(Kind::Machine));
    }
    let cost = finished.cost.map(|cost| cost.in_words()).filter(|_| finished.done.is_over);
    let words = finished.done.words?;
    Ok(cost.map_or_else(|| words.clone(), |cost| format!("{words}; {cost}")))
}
