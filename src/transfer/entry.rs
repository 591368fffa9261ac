//! What a bundle lists: files and links, by their paths.

use crate::error::{Context as _, Error, Result};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fmt;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use tracing::warn;

/// A relative path, in bytes where it is not UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Name {
    /// The usual case.
    Text(String),
    /// Not UTF-8.
    Bytes(Vec<u8>),
}

impl From<&Path> for Name {
    fn from(path: &Path) -> Self {
        let bytes = path.as_os_str().as_bytes();
        String::from_utf8(bytes.to_vec()).map_or_else(|_| Self::Bytes(bytes.to_vec()), Self::Text)
    }
}

impl Name {
    /// As a path.
    #[must_use]
    pub fn to_path(&self) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.to_path().display())
    }
}

/// One file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it goes, relative to the receiver's folder.
    pub path: Name,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A regular file; its bytes follow the list.
    File {
        /// Its size when it was listed.
        bytes: u64,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A symbolic link.
    Link {
        /// What it points to, as it is.
        target: Name,
    },
}

impl Entry {
    /// Looks at a file or link under `root`, without following it.
    pub fn look(root: &Path, path: &Path) -> Result<Self> {
        let what = || format!("cannot look at '{}'", path.display());
        let metadata = root.join(path).symlink_metadata().with_context(what)?;
        let kind = if metadata.is_symlink() {
            EntryKind::Link { target: Name::from(root.join(path).read_link().with_context(what)?.as_path()) }
        } else {
            use std::os::unix::fs::PermissionsExt as _;
            // A named pipe, for one, would be waited for forever.
            if !metadata.is_file() {
                return Err(Error::new(format!("'{}' is neither a file nor a link", path.display())));
            }
            EntryKind::File { bytes: metadata.len(), executable: metadata.permissions().mode() & 0o100 != 0 }
        };
        Ok(Self { path: Name::from(path), kind })
    }

    /// Looks at a file or link of a folder in which others may work. One that is gone since it was listed is none, and
    /// is told in the log.
    pub fn look_if_there(root: &Path, path: &Path) -> Result<Option<Self>> {
        let looked = Self::look(root, path);
        if looked.is_err() && root.join(path).symlink_metadata().is_err_and(|error| is_gone(&error)) {
            warn!("'{}' is gone and is not sent", path.display());
            return Ok(None);
        }
        looked.map(Some)
    }
}

/// Whether there is nothing at a path, or at the end of a link.
pub(super) fn is_gone(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
        || rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::LOOP)
}

/// The list at a bundle's start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The files, in the order of their bytes.
    pub entries: Vec<Entry>,
    /// Patterns that had to match and did not; there are no files then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmatched: Vec<String>,
}

impl Header {
    /// The bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let sizes = self.entries.iter().map(|entry| match entry.kind {
            EntryKind::File { bytes, .. } => bytes,
            EntryKind::Link { .. } => 0,
        });
        sizes.fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_none_and_what_cannot_be_sent_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a"), "a").unwrap();
        let look = |path: &str| Entry::look_if_there(root.path(), Path::new(path));
        assert!(look("a").unwrap().is_some());
        assert_eq!(look("gone").unwrap(), None);
        assert_eq!(look("a/gone").unwrap(), None);
        std::fs::create_dir(root.path().join("folder")).unwrap();
        assert!(look("folder").unwrap_err().render().contains("neither a file nor a link"));
    }
}
