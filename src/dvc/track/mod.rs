//! `dvc add` for the outputs of a run: hashes them, and says what to write where.
//!
//! Nothing is written here: what is hashed on the machine becomes pointers in the clone.

mod data;
mod ignored;
pub(super) mod index;
mod pool;
mod shipments;
mod target;
mod tree;

use super::remote::Settings;
use super::rules::{Kind, Rules};
use super::{Object, Pointer, Remotes, gitignore, init};
use crate::error::{Context as _, Error, Result};
use crate::transfer::Place;
use data::Data;
use serde::{Deserialize, Serialize};
pub(super) use shipments::Shipments;
use std::collections::BTreeMap;
use std::path::Path;
pub(super) use target::literals;
use target::{Shape, Target};

/// What to track in a DVC repository, and where its objects go.
pub struct Tracking<'a> {
    /// The clone's folder.
    pub root: &'a Path,
    /// The folder of the DVC repository, relative to the clone's; empty if it is the same.
    pub folder: &'a Path,
    /// Files and directories, relative to the DVC repository's folder.
    pub outputs: &'a [String],
    /// What git tracks at a path, below it, or above it that is no folder: a file, a link or a submodule. The path is
    /// relative to the clone. There may be no `.git` here to ask.
    pub in_git: &'a (dyn Fn(&Path) -> Option<String> + Sync),
    /// Where objects go.
    pub remotes: &'a Remotes,
}

/// What tracking came to.
#[derive(Debug, Default)]
pub struct Tracked {
    /// The files to write and commit: pointers, `.gitignore`, and those of `dvc init` where they are missing.
    pub changes: Vec<Change>,
    /// The objects to send, before any of the changes is committed.
    pub shipments: Vec<Shipment>,
    /// What each output is, in the order given.
    pub pointers: Vec<(String, Pointer)>,
    /// Links to directories inside outputs: as with DVC, they are not part of them.
    pub skipped: Vec<String>,
}

/// A file with its new content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its path, relative to the repository's folder.
    pub path: String,
    /// All of its bytes.
    pub content: String,
}

/// Objects for one remote.
#[derive(Debug)]
pub struct Shipment {
    /// The remote.
    pub remote: Settings,
    /// The objects, each once: those of files, then those of directories.
    pub objects: Vec<Object>,
}

/// Hashes outputs and says what to write and to send. Blocks its thread while it reads them.
///
/// # Errors
/// An output is missing, is not DVC's to track, or overlaps another; a file of DVC's or git's cannot be read.
pub fn track(tracking: &Tracking<'_>) -> Result<Tracked> {
    tracking.named(|base| {
        let mut rules = Rules::new(base, Kind::Dvc);
        let targets = target::targets(tracking, &mut rules, Presence::Now)?;
        let data = Data::read(base, &targets, tracking.remotes, &mut rules)?;
        let (mut shipments, mut pointers) = (Shipments::default(), Vec::with_capacity(targets.len()));
        for target in &targets {
            let loads = shipments.of(tracking.remotes.choose(target.remote())?);
            let pointer = data.pointer(base, target, loads);
            pointers.push(pointer.ok_or_else(|| Error::new(format!("'{}' was not hashed", target.path)))?);
        }
        let changes = changes(tracking, &targets, &pointers)?;
        let within = |path: &String| tracking.in_clone(path);
        let pointers = targets.iter().map(|target| within(&target.path)).zip(pointers).collect();
        let skipped = data.skipped.iter().map(within).collect();
        Ok(Tracked { changes, shipments: shipments.finish(), pointers, skipped })
    })
}

/// What tracking would come to, as far as that is known before there are outputs.
#[derive(Debug, Default)]
pub struct Prospect {
    /// The remotes that it would send to.
    pub remotes: Vec<Settings>,
}

/// Does what [`track`] does but for the outputs' content: the outputs may be missing.
///
/// # Errors
/// Those of [`track`] that do not depend on the content.
pub fn foresee(tracking: &Tracking<'_>) -> Result<Prospect> {
    tracking.named(|base| {
        let targets = target::targets(tracking, &mut Rules::new(base, Kind::Dvc), Presence::Later)?;
        let remotes = targets.iter().map(|target| tracking.remotes.choose(target.remote()));
        let remotes = remotes.collect::<Result<_>>()?;
        changes(tracking, &targets, &vec![Pointer::to_nothing(); targets.len()])?;
        Ok(Prospect { remotes })
    })
}

/// Whether the outputs must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Now,
    /// Those that are missing are made by the training.
    Later,
}

impl Tracking<'_> {
    /// Does work on the DVC repository's folder. Errors tell which it is, unless it is the clone.
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
fn changes(tracking: &Tracking<'_>, targets: &[Target], pointers: &[Pointer]) -> Result<Vec<Change>> {
    let base = tracking.root.join(tracking.folder);
    let mut git = Rules::new(tracking.root, Kind::Git);
    let mut changes = BTreeMap::new();
    for (target, pointer) in targets.iter().zip(pointers) {
        let content = pointer_text(&base, target, pointer)?;
        changes.insert(tracking.in_clone(&target.pointer), content);
        ignore(tracking, target, &mut git, &mut changes)?;
    }
    if !targets.is_empty() && tracking.folder == Path::new("") {
        let files = init::files(tracking.root, tracking.remotes.address())?;
        changes.extend(files.into_iter().map(|(path, content)| (path.to_owned(), content)));
    }
    Ok(changes.into_iter().map(|(path, content)| Change { path, content }).collect())
}

/// Writes the changes into a repository, and nothing else: whoever made them may have been told to by a training.
///
/// # Errors
/// One is no file that `dvc add` writes, or cannot be written.
pub fn write(root: &Path, changes: &[Change]) -> Result<()> {
    if let Some(other) = changes.iter().find(|change| !change.is_of_dvc()) {
        return Err(Error::new(format!("refused to write '{}': it is no file of DVC's", other.path)));
    }
    let place = Place::open(root)?;
    changes.iter().try_for_each(|change| place.write(&change.path, change.content.as_bytes()))
}

impl Change {
    fn is_of_dvc(&self) -> bool {
        let path = Path::new(&self.path);
        let named = |name: &str| path.file_name().is_some_and(|own| own == name);
        let pointer = path.extension().is_some_and(|end| end == "dvc");
        pointer || named(".gitignore") || named(".dvcignore") || path == Path::new(".dvc/config")
    }
}

/// The text of an output's `.dvc` file.
fn pointer_text(base: &Path, target: &Target, pointer: &Pointer) -> Result<String> {
    if target.known.is_none() {
        return Ok(pointer.create(target.name()));
    }
    let cannot = || format!("cannot update '{}'", target.pointer);
    let old = crate::transfer::text_beneath(base, Path::new(&target.pointer)).with_context(cannot)?;
    pointer.update(&old).with_context(cannot)
}

/// Makes git ignore an output, unless it does.
fn ignore(
    tracking: &Tracking<'_>,
    target: &Target,
    git: &mut Rules,
    changes: &mut BTreeMap<String, String>,
) -> Result<()> {
    let output = tracking.folder.join(&target.path);
    if git.take(&output, target.shape == Shape::Directory)? {
        return Ok(());
    }
    let folder = output.parent().unwrap_or(Path::new(""));
    let path = folder.join(".gitignore").to_string_lossy().into_owned();
    let old = match changes.get(&path) {
        Some(content) => content.clone(),
        None => match crate::transfer::text_beneath(tracking.root, Path::new(&path)) {
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
