//! What a training that used DVC itself left, beside what `dvc push` sends of it.

use super::oracle::Oracle;
use crate::support::say;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use trainspot::dvc::{Cached, Remotes, cached};

const PIPELINE: &str = r"
vars:
- names: [x, y]
- where: made
stages:
  train:
    cmd: mkdir -p model/deep && echo weights > model/w.bin && echo deep > model/deep/d && echo m > metrics.json && echo p > plot.csv && echo keep > keep.txt && echo mine > mine.txt && echo second > second.bin
    outs:
    - model
    - keep.txt:
        cache: false
    - mine.txt:
        push: false
    - second.bin:
        remote: other
    metrics:
    - metrics.json:
        cache: false
    plots:
    - plot.csv:
        x: a
  each:
    foreach: ${names}
    do:
      cmd: mkdir -p ${where} && echo ${item} > ${where}/${item}.bin && echo ${item} > ${where}/${item}.log
      outs:
      - ${where}/${item}.bin
      - ${where}/${item}.log:
          cache: false
  matrix:
    matrix:
      size: [1, 2]
    cmd: echo size ${item.size} > out-${item.size}
    outs:
    - out-${item.size}
  sub:
    wdir: folder
    cmd: echo sub > out.txt
    outs:
    - out.txt
  never:
    cmd: echo never > never.txt
    outs:
    - never.txt
";

fn send(root: &Path) -> Result<Cached, String> {
    let remotes = Remotes::load(root, None, BTreeMap::new()).map_err(|error| error.render())?;
    cached(root, &remotes).map_err(|error| error.render())
}

fn keys(remote: &Path) -> BTreeSet<String> {
    let files = fs::read_dir(remote.join("files/md5")).into_iter().flatten().flatten();
    let files = files.flat_map(|folder| fs::read_dir(folder.path()).unwrap().flatten().collect::<Vec<_>>());
    files.map(|file| file.path().strip_prefix(remote).unwrap().to_str().unwrap().to_owned()).collect()
}

fn keys_of(sent: &Cached, url: &str) -> BTreeSet<String> {
    let shipments = sent.shipments.iter().filter(|shipment| shipment.remote.url == url);
    shipments.flat_map(|shipment| &shipment.objects).map(|object| object.oid.key()).collect()
}

#[test]
fn the_objects_are_those_that_dvc_pushes() {
    let mut oracle = match Oracle::start() {
        Ok(oracle) => oracle,
        Err(reason) => return skip::skip(&reason),
    };
    let folder = tempfile::tempdir().unwrap();
    let [root, store, other] = ["repo", "store", "other"].map(|name| folder.path().join(name));
    fs::create_dir_all(root.join("folder")).unwrap();
    oracle.ask("init", json!({"root": root, "remote": store})).unwrap();
    let config = fs::read_to_string(root.join(".dvc/config")).unwrap();
    fs::write(
        root.join(".dvc/config"),
        format!("{config}['remote \"other\"']\n    url = {}\n", other.display()),
    )
    .unwrap();
    fs::write(root.join("dvc.yaml"), PIPELINE).unwrap();
    let stages = ["train", "each", "matrix", "sub"];
    oracle.ask("repro", json!({"root": root, "targets": stages})).unwrap();
    fs::write(root.join("data.csv"), "data").unwrap();
    fs::write(root.join("gone.csv"), "gone").unwrap();
    oracle.ask("add", json!({"root": root, "targets": ["data.csv", "gone.csv"]})).unwrap();
    // Made elsewhere and never pulled.
    let gone = "files/md5/fc/d52c4d8a1f56b0dd8cd6b4f0e0e3d8";
    let gone = fs::read_to_string(root.join("gone.csv.dvc")).unwrap().lines().nth(1).map_or(
        gone.to_owned(),
        |line| {
            let md5 = line.trim_start_matches("- md5: ");
            format!("files/md5/{}/{}", &md5[..2], &md5[2..])
        },
    );
    fs::remove_file(root.join(".dvc/cache").join(gone)).unwrap();
    fs::remove_file(root.join("gone.csv")).unwrap();

    let sent = send(&root).unwrap();
    oracle.ask("push", json!({"root": root})).unwrap();
    assert_eq!(keys_of(&sent, store.to_str().unwrap()), keys(&store));
    assert_eq!(keys_of(&sent, other.to_str().unwrap()), keys(&other));
    assert_eq!(keys(&other).len(), 1);
    assert_eq!(sent.elsewhere, ["gone.csv"]);
    say(&format!("{} objects as dvc push sends them", keys(&store).len() + keys(&other).len()));

    for key in keys(&store) {
        let (object, hidden) = (root.join(".dvc/cache").join(&key), folder.path().join("hidden"));
        fs::rename(&object, &hidden).unwrap();
        match send(&root) {
            // The only object of a .dvc file: data that was not pulled looks the same.
            Ok(sent) => assert_eq!(sent.elsewhere, ["data.csv", "gone.csv"]),
            Err(error) => assert!(error.contains("is not in DVC's cache"), "{error}"),
        }
        fs::rename(&hidden, &object).unwrap();
    }
}

#[test]
fn what_cannot_be_matched_is_refused() {
    let md5 = "b1946ac92492d2347c6235b4d2611184";
    let lock = |stage: &str, path: &str, extra: &str| {
        format!(
            "schema: '2.0'\nstages:\n  {stage}:\n    cmd: x\n    outs:\n    - path: {path}\n      {extra}md5: {md5}\n      size: 6\n"
        )
    };
    let hash = "hash: md5\n      ";
    let yaml = |outs: &str| {
        format!("stages:\n  s:\n    foreach: [1, 2]\n    do:\n      cmd: x\n      outs:\n{outs}")
    };
    for (yaml, lock, wanted) in [
        (
            yaml("      - ${item}:\n          cache: ${keep}\n"),
            lock("s@1", "a", hash),
            "has a flag that is a template",
        ),
        (
            yaml("      - ${item}:\n          remote: r-${item}\n"),
            lock("s@1", "a", hash),
            "has a remote that is a template",
        ),
        (
            yaml("      - ${item}\n      - ${other}:\n          cache: false\n"),
            lock("s@1", "a", hash),
            "matches several templates",
        ),
        (yaml("      - a\n"), lock("s@1", "a", ""), "was recorded by DVC 2"),
        (
            yaml("      - a\n"),
            lock("s@1", "a", "cloud: {s3: {etag: x}}\n      "),
            "versions of a cloud's own",
        ),
        (yaml("      - a\n"), lock("s@1", "a", hash), "'a' is not in DVC's cache"),
        (yaml("      - a\n"), "stages: [\n".to_owned(), "dvc.lock cannot be read"),
        (yaml("      - a\n"), "schema: '1.0'\n".to_owned(), "schema 2.0"),
        ("stages: 3\n".to_owned(), lock("s", "a", hash), "cannot read 'dvc.yaml'"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("dvc.yaml"), &yaml).unwrap();
        fs::write(folder.path().join("dvc.lock"), &lock).unwrap();
        let error = send(folder.path()).unwrap_err();
        assert!(error.contains(wanted), "{yaml}{lock}{error}");
    }
}
