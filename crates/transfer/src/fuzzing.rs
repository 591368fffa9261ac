//! What must hold of any stream that is received as a bundle. The program `bundle` of `fuzz/` looks for one
//! of which it does not.

#![allow(clippy::missing_panics_doc, clippy::unwrap_used, reason = "what does not hold is a panic")]

use super::bundle::BUNDLE_MAGIC;
use super::{
    BundleEntry, BundleHeader, EntryKind, FileStability, HeldFiles, ReceivePolicy, Received, TargetFolder,
};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A file that the folder has before anything arrives, and what is in it.
const KEPT_FILE: (&str, &str) = ("kept", "as it was");
/// A file that the receiver holds, with its content: long enough for one of which no bytes travel.
const HELD_FILE: (&str, [u8; 256]) = ("held", [b'h'; 256]);
/// The longest block of a zstd stream.
const BLOCK_LIMIT_BYTES: usize = 128 << 10;

/// How a receiver of the program takes files.
struct ReceiverCase {
    place: fn(TargetFolder) -> TargetFolder,
    asked: ReceivePolicy,
    files: FileStability,
    /// Whether a path may arrive.
    takes: fn(&Path) -> bool,
    takes_links: bool,
    /// Whether the folder has a file already, and keeps it.
    keeps_file: bool,
}

/// The cases of the program, each with an empty folder of its own for every stream.
pub struct Receivers {
    folder: PathBuf,
    cases: [ReceiverCase; 4],
}

impl Receivers {
    /// Receivers whose folders are made in `folder`, in which nothing else is.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let cases = [outputs(), checkpoint(folder), rescue(), workspace()];
        Self { folder: folder.to_owned(), cases }
    }

    /// Receives a stream. `input` is a digit for the receiver, another one for the form of the rest, and the
    /// stream in that form.
    pub fn receive(&self, input: &[u8]) {
        let [case, form, input @ ..] = input else { return };
        let case = &self.cases[usize::from(case % 4)];
        let stream = match form % 3 {
            0 => input.to_vec(),
            1 => frame(input),
            _ => frame(&sent(input)),
        };
        let target = self.folder.join("target");
        fs::create_dir(&target).unwrap();
        if case.keeps_file {
            fs::write(target.join(KEPT_FILE.0), KEPT_FILE.1).unwrap();
        }
        let place = (case.place)(TargetFolder::open(&target).unwrap());
        let received = super::receive(&stream[..], &place, &case.asked, case.files, |_| {}, |_| {});
        let arrived = listed(&target);
        check_paths(case, &target, &arrived);
        if let Ok(received) = received {
            check_received(case, &target, &received);
            assert!(form % 3 == 0 || received.bytes <= stream.len() as u64, "more arrived than was sent");
        }
        self.check_beside();
        fs::remove_dir_all(&target).unwrap();
    }

    /// Nothing outside of the receiver's folder changed.
    fn check_beside(&self) {
        assert_eq!(fs::read(self.folder.join(HELD_FILE.0)).unwrap(), HELD_FILE.1);
        let beside: BTreeSet<_> =
            fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(beside, BTreeSet::from([HELD_FILE.0.into(), "target".into()]));
    }
}

/// As the pipe takes a training's outputs.
fn outputs() -> ReceiverCase {
    let patterns = ["out".to_owned(), "logs/*.txt".to_owned()];
    ReceiverCase {
        place: TargetFolder::without_links,
        asked: ReceivePolicy::matching(&patterns).unwrap().allow_unmatched(&patterns[..1]),
        files: FileStability::Final,
        takes: |path| {
            path.starts_with("out") || (path.starts_with("logs") && path.extension() == Some("txt".as_ref()))
        },
        takes_links: false,
        keeps_file: false,
    }
}

/// As the pipe takes a checkpoint, of which it has a file from the last one.
fn checkpoint(folder: &Path) -> ReceiverCase {
    fs::write(folder.join(HELD_FILE.0), HELD_FILE.1).unwrap();
    let kind = EntryKind::File { bytes: HELD_FILE.1.len() as u64, executable: false };
    let entries = vec![BundleEntry { path: Path::new(HELD_FILE.0).into(), kind }];
    let header = BundleHeader { entries, unmatched: Vec::new() };
    let before = Received { header, hashes: vec![Some(blake3::hash(&HELD_FILE.1))], bytes: 0 };
    let held = HeldFiles::in_folder(folder, &before);
    ReceiverCase {
        place: TargetFolder::with_own_links,
        asked: ReceivePolicy::matching(&["ckpt".to_owned()]).unwrap().with_held_files(held),
        files: FileStability::Final,
        takes: |path| path.starts_with("ckpt"),
        takes_links: true,
        keeps_file: false,
    }
}

/// As the pipe takes what is saved of a machine: the named files, and new ones.
fn rescue() -> ReceiverCase {
    let asked = ReceivePolicy::matching(&["out".to_owned()]).unwrap();
    ReceiverCase {
        place: TargetFolder::without_links,
        asked: asked.also_named(BTreeSet::from([PathBuf::from("data.dvc")])).or_new_paths(),
        files: FileStability::Final,
        takes: |path| {
            let hidden = |path: &Path| path.iter().any(|name| name.as_encoded_bytes().starts_with(b"."));
            path.starts_with("out") || path.starts_with("data.dvc") || !hidden(path)
        },
        takes_links: false,
        keeps_file: true,
    }
}

/// As a machine takes the workspace from the pipe.
fn workspace() -> ReceiverCase {
    ReceiverCase {
        place: |place| place,
        asked: ReceivePolicy::accept_all(),
        files: FileStability::InUse,
        takes: |path| path.iter().all(|name| !name.eq_ignore_ascii_case(".git")),
        takes_links: true,
        keeps_file: false,
    }
}

/// The files and links below a folder, relative to it.
fn listed(folder: &Path) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(folder).into_iter().map(Result::unwrap);
    let files = entries.filter(|entry| !entry.file_type().is_dir());
    files.map(|entry| entry.path().strip_prefix(folder).unwrap().to_owned()).collect()
}

/// Nothing is there that was not asked for, be the stream whole or not.
fn check_paths(case: &ReceiverCase, target: &Path, arrived: &[PathBuf]) {
    for path in arrived {
        if case.keeps_file && path == Path::new(KEPT_FILE.0) {
            assert_eq!(fs::read_to_string(target.join(path)).unwrap(), KEPT_FILE.1);
            continue;
        }
        assert!((case.takes)(path), "{}", path.display());
        let is_link = target.join(path).symlink_metadata().unwrap().is_symlink();
        assert!(!is_link || case.takes_links, "{}", path.display());
    }
}

/// What is said to have arrived is there, byte for byte, and its links lead to it.
fn check_received(case: &ReceiverCase, target: &Path, received: &Received) {
    assert_eq!(received.header.entries.len(), received.hashes.len());
    let own_links = case.takes_links && case.files == FileStability::Final;
    for (entry, hash) in received.header.entries.iter().zip(&received.hashes) {
        let path = target.join(entry.path.as_path());
        match (&entry.kind, hash) {
            (EntryKind::File { bytes, .. }, Some(hash)) if case.files == FileStability::Final => {
                let content = fs::read(&path).unwrap();
                assert_eq!((content.len() as u64, blake3::hash(&content)), (*bytes, *hash), "{}", entry.path);
            }
            (EntryKind::File { .. }, None) => assert_eq!(case.files, FileStability::InUse),
            (EntryKind::Link { .. }, _) if own_links => {
                assert!(
                    path.canonicalize().unwrap().starts_with(target.canonicalize().unwrap()),
                    "{}",
                    entry.path
                );
            }
            // Another link of the workspace may have taken the place of a file of the same path.
            _ => {}
        }
    }
}

/// The stream that an honest sender makes of a list as JSON and, after a byte 0, the bytes of its files.
fn sent(input: &[u8]) -> Vec<u8> {
    let end = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
    let (list, mut contents) = (&input[..end], input.get(end + 1..).unwrap_or_default());
    let length = u32::try_from(list.len()).unwrap();
    let mut stream = [&BUNDLE_MAGIC, &length.to_le_bytes() as &[u8], list].concat();
    let header: BundleHeader = serde_json::from_slice(list).unwrap_or_default();
    for entry in header.entries {
        let EntryKind::File { bytes, .. } = entry.kind else { continue };
        let (content, rest) = contents.split_at(usize::try_from(bytes).unwrap().min(contents.len()));
        for piece in [content, &[]].into_iter().skip(usize::from(content.is_empty())) {
            stream.extend(u32::try_from(piece.len()).unwrap().to_le_bytes());
            stream.extend(piece);
        }
        stream.extend(blake3::hash(content).as_bytes());
        contents = rest;
    }
    stream
}

/// A stream of zstd that holds bytes as they are, so that the fuzzer sees what a change of its own does.
fn frame(bytes: &[u8]) -> Vec<u8> {
    const MAGIC_AND_FORM: [u8; 5] = [0x28, 0xb5, 0x2f, 0xfd, 0xa0];
    let mut frame = MAGIC_AND_FORM.to_vec();
    frame.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
    let blocks = bytes.len().div_ceil(BLOCK_LIMIT_BYTES).max(1);
    for number in 0..blocks {
        let start = number * BLOCK_LIMIT_BYTES;
        let block = &bytes[start..bytes.len().min(start + BLOCK_LIMIT_BYTES)];
        let head = u32::try_from(block.len()).unwrap() << 3 | u32::from(number + 1 == blocks);
        frame.extend(&head.to_le_bytes()[..3]);
        frame.extend(block);
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_of_the_seeds() {
        let folder = tempfile::tempdir().unwrap();
        let cases = Receivers::new(folder.path());
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/bundle");
        for seed in fs::read_dir(seeds).unwrap() {
            cases.receive(&fs::read(seed.unwrap().path()).unwrap());
        }
    }

    #[test]
    fn a_seed_is_a_whole_stream() {
        let folder = tempfile::tempdir().unwrap();
        let list = br#"{"entries":[{"path":"a","kind":{"file":{"bytes":3,"executable":false}}}]}"#;
        let stream = frame(&sent(&[list, &b"\0abc"[..]].concat()));
        let place = TargetFolder::open(folder.path()).unwrap();
        let asked = ReceivePolicy::matching(&["a".to_owned()]).unwrap();
        super::super::receive(&stream[..], &place, &asked, FileStability::Final, |_| {}, |_| {}).unwrap();
        assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"abc");
    }
}
