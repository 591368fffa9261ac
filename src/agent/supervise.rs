//! The machine's watch. It lives as long as the machine, and needs neither network nor credentials.

use super::Ending;
use super::checkpoint::{Taker, newest};
use super::command::{Training, end_all, end_descendants};
use super::home::{Home, reserve, write_whole};
use super::protocol::{Exit, How, Reply, Request, Spec, State, Status, Wish};
use crate::error::{Context as _, Error, Result};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often the training is looked at. A request is answered at once.
const TICK: Duration = Duration::from_millis(50);
/// A pipe that is slower to say one line is taken for dead.
const PATIENCE: Duration = Duration::from_secs(5);
/// No request is longer: the kernel takes no larger environment and command either.
const LONGEST_REQUEST: u64 = 8 << 20;
/// A pipe beats every few seconds. After this silence, but while the machine is there, another one may take it over.
const HOLD: Duration = Duration::from_secs(20);
/// What a training may do between SIGTERM and SIGKILL, but no longer than the machine lives without a pipe.
const TERM_GRACE: Duration = Duration::from_secs(15);

/// Watches over a machine until its end.
pub(super) fn run(home: &Home, grace: Duration, ending: Ending) -> Result<()> {
    // A session of its own: neither the pipe's terminal nor the end of its connection can end it.
    rustix::process::setsid().ok();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context("cannot become a sub-reaper")?;
    // Only now, so that there is never a home without a watch.
    home.create()?;
    let log = File::create(home.agent_log()).context("cannot write the supervisor's log")?;
    rustix::stdio::dup2_stderr(&log).context("cannot write the supervisor's log")?;
    std::env::set_current_dir(home.run())
        .with_context(|| format!("cannot enter {}", home.run().display()))?;
    let questions = listen()?;
    let taker = Supervisor::new(home, grace).watch(&questions);
    end(home, ending, taker)
}

/// A request, and where its answer goes.
type Question = (Request, UnixStream);

/// Reads each request on a thread of its own, so that a slow client keeps neither the watch nor others waiting.
fn listen() -> Result<Receiver<Question>> {
    let what = "cannot open the supervisor's socket";
    let listener = UnixListener::bind(Home::SOCKET).context(what)?;
    let (sender, questions) = channel();
    let accept = move || {
        for stream in listener.incoming() {
            let sender = sender.clone();
            let heard = stream.and_then(|stream| thread::Builder::new().spawn(move || hear(stream, &sender)));
            if let Err(error) = heard {
                tracing::warn!("cannot serve the pipe: {error}");
                thread::sleep(TICK);
            }
        }
    };
    thread::Builder::new().spawn(accept).context(what)?;
    Ok(questions)
}

fn hear(stream: UnixStream, questions: &Sender<Question>) {
    match read_request(&stream) {
        Ok(request) => _ = questions.send((request, stream)),
        Err(error) => tracing::warn!("{}", error.render()),
    }
}

fn read_request(stream: &UnixStream) -> Result<Request> {
    stream.set_read_timeout(Some(PATIENCE)).context("cannot serve the pipe")?;
    stream.set_write_timeout(Some(PATIENCE)).context("cannot serve the pipe")?;
    let mut line = String::new();
    let mut input = BufReader::new(stream.take(LONGEST_REQUEST));
    input.read_line(&mut line).context("cannot read the pipe's request")?;
    // The reader's words would quote the request, and with it secrets.
    serde_json::from_str(&line).map_err(|_| Error::new("cannot understand the pipe's request"))
}

struct Supervisor {
    home: Home,
    grace: Duration,
    owner: Option<String>,
    heard: Instant,
    spec: Option<Spec>,
    training: Option<Training>,
    exit: Option<Exit>,
    taker: Option<JoinHandle<Taker>>,
    resting: Option<(Taker, Instant)>,
    ending: bool,
    /// Set at the very end, for the thread that may be copying a checkpoint.
    over: Arc<AtomicBool>,
}

impl Supervisor {
    fn new(home: &Home, grace: Duration) -> Self {
        Self {
            home: home.clone(),
            grace,
            owner: None,
            heard: Instant::now(),
            spec: None,
            training: None,
            exit: None,
            taker: None,
            resting: None,
            ending: false,
            over: Arc::default(),
        }
    }

    /// Watches until the machine's end, and hands back the thread that may still copy a checkpoint.
    fn watch(mut self, questions: &Receiver<Question>) -> Option<JoinHandle<Taker>> {
        loop {
            if let Ok((request, stream)) = questions.recv_timeout(TICK) {
                self.serve(request, &stream).unwrap_or_else(|error| tracing::warn!("{}", error.render()));
            }
            self.mind_the_training();
            self.mind_the_checkpoints();
            if self.heard.elapsed() > self.grace {
                self.stop(How::Orphaned);
                self.ending = true;
            }
            if self.ending && self.training.is_none() {
                self.over.store(true, Ordering::Relaxed);
                return self.taker;
            }
        }
    }

    fn serve(&mut self, request: Request, mut stream: &UnixStream) -> Result<()> {
        let mut reply = serde_json::to_vec(&self.answer(request)).context("cannot answer the pipe")?;
        reply.push(b'\n');
        stream.write_all(&reply).context("cannot answer the pipe")
    }

    fn answer(&mut self, request: Request) -> Reply {
        let held = self.owner.as_ref().is_some_and(|owner| *owner != request.owner);
        if held && self.heard.elapsed() < HOLD.min(self.grace / 2) {
            return Reply::Refused("another run of this step is using the machine".to_owned());
        }
        self.owner = Some(request.owner);
        self.heard = Instant::now();
        match request.wish {
            Wish::Beat => {}
            Wish::Stop => self.stop(How::Stopped),
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
        Reply::Status(self.status())
    }

    fn status(&self) -> Status {
        let state = match (&self.training, &self.exit) {
            (Some(_), _) => State::Running,
            (None, Some(exit)) => State::Ended(exit.clone()),
            (None, None) => State::Idle,
        };
        let fingerprint = self.spec.as_ref().map(|spec| spec.fingerprint.clone());
        Status { state, fingerprint, checkpoint: newest(&self.home) }
    }

    fn start(&mut self, spec: Spec) -> Result<()> {
        if self.spec.is_some() {
            return Err(Error::new("a training was started on this machine before"));
        }
        reserve(&self.home.exit())?;
        self.training = Some(Training::start(&self.home, &spec, TERM_GRACE.min(self.grace))?);
        if !spec.checkpoints.is_empty() {
            self.resting = Some((self.new_taker(&spec), Instant::now()));
        }
        self.spec = Some(spec);
        Ok(())
    }

    fn new_taker(&self, spec: &Spec) -> Taker {
        Taker::new(&self.home, &spec.checkpoints, Arc::clone(&self.over))
    }

    fn stop(&mut self, why: How) {
        if let Some(training) = &mut self.training {
            training.stop(why);
        }
    }

    fn mind_the_training(&mut self) {
        self.record();
        let (Some(training), Some(spec)) = (&mut self.training, &self.spec) else { return };
        if training.started.elapsed() > spec.max_runtime {
            training.stop(How::TimedOut);
        }
        let Some(how) = training.reap() else { return };
        self.exit = Some(Exit { how, seconds: training.started.elapsed().as_secs_f64() });
        self.training = None;
        self.resting = None;
        self.record();
    }

    /// Writes the training's end beside its log. Whoever follows the log waits for it, so a disk that is full is
    /// asked again at every tick.
    fn record(&self) {
        let Some(exit) = &self.exit else { return };
        if !self.home.exit().exists() {
            let bytes = serde_json::to_vec(exit).context("cannot record the training's end");
            bytes
                .and_then(|bytes| write_whole(&self.home.exit(), &bytes))
                .unwrap_or_else(|error| tracing::warn!("{}", error.render()));
        }
    }

    /// Copies on a thread of its own: gigabytes take longer than a tick.
    fn mind_the_checkpoints(&mut self) {
        if self.taker.as_ref().is_some_and(JoinHandle::is_finished) {
            let taker = self.taker.take().and_then(|thread| thread.join().ok());
            self.resting = taker.filter(|_| self.training.is_some()).map(|taker| (taker, Instant::now()));
        }
        let Some(spec) = &self.spec else { return };
        if self.resting.as_ref().is_some_and(|(_, since)| since.elapsed() >= spec.checkpoint_interval) {
            let Some((mut taker, _)) = self.resting.take() else { return };
            let copy = move || {
                if let Err(error) = taker.take() {
                    tracing::warn!("no checkpoint: {}", error.render());
                }
                taker
            };
            // The training may have used up all processes that there can be.
            match thread::Builder::new().spawn(copy) {
                Ok(thread) => self.taker = Some(thread),
                Err(_) => self.resting = Some((self.new_taker(spec), Instant::now())),
            }
        }
    }
}

fn end(home: &Home, ending: Ending, taker: Option<JoinHandle<Taker>>) -> Result<()> {
    end_descendants();
    match ending {
        Ending::Remove => {
            // An agent that waits for a silent pipe would stay, and what it writes would too.
            while end_all(home) {
                thread::sleep(TICK);
            }
            taker.map(JoinHandle::join);
            home.remove()
        }
        Ending::PowerOff => {
            let powered = Command::new("systemctl").args(["poweroff", "--force"]).status();
            match powered {
                Ok(status) if status.success() => Ok(()),
                _ => Command::new("poweroff")
                    .arg("-f")
                    .status()
                    .map(drop)
                    .context("cannot power the machine off"),
            }
        }
    }
}
