//! Files of a machine in a store: each under its hash, and then the manifest that names them.

use crate::MachineFolder;
use blake3::Hash;
use std::collections::HashSet;
use std::path::Path;
use trainspot_base::error::{Context as _, Error, Kind, Result};
use trainspot_store::{ObjectKey, Store, WriteCondition};
use trainspot_transfer::{BundleHeader, EntryKind, Manifest, ReceivePolicy, TargetFolder, hash_of};

/// The longest manifest that is read of a machine. It holds about 150,000 files.
const MANIFEST_LIMIT_BYTES: usize = 32 << 20;

/// Sends files of one machine. A file that was sent before is not sent again.
#[derive(Debug)]
pub struct FileSender {
    store: Store,
    machine: MachineFolder,
    /// What the store has.
    sent: HashSet<Hash>,
}

impl FileSender {
    /// A sender for a machine that has sent nothing yet.
    #[must_use]
    pub fn new(store: Store, machine: MachineFolder) -> Self {
        Self { store, machine, sent: HashSet::new() }
    }

    /// Sends the files of a manifest, and then the manifest under `key`. Nobody may change a file of the
    /// folder.
    ///
    /// # Errors
    /// A file cannot be read or sent. Files that were sent need not be sent again.
    pub async fn send(&mut self, folder: &Path, manifest: &Manifest, key: &ObjectKey) -> Result<()> {
        for (entry, hash) in manifest.proved()? {
            if matches!(entry.kind, EntryKind::File { .. }) && !self.sent.contains(&hash) {
                self.store.send(&self.machine.file(&hash)?, &folder.join(entry.path.as_path())).await?;
                self.sent.insert(hash);
            }
        }
        let bytes = serde_json::to_vec(manifest).context("cannot write a manifest")?;
        self.store.write(key, bytes, WriteCondition::None).await.map(drop)
    }
}

/// The manifest of a machine under `key`. None if there is none.
///
/// # Errors
/// The store cannot be read, or what is there is no manifest.
pub async fn read_manifest(store: &Store, key: &ObjectKey) -> Result<Option<Manifest>> {
    let Some(found) = store.read(key, MANIFEST_LIMIT_BYTES).await? else { return Ok(None) };
    let manifest: Manifest =
        serde_json::from_slice(&found.bytes).map_err(|error| not_as_listed(key, error))?;
    manifest.check().map_err(|error| not_as_listed(key, error))?;
    Ok(Some(manifest))
}

/// Brings files of a manifest into `place`, each proven by its hash: those that the policy takes, which are
/// returned. `scratch` is a folder for files on their way, best on the same file system.
///
/// # Errors
/// The policy refuses the list, and then nothing came; a file is not in the store, or not as the manifest
/// says.
pub async fn fetch_files(
    store: &Store,
    machine: &MachineFolder,
    manifest: Manifest,
    (place, policy): (&TargetFolder, &ReceivePolicy),
    scratch: &Path,
) -> Result<BundleHeader> {
    let proofs: Vec<Hash> = manifest.proved()?.into_iter().map(|(_, hash)| hash).collect();
    let mut header = BundleHeader { entries: manifest.entries, unmatched: Vec::new() };
    let mut taken = place.accept(policy, &header)?.into_iter();
    let mut chosen = Vec::new();
    for (entry, hash) in header.entries.drain(..).zip(proofs) {
        if !taken.next().unwrap_or(false) {
            continue;
        }
        if let EntryKind::File { bytes, executable } = entry.kind {
            let arrived = fetch_one(store, &machine.file(&hash)?, (bytes, hash), scratch).await?;
            place.adopt(arrived.path(), &entry.path, executable)?;
        }
        chosen.push(entry);
    }
    // Links last: none can then stand in the way of a file's path.
    place.links(&chosen)?;
    Ok(BundleHeader { entries: chosen, ..header })
}

async fn fetch_one(
    store: &Store,
    key: &ObjectKey,
    (bytes, hash): (u64, Hash),
    scratch: &Path,
) -> Result<tempfile::NamedTempFile> {
    let arrived = tempfile::NamedTempFile::new_in(scratch).context("cannot make a file")?;
    let into = arrived.reopen().context("cannot make a file")?;
    if store.fetch(key, into, bytes).await?.is_none() {
        return Err(not_as_listed(key, "there is no such object"));
    }
    let path = arrived.path().to_owned();
    let found = tokio::task::spawn_blocking(move || hash_of(&path)).await.context("cannot read a file")??;
    if found != hash {
        return Err(not_as_listed(key, "it has other bytes"));
    }
    Ok(arrived)
}

fn not_as_listed(key: &ObjectKey, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(format!("{key} in the store is not what the machine said")).source(why).kind(Kind::Machine)
}
