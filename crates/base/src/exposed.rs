//! How a secret is written where it has to travel: in messages between pipe and machine, and nowhere else.
//!
//! A [`SecretString`] has no `Serialize`, so a field that travels names one of these functions, and all such
//! fields are found by their name: `#[serde(serialize_with = "exposed::text")]`.

use secrecy::{ExposeSecret as _, SecretString};
use serde::Serializer;
use std::collections::BTreeMap;

/// Writes a secret as a text.
pub fn text<S: Serializer>(secret: &SecretString, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(secret.expose_secret())
}

/// Writes a secret as a text, where there is one.
pub fn optional_text<S: Serializer>(secret: &Option<SecretString>, out: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(secret) => out.serialize_some(secret.expose_secret()),
        None => out.serialize_none(),
    }
}

/// Writes secrets as texts by their names.
pub fn map<S: Serializer>(secrets: &BTreeMap<String, SecretString>, out: S) -> Result<S::Ok, S::Error> {
    out.collect_map(secrets.iter().map(|(name, secret)| (name, secret.expose_secret())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Serialize, Deserialize)]
    struct Message {
        #[serde(serialize_with = "text")]
        token: SecretString,
        #[serde(serialize_with = "optional_text")]
        key: Option<SecretString>,
        #[serde(serialize_with = "optional_text")]
        session: Option<SecretString>,
        #[serde(serialize_with = "map")]
        environment: BTreeMap<String, SecretString>,
    }

    #[test]
    fn a_secret_travels_as_the_text_that_it_is_and_is_not_shown() {
        let sent = r#"{"token":"s3cret \"t\"","key":"s3cret-key","session":null,"environment":{"A":"s3cret\n","B":""}}"#;
        let message: Message = serde_json::from_str(sent).unwrap();
        assert_eq!(message.token.expose_secret(), "s3cret \"t\"");
        assert_eq!(message.environment["A"].expose_secret(), "s3cret\n");
        assert_eq!(serde_json::to_string(&message).unwrap(), sent);
        let shown = format!("{message:?}");
        assert!(shown.contains("environment") && !shown.contains("s3cret"), "{shown}");
    }
}
