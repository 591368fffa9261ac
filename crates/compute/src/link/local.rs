//! The way to a machine that is a folder on this one: the verbs are child processes.

use super::{Finished, Link, Session};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use trainspot_base::error::{Context as _, Result};

/// What is kept of a verb's standard error.
const WORDS_LIMIT_BYTES: usize = 8 << 10;

/// A machine's folder, and how to start an agent for it.
#[derive(Clone, Debug)]
pub struct LocalLink {
    /// This program.
    pub program: PathBuf,
    /// The machine's home.
    pub home: PathBuf,
    /// All that agents get as environment. The pipe's own holds secrets, and a training may look at it.
    pub environment: BTreeMap<String, String>,
}

impl LocalLink {
    /// The command that runs a verb.
    #[must_use]
    pub fn command(&self, verb: &str, flags: &[(&str, String)]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("agent").arg(verb).arg("--home").arg(&self.home).env_clear().envs(&self.environment);
        for (name, value) in flags {
            command.arg(name).arg(value);
        }
        command
    }
}

impl Link for LocalLink {
    async fn agent(&self, verb: &str, flags: &[(&str, String)]) -> Result<Session> {
        let mut command = self.command(verb, flags);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // A Ctrl-C at the terminal is for the pipe alone; it ends what it started.
        command.process_group(0);
        let mut child = command.spawn().with_context(|| format!("cannot start the agent ({verb})"))?;
        let input = child.stdin.take().map(|stream| Box::pin(stream) as _);
        let output = child.stdout.take().map(|stream| Box::pin(stream) as _);
        let errors = child.stderr.take();
        let finished = async move {
            let words = match errors {
                Some(errors) => last_words(errors).await.context("cannot read the agent's words")?,
                None => Vec::new(),
            };
            let status = child.wait().await.context("cannot wait for the agent")?;
            Ok(Finished {
                success: status.success(),
                words: String::from_utf8_lossy(&words).trim().to_owned(),
            })
        };
        Ok(Session { input, output, finished: Box::pin(finished) })
    }
}

/// The end of what a verb says, however much that is.
async fn last_words(mut errors: impl AsyncRead + Unpin) -> std::io::Result<Vec<u8>> {
    let (mut words, mut buffer) = (Vec::new(), vec![0; WORDS_LIMIT_BYTES]);
    loop {
        let count = errors.read(&mut buffer).await?;
        if count == 0 {
            return Ok(words);
        }
        words.extend_from_slice(&buffer[..count]);
        words.drain(..words.len().saturating_sub(WORDS_LIMIT_BYTES));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_a_flood_of_words_the_last_ones_are_kept() {
        let noise = tokio::io::repeat(b'x').take(100 << 20);
        let words = last_words(noise.chain(&b"disk full"[..])).await.unwrap();
        assert_eq!(words.len(), WORDS_LIMIT_BYTES);
        assert!(words.ends_with(b"xdisk full") && words.capacity() <= 4 * WORDS_LIMIT_BYTES);
        assert_eq!(last_words(&b"few"[..]).await.unwrap(), b"few");
    }
}
