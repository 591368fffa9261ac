//! What goes on beside the training: signs of life to the machine, checkpoints from it, and its log shown.

use crate::agent::protocol::{Exit, State, Status, Wish};
use crate::error::{Error, Result, chain};
use crate::link::{Agent, AskError, Link};
use crate::log::lines::Lines;
use crate::log::progress::in_words;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tracing::{debug, info, warn};

/// How often the machine is asked, unless the grace is so short that it must be more often.
const BEAT: Duration = Duration::from_secs(5);
/// How long to wait before a link that broke is opened again.
const AGAIN: Duration = Duration::from_secs(1);
/// A machine that does not answer this often in a row is lost.
const MISSES: u32 = 3;

/// The beat that keeps a machine alive, and saves the checkpoints that it tells of.
pub(super) struct Heart<'a, L> {
    agent: &'a Agent<L>,
    interval: Duration,
    checkpoints: &'a Path,
}

impl<'a, L: Link> Heart<'a, L> {
    pub(super) fn new(agent: &'a Agent<L>, grace: Duration, checkpoints: &'a Path) -> Self {
        Self { agent, interval: BEAT.min(grace / 4), checkpoints }
    }

    /// Beats until the machine is lost or another pipe's, and returns why.
    pub(super) async fn beat(&self) -> AskError {
        let (announce, announced) = watch::channel(None);
        tokio::select! {
            lost = self.ask(announce) => lost,
            () = self.save(announced) => AskError::Lost(Error::new("the machine's watch ended")),
        }
    }

    async fn ask(&self, announce: watch::Sender<Option<u64>>) -> AskError {
        let mut misses = 0;
        loop {
            tokio::time::sleep(self.interval).await;
            match self.agent.ask(Wish::Beat).await {
                Ok(status) => {
                    misses = 0;
                    announce.send_if_modified(|newest| {
                        let news = *newest < status.checkpoint;
                        *newest = status.checkpoint;
                        news
                    });
                }
                Err(refused @ AskError::Refused(_)) => return refused,
                Err(AskError::Lost(error)) => {
                    misses += 1;
                    debug!("no answer from the machine ({misses} of {MISSES}): {}", chain(&error));
                    if misses >= MISSES {
                        return AskError::Lost(error);
                    }
                }
            }
        }
    }

    /// Brings each new checkpoint to this side: a machine may be gone without a word.
    async fn save(&self, mut announced: watch::Receiver<Option<u64>>) {
        while announced.changed().await.is_ok() {
            let Some(number) = *announced.borrow_and_update() else { continue };
            match self.save_one(number).await {
                Ok(()) => info!("checkpoint saved"),
                Err(error) => warn!("a checkpoint could not be saved: {}", chain(&error)),
            }
        }
    }

    async fn save_one(&self, number: u64) -> Result<()> {
        let context = |error| Error::new("cannot keep a checkpoint").source(error);
        let partial = self.checkpoints.join("partial");
        tokio::fs::remove_dir_all(&partial).await.ok();
        tokio::fs::create_dir_all(&partial).await.map_err(context)?;
        self.agent.fetch_checkpoint(number, &partial).await?;
        // Numbers start again on every machine; those on this side only grow.
        let newest = numbers(self.checkpoints).max().unwrap_or(0);
        tokio::fs::rename(&partial, self.checkpoints.join((newest + 1).to_string()))
            .await
            .map_err(context)?;
        for number in numbers(self.checkpoints).filter(|number| *number <= newest) {
            tokio::fs::remove_dir_all(self.checkpoints.join(number.to_string())).await.ok();
        }
        Ok(())
    }
}

/// The folder of the newest checkpoint that arrived whole.
pub(super) fn newest_checkpoint(checkpoints: &Path) -> Option<PathBuf> {
    numbers(checkpoints).max().map(|number| checkpoints.join(number.to_string()))
}

fn numbers(folder: &Path) -> impl Iterator<Item = u64> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Shows the training's output as it comes, until the training is over: its end, and its last lines.
pub(super) async fn until_the_end<L: Link>(
    agent: &Agent<L>,
    max_runtime: Duration,
) -> Result<(Exit, Vec<String>)> {
    let screen = Mutex::new(Screen::new());
    let reading = async {
        let mut offset = 0;
        loop {
            let followed =
                agent.follow(&mut offset, &mut |bytes| with(&screen, |screen| screen.feed(bytes))).await;
            match (followed, agent.ask(Wish::Beat).await) {
                // The log was read to its end only if following it ended well.
                (Ok(()), Ok(Status { state: State::Ended(exit), .. })) => return Ok(exit),
                (_, Err(AskError::Refused(why))) => return Err(Error::new(why)),
                // Whether a machine that does not answer is lost, the heart decides.
                (followed, asked) => {
                    let why = followed.err().or_else(|| asked.err().map(Error::from));
                    let why = why.map_or("it ended too early".to_owned(), |error| chain(&error));
                    debug!("following the log again from byte {offset}: {why}");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    };
    let ticking = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            with(&screen, |screen| screen.tick(max_runtime));
        }
    };
    let exit: Result<Exit> =
        tokio::select! { exit = reading => exit, () = ticking => Err(Error::new("the clock stopped")) };
    let exit = exit?;
    let tail = with(&screen, Screen::finish);
    Ok((exit, tail))
}

/// The lock is never held across a wait, so it can only be poisoned by a panic, which ends the run anyway.
fn with<T>(screen: &Mutex<Screen>, use_it: impl FnOnce(&mut Screen) -> T) -> T {
    use_it(&mut screen.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// The training's output on its way to the log, and a sign of life where there is none.
struct Screen {
    lines: Lines,
    started: Instant,
    last: Instant,
    wait: Duration,
}

impl Screen {
    const FIRST_WAIT: Duration = Duration::from_secs(10);

    fn new() -> Self {
        let now = Instant::now();
        Self { lines: Lines::new(now), started: now, last: now, wait: Self::FIRST_WAIT }
    }

    fn feed(&mut self, bytes: &[u8]) {
        let now = Instant::now();
        self.lines.feed(bytes, now, &mut crate::log::training);
        (self.last, self.wait) = (now, Self::FIRST_WAIT);
    }

    fn tick(&mut self, max_runtime: Duration) {
        let now = Instant::now();
        self.lines.tick(now, &mut crate::log::training);
        if now.duration_since(self.last) >= self.wait {
            let (so_far, most) = (in_words(self.started.elapsed()), in_words(max_runtime));
            info!("still training ({so_far} of at most {most})");
            (self.last, self.wait) = (now, (self.wait * 2).min(Duration::from_mins(5)));
        }
    }

    fn finish(&mut self) -> Vec<String> {
        self.lines.finish(Instant::now(), &mut crate::log::training);
        self.lines.tail()
    }
}
