//! Whole runs of the pipe on the rig, from the plan to the pull request.

use super::lab::{Lab, SHOWN, in_lab};
use super::step::{Gate, PIPELINE, Step, short_run};
use crate::forms::{assert_without, forms};
use crate::support::say;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// The seconds that an API call takes where each of them is made to take long. Calls that are made at the
/// same time overlap then, however busy the host is, and others do not.
const SLOW: f64 = 1.5;

/// Written over two lines to a machine's disk by a training, for a search of the disk to find.
const ON_TWO_LINES: &str = "a-word-on-two-lines";

/// The rig's record of calls, without so many of the first.
pub(crate) async fn calls(lab: &Lab, since: usize) -> Vec<Value> {
    lab.get(&format!("calls?since={since}")).await.as_array().unwrap().clone()
}

/// Says how long it took from the first order to end the last machine until the group that it used was
/// removed, by the rig's record of calls without so many of the first.
pub(crate) async fn say_removal(lab: &Lab, since: usize, when: &str) {
    let calls = calls(lab, since).await;
    let done = |action: &str| {
        let done = calls.iter().filter(|call| call["action"] == action && call["status"] == 200);
        done.cloned().collect::<Vec<Value>>()
    };
    let (orders, removals) = (done("TerminateInstances"), done("DeleteSecurityGroup"));
    let machine = |call: &Value| call["parameters"]["InstanceId.1"].clone();
    let last = machine(orders.last().unwrap());
    let order = orders.iter().find(|call| machine(call) == last).unwrap();
    let removal = removals.last().unwrap();
    let number = |call: &Value, field: &str| call[field].as_f64().unwrap();
    let seconds = number(removal, "time") + number(removal, "seconds") - number(order, "time");
    assert!(seconds > 0.0, "{order}\n{removal}");
    say(&format!("{SHOWN}{when}: {seconds:.1} s from TerminateInstances to the security group's removal"));
}

#[test]
fn a_run_that_is_interrupted_twice_publishes_the_same_model() {
    in_lab(async |lab: &Lab| {
        let step = Step::new(lab, 200, 0.1);
        let mut pipe = step.start();
        for _ in 0..2 {
            pipe.line("at step").await;
            pipe.line("checkpoint saved").await;
            let machines = step.machines(lab).await;
            lab.post(&format!("instances/{}/interrupt", machines[0]), json!({})).await;
            pipe.line("the machine was interrupted").await;
        }
        pipe.expect(0, "interrupted twice").await;
        say_removal(lab, 0, "interrupted twice").await;
        step.assert_published("interrupted twice");
        assert_eq!(pipe.times("restored the newest checkpoint").len(), 2, "{}", pipe.text());
        let zones: BTreeSet<_> = lab
            .get("instances")
            .await
            .as_array()
            .unwrap()
            .iter()
            .map(|machine| machine["zone"].to_string())
            .collect();
        assert!(zones.len() > 1, "a pool that was lost is tried last: {zones:?}");
        let report = step.scene.bitbucket.comments()[0].body.clone();
        for words in [
            "lost and replaced 2 times",
            "about $0.",
            "on demand: $0.",
            "% saved",
            "for disk and address",
            "build minute",
        ] {
            assert!(report.contains(words), "{words}:\n{report}");
        }
        step.scene.assert_nothing_left();
        lab.assert_nothing_left().await;
    });
}

#[test]
fn a_step_ends_itself_before_pipelines_kills_it_and_the_next_run_goes_on() {
    in_lab(async |lab: &Lab| {
        // A busy host boots a machine in no less than this.
        let max_time = (short_run(lab).await * 6).max(Duration::from_mins(2)).as_secs();
        let steps = u32::try_from(max_time * 20).unwrap();
        let mut step = Step::new(lab, steps, 0.1);
        step.scene.set("STEP_MAX_TIME", &format!("{max_time}s")).set("MAX_RUNTIME", "12h");
        let mut pipe = step.run().await;
        pipe.expect(4, "a step that is nearly over").await;
        for words in
            ["MAX_RUNTIME (12h) cannot be reached", "the run ended itself because Pipelines is about"]
        {
            assert!(pipe.text().contains(words), "{words}:\n{}", pipe.text());
        }
        assert_eq!(step.machines(lab).await, Vec::<String>::new());
        let saved = std::fs::read_to_string(step.scene.clone().join("state/step.json")).unwrap();
        say(&format!("{SHOWN}a step of {max_time} s ended itself with the checkpoint {saved}"));
        step.scene.set("TRAIN_COMMAND", &format!("python3 steps.py {steps} 0"));
        step.scene.set("RESUME", "true").set("STEP_MAX_TIME", "12h").set("MAX_RUNTIME", "1h");
        let mut pipe = step.run().await;
        pipe.expect(0, "the next run").await;
        assert!(!pipe.text().contains("at step 0\n"), "{}", pipe.text());
        step.assert_published("resumed");
        lab.assert_nothing_left().await;
    });
}

#[test]
fn a_dry_run_shows_the_plan_tries_each_call_and_leaves_nothing() {
    in_lab(async |lab: &Lab| {
        let mut step = Step::new(lab, 1, 0.0);
        step.scene.set("DRY_RUN", "true");
        let before = calls(lab, 0).await.len();
        let mut pipe = step.run().await;
        pipe.expect(0, "a dry run").await;
        for words in [
            "m5.large",
            "us-east-1a",
            "spot",
            "On demand $/h",
            "At most:",
            "✔ push to the repository",
            "✔ us-east-1: launch a spot machine",
            "✔ us-east-1: remove what was made",
            "DRY_RUN: nothing was rented",
            "Waiting for it takes build minutes: $0.60 an hour",
        ] {
            assert!(pipe.text().contains(words), "{words}:\n{}", pipe.text());
        }
        lab.assert_nothing_left().await;
        // What costs nothing is made and removed; a machine is only asked about.
        let rents = |call: &Value| {
            ["CreateFleet", "RunInstances"].contains(&call["action"].as_str().unwrap())
                && call["code"] != "DryRunOperation"
        };
        let calls = calls(lab, before).await;
        assert!(!calls.iter().any(rents), "{calls:#?}");
        assert!(calls.iter().any(|call| call["code"] == "DryRunOperation"), "{calls:#?}");
    });
}

/// The most calls of which each began after another one had ended: how many the pipe waits for in turn.
fn longest_chain(calls: &[Value]) -> usize {
    let span = |call: &Value| {
        let (begin, seconds) = (call["time"].as_f64().unwrap(), call["seconds"].as_f64().unwrap());
        (begin, begin + seconds)
    };
    let mut spans: Vec<(f64, f64)> = calls.iter().map(span).collect();
    spans.sort_by(|one, other| one.1.total_cmp(&other.1));
    let mut depths = vec![1; spans.len()];
    for (at, (begin, _)) in spans.iter().enumerate() {
        let before = (0..at).filter(|earlier| spans[*earlier].1 <= *begin);
        depths[at] = 1 + before.map(|earlier| depths[earlier]).max().unwrap_or(0);
    }
    depths.into_iter().max().unwrap_or(0)
}

#[test]
fn at_most_six_calls_are_waited_for_before_the_fleet() {
    in_lab(async |lab: &Lab| {
        lab.faults(json!([{"kind": "delay", "seconds": SLOW}])).await;
        let step = Step::new(lab, 1, 0.0);
        let before = calls(lab, 0).await.len();
        let mut pipe = step.start();
        pipe.line("booted in").await;
        let calls = calls(lab, before).await;
        let fleet = calls.iter().position(|call| call["action"] == "CreateFleet").unwrap();
        let began = calls[fleet]["time"].as_f64().unwrap();
        let earlier: Vec<Value> =
            calls.into_iter().filter(|call| call["time"].as_f64().unwrap() < began).collect();
        let waited = longest_chain(&earlier);
        say(&format!(
            "{SHOWN}the fleet is asked for after {} calls, {waited} of them in turn",
            earlier.len()
        ));
        assert!((1..=6).contains(&waited), "{earlier:#?}");
        lab.faults(json!([])).await;
        pipe.expect(0, "slow calls").await;
        lab.assert_nothing_left().await;
    });
}

#[test]
fn no_secret_is_on_the_machine_or_at_aws() {
    in_lab(async |lab: &Lab| {
        // The training must still run when the machine is searched.
        let (steps, gate) = (10, Gate::new(lab).await);
        let mut step = Step::new(lab, steps, 0.1);
        let secrets = ["s3cret-of-the-training-8c1f", "s3cret-file-of-the-training-77a2"];
        step.scene
            .set("TRAIN_ENV_COUNT", "1")
            .set("TRAIN_ENV_0", "WANDB_API_KEY")
            .set("WANDB_API_KEY", secrets[0]);
        step.scene.set("DVC_PASSWORD", secrets[1]);
        let (first, second) = ON_TWO_LINES.split_at(9);
        let command = format!(
            "printf '{first}\\n{second}\\n' > two-lines; test -n \"$WANDB_API_KEY\" && python3 steps.py {steps} 0.1 && {}; echo \"$WANDB_API_KEY\" | md5sum",
            gate.command()
        );
        step.scene.set("TRAIN_COMMAND", &command);
        let mut pipe = step.start();
        pipe.line("at step").await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let keys = [
            fake_bitbucket::ACCESS_TOKEN,
            lab.variable("AWS_SECRET_ACCESS_KEY"),
            lab.variable("AWS_ACCESS_KEY_ID"),
        ];
        let all: Vec<&str> = secrets.into_iter().chain(keys).collect();
        let needles: Vec<String> = all.iter().flat_map(|secret| forms(secret).into_values()).collect();
        let found = lab.post("grep", json!({"needles": needles})).await;
        // What is passed to the training is in its environment, and nowhere else.
        let (passed, others): (Vec<_>, Vec<_>) = found.as_array().unwrap().iter().partition(|hit| {
            let needle = usize::try_from(hit["needle"].as_u64().unwrap()).unwrap();
            hit["what"] == "environment" && needles[needle] == secrets[0]
        });
        assert!(others.is_empty() && !passed.is_empty(), "{found:#}");
        // That the search would have found them: words that are on the machine, one of them over two lines.
        for known in ["TRAINSPOT_RESUME", ON_TWO_LINES] {
            assert_ne!(lab.post("grep", json!({"needles": [known]})).await, json!([]), "{known}");
        }
        gate.open().await;
        pipe.expect(0, "secrets").await;
        let named = all.iter().map(|secret| ((*secret).to_owned(), (*secret).to_owned())).collect();
        assert_without(&pipe.text(), &named, "the log");
        lab.assert_nothing_left().await;
    });
}

/// What a killed pipe left is removed once its step is over, and what runs beside is left alone.
#[test]
fn a_sweep_removes_what_runs_that_are_over_left() {
    in_lab(async |lab: &Lab| {
        let (mut dead, alive) = (Step::new(lab, 600, 0.1), Step::new(lab, 60, 0.1));
        // On a busy host the sweeps take longer than the machine waits for its pipe by the scene's own grace.
        dead.scene.set("ORPHAN_GRACE", "1h");
        let mut killed = dead.start();
        killed.line("at step").await;
        killed.signal(Signal::KILL);
        killed.end().await;
        let mut running = alive.start();
        running.line("at step").await;

        let mut sweep = Step::new(lab, 0, 0.0);
        sweep.scene.set("ACTION", "sweep").set("DRY_RUN", "true");
        let bitbucket = &sweep.scene.bitbucket;
        bitbucket.set_step(PIPELINE, &dead.uuid(), "IN_PROGRESS");
        bitbucket.set_step(PIPELINE, &alive.uuid(), "IN_PROGRESS");
        let mut pipe = sweep.run().await;
        pipe.expect(0, "a sweep while both run").await;
        assert!(pipe.text().contains("DRY_RUN: 0 would be removed, 6 left alone"), "{}", pipe.text());

        sweep.scene.bitbucket.set_step(PIPELINE, &dead.uuid(), "COMPLETED");
        let mut pipe = sweep.run().await;
        pipe.expect(0, "a dry sweep").await;
        assert!(pipe.text().contains("DRY_RUN: 3 would be removed, 3 left alone"), "{}", pipe.text());
        assert_eq!(dead.machines(lab).await.len(), 1);

        sweep.scene.set("DRY_RUN", "false");
        let mut pipe = sweep.run().await;
        pipe.expect(0, "a sweep").await;
        assert!(pipe.text().contains("3 removed, 3 left alone"), "{}", pipe.text());
        assert_eq!(dead.leftovers(lab).await, Vec::<Value>::new());
        running.expect(0, "a run beside a sweep").await;
        alive.assert_published("a run beside a sweep");
        lab.assert_nothing_left().await;
    });
}
