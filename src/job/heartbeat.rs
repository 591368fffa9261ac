//! The heartbeat: signs of life to the machine, and what the machine and its provider answer.

use super::Workload;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};
use trainspot_base::error::{Error, chain};
use trainspot_base::log::progress::in_words;
use trainspot_compute::link::{Agent, AskError};
use trainspot_compute::{Compute, Machine, MachineStatus};
use trainspot_protocol::{AgentCommand, AgentStatus, Notice};

/// How often the machine is asked, unless `ORPHAN_GRACE` is so short that it must be more often. The machine
/// sees a notice within 2 s, so the pipe knows of the notice within 5 s.
pub(super) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);
/// How often the provider is asked too: the provider tells even what the machine cannot, but costs a call.
const PROVIDER_POLL_INTERVAL: Duration = Duration::from_secs(30);
/// How long an answer of the machine may take before the provider is asked instead.
const SLOW_ANSWER_LIMIT: Duration = Duration::from_secs(4);
/// The part of `ORPHAN_GRACE` for which a machine may be silent while its provider says that it runs: one
/// half. The machine ends itself after the whole of it.
const SILENCE_DIVISOR: u32 = 2;
/// The time that is left of a notice by the provider. The notice comes two minutes ahead, and may be as old
/// as the last poll.
const PROVIDER_NOTICE_TIME: Duration = Duration::from_secs(80);

/// Why a machine is of no use any more.
#[derive(Debug)]
pub(super) enum Loss {
    /// The machine is gone, or was silent for too long.
    Gone(Error),
    /// The provider took the machine back.
    Reclaimed(String),
    /// Another pipe took the machine over while this one was silent for long.
    TakenOver(String),
}

/// Keeps a machine alive, fetches the checkpoints that the machine tells of, and passes on its notice.
pub(super) struct Heartbeat<'a, C: Compute, W> {
    pub(super) compute: &'a C,
    pub(super) machine: &'a Machine,
    pub(super) agent: &'a Agent<C::Link>,
    pub(super) grace: Duration,
    pub(super) work: &'a W,
    pub(super) notice: watch::Sender<Option<Notice>>,
    /// Counts the checkpoints that were fetched.
    pub(super) fetched: watch::Sender<u64>,
}

impl<C: Compute, W: Workload<C>> Heartbeat<'_, C, W> {
    /// Runs until the machine is lost, and returns why.
    pub(super) async fn run(&self) -> Loss {
        let (announce, announced) = watch::channel(None);
        tokio::select! {
            loss = self.ask_machine(announce) => loss,
            loss = self.ask_provider() => loss,
            () = self.fetch_checkpoints(announced) => Loss::Gone(Error::new("the machine's watch ended")),
        }
    }

    async fn ask_machine(&self, announce: watch::Sender<Option<u64>>) -> Loss {
        let (mut silent, mut told): (Option<Instant>, Option<String>) = (None, None);
        let mut told_left_out = None;
        loop {
            tokio::time::sleep(HEARTBEAT_INTERVAL.min(self.grace / 4)).await;
            let answer = tokio::select! {
                answer = self.agent.ask(AgentCommand::Heartbeat) => answer,
                loss = self.loss_while_waiting() => return loss,
            };
            match answer {
                Ok(status) => {
                    if let Some(since) = silent.take() {
                        info!("the machine answers again, after {}", in_words(since.elapsed()));
                    }
                    if status.checkpoint_error != told {
                        told.clone_from(&status.checkpoint_error);
                        if let Some(why) = &told {
                            warn!("no checkpoint could be taken: {why}");
                        }
                    }
                    if status.left_out != told_left_out {
                        told_left_out.clone_from(&status.left_out);
                        if let Some(files) = &told_left_out {
                            warn!("the checkpoint was taken without {files}");
                        }
                    }
                    self.on_status(status, &announce);
                }
                Err(AskError::Refused(why)) => return Loss::TakenOver(why),
                Err(AskError::NoAnswer(error)) => {
                    let since = *silent.get_or_insert_with(Instant::now);
                    if let Some(loss) = self.on_no_answer(error, since).await {
                        return loss;
                    }
                }
            }
        }
    }

    /// Asks the provider while an answer of the machine is waited for: a machine that is gone may leave its
    /// connections hanging for long.
    async fn loss_while_waiting(&self) -> Loss {
        loop {
            tokio::time::sleep(SLOW_ANSWER_LIMIT).await;
            if let Some(loss) = self.compute.status(self.machine).await.ok().and_then(loss_of) {
                return loss;
            }
        }
    }

    fn on_status(&self, status: AgentStatus, announce: &watch::Sender<Option<u64>>) {
        announce.send_if_modified(|newest| {
            let news = *newest < status.checkpoint;
            *newest = status.checkpoint;
            news
        });
        if let Some(notice) = status.notice {
            self.notice.send_if_modified(|known| known.is_none() && known.replace(notice).is_none());
        }
    }

    /// Whether a machine that did not answer is lost: only its provider can tell slow from gone.
    async fn on_no_answer(&self, error: Error, since: Instant) -> Option<Loss> {
        let patience = self.grace / SILENCE_DIVISOR;
        // A provider that is slow must not keep a machine that answers again waiting for its beat.
        let sight = tokio::time::timeout(SLOW_ANSWER_LIMIT, self.compute.status(self.machine)).await;
        debug!("no answer ({}); its provider says: {sight:?}", chain(&error));
        if let Some(loss) = sight.ok().and_then(Result::ok).and_then(loss_of) {
            return Some(loss);
        }
        if since.elapsed() >= patience {
            let silent = in_words(since.elapsed());
            return Some(Loss::Gone(
                Error::new(format!("the machine did not answer for {silent}")).source(error),
            ));
        }
        if since.elapsed() < HEARTBEAT_INTERVAL {
            warn!("the machine does not answer; waiting for up to {}", in_words(patience));
        }
        None
    }

    /// Asks the provider now and then whether the machine is about to be taken away.
    async fn ask_provider(&self) -> Loss {
        loop {
            tokio::time::sleep(PROVIDER_POLL_INTERVAL).await;
            match self.compute.status(self.machine).await {
                Ok(MachineStatus::InterruptionNotice(why)) if self.notice.borrow().is_none() => {
                    let at = (SystemTime::now() + PROVIDER_NOTICE_TIME)
                        .duration_since(UNIX_EPOCH)
                        .map(|at| at.as_secs());
                    let told = self.agent.ask(AgentCommand::PrepareToEnd(Notice { why, at: at.ok() })).await;
                    if let Err(error) = told {
                        debug!(
                            "the machine does not hear that it is taken away: {}",
                            chain(&Error::from(error))
                        );
                    }
                }
                Ok(sight) => {
                    if let Some(loss) = loss_of(sight) {
                        return loss;
                    }
                }
                Err(error) => debug!("its provider does not say how the machine is: {}", chain(&error)),
            }
        }
    }

    async fn fetch_checkpoints(&self, mut announced: watch::Receiver<Option<u64>>) {
        while announced.changed().await.is_ok() {
            let Some(number) = *announced.borrow_and_update() else { continue };
            match self.work.fetch_checkpoint(self.agent, self.machine, number).await {
                Ok(true) => {
                    info!("checkpoint saved");
                    self.fetched.send_modify(|fetched| *fetched += 1);
                }
                Ok(false) => {}
                Err(error) => warn!("a checkpoint could not be saved: {}", chain(&error)),
            }
        }
    }
}

fn loss_of(sight: MachineStatus) -> Option<Loss> {
    match sight {
        MachineStatus::Running | MachineStatus::InterruptionNotice(_) => None,
        MachineStatus::Reclaimed(why) => Some(Loss::Reclaimed(why)),
        MachineStatus::Gone(why) => Some(Loss::Gone(Error::new(format!("the machine is gone: {why}")))),
    }
}
