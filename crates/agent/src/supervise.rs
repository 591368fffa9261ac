//! The machine's watch. It lives as long as the machine, and needs neither network nor credentials.

use super::checkpoint::{Taker, newest};
use super::command::{Training, end_all, end_descendants};
use super::guard::{Guard, power_off};
use super::home::{Home, reserve, write_whole};
use super::leaving::Leaving;
use super::metadata::{self, News};
use super::requests::{self, Question};
use super::runner::{Next, Runner};
use super::saving::Saver;
use std::fs::File;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};
use trainspot_base::error::{Context as _, Error, Result};
use trainspot_protocol::Ending;
use trainspot_protocol::{Exit, How, Notice, Reply, Request, Spec, State, Status, Wish};

/// How often the training is looked at. A request is answered at once.
const TICK: Duration = Duration::from_millis(50);
/// The agent that asked for the end passes the answer on meanwhile, before it is ended as all others.
const LAST_WORD: Duration = Duration::from_millis(500);
/// A pipe beats every few seconds. After this silence, but while the machine is there, another one may take
/// it over.
const HOLD: Duration = Duration::from_secs(20);
/// What a training may do between SIGTERM and SIGKILL, but no longer than the machine lives without a pipe.
const TERM_GRACE: Duration = Duration::from_secs(15);

/// What a supervisor is told when it is started.
pub(super) struct Orders {
    /// The machine ends after this much silence.
    pub(super) grace: Duration,
    /// How it ends.
    pub(super) ending: Ending,
    /// The guard's folder, on a machine that has one.
    pub(super) guard: Option<PathBuf>,
    /// Where the machine's metadata is, if it has any.
    pub(super) metadata: Option<String>,
}

/// Watches over a machine until its end.
///
/// # Errors
/// There is a supervisor already; there is no guard. The machine is then as it was before.
pub(super) fn run(home: &Home, orders: Orders) -> Result<()> {
    let guard = orders.guard.map(Guard::find).transpose()?;
    // A session of its own: neither the pipe's terminal nor the end of its connection can end it.
    rustix::process::setsid().ok();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context("cannot become a sub-reaper")?;
    // Only now, so that there is never a home without a watch.
    home.create()?;
    std::env::set_current_dir(home.run())
        .with_context(|| format!("cannot enter {}", home.run().display()))?;
    // First of all: a second supervisor must touch nothing of the first one's.
    let socket = requests::open()?;
    let log = File::create(home.agent_log()).context("cannot write the supervisor's log")?;
    rustix::stdio::dup2_stderr(&log).context("cannot write the supervisor's log")?;
    let news = orders.metadata.as_deref().map(metadata::watch).transpose()?;
    let questions = requests::listen(socket)?;
    let mut supervisor = Supervisor::new(home, orders.grace, guard);
    let taker = supervisor.watch(&questions, news.as_ref());
    end_descendants();
    match orders.ending {
        Ending::Remove => remove(home, taker),
        Ending::PowerOff => power_off(supervisor.guard.as_ref()),
    }
}

struct Supervisor {
    home: Home,
    grace: Duration,
    guard: Option<Guard>,
    owner: Option<String>,
    heard: Instant,
    spec: Option<Spec>,
    training: Option<Training>,
    saver: Option<Saver>,
    /// The command, if it is a runner.
    runner: Option<Runner>,
    /// The end of a training whose last checkpoint is being taken: until that is there, it counts as running.
    unsaved: Option<Exit>,
    exit: Option<Exit>,
    leaving: Option<Leaving>,
    ending: bool,
}

impl Supervisor {
    fn new(home: &Home, grace: Duration, guard: Option<Guard>) -> Self {
        Self {
            home: home.clone(),
            grace,
            guard,
            owner: None,
            heard: Instant::now(),
            spec: None,
            training: None,
            saver: None,
            runner: None,
            unsaved: None,
            exit: None,
            leaving: None,
            ending: false,
        }
    }

    /// Watches until the machine's end, and hands back the thread that may still copy a checkpoint.
    fn watch(
        &mut self,
        questions: &Receiver<Question>,
        news: Option<&Receiver<News>>,
    ) -> Option<JoinHandle<Taker>> {
        loop {
            self.guard.iter_mut().for_each(Guard::mind);
            if let Ok((request, client)) = questions.recv_timeout(TICK) {
                let reply = self.answer(request);
                client.answer(&reply).unwrap_or_else(|error| tracing::warn!("{}", error.render()));
            }
            news.into_iter().flat_map(Receiver::try_iter).for_each(|news| self.hear(news));
            self.mind_the_notice();
            self.mind_the_training();
            self.mind_the_last_checkpoint();
            self.mind_the_runner();
            self.mind_the_silence();
            if self.ending && self.training.is_none() {
                return self.saver.take().and_then(Saver::end);
            }
        }
    }

    fn answer(&mut self, request: Request) -> Reply {
        if matches!(request.wish, Wish::Look | Wish::Retire | Wish::Expect)
            && self.owner.as_ref() != Some(&request.owner)
        {
            return self.answer_visitor(&request.wish);
        }
        let held = self.owner.as_ref().is_some_and(|owner| *owner != request.owner);
        let held = held && self.runner.as_ref().is_none_or(Runner::is_held);
        if held && self.heard.elapsed() < HOLD.min(self.grace / 2) {
            return Reply::Refused("another run of this step is using the machine".to_owned());
        }
        self.owner = Some(request.owner);
        self.heard = Instant::now();
        match request.wish {
            Wish::Beat | Wish::Look => {}
            Wish::Stop => self.stop(How::Stopped),
            Wish::Leave(notice) => self.leave(notice),
            Wish::Hold => {
                if !self.runner.as_mut().is_some_and(Runner::hold) {
                    return Reply::Refused("the machine's runner is about to go".to_owned());
                }
            }
            Wish::Release => self.runner.iter_mut().for_each(Runner::release),
            Wish::Retire => self.runner.iter_mut().for_each(Runner::retire),
            Wish::Expect => self.runner.iter_mut().for_each(Runner::expect),
            Wish::Online => self.runner.iter_mut().for_each(Runner::is_online),
            Wish::StepOver(step) => self.runner.iter_mut().for_each(|runner| runner.step_is_over(&step)),
            Wish::End => {
                self.stop(How::Stopped);
                self.ending = true;
            }
            Wish::Start(spec) => {
                if let Err(error) = self.start(*spec) {
                    return Reply::Refused(error.render());
                }
            }
        }
        Reply::Status(Box::new(self.status()))
    }

    /// What somebody asks for who does not want the machine: nobody's hold is touched.
    fn answer_visitor(&mut self, wish: &Wish) -> Reply {
        let runner = self.runner.as_mut().filter(|runner| !runner.is_held());
        match (wish, runner) {
            (Wish::Look, _) => {}
            (Wish::Retire, Some(runner)) => runner.retire(),
            (Wish::Expect, Some(runner)) => runner.expect(),
            _ => return Reply::Refused("a pipe holds the machine".to_owned()),
        }
        Reply::Status(Box::new(self.status()))
    }

    fn status(&self) -> Status {
        let state = match &self.exit {
            Some(exit) => State::Ended(exit.clone()),
            None if self.training.is_some() || self.unsaved.is_some() => State::Running,
            None => State::Idle,
        };
        let fingerprint = self.spec.as_ref().map(|spec| spec.fingerprint.clone());
        let notice = self.leaving.as_ref().map(|leaving| leaving.notice().clone());
        let unsaved = self.saver.as_ref().and_then(|saver| saver.problem().map(str::to_owned));
        let left_out = self.saver.as_ref().and_then(|saver| saver.left_out().map(str::to_owned));
        let runner = self.runner.as_ref().map(Runner::status);
        Status { state, fingerprint, checkpoint: newest(&self.home), unsaved, left_out, notice, runner }
    }

    fn start(&mut self, spec: Spec) -> Result<()> {
        if self.spec.is_some() {
            return Err(Error::new("a training was started on this machine before"));
        }
        reserve(&self.home.exit())?;
        reserve(&self.home.notice())?;
        let saver = (!spec.checkpoints.is_empty()).then(|| Saver::new(&self.home, &spec));
        self.training = Some(Training::start(&self.home, &spec)?);
        self.runner = spec.runner.as_ref().map(|runner| Runner::new(&self.home, runner, spec.max_runtime));
        (self.saver, self.spec) = (saver, Some(spec));
        Ok(())
    }

    fn term_grace(&self) -> Duration {
        TERM_GRACE.min(self.grace)
    }

    fn stop(&mut self, why: How) {
        let patience = self.term_grace();
        if let Some(training) = &mut self.training {
            training.stop(why, patience);
        }
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Notice(notice) => self.leave(notice),
            News::Rebalance => self.saver.iter_mut().for_each(Saver::hurry),
        }
    }

    /// Takes in a notice, and tells the training of it if it is the first or earlier than the others.
    fn leave(&mut self, notice: Notice) {
        let heard = Leaving::new(notice, Instant::now(), SystemTime::now());
        if let Some(leaving) = &mut self.leaving {
            if !leaving.hear(heard) {
                return;
            }
        } else {
            self.leaving = Some(heard);
        }
        let Some(leaving) = &self.leaving else { return };
        tracing::info!("{}", leaving.notice().why);
        write_whole(&self.home.notice(), leaving.for_training().as_bytes())
            .unwrap_or_else(|error| tracing::warn!("{}", error.render()));
        self.saver.iter_mut().for_each(Saver::hurry);
        // A runner that nobody replaces takes no step that would be cut off.
        self.runner.iter_mut().filter(|runner| !runner.is_held()).for_each(Runner::retire);
    }

    /// Ends the training at the last moment that leaves time for its checkpoint.
    fn mind_the_notice(&mut self) {
        let (now, term_grace) = (Instant::now(), self.term_grace());
        let longest = self.saver.as_ref().map(Saver::longest).unwrap_or_default();
        let (Some(leaving), Some(training), None) = (&self.leaving, &mut self.training, &self.runner) else {
            // A runner has nothing to save: its step may still come to its end.
            return;
        };
        if leaving.is_last_moment(now, longest) {
            training.stop(How::Interrupted, leaving.patience(now, term_grace));
        }
    }

    fn mind_the_training(&mut self) {
        self.record();
        let term_grace = self.term_grace();
        let (Some(training), Some(spec)) = (&mut self.training, &self.spec) else { return };
        if training.started.elapsed() > spec.max_runtime && self.runner.is_none() {
            training.stop(How::TimedOut, term_grace);
        }
        let Some(how) = training.reap() else { return self.saver.iter_mut().for_each(Saver::mind) };
        let how = match how {
            // It heard of the notice, or of what comes with the machine's end, and gave up by itself.
            How::Exited(1..) | How::Signalled(_) if self.leaving.is_some() => How::Interrupted,
            how => how,
        };
        let code = if let How::Exited(code) = how { Some(code) } else { None };
        self.runner.iter_mut().for_each(|runner| runner.exited(code));
        self.unsaved = Some(Exit { how, seconds: training.started.elapsed().as_secs_f64() });
        self.training = None;
    }

    /// Ends the runner, and then the machine, when they are not needed any more.
    fn mind_the_runner(&mut self) {
        let Some(runner) = &mut self.runner else { return };
        match runner.mind(Instant::now()) {
            Next::Stay => {}
            Next::Stop(why) => {
                match &self.training {
                    Some(training) if training.is_stopping() => {}
                    Some(_) => tracing::info!("the runner goes: {}", why.in_words()),
                    // Its program is gone, whatever the log says.
                    None => runner.exited(None),
                }
                self.stop(How::Stopped);
            }
            Next::End => self.ending = true,
        }
    }

    /// Ends a machine that no pipe needs; one with a runner is left to that.
    fn mind_the_silence(&mut self) {
        if self.heard.elapsed() <= self.grace {
            return;
        }
        match &mut self.runner {
            Some(runner) if runner.is_held() => runner.release(),
            Some(_) => {}
            None => {
                self.stop(How::Orphaned);
                self.ending = true;
            }
        }
    }

    /// Tells of the training's end, once the last checkpoint of one that is to go on elsewhere is there.
    fn mind_the_last_checkpoint(&mut self) {
        let Some(exit) = &self.unsaved else { return };
        let over = self.leaving.as_ref().is_some_and(|leaving| leaving.is_over(Instant::now()));
        if let (How::Interrupted, Some(saver)) = (exit.how, &mut self.saver) {
            if over {
                // It comes too late. The one before it is complete.
                saver.abandon();
            } else if !saver.finish() {
                return;
            }
        }
        self.exit = self.unsaved.take();
        self.record();
    }

    /// Writes the training's end beside its log. Whoever follows the log waits for it, so a disk that is full
    /// is asked again at every tick.
    fn record(&self) {
        let Some(exit) = &self.exit else { return };
        if !self.home.exit().exists() {
            let bytes = serde_json::to_vec(exit).context("cannot record the training's end");
            bytes
                .and_then(|bytes| write_whole(&self.home.exit(), &bytes))
                .unwrap_or_else(|error| tracing::warn!("{}", error.render()));
        }
    }
}

/// Removes the home. Whatever is left on the machine goes before.
fn remove(home: &Home, taker: Option<JoinHandle<Taker>>) -> Result<()> {
    thread::sleep(LAST_WORD);
    // An agent that waits for a silent pipe would stay, and what it writes would too.
    while end_all(home) {
        thread::sleep(TICK);
    }
    taker.map(JoinHandle::join);
    home.remove()
}
