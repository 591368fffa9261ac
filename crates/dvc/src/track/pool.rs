//! Hashing on all processors.

use super::super::draft::{Draft, LARGE_FILE_BYTES};
use super::super::remote::Drafts;
use super::super::{Md5, Object, ObjectContent, Oid, Stamp};
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use trainspot_base::error::{Context as _, Error, Result};
use trainspot_base::mutex::{into_inner, lock};

/// The most threads that hash at a time. More would wait for the disk.
const THREAD_LIMIT: usize = 8;

/// A file to hash.
pub(super) struct FileToHash {
    pub(super) path: PathBuf,
    /// Where a copy of it may be made meanwhile.
    pub(super) drafts: Option<Drafts>,
}

/// A file's content, as it was when it was read.
#[derive(Clone, Debug)]
pub(super) struct Hashed {
    pub(super) oid: Oid,
    pub(super) size: u64,
    stamp: Option<Stamp>,
    draft: Option<Arc<Draft>>,
}

impl Hashed {
    /// The object whose content is in this file.
    pub(super) fn object(&self, path: PathBuf) -> Object {
        let content = match (self.stamp, &self.draft) {
            (Some(stamp), Some(draft)) => ObjectContent::Drafted(path, stamp, Arc::clone(draft)),
            (Some(stamp), None) => ObjectContent::Hashed(path, stamp),
            (None, _) => ObjectContent::File(path),
        };
        Object { oid: self.oid.clone(), size: self.size, content }
    }
}

/// The hashes of files, in their order. A file changed while it is read is found when it is sent.
pub(super) fn hash(files: &[FileToHash]) -> Result<Vec<Hashed>> {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let threads = processors.min(THREAD_LIMIT).min(files.len());
    let next = AtomicUsize::new(0);
    let done = Mutex::new(vec![None; files.len()]);
    let work = || -> Result<()> {
        let mut buffer = Vec::new();
        while let Some((at, source)) = next_of(files, &next) {
            let hashed =
                one(source, &mut buffer).inspect_err(|_| next.store(files.len(), Ordering::Relaxed))?;
            lock(&done)[at] = Some(hashed);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let ends = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| Err(stopped())));
        ends.collect::<Result<Vec<()>>>()
    })?;
    let done = into_inner(done);
    done.into_iter().map(|hashed| hashed.ok_or_else(stopped)).collect()
}

fn next_of<'a>(files: &'a [FileToHash], next: &AtomicUsize) -> Option<(usize, &'a FileToHash)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    Some((at, files.get(at)?))
}

fn one(source: &FileToHash, buffer: &mut Vec<u8>) -> Result<Hashed> {
    let cannot = || format!("cannot read '{}'", source.path.display());
    let file = File::open(&source.path).with_context(cannot)?;
    let stamp = Stamp::before_hashing(&file);
    let large = || file.metadata().is_ok_and(|metadata| metadata.len() >= LARGE_FILE_BYTES);
    let (hashed, draft) = match source.drafts.as_ref().zip(stamp) {
        Some((drafts, stamp)) if large() => thread::scope(|scope| {
            let drafting = scope.spawn(move || draft(source, stamp, drafts));
            (Md5::of_all(&file, buffer), drafting.join().ok().flatten())
        }),
        _ => (Md5::of_all(&file, buffer), None),
    };
    let (oid, size) = hashed.with_context(cannot)?;
    Ok(Hashed { oid, size, stamp: stamp.filter(|stamp| stamp.holds(&file)), draft: draft.map(Arc::new) })
}

/// Copies the file that `stamp` was taken of; none if it cannot be copied, or has changed since.
fn draft(source: &FileToHash, stamp: Stamp, drafts: &Drafts) -> Option<Draft> {
    let file = File::open(&source.path).ok()?;
    let draft = drafts.of(&file)?;
    stamp.holds(&file).then_some(draft)
}

fn stopped() -> Error {
    Error::new("hashing stopped")
}
