//! Packet lines: the frames of git's protocol. Four hexadecimal digits of length, themselves included, then
//! the data.

use std::io::{self, Error, Read};

/// The packet that ends a section.
pub(super) const FLUSH_PACKET: &[u8] = b"0000";

/// The longest packet, its length included.
const PACKET_LIMIT_BYTES: usize = 65520;

pub(super) fn write(into: &mut Vec<u8>, line: &str) {
    into.extend(format!("{:04x}{line}", line.len() + 4).into_bytes());
}

/// The next packet's data; `None` for a flush. The end of the stream is an error: every exchange ends
/// otherwise.
pub(super) fn read(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut digits = [0; 4];
    from.read_exact(&mut digits)?;
    // A sign is no digit, but a number to Rust.
    let digits_only = str::from_utf8(&digits).ok().filter(|_| digits.iter().all(u8::is_ascii_hexdigit));
    match digits_only.and_then(|digits| usize::from_str_radix(digits, 16).ok()) {
        Some(0) => Ok(None),
        Some(length @ 4..=PACKET_LIMIT_BYTES) => {
            let mut data = vec![0; length - 4];
            from.read_exact(&mut data)?;
            Ok(Some(data))
        }
        _ => Err(Error::other(format!("not git's protocol: {:?}", String::from_utf8_lossy(&digits)))),
    }
}

/// The next packet's data as text, without the line's end; `None` for a flush.
pub(super) fn read_line(from: &mut impl Read) -> io::Result<Option<String>> {
    Ok(read(from)?.map(|data| String::from_utf8_lossy(&data).trim_end_matches('\n').to_owned()))
}

/// The data of a side-band stream: band 1, with the server's messages (band 2) given to `tell` on the way.
pub(super) struct SideBand<R, T> {
    from: R,
    tell: T,
    data: io::Cursor<Vec<u8>>,
    ended: bool,
}

impl<R: Read, T: FnMut(&[u8])> SideBand<R, T> {
    pub(super) fn new(from: R, tell: T) -> Self {
        Self { from, tell, data: io::Cursor::default(), ended: false }
    }
}

impl<R: Read, T: FnMut(&[u8])> Read for SideBand<R, T> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.data.read(into)?;
            if read > 0 || self.ended || into.is_empty() {
                return Ok(read);
            }
            match read_packet(&mut self.from)? {
                None => self.ended = true,
                Some((1, data)) => self.data = io::Cursor::new(data),
                Some((2, data)) => (self.tell)(&data),
                // ACK and NAK, what the remote makes of commits that we named: before the bands, one or many.
                Some((b'A' | b'N', _)) => {}
                Some((_, data)) => {
                    return Err(Error::other(format!(
                        "the server says: {}",
                        String::from_utf8_lossy(&data).trim()
                    )));
                }
            }
        }
    }
}

fn read_packet(from: &mut impl Read) -> io::Result<Option<(u8, Vec<u8>)>> {
    let Some(mut data) = read(from)? else { return Ok(None) };
    if data.is_empty() {
        return Err(Error::other("not git's protocol: an empty packet"));
    }
    let band = data.remove(0);
    Ok(Some((band, data)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_as_they_were_written() {
        let mut bytes = Vec::new();
        write(&mut bytes, "want x\n");
        bytes.extend(FLUSH_PACKET);
        assert_eq!(bytes, b"000bwant x\n0000");
        let mut from = bytes.as_slice();
        assert_eq!(read_line(&mut from).unwrap().as_deref(), Some("want x"));
        assert_eq!(read_line(&mut from).unwrap(), None);
        assert_eq!(read_line(&mut from).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_not_git_is_refused() {
        for bytes in [&b"<!DOCTYPE html>"[..], b"0003", b"fff5", b"0002", b"+000", b"+005x"] {
            assert!(read(&mut &*bytes).is_err(), "{bytes:?}");
        }
        assert_eq!(read(&mut &b"0009ab"[..]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn bands_are_told_apart() {
        let stream = b"0007\x01ab000a\x02hello0006\x01c0000";
        let (mut told, mut data) = (Vec::new(), Vec::new());
        SideBand::new(&stream[..], |text: &[u8]| told.extend_from_slice(text))
            .read_to_end(&mut data)
            .unwrap();
        assert_eq!((data.as_slice(), told.as_slice()), (&b"abc"[..], &b"hello"[..]));
        let error = SideBand::new(&b"0009\x03dead"[..], |_: &[u8]| {}).read_to_end(&mut data).unwrap_err();
        assert_eq!(error.to_string(), "the server says: dead");
    }
}
