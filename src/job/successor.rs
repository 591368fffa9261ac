//! The next machine, acquired while the present one still works.

use super::heartbeat::HEARTBEAT_INTERVAL;
use super::machines::ConnectedMachine;
use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::watch;
use tracing::{debug, info};
use trainspot_base::error::{Error, Result, chain};
use trainspot_compute::Compute;
use trainspot_compute::link::Agent;
use trainspot_protocol::{AgentCommand, Notice};

/// The wait between two requests for a spot machine from one on demand. Each is a call to AWS, and
/// checkpoints may come every second.
const SPOT_REQUEST_INTERVAL: Duration = Duration::from_mins(2);

/// The request for the next machine, under way.
pub(super) type PendingMachine<'a, C> = Pin<Box<dyn Future<Output = Result<ConnectedMachine<C>>> + 'a>>;

/// The next machine, asked for as soon as the present one is about to be taken away, or is to be left for a
/// cheaper one.
pub(super) struct Successor<'a, C: Compute> {
    asking: Option<PendingMachine<'a, C>>,
    arrived: Option<Result<ConnectedMachine<C>>>,
    /// The present machine was told to leave for this one, though nobody takes it away.
    is_cheaper: bool,
}

impl<'a, C: Compute> Successor<'a, C> {
    pub(super) fn none() -> Self {
        Self { asking: None, arrived: None, is_cheaper: false }
    }

    /// Waits for the notice, then gets the machine. Never returns; what is reached so far is kept when it is
    /// dropped.
    pub(super) async fn follow_notice(
        &mut self,
        mut notice: watch::Receiver<Option<Notice>>,
        ask: impl FnOnce(&Notice) -> Option<PendingMachine<'a, C>>,
    ) -> Infallible {
        if let Ok(notice) = notice.wait_for(Option::is_some).await
            && let Some(notice) = notice.as_ref()
        {
            self.asking = ask(notice);
        }
        if let Some(asking) = &mut self.asking {
            self.arrived = Some(asking.await);
            self.asking = None;
        }
        let Some(Ok(next)) = &self.arrived else { std::future::pending().await };
        loop {
            keep_alive(next).await;
        }
    }

    /// Asks for a spot machine each time that a checkpoint has arrived, and has the `present` machine on
    /// demand leave for it: what a training loses that does not heed SIGTERM is then no more than the new
    /// machine's boot. Never returns.
    pub(super) async fn go_back_to_spot(
        &mut self,
        mut fetched: watch::Receiver<u64>,
        present: &Agent<C::Link>,
        ask: impl Fn() -> PendingMachine<'a, C>,
    ) -> Infallible {
        while self.arrived.is_none() {
            if fetched.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            match self.asking.insert(ask()).await {
                Ok(next) => self.arrived = Some(Ok(next)),
                Err(error) => {
                    debug!("no spot machine now: {}", chain(&error));
                    self.asking = None;
                    tokio::time::sleep(SPOT_REQUEST_INTERVAL).await;
                    fetched.mark_unchanged();
                }
            }
        }
        self.asking = None;
        let Some(Ok(next)) = &self.arrived else { std::future::pending().await };
        info!("there is a spot machine: the training leaves the one on demand, with a last checkpoint");
        self.is_cheaper = true;
        let mut told = false;
        loop {
            if !told {
                let notice = Notice { why: "spot machines are to be had again".to_owned(), at: None };
                told = present.ask(AgentCommand::PrepareToEnd(notice)).await.is_ok();
            }
            keep_alive(next).await;
        }
    }

    /// Whether the present machine was left for a cheaper one.
    pub(super) fn is_cheaper(&self) -> bool {
        self.is_cheaper
    }

    /// The next machine, if it is up already.
    pub(super) fn into_arrived(self) -> Option<ConnectedMachine<C>> {
        self.arrived?.ok()
    }

    /// Waits for the next machine; none if it was never asked for.
    pub(super) async fn wait(self) -> Option<Result<ConnectedMachine<C>>> {
        match (self.arrived, self.asking) {
            (Some(arrived), _) => Some(arrived),
            (None, Some(asking)) => Some(asking.await),
            (None, None) => None,
        }
    }
}

/// A sign of life to a machine that waits for the present one's end, which may take longer than its grace.
async fn keep_alive<C: Compute>(next: &ConnectedMachine<C>) {
    if let Err(error) = next.agent.ask(AgentCommand::Heartbeat).await {
        debug!("the next machine does not answer: {}", chain(&Error::from(error)));
    }
    tokio::time::sleep(HEARTBEAT_INTERVAL).await;
}
