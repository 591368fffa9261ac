//! `ACTION: stop`: a run ended by a person.

use super::progress::{AttemptRecord, Outcome, ProgressFile};
use super::{DetachedRun, said};
use crate::job;
use tokio::sync::Mutex;
use tracing::{info, warn};
use trainspot_base::error::{Error, Kind, Result, chain};
use trainspot_compute::Compute;
use trainspot_compute::link::Agent;
use trainspot_protocol::{AgentCommand, Notice};

impl DetachedRun<'_> {
    /// Ends the run: its training with a last checkpoint, and then its machine.
    pub(super) async fn stop<C: Compute>(&self, compute: &C, file: &Mutex<ProgressFile>) -> Result<String> {
        let progress = file.lock().await.progress.clone();
        if let Some(outcome) = &progress.outcome {
            return said(&self.id, outcome);
        }
        if let Some(attempt) = progress.open_attempt() {
            match self.tell_to_end(compute, attempt).await {
                Ok(()) => self.await_last_words(compute, attempt, None).await?,
                Err(error) => warn!("the machine is not told, and is ended as it is: {}", chain(&error)),
            }
            self.close(compute, file, attempt, "the run was stopped").await?;
        }
        // A machine that a killed pipe has launched and not written down.
        for machine in compute.find(&self.id).await? {
            compute.terminate(&machine).await?;
        }
        let error = Error::new("the run was stopped by ACTION: stop").kind(Kind::Stopped);
        let training = self.training;
        let (error, is_saved) = self.salvage(file, error).await;
        training.publisher.report_failure(&error, &[], self.began.elapsed(), training.deadline).await;
        let left: Vec<_> = error.leftovers().map(ToString::to_string).collect();
        let words = if left.is_empty() { "nothing was saved".to_owned() } else { left.join("; ") };
        self.conclude(file, Outcome::Stopped(words.clone())).await?;
        if is_saved {
            self.clean_up(compute).await;
        }
        Ok(format!("done; the run {} is stopped: {words}", self.id))
    }

    async fn tell_to_end<C: Compute>(&self, compute: &C, attempt: &AttemptRecord) -> Result<()> {
        let link = compute.connect(&attempt.machine(), &self.launch_request()).await?;
        let notice = Notice { why: "the run is stopped".to_owned(), at: None };
        Agent::new(link, &job::owner()).ask(AgentCommand::PrepareToEnd(notice)).await?;
        info!("the training ends, with a last checkpoint");
        Ok(())
    }
}
