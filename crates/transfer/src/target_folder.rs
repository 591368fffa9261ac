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

    /// Which entries of a list are taken, one answer for each entry, before a byte of them comes. The log tells
    /// how many are left out.
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
mod tests {
    use super::super::{
        BundleHeader, BundleSender, FileStability, everything, find, find_with_links, receive,
    };
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn bundle(root: &Path, header: &BundleHeader) -> Vec<u8> {
        let mut stream = Vec::new();
        BundleSender { root, files: FileStability::Final, progress: &mut |_| {} }
            .send(header, &mut stream)
            .unwrap();
        stream
    }

    fn arrive(stream: &[u8], folder: &Path) -> Result<BundleHeader> {
        let policy = ReceivePolicy::matching(&["model".to_owned()]).unwrap();
        let place = TargetFolder::open(folder).unwrap();
        receive(stream, &place, &policy, FileStability::Final, |_| {}, |_| {}).map(|received| received.header)
    }

    fn source() -> (tempfile::TempDir, BundleHeader) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("model")).unwrap();
        fs::write(root.path().join("model/a.bin"), vec![7; 1 << 20]).unwrap();
        fs::write(root.path().join("model/empty"), "").unwrap();
        let entries = find(root.path(), &["model".to_owned()]).unwrap().files;
        (root, BundleHeader { entries, unmatched: vec![] })
    }

    #[test]
    fn files_arrive_as_they_were() {
        let (root, header) = source();
        let target = tempfile::tempdir().unwrap();
        assert_eq!(arrive(&bundle(root.path(), &header), target.path()).unwrap(), header);
        assert_eq!(fs::read(target.path().join("model/a.bin")).unwrap(), vec![7; 1 << 20]);
        assert_eq!(fs::read(target.path().join("model/empty")).unwrap(), b"");
    }

    #[test]
    fn a_cut_or_changed_stream_leaves_no_half_file() {
        let (root, header) = source();
        let stream = bundle(root.path(), &header);
        for length in (0..stream.len()).step_by(3) {
            let target = tempfile::tempdir().unwrap();
            assert!(arrive(&stream[..length], target.path()).is_err(), "cut at {length}");
            let left: Vec<_> = find(target.path(), &["**".to_owned()]).unwrap().files;
            assert!(left.iter().all(|entry| header.entries.contains(entry)), "cut at {length}: {left:?}");
        }
    }

    #[test]
    fn a_wrong_hash_is_found() {
        let (root, header) = source();
        let plain = zstd::decode_all(&bundle(root.path(), &header)[..]).unwrap();
        let mut wrong = plain.clone();
        let last = wrong.len() - 1;
        wrong[last - EMPTY_FILE_BYTES] ^= 1;
        let target = tempfile::tempdir().unwrap();
        let error = arrive(&zstd::encode_all(&wrong[..], 1).unwrap(), target.path()).unwrap_err();
        assert_eq!(error.render(), "'model/a.bin' arrived with other bytes than were sent");
        assert!(!target.path().join("model/a.bin").exists());
    }
    /// The last piece's length, and a hash.
    const EMPTY_FILE_BYTES: usize = 4 + blake3::OUT_LEN;

    #[test]
    fn nothing_is_written_outside() {
        let outside = tempfile::tempdir().unwrap();
        let source = tempfile::tempdir().unwrap();
        fs::write(source.path().join("x"), "x").unwrap();
        let file = EntryKind::File { bytes: 1, executable: false };
        let absolute = outside.path().join("x").display().to_string();
        for path in ["../x", "a/../../x", &absolute, ".git/hooks/x", "a/.GIT/x", "", "."] {
            let header = BundleHeader {
                entries: vec![BundleEntry { path: EntryPath::Text(path.into()), kind: file.clone() }],
                unmatched: vec![],
            };
            assert!(TargetFolder::open(source.path()).unwrap().check(&header.entries).is_err(), "{path}");
        }
        let target = tempfile::tempdir().unwrap();
        symlink(outside.path(), target.path().join("out")).unwrap();
        symlink("../".repeat(20) + "tmp", target.path().join("up")).unwrap();
        let place = TargetFolder::open(target.path()).unwrap();
        for path in ["out/x", "up/x"] {
            assert!(place.file(&EntryPath::Text(path.into()), false, |_| Ok(())).is_err(), "{path}");
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_sparse_file_stays_one() {
        use std::os::unix::fs::MetadataExt as _;
        let (root, target, copy) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(root.path().join("model")).unwrap();
        let file = fs::File::create(root.path().join("model/hole")).unwrap();
        file.set_len(30 << 20).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"in the middle", 10 << 20).unwrap();
        let entries = everything(root.path()).unwrap();
        let header = BundleHeader { entries: entries.clone(), unmatched: vec![] };
        arrive(&bundle(root.path(), &header), target.path()).unwrap();
        let policy = ReceivePolicy::matching(&["**".to_owned()]).unwrap();
        TargetFolder::open(copy.path()).unwrap().copy(target.path(), &policy, &entries).unwrap();
        for folder in [&target, &copy] {
            let path = folder.path().join("model/hole");
            assert!(fs::read(&path).unwrap() == fs::read(root.path().join("model/hole")).unwrap());
            let blocks = fs::metadata(&path).unwrap().blocks();
            assert!(blocks * 512 < 2 << 20, "{blocks} blocks");
        }
    }

    #[test]
    fn links_are_refused_where_only_files_are_taken() {
        let target = tempfile::tempdir().unwrap();
        let place = TargetFolder::open(target.path()).unwrap().without_links();
        let link = EntryKind::Link { target: EntryPath::Text("/etc/passwd".into()) };
        let error =
            place.check(&[BundleEntry { path: EntryPath::Text("x".into()), kind: link }]).unwrap_err();
        assert_eq!(error.render(), "refused to make the link 'x': only files are taken");
    }

    #[test]
    fn a_link_in_a_files_place_is_replaced_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        let target = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("precious"), "old").unwrap();
        symlink(outside.path().join("precious"), target.path().join("x")).unwrap();
        let place = TargetFolder::open(target.path()).unwrap();
        place.file(&EntryPath::Text("x".into()), true, |file| file.write_all(b"new").context("")).unwrap();
        assert_eq!(fs::read(outside.path().join("precious")).unwrap(), b"old");
        assert_eq!(fs::read(target.path().join("x")).unwrap(), b"new");
    }

    #[test]
    fn links_of_a_checkpoint_arrive_and_are_copied_as_links() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("ckpt/checkpoint-3")).unwrap();
        fs::write(root.path().join("ckpt/checkpoint-3/a.pt"), "a").unwrap();
        symlink("checkpoint-3", root.path().join("ckpt/last")).unwrap();
        let entries = find_with_links(root.path(), &["ckpt".to_owned()]).unwrap();
        let header = BundleHeader { entries: entries.clone(), unmatched: vec![] };
        let (kept, clone) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let place = TargetFolder::open(kept.path()).unwrap().with_own_links();
        let policy = ReceivePolicy::matching(&["ckpt".to_owned()]).unwrap();
        receive(&bundle(root.path(), &header)[..], &place, &policy, FileStability::Final, |_| {}, |_| {})
            .unwrap();
        assert_eq!(everything(kept.path()).unwrap(), entries);
        let place = TargetFolder::open(clone.path()).unwrap().with_own_links();
        for _ in 0..2 {
            place.copy(kept.path(), &policy, &entries).unwrap();
            assert_eq!(everything(clone.path()).unwrap(), entries);
            assert_eq!(fs::read(clone.path().join("ckpt/last/a.pt")).unwrap(), b"a");
        }
    }

    #[test]
    fn a_link_is_made_neither_in_a_linked_folder_nor_in_place_of_a_folder() {
        let (from, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(from.path().join("a")).unwrap();
        fs::write(from.path().join("x"), "x").unwrap();
        symlink("../x", from.path().join("a/l")).unwrap();
        let entries = everything(from.path()).unwrap();
        let policy = ReceivePolicy::matching(&["**".to_owned()]).unwrap();
        let place = TargetFolder::open(target.path()).unwrap().with_own_links();
        fs::create_dir_all(target.path().join("deep/er")).unwrap();
        symlink("deep/er", target.path().join("a")).unwrap();
        let error = place.copy(from.path(), &policy, &entries).unwrap_err().render();
        assert!(error.contains("cannot make the link 'a/l': its folder is a link here"), "{error}");
        fs::remove_file(target.path().join("a")).unwrap();
        fs::create_dir_all(target.path().join("a/l/precious")).unwrap();
        let error = place.copy(from.path(), &policy, &entries).unwrap_err().render();
        assert!(error.contains("cannot make the link 'a/l'"), "{error}");
        assert!(target.path().join("a/l/precious").is_dir());
        TargetFolder::open(target.path()).unwrap().copy(from.path(), &policy, &entries).unwrap();
        assert_eq!(fs::read(target.path().join("a/l")).unwrap(), b"x");
    }
}
