//! The step's max-time: told before the training, and the run's own end before Pipelines kills the step.

use crate::support::{Access, Run, Scene, exists, is_late, patience};
use fake_bitbucket::Fault;
use rustix::process::{Pid, Signal, kill_process};
use std::time::{Duration, Instant, SystemTime};

const PIPELINE: &str = "{11111111-1111-1111-1111-111111111111}";
const STEP: &str = "{22222222-2222-2222-2222-222222222222}";
const TRAIN: &str = "echo weights > m.bin";

/// A step of a `bitbucket-pipelines.yml` in which all steps have this max-time, if any.
fn scene(access: Access, max_time: Option<u64>) -> Scene {
    let line = max_time.map_or_else(String::new, |minutes| format!("options: {{max-time: {minutes}}}\n"));
    let file = format!(
        "{line}pipelines:\n  custom:\n    retrain:\n      - step: {{name: Retrain, script: [{{pipe: 'trainspot/trainspot:0.1.0', variables: {{OUTPUTS: m.bin}}}}]}}\n"
    );
    let mut scene = Scene::new(access, &[("bitbucket-pipelines.yml", &file), (".gitignore", "/ckpt\n")]);
    scene.set("TRAIN_COMMAND", TRAIN).set("OUTPUTS", "m.bin").set("STEP_MAX_TIME", "");
    scene
}

fn began(scene: &Scene, before: Duration) {
    let moment = humantime::format_rfc3339_millis(SystemTime::now() - before).to_string();
    scene.bitbucket.begin_step(PIPELINE, STEP, "Retrain", &moment);
}

/// Runs the pipe as Pipelines does, which kills it after this time.
fn run_for(scene: &Scene, time: Duration) -> Run {
    let mut child = scene.start();
    let pid = Pid::from_child(&child);
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > time {
            kill_process(pid, Signal::KILL).unwrap();
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Run::from(child.wait_with_output().unwrap())
}

#[test]
fn a_max_runtime_that_the_step_does_not_have_is_told_before_the_training() {
    let told = |max_time, max_runtime: &str| {
        let mut step = scene(Access::Token, max_time);
        began(&step, Duration::from_mins(1));
        let run = step.set("MAX_RUNTIME", max_runtime).run().expect(0);
        let lines: Vec<_> = run.log.lines().map(str::to_owned).collect();
        let line = lines.iter().position(|line| line.contains("cannot be reached"));
        let training = lines.iter().position(|line| line.contains("training started")).unwrap();
        assert!(line.is_none_or(|line| line < training), "{}", run.log);
        line.map(|line| lines[line].clone())
    };
    let line = told(None, "12h").unwrap();
    assert!(
        line.contains("max-time is 2h, which is what Pipelines gives a step that sets none: 1h 5"),
        "{line}"
    );
    assert!(line.contains("MAX_RUNTIME (12h)") && line.contains("set 'max-time: 720'"), "{line}");
    let line = told(Some(300), "6h").unwrap();
    assert!(line.contains("max-time is 5h: 4h 5") && line.contains("set 'max-time: 37"), "{line}");
    assert_eq!(told(Some(300), "4h"), None);
}

#[test]
fn a_step_whose_time_is_over_begins_no_training() {
    let mut step = scene(Access::Token, Some(10));
    began(&step, Duration::from_mins(9));
    let run = step.run().expect(2);
    assert!(
        run.out.contains("max-time of 10m is nearly over") && run.out.contains("STEP_MAX_TIME"),
        "{}",
        run.out
    );
    assert!(!run.log.contains("training started"), "{}", run.log);
    // The user's own word goes before the file's.
    step.set("STEP_MAX_TIME", "1h").set("MAX_RUNTIME", "30m").run().expect(0);
}

#[test]
fn a_step_of_which_no_file_tells_is_told_of() {
    let mut step = Scene::new(Access::Proxy, &[]);
    step.set("TRAIN_COMMAND", TRAIN).set("OUTPUTS", "m.bin");
    let run = step.set("STEP_MAX_TIME", "").run().expect(0);
    assert!(run.log.contains("does not tell the max-time of this step"), "{}", run.log);
    let run = step.set("STEP_MAX_TIME", "12h").set("MAX_RUNTIME", "1h").run().expect(0);
    assert!(!run.log.contains("max-time"), "{}", run.log);
}

#[test]
fn a_step_ends_itself_with_its_checkpoint_before_pipelines_kills_it() {
    // More than half of the two minutes is over, so the rest takes no longer than a test may.
    const GONE: Duration = Duration::from_secs(50);
    let mut step = scene(Access::Token, Some(2));
    let command = "mkdir ckpt; trap 'echo last > ckpt/state; exit 9' TERM
        echo first > ckpt/state; while :; do sleep 0.2 || :; done";
    step.set("TRAIN_COMMAND", command).set("CHECKPOINTS", "ckpt").set("CHECKPOINT_INTERVAL", "1s");
    began(&step, GONE);
    let start = Instant::now();
    let run = run_for(&step, Duration::from_mins(2) - GONE).expect(4);
    assert!(
        run.out.contains("✖ the run ended itself because Pipelines is about to kill the step"),
        "{}",
        run.out
    );
    for words in ["max-time is 2m", "the newest checkpoint (1 file), in the clone", "RESUME: 'true'"] {
        assert!(run.out.contains(words), "{words} in {}", run.out);
    }
    let saved = std::fs::read_to_string(step.clone().join("ckpt/state")).unwrap();
    // On a host that is too busy for the last one, it is the newest that had come.
    let is_busy = is_late(start, Duration::from_secs(50)) || patience(Duration::from_secs(1)).as_secs() > 10;
    assert!(saved == "last\n" || is_busy && saved == "first\n", "{saved}: {}", run.log);
    step.assert_nothing_left();
    // What is there is what the next run goes on from, though git ignores it.
    let goes_on = "test $TRAINSPOT_RESUME = 1 && cat ckpt/state > m.bin";
    step.set("TRAIN_COMMAND", goes_on).set("RESUME", "true").set("STEP_MAX_TIME", "1h").run().expect(0);
    assert_eq!(step.remote.file(&step.branch(), "m.bin").unwrap(), saved.as_bytes());
}

#[test]
fn files_of_a_checkpoint_are_resumed_from_as_they_are() {
    let mut step = scene(Access::Token, Some(300));
    step.set("CHECKPOINTS", "ckpt\nloose.pt").set("RESUME", "true").set("MAX_RUNTIME", "1h");
    let clone = step.clone();
    std::fs::create_dir_all(clone.join("ckpt/step-3")).unwrap();
    std::fs::write(clone.join("ckpt/step-3/a.pt"), "3").unwrap();
    std::os::unix::fs::symlink("step-3", clone.join("ckpt/last")).unwrap();
    std::fs::write(clone.join("loose.pt"), "loose").unwrap();
    // What is behind a link out of the clone is nobody's checkpoint.
    std::fs::write(step.folder.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink(step.folder.path().join("secret"), clone.join("ckpt/secret.pt")).unwrap();
    let command = "test $TRAINSPOT_RESUME = 1; test -L ckpt/last; test ! -e ckpt/secret.pt
        cat ckpt/last/a.pt loose.pt > m.bin";
    let run = step.set("TRAIN_COMMAND", command).run().expect(0);
    assert!(run.log.contains("RESUME: the training goes on from 3 files of CHECKPOINTS"), "{}", run.log);
    assert_eq!(step.remote.file(&step.branch(), "m.bin").unwrap(), b"3loose");
}

#[test]
fn without_a_checkpoint_to_resume_from_the_training_begins_from_the_start() {
    let mut step = scene(Access::Token, Some(300));
    step.set("CHECKPOINTS", "ckpt").set("RESUME", "true").set("MAX_RUNTIME", "1h");
    let run = step.set("TRAIN_COMMAND", "test $TRAINSPOT_RESUME = 0; echo 1 > m.bin").run().expect(0);
    let told =
        "WARNING: RESUME: no file of the clone matches CHECKPOINTS; the training begins from the start";
    assert!(run.log.contains(told), "{}", run.log);
    // Nor without the word: files that are there may be of another training.
    std::fs::create_dir(step.clone().join("ckpt")).unwrap();
    std::fs::write(step.clone().join("ckpt/state"), "old").unwrap();
    let command = "test $TRAINSPOT_RESUME = 0; test ! -e ckpt; echo 2 > m.bin";
    step.set("TRAIN_COMMAND", command).set("RESUME", "false").run().expect(0);
    assert!(exists(step.clone().join("m.bin")));
}

/// The commit, the pull request and the report wait for Bitbucket, which may hang; the step does not.
#[test]
fn a_silent_bitbucket_keeps_no_run_until_its_step_is_killed() {
    let run = |command: &str, request: &str, code: i32| {
        let mut step = scene(Access::Token, None);
        step.set("TRAIN_COMMAND", command).set("STEP_MAX_TIME", "1m").set("MAX_RUNTIME", "30s");
        step.bitbucket.next(Fault::on("POST", request).delay(Duration::from_hours(1)).times(99));
        step.run().expect(code)
    };
    let publish = || {
        let mut step = scene(Access::Token, Some(1));
        began(&step, Duration::ZERO);
        std::fs::write(step.clone().join("m.bin"), "weights").unwrap();
        step.bitbucket.next(Fault::on("POST", "/pullrequests").delay(Duration::from_hours(1)).times(99));
        step.set("ACTION", "publish").set("TRAIN_COMMAND", "").run().expect(5)
    };
    let (failed, trained, published) = std::thread::scope(|scope| {
        let failed = scope.spawn(|| run("exit 3", "/statuses", 4));
        let trained = scope.spawn(|| run(TRAIN, "/pullrequests", 5));
        let published = scope.spawn(publish);
        (failed.join().unwrap(), trained.join().unwrap(), published.join().unwrap())
    });
    assert!(failed.log.contains("Bitbucket is not told all of the failure"), "{}", failed.log);
    assert!(failed.out.contains("the training failed with exit code 3"), "{}", failed.out);
    let words = "the outputs were not published in time, and Pipelines is about to kill the step";
    assert!(trained.out.contains(words), "{}", trained.out);
    assert!(trained.out.contains("ACTION: publish"), "{}", trained.out);
    assert!(published.out.contains(words), "{}", published.out);
}
