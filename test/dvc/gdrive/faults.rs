//! Every call of a push fails in every way, once: then all objects are there and right, or the push ends with
//! an error, and the next one mends what is left.

use super::auth::REFRESH;
use super::http::Fault;
use super::sample::{Place, Sample, Scene, told};
use crate::support::{is_late, say};
use futures_util::stream::{self, StreamExt as _};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trainspot_dvc::remote::RemoteStore as _;

/// Nothing, little, and three pieces.
const LENGTHS: [usize; 4] = [0, 20, 70_000, 17 << 20];
/// The same without the pieces.
const SMALL: [usize; 3] = [0, 20, 70_000];

const FAULTS: [Fault; 14] = [
    Fault::Refused,
    Fault::CutRequest,
    Fault::LostAnswer,
    Fault::CutAnswer,
    Fault::Status(408),
    Fault::Status(429),
    Fault::Status(500),
    Fault::Status(503),
    Fault::RateLimit("rateLimitExceeded"),
    Fault::RateLimit("userRateLimitExceeded"),
    Fault::Revoked,
    Fault::Corrupt,
    Fault::LostSession,
    Fault::EmptyListing,
];

/// What became of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    GotOver,
    Failed,
}

/// Where there is nothing yet, or where all is there already, one of it wrong.
#[derive(Clone, Copy, Debug)]
enum Start {
    Empty,
    Spoiled,
}

async fn scene(start: Start, sample: &Sample) -> Scene {
    let scene = Scene::new(Place::SharedDrive).await;
    if let Start::Spoiled = start {
        scene.push(&sample.objects).await.unwrap_or_else(told);
        let mut state = scene.fake.state();
        let last = sample.objects[1].oid.key();
        let name = last.rsplit('/').next().unwrap();
        state.nodes.values_mut().find(|node| node.name == name).unwrap().content = b"wrong"[..].into();
    }
    let mut state = scene.fake.state();
    state.requests.clear();
    state.restart();
    drop(state);
    scene
}

/// One push with a fault at one call.
async fn strike(sample: Arc<Sample>, start: Start, fault: Fault, call: usize) -> End {
    let (scene, objects) = (scene(start, &sample).await, &sample.objects);
    scene.fake.state().fault = Some((fault, Some(call)));
    let pushed = scene.push(objects).await;
    let end = match &pushed {
        Ok(()) => End::GotOver,
        Err(error) => {
            let why = error.render();
            assert!(why.contains("\nNext: "), "{fault:?} at {call}: no hint: {why}");
            for secret in ["ya29", "PRIVATE KEY", REFRESH, "/session/", "assertion"] {
                assert!(!why.contains(secret), "{fault:?} at {call}: a secret is told: {why}");
            }
            End::Failed
        }
    };
    if pushed.is_ok() {
        assert!(scene.has_all(objects), "{fault:?} at {call}: not all is there");
        assert!(scene.spotless(objects), "{fault:?} at {call}: something wrong is there too");
    }
    scene.fake.state().fault = None;
    scene.push(objects).await.unwrap_or_else(told);
    assert!(scene.has_all(objects) && scene.spotless(objects), "{fault:?} at {call}: not mended");
    assert_eq!(scene.violations(), [""; 0], "{fault:?} at {call}");
    end
}

#[tokio::test(flavor = "multi_thread")]
async fn at_every_call() {
    let began = Instant::now();
    let mut cases = Vec::new();
    for (start, lengths) in [(Start::Empty, &LENGTHS[..]), (Start::Spoiled, &SMALL)] {
        let sample = Arc::new(Sample::of(lengths));
        let scene = scene(start, &sample).await;
        scene.push(&sample.objects).await.unwrap_or_else(told);
        let calls = scene.fake.state().requests.len();
        say(&format!("gdrive: a push has {calls} calls, from {start:?}"));
        cases.extend(
            (1..=calls).flat_map(|call| FAULTS.map(|fault| (Arc::clone(&sample), start, fault, call))),
        );
    }
    if std::env::var_os("TRAINSPOT_ALL_FAULTS").is_none() {
        let third = fastrand::usize(..3);
        cases.retain(|(_, _, fault, call)| *fault == Fault::Corrupt || call % 3 == third);
    }
    let count = cases.len();
    let run = async |(sample, start, fault, call)| {
        (format!("{fault:?}"), tokio::spawn(strike(sample, start, fault, call)).await.unwrap())
    };
    let ends: Vec<_> = stream::iter(cases).map(run).buffer_unordered(8).collect().await;
    let mut table: BTreeMap<_, (usize, usize)> = BTreeMap::new();
    for (fault, end) in &ends {
        let row = table.entry(fault).or_default();
        if *end == End::GotOver { row.0 += 1 } else { row.1 += 1 }
    }
    for (fault, (got_over, failed)) in &table {
        say(&format!("gdrive: {fault}: {got_over} got over, {failed} ended with an error"));
        // Only what arrives wrong has to be told: sending it again by itself would hide a broken network.
        assert_eq!(*failed > 0, fault.as_str() == "Corrupt", "{fault}");
    }
    say(&format!("gdrive: {count} faults in {:.0} s", began.elapsed().as_secs_f32()));
}

/// Many calls fail, one in four, in a way chosen by chance.
#[tokio::test(flavor = "multi_thread")]
async fn at_many_calls() {
    let run = async |seed: u64| {
        let sample = Sample::of(&[0, 20, 70_000, 17 << 20, 30, 40, 50]);
        let scene = Scene::new(Place::SharedDrive).await;
        scene.fake.state().weather = Some(fastrand::Rng::with_seed(seed));
        let pushed = scene.push(&sample.objects).await;
        scene.fake.state().weather = None;
        assert!(
            pushed.is_err() || scene.has_all(&sample.objects) && scene.spotless(&sample.objects),
            "{seed}"
        );
        scene.push(&sample.objects).await.unwrap_or_else(told);
        assert!(scene.has_all(&sample.objects) && scene.spotless(&sample.objects), "{seed}");
        assert_eq!(scene.violations(), [""; 0], "{seed}");
        pushed.is_ok()
    };
    let ends: Vec<bool> = stream::iter(0..40).map(run).buffer_unordered(20).collect().await;
    let good = ends.iter().filter(|good| **good).count();
    say(&format!("gdrive: of 40 pushes with a fault at every fourth call, {good} got over them"));
    assert!(good > 8, "{good}");
}

/// A cut in the middle of a piece: only what did not arrive is sent again.
#[tokio::test]
async fn an_upload_goes_on_where_it_was_cut() {
    let sample = Sample::of(&[40 << 20]);
    let object = &sample.objects[0];
    for cut in 1..=5 {
        let scene = Scene::new(Place::SharedDrive).await;
        let remote = scene.remote().await;
        remote.put(&sample.objects[1]).await.unwrap_or_else(told);
        remote.missing(std::slice::from_ref(object)).await.unwrap_or_else(told);
        scene.fake.state().requests.clear();
        scene.fake.state().cut_piece = Some(cut);
        remote.put(object).await.unwrap_or_else(told);
        assert!(scene.has_all(std::slice::from_ref(object)));
        let sent: usize = {
            let state = scene.fake.state();
            assert_eq!(state.cut_piece, None, "nothing was cut");
            let pieces = state.requests.iter().filter(|request| request.path.starts_with("/session/"));
            pieces.map(|request| request.length).sum()
        };
        assert_eq!(sent, 40 << 20, "cut {cut}: something was sent twice");
        assert_eq!(scene.violations(), [""; 0]);
    }
}

#[tokio::test]
async fn a_drive_that_stays_away_or_is_too_busy_is_given_up() {
    let object = &Sample::of(&[20]).objects[0];
    let tried = [
        (Fault::Refused, "no answer", "network"),
        (Fault::Status(503), "HTTP 503", "Drive has a bad moment"),
        (Fault::Revoked, "HTTP 401: authError", "has expired or was revoked"),
    ];
    let tried = tried.map(|(fault, why, hint)| async move {
        let scene = Scene::new(Place::SharedDrive).await;
        let (remote, began) = (scene.remote().await, Instant::now());
        if fault == Fault::Revoked {
            scene.fake.state().token_life = Duration::ZERO;
        } else {
            scene.fake.state().fault = Some((fault, None));
        }
        let told = remote.put(object).await.unwrap_err().render();
        assert!(told.contains(why) && told.contains(hint), "{fault:?}: {told}");
        assert!(!is_late(began, Duration::from_mins(1)), "{fault:?}: {:?}", began.elapsed());
    });
    futures_util::future::join_all(tried).await;
}
