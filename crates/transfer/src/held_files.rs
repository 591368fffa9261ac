//! Files that the receiver has from before: of each such file the sender sends the hash alone, and no bytes
//! travel.
//!
//! A hash names content, so a file that was renamed or copied on the other side does not travel again either.
//! The sender can only name files that this side has told it of, and learns nothing from that: they came from
//! it.

use super::entry::{EntryKind, EntryPath};
use super::received::Received;
use super::refusal::refused;
use blake3::Hash;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trainspot_base::error::Result;

/// How many files the sender is told of, the largest first. Both sides keep the list of hashes in memory.
const HELD_FILES_LIMIT: usize = 20_000;
/// A smaller file is sent again: the sender's question and answer would be about as long.
const SMALLEST_HELD_BYTES: u64 = 256;

/// Files of a folder, by their hashes. Nobody may change a file of that folder.
#[derive(Clone, Debug, Default)]
pub struct HeldFiles {
    files: Arc<HashMap<Hash, HeldFile>>,
}

#[derive(Debug)]
struct HeldFile {
    path: PathBuf,
    bytes: u64,
}

impl HeldFiles {
    /// The files that arrived in `folder`. The bytes of each file were proved by its hash when it arrived.
    #[must_use]
    pub fn in_folder(folder: &Path, received: &Received) -> Self {
        let listed = received.header.entries.iter().zip(&received.hashes);
        let mut files: Vec<_> = listed
            .filter_map(|(entry, hash)| match (&entry.kind, hash) {
                (EntryKind::File { bytes, .. }, Some(hash)) if *bytes >= SMALLEST_HELD_BYTES => {
                    Some((*bytes, *hash, &entry.path))
                }
                _ => None,
            })
            .collect();
        files.sort_by_key(|(bytes, ..)| std::cmp::Reverse(*bytes));
        files.truncate(HELD_FILES_LIMIT);
        let files = files
            .into_iter()
            .map(|(bytes, hash, name)| (hash, HeldFile { path: folder.join(name.as_path()), bytes }));
        Self { files: Arc::new(files.collect()) }
    }

    /// The hashes of the files that are there still, in hexadecimal.
    #[must_use]
    pub fn hashes(&self) -> Vec<String> {
        let is_there = |file: &HeldFile| {
            file.path.symlink_metadata().is_ok_and(|data| data.is_file() && data.len() == file.bytes)
        };
        let there = self.files.iter().filter(|(_, file)| is_there(file));
        there.map(|(hash, _)| hash.to_hex().to_string()).collect()
    }

    /// The held file with this hash, which the sender lists as `name` with `bytes` bytes.
    ///
    /// # Errors
    /// This side holds no file with this hash, or one of another size.
    pub(super) fn find(&self, hash: &Hash, name: &EntryPath, bytes: u64) -> Result<&Path> {
        match self.files.get(hash) {
            Some(held) if held.bytes == bytes => Ok(&held.path),
            Some(held) => Err(refused(format!(
                "'{name}' is announced with {bytes} bytes, and is said to be a file of {} bytes that came before",
                held.bytes
            ))),
            None => {
                Err(refused(format!("'{name}' is said to be a file that came before, and none such did")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        BundleEntry, BundleHeader, BundleSender, FileStability, ReceivePolicy, TargetFolder, everything,
        receive,
    };
    use super::*;
    use std::collections::HashSet;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    fn write(root: &Path, path: &str, byte: u8, bytes: usize) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![byte; bytes]).unwrap();
    }

    /// The list of a folder, and the hash of each of its files.
    fn listed(root: &Path) -> (BundleHeader, Vec<Hash>) {
        let entries = everything(root).unwrap();
        let hash = |entry: &BundleEntry| blake3::hash(&fs::read(root.join(entry.path.as_path())).unwrap());
        let hashes = entries.iter().map(hash).collect();
        (BundleHeader { entries, unmatched: Vec::new() }, hashes)
    }

    /// A bundle of all files of a folder for a receiver that holds files with these hashes.
    fn bundle(root: &Path, held: &[String]) -> Vec<u8> {
        let ((header, hashes), mut stream) = (listed(root), Vec::new());
        let held: HashSet<_> = held.iter().map(|hash| Hash::from_hex(hash).unwrap()).collect();
        let mut sender = BundleSender { root, files: FileStability::Final, progress: &mut |_| {} };
        sender.send_proved(&header, &hashes, &held, &mut stream).unwrap();
        stream
    }

    fn arrive(stream: &[u8], folder: &Path, held: HeldFiles) -> Result<Received> {
        let policy = ReceivePolicy::matching(&["**".to_owned()]).unwrap().with_held_files(held);
        receive(stream, &TargetFolder::open(folder).unwrap(), &policy, FileStability::Final, |_| {}, |_| {})
    }

    #[test]
    fn what_is_held_does_not_come_and_is_there_under_its_new_name() {
        let [from, first, second, third] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
        write(from.path(), "checkpoint-1/model", 1, 1 << 20);
        write(from.path(), "frozen", 2, 1 << 20);
        write(from.path(), "small", 3, 10);
        let received = arrive(&bundle(from.path(), &[]), first.path(), HeldFiles::default()).unwrap();
        assert_eq!(received.bytes, (2 << 20) + 10);
        let held = HeldFiles::in_folder(first.path(), &received);
        assert_eq!(held.hashes().len(), 2, "the small one is not worth it");

        fs::rename(from.path().join("checkpoint-1"), from.path().join("checkpoint-2")).unwrap();
        fs::set_permissions(from.path().join("frozen"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(from.path().join("frozen"), from.path().join("twin")).unwrap();
        write(from.path(), "new", 4, 1 << 20);
        let stream = bundle(from.path(), &held.hashes());
        let received = arrive(&stream, second.path(), held).unwrap();
        assert_eq!(received.bytes, (1 << 20) + 10);
        assert_eq!(everything(second.path()).unwrap(), everything(from.path()).unwrap());
        assert_eq!(listed(second.path()).1, listed(from.path()).1);
        let inode = |folder: &Path, path: &str| fs::metadata(folder.join(path)).unwrap().ino();
        let (old, new) = ((first.path(), "checkpoint-1/model"), (second.path(), "checkpoint-2/model"));
        assert_eq!(inode(old.0, old.1), inode(new.0, new.1), "it takes no more room");
        let mode = fs::metadata(first.path().join("frozen")).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0, "the one that is held stays as it is");

        // What came by its hash alone is held the next time.
        let held = HeldFiles::in_folder(second.path(), &received);
        drop(first);
        let received = arrive(&bundle(from.path(), &held.hashes()), third.path(), held).unwrap();
        assert_eq!((received.bytes, listed(third.path()).1), (10, listed(from.path()).1));
    }

    #[test]
    fn what_is_gone_or_changed_its_size_is_asked_for_again() {
        let [from, first] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
        for (number, name) in ["a", "b", "c"].iter().enumerate() {
            write(from.path(), name, u8::try_from(number).unwrap(), 1000);
        }
        let received = arrive(&bundle(from.path(), &[]), first.path(), HeldFiles::default()).unwrap();
        fs::remove_file(first.path().join("a")).unwrap();
        fs::write(first.path().join("b"), "other").unwrap();
        assert_eq!(
            HeldFiles::in_folder(first.path(), &received).hashes(),
            [listed(from.path()).1[2].to_hex().as_str()]
        );
    }

    #[test]
    fn a_file_that_was_not_told_of_or_has_another_size_is_refused() {
        let [from, first, target] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
        write(from.path(), "a", 1, 1000);
        let received = arrive(&bundle(from.path(), &[]), first.path(), HeldFiles::default()).unwrap();
        let held = || HeldFiles::in_folder(first.path(), &received);
        let stream = bundle(from.path(), &held().hashes());
        let error = arrive(&stream, target.path(), HeldFiles::default()).unwrap_err();
        assert_eq!(error.render(), "'a' is said to be a file that came before, and none such did");
        assert_eq!(error.exit_kind(), trainspot_base::error::Kind::Training);

        let (mut header, hashes) = listed(from.path());
        header.entries[0].kind = EntryKind::File { bytes: 999, executable: false };
        let (mut stream, told) = (Vec::new(), HashSet::from([hashes[0]]));
        let mut sender =
            BundleSender { root: from.path(), files: FileStability::Final, progress: &mut |_| {} };
        sender.send_proved(&header, &hashes, &told, &mut stream).unwrap();
        let error = arrive(&stream, target.path(), held()).unwrap_err().render();
        assert_eq!(
            error,
            "'a' is announced with 999 bytes, and is said to be a file of 1000 bytes that came before"
        );
        assert!(everything(target.path()).unwrap().is_empty());
    }

    #[test]
    fn a_file_without_its_proof_is_not_sent() {
        let from = tempfile::tempdir().unwrap();
        write(from.path(), "a", 1, 1000);
        let (header, _) = listed(from.path());
        let mut sender =
            BundleSender { root: from.path(), files: FileStability::Final, progress: &mut |_| {} };
        let other = [blake3::hash(b"other")];
        let error = sender.send_proved(&header, &other, &HashSet::new(), Vec::new()).unwrap_err().render();
        assert_eq!(error, "'a' changed on disk");
    }

    #[test]
    fn the_largest_files_are_held() {
        let kind = |bytes| EntryKind::File { bytes, executable: false };
        let entry = |number: usize| BundleEntry {
            path: EntryPath::Text(number.to_string()),
            kind: kind(SMALLEST_HELD_BYTES + number as u64),
        };
        let count = HELD_FILES_LIMIT + 10;
        let header = BundleHeader { entries: (0..count).map(entry).collect(), unmatched: Vec::new() };
        let hashes = (0..count).map(|number| Some(blake3::hash(&number.to_le_bytes()))).collect();
        let held = HeldFiles::in_folder(Path::new("x"), &Received { header, hashes, bytes: 0 });
        assert_eq!(held.files.len(), HELD_FILES_LIMIT);
        assert!(held.files.values().all(|file| file.bytes >= SMALLEST_HELD_BYTES + 10));
    }
}
