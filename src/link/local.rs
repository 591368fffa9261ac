//! The way to a machine that is a folder on this one: the verbs are child processes.

use super::{Finished, Link, Session};
use crate::error::{Context as _, Result};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

/// What is kept of a verb's standard error.
const WORDS: usize = 8 << 10;

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
            let mut words = Vec::new();
            if let Some(errors) = errors {
                errors
                    .take(WORDS as u64)
                    .read_to_end(&mut words)
                    .await
                    .context("cannot read the agent's words")?;
            }
            let status = child.wait().await.context("cannot wait for the agent")?;
            Ok(Finished {
                success: status.success(),
                words: String::from_utf8_lossy(&words).trim().to_owned(),
            })
        };
        Ok(Session { input, output, finished: Box::pin(finished) })
    }
}
