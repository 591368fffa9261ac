//! Secrets hidden by value, in every form in which they are likely to leak.

use super::parts::{SHORTEST_PART_BYTES, parts};
use crate::config::Secret;
use aho_corasick::{AhoCorasick, MatchKind};
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// Replaces secrets by `$NAME`.
pub(super) struct Redactor {
    searcher: AhoCorasick,
    replacements: Vec<String>,
}

impl Redactor {
    /// None when there is nothing to hide.
    pub(super) fn new(secrets: &[Secret]) -> Option<Self> {
        let forms: Vec<(String, String)> = secrets
            .iter()
            .flat_map(|secret| {
                forms(&secret.value).into_iter().map(|form| (form, format!("${}", secret.name)))
            })
            .filter(|(form, _)| form.len() >= SHORTEST_PART_BYTES)
            .collect();
        if forms.is_empty() {
            return None;
        }
        let searcher = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(forms.iter().map(|(form, _)| form))
            .ok()?;
        Some(Self { searcher, replacements: forms.into_iter().map(|(_, name)| name).collect() })
    }

    pub(super) fn apply(&self, text: &str) -> String {
        self.searcher.replace_all(text, &self.replacements)
    }
}

/// The value and all that is secret in it, each as it is and URL-, JSON- and base64-encoded.
fn forms(value: &str) -> Vec<String> {
    let mut forms: Vec<String> = parts(value).iter().flat_map(|part| encoded(part)).collect();
    forms.sort_unstable();
    forms.dedup();
    forms
}

fn encoded(part: &str) -> Vec<String> {
    let upper = utf8_percent_encode(part, NON_ALPHANUMERIC).to_string();
    // What RFC 3986 leaves as it is stands unencoded in most programs' output.
    let lenient = utf8_percent_encode(part, &UNRESERVED).to_string();
    let json = serde_json::to_string(part).unwrap_or_default();
    let mut forms = vec![part.to_owned(), lower_hex(&upper), upper, lower_hex(&lenient), lenient];
    forms.push(json.trim_matches('"').to_owned());
    for shift in 0..3 {
        forms.extend([&STANDARD_NO_PAD, &URL_SAFE_NO_PAD].map(|engine| inner_base64(engine, part, shift)));
    }
    forms
}

const UNRESERVED: percent_encoding::AsciiSet =
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
        let secret = |name: &str, value: &str| Secret { name: name.into(), value: value.into() };
        Redactor::new(&[secret("TOKEN", "s3cr3t+/=value"), secret("PEM", "first-line-abc\nsecond-line-xyz")])
            .unwrap()
    }

    #[test]
    fn every_form_is_hidden() {
        let redactor = redactor();
        for text in ["s3cr3t+/=value", "s3cr3t%2B%2F%3Dvalue", "s3cr3t%2b%2f%3dvalue"] {
            assert_eq!(redactor.apply(&format!("a {text} b")), "a $TOKEN b");
        }
        assert_eq!(redactor.apply("x second-line-xyz"), "x $PEM");
        assert_eq!(redactor.apply(r"first-line-abc\nsecond-line-xyz"), "$PEM");
    }

    #[test]
    fn base64_is_hidden_whatever_stands_around_it() {
        let redactor = redactor();
        for around in ["", "x", "xy", "xyz", "x-token-auth:"] {
            for engine in [&STANDARD, &URL_SAFE] {
                let text = engine.encode(format!("{around}s3cr3t+/=value{around}"));
                let shown = redactor.apply(&text);
                assert!(shown.contains("$TOKEN"), "{around}: {shown}");
                assert!(shown.len() <= text.len() - 16 + 6, "{around}: {shown}");
            }
        }
    }

    #[test]
    fn innocent_text_stays() {
        let text = "accuracy 0.97, s3cr3t value";
        assert_eq!(redactor().apply(text), text);
        assert!(Redactor::new(&[]).is_none());
    }
}
