//! Which plain scalars are not strings, by the rules of YAML 1.2 as ruamel has them.
//!
//! They are wider than the specification's: underscores in numbers, the dates of YAML 1.1, `<<` and `=`.

/// Whether a plain scalar would be read as a string.
pub(super) fn is_string(text: &str) -> bool {
    !(is_word(text) || is_integer(text) || is_float(text) || is_time(text))
}

fn is_word(text: &str) -> bool {
    let booleans = ["true", "True", "TRUE", "false", "False", "FALSE"];
    is_null(text) || booleans.contains(&text) || text == "<<" || text == "="
}

/// Whether a plain scalar is null.
pub(super) fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['-', '+']).unwrap_or(text)
}

fn all(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte == b'_' || allowed(byte))
}

fn is_integer(text: &str) -> bool {
    if text.starts_with('_') {
        return false;
    }
    let digits = unsigned(text);
    let based = |prefix: &str, allowed: fn(u8) -> bool| {
        digits.strip_prefix(prefix).is_some_and(|digits| all(digits, allowed))
    };
    all(digits, |byte| byte.is_ascii_digit())
        || based("0b", |byte| matches!(byte, b'0' | b'1'))
        || based("0o", |byte| matches!(byte, b'0'..=b'7'))
        || based("0x", |byte| byte.is_ascii_hexdigit())
}

fn is_float(text: &str) -> bool {
    if [".nan", ".NaN", ".NAN"].contains(&text) || [".inf", ".Inf", ".INF"].contains(&unsigned(text)) {
        return true;
    }
    let (mantissa, exponent) = match unsigned(text).split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned(text), None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !exponent.is_none_or(|exponent| digits(unsigned(exponent))) {
        return false;
    }
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let decimal = |text: &str| all(text, |byte| byte.is_ascii_digit());
    if whole.is_empty() {
        // `.5e3` is a string, `.5e+3` a number.
        return fraction.is_some_and(decimal) && exponent.is_none_or(|text| text.starts_with(['-', '+']));
    }
    let fraction_fits = fraction.is_none_or(|text| text.is_empty() || decimal(text));
    whole.starts_with(|first: char| first.is_ascii_digit())
        && decimal(whole)
        && fraction_fits
        && (fraction.is_some() || exponent.is_some())
}

fn is_time(text: &str) -> bool {
    let short = |text: &str| matches!(text.len(), 1 | 2) && text.bytes().all(|byte| byte.is_ascii_digit());
    let two = |text: &str| text.len() == 2 && short(text);
    let end = text.find(['T', 't', ' ', '\t']).unwrap_or(text.len());
    let (date, time) = text.split_at(end);
    let date: Vec<&str> = date.split('-').collect();
    let &[year, month, day] = date.as_slice() else { return false };
    if year.len() != 4 || !year.bytes().all(|byte| byte.is_ascii_digit()) || !short(month) || !short(day) {
        return false;
    }
    if time.is_empty() {
        return two(month) && two(day);
    }
    let time = time.strip_prefix(['T', 't']).unwrap_or_else(|| time.trim_start_matches([' ', '\t']));
    let clock_end = time.find(|byte: char| !byte.is_ascii_digit() && byte != ':').unwrap_or(time.len());
    let (clock, rest) = time.split_at(clock_end);
    let clock: Vec<&str> = clock.split(':').collect();
    let rest =
        rest.strip_prefix('.').map_or(rest, |rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    let clock_fits =
        matches!(clock.as_slice(), &[hour, minute, second] if short(hour) && two(minute) && two(second));
    clock_fits && (rest.is_empty() || is_zone(rest.trim_start_matches([' ', '\t']), short, two))
}

fn is_zone(text: &str, short: impl Fn(&str) -> bool, two: impl Fn(&str) -> bool) -> bool {
    let Some(offset) = text.strip_prefix(['-', '+']) else { return text == "Z" };
    match offset.split_once(':') {
        Some((hours, minutes)) => short(hours) && two(minutes),
        None => short(offset),
    }
}
