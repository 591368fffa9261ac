//! `ACTION: train` on this machine, from the step's environment to what Bitbucket has at the end.

mod checkpoints;
mod stopping;

use crate::support::{Access, Scene, exists, is_late};
use fake_bitbucket::Fault;
use std::time::{Duration, Instant};

const TRAIN: &str = "mkdir -p model; echo fitting; printf 'weights %s' \"$SEED\" > model/m.bin; \
    echo '{\"accuracy\": 0.91}' > model/metrics.json";

fn scene(access: Access) -> Scene {
    let mut scene =
        Scene::new(access, &[("model/metrics.json", "{\"accuracy\": 0.9}\n"), ("train.sh", "echo hi\n")]);
    scene.set("TRAIN_COMMAND", TRAIN).set("OUTPUTS", "model/m.bin, model/*.json");
    scene
}

#[test]
fn a_token_gives_branch_pull_request_comment_and_status() {
    let scene = scene(Access::Token);
    let run = scene.run().expect(0);
    assert!(run.out.starts_with("│ fitting\n"), "{}", run.out);
    assert_eq!(run.last_line(), "✔ done; see https://bitbucket.org/acme/forest/pull-requests/1");
    let branch = scene.branch();
    assert_eq!(scene.subjects(&branch), ["Update model/m.bin and 1 more [skip ci]"]);
    assert_eq!(
        scene.remote.git(&["diff", "--name-only", "main", &branch]),
        "model/m.bin\nmodel/metrics.json"
    );
    assert_eq!(scene.remote.file(&branch, "model/m.bin").unwrap(), b"weights ");
    let message = scene.remote.git(&["log", "-1", "--format=%B", &branch]);
    for trailer in [
        "Trainspot-Commit: ",
        "Trainspot-Pipeline: https://bitbucket.org/acme/forest/pipelines/results/7",
        "Trainspot-Machine: ",
        "Trainspot-Duration: ",
        "Trainspot-Metrics: accuracy=0.91",
    ] {
        assert!(message.contains(trailer), "{trailer} in {message}");
    }
    let requests = scene.bitbucket.pull_requests();
    assert_eq!(
        (requests.len(), requests[0].source.as_str(), requests[0].destination.as_str()),
        (1, branch.as_str(), "main")
    );
    let comments = scene.bitbucket.comments();
    assert_eq!(comments.len(), 1);
    assert!(comments[0].body.contains("| accuracy | 0.9 | 0.91 | ↑"), "{}", comments[0].body);
    let statuses = scene.bitbucket.statuses();
    assert_eq!((statuses.len(), statuses[0].body["state"].as_str()), (1, Some("SUCCESSFUL")));
    assert_eq!(Some(&statuses[0].commit), scene.remote.head(&branch).as_ref());
    scene.assert_nothing_left();
}

#[test]
fn without_a_credential_the_branch_is_pushed_and_the_report_goes_to_code_insights() {
    let scene = scene(Access::Proxy);
    let run = scene.run().expect(0);
    assert!(run.log.contains("WARNING: without BITBUCKET_ACCESS_TOKEN"), "{}", run.log);
    assert_eq!(scene.subjects(&scene.branch()).len(), 1);
    let reports = scene.bitbucket.reports();
    assert_eq!((reports.len(), reports[0].body["result"].as_str()), (1, Some("PASSED")));
    assert!(run.out.contains("| accuracy | 0.9 | 0.91 |"), "the report is shown: {}", run.out);
    assert!(scene.bitbucket.pull_requests().is_empty() && scene.bitbucket.comments().is_empty());
    let direct = scene.requests().into_iter().find(|request| !request.absolute);
    assert!(direct.is_none(), "a request went around the proxy: {direct:?}");
    scene.assert_nothing_left();
}

#[test]
fn the_same_step_again_adds_a_commit_and_updates_pull_request_and_comment() {
    let mut scene = scene(Access::Token);
    scene.set("TRAIN_ENV", "SEED=1").run().expect(0);
    scene.set("TRAIN_ENV", "SEED=2").run().expect(0);
    assert_eq!(scene.subjects(&scene.branch()).len(), 2);
    assert_eq!((scene.bitbucket.pull_requests().len(), scene.bitbucket.comments().len()), (1, 1));
    assert_eq!(scene.remote.file(&scene.branch(), "model/m.bin").unwrap(), b"weights 2");
}

#[test]
fn outputs_that_did_not_change_make_no_commit() {
    let mut scene = scene(Access::Token);
    scene.set("TRAIN_COMMAND", "true").set("OUTPUTS", "model/metrics.json");
    let run = scene.run().expect(0);
    assert_eq!(
        run.last_line(),
        "✔ the outputs are the same as those in the repository; nothing was committed"
    );
    assert_eq!(scene.remote.head(&scene.branch()), None);
    assert!(scene.bitbucket.pull_requests().is_empty());
}

#[test]
fn a_pull_request_that_could_not_be_opened_is_opened_by_the_next_try() {
    let scene = scene(Access::Token);
    scene.bitbucket.next(
        Fault::on("POST", "/pullrequests")
            .answer(403, "{\"type\": \"error\", \"error\": {\"message\": \"no scope\"}}"),
    );
    let run = scene.run().expect(5);
    assert!(run.out.contains("no scope"), "{}", run.out);
    assert!(run.out.contains("Still there: the commit "), "{}", run.out);
    let run = scene.run().expect(0);
    assert_eq!(run.last_line(), "✔ done; see https://bitbucket.org/acme/forest/pull-requests/1");
    assert_eq!(scene.subjects(&scene.branch()).len(), 1, "the outputs were the same");
}

#[test]
fn a_push_goes_to_the_branch_itself() {
    let mut scene = scene(Access::Token);
    let before = scene.remote.head("main").unwrap();
    let run = scene.set("PUBLISH", "push").run().expect(0);
    assert_eq!(run.last_line(), "✔ done; the outputs are on the branch main");
    assert_eq!(scene.remote.git(&["rev-parse", "main~1"]).trim(), before);
    assert!(scene.bitbucket.pull_requests().is_empty());
}

#[test]
fn a_push_without_a_branch_is_refused_before_the_training_starts() {
    let mut scene = scene(Access::Token);
    let run =
        scene.set("PUBLISH", "push").set("BITBUCKET_BRANCH", "").set("BITBUCKET_TAG", "v1").run().expect(2);
    assert!(run.out.contains("TARGET_BRANCH") && !run.out.contains("fitting"), "{}", run.out);
}

#[test]
fn without_a_branch_the_pull_request_is_for_the_main_one() {
    let mut scene = scene(Access::Token);
    scene.set("BITBUCKET_BRANCH", "").set("BITBUCKET_TAG", "v1").run().expect(0);
    let request = &scene.bitbucket.pull_requests()[0];
    assert!(request.source.starts_with("trainspot/v1-") && request.destination == "main", "{request:?}");
}

#[test]
fn in_a_pull_requests_pipeline_the_commit_is_made_on_its_source() {
    let mut scene = scene(Access::Token);
    let source = scene.remote.head("main").unwrap();
    // What Pipelines does there: the target branch is merged in the clone, and nowhere else.
    scene.git(&["checkout", "-q", "-b", "target", "main~1"]);
    scene.git(&["commit", "-q", "--allow-empty", "-m", "meanwhile"]);
    scene.git(&["checkout", "-q", "main"]);
    scene.git(&["merge", "-q", "--no-ff", "-m", "merge", "target"]);
    scene.set("BITBUCKET_PR_ID", "5").set("BITBUCKET_COMMIT", &source[..12]);
    scene.run().expect(0);
    let branch = format!("trainspot/main-{}", &source[..7]);
    assert_eq!(scene.remote.git(&["rev-parse", &format!("{branch}^")]).trim(), source);
}

#[test]
fn publish_none_brings_the_outputs_and_commits_nothing() {
    let mut scene = scene(Access::Token);
    scene.set("PUBLISH", "none").run().expect(0);
    assert!(exists(scene.clone().join("model/m.bin")));
    assert_eq!(scene.remote.head(&scene.branch()), None);
    // Bitbucket is asked about the step, and nothing else.
    let asked = scene.requests();
    assert!(
        asked.iter().all(|request| request.method == "GET" && request.path.contains("/steps/")),
        "{asked:?}"
    );
}

#[test]
fn a_failed_training_ends_with_its_own_last_lines_and_exit_code() {
    let mut scene = scene(Access::Token);
    scene.set("TRAIN_COMMAND", "echo one; echo 'out of data' >&2; exit 3; echo never");
    let run = scene.run().expect(4);
    assert!(run.out.ends_with("out of data\n✖ the training failed with exit code 3\n"), "{}", run.out);
    assert!(!run.out.contains("never"));
    assert_eq!(scene.remote.head(&scene.branch()), None);
    let statuses = scene.bitbucket.statuses();
    assert_eq!((statuses.len(), statuses[0].body["state"].as_str()), (1, Some("FAILED")));
    scene.assert_nothing_left();
}

#[test]
fn a_training_that_is_killed_says_by_which_signal() {
    let mut scene = scene(Access::Proxy);
    let run = scene.set("TRAIN_COMMAND", "kill -9 $$").run().expect(4);
    assert!(run.last_line().starts_with("✖ the training was killed by signal 9 (SIGKILL"), "{}", run.out);
    assert_eq!(scene.bitbucket.reports()[0].body["result"], "FAILED");
}

#[test]
fn the_first_command_that_fails_ends_the_training() {
    let mut scene = scene(Access::Token);
    let run = scene.set("TRAIN_COMMAND", "false\necho never").run().expect(4);
    assert!(!run.out.contains("never"), "{}", run.out);
}

#[test]
fn a_training_that_takes_too_long_is_ended() {
    let mut scene = scene(Access::Token);
    scene.set("TRAIN_COMMAND", "sleep 600").set("MAX_RUNTIME", "1s");
    let run = scene.run().expect(4);
    assert!(run.out.contains("✖ the training ran for MAX_RUNTIME (1.0s) and was ended"), "{}", run.out);
    scene.assert_nothing_left();
}

#[test]
fn a_missing_output_fails_the_run_and_the_others_are_kept() {
    let mut scene = scene(Access::Token);
    let run = scene.set("OUTPUTS", "model/m.bin, model/*.onnx").run().expect(4);
    assert!(run.out.contains("wrote nothing that matches 'model/*.onnx' of OUTPUTS"), "{}", run.out);
    assert!(exists(scene.clone().join("model/m.bin")));
    assert_eq!(scene.remote.head(&scene.branch()), None);
    scene.assert_nothing_left();
}

#[test]
fn a_wrong_token_is_told_before_the_training_starts() {
    let mut scene = scene(Access::Token);
    let run = scene.set("BITBUCKET_ACCESS_TOKEN", "not-the-token").run().expect(2);
    assert!(run.out.contains("BITBUCKET_ACCESS_TOKEN") && !run.out.contains("fitting"), "{}", run.out);
    assert!(!run.out.contains("not-the-token") && !run.log.contains("not-the-token"));
}

#[test]
fn the_workspace_is_what_git_tracks_and_earlier_steps_left() {
    let mut scene =
        Scene::new(Access::Token, &[("a/tracked.txt", "t"), (".gitignore", "ignored*\ncache/\n")]);
    let clone = scene.clone();
    for (path, text) in [("left.txt", "l"), ("ignored.txt", "i"), ("ignored2.txt", "j"), ("cache/x", "c")] {
        std::fs::create_dir_all(clone.join(path).parent().unwrap()).unwrap();
        std::fs::write(clone.join(path), text).unwrap();
    }
    scene.set("INCLUDE", "ignored2.txt").set("OUTPUTS", "seen.txt, settings.txt");
    let look = "find . -type f | sort > /dev/shm/seen.$$; mv /dev/shm/seen.$$ seen.txt";
    scene.set("TRAIN_COMMAND", &format!("{look}\ngit config --local --list > settings.txt"));
    scene.run().expect(0);
    let seen = String::from_utf8(scene.remote.file(&scene.branch(), "seen.txt").unwrap()).unwrap();
    for (path, there) in [
        ("./a/tracked.txt", true),
        ("./left.txt", true),
        ("./ignored2.txt", true),
        ("./ignored.txt", false),
        ("./cache/x", false),
    ] {
        assert_eq!(seen.lines().any(|line| line == path), there, "{path} in {seen}");
    }
    // The machine's repository has nothing of the clone's but its commit.
    let settings = String::from_utf8(scene.remote.file(&scene.branch(), "settings.txt").unwrap()).unwrap();
    assert!(scene.git(&["config", "--local", "--list"]).contains("remote.origin.url"));
    for word in ["remote", "http", "bitbucket-pipelines", "credential"] {
        assert!(!settings.contains(word), "{settings}");
    }
    assert!(!seen.contains("/.git/refs/remotes") && !seen.contains("/.git/hooks/pre-"), "{seen}");
}

#[test]
fn the_training_gets_the_variables_that_are_named_and_no_secret() {
    let mut scene = scene(Access::Token);
    scene.set("EPOCHS", "3").set("OTHER", "not for the training").set("TRAIN_ENV", "EPOCHS\nMODE=fast");
    scene.set(
        "TRAIN_COMMAND",
        "mkdir -p model; env > model/m.bin; tr '\\0' '\\n' < /proc/$PPID/environ >> model/m.bin",
    );
    scene.run().expect(0);
    let seen = String::from_utf8(scene.remote.file(&scene.branch(), "model/m.bin").unwrap()).unwrap();
    assert!(
        seen.contains("EPOCHS=3\n") && seen.contains("MODE=fast\n") && seen.contains("TRAINSPOT_RESUME=0\n")
    );
    for secret in ["fake-access-token", "not for the training", "BITBUCKET_"] {
        assert!(!seen.contains(secret), "{secret} in {seen}");
    }
}

#[test]
fn a_secret_of_the_training_is_not_shown() {
    let mut scene = scene(Access::Token);
    scene.set("WANDB_API_KEY", "wandb-s3cr3t-value").set("TRAIN_ENV", "WANDB_API_KEY");
    let command = format!(
        "{TRAIN}; echo key $WANDB_API_KEY; printf $WANDB_API_KEY | base64; echo a:$WANDB_API_KEY@b | base64; echo \"# note $WANDB_API_KEY\" > note.md"
    );
    let run = scene.set("TRAIN_COMMAND", &command).set("REPORT", "note.md").run().expect(0);
    let comment = &scene.bitbucket.comments()[0].body;
    assert!(
        run.out.contains("key $WANDB_API_KEY") && comment.contains("# note $WANDB\\_API\\_KEY")
            || comment.contains("# note $WANDB_API_KEY"),
        "{comment}"
    );
    for text in [&run.out, &run.log, comment] {
        assert!(!text.contains("s3cr3t") && !text.contains("d2FuZGItczNjcjN0"), "{text}");
    }
}

#[test]
fn a_secret_is_in_neither_code_insights_nor_a_title() {
    for access in [Access::Proxy, Access::Token] {
        let mut scene = scene(access);
        scene.set("WANDB_API_KEY", "wandb-s3cr3t-value").set("TRAIN_ENV", "WANDB_API_KEY");
        let command =
            format!("{TRAIN}; echo \"{{\\\"run\\\": \\\"a $WANDB_API_KEY\\\"}}\" > model/metrics.json");
        scene.set("TRAIN_COMMAND", &command).set("COMMIT_MESSAGE", "with wandb-s3cr3t-value").run().expect(0);
        let reports: Vec<_> =
            scene.bitbucket.reports().iter().map(|report| report.body.to_string()).collect();
        let titles = scene.bitbucket.pull_requests().into_iter().map(|request| request.title);
        let told: Vec<_> = reports.into_iter().chain(titles).collect();
        assert!(told.len() == 1 && told[0].contains("$WANDB_API_KEY"), "{told:?}");
        assert!(!told[0].contains("s3cr3t"), "{told:?}");
    }
}

#[test]
fn without_a_place_for_the_machine_there_is_none() {
    let mut scene = scene(Access::Token);
    let run = scene.set("TMPDIR", "/proc/nowhere").run().expect(3);
    assert!(
        run.out.contains("cannot make the folder /proc/nowhere/") && run.out.contains("set TMPDIR"),
        "{}",
        run.out
    );
}

fn wait_for(mut what: impl FnMut() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(!is_late(start, Duration::from_secs(30)), "it never came");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_file_that_grows_while_the_workspace_is_sent_goes_as_far_as_it_was() {
    let mut scene = scene(Access::Token);
    let log = scene.clone().join("earlier.log");
    std::fs::write(&log, vec![b'x'; 60_000_000]).unwrap();
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let over = std::sync::Arc::clone(&done);
    let writer = std::thread::spawn(move || {
        let mut log = std::fs::File::options().append(true).open(log).unwrap();
        while !over.load(std::sync::atomic::Ordering::Relaxed) {
            std::io::Write::write_all(&mut log, b"xxxx").unwrap();
            std::thread::sleep(Duration::from_micros(100));
        }
    });
    scene.set(
        "TRAIN_COMMAND",
        "test $(wc -c < earlier.log) -ge 60000000; tr -d x < earlier.log > rest.txt; echo 1 > m.txt",
    );
    scene.set("OUTPUTS", "m.txt, rest.txt").set("PUBLISH", "none");
    let run = scene.run();
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.join().unwrap();
    let run = run.expect(0);
    let told = "WARNING: 1 file changed while the workspace was sent: 'earlier.log' grew; its first ";
    assert!(run.log.contains(told), "{}", run.log);
    assert_eq!(std::fs::read(scene.clone().join("rest.txt")).unwrap(), b"");
}

#[test]
fn a_glob_takes_no_files_of_packages_and_tells_how_many_git_ignores() {
    let mut scene = Scene::new(Access::Token, &[(".gitignore", "*.png\n.venv/\n")]);
    let command = "d=.venv/lib/python3/site-packages/matplotlib; mkdir -p $d plots; echo > .venv/pyvenv.cfg
        ln -s lib .venv/lib64; echo 1 > $d/back.png; echo 2 > plots/a.png; echo 3 > plots/b.png; ln -s plots newest";
    scene.set("TRAIN_COMMAND", command).set("OUTPUTS", "**/*.png");
    let run = scene.run().expect(0);
    let told = "the globs of OUTPUTS match 2 files that git ignores, among them plots/a.png";
    assert!(run.log.contains(told), "{}", run.log);
    let names = scene.remote.git(&["diff", "--name-only", "main", &scene.branch()]);
    assert_eq!(names, "plots/a.png\nplots/b.png");
    // A path that is written out may name one, and needs no word.
    let path = ".venv/lib/python3/site-packages/matplotlib/back.png";
    let run = scene.set("OUTPUTS", path).set("BRANCH", "other").run().expect(0);
    assert!(!run.log.contains("that git ignores"), "{}", run.log);
    assert_eq!(scene.remote.file("other", path).unwrap(), b"1\n");
}
