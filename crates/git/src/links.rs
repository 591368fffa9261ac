//! Symbolic links of the workspace whose targets a machine would not have.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};
use tracing::warn;
use trainspot_base::error::Result;
use trainspot_transfer::{BundleEntry, EntryKind, EntryPath};
use walkdir::WalkDir;

/// The entries to send of the workspace: files as they are, and links as links where their targets are sent
/// too.
///
/// Any other link would dangle on the machine. One that `INCLUDE` matched, or that leads into a cache of
/// DVC's, is sent as the file or the folder's files that it leads to. The rest are sent as they are, and
/// warned of: what a link of the repository leads to may be a file of this machine that is nobody else's
/// business.
pub(super) fn entries(
    root: &Path,
    files: &BTreeSet<PathBuf>,
    included: &BTreeSet<PathBuf>,
) -> Result<Vec<BundleEntry>> {
    let (mut entries, mut dangling) = (Vec::with_capacity(files.len()), Vec::new());
    for path in files {
        let Some(entry) = BundleEntry::look_if_present(root, path)? else { continue };
        let EntryKind::Link { target } = &entry.kind else {
            entries.push(entry);
            continue;
        };
        if has_files_below(path, files) {
            // `INCLUDE` names files behind the link: they make a folder in its place.
            continue;
        }
        let target = target.to_path();
        match root.join(path).canonicalize() {
            // What leads nowhere here leads nowhere there.
            Err(_) => entries.push(entry),
            Ok(real) if arrives(root, path, &target, &real, files) => entries.push(entry),
            Ok(real) if included.contains(path) || is_in_cache(&real) => entries.extend(content(root, path)),
            Ok(_) => {
                dangling.push(path);
                entries.push(entry);
            }
        }
    }
    if let [first, ..] = dangling[..] {
        warn!(
            "links to what is not sent: {}, {} first; name them in INCLUDE to send what they lead to",
            dangling.len(),
            first.display()
        );
    }
    Ok(entries)
}

/// Whether what a link leads to, `real`, is sent too, and is at the same place as seen from the link.
fn arrives(root: &Path, path: &Path, target: &Path, real: &Path, files: &BTreeSet<PathBuf>) -> bool {
    let beside = path.parent().unwrap_or(Path::new("")).join(target);
    let real = root.canonicalize().ok().and_then(|root| Some(real.strip_prefix(root).ok()?.to_owned()));
    target.is_relative()
        && [plain(&beside), real].into_iter().flatten().any(|place| is_at_or_above(&place, files))
}

/// Whether one of the files is at this path or below it.
fn is_at_or_above(path: &Path, files: &BTreeSet<PathBuf>) -> bool {
    let from = (Bound::Included(path), Bound::Unbounded);
    files.range::<Path, _>(from).next().is_some_and(|file| file.starts_with(path))
}

/// Whether one of the files is below this path.
fn has_files_below(path: &Path, files: &BTreeSet<PathBuf>) -> bool {
    let from = (Bound::Excluded(path), Bound::Unbounded);
    files.range::<Path, _>(from).next().is_some_and(|file| file.starts_with(path))
}

/// A relative path without `.` and `..`; none if it leads out.
fn plain(path: &Path) -> Option<PathBuf> {
    path.components().try_fold(PathBuf::new(), |mut plain, part| {
        match part {
            Component::Normal(part) => plain.push(part),
            Component::CurDir => {}
            Component::ParentDir => return plain.pop().then_some(plain),
            Component::RootDir | Component::Prefix(_) => return None,
        }
        Some(plain)
    })
}

/// Whether a path is in the cache that DVC has in a repository's folder.
fn is_in_cache(path: &Path) -> bool {
    path.ancestors().any(|above| above.ends_with(".dvc/cache"))
}

/// The file that a link leads to, or the files of the folder, at the link's own path. What cannot be read is
/// left out.
fn content(root: &Path, path: &Path) -> impl Iterator<Item = BundleEntry> {
    let walk = WalkDir::new(root.join(path)).follow_links(true).into_iter();
    let items = walk.filter_entry(|item| item.file_name() != ".git").filter_map(Result::ok);
    items.filter(|item| item.file_type().is_file()).filter_map(move |item| {
        let metadata = item.metadata().ok()?;
        let executable = metadata.permissions().mode() & 0o100 != 0;
        let path = EntryPath::from(item.path().strip_prefix(root).ok()?);
        Some(BundleEntry { path, kind: EntryKind::File { bytes: metadata.len(), executable } })
    })
}
