//! What is known of the outputs before the training: refused then, when it costs nothing.

use super::publisher::Publisher;
use crate::config::PublishMode;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use trainspot_base::error::{Error, Kind, Result};
use trainspot_transfer::{BundleEntry, find};

impl Publisher<'_> {
    /// Refuses outputs that could not be committed. `sent` are the files that a training gets; without a
    /// training it is none, and the outputs are those in the clone.
    ///
    /// # Errors
    /// Git would pass an output through a filter, or one that is there already is too large for Bitbucket.
    pub(crate) fn check_outputs(&self, sent: Option<&[BundleEntry]>) -> Result<()> {
        if self.config.publish.mode == PublishMode::None {
            return Ok(());
        }
        let kind = if sent.is_some() { Kind::Configuration } else { Kind::Publication };
        let there = self.existing_outputs(sent)?;
        let mut files: Vec<_> = there.iter().map(|path| (path.display().to_string(), path.clone())).collect();
        files.extend(
            self.config.outputs.iter().map(|pattern| (format!("'{pattern}' of OUTPUTS"), example(pattern))),
        );
        files.extend(self.config.dvc.outputs.iter().flat_map(|output| pointers(output)));
        if !self.config.dvc.outputs.is_empty() {
            let of_init = [".dvc/config", ".dvc/.gitignore", ".dvcignore"];
            files.extend(of_init.map(|path| (format!("{path}, which belongs to DVC"), PathBuf::from(path))));
        }
        self.checkout.check_attributes(&files).map_err(|error| error.kind(kind))?;
        if !self.config.publish.size_limits {
            return Ok(());
        }
        let there: Vec<PathBuf> = there.into_iter().collect();
        self.checkout.check_sizes(&there).map_err(|error| match sent {
        None => error.kind(kind),
        Some(_) => Error::new("outputs that are in the clone already are too large").source(error).kind(kind).hint(
            "let DVC keep files of this size (DVC_OUTPUTS); or, where the training writes smaller ones, delete these in a step before",
        ),
    })
    }

    /// The files of the clone that will be outputs unless the training changes them: those that the training
    /// gets, and those that are outputs by name.
    fn existing_outputs(&self, sent: Option<&[BundleEntry]>) -> Result<BTreeSet<PathBuf>> {
        let found = find(&self.config.clone_dir, &self.config.outputs)?.files;
        let sent = sent.map(|sent| sent.iter().map(|entry| entry.path.to_path()).collect::<BTreeSet<_>>());
        let plain: BTreeSet<PathBuf> =
            self.config.outputs.iter().map(|pattern| PathBuf::from(tidy(pattern))).collect();
        let of_dvc = |path: &PathBuf| self.config.dvc.outputs.iter().any(|output| path.starts_with(output));
        let stays =
            |path: &PathBuf| sent.as_ref().is_none_or(|sent| sent.contains(path) || plain.contains(path));
        Ok(found
            .iter()
            .map(|entry| entry.path.to_path())
            .filter(|path| !of_dvc(path) && stays(path))
            .collect())
    }
}

/// The files that DVC writes for an output, with their names in a message.
fn pointers(output: &str) -> [(String, PathBuf); 2] {
    let ignore = Path::new(output).parent().unwrap_or(Path::new("")).join(".gitignore");
    let named = |path: PathBuf| (format!("{}, which DVC writes for '{output}'", path.display()), path);
    [named(PathBuf::from(format!("{output}.dvc"))), named(ignore)]
}

fn tidy(pattern: &str) -> &str {
    pattern.trim_start_matches("./").trim_end_matches('/')
}

/// A path that a pattern matches. What `.gitattributes` says of this path it says of every match that no
/// line of its own names.
fn example(pattern: &str) -> PathBuf {
    let folder = pattern.ends_with('/');
    let parts: Vec<&str> = tidy(pattern).split('/').collect();
    let last = parts.len() - 1;
    let deep = |at: usize, part: &str| part == "**" && at < last;
    let parts =
        parts.iter().enumerate().filter(|(at, part)| !deep(*at, part)).map(|(_, part)| example_part(part));
    let path: PathBuf = parts.collect();
    if folder { path.join(EXAMPLE_NAME) } else { path }
}

/// A name that no attribute is likely to be for.
const EXAMPLE_NAME: &str = "output";

fn example_part(part: &str) -> String {
    let (mut name, mut rest) = (String::new(), part.chars());
    while let Some(letter) = rest.next() {
        match letter {
            '*' if name.ends_with(EXAMPLE_NAME) => {}
            '*' => name.push_str(EXAMPLE_NAME),
            '?' => name.push('x'),
            '\\' => name.extend(rest.next()),
            '[' => {
                let inside: String = rest.by_ref().take_while(|letter| *letter != ']').collect();
                name.push(inside.chars().find(|letter| !matches!(letter, '!' | '^')).unwrap_or('x'));
            }
            '{' => {
                let inside: String = rest.by_ref().take_while(|letter| *letter != '}').collect();
                name.push_str(&example_part(inside.split(',').next().unwrap_or_default()));
            }
            other => name.push(other),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_of_each_pattern() {
        let cases = [
            ("model/m.bin", "model/m.bin"),
            ("./model/", "model/output"),
            ("model/**", "model/output"),
            ("**/*.h5", "output.h5"),
            ("a/**/b-*.bin", "a/b-output.bin"),
            ("m?del/[ab]*.{h5,pt}", "mxdel/aoutput.h5"),
            ("\\*x", "*x"),
        ];
        for (pattern, expected) in cases {
            assert_eq!(example(pattern), Path::new(expected), "{pattern}");
        }
    }
}
