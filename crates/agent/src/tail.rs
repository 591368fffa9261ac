//! The lines of a log that grows.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

/// What is read at a time: the watch has other things to do.
const PIECE: usize = 256 << 10;
/// What is kept of a line.
const LONGEST_LINE: usize = 8 << 10;

/// A log, from its start.
pub(super) struct Tail {
    path: PathBuf,
    file: Option<File>,
    /// The beginning of a line whose end was not there yet.
    line: Vec<u8>,
    buffer: Vec<u8>,
}

impl Tail {
    /// The log in this file, which need not be there yet.
    pub(super) fn of(path: PathBuf) -> Self {
        Self { path, file: None, line: Vec::new(), buffer: vec![0; PIECE] }
    }

    /// Hands over the whole lines that came since the last call, a piece of the log at most. Tells whether
    /// there was any.
    pub(super) fn lines(&mut self, mut each: impl FnMut(&str)) -> bool {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return false };
        let Ok(count @ 1..) = file.read(&mut self.buffer) else { return false };
        for byte in &self.buffer[..count] {
            match byte {
                b'\n' => {
                    each(&String::from_utf8_lossy(&self.line));
                    self.line.clear();
                }
                byte if self.line.len() < LONGEST_LINE => self.line.push(*byte),
                _ => {}
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn lines_come_whole_once_and_not_too_long() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut tail = Tail::of(path.clone());
        let mut read = || {
            let mut lines = Vec::new();
            tail.lines(|line| lines.push(line.to_owned()));
            lines
        };
        assert!(read().is_empty());
        let mut log = File::create(path).unwrap();
        log.write_all(b"one\ntw").unwrap();
        assert_eq!(read(), ["one"]);
        assert!(read().is_empty());
        log.write_all(b"o\n\n").unwrap();
        assert_eq!(read(), ["two", ""]);
        log.write_all(&[b'x'; LONGEST_LINE + 5]).unwrap();
        log.write_all(b"\nend\n").unwrap();
        assert_eq!(read(), ["x".repeat(LONGEST_LINE), "end".to_owned()]);
    }
}
