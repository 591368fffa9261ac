//! A clone with several DVC repositories in it, as `dvc init --subdir` makes them.

use super::oracle::{Oracle, venv};
use crate::support::{Access, Scene};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use trainspot_dvc::{Remotes, Tracking, track, write};

fn config(store: &Path) -> String {
    format!("[core]\n    remote = st\n['remote \"st\"']\n    url = {}\n", store.display())
}

/// Two repositories, each with a remote of its own.
fn scene(cv: &Path, nlp: &Path) -> Scene {
    let (cv, nlp) = (config(cv), config(nlp));
    let files = [
        ("cv/.dvc/config", cv.as_str()),
        ("cv/.dvc/.gitignore", "/config.local\n/tmp\n/cache\n"),
        ("cv/.dvcignore", "*.tmp\n"),
        ("nlp/.dvc/config", nlp.as_str()),
        ("nlp/.dvc/.gitignore", "/config.local\n/tmp\n/cache\n"),
        ("nlp/dvc.yaml", "stages:\n  train:\n    cmd: echo nlp > stage.bin\n    outs: [stage.bin]\n"),
        (".gitignore", "/cv/ignored/\n"),
    ];
    Scene::new(Access::Token, &files)
}

fn count(store: &Path) -> usize {
    walkdir::WalkDir::new(store).into_iter().flatten().filter(|entry| entry.file_type().is_file()).count()
}

#[test]
fn each_output_belongs_to_the_nearest_repository_above_it() {
    let [cv, nlp] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let mut scene = scene(cv.path(), nlp.path());
    let train =
        "mkdir -p cv/model nlp; echo cv > cv/model/m.bin; echo x > cv/model/x.tmp; echo nlp > nlp/n.bin";
    scene.set("TRAIN_COMMAND", train).set("DVC_OUTPUTS", "cv/model, nlp/n.bin").run().expect(0);
    let branch = scene.branch();
    let changed = scene.remote.git(&["diff", "--name-only", "main", &branch]);
    assert_eq!(
        changed.lines().collect::<Vec<_>>(),
        ["cv/.gitignore", "cv/model.dvc", "nlp/.gitignore", "nlp/n.bin.dvc"]
    );
    let pointer = String::from_utf8(scene.remote.file(&branch, "cv/model.dvc").unwrap()).unwrap();
    assert!(pointer.contains("nfiles: 1\n") && pointer.contains("path: model\n"), "{pointer}");
    assert_eq!((count(cv.path()), count(nlp.path())), (2, 1));
    pulls(&scene, &[("cv", "cv/model/m.bin", "cv\n"), ("nlp", "nlp/n.bin", "nlp\n")]);

    // A name means each repository's own remote, an address one for all.
    scene.set("DVC_REMOTE", "nowhere");
    let run = scene.run().expect(2);
    assert!(run.out.contains("there is no DVC remote 'nowhere'"), "{}", run.out);
    let all = tempfile::tempdir().unwrap();
    scene.set("DVC_REMOTE", all.path().to_str().unwrap()).run().expect(0);
    assert_eq!(count(all.path()), 3);
    scene.assert_nothing_left();
}

#[test]
fn what_is_wrong_in_one_repository_is_said_before_the_training() {
    let [cv, nlp] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    for (outputs, words) in [
        ("cv/model, cv/model/m.bin", "'cv/model/m.bin' is in 'cv/model'"),
        ("nlp/stage.bin", "in the DVC repository 'nlp': 'stage.bin' is an output of a stage in 'dvc.yaml'"),
        ("cv/x.tmp", "in the DVC repository 'cv': 'x.tmp' is ignored by DVC"),
        ("cv/ignored/m.bin", "git ignores 'cv/ignored/m.bin.dvc'"),
        ("cv/.dvcignore", "'.dvcignore' is tracked by git"),
        // The clone itself has no remote.
        ("top.bin", "no DVC remote is chosen"),
    ] {
        let mut scene = scene(cv.path(), nlp.path());
        let run = scene.set("TRAIN_COMMAND", "echo fitting").set("DVC_OUTPUTS", outputs).run().expect(2);
        assert!(run.out.contains(words), "{outputs}: {}", run.out);
        assert!(!run.out.contains("fitting"), "{outputs}: {}", run.out);
    }
}

#[test]
fn a_push_takes_what_every_repository_made() {
    let bin = match venv() {
        Ok(bin) => bin,
        Err(reason) => return skip::skip(&reason),
    };
    let [cv, nlp] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let mut scene = scene(cv.path(), nlp.path());
    let home = scene.folder.path().join("home");
    fs::create_dir(&home).unwrap();
    scene.set("PATH", &format!("{bin}:{}", std::env::var("PATH").unwrap()));
    scene.set("HOME", home.to_str().unwrap()).set("DVC_PUSH", "true");
    scene.set("TRAIN_ENV", &format!("DVC_NO_ANALYTICS=1,DVC_SITE_CACHE_DIR={}", home.display()));
    let train = "(cd nlp && dvc repro -q); echo cv > cv/data.csv; (cd cv && dvc add -q data.csv)";
    scene.set("TRAIN_COMMAND", train).set("OUTPUTS", "nlp/dvc.lock, cv/*.dvc, **/.gitignore").run().expect(0);
    assert_eq!((count(cv.path()), count(nlp.path())), (1, 1));
    pulls(&scene, &[("cv", "cv/data.csv", "cv\n"), ("nlp", "nlp/stage.bin", "nlp\n")]);
}

/// A teammate's `dvc pull` in each repository, with the real one.
fn pulls(scene: &Scene, wanted: &[(&str, &str, &str)]) {
    let bin = match venv() {
        Ok(bin) => bin,
        Err(reason) => return skip::skip(&reason),
    };
    let folder = tempfile::tempdir().unwrap();
    let clone = folder.path().join("clone");
    let run = |command: &mut Command| {
        let output = command.env("HOME", folder.path()).env("DVC_NO_ANALYTICS", "1").output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    };
    let clone_it = ["clone", "--quiet", "--branch", &scene.branch()];
    run(Command::new("git").args(clone_it).arg(scene.remote.path()).arg(&clone));
    for (repository, path, content) in wanted {
        let mut dvc = Command::new(format!("{bin}/dvc"));
        let within = path.strip_prefix(&format!("{repository}/")).unwrap();
        dvc.args(["pull", within]).current_dir(clone.join(repository));
        run(dvc.env("DVC_SITE_CACHE_DIR", folder.path().join("site")));
        assert_eq!(fs::read_to_string(clone.join(path)).unwrap(), *content);
    }
}

/// What `dvc add` writes in a repository that is a folder of the clone, whose `.gitignore` files are those of
/// the clone.
#[test]
fn the_files_are_those_of_dvc_add() {
    let mut oracle = match Oracle::start() {
        Ok(oracle) => oracle,
        Err(reason) => return skip::skip(&reason),
    };
    for (number, rules) in [
        &[][..],
        &[(".gitignore", "/cv/m.bin\n")],
        &[(".gitignore", "*.bin\n")],
        &[("cv/.gitignore", "m.*\n!*.dvc\n")],
    ]
    .iter()
    .enumerate()
    {
        let folder = tempfile::tempdir().unwrap();
        let [theirs, ours] = ["theirs", "ours"].map(|name| folder.path().join(name));
        for root in [&theirs, &ours] {
            oracle.ask("init", json!({"root": root, "folder": "cv"})).unwrap();
            rules.iter().for_each(|(path, text)| fs::write(root.join(path), text).unwrap());
            fs::create_dir_all(root.join("cv/data/deep")).unwrap();
            for path in ["cv/m.bin", "cv/data/deep/one", "cv/data/two"] {
                fs::write(root.join(path), path).unwrap();
            }
        }
        oracle.ask("add", json!({"root": theirs.join("cv"), "targets": ["m.bin", "data"]})).unwrap();
        let remotes = Remotes::load(&ours.join("cv"), Some("/srv/store"), BTreeMap::new()).unwrap();
        let outputs = ["m.bin", "data"].map(str::to_owned);
        let tracking = Tracking {
            root: &ours,
            folder: Path::new("cv"),
            outputs: &outputs,
            in_git: &|_| None,
            remotes: &remotes,
        };
        write(&ours, &track(&tracking).unwrap().changes).unwrap();
        let files = |root: &Path| -> BTreeMap<_, _> {
            let walk = walkdir::WalkDir::new(root).into_iter().flatten();
            let files = walk.filter(|entry| entry.file_type().is_file());
            let named = files.map(|entry| entry.path().strip_prefix(root).unwrap().to_owned());
            let ours = |path: &std::path::PathBuf| !path.starts_with(".git") && !path.starts_with("cv/.dvc");
            named
                .filter(ours)
                .map(|path| (path.clone(), fs::read_to_string(root.join(path)).unwrap()))
                .collect()
        };
        assert_eq!(files(&ours), files(&theirs), "rules {number}");
    }
}
