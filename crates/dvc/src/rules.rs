//! Rules of `.gitignore` and `.dvcignore`, as git and DVC apply them to a path.

use super::lines::with_line_feeds;
use globset::{GlobBuilder, GlobMatcher};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use trainspot_base::error::{Context as _, Result};
use trainspot_transfer::{TEXT_LIMIT_BYTES, read_beneath};

/// What some editors put in front of a text. git passes over it in `.gitignore`; to DVC it is part of a rule.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Whose rules they are. Both have the same syntax, but a rule does not reach the same paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RuleDialect {
    /// git's: a rule decides on the path that it names.
    Git,
    /// DVC's: a rule decides on the path that it names and on all below it, so `!dir` brings back files that
    /// an earlier rule took.
    Dvc,
}

impl RuleDialect {
    /// The name of the files that hold the rules.
    fn file(self) -> &'static str {
        match self {
            Self::Git => ".gitignore",
            Self::Dvc => ".dvcignore",
        }
    }
}

/// A path that rules take.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct IgnoredPath {
    /// The path that the rule names: the one asked about, or a folder above it.
    pub(super) path: PathBuf,
    /// The folder of the file with the rule, and its line; none for what is never part of a repository's
    /// data.
    pub(super) by: Option<(PathBuf, String)>,
}

/// The rules of a repository, read as they are asked for.
#[derive(Debug)]
pub(super) struct IgnoreRules {
    root: PathBuf,
    kind: RuleDialect,
    /// The rules of each folder's file, by the folder's path relative to the root.
    files: HashMap<PathBuf, Vec<IgnoreRule>>,
    /// Whether the rules were given, and no file is read for more of them.
    sealed: bool,
}

#[derive(Debug)]
struct IgnoreRule {
    /// The line as it is written.
    line: String,
    glob: GlobMatcher,
    /// The rule brings back what an earlier one took.
    negated: bool,
    /// The rule takes directories only.
    folders: bool,
    /// The pattern ended with `/**`: the rule takes what is below the directory that it names, and for DVC
    /// the directory, too.
    inside: bool,
}

impl IgnoreRules {
    /// The rules of the repository in `root`.
    pub(super) fn new(root: &Path, kind: RuleDialect) -> Self {
        Self { root: root.to_owned(), kind, files: HashMap::new(), sealed: false }
    }

    /// Rules that are known already, by folder. No file of the repository in `root` is read for more of them.
    pub(super) fn sealed(root: &Path, kind: RuleDialect, texts: &BTreeMap<PathBuf, String>) -> Self {
        let mut rules = Self { sealed: true, ..Self::new(root, kind) };
        for (folder, text) in texts {
            rules.set(folder, text);
        }
        rules
    }

    /// Whether the rules take a path, relative to the root, or a folder above it.
    pub(super) fn take(&mut self, path: &Path, folder: bool) -> Result<bool> {
        Ok(self.taken(path, folder)?.is_some())
    }

    /// Whether the rules take a path whose folders are not taken.
    pub(super) fn take_one(&mut self, path: &Path, folder: bool) -> Result<bool> {
        Ok(self.always(path, folder) || self.name(path, folder)?)
    }

    /// Whether a line of a file takes a path whose folders are not taken.
    pub(super) fn name(&mut self, path: &Path, folder: bool) -> Result<bool> {
        Ok(self.deciding(path, folder)?.is_some_and(|(rule, _)| !rule.negated))
    }

    /// What takes a path, relative to the root: a rule for it, or for the topmost folder above it that one
    /// takes.
    pub(super) fn taken(&mut self, path: &Path, folder: bool) -> Result<Option<IgnoredPath>> {
        let above: Vec<_> = path.ancestors().skip(1).filter(|above| *above != Path::new("")).collect();
        let folders = above.into_iter().rev().map(|above| (above, true));
        for (path, folder) in folders.chain([(path, folder)]) {
            let taken = |by| Ok(Some(IgnoredPath { path: path.to_owned(), by }));
            if self.always(path, folder) {
                return taken(None);
            }
            if let Some((rule, of)) = self.deciding(path, folder)?
                && !rule.negated
            {
                let by = (of.to_owned(), rule.line.clone());
                return taken(Some(by));
            }
        }
        Ok(None)
    }

    /// The rule that decides on a path whose folders are not taken, and the folder of its file.
    fn deciding<'a>(&mut self, path: &'a Path, folder: bool) -> Result<Option<(&IgnoreRule, &'a Path)>> {
        let parents: Vec<&Path> = path.ancestors().skip(1).collect();
        for parent in &parents {
            self.load(parent)?;
        }
        for parent in parents {
            // DVC writes its rules as seen from the root.
            let below =
                if self.kind == RuleDialect::Git { path.strip_prefix(parent).unwrap_or(path) } else { path };
            let rules = self.files.get(parent).map_or(&[][..], Vec::as_slice);
            if let Some(rule) = rules.iter().rev().find(|rule| rule.matches(below, folder, self.kind)) {
                return Ok(Some((rule, parent)));
            }
        }
        Ok(None)
    }

    /// The text of a folder's file.
    pub(super) fn text(&self, folder: &Path) -> Result<String> {
        let path = folder.join(self.kind.file());
        match read_beneath(&self.root, &path, TEXT_LIMIT_BYTES) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if is_absent(&error) => Ok(String::new()),
            Err(error) => {
                Err(error).with_context(|| format!("cannot read '{}'", self.root.join(&path).display()))
            }
        }
    }

    /// Replaces the rules of a folder.
    pub(super) fn set(&mut self, folder: &Path, text: &str) {
        let rules = match self.kind {
            RuleDialect::Git => {
                let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
                text.lines().filter_map(IgnoreRule::of_git).collect()
            }
            RuleDialect::Dvc => {
                let text = with_line_feeds(text);
                text.lines().filter_map(|line| IgnoreRule::of_dvc(line, folder)).collect()
            }
        };
        self.files.insert(folder.to_owned(), rules);
    }

    fn load(&mut self, folder: &Path) -> Result<()> {
        if !self.files.contains_key(folder) {
            let text = if self.sealed { String::new() } else { self.text(folder)? };
            self.set(folder, &text);
        }
        Ok(())
    }

    /// What is never part of a repository's data: git's folder, DVC's, and a folder that is a DVC repository
    /// itself.
    fn always(&self, path: &Path, folder: bool) -> bool {
        let name = path.file_name().unwrap_or_default();
        match self.kind {
            RuleDialect::Git => name == ".git",
            RuleDialect::Dvc => {
                name == ".git"
                    || (folder && (name == ".hg" || name == ".dvc"))
                    || (folder && self.root.join(path).join(".dvc").exists())
            }
        }
    }
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

impl IgnoreRule {
    /// A line of `.gitignore`, if it is a rule. As in git, one that cannot be understood is none, and no path
    /// matches one that ends with two slashes.
    fn of_git(line: &str) -> Option<Self> {
        let (negated, folders, pattern) = parts(trim_end(line))?;
        if pattern.ends_with('/') {
            return None;
        }
        let pattern = if pattern.contains('/') { root(pattern).to_owned() } else { format!("**/{pattern}") };
        Some(Self { line: line.to_owned(), glob: glob(&pattern)?, negated, folders, inside: false })
    }

    /// A line of the `.dvcignore` in `folder`, as a rule for paths from the root.
    ///
    /// DVC strips lines on both sides, and with them a last space that is escaped. It puts the folder in
    /// front of the pattern as it is, so letters like `[` in its name are part of the pattern, and takes off
    /// a first backslash.
    fn of_dvc(line: &str, folder: &Path) -> Option<Self> {
        let (negated, folders, pattern) = parts(line.trim())?;
        let folder = folder.to_str()?;
        // pathspec makes of `*/` and `**/` an expression that no path of DVC's matches.
        if folder.is_empty() && folders && matches!(pattern, "*" | "**") {
            return None;
        }
        let everywhere = !pattern.contains('/') || (!folder.is_empty() && pattern.starts_with("**/"));
        let pattern = if everywhere { pattern.trim_start_matches("**/") } else { root(pattern) };
        let pattern = if folder.is_empty() { pattern } else { pattern.strip_prefix('\\').unwrap_or(pattern) };
        let (inside, pattern) =
            pattern.strip_suffix("/**").map_or((false, pattern), |pattern| (true, pattern));
        let front = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let pattern = format!("{front}{}{pattern}", if everywhere { "**/" } else { "" });
        Some(Self { line: line.to_owned(), glob: glob(&pattern)?, negated, folders, inside })
    }

    fn matches(&self, path: &Path, folder: bool, kind: RuleDialect) -> bool {
        if self.folders && !folder {
            return false;
        }
        match kind {
            RuleDialect::Git => self.glob.is_match(path),
            RuleDialect::Dvc => {
                let own = (!self.inside || folder) && self.glob.is_match(path);
                own || path
                    .ancestors()
                    .skip(1)
                    .any(|above| above != Path::new("") && self.glob.is_match(above))
            }
        }
    }
}

/// The parts of a line, if it is a rule: whether it begins with `!`, whether it ends with `/`, and the
/// pattern in between.
fn parts(line: &str) -> Option<(bool, bool, &str)> {
    if line.starts_with('#') {
        return None;
    }
    let (negated, pattern) = line.strip_prefix('!').map_or((false, line), |pattern| (true, pattern));
    let (folders, pattern) = pattern.strip_suffix('/').map_or((false, pattern), |pattern| (true, pattern));
    (!pattern.is_empty()).then_some((negated, folders, pattern))
}

/// A pattern without the slash that ties it to its folder.
fn root(pattern: &str) -> &str {
    pattern.strip_prefix('/').unwrap_or(pattern)
}

/// Braces are letters to git. `?` and brackets take a byte, as for git; DVC's take a letter, which differs
/// outside of ASCII.
///
/// What brackets take is what they take for DVC. git differs in the rarer forms: names of classes such as
/// `[[:alpha:]]`, an escaped `]`, ranges that go down, and a slash, which its brackets never take. The crate
/// `ignore` differs in most of them, too, and takes braces for alternatives. `gix-ignore` differs in none,
/// but brings a dozen crates along.
fn glob(pattern: &str) -> Option<GlobMatcher> {
    let pattern = pattern.replace('{', "\\{").replace('}', "\\}");
    let glob = GlobBuilder::new(&pattern).literal_separator(true).backslash_escape(true).build().ok()?;
    Some(glob.compile_matcher())
}

/// The line without the spaces at its end that are not escaped.
fn trim_end(line: &str) -> &str {
    let line = line.trim_end_matches('\r');
    let trimmed = line.trim_end_matches(' ');
    let escaped = trimmed.ends_with('\\') && !trimmed.ends_with("\\\\") && trimmed.len() < line.len();
    if escaped { &line[..=trimmed.len()] } else { trimmed }
}

#[cfg(test)]
mod tests;
