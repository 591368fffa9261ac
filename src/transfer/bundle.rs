//! Many files as one stream: zstd over a list of them, then the bytes of each in pieces, followed by their hash.
//!
//! Not tar: its paths are bytes among the data, its sizes are read as they come, and it has no hashes. Here the list is
//! checked as a whole before a byte is written, the total is known from the start, and what arrived is proved. A file
//! comes in pieces because its size in the list may be old: a workspace can be in use while it is sent.

use super::asked::{Asked, OWN_LIST_LIMIT_BYTES, check_paths, refused, too_many};
use super::entry::{EntryKind, Header, Name};
use super::place::Place;
use crate::error::{Context as _, Error, Result};
use crate::log::count;
use rustix::fs::OFlags;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use tracing::warn;

const MAGIC: [u8; 4] = *b"TSB2";
const HASH_BYTES: usize = blake3::OUT_LEN;
/// Fast, and next to free for data that does not compress.
const LEVEL: i32 = 1;
/// How far back a stream may refer, as a power of two: the receiver keeps so many bytes. [`LEVEL`] needs 19, and what the
/// format allows would be 128 MiB.
const WINDOW_LOG_LIMIT: u32 = 22;
const PIECE_LIMIT_BYTES: usize = 256 << 10;
/// Stands in the place of a file's first piece when the file is gone.
const GONE_MARK: u32 = u32::MAX;
const CUT: &str = "the stream of files ended early";

/// What holds for a file that is not as the list says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// Nobody should change the files any more: outputs, and copies. A file that is not as it was listed is an error.
    Final,
    /// Others may write to the files meanwhile: a workspace. Of each comes what there is when it is opened.
    InUse,
}

/// Writes a bundle.
pub struct Sender<'a> {
    /// Where the entries' paths start.
    pub root: &'a Path,
    /// Whether the files may change while they are sent.
    pub files: Files,
    /// Called with the number of bytes of each piece that went out.
    pub progress: &'a mut dyn FnMut(u64),
}

impl Sender<'_> {
    /// Writes `header` and the files that it lists. Tells which files in use changed, in words.
    ///
    /// # Errors
    /// A file that cannot be read, a final one that changed, or an `out` that went away. The stream then ends early, and
    /// its receiver refuses it.
    pub fn send(&mut self, header: &Header, out: impl Write) -> Result<Vec<String>> {
        let lost = "cannot send files";
        let mut out = zstd::Encoder::new(out, LEVEL).context(lost)?;
        let json = serde_json::to_vec(header).context(lost)?;
        let length = u32::try_from(json.len()).ok().filter(|length| *length <= OWN_LIST_LIMIT_BYTES);
        let length = length
            .ok_or_else(|| Error::new(format!("cannot send {} files at once", header.entries.len())))?;
        for part in [&MAGIC, &length.to_le_bytes() as &[u8], &json] {
            out.write_all(part).context(lost)?;
        }
        let mut changes = Vec::new();
        for entry in &header.entries {
            if let EntryKind::File { bytes, .. } = entry.kind {
                changes.extend(self.send_file(&entry.path, bytes, &mut out)?);
            }
        }
        out.finish().and_then(|mut out| out.flush()).context(lost)?;
        Ok(changes)
    }

    /// Opens a file; none if it may be gone, and is.
    fn open(&self, name: &Name) -> Result<Option<File>> {
        let mut options = File::options();
        // A named pipe that took the file's place would be waited for.
        options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        let opened = options.open(self.root.join(name.to_path()));
        let opened = opened.and_then(|file| file.metadata().map(|metadata| (file, metadata)));
        match opened {
            Err(error) if error.kind() == ErrorKind::NotFound && self.files == Files::InUse => Ok(None),
            Ok((_, metadata)) if !metadata.is_file() && self.files == Files::InUse => Ok(None),
            opened => opened.map(|(file, _)| Some(file)).with_context(|| format!("cannot read '{name}'")),
        }
    }

    /// Sends one file, and tells how it changed meanwhile, if it did.
    fn send_file(&mut self, name: &Name, listed: u64, out: &mut impl Write) -> Result<Option<String>> {
        let cannot_send = || format!("cannot send '{name}'");
        let Some(mut file) = self.open(name)? else {
            out.write_all(&GONE_MARK.to_le_bytes()).with_context(cannot_send)?;
            return Ok(Some(format!("'{name}' is gone")));
        };
        let size = |file: &File| {
            file.metadata().map(|data| data.len()).with_context(|| format!("cannot look at '{name}'"))
        };
        let bytes = if self.files == Files::Final { listed } else { size(&file)? };
        let mut hasher = blake3::Hasher::new();
        let mut left = bytes;
        let mut buffer = vec![0; PIECE_LIMIT_BYTES];
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = file.read(&mut buffer[..most]).with_context(|| format!("cannot read '{name}'"))?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            write_piece(out, &buffer[..count]).with_context(cannot_send)?;
            (self.progress)(count as u64);
            left -= count as u64;
        }
        let now = size(&file)?;
        if self.files == Files::Final && (left > 0 || now != bytes) {
            return Err(changed(name));
        }
        write_piece(out, &[])
            .and_then(|()| out.write_all(hasher.finalize().as_bytes()))
            .with_context(cannot_send)?;
        Ok(if left > 0 {
            Some(format!("'{name}' shrank; its first {} bytes were sent", bytes - left))
        } else {
            (now != bytes).then(|| format!("'{name}' grew; its first {bytes} bytes were sent"))
        })
    }
}

/// Writes a piece of a file. The empty one is the file's end.
fn write_piece(out: &mut impl Write, piece: &[u8]) -> std::io::Result<()> {
    // A buffer's length, and so below the limit.
    let length = u32::try_from(piece.len()).map_err(std::io::Error::other)?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(piece)
}

fn changed(name: &Name) -> Error {
    Error::new(format!("'{name}' changed while it was being sent"))
        .hint("let the command end only when its files are complete")
}

/// Reads a bundle and puts its files into `place`, each only when its bytes are proved.
///
/// `announce` receives the list before anything is written, and `progress` the number of bytes of each piece. Returns the
/// list of what was taken.
///
/// # Errors
/// A stream that is cut, or not a bundle; bytes that do not have their hash; a final file that is not as it was listed;
/// a path that leads out of `place`, or was not asked for; more than there is room for.
pub fn receive(
    input: impl Read,
    place: &Place,
    asked: &Asked,
    files: Files,
    announce: impl FnOnce(&Header),
    mut progress: impl FnMut(u64),
) -> Result<Header> {
    let mut input = zstd::Decoder::new(input).context(CUT)?;
    input.window_log_max(WINDOW_LOG_LIMIT).context(CUT)?;
    let mut header = read_header(&mut input, asked)?;
    place.check(&header.entries)?;
    if !asked.is_trusting() {
        check_paths(&header.entries)?;
    }
    let taken = asked.choose(&header, place)?;
    place.check_room(&header.entries)?;
    let left_out = taken.iter().filter(|is_taken| !**is_taken).count();
    if left_out > 0 {
        warn!("{} that nobody asked for came along, and was left out", count(left_out, "file"));
    }
    announce(&header);
    for (entry, is_taken) in header.entries.iter().zip(&taken) {
        if let EntryKind::File { bytes, executable } = entry.kind {
            let Some(first) = first_piece(&mut input, &entry.path, files)? else { continue };
            let mut arrival = Arrival {
                input: &mut input,
                name: &entry.path,
                listed: bytes,
                files,
                progress: &mut progress,
            };
            if *is_taken {
                place.file(&entry.path, executable, |file| arrival.write_to(file, first))?;
            } else {
                arrival.write_to(&mut std::io::sink(), first)?;
            }
        }
    }
    // To the very end, which the sender may still be writing.
    if input.read(&mut [0]).context(CUT)? != 0 {
        return Err(Error::new("the stream of files goes on after its end"));
    }
    let mut taken = taken.into_iter();
    header.entries.retain(|_| taken.next().unwrap_or(false));
    // Links last: none can then stand in the way of a file's path.
    place.links(&header.entries)?;
    Ok(header)
}

fn read_header(input: &mut impl Read, asked: &Asked) -> Result<Header> {
    let mut start = [0; 8];
    input.read_exact(&mut start).context(CUT)?;
    let length = u32::from_le_bytes([start[4], start[5], start[6], start[7]]);
    if start[..4] != MAGIC || length > OWN_LIST_LIMIT_BYTES {
        return Err(Error::new("the stream of files is not one that trainspot sends"));
    }
    if asked.is_trusting() {
        let mut list = Vec::new();
        let count = input.take(length.into()).read_to_end(&mut list).context(CUT)?;
        let list = if count == length as usize { list } else { return Err(Error::new(CUT)) };
        return serde_json::from_slice(&list).context("cannot read the list of files");
    }
    let limit = asked.list_limit_bytes();
    if length > limit {
        return Err(too_many(format!("it is longer than {} MiB", limit >> 20)));
    }
    // Never as a whole in memory beside what is made of it.
    let mut list = BufReader::new(input.take(length.into()));
    match Header::read_foreign(&mut list) {
        Ok(header) => Ok(header),
        Err(error) if error.is_data() => Err(too_many(error)),
        Err(error) if error.is_eof() || error.is_io() => Err(Error::new(CUT).source(error)),
        Err(error) => Err(refused("cannot read the list of files".to_owned()).source(error)),
    }
}

/// The length of a file's first piece; none for a file that is gone.
fn first_piece(input: &mut impl Read, name: &Name, files: Files) -> Result<Option<u32>> {
    let length = piece_length(input).with_context(|| format!("'{name}' did not arrive"))?;
    match files {
        _ if length != GONE_MARK => Ok(Some(length)),
        Files::InUse => Ok(None),
        Files::Final => Err(Error::new(format!("'{name}' was gone when it was to be sent"))),
    }
}

fn piece_length(input: &mut impl Read) -> std::io::Result<u32> {
    let mut length = [0; 4];
    input.read_exact(&mut length).map(|()| u32::from_le_bytes(length))
}

/// One file that is coming in.
struct Arrival<'a, R, P> {
    input: &'a mut R,
    name: &'a Name,
    /// Its size by the list.
    listed: u64,
    files: Files,
    progress: &'a mut P,
}

impl<R: Read, P: FnMut(u64)> Arrival<'_, R, P> {
    fn write_to(&mut self, file: &mut dyn Write, first: u32) -> Result<()> {
        let name = self.name;
        let cut = || format!("'{name}' did not arrive whole");
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; PIECE_LIMIT_BYTES];
        let (mut length, mut arrived) = (first, 0);
        while length > 0 {
            let piece = buffer.get_mut(..length as usize);
            let piece =
                piece.ok_or_else(|| Error::new("the stream of files is not one that trainspot sends"))?;
            arrived += u64::from(length);
            if self.files == Files::Final && arrived > self.listed {
                return Err(Error::new(format!("'{name}' is larger than it was announced")));
            }
            self.input.read_exact(piece).with_context(cut)?;
            hasher.update(piece);
            file.write_all(piece).with_context(|| format!("cannot write '{name}'"))?;
            (self.progress)(length.into());
            length = piece_length(self.input).with_context(cut)?;
        }
        let mut expected = [0; HASH_BYTES];
        self.input.read_exact(&mut expected).with_context(cut)?;
        if hasher.finalize() != blake3::Hash::from_bytes(expected) {
            return Err(Error::new(format!("'{name}' arrived with other bytes than were sent")));
        }
        if self.files == Files::Final && arrived != self.listed {
            return Err(Error::new(cut()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::everything;
    use std::fs;

    const FIRST_BYTES: usize = 3 * PIECE_LIMIT_BYTES;

    /// Sends the files `a` and `b` of a folder, of which `b` changes once a piece of `a` went out. What arrives of `b`.
    fn send(files: Files, change: impl Fn(&Path)) -> (Result<Vec<String>>, Option<Vec<u8>>) {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(from.path().join("a"), "a").unwrap();
        fs::write(from.path().join("b"), vec![b'b'; FIRST_BYTES]).unwrap();
        let header = Header { entries: everything(from.path()).unwrap(), unmatched: Vec::new() };
        let mut stream = Vec::new();
        let mut progress = |_| change(&from.path().join("b"));
        let sent = Sender { root: from.path(), files, progress: &mut progress }.send(&header, &mut stream);
        let place = Place::open(to.path()).unwrap();
        let received = receive(&stream[..], &place, &Asked::anything(), files, |_| {}, |_| {});
        assert_eq!(sent.is_ok(), received.is_ok(), "{sent:?}, {received:?}");
        assert!(received.is_err() || fs::read(to.path().join("a")).unwrap() == b"a");
        (sent, fs::read(to.path().join("b")).ok())
    }

    fn append(path: &Path) {
        let mut file = File::options().append(true).open(path).unwrap();
        file.write_all(b"more").unwrap();
    }

    fn truncate(path: &Path) {
        File::options().write(true).open(path).unwrap().set_len(5).unwrap();
    }

    #[test]
    fn of_a_file_in_use_comes_what_there_is_when_it_is_opened() {
        // It grows before it is opened, and with each piece of it.
        let (sent, arrived) = send(Files::InUse, append);
        let size = FIRST_BYTES + 4;
        assert_eq!(sent.unwrap(), [format!("'b' grew; its first {size} bytes were sent")]);
        assert_eq!(arrived.unwrap(), [vec![b'b'; FIRST_BYTES], b"more".to_vec()].concat());
        let (sent, arrived) = send(Files::InUse, |path| fs::remove_file(path).unwrap_or_default());
        assert_eq!(sent.unwrap(), ["'b' is gone"]);
        assert_eq!(arrived, None);
        let (sent, arrived) = send(Files::InUse, |path| {
            fs::remove_file(path).unwrap_or_default();
            fs::create_dir_all(path).unwrap();
        });
        assert_eq!((sent.unwrap(), arrived), (vec!["'b' is gone".to_owned()], None));
        let (sent, arrived) = send(Files::InUse, truncate);
        assert_eq!((sent.unwrap(), arrived.unwrap().len()), (vec![], 5), "it was small when it was opened");
    }

    #[test]
    fn of_a_file_that_shrinks_comes_what_was_read() {
        let calls = std::cell::Cell::new(0);
        let shrink = |path: &Path| {
            calls.set(calls.get() + 1);
            if calls.get() == 2 {
                truncate(path);
            }
        };
        let (sent, arrived) = send(Files::InUse, shrink);
        assert_eq!(sent.unwrap(), [format!("'b' shrank; its first {PIECE_LIMIT_BYTES} bytes were sent")]);
        assert_eq!(arrived.unwrap(), vec![b'b'; PIECE_LIMIT_BYTES]);
    }

    #[test]
    fn a_final_file_that_changes_does_not_arrive() {
        for change in [append, truncate, |path: &Path| fs::remove_file(path).unwrap_or_default()] {
            let (sent, arrived) = send(Files::Final, change);
            let error = sent.unwrap_err().render();
            assert!(
                error.contains("'b' changed while it was being sent") || error.contains("cannot read 'b'"),
                "{error}"
            );
            assert_eq!(arrived, None);
        }
    }

    #[test]
    fn a_final_file_arrives_as_it_was_announced_whatever_the_sender_says() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(from.path().join("a"), "four").unwrap();
        for (listed, why) in [(3, "'a' is larger than it was announced"), (5, "'a' did not arrive whole")] {
            let kind = EntryKind::File { bytes: listed, executable: false };
            let entries = vec![crate::transfer::Entry { path: Name::Text("a".into()), kind }];
            let mut stream = Vec::new();
            let mut sender = Sender { root: from.path(), files: Files::InUse, progress: &mut |_| {} };
            sender.send(&Header { entries, unmatched: Vec::new() }, &mut stream).unwrap();
            let place = Place::open(to.path()).unwrap();
            let error =
                receive(&stream[..], &place, &Asked::anything(), Files::Final, |_| {}, |_| {}).unwrap_err();
            assert_eq!(error.render(), why);
            assert!(!to.path().join("a").exists());
        }
    }
}
