//! The end of a machine that is no more than a folder.

use super::checkpoint::CheckpointWriter;
use super::command::end_all;
use super::home::Home;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use trainspot_base::error::Result;

/// The agent that asked for the end passes the answer on meanwhile, before it is ended as all others.
const ANSWER_WAIT: Duration = Duration::from_millis(500);
/// The wait between two looks at processes that were ended.
const END_INTERVAL: Duration = Duration::from_millis(50);

/// Removes the home. Whatever is left on the machine goes before.
pub(super) fn remove(home: &Home, writer: Option<JoinHandle<CheckpointWriter>>) -> Result<()> {
    thread::sleep(ANSWER_WAIT);
    // An agent that waits for a silent pipe would stay, and what it writes would too.
    while end_all(home) {
        thread::sleep(END_INTERVAL);
    }
    writer.map(JoinHandle::join);
    home.remove()
}
