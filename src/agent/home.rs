//! Where things are on the machine.

use crate::error::{Context as _, Result};
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// The machine's folder of trainspot.
#[derive(Clone, Debug)]
pub struct Home(PathBuf);

impl Home {
    /// The home at `folder`, which need not exist yet.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Makes the folders, closed to other users.
    pub fn create(&self) -> Result<()> {
        for folder in [self.0.clone(), self.work(), self.run(), self.checkpoints()] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
            made.with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        Ok(())
    }

    /// Removes it all. A home that is gone already is no error.
    pub fn remove(&self) -> Result<()> {
        let mut removed = fs::remove_dir_all(&self.0);
        for _ in 0..3 {
            if self.0.symlink_metadata().is_err() {
                return Ok(());
            }
            // A process that is only just gone may still have written; and some tools (Go's, for one) take the right
            // to write away from their folders.
            for folder in WalkDir::new(&self.0).into_iter().flatten().filter(|item| item.file_type().is_dir())
            {
                fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).ok();
            }
            removed = fs::remove_dir_all(&self.0);
        }
        removed.with_context(|| format!("cannot remove the machine's folder {}", self.0.display()))
    }

    /// The home itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The workspace, where the training runs.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    /// The supervisor's files.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.0.join("run")
    }

    /// Complete checkpoints, each a folder named by its number.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    /// The training's output.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.run().join("log")
    }

    /// How the training ended; there once it did.
    #[must_use]
    pub fn exit(&self) -> PathBuf {
        self.run().join("exit.json")
    }

    /// Present once the machine is about to be taken away.
    #[must_use]
    pub fn notice(&self) -> PathBuf {
        self.run().join("notice")
    }

    /// The supervisor's own words.
    #[must_use]
    pub fn agent_log(&self) -> PathBuf {
        self.run().join("agent.log")
    }

    /// The supervisor's socket, relative to [`Home::run`]: a socket's whole path may have 107 bytes only.
    pub(super) const SOCKET: &'static str = "socket";
}

/// Writes a small file so that it is there whole or not at all, also after a crash.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let what = || format!("cannot write {}", path.display());
    let partial = path.with_extension("partial");
    let mut file = fs::File::create(&partial).with_context(what)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(what)?;
    fs::rename(&partial, path).with_context(what)
}

/// Keeps room for a later [`write_whole`] of up to 4 KiB, on a disk that others may fill meanwhile.
pub(super) fn reserve(path: &Path) -> Result<()> {
    let partial = path.with_extension("partial");
    fs::write(&partial, [0; 4096]).with_context(|| format!("cannot write {}", partial.display()))
}
