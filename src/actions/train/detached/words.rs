//! What the machine of a run has said last, in the store.

use std::time::{Duration, Instant};
use trainspot_base::error::Result;
use trainspot_base::log::lines::Lines;
use trainspot_detached::{MachineExit, MachineFolder, MachineState, read_exit, read_state};
use trainspot_store::Store;

/// What a machine has said.
#[derive(Clone, Debug, Default)]
pub(super) struct MachineWords {
    /// Its state, and how long ago it told it.
    pub(super) state: Option<(MachineState, Duration)>,
    /// How its training ended.
    pub(super) exit: Option<MachineExit>,
}

impl MachineWords {
    /// Reads what a machine has said last.
    pub(super) async fn read(store: &Store, machine: &MachineFolder) -> Result<Self> {
        // The exit first: what comes after it changes nothing any more.
        let exit = read_exit(store, machine).await?;
        Ok(Self { state: read_state(store, machine).await?, exit })
    }
}

/// Hands each line of a log that is over to `show`, and returns the last ones.
pub(super) fn lines_of(log: &[u8], show: &mut dyn FnMut(&str)) -> Vec<String> {
    let now = Instant::now();
    let mut lines = Lines::new(now);
    lines.feed(log, now, show);
    lines.finish(now, show);
    lines.tail()
}
