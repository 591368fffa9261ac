//! The supervisor's side of the guard: a loop of root's that was on the machine before anything else, and
//! ends it when the supervisor falls silent.

use super::command::end_descendants;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use trainspot_base::error::{Context as _, Error, Kind, Result};

/// How often the guard gets a sign of life.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// A machine that still runs after this much time does not go down by what was tried.
const POWER_OFF_WAIT: Duration = Duration::from_secs(15);
/// Ways down that do not need the guard. Forced: what hangs while it is stopped must not keep the machine.
const POWER_OFF_COMMANDS: [&[&str]; 2] =
    [&["sudo", "-n", "systemctl", "poweroff", "--force", "--force"], &["poweroff", "-f"]];

/// The guard's folder.
#[derive(Debug)]
pub(super) struct Guard {
    folder: PathBuf,
    beats: u64,
    last: Option<Instant>,
    failing: bool,
}

impl Guard {
    /// The guard whose folder this is.
    ///
    /// # Errors
    /// It did not make its folder: nothing would end the machine if this supervisor died.
    pub(super) fn find(folder: PathBuf) -> Result<Self> {
        if folder.is_dir() {
            return Ok(Self { folder, beats: 0, last: None, failing: false });
        }
        Err(Error::new(format!("the machine has no guard: there is no folder {}", folder.display()))
            .kind(Kind::Machine))
    }

    /// A sign of life, unless there was one a moment ago. It comes from the watch itself, never from a thread
    /// beside it: a supervisor that is stuck counts as dead.
    pub(super) fn beat_if_due(&mut self) {
        if self.last.is_some_and(|last| last.elapsed() < HEARTBEAT_INTERVAL) {
            return;
        }
        let beat = self.beat();
        if let (Err(error), false) = (&beat, self.failing) {
            tracing::warn!("{}", error.render());
        }
        self.failing = beat.is_err();
    }

    fn beat(&mut self) -> Result<()> {
        (self.beats, self.last) = (self.beats + 1, Some(Instant::now()));
        // The guard looks at the time of the file alone; the number is for people who look.
        let written = fs::write(self.folder.join("alive"), format!("{}\n", self.beats));
        written.with_context(|| format!("cannot give the guard in {} a sign of life", self.folder.display()))
    }

    fn end(&self) -> Result<()> {
        let made = fs::write(self.folder.join("end"), "");
        made.with_context(|| format!("cannot tell the guard in {} to end the machine", self.folder.display()))
    }
}

/// Powers the machine off: by its guard, or else by whatever works. Does not return.
pub(super) fn power_off(guard: Option<&Guard>) -> ! {
    match guard.map(Guard::end) {
        Some(Ok(())) => thread::sleep(POWER_OFF_WAIT),
        Some(Err(error)) => tracing::warn!("{}", error.render()),
        None => {}
    }
    loop {
        for way in POWER_OFF_COMMANDS {
            // Not waited for: one that hangs must not keep the other from its turn.
            let started = Command::new(way[0]).args(&way[1..]).stdin(Stdio::null()).spawn();
            if let Err(error) = started {
                tracing::warn!("cannot power the machine off by {}: {error}", way[0]);
            }
        }
        thread::sleep(POWER_OFF_WAIT);
        tracing::warn!("the machine still runs; trying again");
        end_descendants();
    }
}
