//! Pointers that git would not commit, and what to write into `.gitignore` so that it does.

use super::super::gitignore;
use super::super::rules::{IgnoreRules, IgnoredPath, RuleDialect};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use trainspot_base::error::{Error, Result};

/// The most folders that are taken back for one pointer: a path has fewer.
const EXCEPTIONS_LIMIT: usize = 64;

/// Refuses a `.dvc` file, relative to the clone, that git ignores.
pub(super) fn check(clone: &Path, pointer: &Path) -> Result<()> {
    let mut git = IgnoreRules::new(clone, RuleDialect::Git);
    let Some(taken) = git.taken(pointer, false)? else { return Ok(()) };
    let pointer_name = pointer.display();
    let why = match &taken {
        IgnoredPath { by: None, path } => format!("'{}' is git's own", path.display()),
        IgnoredPath { by: Some((folder, line)), path } => {
            format!("'{}' is excluded by the line `{line}` of {}", path.display(), file(folder))
        }
    };
    let error = Error::new(format!("git ignores '{pointer_name}', so it could not be committed: {why}"));
    Err(error.hint(match exceptions(git, pointer, taken)? {
        Some(lines) => advice(&lines),
        None => "name the output another way".to_owned(),
    }))
}

/// The lines for the end of each `.gitignore` after which git does not ignore the pointer, by the file's
/// folder.
///
/// A file below a folder that is excluded cannot be taken back: the folder must be, then all in it excluded,
/// then the next. What is in it is excluded as `?*`: where that is `*`, DVC takes the folder for excluded and
/// finds no pointer in it.
fn exceptions(
    mut git: IgnoreRules,
    pointer: &Path,
    first: IgnoredPath,
) -> Result<Option<BTreeMap<PathBuf, Vec<String>>>> {
    let mut lines: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    let mut taken = Some(first);
    for _ in 0..EXCEPTIONS_LIMIT {
        let Some(IgnoredPath { path, by }) = taken else { return Ok(Some(lines)) };
        let Some((folder, _)) = by else { return Ok(None) };
        let pattern = gitignore::pattern(path.strip_prefix(&folder).unwrap_or(&path));
        let added = lines.entry(folder.clone()).or_default();
        if path == pointer {
            added.push(format!("!{pattern}"));
        } else {
            added.extend([format!("!{pattern}/"), format!("{pattern}/?*")]);
        }
        let text = format!("{}\n{}\n", git.text(&folder)?, added.join("\n"));
        git.set(&folder, &text);
        taken = git.taken(pointer, false)?;
    }
    Ok(None)
}

fn advice(lines: &BTreeMap<PathBuf, Vec<String>>) -> String {
    let of_file = |(folder, lines): (&PathBuf, &Vec<String>)| {
        let lines: Vec<_> = lines.iter().map(|line| format!("`{line}`")).collect();
        format!("{} to the end of {}", lines.join(", "), file(folder))
    };
    let all: Vec<_> = lines.iter().map(of_file).collect();
    format!("add, each on a line of its own, {}, and commit that", all.join(", and "))
}

fn file(folder: &Path) -> String {
    format!("'{}'", folder.join(".gitignore").display())
}
