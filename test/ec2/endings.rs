//! However a run ends, its machines do: the pipe killed, the network cut, AWS's API gone, the order to stop.

use super::campaign::Campaign;
use super::flow::{calls, say_removal};
use super::lab::{Lab, SHOWN, in_lab};
use super::step::Step;
use crate::support::say;
use rustix::process::Signal;
use serde_json::json;
use std::time::Duration;

/// The limits of a run's machine, as long as this host needs them to be.
struct Limits {
    /// Until a machine without a pipe ends itself.
    grace: Duration,
    /// Until a machine that nobody has reached ends itself.
    boot: Duration,
    /// For a machine to power off.
    slack: Duration,
    /// No run takes longer.
    run: Duration,
}

impl Limits {
    async fn of(lab: &Lab) -> Self {
        let patience = async |seconds| lab.patience(Duration::from_secs(seconds)).await;
        Self {
            grace: patience(8).await,
            boot: patience(20).await,
            slack: patience(10).await,
            run: patience(12).await,
        }
    }

    /// Until a machine that was left at any moment has ended itself.
    fn alone(&self) -> Duration {
        self.boot + self.grace + self.slack
    }

    fn instant(&self, random: &mut fastrand::Rng) -> Duration {
        self.run.mul_f64(random.f64())
    }

    /// A run of which the machine's boot is about a third.
    fn step(&self, lab: &Lab) -> Step {
        let mut step = Step::new(lab, 60, 0.1);
        let seconds = |time: Duration| format!("{}s", time.as_secs());
        step.scene.set("ORPHAN_GRACE", &seconds(self.grace)).set("BOOT_TIMEOUT", &seconds(self.boot));
        step
    }
}

/// Removes what a killed pipe leaves beside the machine, as the next run of the step would.
async fn run_again(step: &Step, when: &str) {
    let mut pipe = step.run().await;
    pipe.expect(0, when).await;
    step.assert_published(when);
}

#[test]
fn killed_at_random_it_leaves_no_machine_and_the_next_run_succeeds() {
    in_lab(async |lab: &Lab| {
        let limits = Limits::of(lab).await;
        let campaign = Campaign::new("TRAINSPOT_AWS_KILLS", 4);
        let ended = campaign.run(async |name: &str, random: &mut fastrand::Rng| {
            let step = limits.step(lab);
            let mut pipe = step.start();
            let instant = limits.instant(random);
            let when = format!("{name}, killed after {instant:.2?}");
            tokio::time::sleep(instant).await;
            pipe.signal(Signal::KILL);
            pipe.end().await;
            let machines = step.machines(lab).await.len();
            let alone = step.assert_alone_within(lab, limits.alone(), &when).await;
            run_again(&step, &when).await;
            (machines, alone)
        });
        let ended = ended.await;
        let machines: usize = ended.iter().map(|(machines, _)| machines).sum();
        let slowest = ended.iter().map(|(_, alone)| *alone).max().unwrap();
        lab.assert_nothing_left().await;
        say(&format!("{SHOWN}{} kills, {machines} machines there, none after {slowest:.1?}", ended.len()));
    });
}

#[test]
fn a_network_that_is_cut_at_random_leaves_no_machine() {
    in_lab(async |lab: &Lab| {
        let limits = Limits::of(lab).await;
        let campaign = Campaign::new("TRAINSPOT_CUTS", 4);
        let cut = campaign.run(async |name: &str, random: &mut fastrand::Rng| {
            let step = limits.step(lab);
            let mut pipe = step.start();
            let (instant, killed) = (limits.instant(random), random.bool());
            let when = format!("{name}, cut after {instant:.2?}, pipe killed: {killed}");
            tokio::time::sleep(instant).await;
            let machines = step.machines(lab).await;
            for id in &machines {
                lab.post(&format!("instances/{id}/partition"), json!({})).await;
            }
            if killed {
                pipe.signal(Signal::KILL);
                pipe.end().await;
                step.assert_alone_within(lab, limits.alone(), &when).await;
                run_again(&step, &when).await;
            } else {
                pipe.expect(0, &when).await;
                step.assert_published(&when);
            }
            assert!(step.machines(lab).await.is_empty(), "{when}");
            machines.len()
        });
        let cut = cut.await;
        lab.assert_nothing_left().await;
        say(&format!("{SHOWN}{} cuts, of {} machines: none is left", cut.len(), cut.iter().sum::<usize>()));
    });
}

/// The machine that ends itself is all the help there is; what could not be ended is named, with how to do
/// that.
#[test]
fn an_api_that_fails_for_good_leaves_no_machine() {
    in_lab(async |lab: &Lab| {
        let limits = Limits::of(lab).await;
        for (fault, patient) in [
            (json!({"kind": "error", "status": 500, "code": "InternalError"}), true),
            (json!({"kind": "error", "status": 403, "code": "UnauthorizedOperation"}), false),
        ] {
            let step = limits.step(lab);
            let mut pipe = step.start();
            pipe.line("at step").await;
            lab.faults(json!([fault])).await;
            pipe.signal(Signal::TERM);
            if patient {
                step.assert_alone_within(lab, limits.grace + limits.slack, "an API that fails").await;
                lab.faults(json!([])).await;
            }
            let code = pipe.end().await;
            assert_ne!(code, Some(0), "{}", pipe.text());
            let command = "aws ec2 terminate-instances --region us-east-1 --instance-ids i-";
            assert!(patient || pipe.text().contains(command), "{}", pipe.text());
            step.assert_alone_within(lab, limits.grace + limits.slack, "an API that refuses").await;
            lab.faults(json!([])).await;
            run_again(&step, "after an API that failed").await;
            lab.assert_nothing_left().await;
        }
    });
}

#[test]
fn an_order_to_stop_ends_the_machine_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        in_lab(async |lab: &Lab| {
            let limits = Limits::of(lab).await;
            for stage in ["booted in", "at step"] {
                let (step, before) = (limits.step(lab), calls(lab, 0).await.len());
                let mut pipe = step.start();
                pipe.line(stage).await;
                pipe.signal(signal);
                let code = pipe.end().await;
                assert!(matches!(code, Some(code) if code != 0), "{code:?}\n{}", pipe.text());
                assert!(step.machines(lab).await.is_empty(), "{stage}\n{}", pipe.text());
                lab.assert_nothing_left().await;
                say_removal(lab, before, &format!("stopped when it said '{stage}'")).await;
            }
        });
    }
}

#[test]
fn a_training_that_fails_ends_the_machine_and_keeps_its_words() {
    in_lab(async |lab: &Lab| {
        let limits = Limits::of(lab).await;
        let mut step = limits.step(lab);
        step.scene.set("TRAIN_COMMAND", "echo last words; exit 3");
        let mut pipe = step.run().await;
        pipe.expect(4, "a failed training").await;
        assert!(pipe.text().contains("exit code 3") && pipe.text().contains("last words"), "{}", pipe.text());
        lab.assert_nothing_left().await;
    });
}
