//! How ruamel writes a string: plain, 'quoted' or "quoted", and folded at 80 columns.

use super::resolve::is_string;
use std::collections::BTreeMap;

/// The column at which ruamel folds lines.
const LINE_WIDTH: usize = 80;
const LINE_BREAKS: [char; 4] = ['\n', '\u{85}', '\u{2028}', '\u{2029}'];

/// Where a scalar is written.
#[derive(Clone, Copy)]
pub(crate) struct ScalarPosition {
    /// The column after the key's colon.
    pub(crate) column: usize,
    /// The columns that further lines are indented by.
    pub(crate) indent: usize,
}

/// A string as a value, with the space before it.
///
/// Where ruamel folds, it loses spaces of a plain text and adds some to one with escapes: DVC then reads
/// another string than it wrote. Such a string is not folded here, as another path would name another file.
pub(crate) fn scalar(text: &str, place: ScalarPosition) -> String {
    let folded = folded(text, place);
    let is_read_as = |value: &str| {
        let read = serde_saphyr::from_str::<BTreeMap<String, String>>(&format!("key:{value}\n"));
        read.is_ok_and(|read| read.get("key").is_some_and(|read| read == text))
    };
    if !folded.contains('\n') || is_read_as(&folded) { folded } else { format!(" {}", key(text)) }
}

/// A string as ruamel writes it.
fn folded(text: &str, place: ScalarPosition) -> String {
    let mut out = ScalarWriter { text: String::new(), column: place.column, indent: place.indent };
    match style(text) {
        Style::Plain => out.plain(text),
        Style::Single => out.single(text),
        Style::Double => out.double(text),
    }
    out.text
}

/// A string as a key, which is never folded.
pub(super) fn key(text: &str) -> String {
    match style(text) {
        Style::Plain => text.to_owned(),
        Style::Single => format!("'{text}'"),
        Style::Double => format!("\"{}\"", text.chars().map(escaped).collect::<String>()),
    }
}

enum Style {
    Plain,
    Single,
    Double,
}

fn style(text: &str) -> Style {
    if text.is_empty() {
        return Style::Single;
    }
    let special = text.chars().any(|c| c != '\n' && !is_printable(c));
    let broken = text.contains(LINE_BREAKS);
    if !special && !broken && !is_guarded(text) && is_string(text) {
        return Style::Plain;
    }
    if special || text.contains(['\'', '\n']) || has_space_at_break(text) {
        Style::Double
    } else {
        Style::Single
    }
}

fn is_printable(c: char) -> bool {
    (' '..='~').contains(&c)
        || c == '\u{85}'
        || (c >= '\u{a0}' && !('\u{fffe}'..='\u{ffff}').contains(&c) && c != '\u{feff}')
}

fn has_space_at_break(text: &str) -> bool {
    LINE_BREAKS.iter().any(|c| text.contains(&format!(" {c}")) || text.contains(&format!("{c} ")))
}

/// Whether a printable text without line breaks means something else where it stands plain.
fn is_guarded(text: &str) -> bool {
    let first = text.chars().next().unwrap_or(' ');
    let alone = text.chars().nth(1).is_none_or(|next| next == ' ');
    text.starts_with("---")
        || text.starts_with("...")
        || text.starts_with(' ')
        || text.ends_with(' ')
        || "#,[]{}&*!|>'\"%@`".contains(first)
        || ("?:-".contains(first) && alone)
        || text.contains(": ")
        || text.contains(" #")
        || text[first.len_utf8()..].ends_with(':')
}

fn escaped(c: char) -> String {
    let short = match c {
        '\0' => '0',
        '\u{7}' => 'a',
        '\u{8}' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\u{b}' => 'v',
        '\u{c}' => 'f',
        '\r' => 'r',
        '\u{1b}' => 'e',
        '"' => '"',
        '\\' => '\\',
        '\u{85}' => 'N',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        _ if is_printable(c) => return c.to_string(),
        _ => {
            return match u32::from(c) {
                code @ ..=0xff => format!("\\x{code:02X}"),
                code @ ..=0xffff => format!("\\u{code:04X}"),
                code => format!("\\U{code:08X}"),
            };
        }
    };
    format!("\\{short}")
}

struct ScalarWriter {
    text: String,
    column: usize,
    indent: usize,
}

impl ScalarWriter {
    fn put(&mut self, text: &str) {
        self.text.push_str(text);
        self.column += text.chars().count();
    }

    fn fold(&mut self) {
        self.text.push('\n');
        self.text.push_str(&" ".repeat(self.indent));
        self.column = self.indent;
    }

    /// Writes a plain scalar. A word that is too long for its line goes to the next line; the space before
    /// the word stays where it was.
    fn plain(&mut self, text: &str) {
        self.put(" ");
        for piece in pieces(text) {
            let blank = piece.starts_with(' ');
            if piece == " " && self.column >= LINE_WIDTH {
                self.fold();
                continue;
            }
            if !blank && piece.chars().count() + self.column > LINE_WIDTH && self.column > self.indent {
                self.fold();
            }
            self.put(piece);
        }
    }

    /// Writes a scalar in single quotes. ruamel writes no text with an apostrophe in this form.
    fn single(&mut self, text: &str) {
        self.put(" '");
        let mut at = 0;
        for piece in pieces(text) {
            let inside = at > 0 && at + piece.len() < text.len();
            at += piece.len();
            if piece == " " && self.column > LINE_WIDTH && inside {
                self.fold();
            } else {
                self.put(piece);
            }
        }
        self.put("'");
    }

    /// Writes a scalar in double quotes. Lines are folded where a space or an escape ends a run of letters,
    /// with a backslash where the space would be lost.
    fn double(&mut self, text: &str) {
        self.put(" \"");
        let chars: Vec<char> = text.chars().collect();
        let (mut start, mut end) = (0, 0);
        while end <= chars.len() {
            let here = chars.get(end).copied();
            if here.is_none_or(|c| escaped(c).starts_with('\\')) {
                self.put(&chars[start..end].iter().collect::<String>());
                start = end;
                if let Some(c) = here {
                    self.put(&escaped(c));
                    start += 1;
                }
            }
            let pause = end > 0 && end + 1 < chars.len() && (here == Some(' ') || start >= end);
            if pause && self.column + end.saturating_sub(start) > LINE_WIDTH {
                let slash = needs_backslash(&chars, start, end);
                if start < end {
                    self.put(&chars[start..end].iter().collect::<String>());
                    start = end;
                }
                self.put(if slash { "\\" } else { "" });
                self.fold();
                if chars.get(start) == Some(&' ') {
                    start += usize::from(!slash);
                    self.put(if slash { "\\" } else { "" });
                }
            }
            end += 1;
        }
        self.put("\"");
    }
}

fn needs_backslash(chars: &[char], start: usize, end: usize) -> bool {
    let Some(space) = chars[end..].iter().position(|c| *c == ' ').map(|at| end + at) else { return true };
    let quoted = chars[end..space].iter().any(|c| matches!(c, '"' | '\''));
    let next_is_blank = chars.get(space + 1).is_none_or(|c| matches!(c, ' ' | '\n'));
    let two_spaces = end > 0 && chars[end - 1] == ' ' && chars[end] == ' ';
    quoted || next_is_blank || two_spaces || start == end
}

/// The runs of spaces and of anything else, in turn.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let blank = rest.starts_with(' ');
        let end = rest.find(|c| (c == ' ') != blank).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_read_as_it_is_wherever_ruamel_folds_it() {
        let long = "x".repeat(82);
        let plain = [format!("{long}  - y"), format!("{long} y"), format!("a b {long}   {long} c")];
        let escapes = ["\u{1}", "\"\t", "\u{85}\t"]
            .into_iter()
            .flat_map(|escape| ["x and a word later", " x", "x"].map(|end| escape.repeat(100) + end));
        let (mut folded, mut all) = (0, 0);
        for text in plain.into_iter().chain(escapes) {
            let written = scalar(&text, ScalarPosition { column: 7, indent: 4 });
            let read: BTreeMap<String, String> =
                serde_saphyr::from_str(&format!("path:{written}\n")).unwrap();
            assert_eq!(read["path"], text);
            folded += usize::from(written.contains('\n'));
            all += 1;
        }
        assert!((1..all).contains(&folded), "{folded} of {all}");
    }
}
