//! The memory that sending may take, shared by all objects that are under way.

use tokio::sync::{Semaphore, SemaphorePermit};
use trainspot_base::error::{Context as _, Result};

/// The bytes that one permit stands for.
const PERMIT_BYTES: u64 = 1 << 20;
/// The permits of one remote: its uploads hold 48 MiB at a time. The whole process is to stay under 64 MiB:
/// 10,000 small files to S3 peaked at 36, a gigabyte at 32.
const PERMIT_COUNT: u32 = 48;

/// The memory that one remote's uploads may take.
pub(super) struct Budget(Semaphore);

impl Budget {
    pub(super) fn new() -> Self {
        Self(Semaphore::new(PERMIT_COUNT as usize))
    }

    /// Waits until `bytes` are free, or the whole budget if `bytes` exceed it. All that an object needs is
    /// taken at once: two that each hold a part and wait for another would wait for ever.
    pub(super) async fn take(&self, bytes: u64) -> Result<SemaphorePermit<'_>> {
        let units =
            u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(PERMIT_COUNT).clamp(1, PERMIT_COUNT);
        self.0.acquire_many(units).await.context("the remote was closed")
    }
}
