//! Trainings that run the real DVC on the machine.

use super::oracle::venv;
use crate::support::{Access, Scene};
use std::path::Path;

const PIPELINE: &str = "stages:\n  train:\n    cmd: cp data.csv m.bin && echo '{\"a\":1}' > metrics.json\n    \
    deps: [data.csv]\n    params: [lr]\n    outs: [m.bin]\n    metrics:\n    - metrics.json: {cache: false}\n";

/// A repository with a pipeline, whose data is in the remote `store`; none without DVC.
fn scene(store: &Path) -> Option<Scene> {
    let bin = match venv() {
        Ok(bin) => bin,
        Err(reason) => {
            skip::skip(&reason);
            return None;
        }
    };
    let object = trainspot_dvc::Md5::of(b"data\n");
    std::fs::create_dir_all(store.join(object.folder())).unwrap();
    std::fs::write(store.join(object.key()), "data\n").unwrap();
    let pointer = format!("outs:\n- md5: {object}\n  size: 5\n  hash: md5\n  path: data.csv\n");
    let config = format!("[core]\n    remote = st\n['remote \"st\"']\n    url = {}\n", store.display());
    let files = [
        (".dvc/config", config.as_str()),
        (".dvc/.gitignore", "/config.local\n/tmp\n/cache\n"),
        (".gitignore", "/data.csv\n/m.bin\n"),
        ("data.csv.dvc", &pointer),
        ("dvc.yaml", PIPELINE),
        ("params.yaml", "lr: 1\n"),
        ("train.py", "print(1)\n"),
    ];
    let mut scene = Scene::new(Access::Token, &files);
    let home = scene.folder.path().join("home");
    std::fs::create_dir(&home).unwrap();
    scene.set("PATH", &format!("{bin}:{}", std::env::var("PATH").unwrap()));
    scene.set("HOME", home.to_str().unwrap());
    scene.set("TRAIN_ENV", &format!("DVC_NO_ANALYTICS=1,DVC_SITE_CACHE_DIR={}", home.display()));
    Some(scene)
}

/// The commands that the documents recommend, in a clone whose data was pulled before and in one where it was
/// not.
#[test]
fn the_machine_runs_repro_and_pull() {
    let store = tempfile::tempdir().unwrap();
    let Some(mut scene) = scene(store.path()) else { return };
    scene.set("TRAIN_COMMAND", "dvc repro --pull").set("OUTPUTS", "dvc.lock, metrics.json");
    let run = scene.set("DVC_PUSH", "true").run().expect(0);
    assert!(run.out.contains("Running stage 'train'"), "{}", run.out);
    let lock = scene.remote.file(&scene.branch(), "dvc.lock").unwrap();
    let object = trainspot_dvc::Md5::of(b"data\n");
    assert!(String::from_utf8(lock).unwrap().contains(&object.to_string()));

    scene
        .set("TRAIN_COMMAND", "dvc pull data.csv && cp data.csv metrics.json")
        .set("OUTPUTS", "metrics.json");
    // Other outputs make it another step, whose result of the same file is kept apart.
    scene.set("DVC_PUSH", "false").set("BRANCH", "pulled").run().expect(0);
    assert_eq!(scene.remote.file("pulled", "metrics.json").unwrap(), b"data\n");
    scene.assert_nothing_left();
}

/// No command of DVC's that a training may run fails for want of git, and git itself answers.
#[test]
fn the_machine_runs_what_else_dvc_and_git_can_do() {
    let store = tempfile::tempdir().unwrap();
    let Some(mut scene) = scene(store.path()) else { return };
    let commands = [
        "set -x",
        "test \"$(git rev-parse HEAD)\" = \"$COMMIT\"",
        "test \"$(git rev-list --all --count)\" = 1",
        "git init -q",
        "dvc pull -q data.csv",
        "dvc repro -q",
        "dvc status",
        "echo new > new.txt",
        "dvc add new.txt",
        "dvc config core.autostage true",
        "echo newer > new.txt",
        "dvc add new.txt",
        "git diff --cached --name-only | grep new.txt.dvc",
        "dvc commit -f",
        "dvc push",
        "dvc metrics diff",
        "dvc params diff",
        "dvc exp run -f -S lr=2",
        "dvc exp show --csv | tee report.csv",
        "dvc gc -w -f",
    ];
    let commit = scene.remote.head("main").unwrap();
    scene.set("TRAIN_COMMAND", &commands.join("\n")).set("OUTPUTS", "report.csv, dvc.lock");
    let home = scene.folder.path().join("home").display().to_string();
    let variables = format!("DVC_NO_ANALYTICS=1,DVC_SITE_CACHE_DIR={home},COMMIT={commit}");
    let run = scene.set("TRAIN_ENV", &variables).run().expect(0);
    let changed = scene.remote.git(&["diff", "--name-only", "main", &scene.branch()]);
    assert_eq!(changed.lines().collect::<Vec<_>>(), ["dvc.lock", "report.csv"], "{}", run.out);
    // Nothing of the machine's repository came home.
    assert_eq!(scene.git(&["rev-parse", "HEAD"]).trim(), commit);
    assert_eq!(scene.git(&["for-each-ref", "refs/exps"]), "");
}

/// Data that `dvc pull` made links into its cache of, as with `cache.type symlink`, arrive as data.
#[test]
fn links_into_the_cache_arrive_as_data() {
    let store = tempfile::tempdir().unwrap();
    let Some(mut scene) = scene(store.path()) else { return };
    let (bin, home) = (venv().unwrap(), scene.folder.path().join("home"));
    for arguments in [&["config", "--local", "cache.type", "symlink"][..], &["pull", "data.csv"]] {
        let mut dvc = std::process::Command::new(format!("{bin}/dvc"));
        dvc.args(arguments).current_dir(scene.clone()).env("HOME", &home).env("DVC_NO_ANALYTICS", "1");
        assert!(dvc.env("DVC_SITE_CACHE_DIR", &home).output().unwrap().status.success(), "{arguments:?}");
    }
    let data = scene.clone().join("data.csv");
    assert!(data.read_link().unwrap().is_absolute());
    let train = "test ! -L data.csv; cp data.csv copy.csv";
    scene.set("TRAIN_COMMAND", train).set("INCLUDE", "data.csv").set("OUTPUTS", "copy.csv").run().expect(0);
    assert_eq!(scene.remote.file(&scene.branch(), "copy.csv").unwrap(), b"data\n");
}
