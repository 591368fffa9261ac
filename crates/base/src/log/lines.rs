//! The training's output made fit for a CI log: whole lines, bounded, whatever bytes a program prints.

use super::count;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The bytes of a line that are kept and redacted: more than are shown, so that a secret across the cut is
/// found.
const LINE_LIMIT_BYTES: usize = 8 << 10;
/// The bytes of a line that are shown.
const SHOWN_LINE_BYTES: usize = 4 << 10;
/// How often a progress bar is shown, and how long an unfinished line waits.
const SHOW_INTERVAL: Duration = Duration::from_secs(10);
/// The bytes that are shown of an output before only a line every [`SHOW_INTERVAL`] is shown:
/// Pipelines stops a step that prints 100 MB.
const SHOWN_IN_FULL_BYTES: usize = 16 << 20;
/// How many of the last lines are kept for the end of a failed training.
const TAIL_LIMIT_LINES: usize = 40;

/// Turns bytes as they arrive into the lines to show. Memory stays bounded by the constants above.
pub struct Lines {
    line: Vec<u8>,
    /// Bytes of the current line that were not kept.
    dropped: usize,
    carriage_return: bool,
    last_progress: Instant,
    line_since: Instant,
    shown: usize,
    unshown: usize,
    last_shown: Instant,
    tail: VecDeque<String>,
    /// The end of the line before, with which a wrapped secret in this line may begin.
    carried: String,
}

impl Lines {
    /// Starts with an empty line.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            line: Vec::new(),
            dropped: 0,
            carriage_return: false,
            last_progress: now.checked_sub(SHOW_INTERVAL).unwrap_or(now),
            line_since: now,
            shown: 0,
            unshown: 0,
            last_shown: now,
            tail: VecDeque::new(),
            carried: String::new(),
        }
    }

    /// Takes bytes of the output, and calls `show` for each line that is due.
    // `dyn`: a generic function is compiled by its caller's crate, which is optimised for size.
    pub fn feed(&mut self, bytes: &[u8], now: Instant, show: &mut dyn FnMut(&str)) {
        for &byte in bytes {
            if std::mem::take(&mut self.carriage_return) && byte != b'\n' {
                self.overwritten(now, show);
            }
            match byte {
                b'\n' => self.end_line(now, show),
                b'\r' => self.carriage_return = true,
                _ => self.push(byte, now),
            }
        }
        self.tick(now, show);
    }

    /// Shows a line that has been unfinished for long.
    pub fn tick(&mut self, now: Instant, show: &mut dyn FnMut(&str)) {
        if !self.line.is_empty() && self.dropped == 0 && now.duration_since(self.line_since) >= SHOW_INTERVAL
        {
            self.end_line(now, show);
        }
    }

    /// Shows the unfinished line, and says how many lines were not shown.
    pub fn finish(&mut self, now: Instant, show: &mut dyn FnMut(&str)) {
        if !self.line.is_empty() {
            self.end_line(now, show);
        }
        if self.unshown > 0 {
            let unshown = count(self.unshown, "line");
            let were = if self.unshown == 1 { "was" } else { "were" };
            show(&format!("… {unshown} {were} not shown; the last ones:"));
            self.tail.iter().for_each(|line| show(line));
        }
    }

    /// The last lines of the output.
    #[must_use]
    pub fn tail(&self) -> Vec<String> {
        self.tail.iter().cloned().collect()
    }

    fn push(&mut self, byte: u8, now: Instant) {
        if self.line.is_empty() {
            self.line_since = now;
        }
        if self.line.len() < LINE_LIMIT_BYTES { self.line.push(byte) } else { self.dropped += 1 }
    }

    /// A progress bar went back to the line's start.
    fn overwritten(&mut self, now: Instant, show: &mut dyn FnMut(&str)) {
        if !self.line.is_empty() && now.duration_since(self.last_progress) >= SHOW_INTERVAL {
            self.last_progress = now;
            self.end_line(now, show);
        }
        self.line.clear();
        self.dropped = 0;
    }

    fn end_line(&mut self, now: Instant, show: &mut dyn FnMut(&str)) {
        let text = readable(&self.line, self.dropped, &mut self.carried);
        self.line.clear();
        self.dropped = 0;
        self.tail.push_back(text.clone());
        if self.tail.len() > TAIL_LIMIT_LINES {
            self.tail.pop_front();
        }
        let due = now.duration_since(self.last_shown) >= SHOW_INTERVAL;
        if self.shown < SHOWN_IN_FULL_BYTES || due {
            self.shown += text.len() + 1;
            self.last_shown = now;
            show(&text);
        } else {
            if self.unshown == 0 {
                show("… from here on, a line every 10 s");
            }
            self.unshown += 1;
        }
    }
}

/// A line as text: invalid UTF-8 replaced, control sequences but colours dropped, secrets hidden, cut to
/// size.
fn readable(line: &[u8], dropped: usize, carried: &mut String) -> String {
    let clean = super::foreign::coloured(&String::from_utf8_lossy(line));
    let before = std::mem::take(carried);
    *carried = super::windows::carry(&before, &clean);
    let clean = super::redact_after(&before, &clean);
    let cut = clean.floor_char_boundary(SHOWN_LINE_BYTES);
    if cut == clean.len() && dropped == 0 {
        return clean;
    }
    let more = count(clean.len() - cut + dropped, "more byte");
    format!("{}… ({more} in this line)", &clean[..cut])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(chunks: &[&[u8]]) -> Vec<String> {
        let (now, mut out) = (Instant::now(), Vec::new());
        let mut lines = Lines::new(now);
        for chunk in chunks {
            lines.feed(chunk, now, &mut |line: &str| out.push(line.to_owned()));
        }
        lines.finish(now, &mut |line: &str| out.push(line.to_owned()));
        out
    }

    #[test]
    fn lines_are_whole_however_they_arrive() {
        assert_eq!(shown(&[b"a\nb", b"c\r", b"\nd"]), ["a", "bc", "d"]);
        assert_eq!(shown(&["né".as_bytes().split_at(2).0, "né".as_bytes().split_at(2).1]), ["né"]);
    }

    #[test]
    fn a_progress_bar_shows_its_first_and_last_state() {
        let mut bar = b"start\n".to_vec();
        (0..=100).for_each(|percent| bar.extend(format!("\r{percent}%").as_bytes()));
        bar.extend(b"\nend\n");
        assert_eq!(shown(&[&bar]), ["start", "0%", "100%", "end"]);
    }

    #[test]
    fn a_progress_bar_is_shown_every_ten_seconds() {
        let (start, mut out) = (Instant::now(), Vec::new());
        let mut lines = Lines::new(start);
        for second in 0..=60 {
            let bar = format!("{second} s\r");
            lines.feed(bar.as_bytes(), start + Duration::from_secs(second), &mut |line: &str| {
                out.push(line.to_owned());
            });
        }
        assert_eq!(out, ["0 s", "10 s", "20 s", "30 s", "40 s", "50 s"]);
    }

    #[test]
    fn bytes_that_are_not_text_are_replaced_and_controls_dropped() {
        assert_eq!(
            shown(&[b"\xff\xfe\x1b]0;title\x07ok\x07\x1b[2K\x1b[31mred\x1b]0;t\x1b\\\x1b[0m\n"]),
            ["\u{fffd}\u{fffd}ok\x1b[31mred\x1b[0m"]
        );
    }

    #[test]
    fn an_endless_line_is_cut_and_memory_stays_flat() {
        let (now, mut out) = (Instant::now(), Vec::new());
        let mut lines = Lines::new(now);
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..64 {
            lines.feed(&chunk, now, &mut |line: &str| out.push(line.to_owned()));
            assert!(lines.line.len() <= LINE_LIMIT_BYTES && lines.line.capacity() <= 2 * LINE_LIMIT_BYTES);
        }
        lines.finish(now, &mut |line: &str| out.push(line.to_owned()));
        assert_eq!(out.len(), 1);
        assert!(out[0].ends_with("… (67104768 more bytes in this line)"), "{}", &out[0][SHOWN_LINE_BYTES..]);
        assert!(shown(&[&[b'x'; 5000]])[0].ends_with("x… (904 more bytes in this line)"));
    }

    #[test]
    fn a_flood_is_thinned_and_ends_with_its_last_lines() {
        const LINE_BYTES: usize = 64;
        let (in_full, hidden) = (SHOWN_IN_FULL_BYTES / LINE_BYTES, 100_000);
        let (now, mut out) = (Instant::now(), Vec::new());
        let mut lines = Lines::new(now);
        let mut show = |line: &str| out.push(line.to_owned());
        let line = |number: usize| format!("{number:0width$}", width = LINE_BYTES - 1);
        for number in 0..in_full + hidden {
            lines.feed((line(number) + "\n").as_bytes(), now, &mut show);
        }
        lines.finish(now, &mut show);
        let last: Vec<_> = (in_full + hidden - TAIL_LIMIT_LINES..in_full + hidden).map(line).collect();
        assert_eq!(out[in_full - 1], line(in_full - 1));
        assert_eq!(out[in_full], "… from here on, a line every 10 s");
        assert_eq!(out[in_full + 1], "… 100000 lines were not shown; the last ones:");
        assert_eq!((&out[in_full + 2..], lines.tail()), (&*last, last.clone()));
    }

    #[test]
    fn one_line_that_is_not_shown_is_told_as_one() {
        let (now, mut out) = (Instant::now(), Vec::new());
        let mut lines = Lines { shown: SHOWN_IN_FULL_BYTES, ..Lines::new(now) };
        let mut show = |line: &str| out.push(line.to_owned());
        lines.feed(b"a\n", now, &mut show);
        lines.feed(b"b\n", now + SHOW_INTERVAL, &mut show);
        lines.finish(now + SHOW_INTERVAL, &mut show);
        let told = "… 1 line was not shown; the last ones:";
        assert_eq!(out, ["… from here on, a line every 10 s", "b", told, "a", "b"]);
    }

    #[test]
    fn an_unfinished_line_is_shown_after_a_while() {
        let (now, mut out) = (Instant::now(), Vec::new());
        let mut lines = Lines::new(now);
        lines.feed(b"Loading data...", now, &mut |line: &str| out.push(line.to_owned()));
        lines.tick(now + SHOW_INTERVAL, &mut |line: &str| out.push(line.to_owned()));
        assert_eq!(out, ["Loading data..."]);
    }
}
