//! Reads YAML's block style into lines that know their place.

use super::document::{Document, YamlEntry, YamlValue};
use super::line::{YAML_SPACES, closing_quote, comment, dash, indent, is_filler, key, split_comment};
use super::resolve::{is_null, is_string};
use crate::lines::with_line_feeds;
use trainspot_base::error::{Context as _, Error, Result};

/// A mapping or list whose end was not read yet.
struct OpenBlock {
    /// The column of the mapping or list in the text that is read.
    from: usize,
    /// The column at which the mapping or list is written.
    to: usize,
    list: bool,
}

struct Parser<'a> {
    lines: Vec<&'a str>,
    at: usize,
    levels: Vec<OpenBlock>,
}

/// Reads a document.
///
/// # Errors
/// The text is not YAML, or uses a part of YAML that this module does not know.
pub(crate) fn parse_document(text: &str) -> Result<Document> {
    let text = with_line_feeds(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut parser = Parser { lines: text.lines().collect(), at: 0, levels: Vec::new() };
    let mut head = parser.tail();
    // ruamel drops the marker, and all before it.
    if parser.lines.get(parser.at).is_some_and(|line| line.trim_end_matches(YAML_SPACES) == "---") {
        parser.at += 1;
        head = parser.tail();
    }
    let mut entries = Vec::new();
    while parser.at < parser.lines.len() {
        let number = parser.at + 1;
        let mut entry = parser.entry().with_context(|| format!("line {number}"))?;
        entry.tail = parser.tail();
        entries.push(entry);
    }
    Ok(Document { head, entries })
}

impl Parser<'_> {
    /// Comments and empty lines up to the next entry.
    fn tail(&mut self) -> Vec<String> {
        let mut tail = Vec::new();
        while let Some(line) = self.lines.get(self.at).filter(|line| is_filler(line)) {
            tail.push(if line.trim_matches(YAML_SPACES).is_empty() {
                String::new()
            } else {
                (*line).to_owned()
            });
            self.at += 1;
        }
        tail
    }

    fn entry(&mut self) -> Result<YamlEntry> {
        let line = self.lines[self.at];
        let mut from = indent(line);
        let mut dashes = 0;
        while let Some(after) = dash(&line[from..]) {
            self.open(from, true)?;
            dashes += 1;
            from += after;
        }
        let Some((key, length)) = key(&line[from..])? else {
            let column = self.levels.last().filter(|_| dashes > 0).map(|level| level.to + 2);
            let column = column.ok_or_else(|| Error::new("there is no key"))?;
            let (value, comment) = self.value(from, self.levels.last().map_or(0, |level| level.from))?;
            return Ok(YamlEntry { column, dashes, key: None, value, comment, tail: Vec::new() });
        };
        let column = self.open(from, false)?;
        let (value, comment) = self.value(from + length, from)?;
        Ok(YamlEntry { column, dashes, key: Some(key), value, comment, tail: Vec::new() })
    }

    /// Goes to the mapping or list in column `from`, and returns the column where it is written.
    fn open(&mut self, from: usize, list: bool) -> Result<usize> {
        while self
            .levels
            .last()
            .is_some_and(|level| level.from > from || (level.from == from && level.list && !list))
        {
            self.levels.pop();
        }
        if let Some(level) = self.levels.last().filter(|level| level.from == from && level.list == list) {
            return Ok(level.to);
        }
        let to = match self.levels.last() {
            None if from == 0 || self.levels.is_empty() => 0,
            Some(level) if level.from == from && !list => {
                return Err(Error::new("it is indented in a way of its own"));
            }
            Some(level) if level.list || !list => level.to + 2,
            Some(level) => level.to,
            None => 0,
        };
        self.levels.push(OpenBlock { from, to, list });
        Ok(to)
    }

    /// The value that starts in byte `start` of this line, and goes on in lines indented deeper than `outer`.
    fn value(&mut self, start: usize, outer: usize) -> Result<(YamlValue, Option<(usize, String)>)> {
        let line = self.lines[self.at];
        let rest = line[start..].trim_start_matches(YAML_SPACES);
        let start = line.len() - rest.len();
        if rest.is_empty() && self.goes_on(outer) {
            self.at += 1;
            let start = indent(self.lines[self.at]);
            return self.value(start, outer);
        }
        match rest.chars().next() {
            None | Some('#') => {
                self.at += 1;
                Ok((YamlValue::Empty, comment(line, start)))
            }
            Some('|' | '>') => Ok(self.block(start, outer)),
            Some(quote @ ('\'' | '"')) => self.quoted(start, quote),
            Some('&' | '*' | '!' | '{' | '[' | '@' | '`' | '%') => self.raw(start),
            Some(_) => Ok(self.plain(start, outer)),
        }
    }

    /// Whether the value of a key at the end of this line is a scalar in the next.
    fn goes_on(&self, outer: usize) -> bool {
        let Some(line) = self.lines.get(self.at + 1).filter(|line| !is_filler(line)) else { return false };
        let text = line.trim_start_matches(YAML_SPACES);
        indent(line) > outer && dash(text).is_none() && matches!(key(text), Ok(None))
    }

    fn plain(&mut self, start: usize, outer: usize) -> (YamlValue, Option<(usize, String)>) {
        let line = self.lines[self.at];
        let (first, note) = split_comment(line, start);
        let mut text = first.to_owned();
        self.at += 1;
        let mut breaks = 0;
        let mut at = self.at;
        while let Some(line) = self.lines.get(at).filter(|_| note.is_none()) {
            at += 1;
            if line.trim_matches(YAML_SPACES).is_empty() {
                breaks += 1;
                continue;
            }
            if indent(line) <= outer || is_filler(line) {
                break;
            }
            text.push_str(&if breaks == 0 { " ".to_owned() } else { "\n".repeat(breaks) });
            let (more, note) = split_comment(line, indent(line));
            text.push_str(more);
            (breaks, self.at) = (0, at);
            if note.is_some() {
                return (YamlValue::Text(text), note);
            }
        }
        let value = match text {
            text if is_null(&text) => YamlValue::Empty,
            text if is_string(&text) => YamlValue::Text(text),
            text => {
                YamlValue::Raw(text.to_lowercase().parse::<bool>().map_or(text, |value| value.to_string()))
            }
        };
        (value, note)
    }

    fn quoted(&mut self, start: usize, quote: char) -> Result<(YamlValue, Option<(usize, String)>)> {
        let mut source = String::from(quote);
        let mut line = &self.lines[self.at][start + quote.len_utf8()..];
        // A line at a time: neither an escape nor a doubled quote goes on in the next, and what was looked at
        // is not looked at again.
        loop {
            if let Some(length) = closing_quote(line, quote) {
                let (inside, after) = line.split_at(length);
                source.push_str(inside);
                let note = comment(self.lines[self.at], self.lines[self.at].len() - after.len());
                if note.is_none() && !after.trim_matches(YAML_SPACES).is_empty() {
                    return Err(Error::new("there is more after a quoted text"));
                }
                self.at += 1;
                let text = serde_saphyr::from_str::<String>(&source).context("cannot read a quoted text")?;
                return Ok((YamlValue::Text(text), note));
            }
            source.push_str(line);
            source.push('\n');
            self.at += 1;
            line = self.lines.get(self.at).ok_or_else(|| Error::new("a quoted text does not end"))?;
        }
    }

    fn raw(&mut self, start: usize) -> Result<(YamlValue, Option<(usize, String)>)> {
        let (text, note) = split_comment(self.lines[self.at], start);
        let count = |set: [char; 2]| text.matches(set).count();
        if count(['{', '[']) != count(['}', ']']) {
            return Err(Error::new("a list or mapping in brackets goes over several lines"));
        }
        self.at += 1;
        Ok((YamlValue::Raw(text.to_owned()), note))
    }

    fn block(&mut self, start: usize, outer: usize) -> (YamlValue, Option<(usize, String)>) {
        let (header, note) = split_comment(self.lines[self.at], start);
        self.at += 1;
        let rest = &self.lines[self.at..];
        let inside = |line: &&&str| line.trim_matches(YAML_SPACES).is_empty() || indent(line) > outer;
        let mut count = rest.iter().take_while(inside).count();
        // Empty lines at the end are between this entry and the next, unless the text keeps them.
        while count > 0 && rest[count - 1].trim_matches(YAML_SPACES).is_empty() {
            count -= 1;
        }
        let cut = rest[..count]
            .iter()
            .find(|line| !line.trim_matches(YAML_SPACES).is_empty())
            .map_or(0, |line| indent(line));
        let lines = rest[..count].iter().map(|line| line.get(cut..).unwrap_or_default().to_owned()).collect();
        self.at += count;
        (YamlValue::Block(header.to_owned(), lines), note)
    }
}
