//! What a training that used DVC itself left, beside what `dvc push` sends of it.

use super::oracle::Oracle;
use crate::support::say;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use trainspot_dvc::{CacheUploads, ObjectContent, Remotes, cache_uploads};

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

fn send(root: &Path, known: &[&str]) -> Result<CacheUploads, String> {
    let remotes = Remotes::load(root, None, BTreeMap::new()).map_err(|error| error.render())?;
    let known = known.iter().map(|oid| (*oid).to_owned()).collect();
    cache_uploads(root, &remotes.settle(), &known).map_err(|error| error.render())
}

/// The outputs that are not in the cache, and whether they are needed.
fn elsewhere(sent: &CacheUploads) -> Vec<(String, bool)> {
    let objects = sent.uploads.iter().flat_map(|upload| &upload.objects);
    let found = objects.filter_map(|object| match &object.content {
        ObjectContent::Elsewhere { output, needed } => Some((output.clone(), *needed)),
        _ => None,
    });
    found.collect()
}

fn keys(remote: &Path) -> BTreeSet<String> {
    let files = fs::read_dir(remote.join("files/md5")).into_iter().flatten().flatten();
    let files = files.flat_map(|folder| fs::read_dir(folder.path()).unwrap().flatten().collect::<Vec<_>>());
    files.map(|file| file.path().strip_prefix(remote).unwrap().to_str().unwrap().to_owned()).collect()
}

fn keys_of(sent: &CacheUploads, url: &str) -> BTreeSet<String> {
    let uploads = sent.uploads.iter().filter(|upload| upload.remote.url == url);
    let here = uploads.flat_map(|upload| &upload.objects).filter(|object| !object.content.is_elsewhere());
    here.map(|object| object.oid.key()).collect()
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
    let gone = fs::read_to_string(root.join("gone.csv.dvc")).unwrap();
    let gone = gone.lines().nth(1).unwrap().trim_start_matches("- md5: ").to_owned();
    fs::remove_file(root.join(".dvc/cache/files/md5").join(&gone[..2]).join(&gone[2..])).unwrap();
    fs::remove_file(root.join("gone.csv")).unwrap();

    let sent = send(&root, &[&gone]).unwrap();
    oracle.ask("push", json!({"root": root})).unwrap();
    assert_eq!(keys_of(&sent, store.to_str().unwrap()), keys(&store));
    assert_eq!(keys_of(&sent, other.to_str().unwrap()), keys(&other));
    assert_eq!(keys(&other).len(), 1);
    assert_eq!(elsewhere(&sent), [("gone.csv".to_owned(), false)]);
    assert_eq!(elsewhere(&send(&root, &[]).unwrap()), [("gone.csv".to_owned(), true)]);
    say(&format!("{} objects as dvc push sends them", keys(&store).len() + keys(&other).len()));

    for key in keys(&store) {
        let (object, hidden) = (root.join(".dvc/cache").join(&key), folder.path().join("hidden"));
        fs::rename(&object, &hidden).unwrap();
        let found = elsewhere(&send(&root, &[&gone]).unwrap());
        assert!(found.iter().any(|(output, needed)| *needed && output != "gone.csv"), "{key}: {found:?}");
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
            lock("s@1", "'1'", hash),
            "has a flag that is a template",
        ),
        (
            yaml("      - ${item}:\n          remote: r-${unknown}\n"),
            lock("s@1", "'1'", hash),
            "has a remote that is a template",
        ),
        (
            yaml("      - ${item}:\n          remote: r-${item}\n"),
            lock("s@1", "'1'", hash),
            "there is no DVC remote 'r-1'",
        ),
        (
            yaml("      - ${one}\n      - ${other}:\n          cache: false\n"),
            lock("s@1", "a", hash),
            "matches several templates",
        ),
        (yaml("      - a\n"), "stages: [\n".to_owned(), "dvc.lock cannot be read"),
        (yaml("      - a\n"), "schema: '1.0'\n".to_owned(), "schema 2.0"),
        ("stages: 3\n".to_owned(), lock("s", "a", hash), "cannot read 'dvc.yaml'"),
        (
            "stages:\n  s:\n    outs: [a]\n".to_owned(),
            lock("s", "a", hash),
            "the stage 's' of dvc.yaml has no cmd",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("dvc.yaml"), &yaml).unwrap();
        fs::write(folder.path().join("dvc.lock"), &lock).unwrap();
        let error = send(folder.path(), &[]).unwrap_err();
        assert!(error.contains(wanted), "{yaml}{lock}{error}");
    }
}

/// What `dvc push` passes over without an error, or knows where to look for.
#[test]
fn what_is_kept_otherwise_is_no_error() {
    let md5 = "b1946ac92492d2347c6235b4d2611184";
    let config = "[core]\nremote = a\n['remote \"a\"']\nurl = ../store\n['remote \"v\"']\nurl = s3://b\nversion_aware = true\n";
    let yaml = "vars: [{data: {folder: made/of/it}}]\nstages:\n  s:\n    cmd: x\n    outs:\n    - ${data.folder}\n    - ${data.folder}.json:\n        cache: false\n    - own:\n        remote: v\n    - own.new:\n        remote: v\n";
    let lock = format!(
        "schema: '2.0'\nstages:\n  s:\n    cmd: x\n    outs:\n    - path: made/of/it\n      md5: {md5}\n      size: 6\n    - path: made/of/it.json\n      md5: {md5}\n    - path: own\n      hash: md5\n      md5: {md5}\n      cloud:\n        v:\n          version_id: x\n    - path: /outside\n      md5: {md5}\n    - path: gone\n      md5: {md5}\n  gone:\n    cmd: x\n    outs:\n    - path: gone\n      md5: {md5}\n"
    );
    let import = format!(
        "deps:\n- path: x\n  repo:\n    url: https://host/other.git\nouts:\n- md5: {md5}\n  hash: md5\n  path: imported\n"
    );
    let versions = "outs:\n- hash: md5\n  path: folder\n  remote: v\n  files:\n  - relpath: a\n    md5: b1946ac92492d2347c6235b4d2611184\n";
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir(root.join(".dvc")).unwrap();
    for (name, text) in [
        (".dvc/config", config),
        ("dvc.yaml", yaml),
        ("dvc.lock", &lock),
        ("imported.dvc", &import),
        ("folder.dvc", versions),
    ] {
        fs::write(root.join(name), text).unwrap();
    }
    let sent = send(root, &[]).unwrap();
    assert_eq!(elsewhere(&sent), [("made/of/it".to_owned(), true)]);
    let objects: Vec<_> = sent.uploads.iter().flat_map(|upload| &upload.objects).collect();
    // As DVC 2 laid it out, which recorded no hash.
    assert_eq!(objects[0].oid.key(), "b1/946ac92492d2347c6235b4d2611184");
    let own =
        "'own' was not made here, and stays in its own remote: the DVC remote 'v' has `version_aware = true`";
    assert!(sent.left_out.len() == 1 && sent.left_out[0].starts_with(own), "{:?}", sent.left_out);
    // On a rented machine the same holds for a folder, unless the training made the output anew.
    let pointer = format!("outs:\n- md5: {md5}\n  hash: md5\n  path: p\n  remote: a\n");
    fs::write(root.join("p.dvc"), pointer).unwrap();
    fs::rename(root.join("dvc.lock"), root.join("kept")).unwrap();
    let rented = |known: &[&str]| {
        let remotes =
            Remotes::load(root, None, BTreeMap::new()).unwrap().with_folders(trainspot_dvc::PathBase::Rented);
        let known = known.iter().map(|oid| (*oid).to_owned()).collect();
        cache_uploads(root, &remotes.settle(), &known).map_err(|error| error.render())
    };
    assert!(rented(&[md5]).unwrap().left_out[0].contains("'p' was not made here"));
    assert!(
        rented(&[])
            .unwrap_err()
            .contains("'a' is the folder '../store', which would be on the rented machine")
    );
    fs::remove_file(root.join("p.dvc")).unwrap();
    fs::rename(root.join("kept"), root.join("dvc.lock")).unwrap();
    // Made anew on this machine, where it cannot be sent.
    fs::write(
        root.join("dvc.lock"),
        lock.replace("path: own\n", "path: own.new\n")
            .replace("      cloud:\n        v:\n          version_id: x\n", ""),
    )
    .unwrap();
    fs::create_dir_all(root.join(".dvc/cache/files/md5/b1")).unwrap();
    fs::write(root.join(".dvc/cache/files/md5/b1/946ac92492d2347c6235b4d2611184"), "hello\n").unwrap();
    let error = send(root, &[]).unwrap_err();
    assert!(error.contains("'v' has `version_aware = true`"), "{error}");
}
