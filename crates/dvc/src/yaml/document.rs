//! A block of YAML as lines that know their place: enough to change a value and leave the rest as it was.

use super::line::YAML_SPACES;
use super::scalar::{ScalarPosition, key, scalar};
use std::fmt::Write as _;
use std::ops::Range;

/// The lines of a document.
#[derive(Debug)]
pub(crate) struct Document {
    /// Comments and empty lines before the first entry.
    pub(super) head: Vec<String>,
    /// The keys and the items of lists, in the order of the lines.
    pub(super) entries: Vec<YamlEntry>,
}

/// A key with its value, or an item of a list.
#[derive(Debug)]
pub(super) struct YamlEntry {
    /// The column of the key or item, after the dashes before it.
    pub(super) column: usize,
    /// How many lists have an item that starts here.
    pub(super) dashes: usize,
    /// The key; none for an item that is a value.
    pub(super) key: Option<String>,
    /// The value.
    pub(super) value: YamlValue,
    /// A comment on the line, and its column.
    pub(super) comment: Option<(usize, String)>,
    /// Comments and empty lines up to the next entry, as they are.
    pub(super) tail: Vec<String>,
}

/// A value that is neither a mapping nor a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum YamlValue {
    /// Null, or the entries that follow.
    Empty,
    /// A string, however it was written.
    Text(String),
    /// Anything else on one line, such as a number, as it is written. ruamel would put one space after each
    /// comma of a list in brackets.
    Raw(String),
    /// A string in lines of its own: what follows the key, and the lines without their indentation.
    Block(String, Vec<String>),
}

impl Document {
    /// The entries of the only item of a top-level list, or why there is no such item.
    pub(crate) fn only_item(&self, list: &str) -> Result<Range<usize>, String> {
        let at = self.find(0..self.entries.len(), 0, list).ok_or_else(|| format!("it has no '{list}'"))?;
        if self.entries[at].value != YamlValue::Empty {
            return Err(format!("its '{list}' are not written in lines of their own"));
        }
        let range = at + 1..self.end(at, 0);
        let items = range.clone().filter(|at| self.entries[*at].dashes > 0 && self.entries[*at].column == 2);
        match items.count() {
            1 => Ok(range),
            count => Err(format!("it has {count} '{list}'")),
        }
    }

    /// All entries.
    pub(crate) fn all(&self) -> Range<usize> {
        0..self.entries.len()
    }

    /// The value of a key among the entries of `range` in `column`.
    pub(crate) fn value(&self, range: Range<usize>, column: usize, key: &str) -> Option<&YamlValue> {
        self.find(range, column, key).map(|at| &self.entries[at].value)
    }

    /// Whether a key has entries below it.
    pub(crate) fn has_children(&self, range: Range<usize>, column: usize, key: &str) -> bool {
        self.find(range, column, key).is_some_and(|at| self.end(at, column) > at + 1)
    }

    /// Gives a key a value, at the end of `range` if it is new. What follows a bracket there comes after it,
    /// as in ruamel.
    pub(crate) fn set(&mut self, range: &mut Range<usize>, column: usize, key: &str, value: YamlValue) {
        if let Some(at) = self.find(range.clone(), column, key) {
            self.entries[at].value = value;
            return;
        }
        let last =
            range.end.checked_sub(1).map(|at| &mut self.entries[at]).filter(|entry| entry.is_bracket());
        let tail = last.map(|entry| std::mem::take(&mut entry.tail)).unwrap_or_default();
        let key = Some(key.to_owned());
        let entry = YamlEntry { column, dashes: 0, key, value, comment: None, tail };
        self.entries.insert(range.end, entry);
        range.end += 1;
    }

    /// Removes a key with all that is below it, and the comments that ruamel keeps with it: those that follow
    /// it, and those before it if they follow a bracket.
    pub(crate) fn remove(&mut self, range: &mut Range<usize>, column: usize, key: &str) {
        let Some(at) = self.find(range.clone(), column, key) else { return };
        let end = self.end(at, column).min(range.end);
        let dashes = self.entries[at].dashes;
        self.entries.drain(at..end);
        if let Some(before) =
            at.checked_sub(1).map(|at| &mut self.entries[at]).filter(|entry| entry.is_bracket())
        {
            before.tail.clear();
        }
        range.end -= end - at;
        if at < range.end {
            self.entries[at].dashes += dashes;
        }
    }

    /// The document as text.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        push_lines(&mut text, &self.head);
        for entry in &self.entries {
            entry.write(&mut text);
            entry.write_tail(&mut text);
        }
        text
    }

    fn find(&self, range: Range<usize>, column: usize, key: &str) -> Option<usize> {
        let is_it = |entry: &YamlEntry| entry.column == column && entry.key.as_deref() == Some(key);
        range.into_iter().find(|at| is_it(&self.entries[*at]))
    }

    /// Where the next entry of the same mapping or of one further out starts.
    fn end(&self, at: usize, column: usize) -> usize {
        let after = self.entries[at + 1..].iter().position(|entry| entry.column <= column);
        after.map_or(self.entries.len(), |after| at + 1 + after)
    }
}

impl YamlEntry {
    fn is_bracket(&self) -> bool {
        self.comment.is_none() && matches!(&self.value, YamlValue::Raw(text) if text.ends_with([']', '}']))
    }

    fn write(&self, text: &mut String) {
        let start = text.len();
        // A list stands in the column of its key, so each dash is two columns before what it holds.
        text.push_str(&" ".repeat(self.column - 2 * self.dashes));
        text.push_str(&"- ".repeat(self.dashes));
        if let Some(name) = &self.key {
            let _ = write!(text, "{}:", key(name));
        } else {
            text.pop();
        }
        let column = text[start..].chars().count();
        let indent = self.column + if self.key.is_some() { 2 } else { 0 };
        match &self.value {
            YamlValue::Empty => {}
            YamlValue::Text(value) => text.push_str(&scalar(value, ScalarPosition { column, indent })),
            YamlValue::Raw(value) | YamlValue::Block(value, _) => {
                let _ = write!(text, " {value}");
            }
        }
        if let Some((wanted, comment)) = &self.comment {
            let line = text.rfind('\n').map_or(0, |at| at + 1);
            let column = text[line..].chars().count();
            let _ = write!(text, "{}{comment}", " ".repeat(wanted.saturating_sub(column).max(1)));
        }
        text.push('\n');
        if let YamlValue::Block(_, lines) = &self.value {
            for line in lines {
                let indent = if line.is_empty() { 0 } else { indent };
                let _ = writeln!(text, "{}{line}", " ".repeat(indent));
            }
        }
    }

    /// A comment right after a block of text stands before the block's column, or it would be part of it.
    fn write_tail(&self, text: &mut String) {
        let deepest = self.column + 1;
        match (&self.value, self.tail.split_first()) {
            (YamlValue::Block(..), Some((first, rest)))
                if first.len() - first.trim_start_matches(YAML_SPACES).len() > deepest =>
            {
                let _ = writeln!(text, "{}{}", " ".repeat(deepest), first.trim_start_matches(YAML_SPACES));
                push_lines(text, rest);
            }
            _ => push_lines(text, &self.tail),
        }
    }
}

fn push_lines(text: &mut String, lines: &[String]) {
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
}
