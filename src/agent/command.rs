//! The training as a process: a shell in a group of its own, and everything that it starts.

use super::home::Home;
use super::protocol::{How, Spec};
use crate::error::{Context as _, Error, Result};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, wait};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a training may do between SIGTERM and SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(15);

/// Marks every process of a training in its environment, so that they are found even when they left the group.
pub(super) const MARK: &str = "TRAINSPOT_HOME";

/// A training that runs.
pub(super) struct Training {
    group: Pid,
    pub(super) started: Instant,
    /// Why the supervisor ended it, and since when.
    stopping: Option<(How, Instant)>,
}

/// The shell that runs commands; bash where there is one, as in a pipeline's step.
#[must_use]
pub fn shell() -> Option<&'static Path> {
    ["/bin/bash", "/bin/sh"].map(Path::new).into_iter().find(|shell| shell.exists())
}

impl Training {
    /// Starts the training. Its output goes straight to the log file, so nothing of ours stands in its way.
    pub(super) fn start(home: &Home, spec: &Spec) -> Result<Self> {
        let shell = shell().ok_or_else(|| Error::new("the machine has no shell (/bin/bash or /bin/sh)"))?;
        let log =
            File::options().create(true).append(true).open(home.log()).context("cannot open the log")?;
        let errors = log.try_clone().context("cannot open the log")?;
        let child = Command::new(shell)
            .args(["-e", "-c", &spec.command])
            .current_dir(home.work())
            .envs(defaults(home, spec))
            .envs(&spec.environment)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot start {}", shell.display()))?;
        let group = Pid::from_child(&child);
        // The handle is given up on purpose: `reap` waits for every child, adopted ones included.
        drop(child);
        Ok(Self { group, started: Instant::now(), stopping: None })
    }

    /// Asks the training to end; [`Training::reap`] sees to it that it does.
    pub(super) fn stop(&mut self, why: How) {
        if self.stopping.is_none() {
            self.stopping = Some((why, Instant::now()));
            kill_process_group(self.group, Signal::TERM).ok();
        }
    }

    /// How it ended, if it did. Everything that it left running is ended too.
    pub(super) fn reap(&mut self) -> Option<How> {
        if self.stopping.is_some_and(|(_, since)| since.elapsed() > TERM_GRACE) {
            kill_process_group(self.group, Signal::KILL).ok();
        }
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == self.group {
                end_descendants();
                let own =
                    status.exit_status().map(How::Exited).or(status.terminating_signal().map(How::Signalled));
                return self.stopping.map(|(why, _)| why).or(own);
            }
        }
        None
    }
}

fn defaults(home: &Home, spec: &Spec) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        // Python would otherwise keep its lines for itself until 8 KiB are full.
        ("PYTHONUNBUFFERED", "1".to_owned()),
        ("TRAINSPOT_RESUME", u8::from(spec.resume).to_string()),
        ("TRAINSPOT_NOTICE", home.notice().display().to_string()),
        (MARK, home.path().display().to_string()),
    ])
}

/// Kills every process below this one. As a sub-reaper it is the ancestor of all that the training left.
pub(super) fn end_descendants() {
    let me = rustix::process::getpid();
    for _ in 0..100 {
        let descendants = descendants(me);
        if descendants.is_empty() {
            return;
        }
        for pid in descendants {
            kill_process(pid, Signal::KILL).ok();
        }
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        std::thread::sleep(Duration::from_millis(10));
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
    Pid::from_raw(rest.split_whitespace().nth(1)?.parse().ok()?)
}

/// Ends a machine's processes from outside: its supervisor, all below it, and what a dead supervisor left.
pub fn end_all(home: &Home, supervisor: Option<Pid>) {
    let mark = format!("{MARK}={}", home.path().display()).into_bytes();
    let below = supervisor.map(descendants).unwrap_or_default();
    for pid in supervisor.into_iter().chain(below) {
        kill_process(pid, Signal::KILL).ok();
    }
    for pid in processes() {
        let environment = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|variable| variable == mark) {
            kill_process(pid, Signal::KILL).ok();
        }
    }
}
