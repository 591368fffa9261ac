//! A bundle's other end: what comes is checked before it is believed.

use super::super::entry::{BundleEntry, BundleHeader, EntryKind, EntryPath, OWN_LIST_LIMIT_BYTES};
use super::super::receive_policy::ReceivePolicy;
use super::super::received::Received;
use super::super::refusal::{broken_off, refused, too_many};
use super::super::target_folder::TargetFolder;
use super::super::words::WordLimitReader;
use super::{BUNDLE_MAGIC, FileStability, GONE_MARK, HASH_BYTES, HELD_MARK, PIECE_LIMIT_BYTES};
use blake3::Hash;
use std::io::{BufReader, ErrorKind, Read, Write};
use trainspot_base::error::{Context as _, Error, Result};

/// How far back a stream may refer, as a power of two: the receiver keeps so many bytes. The sender's level
/// of compression needs 19, and what the format allows would be 128 MiB.
const WINDOW_LOG_LIMIT: u32 = 22;
const STREAM_CUT: &str = "the stream of files ended early";

/// Reads a bundle and puts its files into `place`, each only when its bytes are proved.
///
/// `announce` receives the list before anything is written, and `progress` the number of bytes of each piece.
///
/// # Errors
/// A stream that is cut, or not a bundle; bytes that do not have their hash; a final file that is not as it
/// was listed; a path that leads out of `place`, or was not asked for; more than there is room for.
pub fn receive(
    input: impl Read,
    place: &TargetFolder,
    policy: &ReceivePolicy,
    files: FileStability,
    announce: impl FnOnce(&BundleHeader),
    progress: impl FnMut(u64),
) -> Result<Received> {
    let mut input = zstd::Decoder::new(input).context(STREAM_CUT)?;
    input.window_log_max(WINDOW_LOG_LIMIT).context(STREAM_CUT)?;
    let mut header = read_header(&mut input, policy)?;
    let taken = place.accept(policy, &header)?;
    announce(&header);
    let mut arrivals = Arrivals { input: &mut input, place, policy, files, progress, bytes: 0 };
    let mut hashes = Vec::new();
    for (entry, is_taken) in header.entries.iter().zip(&taken) {
        let hash = arrivals.take(entry, *is_taken)?;
        if *is_taken {
            hashes.push(hash);
        }
    }
    let bytes = arrivals.bytes;
    // To the very end, which the sender may still be writing.
    if input.read(&mut [0]).map_err(|error| broken_off(STREAM_CUT, error))? != 0 {
        return Err(Error::new("the stream of files goes on after its end"));
    }
    let mut taken = taken.into_iter();
    header.entries.retain(|_| taken.next().unwrap_or(false));
    // Links last: none can then stand in the way of a file's path.
    place.links(&header.entries)?;
    Ok(Received { header, hashes, bytes })
}

fn read_header(input: &mut impl Read, policy: &ReceivePolicy) -> Result<BundleHeader> {
    let mut start = [0; 8];
    input.read_exact(&mut start).map_err(|error| broken_off(STREAM_CUT, error))?;
    let length = u32::from_le_bytes([start[4], start[5], start[6], start[7]]);
    if start[..4] != BUNDLE_MAGIC || length > OWN_LIST_LIMIT_BYTES {
        return Err(Error::new("the stream of files is not one that trainspot sends"));
    }
    if policy.is_trusting() {
        let mut list = Vec::new();
        let read = input.take(length.into()).read_to_end(&mut list);
        let count = read.map_err(|error| broken_off(STREAM_CUT, error))?;
        let list =
            if count == length as usize { list } else { return Err(Error::new(STREAM_CUT).transient()) };
        return serde_json::from_slice(&list).context("cannot read the list of files");
    }
    let limit = policy.list_limit_bytes();
    if length > limit {
        return Err(too_many(format!("it is longer than {} MiB", limit >> 20)));
    }
    // Never as a whole in memory beside what is made of it.
    let mut list = BufReader::new(WordLimitReader::new(input.take(length.into())));
    match BundleHeader::read_foreign(&mut list) {
        Ok(header) => Ok(header),
        Err(error) if error.is_data() => Err(too_many(error)),
        Err(error) if error.io_error_kind() == Some(ErrorKind::InvalidData) => Err(unreadable(error)),
        Err(error) if error.is_eof() || error.is_io() => Err(broken_off(STREAM_CUT, error)),
        Err(error) => Err(unreadable(error)),
    }
}

fn unreadable(error: serde_json::Error) -> Error {
    refused("cannot read the list of files".to_owned()).source(error)
}

/// What a stream has of a file.
enum IncomingContent {
    /// Nothing: the file was gone when its turn came.
    Gone,
    /// The hash of a file that the receiver holds.
    Held(Hash),
    /// Pieces, of which the first is so long.
    Pieces(u32),
}

fn piece_length(input: &mut impl Read) -> std::io::Result<u32> {
    let mut length = [0; 4];
    input.read_exact(&mut length).map(|()| u32::from_le_bytes(length))
}

fn read_hash(input: &mut impl Read) -> std::io::Result<Hash> {
    let mut hash = [0; HASH_BYTES];
    input.read_exact(&mut hash).map(|()| Hash::from_bytes(hash))
}

/// The files that are coming in.
struct Arrivals<'a, R, P> {
    input: &'a mut R,
    place: &'a TargetFolder,
    policy: &'a ReceivePolicy,
    files: FileStability,
    progress: P,
    /// How many bytes came.
    bytes: u64,
}

impl<R: Read, P: FnMut(u64)> Arrivals<'_, R, P> {
    /// Reads what the stream has of an entry, and puts it into its place if it `is_taken`. Returns the hash
    /// of a file that came whole.
    fn take(&mut self, entry: &BundleEntry, is_taken: bool) -> Result<Option<Hash>> {
        let EntryKind::File { bytes, executable } = entry.kind else { return Ok(None) };
        let name = &entry.path;
        let hash = match self.content(name)? {
            IncomingContent::Gone => return Ok(None),
            IncomingContent::Held(hash) => {
                let held = self.policy.held().find(&hash, name, bytes)?;
                self.place.adopt(held, name, executable)?;
                (self.progress)(bytes);
                hash
            }
            IncomingContent::Pieces(first) if is_taken => {
                let (place, mut hash) = (self.place, None);
                place.file(name, executable, |file| {
                    hash = Some(self.write_to(file, name, bytes, first)?);
                    Ok(())
                })?;
                return Ok(hash);
            }
            IncomingContent::Pieces(first) => self.write_to(&mut std::io::sink(), name, bytes, first)?,
        };
        Ok(Some(hash))
    }

    fn content(&mut self, name: &EntryPath) -> Result<IncomingContent> {
        let cut = |error| broken_off(format!("'{name}' did not arrive"), error);
        match (piece_length(self.input).map_err(cut)?, self.files) {
            (HELD_MARK, _) => read_hash(self.input).map_err(cut).map(IncomingContent::Held),
            (GONE_MARK, FileStability::InUse) => Ok(IncomingContent::Gone),
            (GONE_MARK, FileStability::Final) => {
                Err(Error::new(format!("'{name}' was gone when it was to be sent")))
            }
            (length, _) => Ok(IncomingContent::Pieces(length)),
        }
    }

    /// Writes the pieces of a file of which `listed` bytes were announced. Returns their hash, which the
    /// stream proves.
    fn write_to(&mut self, file: &mut dyn Write, name: &EntryPath, listed: u64, first: u32) -> Result<Hash> {
        let incomplete = || format!("'{name}' did not arrive whole");
        let cut = |error| broken_off(incomplete(), error);
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; PIECE_LIMIT_BYTES];
        let (mut length, mut arrived) = (first, 0);
        while length > 0 {
            let piece = buffer.get_mut(..length as usize);
            let piece =
                piece.ok_or_else(|| Error::new("the stream of files is not one that trainspot sends"))?;
            arrived += u64::from(length);
            if self.files == FileStability::Final && arrived > listed {
                return Err(Error::new(format!("'{name}' is larger than it was announced")));
            }
            self.input.read_exact(piece).map_err(cut)?;
            hasher.update(piece);
            file.write_all(piece).with_context(|| format!("cannot write '{name}'"))?;
            (self.progress)(length.into());
            length = piece_length(self.input).map_err(cut)?;
        }
        let hash = hasher.finalize();
        if hash != read_hash(self.input).map_err(cut)? {
            return Err(Error::new(format!("'{name}' arrived with other bytes than were sent")).transient());
        }
        if self.files == FileStability::Final && arrived != listed {
            return Err(Error::new(incomplete()));
        }
        self.bytes += arrived;
        Ok(hash)
    }
}
