//! The content of outputs, read and hashed.

use super::super::dir::{self, Listed};
use super::super::remote::{self, Drafts};
use super::super::rules::Rules;
use super::super::{Pointer, Remotes};
use super::pool::{self, Hashed, Source};
use super::shipments::Loads;
use super::target::{Shape, Target};
use super::tree::{self, Found};
use crate::error::Result;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What outputs hold.
pub(super) struct Data {
    /// The files of the directories among them, by the output's path.
    directories: HashMap<String, Vec<Found>>,
    hashes: HashMap<PathBuf, Hashed>,
    /// Links to directories, which are not part of them.
    pub(super) skipped: Vec<String>,
}

impl Data {
    /// Reads all files of the outputs, in one pool.
    pub(super) fn read(
        root: &Path,
        targets: &[Target],
        remotes: &Remotes,
        rules: &mut Rules,
    ) -> Result<Self> {
        let (mut directories, mut skipped, mut files) = (HashMap::new(), Vec::new(), Vec::new());
        for target in targets {
            if target.shape == Shape::Directory {
                let walked = tree::walk(root, &target.path, rules)?;
                files
                    .extend(walked.files.iter().map(|file| Source { path: file.path.clone(), drafts: None }));
                skipped.extend(walked.skipped);
                directories.insert(target.path.clone(), walked.files);
            } else {
                let path = root.join(&target.path);
                files.push(Source { drafts: drafts(&path, target, remotes), path });
            }
        }
        let hashed = pool::hash(&files)?;
        Ok(Self {
            directories,
            hashes: files.into_iter().map(|file| file.path).zip(hashed).collect(),
            skipped,
        })
    }

    /// What to say of an output, whose objects are added to `loads`; none if it was not read.
    pub(super) fn pointer(&self, root: &Path, target: &Target, loads: &mut Loads) -> Option<Pointer> {
        if let Some(files) = self.directories.get(&target.path) {
            return self.directory(files, loads);
        }
        let path = root.join(&target.path);
        let hashed = self.hashes.get(&path)?;
        loads.add(hashed.object(path));
        let executable = target.shape == Shape::Executable;
        Some(Pointer { oid: hashed.oid.clone(), size: hashed.size, files: None, executable })
    }

    fn directory(&self, files: &[Found], loads: &mut Loads) -> Option<Pointer> {
        let mut listed = Vec::with_capacity(files.len());
        let mut size = 0;
        for file in files {
            let hashed = self.hashes.get(&file.path)?;
            size += hashed.size;
            listed.push(Listed { md5: hashed.oid.to_string(), relpath: file.name.clone() });
            loads.add(hashed.object(file.path.clone()));
        }
        let list = dir::object(&mut listed);
        let pointer =
            Pointer { oid: list.oid.clone(), size, files: Some(listed.len() as u64), executable: false };
        loads.add(list);
        Some(pointer)
    }
}

/// Where the file may be copied while it is hashed; nowhere if it may well be what is in the remote already.
fn drafts(path: &Path, target: &Target, remotes: &Remotes) -> Option<Drafts> {
    let known = target.known.as_ref().and_then(|known| known.size);
    if known == Some(path.metadata().ok()?.len()) {
        return None;
    }
    remote::drafts(&remotes.choose(target.remote()).ok()?)
}
