//! The pack: the objects that the remote lacks, in the form in which they travel.
//!
//! A large file is read once and deflated once, in constant memory, into a file of finished pack entries; its
//! hash falls out on the way. The trees and the commit are small and join when the pack is sealed, so that a
//! commit that has to be made again, because the remote moved, costs no second pass over the model. Entries
//! are never deltas: what a training writes rarely resembles what the last one wrote, and searching for a
//! delta takes several times the file's size in memory.

use flate2::Compression;
use flate2::write::ZlibEncoder;
use git2::{ObjectType, Oid};
use sha1::{Digest as _, Sha1};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom, Write};
use tokio_util::sync::CancellationToken;
use trainspot_base::error::{Context as _, Error, Result};

/// The fast level: models are mostly incompressible floats, on which higher levels spend seconds for a
/// percent.
const COMPRESSION_LEVEL: Compression = Compression::fast();

/// The bytes that are read of a file at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// Finished entries for blobs, in a file.
pub(super) struct Blobs {
    file: File,
    /// Bytes of finished entries.
    length: u64,
    held: BTreeSet<Oid>,
    stop: CancellationToken,
}

impl Blobs {
    /// `file` is empty, open for reading and writing.
    pub(super) fn new(file: File, stop: CancellationToken) -> Self {
        Self { file, length: 0, held: BTreeSet::new(), stop }
    }

    /// The bytes of all finished entries, as they travel.
    pub(super) fn bytes(&self) -> u64 {
        self.length
    }

    /// Appends a blob of `size` bytes and returns its hash; one that is held already, or `known` to the
    /// remote, takes no room.
    pub(super) fn add(
        &mut self,
        size: u64,
        content: &mut impl Read,
        known: impl FnOnce(Oid) -> bool,
    ) -> Result<Oid> {
        let id = self.append(size, content)?;
        if known(id) || !self.held.insert(id) {
            let cut =
                self.file.set_len(self.length).and_then(|()| self.file.seek(SeekFrom::Start(self.length)));
            cut.context("cannot cut the pack")?;
        } else {
            self.length = self.file.stream_position().context("cannot measure the pack")?;
        }
        Ok(id)
    }

    fn append(&mut self, size: u64, content: &mut impl Read) -> Result<Oid> {
        self.file.write_all(&entry_header(ObjectType::Blob, size)).context("cannot write the pack")?;
        let mut entry = ZlibEncoder::new(&mut self.file, COMPRESSION_LEVEL);
        let mut hash = Sha1::new_with_prefix(format!("blob {size}\0"));
        let (mut buffer, mut total) = (vec![0; CHUNK_BYTES], 0);
        loop {
            if self.stop.is_cancelled() {
                return Err(Error::new("stopped while packing"));
            }
            let read = content.read(&mut buffer).context("cannot read it")?;
            if read == 0 {
                break;
            }
            total += read as u64;
            hash.update(&buffer[..read]);
            entry.write_all(&buffer[..read]).context("cannot write the pack")?;
        }
        entry.finish().context("cannot write the pack")?;
        if total != size {
            return Err(Error::new(format!("it changed while it was read: {total} bytes instead of {size}")));
        }
        Oid::from_bytes(&hash.finalize()).context("cannot hash it")
    }

    /// Makes a whole pack of the blobs and of `objects`.
    pub(super) fn seal(&self, objects: &[(ObjectType, Vec<u8>)]) -> Result<Pack> {
        let count = u32::try_from(self.held.len() + objects.len()).context("too many objects for a pack")?;
        let mut tail = Vec::new();
        for (kind, data) in objects {
            tail.extend(entry_header(*kind, data.len() as u64));
            tail.extend(deflate(data)?);
        }
        let mut pack = Pack {
            head: [*b"PACK", 2_u32.to_be_bytes(), count.to_be_bytes()].concat(),
            blobs: self.file()?,
            tail,
        };
        let mut hash = Sha1::new();
        std::io::copy(&mut pack.reader()?, &mut Hasher(&mut hash)).context("cannot read the pack")?;
        pack.tail.extend(hash.finalize());
        Ok(pack)
    }

    fn file(&self) -> Result<(File, u64)> {
        Ok((self.file.try_clone().context("cannot open the pack again")?, self.length))
    }
}

/// A complete pack, of which only the blobs are on disk.
pub(super) struct Pack {
    head: Vec<u8>,
    blobs: (File, u64),
    tail: Vec<u8>,
}

impl Pack {
    /// Bytes from `PACK` to the checksum.
    pub(super) fn len(&self) -> u64 {
        (self.head.len() + self.tail.len()) as u64 + self.blobs.1
    }

    /// The whole pack, from its beginning. One reader at a time: they share the file's position.
    pub(super) fn reader(&self) -> Result<impl Read> {
        let (file, length) = self.parts()?;
        Ok(self.head.as_slice().chain(file.take(length)).chain(self.tail.as_slice()))
    }

    /// The file of blobs, at its beginning, and its length.
    pub(super) fn parts(&self) -> Result<(File, u64)> {
        let mut file = self.blobs.0.try_clone().context("cannot open the pack again")?;
        file.rewind().context("cannot rewind the pack")?;
        Ok((file, self.blobs.1))
    }

    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    pub(super) fn tail(&self) -> &[u8] {
        &self.tail
    }
}

fn deflate(data: &[u8]) -> Result<Vec<u8>> {
    let mut entry = ZlibEncoder::new(Vec::new(), COMPRESSION_LEVEL);
    entry.write_all(data).and_then(|()| entry.finish()).context("cannot deflate an object")
}

struct Hasher<'a>(&'a mut Sha1);

impl Write for Hasher<'_> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.update(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Type and inflated size, in git's variable-length form: four bits of size in the first byte, seven in each
/// further one.
fn entry_header(kind: ObjectType, size: u64) -> Vec<u8> {
    let kind = match kind {
        ObjectType::Commit => 1,
        ObjectType::Tree => 2,
        ObjectType::Tag => 4,
        _ => 3,
    };
    let (mut byte, mut rest) = (kind << 4 | (size & 0x0f) as u8, size >> 4);
    let mut header = Vec::with_capacity(10);
    while rest > 0 {
        header.push(byte | 0x80);
        (byte, rest) = ((rest & 0x7f) as u8, rest >> 7);
    }
    header.push(byte);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blobs() -> Blobs {
        Blobs::new(tempfile::tempfile().unwrap(), CancellationToken::new())
    }

    #[test]
    fn sizes_are_written_as_git_writes_them() {
        assert_eq!(entry_header(ObjectType::Blob, 0), [0x30]);
        assert_eq!(entry_header(ObjectType::Blob, 15), [0x3f]);
        assert_eq!(entry_header(ObjectType::Tree, 16), [0xa0, 0x01]);
        assert_eq!(entry_header(ObjectType::Commit, 100_000_000), [0x90, 0x90, 0xbc, 0xfd, 0x02]);
    }

    #[test]
    fn libgit2_reads_the_pack_and_finds_every_object() {
        let folder = tempfile::tempdir().unwrap();
        let repository = git2::Repository::init_bare(folder.path()).unwrap();
        let mut blobs = blobs();
        let big: Vec<u8> =
            (0..3_000_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
        let small = blobs.add(5, &mut &b"small"[..], |_| false).unwrap();
        let large = blobs.add(big.len() as u64, &mut big.as_slice(), |_| false).unwrap();
        let again = blobs.add(5, &mut &b"small"[..], |_| false).unwrap();
        blobs.add(5, &mut &b"known"[..], |_| true).unwrap();
        let last = blobs.add(4, &mut &b"last"[..], |_| false).unwrap();
        let pack = blobs.seal(&[(ObjectType::Blob, b"tail".to_vec())]).unwrap();

        let odb = repository.odb().unwrap();
        let mut writer = odb.packwriter().unwrap();
        let written = std::io::copy(&mut pack.reader().unwrap(), &mut writer).unwrap();
        writer.commit().unwrap();
        odb.refresh().unwrap();
        assert_eq!(written, pack.len());
        assert_eq!(small, again);
        assert_eq!(odb.read(large).unwrap().data(), big);
        assert_eq!(odb.read(last).unwrap().data(), b"last");
        assert!(odb.exists(small));
        assert!(odb.exists(Oid::hash_object(ObjectType::Blob, b"tail").unwrap()));
        assert!(!odb.exists(Oid::hash_object(ObjectType::Blob, b"known").unwrap()));
    }

    #[test]
    fn a_file_that_grows_while_it_is_read_is_refused() {
        let error = blobs().add(3, &mut &b"four"[..], |_| false).unwrap_err();
        assert_eq!(error.to_string(), "it changed while it was read: 4 bytes instead of 3");
    }
}
