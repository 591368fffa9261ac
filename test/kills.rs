//! The pipe killed with SIGKILL, which nothing can prepare for: at every stage of a run, and at random
//! instants.

use crate::support::{Access, Scene, exists, is_late, patience, processes_with};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// The words in the log that open a stage.
const STAGES: [&str; 8] = [
    "trainspot 0",
    "machine ready",
    "training started",
    "training done",
    "fetched",
    "machine ended",
    "committing",
    "pushed",
];

const MODEL_BYTES: usize = 3_000_000;

fn scene() -> Scene {
    let mut scene = Scene::new(Access::Token, &[("train.sh", "echo hi\n")]);
    let command = "mkdir -p model state; sleep 0.3; echo 1 > state/a; (setsid sleep 500 &) ; \
        head -c 3000000 /dev/zero | tr '\\0' x > model/m.bin; echo '{\"a\": 1}' > model/metrics.json; sleep 0.2";
    scene.set("TRAIN_COMMAND", command).set("OUTPUTS", "model/**");
    // A pipe on a busy machine is silent for longer.
    scene.set("ORPHAN_GRACE", &format!("{}s", patience(Duration::from_secs(1)).as_secs()));
    scene.set("CHECKPOINTS", "state/**").set("CHECKPOINT_INTERVAL", "1s");
    scene
}

/// Fails if the killed run left more than the next run needs to clean up: see each assertion.
fn assert_harmless(scene: &Scene, when: &str) {
    let start = Instant::now();
    let scratch = scene.scratch().display().to_string();
    while !processes_with(&scratch).is_empty() && !is_late(start, Duration::from_secs(20)) {
        std::thread::sleep(Duration::from_millis(100));
    }
    let processes = processes_with(&scratch);
    assert!(processes.is_empty(), "{when}: processes are left: {processes:?}");
    let machines = std::fs::read_dir(scene.scratch()).unwrap().flatten();
    let machines: Vec<_> = machines.filter(|entry| exists(entry.path().join("work"))).collect();
    assert!(machines.is_empty(), "{when}: machines are left: {machines:?}");
    let model = std::fs::read(scene.clone().join("model/m.bin")).ok();
    assert!(
        model.is_none_or(|model| model == vec![b'x'; MODEL_BYTES]),
        "{when}: half an output is in the clone"
    );
    for line in scene.git(&["status", "--porcelain", "-uall"]).lines() {
        assert!(
            ["?? model/m.bin", "?? model/metrics.json"].contains(&line),
            "{when}: '{line}' is in the clone"
        );
    }
    scene.git(&["fsck", "--strict"]);
    scene.remote.git(&["fsck", "--strict"]);
    let branch = scene.branch();
    let commits = scene.remote.head(&branch).map_or(0, |_| scene.subjects(&branch).len());
    assert!(commits <= 1, "{when}: {commits} commits");
}

fn assert_next_run_succeeds(scene: &Scene, when: &str) {
    let run = scene.run();
    assert_eq!(run.code, Some(0), "{when}: {}\n{}", run.log, run.out);
    let branch = scene.branch();
    assert_eq!(scene.remote.file(&branch, "model/m.bin"), Some(vec![b'x'; MODEL_BYTES]), "{when}");
    assert_eq!((scene.subjects(&branch).len(), scene.bitbucket.pull_requests().len()), (1, 1), "{when}");
    scene.assert_nothing_left();
    assert!(!scene.git(&["count-objects", "-v"]).contains("garbage: 1"), "{when}");
}

fn kill(child: &mut Child) {
    kill_process(Pid::from_child(child), Signal::KILL).unwrap();
    child.wait().unwrap();
}

#[test]
fn killed_at_every_stage_it_leaves_nothing_and_the_next_run_succeeds() {
    for stage in STAGES {
        let scene = scene();
        let mut child = scene.command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let reached = log.find(|line| line.contains(stage));
        assert!(reached.is_some(), "the run never came to '{stage}'");
        kill(&mut child);
        assert_harmless(&scene, stage);
        assert_next_run_succeeds(&scene, stage);
    }
}

#[test]
fn killed_at_random_it_leaves_nothing_and_the_next_run_succeeds() {
    let kills = std::env::var("TRAINSPOT_KILLS").map_or(4, |count| count.parse().unwrap());
    let seed =
        std::env::var("TRAINSPOT_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("{kills} kills, TRAINSPOT_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let started = Instant::now();
    scene().run().expect(0);
    let whole = started.elapsed();
    for number in 0..kills {
        let scene = scene();
        let mut child = scene.start();
        let instant = whole.mul_f64(random.f64());
        std::thread::sleep(instant);
        let when = format!("seed {seed}, kill {number} after {instant:?} of {whole:?}");
        kill(&mut child);
        assert_harmless(&scene, &when);
        assert_next_run_succeeds(&scene, &when);
    }
    println!("{kills} kills: nothing left, and every next run succeeded");
}

#[test]
fn a_step_that_is_run_again_at_once_takes_its_machine_over() {
    let mut scene = scene();
    let command = "mkdir -p model; echo begin >> model/m.bin; sleep 30; echo end >> model/m.bin; echo '{}' > model/metrics.json";
    scene.set("TRAIN_COMMAND", command).set("ORPHAN_GRACE", "60s");
    let mut child = scene.command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(log.any(|line| line.contains("training started")));
    kill(&mut child);
    let run = scene.run().expect(0);
    assert!(run.log.contains("taking it over") && !run.log.contains("machine ready"), "{}", run.log);
    // Started once, by the run that was killed, and ended once.
    assert_eq!(scene.remote.file(&scene.branch(), "model/m.bin").unwrap(), b"begin\nend\n");
    scene.assert_nothing_left();
}
