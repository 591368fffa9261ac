//! The supervisor under the guard of its machine.

use crate::local_machine::{Rig, exists, spec};
use crate::support::{is_late, patience};
use rustix::process::{Signal, kill_process};
use std::path::Path;
use std::time::{Duration, Instant};
use trainspot_protocol::AgentCommand;

/// The guard's folder, as it is before a supervisor comes.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// The supervisor's last sign of life.
fn alive(guard: &Path) -> u64 {
    std::fs::read_to_string(guard.join("alive")).unwrap_or_default().trim().parse().unwrap_or(0)
}

/// Waits for this sign of life, or a later one.
async fn until_alive(guard: &Path, sign: u64) {
    let start = Instant::now();
    while alive(guard) < sign {
        assert!(!is_late(start, Duration::from_secs(10)), "no sign of life {sign}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn signs_of_life_come_from_a_supervisor_that_works_and_from_no_other() {
    let guard = folder();
    let rig = Rig::rented(60, &[("--guard", guard.path().to_str().unwrap())]).await;
    exists(guard.path().join("alive")).await;
    let (start, first) = (Instant::now(), alive(guard.path()));
    until_alive(guard.path(), first + 3).await;
    let (elapsed, beats) = (start.elapsed().as_secs(), alive(guard.path()) - first);
    assert!(beats <= elapsed + 1, "{beats} beats in {elapsed} s");
    let supervisor = rig.agents("supervise")[0];
    for (signal, lives) in [(Signal::STOP, false), (Signal::CONT, true), (Signal::KILL, false)] {
        kill_process(supervisor, signal).unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let before = alive(guard.path());
        if lives {
            until_alive(guard.path(), before + 1).await;
        } else {
            tokio::time::sleep(Duration::from_millis(2500)).await;
            assert_eq!(alive(guard.path()), before, "{signal:?}");
        }
    }
    assert!(!guard.path().join("end").exists());
    rig.end().await;
}

#[tokio::test]
async fn silence_has_the_guard_end_the_machine() {
    let guard = folder();
    let rig = Rig::rented(2, &[("--guard", guard.path().to_str().unwrap())]).await;
    rig.train(spec("trap '' TERM; while :; do sleep 0.1; done")).await;
    let start = Instant::now();
    exists(guard.path().join("end")).await;
    // The grace, then as much for the training to end.
    let took = start.elapsed();
    assert!(Duration::from_secs(3) <= took && took < patience(Duration::from_secs(7)), "{took:?}");
    assert_eq!(rig.agents("supervise").len(), 1);
    rig.end().await;
}

#[tokio::test]
async fn a_machine_that_its_guard_does_not_end_ends_itself() {
    let guard = folder();
    let rig = Rig::rented(60, &[("--guard", guard.path().to_str().unwrap())]).await;
    let agent = rig.train(spec("sleep 300")).await;
    let start = Instant::now();
    agent.ask(AgentCommand::EndMachine).await.unwrap();
    exists(guard.path().join("end")).await;
    assert!(!is_late(start, Duration::from_secs(2)), "{:?}", start.elapsed());
    while rig.calls().len() < 2 {
        assert!(!is_late(start, Duration::from_secs(25)));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(start.elapsed() > Duration::from_secs(14), "{:?}", start.elapsed());
    let mut calls = rig.calls();
    calls.sort_unstable();
    assert_eq!(calls, ["poweroff -f", "sudo -n systemctl poweroff --force --force"]);
    rig.end().await;
}

#[tokio::test]
async fn a_machine_without_a_guard_is_refused() {
    let guard = folder();
    let rig = Rig::rented(60, &[]).await;
    std::fs::remove_dir_all(guard.path()).unwrap();
    rig.end().await;
    let missing = rig.supervise(60, &[("--guard", guard.path().to_str().unwrap())]).output().unwrap();
    assert_eq!(missing.status.code(), Some(3));
    let words = String::from_utf8(missing.stderr).unwrap();
    assert!(words.contains("the machine has no guard: there is no folder "), "{words}");
    assert!(!rig.home().path().exists());
}

#[tokio::test]
async fn a_second_supervisor_is_refused_and_does_no_harm() {
    let guard = folder();
    let flags = [("--guard", guard.path().to_str().unwrap())];
    let rig = Rig::rented(60, &flags).await;
    let agent = rig.train(spec("echo first; sleep 300")).await;
    exists(rig.home().log()).await;
    std::fs::write(rig.home().agent_log(), "first words\n").unwrap();
    for _ in 0..3 {
        let second = rig.supervise(60, &flags).output().unwrap();
        assert_eq!(second.status.code(), Some(3));
        let words = String::from_utf8(second.stderr).unwrap();
        assert!(words.contains("a supervisor runs in this home already"), "{words}");
    }
    let status = agent.ask(AgentCommand::Heartbeat).await.unwrap();
    assert_eq!(status.fingerprint.as_deref(), Some("f"));
    assert_eq!(rig.agents("supervise").len(), 1);
    assert_eq!(std::fs::read_to_string(rig.home().agent_log()).unwrap(), "first words\n");
    rig.end().await;
}
