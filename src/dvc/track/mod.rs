//! `dvc add` for the outputs of a run: hashes them, and says what to write where.
//!
//! Nothing is written here: what is hashed on the machine becomes pointers in the clone.

mod data;
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
use target::{Shape, Target};

/// What to track, and where.
pub struct Tracking<'a> {
    /// The repository's folder.
    pub root: &'a Path,
    /// Files and directories, relative to it.
    pub outputs: &'a [String],
    /// Whether git tracks a path, or anything below it. There may be no `.git` here to ask.
    pub in_git: &'a (dyn Fn(&str) -> bool + Sync),
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
    let mut rules = Rules::new(tracking.root, Kind::Dvc);
    let targets = target::targets(tracking, &mut rules)?;
    let data = Data::read(tracking.root, &targets, tracking.remotes, &mut rules)?;
    let (mut shipments, mut changes) = (Shipments::default(), BTreeMap::new());
    let mut git = Rules::new(tracking.root, Kind::Git);
    let mut pointers = Vec::with_capacity(targets.len());
    for target in &targets {
        let loads = shipments.of(tracking.remotes.choose(target.remote())?);
        let pointer = data.pointer(tracking.root, target, loads);
        let pointer = pointer.ok_or_else(|| Error::new(format!("'{}' was not hashed", target.path)))?;
        write_pointer(tracking.root, target, &pointer, &mut changes)?;
        ignore(tracking.root, target, &mut git, &mut changes)?;
        pointers.push((target.path.clone(), pointer));
    }
    if !targets.is_empty() {
        let files = init::files(tracking.root, tracking.remotes.address())?;
        changes.extend(files.into_iter().map(|(path, content)| (path.to_owned(), content)));
    }
    let changes = changes.into_iter().map(|(path, content)| Change { path, content }).collect();
    Ok(Tracked { changes, shipments: shipments.finish(), pointers, skipped: data.skipped })
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

fn write_pointer(
    root: &Path,
    target: &Target,
    pointer: &Pointer,
    changes: &mut BTreeMap<String, String>,
) -> Result<()> {
    let content = if target.known.is_some() {
        let cannot = || format!("cannot update '{}'", target.pointer);
        let old = std::fs::read_to_string(root.join(&target.pointer)).with_context(cannot)?;
        pointer.update(&old).with_context(cannot)?
    } else {
        pointer.create(target.name())
    };
    changes.insert(target.pointer.clone(), content);
    Ok(())
}

/// Makes git ignore an output, unless it does.
fn ignore(
    root: &Path,
    target: &Target,
    git: &mut Rules,
    changes: &mut BTreeMap<String, String>,
) -> Result<()> {
    if git.take(Path::new(&target.path), target.shape == Shape::Directory)? {
        return Ok(());
    }
    let folder = Path::new(&target.path).parent().unwrap_or(Path::new(""));
    let path = folder.join(".gitignore").to_string_lossy().into_owned();
    let old = match changes.get(&path) {
        Some(content) => content.clone(),
        None => match std::fs::read_to_string(root.join(&path)) {
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
