//! Checkpoints in the layouts that well-known trainers write, while they write them, and beside logs that
//! never rest.

use crate::local_machine::{Rig, beating, spec, until};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use trainspot_protocol::CommandSpec;
use trainspot_transfer::HeldFiles;

/// What every trainer does beside its checkpoints: a log that is appended to five times a second.
fn logging(log: &str) -> String {
    format!("mkdir -p $(dirname {log}); (while :; do echo 'a line of the log' >> {log}; sleep 0.2; done) & ")
}

/// Runs a trainer that writes below `out`, and hands over this many of its checkpoints, each in a folder.
async fn checkpoints(script: &str, count: usize, mut check: impl FnMut(&Path)) -> Rig {
    let spec = CommandSpec {
        checkpoints: vec!["out".to_owned()],
        checkpoint_interval: std::time::Duration::from_millis(200),
        ..spec(&format!(
            "size() {{ yes $1 | head -c $2; }}; {}{script}",
            logging("out/runs/events.out.tfevents.1")
        ))
    };
    let (rig, agent) = Rig::training(120, spec).await;
    let mut seen = BTreeSet::new();
    while seen.len() < count {
        let newest = |checkpoint: Option<u64>| checkpoint.filter(|number| !seen.contains(number));
        let number = until(&agent, |status| newest(status.checkpoint)).await;
        let folder = rig.aside(&format!("checkpoint {number}"));
        // It may be replaced by newer ones meanwhile: then it is missed as a whole.
        if beating(&agent, agent.fetch_checkpoint(number, &["out".to_owned()], HeldFiles::default(), &folder))
            .await
            .is_ok()
        {
            check(&folder.join("out"));
            seen.insert(number);
        }
    }
    let log = fs::read_to_string(
        rig.aside(&format!("checkpoint {}", seen.first().unwrap())).join("out/runs/events.out.tfevents.1"),
    );
    let log = log.unwrap();
    assert!(
        log.lines().count() > 3 && log.lines().all(|line| "a line of the log".starts_with(line)),
        "{log}"
    );
    rig
}

/// Fails unless a file is the number again and again, in so many bytes.
fn assert_is(path: &Path, number: &str, bytes: usize) {
    let text = fs::read_to_string(path).unwrap();
    let line = format!("{number}\n");
    assert!(
        text == line.repeat(bytes / line.len() + 1)[..bytes],
        "{} is not all {number}: {} bytes",
        path.display(),
        text.len()
    );
}

/// The files and folders of a folder whose names begin in this way, with what follows.
fn named(folder: &Path, start: &str) -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let named = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        Some((entry.path(), name.strip_prefix(start)?.to_owned()))
    });
    named.collect()
}

/// A folder a checkpoint, of several files; old ones are removed. Beside it a file that is written again and
/// again.
#[tokio::test]
async fn hugging_face_trainer() {
    let script = "(while :; do echo '{\"busy\": true}' > out/status.json; sleep 0.1; done) &
        for n in $(seq 10 1000); do
          d=out/checkpoint-$n; mkdir $d; size $n 3000000 > $d/model.safetensors; size $n 2000000 > $d/optimizer.pt
          echo $n > $d/rng_state.pth; echo $n > $d/trainer_state.json; sleep 2.5; rm -rf out/checkpoint-$((n - 2))
        done";
    let mut complete = 0;
    let rig = checkpoints(script, 3, |out| {
        for (folder, number) in named(out, "checkpoint-") {
            assert_is(&folder.join("model.safetensors"), &number, 3_000_000);
            assert_is(&folder.join("optimizer.pt"), &number, 2_000_000);
            assert_is(&folder.join("rng_state.pth"), &number, number.len() + 1);
            assert_is(&folder.join("trainer_state.json"), &number, number.len() + 1);
            complete += 1;
        }
    })
    .await;
    assert!(complete >= 3, "{complete}");
    let agent = rig.agent("test").await;
    until(&agent, |status| {
        let told = status.left_out.as_deref() == Some("'out/status.json' (written again and again)");
        told.then_some(())
    })
    .await;
    rig.end().await;
}

/// Files that are renamed into place twice a second, and a link to the newest that is made anew.
#[tokio::test]
async fn lightning() {
    let script = "v=out/version_0; mkdir -p $v/checkpoints; echo lr: 1 > $v/hparams.yaml
        for n in $(seq 10 10000); do
          echo $n,0.5 >> $v/metrics.csv; size $n 3000000 > unfinished; mv unfinished $v/checkpoints/epoch=$n.ckpt
          rm -f $v/checkpoints/last.ckpt; ln -s epoch=$n.ckpt $v/checkpoints/last.ckpt
          rm -f $v/checkpoints/epoch=$((n - 2)).ckpt; sleep 0.5
        done";
    let mut links = 0;
    let rig = checkpoints(script, 4, |out| {
        let folder = out.join("version_0/checkpoints");
        let epochs = named(&folder, "epoch=");
        assert!(!epochs.is_empty());
        for (file, number) in epochs {
            assert_is(&file, number.strip_suffix(".ckpt").unwrap(), 3_000_000);
        }
        if let Ok(leads) = folder.join("last.ckpt").read_link() {
            assert!(folder.join(leads).is_file());
            links += 1;
        }
        assert!(out.join("version_0/metrics.csv").is_file());
    })
    .await;
    assert!(links > 0, "no link came");
    rig.end().await;
}

/// Weights and what belongs to them are written in place, one after the other.
#[tokio::test]
async fn keras_backup_and_restore() {
    let script = "mkdir -p out/backup; for n in $(seq 10 1000); do
          size $n 3000000 > out/backup/latest.weights.h5; echo $n > out/backup/training_metadata.json
          size $n 2000000 > out/model.keras; sleep 2.5
        done";
    let rig = checkpoints(script, 3, |out| {
        let number = fs::read_to_string(out.join("backup/training_metadata.json")).unwrap();
        assert_is(&out.join("backup/latest.weights.h5"), number.trim(), 3_000_000);
        assert_is(&out.join("model.keras"), number.trim(), 2_000_000);
    })
    .await;
    rig.end().await;
}

/// A folder of shards that several processes write at the same time, then a file that names the folder.
#[tokio::test]
async fn deepspeed() {
    let script = "mkdir -p out; for n in $(seq 10 1000); do
          d=out/global_step$n; mkdir $d; shards=
          for rank in 0 1 2 3 4 5; do size $n 700000 > $d/rank_$rank.pt & shards=\"$shards $!\"; done; wait $shards
          echo global_step$n > out/latest; rm -rf out/global_step$((n - 2)); sleep 2.5
        done";
    let rig = checkpoints(script, 3, |out| {
        let latest = fs::read_to_string(out.join("latest")).unwrap();
        let number = latest.trim().strip_prefix("global_step").unwrap();
        for rank in 0..6 {
            assert_is(&out.join(latest.trim()).join(format!("rank_{rank}.pt")), number, 700_000);
        }
    })
    .await;
    rig.end().await;
}

/// Another file every few rounds, faster than any of them rests, each of its own.
#[tokio::test]
async fn xgboost() {
    let script = "for n in $(seq 100 10000); do size $n 300000 > out/model_$n.json; sleep 0.3; rm -f out/model_$((n - 40)).json; done";
    let rig = checkpoints(script, 2, |out| {
        let models = named(out, "model_");
        assert!(models.len() > 5, "{}", models.len());
        for (file, number) in models {
            assert_is(&file, number.strip_suffix(".json").unwrap(), 300_000);
        }
    })
    .await;
    rig.end().await;
}
