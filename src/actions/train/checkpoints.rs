//! The run's checkpoints on the pipe's side: a machine may be gone without a word.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::time::Instant;
use trainspot_agent::own_folder;
use trainspot_base::error::{Context as _, Error, Kind, Result};
use trainspot_base::mutex::lock;
use trainspot_compute::RunId;
use trainspot_compute::link::{Agent, Link};
use trainspot_transfer::{HeldFiles, ReceivePolicy, TargetFolder, everything};

/// Where checkpoints are kept; removed when it is dropped.
pub(crate) struct Checkpoints {
    folder: PathBuf,
    /// Which files of the training are checkpoints: nothing else comes.
    patterns: Vec<String>,
    /// The newest that is here.
    newest: tokio::sync::Mutex<Option<HeldCheckpoint>>,
    /// When the newest was known to be complete on its machine.
    saved: Mutex<Option<Instant>>,
    /// Of all files that came, also of checkpoints that are not kept any more. What a checkpoint has in
    /// common with the one before it came once.
    received_bytes: AtomicU64,
}

/// The newest checkpoint on this side.
struct HeldCheckpoint {
    /// The machine that it is of.
    machine: String,
    /// Its number there.
    number: u64,
    /// Its files: those of them that the next checkpoint has, too, do not come again.
    held: HeldFiles,
}

impl Checkpoints {
    /// A new folder for this run's checkpoints. One that a killed pipe left is removed first.
    ///
    /// # Errors
    /// The folder cannot be made, or somebody else made it. Checkpoints are restored from it, and loading one
    /// may run code: nobody else must write to it.
    pub(crate) fn new(parent: &Path, run: &RunId, patterns: &[String]) -> Result<Self> {
        let folder = parent.join(format!("trainspot-pipe-{run}"));
        let hint = "set TMPDIR to a folder of your own that has room";
        let removed = remove(&folder);
        let made = std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot make the folder {}", folder.display()));
        // It knows best whose a folder is that could not be removed.
        let made = made.and_then(|()| own_folder(&folder)).and(removed);
        made.map_err(|error| error.kind(Kind::Machine).hint(hint))?;
        let patterns = patterns.to_vec();
        let (newest, saved) = (tokio::sync::Mutex::default(), Mutex::default());
        Ok(Self { folder, patterns, newest, saved, received_bytes: AtomicU64::new(0) })
    }

    /// Brings a checkpoint to this side, unless it is here. Tells whether it was brought.
    pub(super) async fn fetch<L: Link>(&self, agent: &Agent<L>, machine: &str, number: u64) -> Result<bool> {
        if self.patterns.is_empty() {
            return Ok(false);
        }
        let mut newest = self.newest.lock().await;
        if newest.as_ref().is_some_and(|newest| newest.machine == machine && newest.number >= number) {
            return Ok(false);
        }
        let saved = Instant::now();
        let held = newest.as_ref().map(|newest| newest.held.clone()).unwrap_or_default();
        let held = self.receive(agent, number, held).await?;
        *newest = Some(HeldCheckpoint { machine: machine.to_owned(), number, held });
        *lock(&self.saved) = Some(saved);
        Ok(true)
    }

    /// Returns the files of the checkpoint that came.
    async fn receive<L: Link>(&self, agent: &Agent<L>, number: u64, held: HeldFiles) -> Result<HeldFiles> {
        let context = |error| Error::new("cannot keep a checkpoint").source(error);
        let partial = self.folder.join("partial");
        tokio::fs::remove_dir_all(&partial).await.ok();
        tokio::fs::create_dir_all(&partial).await.map_err(context)?;
        let arrived = agent.fetch_checkpoint(number, &self.patterns, held, &partial).await?;
        if arrived.header.entries.is_empty() {
            return Err(Error::new(format!("checkpoint {number} is empty")));
        }
        self.received_bytes.fetch_add(arrived.bytes, Ordering::Relaxed);
        // Numbers start again on every machine; those on this side only grow.
        let newest = self.numbers().max().unwrap_or(0);
        let folder = self.folder.join((newest + 1).to_string());
        tokio::fs::rename(&partial, &folder).await.map_err(context)?;
        for number in self.numbers().filter(|number| *number <= newest) {
            tokio::fs::remove_dir_all(self.folder.join(number.to_string())).await.ok();
        }
        Ok(HeldFiles::in_folder(&folder, &arrived))
    }

    /// How much came, before it was compressed for the way.
    pub(super) fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    /// The number of the newest checkpoint that arrived whole: it grows with each, whichever machine it is
    /// of.
    pub(super) fn newest_number(&self) -> u64 {
        self.numbers().max().unwrap_or(0)
    }

    /// The folder of the newest checkpoint that arrived whole.
    pub(super) fn newest(&self) -> Option<PathBuf> {
        self.numbers().max().map(|number| self.folder.join(number.to_string()))
    }

    /// When the newest checkpoint was complete on its machine, at the latest.
    pub(super) fn saved(&self) -> Option<Instant> {
        *lock(&self.saved)
    }

    /// Copies the newest checkpoint's files into the clone, where the step's artifacts can keep them. Says
    /// how many.
    pub(super) fn salvage_into(&self, clone: &Path) -> Result<usize> {
        let Some(newest) = self.newest() else { return Ok(0) };
        let files = everything(&newest)?;
        let (place, policy) =
            (TargetFolder::open(clone)?.with_own_links(), ReceivePolicy::matching(&self.patterns)?);
        place.copy(&newest, &policy, &files).context("cannot put the checkpoint into the clone")?;
        Ok(files.len())
    }

    fn numbers(&self) -> impl Iterator<Item = u64> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot empty the folder {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn run() -> RunId {
        RunId::new(&["test"])
    }

    fn mode(folder: &Path) -> u32 {
        fs::symlink_metadata(folder).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn the_folder_is_open_to_its_owner_only_and_empty() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("not/yet").join(format!("trainspot-pipe-{}", run()));
        for _ in 0..2 {
            let checkpoints = Checkpoints::new(&parent.path().join("not/yet"), &run(), &[]).unwrap();
            assert_eq!(mode(&folder), 0o700);
            assert_eq!(checkpoints.newest(), None);
            // What a killed pipe leaves.
            fs::create_dir(folder.join("7")).unwrap();
            fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
            std::mem::forget(checkpoints);
        }
    }

    #[test]
    fn a_link_in_the_folders_place_is_replaced() {
        let (parent, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(elsewhere.path().join("7")).unwrap();
        let folder = parent.path().join(format!("trainspot-pipe-{}", run()));
        symlink(elsewhere.path(), &folder).unwrap();
        let checkpoints = Checkpoints::new(parent.path(), &run(), &[]);
        assert!(elsewhere.path().join("7").is_dir());
        assert!(checkpoints.is_err() || (mode(&folder) == 0o700 && checkpoints.unwrap().newest().is_none()));
    }
}
