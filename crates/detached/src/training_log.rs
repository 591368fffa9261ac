//! The training's log in a store: pieces, each named by where in the log it begins.

use crate::MachineFolder;
use rustix::fs::OFlags;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use trainspot_base::error::{Context as _, Result};
use trainspot_store::{ObjectKey, Store, WriteCondition};

/// The longest piece. A training that prints more between two looks gets more pieces.
const PIECE_LIMIT_BYTES: usize = 1 << 20;
/// How far the store may be behind the log. A training that prints more than the store takes loses what is
/// older: what counts of such a log is its end.
const BACKLOG_LIMIT_BYTES: u64 = 64 << 20;
/// The most pieces that are listed: those of a month, at two in a minute.
const LISTED_PIECES_LIMIT: usize = 100_000;

/// Sends the log of one machine's training as it grows.
#[derive(Debug)]
pub struct LogSender {
    store: Store,
    machine: MachineFolder,
    offset: u64,
}

impl LogSender {
    /// A sender that begins at the log's first byte.
    #[must_use]
    pub fn new(store: Store, machine: MachineFolder) -> Self {
        Self { store, machine, offset: 0 }
    }

    /// Sends what is new in the log at this moment, if there is a log: what comes meanwhile is for the next
    /// call, as a training may print faster than the store takes it.
    ///
    /// # Errors
    /// The log cannot be read, or a piece cannot be sent: the next call sends that piece again.
    pub async fn send(&mut self, log: &Path) -> Result<()> {
        // A named pipe in its place, of the training's making, would be waited for.
        let mut options = File::options();
        let opened = options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(log);
        let Ok(file) = opened else { return Ok(()) };
        let metadata = file.metadata().context("cannot read the training's log")?;
        let length = if metadata.is_file() { metadata.len() } else { 0 };
        self.offset = self.offset.max(length.saturating_sub(BACKLOG_LIMIT_BYTES));
        let mut piece = vec![0; PIECE_LIMIT_BYTES];
        while self.offset < length {
            let count = file.read_at(&mut piece, self.offset).context("cannot read the training's log")?;
            if count == 0 {
                break;
            }
            // As many digits as any offset has: listings are in the order of names.
            let key = self.machine.log()?.join(&format!("{:020}", self.offset))?;
            self.store.write(&key, piece[..count].to_vec(), WriteCondition::None).await?;
            self.offset += count as u64;
        }
        Ok(())
    }
}

/// The last bytes of a machine's log in the store, at least `wanted_bytes` where there are so many, and
/// whether earlier ones are left out.
///
/// # Errors
/// The store cannot be read.
pub async fn read_log_end(
    store: &Store,
    machine: &MachineFolder,
    wanted_bytes: usize,
) -> Result<(Vec<u8>, bool)> {
    let pieces = store.list(&machine.log()?, LISTED_PIECES_LIMIT).await?;
    let mut chosen: Vec<ObjectKey> = Vec::new();
    let mut bytes = 0;
    for piece in pieces.iter().rev() {
        if bytes >= wanted_bytes as u64 {
            break;
        }
        bytes = bytes.saturating_add(piece.size.min(PIECE_LIMIT_BYTES as u64));
        chosen.push(piece.key.clone());
    }
    let is_cut = chosen.len() < pieces.len();
    let mut log = Vec::new();
    for key in chosen.iter().rev() {
        if let Some(piece) = store.read(key, PIECE_LIMIT_BYTES).await? {
            log.extend(piece.bytes);
        }
    }
    Ok((log, is_cut))
}
