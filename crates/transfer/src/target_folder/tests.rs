use super::*;
use crate::{BundleHeader, BundleSender, FileStability, everything, find, find_with_links, receive};
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
    let error = place.check(&[BundleEntry { path: EntryPath::Text("x".into()), kind: link }]).unwrap_err();
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
