//! The ini dialect of configobj, as far as DVC uses it.

use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// Values by section and key. A section is a kind and a name: `remote "store"`, or `core` without a name.
pub(super) type Sections = BTreeMap<(String, String), BTreeMap<String, String>>;

/// Reads a file. Names of sections and keys are lower-cased, as DVC does.
///
/// # Errors
/// A line is neither, or uses what only configobj has: lists, interpolation, several lines, sections in sections.
pub(super) fn read(text: &str) -> Result<Sections> {
    let mut sections = Sections::new();
    let mut current = None;
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim();
        let failed = |why: &str| Error::new(format!("line {}: {why}", number + 1));
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            let name = section(rest).map_err(failed)?;
            // `['remote "a"']` and `[remote "a"]` are two sections to configobj, of which DVC takes the last.
            sections.insert(name.clone(), BTreeMap::new());
            current = Some(name);
            continue;
        }
        let (key, value) = assignment(line).map_err(failed)?;
        let section = current.as_ref().and_then(|name| sections.get_mut(name));
        let section = section.ok_or_else(|| failed("it is before the first section"))?;
        if section.insert(key.to_lowercase(), value).is_some() {
            return Err(failed(&format!("'{key}' is there twice")));
        }
    }
    Ok(sections)
}

/// The kind and name of `'remote "store"']`, which is what follows the first bracket.
fn section(rest: &str) -> Result<(String, String), &'static str> {
    let broken = "it is not a section";
    if rest.trim_start().starts_with('[') {
        return Err("a section in a section means nothing to DVC");
    }
    let (inside, after) = rest.rsplit_once(']').ok_or(broken)?;
    let (inside, after) = match inside.rsplit_once(']') {
        Some((first, note)) if note.trim_start().starts_with('#') => (first, note),
        _ => (inside, after),
    };
    if !after.trim().is_empty() && !after.trim_start().starts_with('#') {
        return Err(broken);
    }
    let text = unquoted(inside.trim()).unwrap_or(inside.trim()).to_lowercase();
    if let Some((kind, name)) =
        text.trim().split_once('"').filter(|(kind, _)| matches!(kind.trim(), "remote" | "machine" | "db"))
    {
        let name = name.strip_suffix('"').ok_or(broken)?;
        return Ok((kind.trim().to_owned(), name.to_owned()));
    }
    Ok((text, String::new()))
}

fn assignment(line: &str) -> Result<(&str, String), &'static str> {
    let (key, value) = line.split_once('=').ok_or("it is neither a section nor 'key = value'")?;
    let key = key.trim();
    let key = unquoted(key).unwrap_or(key);
    if key.is_empty() {
        return Err("it has no key");
    }
    Ok((key, self::value(value.trim())?))
}

/// A value without its quotes and its comment, which only `#` starts.
fn value(text: &str) -> Result<String, &'static str> {
    if text.starts_with("'''") || text.starts_with("\"\"\"") {
        return Err("a value in triple quotes is not supported");
    }
    let quote = text.chars().next().filter(|first| matches!(first, '"' | '\''));
    let value = if let Some(quote) = quote {
        let end = text[1..].find(quote).ok_or("a quote is not closed")?;
        let after = text[end + 2..].trim_start();
        if after.starts_with(',') {
            return Err("a list of values means nothing to DVC; put quotes around all of it");
        }
        if !after.is_empty() && !after.starts_with('#') {
            return Err("there is more after a quoted value");
        }
        &text[1..=end]
    } else {
        // A comment needs no space before it.
        let value = text.split('#').next().unwrap_or_default().trim_end();
        if value.contains(',') {
            return Err("a list of values means nothing to DVC; put quotes around a value with a comma");
        }
        value
    };
    if value.contains("%(") {
        return Err("a value that refers to another by %(name)s is not supported");
    }
    Ok(value.to_owned())
}

fn unquoted(text: &str) -> Option<&str> {
    let inner = |quote| text.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\''))
}
