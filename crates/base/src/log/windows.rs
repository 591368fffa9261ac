//! Secrets that a program encoded and wrapped into lines, such as `base64` does: no line has the whole of any
//! form of them.
//!
//! Every piece of an encoded form that has a certain length is known, so what is left of a secret at the ends
//! of lines is shorter.

use std::collections::HashMap;

/// Bytes of an encoded form that are recognised wherever they stand: nine of the secret in base64, six in
/// hex. A shorter piece would be found in text that has nothing to do with the secret.
pub(super) const PIECE_BYTES: usize = 12;

/// The pieces of all secrets, each with the number of its secret.
#[derive(Default)]
pub(super) struct Windows(HashMap<[u8; PIECE_BYTES], u32>);

impl Windows {
    /// Adds every piece of a form.
    pub(super) fn add(&mut self, form: &str, secret: u32) {
        for piece in form.as_bytes().windows(PIECE_BYTES) {
            if let Ok(piece) = piece.try_into() {
                self.0.entry(piece).or_insert(secret);
            }
        }
    }

    /// The text with the pieces that it holds replaced by `names`. `before` is the end of the line before it,
    /// as [`carry`] gives it; line breaks within the text part no piece either.
    pub(super) fn replace(&self, before: &str, text: &str, names: &[String]) -> String {
        if !may_hold_a_piece(before, text) {
            return text.to_owned();
        }
        let mut owners: Vec<Option<u32>> = Vec::new();
        let mut run: Vec<(u8, Option<usize>)> = before.bytes().map(|byte| (byte, None)).collect();
        let (bytes, mut at) = (text.as_bytes(), 0);
        while let Some(&byte) = bytes.get(at) {
            if is_code(byte) {
                run.push((byte, Some(at)));
            } else if byte == b'\n' || byte == b'\r' {
                // Lines that continue another one may be indented.
                at += bytes[at + 1..].iter().take_while(|byte| **byte == b' ').count();
            } else {
                self.mark(&run, text.len(), &mut owners);
                run.clear();
            }
            at += 1;
        }
        self.mark(&run, text.len(), &mut owners);
        if owners.is_empty() { text.to_owned() } else { replaced(text, &owners, names) }
    }

    /// Notes for each byte of the text the secret of which a piece covers that byte.
    fn mark(&self, run: &[(u8, Option<usize>)], length: usize, owners: &mut Vec<Option<u32>>) {
        for piece in run.windows(PIECE_BYTES) {
            let key: [u8; PIECE_BYTES] = std::array::from_fn(|index| piece[index].0);
            let Some(&secret) = self.0.get(&key) else { continue };
            owners.resize(length, None);
            for at in piece.iter().filter_map(|(_, at)| *at) {
                owners[at] = Some(secret);
            }
        }
    }
}

/// Whether [`PIECE_BYTES`] letters of a code follow each other, as they do in few lines of a log.
fn may_hold_a_piece(before: &str, text: &str) -> bool {
    let mut run = before.len();
    let is_long = |byte| {
        run = if is_code(byte) { run + 1 } else { 0 };
        run >= PIECE_BYTES
    };
    // Line breaks part no piece.
    text.contains('\n') || text.bytes().any(is_long)
}

fn replaced(text: &str, owners: &[Option<u32>], names: &[String]) -> String {
    let (mut shown, mut last) = (String::with_capacity(text.len()), None);
    for (at, letter) in text.char_indices() {
        let owner = owners[at];
        match owner.and_then(|secret| names.get(secret as usize)) {
            None => shown.push(letter),
            Some(_) if owner == last => {}
            Some(name) => shown.push_str(name),
        }
        last = owner;
    }
    shown
}

/// The end of a line with which a piece in the next line may begin.
pub(super) fn carry(before: &str, line: &str) -> String {
    let whole = line.bytes().all(is_code);
    let end = line.bytes().rev().take_while(|byte| is_code(*byte)).take(PIECE_BYTES - 1).count();
    let own = &line[line.len() - end..];
    let more = (PIECE_BYTES - 1 - end).min(before.len());
    if whole { format!("{}{own}", &before[before.len() - more..]) } else { own.to_owned() }
}

/// The letters of base64, of hex, and of most tokens.
fn is_code(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/=_-.~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows() -> (Windows, Vec<String>) {
        let mut windows = Windows::default();
        windows.add("QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo", 0);
        (windows, vec!["$KEY".to_owned()])
    }

    #[test]
    fn a_form_is_found_wherever_its_lines_break() {
        let (windows, names) = windows();
        let form = "xxQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=";
        for width in PIECE_BYTES..form.len() {
            let lines: Vec<&str> =
                form.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
            for joint in ["\n", "\r\n", "\n  "] {
                let shown = windows.replace("", &lines.join(joint), &names);
                assert!(
                    !shown.contains("QUJD") && !shown.contains("WFla") && !shown.contains("VVld"),
                    "{shown}"
                );
            }
            let (mut before, mut shown) = (String::new(), String::new());
            for line in lines {
                shown += &windows.replace(&before, line, &names);
                before = carry(&before, line);
            }
            assert!(!shown.contains("REVGR0hJSktM") && !shown.contains("VVldYWVo"), "{width}: {shown}");
        }
    }

    #[test]
    fn other_text_stays() {
        let (windows, names) = windows();
        for text in ["", "accuracy 0.97", "QUJDREVGR0h", "ü QUJDREVG R0hJSktM 模型\nU1RVVldY"] {
            assert_eq!(windows.replace("", text, &names), text);
        }
        assert_eq!(windows.replace("", "ü QUJDREVGR0hJ 模", &names), "ü $KEY 模");
    }

    #[test]
    fn few_lines_are_looked_at_closely() {
        for (before, text, is_long) in [
            ("", "accuracy 0.97", false),
            ("", "QUJDREVGR0h QUJDREVGR0h", false),
            ("QUJDREVGR0h", "J", true),
            ("", "loss QUJDREVGR0hJ", true),
            ("", "a\nb", true),
        ] {
            assert_eq!(may_hold_a_piece(before, text), is_long, "{before:?} {text:?}");
        }
    }

    #[test]
    fn what_is_carried_is_short() {
        assert_eq!(carry("", "a b"), "b");
        assert_eq!(carry("0123456789a", "bc"), "23456789abc");
        assert_eq!(carry("0123456789a", "b "), "");
        assert_eq!(carry("", &"x".repeat(99)).len(), PIECE_BYTES - 1);
        assert_eq!(carry("ab", "ü"), "");
    }
}
