#![allow(clippy::unchecked_time_subtraction, reason = "constants")]

use super::*;
use std::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const TEST_LIMITS: RunnerLimits = RunnerLimits {
    idle_timeout: Duration::from_mins(5),
    single_step: false,
    max_runtime: Duration::from_hours(24),
};

const ONLINE_1: &str = "[2022-06-05 17:23:41,945] Updating runner status to \"ONLINE\" and checking for new steps \
                        assigned to the runner after 0 seconds and then every 30 seconds.";
const ONLINE_5: &str = "Updating runner state to \"ONLINE\".";
const STEP: &str = "[2022-06-05 17:24:12,246] Getting step StepId{accountUuid={a-1}, repositoryUuid={b-2}, \
                    pipelineUuid={c-3}, stepUuid={d-4}}.";
const PASSED: &str =
    "[2022-06-05 17:24:53,466] Completing step with result Result{status=PASSED, error=None}.";
const FAILED: &str =
    "[2022-06-05 17:24:53,466] Completing step with result Result{status=FAILED, error=None}.";

/// A runner's state, and the clock that it is told.
struct Scene {
    state: RunnerState,
    now: Instant,
}

impl Scene {
    fn new(limits: RunnerLimits) -> Self {
        let now = Instant::now();
        Self { state: RunnerState::new(limits, now), now }
    }

    /// Reads lines, a second after one another.
    fn reads(&mut self, lines: &[&str]) -> &mut Self {
        for line in lines {
            self.now += SECOND;
            self.state.read_line(line, self.now);
        }
        self
    }

    fn after(&mut self, time: Duration) -> Verdict {
        self.now += time;
        self.state.verdict(self.now)
    }
}

fn step() -> StepId {
    StepId { pipeline: "{c-3}".into(), step: "{d-4}".into() }
}

#[test]
fn lines_of_versions_1_to_5_are_understood() {
    let cases = [
        (ONLINE_1, Some(Event::Online)),
        (ONLINE_5, Some(Event::Online)),
        (STEP, Some(Event::StepStarted(step()))),
        (PASSED, Some(Event::StepDone(true))),
        (FAILED, Some(Event::StepDone(false))),
        ("Runner starting.", Some(Event::Starting)),
        ("Updating runner state to \"OFFLINE\".", Some(Event::Offline)),
        ("Updating runner state to \"UNHEALTHY\".", Some(Event::Unhealthy)),
        ("Updating runner state to \"NAPPING\".", None),
        ("Getting step StepId", Some(Event::StepStarted(StepId::default()))),
        ("Runner runtime: linux-shell", None),
        ("", None),
    ];
    for (line, expected) in cases {
        assert_eq!(Event::parse(line), expected, "{line}");
    }
}

#[test]
fn a_complaint_is_kept_but_changes_nothing() {
    let mut scene = Scene::new(TEST_LIMITS);
    let conflict = "com.atlassian.pipelines.stargate.client.core.exceptions.StargateConflictException: \
                    Simultaneous state updates were attempted";
    scene.reads(&[ONLINE_1, STEP, conflict]);
    assert_eq!(scene.state.phase(), &Phase::Busy(step()));
    assert_eq!(scene.state.complaint(), Some(conflict));
    scene.reads(&["An error occurred whilst tearing down directories."]);
    assert_eq!(scene.state.complaint(), Some("An error occurred whilst tearing down directories."));
    scene.reads(&[&format!("ERROR {}", "é".repeat(9999))]);
    assert_eq!(scene.state.complaint().unwrap().chars().count(), 500);
}

#[test]
fn idle_time_counts_from_the_first_online_and_from_each_step() {
    let mut scene = Scene::new(TEST_LIMITS);
    scene.reads(&[ONLINE_1]);
    assert_eq!(scene.after(4 * MINUTE), Verdict::Stay);
    // Saying so again is no sign of a step.
    scene.reads(&[ONLINE_1]);
    assert_eq!(scene.after(58 * SECOND), Verdict::Stay);
    assert_eq!(scene.after(SECOND), Verdict::Leave(LeaveReason::Idle));
    scene.reads(&[STEP]);
    assert_eq!(scene.after(11 * HOUR), Verdict::Stay);
    scene.reads(&[FAILED]);
    assert_eq!(scene.after(5 * MINUTE - SECOND), Verdict::Stay);
    assert_eq!(scene.after(SECOND), Verdict::Leave(LeaveReason::Idle));
}

#[test]
fn a_single_runner_goes_after_its_step_once_that_is_cleaned_up() {
    let mut scene = Scene::new(RunnerLimits { single_step: true, ..TEST_LIMITS });
    assert_eq!(scene.reads(&[ONLINE_5]).after(MINUTE), Verdict::Stay);
    assert_eq!(scene.reads(&[STEP]).after(HOUR), Verdict::LastStep);
    assert_eq!(scene.reads(&[PASSED]).after(9 * SECOND), Verdict::Stay);
    assert_eq!(scene.after(SECOND), Verdict::Leave(LeaveReason::SingleStep));
    // One that it took all the same is not killed.
    assert_eq!(scene.reads(&[STEP]).after(HOUR), Verdict::LastStep);
    assert_eq!(scene.reads(&[PASSED]).after(10 * SECOND), Verdict::Leave(LeaveReason::SingleStep));
    assert_eq!(scene.state.steps(), 2);
}

#[test]
fn a_step_whose_begin_was_missed_counts() {
    let mut scene = Scene::new(RunnerLimits { single_step: true, ..TEST_LIMITS });
    assert_eq!(scene.reads(&[ONLINE_5, PASSED]).after(10 * SECOND), Verdict::Leave(LeaveReason::SingleStep));
}

#[test]
fn the_longest_run_time_waits_for_the_step() {
    let mut scene = Scene::new(RunnerLimits { max_runtime: HOUR, ..TEST_LIMITS });
    scene.reads(&[ONLINE_1, STEP]);
    assert_eq!(scene.after(HOUR - 3 * SECOND), Verdict::Stay);
    assert_eq!(scene.after(SECOND), Verdict::LastStep);
    assert_eq!(scene.after(10 * HOUR), Verdict::LastStep);
    assert_eq!(scene.reads(&[PASSED]).after(10 * SECOND), Verdict::Leave(LeaveReason::MaxRuntime));
    let mut idle = Scene::new(RunnerLimits { max_runtime: MINUTE, ..TEST_LIMITS });
    assert_eq!(idle.reads(&[ONLINE_1]).after(59 * SECOND), Verdict::Leave(LeaveReason::MaxRuntime));
}

#[test]
fn a_runner_that_does_not_come_online_is_given_up() {
    let mut scene = Scene::new(TEST_LIMITS);
    assert_eq!(scene.after(STARTUP_TIMEOUT - SECOND), Verdict::Stay);
    assert_eq!(scene.after(SECOND), Verdict::Leave(LeaveReason::NeverOnline));
    // An update begins anew, and is over when it is online again.
    scene.reads(&[ONLINE_5, "Updating runner to version 5.8.0"]);
    assert_eq!(scene.state.phase(), &Phase::Starting);
    assert_eq!(scene.after(STARTUP_TIMEOUT - SECOND), Verdict::Stay);
    assert_eq!(scene.after(SECOND), Verdict::Leave(LeaveReason::NeverOnline));
    // It does not make a runner any less idle.
    assert_eq!(scene.reads(&[ONLINE_5]).after(SECOND), Verdict::Leave(LeaveReason::Idle));
}

#[test]
fn what_is_no_use_any_more_goes_at_once() {
    let mut scene = Scene::new(TEST_LIMITS);
    scene.reads(&[ONLINE_1, STEP]);
    scene.state.apply(Event::Exited(Some(137)), scene.now);
    assert_eq!(scene.state.phase(), &Phase::Gone(Some(137)));
    assert_eq!(scene.after(Duration::ZERO), Verdict::Leave(LeaveReason::Exited));
    let mut scene = Scene::new(TEST_LIMITS);
    scene.reads(&[ONLINE_1, STEP, PASSED, "Updating runner state to \"UNHEALTHY\"."]);
    assert_eq!(scene.after(Duration::ZERO), Verdict::Leave(LeaveReason::Unhealthy));
}

#[test]
fn bitbuckets_word_ends_the_step_that_it_is_about() {
    let mut scene = Scene::new(TEST_LIMITS);
    scene.reads(&[ONLINE_1, STEP]);
    scene.state.finish_step("{another}", scene.now);
    assert_eq!(scene.state.phase(), &Phase::Busy(step()));
    scene.state.finish_step("{d-4}", scene.now);
    assert_eq!(scene.state.phase(), &Phase::Idle);
    assert_eq!(scene.after(5 * MINUTE), Verdict::Leave(LeaveReason::Idle));
}

#[test]
fn a_step_that_never_ends_does_not_keep_the_machine_for_ever() {
    let mut scene = Scene::new(TEST_LIMITS);
    scene.reads(&[ONLINE_1, STEP]);
    assert_eq!(scene.after(STEP_RUN_LIMIT - SECOND), Verdict::Stay);
    assert_eq!(scene.after(SECOND), Verdict::Leave(LeaveReason::StepTooLong));
}

#[test]
fn a_runner_that_is_retired_goes_after_its_step() {
    let mut scene = Scene::new(TEST_LIMITS);
    scene.reads(&[ONLINE_1, STEP]);
    scene.state.set_draining(true);
    assert_eq!(scene.after(HOUR), Verdict::LastStep);
    scene.reads(&[PASSED]);
    assert_eq!(scene.after(SECOND), Verdict::Stay);
    assert_eq!(scene.after(10 * SECOND), Verdict::Leave(LeaveReason::Drained));
    let mut scene = Scene::new(TEST_LIMITS);
    scene.state.set_draining(true);
    assert_eq!(scene.after(SECOND), Verdict::Leave(LeaveReason::Drained), "it has not begun");
}

#[test]
fn whatever_is_logged_no_running_step_is_killed_and_every_machine_goes() {
    let noise = [
        ONLINE_1,
        ONLINE_5,
        "Runner starting.",
        "Updating runner to version 6.0.0",
        "Updating runner state to \"OFFLINE\".",
        "Updating runner state to \"UNHEALTHY\".",
        "ERROR x",
        "what?",
    ];
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..2000 {
        let limits = RunnerLimits {
            idle_timeout: SECOND * random.u32(0..900),
            single_step: random.bool(),
            max_runtime: HOUR,
        };
        let mut scene = Scene::new(limits);
        for _ in 0..random.usize(0..20) {
            scene.reads(&[noise[random.usize(..noise.len())]]);
        }
        scene.reads(&[STEP]);
        let mut left = STEP_RUN_LIMIT - MINUTE;
        while left > HOUR {
            scene.reads(&[noise[random.usize(..noise.len())]]);
            let wait = MINUTE * random.u32(1..60);
            left -= wait;
            let verdict = scene.after(wait);
            assert!(matches!(verdict, Verdict::Stay | Verdict::LastStep), "{verdict:?} {:?}", scene.state);
        }
        scene.reads(&[PASSED]);
        let last = scene.after(limits.idle_timeout.max(STARTUP_TIMEOUT));
        assert!(matches!(last, Verdict::Leave(_)), "{last:?} {:?}", scene.state);
    }
}

#[test]
fn each_reason_is_told_in_words_of_its_own() {
    let reasons = [
        LeaveReason::Idle,
        LeaveReason::SingleStep,
        LeaveReason::MaxRuntime,
        LeaveReason::Drained,
        LeaveReason::NeverOnline,
        LeaveReason::Unhealthy,
        LeaveReason::Exited,
        LeaveReason::StepTooLong,
    ];
    let words: std::collections::BTreeSet<_> = reasons.map(LeaveReason::in_words).into();
    assert!(words.len() == reasons.len() && words.iter().all(|words| words.contains(' ')), "{words:?}");
}

#[test]
fn a_step_that_is_coming_begins_the_idle_time_anew() {
    let mut scene = Scene::new(TEST_LIMITS);
    scene.reads(&[ONLINE_5]);
    assert_eq!(scene.after(4 * MINUTE), Verdict::Stay);
    scene.state.reset_idle_timer(scene.now);
    assert_eq!(scene.after(4 * MINUTE), Verdict::Stay);
    assert_eq!(scene.after(2 * MINUTE), Verdict::Leave(LeaveReason::Idle));
}
