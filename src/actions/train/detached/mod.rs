//! A run whose step ends while its training goes on: the machine leaves everything in a store, and a later
//! pipeline comes back for it.
//!
//! Every pipe of a run does the same: it takes its turn, looks at what the run needs, and does that. So a
//! pipe may come twice, late, or go on where one was killed.

mod collect;
mod decision;
mod launch;
mod progress;
mod request;
mod standing;
mod stop;
mod turn;
mod waking;
mod words;
mod workload;

pub(in crate::actions) use standing::{Standing, standing};

use super::{TrainingFiles, TrainingRun};
use crate::actions::unless_stopped;
use crate::config::{Config, Detach, StoreSettings};
use crate::step::run_id;
use decision::{Need, need};
use progress::{AttemptRecord, Outcome, ProgressFile, Visit, now};
use request::RunRequest;
use secrecy::SecretString;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use trainspot_base::error::{Context as _, Error, Kind, Result};
use trainspot_base::log::one_line;
use trainspot_base::log::progress::in_words;
use trainspot_compute::{Compute, RunId};
use trainspot_detached::{RunFolder, check_version, read_exit};
use trainspot_protocol::{FileSelection, StoreAccess, StoreKeys};
use trainspot_store::{BucketCredentials, Store};
use turn::Turns;
use words::MachineWords;

/// How long a pipe waits for the last words of a machine beyond the moment at which the machine was to be
/// gone.
const LAST_WORDS_LIMIT: Duration = Duration::from_mins(1);
/// How often those words are looked for.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How many steps one pipe does for a run. A run that always needs something else is one that nobody foresaw.
const STEP_LIMIT: u32 = 20;

/// A detached run, as one of its pipes sees it.
pub(super) struct DetachedRun<'a> {
    training: &'a TrainingRun<'a>,
    detach: &'a Detach,
    id: RunId,
    store: Store,
    folder: RunFolder,
    max_cost: Option<f64>,
    began: Instant,
}

/// What one step for a run has come to.
enum Step {
    /// The run needs another look.
    Again,
    /// This pipe is done: its last line.
    Done(String),
}

/// What a pipe comes for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Errand {
    /// To do what the run needs.
    GoOn,
    /// To stop the run.
    Stop,
}

/// Comes back for the run that `config` names, with the configuration that its first pipe had.
pub(in crate::actions) async fn come_back(config: &Config, shutdown: &CancellationToken) -> Result<String> {
    visit(config, shutdown, Errand::GoOn).await
}

/// `ACTION: stop`: ends the run that `config` names, with a last checkpoint.
pub(in crate::actions) async fn stop(config: &Config, shutdown: &CancellationToken) -> Result<String> {
    visit(config, shutdown, Errand::Stop).await
}

async fn visit(config: &Config, shutdown: &CancellationToken, errand: Errand) -> Result<String> {
    let (Some(id), Some(settings), Some(woken)) = (&config.run, &config.store, &config.woken) else {
        return Err(Error::new("there is nothing to train"));
    };
    let store = Store::open(&settings.address, &settings.access)?;
    let folder = folder_of(config, id)?;
    let looked = async {
        check_version(&store).await?;
        RunRequest::read(&store, &folder).await
    };
    let request =
        unless_stopped(shutdown, "looking for the run", looked).await?.ok_or_else(|| no_such_run(id))?;
    let recorded = Config::load_recorded(&request.environment, woken)
        .map_err(|problems| Error::new(problems.to_string()).kind(Kind::Configuration))?;
    trainspot_base::log::hide(recorded.secrets.iter().cloned());
    recorded.warnings.iter().for_each(|warning| warn!("{warning}"));
    let differences = request.secrets.compare(&recorded);
    for name in &differences.changed {
        warn!("{name} is not what it was when the run began");
    }
    for name in &differences.missing {
        warn!("{name} is missing here, and the run began with it: no other machine is rented without it");
    }
    Box::pin(super::run_for(&recorded, shutdown, errand)).await
}

fn no_such_run(id: &RunId) -> Error {
    Error::new(format!("the store has no run {id} of this repository"))
        .kind(Kind::Configuration)
        .hint("leave RUN empty to begin a run; ACTION: status lists the runs")
}

fn folder_of(config: &Config, id: &RunId) -> Result<RunFolder> {
    let name = |part: &Option<String>| part.clone().unwrap_or_default();
    RunFolder::new(&name(&config.pipeline.workspace), &name(&config.pipeline.repo_slug), id.as_str())
}

/// Does what the run needs now. The answer is the pipe's last line.
pub(super) async fn act<C: Compute>(
    training: &TrainingRun<'_>,
    detach: &Detach,
    compute: &C,
    max_cost: Option<f64>,
    files: &TrainingFiles,
) -> Result<String> {
    let run = DetachedRun::new(training, detach, max_cost)?;
    check_version(&run.store).await?;
    let holder = training.config.pipeline.url().unwrap_or_else(|| "a pipe on another host".to_owned());
    let turns = Turns { store: &run.store, folder: &run.folder, holder: &holder };
    let acted = turns.take(async || run.take_turn(compute, files).await).await?;
    Ok(acted.unwrap_or_else(|| format!("done; another pipeline acts on the run {}", run.id)))
}

impl<'a> DetachedRun<'a> {
    fn new(training: &'a TrainingRun<'a>, detach: &'a Detach, max_cost: Option<f64>) -> Result<Self> {
        let id = run_id(training.config);
        Ok(Self {
            training,
            detach,
            store: Store::open(&detach.store.address, &detach.store.access)?,
            folder: folder_of(training.config, &id)?,
            id,
            max_cost,
            began: Instant::now(),
        })
    }

    /// The files that the machine sends once the training has ended well.
    fn outputs(&self) -> FileSelection {
        super::collect::wanted(self.training.config)
    }

    /// The store as the machine reaches it.
    fn access(&self) -> StoreAccess {
        let StoreSettings { address, access, account } = &self.detach.store;
        let keys = match &access.credentials {
            // A rented machine has its profile's. The pipe's own stay here.
            _ if account.is_some() => None,
            BucketCredentials::InstanceProfile => None,
            BucketCredentials::Keys { id, secret, session_token } => Some(StoreKeys {
                id: id.clone(),
                secret: secret.clone(),
                session_token: session_token.clone(),
            }),
        };
        let (region, endpoint) = (access.region.clone(), access.endpoint.clone());
        StoreAccess { address: address.to_string(), region, endpoint, keys }
    }

    async fn take_turn<C: Compute>(&self, compute: &C, files: &TrainingFiles) -> Result<String> {
        let mut request = RunRequest::read(&self.store, &self.folder).await?;
        let mut read = ProgressFile::read(&self.store, &self.folder).await?;
        if read.progress.outcome.is_some() && self.training.config.run.is_none() {
            // The step is run again to try again.
            self.remove_everything().await?;
            (request, read) = (None, ProgressFile::read(&self.store, &self.folder).await?);
        }
        let request = match request {
            Some(request) => request,
            None => self.begin(compute, files).await?,
        };
        let own = self.training.publisher.checkout.commit();
        if request.commit != own {
            return Err(Error::new(format!(
                "the run {} is of commit {}, and this clone is at {own}",
                self.id, request.commit
            ))
            .kind(Kind::Configuration)
            .hint("run the pipeline on the run's commit"));
        }
        let file = Mutex::new(read);
        let visit = Visit { pipeline: self.training.config.pipeline.url(), at: now(), seconds: None };
        let mut progress = file.lock().await;
        progress.progress.visits.push(visit);
        progress.save().await?;
        drop(progress);
        let done = match self.training.errand {
            Errand::GoOn => self.act(compute, &request, &file, files).await,
            Errand::Stop => self.stop(compute, &file).await,
        };
        let mut progress = file.lock().await;
        if let Some(visit) = progress.progress.visits.last_mut() {
            visit.seconds = Some(self.began.elapsed().as_secs());
        }
        match (done, progress.save().await) {
            (Ok(words), saved) => saved.map(|()| words),
            (Err(error), Ok(())) => Err(error),
            (Err(error), Err(unsaved)) => {
                warn!("{}", unsaved.render());
                Err(error)
            }
        }
    }

    /// Checks a new run as any other, and writes it down.
    async fn begin<C: Compute>(&self, compute: &C, files: &TrainingFiles) -> Result<RunRequest> {
        if self.training.config.run.is_some() {
            return Err(no_such_run(&self.id));
        }
        let checks = async { tokio::try_join!(self.training.publisher.check_access(), compute.prepare()) };
        let (seen, ()) = unless_stopped(self.training.shutdown, "looking at the remote", checks).await?;
        info!("the run is {}", self.id);
        self.write_down(seen, &files.workspace).await
    }

    async fn act<C: Compute>(
        &self,
        compute: &C,
        request: &RunRequest,
        file: &Mutex<ProgressFile>,
        files: &TrainingFiles,
    ) -> Result<String> {
        for _ in 0..STEP_LIMIT {
            let step = self.step(compute, request, file, files);
            if let Step::Done(words) = step.await? {
                return Ok(words);
            }
        }
        Err(Error::new(format!("the run {} needed {STEP_LIMIT} steps in a row, and is not done", self.id)))
    }

    async fn step<C: Compute>(
        &self,
        compute: &C,
        request: &RunRequest,
        file: &Mutex<ProgressFile>,
        files: &TrainingFiles,
    ) -> Result<Step> {
        let progress = file.lock().await.progress.clone();
        let words = match progress.open_attempt() {
            Some(attempt) => MachineWords::read(&self.store, &self.folder.machine(&attempt.folder)?).await?,
            None => MachineWords::default(),
        };
        match need(&progress, &words) {
            Need::Nothing(outcome) => said(&self.id, outcome).map(Step::Done),
            Need::Patience(attempt) | Need::Look(attempt) if launch::is_gone(compute, attempt).await => {
                self.close_unless_ended(compute, file, attempt, "it is gone without a last word").await
            }
            Need::Patience(attempt) => Ok(Step::Done(self.still_training(attempt, &words))),
            // A silent one is taken over if it answers, and ended if it does not.
            Need::Machine | Need::Look(_) => self.launch(compute, request, file, files).await,
            Need::Successor(attempt, notice) => {
                info!("{} is about to be taken away: {}", attempt.description, notice.why);
                self.await_last_words(compute, attempt, notice.at).await?;
                self.close_unless_ended(compute, file, attempt, &notice.why).await
            }
            Need::Continuation(attempt) => self.close(compute, file, attempt, "it was interrupted").await,
            Need::Publication(attempt) => {
                let published = self.publish(compute, request, file, (attempt, &words)).await?;
                Ok(Step::Done(published))
            }
            Need::Report(attempt) => self.report(compute, file, (attempt, &words)).await.map(Step::Done),
        }
    }

    /// Lets the commit show that the training runs.
    async fn announce(&self, attempt: &AttemptRecord) {
        let description = format!("run {} trains on {}", self.id, attempt.description);
        self.training.publisher.announce_running(&description, self.training.deadline).await;
    }

    /// What DVC is to keep, as the machine reads it.
    fn store_request(&self) -> Result<Option<SecretString>> {
        let request = self.training.store_plan.map(|plan| serde_json::to_string(plan.request()));
        Ok(request.transpose().context("cannot say what DVC is to keep")?.map(SecretString::from))
    }

    fn still_training(&self, attempt: &AttemptRecord, words: &MachineWords) -> String {
        if let Some(trouble) = words.state.as_ref().and_then(|(state, _)| state.trouble.as_ref()) {
            warn!("the machine says: {}", one_line(trouble));
        }
        let since = words.state.as_ref().map_or(0.0, |(state, _)| state.seconds);
        let trained = in_words(Duration::try_from_secs_f64(since).unwrap_or_default());
        let checkpoint = words.state.as_ref().and_then(|(state, _)| state.stored_checkpoint);
        let checkpoint =
            checkpoint.map_or_else(String::new, |number| format!(", checkpoint {number} is in the store"));
        format!(
            "done; the training of run {} goes on: {} for {trained}{checkpoint}",
            self.id, attempt.description
        )
    }

    /// Waits until a machine that is about to be taken away has said how its training ended, or is gone.
    /// `at` is when it goes, in seconds since 1970.
    async fn await_last_words<C: Compute>(
        &self,
        compute: &C,
        attempt: &AttemptRecord,
        at: Option<u64>,
    ) -> Result<()> {
        let folder = self.folder.machine(&attempt.folder)?;
        let left = Duration::from_secs(at.unwrap_or_default().saturating_sub(now()));
        let give_up = Instant::now() + left.min(Duration::from_hours(1)) + LAST_WORDS_LIMIT;
        while Instant::now() < give_up && read_exit(&self.store, &folder).await?.is_none() {
            if launch::is_gone(compute, attempt).await {
                break;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// Closes a machine that is gone, unless it has said at last how its training ended.
    async fn close_unless_ended<C: Compute>(
        &self,
        compute: &C,
        file: &Mutex<ProgressFile>,
        attempt: &AttemptRecord,
        why: &str,
    ) -> Result<Step> {
        if read_exit(&self.store, &self.folder.machine(&attempt.folder)?).await?.is_some() {
            return Ok(Step::Again);
        }
        self.close(compute, file, attempt, why).await
    }

    /// Ends a machine on which the training does not go on, and writes down what it left.
    async fn close<C: Compute>(
        &self,
        compute: &C,
        file: &Mutex<ProgressFile>,
        attempt: &AttemptRecord,
        why: &str,
    ) -> Result<Step> {
        let is_reclaimed = launch::end(compute, attempt).await?;
        // After its end: what it may still have said counts.
        let words = MachineWords::read(&self.store, &self.folder.machine(&attempt.folder)?).await?;
        let mut file = file.lock().await;
        if let Some(open) = file.progress.attempts.last_mut().filter(|open| open.folder == attempt.folder) {
            open.close(why, Some(&words));
            if let Some(end) = &mut open.end {
                end.is_reclaimed = is_reclaimed;
            }
        }
        file.save().await?;
        info!("{} is closed: {why}", attempt.description);
        Ok(Step::Again)
    }
}

/// The last line of a pipe that comes for a run that is over.
fn said(id: &RunId, outcome: &Outcome) -> Result<String> {
    match outcome {
        Outcome::Published(words) => Ok(format!("nothing to do; the run {id} is over: {words}")),
        Outcome::Stopped(words) => Ok(format!("nothing to do; the run {id} was stopped: {words}")),
        Outcome::Failed(why, code) => {
            let kind =
                Kind::ALL.into_iter().find(|kind| kind.exit_code() == *code).unwrap_or(Kind::Unexpected);
            Err(Error::new(format!("the run {id} is over, and has failed")).source(why.clone()).kind(kind))
        }
    }
}
