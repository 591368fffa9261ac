//! Answers of an agent: read to a limit, and checked, as an agent is no more trustworthy than the training
//! beside it.

use super::stall::Metered;
use super::{RunningVerb, VerbExit};
use indicatif::HumanBytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use trainspot_base::clock::LONGEST_STATED;
use trainspot_base::error::{Error, Result};
use trainspot_base::meter::Meter;
use trainspot_protocol::CHECKPOINT_NUMBER_LIMIT;
use trainspot_protocol::runner_log::{Phase, StepId};
use trainspot_protocol::{AgentStatus, CommandExit, CommandState, ExitReason, Notice, Reply, RunnerActivity};

/// The longest answer of a supervisor, which holds its state and a few sentences.
pub(super) const STATUS_LIMIT_BYTES: u64 = 1 << 20;
/// The longest answer about outputs that DVC keeps: some numbers and a path for each output, and warnings. A
/// parsed answer may take eight times as much memory.
pub(super) const STORED_LIMIT_BYTES: u64 = 4 << 20;
/// The longest text in a supervisor's state. Longer texts are cut.
pub(super) const TEXT_LIMIT_BYTES: usize = 4 << 10;
/// The exit codes that the kernel knows.
const EXIT_CODES: std::ops::RangeInclusive<i32> = 0..=255;
/// The signals that the kernel knows.
const SIGNAL_NUMBERS: std::ops::RangeInclusive<i32> = 1..=64;

/// Writes `question` to a command's input, and reads the answer and the exit.
///
/// # Errors
/// The answer is longer than `limit_bytes`, or the link broke. A broken stream is told by the answer's own
/// result, as the command's standard error may say why it broke.
pub(super) async fn answer(
    running: RunningVerb,
    question: &[u8],
    limit_bytes: u64,
    meter: &Meter,
) -> Result<(std::io::Result<Vec<u8>>, VerbExit)> {
    let RunningVerb { input, output, exit } = running;
    let talk = async {
        let asked = async {
            if let Some(mut input) = input {
                input.write_all(question).await?;
                input.shutdown().await?;
            }
            std::io::Result::Ok(())
        };
        let mut answer = Vec::new();
        let read = async {
            match output {
                Some(output) => read_limited(Metered::new(output, meter), limit_bytes, &mut answer).await,
                None => Ok(Ok(())),
            }
        };
        let (asked, read) = tokio::join!(asked, read);
        Ok(asked.and(read?).map(|()| answer))
    };
    // An answer that is too long ends all of it: the verb might go on for ever.
    tokio::try_join!(talk, exit)
}

async fn read_limited(
    stream: impl AsyncRead + Unpin,
    limit_bytes: u64,
    answer: &mut Vec<u8>,
) -> Result<std::io::Result<()>> {
    let read = stream.take(limit_bytes + 1).read_to_end(answer).await;
    if answer.len() as u64 > limit_bytes {
        let limit = HumanBytes(limit_bytes);
        return Err(Error::new(format!("the machine's answer is longer than {limit}, and was not read on")));
    }
    Ok(read.map(drop))
}

/// The answer of a supervisor, if all its numbers are possible. Its texts are cut to [`TEXT_LIMIT_BYTES`].
///
/// # Errors
/// A number is out of its range.
pub(super) fn checked(reply: Reply) -> Result<Reply> {
    Ok(match reply {
        Reply::Refused(why) => Reply::Refused(truncated(why)),
        Reply::Status(status) => Reply::Status(Box::new(checked_status(*status)?)),
    })
}

fn checked_status(mut status: AgentStatus) -> Result<AgentStatus> {
    if let CommandState::Ended(exit) = &status.state {
        check_exit(exit)?;
    }
    if let Some(number) = status.checkpoint.filter(|number| *number >= CHECKPOINT_NUMBER_LIMIT) {
        return Err(impossible(&format!("checkpoint {number}")));
    }
    if let Some(at) = status.notice.as_ref().and_then(|notice| notice.at)
        && at > LONGEST_STATED.as_secs()
    {
        return Err(impossible(&format!("an end {at} s after 1970")));
    }
    status.notice = status.notice.map(|notice| Notice { why: truncated(notice.why), ..notice });
    (status.checkpoint_error, status.left_out) =
        (status.checkpoint_error.map(truncated), status.left_out.map(truncated));
    status.fingerprint = status.fingerprint.map(truncated);
    status.runner = status.runner.map(checked_runner);
    Ok(status)
}

fn checked_runner(runner: RunnerActivity) -> RunnerActivity {
    let phase = match runner.phase {
        Phase::Busy(StepId { pipeline, step }) => {
            Phase::Busy(StepId { pipeline: truncated(pipeline), step: truncated(step) })
        }
        phase => phase,
    };
    RunnerActivity {
        uuid: truncated(runner.uuid),
        phase,
        complaint: runner.complaint.map(truncated),
        ..runner
    }
}

fn check_exit(exit: &CommandExit) -> Result<()> {
    match exit.reason {
        ExitReason::Exited(code) if !EXIT_CODES.contains(&code) => {
            Err(impossible(&format!("exit code {code}")))
        }
        ExitReason::Signalled(signal) if !SIGNAL_NUMBERS.contains(&signal) => {
            Err(impossible(&format!("signal {signal}")))
        }
        _ if !(0.0..=LONGEST_STATED.as_secs_f64()).contains(&exit.seconds) => {
            Err(impossible(&format!("a training of {} s", exit.seconds)))
        }
        _ => Ok(()),
    }
}

fn impossible(what: &str) -> Error {
    Error::new(format!("the machine's answer cannot be true: it tells of {what}"))
}

fn truncated(mut text: String) -> String {
    let end = text.floor_char_boundary(TEXT_LIMIT_BYTES);
    if end < text.len() {
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: &str, more: &str) -> Result<Reply> {
        let text = format!(
            r#"{{"status":{{"state":{state},"fingerprint":null,"checkpoint":null,"unsaved":null,"notice":null,"runner":null{more}}}}}"#
        );
        checked(serde_json::from_str(&text).map_err(|error| Error::new("not JSON").source(error))?)
    }

    #[test]
    fn a_number_that_cannot_be_true_is_no_answer() {
        let ended = |how: &str, seconds: &str| {
            status(&format!(r#"{{"ended":{{"how":{how},"seconds":{seconds}}}}}"#), "").map(drop)
        };
        ended(r#"{"exited":255}"#, "0").unwrap();
        ended(r#"{"signalled":64}"#, "3e9").unwrap();
        for (how, seconds) in [
            (r#"{"exited":-1}"#, "1"),
            (r#"{"exited":256}"#, "1"),
            (r#"{"exited":99999999999}"#, "1"),
            (r#"{"signalled":0}"#, "1"),
            (r#"{"signalled":65}"#, "1"),
            (r#""timed_out""#, "-1"),
            (r#""timed_out""#, "1e300"),
            (r#""timed_out""#, "1e999"),
            (r#""timed_out""#, "NaN"),
            (r#""timed_out""#, "null"),
            (r#""vanished""#, "1"),
        ] {
            assert!(ended(how, seconds).is_err(), "{how} {seconds}");
        }
    }

    #[test]
    fn a_state_is_checked_and_its_texts_are_cut() {
        let read = |text: &str| serde_json::from_str::<AgentStatus>(text).unwrap();
        let good = r#"{"state":"running","fingerprint":null,"checkpoint":7,"unsaved":null,"notice":null,"runner":null}"#;
        let good = read(good);
        let at = |at| Some(Notice { why: "x".to_owned(), at: Some(at) });
        checked_status(AgentStatus { notice: at(1_800_000_000), ..good.clone() }).unwrap();
        for status in [
            AgentStatus { checkpoint: Some(u64::MAX), ..good.clone() },
            AgentStatus { notice: at(u64::MAX), ..good.clone() },
        ] {
            let error = checked_status(status).unwrap_err().render();
            assert!(error.contains("cannot be true: it tells of "), "{error}");
        }
        let long = "ü".repeat(TEXT_LIMIT_BYTES);
        let runner = RunnerActivity {
            uuid: long.clone(),
            phase: Phase::Busy(StepId { pipeline: long.clone(), step: long.clone() }),
            complaint: Some(long.clone()),
            draining: false,
        };
        let status = checked_status(AgentStatus {
            fingerprint: Some(long.clone()),
            checkpoint_error: Some(long.clone()),
            left_out: Some(long),
            runner: Some(runner),
            ..good
        });
        let AgentStatus { fingerprint, checkpoint_error, left_out, runner, .. } = status.unwrap();
        let RunnerActivity { uuid, phase, complaint, .. } = runner.unwrap();
        let Phase::Busy(StepId { pipeline, step }) = phase else { panic!() };
        let told = [fingerprint, checkpoint_error, left_out, complaint].map(Option::unwrap);
        for text in told.into_iter().chain([uuid, pipeline, step]) {
            assert_eq!(text.len(), TEXT_LIMIT_BYTES + "…".len());
        }
        let Reply::Refused(why) = checked(Reply::Refused("x".repeat(1 << 20))).unwrap() else { panic!() };
        assert!(why.len() < 2 * TEXT_LIMIT_BYTES);
    }

    /// A verb that says `count` bytes, and does not end when nobody listens any more.
    fn flood(count: usize) -> RunningVerb {
        let (mut far, output) = tokio::io::duplex(1 << 16);
        let exit = async move {
            let piece = vec![b' '; 1 << 16];
            let mut left = count;
            while left > 0 && far.write_all(&piece[..left.min(piece.len())]).await.is_ok() {
                left -= left.min(piece.len());
            }
            if left > 0 {
                std::future::pending::<()>().await;
            }
            Ok(VerbExit { success: true, stderr_tail: String::new() })
        };
        RunningVerb { input: None, output: Some(Box::pin(output)), exit: Box::pin(exit) }
    }

    #[tokio::test]
    async fn an_answer_is_read_to_its_limit_whatever_the_verb_does_then() {
        const REPLY_LIMIT_BYTES: usize = 1 << 20;
        let limit = REPLY_LIMIT_BYTES as u64;
        let ask = async |count| answer(flood(count), b"", limit, &Meter::default()).await;
        let (whole, exit) = ask(REPLY_LIMIT_BYTES).await.unwrap();
        assert!(whole.unwrap().len() == REPLY_LIMIT_BYTES && exit.success);
        for count in [REPLY_LIMIT_BYTES + 1, 600 << 20] {
            let error = ask(count).await.unwrap_err().render();
            assert_eq!(error, "the machine's answer is longer than 1.00 MiB, and was not read on");
        }
    }
}
