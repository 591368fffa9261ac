//! How the pipe reaches a machine: by starting one of the agent's verbs there and talking to its streams.
//!
//! All calls are built on this one primitive: an SSH channel offers it as well as a local process, and after
//! a lost one the next call starts another.

mod answers;
mod client;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod local;
pub mod ssh;
mod stall;

pub use client::{Agent, AskError};

use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncWrite};
use trainspot_base::error::{Error, Result};

/// A link to a machine.
pub trait Link: Send + Sync {
    /// Starts `trainspot agent VERB --home … FLAGS` on the machine.
    ///
    /// # Errors
    /// The machine cannot be reached; transient where it may be reached again.
    fn agent(&self, verb: &str, flags: &[(&str, String)])
    -> impl Future<Output = Result<RunningVerb>> + Send;
}

/// A command that runs on the machine, such as a verb of the agent. Dropping this ends the command.
pub struct RunningVerb {
    /// The command's standard input, closed when it is dropped.
    pub input: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    /// The command's standard output.
    pub output: Option<Pin<Box<dyn AsyncRead + Send>>>,
    /// Resolves when the command has ended.
    pub exit: Pin<Box<dyn Future<Output = Result<VerbExit>> + Send>>,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerbExit {
    /// Whether the exit code was 0.
    pub success: bool,
    /// The end of the command's standard error, at most 8 KiB.
    pub stderr_tail: String,
}

impl VerbExit {
    /// The error `what` with the command's own messages, unless the command succeeded. The error is
    /// transient: a command's messages do not say whether its stream broke or something that lasts.
    pub fn check(self, what: &str) -> Result<()> {
        if self.success {
            return Ok(());
        }
        let stderr_tail = plain_message(&self.stderr_tail);
        let error = Error::new(what).transient();
        if stderr_tail.is_empty() {
            return Err(error.source("the agent ended without a word"));
        }
        Err(error.source(Error::rendered(&stderr_tail)))
    }
}

/// An agent's messages without the colours and the levels that its log gave them.
fn plain_message(stderr_tail: &str) -> String {
    let stderr_tail = trainspot_base::log::plain(stderr_tail);
    let lines = stderr_tail.lines().map(|line| line.strip_prefix("ERROR: ").unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_s_words_are_told_in_the_pipe_s_voice() {
        let stderr_tail = "\x1b[33mWARNING: slow\x1b[0m\n\x1b[31mERROR: cannot send 'm': disk full\n  Still there: a draft\n  Next: make room\x1b[0m";
        let exit = VerbExit { success: false, stderr_tail: stderr_tail.to_owned() };
        let error = exit.check("cannot push").unwrap_err().leaves("1 file");
        assert_eq!(
            error.render(),
            "cannot push: WARNING: slow\n  cannot send 'm': disk full\nStill there: 1 file\nStill there: a draft\nNext: make room"
        );
        let exit = VerbExit { success: false, stderr_tail: "\x1b[31m".to_owned() };
        assert!(exit.check("cannot push").unwrap_err().render().ends_with("without a word"));
    }

    #[test]
    fn an_agent_s_words_are_text_whatever_they_are_made_of() {
        let stderr_tail = "\x1b[31mERROR: no\x1b[2J\x1b]0;title\x07 room\u{9b}2J\u{202e}\nERROR: \x1b[32m✔ done\r\nINFO: all is well";
        let exit = VerbExit { success: false, stderr_tail: stderr_tail.to_owned() };
        assert_eq!(
            exit.check("cannot push").unwrap_err().render(),
            "cannot push: no room\n  ✔ done\n  INFO: all is well"
        );
    }
}
