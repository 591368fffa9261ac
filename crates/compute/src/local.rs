//! Machines that are folders on this one, each with a supervisor's process.

use super::{Compute, Machine, Order, RunId, Sight};
use crate::link::local::LocalLink;
use rustix::fs::OFlags;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::time::Instant;
use trainspot_agent::{Home, end_all, end_all_but_the_watch, is_watched, shell};
use trainspot_base::error::{Context as _, Error, Kind, Result};
use trainspot_protocol::EndMode;

/// A supervisor that does not open its socket within this time failed.
const START: Duration = Duration::from_secs(10);
/// A process that was just started has no arguments for a moment, by which it could be found.
const SIGHT: Duration = Duration::from_millis(500);
/// A killed process is gone at once, unless a disk keeps it waiting.
const END: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// This machine as a provider of machines.
#[derive(Clone, Debug)]
pub struct Local {
    /// This program.
    pub program: PathBuf,
    /// The folder that holds the machines.
    pub root: PathBuf,
    /// What of the environment describes this machine, and goes to the training.
    pub environment: BTreeMap<String, String>,
}

impl Local {
    fn home(&self, id: &str) -> Home {
        let home = self.root.join(id);
        // Its processes are found by this path, also by a later run from another folder.
        Home::new(std::path::absolute(&home).unwrap_or(home))
    }

    /// The home, if nobody else can have put there what is in it: its path can be guessed.
    fn own_home(&self, id: &str) -> Result<Home> {
        let home = self.home(id);
        home.check().map_err(|error| error.kind(Kind::Machine))?;
        Ok(home)
    }

    fn link(&self, id: &str) -> LocalLink {
        LocalLink {
            program: self.program.clone(),
            home: self.home(id).path().to_owned(),
            environment: self.environment.clone(),
        }
    }

    fn machine(run: &RunId) -> Machine {
        Machine {
            id: format!("trainspot-{run}"),
            description: "this machine (local)".to_owned(),
            pool: None,
            spot: false,
            rate: None,
            age: Duration::ZERO,
        }
    }
}

impl Compute for Local {
    type Link = LocalLink;

    async fn prepare(&self) -> Result<()> {
        Ok(())
    }

    async fn launch(&self, order: &Order) -> Result<Machine> {
        if shell().is_none() {
            return Err(Error::new("cannot train here: there is no shell (/bin/bash or /bin/sh)")
                .kind(Kind::Machine)
                .hint("the pipe's image holds nothing but the pipe; with CLOUD 'local', run it where the training's tools are, as «On a machine of your own» in docs/training.md shows"));
        }
        let machine = Self::machine(&order.run);
        let flags = [
            ("--grace", order.orphan_grace.as_secs().to_string()),
            ("--ending", EndMode::Remove.as_str().to_owned()),
        ];
        let mut command = self.link(&machine.id).command("supervise", &flags);
        // Its standard error is ours until it has a log of its own.
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.spawn().context("cannot start the supervisor")?;
        Ok(machine)
    }

    async fn find(&self, run: &RunId) -> Result<Vec<Machine>> {
        let machine = Self::machine(run);
        let home = self.own_home(&machine.id)?;
        Ok((home.path().exists() || is_watched(&home)).then_some(machine).into_iter().collect())
    }

    /// There is one machine for a run, whoever started it.
    async fn made(&self, run: &RunId) -> Result<Vec<Machine>> {
        self.find(run).await
    }

    async fn connect(&self, machine: &Machine, _: &Order) -> Result<LocalLink> {
        let start = Instant::now();
        loop {
            let home = self.own_home(&machine.id)?;
            let watched = is_watched(&home);
            if watched && home.run().join("socket").exists() {
                break;
            }
            if start.elapsed() > if watched { START } else { SIGHT } {
                let words = last_words(&home.agent_log()).unwrap_or_default();
                return Err(Error::new("the machine's supervisor does not run")
                    .source(words)
                    .kind(Kind::Machine));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(self.link(&machine.id))
    }

    async fn look(&self, machine: &Machine) -> Result<Sight> {
        let there = is_watched(&self.home(&machine.id));
        Ok(if there { Sight::There } else { Sight::Gone("its supervisor is gone".to_owned()) })
    }

    async fn terminate(&self, machine: &Machine) -> Result<()> {
        let home = self.home(&machine.id);
        // The watch goes last: if this process is killed half way, it ends what is left.
        gone(|| end_all_but_the_watch(&home)).await.ok();
        let removed = home.remove();
        let ended = gone(|| end_all(&home)).await;
        // What was starting when the first sweep passed may have written since.
        let removed = removed.and_then(|()| home.remove());
        ended.and(removed).map_err(|error| error.leaves(home.path().display().to_string()))
    }

    async fn hand_over(&self, _: &Machine, _: &RunId) -> Result<()> {
        Ok(())
    }

    async fn clean(&self, _: &RunId) -> Result<()> {
        Ok(())
    }
}

/// Kills processes by `end` until that finds none any more.
///
/// # Errors
/// There are some after all this time.
async fn gone(end: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    while end() {
        if start.elapsed() > END {
            return Err(Error::new(format!(
                "processes of the machine are there {END:?} after they were killed"
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// The end of a log, which the training of a machine that is found again may have written.
fn last_words(log: &Path) -> std::io::Result<String> {
    const LIMIT_BYTES: u64 = 8 << 10;
    // A named pipe in its place would be waited for.
    let mut options = fs::File::options();
    let mut log = options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(log)?;
    let bytes = log.metadata()?.len();
    log.seek(SeekFrom::Start(bytes.saturating_sub(LIMIT_BYTES)))?;
    let mut words = Vec::new();
    log.take(LIMIT_BYTES).read_to_end(&mut words)?;
    Ok(String::from_utf8_lossy(&words).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn processes_that_do_not_go_are_told() {
        let looks = std::cell::Cell::new(0);
        let some = |count: u32| {
            looks.set(looks.get() + 1);
            looks.get() < count
        };
        gone(|| some(3)).await.unwrap();
        assert_eq!(looks.get(), 3);
        let error = gone(|| true).await.unwrap_err().render();
        assert_eq!(error, "processes of the machine are there 10s after they were killed");
    }

    #[test]
    fn of_a_log_without_end_the_last_words_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        fs::File::create(&log).unwrap().set_len(1 << 40).unwrap();
        std::os::unix::fs::FileExt::write_all_at(
            &fs::File::options().write(true).open(&log).unwrap(),
            b"why",
            1 << 40,
        )
        .unwrap();
        let words = last_words(&log).unwrap();
        assert!(words.len() == 8 << 10 && words.ends_with("why"));
        fs::remove_file(&log).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &log, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .unwrap();
        assert!(last_words(&log).is_err());
    }
}
