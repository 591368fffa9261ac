//! Takes the place of the crate `crc-fast`, of which `opendal-service-s3` uses one sum: CRC-32C.
//!
//! That crate chooses among its sums while it runs, so the tables of all of them are in the program: 650 kB
//! that do not compress. Here is what opendal calls, over the crate `crc`. Speed is no aim: the pipe asks
//! opendal for no such sum.

use crc::{CRC_32_ISCSI, Crc};

static CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// The sums there are.
#[derive(Clone, Copy, Debug)]
pub enum CrcAlgorithm {
    /// CRC-32C.
    Crc32Iscsi,
}

/// A sum of bytes that come in pieces.
#[derive(Clone)]
pub struct Digest(crc::Digest<'static, u32>);

impl Digest {
    /// The sum of no byte yet.
    #[must_use]
    pub fn new(CrcAlgorithm::Crc32Iscsi: CrcAlgorithm) -> Self {
        Self(CRC32C.digest())
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The sum, in its lower 32 bits.
    #[must_use]
    pub fn finalize(&self) -> u64 {
        self.0.clone().finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_the_catalogue() {
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        digest.update(b"1234");
        digest.update(b"56789");
        assert_eq!(digest.finalize(), 0xE306_9283);
    }
}
