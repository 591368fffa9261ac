//! Detached runs on this machine: the step ends, the training goes on, and a later pipe comes back.

mod losses;

use crate::ec2::moto::Moto;
use crate::support::{Access, Run, Scene, agents, is_late};
use fake_bitbucket::{ACCESS_TOKEN, Fault};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use trainspot_detached::RunFolder;
use trainspot_store::{BucketAccess, BucketCredentials, Store, StoreAddress};

/// A training that counts to four, a second each, and goes on where its checkpoint is.
const TRAIN: &str = "mkdir -p model ckpt; test $TRAINSPOT_RESUME = 1 || rm -f ckpt/n; \
    for n in 1 2 3 4; do test \"$(cat ckpt/n 2>/dev/null || echo 0)\" -ge $n && continue; \
    while test -e $GATE && test $n = 3; do sleep 0.1; done; \
    echo round $n; echo $n > ckpt/new; mv ckpt/new ckpt/n; sleep 1; done; cp ckpt/n model/m.bin; \
    echo '{\"accuracy\": 0.91}' > model/metrics.json";

/// A repository with a training that a step leaves to its machine. While the file `gate` of the scene's
/// folder is there, the training waits after its second round.
fn scene() -> Scene {
    let mut scene = Scene::new(Access::Token, &[("train.sh", "echo hi\n")]);
    let (store, gate) = (store(&scene), gate(&scene));
    scene
        .set("TRAIN_COMMAND", TRAIN)
        .set("TRAIN_ENV", &format!("GATE={}", gate.display()))
        .set("OUTPUTS", "model/m.bin, model/*.json")
        .set("CHECKPOINTS", "ckpt")
        .set("CHECKPOINT_INTERVAL", "1s")
        .set("DETACH", "true")
        .set("STORE", store.to_str().unwrap());
    scene
}

fn store(scene: &Scene) -> PathBuf {
    scene.folder.path().join("store")
}

fn gate(scene: &Scene) -> PathBuf {
    scene.folder.path().join("gate")
}

/// The run's id, as the first pipe tells it.
fn run_id(run: &Run) -> String {
    let line = run.log.lines().find_map(|line| line.split_once("the run is ")).unwrap();
    line.1.trim().to_owned()
}

/// Lets the scene be another pipeline, which comes back for a run.
fn come_back(scene: &mut Scene, run: &str, number: u32) {
    scene
        .set("RUN", run)
        .set("BITBUCKET_BUILD_NUMBER", &number.to_string())
        .set("BITBUCKET_PIPELINE_UUID", &format!("{{11111111-1111-1111-1111-{number:012}}}"))
        .set("BITBUCKET_STEP_UUID", &format!("{{22222222-2222-2222-2222-{number:012}}}"));
}

fn wait_for(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(!is_late(start, Duration::from_secs(20)), "it does not happen");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The files below a folder, by their paths there.
fn files(folder: &Path) -> Vec<String> {
    let files = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().flatten();
    let files = files.filter(|entry| entry.file_type().is_file());
    files.map(|entry| entry.path().strip_prefix(folder).unwrap().display().to_string()).collect()
}

fn has_file(scene: &Scene, end: &str) -> bool {
    files(&store(scene)).iter().any(|file| file.ends_with(end))
}

/// What the machine has said of itself last.
fn state_of(scene: &Scene) -> Option<String> {
    let states = walkdir::WalkDir::new(store(scene)).into_iter().flatten();
    let mut states = states.filter(|entry| entry.file_name() == "state.json");
    std::fs::read_to_string(states.next()?.path()).ok()
}

#[test]
fn the_step_ends_and_a_later_pipe_publishes() {
    let mut scene = scene();
    std::fs::write(gate(&scene), "").unwrap();
    let began = scene.run().expect(0);
    assert!(began.last_line().contains("goes on without this step"), "{}", began.out);
    assert!(scene.bitbucket.pull_requests().is_empty());
    let run = run_id(&began);
    come_back(&mut scene, &run, 8);
    let early = scene.run().expect(0);
    assert!(early.last_line().contains("goes on"), "{}", early.out);
    std::fs::remove_file(gate(&scene)).unwrap();
    wait_for(|| has_file(&scene, "/exit.json"));
    // What the step says now does not count any more: a run is what its first pipe was told.
    scene.set("OUTPUTS", "nothing").set("TRAIN_COMMAND", "false");
    come_back(&mut scene, &run, 9);
    let done = scene.run().expect(0);
    assert_eq!(done.last_line(), "✔ done; see https://bitbucket.org/acme/forest/pull-requests/1");
    assert!(done.out.contains("│ round 4\n"), "{}", done.out);
    assert_eq!(scene.remote.file(&scene.branch(), "model/m.bin").unwrap(), b"4\n");
    assert_eq!(scene.subjects(&scene.branch()).len(), 1);
    let states: Vec<_> =
        scene.bitbucket.statuses().iter().map(|status| status.body["state"].clone()).collect();
    assert_eq!(states, ["INPROGRESS", "SUCCESSFUL"]);
    let left = files(&store(&scene));
    let is_record = |file: &String| {
        file.contains("/pipe/")
            || file.contains("/log/")
            || file.ends_with("state.json")
            || file.ends_with("exit.json")
            || file.ends_with("version.json")
            || !file.contains("/v1/") && file.contains("lock")
    };
    assert!(left.iter().all(is_record), "{left:#?}");
    wait_for(|| agents(scene.scratch().to_str().unwrap(), "supervise").is_empty());
    scene.assert_nothing_left();
    let again = scene.run().expect(0);
    assert!(again.last_line().contains("nothing to do"), "{}", again.out);
    assert_eq!((scene.subjects(&scene.branch()).len(), scene.bitbucket.pull_requests().len()), (1, 1));
}

#[test]
fn a_training_that_fails_is_reported_with_its_last_lines() {
    let mut scene = scene();
    scene.set("TRAIN_COMMAND", "mkdir ckpt; echo 7 > ckpt/n; sleep 3; echo the last word; exit 3");
    let run = run_id(&scene.run().expect(0));
    wait_for(|| has_file(&scene, "/exit.json"));
    come_back(&mut scene, &run, 8);
    for words in ["failed with exit code 3", "is over, and has failed"] {
        let failed = scene.run().expect(4);
        assert!(failed.out.contains(words), "{}", failed.out);
    }
    let last = scene.bitbucket.statuses().pop().unwrap();
    assert_eq!(last.body["state"], "FAILED");
    assert_eq!(
        std::fs::read(scene.clone().join("ckpt/n")).unwrap(),
        b"7\n",
        "the newest checkpoint is saved"
    );
    assert_eq!(scene.remote.head(&scene.branch()), None);
}

#[test]
fn two_that_come_at_once_publish_once() {
    let mut scene = scene();
    let run = run_id(&scene.run().expect(0));
    wait_for(|| has_file(&scene, "/exit.json"));
    come_back(&mut scene, &run, 8);
    let first = scene.start();
    come_back(&mut scene, &run, 9);
    let second = scene.start();
    for child in [first, second] {
        Run::from(child.wait_with_output().unwrap()).expect(0);
    }
    assert_eq!((scene.subjects(&scene.branch()).len(), scene.bitbucket.pull_requests().len()), (1, 1));
}

#[test]
fn the_machine_starts_the_pipeline_that_publishes() {
    let mut scene = scene();
    scene.bitbucket.define_pipeline("retrain", &[]);
    scene.set("WAKE_TOKEN", ACCESS_TOKEN).set("WAKE_PIPELINE", "retrain");
    let began = scene.run().expect(0);
    assert!(!began.log.contains("nothing comes back"), "{}", began.log);
    let run = run_id(&began);
    wait_for(|| !scene.bitbucket.pipelines().is_empty());
    assert!(has_file(&scene, "/exit.json"), "it was woken before everything was there");
    let woken = &scene.bitbucket.pipelines()[0];
    let told = woken.variables.iter().find(|variable| variable.key == "TRAINSPOT_RUN").unwrap();
    assert_eq!((&told.value, woken.commit.clone()), (&run, scene.remote.head("main")));
    come_back(&mut scene, &run, 8);
    let done = scene.run().expect(0);
    assert_eq!(done.last_line(), "✔ done; see https://bitbucket.org/acme/forest/pull-requests/1");
    let kept = files(&store(&scene))
        .iter()
        .map(|file| std::fs::read(store(&scene).join(file)).unwrap())
        .collect::<Vec<_>>();
    assert!(!String::from_utf8_lossy(&kept.concat()).contains(ACCESS_TOKEN), "the store has the token");
}

#[test]
fn a_run_is_looked_at_and_stopped() {
    let mut scene = scene();
    std::fs::write(gate(&scene), "").unwrap();
    let run = run_id(&scene.run().expect(0));
    wait_for(|| state_of(&scene).is_some_and(|state| !state.contains("\"stored_checkpoint\":null")));
    let seen = scene.set("ACTION", "status").run().expect(0);
    let row = seen.out.lines().find(|line| line.starts_with(&run)).unwrap();
    assert!(row.contains("training") && row.contains("this machine (local)"), "{}", seen.out);
    assert!(seen.out.contains(&format!("{{\"run\":\"{run}\",\"state\":\"training\"")), "{}", seen.out);
    come_back(&mut scene, &run, 8);
    let stopped = scene.set("ACTION", "stop").run().expect(0);
    assert!(stopped.last_line().contains("is stopped: the newest checkpoint"), "{}", stopped.out);
    assert_eq!(std::fs::read(scene.clone().join("ckpt/n")).unwrap(), b"2\n");
    assert_eq!(scene.bitbucket.statuses().last().unwrap().body["state"], "STOPPED");
    assert!(agents(scene.scratch().to_str().unwrap(), "supervise").is_empty());
    let seen = scene.set("ACTION", "status").run().expect(0);
    assert!(seen.out.contains("stopped"), "{}", seen.out);
    let again = scene.set("ACTION", "train").run().expect(0);
    assert!(again.last_line().contains("was stopped"), "{}", again.out);
    scene.assert_nothing_left();
}

/// The same with a bucket, of a server that we did not write.
#[test]
fn a_bucket_keeps_a_run_as_a_folder_does() {
    let moto = match Moto::shared() {
        Ok(moto) => moto,
        Err(why) => return skip::skip(why),
    };
    let bucket = format!("detached-{}", std::process::id());
    let ask = |method: reqwest::Method, path: &str| {
        let url = format!("{}/{bucket}{path}", moto.url());
        let answer = async {
            reqwest::Client::new().request(method, url).send().await?.error_for_status()?.text().await
        };
        tokio::runtime::Runtime::new().unwrap().block_on(answer).unwrap()
    };
    ask(reqwest::Method::PUT, "");
    let mut scene = scene();
    scene
        .set("STORE", &format!("s3://{bucket}/runs"))
        .set("STORE_ENDPOINT", moto.url())
        .set("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
        .set("AWS_SECRET_ACCESS_KEY", "s3cret-of-the-bucket");
    let run = run_id(&scene.run().expect(0));
    wait_for(|| ask(reqwest::Method::GET, "?list-type=2").contains("/exit.json"));
    let keys = BucketCredentials::Keys {
        id: "AKIAEXAMPLE".to_owned(),
        secret: "s3cret-of-the-bucket".into(),
        session_token: None,
    };
    let (region, endpoint) = ("us-east-1".to_owned(), Some(moto.url().to_owned()));
    let access = BucketAccess { region, endpoint, credentials: keys };
    let address = StoreAddress::parse(&format!("s3://{bucket}/runs")).unwrap();
    let request = async {
        let store = Store::open(&address, &access).unwrap();
        let key = RunFolder::new("acme", "forest", &run).unwrap().request().unwrap();
        store.read(&key, 1 << 20).await.unwrap().unwrap().bytes
    };
    let request = tokio::runtime::Runtime::new().unwrap().block_on(request);
    let request = String::from_utf8(request).unwrap();
    assert!(!request.contains("s3cret") && !request.contains(ACCESS_TOKEN), "{request}");
    come_back(&mut scene, &run, 8);
    let done = scene.run().expect(0);
    assert_eq!(done.last_line(), "✔ done; see https://bitbucket.org/acme/forest/pull-requests/1");
    assert_eq!(scene.remote.file(&scene.branch(), "model/m.bin").unwrap(), b"4\n");
    let left = ask(reqwest::Method::GET, "?list-type=2");
    assert!(
        !left.contains("/files/") && !left.contains("/workspace<") && left.contains("/exit.json<"),
        "{left}"
    );
    assert!(!ask(reqwest::Method::GET, "?uploads").contains("<Upload>"), "an upload is unfinished");
    scene.assert_nothing_left();
}

#[test]
fn what_dvc_keeps_goes_from_the_machine_to_its_remote() {
    let mut scene = scene();
    let remote = scene.folder.path().join("remote");
    scene.set("OUTPUTS", "model/metrics.json").set("DVC_OUTPUTS", "model/m.bin");
    scene.set("DVC_REMOTE", remote.to_str().unwrap());
    let run = run_id(&scene.run().expect(0));
    wait_for(|| has_file(&scene, "/exit.json"));
    let objects = files(&remote);
    assert_eq!(objects.len(), 1, "the machine has sent it: {objects:?}");
    assert!(!has_file(&scene, "/rescue.json"));
    come_back(&mut scene, &run, 8);
    scene.run().expect(0);
    let pointer = scene.remote.file(&scene.branch(), "model/m.bin.dvc").unwrap();
    assert!(String::from_utf8(pointer).unwrap().contains("size: 2"), "a pointer to four and a line's end");
    assert_eq!(scene.remote.file(&scene.branch(), "model/m.bin"), None);
}

#[test]
fn what_a_dvc_remote_does_not_take_is_in_the_clone_at_last() {
    let mut scene = scene();
    scene.set("OUTPUTS", "model/metrics.json").set("DVC_OUTPUTS", "model/m.bin");
    // Nobody listens there.
    scene.set("DVC_REMOTE", "webdav://127.0.0.1:9/models");
    let run = run_id(&scene.run().expect(0));
    wait_for(|| has_file(&scene, "/exit.json"));
    come_back(&mut scene, &run, 8);
    let failed = scene.run().expect(5);
    assert!(failed.out.contains("cannot keep the outputs in DVC's remote"), "{}", failed.out);
    assert!(failed.out.contains("1 file that DVC was to keep, in the clone"), "{}", failed.out);
    assert_eq!(std::fs::read(scene.clone().join("model/m.bin")).unwrap(), b"4\n");
}

/// A run whose publication failed is published by the next pipe, and not trained again.
#[test]
fn what_could_not_be_published_is_kept_for_the_next_pipe() {
    let mut scene = scene();
    let run = run_id(&scene.run().expect(0));
    wait_for(|| has_file(&scene, "/exit.json"));
    let object = files(&store(&scene)).into_iter().find(|file| file.contains("/files/")).unwrap();
    let (object, aside) = (store(&scene).join(object), scene.folder.path().join("aside"));
    std::fs::rename(&object, &aside).unwrap();
    come_back(&mut scene, &run, 8);
    let failed = scene.run().expect(3);
    assert!(failed.out.contains("is not what the machine said"), "{}", failed.out);
    std::fs::rename(&aside, &object).unwrap();
    let refusal = "{\"type\": \"error\", \"error\": {\"message\": \"no scope\"}}";
    scene.bitbucket.next(Fault::on("POST", "/pullrequests").answer(403, refusal));
    scene.run().expect(5);
    let done = scene.run().expect(0);
    assert_eq!(done.last_line(), "✔ done; see https://bitbucket.org/acme/forest/pull-requests/1");
    assert!(!done.log.contains("training started"), "{}", done.log);
    assert_eq!((scene.subjects(&scene.branch()).len(), scene.bitbucket.pull_requests().len()), (1, 1));
}
