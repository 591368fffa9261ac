//! Bundles as no sender makes them.

use super::tree;
use fastrand::Rng;
use std::fs;
use std::path::Path;
use trainspot_transfer::{
    BundleEntry, BundleHeader, BundleSender, FileStability, ReceivePolicy, TargetFolder, receive,
};

const ROUNDS: usize = 400;
const FILES: [&str; 4] = ["a/one.bin", "a/two", "three", "empty"];

fn bundle(root: &Path) -> Vec<u8> {
    let entries = FILES.iter().map(|path| BundleEntry::look(root, Path::new(path)).unwrap()).collect();
    let mut stream = Vec::new();
    let header = BundleHeader { entries, unmatched: vec![] };
    BundleSender { root, files: FileStability::Final, progress: &mut |_| {} }
        .send(&header, &mut stream)
        .unwrap();
    stream
}

fn source(random: &mut Rng) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("a")).unwrap();
    for (path, bytes) in FILES.iter().zip([1000, 300, 70_000, 0]) {
        let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(bytes).collect();
        fs::write(root.path().join(path), bytes).unwrap();
    }
    root
}

fn everything() -> ReceivePolicy {
    ReceivePolicy::matching(&["**".to_owned()]).unwrap()
}

/// Changes bytes, cuts, repeats or inserts, anywhere.
fn damage(bytes: &mut Vec<u8>, random: &mut Rng) {
    for _ in 0..random.usize(1..4) {
        let at = random.usize(0..bytes.len().clamp(1, 600));
        match random.u8(0..5) {
            0 => bytes.truncate(random.usize(0..=bytes.len())),
            1 => bytes.insert(at.min(bytes.len()), random.u8(..)),
            2 => drop(bytes.drain(at.min(bytes.len())..(at + random.usize(0..9)).min(bytes.len()))),
            3 => bytes.extend_from_within(at.min(bytes.len())..),
            _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.u8(..)),
        }
    }
}

#[test]
fn whatever_arrives_is_refused_or_was_sent() {
    let mut random = Rng::with_seed(5);
    let source = source(&mut random);
    let good = bundle(source.path());
    let sent = tree(source.path());
    let plain = zstd::decode_all(&good[..]).unwrap();
    let mut refused = 0;
    for _ in 0..ROUNDS {
        let outside = tempfile::tempdir().unwrap();
        let clone = outside.path().join("clone");
        fs::create_dir(&clone).unwrap();
        // Damage on the way, and, in what is compressed, by the sender.
        let stream = if random.bool() {
            let mut stream = good.clone();
            damage(&mut stream, &mut random);
            stream
        } else {
            let mut plain = plain.clone();
            damage(&mut plain, &mut random);
            zstd::encode_all(&plain[..], 1).unwrap()
        };
        let place = TargetFolder::open(&clone).unwrap().without_links();
        let done = receive(&stream[..], &place, &everything(), FileStability::Final, |_| {}, |_| {});
        refused += usize::from(done.is_err());
        // A list of files that was changed may give them other names, but never other bytes, and never a
        // place outside.
        let arrived = tree(outside.path());
        for (path, what) in arrived {
            assert!(path.starts_with("clone"), "{}", path.display());
            let hash = what.split(' ').nth(1).unwrap();
            assert!(sent.values().any(|sent| sent.ends_with(hash)), "{} has other bytes", path.display());
        }
    }
    assert!(refused > ROUNDS / 2, "{refused} of {ROUNDS}");
}

#[test]
fn the_stream_is_read_to_its_end_and_holds_nothing_more() {
    let source = source(&mut Rng::with_seed(6));
    let good = bundle(source.path());
    let receive = |stream: &mut &[u8]| {
        let target = tempfile::tempdir().unwrap();
        receive(
            stream,
            &TargetFolder::open(target.path()).unwrap(),
            &everything(),
            FileStability::Final,
            |_| {},
            |_| {},
        )
    };
    let mut rest = &good[..];
    receive(&mut rest).unwrap();
    assert_eq!(rest.len(), 0, "the sender would find its pipe broken");
    let more = [&good[..], &zstd::encode_all(&b"x"[..], 1).unwrap()].concat();
    let error = receive(&mut &more[..]).unwrap_err().render();
    assert_eq!(error, "the stream of files goes on after its end");
}
