//! The lines of a log that grows.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

/// How much of the log is read at a time: the supervisor has other things to do.
const READ_SIZE_BYTES: usize = 256 << 10;
/// A longer line is cut to this length.
const LINE_LIMIT_BYTES: usize = 8 << 10;

/// A log, from its start.
pub(super) struct LogTail {
    path: PathBuf,
    file: Option<File>,
    /// The beginning of a line whose end was not there yet.
    line: Vec<u8>,
    buffer: Vec<u8>,
}

impl LogTail {
    /// The log in this file, which need not be there yet.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None, line: Vec::new(), buffer: vec![0; READ_SIZE_BYTES] }
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
                byte if self.line.len() < LINE_LIMIT_BYTES => self.line.push(*byte),
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
        let mut tail = LogTail::new(path.clone());
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
        log.write_all(&[b'x'; LINE_LIMIT_BYTES + 5]).unwrap();
        log.write_all(b"\nend\n").unwrap();
        assert_eq!(read(), ["x".repeat(LINE_LIMIT_BYTES), "end".to_owned()]);
    }
}
