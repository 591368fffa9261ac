//! Spot machines that say that they are taken away, until their provider says so as well.
//!
//! A spot machine that its provider takes within its first hour is free, but every word of a machine may be
//! its training's. So no word of a machine closes its account: the machine costs until its provider has taken
//! it, or until this pipe ends it.

use super::Job;
use futures_util::future::join_all;
use std::cell::RefCell;
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{debug, warn};
use trainspot_base::error::chain;
use trainspot_base::log::progress::in_words;
use trainspot_compute::{Compute, Machine, MachineStatus};

/// The wait between two questions to the provider.
const PROVIDER_POLL_INTERVAL: Duration = Duration::from_secs(10);
/// How long the provider may take to answer a question: a machine that is to be ended must not live on
/// meanwhile.
const PROVIDER_ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long a provider may take to take a machine that says so. EC2 gives two minutes from its notice on.
const TAKING_LIMIT: Duration = Duration::from_mins(3);

/// The machines whose end is awaited, each with the time since when.
#[derive(Default)]
pub(super) struct Departures(RefCell<Vec<(Machine, Instant)>>);

impl Departures {
    /// Adds a machine whose end is awaited from now on.
    pub(super) fn add(&self, machine: &Machine) {
        self.forget(machine);
        self.0.borrow_mut().push((machine.clone(), Instant::now()));
    }

    fn forget(&self, machine: &Machine) {
        self.0.borrow_mut().retain(|(other, _)| other.id != machine.id);
    }

    fn has(&self, machine: &Machine) -> bool {
        self.0.borrow().iter().any(|(other, _)| other.id == machine.id)
    }

    /// The machines whose end is awaited.
    pub(super) fn machines(&self) -> Vec<Machine> {
        self.all().into_iter().map(|(machine, _)| machine).collect()
    }

    fn all(&self) -> Vec<(Machine, Instant)> {
        self.0.borrow().clone()
    }
}

impl<C: Compute> Job<'_, C> {
    /// Closes the account of each machine whose end is awaited when its provider has taken it, and ends one
    /// that its provider does not take. Never returns.
    pub(super) async fn watch_departures(&self) -> Infallible {
        loop {
            tokio::time::sleep(PROVIDER_POLL_INTERVAL).await;
            let awaited = self.state.departures.all();
            join_all(awaited.iter().map(|(machine, since)| self.await_end(machine, *since))).await;
        }
    }

    async fn await_end(&self, machine: &Machine, since: Instant) {
        match self.provider_status(machine).await {
            Some(MachineStatus::Reclaimed(_)) => _ = self.close_account(machine, true),
            Some(MachineStatus::Gone(_)) => _ = self.close_account(machine, false),
            _ if since.elapsed() < TAKING_LIMIT => {}
            _ => {
                let limit = in_words(TAKING_LIMIT);
                warn!(
                    "the machine {} said that it is taken away, but is there {limit} later: ending it",
                    machine.id
                );
                if let Err(error) = self.end(machine).await {
                    warn!("{}", chain(&error));
                    // It is tried again after another such time.
                    self.state.departures.add(machine);
                }
            }
        }
    }

    /// What the provider says of a machine now; none if the provider fails, or is slow.
    async fn provider_status(&self, machine: &Machine) -> Option<MachineStatus> {
        let sight = tokio::time::timeout(PROVIDER_ANSWER_LIMIT, self.compute.status(machine)).await;
        debug!("the machine {} says that it is taken away; its provider says: {sight:?}", machine.id);
        sight.ok()?.ok()
    }

    /// Whether a machine whose end is awaited was taken by its provider, as far as that is known now.
    pub(super) async fn is_reclaimed(&self, machine: &Machine) -> bool {
        self.state.departures.has(machine)
            && matches!(self.provider_status(machine).await, Some(MachineStatus::Reclaimed(_)))
    }

    /// Closes the account of a machine that is gone; `reclaimed` by its provider, or not. Tells whether the
    /// account was open.
    pub(super) fn close_account(&self, machine: &Machine, reclaimed: bool) -> bool {
        self.state.departures.forget(machine);
        self.ledger().close(machine, reclaimed)
    }
}
