//! The line that `dvc add` writes into `.gitignore`.

use std::path::Path;

/// The text of a `.gitignore` with a line for `name`, which is beside it and not ignored yet.
///
/// DVC escapes what is special anywhere in a pattern, and leaves spaces as they are. It means not to write a
/// line that is there, but looks for it after the file's end: one that a later line takes back is written
/// once more.
pub(super) fn with_entry(old: &str, name: &str) -> String {
    let separator = if old.is_empty() || old.ends_with('\n') { "" } else { "\n" };
    format!("{old}{separator}{}\n", pattern(Path::new(name)))
}

/// The pattern for one path, relative to the file's folder.
pub(super) fn pattern(path: &Path) -> String {
    let mut pattern = String::from("/");
    for c in path.to_string_lossy().chars() {
        if "\\[]!*#?".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::with_entry;

    #[test]
    fn a_line_is_added_after_the_last_one() {
        assert_eq!(with_entry("", "a b"), "/a b\n");
        assert_eq!(with_entry("x", "!t[*]#?"), "x\n/\\!t\\[\\*\\]\\#\\?\n");
        assert_eq!(with_entry("/a\n!/a\n", "a"), "/a\n!/a\n/a\n");
    }
}
