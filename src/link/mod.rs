//! How the pipe reaches a machine: by starting one of the agent's verbs there and talking to its streams.
//!
//! One primitive is enough for everything: a channel of SSH gives the same, and a lost one is replaced by the next.

mod client;
pub mod local;
pub mod ssh;
mod stall;

pub use client::{Agent, AskError};

use crate::error::{Error, Result};
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncWrite};

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
        let words =
            if self.words.is_empty() { "the agent ended without a word".to_owned() } else { self.words };
        Err(Error::new(what).source(words))
    }
}
