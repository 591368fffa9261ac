//! What a secret may look like in a text or a file.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::collections::BTreeMap;

/// The forms of a secret, each with its name. Over several lines a form is found in [`joined`].
pub(crate) fn forms(secret: &str) -> BTreeMap<String, String> {
    let digits = secret.bytes().flat_map(|byte| [byte >> 4, byte & 15]);
    let hex: String = digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect();
    let mut forms = BTreeMap::from([
        ("plain".to_owned(), secret.to_owned()),
        ("hex".to_owned(), hex.clone()),
        ("HEX".to_owned(), hex.to_uppercase()),
        ("URL".to_owned(), utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string()),
        ("JSON".to_owned(), serde_json::to_string(secret).unwrap().trim_matches('"').to_owned()),
    ]);
    for shift in 0..3_usize {
        let bytes = [&b"xx"[..shift], secret.as_bytes()].concat();
        for (name, code) in
            [("base64", STANDARD_NO_PAD.encode(&bytes)), ("base64url", URL_SAFE_NO_PAD.encode(&bytes))]
        {
            let own = &code[(shift * 8).div_ceil(6)..bytes.len() * 8 / 6];
            forms.insert(format!("{name}, after {shift} bytes"), own.to_owned());
        }
    }
    forms
}

/// A text without the ends of its lines, the bars before the training's, and other white space.
pub(crate) fn joined(text: &str) -> String {
    text.replace("│ ", "").split_whitespace().collect()
}

/// Fails if any form of a secret is in the text, in one line or over several.
pub(crate) fn assert_without(text: &str, secrets: &BTreeMap<String, String>, place: &str) {
    let joined = joined(text);
    for (name, secret) in secrets {
        for (form, needle) in forms(secret) {
            for text in [text, &joined] {
                assert!(!text.contains(&needle), "{name} is in {place} as {form}:\n{text}");
            }
        }
    }
}

#[test]
fn a_secret_is_found_in_each_form_and_over_lines() {
    use percent_encoding::percent_decode_str;
    let secret = "aZ9+/ \"q\"\\tail-of-it";
    let forms = forms(secret);
    assert_eq!(forms.len(), 11);
    assert_eq!(percent_decode_str(&forms["URL"]).decode_utf8().unwrap(), secret);
    assert_eq!(serde_json::from_str::<String>(&format!("\"{}\"", forms["JSON"])).unwrap(), secret);
    for (shift, before) in ["", "x", "xx", "xxx", "xxxx"].into_iter().enumerate() {
        let code = base64::prelude::BASE64_STANDARD.encode(format!("{before}{secret} and more"));
        let lines = code.as_bytes().chunks(16).map(|line| line.escape_ascii().to_string());
        let wrapped = lines.collect::<Vec<_>>().join("\n");
        let form = &forms[&format!("base64, after {} bytes", shift % 3)];
        assert!(code.contains(form) && joined(&wrapped).contains(form), "{before}");
    }
}
