//! Many files as one stream: zstd over a list of them, then the bytes of each, followed by their hash.
//!
//! Not tar: its paths are bytes among the data, its sizes are read as they come, and it has no hashes. Here the list is
//! checked as a whole before a byte is written, the total is known from the start, and what arrived is proved.

use super::place::Place;
use crate::error::{Context as _, Error, Result};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fmt;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

const MAGIC: [u8; 4] = *b"TSB1";
const HASH: usize = blake3::OUT_LEN;
/// A list that is longer did not come from us. It holds about half a million paths.
const LONGEST_HEADER: u32 = 64 << 20;
/// Fast, and next to free for data that does not compress.
const LEVEL: i32 = 1;
const BUFFER: usize = 256 << 10;

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
        /// Its size.
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

/// Writes a bundle.
pub struct Sender<'a> {
    /// Where the entries' paths start.
    pub root: &'a Path,
    /// Called with the number of bytes of each piece that went out.
    pub progress: &'a mut dyn FnMut(u64),
}

impl Sender<'_> {
    /// Writes `header` and the files that it lists.
    ///
    /// # Errors
    /// A file that cannot be read or changed meanwhile, or an `out` that went away. The stream then ends early, and
    /// its receiver refuses it.
    pub fn send(&mut self, header: &Header, out: impl Write) -> Result<()> {
        let lost = "cannot send files";
        let mut out = zstd::Encoder::new(out, LEVEL).context(lost)?;
        let json = serde_json::to_vec(header).context(lost)?;
        let length = u32::try_from(json.len()).ok().filter(|length| *length <= LONGEST_HEADER);
        let length = length
            .ok_or_else(|| Error::new(format!("cannot send {} files at once", header.entries.len())))?;
        for part in [&MAGIC, &length.to_le_bytes() as &[u8], &json] {
            out.write_all(part).context(lost)?;
        }
        for entry in &header.entries {
            if let EntryKind::File { bytes, .. } = entry.kind {
                self.send_file(&entry.path, bytes, &mut out)?;
            }
        }
        out.finish().and_then(|mut out| out.flush()).context(lost)
    }

    fn send_file(&mut self, name: &Name, bytes: u64, out: &mut impl Write) -> Result<()> {
        let mut file = std::fs::File::open(self.root.join(name.to_path()))
            .with_context(|| format!("cannot read '{name}'"))?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; BUFFER];
        let mut left = bytes;
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = file.read(&mut buffer[..most]).with_context(|| format!("cannot read '{name}'"))?;
            if count == 0 {
                return Err(changed(name));
            }
            hasher.update(&buffer[..count]);
            out.write_all(&buffer[..count]).with_context(|| format!("cannot send '{name}'"))?;
            (self.progress)(count as u64);
            left -= count as u64;
        }
        let now = file.metadata().with_context(|| format!("cannot look at '{name}'"))?.len();
        if now != bytes {
            return Err(changed(name));
        }
        out.write_all(hasher.finalize().as_bytes()).with_context(|| format!("cannot send '{name}'"))
    }
}

fn changed(name: &Name) -> Error {
    Error::new(format!("'{name}' changed while it was being sent"))
        .hint("let the command end only when its files are complete")
}

/// Reads a bundle and puts its files into `place`, each only when its bytes are proved.
///
/// `announce` receives the list before anything is written, and `progress` the number of bytes of each piece.
///
/// # Errors
/// A stream that is cut, or not a bundle; bytes that do not have their hash; a path that leads out of `place`.
pub fn receive(
    input: impl Read,
    place: &Place,
    announce: impl FnOnce(&Header),
    mut progress: impl FnMut(u64),
) -> Result<Header> {
    let cut = "the stream of files ended early";
    let mut input = zstd::Decoder::new(input).context(cut)?;
    let header = read_header(&mut input)?;
    place.check(&header.entries)?;
    announce(&header);
    // Links last: none can then stand in the way of a file's path.
    let (files, links): (Vec<_>, Vec<_>) =
        header.entries.iter().partition(|entry| matches!(entry.kind, EntryKind::File { .. }));
    for entry in files {
        if let EntryKind::File { bytes, executable } = entry.kind {
            place.file(&entry.path, executable, |file| {
                receive_file(&mut input, file, &entry.path, bytes, &mut progress)
            })?;
        }
    }
    // To the very end, which the sender may still be writing.
    if input.read(&mut [0]).context(cut)? != 0 {
        return Err(Error::new("the stream of files goes on after its end"));
    }
    for entry in links {
        if let EntryKind::Link { target } = &entry.kind {
            place.link(&entry.path, target)?;
        }
    }
    Ok(header)
}

fn read_header(input: &mut impl Read) -> Result<Header> {
    let cut = "the stream of files ended early";
    let mut start = [0; 8];
    input.read_exact(&mut start).context(cut)?;
    let length = u32::from_le_bytes([start[4], start[5], start[6], start[7]]);
    if start[..4] != MAGIC || length > LONGEST_HEADER {
        return Err(Error::new("the stream of files is not one that trainspot sends"));
    }
    let mut list = Vec::new();
    let count = input.take(length.into()).read_to_end(&mut list).context(cut)?;
    if count != length as usize {
        return Err(Error::new(cut));
    }
    serde_json::from_slice(&list).context("cannot read the list of files")
}

fn receive_file(
    input: &mut impl Read,
    file: &mut dyn Write,
    name: &Name,
    bytes: u64,
    progress: &mut impl FnMut(u64),
) -> Result<()> {
    let cut = || format!("'{name}' did not arrive whole");
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER];
    let mut left = bytes;
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = input.read(&mut buffer[..most]).with_context(cut)?;
        if count == 0 {
            return Err(Error::new(cut()));
        }
        hasher.update(&buffer[..count]);
        file.write_all(&buffer[..count]).with_context(|| format!("cannot write '{name}'"))?;
        progress(count as u64);
        left -= count as u64;
    }
    let mut expected = [0; HASH];
    input.read_exact(&mut expected).with_context(cut)?;
    if hasher.finalize() != blake3::Hash::from_bytes(expected) {
        return Err(Error::new(format!("'{name}' arrived with other bytes than were sent")));
    }
    Ok(())
}
