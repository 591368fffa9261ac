//! What Bitbucket tells before the training: refused or warned of then.

use crate::support::{Access, Run, Scene, assert_refused};
use fake_bitbucket::{API_TOKEN, Fault, Options};

/// A step whose training says that it began.
fn scene(options: Options) -> Scene {
    let mut scene = Scene::with(Access::Token, &[], options);
    scene.set("TRAIN_COMMAND", "echo begun; echo weights > m.bin").set("OUTPUTS", "m.bin");
    scene
}

fn with_scopes(scopes: &[&str], tells_scopes: bool) -> Options {
    let scopes = scopes.iter().map(ToString::to_string).collect();
    Options { scopes, tells_scopes, ..Options::default() }
}

#[test]
fn a_token_that_may_not_open_a_pull_request_is_told_before_the_training() {
    let mut step = scene(with_scopes(&["repository:write"], true));
    let words =
        ["BITBUCKET_ACCESS_TOKEN may not open a pull request", "repository:write", "pullrequest:write"];
    assert_refused("begun", step.run(), &words);
    // Without a pull request it will do.
    step.set("PUBLISH", "push").run().expect(0);
    // Where no answer names scopes, the list of pull requests shows one that is missing.
    assert_refused(
        "begun",
        scene(with_scopes(&["repository:write"], false)).run(),
        &["list pull requests", "pullrequest:write"],
    );
    let run = scene(with_scopes(&["pullrequest:write"], false)).run().expect(0);
    assert!(run.log.contains("opened pull request"), "{}", run.log);
}

#[test]
fn a_token_that_may_not_read_the_repository_is_told_before_the_training() {
    assert_refused(
        "begun",
        scene(with_scopes(&[], false)).run(),
        &["look up the repository", "the token needs the scope repository"],
    );
}

#[test]
fn an_address_that_is_not_the_tokens_is_told_before_the_training() {
    let mut step = scene(Options::default());
    step.set("BITBUCKET_ACCESS_TOKEN", "").set("ATLASSIAN_API_TOKEN", API_TOKEN);
    // Git takes the token whatever the address is.
    assert_refused(
        "begun",
        step.set("ATLASSIAN_ACCOUNT_EMAIL", "else@example.com").run(),
        &["check ATLASSIAN_ACCOUNT_EMAIL"],
    );
    let run = step.set("ATLASSIAN_ACCOUNT_EMAIL", fake_bitbucket::API_EMAIL).run().expect(0);
    assert!(run.log.contains("opened pull request"), "{}", run.log);
}

#[test]
fn trouble_of_bitbuckets_own_is_no_reason_to_refuse() {
    let step = scene(Options::default());
    // The first asks for the step, the second for the repository.
    let gone = Fault::on("GET", "/2.0/repositories/acme/forest").answer(410, "<h1>Gone</h1>");
    step.bitbucket.next(gone.times(2));
    let run = step.run().expect(0);
    assert!(
        run.log.contains("WARNING: what the token may do at Bitbucket's API is not known"),
        "{}",
        run.log
    );
}

#[test]
fn a_repository_that_is_full_is_told_before_the_training() {
    let sized = |size| scene(Options { size, ..Options::default() });
    let mut full = sized(4_400_000_000);
    assert_refused(
        "begun",
        full.run(),
        &["the repository has 4.10 GiB", "no push beyond 4 GB", "SIZE_LIMITS", "DVC_OUTPUTS"],
    );
    full.set("SIZE_LIMITS", "false").run().expect(0);
    let run = sized(2_100_000_000).run().expect(0);
    assert!(run.log.contains("WARNING: the repository has 1.96 GiB, and Bitbucket takes"), "{}", run.log);
    let run = sized(1_900_000_000).run().expect(0);
    assert!(!run.log.contains("the repository has"), "{}", run.log);
}

#[test]
fn a_file_of_more_than_100_mb_is_committed_where_the_repository_takes_it() {
    let mut step = scene(Options::default());
    let train = "echo begun; truncate -s 101M m.bin";
    let run = step.set("TRAIN_COMMAND", train).run().expect(5);
    assert!(run.out.contains("m.bin (106 MB)") && run.out.contains("SIZE_LIMITS"), "{}", run.out);
    // It is in the clone now, so it is known before the training.
    assert_refused("begun", step.run(), &["m.bin (106 MB)"]);
    step.set("SIZE_LIMITS", "false").run().expect(0);
    assert_eq!(step.remote.git(&["cat-file", "-s", &format!("{}:m.bin", step.branch())]), "105906176");
}

#[test]
fn a_merge_that_would_keep_the_targets_pipeline_from_running_is_warned_of() {
    let merged = |strategy: &str| Options { merge_strategy: strategy.into(), ..Options::default() };
    let warned = |run: &Run| run.log.contains("WARNING: pull requests into main are merged by fast_forward");
    let mut step = scene(merged("fast_forward"));
    let run = step.run().expect(0);
    assert!(warned(&run) && run.log.contains("set SKIP_CI to 'false'"), "{}", run.log);
    assert!(!warned(&step.set("SKIP_CI", "false").run().expect(0)));
    for strategy in ["merge_commit", "squash", "something new"] {
        assert!(!warned(&scene(merged(strategy)).run().expect(0)), "{strategy}");
    }
}

#[test]
fn in_a_merge_queue_the_target_must_be_named() {
    let mut step = scene(Options::default());
    step.set("BITBUCKET_MERGE_QUEUE_PR_IDS", "7,8").set("BITBUCKET_BRANCH", "queue/main/7-8");
    assert_refused("begun", step.run(), &["merge queue's", "TARGET_BRANCH"]);
    step.set("TARGET_BRANCH", "main").run().expect(0);
    assert_eq!(step.bitbucket.pull_requests()[0].destination, "main");
}
