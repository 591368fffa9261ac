//! The provider of local machines: each is a folder on this computer, with a supervisor's process.

use super::{Compute, LaunchRequest, Machine, MachineStatus, RunId};
use crate::link::local::LocalLink;
use rustix::fs::OFlags;
use secrecy::SecretString;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;
use trainspot_agent::{Home, end_all, end_all_but_supervisor, has_supervisor, shell};
use trainspot_base::error::{Context as _, Error, Kind, Result};
use trainspot_base::mutex::lock;
use trainspot_protocol::EndMode;

/// A supervisor that has not opened its socket after this time has failed.
const SUPERVISOR_START_LIMIT: Duration = Duration::from_secs(10);
/// Processes are found by their arguments, which a process that was just started lacks for a moment. A
/// supervisor that is not found after this time has not started.
const PROCESS_VISIBLE_LIMIT: Duration = Duration::from_millis(500);
/// How long a killed process may live on. It ends at once, unless it waits for a disk.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// How often processes and sockets are looked for.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// This computer as a provider of machines.
#[derive(Clone, Debug)]
pub struct LocalCompute {
    /// This program.
    pub program: PathBuf,
    /// The folder that holds the machines.
    pub root: PathBuf,
    /// The environment variables that describe this computer, and go to the training.
    pub environment: BTreeMap<String, SecretString>,
    /// The machines that this process has left to themselves.
    pub detached: Arc<Mutex<BTreeSet<String>>>,
}

impl LocalCompute {
    fn home(&self, id: &str) -> Home {
        let home = self.root.join(id);
        // Its processes are found by this path, also by a later run from another folder.
        Home::new(std::path::absolute(&home).unwrap_or(home))
    }

    /// The machine's home, checked to be this user's own: others can guess its path, and make it beforehand.
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

impl Compute for LocalCompute {
    type Link = LocalLink;

    async fn prepare(&self) -> Result<()> {
        Ok(())
    }

    async fn launch(&self, request: &LaunchRequest) -> Result<Machine> {
        if shell().is_none() {
            return Err(Error::new("cannot train here: there is no shell (/bin/bash or /bin/sh)")
                .kind(Kind::Machine)
                .hint("the pipe's image holds nothing but the pipe; with CLOUD 'local', run it where the training's tools are, as «On a machine of your own» in docs/training.md shows"));
        }
        let machine = Self::machine(&request.run);
        let flags = [
            ("--grace", request.orphan_grace.as_secs().to_string()),
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
        Ok((home.path().exists() || has_supervisor(&home)).then_some(machine).into_iter().collect())
    }

    /// A run has one local machine, whichever process started it.
    async fn launched_by_this_process(&self, run: &RunId) -> Result<Vec<Machine>> {
        let found = self.find(run).await?;
        Ok(found.into_iter().filter(|machine| !lock(&self.detached).contains(&machine.id)).collect())
    }

    async fn connect(&self, machine: &Machine, _: &LaunchRequest) -> Result<LocalLink> {
        let start = Instant::now();
        loop {
            let home = self.own_home(&machine.id)?;
            let watched = has_supervisor(&home);
            if watched && home.run().join("socket").exists() {
                break;
            }
            if start.elapsed() > if watched { SUPERVISOR_START_LIMIT } else { PROCESS_VISIBLE_LIMIT } {
                let tail = log_tail(&home.agent_log()).unwrap_or_default();
                return Err(Error::new("the machine's supervisor does not run")
                    .source(tail)
                    .kind(Kind::Machine));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(self.link(&machine.id))
    }

    async fn status(&self, machine: &Machine) -> Result<MachineStatus> {
        let there = has_supervisor(&self.home(&machine.id));
        Ok(if there {
            MachineStatus::Running
        } else {
            MachineStatus::Gone("its supervisor is gone".to_owned())
        })
    }

    async fn terminate(&self, machine: &Machine) -> Result<()> {
        let home = self.home(&machine.id);
        // The supervisor goes last: if this process is killed half way, the supervisor ends the others.
        kill_until_gone(|| end_all_but_supervisor(&home)).await.ok();
        let removed = home.remove();
        let ended = kill_until_gone(|| end_all(&home)).await;
        // A process that was starting during the first sweep may have written files since.
        let removed = removed.and_then(|()| home.remove());
        ended.and(removed).map_err(|error| error.leaves(home.path().display().to_string()))
    }

    async fn detach(&self, machine: &Machine, _: &RunId) -> Result<()> {
        lock(&self.detached).insert(machine.id.clone());
        Ok(())
    }

    async fn delete_run_resources(&self, _: &RunId) -> Result<()> {
        Ok(())
    }
}

/// Kills processes by `end` until `end` finds none, which it tells by `false`.
///
/// # Errors
/// Some still live after [`KILL_LIMIT`].
async fn kill_until_gone(end: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    while end() {
        if start.elapsed() > KILL_LIMIT {
            return Err(Error::new(format!(
                "processes of the machine are there {KILL_LIMIT:?} after they were killed"
            )));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

/// The last 8 KiB of a log. The training of a machine that is found again may have written that log.
fn log_tail(log: &Path) -> std::io::Result<String> {
    const LIMIT_BYTES: u64 = 8 << 10;
    // A named pipe in its place would be waited for.
    let mut options = fs::File::options();
    let mut log = options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(log)?;
    let bytes = log.metadata()?.len();
    log.seek(SeekFrom::Start(bytes.saturating_sub(LIMIT_BYTES)))?;
    let mut tail = Vec::new();
    log.take(LIMIT_BYTES).read_to_end(&mut tail)?;
    Ok(String::from_utf8_lossy(&tail).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_of_the_environment_is_shown() {
        let environment = [("HTTPS_PROXY".to_owned(), "http://me:s3cret@proxy".into())].into();
        let compute = LocalCompute {
            program: PathBuf::new(),
            root: PathBuf::new(),
            environment,
            detached: Arc::default(),
        };
        let shown = format!("{compute:?} {:?}", compute.link("m"));
        assert!(shown.matches("HTTPS_PROXY").count() == 2 && !shown.contains("s3cret"), "{shown}");
    }

    #[tokio::test(start_paused = true)]
    async fn processes_that_do_not_go_are_told() {
        let looks = std::cell::Cell::new(0);
        let some = |count: u32| {
            looks.set(looks.get() + 1);
            looks.get() < count
        };
        kill_until_gone(|| some(3)).await.unwrap();
        assert_eq!(looks.get(), 3);
        let error = kill_until_gone(|| true).await.unwrap_err().render();
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
        let tail = log_tail(&log).unwrap();
        assert!(tail.len() == 8 << 10 && tail.ends_with("why"));
        fs::remove_file(&log).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &log, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .unwrap();
        assert!(log_tail(&log).is_err());
    }
}
