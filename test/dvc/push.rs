//! The order of a push, in front of a remote that remembers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;
use trainspot_base::error::{Error, Result};
use trainspot_dvc::remote::RemoteStore;
use trainspot_dvc::{Md5, Object, ObjectContent, Oid, PushReport, push};

/// A remote in memory, which may fail for one object.
#[derive(Default)]
struct Fake {
    there: Mutex<Vec<Oid>>,
    fails: Option<Oid>,
    asked: AtomicUsize,
    at_once: AtomicUsize,
    most: AtomicUsize,
}

impl RemoteStore for Fake {
    async fn missing(&self, objects: &[Object]) -> Result<Vec<Oid>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let there = self.there.lock().unwrap();
        Ok(objects.iter().map(|object| object.oid.clone()).filter(|oid| !there.contains(oid)).collect())
    }

    async fn put(&self, object: &Object) -> Result<()> {
        let now = self.at_once.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        tokio::time::sleep(std::time::Duration::from_millis(object.size % 7)).await;
        self.at_once.fetch_sub(1, Ordering::Relaxed);
        if self.fails.as_ref() == Some(&object.oid) {
            return Err(Error::new("the disk is full"));
        }
        self.there.lock().unwrap().push(object.oid.clone());
        Ok(())
    }
}

fn objects(folder: &TempDir, files: usize) -> Vec<Object> {
    let file = |number: usize| {
        let path: PathBuf = folder.path().join(number.to_string());
        std::fs::write(&path, "x".repeat(number)).unwrap();
        Object { oid: Md5::of(&vec![b'x'; number]), size: number as u64, content: ObjectContent::File(path) }
    };
    let list = Object {
        oid: Oid::parse(&format!("{}.dir", "a".repeat(32))).unwrap(),
        size: 2,
        content: ObjectContent::Bytes("[]".into()),
    };
    // A list before the files, which must not matter.
    std::iter::once(list).chain((0..files).map(file)).collect()
}

#[tokio::test(start_paused = true)]
async fn lists_follow_all_files_and_a_pool_bounds_them() {
    let folder = tempfile::tempdir().unwrap();
    let (objects, remote) = (objects(&folder, 40), Fake::default());
    let pushed = push(&remote, &objects).await.unwrap();
    assert_eq!(pushed, PushReport { objects: 41, bytes: (0..40).sum::<u64>() + 2, ..PushReport::default() });
    assert!(remote.there.lock().unwrap().last().unwrap().is_dir());
    let most = remote.most.load(Ordering::Relaxed);
    assert!((2..40).contains(&most), "{most} at a time");
    assert_eq!(push(&remote, &objects).await.unwrap(), PushReport { there: 41, ..PushReport::default() });
    assert_eq!(remote.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn no_list_follows_a_file_that_failed() {
    let folder = tempfile::tempdir().unwrap();
    let objects = objects(&folder, 20);
    for failing in &objects[1..] {
        let remote = Fake { fails: Some(failing.oid.clone()), ..Fake::default() };
        let error = push(&remote, &objects).await.unwrap_err().render();
        assert!(error.contains("the disk is full"), "{error}");
        assert!(!remote.there.lock().unwrap().iter().any(Oid::is_dir));
    }
}

#[tokio::test]
async fn a_file_that_is_gone_or_changed_stops_a_push_before_it_starts() {
    for change in [
        |path: &PathBuf| std::fs::remove_file(path).unwrap(),
        |path: &PathBuf| std::fs::write(path, "longer than before").unwrap(),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (objects, remote) = (objects(&folder, 5), Fake::default());
        change(&folder.path().join("3"));
        let error = push(&remote, &objects).await.unwrap_err().render();
        assert!(error.contains("since it was hashed"), "{error}");
        assert!(remote.there.lock().unwrap().is_empty());
        // What the remote has already need not be here.
        let known = objects.iter().map(|object| object.oid.clone()).collect();
        let remote = Fake { there: Mutex::new(known), ..Fake::default() };
        push(&remote, &objects).await.unwrap();
    }
}

/// What is not on this machine is only asked for.
#[tokio::test]
async fn what_is_elsewhere_must_be_in_the_remote_unless_nobody_needs_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut objects = objects(&folder, 3);
    let elsewhere = |output: &str, needed: bool| Object {
        oid: Md5::of(output.as_bytes()),
        size: 0,
        content: ObjectContent::Elsewhere { output: output.to_owned(), needed },
    };
    objects.extend([elsewhere("model.bin", true), elsewhere("data.csv", false)]);
    let remote = Fake::default();
    let error = push(&remote, &objects).await.unwrap_err().render();
    assert!(
        error.contains("'model.bin': neither in DVC's cache on this machine nor in the remote"),
        "{error}"
    );
    assert!(!error.contains("data.csv") && error.contains("\nNext: "), "{error}");
    assert!(remote.there.lock().unwrap().is_empty());
    remote.there.lock().unwrap().push(Md5::of(b"model.bin"));
    let pushed = push(&remote, &objects).await.unwrap();
    assert_eq!((pushed.objects, pushed.there, pushed.absent), (4, 1, vec!["data.csv".to_owned()]));
    // So many that a message would not end.
    let many: Vec<_> = (0..9).map(|number| elsewhere(&number.to_string(), true)).collect();
    let error = push(&Fake::default(), &many).await.unwrap_err().render();
    assert!(error.contains("'0', '1', '2', '3', '4' and 4 more"), "{error}");
}

#[test]
fn a_hash_is_the_one_that_md5sum_prints() {
    let known = BTreeMap::from([
        ("", "d41d8cd98f00b204e9800998ecf8427e"),
        ("hello\n", "b1946ac92492d2347c6235b4d2611184"),
    ]);
    let made: BTreeSet<String> = known.keys().map(|text| Md5::of(text.as_bytes()).to_string()).collect();
    assert_eq!(made, known.values().map(|text| (*text).to_owned()).collect());
}
