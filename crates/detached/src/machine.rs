//! What a machine says of itself: its state again and again, and at last how the training ended.

use crate::MachineFolder;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use trainspot_base::error::{Context as _, Error, Kind, Result};
use trainspot_protocol::{AgentStatus, CommandExit};
use trainspot_store::{Store, WriteCondition};

/// The longest state that is read of a machine.
const STATE_LIMIT_BYTES: usize = 256 << 10;
/// The longest exit that is read of a machine: DVC's outputs are listed in it.
const EXIT_LIMIT_BYTES: usize = 8 << 20;

/// A machine's state, written again and again: its heartbeat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineState {
    /// How often the machine has written its state before.
    pub number: u64,
    /// The state of training, checkpoints and machine.
    pub status: AgentStatus,
    /// The newest checkpoint that is whole in the store.
    pub stored_checkpoint: Option<u64>,
    /// How long the training had run when that checkpoint was found complete, in seconds.
    pub stored_seconds: Option<f64>,
    /// How many bytes the training's log has, of which the store may lack the last.
    pub log_bytes: u64,
    /// How long the training has run, in seconds.
    pub seconds: f64,
    /// What goes wrong beside the training, such as a wake that Bitbucket refuses.
    pub trouble: Option<String>,
}

/// How a training ended, written after everything else of it is in the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineExit {
    /// How the training ended.
    pub exit: CommandExit,
    /// The newest checkpoint that is whole in the store.
    pub stored_checkpoint: Option<u64>,
    /// The patterns of the outputs that matched nothing; the store has what the others matched.
    pub unmatched: Vec<String>,
    /// What came of what DVC was to keep; none where nothing was, or the training failed.
    pub dvc: Option<DvcWord>,
}

/// What a machine says of the outputs that DVC was to keep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DvcWord {
    /// The outputs are in their remotes: the agent's answer, in JSON.
    Stored(String),
    /// Why they could not be kept.
    Failed(String),
}

/// A machine's state, and how long ago the machine wrote it.
///
/// # Errors
/// The store cannot be read, or what is there is no state.
pub async fn read_state(store: &Store, machine: &MachineFolder) -> Result<Option<(MachineState, Duration)>> {
    let Some(found) = store.read(&machine.state()?, STATE_LIMIT_BYTES).await? else { return Ok(None) };
    Ok(Some((parse(&found.bytes, "state")?, found.age)))
}

/// Writes a machine's state.
///
/// # Errors
/// The store cannot be written.
pub async fn write_state(store: &Store, machine: &MachineFolder, state: &MachineState) -> Result<()> {
    let bytes = serde_json::to_vec(state).context("cannot write the machine's state")?;
    store.write(&machine.state()?, bytes, WriteCondition::None).await.map(drop)
}

/// How a machine's training ended, if it has.
///
/// # Errors
/// The store cannot be read, or what is there is no exit.
pub async fn read_exit(store: &Store, machine: &MachineFolder) -> Result<Option<MachineExit>> {
    let Some(found) = store.read(&machine.exit()?, EXIT_LIMIT_BYTES).await? else { return Ok(None) };
    parse(&found.bytes, "exit").map(Some)
}

/// Writes how a machine's training ended. Everything that the exit speaks of must be in the store.
///
/// # Errors
/// The store cannot be written.
pub async fn write_exit(store: &Store, machine: &MachineFolder, exit: &MachineExit) -> Result<()> {
    let bytes = serde_json::to_vec(exit).context("cannot write the training's end")?;
    store.write(&machine.exit()?, bytes, WriteCondition::None).await.map(drop)
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        Error::new(format!("the machine's {what} in the store cannot be read"))
            .source(error)
            .kind(Kind::Training)
    })
}
