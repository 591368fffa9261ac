//! Many files as one stream: zstd over a list of them, then the bytes of each in pieces, followed by their
//! hash. Of a file that the receiver holds already (see [`super::held_files`]) there is the hash alone.
//!
//! Not tar: its paths are bytes among the data, its sizes are read as they come, and it has no hashes. Here
//! the list is checked as a whole before a byte is written, the total is known from the start, and what
//! arrived is proved. A file comes in pieces because its size in the list may be old: a workspace can be in
//! use while it is sent.

mod receiving;

pub use receiving::receive;

use super::entry::{BundleHeader, EntryKind, EntryPath, OWN_LIST_LIMIT_BYTES};
use super::refusal::broken_off;
use blake3::Hash;
use rustix::fs::OFlags;
use std::collections::HashSet;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use trainspot_base::error::{Context as _, Error, Result};

/// The first bytes of every bundle, with the version of its form.
pub(super) const BUNDLE_MAGIC: [u8; 4] = *b"TSB3";
const HASH_BYTES: usize = blake3::OUT_LEN;
/// The level of zstd: fast, and next to free for data that does not compress.
const COMPRESSION_LEVEL: i32 = 1;
/// The longest piece of a file in the stream.
const PIECE_LIMIT_BYTES: usize = 256 << 10;
/// Stands in the place of a file's first piece when the file is gone.
const GONE_MARK: u32 = u32::MAX;
/// Stands in the place of a file's first piece when the receiver holds the file. Its hash follows.
const HELD_MARK: u32 = u32::MAX - 1;

/// Whether files may change while they are sent, and so what holds for a file that is not as the list says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileStability {
    /// Nobody should change the files any more: outputs, and copies. A file that is not as it was listed is
    /// an error.
    Final,
    /// Others may write to the files meanwhile: a workspace. Of each comes what there is when it is opened.
    InUse,
}

/// Writes a bundle.
pub struct BundleSender<'a> {
    /// Where the entries' paths start.
    pub root: &'a Path,
    /// Whether the files may change while they are sent.
    pub files: FileStability,
    /// Called with the number of bytes of each piece that went out.
    pub progress: &'a mut dyn FnMut(u64),
}

impl BundleSender<'_> {
    /// Writes `header` and the files that it lists. Returns a sentence for each file in use that changed.
    ///
    /// # Errors
    /// A file that cannot be read, a final one that changed, or an `out` that went away. The stream then ends
    /// early, and its receiver refuses it.
    pub fn send(&mut self, header: &BundleHeader, out: impl Write) -> Result<Vec<String>> {
        self.send_with(header, &[], &HashSet::new(), out)
    }

    /// Writes `header` and the files that it lists, each of which must have its hash of `hashes`: one for
    /// each entry, that of a link is not looked at. Of a file whose hash is in `held` only that is sent, and
    /// the file is not read.
    ///
    /// # Errors
    /// A file that cannot be read, or changed; or an `out` that went away.
    pub fn send_proved(
        &mut self,
        header: &BundleHeader,
        hashes: &[Hash],
        held: &HashSet<Hash>,
        out: impl Write,
    ) -> Result<()> {
        self.send_with(header, hashes, held, out).map(drop)
    }

    fn send_with(
        &mut self,
        header: &BundleHeader,
        hashes: &[Hash],
        held: &HashSet<Hash>,
        out: impl Write,
    ) -> Result<Vec<String>> {
        let cannot_send = "cannot send files";
        let lost = |error| broken_off(cannot_send, error);
        let mut out = zstd::Encoder::new(out, COMPRESSION_LEVEL).context(cannot_send)?;
        let json = serde_json::to_vec(header).context(cannot_send)?;
        let length = u32::try_from(json.len()).ok().filter(|length| *length <= OWN_LIST_LIMIT_BYTES);
        let length = length
            .ok_or_else(|| Error::new(format!("cannot send {} files at once", header.entries.len())))?;
        for part in [&BUNDLE_MAGIC, &length.to_le_bytes() as &[u8], &json] {
            out.write_all(part).map_err(lost)?;
        }
        let mut changes = Vec::new();
        for (number, entry) in header.entries.iter().enumerate() {
            let EntryKind::File { bytes, .. } = entry.kind else { continue };
            match hashes.get(number) {
                Some(hash) if held.contains(hash) => {
                    out.write_all(&HELD_MARK.to_le_bytes()).map_err(lost)?;
                    out.write_all(hash.as_bytes()).map_err(lost)?;
                }
                proof => changes.extend(self.send_file(&entry.path, bytes, proof, &mut out)?),
            }
        }
        out.finish().and_then(|mut out| out.flush()).map_err(lost)?;
        Ok(changes)
    }

    /// Opens a file; none if it may be gone, and is.
    fn open(&self, name: &EntryPath) -> Result<Option<File>> {
        let mut options = File::options();
        // A named pipe that took the file's place would be waited for.
        options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        let opened = options.open(self.root.join(name.to_path()));
        let opened = opened.and_then(|file| file.metadata().map(|metadata| (file, metadata)));
        match opened {
            Err(error) if error.kind() == ErrorKind::NotFound && self.files == FileStability::InUse => {
                Ok(None)
            }
            Ok((_, metadata)) if !metadata.is_file() && self.files == FileStability::InUse => Ok(None),
            opened => opened.map(|(file, _)| Some(file)).with_context(|| format!("cannot read '{name}'")),
        }
    }

    /// Sends one file, and tells how it changed meanwhile, if it did.
    fn send_file(
        &mut self,
        name: &EntryPath,
        listed: u64,
        proof: Option<&Hash>,
        out: &mut impl Write,
    ) -> Result<Option<String>> {
        let lost = |error| broken_off(format!("cannot send '{name}'"), error);
        let Some(mut file) = self.open(name)? else {
            out.write_all(&GONE_MARK.to_le_bytes()).map_err(lost)?;
            return Ok(Some(format!("'{name}' is gone")));
        };
        let size = |file: &File| {
            file.metadata().map(|data| data.len()).with_context(|| format!("cannot look at '{name}'"))
        };
        let bytes = if self.files == FileStability::Final { listed } else { size(&file)? };
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
            write_piece(out, &buffer[..count]).map_err(lost)?;
            (self.progress)(count as u64);
            left -= count as u64;
        }
        let now = size(&file)?;
        if self.files == FileStability::Final && (left > 0 || now != bytes) {
            return Err(changed(name));
        }
        let hash = hasher.finalize();
        if proof.is_some_and(|proof| *proof != hash) {
            return Err(Error::new(format!("'{name}' changed on disk")));
        }
        write_piece(out, &[]).and_then(|()| out.write_all(hash.as_bytes())).map_err(lost)?;
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

fn changed(name: &EntryPath) -> Error {
    Error::new(format!("'{name}' changed while it was being sent"))
        .hint("let the command end only when its files are complete")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ReceivePolicy, TargetFolder, everything};
    use std::fs;

    const FIRST_BYTES: usize = 3 * PIECE_LIMIT_BYTES;

    /// Sends the files `a` and `b` of a folder, of which `b` changes once a piece of `a` went out. What
    /// arrives of `b`.
    fn send(files: FileStability, change: impl Fn(&Path)) -> (Result<Vec<String>>, Option<Vec<u8>>) {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(from.path().join("a"), "a").unwrap();
        fs::write(from.path().join("b"), vec![b'b'; FIRST_BYTES]).unwrap();
        let header = BundleHeader { entries: everything(from.path()).unwrap(), unmatched: Vec::new() };
        let mut stream = Vec::new();
        let mut progress = |_| change(&from.path().join("b"));
        let sent =
            BundleSender { root: from.path(), files, progress: &mut progress }.send(&header, &mut stream);
        let place = TargetFolder::open(to.path()).unwrap();
        let received = receive(&stream[..], &place, &ReceivePolicy::accept_all(), files, |_| {}, |_| {});
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
        let (sent, arrived) = send(FileStability::InUse, append);
        let size = FIRST_BYTES + 4;
        assert_eq!(sent.unwrap(), [format!("'b' grew; its first {size} bytes were sent")]);
        assert_eq!(arrived.unwrap(), [vec![b'b'; FIRST_BYTES], b"more".to_vec()].concat());
        let (sent, arrived) = send(FileStability::InUse, |path| fs::remove_file(path).unwrap_or_default());
        assert_eq!(sent.unwrap(), ["'b' is gone"]);
        assert_eq!(arrived, None);
        let (sent, arrived) = send(FileStability::InUse, |path| {
            fs::remove_file(path).unwrap_or_default();
            fs::create_dir_all(path).unwrap();
        });
        assert_eq!((sent.unwrap(), arrived), (vec!["'b' is gone".to_owned()], None));
        let (sent, arrived) = send(FileStability::InUse, truncate);
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
        let (sent, arrived) = send(FileStability::InUse, shrink);
        assert_eq!(sent.unwrap(), [format!("'b' shrank; its first {PIECE_LIMIT_BYTES} bytes were sent")]);
        assert_eq!(arrived.unwrap(), vec![b'b'; PIECE_LIMIT_BYTES]);
    }

    #[test]
    fn a_final_file_that_changes_does_not_arrive() {
        for change in [append, truncate, |path: &Path| fs::remove_file(path).unwrap_or_default()] {
            let (sent, arrived) = send(FileStability::Final, change);
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
            let entries = vec![crate::BundleEntry { path: EntryPath::Text("a".into()), kind }];
            let mut stream = Vec::new();
            let mut sender =
                BundleSender { root: from.path(), files: FileStability::InUse, progress: &mut |_| {} };
            sender.send(&BundleHeader { entries, unmatched: Vec::new() }, &mut stream).unwrap();
            let place = TargetFolder::open(to.path()).unwrap();
            let error = receive(
                &stream[..],
                &place,
                &ReceivePolicy::accept_all(),
                FileStability::Final,
                |_| {},
                |_| {},
            )
            .unwrap_err();
            assert_eq!(error.render(), why);
            assert!(!to.path().join("a").exists());
        }
    }
    #[test]
    fn a_stream_that_is_cut_may_come_whole_the_next_time_and_one_that_is_wrong_may_not() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(from.path().join("a"), "of several bytes").unwrap();
        let header = BundleHeader { entries: everything(from.path()).unwrap(), unmatched: Vec::new() };
        let mut stream = Vec::new();
        let mut sender =
            BundleSender { root: from.path(), files: FileStability::Final, progress: &mut |_| {} };
        sender.send(&header, &mut stream).unwrap();
        let asked = ReceivePolicy::accept_all();
        let take = |stream: &[u8]| {
            let place = TargetFolder::open(to.path()).unwrap();
            receive(stream, &place, &asked, FileStability::Final, |_| {}, |_| {}).map(drop)
        };
        for length in 0..stream.len() {
            assert!(take(&stream[..length]).unwrap_err().is_transient(), "{length} bytes");
        }
        take(&stream).unwrap();
        let other = zstd::encode_all(&b"another stream"[..], COMPRESSION_LEVEL).unwrap();
        assert!(!take(&other).unwrap_err().is_transient());
        let gone = sender.send(&header, Vanished).unwrap_err();
        assert!(gone.is_transient(), "{}", gone.render());
        fs::remove_file(from.path().join("a")).unwrap();
        assert!(!sender.send(&header, Vec::new()).unwrap_err().is_transient());
    }

    /// A receiver that went away.
    struct Vanished;

    impl Write for Vanished {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
