//! The machine's watch. It lives as long as the machine, and needs neither network nor credentials.

use super::Ending;
use super::checkpoint::{Taker, newest};
use super::command::{Training, end_descendants};
use super::home::{Home, write_whole};
use super::protocol::{Exit, How, Reply, Request, Spec, State, Status, Wish};
use crate::error::{Context as _, Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the training is looked at. A request is answered at once.
const TICK: Duration = Duration::from_millis(50);
/// A pipe that is slower to say one line is taken for dead.
const PATIENCE: Duration = Duration::from_secs(5);
/// A pipe beats every few seconds. After this silence another one may take the machine over.
const HOLD: Duration = Duration::from_secs(20);

/// Watches over a machine until its end.
pub(super) fn run(home: &Home, grace: Duration, ending: Ending) -> Result<()> {
    // A session of its own: neither the pipe's terminal nor the end of its connection can end it.
    rustix::process::setsid().ok();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context("cannot become a sub-reaper")?;
    std::env::set_current_dir(home.run())
        .with_context(|| format!("cannot enter {}", home.run().display()))?;
    write_whole(&home.pid(), std::process::id().to_string().as_bytes())?;
    let listener = UnixListener::bind(Home::SOCKET).context("cannot open the supervisor's socket")?;
    listener.set_nonblocking(true).context("cannot open the supervisor's socket")?;
    Supervisor::new(home, grace).watch(&listener);
    end(home, ending)
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
        }
    }

    fn watch(&mut self, listener: &UnixListener) {
        loop {
            wait_for(listener);
            if let Ok((stream, _)) = listener.accept() {
                self.serve(&stream).unwrap_or_else(|error| tracing::warn!("{}", error.render()));
            }
            self.mind_the_training();
            self.mind_the_checkpoints();
            if self.heard.elapsed() > self.grace {
                self.stop(How::Orphaned);
                self.ending = true;
            }
            if self.ending && self.training.is_none() {
                return;
            }
        }
    }

    fn serve(&mut self, stream: &UnixStream) -> Result<()> {
        stream.set_nonblocking(false).context("cannot serve the pipe")?;
        stream.set_read_timeout(Some(PATIENCE)).context("cannot serve the pipe")?;
        stream.set_write_timeout(Some(PATIENCE)).context("cannot serve the pipe")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).context("cannot read the pipe's request")?;
        let request: Request = serde_json::from_str(&line).context("cannot understand the pipe's request")?;
        let mut reply = serde_json::to_vec(&self.answer(request)).context("cannot answer the pipe")?;
        reply.push(b'\n');
        let mut stream = stream;
        stream.write_all(&reply).context("cannot answer the pipe")
    }

    fn answer(&mut self, request: Request) -> Reply {
        let held = self.owner.as_ref().is_some_and(|owner| *owner != request.owner);
        if held && self.heard.elapsed() < HOLD {
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
        self.training = Some(Training::start(&self.home, &spec)?);
        if !spec.checkpoints.is_empty() {
            self.resting = Some((Taker::new(&self.home, &spec.checkpoints), Instant::now()));
        }
        self.spec = Some(spec);
        Ok(())
    }

    fn stop(&mut self, why: How) {
        if let Some(training) = &mut self.training {
            training.stop(why);
        }
    }

    fn mind_the_training(&mut self) {
        let (Some(training), Some(spec)) = (&mut self.training, &self.spec) else { return };
        if training.started.elapsed() > spec.max_runtime {
            training.stop(How::TimedOut);
        }
        let Some(how) = training.reap() else { return };
        let exit = Exit { how, seconds: training.started.elapsed().as_secs_f64() };
        let recorded = serde_json::to_vec(&exit).context("cannot record the training's end");
        recorded
            .and_then(|bytes| write_whole(&self.home.exit(), &bytes))
            .unwrap_or_else(|error| tracing::warn!("{}", error.render()));
        self.exit = Some(exit);
        self.training = None;
        self.resting = None;
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
            self.taker = Some(std::thread::spawn(move || {
                if let Err(error) = taker.take() {
                    tracing::warn!("no checkpoint: {}", error.render());
                }
                taker
            }));
        }
    }
}

/// Waits for a request, at most for a tick.
fn wait_for(listener: &UnixListener) {
    let tick = Timespec::try_from(TICK).ok();
    poll(&mut [PollFd::new(listener, PollFlags::IN)], tick.as_ref()).ok();
}

fn end(home: &Home, ending: Ending) -> Result<()> {
    end_descendants();
    match ending {
        Ending::Remove => {
            // A process that is only just gone may still have written; once more is enough then.
            let first = std::fs::remove_dir_all(home.path());
            first
                .or_else(|_| std::fs::remove_dir_all(home.path()))
                .context("cannot remove the machine's folder")
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
