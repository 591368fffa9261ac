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
use trainspot::dvc::{Remotes, Tracked, Tracking, track};

fn ours(root: &Path, outputs: &[&str]) -> Result<Tracked, String> {
    let remotes = Remotes::load(root, Some("/srv/store"), BTreeMap::new()).unwrap();
    let outputs: Vec<String> = outputs.iter().map(|path| (*path).to_owned()).collect();
    let tracked =
        track(&Tracking { root, outputs: &outputs, in_git: &|path| path == "code.py", remotes: &remotes });
    tracked.map_err(|error| error.render())
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
    put(root, "with-rules/sub/.dvcignore", "x");
    symlink("real", root.join("links/folder")).unwrap();
    symlink("nowhere", root.join("links/dangling")).unwrap();
    fs::create_dir_all(root.join("dangles")).unwrap();
    symlink("nowhere", root.join("dangles/link")).unwrap();
    fs::create_dir_all(root.join("bytes")).unwrap();
    fs::write(root.join("bytes").join(OsStr::from_bytes(b"\xff.bin")), "x").unwrap();
    put(root, "line\nbreak", "x");
    put(root, "nested/.dvc/config", "");
}

const REFUSED: &[(&[&str], &str)] = &[
    (&["code.py"], "is tracked by git, so DVC cannot track it"),
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
    (&["hidden/x"], "would be ignored by git"),
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
];

#[test]
fn what_dvc_refuses_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    scene(folder.path());
    for (outputs, wanted) in REFUSED.iter().chain(REFUSED_HERE) {
        let error = ours(folder.path(), outputs).unwrap_err();
        assert!(error.contains(wanted) && error.contains("\nNext: "), "{outputs:?}: {error}");
    }
    let tracked = ours(folder.path(), &["./free.bin/", "free.bin", "old"]).unwrap();
    assert_eq!(
        tracked.pointers.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(),
        ["free.bin", "old"]
    );
    assert!(ours(folder.path(), &[]).unwrap().changes.is_empty());

    let mut oracle = match Oracle::start() {
        Ok(oracle) => oracle,
        Err(reason) => return say(&format!("not compared with DVC: {reason}")),
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
