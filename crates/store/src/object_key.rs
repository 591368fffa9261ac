//! The names of objects.

use std::fmt;
use trainspot_base::error::{Error, Kind, Result};

/// The longest key. S3 takes 1024 bytes, prefix included; a file's name below a folder 255.
const KEY_LIMIT_BYTES: usize = 700;
/// The longest segment of a key.
const SEGMENT_LIMIT_BYTES: usize = 200;

/// The name of an object: segments of letters, digits and `-._=`, with slashes between them. Every store
/// takes such a name as it is, and none takes the name for a path out of the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// Checks a name.
    ///
    /// # Errors
    /// The name is empty or too long, has other characters, or a segment that is empty or begins with a dot.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let fits = |letter: u8| letter.is_ascii_alphanumeric() || b"-._=".contains(&letter);
        let is_segment = |segment: &str| {
            !segment.is_empty()
                && segment.len() <= SEGMENT_LIMIT_BYTES
                && !segment.starts_with('.')
                && segment.bytes().all(fits)
        };
        if name.len() <= KEY_LIMIT_BYTES && name.split('/').all(is_segment) {
            return Ok(Self(name));
        }
        let shown: String = name.chars().take(SEGMENT_LIMIT_BYTES).collect();
        Err(Error::new(format!("'{shown}' cannot be the name of an object in a store"))
            .kind(Kind::Configuration))
    }

    /// The key below this one.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn join(&self, below: &str) -> Result<Self> {
        Self::new(format!("{}/{below}", self.0))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the key is `prefix`, or below `prefix`.
    #[must_use]
    pub fn is_below(&self, prefix: &Self) -> bool {
        self.0.strip_prefix(&prefix.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_store_could_take_for_something_else_are_refused() {
        for name in ["a", "runs/1-2.3_x=4/state.json", "a/".repeat(340).trim_end_matches('/')] {
            assert_eq!(ObjectKey::new(name).unwrap().as_str(), name);
        }
        for name in ["", "/a", "a/", "a//b", "..", "a/../b", "a/.hidden", "a b", "a?b", "a%2e", "ä", "a\0b"]
        {
            assert!(ObjectKey::new(name).is_err(), "{name}");
        }
        assert!(ObjectKey::new("a".repeat(SEGMENT_LIMIT_BYTES + 1)).is_err());
        assert!(ObjectKey::new("a/".repeat(400) + "a").is_err());
    }

    #[test]
    fn below_means_a_whole_segment() {
        let key = |name: &str| ObjectKey::new(name).unwrap();
        assert!(key("runs/1/state").is_below(&key("runs/1")) && key("runs/1").is_below(&key("runs/1")));
        assert!(!key("runs/12").is_below(&key("runs/1")));
        assert_eq!(key("runs").join("1/log").unwrap(), key("runs/1/log"));
        assert!(key("runs").join("../x").is_err());
    }
}
