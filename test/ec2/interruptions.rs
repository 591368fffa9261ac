//! Machines that AWS takes back at random times.

use super::campaign::Campaign;
use super::lab::{Lab, SHOWN, in_lab};
use super::step::Step;
use crate::support::say;
use serde_json::json;
use std::time::Duration;

/// A tenth of two minutes of training, and of half a minute's notice: with EC2's two it would come to its end
/// before.
const STEPS: u32 = 240;
const SECONDS: f64 = 0.05;
const NOTICE: f64 = 3.0;

#[test]
fn interrupted_at_random_times_the_model_is_the_same() {
    in_lab(async |lab: &Lab| {
        let campaign = Campaign::new("TRAINSPOT_INTERRUPTIONS", 5);
        let resumed = campaign.run(async |name: &str, random: &mut fastrand::Rng| {
            let step = Step::new(lab, STEPS, SECONDS);
            let mut pipe = step.start();
            pipe.line("at step").await;
            let instant =
                Duration::from_secs(1).mul_f64(random.f64() * (f64::from(STEPS) * SECONDS - NOTICE));
            let when = format!("{name}, interrupted after {instant:.2?}");
            tokio::time::sleep(instant).await;
            for id in step.machines(lab).await {
                lab.post(&format!("instances/{id}/interrupt"), json!({"seconds": NOTICE})).await;
            }
            pipe.expect(0, &when).await;
            step.assert_published(&when);
            let lost = pipe.times("the machine was interrupted");
            // The next machine may take longer to boot than the old one has left: that is not the pipe's
            // time.
            lost.first().map(|lost| {
                let ready = pipe.times("machine ready");
                let resumed = pipe.times("at step")[1].duration_since((*lost).max(ready[1]));
                (resumed, ready[0] - pipe.start())
            })
        });
        let resumed = resumed.await;
        lab.assert_nothing_left().await;
        let (mut times, mut boots): (Vec<Duration>, Vec<Duration>) =
            resumed.iter().copied().flatten().unzip();
        times.sort();
        boots.sort();
        let median = |times: &[Duration]| times.get(times.len() / 2).copied().unwrap_or_default();
        let slowest = times.last().copied().unwrap_or_default();
        say(&format!(
            "{SHOWN}{} interruptions, {} of them before the end: every model the same; resumed after {:.2?} (median), \
             {slowest:.2?} (slowest), boot excluded",
            resumed.len(),
            times.len(),
            median(&times)
        ));
        // Beside the boot of the same runs, however slow the host is.
        assert!(median(&times) <= median(&boots), "{times:?}, {boots:?}");
    });
}

/// A machine that says nothing any more, and one that is gone: told from a slow one, and replaced.
#[test]
fn a_machine_that_vanishes_is_replaced() {
    in_lab(async |lab: &Lab| {
        for way in ["crash", "partition"] {
            let mut step = Step::new(lab, 60, 0.1);
            step.scene.set("ORPHAN_GRACE", "20s");
            let mut pipe = step.start();
            pipe.line("at step").await;
            pipe.line("checkpoint saved").await;
            let machines = step.machines(lab).await;
            lab.post(&format!("instances/{}/{way}", machines[0]), json!({})).await;
            pipe.expect(0, way).await;
            step.assert_published(way);
            assert_eq!(pipe.times("restored the newest checkpoint").len(), 1, "{}", pipe.text());
        }
        lab.assert_nothing_left().await;
    });
}

#[test]
fn without_checkpoints_it_starts_from_zero_and_says_what_that_cost() {
    in_lab(async |lab: &Lab| {
        let mut step = Step::new(lab, 40, 0.1);
        step.scene.set("CHECKPOINTS", "");
        let mut pipe = step.start();
        pipe.line("at step").await;
        for id in step.machines(lab).await {
            lab.post(&format!("instances/{id}/interrupt"), json!({"seconds": 0.5})).await;
        }
        pipe.expect(0, "no checkpoints").await;
        step.assert_published("no checkpoints");
        for words in ["it starts from zero, as there is no checkpoint", "of training is lost, about $0."] {
            assert!(pipe.text().contains(words), "{words}:\n{}", pipe.text());
        }
        lab.assert_nothing_left().await;
    });
}
