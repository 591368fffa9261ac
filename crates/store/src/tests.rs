//! What holds for every store, and what holds for a bucket that fails.

mod fake_s3;

use super::{
    BucketAccess, BucketCredentials, Lease, LeaseState, ObjectKey, Store, StoreAddress, WriteCondition,
    WriteOutcome,
};
use fake_s3::{FAULT_KINDS, FakeS3};
use futures_util::stream::{self, StreamExt as _};
use std::time::Duration;
use tempfile::TempDir;
use trainspot_base::mutex::lock;

/// Larger than a part.
const LARGE_FILE_BYTES: usize = (8 << 20) + 5;

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(name).unwrap()
}

fn bucket(fake: &FakeS3) -> Store {
    let keys = BucketCredentials::Keys { id: "id".into(), secret: "secret".into(), session_token: None };
    let access =
        BucketAccess { region: "eu-west-1".into(), endpoint: Some(fake.endpoint.clone()), credentials: keys };
    Store::open(&StoreAddress::parse("s3://some-bucket/a/prefix").unwrap(), &access).unwrap()
}

fn folder(place: &TempDir) -> Store {
    let address = StoreAddress::parse(place.path().to_str().unwrap()).unwrap();
    Store::open(&address, &BucketAccess::default()).unwrap()
}

async fn both() -> (TempDir, FakeS3, [Store; 2]) {
    let (place, fake) = (tempfile::tempdir().unwrap(), FakeS3::start().await);
    let stores = [folder(&place), bucket(&fake)];
    (place, fake, stores)
}

async fn content(store: &Store, name: &str) -> Option<Vec<u8>> {
    store.read(&key(name), 1 << 20).await.unwrap().map(|found| found.bytes)
}

async fn keys_below(store: &Store, prefix: &str) -> Vec<String> {
    let found = store.list(&key(prefix), 100).await.unwrap();
    found.into_iter().map(|object| object.key.to_string()).collect()
}

#[tokio::test]
async fn objects_are_written_read_listed_and_removed() {
    let (_place, _fake, stores) = both().await;
    for store in &stores {
        assert_eq!(content(store, "runs/1/state").await, None);
        for name in ["runs/1/state", "runs/1/log/0", "runs/1/log/1", "runs/12/state", "runs/1/z"] {
            let written = store.write(&key(name), name.into(), WriteCondition::None).await.unwrap();
            assert!(matches!(written, WriteOutcome::Written(_)));
        }
        assert_eq!(content(store, "runs/1/state").await.unwrap(), b"runs/1/state");
        let below = ["runs/1/log/0", "runs/1/log/1", "runs/1/state", "runs/1/z"];
        assert_eq!(keys_below(store, "runs/1").await, below);
        assert!(store.list(&key("runs/1"), 3).await.unwrap_err().to_string().contains("more than 3 objects"));
        store.delete(&key("runs/1/z")).await.unwrap();
        store.delete(&key("runs/1/z")).await.unwrap();
        assert_eq!(keys_below(store, "runs/1").await, below[..3]);
        assert_eq!(keys_below(store, "nothing").await, [""; 0]);
        let refused = store.read(&key("runs/1/state"), 3).await.unwrap_err().to_string();
        assert!(refused.contains("longer than 3 bytes"), "{refused}");
    }
}

#[tokio::test]
async fn a_write_on_a_condition_loses_to_whoever_was_faster() {
    let (_place, _fake, stores) = both().await;
    for store in &stores {
        let write =
            async |text: &str, condition| store.write(&key("a"), text.into(), condition).await.unwrap();
        let WriteOutcome::Written(first) = write("1", WriteCondition::Absent).await else { panic!() };
        assert_eq!(write("2", WriteCondition::Absent).await, WriteOutcome::ConditionFailed);
        let read = store.read(&key("a"), 9).await.unwrap().unwrap();
        assert_eq!((read.version, read.bytes), (first.clone(), b"1".to_vec()));
        assert!(read.age < Duration::from_mins(1), "{:?}", read.age);
        let unchanged = WriteCondition::Unchanged(first.clone());
        assert!(matches!(write("2", unchanged.clone()).await, WriteOutcome::Written(_)));
        assert_eq!(write("3", unchanged.clone()).await, WriteOutcome::ConditionFailed);
        assert_eq!(content(store, "a").await.unwrap(), b"2");
        store.delete(&key("a")).await.unwrap();
        assert_eq!(write("3", unchanged).await, WriteOutcome::ConditionFailed);
    }
}

#[tokio::test]
async fn of_many_that_write_at_once_one_wins() {
    let (_place, _fake, stores) = both().await;
    for store in &stores {
        for condition in 0..2 {
            let seen = store.read(&key("a"), 9).await.unwrap();
            let condition = match (condition, seen) {
                (0, _) => WriteCondition::Absent,
                (_, seen) => WriteCondition::Unchanged(seen.unwrap().version),
            };
            let writes = stream::iter(0..20).map(|number: u32| {
                let condition = condition.clone();
                async move {
                    let text = format!("{number} {condition:?}");
                    store.write(&key("a"), text.into(), condition).await.unwrap()
                }
            });
            let ends: Vec<_> = writes.buffer_unordered(20).collect().await;
            let winners = ends.iter().filter(|end| matches!(end, WriteOutcome::Written(_))).count();
            assert_eq!(winners, 1);
        }
    }
}

#[tokio::test]
async fn files_of_every_size_arrive_whole() {
    let (_place, fake, stores) = both().await;
    for store in &stores {
        for length in [0, 1, 8 << 20, LARGE_FILE_BYTES, (17 << 20) + 1] {
            let file = file_of(length);
            store.send(&key("model"), file.path()).await.unwrap();
            let fetched = tempfile::NamedTempFile::new().unwrap();
            let got = store.fetch(&key("model"), fetched.reopen().unwrap(), length as u64).await.unwrap();
            assert_eq!(got, Some(length as u64));
            if let Some(less) = (length as u64).checked_sub(1) {
                let error =
                    store.fetch(&key("model"), tempfile::tempfile().unwrap(), less).await.unwrap_err();
                assert!(
                    error.render().contains(&format!("is longer than {less} bytes")),
                    "{}",
                    error.render()
                );
            }
            assert!(
                std::fs::read(fetched.path()).unwrap() == std::fs::read(file.path()).unwrap(),
                "{length}"
            );
        }
        assert_eq!(store.fetch(&key("nothing"), tempfile::tempfile().unwrap(), 1).await.unwrap(), None);
    }
    assert_eq!(lock(&fake.state).unfinished(), 0);
}

fn file_of(length: usize) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut random = fastrand::Rng::with_seed(length as u64);
    let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
    std::fs::write(file.path(), bytes).unwrap();
    file
}

/// What a run does with its store: every request of it fails in every way, one at a time.
#[tokio::test(flavor = "multi_thread")]
async fn every_request_fails_once_and_nothing_is_wrong() {
    let file = file_of(LARGE_FILE_BYTES);
    let whole = FakeS3::start().await;
    life(&bucket(&whole), file.path()).await;
    let requests = lock(&whole.state).requests;
    assert!(requests > 12, "{requests}");
    let cases = (0..requests).flat_map(|number| FAULT_KINDS.map(|fault| (number, fault)));
    let file = &file;
    let lives = stream::iter(cases).map(|(number, fault)| async move {
        let fake = FakeS3::start().await;
        lock(&fake.state).fault = Some((number, fault));
        life(&bucket(&fake), file.path()).await;
        let state = lock(&fake.state);
        assert_eq!(state.unfinished(), 0, "{number} {fault:?}");
        assert!(state.requests > number, "{number} {fault:?}");
        assert_eq!(state.objects.len(), 2, "{number} {fault:?}: {:?}", state.objects.keys());
    });
    lives.buffer_unordered(16).collect::<Vec<()>>().await;
}

async fn life(store: &Store, file: &std::path::Path) {
    let (state, model) = (key("runs/1/state"), key("runs/1/model"));
    let first = store.write(&state, b"begun".to_vec(), WriteCondition::Absent).await.unwrap();
    let WriteOutcome::Written(first) = first else { panic!("the first write lost to nobody") };
    let second =
        store.write(&state, b"running".to_vec(), WriteCondition::Unchanged(first.clone())).await.unwrap();
    assert!(matches!(second, WriteOutcome::Written(_)), "the second write lost to nobody");
    let outdated = store.write(&state, b"stale".to_vec(), WriteCondition::Unchanged(first)).await.unwrap();
    assert_eq!(outdated, WriteOutcome::ConditionFailed);
    store.send(&model, file).await.unwrap();
    let fetched = tempfile::tempfile().unwrap();
    assert_eq!(store.fetch(&model, fetched, u64::MAX).await.unwrap(), Some(LARGE_FILE_BYTES as u64));
    assert_eq!(keys_below(store, "runs/1").await, ["runs/1/model", "runs/1/state"]);
    assert_eq!(content(store, "runs/1/state").await.unwrap(), b"running");
    store.write(&key("runs/1/draft"), b"x".to_vec(), WriteCondition::None).await.unwrap();
    store.delete(&key("runs/1/draft")).await.unwrap();
    store.end_unfinished(&key("runs/1")).await.unwrap();
}

#[tokio::test]
async fn uploads_that_nobody_finished_are_ended() {
    let fake = FakeS3::start().await;
    let store = bucket(&fake);
    let file = file_of(LARGE_FILE_BYTES);
    // The upload is left as by a process that dies.
    let model = key("runs/1/model");
    let sending = store.send(&model, file.path());
    let begun = async {
        while lock(&fake.state).requests < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = sending => panic!("the upload was too fast"),
        () = begun => {}
    }
    assert_eq!(lock(&fake.state).unfinished(), 1);
    store.end_unfinished(&key("runs/1")).await.unwrap();
    assert_eq!(lock(&fake.state).unfinished(), 0);
    assert_eq!(content(&store, "runs/1/model").await, None);
}

#[tokio::test]
async fn a_store_that_refuses_says_what_to_do() {
    let fake = FakeS3::start().await;
    let refused = async |code: &'static str| {
        let store = bucket(&fake);
        lock(&fake.state).refusal = Some(code);
        let error = store.read(&key("a"), 9).await.unwrap_err().render();
        lock(&fake.state).refusal = None;
        error
    };
    let text = refused("NoSuchBucket").await;
    assert!(
        text.starts_with("cannot read s3://some-bucket/a/prefix/a: HTTP 403: NoSuchBucket: as told"),
        "{text}"
    );
    assert!(text.contains("make the bucket"), "{text}");
    assert!(refused("AccessDenied").await.contains("let the credential list the bucket"));
    assert!(refused("ExpiredToken").await.contains("lives longer"));
}

#[tokio::test]
async fn a_lease_has_one_holder_until_it_expires_by_the_stores_clock() {
    let (place, fake, stores) = both().await;
    let (lease, minute) = (key("runs/1/lease"), Duration::from_mins(1));
    for (index, store) in stores.iter().enumerate() {
        let acquire = async |holder: &str| Lease::acquire(store, &lease, holder, minute).await.unwrap();
        let attempts: Vec<_> = stream::iter(0..10)
            .map(async |number| acquire(&format!("pipe {number}")).await)
            .buffer_unordered(10)
            .collect()
            .await;
        let (mut held, mut others) = (Vec::new(), 0);
        for attempt in attempts {
            match attempt {
                LeaseState::Acquired(lease) => held.push(lease),
                LeaseState::Held { by, expires_in } => {
                    assert!(by.starts_with("pipe ") && expires_in <= minute);
                    others += 1;
                }
            }
        }
        assert_eq!((held.len(), others), (1, 9));
        let mut first = held.remove(0);
        assert!(first.renew(store).await.unwrap() && first.renew(store).await.unwrap());

        // The holder dies: nobody renews, and a minute passes at the store.
        match index {
            0 => {
                let file = std::fs::File::open(place.path().join("runs/1/lease")).unwrap();
                file.set_modified(std::time::SystemTime::now() - 2 * minute).unwrap();
            }
            _ => lock(&fake.state).clock_ahead = 2 * minute,
        }
        let LeaseState::Acquired(second) = acquire("second").await else {
            panic!("a dead holder outlives its lease")
        };
        assert!(!first.renew(store).await.unwrap(), "two hold the lease");
        first.release(store).await.unwrap();
        assert!(matches!(acquire("third").await, LeaseState::Held { by, .. } if by == "second"));
        second.release(store).await.unwrap();
        assert!(matches!(acquire("third").await, LeaseState::Acquired(_)));
    }
}

#[tokio::test]
async fn what_is_no_lease_is_taken_by_nobody() {
    let (_place, _fake, stores) = both().await;
    for store in &stores {
        store.write(&key("lease"), b"{}".to_vec(), WriteCondition::None).await.unwrap();
        let error = Lease::acquire(store, &key("lease"), "me", Duration::from_mins(1)).await.unwrap_err();
        assert!(error.to_string().contains("is no lease"), "{error}");
    }
}

#[test]
fn addresses_are_buckets_or_absolute_paths() {
    let bucket =
        |bucket: &str, prefix: &str| StoreAddress::Bucket { bucket: bucket.into(), prefix: prefix.into() };
    assert_eq!(StoreAddress::parse("s3://my-bucket").unwrap(), bucket("my-bucket", ""));
    assert_eq!(StoreAddress::parse("s3://my-bucket/a/b/").unwrap(), bucket("my-bucket", "a/b"));
    assert_eq!(StoreAddress::parse("/a/b").unwrap(), StoreAddress::Folder("/a/b".into()));
    for text in [
        "",
        "a/b",
        "s3://",
        "s3://My_Bucket/x",
        "s3://ab",
        "gs://bucket/x",
        "s3://bucket/../x",
        "s3://buck?et/x",
    ] {
        assert!(StoreAddress::parse(text).is_err(), "{text}");
    }
}

/// A secret must not get into a log by way of a value that is shown.
#[test]
fn keys_are_not_shown() {
    let fake_secret = "wJalrXUtnFEMI";
    let keys = BucketCredentials::Keys {
        id: "id".into(),
        secret: fake_secret.into(),
        session_token: Some(fake_secret.into()),
    };
    let access = BucketAccess { region: "eu-west-1".into(), endpoint: None, credentials: keys };
    let store = Store::open(&StoreAddress::parse("s3://some-bucket").unwrap(), &access).unwrap();
    let shown = format!("{access:?} {store:?}");
    assert!(!shown.contains(fake_secret), "{shown}");
}
