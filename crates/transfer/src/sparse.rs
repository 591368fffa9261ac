//! A file that is written without its zeros: a machine may announce any size, and real blocks are this side's
//! disk.

use std::io::{Result, Seek, SeekFrom, Write};

/// A block of most file systems. Shorter runs of zeros are written.
const BLOCK_BYTES: usize = 4096;
/// What a block is compared with.
static ZERO_BLOCK: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// Writes a new file. Where it is given nothing but zeros for a block or more, the file gets a hole.
pub(super) struct SparseWriter<F> {
    file: F,
    /// Zeros that are not in the file yet.
    zeros: u64,
}

impl<F: Write + Seek> SparseWriter<F> {
    pub(super) fn new(file: F) -> Self {
        Self { file, zeros: 0 }
    }

    /// The file, and how large it has to be: nothing is written for zeros at its end.
    pub(super) fn finish(mut self) -> Result<(F, u64)> {
        self.file.flush()?;
        let bytes = self.file.stream_position()? + self.zeros;
        Ok((self.file, bytes))
    }
}

impl<F: Write + Seek> Write for SparseWriter<F> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        if bytes.len() >= BLOCK_BYTES
            && bytes.chunks(BLOCK_BYTES).all(|part| part == &ZERO_BLOCK[..part.len()])
        {
            self.zeros += bytes.len() as u64;
            return Ok(bytes.len());
        }
        while self.zeros > 0 {
            // No file is so large that this takes a second step; what a step cannot take is left for the
            // next.
            let step = i64::try_from(self.zeros).unwrap_or(i64::MAX);
            self.file.seek(SeekFrom::Current(step))?;
            self.zeros -= step.unsigned_abs();
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn runs_of_zeros_are_holes_and_every_byte_is_there() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..50 {
            let (mut expected, mut written) = (Vec::new(), 0);
            let mut sparse = SparseWriter::new(tempfile::tempfile().unwrap());
            for _ in 0..random.usize(0..12) {
                let mut piece = vec![0; random.usize(1..300_000)];
                if random.bool() {
                    random.fill(&mut piece);
                    written += piece.len();
                }
                sparse.write_all(&piece).unwrap();
                expected.extend(piece);
            }
            let (mut file, bytes) = sparse.finish().unwrap();
            file.set_len(bytes).unwrap();
            let mut found = Vec::new();
            std::io::Read::read_to_end(
                &mut {
                    file.rewind().unwrap();
                    &file
                },
                &mut found,
            )
            .unwrap();
            assert!(found == expected);
            let on_disk = usize::try_from(file.metadata().unwrap().blocks()).unwrap() * 512;
            assert!(on_disk <= written + 13 * 2 * BLOCK_BYTES, "{on_disk} for {written}");
        }
    }
}
