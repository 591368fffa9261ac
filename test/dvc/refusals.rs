//! What is not tracked, and what the user is told.

use super::oracle::Oracle;
use crate::support::say;
use serde_json::json;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use trainspot_dvc::{Prospect, Remotes, Tracked, Tracking, foresee, track};

/// What is refused although nothing is known of the outputs' content.
fn foreseen(root: &Path, outputs: &[&str]) -> Result<Prospect, String> {
    with_tracking(root, outputs, foresee)
}

fn ours(root: &Path, outputs: &[&str]) -> Result<Tracked, String> {
    with_tracking(root, outputs, track)
}

fn with_tracking<T>(
    root: &Path,
    outputs: &[&str],
    work: impl Fn(&Tracking<'_>) -> trainspot_base::error::Result<T>,
) -> Result<T, String> {
    let remotes = Remotes::load(root, Some("/srv/store"), BTreeMap::new()).unwrap();
    let outputs: Vec<String> = outputs.iter().map(|path| (*path).to_owned()).collect();
    let in_git = |path: &Path| (path == Path::new("code.py")).then(|| "code.py".to_owned());
    let tracking =
        Tracking { root, folder: Path::new(""), outputs: &outputs, in_git: &in_git, remotes: &remotes };
    work(&tracking).map_err(|error| error.render())
}

fn put(root: &Path, path: &str, text: &str) {
    fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
    fs::write(root.join(path), text).unwrap();
}

/// A repository in which everything is wrong that can be.
fn scene(root: &Path) {
    for path in [
        "code.py",
        "free.bin",
        "old/a.bin",
        "pipe.out",
        "old/b",
        "taken",
        "links/real/x",
        "both/in/x",
        "ign/x",
        "nested/data/x",
        "ends /x",
    ] {
        put(root, path, path);
    }
    let pointer = |md5: char, name: &str, extra: &str| {
        format!(
            "outs:\n- md5: {}\n  size: 1\n  hash: md5\n  path: {name}\n{extra}",
            md5.to_string().repeat(32)
        )
    };
    put(root, "old.dvc", &pointer('a', "old", ""));
    put(root, "taken.dvc", &pointer('b', "other", ""));
    put(root, "unpushed", "x");
    put(root, "unpushed.dvc", &pointer('c', "unpushed", "  push: false\n"));
    put(root, "uncached", "x");
    put(root, "uncached.dvc", &pointer('c', "uncached", "  cache: false\n"));
    put(root, "holds/sub/y", "y");
    put(root, "holds/sub/y.dvc", &pointer('d', "y", ""));
    put(root, "dvc.yaml", "stages:\n  s:\n    cmd: x\n    outs:\n    - pipe.out\n");
    put(root, ".dvcignore", "/ign\n");
    put(root, ".gitignore", "hidden/\n");
    put(root, "hidden/x", "x");
    put(root, "hidden/deep/y", "y");
    put(root, "with-rules/sub/.dvcignore", "x");
    symlink("real", root.join("links/folder")).unwrap();
    symlink("nowhere", root.join("links/dangling")).unwrap();
    fs::create_dir_all(root.join("dangles")).unwrap();
    symlink("nowhere", root.join("dangles/link")).unwrap();
    fs::create_dir_all(root.join("bytes")).unwrap();
    fs::write(root.join("bytes").join(OsStr::from_bytes(b"\xff.bin")), "x").unwrap();
    put(root, "line\nbreak", "x");
    put(root, "nested/.dvc/config", "");
    put(root, "outer/inner/.dvc/config", "");
    put(root, "outer/inner/x", "x");
}

const REFUSED: &[(&[&str], &str)] = &[
    (&["code.py"], "is tracked by git, so DVC cannot track it"),
    (&["hidden/deep/y"], "'hidden' is excluded by the line `hidden/` of '.gitignore'"),
    (&["missing"], "'missing' is not there"),
    (&["../x"], "is outside of the repository"),
    (&["/etc/passwd"], "is outside of the repository"),
    (&["."], "the repository itself"),
    (&["old/b"], "'old/b' is in 'old', which 'old.dvc' tracks"),
    (&["holds"], "'holds' holds 'holds/sub/y', which 'holds/sub/y.dvc' tracks"),
    (&["pipe.out"], "is an output of a stage in 'dvc.yaml'"),
    (&["both", "both/in/x"], "'both/in/x' is in 'both'"),
    (&["links/folder"], "is a link to a folder"),
    (&["links/folder/x"], "is behind the link 'links/folder'"),
    (&["links/dangling"], "leads nowhere"),
    (&["dangles"], "the link 'dangles/link' leads nowhere"),
    (&["bytes"], "is not UTF-8"),
    (&["ign"], "is ignored by DVC"),
    (&["ign/x"], "is ignored by DVC"),
    (&["with-rules"], "where DVC allows no .dvcignore"),
    (&["hidden/x"], "git ignores 'hidden/x.dvc'"),
    (&["old.dvc"], "is a file of DVC's own"),
];
/// What DVC takes and we do not, because data would be lost or committed, or a pointer overwritten.
const REFUSED_HERE: &[(&[&str], &str)] = &[
    (&["taken"], "'taken.dvc' is there, but does not track 'taken'"),
    (&["unpushed"], "has `push: false`"),
    (&["uncached"], "has `cache: false`"),
    (&["ends "], "ends in a space"),
    (&["line\nbreak"], "has a line break"),
    (&["nested/data"], "is ignored by DVC"),
    (&["outer"], "'outer/inner' is a DVC repository, which DVC does not keep as a part of 'outer'"),
];

/// What shows only once the training has written it.
const CONTENT: &[&[&str]] =
    &[&["missing"], &["links/dangling"], &["dangles"], &["bytes"], &["with-rules"], &["outer"]];

#[test]
fn what_dvc_refuses_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    scene(folder.path());
    for (outputs, wanted) in REFUSED.iter().chain(REFUSED_HERE) {
        let error = ours(folder.path(), outputs).unwrap_err();
        assert!(error.contains(wanted) && error.contains("\nNext: "), "{outputs:?}: {error}");
        match foreseen(folder.path(), outputs) {
            Err(before) => assert_eq!(before, error, "{outputs:?}"),
            Ok(_) => assert!(CONTENT.contains(outputs), "{outputs:?} is not refused before the training"),
        }
    }
    let tracked = ours(folder.path(), &["./free.bin/", "free.bin", "old"]).unwrap();
    assert_eq!(
        tracked.pointers.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(),
        ["free.bin", "old"]
    );
    assert!(ours(folder.path(), &[]).unwrap().changes.is_empty());
    // Left out on purpose.
    put(folder.path(), ".dvcignore", "/ign\ninner\n");
    assert_eq!(ours(folder.path(), &["outer"]).unwrap().pointers[0].1.files, Some(0));

    let mut oracle = match Oracle::start() {
        Ok(oracle) => oracle,
        Err(reason) => return skip::skip(&reason),
    };
    for (outputs, _) in REFUSED {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("repo");
        scene(&root);
        oracle.ask("init", json!({"root": root})).unwrap();
        oracle.ask("git_add", json!({"root": root, "paths": ["code.py"]})).unwrap();
        let theirs = oracle.ask("add", json!({"root": root, "targets": outputs}));
        assert!(theirs.is_err(), "DVC takes {outputs:?}");
    }
    say(&format!("{} refusals as DVC's", REFUSED.len()));
}

#[test]
fn a_broken_file_of_dvc_stops_all() {
    for (path, text) in [("x.dvc", "outs: [\n"), ("x.dvc", "outs:\n- md5: 1\n"), ("dvc.yaml", "stages: 3\n")]
    {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), path, text);
        put(folder.path(), "free.bin", "x");
        let error = ours(folder.path(), &["free.bin"]).unwrap_err();
        assert!(error.contains(&format!("cannot read '{path}'")), "{error}");
    }
}

#[test]
fn a_pointer_that_cannot_be_changed_in_place_is_left_alone() {
    let md5 = "a".repeat(32);
    for old in [
        format!("outs: [{{md5: {md5}, hash: md5, path: free.bin}}]\n"),
        format!("outs:\n- {{md5: {md5}, hash: md5,\n  path: free.bin}}\n"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "free.bin.dvc", &old);
        put(folder.path(), "free.bin", "x");
        let error = ours(folder.path(), &["free.bin"]).unwrap_err();
        assert!(error.contains("cannot update 'free.bin.dvc'"), "{old}{error}");
    }
}

/// What the advice says to add, by file.
fn follow(root: &Path, error: &str) {
    let advice = error.split("each on a line of its own, ").nth(1).unwrap_or_else(|| panic!("{error}"));
    for part in advice.trim_end_matches(", and commit that").split(", and `") {
        let (lines, file) = part.rsplit_once(" to the end of '").unwrap();
        let lines = lines.trim_matches('`').replace("`, `", "\n");
        let file = root.join(file.trim_end_matches('\''));
        let old = fs::read_to_string(&file).unwrap_or_default();
        fs::write(file, format!("{old}\n{lines}\n")).unwrap();
    }
}

/// Whether git itself ignores a path.
fn is_ignored(root: &Path, path: &str) -> bool {
    let mut git = Command::new("git");
    git.arg("-C").arg(root).args(["check-ignore", "--quiet", path]).env("HOME", root);
    git.env("GIT_CONFIG_NOSYSTEM", "1").status().unwrap().success()
}

#[test]
fn the_advice_for_an_ignored_pointer_works() {
    const LINES: [&str; 16] = [
        "/models/",
        "models",
        "/models/*",
        "*.dvc",
        "*",
        "deep/",
        "**/deep",
        "*.bin*",
        "!models",
        "!*.dvc",
        "/models/deep/",
        "models/**",
        "/m.bin.dvc",
        "*/",
        "m.bin.dvc",
        "/models/deep/m.*",
    ];
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut followed = 0;
    for round in 0..150 {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        assert!(Command::new("git").arg("init").arg("-q").arg(root).status().unwrap().success());
        fs::create_dir_all(root.join("models/deep")).unwrap();
        let mut texts = Vec::new();
        for place in [".gitignore", "models/.gitignore", "models/deep/.gitignore"] {
            let lines: Vec<_> = (0..random.usize(..3)).map(|_| *random.choice(&LINES).unwrap()).collect();
            if !lines.is_empty() {
                fs::write(root.join(place), lines.join("\n")).unwrap();
            }
            texts.push(lines);
        }
        let output = *random.choice(&["m.bin", "models/m.bin", "models/deep/m.bin"]).unwrap();
        let pointer = format!("{output}.dvc");
        let what = || format!("seed {seed}, round {round}: {output} {texts:?}");
        let Err(error) = foreseen(root, &[output]) else {
            assert!(!is_ignored(root, &pointer), "{}", what());
            continue;
        };
        assert!(is_ignored(root, &pointer), "{}: {error}", what());
        let hidden = is_ignored(root, output);
        follow(root, &error);
        followed += 1;
        assert!(!is_ignored(root, &pointer), "{}: {error}", what());
        foreseen(root, &[output]).unwrap_or_else(|again| panic!("{}: {error}\n{again}", what()));
        assert_eq!(is_ignored(root, output), hidden, "{}: {error}", what());
    }
    assert!(followed > 20, "seed {seed}: {followed}");
    say(&format!("seed {seed}: {followed} pointers taken back from .gitignore as advised"));
}
