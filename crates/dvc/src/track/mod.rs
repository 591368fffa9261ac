//! `dvc add` for the outputs of a run, in three parts: [`foresee`] reads the clone before there are outputs,
//! [`hash`] reads the outputs where they are made, and [`render`] makes of their hashes the files to write
//! into the clone. Only the middle one looks at a machine's workspace, and it looks at nothing there but the
//! outputs.

mod data;
mod ignored;
pub(super) mod index;
mod pool;
mod target;
mod tree;
mod upload_plan;

use super::remote::Settings;
use super::rules::{IgnoreRules, RuleDialect};
use super::{Object, Pointer, Remotes, Settled, gitignore, init};
use data::OutputData;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use target::TrackTarget;
pub(super) use target::literals;
use trainspot_base::error::{Context as _, Error, Result};
use trainspot_transfer::TargetFolder;
pub(super) use upload_plan::UploadPlan;

/// What to track in a DVC repository, and where its objects go.
pub struct Tracking<'a> {
    /// The clone's folder.
    pub root: &'a Path,
    /// The folder of the DVC repository, relative to the clone's; empty if it is the same.
    pub folder: &'a Path,
    /// Files and directories, relative to the DVC repository's folder.
    pub outputs: &'a [String],
    /// What git tracks at a path, below it, or above it that is no folder: a file, a link or a submodule. The
    /// path is relative to the clone. There may be no `.git` here to ask.
    pub in_git: &'a (dyn Fn(&Path) -> Option<String> + Sync),
    /// Where objects go.
    pub remotes: &'a Remotes,
}

/// The result of tracking.
#[derive(Debug, Default)]
pub struct Tracked {
    /// The files to write and commit: pointers, `.gitignore`, and those of `dvc init` where they are missing.
    pub changes: Vec<Change>,
    /// The objects to send, before any of the changes is committed.
    pub uploads: Vec<Upload>,
    /// Each output's path and pointer, in the order given.
    pub pointers: Vec<(String, Pointer)>,
    /// Links to directories inside outputs: as with DVC, they are not part of them.
    pub skipped: Vec<String>,
}

/// A file with its new content. Only this room makes one, from the clone's own files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its path, relative to the repository's folder.
    pub path: String,
    /// All of its bytes.
    pub content: String,
}

/// Objects for one remote.
#[derive(Debug)]
pub struct Upload {
    /// The remote.
    pub remote: Settings,
    /// The objects, each once: those of then those of directories.
    pub objects: Vec<Object>,
}

/// An output to hash, with what the clone says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestedOutput {
    /// The output's path, relative to the DVC repository's folder.
    pub(super) path: String,
    /// The remote that the output's `.dvc` file names.
    pub(super) remote: Option<String>,
    /// The size that the output's `.dvc` file says.
    pub(super) size: Option<u64>,
}

/// The result of hashing.
#[derive(Debug, Default)]
pub(super) struct Hashes {
    /// The pointers of the outputs, in their order.
    pub(super) pointers: Vec<Pointer>,
    /// The objects to send.
    pub(super) uploads: Vec<Upload>,
    /// Links to directories inside outputs.
    pub(super) skipped: Vec<String>,
}

/// All three parts at once, where the clone holds the outputs. Blocks its thread while it reads them.
///
/// # Errors
/// An output is missing, is not DVC's to track, or overlaps another; a file of DVC's or git's cannot be read.
pub fn track(tracking: &Tracking<'_>) -> Result<Tracked> {
    let prospect = foresee(tracking)?;
    tracking.named(|base| {
        let mut rules = IgnoreRules::sealed(base, RuleDialect::Dvc, &prospect.rules);
        let hashes = hash(base, &prospect.outputs, &mut rules, &tracking.remotes.settle())?;
        let changes = changes(tracking, &targets(tracking, base)?, &hashes.pointers)?;
        let within = |path: &String| tracking.in_clone(path);
        let paths = prospect.outputs.iter().map(|output| within(&output.path));
        let pointers = paths.zip(hashes.pointers).collect();
        let skipped = hashes.skipped.iter().map(within).collect();
        Ok(Tracked { changes, uploads: hashes.uploads, pointers, skipped })
    })
}

/// What tracking would come to, as far as that is known before there are outputs.
#[derive(Debug, Default)]
pub struct Prospect {
    /// The remotes that it would send to.
    pub remotes: Vec<Settings>,
    /// The outputs, each once, in the order given.
    pub(super) outputs: Vec<RequestedOutput>,
    /// The `.dvcignore` files above the outputs, by folder: only they can leave out what is in an output.
    pub(super) rules: BTreeMap<PathBuf, String>,
}

/// Does what tracking does but for the outputs' content: the outputs may be missing.
///
/// # Errors
/// Those of [`track`] that do not depend on the content.
pub fn foresee(tracking: &Tracking<'_>) -> Result<Prospect> {
    tracking.named(|base| {
        let targets = targets(tracking, base)?;
        let remotes = targets.iter().map(|target| tracking.remotes.choose(target.remote()));
        let remotes = remotes.collect::<Result<_>>()?;
        changes(tracking, &targets, &vec![Pointer::to_nothing(); targets.len()])?;
        Ok(Prospect {
            remotes,
            outputs: targets.iter().map(TrackTarget::requested).collect(),
            rules: above(base, &targets)?,
        })
    })
}

/// Hashes outputs of the DVC repository at `base`. Blocks its thread while it reads them.
///
/// # Errors
/// An output is missing, or is not DVC's to track.
pub(super) fn hash(
    base: &Path,
    outputs: &[RequestedOutput],
    rules: &mut IgnoreRules,
    remotes: &Settled,
) -> Result<Hashes> {
    let data = OutputData::read(base, outputs, remotes, rules)?;
    let (mut uploads, mut pointers) = (UploadPlan::default(), Vec::with_capacity(outputs.len()));
    for output in outputs {
        let loads = uploads.of(remotes.choose(output.remote.as_deref())?.clone());
        let pointer = data.pointer(base, output, loads);
        pointers.push(pointer.ok_or_else(|| Error::new(format!("'{}' was not hashed", output.path)))?);
    }
    Ok(Hashes { pointers, uploads: uploads.finish(), skipped: data.skipped })
}

/// The files to write for outputs that are what `pointers` say, as the clone's files are now.
///
/// # Errors
/// The clone's files have changed so that DVC would refuse an output, or cannot be read.
pub(super) fn render(tracking: &Tracking<'_>, pointers: &[Pointer]) -> Result<Vec<Change>> {
    tracking.named(|base| changes(tracking, &targets(tracking, base)?, pointers))
}

/// The outputs as the clone's files know them.
fn targets(tracking: &Tracking<'_>, base: &Path) -> Result<Vec<TrackTarget>> {
    target::targets(tracking, &mut IgnoreRules::new(base, RuleDialect::Dvc))
}

/// The `.dvcignore` files of the folders above the outputs.
fn above(base: &Path, targets: &[TrackTarget]) -> Result<BTreeMap<PathBuf, String>> {
    let folders: BTreeSet<&Path> =
        targets.iter().flat_map(|target| Path::new(&target.path).ancestors().skip(1)).collect();
    let rules = IgnoreRules::new(base, RuleDialect::Dvc);
    let texts = folders.into_iter().map(|folder| Ok((folder.to_owned(), rules.text(folder)?)));
    texts.filter(|text| !text.as_ref().is_ok_and(|(_, text)| text.is_empty())).collect()
}

/// Whether the outputs must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OutputPresence {
    Now,
    /// They may be missing: the training makes them.
    Later,
}

impl Tracking<'_> {
    /// Does work on the DVC repository's folder. Errors name the folder, unless it is the clone's own.
    fn named<T>(&self, work: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let done = work(&self.root.join(self.folder));
        if self.folder == Path::new("") {
            return done;
        }
        done.with_context(|| format!("in the DVC repository '{}'", self.folder.display()))
    }

    /// A path of the DVC repository, relative to the clone's folder.
    fn in_clone(&self, path: &String) -> String {
        self.folder.join(path).to_string_lossy().into_owned()
    }
}

/// The files to write for outputs with these pointers, relative to the clone's folder.
fn changes(tracking: &Tracking<'_>, targets: &[TrackTarget], pointers: &[Pointer]) -> Result<Vec<Change>> {
    let base = tracking.root.join(tracking.folder);
    let mut git = IgnoreRules::new(tracking.root, RuleDialect::Git);
    let mut changes = BTreeMap::new();
    for (target, pointer) in targets.iter().zip(pointers) {
        let content = pointer_text(&base, target, pointer)?;
        changes.insert(tracking.in_clone(&target.pointer), content);
        ignore(tracking, target, pointer.files.is_some(), &mut git, &mut changes)?;
    }
    if !targets.is_empty() && tracking.folder == Path::new("") {
        let files = init::files(tracking.root, tracking.remotes.address())?;
        changes.extend(files.into_iter().map(|(path, content)| (path.to_owned(), content)));
    }
    Ok(changes.into_iter().map(|(path, content)| Change { path, content }).collect())
}

/// Writes the changes into a repository, and nothing else.
///
/// # Errors
/// One cannot be written.
pub fn write(root: &Path, changes: &[Change]) -> Result<()> {
    let place = TargetFolder::open(root)?;
    changes.iter().try_for_each(|change| place.write(&change.path, change.content.as_bytes()))
}

/// The text of an output's `.dvc` file.
fn pointer_text(base: &Path, target: &TrackTarget, pointer: &Pointer) -> Result<String> {
    if target.known.is_none() {
        return Ok(pointer.create(target.name()));
    }
    let cannot = || format!("cannot update '{}'", target.pointer);
    let old = trainspot_transfer::text_beneath(base, Path::new(&target.pointer)).with_context(cannot)?;
    pointer.update(&old).with_context(cannot)
}

/// Adds the line to `.gitignore` that makes git ignore an output, unless git ignores the output already.
fn ignore(
    tracking: &Tracking<'_>,
    target: &TrackTarget,
    is_folder: bool,
    git: &mut IgnoreRules,
    changes: &mut BTreeMap<String, String>,
) -> Result<()> {
    let output = tracking.folder.join(&target.path);
    if git.take(&output, is_folder)? {
        return Ok(());
    }
    let folder = output.parent().unwrap_or(Path::new(""));
    let path = folder.join(".gitignore").to_string_lossy().into_owned();
    let old = match changes.get(&path) {
        Some(content) => content.clone(),
        None => match trainspot_transfer::text_beneath(tracking.root, Path::new(&path)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            old => old.with_context(|| format!("cannot read '{path}'"))?,
        },
    };
    let content = gitignore::with_entry(&old, target.name());
    git.set(folder, &content);
    changes.insert(path, content);
    Ok(())
}

/// A path as text.
fn utf8(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        Error::new(format!("the name '{}' is not UTF-8, which DVC cannot keep", path.display()))
            .hint("give the file a name in UTF-8")
    })
}
