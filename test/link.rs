//! Files on their way to a machine and back, through the real agent.

mod memory;
mod outputs;
mod ssh;
mod stream;
mod workspace;

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// What is at each path below a folder: a link's target, or whether a file is executable and its hash.
fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let entries = walkdir::WalkDir::new(root).into_iter().map(Result::unwrap);
    let describe = |entry: walkdir::DirEntry| {
        let what = if entry.path_is_symlink() {
            format!("-> {:?}", entry.path().read_link().unwrap().as_os_str().as_bytes())
        } else {
            let mut hasher = blake3::Hasher::new();
            std::io::copy(&mut std::fs::File::open(entry.path()).unwrap(), &mut hasher).unwrap();
            let executable = entry.metadata().unwrap().permissions().mode() & 0o100 != 0;
            format!("{executable} {}", hasher.finalize())
        };
        (entry.path().strip_prefix(root).unwrap().to_owned(), what)
    };
    entries.filter(|entry| !entry.file_type().is_dir()).map(describe).collect()
}
