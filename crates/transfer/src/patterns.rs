//! Patterns of paths, as users write them in `OUTPUTS`, against a folder.

use super::entry::{BundleEntry, EntryKind, EntryPath, is_gone};
use globset::{GlobBuilder, GlobMatcher};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};
use trainspot_base::error::{Context as _, Error, Result};
use walkdir::{DirEntry, WalkDir};

/// Folders of packages and caches, by their names.
const FOREIGN_NAMES: [&str; 3] = ["node_modules", "__pycache__", "site-packages"];
/// Folders that DVC keeps for itself, by their last two names.
const FOREIGN_PATHS: [&str; 2] = [".dvc/cache", ".dvc/tmp"];
/// What is in the folder of a virtual environment, and of an environment of conda.
const FOREIGN_CONTENTS: [&str; 2] = ["pyvenv.cfg", "conda-meta"];
/// The beginning of a `CACHEDIR.TAG` (<https://bford.info/cachedir/>).
const CACHE_SIGNATURE: [u8; 43] = *b"Signature: 8a477f597d28d172789f06886806bc55";

/// The files that a list of patterns matched.
#[derive(Debug, Default)]
pub struct Matches {
    /// Files, each once, sorted by path.
    pub files: Vec<BundleEntry>,
    /// Patterns that matched no file.
    pub unmatched: Vec<String>,
}

/// The files under `root` that any of `patterns` matches.
///
/// A symbolic link counts as the file that it points to: what arrives elsewhere must not dangle. What a glob
/// finds in a linked folder is left out if it finds the same file by its own path.
///
/// # Errors
/// A pattern that leads out of `root`, or a folder that cannot be read.
pub fn find(root: &Path, patterns: &[String]) -> Result<Matches> {
    let mut found = BTreeMap::new();
    let mut unmatched = Vec::new();
    for text in patterns {
        let pattern = Pattern::parse(text)?;
        let mut search = pattern.search(root)?;
        if pattern.is_glob() {
            search.drop_doubles(root);
        }
        if search.files.is_empty() {
            unmatched.push(text.clone());
        }
        found.extend(search.files);
    }
    Ok(Matches { files: found.into_values().collect(), unmatched })
}

/// All files and links below `root`, which nobody else writes to, as they are.
pub fn everything(root: &Path) -> Result<Vec<BundleEntry>> {
    let mut entries = Vec::new();
    for item in WalkDir::new(root).sort_by_file_name() {
        let item = item.with_context(|| format!("cannot look into {}", root.display()))?;
        if !item.file_type().is_dir() {
            entries.push(BundleEntry::look(root, item.path().strip_prefix(root).unwrap_or(item.path()))?);
        }
    }
    Ok(entries)
}

/// All files below `root`, which nobody else writes to, and what links lead to in place of the links.
pub fn everything_behind_links(root: &Path) -> Result<Vec<BundleEntry>> {
    let mut search = FoundFiles::default();
    for item in WalkDir::new(root).follow_links(true) {
        search
            .take(root, &item.with_context(|| format!("cannot look into {}", root.display()))?, |_| true)?;
    }
    Ok(search.files.into_values().collect())
}

/// A path, a folder (everything below it), or a glob in which `*` stays within a folder and `**` does not.
///
/// Git's own folder never matches. A glob does not enter folders of packages and caches: virtual environments
/// and those of conda, `node_modules`, `__pycache__`, `site-packages`, DVC's cache, and whatever has a
/// `CACHEDIR.TAG`. A path without a wildcard, and a glob that begins with the path of such a folder, do.
#[derive(Debug)]
pub struct Pattern {
    text: String,
    itself: GlobMatcher,
    below: GlobMatcher,
    /// The part before the first wildcard.
    start: PathBuf,
}

/// The files and links that one pattern matched.
#[derive(Debug, Default)]
pub(super) struct FoundFiles {
    pub(super) files: BTreeMap<PathBuf, BundleEntry>,
    /// Symbolic links that were met, to files or to folders.
    pub(super) links: BTreeSet<PathBuf>,
}

impl Pattern {
    /// Reads a pattern as users write it.
    ///
    /// # Errors
    /// The text is not a glob, or leads out of the folder that the pattern is for.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim_start_matches("./").trim_end_matches('/');
        let (itself, below) = (glob(text)?, glob(&format!("{text}/**"))?);
        let start = fixed_part(text);
        if !start.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(Error::new(format!("the pattern '{text}' leads out of the folder that it is for"))
                .hint("give a path relative to the repository's folder, without '..'"));
        }
        Ok(Self { text: text.to_owned(), itself, below, start })
    }

    /// Whether the pattern holds a wildcard.
    #[must_use]
    pub fn is_glob(&self) -> bool {
        self.start != Path::new(&self.text)
    }

    /// The folders before the first wildcard; the whole path of a pattern without a wildcard.
    #[must_use]
    pub fn start(&self) -> &Path {
        &self.start
    }

    /// Whether the pattern matches this path, or a folder above the path.
    #[must_use]
    pub fn matches(&self, path: &Path) -> bool {
        self.itself.is_match(path) || self.below.is_match(path)
    }

    /// The files and links under `root` that it matches; links are not followed.
    pub fn list<'a>(&'a self, root: &'a Path) -> impl Iterator<Item = PathBuf> + 'a {
        let above = self.start.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty());
        let linked = above.into_iter().any(|path| root.join(path).is_symlink());
        let items = (!linked).then(|| self.walk(root, false)).into_iter().flatten().filter_map(Result::ok);
        let files = items.filter(|item| !item.file_type().is_dir());
        let paths = files.filter_map(move |item| item.path().strip_prefix(root).map(Path::to_owned).ok());
        paths.filter(|path| self.matches(path))
    }

    /// The files under `root` that it matches, those that links lead to included.
    pub(super) fn search(&self, root: &Path) -> Result<FoundFiles> {
        let mut search = FoundFiles::default();
        for item in self.walk(root, true) {
            let relative = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_owned();
            let item = match item {
                Ok(item) => item,
                // A link that points nowhere is not a file; nor is one that points to a folder above it,
                // whose files are found without it.
                Err(error) if error.loop_ancestor().is_some() || error.io_error().is_some_and(is_gone) => {
                    let path = error.path().map(relative).filter(|_| error.loop_ancestor().is_some());
                    search.links.extend(path.filter(|path| self.matches(path)));
                    continue;
                }
                Err(error) => {
                    return Err(Error::new(format!("cannot look for '{}'", self.text)).source(error));
                }
            };
            search.take(root, &item, |path| self.matches(path))?;
        }
        Ok(search)
    }

    fn walk(&self, root: &Path, follow: bool) -> impl Iterator<Item = walkdir::Result<DirEntry>> + use<> {
        let start = root.join(&self.start);
        let there = start.symlink_metadata().is_ok() && !self.start.iter().any(|part| part == ".git");
        let named = self.start.ancestors().any(|path| is_foreign(&root.join(path)));
        let picky = self.is_glob() && !named;
        let walk = move || {
            let items = WalkDir::new(start).follow_links(follow).follow_root_links(follow).into_iter();
            items.filter_entry(move |item| {
                let foreign = || item.depth() > 0 && item.file_type().is_dir() && is_foreign(item.path());
                item.file_name() != ".git" && !(picky && foreign())
            })
        };
        there.then(walk).into_iter().flatten()
    }
}

impl FoundFiles {
    /// Takes in what a walk that follows links came across.
    fn take(&mut self, root: &Path, item: &DirEntry, is_wanted: impl Fn(&Path) -> bool) -> Result<()> {
        let path = item.path().strip_prefix(root).unwrap_or(item.path());
        if item.path_is_symlink() {
            self.links.insert(path.to_owned());
        }
        if !item.file_type().is_file() || !is_wanted(path) {
            return Ok(());
        }
        let metadata = match item.metadata() {
            Err(error) if error.io_error().is_some_and(is_gone) => return Ok(()),
            metadata => metadata.with_context(|| format!("cannot look at '{}'", path.display()))?,
        };
        let executable = metadata.permissions().mode() & 0o100 != 0;
        let kind = EntryKind::File { bytes: metadata.len(), executable };
        self.files.insert(path.to_owned(), BundleEntry { path: EntryPath::from(path), kind });
        Ok(())
    }

    /// Drops what was found in a linked folder and by its own path too.
    fn drop_doubles(&mut self, root: &Path) {
        let Self { files, links } = self;
        let is_linked = |path: &Path| path.ancestors().skip(1).any(|above| links.contains(above));
        let linked: Vec<PathBuf> = files.keys().filter(|path| is_linked(path)).cloned().collect();
        for path in linked {
            let own = real_path(root, &path);
            if own.is_some_and(|own| own != path && files.contains_key(&own)) {
                files.remove(&path);
            }
        }
    }
}

/// The path below `root` of what is at `path` when all links are followed; none if that is not below it.
pub(super) fn real_path(root: &Path, path: &Path) -> Option<PathBuf> {
    let real = root.join(path).canonicalize().ok()?;
    real.strip_prefix(root.canonicalize().ok()?).ok().map(Path::to_owned)
}

/// Whether a folder holds what tools put there, not what a training makes.
fn is_foreign(folder: &Path) -> bool {
    FOREIGN_NAMES.iter().any(|name| folder.file_name().is_some_and(|own| own == *name))
        || FOREIGN_PATHS.iter().any(|path| folder.ends_with(path))
        || FOREIGN_CONTENTS.iter().any(|name| folder.join(name).symlink_metadata().is_ok())
        || is_tagged(folder)
}

fn is_tagged(folder: &Path) -> bool {
    let tag = folder.join("CACHEDIR.TAG");
    let mut start = [0; CACHE_SIGNATURE.len()];
    // A named pipe would be waited for.
    tag.symlink_metadata().is_ok_and(|tag| tag.is_file())
        && std::fs::File::open(tag).and_then(|mut tag| tag.read_exact(&mut start)).is_ok()
        && start == CACHE_SIGNATURE
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
    fn a_pattern_means_files_and_whole_folders() {
        let patterns = ["./data/", "*.bin", "a/**/b"].map(|text| Pattern::parse(text).unwrap());
        let matches = |path| patterns.iter().any(|pattern| pattern.matches(Path::new(path)));
        for path in ["data", "data/x/y", "m.bin", "m.bin/x", "a/b", "a/c/d/b"] {
            assert!(matches(path), "{path}");
        }
        for path in ["x/data", "x/m.bin", "database"] {
            assert!(!matches(path), "{path}");
        }
    }

    #[test]
    fn a_pattern_without_a_match_is_named() {
        assert_eq!(
            found(&["model/a.bin", "model/*.onnx", "model/dangling"]).1,
            ["model/*.onnx", "model/dangling"]
        );
    }

    /// A workspace of these files, with these links.
    fn workspace(files: &[&str], links: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for path in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        for (link, target) in links {
            std::os::unix::fs::symlink(target, root.path().join(link)).unwrap();
        }
        root
    }

    fn paths(root: &Path, pattern: &str) -> Vec<String> {
        let found = find(root, &[pattern.to_owned()]).unwrap().files;
        found.iter().map(|entry| entry.path.to_string()).collect()
    }

    #[test]
    fn a_glob_does_not_enter_environments_and_caches() {
        let foreign = [
            ".venv/lib/python3/site-packages/matplotlib/back.png",
            "tools/node_modules/x/back.png",
            "src/__pycache__/back.png",
            "lib/site-packages/back.png",
            "conda/share/back.png",
            ".dvc/cache/files/md5/00/back.png",
            ".dvc/tmp/back.png",
            "cached/deep/back.png",
        ];
        let own = ["plots/loss.png", "venv.png", ".dvc/plots/x.png", "tagged/x.png"];
        let root = workspace(&[&foreign[..], &own].concat(), &[(".venv/lib64", "lib")]);
        std::fs::write(root.path().join(".venv/pyvenv.cfg"), "home = /usr/bin\n").unwrap();
        std::fs::create_dir(root.path().join("conda/conda-meta")).unwrap();
        let tag = [&CACHE_SIGNATURE[..], b"\n# of a tool\n"].concat();
        std::fs::write(root.path().join("cached/CACHEDIR.TAG"), tag).unwrap();
        std::fs::write(root.path().join("tagged/CACHEDIR.TAG"), "no signature").unwrap();
        assert_eq!(
            paths(root.path(), "**/*.png"),
            [".dvc/plots/x.png", "plots/loss.png", "tagged/x.png", "venv.png"]
        );
        let pattern = Pattern::parse("**/*.png").unwrap();
        assert_eq!(pattern.list(root.path()).count(), 4);
        for path in foreign {
            assert_eq!(paths(root.path(), path), [path], "named as a file");
            let folder = Path::new(path).parent().unwrap().display().to_string();
            assert_eq!(paths(root.path(), &format!("{folder}/*.png")), [path], "named as a folder");
        }
        assert_eq!(paths(root.path(), "cached"), ["cached/CACHEDIR.TAG", "cached/deep/back.png"]);
        let all = everything_behind_links(root.path()).unwrap();
        let through_link = foreign[0].replace("/lib/", "/lib64/");
        assert!(all.iter().any(|entry| entry.path.to_string() == through_link), "{all:?}");
    }

    #[test]
    fn a_glob_finds_no_file_twice_and_loses_none_by_linked_folders() {
        let links = [
            ("model/latest", "v2"),
            ("model/newest", "latest"),
            ("runs/a/best", "../../epochs/7"),
            ("model/link.bin", "v2/x.bin"),
        ];
        let root = workspace(&["model/v2/x.bin", "runs/a/log", "epochs/7/x.bin"], &links);
        assert_eq!(paths(root.path(), "model/**"), ["model/link.bin", "model/v2/x.bin"]);
        assert_eq!(paths(root.path(), "runs/*/best/x.bin"), ["runs/a/best/x.bin"]);
        // A linked folder that is named is entered.
        assert_eq!(paths(root.path(), "model/latest"), ["model/latest/x.bin"]);
        assert_eq!(paths(root.path(), "model/latest/*.bin"), ["model/latest/x.bin"]);
    }
}
