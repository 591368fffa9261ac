//! A list of files with the proof of each: what a checkpoint holds, and what a machine leaves in a store.

use super::entry::{BundleEntry, EntryKind, LISTED_ENTRIES_LIMIT, limited};
use blake3::{Hash, Hasher};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use trainspot_base::error::{Context as _, Error, Result};

/// Files and links, and the proof of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The files and links, relative to their folder.
    #[serde(deserialize_with = "limited::<_, _, LISTED_ENTRIES_LIMIT>")]
    pub entries: Vec<BundleEntry>,
    /// The BLAKE3 hash of each file, and of each link's target, in hexadecimal.
    #[serde(deserialize_with = "limited::<_, _, LISTED_ENTRIES_LIMIT>")]
    pub hashes: Vec<String>,
}

impl Manifest {
    /// The manifest of entries of a folder that nobody changes. Reads every file.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn of_folder(folder: &Path, entries: Vec<BundleEntry>) -> Result<Self> {
        let hash = |entry: &BundleEntry| match &entry.kind {
            EntryKind::File { .. } => hash_of(&folder.join(entry.path.as_path())),
            EntryKind::Link { target } => Ok(blake3::hash(target.as_path().as_os_str().as_bytes())),
        };
        let hashes =
            entries.iter().map(|entry| Ok(hash(entry)?.to_hex().to_string())).collect::<Result<_>>()?;
        Ok(Self { entries, hashes })
    }

    /// Refuses a manifest that does not prove each of its entries.
    ///
    /// # Errors
    /// Entries and hashes differ in number, or an entry is there twice.
    pub fn check(&self) -> Result<()> {
        let (entries, hashes) = (self.entries.len(), self.hashes.len());
        if entries != hashes {
            return Err(Error::new(format!("its manifest has {entries} entries, but {hashes} hashes")));
        }
        let mut paths = BTreeSet::new();
        match self.entries.iter().find(|entry| !paths.insert(entry.path.to_path())) {
            Some(twice) => Err(Error::new(format!("its manifest names '{}' twice", twice.path))),
            None => Ok(()),
        }
    }

    /// Each entry with its proof.
    ///
    /// # Errors
    /// As [`Self::check`], or a hash is none.
    pub fn proved(&self) -> Result<Vec<(&BundleEntry, Hash)>> {
        self.check()?;
        let pairs = self.entries.iter().zip(&self.hashes);
        pairs.map(|(entry, hash)| Ok((entry, Hash::from_hex(hash).context("not a hash")?))).collect()
    }

    /// The size of all files together, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(BundleEntry::bytes).fold(0, u64::saturating_add)
    }
}

/// The BLAKE3 hash of a file.
///
/// # Errors
/// The file cannot be read.
pub fn hash_of(file: &Path) -> Result<Hash> {
    let mut hasher = Hasher::new();
    let opened = std::fs::File::open(file);
    opened
        .and_then(|file| hasher.update_reader(file).map(|hasher| hasher.finalize()))
        .with_context(|| format!("cannot read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::find_with_links;

    #[test]
    fn a_manifest_proves_files_and_links_and_survives_its_own_writing() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("a")).unwrap();
        std::fs::write(root.path().join("a/x"), "x").unwrap();
        std::os::unix::fs::symlink("x", root.path().join("a/last")).unwrap();
        let entries = find_with_links(root.path(), &["a".to_owned()]).unwrap();
        let manifest = Manifest::of_folder(root.path(), entries).unwrap();
        let written = serde_json::to_vec(&manifest).unwrap();
        assert_eq!(serde_json::from_slice::<Manifest>(&written).unwrap(), manifest);
        let proved: Vec<_> = manifest
            .proved()
            .unwrap()
            .into_iter()
            .map(|(entry, hash)| (entry.path.to_string(), hash))
            .collect();
        // Of either it is the hash of "x": the file's bytes, and where the link leads.
        let expected = ["a/last", "a/x"].map(|path| (path.to_owned(), blake3::hash(b"x")));
        assert_eq!(proved, expected);
        assert_eq!(manifest.bytes(), 1);
    }

    #[test]
    fn what_is_not_proved_is_refused() {
        let entry = r#"{"path":"a","kind":{"file":{"bytes":1,"executable":false}}}"#;
        let hash = format!("\"{}\"", blake3::hash(b"x").to_hex());
        for (entries, hashes, why) in [
            (entry.to_owned(), String::new(), "1 entries, but 0 hashes"),
            (format!("{entry},{entry}"), format!("{hash},{hash}"), "names 'a' twice"),
            (entry.to_owned(), "\"zz\"".to_owned(), "not a hash"),
        ] {
            let text = format!(r#"{{"entries":[{entries}],"hashes":[{hashes}]}}"#);
            let error = serde_json::from_str::<Manifest>(&text).unwrap().proved().unwrap_err();
            assert!(trainspot_base::error::chain(&error).contains(why), "{}", error.render());
        }
    }
}
