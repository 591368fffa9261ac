//! A run that pushes what DVC itself recorded on the machine: what is sent, what need not be, and what comes
//! home when that fails.

use crate::support::{Access, Scene};
use std::path::Path;

const CONFIG: &str = "[core]\n    remote = store\n['remote \"store\"']\n    url = ../../store\n";
const PIPELINE: &str = "stages:\n  train:\n    cmd: x\n    outs:\n    - model/m.bin\n";

/// Shell commands that leave what `dvc repro` leaves of a stage `train` that writes this text to this path: a
/// lock and an object in the cache. The workspace's file is gone, so that only the cache has it.
pub(super) fn record(path: &str, text: &str) -> String {
    let oid = trainspot_dvc::Md5::of(text.as_bytes());
    let key = oid.key();
    let folder = oid.folder();
    let size = text.len();
    format!(
        "mkdir -p .dvc/cache/{folder} && printf '{text}' > .dvc/cache/{key} && \
        printf \"schema: '2.0'\\nstages:\\n  train:\\n    cmd: x\\n    outs:\\n    - path: {path}\\n      hash: md5\\n      md5: {oid}\\n      size: {size}\\n\" > dvc.lock"
    )
}

fn scene(files: &[(&str, &str)]) -> Scene {
    let files = [&[(".dvc/config", CONFIG), ("dvc.yaml", PIPELINE)], files].concat();
    let mut scene = Scene::new(Access::Token, &files);
    scene
        .set("TRAIN_COMMAND", &record("model/m.bin", "weights"))
        .set("DVC_PUSH", "true")
        .set("OUTPUTS", "dvc.lock");
    scene
}

fn text(scene: &Scene, path: &str) -> String {
    std::fs::read_to_string(scene.clone().join(path)).unwrap_or_default()
}

/// A remote in which nothing can be written.
fn block(scene: &Scene) {
    std::fs::write(scene.folder.path().join("store"), "a file, no folder").unwrap();
}

/// An object that is in the scene's remote.
fn put(scene: &Scene, text: &str, legacy: bool) -> String {
    let oid = trainspot_dvc::Md5::of(text.as_bytes());
    let oid = if legacy { oid.of_dvc_2() } else { oid };
    let path = scene.folder.path().join("store").join(oid.key());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    oid.to_string()
}

#[test]
fn a_push_that_fails_brings_the_cache_s_outputs_home() {
    let scene = scene(&[]);
    block(&scene);
    let run = scene.run().expect(5);
    assert!(
        run.out.contains("Still there: 2 files that DVC was to keep, in the clone; nothing was committed"),
        "{}",
        run.out
    );
    assert_eq!(text(&scene, "model/m.bin"), "weights");
    assert!(text(&scene, "dvc.lock").contains("model/m.bin"));
    assert_eq!(scene.remote.head(&scene.branch()), None);
    scene.assert_nothing_left();
}

/// One voice: the agent's words are told as the pipe's own, and name no variable that is not set.
#[test]
fn an_agent_s_words_are_the_pipe_s() {
    let scene = scene(&[]);
    block(&scene);
    let run = scene.run().expect(5);
    let last: Vec<_> = run.out.lines().skip_while(|line| !line.contains("✖")).collect();
    let said = last.join("\n");
    assert!(
        said.contains("✖ cannot keep the outputs in DVC's remote: cannot push to the remote 'store' ("),
        "{said}"
    );
    assert!(!said.contains("ERROR") && !said.contains("DVC_OUTPUTS"), "{said}");
    let places = ["✖", "Still there: ", "Next: "]
        .map(|word| last.iter().rposition(|line| line.contains(word)).unwrap());
    assert!(places.is_sorted() && last.len() == 3, "{said}");
}

/// A folder's files, a file that the training added, and one that was pulled.
#[test]
fn what_is_rescued_is_what_the_training_made() {
    let object = |text: &str| trainspot_dvc::Md5::of(text.as_bytes());
    let list = format!("[{{\"md5\": \"{}\", \"relpath\": \"deep/a\"}}]", object("one"));
    let listed = format!("{}.dir", object(&list));
    let pulled = format!("outs:\n- md5: {}\n  size: 4\n  hash: md5\n  path: data.csv\n", object("data"));
    let mut scene = scene(&[("data.csv.dvc", &pulled)]);
    block(&scene);
    let keep = |oid: &str, text: &str| {
        format!(
            "mkdir -p .dvc/cache/files/md5/{0} && printf '%s' '{text}' > .dvc/cache/files/md5/{0}/{1}",
            &oid[..2],
            &oid[2..]
        )
    };
    let added = |oid: &str, path: &str| {
        format!("printf 'outs:\\n- md5: {oid}\\n  hash: md5\\n  path: {path}\\n' > {path}.dvc")
    };
    let train = [
        record("model/m.bin", "weights"),
        keep(&object("data").to_string(), "data"),
        keep(&object("one").to_string(), "one"),
        keep(&listed, &list),
        added(&listed, "folder"),
        keep(&object("extra").to_string(), "extra"),
        added(&object("extra").to_string(), "extra.bin"),
        "printf tracked > tracked.bin".to_owned(),
        // What DVC could not even read must not cost the rest.
        "printf 'outs: [' > broken.dvc".to_owned(),
    ];
    scene.set("TRAIN_COMMAND", &train.join(" && ")).set("DVC_OUTPUTS", "tracked.bin");
    let run = scene.run().expect(5);
    assert!(run.out.contains("cannot read 'broken.dvc'"), "{}", run.out);
    assert!(run.out.contains("Still there: 7 files that DVC was to keep"), "{}", run.out);
    for (path, wanted) in [
        ("model/m.bin", "weights"),
        ("folder/deep/a", "one"),
        ("extra.bin", "extra"),
        ("tracked.bin", "tracked"),
        ("data.csv", ""),
    ] {
        assert_eq!(text(&scene, path), wanted, "{path}");
    }
    assert!(
        text(&scene, "folder.dvc").contains(".dir") && text(&scene, "extra.bin.dvc").contains("extra.bin")
    );
}

#[test]
fn what_dvc_keeps_is_rescued_when_another_output_is_missing() {
    let mut scene = scene(&[]);
    scene.set("OUTPUTS", "dvc.lock, metrics.json").set("DVC_OUTPUTS", "tracked.bin");
    scene.set(
        "TRAIN_COMMAND",
        &format!("{} && printf tracked > tracked.bin", record("model/m.bin", "weights")),
    );
    let run = scene.run().expect(4);
    assert!(
        run.out.contains("'metrics.json'") && run.out.contains("3 files that DVC was to keep"),
        "{}",
        run.out
    );
    assert_eq!(text(&scene, "model/m.bin") + &text(&scene, "tracked.bin"), "weightstracked");
}

/// `dvc repro --allow-missing`: a stage that did not run, whose object the remote has; an untouched file of
/// DVC 2; an import.
#[test]
fn what_the_remote_has_need_not_be_on_the_machine() {
    let scene_of = |with_objects: bool| {
        let other = trainspot_dvc::Md5::of(b"prepared");
        let old = format!("outs:\n- md5: {}\n  size: 3\n  path: old.csv\n", trainspot_dvc::Md5::of(b"old"));
        let import = format!(
            "deps:\n- path: x\n  repo:\n    url: https://h/r.git\nouts:\n- md5: {other}\n  hash: md5\n  path: imported\n"
        );
        let pipeline = format!("{PIPELINE}  prepare:\n    cmd: x\n    outs:\n    - prepared\n");
        let files = [("old.csv.dvc", old.as_str()), ("imported.dvc", &import), ("dvc.yaml", &pipeline)];
        let mut scene = scene(&files);
        let add = format!(
            "printf '  prepare:\\n    cmd: x\\n    outs:\\n    - path: prepared\\n      hash: md5\\n      md5: {other}\\n' >> dvc.lock"
        );
        scene.set("TRAIN_COMMAND", &format!("{} && {add}", record("model/m.bin", "weights")));
        if with_objects {
            put(&scene, "prepared", false);
            put(&scene, "old", true);
        }
        scene
    };
    let scene = scene_of(true);
    let run = scene.run().expect(0);
    assert!(run.log.contains("sent 1 object (7 B)") && run.log.contains("2 were there"), "{}", run.log);
    assert!(!run.log.contains("WARNING"), "{}", run.log);
    // What nobody has is an error with its name, if a stage made it; and all that was made comes home.
    let scene = scene_of(false);
    let run = scene.run().expect(5);
    assert!(
        run.out.contains("'prepared': neither in DVC's cache on this machine nor in the remote"),
        "{}",
        run.out
    );
    assert!(!run.out.contains("old.csv"), "{}", run.out);
    assert_eq!(text(&scene, "model/m.bin"), "weights");
    // What the clone named before was not made here.
    put(&scene, "prepared", false);
    let run = scene.run().expect(0);
    assert!(
        run.log.contains("'old.csv' was not made here, and is neither on this machine nor in its remote"),
        "{}",
        run.log
    );
}

/// DVC looks at nothing that git ignores.
#[test]
fn a_broken_file_in_an_ignored_folder_is_not_read() {
    let make = "mkdir -p .venv/lib/templates && printf 'stages: [' > .venv/lib/templates/dvc.yaml && printf 'outs: [' > .venv/x.dvc";
    let mut scene = scene(&[(".gitignore", ".venv/\n/model/m.bin\n")]);
    scene.set(
        "TRAIN_COMMAND",
        &format!("{make} && {}; printf tracked > tracked.bin", record("model/m.bin", "weights")),
    );
    scene.set("DVC_OUTPUTS", "tracked.bin");
    scene.run().expect(0);
    assert!(scene.remote.file(&scene.branch(), "tracked.bin.dvc").is_some());
    // A folder that ignores itself, as Python makes them since 3.13.
    scene.set(
        "TRAIN_COMMAND",
        &format!(
            "mkdir -p env && printf '*' > env/.gitignore && printf 'outs: [' > env/x.dvc && {}",
            record("model/m.bin", "more")
        ),
    );
    // Other outputs make it another step, whose result of the same file is kept apart.
    scene.set("DVC_OUTPUTS", "").set("BRANCH", "again");
    scene.run().expect(0);
}

/// What is broken in the clone already is said before the training.
#[test]
fn what_stops_every_dvc_command_is_said_before_the_training() {
    let lock = "schema: '2.0'\nstages: {}\n";
    let cases: [(&[(&str, &str)], &str); 6] = [
        (&[("sub/dvc.yaml", "stages: [")], "cannot read 'sub/dvc.yaml'"),
        (&[("x.dvc", "outs: [")], "cannot read 'x.dvc'"),
        (&[("dvc.lock", "stages: [")], "dvc.lock cannot be read"),
        (&[("dvc.yaml", "stages:\n  s:\n    outs: [a]\n")], "the stage 's' of dvc.yaml has no cmd"),
        (&[(".dvc/config", "[core]\n    remote = nobody\n")], "there is no DVC remote 'nobody'"),
        (&[("dvc.lock", lock), (".gitignore", "*.lock\n")], "git ignores 'dvc.lock'"),
    ];
    for (files, words) in cases {
        let scene = scene(files);
        let run = scene.run().expect(2);
        assert!(run.out.contains(words), "{words}: {}", run.out);
        assert!(!run.log.contains("training started"), "{}", run.log);
    }
}

/// The real `dvc repro` in the training, from a clone to a teammate's pull.
#[test]
fn the_real_dvc_reproduces_and_its_outputs_are_pulled() {
    let bin = match super::oracle::venv() {
        Ok(bin) => bin,
        Err(reason) => return skip::skip(&reason),
    };
    let pipeline = "stages:\n  train:\n    cmd: mkdir -p model && printf weights > model/m.bin\n    outs:\n    - model/m.bin\n";
    let mut scene = Scene::new(
        Access::Token,
        &[
            (".dvc/config", CONFIG),
            ("dvc.yaml", pipeline),
            (".dvc/.gitignore", "/config.local\n/tmp\n/cache\n"),
        ],
    );
    let train = format!("export DVC_NO_ANALYTICS=1; test -e .git || git init -q; {bin}/dvc repro -q");
    scene.set("TRAIN_COMMAND", &train).set("DVC_PUSH", "true").set("OUTPUTS", "dvc.lock");
    scene.set("HOME", scene.scratch().join("home").to_str().unwrap());
    block(&scene);
    let run = scene.run().expect(5);
    assert!(run.out.contains("Still there: 2 files that DVC was to keep"), "{}", run.out);
    assert_eq!(text(&scene, "model/m.bin"), "weights");
    std::fs::remove_file(scene.folder.path().join("store")).unwrap();
    let run = scene.run().expect(0);
    assert!(run.log.contains("sent 1 object (7 B)"), "{}", run.log);
    assert!(
        Path::new(&scene.folder.path().join("store")).join(trainspot_dvc::Md5::of(b"weights").key()).exists()
    );
}
