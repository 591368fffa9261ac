//! The way to a machine that is a folder on this one: the verbs are child processes.

use super::{Link, RunningVerb, VerbExit};
use secrecy::{ExposeSecret as _, SecretString};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use trainspot_base::error::{Context as _, Error, Result};

/// What is kept of a verb's standard error.
const STDERR_TAIL_BYTES: usize = 8 << 10;

/// A machine's folder, and how to start an agent for it.
#[derive(Clone, Debug)]
pub struct LocalLink {
    /// This program.
    pub program: PathBuf,
    /// The machine's home.
    pub home: PathBuf,
    /// All that agents get as environment. The pipe's own holds secrets, and a training may look at it.
    pub environment: BTreeMap<String, SecretString>,
}

impl LocalLink {
    /// The command that runs a verb.
    #[must_use]
    pub fn command(&self, verb: &str, flags: &[(&str, String)]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("agent").arg(verb).arg("--home").arg(&self.home);
        let environment = self.environment.iter().map(|(name, value)| (name, value.expose_secret()));
        command.env_clear().envs(environment);
        for (name, value) in flags {
            command.arg(name).arg(value);
        }
        command
    }
}

impl Link for LocalLink {
    async fn agent(&self, verb: &str, flags: &[(&str, String)]) -> Result<RunningVerb> {
        let mut command = self.command(verb, flags);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // A Ctrl-C at the terminal is for the pipe alone; it ends what it started.
        command.process_group(0);
        let mut child = command.spawn().map_err(|error| {
            // The host may have too many processes for a moment.
            Error::new(format!("cannot start the agent ({verb})")).source(error).transient()
        })?;
        let input = child.stdin.take().map(|stream| Box::pin(stream) as _);
        let output = child.stdout.take().map(|stream| Box::pin(stream) as _);
        let errors = child.stderr.take();
        let exit = async move {
            let tail = match errors {
                Some(errors) => read_tail(errors).await.context("cannot read the agent's words")?,
                None => Vec::new(),
            };
            let status = child.wait().await.context("cannot wait for the agent")?;
            Ok(VerbExit {
                success: status.success(),
                stderr_tail: String::from_utf8_lossy(&tail).trim().to_owned(),
            })
        };
        Ok(RunningVerb { input, output, exit: Box::pin(exit) })
    }
}

/// The end of what a verb says, however much that is.
async fn read_tail(mut errors: impl AsyncRead + Unpin) -> std::io::Result<Vec<u8>> {
    let (mut tail, mut buffer) = (Vec::new(), vec![0; STDERR_TAIL_BYTES]);
    loop {
        let count = errors.read(&mut buffer).await?;
        if count == 0 {
            return Ok(tail);
        }
        tail.extend_from_slice(&buffer[..count]);
        tail.drain(..tail.len().saturating_sub(STDERR_TAIL_BYTES));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_a_flood_of_words_the_last_ones_are_kept() {
        let noise = tokio::io::repeat(b'x').take(100 << 20);
        let tail = read_tail(noise.chain(&b"disk full"[..])).await.unwrap();
        assert_eq!(tail.len(), STDERR_TAIL_BYTES);
        assert!(tail.ends_with(b"xdisk full") && tail.capacity() <= 4 * STDERR_TAIL_BYTES);
        assert_eq!(read_tail(&b"few"[..]).await.unwrap(), b"few");
    }
}
