//! `ACTION: runner` and the sweep after it, with the stand-in for Atlassian's runner on the rig's machines.

use super::lab::{Lab, in_lab};
use super::rental::{LONG, each_at_once, labels, rental, until};
use super::step::{PIPELINE, Step};
use fake_bitbucket::{ACCESS_TOKEN, Fault};
use rustix::process::Signal;
use serde_json::json;
use std::time::Duration;

/// The pipeline of another step, which rents nothing.
const ANOTHER: &str = "{44444444-4444-4444-4444-444444444444}";

#[test]
fn a_runner_serves_its_steps_and_goes_when_it_is_idle() {
    each_at_once(["shell", "docker"], &async |lab: &Lab, kind| {
        // On a busy host the first step comes late as well.
        let idle = lab.patience(Duration::from_secs(3)).await.as_secs();
        let mut step = rental(lab, kind, &json!({}));
        step.scene.set("RUNNER_IDLE_TIMEOUT", &format!("{idle}s"));
        let mut pipe = step.run().await;
        pipe.expect(0, "a runner").await;
        assert!(pipe.text().contains("the runner trainspot-forest-"), "{}", pipe.text());
        assert_eq!(step.scene.bitbucket.runners()[0].labels, labels(kind));
        // Longer than the idle timeout, and twice.
        let longer = format!("echo begun; sleep {}; echo done", idle + 2);
        step.define(kind, &[&longer, "sleep 1"]);
        let pipeline = step.trigger("one").await;
        step.comes(&pipeline, &["SUCCESSFUL", "SUCCESSFUL"]).await;
        let secret = step.scene.bitbucket.runners()[0].oauth_secret.clone();
        let found = lab.post("grep", json!({"needles": [secret]})).await;
        let known = ["environment", "arguments"];
        let elsewhere =
            found.as_array().unwrap().iter().find(|hit| !known.contains(&hit["what"].as_str().unwrap()));
        assert!(elsewhere.is_none(), "{found:#}");
        step.assert_alone_within(lab, LONG, "an idle runner").await;
        until("OFFLINE", async || step.scene.bitbucket.runners()[0].status == "OFFLINE").await;
        until("the machine's end", async || step.all_terminated(lab).await).await;
        let pipe = step.sweep(ANOTHER).await;
        assert!(pipe.text().contains("2 removed"), "{}", pipe.text());
        assert_eq!(step.left(lab).await, (0, 0));
    });
}

/// With a token of its own the machine leaves nothing at Bitbucket, and its runner gets no second step.
#[test]
fn a_single_runner_with_a_token_runs_one_step_and_takes_itself_off_the_list() {
    each_at_once(["shell", "docker"], &async |lab: &Lab, kind| {
        let mut step = rental(lab, kind, &json!({}));
        step.scene.set("RUNNER_SINGLE", "true").set("RUNNER_ACCESS_TOKEN", ACCESS_TOKEN);
        let mut pipe = step.run().await;
        pipe.expect(0, "a single runner").await;
        step.define(kind, &["sleep 2", "echo never"]);
        let pipeline = step.trigger("one").await;
        step.comes(&pipeline, &["SUCCESSFUL", "ERROR"]).await;
        step.assert_alone_within(lab, LONG, "a single runner").await;
        assert!(step.scene.bitbucket.runners().is_empty());
        let found = lab.post("grep", json!({"needles": [ACCESS_TOKEN]})).await;
        assert_eq!(found, json!([]), "the token is in memory only");
        step.sweep(ANOTHER).await;
    });
}

/// Another step rents a runner with the same labels.
async fn rent_again(step: &mut Step, reuse: &str, words: &str) {
    let own = step.uuid();
    step.scene
        .set("BITBUCKET_STEP_UUID", "{55555555-5555-5555-5555-555555555555}")
        .set("RUNNER_REUSE", reuse);
    let mut pipe = step.run().await;
    assert!(pipe.text().contains(words), "{reuse}:\n{}", pipe.text());
    pipe.expect(0, reuse).await;
    step.scene.set("BITBUCKET_STEP_UUID", &own);
}

#[test]
fn a_runner_that_is_there_is_used_again() {
    in_lab(async |lab: &Lab| {
        let mut step = rental(lab, "shell", &json!({}));
        step.scene.set("RUNNER_IDLE_TIMEOUT", "20s").set("RUNNER_REUSE", "idle");
        let mut pipe = step.run().await;
        pipe.expect(0, "the first").await;
        rent_again(&mut step, "idle", "using the runner trainspot-forest-").await;
        assert_eq!(step.scene.bitbucket.runners().len(), 1);
        step.define("shell", &["sleep 30"]);
        let pipeline = step.trigger("busy").await;
        step.comes(&pipeline, &["IN_PROGRESS"]).await;
        rent_again(&mut step, "any", "using the runner trainspot-forest-").await;
        rent_again(&mut step, "idle", "is online, but not known to be free").await;
        assert_eq!(step.scene.bitbucket.runners().len(), 2);
    });
}

#[test]
fn a_pipeline_is_run_and_followed_to_its_end() {
    each_at_once(["shell", "docker"], &async |lab: &Lab, kind| {
        for (script, code, words) in [
            ("echo epoch $EPOCHS $TOKEN", 0, "the pipeline train #1 succeeded"),
            ("echo last words; exit 3", 4, "the pipeline train #1 failed"),
        ] {
            let mut step = rental(lab, kind, &json!({}));
            step.scene.set("RUN_PIPELINE", "train").set("RUN_VARIABLES", "EPOCHS=10,TOKEN");
            step.scene.set("TOKEN", "s3cret-of-the-child");
            step.define(kind, &[script]);
            let mut pipe = step.run().await;
            assert!(pipe.text().contains(words), "{}", pipe.text());
            assert!(
                pipe.text().contains("epoch 10 $TOKEN") || pipe.text().contains("last words"),
                "{}",
                pipe.text()
            );
            pipe.expect(code, words).await;
            let variables = step.scene.bitbucket.pipelines()[0].variables.clone();
            assert!(variables.iter().any(|variable| variable.key == "TOKEN" && variable.secured));
            // Nothing waits for a sweep.
            assert_eq!(step.left(lab).await, (0, 0));
        }
    });
}

#[test]
fn a_pipeline_whose_machine_is_taken_away_runs_again_on_another() {
    each_at_once(["interrupt", "crash"], &async |lab: &Lab, how| {
        let mut step = rental(lab, "docker", &json!({}));
        step.scene.set("RUN_PIPELINE", "train");
        // The first try is too long for its machine.
        let script = "echo begun; [ \"$BITBUCKET_PIPELINE_UUID\" = '{00000000-0000-4000-9000-000000000002}' ] || sleep 60";
        step.define("docker", &[script]);
        let mut pipe = step.start();
        pipe.line("begun").await;
        let machine = step.machines(lab).await[0].clone();
        lab.post(&format!("instances/{machine}/{how}"), json!({})).await;
        pipe.expect(0, how).await;
        assert!(pipe.text().contains("the pipeline train #2 succeeded"), "{}", pipe.text());
        let results: Vec<_> =
            step.scene.bitbucket.steps().into_iter().filter_map(|step| step.result).collect();
        assert_eq!(results[1], "SUCCESSFUL", "{results:?}");
        assert_eq!(step.left(lab).await, (0, 0), "{how}");
    });
}

#[test]
fn a_pipeline_that_is_stopped_is_the_end_and_so_is_the_order_to_stop() {
    each_at_once(["somebody", "signal"], &async |lab: &Lab, stopped_by| {
        let mut step = rental(lab, "shell", &json!({}));
        step.scene.set("RUN_PIPELINE", "train");
        step.define("shell", &["echo begun; sleep 60"]);
        let mut pipe = step.start();
        pipe.line("begun").await;
        let child = step.scene.bitbucket.pipelines()[0].uuid.clone();
        if stopped_by == "signal" {
            pipe.signal(Signal::TERM);
        } else {
            step.client().stop_pipeline(&child).await.unwrap();
        }
        pipe.expect(6, stopped_by).await;
        assert_eq!(step.results(&child), ["STOPPED"], "{}", pipe.text());
        assert_eq!(step.left(lab).await, (0, 0), "{stopped_by}");
    });
}

#[test]
fn a_runner_that_cannot_be_had_says_why_and_leaves_nothing() {
    each_at_once(["shell", "docker"], &async |lab: &Lab, kind| {
        let mut never = rental(lab, kind, &json!({"never_online": true}));
        let boot = lab.patience(Duration::from_secs(15)).await.as_secs();
        never.scene.set("BOOT_TIMEOUT", &format!("{boot}s"));
        let in_words = humantime::format_duration(Duration::from_secs(boot));
        let never_seen = format!("Bitbucket did not see it within BOOT_TIMEOUT ({in_words})");
        let mut ends = rental(lab, kind, &json!({"exit_after_online": 3}));
        ends.scene.set("RUN_PIPELINE", "train");
        let refused = rental(lab, kind, &json!({}));
        let fault = Fault::on("POST", "/pipelines-config/runners");
        refused.scene.bitbucket.next(fault.answer(403, r#"{"error": {"message": "no"}}"#));
        for (step, words) in [
            (&never, &*never_seen),
            (&never, "UnknownHostException"),
            (&refused, "the token needs the scope runner:write"),
        ] {
            let mut pipe = step.run().await;
            assert!(pipe.text().contains(words), "{words}:\n{}", pipe.text());
            assert_eq!(pipe.end().await, Some(3), "{}", pipe.text());
            assert_eq!(step.left(lab).await, (0, 0), "{words}");
        }
        ends.define(kind, &["echo never"]);
        let mut pipe = ends.run().await;
        let code = pipe.end().await;
        assert!(matches!(code, Some(3 | 4)), "{}", pipe.text());
        assert_eq!(ends.left(lab).await, (0, 0));
    });
}

/// Bitbucket would refuse it only when the machine is there.
#[test]
fn a_pipeline_that_the_clone_does_not_define_is_refused_before_anything_is_rented() {
    in_lab(async |lab: &Lab| {
        let mut step = rental(lab, "shell", &json!({}));
        step.scene.set("RUN_PIPELINE", "trian");
        let file =
            "pipelines: {custom: {train: [{step: {script: [make]}}], sweep: [{step: {script: [make]}}]}}";
        std::fs::write(step.scene.clone().join("bitbucket-pipelines.yml"), file).unwrap();
        let mut pipe = step.run().await;
        pipe.expect(2, "a slip").await;
        assert!(pipe.text().contains("Next: name one of these: train, sweep"), "{}", pipe.text());
        assert!(step.scene.requests().is_empty());
        lab.assert_nothing_left().await;
    });
}

/// Each call of a run fails once: with an error, or done but without an answer.
#[test]
fn bitbucket_may_fail_once_at_every_call() {
    each_at_once([false, true], &async |lab: &Lab, is_lost| {
        let mut step = rental(lab, "docker", &json!({}));
        step.scene.set("RUN_PIPELINE", "train");
        step.define("docker", &["echo begun; sleep 3"]);
        let calls = [
            ("GET", "/pipelines-config/runners"),
            ("POST", "/pipelines-config/runners"),
            ("GET", "/pipelines-config/runners/"),
            ("DELETE", "/pipelines-config/runners/"),
            ("GET", "/pipelines/?"),
            ("POST", "/pipelines"),
            ("GET", "/steps"),
            ("GET", "/log"),
            ("GET", "/pipelines/%7B"),
        ];
        for (method, part) in calls {
            let fault = Fault::on(method, part);
            let fault = if is_lost { fault.drop_after_acting() } else { fault.answer(500, "{}") };
            step.scene.bitbucket.next(fault);
        }
        let mut pipe = step.run().await;
        pipe.expect(0, "failing calls").await;
        let failed = pipe.text().matches(" failed: ").count();
        assert!(failed >= calls.len(), "{failed} calls failed:\n{}", pipe.text());
        assert_eq!(step.scene.bitbucket.pipelines().len(), 1, "{}", pipe.text());
        assert_eq!(step.left(lab).await, (0, 0));
    });
}

/// What a pipe was killed over: its machine and its pipeline are found by the next run of the step, or by a
/// sweep.
#[test]
fn killed_it_leaves_nothing_that_the_next_run_or_a_sweep_does_not_find() {
    in_lab(async |lab: &Lab| {
        let mut step = rental(lab, "shell", &json!({}));
        step.scene.set("RUN_PIPELINE", "train").set("ORPHAN_GRACE", "30s");
        step.define("shell", &["echo begun; sleep 8; echo over"]);
        let mut killed = step.start();
        killed.line("begun").await;
        killed.signal(Signal::KILL);
        killed.end().await;
        let mut again = step.run().await;
        again.expect(0, "again").await;
        assert!(again.text().contains("the pipeline train is there already: #1"), "{}", again.text());
        assert_eq!(step.scene.bitbucket.pipelines().len(), 1);
        assert_eq!(step.left(lab).await, (0, 0));
        // What succeeded for a pipe that did not live to tell is not done again.
        let machines = lab.get("instances").await.as_array().unwrap().len();
        let mut third = step.run().await;
        third.expect(0, "once more").await;
        assert_eq!(lab.get("instances").await.as_array().unwrap().len(), machines, "{}", third.text());

        let mut step = rental(lab, "shell", &json!({}));
        step.scene.set("RUN_PIPELINE", "train");
        step.define("shell", &["echo begun; sleep 100"]);
        let mut killed = step.start();
        killed.line("begun").await;
        killed.signal(Signal::KILL);
        killed.end().await;
        let pipe = step.sweep(ANOTHER).await;
        assert!(pipe.text().contains("stopping the pipeline #1"), "{}", pipe.text());
        assert_eq!(step.results(&step.scene.bitbucket.pipelines()[0].uuid), ["STOPPED"]);
        assert_eq!(step.left(lab).await, (0, 0));
        lab.assert_nothing_left().await;
    });
}

/// Nothing ends a machine whose runner has a step; the last step of its pipeline ends one that has none.
#[test]
fn a_sweep_is_safe_beside_a_runner() {
    in_lab(async |lab: &Lab| {
        let mut step = rental(lab, "docker", &json!({}));
        step.scene.set("RUNNER_IDLE_TIMEOUT", "5m");
        let mut pipe = step.run().await;
        pipe.expect(0, "a runner").await;
        let pipe = step.sweep(ANOTHER).await;
        assert!(pipe.text().contains("its runner is online"), "{}", pipe.text());
        // Longer than the sweep waits before it asks.
        step.define("docker", &["echo begun; sleep 20"]);
        let busy = step.trigger("busy").await;
        step.comes(&busy, &["IN_PROGRESS"]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let pipe = step.sweep(PIPELINE).await;
        assert!(pipe.text().contains("its runner has a step; it goes after it"), "{}", pipe.text());
        step.comes(&busy, &["SUCCESSFUL"]).await;
        step.assert_alone_within(lab, LONG, "a runner that was told to go").await;

        let mut step = rental(lab, "docker", &json!({}));
        step.scene.set("RUNNER_IDLE_TIMEOUT", "5m");
        let mut pipe = step.run().await;
        pipe.expect(0, "a runner").await;
        let pipe = step.sweep(PIPELINE).await;
        assert_eq!(step.left(lab).await, (0, 0), "{}", pipe.text());
    });
}
