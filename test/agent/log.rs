//! The training's log, followed; and its exit status beside it.

use crate::local_machine::{Rig, beating, ended, spec};
use std::time::Duration;
use trainspot_protocol::{CommandExit, ExitReason};

/// All that a program may print: lines, progress bars, bytes that are not text, an unfinished end.
const NOISE: &str = r"for i in $(seq 1 400); do
  echo line $i; printf '\r%s %%' $i >&2; printf '\xff\xfe\x00\x1b[31m'; head -c 5000 /dev/urandom; sleep 0.004
done; printf unfinished";

#[tokio::test]
async fn a_log_that_is_opened_again_and_again_neither_loses_nor_repeats_a_byte() {
    let (rig, agent) = Rig::training(20, spec(NOISE)).await;
    let mut random = fastrand::Rng::with_seed(7);
    let (mut offset, mut seen, mut opened) = (0, Vec::new(), 0);
    beating(&agent, async {
        loop {
            opened += 1;
            let patience = Duration::from_millis(random.u64(1..200));
            let mut take = |bytes: &[u8]| seen.extend_from_slice(bytes);
            // Dropping it kills the follower.
            if let Ok(done) = tokio::time::timeout(patience, agent.follow(&mut offset, &mut take)).await {
                return done.unwrap();
            }
        }
    })
    .await;
    let log = std::fs::read(rig.home().log()).unwrap();
    assert_eq!(offset, log.len() as u64);
    assert!(seen == log, "{} bytes of {} are not the log's", seen.len(), log.len());
    assert!(log.ends_with(b"unfinished") && opened > 5, "opened {opened} times");
    assert_eq!(ended(&agent).await.reason, ExitReason::Exited(0));
    rig.end().await;
}

#[tokio::test]
async fn two_hundred_megabytes_in_one_line_take_no_memory() {
    const BYTES: u64 = 200_000_000;
    let (rig, agent) = Rig::training(20, spec(&format!("head -c {BYTES} /dev/zero | tr '\\0' x"))).await;
    let (mut offset, mut strange, mut peak, mut pieces) = (0, 0, 0, 0);
    let mut take = |bytes: &[u8]| {
        strange += bytes.iter().filter(|byte| **byte != b'x').count();
        pieces += 1;
        if pieces % 500 == 0 {
            peak = peak.max(rig.peak("follow"));
        }
    };
    beating(&agent, agent.follow(&mut offset, &mut take)).await.unwrap();
    assert_eq!((offset, strange), (BYTES, 0));
    let most = 30 << 10;
    assert!(0 < peak && peak < most, "the follower took {peak} KiB");
    let supervisor = rig.peak("supervise");
    assert!(0 < supervisor && supervisor < most, "the supervisor took {supervisor} KiB");
    rig.end().await;
}

#[tokio::test]
async fn the_exit_status_stands_beside_the_log() {
    let cases = [
        ("exit 7", ExitReason::Exited(7), ""),
        ("kill -9 $$", ExitReason::Signalled(9), ""),
        ("kill $$", ExitReason::Signalled(15), ""),
        ("echo one\nfalse\necho two", ExitReason::Exited(1), "one\n"),
        ("exec >&- 2>&-; sleep 0.1; exit 3", ExitReason::Exited(3), ""),
        ("echo out; echo error >&2; cat; exit 0", ExitReason::Exited(0), "out\nerror\n"),
        ("rm -rf \"$PWD\"; echo gone", ExitReason::Exited(0), "gone\n"),
        ("(setsid sleep 300 &) ; sleep 300 & echo left", ExitReason::Exited(0), "left\n"),
    ];
    for (command, how, output) in cases {
        let (rig, agent) = Rig::training(20, spec(command)).await;
        let exit = ended(&agent).await;
        assert_eq!(exit.reason, how, "{command}");
        let recorded: CommandExit =
            serde_json::from_slice(&std::fs::read(rig.home().exit()).unwrap()).unwrap();
        assert_eq!(recorded, exit, "{command}");
        assert_eq!(std::fs::read_to_string(rig.home().log()).unwrap(), output, "{command}");
        // Only the supervisor is left.
        let left = crate::support::processes_with(rig.home().path().to_str().unwrap());
        assert_eq!(left.len(), 1, "{command}: {left:?}");
        rig.end().await;
    }
}
