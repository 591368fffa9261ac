//! Hashing on all processors.

use super::super::{Content, Md5, Object, Oid, Stamp};
use crate::error::{Context as _, Error, Result};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// More would wait for the disk.
const MOST_THREADS: usize = 8;

/// A file's content, as it was when it was read.
#[derive(Clone, Debug)]
pub(super) struct Hashed {
    pub(super) oid: Oid,
    pub(super) size: u64,
    stamp: Option<Stamp>,
}

impl Hashed {
    /// The object whose content is in this file.
    pub(super) fn object(&self, path: PathBuf) -> Object {
        let content = match self.stamp {
            Some(stamp) => Content::Hashed(path, stamp),
            None => Content::File(path),
        };
        Object { oid: self.oid.clone(), size: self.size, content }
    }
}

/// The hashes of files, in their order. A file changed while it is read is found when it is sent.
pub(super) fn hash(files: &[PathBuf]) -> Result<Vec<Hashed>> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = processors.min(MOST_THREADS).min(files.len());
    let next = AtomicUsize::new(0);
    let done = Mutex::new(vec![None; files.len()]);
    let work = || -> Result<()> {
        let mut buffer = Vec::new();
        while let Some((at, path)) = next_of(files, &next) {
            let hashed =
                one(path, &mut buffer).inspect_err(|_| next.store(files.len(), Ordering::Relaxed))?;
            done.lock().unwrap_or_else(std::sync::PoisonError::into_inner)[at] = Some(hashed);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let ends = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| Err(stopped())));
        ends.collect::<Result<Vec<()>>>()
    })?;
    let done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.into_iter().map(|hashed| hashed.ok_or_else(stopped)).collect()
}

fn next_of<'a>(files: &'a [PathBuf], next: &AtomicUsize) -> Option<(usize, &'a Path)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    Some((at, files.get(at)?))
}

fn one(path: &Path, buffer: &mut Vec<u8>) -> Result<Hashed> {
    let cannot = || format!("cannot read '{}'", path.display());
    let file = File::open(path).with_context(cannot)?;
    let stamp = Stamp::before_hashing(&file);
    let (oid, size) = Md5::of_all(&file, buffer).with_context(cannot)?;
    Ok(Hashed { oid, size, stamp: stamp.filter(|stamp| stamp.holds(&file)) })
}

fn stopped() -> Error {
    Error::new("hashing stopped")
}
