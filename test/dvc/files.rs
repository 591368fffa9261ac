//! Single files of DVC's: the strings in them, the first ones, and old ones.

use super::oracle::Oracle;
use crate::support::say;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use trainspot_dvc::{Remotes, Tracking, track, write};

#[test]
fn strings_are_written_as_ruamel_writes_them() {
    let mut oracle = match Oracle::start() {
        Ok(oracle) => oracle,
        Err(reason) => return skip::skip(&reason),
    };
    let mut random = fastrand::Rng::with_seed(7);
    let pieces = [
        "a",
        "word",
        " ",
        " ",
        ": ",
        " #",
        "#",
        "'",
        "\"",
        "\\",
        "-",
        "?",
        "0",
        "1",
        "e",
        ".",
        "_",
        "x",
        "o",
        "b",
        "+",
        ":",
        "é",
        "😀",
        "\t",
        "\u{7f}",
        "\u{a0}",
        "long_word_that_takes_room",
        "2020-01-01",
        "true",
        "null",
        "T",
        "Z",
        "inf",
        "nan",
        "[",
        "}",
        ",",
        "&",
        "=",
        "<",
    ];
    let mut text =
        || -> String { (0..random.usize(1..18)).map(|_| random.choice(pieces).unwrap()).collect() };
    let count = if std::env::var_os("DVC_TREES").is_some() { 20_000 } else { 5_000 };
    let texts: Vec<String> = (0..count).map(|_| text()).collect();
    let wanted = oracle.ask("scalars", json!({"texts": texts})).unwrap();
    let oid = trainspot_dvc::Oid::parse(&"a".repeat(32)).unwrap();
    let pointer = trainspot_dvc::Pointer { oid, size: 0, files: None, executable: false };
    for (text, wanted) in texts.iter().zip(wanted.as_array().unwrap()) {
        let made = pointer.create(text);
        let (_, made) = made.split_once("  hash: md5\n").unwrap();
        let wanted = wanted.as_str().unwrap().replacen("outs:\n- ", "  ", 1);
        assert_eq!(made, wanted, "{text:?}");
    }
    say(&format!("{} strings as ruamel writes them", texts.len()));
}

#[test]
fn a_first_use_leaves_what_dvc_init_and_remote_add_leave() {
    let mut oracle = match Oracle::start() {
        Ok(oracle) => oracle,
        Err(reason) => return skip::skip(&reason),
    };
    for address in ["s3://bucket/a, b", "gdrive://id/models", "/srv/store", "ssh://user@host:22/p#q"] {
        let folder = tempfile::tempdir().unwrap();
        let [theirs, ours] = ["theirs", "ours"].map(|name| folder.path().join(name));
        fs::create_dir(&theirs).unwrap();
        oracle.ask("init", json!({"root": theirs, "remote": address})).unwrap();
        fs::create_dir(&ours).unwrap();
        fs::write(ours.join("model.bin"), "x").unwrap();
        let remotes = Remotes::load(&ours, Some(address), BTreeMap::new()).unwrap();
        let outputs = ["model.bin".to_owned()];
        let tracked = track(&Tracking {
            root: &ours,
            folder: Path::new(""),
            outputs: &outputs,
            in_git: &|_| None,
            remotes: &remotes,
        })
        .unwrap();
        write(&ours, &tracked.changes).unwrap();
        for path in [".dvc/config", ".dvc/.gitignore", ".dvcignore"] {
            let [mine, wanted] = [&ours, &theirs].map(|root| fs::read_to_string(root.join(path)).unwrap());
            assert_eq!(mine, wanted, "{path}");
        }
        assert_eq!(tracked.changes.len(), 5);
    }
}

#[test]
fn a_pointer_of_dvc_2_becomes_one_of_dvc_3() {
    let mut oracle = match Oracle::start() {
        Ok(oracle) => oracle,
        Err(reason) => return skip::skip(&reason),
    };
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    oracle.ask("init", json!({"root": root, "remote": "/srv/x"})).unwrap();
    let old = format!("outs:\n- md5: {}\n  size: 1\n  path: model.bin # mine\n", "a".repeat(32));
    fs::write(root.join("model.bin.dvc"), &old).unwrap();
    fs::write(root.join("model.bin"), "new").unwrap();
    let remotes = Remotes::load(root, None, BTreeMap::new()).unwrap();
    let outputs = ["model.bin".to_owned()];
    let tracked = track(&Tracking {
        root,
        folder: Path::new(""),
        outputs: &outputs,
        in_git: &|_| None,
        remotes: &remotes,
    })
    .unwrap();
    oracle.ask("add", json!({"root": root, "targets": outputs})).unwrap();
    let wanted = fs::read_to_string(root.join("model.bin.dvc")).unwrap();
    assert!(wanted.ends_with("# mine\n  hash: md5\n"), "{wanted}");
    assert!(tracked.changes.iter().any(|change| change.path == "model.bin.dvc" && change.content == wanted));
}
