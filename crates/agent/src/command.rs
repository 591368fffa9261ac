//! The training as a process: a shell in a group of its own, and everything that it starts.

use super::home::Home;
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group, test_kill_process,
    test_kill_process_group, wait,
};
use secrecy::ExposeSecret as _;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use trainspot_base::error::{Context as _, Error, Result};
use trainspot_protocol::{CommandSpec, ExitReason};

/// Marks every process of a training in its environment, so that they are found even when they left the
/// group.
const HOME_VARIABLE: &str = "TRAINSPOT_HOME";

/// How long processes that the training left may go on after it.
const LAST_OUTPUT_WAIT: Duration = Duration::from_millis(300);

/// A training that runs.
pub(super) struct TrainingProcess {
    group: Pid,
    pub(super) started: Instant,
    /// Why the supervisor ended it, and until when it may go on between SIGTERM and SIGKILL.
    stopping: Option<(ExitReason, Instant)>,
    /// How the shell ended, and when.
    shell: Option<(ExitReason, Instant)>,
}

/// The shell that runs commands; bash where there is one, as in a pipeline's step.
#[must_use]
pub fn shell() -> Option<&'static Path> {
    ["/bin/bash", "/bin/sh"].map(Path::new).into_iter().find(|shell| shell.exists())
}

impl TrainingProcess {
    /// Starts the training. Its output goes straight to the log file, so nothing of ours stands in its way.
    pub(super) fn start(home: &Home, spec: &CommandSpec) -> Result<Self> {
        let shell = shell().ok_or_else(|| Error::new("the machine has no shell (/bin/bash or /bin/sh)"))?;
        let log =
            File::options().create(true).append(true).open(home.log()).context("cannot open the log")?;
        let errors = log.try_clone().context("cannot open the log")?;
        let child = Command::new(shell)
            .args(["-e", "-c", &spec.command])
            .current_dir(home.work())
            .envs(defaults(home, spec))
            .envs(spec.environment.iter().map(|(name, value)| (name, value.expose_secret())))
            .env(HOME_VARIABLE, home.path())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot start {}", shell.display()))?;
        let group = Pid::from_child(&child);
        // The handle is given up on purpose: `reap` waits for every child, adopted ones included.
        drop(child);
        Ok(Self { group, started: Instant::now(), stopping: None, shell: None })
    }

    /// Asks the training to end; [`TrainingProcess::reap`] sees to it that it does, within `patience`.
    pub(super) fn stop(&mut self, why: ExitReason, patience: Duration) {
        if self.stopping.is_none() {
            self.stopping = Some((why, Instant::now() + patience));
            kill_process_group(self.group, Signal::TERM).ok();
            // A process that is stopped (SIGSTOP) gets it only when it goes on.
            kill_process_group(self.group, Signal::CONT).ok();
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// How it ended, if it did. Everything that it left running is ended too.
    pub(super) fn reap(&mut self) -> Option<ExitReason> {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == self.group {
                let how = status.exit_status().map(ExitReason::Exited);
                let how = how.or(status.terminating_signal().map(ExitReason::Signalled));
                self.shell = how.map(|how| (how, Instant::now()));
            }
        }
        let patient = self.stopping.is_some_and(|(_, until)| Instant::now() <= until);
        if self.shell.is_none() && self.stopping.is_some() && !patient {
            kill(descendants(getpid()));
        }
        let (own, since) = self.shell?;
        // What it wrote to through a pipe (`> >(tee …)`) may have a last line left.
        if self.stopping.is_none() && since.elapsed() < LAST_OUTPUT_WAIT && !descendants(getpid()).is_empty()
        {
            return None;
        }
        // A shell dies of SIGTERM at once; what it ran may still be saving its work.
        if patient && test_kill_process_group(self.group).is_ok() {
            return None;
        }
        end_descendants();
        self.stopping.map(|(why, _)| why).or(Some(own))
    }
}

fn defaults(home: &Home, spec: &CommandSpec) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        // Python would otherwise keep its lines for itself until 8 KiB are full.
        ("PYTHONUNBUFFERED", "1".to_owned()),
        ("TRAINSPOT_RESUME", u8::from(spec.resume).to_string()),
        ("TRAINSPOT_NOTICE", home.notice().display().to_string()),
    ])
}

/// Kills every process below this one. As a sub-reaper it is the ancestor of all that the training left.
pub(super) fn end_descendants() {
    for _ in 0..100 {
        kill(descendants(getpid()));
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                // No child is left, and so nothing below. A look at /proc may miss a process whose parent
                // just died.
                Err(_) => return,
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn kill(processes: impl IntoIterator<Item = Pid>) {
    for pid in processes {
        kill_process(pid, Signal::KILL).ok();
    }
}

fn descendants(of: Pid) -> Vec<Pid> {
    let parents: Vec<(Pid, Pid)> = processes().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut found = vec![of];
    let mut next = 0;
    while let Some(&ancestor) = found.get(next) {
        found.extend(parents.iter().filter(|(_, parent)| *parent == ancestor).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// Every process on the machine that we may look at.
fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

fn parent(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name, in parentheses, may hold anything; what follows it does not.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    // A dead process that its parent has not waited for, perhaps because that is stopped, is not below
    // anything.
    let alive = fields.next()? != "Z";
    Pid::from_raw(fields.next()?.parse().ok()?).filter(|_| alive)
}

/// Kills all of a machine's processes but the caller: agents, what is below them, and what a dead supervisor
/// left.
///
/// Tells whether there were any: they are gone once there are none.
#[must_use]
pub fn end_all(home: &Home) -> bool {
    end(all(home))
}

/// Kills all of a machine's processes but the caller and the machine's supervisor.
///
/// Tells whether there were any.
#[must_use]
pub fn end_all_but_supervisor(home: &Home) -> bool {
    end(all(home).into_iter().filter(|pid| !is_supervisor(*pid, home)).collect())
}

fn end(processes: Vec<Pid>) -> bool {
    let any = !processes.is_empty();
    kill(processes);
    any
}

fn all(home: &Home) -> Vec<Pid> {
    let me = getpid();
    let ours = processes().filter(|pid| *pid != me && (is_agent(*pid, home) || is_training(*pid, home)));
    ours.flat_map(|pid| descendants(pid).into_iter().chain([pid])).collect()
}

/// Whether a supervisor lives.
#[must_use]
pub fn has_supervisor(home: &Home) -> bool {
    processes().any(|pid| is_supervisor(pid, home))
}

fn is_supervisor(pid: Pid, home: &Home) -> bool {
    is_agent(pid, home) && words(pid, "cmdline").any(|word| word == b"supervise")
}

/// A process that is dead but not yet waited for has no words, and so does not count. One that may not be
/// told to end is somebody else's, who can call it whatever he likes.
fn is_agent(pid: Pid, home: &Home) -> bool {
    if test_kill_process(pid).is_err() {
        return false;
    }
    let mut words = words(pid, "cmdline").skip(1);
    words.next().is_some_and(|word| word == b"agent")
        && words.any(|word| word == home.path().as_os_str().as_encoded_bytes())
}

fn is_training(pid: Pid, home: &Home) -> bool {
    let home = home.path().as_os_str().as_encoded_bytes();
    let mark = |word: &[u8]| {
        word.strip_prefix(HOME_VARIABLE.as_bytes())?.strip_prefix(b"=").map(|value| value == home)
    };
    words(pid, "environ").any(|word| mark(&word) == Some(true))
}

/// A process's arguments (`cmdline`) or environment (`environ`).
fn words(pid: Pid, what: &str) -> impl Iterator<Item = Vec<u8>> {
    let bytes = fs::read(format!("/proc/{}/{what}", pid.as_raw_nonzero())).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect::<Vec<_>>().into_iter()
}
