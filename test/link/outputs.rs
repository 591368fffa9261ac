//! Outputs: what a machine may put into a clone, and what it may not, whatever it says.

use super::tree;
use crate::local_machine::{Rig, ended, exists, spec};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use trainspot_compute::link::Agent;
use trainspot_compute::link::local::LocalLink;
use trainspot_protocol::FileSelection;
use trainspot_transfer::{
    BundleEntry, BundleHeader, BundleSender, EntryKind, EntryPath, FileStability, HeldFiles,
};

fn wanted(patterns: &[&str]) -> FileSelection {
    FileSelection {
        required: patterns.iter().map(|pattern| (*pattern).to_owned()).collect(),
        ..FileSelection::default()
    }
}

#[tokio::test]
async fn nothing_arrives_unless_every_pattern_matches() {
    let command = "mkdir -p model .git/hooks out; echo 1 > model/a.bin; echo 2 > .git/hooks/x; \
        ln -s ../model/a.bin out/link; ln -s nowhere out/dangling; mkfifo out/pipe; echo 3 > out/x";
    let (rig, agent) = Rig::training(20, spec(command)).await;
    ended(&agent).await;
    let clone = rig.aside("clone");
    let patterns = ["model/*.bin", "*.onnx", "missing/", ".git/hooks/x", "out/dangling", "out/pipe"];
    let header = agent.fetch(&wanted(&patterns), &clone, "").await.unwrap();
    assert_eq!(header.unmatched, &patterns[1..]);
    assert_eq!((header.entries.len(), tree(&clone).len()), (0, 0));
    // What is a link there arrives as the file that it leads to.
    let header = agent.fetch(&wanted(&["**"]), &clone, "").await.unwrap();
    assert_eq!(header.unmatched.len(), 0);
    let arrived: Vec<PathBuf> = tree(&clone).into_keys().collect();
    assert_eq!(arrived, ["model/a.bin", "out/link", "out/x"].map(PathBuf::from));
    assert_eq!(fs::read(clone.join("out/link")).unwrap(), b"1\n");
    for pattern in ["/etc/hostname", "../run/log", "model/../../run/log"] {
        let error = agent.fetch(&wanted(&[pattern]), &clone, "").await.unwrap_err().render();
        assert!(error.contains(&format!("the pattern '{pattern}' leads out of the folder")), "{error}");
    }
    assert_eq!(tree(&clone).len(), 3);
    rig.end().await;
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_sent_does_not_arrive() {
    let command =
        "head -c 50000000 /dev/zero > a; touch ready; while :; do echo x >> a; done & wait; echo never";
    let (rig, agent) = Rig::training(20, spec(command)).await;
    exists(rig.home().work().join("ready")).await;
    let clone = rig.aside("clone");
    fs::write(clone.join("a"), "old").unwrap();
    let error = agent.fetch(&wanted(&["a"]), &clone, "").await.unwrap_err().render();
    assert!(error.contains("'a' changed while it was being sent"), "{error}");
    assert_eq!(fs::read(clone.join("a")).unwrap(), b"old");
    assert_eq!(fs::read_dir(&clone).unwrap().count(), 1);
    rig.end().await;
}

#[tokio::test]
async fn a_link_in_the_clone_leads_no_output_outside() {
    let command = "mkdir out in; echo 1 > out/x; echo 2 > in/x";
    let (rig, agent) = Rig::training(20, spec(command)).await;
    ended(&agent).await;
    let (clone, outside) = (rig.aside("clone"), rig.aside("outside"));
    symlink(&outside, clone.join("out")).unwrap();
    fs::create_dir(clone.join("inside")).unwrap();
    symlink("inside", clone.join("in")).unwrap();
    let error = agent.fetch(&wanted(&["out/x"]), &clone, "").await.unwrap_err().render();
    assert!(error.contains("'out/x'"), "{error}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    agent.fetch(&wanted(&["in/x"]), &clone, "").await.unwrap();
    assert_eq!(fs::read(clone.join("inside/x")).unwrap(), b"2\n");
    rig.end().await;
}

/// A machine that says whatever `header` says.
fn liar(folder: &Path, header: &BundleHeader) -> Agent<LocalLink> {
    let bundle = fs::File::create(folder.join("bundle")).unwrap();
    let source = folder.join("source");
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("x"), "x").unwrap();
    BundleSender { root: &source, files: FileStability::Final, progress: &mut |_| {} }
        .send(header, bundle)
        .unwrap();
    let program = folder.join("program");
    fs::write(&program, format!("#!/bin/sh\ncat > /dev/null\ncat '{}/bundle'\n", folder.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let environment = BTreeMap::from([("PATH".to_owned(), std::env::var("PATH").unwrap().into())]);
    Agent::new(LocalLink { program, home: folder.join("home"), environment }, "test")
}

#[tokio::test]
async fn a_machine_that_lies_writes_nothing_outside() {
    let file = || EntryKind::File { bytes: 0, executable: false };
    let link = || EntryKind::Link { target: EntryPath::Text("/etc".to_owned()) };
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let absolute = elsewhere.path().join("absolute").display().to_string();
    fs::write(&absolute, "").unwrap();
    for (path, kind) in [
        ("../evil", file()),
        ("a/../../evil", file()),
        (&absolute, file()),
        (".git/config", file()),
        ("sub/.GIT/hooks/x", file()),
        ("link", link()),
        ("../link", link()),
    ] {
        let source = folder.path().join("source").join(path);
        if matches!(kind, EntryKind::File { .. }) {
            fs::create_dir_all(folder.path().join("source/a")).unwrap();
            fs::create_dir_all(source.parent().unwrap()).unwrap();
            fs::write(&source, "").unwrap();
        }
        let entries = vec![BundleEntry { path: EntryPath::Text(path.to_owned()), kind }];
        let agent = liar(folder.path(), &BundleHeader { entries, unmatched: vec![] });
        let clone = folder.path().join("clones/clone");
        fs::create_dir_all(&clone).unwrap();
        let error = agent.fetch(&wanted(&["**"]), &clone, "").await.unwrap_err().render();
        assert!(error.contains("refused to "), "{path}: {error}");
        assert_eq!(tree(&folder.path().join("clones")).len(), 0, "{path}");
    }
}

/// The links of a checkpoint lead to its own files, or nothing of it is written.
#[tokio::test]
async fn a_machine_that_lies_in_a_checkpoint_leads_nothing_outside() {
    let folder = tempfile::tempdir().unwrap();
    let file = |path: &str| BundleEntry {
        path: EntryPath::Text(path.to_owned()),
        kind: EntryKind::File { bytes: 0, executable: false },
    };
    let link = |path: &str, target: &str| BundleEntry {
        path: EntryPath::Text(path.to_owned()),
        kind: EntryKind::Link { target: EntryPath::Text(target.to_owned()) },
    };
    for path in ["a/y", "l/y", "l/m/y"] {
        let path = folder.path().join("source").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    let cases = [
        (vec![file("a/y"), link("l", "/etc")], false),
        (vec![file("a/y"), link("l", "..")], false),
        (vec![file("a/y"), link("a/l", "../../..")], false),
        (vec![file("a/y"), link("a/l", "y/../../..")], false),
        (vec![file("a/y"), link("a/l", "../.git/config")], false),
        (vec![file("a/y"), link("a/l", "../secrets")], false),
        (vec![file("a/y"), link("l", "a"), link("a/n", "../l/y")], false),
        (vec![link("l", "a"), file("a/y"), file("l/y")], false),
        (vec![link("l/m", "../a"), file("a/y"), file("l/m/y")], false),
        (vec![file("a/y"), link("l", "a"), link("m", "l"), link("a/up", ".."), link("a/n", "../m")], true),
    ];
    for (entries, is_honest) in cases {
        let agent = liar(folder.path(), &BundleHeader { entries: entries.clone(), unmatched: vec![] });
        let place = folder.path().join("pipe/partial");
        fs::create_dir_all(&place).unwrap();
        let fetched = agent
            .fetch_checkpoint(1, &["**".to_owned()], HeldFiles::default(), &place)
            .await
            .map_err(|error| error.render());
        assert_eq!(fetched.is_ok(), is_honest, "{entries:?}: {fetched:?}");
        let arrived = tree(&folder.path().join("pipe"));
        assert_eq!(arrived.len(), if is_honest { entries.len() } else { 0 }, "{entries:?}: {arrived:?}");
        assert!(is_honest || fetched.unwrap_err().contains("refused to "), "{entries:?}");
        fs::remove_dir_all(place).unwrap();
    }
}
