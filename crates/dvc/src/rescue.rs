//! The files to save from a machine whose outputs could not be sent: the machine is about to end, and its
//! cache with it.

use super::outs::{LockFile, OutEntry, PipelineFile, PointerFile};
use super::pipelines::LocalCache;
use super::rules::{IgnoreRules, RuleDialect};
use super::{StoreRequest, track::index};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};
use trainspot_base::error::{Context as _, Result};
use trainspot_transfer::{ReceivePolicy, find, text_beneath};

/// Lays out in `folder`, which is empty, what of the repository at `root` the request has DVC keep: the
/// outputs to track, and from DVC's cache what `dvc.lock` and new or changed `.dvc` files name, each under
/// the path where a checkout would put it. The files are links to where their content is. The files of DVC's
/// that name them are there, too.
///
/// A file of DVC's that cannot be read is passed over: it may be what kept the outputs from being sent.
///
/// # Errors
/// The folder cannot be written to.
pub fn lay_out(root: &Path, request: &StoreRequest, folder: &Path) -> Result<()> {
    let outputs: Vec<_> = request.outputs().map(|path| path.to_string_lossy().into_owned()).collect();
    for file in find(root, &outputs)?.files {
        let path = file.path.to_path();
        link(&root.join(&path), folder, &path)?;
    }
    let Some(push) = &request.push else { return Ok(()) };
    for file in files(root) {
        let Some(outs) = outs(root, &file, &push.known) else { continue };
        let Ok(cache) = LocalCache::of(&repository(root, &file)) else { continue };
        let mut found = false;
        for (out, path) in outs {
            found |= lay_out_one(&cache, &out, &path, folder)?;
        }
        if found {
            link(&root.join(&file), folder, &file)?;
        }
    }
    Ok(())
}

/// What may come into the clone at `root` when what the request has DVC keep is saved: the outputs to track
/// and, where DVC's cache is sent, the files of the clone's that name objects, what they name, and new files.
/// A new file of DVC's may name anything, so whatever it brings replaces nothing.
///
/// # Errors
/// An output leads out of the clone.
pub fn salvage(root: &Path, request: &StoreRequest) -> Result<ReceivePolicy> {
    let outputs: Vec<_> = request.outputs().map(|path| path.to_string_lossy().into_owned()).collect();
    let policy = ReceivePolicy::matching(&outputs)?;
    if request.push.is_none() {
        return Ok(policy);
    }
    let mut named = files(root);
    let all = BTreeSet::new();
    let outs = named.iter().filter_map(|file| outs(root, file, &all)).flatten();
    let outs: Vec<PathBuf> = outs.map(|(_, path)| path).collect();
    // An output of the whole repository would be everything.
    named.extend(outs.into_iter().filter(|path| path.file_name().is_some()));
    Ok(policy.also_named(named).or_new_paths())
}

/// Lays out the files of one output. Returns whether the cache had any of them.
fn lay_out_one(cache: &LocalCache, out: &OutEntry, path: &Path, folder: &Path) -> Result<bool> {
    let Ok(Some(oid)) = out.oid() else { return Ok(false) };
    let Some(name) = path.to_str() else { return Ok(false) };
    let files =
        if oid.is_dir() { cache.files(&oid, name).unwrap_or_default() } else { vec![(oid, name.to_owned())] };
    let mut found = false;
    for (oid, path) in files {
        let object = cache.path(&oid);
        if object.is_file() {
            link(&object, folder, Path::new(&path))?;
            found = true;
        }
    }
    Ok(found)
}

/// Links a file into the folder. A file that is there already stays, and no path leads out of the folder.
fn link(target: &Path, folder: &Path, path: &Path) -> Result<()> {
    let place = folder.join(path);
    if !path.components().all(|part| matches!(part, Component::Normal(_))) || place.symlink_metadata().is_ok()
    {
        return Ok(());
    }
    let target = std::path::absolute(target);
    let above = place.parent().map_or(Ok(()), fs::create_dir_all);
    let linked = above.and_then(|()| symlink(target?, &place));
    linked.with_context(|| format!("cannot lay out '{}'", path.display()))
}

/// The files of DVC's that name objects. Where git ignores a folder, DVC looks at none of its files.
fn files(root: &Path) -> BTreeSet<PathBuf> {
    let mut git = IgnoreRules::new(root, RuleDialect::Git);
    let (mut files, mut left) = (BTreeSet::new(), vec![PathBuf::new()]);
    while let Some(folder) = left.pop() {
        for entry in root.join(&folder).read_dir().into_iter().flatten().flatten() {
            let (name, path) = (entry.file_name(), folder.join(entry.file_name()));
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if name == ".git" || name == ".dvc" || git.take_one(&path, is_folder).unwrap_or(false) {
                continue;
            }
            if is_folder {
                left.push(path);
            } else if name == "dvc.lock" || name.as_encoded_bytes().ends_with(b".dvc") {
                files.insert(path);
            }
        }
    }
    files
}

/// The outputs of a file, with their paths. Those of a `.dvc` file only if their objects are not `known` from
/// the clone: what a training pulled need not be saved.
fn outs(root: &Path, file: &Path, known: &BTreeSet<String>) -> Option<Vec<(OutEntry, PathBuf)>> {
    let text = text_beneath(root, file).ok()?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let at = |out: OutEntry, wdir: Option<&str>| {
        let path = index::plain(&folder.join(wdir.unwrap_or_default()).join(&out.path));
        (out, path)
    };
    if file.file_name().is_some_and(|name| name != "dvc.lock") {
        let pointer = PointerFile::read(&text).ok()?;
        let new =
            pointer.outs.into_iter().filter(|out| !out.md5.as_ref().is_some_and(|md5| known.contains(md5)));
        return Some(new.map(|out| at(out, pointer.wdir.as_deref())).collect());
    }
    let pipeline = text_beneath(root, &file.with_file_name("dvc.yaml")).ok();
    let pipeline = pipeline.and_then(|text| PipelineFile::read(&text).ok()).unwrap_or_default();
    let of_file = pipeline.variables(&root.join(folder));
    let mut all = Vec::new();
    for (name, stage) in LockFile::read(&text).ok()?.stages {
        let wdir = pipeline.stage(&name, &of_file, &root.join(folder)).and_then(|(stage, variables)| {
            stage.wdir.as_deref().map(|wdir| variables.fill(wdir).unwrap_or_else(|| wdir.to_owned()))
        });
        all.extend(stage.outs.into_iter().map(|out| at(out, wdir.as_deref())));
    }
    Some(all)
}

/// The repository of a file: the nearest folder above it that has `.dvc`.
fn repository(root: &Path, file: &Path) -> PathBuf {
    let above = file.ancestors().skip(1).map(|folder| root.join(folder));
    above.into_iter().find(|folder| folder.join(".dvc").is_dir()).unwrap_or_else(|| root.to_owned())
}
