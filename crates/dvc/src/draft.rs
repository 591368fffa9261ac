//! A copy of a file in the folder of a remote, made while the file is being hashed: its name there is known
//! only then, but a large file's way to the disk takes as long as its hash.

use std::fs::File;
use std::io;
use std::sync::Mutex;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;
use tempfile::NamedTempFile;
use trainspot_base::mutex::lock;

/// The size of a file from which on its copy is flushed to disk while it is made. A smaller copy is complete
/// before the disk begins to write.
pub(super) const LARGE_FILE_BYTES: u64 = 64 << 20;
/// The pause between two flushes of a copy in progress.
const FLUSH_INTERVAL: Duration = Duration::from_millis(10);

/// The copy, which is removed unless it is taken.
#[derive(Debug)]
pub struct Draft(Mutex<Option<NamedTempFile>>);

impl Draft {
    pub(super) fn new(file: NamedTempFile) -> Self {
        Self(Mutex::new(Some(file)))
    }

    /// The copy, for the first caller; nothing for any other.
    pub(super) fn take(&self) -> Option<NamedTempFile> {
        lock(&self.0).take()
    }
}

/// Copies a file, and returns its length. The kernel copies: it shares the blocks with the original where the
/// file system can, and no byte goes through this process's memory. A large copy is flushed while it is made,
/// because the sync at the end would else wait for all of it.
pub(super) fn copy(mut from: &File, mut to: &File) -> io::Result<u64> {
    if from.metadata()?.len() < LARGE_FILE_BYTES {
        return io::copy(&mut from, &mut to);
    }
    let (done, over) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let flush = move || {
            while over.recv_timeout(FLUSH_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                // The sync at the end tells of errors.
                to.sync_data().ok();
            }
        };
        scope.spawn(flush);
        let copied = io::copy(&mut from, &mut to);
        drop(done);
        copied
    })
}
