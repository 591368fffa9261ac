//! A lease: who acts on a run, of several pipelines that were started for it.
//!
//! A lease is an object that is written on conditions alone. It expires when it was last written longer ago
//! than its duration, by the store's own clock: a dead holder cannot outlive it, and no two hosts' clocks are
//! compared.

use crate::{ObjectKey, ObjectVersion, Store, StoredObject, WriteCondition, WriteOutcome};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use trainspot_base::clock::stated_seconds;
use trainspot_base::error::{Context as _, Error, Result};

/// The longest lease object that is read.
const LEASE_LIMIT_BYTES: usize = 4 << 10;

/// What a lease's object says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LeaseRecord {
    /// Who holds the lease, such as a pipeline's URL.
    holder: String,
    /// Tells one acquisition from every other, also of the same holder.
    nonce: u64,
    /// How often the lease was renewed. S3's `ETag` is the content's hash: a renewal with the same bytes
    /// would not be seen by somebody who has just found the lease expired.
    renewals: u64,
    /// After how many seconds without a renewal the lease expires; 0 once it was released.
    seconds: u64,
}

/// A lease that this process holds.
#[derive(Debug)]
pub struct Lease {
    key: ObjectKey,
    record: LeaseRecord,
    version: ObjectVersion,
}

/// What an attempt to acquire a lease has found.
#[derive(Debug)]
pub enum LeaseState {
    /// This process holds the lease.
    Acquired(Lease),
    /// Somebody else holds the lease.
    Held {
        /// The holder, in its own words.
        by: String,
        /// When the lease expires unless it is renewed.
        expires_in: Duration,
    },
}

impl Lease {
    /// Acquires the lease if nobody holds it, or its holder has let it expire. Of several that try at once,
    /// one acquires the lease.
    pub async fn acquire(
        store: &Store,
        key: &ObjectKey,
        holder: &str,
        duration: Duration,
    ) -> Result<LeaseState> {
        let seconds = duration.as_secs().max(1);
        let record =
            LeaseRecord { holder: holder.to_owned(), nonce: fastrand::u64(..), renewals: 0, seconds };
        loop {
            let condition = match store.read(key, LEASE_LIMIT_BYTES).await? {
                None => WriteCondition::Absent,
                Some(found) => {
                    let held = record_of(key, &found)?;
                    let left = stated_seconds(held.seconds).saturating_sub(found.age);
                    if !left.is_zero() {
                        return Ok(LeaseState::Held { by: held.holder, expires_in: left });
                    }
                    WriteCondition::Unchanged(found.version)
                }
            };
            // Whoever was faster holds the lease now, and is found by the next look.
            if let WriteOutcome::Written(version) = store.write(key, bytes_of(&record)?, condition).await? {
                return Ok(LeaseState::Acquired(Self { key: key.clone(), record, version }));
            }
        }
    }

    /// Renews the lease for its whole duration. False if somebody else has it: this process was too late, and
    /// must do nothing more that only the holder may do.
    pub async fn renew(&mut self, store: &Store) -> Result<bool> {
        let condition = WriteCondition::Unchanged(self.version.clone());
        let renewed = LeaseRecord { renewals: self.record.renewals + 1, ..self.record.clone() };
        match store.write(&self.key, bytes_of(&renewed)?, condition).await? {
            WriteOutcome::Written(version) => {
                (self.record, self.version) = (renewed, version);
                Ok(true)
            }
            WriteOutcome::ConditionFailed => Ok(false),
        }
    }

    /// Gives the lease up, so that the next need not wait. A lease that was lost already stays as it is.
    pub async fn release(self, store: &Store) -> Result<()> {
        let released = LeaseRecord { seconds: 0, ..self.record };
        store.write(&self.key, bytes_of(&released)?, WriteCondition::Unchanged(self.version)).await.map(drop)
    }
}

fn bytes_of(record: &LeaseRecord) -> Result<Vec<u8>> {
    serde_json::to_vec(record).context("cannot write a lease")
}

fn record_of(key: &ObjectKey, found: &StoredObject) -> Result<LeaseRecord> {
    serde_json::from_slice(&found.bytes).map_err(|error| {
        Error::new(format!("{key} in the store is no lease"))
            .source(error)
            .hint("look whether something else writes there; remove the object to begin anew")
    })
}
