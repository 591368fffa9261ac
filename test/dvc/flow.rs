//! A whole run whose outputs DVC keeps, from the step's environment to what a teammate pulls.

use crate::support::{Access, Scene};
use std::path::{Path, PathBuf};
use std::process::Command;

const TRAIN: &str = "mkdir -p model data; printf weights > model/m.bin; echo 1 > data/one; echo 2 > data/two; \
    echo '{\"accuracy\": 0.91}' > model/metrics.json";

fn scene(remote: &Path) -> Scene {
    let mut scene = Scene::new(Access::Token, &[("train.sh", "echo hi\n")]);
    scene.set("TRAIN_COMMAND", TRAIN).set("OUTPUTS", "model/*.json").set("DVC_OUTPUTS", "model/m.bin, data/");
    scene.set("DVC_REMOTE", remote.to_str().unwrap());
    scene
}

/// The objects of a remote that is a folder: names relative to it.
fn objects(remote: &Path) -> Vec<PathBuf> {
    let files = walkdir::WalkDir::new(remote).sort_by_file_name().into_iter().filter_map(Result::ok);
    let files = files.filter(|entry| entry.file_type().is_file());
    files.map(|entry| entry.path().strip_prefix(remote).unwrap().to_owned()).collect()
}

fn file(scene: &Scene, path: &str) -> String {
    String::from_utf8(scene.remote.file(&scene.branch(), path).unwrap_or_default()).unwrap()
}

#[test]
fn pointers_are_committed_and_their_objects_are_in_the_remote() {
    let remote = tempfile::tempdir().unwrap();
    let scene = scene(remote.path());
    let run = scene.run().expect(0);
    assert!(run.log.contains("DVC keeps model/m.bin (7 B) as "), "{}", run.log);
    assert!(run.log.contains("sent 4 objects"), "{}", run.log);
    let changed = scene.remote.git(&["diff", "--name-only", "main", &scene.branch()]);
    assert_eq!(
        changed.lines().collect::<Vec<_>>(),
        [
            ".dvc/.gitignore",
            ".dvc/config",
            ".dvcignore",
            ".gitignore",
            "data.dvc",
            "model/.gitignore",
            "model/m.bin.dvc",
            "model/metrics.json"
        ]
    );
    assert_eq!(
        file(&scene, "model/m.bin.dvc"),
        "outs:\n- md5: 20a8bd1bd1a24dbf5a98b0b1ac43ec23\n  size: 7\n  hash: md5\n  path: m.bin\n"
            .replace("20a8bd1bd1a24dbf5a98b0b1ac43ec23", &md5("weights"))
    );
    assert_eq!(objects(remote.path()).len(), 4);
    // Once more: nothing is sent, and nothing is new.
    let run = scene.run().expect(0);
    assert!(run.log.contains("sent 0 objects (0 B)") && run.log.contains("4 were there"), "{}", run.log);
    scene.assert_nothing_left();
    pulls(&scene, "model/m.bin", "weights");
}

fn md5(text: &str) -> String {
    trainspot_dvc::Md5::of(text.as_bytes()).to_string()
}

/// A teammate's `dvc pull`, with the real one.
fn pulls(scene: &Scene, path: &str, content: &str) {
    let bin = match super::oracle::venv() {
        Ok(bin) => bin,
        Err(reason) => return skip::skip(&reason),
    };
    let folder = tempfile::tempdir().unwrap();
    let clone = folder.path().join("clone");
    let run = |program: &str, arguments: &[&str], within: &Path| {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(within).env("HOME", folder.path()).env("DVC_NO_ANALYTICS", "1");
        let output =
            command.env("PATH", format!("{bin}:{}", std::env::var("PATH").unwrap())).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let branch = scene.branch();
    run(
        "git",
        &["clone", "-q", "-b", &branch, &scene.remote.path().display().to_string(), "clone"],
        folder.path(),
    );
    run(&format!("{bin}/dvc"), &["pull", "-q"], &clone);
    assert_eq!(std::fs::read_to_string(clone.join(path)).unwrap(), content);
    assert!(run(&format!("{bin}/dvc"), &["status", "-c"], &clone).contains("in sync"));
}

#[test]
fn outputs_that_were_left_in_the_clone_are_kept_too() {
    let remote = tempfile::tempdir().unwrap();
    let mut scene = scene(remote.path());
    scene.set("ACTION", "publish").set("OUTPUTS", "");
    std::fs::create_dir_all(scene.clone().join("model")).unwrap();
    std::fs::create_dir_all(scene.clone().join("data")).unwrap();
    std::fs::write(scene.clone().join("model/m.bin"), "weights").unwrap();
    std::fs::write(scene.clone().join("data/one"), "1").unwrap();
    scene.run().expect(0);
    assert_eq!(objects(remote.path()).len(), 3);
    assert!(file(&scene, "data.dvc").contains(".dir"));
}

/// A remote that takes nothing ends the run before anything is committed, and the outputs are not lost with
/// the machine.
#[test]
fn what_could_not_be_sent_is_brought_home_and_nothing_is_committed() {
    let folder = tempfile::tempdir().unwrap();
    let remote = folder.path().join("a-file");
    std::fs::write(&remote, "no folder").unwrap();
    let scene = scene(&remote);
    let run = scene.run().expect(5);
    assert!(
        run.out.contains("cannot keep the outputs in DVC's remote: cannot push to the remote"),
        "{}",
        run.out
    );
    assert!(run.out.contains("Still there: 3 files that DVC was to keep, in the clone"), "{}", run.out);
    assert_eq!(std::fs::read_to_string(scene.clone().join("model/m.bin")).unwrap(), "weights");
    assert_eq!(scene.remote.head(&scene.branch()), None);
    scene.assert_nothing_left();
}

#[test]
fn what_is_wrong_is_said_before_the_training() {
    let remote = tempfile::tempdir().unwrap();
    let cases = [
        ("DVC_OUTPUTS", "train.sh", "'train.sh' is tracked by git"),
        (
            "DVC_OUTPUTS",
            "train.sh/m.bin",
            "'train.sh/m.bin' is below 'train.sh', which git tracks as no folder",
        ),
        ("DVC_OUTPUTS", "linked/m.bin", "'linked/m.bin' is below 'linked', which git tracks as no folder"),
        ("DVC_OUTPUTS", "beside/m.bin", "'beside/m.bin' is behind the link 'beside'"),
        ("DVC_OUTPUTS", "ignored/m.bin", "git ignores 'ignored/m.bin.dvc'"),
        ("DVC_OUTPUTS", "scratch/m.bin", "'scratch/m.bin' is ignored by DVC"),
        ("DVC_OUTPUTS", "stage.bin", "'stage.bin' is an output of a stage in 'dvc.yaml'"),
        ("DVC_OUTPUTS", "stage.bin/x", "'stage.bin/x' is in 'stage.bin', which 'dvc.yaml' tracks"),
        ("DVC_OUTPUTS", "known/m.bin", "'known/m.bin' is in 'known', which 'known.dvc' tracks"),
        ("DVC_OUTPUTS", "flow.bin", "cannot update 'flow.bin.dvc'"),
        ("DVC_OUTPUTS", "data/x, data", "'data/x' is in 'data'"),
        ("DVC_OUTPUTS", "m.dvc", "'m.dvc' is a file of DVC's own"),
        ("DVC_OUTPUTS", "../m.bin", "'../m.bin'"),
        ("DVC_OUTPUTS", "model", "nothing is left for 'model/*.json' of OUTPUTS"),
        ("DVC_OUTPUTS", "far.bin", "there is no DVC remote 'away'"),
        ("DVC_REMOTE", "storage", "there is no DVC remote 'storage'"),
        ("DVC_REMOTE", "hdfs://host/path", "hdfs://"),
        ("DVC_OUTPUTS", "model/*.bin", "has the glob 'model/*.bin'"),
    ];
    let md5 = "a".repeat(32);
    let pointer = |path: &str, more: &str| {
        format!("outs:\n- md5: {md5}\n  size: 1\n  hash: md5\n  path: {path}\n{more}")
    };
    let files = [
        ("train.sh", "echo hi\n".to_owned()),
        (".gitignore", "/ignored/\n/beside\n".to_owned()),
        (".dvcignore", "/scratch\n".to_owned()),
        ("dvc.yaml", "stages:\n  s:\n    cmd: x\n    outs: [stage.bin]\n".to_owned()),
        ("known.dvc", pointer("known", "")),
        ("far.bin.dvc", pointer("far.bin", "  remote: away\n")),
        ("flow.bin.dvc", format!("outs: [{{md5: {md5}, hash: md5, path: flow.bin}}]\n")),
    ];
    let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    for action in ["train", "publish"] {
        let mut scene = Scene::new(Access::Token, &files);
        std::os::unix::fs::symlink("model", scene.clone().join("linked")).unwrap();
        scene.git(&["add", "linked"]);
        std::os::unix::fs::symlink("model", scene.clone().join("beside")).unwrap();
        scene.set("ACTION", action).set("OUTPUTS", "model/*.json");
        if action == "train" {
            scene.set("TRAIN_COMMAND", TRAIN);
        }
        for (name, value, words) in cases {
            scene.set("DVC_OUTPUTS", "model/m.bin").set("DVC_REMOTE", remote.path().to_str().unwrap());
            let run = scene.set(name, value).run().expect(2);
            assert!(run.out.contains(words), "{action} {name}={value}: {}", run.out);
            assert!(!run.log.contains("machine ready"), "{}", run.log);
        }
    }
    assert_eq!(objects(remote.path()).len(), 0);
}

/// A folder that git ignores, and the words of the refusal followed: the pointer is committed.
#[test]
fn an_ignored_folder_is_refused_with_advice_that_works() {
    let remote = tempfile::tempdir().unwrap();
    let scene = |rules: &str| {
        let mut scene = Scene::new(Access::Token, &[(".gitignore", rules)]);
        scene.set("TRAIN_COMMAND", TRAIN).set("DVC_OUTPUTS", "model/m.bin");
        scene.set("DVC_REMOTE", remote.path().to_str().unwrap());
        scene
    };
    let run = scene("/model/\n").run().expect(2);
    let advice = "add, each on a line of its own, `!/model/`, `/model/?*`, `!/model/m.bin.dvc` to the end of '.gitignore'";
    assert!(run.out.contains(advice), "{}", run.out);
    let scene = scene("/model/\n!/model/\n/model/?*\n!/model/m.bin.dvc\n");
    scene.run().expect(0);
    assert!(file(&scene, "model/m.bin.dvc").contains(&md5("weights")));
    // DVC finds the data ignored, and writes no rule for it.
    assert_eq!(file(&scene, "model/.gitignore"), "");
    pulls(&scene, "model/m.bin", "weights");
}
