//! A training whose pipe goes: what the training leaves is sent to a store, beside the training and after its
//! end.
//!
//! The supervisor's loop must not wait, so everything that waits for a network is on a thread of its own. The
//! two share [`Exchange`].

mod last_words;
mod report;
mod restore;

pub(super) use restore::restore;

use super::home::Home;
use report::Report;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use trainspot_base::error::{Context as _, Error, Result};
use trainspot_base::mutex::lock;
use trainspot_protocol::{AgentStatus, CommandState, DetachedSpec};

/// How often the thread is told of the status where nothing of importance changes.
const UPDATE_INTERVAL: Duration = Duration::from_secs(1);

/// What the supervisor and the thread tell each other.
struct Exchange {
    status: watch::Sender<AgentStatus>,
    started: Instant,
    /// Whether everything of the training is in the store, or never will be.
    is_done: AtomicBool,
    /// How long the longest checkpoint took on its way to the store, in milliseconds.
    longest_transfer_ms: AtomicU64,
    /// What went wrong last, until something goes well.
    trouble: Mutex<Option<String>>,
}

/// The thread that sends to the store, as the supervisor sees it.
pub(super) struct Reporter {
    exchange: Arc<Exchange>,
    cost_limit: Option<Duration>,
    updated: Instant,
    is_released: bool,
}

impl Reporter {
    /// Starts the thread, before the training starts.
    ///
    /// # Errors
    /// The store's address is none, or there can be no more threads.
    pub(super) fn start(home: &Home, spec: &DetachedSpec) -> Result<Self> {
        let exchange = Arc::new(Exchange {
            status: watch::Sender::new(AgentStatus::with_state(CommandState::Idle)),
            started: Instant::now(),
            is_done: AtomicBool::new(false),
            longest_transfer_ms: AtomicU64::new(0),
            trouble: Mutex::default(),
        });
        let report = Report::new(home, spec, Arc::clone(&exchange))?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
        thread::Builder::new()
            .name("report".to_owned())
            .spawn(move || runtime.block_on(report.run()))
            .context("cannot start the thread that reports")?;
        let updated = Instant::now();
        Ok(Self { exchange, cost_limit: spec.cost_limit, updated, is_released: false })
    }

    /// Whether the status is to be told now.
    pub(super) fn is_due(&self) -> bool {
        self.updated.elapsed() >= UPDATE_INTERVAL
    }

    /// Tells the thread of the status.
    pub(super) fn update(&mut self, status: AgentStatus) {
        self.updated = Instant::now();
        self.exchange.status.send_if_modified(|told| {
            let is_new = *told != status;
            *told = status;
            is_new
        });
    }

    /// Lets the pipe go: its silence counts no more.
    pub(super) fn release(&mut self) {
        self.is_released = true;
    }

    /// Whether the pipe has gone as it was to.
    pub(super) fn is_released(&self) -> bool {
        self.is_released
    }

    /// Whether everything of the training is in the store, or never will be: the machine is of no more use.
    pub(super) fn is_done(&self) -> bool {
        self.exchange.is_done.load(Ordering::Acquire)
    }

    /// Whether a training that has run for so long has cost what it may.
    pub(super) fn is_over_cost(&self, trained: Duration) -> bool {
        self.cost_limit.is_some_and(|limit| trained >= limit)
    }

    /// What goes wrong between the machine and the store, if something does.
    pub(super) fn trouble(&self) -> Option<String> {
        lock(&self.exchange.trouble).clone()
    }

    /// How long the longest checkpoint took on its way to the store.
    pub(super) fn longest_transfer(&self) -> Duration {
        Duration::from_millis(self.exchange.longest_transfer_ms.load(Ordering::Relaxed))
    }
}

/// The refusal of a store's words that cannot be what a pipe of this version says.
fn unreadable(what: &str) -> Error {
    Error::new(format!("cannot read {what}"))
}
