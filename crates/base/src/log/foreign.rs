//! Words from outside: of machines, servers, files and people. They are shown as text, whatever they are made
//! of.
//!
//! A terminal or a log's page acts upon control characters and escape sequences (ECMA-48), and shows text
//! between overrides of its direction in another order than it has. None of that is let through, in whichever
//! form it is written.

use std::iter::Peekable;
use std::str::Chars;

/// The text without control characters, escape sequences and overrides of its direction. Line breaks and tabs
/// stay.
#[must_use]
pub fn plain(text: &str) -> String {
    clean(text, false)
}

/// [`plain`] text in which colours (`ESC [ digits ; : m`) stay as well.
pub(super) fn coloured(text: &str) -> String {
    clean(text, true)
}

/// [`plain`] text in one line, its white space narrowed.
#[must_use]
pub fn one_line(text: &str) -> String {
    plain(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The text with all lines but the first moved away from the margin, where only the pipe's own lines stand.
pub(crate) fn indented(text: &str) -> String {
    let mut lines = text.split('\n');
    let mut all = lines.next().unwrap_or_default().to_owned();
    for line in lines {
        all.push_str(if line.is_empty() || line.starts_with("  ") { "\n" } else { "\n  " });
        all.push_str(line);
    }
    all
}

fn clean(text: &str, colours: bool) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(letter) = rest.next() {
        match letter {
            '\x1b' => match rest.peek().copied() {
                Some('[') => {
                    rest.next();
                    clean.extend(colour(&mut rest).filter(|_| colours));
                }
                Some(']' | 'P' | 'X' | '^' | '_') => string(&mut rest),
                _ => short(&mut rest),
            },
            '\u{9b}' => clean.extend(colour(&mut rest).filter(|_| colours)),
            '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}' => string(&mut rest),
            '\u{2028}' | '\u{2029}' => clean.push(' '),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            '\t' | '\n' => clean.push(letter),
            _ if letter.is_control() => {}
            _ => clean.push(letter),
        }
    }
    clean
}

/// Takes a control sequence, whose beginning was taken, and returns it if it is a colour.
fn colour(rest: &mut Peekable<Chars<'_>>) -> Option<String> {
    let parameters: String =
        std::iter::from_fn(|| rest.next_if(|letter| ('\x20'..='\x3f').contains(letter))).collect();
    // What ends it otherwise is no part of it.
    let end = rest.next_if(|letter| ('\x40'..='\x7e').contains(letter))?;
    let plain = parameters.bytes().all(|byte| byte.is_ascii_digit() || b";:".contains(&byte));
    (end == 'm' && plain).then(|| format!("\x1b[{parameters}m"))
}

/// Takes a string for the terminal, such as a window's title: up to its end, or to that of the line.
fn string(rest: &mut Peekable<Chars<'_>>) {
    while let Some(letter) = rest.next_if(|letter| *letter != '\n') {
        match letter {
            '\x07' | '\u{9c}' => return,
            '\x1b' => {
                rest.next_if_eq(&'\\');
                return;
            }
            _ => {}
        }
    }
}

/// Takes a short escape sequence, such as `ESC ( B`.
fn short(rest: &mut Peekable<Chars<'_>>) {
    while rest.next_if(|letter| ('\x20'..='\x2f').contains(letter)).is_some() {}
    rest.next_if(|letter| ('\x30'..='\x7e').contains(letter));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each with what it is without colours, and with them.
    const CASES: [(&str, &str, &str); 17] = [
        ("plain\ttext\nü 模型", "plain\ttext\nü 模型", "plain\ttext\nü 模型"),
        ("\x1b[31mred\x1b[0m", "red", "\x1b[31mred\x1b[0m"),
        ("\x1b[38:2::1:2:3mx\x1b[m", "x", "\x1b[38:2::1:2:3mx\x1b[m"),
        ("a\x1b[2Jb\x1b[10;10Hc", "abc", "abc"),
        ("a\x1b[\x08\x08\x08mb", "amb", "amb"),
        ("a\x1b[?25l\x1b[>4;1m\x1b[1 mb", "ab", "ab"),
        ("a\x1b]0;title\x07b", "ab", "ab"),
        ("a\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\b", "alinkb", "alinkb"),
        ("a\x1bPq#1\u{9c}b\x1b_x\x1b\\c", "abc", "abc"),
        ("a\x1b]no end\nb", "a\nb", "a\nb"),
        ("a\x1b(Bb\x1bcc\x1b7", "abc", "abc"),
        ("a\u{9b}2Jb\u{9b}31mc", "abc", "ab\x1b[31mc"),
        ("a\u{9d}0;title\u{9c}b\u{85}c\u{7f}", "abc", "abc"),
        ("a\r\nb\rc\x08\x00", "a\nbc", "a\nbc"),
        ("a\u{202e}b\u{2066}c\u{2069}\u{202c}", "abc", "abc"),
        ("a\u{2028}b", "a b", "a b"),
        ("\x1b", "", ""),
    ];

    #[test]
    fn nothing_that_a_terminal_acts_upon_is_left_but_colours_where_they_are_wanted() {
        for (text, bare, in_colour) in CASES {
            assert_eq!((plain(text).as_str(), coloured(text).as_str()), (bare, in_colour), "{text:?}");
        }
    }

    #[test]
    fn random_text_is_clean_after_one_pass() {
        const LETTERS: [char; 20] = [
            '\x1b', '[', ']', 'm', '3', ';', ':', '?', '\\', '\x07', '\u{9b}', '\u{9c}', '\u{9d}', '\n',
            '\r', 'a', 'P', ' ', '\u{202e}', '\x08',
        ];
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..20_000 {
            let text: String =
                (0..random.usize(..16)).map(|_| LETTERS[random.usize(..LETTERS.len())]).collect();
            let (bare, in_colour) = (plain(&text), coloured(&text));
            assert!(
                !bare.chars().any(|letter| letter.is_control() && letter != '\n'),
                "seed {seed}: {text:?}"
            );
            assert_eq!(plain(&in_colour), bare, "seed {seed}: {text:?}");
            assert_eq!(coloured(&in_colour), in_colour, "seed {seed}: {text:?}");
        }
    }

    #[test]
    fn one_line_is_one_line() {
        assert_eq!(one_line("a\nTrainspot-Machine:\r\n\t b\u{2028}c\u{85}d"), "a Trainspot-Machine: b cd");
    }

    #[test]
    fn only_the_first_line_is_at_the_margin() {
        assert_eq!(indented("a\nERROR: b\n  c\n\n d\n"), "a\n  ERROR: b\n  c\n\n   d\n");
    }
}
