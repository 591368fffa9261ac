//! Secrets hidden by value, in every form in which they are likely to leak.

use super::parts::{SHORTEST_PART_BYTES, is_token, parts};
use super::secret::Secret;
use super::windows::Windows;
use aho_corasick::{AhoCorasick, MatchKind};
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::ExposeSecret as _;

/// The longest part whose pieces are looked for, some 200,000 for 16 KiB. Of a longer one only whole forms
/// are.
const LONGEST_PIECED_PART_BYTES: usize = 16 << 10;

/// Replaces secrets by `$NAME`.
pub(super) struct Redactor {
    searcher: AhoCorasick,
    replacements: Vec<String>,
    windows: Windows,
    names: Vec<String>,
}

impl Redactor {
    /// None when there is nothing to hide.
    pub(super) fn new(secrets: &[Secret]) -> Option<Self> {
        let names: Vec<String> = secrets.iter().map(|secret| format!("${}", secret.name)).collect();
        let (mut forms, mut windows) = (Vec::new(), Windows::default());
        for ((secret, name), number) in secrets.iter().zip(&names).zip(0..) {
            for part in parts(secret.value.expose_secret()) {
                forms.extend(encoded(&part).into_iter().map(|form| (form, name.clone())));
                for form in pieced(&part) {
                    windows.add(&form, number);
                }
            }
        }
        forms.retain(|(form, _)| form.len() >= SHORTEST_PART_BYTES);
        if forms.is_empty() {
            return None;
        }
        let searcher = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(forms.iter().map(|(form, _)| form))
            .ok()?;
        let replacements = forms.into_iter().map(|(_, name)| name).collect();
        Some(Self { searcher, replacements, windows, names })
    }

    /// The text without secrets. `before` is what [`super::windows::carry`] kept of the line before.
    pub(super) fn apply(&self, before: &str, text: &str) -> String {
        let text = self.searcher.replace_all(text, &self.replacements);
        self.windows.replace(before, &text, &self.names)
    }
}

/// A part of a secret in all forms: as it is, and in hex, URL-, JSON- and base64-encoded.
fn encoded(part: &str) -> Vec<String> {
    let upper = utf8_percent_encode(part, NON_ALPHANUMERIC).to_string();
    // What RFC 3986 leaves as it is stands unencoded in most programs' output.
    let lenient = utf8_percent_encode(part, &UNRESERVED_CHARS).to_string();
    let json = serde_json::to_string(part).unwrap_or_default();
    let mut forms = vec![part.to_owned(), lower_hex(&upper), upper, lower_hex(&lenient), lenient];
    forms.push(json.trim_matches('"').to_owned());
    forms.extend(dense(part));
    forms.sort_unstable();
    forms.dedup();
    forms
}

/// The forms of a part that are recognised piece by piece.
fn pieced(part: &str) -> Vec<String> {
    if part.len() > LONGEST_PIECED_PART_BYTES {
        return Vec::new();
    }
    // Pieces of what is made of words are in other text, too.
    let itself = Some(part).filter(|part| is_token(part)).map(str::to_owned);
    dense(part).into_iter().chain(itself).collect()
}

fn hex(text: &str) -> String {
    let digits = text.bytes().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// The forms of a part in base64 and hex, which programs wrap into lines.
fn dense(part: &str) -> Vec<String> {
    let mut forms = vec![hex(part).to_ascii_uppercase(), hex(part)];
    for shift in 0..3 {
        forms.extend([&STANDARD_NO_PAD, &URL_SAFE_NO_PAD].map(|engine| inner_base64(engine, part, shift)));
    }
    forms
}

const UNRESERVED_CHARS: percent_encoding::AsciiSet =
    NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn lower_hex(percent_encoded: &str) -> String {
    let mut pieces = percent_encoded.split('%');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (hex, rest) = piece.split_at(piece.len().min(2));
        text.push('%');
        text.push_str(&hex.to_ascii_lowercase());
        text.push_str(rest);
    }
    text
}

/// The characters of base64 that `part` decides alone when `shift` other bytes (modulo 3) stand before it.
///
/// So `user:token` is found for a secret `token`, whatever stands around it.
fn inner_base64(engine: &impl base64::Engine, part: &str, shift: usize) -> String {
    let mut bytes = vec![0; shift];
    bytes.extend_from_slice(part.as_bytes());
    let first = (shift * 8).div_ceil(6);
    let last = bytes.len() * 8 / 6;
    engine.encode(&bytes).get(first..last).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    fn redactor() -> Redactor {
        let (token, pem) = ("s3cr3t+/=value", "first-line-abc\nsecond-line-xyz");
        Redactor::new(&[Secret::new("TOKEN", token), Secret::new("PEM", pem)]).unwrap()
    }

    #[test]
    fn every_form_is_hidden() {
        let redactor = redactor();
        for text in ["s3cr3t+/=value", "s3cr3t%2B%2F%3Dvalue", "s3cr3t%2b%2f%3dvalue"] {
            assert_eq!(redactor.apply("", &format!("a {text} b")), "a $TOKEN b");
        }
        assert_eq!(redactor.apply("", "x second-line-xyz"), "x $PEM");
        assert_eq!(redactor.apply("", r"first-line-abc\nsecond-line-xyz"), "$PEM");
    }

    #[test]
    fn base64_is_hidden_whatever_stands_around_it() {
        let redactor = redactor();
        for around in ["", "x", "xy", "xyz", "x-token-auth:"] {
            for engine in [&STANDARD, &URL_SAFE] {
                let text = engine.encode(format!("{around}s3cr3t+/=value{around}"));
                let shown = redactor.apply("", &text);
                assert!(shown.contains("$TOKEN"), "{around}: {shown}");
                assert!(shown.len() <= text.len() - 16 + 6, "{around}: {shown}");
            }
        }
    }

    #[test]
    fn innocent_text_stays() {
        let text = "accuracy 0.97, s3cr3t value";
        assert_eq!(redactor().apply("", text), text);
        assert!(Redactor::new(&[]).is_none());
    }
    #[test]
    fn hex_is_hidden_in_both_cases() {
        assert_eq!(hex("s3é"), "7333c3a9");
        let hex = hex("s3cr3t+/=value");
        for text in [hex.clone(), hex.to_ascii_uppercase()] {
            assert_eq!(redactor().apply("", &format!("0x{text}!")), "0x$TOKEN!");
        }
    }

    #[test]
    fn wrapped_base64_and_hex_are_hidden_wherever_the_secret_stands_in_them() {
        let secret = "correct-horse-battery-staple-".repeat(5);
        let redactor = Redactor::new(&[Secret::new("KEY", secret.clone())]).unwrap();
        for around in 0..80 {
            let bytes = format!("{}{secret}{}", "x".repeat(around), "y".repeat(around));
            let hex = hex(&bytes);
            for (code, width) in [(STANDARD.encode(&bytes), 64), (URL_SAFE.encode(&bytes), 76), (hex, 60)] {
                let lines: Vec<&str> =
                    code.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
                let whole = redactor.apply("", &lines.join("\n"));
                let (mut before, mut one_by_one) = (String::new(), Vec::new());
                for line in &lines {
                    one_by_one.push(redactor.apply(&before, line));
                    before = super::super::windows::carry(&before, line);
                }
                for shown in [whole, one_by_one.join("\n")] {
                    let left = shown.split(|letter: char| !letter.is_ascii_alphanumeric());
                    let secret = |piece: &&str| {
                        piece.len() >= 12 && pieced(&secret).iter().any(|form| form.contains(*piece))
                    };
                    let left: Vec<&str> = left.filter(secret).collect();
                    assert!(
                        shown.contains("$KEY") && left.is_empty(),
                        "{around}, {width}: {left:?}\n{shown}"
                    );
                }
            }
        }
    }

    #[test]
    fn pieces_are_looked_for_of_16_kib_at_most() {
        let token = "aB3".repeat(LONGEST_PIECED_PART_BYTES);
        assert!(!pieced(&token[..16_384]).is_empty());
        assert!(pieced(&token[..16_385]).is_empty());
    }

    #[test]
    fn a_token_is_hidden_although_its_line_was_broken() {
        let redactor = Redactor::new(&[Secret::new("T", "ATCTT3xFfGN0Zq7pLk29mWcXy4vB")]).unwrap();
        assert_eq!(redactor.apply("", "ATCTT3xFfGN0Zq7p\nLk29mWcXy4vB."), "$T\n$T.");
    }
}
