//! What must hold of any words of an agent, and of any question to one. The program `protocol` of `fuzz/`
//! looks for those of which it does not.

#![allow(clippy::missing_panics_doc, clippy::unwrap_used, reason = "what does not hold is a panic")]

use super::answers::{self, TEXT_LIMIT_BYTES};
use super::plain_message;
use std::path::Path;
use trainspot_base::clock::LONGEST_STATED;
use trainspot_protocol::runner_log::Phase;
use trainspot_protocol::{
    AgentRequest, AgentStatus, CHECKPOINT_NUMBER_LIMIT, CommandState, FileSelection, Reply,
};

/// The mark at the end of a text that was cut.
const CUT_MARK: &str = "…";

/// Reads a message, which then is the same when it is sent on. A macro, as the crate has no use for serde's
/// traits.
macro_rules! again {
    ($kind:ty, $message:expr) => {{
        let read = serde_json::from_slice::<$kind>($message).ok();
        if let Some(read) = &read {
            let sent = serde_json::to_vec(read).unwrap();
            let arrived: $kind = serde_json::from_slice(&sent).unwrap();
            assert_eq!(serde_json::to_vec(&arrived).unwrap(), sent);
        }
        read
    }};
}

/// Reads a message. `input` is a digit for its kind, then the message.
pub fn protocol(input: &[u8]) {
    let Some((kind, message)) = input.split_first() else { return };
    match kind.wrapping_sub(b'0') % 4 {
        0 => check_reply(message),
        1 => drop(again!(AgentRequest, message)),
        2 => check_selection(message),
        _ => check_stderr(&String::from_utf8_lossy(message)),
    }
}

/// An answer that counts has possible numbers, and texts of some length.
fn check_reply(message: &[u8]) {
    let Some(reply) = again!(Reply, message) else { return };
    let bytes = serde_json::to_vec(&reply).unwrap().len();
    let Ok(reply) = answers::checked(reply) else { return };
    let checked = serde_json::to_vec(&reply).unwrap();
    assert!(checked.len() <= bytes + 8 * CUT_MARK.len(), "a check makes nothing longer");
    match &reply {
        Reply::Refused(why) => assert!(is_short(why)),
        Reply::Status(status) => check_status(status),
    }
    let twice = answers::checked(serde_json::from_slice(&checked).unwrap()).unwrap();
    assert_eq!(
        serde_json::to_vec(&twice).unwrap().len(),
        checked.len(),
        "what was checked is as it should be"
    );
}

fn check_status(status: &AgentStatus) {
    if let CommandState::Ended(exit) = &status.state {
        assert!((0.0..=LONGEST_STATED.as_secs_f64()).contains(&exit.seconds));
        assert!(exit.duration() <= LONGEST_STATED);
    }
    assert!(status.checkpoint.is_none_or(|number| number < CHECKPOINT_NUMBER_LIMIT));
    let notice = status.notice.iter();
    assert!(notice.clone().filter_map(|notice| notice.at).all(|at| at <= LONGEST_STATED.as_secs()));
    let told = [&status.checkpoint_error, &status.left_out, &status.fingerprint].into_iter().flatten();
    let runner = status.runner.iter().flat_map(|runner| {
        let step =
            if let Phase::Busy(step) = &runner.phase { vec![&step.pipeline, &step.step] } else { vec![] };
        runner.complaint.iter().chain([&runner.uuid]).chain(step)
    });
    let mut texts = told.chain(runner).chain(notice.map(|notice| &notice.why));
    assert!(texts.all(|text| is_short(text)));
}

fn is_short(text: &str) -> bool {
    text.len() <= TEXT_LIMIT_BYTES + CUT_MARK.len()
}

/// Nothing that a selection leaves out is taken.
fn check_selection(message: &[u8]) {
    let Some(selection) = again!(FileSelection, message) else { return };
    for folder in &selection.without {
        assert!(selection.excludes(Path::new(folder)) && selection.excludes(&Path::new(folder).join("x")));
    }
    let _ = selection.receive_policy();
}

/// No word of an agent's standard error acts upon a terminal, and none is changed by being read twice.
fn check_stderr(stderr_tail: &str) {
    let plain = plain_message(stderr_tail);
    assert!(!plain.contains(|letter: char| letter.is_control() && !"\n\t".contains(letter)), "{plain:?}");
    let text = trainspot_base::log::plain(stderr_tail);
    assert_eq!(trainspot_base::log::plain(&text), text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_of_the_seeds() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/protocol");
        for seed in std::fs::read_dir(seeds).unwrap() {
            protocol(&std::fs::read(seed.unwrap().path()).unwrap());
        }
    }
}
