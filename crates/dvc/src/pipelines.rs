//! What a training that used DVC itself leaves to be sent: the cached outputs of `dvc.lock` and of `.dvc`
//! files.

use super::outs::{LockFile, OutEntry, OutFlag, OutFlags, PipelineFile, PointerFile, StageEntry};
use super::rules::{IgnoreRules, RuleDialect};
use super::template::{Variables, is_filled_in, is_template};
use super::track::{UploadPlan, index};
use super::{Object, ObjectContent, Oid, Remotes, Settled, Upload, config, dir};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tracing::warn;
use trainspot_base::error::{Context as _, Error, Result};

/// The objects to send from DVC's cache.
#[derive(Debug, Default)]
pub struct CacheUploads {
    /// The objects, by remote.
    pub uploads: Vec<Upload>,
    /// The outputs that are left out, each with why.
    pub left_out: Vec<String>,
}

/// An output with content, which DVC is to keep in a remote.
#[derive(Debug)]
struct NamedObject {
    out: OutEntry,
    oid: Oid,
    /// The output's path, relative to the repository.
    path: String,
    /// Whether a stage of a pipeline makes the output; else `dvc add` tracks it.
    made: bool,
}

/// The objects of all outputs that the repository's files of DVC's name: those that are in the cache of this
/// machine, and for the others the question whether the remote has them.
///
/// Outputs with `cache: false` are git's and those with `push: false` are nobody's, as in `dvc push`. A stage
/// that was never run has none. What `dvc.lock` names must be here or in the remote: `dvc push` would pass
/// over it with a warning. So must what a `.dvc` file names, unless its object is one of `known`: the clone
/// named it before, so it was not made here.
///
/// # Errors
/// A file of DVC's cannot be read, a template in it cannot be matched, or a remote cannot be used.
pub fn cache_uploads(root: &Path, remotes: &Settled, known: &BTreeSet<String>) -> Result<CacheUploads> {
    let cache = LocalCache::of(root)?;
    let (mut uploads, mut left_out) = (UploadPlan::default(), Vec::new());
    for (file, named) in all(root)? {
        let cannot = || format!("cannot push the outputs of '{}'", file.display());
        let needed = named.made || !known.contains(&named.oid.to_string());
        let own = named.out.remote.as_deref().filter(|own| !own.is_empty());
        let here = cache.has(&named.oid);
        let remote = match remotes.choose(own) {
            Err(error) if own.is_some_and(|own| stays(remotes, own, &named, here, needed)) => {
                left_out.push(format!(
                    "'{}' was not made here, and stays in its own remote: {error}",
                    named.path
                ));
                continue;
            }
            remote => remote.with_context(cannot)?.clone(),
        };
        if named.out.is_versioned() && !here {
            left_out.push(format!("'{}' is kept by the versions of a cloud's own", named.path));
            continue;
        }
        let objects = cache.objects(&named.oid, &named.path, needed).with_context(cannot)?;
        let loads = uploads.of(remote);
        for object in objects {
            loads.add(object);
        }
    }
    Ok(CacheUploads { uploads: uploads.finish(), left_out })
}

/// Whether an output can stay where it is: in the remote `own`, which the output names and which cannot be
/// used from here. This run did not make such an output anew.
fn stays(remotes: &Settled, own: &str, named: &NamedObject, here: bool, needed: bool) -> bool {
    !needed || (remotes.is_unsupported(own) && (named.out.is_versioned() || !here))
}

/// Finds out before a training what would keep its outputs from being sent after it.
///
/// # Errors
/// A file of DVC's cannot be read, or a remote that outputs name does not exist, or cannot be used on the
/// machine.
pub(super) fn check(root: &Path, remotes: &Remotes) -> Result<()> {
    let mut chosen = BTreeSet::new();
    for file in index::read(root, &mut IgnoreRules::new(root, RuleDialect::Dvc))?.files {
        let outs = if is_pipeline(&file) {
            let pipeline = PipelineFile::read(&read(root, &file)?)?;
            let outs = pipeline.stages.values().map(StageEntry::body).flat_map(StageEntry::outs);
            let sent = outs.map(|(_, flags)| flags).filter(OutFlags::may_be_sent);
            sent.map(|flags| flags.remote.unwrap_or_default()).collect::<Vec<_>>()
        } else {
            // What has a remote of its own there was put into it by somebody else.
            let outs = PointerFile::read(&read(root, &file)?)?.outs.into_iter();
            outs.filter(|out| out.cache && out.push && out.remote.is_none()).map(|_| String::new()).collect()
        };
        chosen.extend(outs.into_iter().filter(|remote| !is_template(remote)));
    }
    for own in chosen {
        if !own.is_empty() && remotes.is_unsupported(&own) {
            warn!(
                "outputs of stages belong in the DVC remote '{own}', of a kind that DVC_PUSH cannot send to: a stage that makes one anew makes the run fail"
            );
            continue;
        }
        remotes.choose(Some(&own))?;
    }
    all(root).map(drop)
}

/// The objects that the `.dvc` files of a repository name.
///
/// # Errors
/// A file of DVC's cannot be read.
pub(super) fn known(root: &Path) -> Result<BTreeSet<String>> {
    Ok(all(root)?
        .into_iter()
        .filter(|(_, named)| !named.made)
        .map(|(_, named)| named.oid.to_string())
        .collect())
}

/// The outputs to send, each with the file that names it.
fn all(root: &Path) -> Result<Vec<(PathBuf, NamedObject)>> {
    let mut all = Vec::new();
    for file in index::read(root, &mut IgnoreRules::new(root, RuleDialect::Dvc))?.files {
        let named = if is_pipeline(&file) { of_pipeline(root, &file) } else { of_pointer(root, &file) };
        let named = named.with_context(|| format!("cannot push the outputs of '{}'", file.display()))?;
        all.extend(named.into_iter().map(|named| (file.clone(), named)));
    }
    Ok(all)
}

fn is_pipeline(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name == "dvc.yaml")
}

fn read(root: &Path, file: &Path) -> Result<String> {
    trainspot_transfer::text_beneath(root, file).with_context(|| format!("cannot read '{}'", file.display()))
}

fn of_pointer(root: &Path, file: &Path) -> Result<Vec<NamedObject>> {
    let pointer = PointerFile::read(&read(root, file)?)?;
    if pointer.is_import_of_repository() {
        return Ok(Vec::new());
    }
    let folder = file.with_file_name(pointer.wdir.as_deref().unwrap_or_default());
    let outs = pointer.outs.into_iter().filter(|out| out.cache && out.push);
    outs.filter_map(|out| NamedObject::of(out, &folder, false).transpose()).collect()
}

fn of_pipeline(root: &Path, file: &Path) -> Result<Vec<NamedObject>> {
    let lock = file.with_file_name("dvc.lock");
    if index::GitRules::of(root).take(&lock, false)? {
        return Err(Error::new(format!("git ignores '{}', which stops each command of DVC", lock.display()))
            .hint("take it out of .gitignore and commit it"));
    }
    if !root.join(&lock).exists() {
        return Ok(Vec::new());
    }
    let pipeline = PipelineFile::read(&read(root, file)?)?;
    let lock = LockFile::read(&read(root, &lock)?)?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let of_file = pipeline.variables(&root.join(folder));
    let mut all = Vec::new();
    for (name, stage) in lock.stages {
        // Stages that are only in the lock are gone.
        let Some((written, variables)) = pipeline.stage(&name, &of_file, &root.join(folder)) else {
            continue;
        };
        let wdir =
            written.wdir.as_deref().map(|wdir| variables.fill(wdir).unwrap_or_else(|| wdir.to_owned()));
        let folder = folder.join(wdir.unwrap_or_default());
        for mut out in stage.outs {
            if let Some(flags) = flags(written, &variables, &name, &out.path)? {
                out.remote = flags.remote;
                all.extend(NamedObject::of(out, &folder, true)?);
            }
        }
    }
    Ok(all)
}

impl NamedObject {
    /// An output of a file in `folder`; none if it has no content yet, or is not one of the repository.
    fn of(out: OutEntry, folder: &Path, made: bool) -> Result<Option<Self>> {
        let path = index::plain(&folder.join(&out.path));
        let inside = !out.is_external() && !path.starts_with("..");
        let Some(oid) = out.oid()?.filter(|_| inside) else { return Ok(None) };
        Ok(Some(Self { oid, path: path.to_string_lossy().into_owned(), out, made }))
    }
}

/// What a stage says of an output of its; none if it is not one to send, or the stage has it no more.
pub(super) fn flags(
    stage: &StageEntry,
    variables: &Variables,
    name: &str,
    path: &str,
) -> Result<Option<OutFlags>> {
    let is = |written: &str| written == path || variables.fill(written).as_deref() == Some(path);
    let mut found: Vec<OutFlags> =
        stage.outs().filter(|(written, _)| is(written)).map(|(_, flags)| flags).collect();
    if found.is_empty() {
        let unknown = |written: &str| is_template(written) && variables.fill(written).is_none();
        let like = stage.outs().filter(|(written, _)| unknown(written) && is_filled_in(written, path));
        found = like.map(|(_, flags)| flags).collect();
    }
    found.dedup();
    let unclear = |why: &str| {
        Err(Error::new(format!("'{path}' of the stage '{name}' {why} in dvc.yaml")).hint(
            "write the output or its flags without a template, or push it by `dvc push` in the command",
        ))
    };
    let [flags] = found.as_slice() else {
        return if found.is_empty() {
            Ok(None)
        } else {
            unclear("matches several templates with different flags")
        };
    };
    let remote = flags.remote.as_deref().unwrap_or_default();
    match (&flags.cache, &flags.push, variables.fill(remote)) {
        (Some(OutFlag::Template(_)), ..) | (_, Some(OutFlag::Template(_)), _) => {
            unclear("has a flag that is a template")
        }
        (Some(OutFlag::Known(false)), ..) | (_, Some(OutFlag::Known(false)), _) => Ok(None),
        (.., None) => unclear("has a remote that is a template"),
        (.., Some(remote)) => {
            Ok(Some(OutFlags { remote: Some(remote).filter(|remote| !remote.is_empty()), ..flags.clone() }))
        }
    }
}

/// The objects that DVC keeps on this machine.
pub(super) struct LocalCache {
    folder: PathBuf,
}

impl LocalCache {
    /// The cache of the repository at `root`.
    pub(super) fn of(root: &Path) -> Result<Self> {
        Ok(Self { folder: config::cache(root)? })
    }

    /// The path of an object, whether the cache has it or not.
    pub(super) fn path(&self, oid: &Oid) -> PathBuf {
        self.folder.join(oid.key())
    }

    fn has(&self, oid: &Oid) -> bool {
        self.path(oid).exists()
    }

    /// The object of an output, and those of the files that it lists, each with its path.
    pub(super) fn files(&self, oid: &Oid, output: &str) -> Result<Vec<(Oid, String)>> {
        if !oid.is_dir() || !self.has(oid) {
            return Ok(Vec::new());
        }
        let cannot = || format!("the list of '{output}' in DVC's cache is damaged");
        let list = std::fs::read(self.path(oid)).with_context(cannot)?;
        let files = dir::read(&list).with_context(cannot)?.into_iter().map(|file| {
            let found = Oid::parse(&file.md5).ok_or_else(|| Error::new(cannot()))?;
            let found = if oid.is_of_dvc_2() { found.of_dvc_2() } else { found };
            Ok((found, format!("{output}/{}", file.relpath)))
        });
        files.collect()
    }

    /// The object of an output, after those of the files that it lists.
    fn objects(&self, oid: &Oid, output: &str, needed: bool) -> Result<Vec<Object>> {
        let mut files = self.files(oid, output)?;
        files.push((oid.clone(), output.to_owned()));
        files.into_iter().map(|(oid, output)| self.object(oid, output, needed)).collect()
    }

    fn object(&self, oid: Oid, output: String, needed: bool) -> Result<Object> {
        let path = self.path(&oid);
        match path.metadata() {
            Ok(metadata) => Ok(Object { oid, size: metadata.len(), content: ObjectContent::File(path) }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Object { oid, size: 0, content: ObjectContent::Elsewhere { output, needed } })
            }
            Err(error) => Err(error).with_context(|| format!("cannot look at {}", path.display())),
        }
    }
}
