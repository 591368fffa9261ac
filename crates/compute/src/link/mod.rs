//! How the pipe reaches a machine: by starting one of the agent's verbs there and talking to its streams.
//!
//! One primitive is enough for everything: a channel of SSH gives the same, and a lost one is replaced by the
//! next.

mod answers;
mod client;
pub mod local;
pub mod ssh;
mod stall;

pub use client::{Agent, AskError};

use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncWrite};
use trainspot_base::error::{Error, Result};

/// A way to a machine.
pub trait Link: Send + Sync {
    /// Starts `trainspot agent VERB --home … FLAGS` on the machine.
    ///
    /// # Errors
    /// The machine cannot be reached.
    fn agent(&self, verb: &str, flags: &[(&str, String)]) -> impl Future<Output = Result<Session>> + Send;
}

/// A verb that runs on the machine. Dropping it ends the verb.
pub struct Session {
    /// The verb's standard input. Dropping it closes it.
    pub input: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    /// The verb's standard output.
    pub output: Option<Pin<Box<dyn AsyncRead + Send>>>,
    /// Resolves when the verb ended.
    pub finished: Pin<Box<dyn Future<Output = Result<Finished>> + Send>>,
}

/// How a verb ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Whether it did what it had to.
    pub success: bool,
    /// The end of what it said on standard error.
    pub words: String,
}

impl Finished {
    /// An error with the verb's own words, unless it did what it had to.
    pub fn check(self, what: &str) -> Result<()> {
        if self.success {
            return Ok(());
        }
        let words = said(&self.words);
        if words.is_empty() {
            return Err(Error::new(what).source("the agent ended without a word"));
        }
        Err(Error::new(what).source(Error::rendered(&words)))
    }
}

/// An agent's lines without the colours and the levels that its log gave them.
fn said(words: &str) -> String {
    let words = trainspot_base::log::plain(words);
    let lines = words.lines().map(|line| line.strip_prefix("ERROR: ").unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_s_words_are_told_in_the_pipe_s_voice() {
        let words = "\x1b[33mWARNING: slow\x1b[0m\n\x1b[31mERROR: cannot send 'm': disk full\n  Still there: a draft\n  Next: make room\x1b[0m";
        let finished = Finished { success: false, words: words.to_owned() };
        let error = finished.check("cannot push").unwrap_err().leaves("1 file");
        assert_eq!(
            error.render(),
            "cannot push: WARNING: slow\n  cannot send 'm': disk full\nStill there: 1 file\nStill there: a draft\nNext: make room"
        );
        let finished = Finished { success: false, words: "\x1b[31m".to_owned() };
        assert!(finished.check("cannot push").unwrap_err().render().ends_with("without a word"));
    }

    #[test]
    fn an_agent_s_words_are_text_whatever_they_are_made_of() {
        let words = "\x1b[31mERROR: no\x1b[2J\x1b]0;title\x07 room\u{9b}2J\u{202e}\nERROR: \x1b[32m✔ done\r\nINFO: all is well";
        let finished = Finished { success: false, words: words.to_owned() };
        assert_eq!(
            finished.check("cannot push").unwrap_err().render(),
            "cannot push: no room\n  ✔ done\n  INFO: all is well"
        );
    }
}
