//! The content of outputs, read and hashed.

use super::super::dir::{self, Listed};
use super::super::remote::{self, Drafts};
use super::super::rules::Rules;
use super::super::{Pointer, Settled};
use super::Ordered;
use super::pool::{self, Hashed, Source};
use super::shipments::Loads;
use super::target::{Shape, look};
use super::tree::{self, Found};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use trainspot_base::error::Result;

/// What outputs hold.
pub(super) struct Data {
    /// The files of the directories among them, by the output's path.
    directories: HashMap<String, Vec<Found>>,
    hashes: HashMap<PathBuf, Hashed>,
    /// The files among the outputs that anyone may execute, by the output's path.
    executables: HashSet<String>,
    /// Links to directories, which are not part of them.
    pub(super) skipped: Vec<String>,
}

impl Data {
    /// Reads all files of the outputs, in one pool.
    pub(super) fn read(
        root: &Path,
        outputs: &[Ordered],
        remotes: &Settled,
        rules: &mut Rules,
    ) -> Result<Self> {
        let (mut directories, mut executables) = (HashMap::new(), HashSet::new());
        let (mut skipped, mut files) = (Vec::new(), Vec::new());
        for output in outputs {
            let shape = look(root, &output.path, rules)?;
            if shape == Shape::Directory {
                let walked = tree::walk(root, &output.path, rules)?;
                files
                    .extend(walked.files.iter().map(|file| Source { path: file.path.clone(), drafts: None }));
                skipped.extend(walked.skipped);
                directories.insert(output.path.clone(), walked.files);
            } else {
                let path = root.join(&output.path);
                files.push(Source { drafts: drafts(&path, output, remotes), path });
                if shape == Shape::Executable {
                    executables.insert(output.path.clone());
                }
            }
        }
        let hashed = pool::hash(&files)?;
        Ok(Self {
            directories,
            hashes: files.into_iter().map(|file| file.path).zip(hashed).collect(),
            executables,
            skipped,
        })
    }

    /// What to say of an output, whose objects are added to `loads`; none if it was not read.
    pub(super) fn pointer(&self, root: &Path, output: &Ordered, loads: &mut Loads) -> Option<Pointer> {
        if let Some(files) = self.directories.get(&output.path) {
            return self.directory(files, loads);
        }
        let path = root.join(&output.path);
        let hashed = self.hashes.get(&path)?;
        loads.add(hashed.object(path));
        let executable = self.executables.contains(&output.path);
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
fn drafts(path: &Path, output: &Ordered, remotes: &Settled) -> Option<Drafts> {
    if output.size == Some(path.metadata().ok()?.len()) {
        return None;
    }
    remote::drafts(remotes.choose(output.remote.as_deref()).ok()?)
}
