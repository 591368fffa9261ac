//! The parts of a line of YAML.

use trainspot_base::error::{Context as _, Result};

/// The white space around a text in YAML. All other white space of Unicode is text, such as that of a file's
/// name.
pub(super) const YAML_SPACES: [char; 2] = [' ', '\t'];

/// The columns before the text of a line.
pub(super) fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// Whether a line is empty or a comment.
pub(super) fn is_filler(line: &str) -> bool {
    let text = line.trim_start_matches(YAML_SPACES);
    text.is_empty() || text.starts_with('#')
}

/// The bytes from a dash to what it holds.
pub(super) fn dash(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('-')?;
    (rest.is_empty() || rest.starts_with(' ')).then(|| text.len() - rest.trim_start_matches(' ').len())
}

/// The key at the start of `text`, and the bytes up to the end of its colon.
pub(super) fn key(text: &str) -> Result<Option<(String, usize)>> {
    if text.starts_with(['{', '[', '&', '*', '!', '?']) {
        return Ok(None);
    }
    if let Some(quote) = text.chars().next().filter(|c| matches!(c, '\'' | '"')) {
        let Some(length) = quoted_length(text, quote) else { return Ok(None) };
        let (name, rest) = text.split_at(length);
        let colon = text.len() - rest.trim_start_matches(YAML_SPACES).len();
        let is_key = &text[colon..] == ":" || text[colon..].starts_with(": ");
        let name = || serde_saphyr::from_str::<String>(name).context("cannot read a key");
        return is_key.then(|| Ok((name()?, colon + 1))).transpose();
    }
    let end = text.find(": ").or_else(|| text.ends_with(':').then(|| text.len() - 1));
    let end = end.filter(|end| text.find(" #").is_none_or(|comment| *end < comment));
    Ok(end.map(|end| (text[..end].trim_end_matches(YAML_SPACES).to_owned(), end + 1)))
}

/// The bytes of a text in quotes, the quotes included; none if it goes on in the next line.
pub(super) fn quoted_length(text: &str, quote: char) -> Option<usize> {
    closing_quote(&text[quote.len_utf8()..], quote).map(|length| quote.len_utf8() + length)
}

/// The bytes of a line up to the end of the quote that ends a text in quotes, which began in this line or an
/// earlier one.
pub(super) fn closing_quote(line: &str, quote: char) -> Option<usize> {
    let mut chars = line.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if quote == '"' => {
                chars.next();
            }
            _ if c == quote && quote == '\'' && chars.peek().is_some_and(|(_, next)| *next == quote) => {
                chars.next();
            }
            _ if c == quote => return Some(at + quote.len_utf8()),
            _ => {}
        }
    }
    None
}

/// A comment that starts in or after byte `start`, and its column.
pub(super) fn comment(line: &str, start: usize) -> Option<(usize, String)> {
    let at = start + line[start..].find(|c: char| !YAML_SPACES.contains(&c))?;
    line[at..].starts_with('#').then(|| (line[..at].chars().count(), line[at..].to_owned()))
}

/// What is before a comment, and the comment.
pub(super) fn split_comment(line: &str, start: usize) -> (&str, Option<(usize, String)>) {
    let end = line[start..].find(" #").map_or(line.len(), |at| start + at);
    (line[start..end].trim_end_matches(YAML_SPACES), comment(line, end))
}
