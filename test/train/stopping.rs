//! Runs that are told to stop, in each of their stages.

use super::{scene, wait_for};
use crate::support::{Access, Run, exists, is_late, processes_with};
use fake_bitbucket::Fault;
use std::time::{Duration, Instant};

#[test]
fn told_to_stop_it_ends_the_machine_and_says_so() {
    let mut scene = scene(Access::Token);
    scene.set("TRAIN_COMMAND", "echo up; sleep 600");
    let child = scene.start();
    // This test's own: others sleep as long. Its environment names the machine's folder.
    let scratch = scene.scratch().display().to_string();
    wait_for(|| processes_with(&scratch).iter().any(|process| process.contains("sleep 600")));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
        .unwrap();
    let run = Run::from(child.wait_with_output().unwrap()).expect(6);
    assert!(run.last_line().starts_with("✖ stopped before the training's outputs were safe"), "{}", run.out);
    assert_eq!(scene.bitbucket.statuses()[0].body["state"], "STOPPED");
    scene.assert_nothing_left();
}

#[test]
fn told_to_stop_twice_it_does_not_wait_for_bitbucket() {
    let mut scene = scene(Access::Token);
    scene.bitbucket.next(Fault::on("POST", "/statuses/build").delay(Duration::from_secs(25)));
    scene.set("TRAIN_COMMAND", "touch up; sleep 600");
    let child = scene.start();
    let up = || walkdir::WalkDir::new(scene.scratch()).into_iter().flatten().any(|it| it.file_name() == "up");
    wait_for(up);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    wait_for(|| !up());
    std::thread::sleep(Duration::from_millis(500));
    let start = Instant::now();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let run = Run::from(child.wait_with_output().unwrap()).expect(6);
    assert!(run.out.contains("✖ stopped at once"), "{}", run.out);
    assert!(!is_late(start, Duration::from_secs(15)), "{:?}", start.elapsed());
}

#[test]
fn told_to_stop_while_it_pushes_it_does_not_wait_for_the_remote() {
    let scene = scene(Access::Token);
    scene.bitbucket.next(Fault::on("POST", "git-receive-pack").delay(Duration::from_secs(25)));
    let child = scene.start();
    wait_for(|| exists(scene.clone().join(".git/trainspot/repository/blobs")));
    std::thread::sleep(Duration::from_millis(500));
    let start = Instant::now();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
        .unwrap();
    let run = Run::from(child.wait_with_output().unwrap()).expect(6);
    assert_eq!(run.last_line(), "✖ stopped while publishing; the outputs are in the clone");
    assert!(!is_late(start, Duration::from_secs(15)), "{:?}", start.elapsed());
}
