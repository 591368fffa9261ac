//! Files that the repository names, opened within the clone.

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use std::fs::File;
use std::io::{Error, ErrorKind, Read as _, Result};
use std::path::Path;

/// The largest file of settings that is read: 16 MiB. `dvc.lock` of ten thousand stages has a quarter of it.
pub const TEXT_LIMIT_BYTES: u64 = 16 << 20;

/// Opens a file of the clone, or of the workspace on a machine, that the repository or the training names.
/// `root` is its folder, or one inside it.
///
/// A link that leads out of the clone is not followed, be it the file or a folder on the way to it: it could
/// lead to what only the pipe may read. What is no file is refused, as a named pipe would be waited for.
///
/// # Errors
/// It is not there, leads out of the clone, is no file, or cannot be read.
pub fn open_beneath(root: &Path, path: &Path) -> Result<File> {
    let clone =
        root.ancestors().find(|folder| folder.join(".git").symlink_metadata().is_ok()).unwrap_or(root);
    let below = root.strip_prefix(clone).unwrap_or(Path::new("")).join(path);
    let clone = if clone.as_os_str().is_empty() { Path::new(".") } else { clone };
    let dir = Dir::open_ambient_dir(clone, ambient_authority())?;
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = dir.open_with(below, OpenOptions::new().read(true).custom_flags(flags)).map_err(in_words)?;
    if file.metadata()?.is_file() { Ok(file.into_std()) } else { Err(Error::other("it is no file")) }
}

/// The content of a file that [`open_beneath`] opens, of at most `limit` bytes.
///
/// # Errors
/// The file cannot be opened or read, or is larger than `limit`.
pub fn read_beneath(root: &Path, path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = open_beneath(root, path)?;
    let (size, mut bytes) = (file.metadata()?.len(), Vec::new());
    // It may grow while it is read.
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let size = size.max(limit + 1);
        return Err(Error::other(format!("it has {size} bytes, of which at most {limit} are read")));
    }
    Ok(bytes)
}

/// The content of a file that [`open_beneath`] opens, as text of at most [`TEXT_LIMIT_BYTES`].
///
/// # Errors
/// The file cannot be read by [`read_beneath`], or is not UTF-8.
pub fn text_beneath(root: &Path, path: &Path) -> Result<String> {
    let bytes = read_beneath(root, path, TEXT_LIMIT_BYTES)?;
    String::from_utf8(bytes).map_err(|_| Error::new(ErrorKind::InvalidData, "it is not text in UTF-8"))
}

/// `cap-std` says of an escape only that the permission is missing, which it does with an error of its own.
fn in_words(error: Error) -> Error {
    if error.kind() == ErrorKind::PermissionDenied && error.raw_os_error().is_none() {
        return Error::new(ErrorKind::PermissionDenied, "it leads out of the clone");
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_followed_within_the_clone_only() {
        let (outside, clone) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (root, sub) = (clone.path(), clone.path().join("sub"));
        fs::write(outside.path().join("secret"), "s3cret").unwrap();
        fs::create_dir_all(root.join(".git")).unwrap();
        fs::create_dir_all(&sub).unwrap();
        fs::write(root.join("real"), "text").unwrap();
        symlink("real", root.join("near")).unwrap();
        symlink("../real", sub.join("up")).unwrap();
        symlink(outside.path(), root.join("folder")).unwrap();
        symlink(outside.path().join("secret"), root.join("file")).unwrap();
        symlink("../../../../../../proc/self/environ", sub.join("environ")).unwrap();
        for (root, path) in
            [(root, "real"), (root, "near"), (&*sub, "up"), (&*sub, "../near"), (root, "sub/../real")]
        {
            assert_eq!(text_beneath(root, Path::new(path)).unwrap(), "text", "{path}");
        }
        for (root, path) in
            [(root, "folder/secret"), (root, "file"), (&*sub, "environ"), (root, "/proc/self/environ")]
        {
            let error = text_beneath(root, Path::new(path)).unwrap_err();
            assert_eq!(error.to_string(), "it leads out of the clone", "{path}");
        }
        assert_eq!(text_beneath(root, Path::new("none")).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn what_is_no_file_or_too_long_is_not_read() {
        let root = tempfile::tempdir().unwrap();
        let fifo = root.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        for path in ["fifo", "."] {
            let error = open_beneath(root.path(), Path::new(path)).unwrap_err();
            assert_eq!(error.to_string(), "it is no file", "{path}");
        }
        // A file of ten gigabytes that takes no room.
        File::create(root.path().join("large")).unwrap().set_len(10 << 30).unwrap();
        let error = read_beneath(root.path(), Path::new("large"), 1 << 20).unwrap_err();
        assert_eq!(error.to_string(), "it has 10737418240 bytes, of which at most 1048576 are read");
        fs::write(root.path().join("small"), "12").unwrap();
        assert_eq!(read_beneath(root.path(), Path::new("small"), 2).unwrap(), b"12");
    }
}
