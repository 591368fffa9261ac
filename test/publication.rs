//! Whole runs, by what they publish: beside other steps, through git's attributes, and in words.

use crate::support::{Access, Scene, assert_refused, exists};
use serde_json::Value;

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
fn filters_are_refused_before_the_training_for_paths_patterns_and_pointers() {
    let attributes = "secret/** filter=git-crypt diff=git-crypt\n*.h5 filter=lfs -text\n/dvc/*.dvc filter=git-crypt\n*.txt working-tree-encoding=UTF-16\n";
    for (outputs, token) in [
        ("secret/key.bin", "filter=git-crypt"),
        ("secret/**", "filter=git-crypt"),
        ("secret/", "filter=git-crypt"),
        ("model/*.h5", "filter=lfs"),
        ("model/net.h5", "filter=lfs"),
        ("notes.txt", "working-tree-encoding=UTF-16"),
    ] {
        let mut scene = scene(&[(".gitattributes", attributes)]);
        assert_refused(
            "training\n",
            scene.set("OUTPUTS", outputs).run(),
            &[token, ".gitattributes", "cannot commit", "Next: "],
        );
    }
    let mut scene = scene(&[(".gitattributes", attributes)]);
    let store = scene.scratch().display().to_string();
    scene.set("DVC_OUTPUTS", "dvc/m.bin").set("DVC_REMOTE", &store);
    assert_refused("training\n", scene.run(), &["dvc/m.bin.dvc", "filter=git-crypt"]);
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

#[test]
fn a_branch_that_cannot_be_made_is_refused_before_the_training() {
    for (there, wanted) in
        [("models", "models/churn"), ("models/churn", "models"), ("models/churn/v1", "models/churn")]
    {
        let mut scene = scene(&[]);
        scene.remote.git(&["branch", there, "main"]);
        assert_refused("training\n", scene.set("BRANCH", wanted).run(), &[there, wanted, "BRANCH"]);
    }
    let scene = scene(&[]);
    scene.remote.git(&["branch", "trainspot", "main"]);
    assert_refused("training\n", scene.run(), &["trainspot/main-", "a branch trainspot"]);
}

#[test]
fn a_direct_push_is_not_kept_by_a_name_that_it_may_never_need() {
    let mut scene = scene(&[]);
    scene.remote.git(&["branch", "trainspot", "main"]);
    scene.set("PUBLISH", "push").run().expect(0);
    assert_refused(
        "training\n",
        scene.set("TARGET_BRANCH", "main/models").run(),
        &["main/models", "TARGET_BRANCH"],
    );
}

#[test]
fn a_branch_that_is_its_own_target_is_refused_before_the_training() {
    let mut scene = scene(&[]);
    assert_refused(
        "training\n",
        scene.set("BRANCH", "main").run(),
        &["it cannot be merged into itself", "PUBLISH: push"],
    );
}

#[test]
fn an_output_that_is_too_large_already_is_refused_before_the_training() {
    let mut scene = scene(&[(".gitignore", "*.ckpt\n")]);
    let large = |path: &str| {
        let path = scene.clone().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::File::create(path).unwrap().set_len(100_000_001).unwrap();
    };
    large("model/m.bin");
    // Neither is sent to the machine, nor an output by name.
    large("model/old.ckpt");
    assert_refused("training\n", scene.run(), &["model/m.bin (101 MB)", "DVC_OUTPUTS"]);
    std::fs::remove_file(scene.clone().join("model/m.bin")).unwrap();
    scene.set("OUTPUTS", "model/**").run().expect(0);
    assert_refused("training\n", scene.set("OUTPUTS", "model/old.ckpt").run(), &["model/old.ckpt (101 MB)"]);
}

#[test]
fn what_was_only_published_is_not_said_to_be_trained() {
    let publish = |access, files: &[(&str, &str)]| {
        let mut scene = Scene::new(access, files);
        scene.set("ACTION", "publish").set("OUTPUTS", "m.bin");
        std::fs::write(scene.clone().join("m.bin"), "weights").unwrap();
        scene
    };
    let scene = publish(Access::Token, &[]);
    let run = scene.run().expect(0);
    let comment = scene.bitbucket.comments()[0].body.clone();
    assert!(comment.contains("## ✔ model published\n"), "{comment}");
    let status = scene.bitbucket.statuses()[0].body.clone();
    assert_eq!(status["description"], "published");
    let description = scene.bitbucket.pull_requests()[0].description.clone();
    assert!(!(run.log.clone() + &run.out + &comment + &description).contains("train "), "{description}");
    for said in [&run.log, &run.out, &comment, &description, &status.to_string()] {
        assert!(!said.contains("trained") && !said.contains("of a training"), "{said}");
    }
    let scene = publish(Access::Proxy, &[]);
    let run = scene.run().expect(0);
    assert!(run.out.contains("## ✔ model published"), "{}", run.out);
    assert_eq!(scene.bitbucket.reports()[0].body["title"], "model published");
    // The same outputs as there are.
    let run = publish(Access::Token, &[("m.bin", "weights")]).run().expect(0);
    assert!(run.out.contains("## ✔ model checked, nothing to publish"), "{}", run.out);
    // And a failure.
    let scene = publish(Access::Proxy, &[(".gitattributes", "*.bin filter=lfs\n")]);
    scene.run().expect(5);
    assert!(scene.bitbucket.reports().is_empty(), "nothing was begun");
}

#[test]
fn a_run_that_trained_and_could_not_publish_says_so() {
    let scene = scene(&[]);
    scene.remote.reject_pushes_to(&scene.branch());
    scene.run().expect(5);
    let status = &scene.bitbucket.statuses()[0].body;
    assert_eq!(status["state"], Value::from("FAILED"));
    let mut scene = Scene::new(Access::Proxy, &[]);
    scene.set("TRAIN_COMMAND", "echo x > m.bin").set("OUTPUTS", "m.bin");
    scene.remote.reject_pushes_to(&scene.branch());
    scene.run().expect(5);
    assert_eq!(scene.bitbucket.reports()[0].body["title"], "model trained, but not published");
    scene.set("TRAIN_COMMAND", "exit 3").run().expect(4);
    assert_eq!(scene.bitbucket.reports().last().unwrap().body["title"], "model failed");
}
