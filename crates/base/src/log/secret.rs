//! Values that the log must not show, and the names that tell of such values.

use secrecy::SecretString;

/// Words of which a secret's name has one.
const SECRET_NAME_WORDS: [&str; 10] =
    ["TOKEN", "SECRET", "PASS", "PWD", "KEY", "CREDENTIAL", "AUTH", "JWT", "DSN", "CONNECTION_STRING"];

/// A value that the log hides, under the name by which the log tells that it hid one.
#[derive(Clone, Debug)]
pub struct Secret {
    /// The name of the secret's variable.
    pub name: String,
    /// The secret's value.
    pub value: SecretString,
}

impl Secret {
    /// The value of the variable `name`.
    pub fn new(name: impl Into<String>, value: impl Into<SecretString>) -> Self {
        Self { name: name.into(), value: value.into() }
    }
}

/// Whether the name of a variable or of an option tells that its value is secret.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    SECRET_NAME_WORDS.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_not_shown() {
        let shown = format!("{:?}", Secret::new("TOKEN", "s3cret"));
        assert!(shown.contains("TOKEN") && !shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn the_names_of_secrets_are_known() {
        for name in
            ["BITBUCKET_ACCESS_TOKEN", "aws_secret_access_key", "password", "AZURE_STORAGE_CONNECTION_STRING"]
        {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["BITBUCKET_REPO_SLUG", "region", "url", ""] {
            assert!(!is_secret_name(name), "{name}");
        }
    }
}
