//! Waking a detached run: the machine has its custom pipeline started again, when the training is over or the
//! machine is about to be taken away.
//!
//! | way | what the machine needs | what the machine could do with it |
//! | --- | --- | --- |
//! | Bitbucket | a token, which lives in memory | start any pipeline of the repository |
//! | an event bus of AWS's | its instance profile | start this one pipeline: the bus's rule names it |
//!
//! One pipeline is enough, so the bus is asked only where Bitbucket was of no use. A pipeline may be started
//! twice all the same, since an event whose answer is lost is sent again: what a woken pipe does is decided
//! by the run's state and lease in its store.

mod event_bus;
#[cfg(test)]
mod test_server;
#[cfg(test)]
mod tests;

use std::time::Duration;
use trainspot_base::error::{Error, Result, chain};
use trainspot_base::log::{self, Secret};
use trainspot_base::retry::RetryPolicy;
use trainspot_bitbucket::{Client, Credential, DueRun, Patience, status_of};
use trainspot_protocol::{WakeSpec, WakeToken};
use trainspot_store::BucketCredentials;

/// How long one target or the bus is tried before the machine is taken away: all of them together, and the
/// last checkpoint before them, have the two minutes of EC2's notice.
const NOTICE_TOTAL: Duration = Duration::from_secs(20);
/// How long one target or the bus is tried when the training is over: the machine costs money meanwhile, but
/// less than a result that nobody fetches until the next sweep.
const ENDED_TOTAL: Duration = Duration::from_mins(5);
/// The longest wait for one answer of Bitbucket's, or for one attempt at the bus.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a run needs a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WakeReason {
    /// The training is over, and everything of it is in the store.
    Ended,
    /// The machine is about to be taken away.
    Notice,
}

impl WakeReason {
    /// The word for it in an event.
    #[must_use]
    fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Notice => "notice",
        }
    }

    /// The attempts at one way.
    fn attempts(self) -> RetryPolicy {
        RetryPolicy {
            attempts: u32::MAX,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(15),
            total: match self {
                Self::Ended => ENDED_TOTAL,
                Self::Notice => NOTICE_TOTAL,
            },
        }
    }
}

/// Has the custom pipeline of a run started, by the first of the spec's ways that works. Ends within 70 s on
/// a notice, and within 16 minutes otherwise.
///
/// # Errors
/// No way worked, or the spec has none. The error says of each way why, and shows no token.
pub(super) async fn wake(spec: &WakeSpec, run: &str, reason: WakeReason) -> Result<()> {
    let call = WakeCall { spec, run, reason, credentials: &BucketCredentials::InstanceProfile };
    call.run(reason.attempts()).await
}

/// One call to wake a run.
struct WakeCall<'a> {
    spec: &'a WakeSpec,
    run: &'a str,
    reason: WakeReason,
    /// Who the machine is to the event bus.
    credentials: &'a BucketCredentials,
}

impl WakeCall<'_> {
    async fn run(&self, attempts: RetryPolicy) -> Result<()> {
        let mut failures = Vec::new();
        if let Some(bitbucket) = &self.spec.bitbucket {
            // A server may repeat what it was sent, and the error leaves the machine.
            log::hide([Secret::new("WAKE_TOKEN", bitbucket.token.clone())]);
            match self.ask_bitbucket(bitbucket, attempts).await {
                Ok(()) => return Ok(()),
                Err(failure) => failures.push(failure),
            }
        }
        if let Some(bus) = &self.spec.bus {
            match event_bus::put(bus, self, attempts).await {
                Ok(()) => return Ok(()),
                Err(failure) => failures.push(failure),
            }
        }
        Err(self.explain(&failures))
    }

    async fn ask_bitbucket(&self, way: &WakeToken, attempts: RetryPolicy) -> Result<()> {
        let WakeSpec { workspace, repo_slug, .. } = self.spec;
        let credential = Credential::AccessToken(way.token.clone());
        let patience = Patience { request: REQUEST_TIMEOUT, attempts, rate_limit: Duration::ZERO };
        let client = Client::new(&way.api_url, workspace, repo_slug, credential)?.with_patience(patience);
        let run = DueRun {
            id: self.run,
            pipeline: &self.spec.pipeline,
            commit: &self.spec.commit,
            branch: self.spec.branch.as_deref(),
        };
        let started = client.wake_run(&run).await?;
        tracing::info!("woke the run by the pipeline {}: #{}", run.pipeline, started.number);
        Ok(())
    }

    fn explain(&self, failures: &[Error]) -> Error {
        let what = format!("cannot wake the run {}", self.run);
        if failures.is_empty() {
            return Error::new(what).source("there is neither a token for Bitbucket nor an event bus");
        }
        let refused = failures.iter().any(|failure| matches!(status_of(failure), Some(401 | 403)));
        let advice = format!(
            "check WAKE_TOKEN: Bitbucket must accept it, and it needs the scope pipeline:write on {}/{}",
            self.spec.workspace, self.spec.repo_slug
        );
        let reasons: Vec<String> = failures.iter().map(|failure| log::redact(&chain(failure))).collect();
        Error::new(what).source(reasons.join("; and ")).maybe_hint(refused.then_some(advice))
    }
}
