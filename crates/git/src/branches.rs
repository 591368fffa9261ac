//! The remote's branches when a run began, and the names that a new branch can have.

use git2::Oid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The remote's branches at one moment, by name without `refs/heads/`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Branches(BTreeMap<String, Oid>);

/// Names and ids in hexadecimal: how a run's record keeps them.
impl From<Branches> for BTreeMap<String, String> {
    fn from(branches: Branches) -> Self {
        branches.0.into_iter().map(|(name, id)| (name, id.to_string())).collect()
    }
}

impl TryFrom<BTreeMap<String, String>> for Branches {
    type Error = git2::Error;

    fn try_from(branches: BTreeMap<String, String>) -> Result<Self, git2::Error> {
        let parsed = branches.into_iter().map(|(name, id)| Ok((name, Oid::from_str(&id)?)));
        parsed.collect::<Result<_, _>>().map(Self)
    }
}

impl Branches {
    pub(super) fn new(references: &BTreeMap<String, Oid>) -> Self {
        let branch = |(name, id): (&String, &Oid)| Some((name.strip_prefix("refs/heads/")?.to_owned(), *id));
        Self(references.iter().filter_map(branch).collect())
    }

    pub(super) fn tip(&self, name: &str) -> Option<Oid> {
        self.0.get(name).copied()
    }

    /// The branch beside which `name` cannot be made: to git, one's name is a folder in the other's.
    #[must_use]
    pub fn obstacle(&self, name: &str) -> Option<&str> {
        if self.0.contains_key(name) {
            return None;
        }
        let above = name.match_indices('/').find_map(|(at, _)| self.0.get_key_value(&name[..at]));
        let folder = format!("{name}/");
        let below = || self.0.range(folder.clone()..).next().filter(|(other, _)| other.starts_with(&folder));
        above.or_else(below).map(|(other, _)| other.as_str())
    }

    /// Names for another branch where `name` must be left alone, the likeliest first. Names that git cannot
    /// make beside existing branches are left out.
    pub(super) fn names_beside(&self, name: &str) -> impl Iterator<Item = String> {
        const BRANCH_NAMES_LIMIT: usize = 100;
        let base = if self.obstacle(name).is_some() { name.replace('/', "-") } else { name.to_owned() };
        let numbered = (2..BRANCH_NAMES_LIMIT).map(move |number| format!("{base}-{number}"));
        numbered.filter(|name| self.obstacle(name).is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branches(names: &[&str]) -> Branches {
        let id = Oid::ZERO_SHA1;
        Branches::new(&names.iter().map(|name| (format!("refs/heads/{name}"), id)).collect())
    }

    #[test]
    fn a_branch_cannot_be_a_folder_of_another() {
        let branches = branches(&["main", "models", "a/b/c", "a/b-x"]);
        let cases = [
            ("models/churn", Some("models")),
            ("models/churn/v2", Some("models")),
            ("a", Some("a/b-x")),
            ("a/b", Some("a/b/c")),
            ("models", None),
            ("model", None),
            ("a/x", None),
            ("a/b/c", None),
        ];
        for (name, obstacle) in cases {
            assert_eq!(branches.obstacle(name), obstacle, "{name}");
        }
    }

    #[test]
    fn names_beside_one_that_is_taken() {
        let branches = branches(&["main", "models", "x/y", "x/y-2/z"]);
        let first = |name: &str| branches.names_beside(name).next().unwrap();
        assert_eq!(first("main"), "main-2");
        assert_eq!(first("models/churn"), "models-churn-2");
        assert_eq!(first("x/y"), "x/y-3");
    }
}
