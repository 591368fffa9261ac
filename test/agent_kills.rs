//! The machine's own processes killed with SIGKILL at random: what is there stays whole, and all of it can be
//! ended.

use crate::local_machine::{Rig, spec};
use rustix::process::{Signal, kill_process};
use std::path::Path;
use std::time::Duration;
use trainspot_protocol::CommandSpec;
use trainspot_protocol::FileSelection;
use trainspot_transfer::Manifest;
use trainspot_transfer::{BundleEntry, EntryKind, HeldFiles};

const VERBS: [&str; 5] = ["supervise", "unpack", "pack", "follow", "pack-checkpoint"];
const COMMAND: &str = "(setsid sleep 500 &); while :; do yes 1 | head -c 3000000 > state; \
    yes 2 | head -c 3000000 > more; yes $RANDOM | head -c 100000; sleep 1.1; done";

/// The files of a folder that stand under a name are whole.
fn assert_whole(folder: &Path, when: &str) {
    for (name, digit) in [("sent", b'0'), ("state", b'1'), ("more", b'2')] {
        let Ok(bytes) = std::fs::read(folder.join(name)) else { continue };
        let whole = bytes.len() == 3_000_000 && bytes.chunks(2).all(|pair| pair == [digit, b'\n']);
        assert!(whole, "{when}: half of '{name}' ({} bytes) in {}", bytes.len(), folder.display());
    }
}

/// Every checkpoint that stands under its number is complete.
fn assert_checkpoints_complete(rig: &Rig, when: &str) -> usize {
    let folders = std::fs::read_dir(rig.home().checkpoints()).unwrap().flatten();
    let numbered = folders.filter(|entry| entry.file_name().to_str().unwrap().parse::<u64>().is_ok());
    let mut count = 0;
    for folder in numbered {
        let bytes = std::fs::read(folder.path().join("manifest.json"));
        let manifest: Manifest = serde_json::from_slice(&bytes.expect(when)).expect(when);
        assert_eq!(manifest.entries.len(), 2, "{when}");
        for (entry, hash) in manifest.entries.iter().zip(&manifest.hashes) {
            let bytes = std::fs::read(folder.path().join("files").join(entry.path.to_path())).expect(when);
            assert_eq!(blake3::hash(&bytes).to_hex().as_str(), hash, "{when}");
            assert!(matches!(entry.kind, EntryKind::File { bytes: size, .. } if size == bytes.len() as u64));
        }
        assert_whole(&folder.path().join("files"), when);
        count += 1;
    }
    count
}

async fn kill(random: &mut fastrand::Rng, when: &str) -> usize {
    let spec = CommandSpec {
        checkpoints: vec!["state".to_owned(), "more".to_owned()],
        checkpoint_interval: Duration::from_millis(50),
        ..spec(COMMAND)
    };
    let (rig, agent) = Rig::training(30, spec).await;
    let (clone, target, saved) = (rig.aside("clone"), rig.aside("target"), rig.aside("saved"));
    std::fs::write(clone.join("sent"), "0\n".repeat(1_500_000)).unwrap();
    let entries = vec![BundleEntry::look(&clone, Path::new("sent")).unwrap()];
    let busy = async {
        loop {
            let mut offset = 0;
            // Any of these may fail: what it talks to is killed.
            agent.send(&clone, entries.clone(), "").await.ok();
            let wanted = FileSelection { required: vec!["sent".to_owned()], ..FileSelection::default() };
            agent.fetch(&wanted, &target, "").await.ok();
            let patience = Duration::from_millis(50);
            let _ = tokio::time::timeout(patience, agent.follow(&mut offset, &mut |_: &[u8]| {})).await;
            agent.fetch_checkpoint(1, &["**".to_owned()], HeldFiles::default(), &saved).await.ok();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let verb = VERBS[random.usize(..VERBS.len())];
    let instant = Duration::from_millis(random.u64(1000..2500));
    let killer = async {
        tokio::time::sleep(instant).await;
        for _ in 0..100 {
            let pids = rig.agents(verb);
            if !pids.is_empty() {
                for pid in pids {
                    kill_process(pid, Signal::KILL).ok();
                }
                break;
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        tokio::time::sleep(Duration::from_millis(random.u64(0..300))).await;
    };
    tokio::select! { () = busy => unreachable!(), () = killer => {} }
    let when = format!("{when}: {verb} after {instant:?}");
    for folder in [target, saved] {
        assert_whole(&folder, &when);
    }
    // What is looked at must not be replaced by newer ones meanwhile.
    for pid in rig.agents("supervise") {
        kill_process(pid, Signal::STOP).unwrap();
    }
    let complete = assert_checkpoints_complete(&rig, &when);
    rig.end().await;
    complete
}

async fn campaign(kills: u32) -> String {
    let seed =
        std::env::var("TRAINSPOT_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(seed);
    let mut complete = 0;
    for number in 0..kills {
        complete += kill(&mut random, &format!("TRAINSPOT_SEED={seed}, kill {number}")).await;
    }
    format!("{kills} kills, TRAINSPOT_SEED={seed}: nothing left, and {complete} checkpoints complete")
}

#[tokio::test]
async fn killed_at_random_what_is_left_is_whole_and_can_be_ended() {
    println!("{}", campaign(5).await);
}

#[tokio::test]
#[ignore = "takes as long as TRAINSPOT_KILLS says: about two seconds each"]
async fn killed_at_random_many_times() {
    println!(
        "{}",
        campaign(std::env::var("TRAINSPOT_KILLS").map_or(100, |count| count.parse().unwrap())).await
    );
}
