//! From the text of one variable to its value, or to the words that tell a user what is wrong with it.

use super::alternatives::alternatives;
use super::variables::{ValueKind, ValueShape};
use std::path::{Component, Path};
use std::time::Duration;

/// A variable's value, checked.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ParsedValue {
    Text(String),
    List(Vec<String>),
    Switch(bool),
    Duration(Duration),
    Count(u32),
    Money(f64),
}

/// Checks `items`, the non-empty parts of a variable's value, against its kind.
///
/// The error ends the sentence `NAME: 'value' …`, and quotes the item that is wrong.
pub(super) fn parse(kind: ValueKind, items: &[String]) -> Result<ParsedValue, Wrong> {
    match kind {
        ValueKind::Script => Ok(ParsedValue::Text(items.join("\n"))),
        ValueKind::Patterns | ValueKind::Paths => each(kind, items, pattern),
        ValueKind::Environment => each(kind, items, environment),
        ValueKind::Each(shape) => shaped(kind, shape, items),
        _ => {
            let text = items.first().map(String::as_str).unwrap_or_default();
            scalar(kind, text).map_err(|why| Wrong { item: shown(kind, text), why })
        }
    }
}

/// A value as an error quotes it: in one line, not long, and without what may be secret in it.
fn shown(kind: ValueKind, text: &str) -> String {
    const SHOWN_LIMIT_BYTES: usize = 80;
    let text = match kind {
        ValueKind::Url if text.contains('@') => format!("…{}", &text[text.rfind('@').unwrap_or(0)..]),
        ValueKind::Environment => {
            let (name, equals) = text.split_once('=').map_or((text, ""), |(name, _)| (name, "=…"));
            if is_no_secret(name) { format!("{name}{equals}") } else { "…".to_owned() }
        }
        _ => text.replace('\n', "\\n"),
    };
    if text.len() <= SHOWN_LIMIT_BYTES {
        text
    } else {
        format!("{}…", &text[..text.floor_char_boundary(SHOWN_LIMIT_BYTES)])
    }
}

/// Whether what stands for a variable's name can be shown. Who writes `$API_KEY` for `API_KEY` gives us the
/// key itself.
pub(super) fn is_no_secret(name: &str) -> bool {
    let all = |fits: fn(char) -> bool| name.chars().all(|letter| fits(letter) || "_-".contains(letter));
    let upper = |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit();
    name.len() <= 40 && (all(upper) || all(|letter| letter.is_ascii_lowercase()))
}

/// The item that is wrong, and why: `is not …; write …`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) item: String,
    pub(super) why: String,
}

fn each(
    kind: ValueKind,
    items: &[String],
    check: impl Fn(&str) -> Result<(), String>,
) -> Result<ParsedValue, Wrong> {
    for item in items {
        check(item).map_err(|why| Wrong { item: shown(kind, item), why })?;
    }
    Ok(ParsedValue::List(items.to_vec()))
}

/// The items as AWS writes them, without repetitions.
fn shaped(kind: ValueKind, shape: ValueShape, items: &[String]) -> Result<ParsedValue, Wrong> {
    let mut checked = Vec::new();
    for item in items {
        let item = shape.check(item).map_err(|why| Wrong { item: shown(kind, item), why })?;
        if !checked.contains(&item) {
            checked.push(item);
        }
    }
    Ok(ParsedValue::List(checked))
}

fn scalar(kind: ValueKind, text: &str) -> Result<ParsedValue, String> {
    match kind {
        ValueKind::Switch => switch(text).map(ParsedValue::Switch),
        ValueKind::Duration(least, most) => duration(text, least, most).map(ParsedValue::Duration),
        ValueKind::Count(least, most) => count(text, least, most).map(ParsedValue::Count),
        ValueKind::Gib(most) => gib(text, most).map(ParsedValue::Count),
        ValueKind::Money => money(text).map(ParsedValue::Money),
        ValueKind::One(shape) => shape.check(text).map(ParsedValue::Text),
        ValueKind::Choice(choices) => choice(text, choices),
        ValueKind::Path => inside(text).map(|()| ParsedValue::Text(text.to_owned())),
        ValueKind::Branch => branch(text).map(|()| ParsedValue::Text(text.to_owned())),
        ValueKind::Author => author(text).map(|()| ParsedValue::Text(text.to_owned())),
        ValueKind::Email => email(text).map(|()| ParsedValue::Text(text.to_owned())),
        ValueKind::Url => url(text).map(|()| ParsedValue::Text(text.trim_end_matches('/').to_owned())),
        _ => one_line(text).map(|()| ParsedValue::Text(text.to_owned())),
    }
}

fn one_line(text: &str) -> Result<(), String> {
    if text.contains(['\n', '\r']) { Err("has more than one line; give it in one".into()) } else { Ok(()) }
}

fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" | "1" => Ok(true),
        "false" | "no" | "off" | "n" | "0" => Ok(false),
        _ => Err("is neither true nor false; write 'true' or 'false'".into()),
    }
}

fn duration(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    if text.parse::<f64>().is_ok() {
        return Err("has no unit; write it like 90s, 45m, 12h or 1h30m".into());
    }
    let value = humantime::parse_duration(&text.to_ascii_lowercase())
        .map_err(|_| "is not a duration; write it like 90s, 45m, 12h or 1h30m".to_owned())?;
    let shown = humantime::format_duration;
    if value < least || value > most {
        return Err(format!("is out of range; it can be from {} to {}", shown(least), shown(most)));
    }
    Ok(value)
}

fn count(text: &str, least: u32, most: u32) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("is not a whole number from {least} to {most}"))
}

fn gib(text: &str, most: u32) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| format!("is not a whole number of GiB from 1 to {most}; write it like 32"))
}

/// Reads an amount in dollars. EC2 takes no price of 0.001 or less.
fn money(text: &str) -> Result<f64, String> {
    const MAX_DOLLARS: f64 = 100_000.0;
    let plain = text.chars().all(|letter| letter.is_ascii_digit() || letter == '.');
    let amount: Option<f64> = text.parse().ok().filter(|_| plain);
    let amount = amount.ok_or("is not an amount of dollars; write it like 0.35")?;
    if amount <= 0.001 || amount > MAX_DOLLARS {
        return Err(format!("is out of range; it can be more than 0.001 and up to {MAX_DOLLARS}"));
    }
    Ok(amount)
}

fn choice(text: &str, choices: &[&str]) -> Result<ParsedValue, String> {
    let wanted = text.to_ascii_lowercase().replace('_', "-");
    choices
        .iter()
        .find(|choice| **choice == wanted)
        .map(|choice| ParsedValue::Text((*choice).to_owned()))
        .ok_or_else(|| format!("is not known; it can be {}", alternatives(choices)))
}

fn pattern(text: &str) -> Result<(), String> {
    inside(text)?;
    globset::GlobBuilder::new(text)
        .literal_separator(true)
        .build()
        .map(|_| ())
        .map_err(|error| format!("is not a glob: {}", error.kind()))
}

/// Whether a path stays inside the repository, and out of git's own folder.
fn inside(text: &str) -> Result<(), String> {
    let path = Path::new(text);
    if path.is_absolute() {
        return Err("is an absolute path; give it relative to the repository's folder".into());
    }
    for component in path.components() {
        match component {
            Component::ParentDir => return Err("leads out of the repository; leave out '..'".into()),
            Component::Normal(name) if name.eq_ignore_ascii_case(".git") => {
                return Err("is inside git's own folder; choose another place".into());
            }
            _ => {}
        }
    }
    if path.components().all(|component| component == Component::CurDir) {
        return Err("is the whole repository; name files, or use a glob such as model/**".into());
    }
    one_line(text)
}

fn environment(text: &str) -> Result<(), String> {
    let name = text.split_once('=').map_or(text, |(name, _)| name);
    let starts_well = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    if !starts_well || !name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
        return Err("is not a variable's name; write NAME or NAME=value".into());
    }
    if name.starts_with("TRAINSPOT_") {
        return Err("is a name that trainspot sets itself; choose one without TRAINSPOT_".into());
    }
    Ok(())
}

/// git's own rules for names of references, as `git check-ref-format --branch` has them.
fn branch(text: &str) -> Result<(), String> {
    const FORBIDDEN_LETTERS: &[char] = &[' ', '~', '^', ':', '?', '*', '[', '\\', '\u{7f}'];
    let bad = text.starts_with(['-', '/'])
        || text.ends_with(['/', '.'])
        || text == "@"
        || ["..", "@{", "//"].iter().any(|part| text.contains(part))
        || text.chars().any(|letter| FORBIDDEN_LETTERS.contains(&letter) || letter.is_control())
        || text.split('/').any(|part| part.starts_with('.') || part.to_ascii_lowercase().ends_with(".lock"));
    if bad {
        return Err("is not a branch's name that git allows".into());
    }
    if text.starts_with("refs/") {
        return Err("is a reference; give the branch's name alone, without refs/heads/".into());
    }
    Ok(())
}

/// What git can write in front of `<e-mail>`. It leaves out marks at a name's ends, so a name of marks alone
/// is none.
fn author(text: &str) -> Result<(), String> {
    if text.contains(['<', '>']) {
        return Err("has '<' or '>' in it; give the name alone, and the e-mail in GIT_USER_EMAIL".into());
    }
    if text.chars().all(|letter| letter.is_whitespace() || ".,:;\"\\'".contains(letter)) {
        return Err("is not a name; write one with letters in it".into());
    }
    one_line(text)
}

fn email(text: &str) -> Result<(), String> {
    let (user, host) = text.split_once('@').unwrap_or_default();
    let bad = text.chars().any(|letter| letter.is_whitespace() || "<>\"".contains(letter));
    if user.is_empty() || host.is_empty() || host.contains('@') || bad {
        return Err("is not an e-mail address".into());
    }
    Ok(())
}

fn url(text: &str) -> Result<(), String> {
    let parsed = url::Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err("is not an http:// or https:// URL".into());
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err("has a user or password in it; leave them out".into());
    }
    Ok(())
}
