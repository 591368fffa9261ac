//! Carries out a store request where the outputs are: hashes them and sends their objects.

use super::remote::{self, RemoteName};
use super::rules::{IgnoreRules, RuleDialect};
use super::store_request::{RepositoryShare, StoreRequest};
use super::track::{Hashes, hash};
use super::{
    CacheUploads, ObjectContent, PushReport, StoreResult, Upload, cache_uploads, push, repositories,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use trainspot_base::error::{Context as _, Result};

/// The objects to send of one DVC repository.
#[derive(Default)]
struct RepositoryUpload {
    /// The number of the request's share for the repository; none if the clone does not have the repository.
    share: Option<usize>,
    hashes: Hashes,
    cached: CacheUploads,
    folder: PathBuf,
}

/// Hashes and sends the requested outputs of the repository at `root`. When this returns, every object is in
/// its remote.
///
/// Nothing is written into the repository. Done again, it sends only what is missing. Of the files at `root`
/// it reads the requested outputs and, for `DVC_PUSH`, what DVC recorded there: no file there says where
/// anything goes.
///
/// # Errors
/// An output is missing or cannot be DVC's, or an object could not be sent. Nothing must be committed then.
pub async fn store(root: &Path, request: &StoreRequest) -> Result<StoreResult> {
    let (root, request) = (root.to_owned(), request.clone().within(root));
    let read = tokio::task::spawn_blocking(move || request.read_outputs(&root));
    let loads = read.await.context("hashing ended unexpectedly")??;
    let (mut outcome, mut warnings) = (StoreResult::default(), Vec::new());
    for load in loads {
        for upload in load.hashes.uploads.iter().chain(&load.cached.uploads) {
            let pushed = send(upload).await?;
            let absent = pushed.absent.iter().map(|path| {
                format!("'{path}' was not made here, and is neither on this machine nor in its remote")
            });
            warnings.extend(absent);
            outcome.add_sent(load.share, &upload.remote.name, &pushed);
        }
        let skipped = load.hashes.skipped.iter().map(|path| load.folder.join(path));
        let skipped =
            skipped.map(|path| format!("'{}' is a link to a folder, which DVC leaves out", path.display()));
        warnings.extend(skipped);
        warnings.extend(load.cached.left_out);
        outcome.pointers.extend(load.hashes.pointers);
    }
    outcome.warn(warnings);
    Ok(outcome)
}

async fn send(upload: &Upload) -> Result<PushReport> {
    let remote = remote::open(&upload.remote).await?;
    let place = RemoteName::of(&upload.remote);
    push(&remote, &upload.objects).await.with_context(|| format!("cannot push to {place}"))
}

impl StoreRequest {
    /// Reads the objects to send. Blocks its thread.
    fn read_outputs(&self, root: &Path) -> Result<Vec<RepositoryUpload>> {
        let mut loads = Vec::new();
        for (number, share) in self.shares.iter().enumerate() {
            let hashes = share.named(|| share.hash(root))?;
            loads.push(RepositoryUpload {
                share: Some(number),
                hashes,
                folder: share.folder.clone(),
                ..RepositoryUpload::default()
            });
        }
        let Some(push) = &self.push else { return Ok(loads) };
        let shares: BTreeMap<_, _> =
            self.shares.iter().enumerate().map(|(number, share)| (share.folder.clone(), number)).collect();
        let mut folders = repositories::all(root)?;
        folders.extend(shares.keys().cloned());
        for folder in folders {
            let share = shares.get(&folder).copied();
            let remotes = share.map_or(&push.elsewhere, |number| &self.shares[number].remotes);
            let mut cached = named(&folder, || cache_uploads(&root.join(&folder), remotes, &push.known))?;
            in_clone(&folder, &mut cached);
            match share {
                Some(number) => loads[number].cached = cached,
                None => loads.push(RepositoryUpload { cached, folder, ..RepositoryUpload::default() }),
            }
        }
        Ok(loads)
    }
}

/// Makes the names of outputs relative to the clone.
fn in_clone(folder: &Path, cached: &mut CacheUploads) {
    for object in cached.uploads.iter_mut().flat_map(|upload| &mut upload.objects) {
        if let ObjectContent::Elsewhere { output, .. } = &mut object.content {
            *output = folder.join(&*output).to_string_lossy().into_owned();
        }
    }
}

impl RepositoryShare {
    fn hash(&self, root: &Path) -> Result<Hashes> {
        let base = root.join(&self.folder);
        hash(
            &base,
            &self.outputs,
            &mut IgnoreRules::sealed(&base, RuleDialect::Dvc, &self.rules),
            &self.remotes,
        )
    }

    fn named<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        named(&self.folder, work)
    }
}

/// Errors tell which repository it is, unless it is the clone.
pub(super) fn named<T>(folder: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let done = work();
    if folder == Path::new("") {
        return done;
    }
    done.with_context(|| format!("in the DVC repository '{}'", folder.display()))
}
