//! What the thread does that sends to the store: a heartbeat, and beside it log, checkpoints and, once the
//! training is over, all the rest.

use super::super::checkpoint;
use super::super::home::Home;
use super::super::wake::{WakeReason, wake};
use super::Exchange;
use super::last_words::{LastWords, TROUBLE_LIMIT_CHARS};
use std::cell::Cell;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use trainspot_base::error::{Context as _, Error, Result, chain};
use trainspot_base::mutex::lock;
use trainspot_detached::{
    FileSender, LogSender, MachineExit, MachineFolder, MachineState, open_store, write_exit, write_state,
};
use trainspot_protocol::{AgentStatus, CommandExit, CommandState, DetachedSpec};
use trainspot_store::Store;

/// How often the machine's state is written: by its age a pipe tells a machine that lives from one that is
/// gone. Each writing costs $0.000005, so that a day costs 1.4 cents.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(30);
/// How often the log is looked at for what is new.
const LOG_INTERVAL: Duration = Duration::from_secs(30);
/// The wait after a store that did not take something, which its client has tried for long.
const RETRY_WAIT: Duration = Duration::from_secs(10);
/// For how long after the training's end a store is waited for that does not answer. What is on the disk is
/// lost with the machine, and the machine costs money.
const STORE_PATIENCE: Duration = Duration::from_hours(6);

/// What a machine says of itself to its store.
pub(super) struct Report {
    home: Home,
    spec: DetachedSpec,
    store: Store,
    machine: MachineFolder,
    exchange: Arc<Exchange>,
    stored_checkpoint: Cell<Option<u64>>,
    /// How long the training had run when that checkpoint was found complete.
    stored_seconds: Cell<Option<f64>>,
}

/// What has gone to the store already.
struct Senders {
    files: FileSender,
    log: LogSender,
}

impl Report {
    pub(super) fn new(home: &Home, spec: &DetachedSpec, exchange: Arc<Exchange>) -> Result<Self> {
        Ok(Self {
            home: home.clone(),
            spec: spec.clone(),
            store: open_store(&spec.store)?,
            machine: MachineFolder::at(&spec.folder)?,
            exchange,
            stored_checkpoint: Cell::new(None),
            stored_seconds: Cell::new(None),
        })
    }

    /// Reports until everything of the training is in the store, or the store was waited for in vain.
    pub(super) async fn run(self) {
        tokio::select! {
            () = self.send_everything() => {}
            never = self.beat() => match never {},
            never = self.wake_on_notice() => match never {},
        }
        self.exchange.is_done.store(true, Ordering::Release);
    }

    /// Writes the machine's state at once, when it changes, and at every interval.
    async fn beat(&self) -> Infallible {
        let (mut number, mut status) = (0, self.exchange.status.subscribe());
        loop {
            let state = MachineState {
                number,
                status: status.borrow_and_update().clone(),
                stored_checkpoint: self.stored_checkpoint.get(),
                stored_seconds: self.stored_seconds.get(),
                log_bytes: std::fs::metadata(self.home.log()).map_or(0, |log| log.len()),
                seconds: self.exchange.started.elapsed().as_secs_f64(),
                trouble: lock(&self.exchange.trouble).clone(),
            };
            match write_state(&self.store, &self.machine, &state).await {
                Ok(()) => number += 1,
                Err(error) => self.note(&error),
            }
            timeout(HEARTBEAT_INTERVAL, status.changed()).await.ok();
        }
    }

    async fn send_everything(&self) {
        let mut senders = Senders {
            files: FileSender::new(self.store.clone(), self.machine.clone()),
            log: LogSender::new(self.store.clone(), self.machine.clone()),
        };
        let exit = self.follow_training(&mut senders).await;
        let ended = Instant::now();
        while let Err(error) = self.finish(&exit, &mut senders).await {
            self.note(&error);
            if ended.elapsed() >= STORE_PATIENCE {
                tracing::error!("the store was waited for in vain: what the training made is lost");
                return;
            }
            tokio::time::sleep(RETRY_WAIT).await;
        }
        self.wake(WakeReason::Ended).await;
    }

    /// Has the next machine asked for once this one is about to be taken away.
    async fn wake_on_notice(&self) -> Infallible {
        let is_announced = |status: &AgentStatus| {
            let is_going = status.notice.as_ref().is_some_and(|notice| notice.at.is_some());
            is_going && status.state == CommandState::Running
        };
        if self.exchange.status.subscribe().wait_for(is_announced).await.is_ok() {
            self.wake(WakeReason::Notice).await;
        }
        std::future::pending().await
    }

    async fn wake(&self, reason: WakeReason) {
        let Some(wake_spec) = &self.spec.wake else { return };
        if let Err(error) = wake(wake_spec, &self.spec.run, reason).await {
            self.note(&error);
            // For the heartbeat, which tells of it.
            self.exchange.status.send_modify(|_| {});
        }
    }

    /// Sends log and checkpoints as there are new ones, until the training is over.
    async fn follow_training(&self, senders: &mut Senders) -> CommandExit {
        let mut status = self.exchange.status.subscribe();
        let mut log_sent: Option<Instant> = None;
        loop {
            let now = status.borrow_and_update().clone();
            if let CommandState::Ended(exit) = now.state {
                return exit;
            }
            let mut sent = self.send_checkpoint(now.checkpoint, &mut senders.files).await;
            if log_sent.is_none_or(|sent| sent.elapsed() >= LOG_INTERVAL) {
                log_sent = Some(Instant::now());
                sent = sent.and(senders.log.send(&self.home.log()).await);
            }
            let wait = match sent {
                Ok(()) => {
                    lock(&self.exchange.trouble).take();
                    LOG_INTERVAL
                }
                Err(error) => {
                    self.note(&error);
                    RETRY_WAIT
                }
            };
            timeout(wait, status.changed()).await.ok();
        }
    }

    /// Sends the machine's newest checkpoint, unless the store has it.
    async fn send_checkpoint(&self, newest: Option<u64>, files: &mut FileSender) -> Result<()> {
        let Some(number) = newest.filter(|number| Some(*number) > self.stored_checkpoint.get()) else {
            return Ok(());
        };
        let (start, folder) = (Instant::now(), self.home.checkpoints().join(number.to_string()));
        let trained = self.exchange.started.elapsed().as_secs_f64();
        let sent = async {
            let (manifest, key) = (checkpoint::manifest(&folder)?, self.machine.checkpoint(number)?);
            files.send(&checkpoint::files(&folder), &manifest, &key).await
        };
        match sent.await {
            Ok(()) => {}
            // Two newer ones were taken meanwhile, and this one was removed: the next look finds the newest.
            Err(_) if !folder.exists() => return Ok(()),
            Err(error) => return Err(error).context("cannot send a checkpoint to the store"),
        }
        self.stored_checkpoint.set(Some(number));
        self.stored_seconds.set(Some(trained));
        let took = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.exchange.longest_transfer_ms.fetch_max(took, Ordering::Relaxed);
        // For the heartbeat, which tells of it.
        self.exchange.status.send_modify(|_| {});
        tracing::info!("checkpoint {number} is in the store");
        Ok(())
    }

    /// Sends what is left of a training that is over, and at last how it ended.
    async fn finish(&self, exit: &CommandExit, senders: &mut Senders) -> Result<()> {
        let newest = self.exchange.status.borrow().checkpoint;
        self.send_checkpoint(newest, &mut senders.files).await?;
        senders.log.send(&self.home.log()).await?;
        let words = LastWords { home: &self.home, spec: &self.spec, machine: &self.machine };
        let said = words.send(exit, &mut senders.files).await?;
        let said = MachineExit { stored_checkpoint: self.stored_checkpoint.get(), ..said };
        write_exit(&self.store, &self.machine, &said).await?;
        tracing::info!("everything of the training is in the store");
        Ok(())
    }

    /// Keeps what went wrong for the machine's next state.
    fn note(&self, error: &Error) {
        let why = chain(error);
        tracing::warn!("{why}");
        *lock(&self.exchange.trouble) = Some(why.chars().take(TROUBLE_LIMIT_CHARS).collect());
    }
}
