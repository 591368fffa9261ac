//! An object's content, read in parts, and proven to be what the object is named after.

use super::{Object, RemoteName};
use crate::{ObjectContent, Stamp};
use bytes::Bytes;
use md5::{Digest as _, Md5};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use trainspot_base::error::{Context as _, Error, Result};

/// The bytes that are hashed at a time.
const HASH_BUFFER_BYTES: usize = 256 << 10;

/// An object's file, open, or its bytes; reading it feeds the proof.
pub(super) struct ObjectReader {
    from: ReadFrom,
    hash: Option<Md5>,
    left: u64,
    object: Object,
}

enum ReadFrom {
    File { file: File, what: String, stamp: Option<Stamp> },
    Bytes(Bytes),
}

impl ObjectReader {
    /// Opens the content. A file that still is as it was when it was hashed is not hashed again.
    pub(super) fn open(object: &Object) -> Result<Self> {
        let (from, hash) = match &object.content {
            ObjectContent::Bytes(bytes) => (ReadFrom::Bytes(bytes.clone()), true),
            ObjectContent::Elsewhere { output, .. } => {
                return Err(Error::new(format!("'{output}' is not on this machine")));
            }
            ObjectContent::File(path) | ObjectContent::Hashed(path, _) | ObjectContent::Drafted(path, ..) => {
                let what = format!("cannot read {}", path.display());
                let file = File::open(path).map_err(|error| unreadable(&what, error))?;
                let stamp = object.content.stamp().filter(|stamp| stamp.holds(&file));
                (ReadFrom::File { file, what, stamp }, stamp.is_none())
            }
        };
        Ok(Self { from, hash: hash.then(Md5::new), left: object.size, object: object.clone() })
    }

    /// The file, where the content needs no more proof than its stamp; to copy it by the kernel.
    pub(super) fn stamped(&self) -> Option<&File> {
        match &self.from {
            ReadFrom::File { file, stamp: Some(_), .. } => Some(file),
            _ => None,
        }
    }

    /// Reads until the buffer is full or the object is over, and returns how much.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        match &mut self.from {
            ReadFrom::Bytes(bytes) if bytes.len() < length => return Err(changed(&self.object)),
            ReadFrom::Bytes(bytes) => buffer[..length].copy_from_slice(&bytes.split_to(length)),
            ReadFrom::File { file, what, .. } => match file.read_exact(&mut buffer[..length]) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(changed(&self.object)),
                read => read.map_err(|error| unreadable(what, error))?,
            },
        }
        if let Some(hash) = &mut self.hash {
            hash.update(&buffer[..length]);
        }
        self.left -= length as u64;
        Ok(length)
    }

    /// Notes that `length` bytes were read by somebody else, such as the kernel.
    pub(super) fn skip(&mut self, length: u64) -> Result<()> {
        self.left = self.left.checked_sub(length).ok_or_else(|| changed(&self.object))?;
        Ok(())
    }

    /// Reads the whole content, and checks that the object is named after it.
    pub(super) fn prove_all(mut self) -> Result<()> {
        let mut buffer = vec![0; HASH_BUFFER_BYTES];
        while self.read(&mut buffer)? > 0 {}
        self.prove()
    }

    /// Checks that the object is named after the content that was read.
    pub(super) fn prove(mut self) -> Result<()> {
        let more = match &mut self.from {
            ReadFrom::Bytes(bytes) => !bytes.is_empty(),
            ReadFrom::File { file, what, .. } => {
                file.read(&mut [0]).map_err(|error| unreadable(what, error))? > 0
            }
        };
        let same = self.left == 0
            && match (self.hash.take(), &self.from) {
                (Some(hash), _) => hex(&hash.finalize()) == self.object.oid.md5(),
                (None, ReadFrom::File { file, stamp: Some(stamp), .. }) => stamp.holds(file),
                (None, _) => false,
            };
        if more || !same { Err(changed(&self.object)) } else { Ok(()) }
    }
}

fn unreadable(what: &str, error: std::io::Error) -> Error {
    let missing = error.kind() == ErrorKind::NotFound;
    let error = Error::new(what).source(error);
    if missing { error.hint("it was removed before it was sent; run what makes it again") } else { error }
}

fn subject(object: &Object) -> String {
    let path = object.content.path();
    path.map_or_else(|| "the list of a directory".to_owned(), |path| path.display().to_string())
}

/// Lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        _ = write!(text, "{byte:02x}");
        text
    })
}

/// The whole of an object that fits into memory, proven.
pub(super) async fn whole(object: &Object) -> Result<Bytes> {
    let object = object.clone();
    let read = move || {
        let mut reader = ObjectReader::open(&object)?;
        let mut buffer =
            vec![0; usize::try_from(object.size).context("an object that large is not read at once")?];
        reader.read(&mut buffer)?;
        reader.prove()?;
        Ok(Bytes::from(buffer))
    };
    spawn_blocking(read).await.context("cannot read an object")?
}

/// An object's file with its stamp: as long as that holds, the file is what the object is named after. One
/// that is not as it was when it was hashed is hashed again. None for what is in memory.
pub(super) async fn proven(object: &Object) -> Result<Option<(PathBuf, Stamp)>> {
    let object = object.clone();
    let prove = move || {
        let Some(path) = object.content.path().map(Path::to_owned) else { return Ok(None) };
        let reader = ObjectReader::open(&object)?;
        let stamp = match &reader.from {
            ReadFrom::File { stamp: Some(stamp), .. } => return Ok(Some((path, *stamp))),
            ReadFrom::File { file, what, .. } => {
                Stamp::settled(file).map_err(|error| unreadable(what, error))?
            }
            ReadFrom::Bytes(_) => return Ok(None),
        };
        reader.prove_all()?;
        Ok(Some((path, stamp)))
    };
    spawn_blocking(prove).await.context("cannot read an object")?
}

/// The error of a file that changed since it was hashed.
pub(super) fn changed(object: &Object) -> Error {
    let why = format!("{} is not what it was when it was hashed as {}", subject(object), object.oid);
    Error::new(why).hint("end whatever still writes to it, then run again")
}

/// An object in parts, read ahead of who sends them by a thread of its own: one part in its hands, one
/// waiting.
pub(super) struct Parts {
    parts: mpsc::Receiver<Bytes>,
    reading: JoinHandle<Result<()>>,
}

impl Parts {
    /// Begins to read. Each part but the last has `length` bytes.
    pub(super) fn of(object: &Object, length: usize) -> Self {
        let (sender, parts) = mpsc::channel(1);
        let object = object.clone();
        let reading = spawn_blocking(move || {
            let mut reader = ObjectReader::open(&object)?;
            loop {
                let most = usize::try_from(reader.left).unwrap_or(usize::MAX).min(length);
                let mut buffer = vec![0; most];
                let read = reader.read(&mut buffer)?;
                if reader.left == 0 {
                    // The last part only goes with the proof: what takes a request by its length never has a
                    // whole one.
                    reader.prove()?;
                    // Who gave up receives no more.
                    sender.blocking_send(buffer.into()).ok();
                    return Ok(());
                }
                if read == 0 || sender.blocking_send(buffer.into()).is_err() {
                    return Ok(());
                }
            }
        });
        Self { parts, reading }
    }

    /// The next part; none after the last, which comes only if all of them are what the object is named
    /// after.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        match self.parts.recv().await {
            Some(part) => Ok(Some(part)),
            None => (&mut self.reading).await.context("cannot read an object")?.map(|()| None),
        }
    }
}

/// The text of a failure to send an object, with the object's and the remote's names.
pub(super) fn cannot_send(object: &Object, place: &RemoteName) -> String {
    format!("cannot send {} as {} to {place}", subject(object), object.oid.key())
}
