//! The content of outputs, read and hashed.

use super::super::dir::{self, ListedFile};
use super::super::remote::{self, Drafts};
use super::super::rules::IgnoreRules;
use super::super::{Pointer, Settled};
use super::RequestedOutput;
use super::pool::{self, FileToHash, Hashed};
use super::target::{OutputShape, look};
use super::tree::{self, WalkedFile};
use super::upload_plan::ObjectSet;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use trainspot_base::error::Result;

/// The files that outputs hold, with their hashes.
pub(super) struct OutputData {
    /// The files of each output that is a directory, by the output's path.
    directories: HashMap<String, Vec<WalkedFile>>,
    hashes: HashMap<PathBuf, Hashed>,
    /// The files among the outputs that anyone may execute, by the output's path.
    executables: HashSet<String>,
    /// Links to directories, which are not part of the outputs.
    pub(super) skipped: Vec<String>,
}

impl OutputData {
    /// Reads all files of the outputs, in one pool.
    pub(super) fn read(
        root: &Path,
        outputs: &[RequestedOutput],
        remotes: &Settled,
        rules: &mut IgnoreRules,
    ) -> Result<Self> {
        let (mut directories, mut executables) = (HashMap::new(), HashSet::new());
        let (mut skipped, mut files) = (Vec::new(), Vec::new());
        for output in outputs {
            let shape = look(root, &output.path, rules)?;
            if shape == OutputShape::Directory {
                let walked = tree::walk(root, &output.path, rules)?;
                files.extend(
                    walked.files.iter().map(|file| FileToHash { path: file.path.clone(), drafts: None }),
                );
                skipped.extend(walked.skipped);
                directories.insert(output.path.clone(), walked.files);
            } else {
                let path = root.join(&output.path);
                files.push(FileToHash { drafts: drafts(&path, output, remotes), path });
                if shape == OutputShape::Executable {
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

    /// The pointer to an output; none if the output was not read. Adds the output's objects to `loads`.
    pub(super) fn pointer(
        &self,
        root: &Path,
        output: &RequestedOutput,
        loads: &mut ObjectSet,
    ) -> Option<Pointer> {
        if let Some(files) = self.directories.get(&output.path) {
            return self.directory(files, loads);
        }
        let path = root.join(&output.path);
        let hashed = self.hashes.get(&path)?;
        loads.add(hashed.object(path));
        let executable = self.executables.contains(&output.path);
        Some(Pointer { oid: hashed.oid.clone(), size: hashed.size, files: None, executable })
    }

    fn directory(&self, files: &[WalkedFile], loads: &mut ObjectSet) -> Option<Pointer> {
        let mut listed = Vec::with_capacity(files.len());
        let mut size = 0;
        for file in files {
            let hashed = self.hashes.get(&file.path)?;
            size += hashed.size;
            listed.push(ListedFile { md5: hashed.oid.to_string(), relpath: file.name.clone() });
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
fn drafts(path: &Path, output: &RequestedOutput, remotes: &Settled) -> Option<Drafts> {
    if output.size == Some(path.metadata().ok()?.len()) {
        return None;
    }
    remote::drafts(remotes.choose(output.remote.as_deref()).ok()?)
}
