//! The DVC repositories of a clone: mostly one at its root; with `dvc init --subdir`, some in folders of it.

use super::rules::{IgnoreRules, RuleDialect};
use super::track::literals;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use trainspot_base::error::Result;

/// The outputs of each DVC repository, relative to its folder, in the order given. A repository's folder is
/// relative to the clone.
///
/// An output's repository is the nearest folder above it that has a `.dvc` folder, as for a DVC that is
/// started beside the output; else the clone itself, which then gets the files of `dvc init`.
///
/// # Errors
/// An output is outside of the clone, or in another.
pub(super) fn of_outputs(clone: &Path, outputs: &[String]) -> Result<BTreeMap<PathBuf, Vec<String>>> {
    let mut repositories: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for output in literals(outputs)? {
        let output = Path::new(&output);
        let folder = output.ancestors().skip(1).find(|folder| is_repository(&clone.join(folder)));
        let folder = folder.unwrap_or(Path::new(""));
        let within = output.strip_prefix(folder).unwrap_or(output).to_string_lossy().into_owned();
        repositories.entry(folder.to_owned()).or_default().push(within);
    }
    Ok(repositories)
}

/// The folders of all DVC repositories, relative to the clone, without those in folders that git ignores.
///
/// A folder that cannot be read, or goes meanwhile, holds none: DVC could not use it either.
///
/// # Errors
/// A `.gitignore` cannot be read.
pub(super) fn all(clone: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut git = IgnoreRules::new(clone, RuleDialect::Git);
    let (mut found, mut left) = (BTreeSet::new(), vec![PathBuf::new()]);
    while let Some(folder) = left.pop() {
        if is_repository(&clone.join(&folder)) {
            found.insert(folder.clone());
        }
        for entry in clone.join(&folder).read_dir().into_iter().flatten().flatten() {
            let path = folder.join(entry.file_name());
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && entry.file_name() != ".dvc" && !git.take_one(&path, true)? {
                left.push(path);
            }
        }
    }
    Ok(found)
}

fn is_repository(folder: &Path) -> bool {
    folder.join(".dvc").is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::create_dir_all;

    #[test]
    fn the_nearest_repository_above_an_output_is_its_own() {
        let clone = tempfile::tempdir().unwrap();
        for folder in ["cv/.dvc", "cv/deep/er/.dvc", "nlp/.dvc", "ignored/.dvc", ".git/.dvc"] {
            create_dir_all(clone.path().join(folder)).unwrap();
        }
        std::fs::write(clone.path().join(".gitignore"), "/ignored\n").unwrap();
        let outputs = ["cv/m.bin", "top.bin", "cv/deep/er/x", "./cv/deep/y/", "nlp", "cvs/z"];
        let of = of_outputs(clone.path(), &outputs.map(str::to_owned)).unwrap();
        let wanted: &[(&str, &[&str])] =
            &[("", &["top.bin", "nlp", "cvs/z"]), ("cv", &["m.bin", "deep/y"]), ("cv/deep/er", &["x"])];
        let wanted = wanted.iter().map(|(folder, outputs)| {
            (PathBuf::from(folder), outputs.iter().map(|output| (*output).to_owned()).collect())
        });
        assert_eq!(of, wanted.collect());
        let all: Vec<_> = all(clone.path()).unwrap().into_iter().collect();
        assert_eq!(all, ["cv", "cv/deep/er", "nlp"].map(PathBuf::from));
    }
}
