//! Where things are on the machine.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use trainspot_base::error::{Context as _, Error, Result};
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
    ///
    /// # Errors
    /// They cannot be made; somebody else made the home, or may write to it.
    pub fn create(&self) -> Result<()> {
        let make = |folder: &Path| {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.with_context(|| format!("cannot make the folder {}", folder.display()))
        };
        self.0.parent().map_or(Ok(()), make)?;
        own_folder(&self.0)?;
        // Below it nobody else gets to.
        [self.work(), self.run(), self.checkpoints()].iter().try_for_each(|folder| make(folder))
    }

    /// Refuses a home that is not the caller's alone: whoever may write to it says what comes from there, its
    /// socket included. One that is not there is nobody's.
    ///
    /// # Errors
    /// Somebody else made the home, or may write to it.
    pub fn check(&self) -> Result<()> {
        if self.0.symlink_metadata().is_err() { Ok(()) } else { check_own(&self.0) }
    }

    /// Removes it all. A home that is gone already is no error.
    pub fn remove(&self) -> Result<()> {
        let mut removed = fs::remove_dir_all(&self.0);
        for _ in 0..3 {
            if self.0.symlink_metadata().is_err() {
                return Ok(());
            }
            // A process that is only just gone may still have written; and some tools (Go's, for one) take
            // the right to write away from their folders.
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

/// Makes a folder that is open to its owner only, or takes one that is there if it is the caller's own and
/// closed to others: whoever can guess its name may have made it first. What another user made is never
/// entered or changed.
///
/// # Errors
/// The folder cannot be made, or is not the caller's alone.
pub fn own_folder(folder: &Path) -> Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        // Made here and now, so it cannot be anybody else's.
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => return made.with_context(|| format!("cannot make the folder {}", folder.display())),
    }
    check_own(folder)
}

/// Refuses a folder that is not the caller's own or not closed to others.
fn check_own(folder: &Path) -> Result<()> {
    let found = folder.symlink_metadata();
    let found = found.with_context(|| format!("cannot look at the folder {}", folder.display()))?;
    let problem = if !found.is_dir() {
        "is not a folder"
    } else if found.uid() != rustix::process::geteuid().as_raw() {
        "belongs to somebody else"
    } else if found.mode() & 0o077 != 0 {
        "is open to others"
    } else {
        return Ok(());
    };
    let hint = "remove it, or set TMPDIR to a folder of your own";
    Err(Error::new(format!("the folder {} {problem}", folder.display())).hint(hint))
}

/// Writes a small file so that it is there whole or not at all, also after a crash.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let what = || format!("cannot write {}", path.display());
    let partial = path.with_extension("partial");
    // Not truncated: the room that `reserve` keeps is used, not given back to a disk that is full.
    let file = fs::File::options().write(true).create(true).truncate(false).open(&partial);
    let mut file = file.with_context(what)?;
    let written = file.write_all(bytes).and_then(|()| file.set_len(bytes.len() as u64));
    written.and_then(|()| file.sync_all()).with_context(what)?;
    fs::rename(&partial, path).with_context(what)
}

/// Keeps room for a later [`write_whole`] of up to 4 KiB, on a disk that others may fill meanwhile.
pub(super) fn reserve(path: &Path) -> Result<()> {
    let partial = path.with_extension("partial");
    fs::write(&partial, [0; 4096]).with_context(|| format!("cannot write {}", partial.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_home_is_the_callers_alone_or_not_there() {
        let parent = tempfile::tempdir().unwrap();
        let home = Home::new(parent.path().join("home"));
        home.check().unwrap();
        home.create().unwrap();
        home.check().unwrap();
        fs::set_permissions(home.path(), Permissions::from_mode(0o770)).unwrap();
        assert!(home.check().unwrap_err().render().contains("home is open to others"));
    }

    #[test]
    fn a_folder_is_made_for_its_owner_only_or_taken_if_it_is_such() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("home");
        own_folder(&folder).unwrap();
        assert_eq!(folder.symlink_metadata().unwrap().mode() & 0o7777, 0o700);
        own_folder(&folder).unwrap();
        for mode in [0o777, 0o770, 0o701, 0o1720] {
            fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
            let error = own_folder(&folder).unwrap_err().render();
            assert!(error.contains("home is open to others"), "{mode:o}: {error}");
        }
        assert_eq!(folder.symlink_metadata().unwrap().mode() & 0o7777, 0o1720, "it was left as it is");
        for (name, target) in [("link", "home"), ("dangling", "nowhere")] {
            symlink(target, parent.path().join(name)).unwrap();
            let error = own_folder(&parent.path().join(name)).unwrap_err().render();
            assert!(error.contains(" is not a folder"), "{error}");
        }
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&folder, Some(65534), None).unwrap();
            let error = own_folder(&folder).unwrap_err().render();
            assert!(error.contains("home belongs to somebody else"), "{error}");
        }
    }
}
