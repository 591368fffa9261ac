//! What a bundle lists: files and links, by their paths.

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::ffi::OsStr;
use std::fmt;
use std::io::{ErrorKind, Read};
use std::marker::PhantomData;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use tracing::warn;
use trainspot_base::error::{Context as _, Error, Result};

/// How many files and links a machine may send at once. Its list is in memory as long as the files come.
pub const LISTED_ENTRIES_LIMIT: usize = 200_000;
/// The longest list of files that is read of a machine. It holds about 150,000 paths.
pub(super) const FOREIGN_LIST_LIMIT_BYTES: u32 = 16 << 20;
/// The longest list of files of this side's own. It holds about half a million paths.
pub(super) const OWN_LIST_LIMIT_BYTES: u32 = 64 << 20;
/// How many patterns a machine may say match nothing. More are never asked for.
const UNMATCHED_PATTERNS_LIMIT: usize = 10_000;
/// The longest path that the kernel takes.
const PATH_LIMIT_BYTES: usize = 4096;

/// A relative path, in bytes where it is not UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum EntryPath {
    /// A path in UTF-8: the usual case.
    Text(String),
    /// The bytes of a path that is not UTF-8.
    Bytes(Vec<u8>),
}

impl From<&Path> for EntryPath {
    fn from(path: &Path) -> Self {
        let bytes = path.as_os_str().as_bytes();
        String::from_utf8(bytes.to_vec()).map_or_else(|_| Self::Bytes(bytes.to_vec()), Self::Text)
    }
}

impl EntryPath {
    /// The path, borrowed.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }))
    }

    /// Whether any part of the path is hidden: tools read hidden files without being told of them.
    pub(super) fn is_hidden(&self) -> bool {
        self.as_path().iter().any(|part| part.as_encoded_bytes().starts_with(b"."))
    }

    /// The path, owned.
    #[must_use]
    pub fn to_path(&self) -> PathBuf {
        self.as_path().to_owned()
    }
}

/// Written by hand: what serde derives for an untagged form keeps each byte of a list as a value of 32 bytes
/// first, so that a short list of paths could take all memory.
impl<'de> Deserialize<'de> for EntryPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NameVisitor)
    }
}

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
    type Value = EntryPath;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a path of at most {PATH_LIMIT_BYTES} bytes")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<EntryPath, E> {
        let short = text.len() <= PATH_LIMIT_BYTES;
        short.then(|| EntryPath::Text(text.to_owned())).ok_or_else(|| E::invalid_length(text.len(), &self))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<EntryPath, A::Error> {
        LimitedList::<u8, PATH_LIMIT_BYTES>(PhantomData).visit_seq(list).map(EntryPath::Bytes)
    }
}

/// Reads a list of at most `ITEMS_LIMIT` items: one more is refused before it is in memory.
struct LimitedList<T, const ITEMS_LIMIT: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const ITEMS_LIMIT: usize> Visitor<'de> for LimitedList<T, ITEMS_LIMIT> {
    type Value = Vec<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a list of at most {ITEMS_LIMIT}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            if items.len() == ITEMS_LIMIT {
                return Err(serde::de::Error::invalid_length(ITEMS_LIMIT + 1, &self));
            }
            items.push(item);
        }
        Ok(items)
    }
}

/// Reads a list of a machine's: one item more than the limit is refused before it is in memory.
pub(super) fn limited<'de, T: Deserialize<'de>, D: Deserializer<'de>, const ITEMS_LIMIT: usize>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(LimitedList::<T, ITEMS_LIMIT>(PhantomData))
}

impl fmt::Display for EntryPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.to_path().display())
    }
}

/// One file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleEntry {
    /// The path of the file or link, relative to the receiver's folder.
    pub path: EntryPath,
    /// Whether the entry is a file or a link.
    pub kind: EntryKind,
}

/// Whether an entry is a file or a link.
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
        /// The path that the link points to, unchanged.
        target: EntryPath,
    },
}

impl BundleEntry {
    /// The size of the file in bytes; 0 for a link.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self.kind {
            EntryKind::File { bytes, .. } => bytes,
            EntryKind::Link { .. } => 0,
        }
    }

    /// Looks at a file or link under `root`, without following it.
    pub fn look(root: &Path, path: &Path) -> Result<Self> {
        let what = || format!("cannot look at '{}'", path.display());
        let metadata = root.join(path).symlink_metadata().with_context(what)?;
        let kind = if metadata.is_symlink() {
            EntryKind::Link {
                target: EntryPath::from(root.join(path).read_link().with_context(what)?.as_path()),
            }
        } else {
            use std::os::unix::fs::PermissionsExt as _;
            // A named pipe, for one, would be waited for forever.
            if !metadata.is_file() {
                return Err(Error::new(format!("'{}' is neither a file nor a link", path.display())));
            }
            EntryKind::File { bytes: metadata.len(), executable: metadata.permissions().mode() & 0o100 != 0 }
        };
        Ok(Self { path: EntryPath::from(path), kind })
    }

    /// Looks at a file or link of a folder in which others may work. A file that is gone since it was listed
    /// gives none, and a warning in the log.
    pub fn look_if_present(root: &Path, path: &Path) -> Result<Option<Self>> {
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
pub struct BundleHeader {
    /// The files, in the order of their bytes.
    pub entries: Vec<BundleEntry>,
    /// Patterns that had to match and did not; there are no files then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmatched: Vec<String>,
}

/// A list as it is read from a machine, which may say anything.
#[derive(Deserialize)]
struct UntrustedHeader {
    #[serde(deserialize_with = "limited::<_, _, LISTED_ENTRIES_LIMIT>")]
    entries: Vec<BundleEntry>,
    #[serde(default, deserialize_with = "limited::<_, _, UNMATCHED_PATTERNS_LIMIT>")]
    unmatched: Vec<String>,
}

impl BundleHeader {
    /// Reads a list that a machine sends. What is read takes no more memory than the list's limits allow.
    pub(super) fn read_foreign(input: impl Read) -> serde_json::Result<Self> {
        let UntrustedHeader { entries, unmatched } = serde_json::from_reader(input)?;
        Ok(Self { entries, unmatched })
    }

    /// The size of all files together, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(BundleEntry::bytes).fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_refused_at_its_limit_and_not_read_on() {
        let entry = r#"{"path":"a","kind":{"link":{"target":"b"}}},"#;
        let list = |entries: &str| format!(r#"{{"entries":[{entries}"#);
        // Neither list is whole: the error that counts comes before its end.
        let many = list(&entry.repeat(LISTED_ENTRIES_LIMIT + 1));
        let long = list(&entry.replace('b', &"b".repeat(PATH_LIMIT_BYTES + 1)));
        let bytes = list(&entry.replace("\"b\"", &format!("[{}", "7,".repeat(PATH_LIMIT_BYTES + 1))));
        for (text, why) in [
            (many, "invalid length 200001, expected a list of at most 200000"),
            (long, "invalid length 4097, expected a path of at most 4096 bytes"),
            (bytes, "invalid length 4097, expected a list of at most 4096"),
        ] {
            let error = BundleHeader::read_foreign(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_name_is_text_or_bytes_and_nothing_else() {
        let read = |text: &str| serde_json::from_str::<EntryPath>(text).ok();
        for name in [EntryPath::Text("a/ö".to_owned()), EntryPath::Bytes(vec![b'a', 0xff])] {
            assert_eq!(read(&serde_json::to_string(&name).unwrap()), Some(name));
        }
        for odd in ["7", "null", "{}", "[256]", "[-1]", "[\"a\"]", "true"] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }

    #[test]
    fn what_is_gone_is_none_and_what_cannot_be_sent_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a"), "a").unwrap();
        let look = |path: &str| BundleEntry::look_if_present(root.path(), Path::new(path));
        assert!(look("a").unwrap().is_some());
        assert_eq!(look("gone").unwrap(), None);
        assert_eq!(look("a/gone").unwrap(), None);
        std::fs::create_dir(root.path().join("folder")).unwrap();
        assert!(look("folder").unwrap_err().render().contains("neither a file nor a link"));
    }
}
