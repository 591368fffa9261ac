//! Machines on demand that are stopgaps: left for spot when there is some, and never left behind.

use super::lab::{Lab, in_lab};
use super::step::{Pipe, Step};
use rustix::process::Signal;
use serde_json::json;
use std::time::Duration;

/// A step whose first machine is on demand. There is spot again before its first checkpoint.
async fn on_demand(lab: &Lab, grace: Duration) -> (Step, Pipe) {
    let mut step = Step::new(lab, 400, 0.1);
    step.scene.set("PURCHASE", "spot-then-on-demand").set("SPOT_WAIT", "0s");
    // Until then the rig is told of the new capacity, which takes milliseconds.
    step.scene.set("CHECKPOINT_INTERVAL", "15s");
    step.scene.set("ORPHAN_GRACE", &format!("{}s", grace.as_secs()));
    lab.faults(json!([{"kind": "capacity", "purchase": "spot", "code": "InsufficientInstanceCapacity"}]))
        .await;
    let mut pipe = step.start();
    pipe.line("training started").await;
    lab.faults(json!([])).await;
    (step, pipe)
}

#[test]
fn the_training_goes_back_to_spot_and_the_model_is_the_same() {
    in_lab(async |lab: &Lab| {
        let (step, mut pipe) = on_demand(lab, Duration::from_mins(1)).await;
        assert_eq!(pipe.times("machine ready").len(), 1, "{}", pipe.text());
        let left = pipe.line("the training leaves the one on demand").await;
        // The next one is ready while the training still runs.
        assert!(pipe.times("machine ready")[1] <= left, "{}", pipe.text());
        let moved = pipe.line("restored the newest checkpoint").await;
        assert!(!pipe.times("at step").is_empty() && moved > left, "{}", pipe.text());
        pipe.expect(0, "back to spot").await;
        step.assert_published("back to spot");
        assert!(pipe.times("the machine was interrupted").is_empty(), "{}", pipe.text());
        assert_eq!(pipe.times("machine ended").len(), 2, "{}", pipe.text());
        lab.assert_nothing_left().await;
    });
}

/// Two machines of the run are there then: one whose training was told to leave, and one that has none yet.
#[test]
fn a_pipe_that_is_killed_on_the_way_to_spot_leaves_no_machine() {
    in_lab(async |lab: &Lab| {
        let patience = async |seconds| lab.patience(Duration::from_secs(seconds)).await;
        let (grace, slack) = (patience(8).await, patience(10).await);
        let (step, mut pipe) = on_demand(lab, grace).await;
        pipe.line("the training leaves the one on demand").await;
        pipe.signal(Signal::KILL);
        pipe.end().await;
        assert_eq!(step.machines(lab).await.len(), 2, "{}", pipe.text());
        step.assert_alone_within(lab, grace + slack, "killed on the way to spot").await;
        // As the next try of the step does it.
        let mut again = step.run().await;
        again.expect(0, "the next try").await;
        step.assert_published("the next try");
        lab.assert_nothing_left().await;
    });
}
