//! The folder that files arrive in. Nothing can be written outside it, and no file is ever half there.

use super::asked::{Asked, is_hidden, refused};
use super::entry::{Entry, EntryKind, Name};
use super::sparse::Sparse;
use super::{links, room};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, Permissions, PermissionsExt as _};
use cap_tempfile::TempFile;
use rustix::fs::{AtFlags, CWD, linkat};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Component, Path};
use trainspot_base::error::{Context as _, Error, Result};

/// A folder to write into.
///
/// Paths are resolved by `cap-std`: links that stay inside the folder are followed, others refused. A file is
/// written under no name (`O_TMPFILE`, where the file system has it) and given its name when it is complete,
/// so a process that is killed leaves nothing behind.
pub struct Place {
    dir: Dir,
    links: Links,
}

/// Which symbolic links a folder takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Links {
    All,
    /// Those to files that come with them.
    Own,
    None,
}

impl Place {
    /// Opens a folder that exists.
    pub fn open(folder: &Path) -> Result<Self> {
        let dir = Dir::open_ambient_dir(folder, ambient_authority());
        let dir = dir.with_context(|| format!("cannot open the folder {}", folder.display()))?;
        Ok(Self { dir, links: Links::All })
    }

    /// Takes files only.
    #[must_use]
    pub fn without_links(self) -> Self {
        Self { links: Links::None, ..self }
    }

    /// Takes files, and links to files that come with them.
    #[must_use]
    pub fn with_own_links(self) -> Self {
        Self { links: Links::Own, ..self }
    }

    /// Refuses a list in which any path could lead outside, or into git's own folder, before a byte is
    /// written.
    pub(super) fn check(&self, entries: &[Entry]) -> Result<()> {
        let link = entries.iter().find(|entry| matches!(entry.kind, EntryKind::Link { .. }));
        if let (Links::None, Some(link)) = (self.links, link) {
            return Err(refused(format!("refused to make the link '{}': only files are taken", link.path)));
        }
        entries.iter().try_for_each(|entry| check(&entry.path))?;
        if self.links == Links::Own { links::check(entries) } else { Ok(()) }
    }

    /// Refuses files that take more room than there is, before a byte is written.
    pub(super) fn check_room(&self, entries: &[Entry]) -> Result<()> {
        room::check(&self.dir, entries)
    }

    /// Whether there is nothing at a path, nor anything hidden in it.
    pub(super) fn is_free_for(&self, name: &Name) -> bool {
        let there = self.dir.symlink_metadata(name.as_path());
        !is_hidden(name) && there.is_err_and(|error| error.kind() == ErrorKind::NotFound)
    }

    /// Writes a small file, or replaces one.
    ///
    /// # Errors
    /// The path leads outside or into git's own folder, or the file cannot be written.
    pub fn write(&self, path: &str, content: &[u8]) -> Result<()> {
        let name = Name::Text(path.to_owned());
        check(&name)?;
        self.file(&name, false, |out| {
            out.write_all(content).with_context(|| format!("cannot write '{path}'"))
        })
    }

    /// Writes one file by `fill`, and puts it in its place if `fill` says that it is good.
    pub(super) fn file(
        &self,
        name: &Name,
        executable: bool,
        fill: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        let what = || format!("cannot write '{name}'");
        let (parent, file_name) = self.parent(name)?;
        let unnamed = TempFile::new(&parent).with_context(what)?;
        let mut sparse = Sparse::new(BufWriter::with_capacity(1 << 16, unnamed));
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
    pub(super) fn adopt(&self, file: &Path, name: &Name, executable: bool) -> Result<()> {
        let what = || format!("cannot copy '{name}'");
        let (parent, file_name) = self.parent(name)?;
        let mode = file.metadata().with_context(what)?.permissions();
        let is_same = executable == (std::os::unix::fs::PermissionsExt::mode(&mode) & 0o100 != 0);
        let linked = is_same && linkat(CWD, file, &parent, &file_name, AtFlags::empty()).is_ok();
        if linked { Ok(()) } else { self.copy_file(file, name, executable) }
    }

    /// Copies files and links from the same paths in another folder, where they do not change.
    ///
    /// # Errors
    /// There are others than were asked for, or there is no room.
    pub fn copy(&self, from: &Path, asked: &Asked, entries: &[Entry]) -> Result<()> {
        self.check(entries)?;
        asked.check(entries)?;
        self.check_room(entries)?;
        for entry in entries {
            if let EntryKind::File { executable, .. } = entry.kind {
                self.copy_file(&from.join(entry.path.as_path()), &entry.path, executable)?;
            }
        }
        self.links(entries)
    }

    fn copy_file(&self, from: &Path, name: &Name, executable: bool) -> Result<()> {
        let what = || format!("cannot copy '{name}'");
        self.file(name, executable, |target| {
            let mut source = std::fs::File::open(from).with_context(what)?;
            std::io::copy(&mut source, target).map(drop).with_context(what)
        })
    }

    /// Makes the links among `entries`.
    pub(super) fn links(&self, entries: &[Entry]) -> Result<()> {
        for entry in entries {
            if let EntryKind::Link { target } = &entry.kind {
                self.link(&entry.path, target)?;
            }
        }
        Ok(())
    }

    fn link(&self, name: &Name, target: &Name) -> Result<()> {
        let what = || format!("cannot make the link '{name}'");
        let (parent, file_name) = self.parent(name)?;
        let path = name.to_path();
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let (Links::Own, Some(folder)) = (self.links, folder)
            && self.dir.canonicalize(folder).with_context(what)? != folder
        {
            // By way of a link that is here already, the new one would lead elsewhere than its check took for
            // granted.
            return Err(Error::new(format!("{}: its folder is a link here", what())));
        }
        parent.remove_file(&file_name).ok();
        if self.links == Links::All {
            // A machine's workspace, before its training: what is sent later counts. In a clone no folder is
            // removed.
            parent.remove_dir_all(&file_name).ok();
        }
        parent.symlink_contents(target.to_path(), &file_name).with_context(what)
    }

    fn parent(&self, name: &Name) -> Result<(Dir, std::ffi::OsString)> {
        let what = || format!("cannot make the folder of '{name}'");
        let path = name.to_path();
        let file_name = path.file_name().ok_or_else(|| leads_outside(name))?.to_owned();
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        self.dir.create_dir_all(folder).with_context(what)?;
        Ok((self.dir.open_dir(folder).with_context(what)?, file_name))
    }
}

fn check(name: &Name) -> Result<()> {
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

fn leads_outside(name: &Name) -> Error {
    refused(format!("refused to write '{name}': it leads out of the folder, or into git's own"))
}

#[cfg(test)]
mod tests {
    use super::super::{Files, Header, Sender, everything, find, find_with_links, receive};
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn bundle(root: &Path, header: &Header) -> Vec<u8> {
        let mut stream = Vec::new();
        Sender { root, files: Files::Final, progress: &mut |_| {} }.send(header, &mut stream).unwrap();
        stream
    }

    fn arrive(stream: &[u8], folder: &Path) -> Result<Header> {
        let asked = Asked::matching(&["model".to_owned()]).unwrap();
        let place = Place::open(folder).unwrap();
        receive(stream, &place, &asked, Files::Final, |_| {}, |_| {}).map(|received| received.header)
    }

    fn source() -> (tempfile::TempDir, Header) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("model")).unwrap();
        fs::write(root.path().join("model/a.bin"), vec![7; 1 << 20]).unwrap();
        fs::write(root.path().join("model/empty"), "").unwrap();
        let entries = find(root.path(), &["model".to_owned()]).unwrap().files;
        (root, Header { entries, unmatched: vec![] })
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
            let header = Header {
                entries: vec![Entry { path: Name::Text(path.into()), kind: file.clone() }],
                unmatched: vec![],
            };
            assert!(Place::open(source.path()).unwrap().check(&header.entries).is_err(), "{path}");
        }
        let target = tempfile::tempdir().unwrap();
        symlink(outside.path(), target.path().join("out")).unwrap();
        symlink("../".repeat(20) + "tmp", target.path().join("up")).unwrap();
        let place = Place::open(target.path()).unwrap();
        for path in ["out/x", "up/x"] {
            assert!(place.file(&Name::Text(path.into()), false, |_| Ok(())).is_err(), "{path}");
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
        let header = Header { entries: entries.clone(), unmatched: vec![] };
        arrive(&bundle(root.path(), &header), target.path()).unwrap();
        let asked = Asked::matching(&["**".to_owned()]).unwrap();
        Place::open(copy.path()).unwrap().copy(target.path(), &asked, &entries).unwrap();
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
        let place = Place::open(target.path()).unwrap().without_links();
        let link = EntryKind::Link { target: Name::Text("/etc/passwd".into()) };
        let error = place.check(&[Entry { path: Name::Text("x".into()), kind: link }]).unwrap_err();
        assert_eq!(error.render(), "refused to make the link 'x': only files are taken");
    }

    #[test]
    fn a_link_in_a_files_place_is_replaced_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        let target = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("precious"), "old").unwrap();
        symlink(outside.path().join("precious"), target.path().join("x")).unwrap();
        let place = Place::open(target.path()).unwrap();
        place.file(&Name::Text("x".into()), true, |file| file.write_all(b"new").context("")).unwrap();
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
        let header = Header { entries: entries.clone(), unmatched: vec![] };
        let (kept, clone) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let place = Place::open(kept.path()).unwrap().with_own_links();
        let asked = Asked::matching(&["ckpt".to_owned()]).unwrap();
        receive(&bundle(root.path(), &header)[..], &place, &asked, Files::Final, |_| {}, |_| {}).unwrap();
        assert_eq!(everything(kept.path()).unwrap(), entries);
        let place = Place::open(clone.path()).unwrap().with_own_links();
        for _ in 0..2 {
            place.copy(kept.path(), &asked, &entries).unwrap();
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
        let asked = Asked::matching(&["**".to_owned()]).unwrap();
        let place = Place::open(target.path()).unwrap().with_own_links();
        fs::create_dir_all(target.path().join("deep/er")).unwrap();
        symlink("deep/er", target.path().join("a")).unwrap();
        let error = place.copy(from.path(), &asked, &entries).unwrap_err().render();
        assert!(error.contains("cannot make the link 'a/l': its folder is a link here"), "{error}");
        fs::remove_file(target.path().join("a")).unwrap();
        fs::create_dir_all(target.path().join("a/l/precious")).unwrap();
        let error = place.copy(from.path(), &asked, &entries).unwrap_err().render();
        assert!(error.contains("cannot make the link 'a/l'"), "{error}");
        assert!(target.path().join("a/l/precious").is_dir());
        Place::open(target.path()).unwrap().copy(from.path(), &asked, &entries).unwrap();
        assert_eq!(fs::read(target.path().join("a/l")).unwrap(), b"x");
    }
}
