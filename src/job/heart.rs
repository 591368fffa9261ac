//! Signs of life to the machine, and what it and its provider tell in return.

use super::Work;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};
use trainspot_base::error::{Error, chain};
use trainspot_base::log::progress::in_words;
use trainspot_compute::link::{Agent, AskError};
use trainspot_compute::{Compute, Machine, Sight};
use trainspot_protocol::{Notice, Status, Wish};

/// How often the machine is asked, unless the grace is so short that it must be more often. The machine sees
/// a notice within 2 s, so the pipe knows of it within 5.
pub(super) const BEAT: Duration = Duration::from_secs(2);
/// How often the provider is asked too: its word comes even where the machine cannot tell, but costs a call.
const LOOK: Duration = Duration::from_secs(30);
/// An answer that takes longer makes the provider be asked.
const LATE: Duration = Duration::from_secs(4);
/// A machine whose provider says that it runs may be silent for as long; it ends itself after the whole
/// grace.
const PATIENCE: u32 = 2;
/// A notice comes two minutes ahead. The provider's word may be as old as the last look.
const LEFT: Duration = Duration::from_secs(80);

/// Why a machine is of no use any more.
#[derive(Debug)]
pub(super) enum Loss {
    /// It is gone, or silent for too long.
    Gone(Error),
    /// Its provider took it back.
    Reclaimed(String),
    /// Another pipe took it over while this one was silent for long.
    Taken(String),
}

/// The beat that keeps a machine alive, brings the checkpoints that it tells of, and passes its notice on.
pub(super) struct Heart<'a, C: Compute, W> {
    pub(super) compute: &'a C,
    pub(super) machine: &'a Machine,
    pub(super) agent: &'a Agent<C::Link>,
    pub(super) grace: Duration,
    pub(super) work: &'a W,
    pub(super) notice: watch::Sender<Option<Notice>>,
    /// Counts the checkpoints that were brought.
    pub(super) kept: watch::Sender<u64>,
}

impl<C: Compute, W: Work<C>> Heart<'_, C, W> {
    /// Beats until the machine is lost, and returns why.
    pub(super) async fn beat(&self) -> Loss {
        let (announce, announced) = watch::channel(None);
        tokio::select! {
            loss = self.ask(announce) => loss,
            loss = self.look() => loss,
            () = self.keep(announced) => Loss::Gone(Error::new("the machine's watch ended")),
        }
    }

    async fn ask(&self, announce: watch::Sender<Option<u64>>) -> Loss {
        let (mut silent, mut told): (Option<Instant>, Option<String>) = (None, None);
        let mut told_left_out = None;
        loop {
            tokio::time::sleep(BEAT.min(self.grace / 4)).await;
            let answer = tokio::select! {
                answer = self.agent.ask(Wish::Beat) => answer,
                loss = self.gone_meanwhile() => return loss,
            };
            match answer {
                Ok(status) => {
                    if let Some(since) = silent.take() {
                        info!("the machine answers again, after {}", in_words(since.elapsed()));
                    }
                    if status.unsaved != told {
                        told.clone_from(&status.unsaved);
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
                    self.hear(status, &announce);
                }
                Err(AskError::Refused(why)) => return Loss::Taken(why),
                Err(AskError::Lost(error)) => {
                    let since = *silent.get_or_insert_with(Instant::now);
                    if let Some(loss) = self.doubt(error, since).await {
                        return loss;
                    }
                }
            }
        }
    }

    /// While an answer is waited for: a machine that is gone may leave its connections hanging for long.
    async fn gone_meanwhile(&self) -> Loss {
        loop {
            tokio::time::sleep(LATE).await;
            if let Some(loss) = self.compute.look(self.machine).await.ok().and_then(lost) {
                return loss;
            }
        }
    }

    fn hear(&self, status: Status, announce: &watch::Sender<Option<u64>>) {
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
    async fn doubt(&self, error: Error, since: Instant) -> Option<Loss> {
        let patience = self.grace / PATIENCE;
        // A provider that is slow must not keep a machine that answers again waiting for its beat.
        let sight = tokio::time::timeout(LATE, self.compute.look(self.machine)).await;
        debug!("no answer ({}); its provider says: {sight:?}", chain(&error));
        if let Some(loss) = sight.ok().and_then(Result::ok).and_then(lost) {
            return Some(loss);
        }
        if since.elapsed() >= patience {
            let silent = in_words(since.elapsed());
            return Some(Loss::Gone(
                Error::new(format!("the machine did not answer for {silent}")).source(error),
            ));
        }
        if since.elapsed() < BEAT {
            warn!("the machine does not answer; waiting for up to {}", in_words(patience));
        }
        None
    }

    /// Asks the provider now and then whether the machine is about to be taken away.
    async fn look(&self) -> Loss {
        loop {
            tokio::time::sleep(LOOK).await;
            match self.compute.look(self.machine).await {
                Ok(Sight::Leaving(why)) if self.notice.borrow().is_none() => {
                    let at = (SystemTime::now() + LEFT).duration_since(UNIX_EPOCH).map(|at| at.as_secs());
                    let told = self.agent.ask(Wish::Leave(Notice { why, at: at.ok() })).await;
                    if let Err(error) = told {
                        debug!(
                            "the machine does not hear that it is taken away: {}",
                            chain(&Error::from(error))
                        );
                    }
                }
                Ok(sight) => {
                    if let Some(loss) = lost(sight) {
                        return loss;
                    }
                }
                Err(error) => debug!("its provider does not say how the machine is: {}", chain(&error)),
            }
        }
    }

    async fn keep(&self, mut announced: watch::Receiver<Option<u64>>) {
        while announced.changed().await.is_ok() {
            let Some(number) = *announced.borrow_and_update() else { continue };
            match self.work.keep(self.agent, self.machine, number).await {
                Ok(true) => {
                    info!("checkpoint saved");
                    self.kept.send_modify(|kept| *kept += 1);
                }
                Ok(false) => {}
                Err(error) => warn!("a checkpoint could not be saved: {}", chain(&error)),
            }
        }
    }
}

fn lost(sight: Sight) -> Option<Loss> {
    match sight {
        Sight::There | Sight::Leaving(_) => None,
        Sight::Reclaimed(why) => Some(Loss::Reclaimed(why)),
        Sight::Gone(why) => Some(Loss::Gone(Error::new(format!("the machine is gone: {why}")))),
    }
}
