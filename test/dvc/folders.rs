//! Remotes that are folders, from the step's environment to where the objects are afterwards.

use crate::support::{Access, Scene};
use std::path::PathBuf;

type Pairs<'a> = &'a [(&'a str, &'a str)];

const TRAIN: &str = "printf weights > m.bin";

/// The object of `weights`.
fn key() -> String {
    trainspot_dvc::Md5::of(b"weights").key()
}

fn scene(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Scene {
    let mut scene = Scene::new(Access::Token, files);
    scene.set("TRAIN_COMMAND", TRAIN).set("DVC_OUTPUTS", "m.bin");
    for (name, value) in variables {
        scene.set(name, value);
    }
    scene
}

/// The one object below the scene's folder, outside of the clone's own cache.
fn objects(scene: &Scene) -> Vec<PathBuf> {
    let all = walkdir::WalkDir::new(scene.folder.path()).into_iter().flatten();
    let all = all.filter(|entry| entry.path().ends_with(key()));
    all.map(|entry| entry.path().to_owned()).collect()
}

/// A folder is what it is to a DVC in the clone, wherever the local machine is.
#[test]
fn a_folder_is_the_one_that_dvc_in_the_clone_means() {
    let remote = |url: &str| format!("[core]\n    remote = store\n['remote \"store\"']\n    url = {url}\n");
    let chain = "[core]\n    remote = sub\n['remote \"base\"']\n    url = ../../store\n['remote \"sub\"']\n    url = remote://base/deep\n";
    let (relative, plain) = (remote("../../store"), remote("../inside"));
    let pointer =
        format!("outs:\n- md5: {}\n  size: 1\n  hash: md5\n  path: m.bin\n  remote: own\n", "a".repeat(32));
    let own = relative.clone() + "['remote \"own\"']\n    url = ../../own\n";
    let cases: [(Pairs, Pairs, &str); 7] = [
        (&[], &[("DVC_REMOTE", "../store")], "store"),
        (&[], &[("DVC_REMOTE", "./inside")], "build/inside"),
        (&[(".dvc/config", &relative)], &[], "store"),
        (&[(".dvc/config", &plain)], &[], "build/inside"),
        (&[(".dvc/config", &relative)], &[("DVC_REMOTE", "store")], "store"),
        (&[(".dvc/config", chain)], &[], "store/deep"),
        (&[(".dvc/config", &own), ("m.bin.dvc", &pointer)], &[("DVC_REMOTE", "../other")], "own"),
    ];
    for (files, variables, place) in cases {
        let scene = scene(files, variables);
        scene.run().expect(0);
        let wanted = scene.folder.path().join(place).join(key());
        assert_eq!(
            std::fs::read_to_string(&wanted).unwrap_or_default(),
            "weights",
            "{files:?} {variables:?}"
        );
        assert_eq!(objects(&scene), [wanted], "{files:?} {variables:?}");
        scene.assert_nothing_left();
    }
}

#[test]
fn an_address_that_is_a_file_s_is_its_path() {
    let mut scene = scene(&[], &[]);
    let store = scene.folder.path().join("store");
    scene.set("DVC_REMOTE", &format!("file://{}", store.display()));
    scene.run().expect(0);
    assert!(store.join(key()).exists());
    // Not as DVC would take it: for a folder that is called `file:`.
    let config = scene.remote.file(&scene.branch(), ".dvc/config").unwrap();
    assert!(String::from_utf8(config).unwrap().contains(&format!("url = {}\n", store.display())));
}

/// What a developer keeps in `.dvc/config.local` counts in the clone, and so on a machine that is a copy of
/// it.
#[test]
fn config_local_of_the_clone_counts_on_the_machine() {
    let config = "[core]\n    remote = store\n['remote \"store\"']\n    url = ../../nobody\n";
    let scene = scene(&[(".dvc/config", config), (".dvc/.gitignore", "/config.local\n")], &[]);
    let local = "['remote \"store\"']\n    url = ../../mine\n";
    std::fs::write(scene.clone().join(".dvc/config.local"), local).unwrap();
    scene.run().expect(0);
    assert_eq!(objects(&scene), [scene.folder.path().join("mine").join(key())]);
}

#[test]
fn dvc_push_sends_to_the_folder_that_the_clone_means() {
    let config = "[core]\n    remote = store\n['remote \"store\"']\n    url = ../../store\n";
    let pipeline = "stages:\n  train:\n    cmd: x\n    outs:\n    - m.bin\n";
    let mut scene = scene(&[(".dvc/config", config), ("dvc.yaml", pipeline)], &[]);
    let train = super::rescues::record("m.bin", "weights");
    scene
        .set("TRAIN_COMMAND", &train)
        .set("DVC_OUTPUTS", "")
        .set("DVC_PUSH", "true")
        .set("OUTPUTS", "dvc.lock");
    scene.run().expect(0);
    assert!(scene.folder.path().join("store").join(key()).exists());
    assert!(scene.remote.file(&scene.branch(), "dvc.lock").is_some());
}

/// A folder of a rented machine goes with it. Nothing is asked of AWS before that is said.
#[test]
fn a_rented_machine_is_refused_a_folder_before_anything_is_rented() {
    let relative = "[core]\n    remote = store\n['remote \"store\"']\n    url = ../../store\n";
    let stage = "stages:\n  s:\n    cmd: x\n    outs:\n    - m.bin:\n        remote: store\n";
    let rented = [("CLOUD", "aws"), ("AWS_DEFAULT_REGION", "eu-west-1"), ("INSTANCE_TYPE", "m5.large")];
    let cases: [(Pairs, Pairs, &str); 5] = [
        (&[], &[("DVC_REMOTE", "../store")], "the DVC remote is the folder '../store'"),
        (&[], &[("DVC_REMOTE", "/srv/store")], "the DVC remote is the folder '/srv/store'"),
        (&[], &[("DVC_REMOTE", "file:///srv/store")], "the DVC remote is the folder '/srv/store'"),
        (&[(".dvc/config", relative)], &[], "the DVC remote 'store' is the folder '../../store'"),
        (
            &[(".dvc/config", relative), ("dvc.yaml", stage)],
            &[("DVC_PUSH", "true"), ("DVC_OUTPUTS", ""), ("OUTPUTS", "dvc.lock"), ("DVC_REMOTE", "s3://b")],
            "the DVC remote 'store' is the folder '../../store'",
        ),
    ];
    for (files, variables, words) in cases {
        let mut scene = scene(files, &rented);
        for (name, value) in variables {
            scene.set(name, value);
        }
        let run = scene.run().expect(2);
        assert!(run.out.contains(words), "{}", run.out);
        assert!(run.out.contains("on the rented machine and go with it"), "{}", run.out);
        assert!(run.out.contains("set DVC_REMOTE to a remote that the machine reaches"), "{}", run.out);
    }
}
