//! Patterns of paths, as users write them in `OUTPUTS`, against a folder.

use super::bundle::{Entry, EntryKind, Name};
use crate::error::{Context as _, Error, Result};
use globset::{GlobBuilder, GlobMatcher};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};
use walkdir::WalkDir;

/// What a list of patterns matched.
#[derive(Debug, Default)]
pub struct Matches {
    /// Files, each once, sorted by path.
    pub files: Vec<Entry>,
    /// Patterns that matched no file.
    pub unmatched: Vec<String>,
}

/// The files under `root` that any of `patterns` matches.
///
/// A pattern is a path, a folder (everything below it), or a glob in which `*` stays within a folder and `**` does not.
/// A symbolic link counts as the file that it points to: what arrives elsewhere must not dangle. Git's own folder
/// never matches.
///
/// # Errors
/// A pattern that leads out of `root`, or a folder that cannot be read.
pub fn find(root: &Path, patterns: &[String]) -> Result<Matches> {
    let mut found = BTreeMap::new();
    let mut unmatched = Vec::new();
    for pattern in patterns {
        let files = matching(root, pattern)?;
        if files.is_empty() {
            unmatched.push(pattern.clone());
        }
        found.extend(files);
    }
    Ok(Matches { files: found.into_values().collect(), unmatched })
}

fn matching(root: &Path, pattern: &str) -> Result<BTreeMap<PathBuf, Entry>> {
    let pattern = pattern.trim_start_matches("./").trim_end_matches('/');
    let matcher = glob(pattern)?;
    let below = glob(&format!("{pattern}/**"))?;
    let fixed = fixed_part(pattern);
    if !fixed.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(Error::new(format!("the pattern '{pattern}' leads out of the folder that it is for"))
            .hint("give a path relative to the repository's folder, without '..'"));
    }
    let start = root.join(&fixed);
    let mut files = BTreeMap::new();
    if !start.exists() || fixed.iter().any(|part| part == ".git") {
        return Ok(files);
    }
    let walk = WalkDir::new(&start).follow_links(true).into_iter();
    for item in walk.filter_entry(|item| item.file_name() != ".git") {
        let item = match item {
            Ok(item) => item,
            // A link that points nowhere is not a file; nor is one that points to a folder above it, whose files are
            // found without it.
            Err(error) if error.loop_ancestor().is_some() || error.io_error().is_some_and(is_gone) => {
                continue;
            }
            Err(error) => return Err(Error::new(format!("cannot look for '{pattern}'")).source(error)),
        };
        let path = item.path().strip_prefix(root).unwrap_or(item.path());
        if item.file_type().is_file() && (matcher.is_match(path) || below.is_match(path)) {
            let metadata = match item.metadata() {
                Err(error) if error.io_error().is_some_and(is_gone) => continue,
                metadata => metadata.with_context(|| format!("cannot look at '{}'", path.display()))?,
            };
            let executable = metadata.permissions().mode() & 0o100 != 0;
            let kind = EntryKind::File { bytes: metadata.len(), executable };
            files.insert(path.to_owned(), Entry { path: Name::from(path), kind });
        }
    }
    Ok(files)
}

fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound
}

fn glob(pattern: &str) -> Result<GlobMatcher> {
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    Ok(glob.with_context(|| format!("cannot understand the pattern '{pattern}'"))?.compile_matcher())
}

/// The folders of a pattern before its first wildcard: all that it matches is below them.
#[must_use]
pub fn fixed_part(pattern: &str) -> PathBuf {
    Path::new(pattern)
        .components()
        .take_while(|part| !part.as_os_str().to_string_lossy().contains(['*', '?', '[', '{', '\\']))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(patterns: &[&str]) -> (Vec<String>, Vec<String>) {
        let root = tempfile::tempdir().unwrap();
        for path in
            ["model/a.bin", "model/deep/er/b.bin", "model/notes.txt", "metrics.json", ".git/model/x.bin"]
        {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        std::os::unix::fs::symlink("a.bin", root.path().join("model/latest")).unwrap();
        std::os::unix::fs::symlink("nowhere", root.path().join("model/dangling")).unwrap();
        let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        let matches = find(root.path(), &patterns).unwrap();
        (matches.files.iter().map(|entry| entry.path.to_string()).collect(), matches.unmatched)
    }

    #[test]
    fn paths_folders_and_globs() {
        let none: Vec<String> = vec![];
        assert_eq!(found(&["metrics.json"]), (vec!["metrics.json".into()], none.clone()));
        assert_eq!(found(&["./model/*.bin"]), (vec!["model/a.bin".into()], none.clone()));
        assert_eq!(found(&["**/*.bin"]).0, ["model/a.bin", "model/deep/er/b.bin"]);
        assert_eq!(found(&["model/deep/"]), (vec!["model/deep/er/b.bin".into()], none.clone()));
        assert_eq!(found(&["model/{notes.txt,latest}"]).0, ["model/latest", "model/notes.txt"]);
    }

    #[test]
    fn a_loop_of_links_is_no_harm() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("env")).unwrap();
        std::fs::write(root.path().join("a.bin"), "x").unwrap();
        std::os::unix::fs::symlink("..", root.path().join("env/up")).unwrap();
        let files = find(root.path(), &["**/*.bin".to_owned()]).unwrap().files;
        assert_eq!(files.iter().map(|entry| entry.path.to_string()).collect::<Vec<_>>(), ["a.bin"]);
    }

    #[test]
    fn a_pattern_that_leads_outside_is_refused() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("work")).unwrap();
        let secret = root.path().join("secret");
        std::fs::write(&secret, "x").unwrap();
        for pattern in [secret.to_str().unwrap(), "../secret", "./../*", "a/../../secret"] {
            let error = find(&root.path().join("work"), &[pattern.to_owned()]).unwrap_err().render();
            assert!(error.contains("leads out of the folder"), "{error}");
        }
    }

    #[test]
    fn a_pattern_without_a_match_is_named() {
        assert_eq!(
            found(&["model/a.bin", "model/*.onnx", "model/dangling"]).1,
            ["model/*.onnx", "model/dangling"]
        );
    }
}
