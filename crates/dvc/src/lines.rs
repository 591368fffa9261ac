//! The lines of the files that DVC reads.

/// The text as Python gives it to DVC, and as YAML has it too: a line ends in `\n`, `\r` or both.
pub(super) fn with_line_feeds(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}
