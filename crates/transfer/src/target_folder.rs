//! The folder that files arrive in. Nothing can be written outside it, and no file is ever half there.

use super::entry::{BundleEntry, BundleHeader, EntryKind, EntryPath};
use super::receive_policy::{ReceivePolicy, check_paths};
use super::refusal::refused;
use super::sparse::SparseWriter;
use super::{links, room};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, Permissions, PermissionsExt as _};
use cap_tempfile::TempFile;
use rustix::fs::{AtFlags, CWD, linkat};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Component, Path};
use tracing::warn;
use trainspot_base::error::{Context as _, Error, Result};
use trainspot_base::log::count;

/// A folder that files of a bundle are written into.
///
/// Paths are resolved by `cap-std`: links that stay inside the folder are followed, others refused. A file is
/// written under no name (`O_TMPFILE`, where the file system has it) and given its name when it is complete,
/// so a process that is killed leaves nothing behind.
pub struct TargetFolder {
    dir: Dir,
    links: LinkPolicy,
}

/// Which symbolic links a folder takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LinkPolicy {
    All,
    /// Links to files that come with the links.
    Own,
    None,
}

impl TargetFolder {
    /// Opens a folder that exists.
    pub fn open(folder: &Path) -> Result<Self> {
        let dir = Dir::open_ambient_dir(folder, ambient_authority());
        let dir = dir.with_context(|| format!("cannot open the folder {}", folder.display()))?;
        Ok(Self { dir, links: LinkPolicy::All })
    }

    /// Takes files only.
    #[must_use]
    pub fn without_links(self) -> Self {
        Self { links: LinkPolicy::None, ..self }
    }

    /// Takes files, and links to files that come with the links.
    #[must_use]
    pub fn with_own_links(self) -> Self {
        Self { links: LinkPolicy::Own, ..self }
    }

    /// Refuses a list in which any path could lead outside, or into git's own folder, before a byte is
    /// written.
    pub(super) fn check(&self, entries: &[BundleEntry]) -> Result<()> {
        let link = entries.iter().find(|entry| matches!(entry.kind, EntryKind::Link { .. }));
        if let (LinkPolicy::None, Some(link)) = (self.links, link) {
            return Err(refused(format!("refused to make the link '{}': only files are taken", link.path)));
        }
        entries.iter().try_for_each(|entry| check(&entry.path))?;
        if self.links == LinkPolicy::Own { links::check(entries) } else { Ok(()) }
    }

    /// Refuses files that take more room than there is, before a byte is written.
    pub(super) fn check_room(&self, entries: &[BundleEntry]) -> Result<()> {
        room::check(&self.dir, entries)
    }

    /// Whether there is nothing at a path, nor anything hidden in it.
    pub(super) fn is_free_for(&self, name: &EntryPath) -> bool {
        let there = self.dir.symlink_metadata(name.as_path());
        !name.is_hidden() && there.is_err_and(|error| error.kind() == ErrorKind::NotFound)
    }

    /// Writes a small file, or replaces one.
    ///
    /// # Errors
    /// The path leads outside or into git's own folder, or the file cannot be written.
    pub fn write(&self, path: &str, content: &[u8]) -> Result<()> {
        let name = EntryPath::Text(path.to_owned());
        check(&name)?;
        self.file(&name, false, |out| {
            out.write_all(content).with_context(|| format!("cannot write '{path}'"))
        })
    }

    /// Writes one file by `fill`, and puts it in its place if `fill` says that it is good.
    pub(super) fn file(
        &self,
        name: &EntryPath,
        executable: bool,
        fill: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        let what = || format!("cannot write '{name}'");
        let (parent, file_name) = self.parent(name)?;
        let unnamed = TempFile::new(&parent).with_context(what)?;
        let mut sparse = SparseWriter::new(BufWriter::with_capacity(1 << 16, unnamed));
        fill(&mut sparse)?;
        let (buffered, bytes) = sparse.finish().with_context(what)?;
        let whole = buffered.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(what)?;
        whole.as_file().set_len(bytes).with_context(what)?;
        let mode = if executable { 0o755 } else { 0o644 };
        whole.as_file().set_permissions(Permissions::from_mode(mode)).with_context(what)?;
        whole.replace(&file_name).with_context(what)
    }

    /// Takes a file of this side's own, which nobody changes, under another name: the same file, where the
    /// file system lets a file have two names, else a copy.
    ///
    /// # Errors
    /// The file cannot be read, or not be written here.
    pub fn adopt(&self, file: &Path, name: &EntryPath, executable: bool) -> Result<()> {
        let what = || format!("cannot copy '{name}'");
        let (parent, file_name) = self.parent(name)?;
        let mode = file.metadata().with_context(what)?.permissions();
        let is_same = executable == (std::os::unix::fs::PermissionsExt::mode(&mode) & 0o100 != 0);
        let linked = is_same && linkat(CWD, file, &parent, &file_name, AtFlags::empty()).is_ok();
        if linked { Ok(()) } else { self.copy_file(file, name, executable) }
    }

    /// Which entries of a list are taken, one answer for each entry, before a byte of them comes. The log
    /// tells how many are left out.
    ///
    /// # Errors
    /// What the policy refuses; an entry leads elsewhere or comes twice; the disk has no room for all.
    pub fn accept(&self, policy: &ReceivePolicy, header: &BundleHeader) -> Result<Vec<bool>> {
        self.check(&header.entries)?;
        if !policy.is_trusting() {
            check_paths(&header.entries)?;
        }
        let taken = policy.choose(header, |path| self.is_free_for(path))?;
        self.check_room(&header.entries)?;
        let left_out = taken.iter().filter(|is_taken| !**is_taken).count();
        if left_out > 0 {
            warn!("{} that nobody asked for came along, and was left out", count(left_out, "file"));
        }
        Ok(taken)
    }

    /// Copies files and links from the same paths in another folder, where they do not change.
    ///
    /// # Errors
    /// An entry was not asked for, or the disk has no room.
    pub fn copy(&self, from: &Path, policy: &ReceivePolicy, entries: &[BundleEntry]) -> Result<()> {
        self.check(entries)?;
        policy.check(entries)?;
        self.check_room(entries)?;
        for entry in entries {
            if let EntryKind::File { executable, .. } = entry.kind {
                self.copy_file(&from.join(entry.path.as_path()), &entry.path, executable)?;
            }
        }
        self.links(entries)
    }

    fn copy_file(&self, from: &Path, name: &EntryPath, executable: bool) -> Result<()> {
        let what = || format!("cannot copy '{name}'");
        self.file(name, executable, |target| {
            let mut source = std::fs::File::open(from).with_context(what)?;
            std::io::copy(&mut source, target).map(drop).with_context(what)
        })
    }

    /// Makes the links among `entries`, which were accepted.
    ///
    /// # Errors
    /// A link cannot be made, or the folder of a link is a link here.
    pub fn links(&self, entries: &[BundleEntry]) -> Result<()> {
        for entry in entries {
            if let EntryKind::Link { target } = &entry.kind {
                self.link(&entry.path, target)?;
            }
        }
        Ok(())
    }

    fn link(&self, name: &EntryPath, target: &EntryPath) -> Result<()> {
        let what = || format!("cannot make the link '{name}'");
        let (parent, file_name) = self.parent(name)?;
        let path = name.to_path();
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let (LinkPolicy::Own, Some(folder)) = (self.links, folder)
            && self.dir.canonicalize(folder).with_context(what)? != folder
        {
            // By way of a link that is here already, the new one would lead elsewhere than its check took for
            // granted.
            return Err(Error::new(format!("{}: its folder is a link here", what())));
        }
        parent.remove_file(&file_name).ok();
        if self.links == LinkPolicy::All {
            // A machine's workspace, before its training: what is sent later counts. In a clone no folder is
            // removed.
            parent.remove_dir_all(&file_name).ok();
        }
        parent.symlink_contents(target.to_path(), &file_name).with_context(what)
    }

    fn parent(&self, name: &EntryPath) -> Result<(Dir, std::ffi::OsString)> {
        let what = || format!("cannot make the folder of '{name}'");
        let path = name.to_path();
        let file_name = path.file_name().ok_or_else(|| leads_outside(name))?.to_owned();
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        self.dir.create_dir_all(folder).with_context(what)?;
        Ok((self.dir.open_dir(folder).with_context(what)?, file_name))
    }
}

fn check(name: &EntryPath) -> Result<()> {
    let path = name.to_path();
    let inside = |part: Component<'_>| match part {
        Component::Normal(part) => !part.eq_ignore_ascii_case(".git"),
        Component::CurDir => true,
        _ => false,
    };
    if path.file_name().is_none() || !path.components().all(inside) {
        return Err(leads_outside(name));
    }
    Ok(())
}

fn leads_outside(name: &EntryPath) -> Error {
    refused(format!("refused to write '{name}': it leads out of the folder, or into git's own"))
}

#[cfg(test)]
mod tests;
