//! The ini dialect of configobj, in which DVC keeps its configuration: lists, quotes of one and of three,
//! values over several lines, sections in sections, and values that refer to others.
//!
//! The expressions are those of configobj 5, since what they take for a quote or a list is its own.

use crate::lines::with_line_feeds;
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::sync::LazyLock;
use trainspot_base::error::{Error, Result};

/// The longest file. Names are looked for among those before them, which takes the square of a longer file's
/// time.
const FILE_LIMIT_BYTES: usize = 256 << 10;
/// How deep sections may be in one another, of which DVC knows two.
const SECTION_DEPTH_LIMIT: usize = 64;
/// How much references may bring to a file's values in all: each of a chain of values may refer to the next
/// one twice.
const REFERENCES_LIMIT_BYTES: usize = 1 << 20;
/// How many values in a row may refer to the next.
const REFERENCE_DEPTH_LIMIT: usize = 100;

/// A value of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum IniValue {
    /// A value that is one text.
    Text(String),
    /// A list: texts with commas between them.
    List(Vec<String>),
}

/// A section, or the whole file.
#[derive(Debug, Default)]
pub(super) struct IniSection {
    name: String,
    /// The values and sections, in the order of the file. Names are unique; two that differ in case only are
    /// two names.
    pub(super) items: Vec<(String, IniItem)>,
}

/// A value or a section inside a section.
#[derive(Debug)]
pub(super) enum IniItem {
    Value(IniValue),
    Section(IniSection),
}

fn expression(text: &str) -> Regex {
    #[allow(
        clippy::expect_used,
        reason = "the texts are constants of this file, and each is tried by a test"
    )]
    Regex::new(text).expect("an expression of this file")
}

static SECTION_LINE: LazyLock<Regex> = LazyLock::new(|| {
    expression(r#"^\s*((?:\[\s*)+)("\s*\S.*?\s*"|'\s*\S.*?\s*'|[^'"\s].*?)((?:\s*\])+)\s*(?:#.*)?$"#)
});
static KEY_LINE: LazyLock<Regex> = LazyLock::new(|| expression(r#"^\s*(".*?"|'.*?'|[^'"=].*?)\s*=\s*(.*)$"#));
static VALUE_TEXT: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r#"^(?:((?:(?:".*?"|'.*?'|[^'",#][^,#]*?)\s*,\s*)*)(".*?"|'.*?'|[^'",#\s][^,]*?|)|(,))\s*(?:#.*)?$"#,
    )
});
static LIST_ITEM: LazyLock<Regex> = LazyLock::new(|| expression(r#"(".*?"|'.*?'|[^'",#]?.*?)\s*,\s*"#));
/// The rest of a line after closing triple quotes: white space, or a comment.
static LINE_REST: LazyLock<Regex> = LazyLock::new(|| expression(r"^\s*(?:#.*)?$"));
static VALUE_REFERENCE: LazyLock<Regex> = LazyLock::new(|| expression(r"%\(([^)]*)\)s"));

/// Reads a file.
///
/// # Errors
/// configobj would not read the file.
pub(super) fn read(text: &str) -> Result<IniSection> {
    if text.len() > FILE_LIMIT_BYTES {
        return Err(Error::new(format!(
            "it has {} bytes, of which at most {FILE_LIMIT_BYTES} are read",
            text.len()
        )));
    }
    let text = with_line_feeds(text.trim_start_matches('\u{feff}'));
    let mut lines = text.split('\n').enumerate();
    let mut open = vec![IniSection::default()];
    while let Some((number, line)) = lines.next() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let failed = |why: &str| Error::new(format!("line {}: {why}", number + 1));
        if let Some(found) = SECTION_LINE.captures(line) {
            let (depth, close) = (found[1].matches('[').count(), found[3].matches(']').count());
            if depth != close || depth > open.len() {
                return Err(failed("its brackets do not fit the sections above it"));
            }
            if depth > SECTION_DEPTH_LIMIT {
                return Err(failed("it is in too many other sections"));
            }
            close_to(&mut open, depth);
            let name = unquoted(&found[2]).to_owned();
            if has(&open, &name) {
                return Err(failed(&format!("the section '{name}' is there twice")));
            }
            open.push(IniSection { name, items: Vec::new() });
            continue;
        }
        let found =
            KEY_LINE.captures(line).ok_or_else(|| failed("it is neither a section nor 'key = value'"))?;
        let (key, rest) = (unquoted(found.get(1).map_or("", |key| key.as_str())).to_owned(), &found[2]);
        let value = match ["\"\"\"", "'''"].into_iter().find(|quote| rest.starts_with(quote)) {
            Some(quote) => IniValue::Text(
                tripled(&rest[3..], quote, lines.by_ref().map(|(_, line)| line))
                    .ok_or_else(|| failed("its triple quotes are not closed, or more follows them"))?,
            ),
            None => {
                value(rest).ok_or_else(|| failed("it has a quote that is not closed, or a broken list"))?
            }
        };
        if has(&open, &key) {
            return Err(failed(&format!("'{key}' is there twice")));
        }
        if let Some(section) = open.last_mut() {
            section.items.push((key, IniItem::Value(value)));
        }
    }
    close_to(&mut open, 1);
    let file = open.pop().unwrap_or_default();
    filled_in(&file, &[&file], &Cell::new(REFERENCES_LIMIT_BYTES))
}

/// Puts each open section into the one above it, until `depth` sections are open.
fn close_to(open: &mut Vec<IniSection>, depth: usize) {
    while open.len() > depth.max(1) {
        if let (Some(section), Some(above)) = (open.pop(), open.last_mut()) {
            above.items.push((section.name.clone(), IniItem::Section(section)));
        }
    }
}

fn has(open: &[IniSection], name: &str) -> bool {
    open.last().is_some_and(|section| section.items.iter().any(|(other, _)| other == name))
}

fn value(text: &str) -> Option<IniValue> {
    let found = VALUE_TEXT.captures(text)?;
    if found.get(3).is_some() {
        return Some(IniValue::List(Vec::new()));
    }
    let part = |number: usize| found.get(number).map_or("", |part| part.as_str());
    let (before, last) = (part(1), part(2));
    if before.is_empty() {
        return Some(IniValue::Text(unquoted(last).to_owned()));
    }
    let items = LIST_ITEM.captures_iter(before).map(|item| {
        let item = item.get(1).map_or("", |item| item.as_str());
        (!item.is_empty()).then(|| unquoted(item).to_owned())
    });
    let mut items: Vec<String> = items.collect::<Option<_>>()?;
    items.extend((!last.is_empty()).then(|| unquoted(last).to_owned()));
    Some(IniValue::List(items))
}

/// The value in triple quotes that begins with `first`, and takes more lines until the quotes are closed.
fn tripled<'a>(first: &str, quote: &str, mut lines: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut text = String::new();
    let mut line = first;
    loop {
        if line.contains(quote) {
            // A quote more may stand before the three that end it.
            let ends = line.char_indices().filter(|(at, _)| line[*at..].starts_with(quote));
            let end = ends.map(|(at, _)| at).find(|at| LINE_REST.is_match(&line[at + quote.len()..]))?;
            return Some(text + &line[..end]);
        }
        text.push_str(line);
        text.push('\n');
        line = lines.next()?;
    }
}

fn unquoted(text: &str) -> &str {
    let quote = text.chars().next().filter(|first| matches!(first, '"' | '\'') && text.ends_with(*first));
    if quote.is_some() { text.get(1..text.len() - 1).unwrap_or_default() } else { text }
}

/// A section whose values have no `%(name)s` any more. `above` begins with the section itself, and `room` is
/// how many bytes references may still bring.
fn filled_in(section: &IniSection, above: &[&IniSection], room: &Cell<usize>) -> Result<IniSection> {
    let fill = |name: &str, text: &str| fill(name, text, above, &mut Vec::new(), room);
    let items = section.items.iter().map(|(name, item)| {
        let item = match item {
            IniItem::Value(IniValue::Text(text)) => IniItem::Value(IniValue::Text(fill(name, text)?)),
            IniItem::Value(IniValue::List(list)) => {
                let filled: Result<_> = list.iter().map(|text| fill(name, text)).collect();
                IniItem::Value(IniValue::List(filled?))
            }
            IniItem::Section(inner) => IniItem::Section(filled_in(inner, &[&[inner], above].concat(), room)?),
        };
        Ok((name.clone(), item))
    });
    Ok(IniSection { name: section.name.clone(), items: items.collect::<Result<_>>()? })
}

/// A value with what its `%(name)s` stand for: a value of the section, of `DEFAULT` in it, or of one above.
fn fill(
    name: &str,
    text: &str,
    above: &[&IniSection],
    seen: &mut Vec<String>,
    room: &Cell<usize>,
) -> Result<String> {
    let wrong = |why: &str| Error::new(format!("'{name}' refers to another value by %(name)s, {why}"));
    let (mut filled, mut rest) = (String::new(), text);
    while let Some(found) = VALUE_REFERENCE.captures(rest) {
        let (whole, key) = (found.get_match(), found.get(1).map_or("", |key| key.as_str()));
        if seen.iter().any(|other| other == key) {
            return Err(wrong("which refers back to itself"));
        }
        if seen.len() == REFERENCE_DEPTH_LIMIT {
            return Err(wrong("which leads on to too many others"));
        }
        seen.push(key.to_owned());
        let other =
            above.iter().find_map(|section| section.text(key)).ok_or_else(|| wrong("which is not there"))?;
        // A byte more, as references to an empty value take their time too.
        let left =
            room.get().checked_sub(other.len() + 1).ok_or_else(|| wrong("which makes too much of it"))?;
        room.set(left);
        filled.push_str(&rest[..whole.start()]);
        filled.push_str(&fill(key, other, above, seen, room)?);
        rest = &rest[whole.end()..];
        seen.pop();
    }
    Ok(filled + rest)
}

impl IniSection {
    fn item(&self, name: &str) -> Option<&IniItem> {
        self.items.iter().find(|(other, _)| other == name).map(|(_, item)| item)
    }

    fn own(&self, name: &str) -> Option<&str> {
        match self.item(name) {
            Some(IniItem::Value(IniValue::Text(text))) => Some(text),
            _ => None,
        }
    }

    /// The text under a name, or the one that the section's own `DEFAULT` has for it.
    fn text(&self, name: &str) -> Option<&str> {
        self.own(name).or_else(|| match self.item("DEFAULT") {
            Some(IniItem::Section(default)) => default.own(name),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(text: &str) -> String {
        read(text).unwrap_err().render()
    }

    #[test]
    fn a_short_file_does_not_become_a_long_one() {
        let twice = |number: u32| format!("k{number} = %(k{next})s%(k{next})s\n", next = number + 1);
        for last in ["k40 = x\n", "k40 =\n"] {
            let text = (0..40).map(twice).collect::<String>() + last;
            assert!(why(&text).ends_with("refers to another value by %(name)s, which makes too much of it"));
        }
        assert!(read(&((30..40).map(twice).collect::<String>() + "k40 = x\n")).is_ok());
    }

    #[test]
    fn a_long_file_does_not_fill_the_stack() {
        let next = |number: u32| format!("k{number} = %(k{})s\n", number + 1);
        let text = (0..5000).map(next).collect::<String>() + "k5000 = x\n";
        assert!(
            why(&text).ends_with("refers to another value by %(name)s, which leads on to too many others")
        );
        let section = |depth: usize| format!("{}s{}\n", "[".repeat(depth), "]".repeat(depth));
        assert!(read(&(1..=SECTION_DEPTH_LIMIT).map(section).collect::<String>()).is_ok());
        let text = (1..=SECTION_DEPTH_LIMIT + 1).map(section).collect::<String>();
        assert_eq!(why(&text), "line 65: it is in too many other sections");
        let text = "# comment\n".repeat(FILE_LIMIT_BYTES / 10 + 1);
        assert_eq!(why(&text), "it has 262150 bytes, of which at most 262144 are read");
    }
}
