//! An output as a tree names it, and what of a tree is in its way.

use git2::{FileMode, ObjectType, Oid, Tree};
use std::path::PathBuf;

/// A file as a tree names it.
pub(super) struct OutputEntry {
    pub(super) path: PathBuf,
    pub(super) id: Oid,
    pub(super) mode: FileMode,
    /// The committed bytes of a file that can be merged with the branch's.
    pub(super) content: Option<Vec<u8>>,
}

impl OutputEntry {
    /// Content and mode, as a tree has them.
    pub(super) fn version(&self) -> (Oid, i32) {
        (self.id, self.mode.into())
    }

    /// Whether a tree has something else than a file in the output's place, or than a folder above it.
    pub(super) fn is_obstructed(&self, tree: &Tree<'_>) -> bool {
        self.obstacle(tree).is_some()
    }

    /// What a tree has in the output's way, in words: a commit that deletes a directory for it would change
    /// more than outputs.
    pub(super) fn obstacle(&self, tree: &Tree<'_>) -> Option<String> {
        let places = self.path.ancestors().filter(|place| !place.as_os_str().is_empty());
        places.into_iter().find_map(|place| {
            let wanted = if place == self.path { ObjectType::Blob } else { ObjectType::Tree };
            // Below a file nothing is found; one of the next, shorter, places is that file.
            let found = tree.get_path(place).ok()?.kind();
            let what = match found {
                found if found == Some(wanted) => return None,
                Some(ObjectType::Tree) => "a directory",
                Some(ObjectType::Blob) => "a file",
                _ => "a submodule",
            };
            Some(format!("{} is {what}", place.display()))
        })
    }
}
