//! A machine for the run: found again or launched, replaced when it is lost, and ended in every case.

use super::watch::{self, Heart};
use crate::agent::protocol::{Exit, Spec, State, Wish};
use crate::compute::{Compute, Machine, Order};
use crate::error::{Context as _, Error, Kind, Result, chain};
use crate::link::{Agent, AskError};
use crate::log::progress::in_words;
use crate::retry::{Attempt, Policy, retry};
use crate::transfer::{Entry, find};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// A machine that was just found may still be held by the pipe that was killed. Its hold lasts 20 s.
const HOLD: Duration = Duration::from_secs(30);

/// The model exists on the machine only, which is ended after this: a stream that broke off is opened again.
const HARVEST: Policy = Policy {
    attempts: 3,
    first_wait: Duration::from_secs(1),
    longest_wait: Duration::from_secs(5),
    total: Duration::from_hours(24),
};

/// All that it takes to train.
pub(super) struct Job<'a, C> {
    pub(super) compute: &'a C,
    pub(super) order: Order,
    pub(super) spec: Spec,
    /// The clone, and what of it goes along.
    pub(super) clone_dir: &'a Path,
    pub(super) workspace: Vec<Entry>,
    /// Where checkpoints are kept.
    pub(super) checkpoints: &'a Path,
    pub(super) max_restarts: u32,
    pub(super) shutdown: &'a CancellationToken,
}

/// A training that came to its end, on a machine that is still there.
pub(super) struct Trained {
    pub(super) exit: Exit,
    /// The last lines of its output.
    pub(super) tail: Vec<String>,
    pub(super) machine: Machine,
    pub(super) restarts: u32,
    /// The machine could not be ended, and why. What it trained is no worse for that.
    pub(super) left: Option<Error>,
}

/// How one machine's part in the run ended.
enum Turn<T> {
    Done(T),
    Lost(Error),
}

impl<C: Compute> Job<'_, C> {
    /// Trains, replacing lost machines, then lets `harvest` bring the outputs home while the machine is kept alive.
    /// No machine is left, whatever the result.
    pub(super) async fn run<T>(
        &self,
        harvest: impl AsyncFn(&Agent<C::Link>, &Trained) -> Result<T>,
    ) -> Result<(Trained, T)> {
        let owner = format!("{}-{:016x}", std::process::id(), fastrand::u64(..));
        let mut restarts = 0;
        loop {
            let machine = tokio::select! {
                machine = self.obtain(&owner) => machine?,
                () = self.shutdown.cancelled() => return Err(self.stopped_early().await),
            };
            let turn = self.turn(&machine, &owner, restarts, &harvest).await;
            let left = self.end(&machine).await.err();
            if let Some(left) = &left {
                warn!("{}", left.render());
            }
            match turn {
                Ok(Turn::Done((trained, harvested))) => return Ok((Trained { left, ..trained }, harvested)),
                Ok(Turn::Lost(why)) if restarts < self.max_restarts => {
                    restarts += 1;
                    warn!("the machine was lost: {}", chain(&why));
                    info!(
                        "starting again on another one ({restarts} of at most {} restarts)",
                        self.max_restarts
                    );
                }
                Ok(Turn::Lost(why)) => {
                    let error =
                        Error::new(format!("the machine was lost, after {restarts} restarts")).source(why);
                    return Err(error.kind(Kind::Machine).hint(
                        "raise MAX_RESTARTS, or set CHECKPOINTS so that a restart goes on where it was",
                    ));
                }
                Err(error) => {
                    return Err(match left {
                        Some(_) => error.leaves(self.leftover(&machine)),
                        None => error,
                    });
                }
            }
        }
    }

    /// The machine of this very run, if a pipe that was killed left it; else a new one.
    async fn obtain(&self, owner: &str) -> Result<Machine> {
        if let Some(machine) = self.compute.find(&self.order.run).await? {
            info!("found the machine that an earlier try of this step left: {}", machine.id);
            if self.usable(&machine, owner).await? {
                return Ok(machine);
            }
            self.end(&machine).await?;
        }
        let start = Instant::now();
        let machine = self.compute.launch(&self.order).await.map_err(|error| error.kind(Kind::Machine))?;
        info!("machine ready: {} ({:.1} s)", machine.description, start.elapsed().as_secs_f64());
        Ok(machine)
    }

    /// Whether a machine that was found runs, or has run, the training that this step wants.
    async fn usable(&self, machine: &Machine, owner: &str) -> Result<bool> {
        let agent = match self.compute.connect(machine).await {
            Ok(link) => Agent::new(link, owner),
            Err(error) => {
                debug!("it cannot be used: {}", error.render());
                return Ok(false);
            }
        };
        let give_up = Instant::now() + HOLD;
        loop {
            match agent.ask(Wish::Beat).await {
                Ok(status) => {
                    let same = status.fingerprint.as_ref() == Some(&self.spec.fingerprint);
                    let verdict =
                        if same { "taking it over" } else { "its training is another one; ending it" };
                    info!("{verdict}");
                    return Ok(same);
                }
                Err(AskError::Refused(_)) if Instant::now() < give_up => {
                    tokio::time::sleep(Duration::from_secs(2)).await;
                }
                Err(AskError::Refused(why)) => {
                    return Err(Error::new(why)
                        .kind(Kind::Machine)
                        .hint("wait for the other run to end, or stop it"));
                }
                Err(AskError::Lost(error)) => {
                    debug!("it does not answer: {}", error.render());
                    return Ok(false);
                }
            }
        }
    }

    /// One machine's part: the story races against the machine's loss and the order to stop.
    async fn turn<T>(
        &self,
        machine: &Machine,
        owner: &str,
        restarts: u32,
        harvest: &impl AsyncFn(&Agent<C::Link>, &Trained) -> Result<T>,
    ) -> Result<Turn<(Trained, T)>> {
        let link = match self.compute.connect(machine).await {
            Ok(link) => link,
            Err(error) => return Ok(Turn::Lost(error)),
        };
        let agent = Agent::new(link, owner);
        let heart = Heart::new(&agent, self.order.orphan_grace, self.checkpoints);
        let story = async {
            self.start(&agent).await?;
            let (exit, tail) = watch::until_the_end(&agent, self.spec.max_runtime).await?;
            let trained = Trained { exit, tail, machine: machine.clone(), restarts, left: None };
            let harvested = retry(HARVEST, async |number| match harvest(&agent, &trained).await {
                // One that has a kind says something of the outputs, not of the way here.
                Err(error) if error.exit_kind() == Kind::Unexpected => {
                    if number < HARVEST.attempts {
                        warn!("{}; trying again", chain(&error));
                    }
                    Attempt::Passing(error, None)
                }
                done => Attempt::Final(done),
            });
            let harvested = harvested.await?;
            Ok((trained, harvested))
        };
        tokio::select! {
            lost = heart.beat() => Ok(Turn::Lost(lost)),
            done = story => match done {
                Ok(done) => Ok(Turn::Done(done)),
                // An error while the machine does not answer is the machine's loss, not the story's end.
                Err(error) => match agent.ask(Wish::Beat).await {
                    Err(AskError::Lost(lost)) => Ok(Turn::Lost(lost.source(error))),
                    _ => Err(error),
                },
            },
            () = self.shutdown.cancelled() => Err(stopped()),
        }
    }

    /// Sends the workspace and the newest checkpoint, and starts the training, unless it was started before.
    async fn start(&self, agent: &Agent<C::Link>) -> Result<()> {
        let status = agent.ask(Wish::Beat).await?;
        if status.state != State::Idle {
            return Ok(());
        }
        let start = Instant::now();
        agent.send(self.clone_dir, self.workspace.clone(), "sending the workspace").await?;
        debug!("sent {} files ({:.1} s)", self.workspace.len(), start.elapsed().as_secs_f64());
        let mut spec = self.spec.clone();
        if let Some(folder) = watch::newest_checkpoint(self.checkpoints) {
            let entries = find(&folder, &["**".to_owned()])?.files;
            agent.send(&folder, entries, "restoring the checkpoint").await?;
            spec.resume = true;
            info!("restored the newest checkpoint; the training goes on with TRAINSPOT_RESUME=1");
        }
        agent.ask(Wish::Start(Box::new(spec))).await?;
        info!("training started");
        Ok(())
    }

    async fn end(&self, machine: &Machine) -> Result<()> {
        let ended = self.compute.terminate(machine).await;
        ended
            .with_context(|| format!("cannot end the machine {}", machine.id))
            .map_err(|error| error.kind(Kind::Machine).leaves(self.leftover(machine)))?;
        info!("machine ended: {}", machine.id);
        Ok(())
    }

    fn leftover(&self, machine: &Machine) -> String {
        format!("machine {}; it ends itself within {}", machine.id, in_words(self.order.orphan_grace))
    }

    /// The order to stop came while a machine was being had: what there is of it is found by the run's name.
    async fn stopped_early(&self) -> Error {
        match self.compute.find(&self.order.run).await {
            Ok(Some(machine)) => match self.end(&machine).await {
                Ok(()) => stopped(),
                Err(error) => stopped().source(error),
            },
            Ok(None) => stopped(),
            Err(error) => stopped().source(error),
        }
    }
}

fn stopped() -> Error {
    Error::new("stopped before the training's outputs were safe").kind(Kind::Stopped)
}

/// A folder for one run's short-lived files, removed when it is dropped.
pub(super) fn scratch(parent: &Path, run: &crate::compute::RunId) -> Result<Scratch> {
    let folder = parent.join(format!("trainspot-pipe-{run}"));
    std::fs::remove_dir_all(&folder).ok();
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    Ok(Scratch(folder))
}

/// See [`scratch`].
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::protocol::{How, Reply, Status};
    use crate::compute::RunId;
    use crate::link::{Finished, Link, Session};
    use std::sync::{Arc, Mutex};

    /// A machine whose training is over. The verbs that fail, in the order in which they do.
    #[derive(Clone, Default)]
    struct Fake {
        failing: Arc<Mutex<Vec<&'static str>>>,
        launched: Arc<Mutex<u32>>,
    }

    impl Fake {
        fn fails(&self, what: &str) -> bool {
            let mut failing = self.failing.lock().unwrap();
            let fails = failing.first() == Some(&what);
            if fails {
                failing.remove(0);
            }
            fails
        }
    }

    impl Link for Fake {
        async fn agent(&self, verb: &str, _: &[(&str, String)]) -> Result<Session> {
            if self.fails(verb) {
                return Err(Error::new("the link is down"));
            }
            let exit = Exit { how: How::Exited(0), seconds: 1.0 };
            let status = Status { state: State::Ended(exit), fingerprint: None, checkpoint: None };
            let output = match verb {
                "ask" => serde_json::to_vec(&Reply::Status(status)).unwrap(),
                _ => b"fitting\n".to_vec(),
            };
            let finished = async { Ok(Finished { success: true, words: String::new() }) };
            let output = Box::pin(std::io::Cursor::new(output));
            Ok(Session { input: None, output: Some(output), finished: Box::pin(finished) })
        }
    }

    impl Compute for Fake {
        type Link = Self;

        async fn launch(&self, _: &Order) -> Result<Machine> {
            *self.launched.lock().unwrap() += 1;
            Ok(Machine { id: "m".to_owned(), description: "fake".to_owned() })
        }

        async fn find(&self, _: &RunId) -> Result<Option<Machine>> {
            Ok(None)
        }

        async fn connect(&self, _: &Machine) -> Result<Self> {
            Ok(self.clone())
        }

        async fn terminate(&self, _: &Machine) -> Result<()> {
            if self.fails("terminate") { Err(Error::new("access denied")) } else { Ok(()) }
        }
    }

    async fn run(fake: &Fake, harvest: impl AsyncFn() -> Result<()>) -> Result<Trained> {
        let job = Job {
            compute: fake,
            order: Order { run: RunId::new(&["r"]), orphan_grace: Duration::from_mins(10) },
            spec: Spec {
                fingerprint: String::new(),
                command: String::new(),
                environment: std::collections::BTreeMap::new(),
                max_runtime: Duration::from_mins(1),
                checkpoints: Vec::new(),
                checkpoint_interval: Duration::from_mins(1),
                resume: false,
            },
            clone_dir: Path::new("."),
            workspace: Vec::new(),
            checkpoints: Path::new("."),
            max_restarts: 0,
            shutdown: &CancellationToken::new(),
        };
        job.run(async |_, _| harvest().await).await.map(|(trained, ())| trained)
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_that_breaks_once_is_opened_again() {
        for failing in [vec!["follow"], vec!["follow", "ask"]] {
            let fake = Fake { failing: Arc::new(Mutex::new(failing)), ..Fake::default() };
            assert!(run(&fake, async || Ok(())).await.is_ok());
            assert_eq!(*fake.launched.lock().unwrap(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn outputs_whose_stream_broke_off_are_fetched_again() {
        let (fake, left) = (Fake::default(), Mutex::new(2));
        let breaks = async || {
            let mut left = left.lock().unwrap();
            *left -= 1;
            if *left > 0 { Err(Error::new("the stream of files ended early")) } else { Ok(()) }
        };
        assert!(run(&fake, breaks).await.is_ok());
        let missing = async || Err(Error::new("no such output").kind(Kind::Training));
        assert_eq!(run(&fake, missing).await.err().unwrap().exit_kind(), Kind::Training);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_trained_survives_a_machine_that_cannot_be_ended() {
        let fake = Fake { failing: Arc::new(Mutex::new(vec!["terminate", "terminate"])), ..Fake::default() };
        let left = run(&fake, async || Ok(())).await.ok().unwrap().left.unwrap();
        assert_eq!(left.exit_kind(), Kind::Machine);
        assert_eq!(
            left.render(),
            "cannot end the machine m: access denied\nStill there: machine m; it ends itself within 10m"
        );
        let failed = run(&fake, async || Err(Error::new("no").kind(Kind::Training))).await.err().unwrap();
        assert!(failed.render().contains("Still there: machine m"), "{}", failed.render());
    }
}
