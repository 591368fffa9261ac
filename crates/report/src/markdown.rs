//! Pieces of Bitbucket's Markdown, which is Python-Markdown with every HTML tag shown as text.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use trainspot_base::log::one_line;

/// The longest text in a cell, a title or a list, in characters: one text must not push out all the others.
const MAX_TEXT: usize = 160;

/// The longest address of a link, in bytes; nobody can follow a longer one.
const MAX_URL: usize = 2000;

/// What would end a link's address, or the table cell that it is in.
const IN_URL: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'(')
    .add(b')')
    .add(b'*')
    .add(b'<')
    .add(b'>')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'`')
    .add(b'|');

/// A table, its cells escaped already.
pub(super) struct MarkdownTable {
    pub(super) header: &'static [&'static str],
    pub(super) rows: Vec<Vec<String>>,
}

impl MarkdownTable {
    /// The header and the line below it.
    pub(super) fn head(&self) -> String {
        let dashes = vec!["---"; self.header.len()];
        format!("{}\n{}", line(self.header), line(&dashes))
    }

    /// One line a row.
    pub(super) fn lines(&self) -> Vec<String> {
        self.rows.iter().map(|row| line(row)).collect()
    }
}

fn line<T: AsRef<str>>(cells: &[T]) -> String {
    let cells = cells.iter().map(|cell| format!(" {} |", cell.as_ref()));
    format!("|{}", cells.collect::<String>())
}

/// A text on one line that is shown as it is, in a table cell and anywhere else.
pub(super) fn cell(text: &str) -> String {
    escape(&without_links(&cut(&one_line(text), MAX_TEXT)))
}

/// A sentence on one line that is shown as it is; longer than a cell may be.
pub(super) fn sentence(text: &str) -> String {
    escape(&without_links(&cut(&one_line(text), 4 * MAX_TEXT)))
}

/// A link, or only its label where there is no address to follow.
pub(super) fn link(label: &str, url: Option<&str>) -> String {
    let url = url.map(|url| utf8_percent_encode(url, IN_URL).to_string());
    match url.filter(|url| !url.is_empty() && url.len() <= MAX_URL) {
        Some(url) => format!("[{}]({url})", cell(label)),
        None => cell(label),
    }
}

/// `text` with at most `length` characters, its cut marked.
pub(super) fn cut(text: &str, length: usize) -> String {
    match text.char_indices().nth(length) {
        None => text.to_owned(),
        Some(_) => text.chars().take(length.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// A fence that no line of `lines` can end.
pub(super) fn fence_around<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let longest = lines.flat_map(|line| line.split(|c| c != '`')).map(str::len).max();
    "`".repeat(longest.unwrap_or(0).max(2) + 1)
}

/// The fence that is open after `line`, its indent included, when `open` was before it.
pub(super) fn fence_after<'a>(open: Option<&'a str>, line: &'a str) -> Option<&'a str> {
    let (fence, rest) = split_fence(line).map_or((None, ""), |(fence, rest)| (Some(fence), rest));
    match (open, fence) {
        (Some(open), Some(fence)) if closes(open, fence) && rest.trim().is_empty() => None,
        (Some(open), _) => Some(open),
        (None, Some(fence)) if fence.ends_with('~') || !rest.contains('`') => Some(fence),
        (None, _) => None,
    }
}

fn closes(open: &str, fence: &str) -> bool {
    let (open, fence) = (open.trim_start(), fence.trim_start());
    fence.len() >= open.len() && fence.chars().next() == open.chars().next()
}

/// Up to three blanks and a run of at least three of the same mark, then the rest of the line.
fn split_fence(line: &str) -> Option<(&str, &str)> {
    let unindented = line.trim_start_matches(' ');
    let indent = line.len() - unindented.len();
    let mark = unindented.chars().next().filter(|mark| ['`', '~'].contains(mark))?;
    let rest = unindented.trim_start_matches(mark);
    let run = unindented.len() - rest.len();
    (indent < 4 && run >= 3).then(|| line.split_at(indent + run))
}

/// Addresses that are not made links of: Bitbucket makes one of each that it recognises. A word joiner, which
/// nobody sees, keeps it from that; there is no escape for it.
fn without_links(text: &str) -> String {
    text.replace("://", ":\u{2060}//").replace("www.", "www\u{2060}.")
}

/// Escapes what Python-Markdown gives a meaning to, but not where it has none: `val_accuracy` stays readable.
///
/// `<` and `~` cannot be escaped. The first needs it not, as Bitbucket shows HTML as text; the second could
/// open a fence where a line starts, and becomes its look-alike there.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut previous = None;
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        let next = rest.clone().next();
        let in_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        let special = match character {
            '\\' | '`' | '*' | '[' | ']' | '{' | '}' | '|' => true,
            '_' => !(in_word(previous) && in_word(next)),
            '#' | '>' | '+' | '-' => previous.is_none(),
            _ => false,
        };
        if special {
            escaped.push('\\');
        }
        escaped.push(if character == '~' && previous.is_none() { '∼' } else { character });
        previous = Some(character);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shown_as_it_is() {
        let cases = [
            ("val_accuracy", "val_accuracy"),
            ("__init__", "\\_\\_init\\_\\_"),
            ("a|b\nc\td\r\ne", "a\\|b c d e"),
            ("`code` *bold* [x](y)", "\\`code\\` \\*bold\\* \\[x\\](y)"),
            ("a\\|b", "a\\\\\\|b"),
            ("# title", "\\# title"),
            ("- item - item", "\\- item - item"),
            ("~~~ a ~~~", "∼~~ a ~~~"),
            ("@{123}", "@\\{123\\}"),
            ("\u{1b}[31mü🎉", "ü🎉"),
            ("see http://evil.example/?a=b", "see http:\u{2060}//evil.example/?a=b"),
            ("www.evil.example", "www\u{2060}.evil.example"),
        ];
        for (text, expected) in cases {
            assert_eq!(cell(text), expected);
        }
        assert_eq!(cell(&"ü".repeat(500)).chars().count(), MAX_TEXT);
        assert!(cell(&"|".repeat(500)).ends_with("\\|…"));
    }

    #[test]
    fn links_cannot_be_broken_out_of() {
        assert_eq!(
            link("a]b", Some("https://x/a b(1)|ü.png")),
            "[a\\]b](https://x/a%20b%281%29%7C%C3%BC.png)"
        );
        assert_eq!(link("a", None), "a");
        assert_eq!(link("a", Some(&"x".repeat(3000))), "a");
    }

    #[test]
    fn fences_open_and_close() {
        let open = |text: &'static str| text.lines().fold(None, fence_after);
        assert_eq!(open("```\na"), Some("```"));
        assert_eq!(open("```rust\na\n```"), None);
        assert_eq!(open("````\n```\n"), Some("````"));
        assert_eq!(open("```\n~~~\n"), Some("```"));
        assert_eq!(open("```\n``` rust\n"), Some("```"));
        assert_eq!(open("~~~\n~~~~  \n"), None);
        assert_eq!(open("```a``` inline\n    ```\n``"), None);
        assert_eq!(open("  ```\n"), Some("  ```"));
        assert_eq!(fence_around(["a", "```` b `````"].into_iter()), "``````");
        assert_eq!(fence_around(["a"].into_iter()), "```");
    }
}
