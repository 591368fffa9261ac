//! `RUN_PIPELINE`: a custom pipeline run on the runner, its steps' logs shown, and its end.

use crate::config::runner::RunPipeline;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tracing::{info, warn};
use trainspot_base::error::{Error, Kind, Result, chain};
use trainspot_base::log::is_secret_name;
use trainspot_base::log::lines::Lines;
use trainspot_bitbucket::{
    Client, NewPipelineRun, PipelineOutcome, PipelineProgress, PipelineRun, PipelineStep, PipelineTarget,
    PipelineVariable, is_refusal,
};
use trainspot_compute::RunId;

/// Between two looks at its steps, which are two calls each: a minute after its start, and from the fifth on.
/// Bitbucket allows a thousand calls an hour.
const SHORTEST_LOOK: Duration = Duration::from_secs(1);
const LONGEST_LOOK: Duration = Duration::from_secs(15);
/// How often in a row Bitbucket may say that there is no such pipeline, or that the token may not see it.
const MOST_REFUSALS: u32 = 5;

/// The pipeline, of which each machine gets a run of its own.
pub(super) struct Child<'a> {
    bitbucket: &'a Client,
    pipeline: &'a RunPipeline,
    commit: Option<String>,
    /// By which its runs are known.
    run: RunId,
    /// The one that is followed.
    now: RefCell<Option<PipelineRun>>,
}

/// What is known of a step, and was shown of its log.
struct Shown {
    lines: Lines,
    offset: u64,
    progress: PipelineProgress,
    over: bool,
}

impl<'a> Child<'a> {
    pub(super) fn new(
        bitbucket: &'a Client,
        pipeline: &'a RunPipeline,
        commit: Option<String>,
        run: &RunId,
    ) -> Self {
        Self { bitbucket, pipeline, commit, run: run.clone(), now: RefCell::default() }
    }

    /// As people know it.
    pub(super) fn name(&self) -> String {
        let number = self.now.borrow().as_ref().map(|now| format!(" #{}", now.number));
        format!("{}{}", self.pipeline.name, number.unwrap_or_default())
    }

    /// Whether it is this one that is followed, by its id in braces.
    pub(super) fn is(&self, uuid: &str) -> bool {
        self.now.borrow().as_ref().is_some_and(|now| now.uuid == uuid)
    }

    /// Its last words, if a run of it has succeeded that a killed pipe began.
    pub(super) async fn has_succeeded(&self) -> Result<Option<String>> {
        let runs = self.bitbucket.runs_of(Some(&self.pipeline.name), self.run.as_str()).await?;
        let good = PipelineProgress::Over(PipelineOutcome::Successful);
        let Some(run) = runs.into_iter().find(|run| run.progress == good) else { return Ok(None) };
        *self.now.borrow_mut() = Some(run);
        self.verdict(&PipelineOutcome::Successful).map(Some)
    }

    /// Stops what runs of it: nobody follows it, or its runner is gone.
    pub(super) async fn stop(&self) -> Result<()> {
        // What is known surely; the list may tell of others.
        if let Some(now) = self.now.take() {
            self.bitbucket.stop_pipeline(&now.uuid).await?;
        }
        self.bitbucket.stop_runs_of(Some(&self.pipeline.name), self.run.as_str()).await
    }

    /// Starts it, unless a run of it is there that a killed pipe began, and that goes on or has succeeded
    /// unseen.
    pub(super) async fn start(&self) -> Result<()> {
        let name = &self.pipeline.name;
        let runs = self.bitbucket.runs_of(Some(name), self.run.as_str()).await?;
        let good = |run: &PipelineRun| match &run.progress {
            PipelineProgress::Over(outcome) => *outcome == PipelineOutcome::Successful,
            _ => true,
        };
        let there = runs.into_iter().find(good);
        let now = if let Some(there) = there {
            info!("the pipeline {name} is there already: #{}, {}", there.number, there.url);
            there
        } else {
            let started = self.bitbucket.run_pipeline(&self.new_run()).await?;
            info!(
                "started the pipeline {name} on {}: #{}, {}",
                self.pipeline.branch, started.number, started.url
            );
            started
        };
        *self.now.borrow_mut() = Some(now);
        Ok(())
    }

    fn new_run(&self) -> NewPipelineRun {
        let variables = self.pipeline.variables.iter();
        NewPipelineRun {
            pipeline: self.pipeline.name.clone(),
            target: PipelineTarget::Branch {
                name: self.pipeline.branch.clone(),
                commit: self.commit.clone().filter(|_| self.pipeline.own_commit),
            },
            variables: variables
                .map(|(key, value)| PipelineVariable {
                    key: key.clone(),
                    value: value.clone(),
                    secured: is_secret_name(key),
                })
                .collect(),
            id: format!("{}-{:08x}", self.run, fastrand::u32(..)),
        }
    }

    /// Shows its steps' logs until it is over. `is_over` gets the id of each step that is; `stop` may end it
    /// early.
    pub(super) async fn follow(
        &self,
        is_over: impl AsyncFn(&str),
        stop: impl Fn() -> Option<Error>,
    ) -> Result<PipelineOutcome> {
        let Some(PipelineRun { uuid, .. }) = self.now.borrow().clone() else {
            return Err(Error::new("no pipeline was started"));
        };
        let (start, mut shown, mut refused) = (Instant::now(), BTreeMap::new(), 0);
        loop {
            if let Some(error) = stop() {
                self.stop().await?;
                return Err(error);
            }
            match self.look(&uuid, &mut shown, &is_over).await {
                Ok(Some(outcome)) => return Ok(outcome),
                Ok(None) => refused = 0,
                Err(error) => {
                    // The pipeline goes on whether Bitbucket tells or not.
                    refused += u32::from(is_refusal(&error));
                    if refused == MOST_REFUSALS {
                        return Err(error);
                    }
                    warn!("{}; looking again", chain(&error));
                    tokio::time::sleep(LONGEST_LOOK).await;
                }
            }
            // Each step that runs is a call of its own.
            let running = shown.values().filter(|step| step.progress == PipelineProgress::Running).count();
            let look = (start.elapsed() / 20).clamp(SHORTEST_LOOK, LONGEST_LOOK);
            tokio::time::sleep(look * u32::try_from(running.max(1)).unwrap_or(1)).await;
        }
    }

    async fn look(
        &self,
        uuid: &str,
        shown: &mut BTreeMap<String, Shown>,
        is_over: &impl AsyncFn(&str),
    ) -> Result<Option<PipelineOutcome>> {
        let steps = self.bitbucket.steps(uuid).await?;
        for (number, step) in steps.iter().enumerate() {
            let seen = shown.entry(step.uuid.clone()).or_insert_with(Shown::new);
            self.show(uuid, (number, step), seen, is_over).await?;
        }
        if !steps.iter().all(|step| step.progress.is_over()) {
            return Ok(None);
        }
        match self.bitbucket.pipeline(uuid).await?.progress {
            PipelineProgress::Over(outcome) => Ok(Some(outcome)),
            _ => Ok(None),
        }
    }

    async fn show(
        &self,
        pipeline: &str,
        (number, step): (usize, &PipelineStep),
        seen: &mut Shown,
        is_over: &impl AsyncFn(&str),
    ) -> Result<()> {
        if seen.over {
            return Ok(());
        }
        let name = if step.name.is_empty() { format!("step {}", number + 1) } else { step.name.clone() };
        if seen.progress != step.progress && step.progress != PipelineProgress::Pending {
            info!("{name}: {}", in_words(&step.progress));
            seen.progress = step.progress.clone();
        }
        let over = step.progress.is_over();
        if over || step.progress == PipelineProgress::Running {
            loop {
                let tail = match self.bitbucket.log_from(pipeline, &step.uuid, seen.offset).await {
                    Ok(tail) => tail,
                    // The step's end matters more.
                    Err(error) => {
                        warn!("{}", chain(&error));
                        break;
                    }
                };
                seen.offset += tail.bytes.len() as u64;
                seen.lines.feed(&tail.bytes, Instant::now(), &mut trainspot_base::log::training);
                if !tail.more {
                    break;
                }
            }
        }
        if over {
            seen.over = true;
            seen.lines.finish(Instant::now(), &mut trainspot_base::log::training);
            is_over(&step.uuid).await;
        }
        Ok(())
    }

    /// The last words of a run that succeeds, or the error that an outcome is.
    pub(super) fn verdict(&self, outcome: &PipelineOutcome) -> Result<String> {
        let url = self.now.borrow().as_ref().map_or_else(String::new, |now| now.url.clone());
        let name = self.name();
        if *outcome == PipelineOutcome::Successful {
            return Ok(format!("the pipeline {name} succeeded: {url}"));
        }
        let how = outcome_in_words(outcome);
        Err(Error::new(format!("the pipeline {name} {how}"))
            .kind(if *outcome == PipelineOutcome::Stopped { Kind::Stopped } else { Kind::Training })
            .hint(format!("see {url}")))
    }
}

impl Shown {
    fn new() -> Self {
        Self {
            lines: Lines::new(Instant::now()),
            offset: 0,
            progress: PipelineProgress::Pending,
            over: false,
        }
    }
}

fn in_words(progress: &PipelineProgress) -> String {
    match progress {
        PipelineProgress::Pending => "waits".to_owned(),
        PipelineProgress::Running => "runs".to_owned(),
        PipelineProgress::Paused => "waits for somebody to go on with it by hand".to_owned(),
        PipelineProgress::Over(outcome) => outcome_in_words(outcome),
        PipelineProgress::Other(state) => format!("is in a state that is not known: {state}"),
    }
}

fn outcome_in_words(outcome: &PipelineOutcome) -> String {
    match outcome {
        PipelineOutcome::Successful => "succeeded".to_owned(),
        PipelineOutcome::Failed => "failed".to_owned(),
        PipelineOutcome::Error(why) if why.is_empty() => "could not be run".to_owned(),
        PipelineOutcome::Error(why) => format!("could not be run: {why}"),
        PipelineOutcome::Stopped => "was stopped".to_owned(),
        PipelineOutcome::Expired => "expired".to_owned(),
        PipelineOutcome::NotRun => "was not run".to_owned(),
        PipelineOutcome::Other(result) => format!("ended in a way that is not known: {result}"),
    }
}
