//! Whole runs, by what they publish: beside other steps, through git's attributes, and in words.

use crate::support::{Access, Scene, exists};

fn scene(files: &[(&str, &str)]) -> Scene {
    let mut scene = Scene::new(Access::Token, files);
    scene.set("TRAIN_COMMAND", "mkdir -p model; echo training; echo $RANDOM > model/m.bin");
    scene.set("OUTPUTS", "model/m.bin");
    scene
}

#[test]
fn a_parallel_step_keeps_its_result_and_a_rerun_replaces_it() {
    let mut scene = scene(&[("index.json", "{\"a\": 0, \"b\": 0}\n")]);
    scene.set("OUTPUTS", "index.json").set("TRAIN_COMMAND", "echo '{\"a\": 1, \"b\": 0}' > index.json");
    scene.run().expect(0);
    scene.set("TRAIN_COMMAND", "echo '{\"a\": 2, \"b\": 0}' > index.json").run().expect(0);
    let branch = scene.branch();
    assert_eq!(scene.remote.file(&branch, "index.json").unwrap(), b"{\"a\": 2, \"b\": 0}\n");
    // Another step of the same pipeline, in a clone of the same commit.
    scene.git(&["checkout", "-q", "--", "index.json"]);
    scene.set("BITBUCKET_STEP_UUID", "{33333333-3333-3333-3333-333333333333}");
    let run = scene.set("TRAIN_COMMAND", "echo '{\"a\": 0, \"b\": 1}' > index.json").run().expect(5);
    assert!(run.out.contains(&format!("branch {branch}-2 of the remote")), "{}", run.out);
    assert_eq!(scene.remote.file(&branch, "index.json").unwrap(), b"{\"a\": 2, \"b\": 0}\n");
    assert_eq!(scene.remote.file(&format!("{branch}-2"), "index.json").unwrap(), b"{\"a\": 0, \"b\": 1}\n");
    let statuses = scene.bitbucket.statuses();
    assert_eq!(statuses.last().unwrap().body["state"], "FAILED");
}

#[test]
fn parallel_steps_keep_each_others_ignored_names_and_stages() {
    let lock =
        |a: &str, b: &str| format!("schema: '2.0'\\nstages:\\n  a:\\n    cmd: {a}\\n  b:\\n    cmd: {b}\\n");
    let train = |name: &str, lock: &str| {
        format!("mkdir -p models; echo {name} > models/{name}.bin; printf \"{lock}\" > dvc.lock")
    };
    let before = lock("a", "b").replace("\\n", "\n");
    let mut scene = scene(&[("dvc.lock", &before)]);
    let store = scene.folder.path().join("store").display().to_string();
    scene.set("OUTPUTS", "dvc.lock").set("DVC_REMOTE", &store);
    scene
        .set("TRAIN_COMMAND", &train("a", &lock("a1", "b")))
        .set("DVC_OUTPUTS", "models/a.bin")
        .run()
        .expect(0);
    scene.git(&["reset", "-q", "--hard"]);
    scene.git(&["clean", "-q", "-xdf"]);
    scene.set("BITBUCKET_STEP_UUID", "{33333333-3333-3333-3333-333333333333}");
    scene
        .set("TRAIN_COMMAND", &train("b", &lock("a", "b1")))
        .set("DVC_OUTPUTS", "models/b.bin")
        .run()
        .expect(0);
    let there = |path: &str| String::from_utf8(scene.remote.file(&scene.branch(), path).unwrap()).unwrap();
    assert_eq!(there("models/.gitignore"), "/a.bin\n/b.bin\n");
    assert_eq!(there("dvc.lock"), lock("a1", "b1").replace("\\n", "\n"));
    assert!(there("models/a.bin.dvc").contains("a.bin") && there("models/b.bin.dvc").contains("b.bin"));
}

#[test]
fn two_clones_outside_pipelines_are_two_steps() {
    let mut scene = scene(&[("index.json", "{\"a\": 0, \"b\": 0}\n")]);
    for name in ["BITBUCKET_STEP_UUID", "BITBUCKET_PIPELINE_UUID", "BITBUCKET_BUILD_NUMBER"] {
        scene.set(name, "");
    }
    scene.set("OUTPUTS", "index.json").set("TRAIN_COMMAND", "echo '{\"a\": 1, \"b\": 0}' > index.json");
    scene.run().expect(0);
    scene.set("TRAIN_COMMAND", "echo '{\"a\": 2, \"b\": 0}' > index.json").run().expect(0);
    let other = scene.folder.path().join("other");
    scene.bitbucket.clone_as_pipelines("main", &other);
    let url = scene.bitbucket.git_url();
    let set = ["-C", other.to_str().unwrap(), "remote", "set-url", "origin", &url];
    assert!(std::process::Command::new("git").args(set).status().unwrap().success());
    scene.set("BITBUCKET_CLONE_DIR", other.to_str().unwrap());
    let run = scene.set("TRAIN_COMMAND", "echo '{\"a\": 0, \"b\": 1}' > index.json").run().expect(5);
    assert!(
        run.out.contains("it changed the same files since the pipeline's commit: index.json"),
        "{}",
        run.out
    );
    assert_eq!(scene.remote.file(&scene.branch(), "index.json").unwrap(), b"{\"a\": 2, \"b\": 0}\n");
}

#[test]
fn a_filter_that_only_the_training_brings_is_refused_before_anything_is_committed() {
    let mut scene = scene(&[]);
    let command = "mkdir -p model; echo s > model/s.key; echo '*.key filter=vault' > .gitattributes";
    let run = scene.set("TRAIN_COMMAND", command).set("OUTPUTS", "model/*, .gitattributes").run().expect(5);
    assert!(run.out.contains("cannot commit model/s.key") && run.out.contains("filter=vault"), "{}", run.out);
    assert!(run.out.contains("Still there: the outputs, in the clone; nothing was committed"), "{}", run.out);
    assert!(exists(scene.clone().join("model/s.key")));
    assert_eq!(scene.remote.head(&scene.branch()), None);
}
