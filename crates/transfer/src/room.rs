//! Whether the disk has room for files that were announced: a machine may announce any number and size.

use super::entry::{BundleEntry, EntryKind, EntryPath};
use super::refusal::refused;
use cap_std::fs::{Dir, Metadata, MetadataExt as _};
use indicatif::HumanBytes;
use trainspot_base::error::{Context as _, Result};
use trainspot_base::log::count;

/// The unit in which file systems tell the size of a file on disk (`st_blocks`).
const BLOCK_BYTES: u64 = 512;

/// Refuses files for which there is no room below `dir`. Each file that is replaced gives its own room back.
pub(super) fn check(dir: &Dir, entries: &[BundleEntry]) -> Result<()> {
    let files = || {
        entries.iter().filter_map(|entry| match entry.kind {
            EntryKind::File { bytes, .. } => Some((&entry.path, bytes)),
            EntryKind::Link { .. } => None,
        })
    };
    let needed = files().map(|(_, bytes)| bytes).fold(0, u64::saturating_add);
    let disk = rustix::fs::fstatvfs(dir).context("cannot look at the disk's free room")?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if needed <= free {
        return Ok(());
    }
    let more = files().map(|(path, bytes)| bytes.saturating_sub(bytes_on_disk(dir, path)));
    if more.fold(0, u64::saturating_add) <= free {
        return Ok(());
    }
    let (count, needed, free) = (count(files().count(), "file"), HumanBytes(needed), HumanBytes(free));
    Err(refused(format!("there is no room for {count} ({needed}): the disk has {free} left")).hint(
        "make room on the disk of the step, or let the training write less; a hole in a file counts as if it were written",
    ))
}

/// What the file at a path takes of the disk; nothing where there is none.
fn bytes_on_disk(dir: &Dir, name: &EntryPath) -> u64 {
    let there = dir.symlink_metadata(name.as_path()).ok().filter(Metadata::is_file);
    there.map_or(0, |there| there.blocks().saturating_mul(BLOCK_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn list(entries: &[(&str, u64)]) -> Vec<BundleEntry> {
        let file = |bytes| EntryKind::File { bytes, executable: false };
        let entry = |(path, bytes): &(&str, u64)| BundleEntry {
            path: EntryPath::Text((*path).into()),
            kind: file(*bytes),
        };
        entries.iter().map(entry).collect()
    }

    #[test]
    fn more_than_the_disk_has_room_for_is_refused() {
        let target = tempfile::tempdir().unwrap();
        let disk = rustix::fs::statvfs(target.path()).unwrap();
        // What others free on the disk meanwhile is less than half of it.
        let half = disk.f_blocks * disk.f_frsize / 2;
        let dir = Dir::open_ambient_dir(target.path(), cap_std::ambient_authority()).unwrap();
        check(&dir, &list(&[("a", 1), ("b", 1 << 20)])).unwrap();
        for sizes in [[half * 3, 0], [u64::MAX, u64::MAX], [1 << 50, 1 << 50]] {
            let error = check(&dir, &list(&[("a", sizes[0]), ("b", sizes[1])])).unwrap_err().render();
            let told = error.contains("there is no room for 2 files (") && error.contains(" left\nNext: ");
            assert!(told, "{error}");
        }
    }

    #[test]
    fn what_is_replaced_gives_its_room_back() {
        let target = tempfile::tempdir().unwrap();
        let dir = Dir::open_ambient_dir(target.path(), cap_std::ambient_authority()).unwrap();
        fs::write(target.path().join("a"), vec![7; 1 << 20]).unwrap();
        std::os::unix::fs::symlink("a", target.path().join("link")).unwrap();
        assert!(bytes_on_disk(&dir, &EntryPath::Text("a".into())) >= 1 << 20);
        assert_eq!(
            ["none", "link", "."].map(|path| bytes_on_disk(&dir, &EntryPath::Text(path.into()))),
            [0; 3]
        );
    }
}
