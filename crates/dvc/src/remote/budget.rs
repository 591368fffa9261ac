//! The memory that sending may take, shared by all objects that are under way.

use tokio::sync::{Semaphore, SemaphorePermit};
use trainspot_base::error::{Context as _, Result};

/// One permit's worth.
const UNIT: u64 = 1 << 20;
/// All that a remote's uploads hold at a time, in units. The whole process is to stay under 64 MiB: 10,000
/// small files to S3 peaked at 36, a gigabyte at 32.
const UNITS: u32 = 48;

/// A remote's memory.
pub(super) struct Budget(Semaphore);

impl Budget {
    pub(super) fn new() -> Self {
        Self(Semaphore::new(UNITS as usize))
    }

    /// Waits until so many bytes are free, or all of them if it is more. All that an object needs is taken at
    /// once: two that each hold a part and wait for another would wait for ever.
    pub(super) async fn take(&self, bytes: u64) -> Result<SemaphorePermit<'_>> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(UNITS).clamp(1, UNITS);
        self.0.acquire_many(units).await.context("the remote was closed")
    }
}
