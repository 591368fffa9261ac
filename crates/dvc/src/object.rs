//! An object of a DVC remote: content under the name of its MD5.

use super::Draft;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

/// The name of an object: the MD5 of its content in lower-case hexadecimal, and `.dir` if it lists a
/// directory.
///
/// As JSON it is that name alone, which says nothing of DVC 2.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Oid {
    name: String,
    layout: Layout,
}

/// Where objects lie below the root of a cache or a remote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Layout {
    /// In `files/md5`, as since DVC 3.
    #[default]
    Current,
    /// In the root itself, as until DVC 2: the objects of entries without `hash: md5`.
    Legacy,
}

impl Oid {
    /// The name, if `text` is one: 32 lower-case hexadecimal digits, then nothing or `.dir`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let md5 = text.strip_suffix(".dir").unwrap_or(text);
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (md5.len() == 32 && md5.bytes().all(digit)).then(|| Self::of_digits(text.to_owned()))
    }

    /// This name in the layout of DVC 2, where DVC 3 still looks for the objects that DVC 2 recorded.
    #[must_use]
    pub fn of_dvc_2(self) -> Self {
        Self { layout: Layout::Legacy, ..self }
    }

    /// Whether the object lies where DVC 2 kept it.
    #[must_use]
    pub fn is_of_dvc_2(&self) -> bool {
        self.layout == Layout::Legacy
    }

    /// The name of an object that lists no directory: the MD5 in `digits`, without `.dir`.
    pub(super) fn of_digits(digits: String) -> Self {
        Self { name: digits, layout: Layout::Current }
    }

    /// The name of a directory's list: the MD5 of its bytes, which is in `content`, with `.dir`.
    pub(super) fn listing(content: &Self) -> Self {
        Self::of_digits(format!("{}.dir", content.md5()))
    }

    /// The MD5 without `.dir`.
    #[must_use]
    pub fn md5(&self) -> &str {
        &self.name[..32]
    }

    /// Whether the object lists a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.name.len() > 32
    }

    /// The folder of the object, below a remote's root: `files/md5/ab`, or `ab` for DVC 2; with `/` as
    /// separator.
    #[must_use]
    pub fn folder(&self) -> String {
        match self.layout {
            Layout::Current => format!("files/md5/{}", &self.name[..2]),
            Layout::Legacy => self.name[..2].to_owned(),
        }
    }

    /// Where the object is, below a remote's root: `files/md5/ab/cdef…`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.folder(), &self.name[2..])
    }
}

impl TryFrom<String> for Oid {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("it is no object's name")
    }
}

impl From<Oid> for String {
    fn from(oid: Oid) -> Self {
        oid.name
    }
}

impl Display for Oid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)
    }
}

/// An object that belongs in a remote.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its name.
    pub oid: Oid,
    /// Its length in bytes; 0 if it is not on this machine, where nothing tells its length for sure.
    pub size: u64,
    /// Where its content is.
    pub content: ObjectContent,
}

impl Object {
    /// Whether a file of this length can be the object.
    #[must_use]
    pub fn fits(&self, length: u64) -> bool {
        self.content.is_elsewhere() || self.size == length
    }
}

/// Where an object's content is.
#[derive(Clone, Debug)]
pub enum ObjectContent {
    /// In a file that is hashed again when it is sent, because it may have been changed since it was hashed.
    File(PathBuf),
    /// In a file that is hashed again only if its stamp does not hold any more.
    Hashed(PathBuf, Stamp),
    /// In a file with a stamp, with a copy that is in the folder of a remote already.
    Drafted(PathBuf, Stamp, Arc<Draft>),
    /// In memory: the list of a directory.
    Bytes(Bytes),
    /// Not on this machine: only a remote may have it.
    Elsewhere {
        /// The path of the output that the object belongs to, or of a file in that output.
        output: String,
        /// Whether a remote that lacks it makes the push fail.
        needed: bool,
    },
}

impl ObjectContent {
    /// The file that holds the content.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) | Self::Hashed(path, _) | Self::Drafted(path, ..) => Some(path),
            Self::Bytes(_) | Self::Elsewhere { .. } => None,
        }
    }

    /// Whether the content is not on this machine.
    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        matches!(self, Self::Elsewhere { .. })
    }

    /// The stamp of the content's file from when it was hashed, if there is one.
    #[must_use]
    pub fn stamp(&self) -> Option<Stamp> {
        match self {
            Self::Hashed(_, stamp) | Self::Drafted(_, stamp, _) => Some(*stamp),
            Self::File(_) | Self::Bytes(_) | Self::Elsewhere { .. } => None,
        }
    }
}

/// A file as it was when it was hashed. As long as that holds, hashing it again would say the same: sending a
/// gigabyte costs its MD5 once and not twice, which is most of the time that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// A file system's clock ticks at least this often, with room to spare. Two writes in one tick leave the
    /// same times.
    const CLOCK_TICK: Duration = Duration::from_millis(50);

    /// The stamp of a file that is going to be hashed: it counts if it still holds after that. None for a
    /// file that was changed so shortly before that another change could not be told from it.
    #[must_use]
    pub fn before_hashing(file: &File) -> Option<Self> {
        let stamp = Self::of(&file.metadata().ok()?);
        let changed =
            Duration::new(u64::try_from(stamp.changed.0).ok()?, u32::try_from(stamp.changed.1).ok()?);
        let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + changed).ok()?;
        (age > Self::CLOCK_TICK).then_some(stamp)
    }

    /// The stamp of a file that may have been changed just now: waits until another change would give another
    /// stamp.
    ///
    /// # Errors
    /// The file's metadata cannot be read.
    pub fn settled(file: &File) -> io::Result<Self> {
        if let Some(stamp) = Self::before_hashing(file) {
            return Ok(stamp);
        }
        let stamp = Self::of(&file.metadata()?);
        // Whatever a file server's clock says, it has ticked since that change when this is over.
        thread::sleep(Self::CLOCK_TICK);
        Ok(stamp)
    }

    /// Whether the file still is as it was when the stamp was taken.
    #[must_use]
    pub fn holds(&self, file: &File) -> bool {
        file.metadata().is_ok_and(|metadata| *self == Self::of(&metadata))
    }

    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            // No program can set this one back.
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}
