//! A fault at every call: what is there afterwards is whole or absent, and success is said only of what is
//! whole.

use super::clouds::s3_settings;
use super::proxy::{Fault, Proxy, When, answering, cutting};
use super::sample::{Sample, Sight, remote, settings};
use super::servers;
use super::stores::or_skip;
use crate::support::{is_late, say};
use futures_util::stream::{self, StreamExt as _};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use trainspot_dvc::ObjectContent;
use trainspot_dvc::remote::{RemoteStore as _, Settings};

const FAULTS: [Fault; 9] = [
    Fault::Refused,
    Fault::CutRequest,
    Fault::LostAnswer,
    Fault::CutAnswer,
    Fault::Status(500),
    Fault::Status(503),
    Fault::Status(429),
    Fault::Status(403),
    Fault::Status(507),
];

/// A new remote behind an address, and a look into it.
type Place = dyn Fn(&str) -> (Settings, Sight);

/// A kind of remote to strike: its server, and a new place at it by way of another address.
struct Ground {
    name: &'static str,
    target: String,
    place: Box<Place>,
    /// Whether the store proves content, not only length.
    proves: bool,
}

/// Sends a sample, and says whether all went well, and how many requests it took.
async fn send(ground: &Ground, sample: &Sample, fault: Fault, when: When) -> (Result<(), String>, usize) {
    let (proxy, url) = Proxy::start(&ground.target, fault, when).await;
    let (settings, sight) = (ground.place)(&url);
    let remote = remote(&settings).await;
    let (files, list) = (&sample.objects[..sample.objects.len() - 1], sample.list());
    let sent = async {
        let missing = remote.missing(files).await?;
        assert_eq!(missing.len(), files.len());
        remote.put_all(files).await?;
        remote.put(list).await?;
        assert_eq!(remote.missing(&sample.objects).await?, []);
        Ok::<_, trainspot_base::error::Error>(())
    };
    let sent = sent.await;
    let case = format!("{} {fault:?}, {when:?}", ground.name);
    for object in &sample.objects {
        let seen = sight.whole_or_nothing(object).await;
        assert_ne!(seen, Some(false), "{case}: what is there is not whole");
        assert!(sent.is_err() || seen == Some(true), "{case}: said to be there, but is not");
    }
    if sight.whole_or_nothing(list).await == Some(true) {
        assert!(sight.has_all(files).await, "{case}: a list of what is not there");
    }
    if let Err(error) = &sent {
        let why = error.render();
        assert!(why.contains("the remote 'store'") && !why.contains("secret"), "{case}: {why}");
    }
    (sent.map_err(|error| error.render()), proxy.count.load(Ordering::SeqCst))
}

async fn strike(ground: Ground, lengths: &[usize]) {
    let start = Instant::now();
    let sample = Sample::of(lengths);
    let (well, calls) = send(&ground, &sample, Fault::Refused, When::Never).await;
    well.unwrap_or_else(|why| panic!("{} fails without a fault: {why}", ground.name));
    let corrupt = ground.proves.then_some(Fault::Corrupt);
    let cases =
        FAULTS.into_iter().chain(corrupt).flat_map(|fault| (1..=calls).map(move |call| (fault, call)));
    let mut cases: Vec<_> = cases.collect();
    if std::env::var_os("TRAINSPOT_ALL_FAULTS").is_none() {
        let third = fastrand::usize(..3);
        cases.retain(|(_, call)| call % 3 == third);
    }
    let done = stream::iter(&cases).map(async |(fault, call)| {
        let (well, _) = send(&ground, &sample, *fault, When::Only(*call)).await;
        // What passes has to be got over. Of a question that arrived wrong, the answer may be that it is
        // wrong.
        let lasting = matches!(fault, Fault::Status(403 | 507) | Fault::Corrupt);
        assert!(well.is_ok() || lasting, "{}: {fault:?} at call {call}: {}", ground.name, well.unwrap_err());
        well.is_ok()
    });
    let well = done.buffer_unordered(16).filter(|well| std::future::ready(*well)).count().await;
    say(&format!(
        "{}: {} faults at {calls} calls: {well} got over, {} told; {:.1} s",
        ground.name,
        cases.len(),
        cases.len() - well,
        start.elapsed().as_secs_f32()
    ));
}

#[tokio::test]
async fn s3() {
    let moto = or_skip!(servers::moto());
    let bucket = servers::bucket(moto).await;
    let target = moto.to_owned();
    let place = move |url: &str| {
        let folder = format!("{:x}", fastrand::u64(..));
        let mut settings = s3_settings(url, &bucket, &[]);
        settings.url = format!("s3://{bucket}/{folder}");
        (settings, Sight::Web(format!("{target}/{bucket}/{folder}/"), "/"))
    };
    strike(
        Ground { name: "s3", target: moto.to_owned(), place: Box::new(place), proves: true },
        &[20, 9 << 20],
    )
    .await;
}

#[tokio::test]
async fn webdav() {
    let (url, root) = or_skip!(servers::webdav());
    let target = url.split('/').nth(2).unwrap().to_owned();
    let place = move |url: &str| {
        let folder = format!("{:x}", fastrand::u64(..));
        let url = format!("{}/data/store/{folder}", url.replace("http", "webdav"));
        (
            settings(&url, &[("user", "ann"), ("password", "secret word")], &[]),
            Sight::Folder(root.join(folder)),
        )
    };
    strike(Ground { name: "webdav", target, place: Box::new(place), proves: false }, &[20, 3 << 20]).await;
}

#[tokio::test]
async fn http() {
    let (url, root) = or_skip!(servers::nginx());
    let target = url.split('/').nth(2).unwrap().to_owned();
    let place = move |url: &str| {
        let folder = format!("{:x}", fastrand::u64(..));
        let options = [("method", "PUT"), ("auth", "basic"), ("user", "ann"), ("password", "secret")];
        (settings(&format!("{url}/data/store/{folder}"), &options, &[]), Sight::Folder(root.join(folder)))
    };
    strike(Ground { name: "http", target, place: Box::new(place), proves: false }, &[20, 3 << 20]).await;
}

#[tokio::test]
async fn azure() {
    let (connection, container, base) = or_skip!(servers::azure());
    let target = base.split('/').nth(2).unwrap().to_owned();
    let own = format!("http://{target}");
    let place = move |url: &str| {
        let folder = format!("{:x}", fastrand::u64(..));
        let connection = connection.replace(&own, url);
        let settings = settings(
            &format!("azure://{container}/{folder}"),
            &[],
            &[("AZURE_STORAGE_CONNECTION_STRING", &connection)],
        );
        (settings, Sight::Web(format!("{base}{folder}/"), "/"))
    };
    strike(Ground { name: "azure", target, place: Box::new(place), proves: true }, &[20, 9 << 20]).await;
}

#[tokio::test]
async fn google() {
    let (url, bucket) = or_skip!(servers::google());
    let target = url.split('/').nth(2).unwrap().to_owned();
    let place = move |to: &str| {
        let folder = format!("{:x}", fastrand::u64(..));
        let settings = settings(
            &format!("gs://{bucket}/{folder}"),
            &[("endpointurl", to), ("allow_anonymous_login", "true")],
            &[],
        );
        (settings, Sight::Web(format!("{url}/download/storage/v1/b/{bucket}/o/{folder}%2F"), "%2F"))
    };
    strike(Ground { name: "google", target, place: Box::new(place), proves: true }, &[20, 70_000]).await;
}

#[tokio::test]
async fn ssh() {
    let server = or_skip!(servers::ssh("ed25519", "ed25519"));
    let (start, sample) = (Instant::now(), Sample::of(&[20, 3 << 20]));
    let send = async |after: usize| {
        let (port, passed) = cutting(server.port, after).await;
        let root = server.folder.join(format!("{:x}", fastrand::u64(..)));
        let url = format!("ssh://{}@127.0.0.1:{port}{}", server.user, root.display());
        let known = format!("[127.0.0.1]:{port} {}\n", server.host_key);
        let options = [("keyfile", server.key.to_str().unwrap())];
        let remote = remote(&settings(&url, &options, &[("SSH_KNOWN_HOSTS", &known)])).await;
        let sent = remote.put_all(&sample.objects).await;
        sent.unwrap_or_else(|error| panic!("cut after {after}: {}", error.render()));
        assert_eq!(remote.missing(&sample.objects).await.unwrap(), []);
        assert!(Sight::Folder(root).has_all(&sample.objects).await, "cut after {after}");
        passed.load(Ordering::SeqCst)
    };
    let whole = send(usize::MAX).await;
    let cuts: Vec<_> =
        (1..=40).map(|part| whole * part / 41).chain((1..=20).map(|part| 4000 * part / 20)).collect();
    let count = stream::iter(cuts).map(send).buffer_unordered(12).count().await;
    say(&format!("ssh: {count} cuts in {whole} bytes, all got over; {:.1} s", start.elapsed().as_secs_f32()));
}

#[tokio::test]
async fn what_lasts_is_told_in_the_services_own_words() {
    let moto = or_skip!(servers::moto());
    let object = &Sample::of(&[20]).objects[0];
    let none = s3_settings(moto, "no-such-bucket-here", &[]);
    for why in [
        remote(&none).await.put(object).await.unwrap_err().render(),
        remote(&none).await.missing(&vec![object.clone(); 40]).await.unwrap_err().render(),
    ] {
        assert!(why.contains("NoSuchBucket") && why.contains("make the bucket"), "{why}");
    }
    for (status, code, hint) in [
        (400, "ExpiredToken", "the credential has expired"),
        (403, "AccessDenied", "s3:PutObject"),
        (403, "InvalidAccessKeyId", "does not accept what is there"),
        (301, "PermanentRedirect", "set 'region'"),
    ] {
        static ANSWER: Mutex<(u16, &str)> = Mutex::new((0, ""));
        *ANSWER.lock().unwrap() = (status, code);
        let url = answering(|_| {
            let (status, code) = *ANSWER.lock().unwrap();
            (
                status,
                format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>No.</Message></Error>"),
            )
        })
        .await;
        let why = remote(&s3_settings(&url, "bucket", &[])).await.put(object).await.unwrap_err().render();
        assert!(why.contains(code) && why.contains("No.") && why.contains(hint), "{why}");
        assert!(why.starts_with("cannot send") && why.contains(&object.oid.key()), "{why}");
    }
}

#[tokio::test]
async fn a_file_changed_between_its_parts_is_not_sent() {
    let moto = or_skip!(servers::moto());
    let bucket = servers::bucket(moto).await;
    // The third request is for the first part or the second; it is sent again half a second later.
    let (proxy, url) = Proxy::start(moto, Fault::Status(503), When::Only(3)).await;
    let sample = Sample::of(&[9 << 20]);
    let model = &sample.objects[0];
    let remote = remote(&s3_settings(&url, &bucket, &[])).await;
    let change = async {
        while proxy.count.load(Ordering::SeqCst) < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let ObjectContent::File(path) = &model.content else { unreachable!() };
        std::fs::File::options().append(true).open(path).unwrap().set_len(model.size + 1).unwrap();
    };
    let (sent, ()) = futures_util::future::join(remote.put(model), change).await;
    let why = sent.unwrap_err().render();
    assert!(why.contains("is not what it was when it was hashed"), "{why}");
    assert_eq!(
        Sight::Web(format!("{moto}/{bucket}/a/b/"), "/").whole_or_nothing(model).await,
        None,
        "something is there"
    );
    let open = reqwest::get(format!("{moto}/{bucket}?uploads")).await.unwrap().text().await.unwrap();
    assert!(!open.contains("<UploadId>"), "{open}");
}

#[tokio::test]
async fn a_server_that_stays_away_is_given_up() {
    let closed = format!("http://127.0.0.1:{}", servers::free_port());
    let object = &Sample::of(&[20]).objects[0];
    let remotes = [
        s3_settings(&closed, "bucket", &[]),
        settings(&closed, &[], &[]),
        settings(&closed.replace("http", "webdav"), &[], &[]),
    ];
    let tried = remotes.iter().map(async |settings| {
        let (start, why) = (Instant::now(), remote(settings).await.put(object).await.unwrap_err().render());
        assert!(why.contains("no answer") && why.contains("refused") && why.contains("network"), "{why}");
        assert!(!is_late(start, Duration::from_mins(1)), "{:?}", start.elapsed());
    });
    futures_util::future::join_all(tried).await;
}

#[tokio::test]
async fn a_service_that_is_down_for_good_is_told() {
    let moto = or_skip!(servers::moto());
    let (_, url) = Proxy::start(moto, Fault::Status(503), When::Always).await;
    let why = remote(&s3_settings(&url, "bucket", &[]))
        .await
        .put(&Sample::of(&[20]).objects[0])
        .await
        .unwrap_err()
        .render();
    assert!(why.contains("503"), "{why}");
}
