//! Where things are on the machine.

use crate::error::{Context as _, Result};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

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

    /// The supervisor's process id.
    #[must_use]
    pub fn pid(&self) -> PathBuf {
        self.run().join("pid")
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
