//! What a detached run needs now, by what its pipes have recorded and its machine has said.

use super::progress::{AttemptRecord, Outcome, Progress};
use super::words::MachineWords;
use std::time::Duration;
use trainspot_protocol::{CommandState, ExitReason, Notice};

/// How old the last word of a machine may be until the machine is looked for: six of its heartbeats, of which
/// a store may fail to take a few.
pub(super) const SILENCE_LIMIT: Duration = Duration::from_mins(3);

/// What the run needs.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Need<'a> {
    /// The run is over: nothing.
    Nothing(&'a Outcome),
    /// A machine: there was none yet, or the last one is gone.
    Machine,
    /// A look at the machine, which has not been heard of for long, or never.
    Look(&'a AttemptRecord),
    /// Patience: the machine trains.
    Patience(&'a AttemptRecord),
    /// The next machine: this one is about to be taken away.
    Successor(&'a AttemptRecord, Notice),
    /// The next machine: the training on this one was interrupted, and is to go on.
    Continuation(&'a AttemptRecord),
    /// Publication: the training ended well.
    Publication(&'a AttemptRecord),
    /// A report: the training ended, and not well.
    Report(&'a AttemptRecord),
}

/// Decides what a run needs.
pub(super) fn need<'a>(progress: &'a Progress, words: &MachineWords) -> Need<'a> {
    if let Some(outcome) = &progress.outcome {
        return Need::Nothing(outcome);
    }
    let Some(attempt) = progress.open_attempt() else { return Need::Machine };
    if let Some(exit) = &words.exit {
        return match exit.exit.reason {
            ExitReason::Exited(0) => Need::Publication(attempt),
            // Of both the pipe did not say that the run is over.
            ExitReason::Interrupted | ExitReason::Orphaned => Need::Continuation(attempt),
            ExitReason::Exited(_) | ExitReason::Signalled(_) | ExitReason::TimedOut | ExitReason::Stopped => {
                Need::Report(attempt)
            }
        };
    }
    let Some((state, age)) = &words.state else { return Need::Look(attempt) };
    if *age > SILENCE_LIMIT {
        return Need::Look(attempt);
    }
    match (&state.status.notice, &state.status.state) {
        (Some(notice @ Notice { at: Some(_), .. }), CommandState::Running | CommandState::Idle) => {
            Need::Successor(attempt, notice.clone())
        }
        _ => Need::Patience(attempt),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trainspot_compute::Machine;
    use trainspot_detached::{MachineExit, MachineState};
    use trainspot_protocol::{AgentStatus, CommandExit};

    fn progress() -> Progress {
        let machine = Machine {
            id: "i-0a".to_owned(),
            description: "m5".to_owned(),
            pool: None,
            spot: true,
            rate: None,
            age: Duration::ZERO,
        };
        Progress { attempts: vec![AttemptRecord::new(&machine, 1)], ..Progress::default() }
    }

    fn state(age: Duration, notice: Option<Notice>) -> MachineWords {
        let status = AgentStatus { notice, ..AgentStatus::with_state(CommandState::Running) };
        let state = MachineState {
            number: 1,
            status,
            stored_checkpoint: None,
            stored_seconds: None,
            log_bytes: 0,
            seconds: 1.0,
            trouble: None,
        };
        MachineWords { state: Some((state, age)), exit: None }
    }

    fn ended(reason: ExitReason) -> MachineWords {
        let exit = CommandExit { reason, seconds: 1.0 };
        let exit = MachineExit { exit, stored_checkpoint: None, unmatched: Vec::new(), dvc: None };
        // What it said before does not count any more.
        MachineWords { exit: Some(exit), ..state(Duration::from_hours(9), None) }
    }

    #[test]
    fn a_run_needs_what_its_machine_says() {
        let progress = progress();
        let attempt = &progress.attempts[0];
        let notice = |at| Notice { why: "spot".to_owned(), at };
        let minute = Duration::from_mins(1);
        for (words, expected) in [
            (MachineWords::default(), Need::Look(attempt)),
            (state(minute, None), Need::Patience(attempt)),
            (state(minute * 4, None), Need::Look(attempt)),
            (state(minute, Some(notice(Some(9)))), Need::Successor(attempt, notice(Some(9)))),
            // A limit of the run's own ends the training, and no machine follows.
            (state(minute, Some(notice(None))), Need::Patience(attempt)),
            (ended(ExitReason::Exited(0)), Need::Publication(attempt)),
            (ended(ExitReason::Exited(1)), Need::Report(attempt)),
            (ended(ExitReason::Signalled(9)), Need::Report(attempt)),
            (ended(ExitReason::TimedOut), Need::Report(attempt)),
            (ended(ExitReason::Stopped), Need::Report(attempt)),
            (ended(ExitReason::Interrupted), Need::Continuation(attempt)),
            (ended(ExitReason::Orphaned), Need::Continuation(attempt)),
        ] {
            assert_eq!(need(&progress, &words), expected, "{words:?}");
        }
    }

    #[test]
    fn a_run_without_a_machine_needs_one_and_one_that_is_over_needs_nothing() {
        assert_eq!(need(&Progress::default(), &MachineWords::default()), Need::Machine);
        let outcome = Outcome::Published("done".to_owned());
        let over = Progress { outcome: Some(outcome.clone()), ..progress() };
        assert_eq!(need(&over, &ended(ExitReason::Exited(1))), Need::Nothing(&outcome));
    }
}
