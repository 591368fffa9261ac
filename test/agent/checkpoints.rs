//! Checkpoints under a training that keeps writing, and a pipe that keeps fetching.

use crate::local_machine::{Rig, exists, spec};
use crate::support::is_late;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};
use trainspot_protocol::{AgentCommand, CommandSpec};
use trainspot_transfer::HeldFiles;

/// Writes a counter into three files, in place and by renaming, then rests as a training does between its
/// epochs.
const WRITER: &str = "mkdir state; for i in $(seq 1 1000); do
  yes $i | head -c 2000000 > state/a; sleep 0.3
  yes $i | head -c 3000000 > state/b.tmp; mv state/b.tmp state/b; sleep 0.3
  echo $i > 'state/c 1'; sleep 1.9
done";

/// The counter that all three files hold from their first byte to their last.
fn counter(folder: &Path) -> u64 {
    let read = |name: &str| std::fs::read_to_string(folder.join("state").join(name)).unwrap();
    let number: u64 = read("c 1").trim().parse().unwrap();
    let line = format!("{number}\n");
    for (name, bytes) in [("a", 2_000_000), ("b", 3_000_000)] {
        assert!(read(name) == line.repeat(bytes)[..bytes], "{name} is not all {number}");
    }
    assert_eq!(std::fs::read_dir(folder.join("state")).unwrap().count(), 3);
    number
}

#[tokio::test]
async fn each_holds_one_moment_however_the_training_writes() {
    let spec = CommandSpec {
        checkpoints: vec!["state/*".to_owned()],
        checkpoint_interval: Duration::from_millis(100),
        ..spec(WRITER)
    };
    let (rig, agent) = Rig::training(20, spec).await;
    let (start, mut saved) = (Instant::now(), BTreeSet::new());
    for attempt in 0.. {
        let Some(number) = agent.ask(AgentCommand::Heartbeat).await.unwrap().checkpoint else {
            assert!(!is_late(start, Duration::from_secs(20)), "no checkpoint comes");
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // It may be replaced by newer ones meanwhile: then it is missed as a whole.
        let folder = rig.aside(&format!("{attempt}"));
        if agent
            .fetch_checkpoint(number, &["state/*".to_owned()], HeldFiles::default(), &folder)
            .await
            .is_ok()
        {
            saved.insert(counter(&folder));
        }
        std::fs::remove_dir_all(folder).unwrap();
        if saved.len() >= 3 {
            break;
        }
        assert!(!is_late(start, Duration::from_secs(25)), "only {saved:?}");
    }
    rig.end().await;
}

#[tokio::test]
async fn of_the_next_one_only_new_content_comes() {
    const BYTES: u64 = 1 << 20;
    let spec = CommandSpec {
        checkpoints: vec!["state".to_owned()],
        checkpoint_interval: Duration::from_millis(100),
        ..spec(
            "mkdir state; head -c 1M /dev/urandom > state/a; echo 1 > state/step
            while [ ! -e go ]; do sleep 0.05; done; mv state/a state/b; sleep 300",
        )
    };
    let (rig, agent) = Rig::training(20, spec).await;
    let (patterns, first, second) = (["state".to_owned()], rig.aside("first"), rig.aside("second"));
    let copy = |number: &str| rig.home().checkpoints().join(number);
    exists(copy("1")).await;
    let received = agent.fetch_checkpoint(1, &patterns, HeldFiles::default(), &first).await.unwrap();
    assert_eq!(received.bytes, BYTES + 2);
    std::fs::write(rig.home().work().join("go"), "").unwrap();
    exists(copy("2")).await;
    // It is here already, and is not looked at there.
    std::fs::write(copy("2").join("files/state/b"), "damaged").unwrap();
    let held = HeldFiles::in_folder(&first, &received);
    let received = agent.fetch_checkpoint(2, &patterns, held, &second).await.unwrap();
    assert_eq!((received.bytes, received.header.bytes()), (2, BYTES + 2));
    let read = |folder: &Path, path: &str| std::fs::read(folder.join(path)).unwrap();
    assert!(read(&second, "state/b") == read(&first, "state/a"));
    assert_eq!(read(&second, "state/step"), b"1\n");
    rig.end().await;
}

#[tokio::test]
async fn a_damaged_checkpoint_is_refused() {
    let spec = CommandSpec {
        checkpoints: vec!["state".to_owned()],
        checkpoint_interval: Duration::from_millis(100),
        ..spec("mkdir state; echo good > state/a; : > state/empty; sleep 300")
    };
    let (rig, agent) = Rig::training(20, spec).await;
    let copy = rig.home().checkpoints().join("1");
    exists(copy.clone()).await;
    let (target, patterns) = (rig.aside("target"), ["state".to_owned()]);
    agent.fetch_checkpoint(1, &patterns, HeldFiles::default(), &target).await.unwrap();
    assert_eq!(std::fs::read(target.join("state/a")).unwrap(), b"good\n");
    assert_eq!(std::fs::read(target.join("state/empty")).unwrap(), b"");
    std::fs::write(copy.join("files/state/a"), "evil\n").unwrap();
    let error = agent
        .fetch_checkpoint(1, &patterns, HeldFiles::default(), &rig.aside("other"))
        .await
        .unwrap_err()
        .render();
    assert!(error.contains("checkpoint 1 is damaged: 'state/a' changed on disk"), "{error}");
    assert!(agent.fetch_checkpoint(2, &patterns, HeldFiles::default(), &target).await.is_err());
    rig.end().await;
}

#[tokio::test]
async fn a_pattern_that_leads_out_makes_no_copy_and_does_no_harm() {
    let outside = tempfile::tempdir().unwrap();
    let precious = outside.path().join("precious");
    std::fs::write(&precious, "precious").unwrap();
    let spec = CommandSpec {
        checkpoints: vec![precious.display().to_string()],
        checkpoint_interval: Duration::from_millis(50),
        ..spec("sleep 2")
    };
    let (rig, agent) = Rig::training(20, spec).await;
    crate::local_machine::ended(&agent).await;
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
    let words = std::fs::read_to_string(rig.home().agent_log()).unwrap();
    assert!(words.contains("leads out of the folder"), "{words}");
    rig.end().await;
}
