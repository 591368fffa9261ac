//! Repositories to track, made from a seed.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

/// What a `.dvc` file or a rule could stumble over.
const NAMES: &[&str] = &[
    "model.bin",
    "a b",
    " lead",
    "it's",
    "quo\"te",
    "#hash",
    "a#b",
    "x #y",
    "a: b",
    "end:",
    "- x",
    "-",
    "--- x",
    "...",
    "true",
    "null",
    "~",
    "yes",
    "No",
    "123",
    "1_000",
    "1e3",
    "1.5",
    ".5",
    "0x1F",
    "0o17",
    "017",
    "1:30",
    "2020-01-01",
    "2020-01-01 10:00:00",
    "=",
    "?",
    "? x",
    "<<",
    "!bang",
    "*star",
    "[br]",
    "{brace}",
    "&amp",
    ",c",
    "a, b",
    "%p",
    "@at",
    "`tick",
    "|pipe",
    ">gt",
    "'q'",
    "\"dq\"",
    "it's: x",
    "back\\slash",
    "é",
    "e\u{301}",
    "日本語",
    "😀",
    "tab\there",
    "bell\u{7}",
    "del\u{7f}",
    "nbsp\u{a0}x",
    "feff\u{feff}",
    "..dots",
    ".hidden",
    "trailing.",
    "a  b",
    "file.tar.gz",
    "UPPER",
    "a long name whose words go on and on until the line is more than eighty columns wide, and then some more of it",
    "one_very_long_word_without_any_space_in_it_that_cannot_be_folded_anywhere_and_goes_past_the_eightieth_column",
    "a: long name that must be quoted, and whose words go on and on until the line is over eighty columns wide, too",
    "tab\tand a long name that must be in double quotes, with words that go on until the line is wide  enough to fold",
    "x é long ünïcödé nämé wíth wörds thät gö ön änd ön üntil thé líné ís möré thän éíghty cölümns wídé änd möré",
];
/// Names that only a file in a directory may have.
const INNER: &[&str] = &["new\nline", "cr\rlf", "trail ", "x.dvc2", ".gitignore", "keep.txt", "skip.txt"];
/// The content whose MD5 has nothing but digits, and the one that reads as a number with an exponent.
const DIGITS: [&str; 2] = ["digits 2883987", "digits 169455"];

/// A generated repository's data.
pub(super) struct Tree {
    pub(super) random: fastrand::Rng,
    /// What to track.
    pub(super) targets: Vec<String>,
    /// Files that may be changed.
    files: Vec<String>,
}

impl Tree {
    /// Makes the data of this seed in `root`.
    pub(super) fn grow(seed: u64, root: &Path) -> Self {
        let mut tree =
            Self { random: fastrand::Rng::with_seed(seed), targets: Vec::new(), files: Vec::new() };
        let folder = match tree.random.usize(..3) {
            0 => String::new(),
            depth => format!("{}/", tree.path(depth)),
        };
        for number in 0..=tree.random.usize(..4) {
            let name = tree.random.choice(NAMES).unwrap().to_string();
            let path = if number == 0 { name } else { format!("{folder}{name}") };
            let taken =
                |other: &String| Path::new(other).starts_with(&path) || Path::new(&path).starts_with(other);
            if tree.targets.iter().any(taken) || root.join(&path).exists() {
                continue;
            }
            if tree.random.bool() {
                tree.file(root, &path);
            } else {
                tree.folder(root, &path);
            }
            tree.targets.push(path);
        }
        tree.rules(root);
        tree
    }

    fn path(&mut self, depth: usize) -> String {
        (0..depth).map(|_| *self.random.choice(NAMES).unwrap()).collect::<Vec<_>>().join("/")
    }

    fn file(&mut self, root: &Path, path: &str) {
        let full = root.join(path);
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        if self.random.u8(..20) == 0 && !full.exists() {
            let target = full.with_file_name(format!("target {}", self.random.u16(..)));
            fs::write(&target, self.content()).unwrap();
            symlink(target.file_name().unwrap(), &full).unwrap();
            return;
        }
        fs::write(&full, self.content()).unwrap();
        let mode = [0o644, 0o755, 0o744, 0o654, 0o600][self.random.usize(..5)];
        fs::set_permissions(&full, fs::Permissions::from_mode(mode)).unwrap();
        self.files.push(path.to_owned());
    }

    fn content(&mut self) -> Vec<u8> {
        let length = match self.random.u8(..12) {
            0 => 0,
            1 => return DIGITS[self.random.usize(..2)].into(),
            2 => return b"a\r\nb\r\n".to_vec(),
            3 => self.random.usize(..3 << 20),
            _ => self.random.usize(..3000),
        };
        let mut content = vec![0; length];
        self.random.fill(&mut content);
        content
    }

    fn folder(&mut self, root: &Path, path: &str) {
        fs::create_dir_all(root.join(path)).unwrap();
        for _ in 0..self.random.usize(..9) {
            let depth = self.random.usize(..3);
            let names: &[&str] = if self.random.u8(..4) == 0 { INNER } else { NAMES };
            let name = *self.random.choice(names).unwrap();
            let inner = if depth == 0 { name.to_owned() } else { format!("{}/{name}", self.path(depth)) };
            let inner = format!("{path}/{inner}");
            let free = Path::new(&inner).ancestors().skip(1).all(|above| !root.join(above).is_file());
            if free && !root.join(&inner).exists() {
                self.file(root, &inner);
            }
        }
        if self.random.u8(..4) == 0 {
            fs::create_dir_all(root.join(path).join("empty/deeper")).unwrap();
        }
        if self.random.u8(..6) == 0 {
            symlink("empty", root.join(path).join("to folder")).unwrap();
            fs::create_dir_all(root.join(path).join("empty")).unwrap();
        }
    }

    /// Rules of git and DVC, some of which take what is tracked.
    fn rules(&mut self, root: &Path) {
        let folder = Path::new(self.targets.last().unwrap()).parent().unwrap().to_owned();
        let git = [
            "*.bin\n",
            "/out\n# x\n",
            "no newline at the end",
            "*\n!*.gitignore\n!*.dvc\n!*/\n",
            "/a b/\n",
            "é\n",
            "*.bin\n!/model.bin\n",
        ];
        let dvc = [
            "*.txt\n",
            "*.txt\n!keep.txt\n",
            "skip.txt\n!keep.txt\n",
            "/*/keep.txt\n",
            "**/é\n",
            "# x\n\n  a b  \n",
            "[ab]*\n!a*\n",
            "true/\n",
        ];
        if self.random.u8(..3) == 0 {
            fs::write(root.join(&folder).join(".gitignore"), self.random.choice(git).unwrap()).unwrap();
        }
        if self.random.u8(..4) == 0 {
            fs::write(root.join(".gitignore"), self.random.choice(git).unwrap()).unwrap();
        }
        if self.random.u8(..3) == 0 {
            fs::write(root.join(".dvcignore"), self.random.choice(dvc).unwrap()).unwrap();
        }
        // DVC breaks at rules in a folder whose name begins with two dots.
        if self.random.u8(..4) == 0 && !folder.as_os_str().as_encoded_bytes().starts_with(b"..") {
            fs::write(root.join(&folder).join(".dvcignore"), self.random.choice(dvc).unwrap()).unwrap();
        }
    }

    /// Rules of git's in the clone above a repository that is its folder `sub`.
    pub(super) fn rules_above(&mut self, clone: &Path) {
        const RULES: [&str; 6] = [
            "",
            "*.bin\n",
            "/sub/a b\n/sub/é/\n",
            "sub/*.bin\n!/sub/model.bin\n",
            "/sub/*\n!/sub/*.dvc\n!/sub/*/\n!.gitignore\n",
            "/model.bin\nsub/true\n",
        ];
        fs::write(clone.join(".gitignore"), self.random.choice(RULES).unwrap()).unwrap();
    }

    /// Changes some of the data.
    pub(super) fn change(&mut self, root: &Path) {
        for path in self.files.clone() {
            let full = root.join(&path);
            match self.random.u8(..6) {
                0 => fs::write(&full, self.content()).unwrap(),
                1 if !self.targets.contains(&path) => fs::remove_file(&full).unwrap(),
                2 => fs::set_permissions(&full, fs::Permissions::from_mode(0o755)).unwrap(),
                3 if self.targets.contains(&path) => {
                    fs::remove_file(&full).unwrap();
                    self.folder(root, &path);
                }
                _ => {}
            }
        }
        for path in self.targets.clone() {
            if root.join(&path).is_dir() && self.random.bool() {
                fs::write(root.join(&path).join("more"), self.content()).unwrap();
            }
        }
    }
}
