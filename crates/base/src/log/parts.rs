//! The parts of a secret that are secret by themselves: a program that reads a credential prints the
//! credential's fields, not the whole.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use url::Url;

/// The shortest part of a secret that is looked for: a shorter one would hit innocent text.
pub(super) const SHORTEST_PART_BYTES: usize = 6;
/// How deep containers within containers, such as JSON in base64 in JSON, are looked into.
const CONTAINER_DEPTH_LIMIT: usize = 4;
/// Fields of a credential that say whose or for what it is. They are in errors and hints, which must stay
/// readable.
const PUBLIC_FIELDS: [&str; 18] = [
    "account",
    "client_email",
    "client_id",
    "database",
    "dbname",
    "email",
    "engine",
    "host",
    "hostname",
    "port",
    "project_id",
    "quota_project_id",
    "region",
    "scope",
    "type",
    "universe_domain",
    "user",
    "username",
];

/// Whether a text is one that only programs make, such as a token or a key, and no name, path or word of
/// people.
pub(super) fn is_token(text: &str) -> bool {
    let count = |is: fn(&u8) -> bool| text.bytes().filter(is).count();
    let (upper, lower) = (count(u8::is_ascii_uppercase), count(u8::is_ascii_lowercase));
    let digits = count(u8::is_ascii_digit);
    let hex = text.len() >= 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) && digits > 0;
    let mixed = text.len() >= 20 && upper > 1 && lower > 1 && digits > 1;
    let code = text.bytes().all(is_of_token);
    // A path's names are looked at one by one. Base64 has slashes too, but none of the other marks.
    let path = text.contains('/') && text.contains(['.', '_', '-', '~']);
    code && (hex || mixed) && (!path || text.split('/').any(is_token))
}

fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/=_-.~".contains(&byte)
}

/// The text without what is like a token in it, whose value nobody told us: it may be a secret in a wrong
/// place.
pub(super) fn without_tokens(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let length = rest.bytes().take_while(|byte| is_of_token(*byte)).count();
        let (word, more) = rest.split_at(length);
        shown.push_str(if is_token(word) { "(not shown)" } else { word });
        let mut letters = more.chars();
        shown.extend(letters.next());
        rest = letters.as_str();
    }
    shown
}

/// The value, its lines, and what it holds if it is JSON, base64, lines of `NAME=value`, or an address with a
/// password.
pub(super) fn parts(value: &str) -> Vec<String> {
    let mut found = Vec::new();
    collect(value, CONTAINER_DEPTH_LIMIT, &mut found);
    found.sort_unstable();
    found.dedup();
    found
}

fn collect(value: &str, deeper: usize, found: &mut Vec<String>) {
    let value = value.trim();
    if value.len() < SHORTEST_PART_BYTES {
        return;
    }
    found.push(value.to_owned());
    let Some(deeper) = deeper.checked_sub(1) else { return };
    if let Ok(json @ (Value::Object(_) | Value::Array(_) | Value::String(_))) = serde_json::from_str(value) {
        return fields(&json, deeper, found);
    }
    if value.lines().nth(1).is_some() {
        value.lines().for_each(|line| collect(line, deeper, found));
        // Base64 is often wrapped into lines.
        return decoded(&value.split_whitespace().collect::<String>(), deeper, found);
    }
    if let Some((_, assigned)) = value.split_once('=').filter(|(name, _)| is_name(name)) {
        collect(assigned.trim().trim_matches(['"', '\'']), deeper, found);
    }
    if let Some(password) = Url::parse(value).ok().as_ref().and_then(Url::password) {
        collect(password, deeper, found);
        collect(&percent_decode_str(password).decode_utf8_lossy(), deeper, found);
    }
    decoded(value, deeper, found);
}

/// Collects every text of a JSON value except the public fields.
fn fields(value: &Value, deeper: usize, found: &mut Vec<String>) {
    match value {
        Value::String(text) if !is_plain_address(text) => collect(text, deeper, found),
        Value::Array(items) => items.iter().for_each(|item| fields(item, deeper, found)),
        Value::Object(members) => {
            let secret = members.iter().filter(|(name, _)| !PUBLIC_FIELDS.contains(&name.as_str()));
            secret.for_each(|(_, member)| fields(member, deeper, found));
        }
        _ => {}
    }
}

/// What base64 holds, where that is text of more than a token's worth: any short word decodes to something.
fn decoded(value: &str, deeper: usize, found: &mut Vec<String>) {
    let bytes = STANDARD.decode(value).unwrap_or_default();
    let text = String::from_utf8(bytes).unwrap_or_default();
    if !text.chars().any(|letter| letter.is_control() && !letter.is_whitespace()) {
        collect(&text, deeper, found);
    }
}

/// An address without a password or a query, such as the endpoint that gives tokens.
fn is_plain_address(text: &str) -> bool {
    let plain = |url: Url| url.has_host() && url.password().is_none() && url.query().is_none();
    text.starts_with("http") && Url::parse(text).is_ok_and(plain)
}

fn is_name(text: &str) -> bool {
    let text = text.trim().trim_start_matches("export ");
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_credential_has_its_secret_fields() {
        let key = r#"{
            "type": "service_account", "project_id": "churn-models", "private_key_id": "abc123def456",
            "private_key": "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\n-----END PRIVATE KEY-----\n",
            "client_email": "bot@churn-models.iam.gserviceaccount.com", "client_id": "104857600000",
            "token_uri": "https://oauth2.googleapis.com/token", "nested": {"refresh_token": "1//0gabcdef"}
        }"#;
        let found = parts(key);
        for secret in ["abc123def456", "MIIEvQIBADANBg", "kqhkiG9w0BAQEF", "1//0gabcdef"] {
            assert!(found.iter().any(|part| part == secret), "{secret}: {found:?}");
        }
        for public in ["service_account", "churn-models", "bot@", "104857600000", "https://"] {
            assert!(!found.iter().any(|part| part.starts_with(public)), "{public}: {found:?}");
        }
    }

    #[test]
    fn a_credential_within_base64_an_address_or_lines_is_found() {
        let wrapped = STANDARD.encode(r#"{"password": "hunter2hunter2"}"#);
        let cases = [
            (wrapped.as_str(), "hunter2hunter2"),
            (&format!("{}\n{}", &wrapped[..12], &wrapped[12..]), "hunter2hunter2"),
            ("postgres://me:p%40ssword@db:5432/x", "p@ssword"),
            ("postgres://me:p%40ssword@db:5432/x", "p%40ssword"),
            ("A=1\nexport DB_PASSWORD=\"tr0ub4dor\"\n", "tr0ub4dor"),
            (&STANDARD.encode("A=1\nDB_PASSWORD=tr0ub4dor\n"), "tr0ub4dor"),
            (r#"["first-one", "second-one"]"#, "second-one"),
            (r#"{"url": "https://me:sesame-open@host/"}"#, "sesame-open"),
        ];
        for (value, secret) in cases {
            assert!(parts(value).iter().any(|part| part == secret), "{value}: {:?}", parts(value));
        }
        for whole in ["plain-token", "sesame", "to be = not to be", "=nameless"] {
            assert_eq!(parts(whole), [whole]);
        }
        assert_eq!(parts("short"), Vec::<String>::new());
    }

    #[test]
    fn containers_without_end_are_left() {
        let mut value = "secret-value".to_owned();
        for _ in 0..20 {
            value = serde_json::to_string(&[value]).unwrap();
        }
        assert_eq!(parts(&value).len(), CONTAINER_DEPTH_LIMIT + 1);
    }

    #[test]
    fn what_is_like_a_token_is_told_from_what_people_write() {
        for token in [
            "ATCTT3xFfGN0Zq7pLk29mWcXy4vB",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY01",
            "0123456789abcdef0123456789abcdef01234567",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
        ] {
            assert!(is_token(token), "{token}");
            assert_eq!(without_tokens(&format!("PUBLISH '{token}' ü")), "PUBLISH '(not shown)' ü");
        }
        for text in [
            "pull-request",
            "facadefacadefacadefacadefacadefacade",
            "Weights-of-a-model-2024-12-01",
            "WEIGHTS-2024-12-01-FINALv",
            "WeightsOfAnotherModelV2",
            "Models/ResNet50_v2/Weights_2024.bin",
            "a-bucket-of-models-2024-12-01",
            "is not a duration; write it like 90s, 45m, 12h or 1h30m",
            "arn:aws:iam::123456789012:role/TrainspotRole",
        ] {
            assert_eq!(without_tokens(text), text);
        }
    }
}
