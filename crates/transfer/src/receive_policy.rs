//! What is taken of a bundle: nothing of a machine's but what this side asked for.
//!
//! The training owns the machine, and with it every word of the agent there. What comes from there is
//! therefore only bytes for paths that this side has asked for, by the patterns with which the machine looks
//! for them.

use super::entry::{BundleEntry, BundleHeader, EntryPath, FOREIGN_LIST_LIMIT_BYTES, OWN_LIST_LIMIT_BYTES};
use super::held_files::HeldFiles;
use super::links::EntryIndex;
use super::patterns::Pattern;
use super::refusal::refused;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};
use trainspot_base::error::Result;

/// Which files of a bundle the receiver takes.
#[derive(Debug, Default)]
pub struct ReceivePolicy {
    patterns: Vec<Pattern>,
    /// Files and folders by their names, in which no letter is a wildcard.
    paths: BTreeSet<PathBuf>,
    /// Files and folders that are left where they are, whatever asks for them.
    without: Vec<String>,
    /// Patterns that the sender may say match nothing.
    required: Vec<String>,
    /// Files that the receiver has from before: their hashes are enough.
    held: HeldFiles,
    unrequested: UnrequestedFiles,
}

/// What the receiver does about a file that matches no pattern and no path of the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum UnrequestedFiles {
    /// The whole bundle is refused.
    #[default]
    Refuse,
    /// The file is left out.
    Skip,
    /// The file is taken where there is nothing yet, and left out where there is.
    TakeIfNew,
    /// Every file is taken: the sender is the pipe itself.
    Take,
}

impl ReceivePolicy {
    /// Takes every file, from a sender that is trusted: the pipe, on the machine's side.
    #[must_use]
    pub fn accept_all() -> Self {
        Self { unrequested: UnrequestedFiles::Take, ..Self::default() }
    }

    /// Takes files and folders that these patterns match, and no others.
    ///
    /// # Errors
    /// A pattern is not a glob, or leads out of the folder that it is for.
    pub fn matching<'a>(patterns: impl IntoIterator<Item = &'a String>) -> Result<Self> {
        let patterns = patterns.into_iter().map(|pattern| Pattern::parse(pattern)).collect::<Result<_>>()?;
        Ok(Self { patterns, ..Self::default() })
    }

    /// Lets the sender say of these patterns that they match nothing.
    #[must_use]
    pub fn allow_unmatched(self, required: &[String]) -> Self {
        Self { required: required.to_vec(), ..self }
    }

    /// Takes nothing of these files and folders.
    #[must_use]
    pub fn without(self, without: &[String]) -> Self {
        Self { without: without.to_vec(), ..self }
    }

    /// Takes the hash alone of a file that came before.
    #[must_use]
    pub fn with_held_files(self, held: HeldFiles) -> Self {
        Self { held, ..self }
    }

    pub(super) fn held(&self) -> &HeldFiles {
        &self.held
    }

    /// Takes these files and folders as well, and leaves out what else comes instead of refusing all of it.
    #[must_use]
    pub fn also_named(self, paths: BTreeSet<PathBuf>) -> Self {
        Self { paths, unrequested: UnrequestedFiles::Skip, ..self }
    }

    /// Takes new files as well: those at whose paths there is nothing, and that are not hidden.
    #[must_use]
    pub fn or_new_paths(self) -> Self {
        Self { unrequested: UnrequestedFiles::TakeIfNew, ..self }
    }

    /// Whether the sender is trusted with a list of any number of files.
    pub(super) fn is_trusting(&self) -> bool {
        self.unrequested == UnrequestedFiles::Take
    }

    pub(super) fn list_limit_bytes(&self) -> u32 {
        if self.is_trusting() { OWN_LIST_LIMIT_BYTES } else { FOREIGN_LIST_LIMIT_BYTES }
    }

    /// Which entries of a list are taken, one answer for each entry. `is_free` tells whether there is nothing
    /// yet at a path.
    ///
    /// # Errors
    /// An entry was not asked for, unless such entries are left out; a pattern that was not asked for is said
    /// to match nothing; or patterns are said to match nothing beside files.
    pub(super) fn choose(
        &self,
        header: &BundleHeader,
        is_free: impl Fn(&EntryPath) -> bool,
    ) -> Result<Vec<bool>> {
        if let Some(pattern) = header.unmatched.iter().find(|pattern| !self.required.contains(pattern)) {
            return Err(refused(format!(
                "the machine says that '{pattern}' matches nothing, but was not asked for it"
            )));
        }
        if !header.unmatched.is_empty() && !header.entries.is_empty() {
            return Err(refused("the machine sends files, and says that there are none".to_owned()));
        }
        if self.unrequested == UnrequestedFiles::Refuse {
            self.check(&header.entries)?;
        }
        let listed = EntryIndex::new(&header.entries);
        let is_taken = |entry: &BundleEntry| match self.unrequested {
            UnrequestedFiles::Refuse | UnrequestedFiles::Take => true,
            UnrequestedFiles::Skip => self.names(entry, &listed),
            UnrequestedFiles::TakeIfNew => self.names(entry, &listed) || is_free(&entry.path),
        };
        Ok(header.entries.iter().map(is_taken).collect())
    }

    /// Refuses a list in which any entry was not asked for.
    ///
    /// # Errors
    /// An entry was not asked for.
    pub(super) fn check(&self, entries: &[BundleEntry]) -> Result<()> {
        let listed = EntryIndex::new(entries);
        let other = entries.iter().find(|entry| !self.names(entry, &listed));
        other.map_or(Ok(()), |other| {
            Err(refused(format!("refused to write '{}': the machine was not asked for it", other.path)))
        })
    }

    /// Whether an entry was asked for: by its own path or, for a link to a folder, by one below the link.
    fn names(&self, entry: &BundleEntry, listed: &EntryIndex<'_>) -> bool {
        let path = entry.path.as_path();
        if self.without.iter().any(|folder| path.starts_with(folder)) {
            return false;
        }
        self.names_path(path) || listed.seen_through(entry).iter().any(|path| self.names_path(path))
    }

    fn names_path(&self, path: &Path) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(path))
            || path.ancestors().any(|path| self.paths.contains(path))
    }
}

/// Refuses a list in which a path is not plain, is there twice, or leads through another entry.
pub(super) fn check_paths(entries: &[BundleEntry]) -> Result<()> {
    let mut paths: Vec<&Path> = entries.iter().map(|entry| entry.path.as_path()).collect();
    paths.sort_unstable();
    if let Some(path) = paths.iter().find(|path| !is_plain(path)) {
        return Err(refused(format!(
            "refused to write '{}': that is not how a path is written",
            path.display()
        )));
    }
    if let Some(pair) = paths.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(refused(format!("refused to write '{}': it comes twice", pair[0].display())));
    }
    let through = |path: &&&Path| {
        path.ancestors()
            .skip(1)
            .any(|above| !above.as_os_str().is_empty() && paths.binary_search(&above).is_ok())
    };
    match paths.iter().find(through) {
        Some(path) => {
            Err(refused(format!("refused to write '{}': its path leads through a file", path.display())))
        }
        None => Ok(()),
    }
}

/// Whether a path is made of names alone, and of nothing else between them than one slash.
fn is_plain(path: &Path) -> bool {
    let names = path.components().map(|part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    let bytes = |name: Option<&OsStr>| name.map(|name| name.len() + 1);
    names.map(bytes).try_fold(0, |sum, bytes| Some(sum + bytes?)) == Some(path.as_os_str().len() + 1)
}

#[cfg(test)]
mod tests {
    use super::super::{EntryKind, TargetFolder, everything, find_with_links};
    use super::*;
    use std::os::unix::fs::symlink;
    use trainspot_base::error::Kind;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn file(path: &str) -> BundleEntry {
        let kind = EntryKind::File { bytes: 0, executable: false };
        BundleEntry { path: EntryPath::Text(path.to_owned()), kind }
    }

    fn chosen(policy: &ReceivePolicy, paths: &[&str], folder: &Path) -> Result<Vec<bool>> {
        let entries = paths.iter().map(|path| file(path)).collect();
        let place = TargetFolder::open(folder).unwrap();
        policy.choose(&BundleHeader { entries, unmatched: Vec::new() }, |path| place.is_free_for(path))
    }

    #[test]
    fn what_no_pattern_matches_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let policy = ReceivePolicy::matching(&strings(&["model/*.bin", "./logs/"])).unwrap();
        let policy = policy.without(&strings(&["logs/old"]));
        assert_eq!(chosen(&policy, &["model/a.bin", "logs/deep/x"], folder.path()).unwrap(), [true, true]);
        for path in
            ["deploy.sh", "bitbucket-pipelines.yml", "model/a.txt", "model.bin", "logs/old/x", "logs.txt"]
        {
            let error = chosen(&policy, &["model/a.bin", path], folder.path()).unwrap_err();
            assert_eq!(
                error.render(),
                format!("refused to write '{path}': the machine was not asked for it")
            );
            assert_eq!(error.exit_kind(), Kind::Training);
        }
        assert!(chosen(&ReceivePolicy::default(), &["x"], folder.path()).is_err(), "nothing was asked for");
    }

    #[test]
    fn patterns_that_match_nothing_are_those_that_were_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let place = TargetFolder::open(folder.path()).unwrap();
        let policy =
            ReceivePolicy::matching(&strings(&["a"])).unwrap().allow_unmatched(&strings(&["a", "b"]));
        let choose = |entries: Vec<BundleEntry>, unmatched: &[&str]| {
            policy.choose(&BundleHeader { entries, unmatched: strings(unmatched) }, |path| {
                place.is_free_for(path)
            })
        };
        assert!(choose(vec![], &["b"]).is_ok());
        assert!(choose(vec![], &["c"]).unwrap_err().render().contains("says that 'c' matches nothing"));
        assert!(choose(vec![file("a")], &["b"]).unwrap_err().render().contains("sends files, and says"));
    }

    #[test]
    fn a_rescue_takes_what_is_named_and_what_is_new() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("deploy.sh"), "").unwrap();
        symlink("nowhere", folder.path().join("dangling")).unwrap();
        let named = BTreeSet::from(["data[1]", "dvc.lock"].map(PathBuf::from));
        let policy = ReceivePolicy::matching(&strings(&["out"])).unwrap().also_named(named);
        let paths =
            ["out/x", "data[1]/x", "dvc.lock", "data1/x", "deploy.sh", "dangling", ".envrc", "a/.dvc/config"];
        let takes = |policy: &ReceivePolicy| chosen(policy, &paths, folder.path()).unwrap();
        assert_eq!(takes(&policy), [true, true, true, false, false, false, false, false]);
        assert_eq!(takes(&policy.or_new_paths()), [true, true, true, true, false, false, false, false]);
    }

    #[test]
    fn a_path_is_plain_and_comes_once() {
        let check = |paths: &[&str]| check_paths(&paths.iter().map(|path| file(path)).collect::<Vec<_>>());
        assert!(check(&["a/b", "a/c", "a.b", "ab"]).is_ok());
        for (paths, why) in [
            (&["a", "b", "a"][..], "'a': it comes twice"),
            (&["a", "a-b", "a/b/c"], "'a/b/c': its path leads through a file"),
            (&["a//b"], "'a//b': that is not how a path is written"),
            (&["a/"], "'a/'"),
            (&["./a"], "'./a'"),
            (&["a/./b"], "'a/./b'"),
            (&[""], "''"),
        ] {
            let error = check(paths).unwrap_err().render();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn what_the_machine_finds_this_side_takes() {
        let root = tempfile::tempdir().unwrap();
        for path in ["ckpt/checkpoint-3/x.pt", "ckpt/checkpoint-3/y.txt", "other/x.pt", "a/b"] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        symlink("checkpoint-3", root.path().join("ckpt/last")).unwrap();
        symlink("last", root.path().join("ckpt/newest")).unwrap();
        symlink("ckpt/last/x.pt", root.path().join("best.pt")).unwrap();
        symlink("..", root.path().join("a/up")).unwrap();
        let sets =
            [&["ckpt/*/x.pt"][..], &["ckpt"], &["**"], &["**/*.pt"], &["./a/", "ckpt/*/y.txt", "best.pt"]];
        for patterns in sets {
            let patterns = strings(patterns);
            let entries = find_with_links(root.path(), &patterns).unwrap();
            assert!(!entries.is_empty());
            ReceivePolicy::matching(&patterns).unwrap().check(&entries).unwrap();
            check_paths(&entries).unwrap();
        }
        // A link is not asked for because it leads to what is.
        let policy = ReceivePolicy::matching(&strings(&["ckpt/*/x.pt"])).unwrap();
        let error = policy.check(&everything(root.path()).unwrap()).unwrap_err().render();
        assert!(error.contains("'a/b'"), "{error}");
        let mut entries = find_with_links(root.path(), &strings(&["ckpt/*/x.pt"])).unwrap();
        let target = EntryPath::Text("ckpt/checkpoint-3".to_owned());
        entries
            .push(BundleEntry { path: EntryPath::Text("conf".to_owned()), kind: EntryKind::Link { target } });
        assert!(policy.check(&entries).unwrap_err().render().contains("'conf'"));
    }
}
