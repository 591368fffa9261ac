//! Runs of trainspot's own job over a trace: its rounds, its limits, its notices and its bill.

use super::provider::{Provider, SAVING};
use super::{Case, Outcome, SET_UP};
use crate::job::tests::job;
use crate::job::{AttemptEnd, ConnectedMachine, Cost, Job, Workload};
use std::cell::{Cell, RefCell};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use trainspot_base::clock::stated_fraction;
use trainspot_base::error::{Error, Result};
use trainspot_compute::Machine;
use trainspot_compute::aws::Purchase;
use trainspot_compute::link::Agent;
use trainspot_ec2::rounds::Rounds;
use trainspot_protocol::AgentStatus;

/// How trainspot is set up.
#[derive(Clone, Copy)]
pub(super) struct Settings {
    pub(super) purchase: Purchase,
    pub(super) max_restarts: u32,
    pub(super) capacity_wait: Duration,
    pub(super) spot_wait: Duration,
    /// Whether the training saves on SIGTERM.
    pub(super) heeds: bool,
}

/// A training that is no more than its times.
struct Training<'a> {
    provider: &'a Provider,
    case: &'a Case,
    heeds: bool,
    /// How far the newest checkpoint is, and how many came.
    saved: Cell<f64>,
    brought: Cell<u64>,
    /// The newest of the present machine.
    newest: RefCell<(String, u64)>,
}

impl Training<'_> {
    fn save(&self, done: f64) {
        self.saved.set(self.saved.get().max(done));
        self.brought.set(self.brought.get() + 1);
    }
}

impl Workload<Provider> for Training<'_> {
    type Done = ();

    const STOPPED_MESSAGE: &'static str = "stopped";
    const PROGRESS_WORDS: &'static str = "";
    const RESTART_HINT: &'static str = "";

    fn fingerprint(&self) -> &'static str {
        ""
    }

    fn must_not_terminate(&self, _: Option<&AgentStatus>) -> Option<Error> {
        None
    }

    async fn run_on(
        &self,
        _: &Job<'_, Provider>,
        reached: &ConnectedMachine<Provider>,
    ) -> Result<AttemptEnd<()>> {
        let (provider, machine) = (self.provider, &reached.machine);
        tokio::time::sleep(stated_fraction(SET_UP)).await;
        provider.start(machine, self.saved.get());
        loop {
            let changed = provider.news.notified();
            let server = provider.server(machine);
            let Some((started, done)) = server.started else { continue };
            let (end, stop) = (started + self.case.work - done, server.stop().max(started));
            let next = end.min(stop + SAVING);
            if next >= server.gone {
                // Its loss ends this part.
                return std::future::pending().await;
            }
            tokio::select! {
                () = provider.until(next) => {
                    if end <= stop + SAVING {
                        return Ok(AttemptEnd::Done(()));
                    }
                    if self.heeds {
                        self.save(server.done_at(stop));
                    }
                    return Ok(AttemptEnd::Interrupted("told to leave".to_owned()));
                }
                () = changed => {}
            }
        }
    }

    async fn fetch_checkpoint(&self, _: &Agent<Provider>, machine: &Machine, number: u64) -> Result<bool> {
        let mut newest = self.newest.borrow_mut();
        if newest.0 == machine.id && newest.1 >= number {
            return Ok(false);
        }
        *newest = (machine.id.clone(), number);
        let done = self.provider.server(machine).started.map_or(0.0, |(_, done)| done);
        self.save(done + number as f64 * self.case.interval);
        Ok(true)
    }

    fn on_machine_lost(&self, _: Option<Cost>) {}

    fn progress(&self) -> u64 {
        self.brought.get()
    }

    fn time_left(&self) -> Duration {
        Duration::MAX
    }

    fn salvage(&self, error: Error) -> Error {
        error
    }
}

/// One run, in a runtime of its own whose clock moves on as soon as nothing happens.
pub(super) fn run(case: &Case, settings: Settings, offset: f64, seed: u64) -> Outcome {
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(run_once(case, settings, (offset, seed)))
}

async fn run_once(case: &Case, settings: Settings, start: (f64, u64)) -> Outcome {
    let Settings { purchase, capacity_wait, spot_wait, .. } = settings;
    let rounds = Rounds { purchase, regions: 1, spot_wait, capacity_wait };
    let provider = Provider::new((case.trace, case.zones.clone()), rounds, case.interval, start);
    let training = Training {
        provider: &provider,
        case,
        heeds: settings.heeds,
        saved: Cell::default(),
        brought: Cell::default(),
        newest: RefCell::default(),
    };
    let shutdown = CancellationToken::new();
    let job = Job {
        max_restarts: settings.max_restarts,
        returns_to_spot: purchase == Purchase::SpotThenOnDemand,
        ..job(&provider, &shutdown)
    };
    let result = job.run(&training).await;
    let now = provider.now();
    let servers = provider.world().servers.clone();
    let held: f64 = servers.iter().map(|server| server.end().min(now) - server.launched).sum();
    let trained: f64 = servers
        .iter()
        .filter_map(|server| {
            let (started, _) = server.started?;
            Some((server.end().min(server.stop()).min(now) - started).max(0.0))
        })
        .sum();
    let cost = job.ledger().cost().map_or(0.0, |cost| cost.total());
    Outcome {
        ended: result.is_ok(),
        cost,
        took: now - start.0,
        waited: now - start.0,
        idle: if held > 0.0 { 1.0 - trained / held } else { 0.0 },
        checkpoints: training.brought.get(),
    }
}
