//! A part of a file, sent without being held in memory.
//!
//! opendal takes parts as bytes. Held, as many of a gigabyte's parts as a store takes at a time would fill
//! the memory; so it is given a ticket for each, and [`super::transport`] sends what the ticket stands for.

use crate::Stamp;
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

/// The bytes that one read of a part gives.
const READ_PIECE_BYTES: u64 = 128 << 10;

/// A part of a file that is what its object is named after for as long as its stamp holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FilePart {
    path: Vec<u8>,
    stamp: Stamp,
    offset: u64,
    pub(super) length: u64,
}

impl FilePart {
    /// All parts of a file, in order. Each but the last has `length` bytes.
    pub(super) fn all(path: &Path, stamp: Stamp, size: u64, length: u64) -> impl Iterator<Item = Self> {
        let path = path.to_owned().into_os_string().into_vec();
        let offsets = (0..size.div_ceil(length)).map(move |number| number * length);
        offsets.map(move |offset| Self {
            path: path.clone(),
            stamp,
            offset,
            length: length.min(size - offset),
        })
    }

    /// What opendal is given for the part.
    pub(super) fn ticket(&self) -> io::Result<Bytes> {
        Ok(serde_json::to_vec(self)?.into())
    }

    /// The part that a ticket stands for.
    pub(super) fn redeem(ticket: &[u8]) -> io::Result<Self> {
        Ok(serde_json::from_slice(ticket)?)
    }

    /// Whether the file still is as it was.
    pub(super) fn holds(&self) -> bool {
        self.open().is_ok_and(|file| self.stamp.holds(&file))
    }

    /// Its MD5.
    pub(super) async fn md5(&self) -> io::Result<[u8; 16]> {
        let part = self.clone();
        let hash = move || {
            let mut hash = Md5::new();
            part.read(|piece| {
                hash.update(&piece);
                true
            })?;
            Ok(hash.finalize().into())
        };
        spawn_blocking(hash).await?
    }

    /// Its bytes, read ahead by a thread of its own: one piece in its hands, one waiting.
    pub(super) fn stream(&self) -> impl Stream<Item = io::Result<Bytes>> + use<> {
        let (part, (sender, pieces)) = (self.clone(), mpsc::channel(1));
        spawn_blocking(move || {
            let read = part.read(|piece| sender.blocking_send(Ok(piece)).is_ok());
            if let Err(error) = read {
                // Who gave up needs no reason.
                sender.blocking_send(Err(error)).ok();
            }
        });
        stream::unfold(pieces, async |mut pieces| Some((pieces.recv().await?, pieces)))
    }

    fn open(&self) -> io::Result<File> {
        File::open(PathBuf::from(OsString::from_vec(self.path.clone())))
    }

    /// Gives away the bytes for as long as they are wanted. The last of them only if the file still is as it
    /// was then: what takes a request by its length never has a whole one of anything else.
    fn read(&self, mut wanted: impl FnMut(Bytes) -> bool) -> io::Result<()> {
        let mut file = self.open()?;
        file.seek(SeekFrom::Start(self.offset))?;
        let mut left = self.length;
        while left > 0 {
            let mut piece = vec![0; usize::try_from(left.min(READ_PIECE_BYTES)).unwrap_or_default()];
            file.read_exact(&mut piece)?;
            left -= piece.len() as u64;
            if left == 0 && !self.stamp.holds(&file) {
                return Err(io::Error::other("the file was changed while it was sent"));
            }
            if !wanted(piece.into()) {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::TryStreamExt as _;
    use std::io::Write as _;

    /// A file of these bytes, and all of its parts.
    fn parts(bytes: &[u8], length: u64) -> (tempfile::NamedTempFile, Vec<FilePart>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let stamp = Stamp::settled(file.as_file()).unwrap();
        let parts = FilePart::all(file.path(), stamp, bytes.len() as u64, length).collect();
        (file, parts)
    }

    async fn content(part: &FilePart) -> io::Result<Vec<u8>> {
        Ok(part.stream().try_collect::<Vec<_>>().await?.concat())
    }

    #[tokio::test]
    async fn parts_are_the_file_and_survive_as_tickets() {
        let bytes: Vec<u8> = (0..1_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
        let (_file, parts) = parts(&bytes, 300_000);
        assert_eq!(
            parts.iter().map(|part| part.length).collect::<Vec<_>>(),
            [300_000, 300_000, 300_000, 100_000]
        );
        let mut all = Vec::new();
        for part in &parts {
            let redeemed = FilePart::redeem(&part.ticket().unwrap()).unwrap();
            assert_eq!(&redeemed, part);
            let content = content(&redeemed).await.unwrap();
            assert_eq!(redeemed.md5().await.unwrap(), <[u8; 16]>::from(Md5::digest(&content)));
            all.extend(content);
        }
        assert!(all == bytes);
    }

    #[tokio::test]
    async fn nothing_whole_comes_of_a_changed_file() {
        let (file, parts) = parts(&vec![7; 300_000], 200_000);
        assert!(parts.iter().all(FilePart::holds));
        file.as_file().set_len(300_001).unwrap();
        for part in &parts {
            assert!(!part.holds() && part.md5().await.is_err());
            assert!(content(part).await.unwrap_err().to_string().contains("changed while it was sent"));
        }
    }
}
