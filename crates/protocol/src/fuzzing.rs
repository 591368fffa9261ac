//! What must hold of any log of a runner. The program `runner_log` of `fuzz/` looks for one of which it does
//! not.

#![allow(clippy::missing_panics_doc, reason = "what does not hold is a panic")]

use super::runner_log::{Event, LeaveReason, Phase, RunnerLimits, RunnerState, STEP_RUN_LIMIT, Verdict};
use std::time::{Duration, Instant};

/// The longest complaint that is kept.
const COMPLAINT_LIMIT_CHARS: usize = 500;
/// The time that passes before a line is twice as long for each of its digit: a day and more at the last.
const FIRST_WAIT: Duration = Duration::from_secs(3);

/// Reads a log line by line. `input` is a digit for what the runner is for, then the lines, each with a digit
/// for the time before it and a letter for what else happens before it.
pub fn runner_log(input: &[u8]) {
    let Some((kind, log)) = input.split_first() else { return };
    let limits = RunnerLimits {
        idle_timeout: Duration::from_mins(5),
        single_step: kind % 2 == 1,
        max_runtime: Duration::from_hours(24),
    };
    let mut now = Instant::now();
    let mut state = RunnerState::new(limits, now);
    for line in log.split(|byte| *byte == b'\n') {
        let [wait, happens, line @ ..] = line else { continue };
        now += FIRST_WAIT * 2_u32.pow(u32::from(wait % 16));
        match happens {
            b'd' => state.set_draining(true),
            b'k' => state.set_draining(false),
            b'i' => state.reset_idle_timer(now),
            b'f' => finish(&mut state, now),
            b'x' => state.apply(Event::Exited(Some(1)), now),
            _ => {}
        }
        take(&mut state, &String::from_utf8_lossy(line), now);
    }
}

/// Takes in a line, and checks what it may do.
fn take(state: &mut RunnerState, line: &str, now: Instant) {
    let (phase, steps) = (state.phase().clone(), state.steps());
    let event = Event::parse(line);
    state.read_line(line, now);
    if event.is_none() {
        assert_eq!(
            (state.phase(), state.steps()),
            (&phase, steps),
            "a line that is not known changes nothing"
        );
    }
    assert!((steps..=steps + 1).contains(&state.steps()), "a line is one step at most");
    let ends_step = matches!(event, Some(Event::StepDone(_) | Event::StepStarted(_)));
    if matches!(phase, Phase::Busy(_)) && !ends_step {
        assert_eq!(state.phase(), &phase, "nothing but its end ends a step");
    }
    if let Phase::Busy(step) = state.phase() {
        assert!(step.step.len() + step.pipeline.len() <= 2 * line.len().max(phase_length(&phase)));
    }
    assert!(state.complaint().is_none_or(|complaint| complaint.chars().count() <= COMPLAINT_LIMIT_CHARS));
    check_verdict(state, now);
}

fn phase_length(phase: &Phase) -> usize {
    if let Phase::Busy(step) = phase { step.step.len() + step.pipeline.len() } else { 0 }
}

/// No machine goes while a step may run, and each goes in the end.
fn check_verdict(state: &RunnerState, now: Instant) {
    match (state.phase(), state.verdict(now)) {
        (Phase::Busy(_), Verdict::Leave(reason)) => assert_eq!(reason, LeaveReason::StepTooLong),
        (phase, Verdict::LastStep) => assert!(matches!(phase, Phase::Busy(_)), "{phase:?}"),
        _ => {}
    }
    let much_later = now + 2 * STEP_RUN_LIMIT;
    assert!(matches!(state.verdict(much_later), Verdict::Leave(_)), "{state:?} stays for ever");
}

/// Bitbucket says that the step is over that the log tells of.
fn finish(state: &mut RunnerState, now: Instant) {
    if let Phase::Busy(step) = state.phase() {
        let step = step.step.clone();
        state.finish_step(&step, now);
        assert_eq!(state.phase(), &Phase::Idle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn it_holds_of_the_seeds() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/runner_log");
        for seed in std::fs::read_dir(seeds).unwrap() {
            runner_log(&std::fs::read(seed.unwrap().path()).unwrap());
        }
    }
}
