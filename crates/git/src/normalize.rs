//! What `git add` makes of a file's bytes: line ends and `$Id$`, by the same rules.
//!
//! libgit2 has filters of its own for both, but they take a file into memory whole, and agree with git
//! neither on several `$Id$` in one file nor on a file whose committed version has CRLF. So the rules are
//! here, a file's bytes pass through them in constant memory, and `test/repo/attributes.rs` compares the
//! outcome with git's.

use std::io::{self, BufRead, Read};

/// What an attribute, or git's configuration, says of a file's line ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineEnds {
    /// Line ends stay as they are.
    Keep,
    /// CRLF becomes LF.
    Text,
    /// CRLF becomes LF if the file looks like text and the version in the index has no CRLF.
    Auto,
}

/// What `git add` does to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Normalization {
    pub(super) line_ends: LineEnds,
    /// Whether the text between `$Id:` and `$` goes.
    pub(super) ident: bool,
}

/// The counts that tell text from binary, as in git's `convert.c`.
#[derive(Debug, Default)]
pub(super) struct TextStatistics {
    nul: bool,
    lone_cr: bool,
    pub(super) crlf: u64,
    printable: u64,
    non_printable: u64,
    /// The last byte, and whether it is a CR that may be half of a line's end.
    last: u8,
}

impl TextStatistics {
    pub(super) fn of(mut content: impl BufRead) -> io::Result<Self> {
        let mut statistics = Self::default();
        loop {
            let bytes = content.fill_buf()?;
            if bytes.is_empty() {
                break;
            }
            for byte in bytes {
                statistics.count(*byte);
            }
            let length = bytes.len();
            content.consume(length);
        }
        statistics.lone_cr |= statistics.last == b'\r';
        // DOS ends a text with this byte.
        statistics.non_printable -= u64::from(statistics.last == 0x1a);
        Ok(statistics)
    }

    fn count(&mut self, byte: u8) {
        let after_cr = std::mem::replace(&mut self.last, byte) == b'\r';
        match byte {
            b'\n' if after_cr => self.crlf += 1,
            b'\n' | b'\r' => self.lone_cr |= after_cr,
            _ => {
                self.lone_cr |= after_cr;
                match byte {
                    0x08 | b'\t' | 0x1b | 0x0c | 0x20..=0x7e | 0x80.. => self.printable += 1,
                    _ => {
                        self.nul |= byte == 0;
                        self.non_printable += 1;
                    }
                }
            }
        }
    }

    pub(super) fn is_binary(&self) -> bool {
        self.lone_cr || self.nul || self.printable >> 7 < self.non_printable
    }

    /// Whether CRLF becomes LF. `index_has_crlf` is asked only where it matters.
    pub(super) fn strips<E>(
        &self,
        line_ends: LineEnds,
        index_has_crlf: impl FnOnce() -> Result<bool, E>,
    ) -> Result<bool, E> {
        Ok(self.crlf > 0
            && match line_ends {
                LineEnds::Keep => false,
                LineEnds::Text => true,
                LineEnds::Auto => !self.is_binary() && !index_has_crlf()?,
            })
    }
}

/// Bytes with LF for each CRLF.
pub(super) struct WithoutCr<R> {
    content: R,
    /// A CR was read, and not what comes after it.
    held_cr: bool,
}

impl<R: BufRead> WithoutCr<R> {
    pub(super) fn new(content: R) -> Self {
        Self { content, held_cr: false }
    }
}

impl<R: BufRead> Read for WithoutCr<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut written = 0;
        while written < out.len() {
            let bytes = self.content.fill_buf()?;
            let Some(&next) = bytes.first() else {
                if std::mem::take(&mut self.held_cr) {
                    out[written] = b'\r';
                    written += 1;
                }
                break;
            };
            if std::mem::take(&mut self.held_cr) && next != b'\n' {
                out[written] = b'\r';
                written += 1;
                continue;
            }
            let room = &mut out[written..];
            let run = bytes.iter().take(room.len()).position(|byte| *byte == b'\r');
            let length = run.unwrap_or(bytes.len().min(room.len()));
            room[..length].copy_from_slice(&bytes[..length]);
            written += length;
            self.held_cr = run.is_some();
            self.content.consume(length + usize::from(run.is_some()));
        }
        Ok(written)
    }
}

/// Bytes with `$Id$` for each `$Id: … $` in one line.
pub(super) fn without_ident(bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(bytes.len()), bytes);
    while let Some(dollar) = rest.iter().position(|byte| *byte == b'$') {
        let (before, after) = rest.split_at(dollar + 1);
        out.extend_from_slice(before);
        rest = after;
        let Some(inside) = rest.strip_prefix(b"Id:") else { continue };
        let Some(end) = inside.iter().position(|byte| *byte == b'$') else { break };
        if !inside[..end].contains(&b'\n') {
            out.extend_from_slice(b"Id$");
            rest = &inside[end + 1..];
        }
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    fn stripped(text: &[u8], buffer: usize, step: usize) -> Vec<u8> {
        let mut reader = WithoutCr::new(BufReader::with_capacity(buffer, text));
        let (mut out, mut piece) = (Vec::new(), vec![0; step]);
        loop {
            match reader.read(&mut piece).unwrap() {
                0 => return out,
                length => out.extend_from_slice(&piece[..length]),
            }
        }
    }

    #[test]
    fn a_cr_goes_only_before_lf_wherever_the_buffers_end() {
        let text = b"a\r\nb\rc\r\r\n\n\r\n\rd\r";
        for (buffer, step) in [(1, 1), (2, 3), (3, 2), (7, 1), (1, 64), (64, 64)] {
            assert_eq!(stripped(text, buffer, step), b"a\nb\rc\r\n\n\n\rd\r", "{buffer} {step}");
        }
    }

    #[test]
    fn ident_is_taken_out_of_each_line() {
        let text = b"$Id: 1 $ $Id$ $Id: 2$\n$Id: no\nend$ $I $Id: open";
        assert_eq!(without_ident(text), b"$Id$ $Id$ $Id$\n$Id: no\nend$ $I $Id: open");
    }

    #[test]
    fn binary_is_what_git_takes_for_it() {
        let binary = |bytes: &[u8]| TextStatistics::of(bytes).unwrap().is_binary();
        assert!(binary(b"a\0b") && binary(b"a\rb") && binary(b"a\r") && binary(b"\x01abc"));
        assert!(!binary(b"") && !binary(b"a\r\nb\n") && !binary("ü".as_bytes()) && !binary(b"a\n\x1a"));
    }
}
