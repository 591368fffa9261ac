//! MD5, which is the name of everything in DVC.

use super::Oid;
use md5::{Digest as _, Md5 as Hasher};
use std::io::{self, Read};

/// The bytes that one read asks for: so many that the calls to the system cost little, and so few that they
/// stay in the processor's cache.
const READ_BUFFER_BYTES: usize = 256 << 10;

/// An MD5 in the making.
#[derive(Clone, Default)]
pub struct Md5(Hasher);

impl Md5 {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The name of the object that has the bytes so far.
    #[must_use]
    pub fn finish(self) -> Oid {
        let digits = self.0.finalize().into_iter().fold(String::with_capacity(32), |mut text, byte| {
            for half in [byte >> 4, byte & 15] {
                text.push(char::from_digit(half.into(), 16).unwrap_or_default());
            }
            text
        });
        Oid::of_digits(digits)
    }

    /// The name of the object with this content.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Oid {
        let mut hash = Self::default();
        hash.update(bytes);
        hash.finish()
    }

    /// The name of the object with what `input` gives, and its length.
    ///
    /// # Errors
    /// `input` fails.
    pub fn of_all(mut input: impl Read, buffer: &mut Vec<u8>) -> io::Result<(Oid, u64)> {
        buffer.resize(READ_BUFFER_BYTES, 0);
        let (mut hash, mut length) = (Self::default(), 0);
        loop {
            match input.read(buffer) {
                Ok(0) => return Ok((hash.finish(), length)),
                Ok(count) => {
                    hash.update(&buffer[..count]);
                    length += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
