//! A stream of JSON in which no word is long. A parser keeps a string whole until it ends, and repeats in its
//! error a word that it does not know.

use std::io::{self, ErrorKind, Read};

/// The longest word that is read: room for a path of `PATH_LIMIT_BYTES` with each byte escaped, and more.
const WORD_LIMIT_BYTES: usize = 32 << 10;

/// Reads another stream, up to its first word that is too long.
pub(super) struct WordLimitReader<R> {
    stream: R,
    /// The length of the present word, in bytes.
    length: usize,
    is_string: bool,
    is_escaped: bool,
}

impl<R> WordLimitReader<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream, length: 0, is_string: false, is_escaped: false }
    }

    fn pass(&mut self, byte: u8) -> io::Result<()> {
        let quotes = byte == b'"' && !self.is_escaped;
        let is_between = !self.is_string && (byte.is_ascii_whitespace() || b",:[]{}".contains(&byte));
        self.is_escaped = self.is_string && !self.is_escaped && byte == b'\\';
        self.is_string ^= quotes;
        self.length = if quotes || is_between { 0 } else { self.length + 1 };
        if self.length > WORD_LIMIT_BYTES {
            let why = format!("a word of more than {WORD_LIMIT_BYTES} bytes");
            return Err(io::Error::new(ErrorKind::InvalidData, why));
        }
        Ok(())
    }
}

impl<R: Read> Read for WordLimitReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(into)?;
        into[..count].iter().try_for_each(|byte| self.pass(*byte))?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(text: &str) -> bool {
        WordLimitReader::new(text.as_bytes()).read_to_end(&mut Vec::new()).is_ok()
    }

    #[test]
    fn words_are_told_apart_as_json_does() {
        let (most, more) = ("a".repeat(WORD_LIMIT_BYTES), "a".repeat(WORD_LIMIT_BYTES + 1));
        let numbers = "1,".repeat(WORD_LIMIT_BYTES);
        for short in [format!("[\"{most}\",\"{most}\"]"), numbers, format!("{most} {most}"), most.clone()] {
            assert!(passes(&short), "{short:.20}");
        }
        // Neither what stands between words elsewhere nor an escaped quote ends a string.
        let half = &most[..WORD_LIMIT_BYTES / 2];
        for long in
            [format!("\"{more}\""), more, format!("\"{half},: {half}\""), format!("\"{half}\\\"{half}\"")]
        {
            assert!(!passes(&long), "{long:.20}");
        }
    }
}
