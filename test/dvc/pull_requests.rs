//! A pull request, and a configuration, that would send a credential where it must not go without a word of
//! the step.

use super::attacks::{Trap, config};
use super::web::Server;
use crate::support::{Access, Scene};

/// A pull request's configuration, with a credential that the step has.
fn pull_request(old: &str, new: &str) -> Scene {
    let mut scene = Scene::new(
        Access::Token,
        &[(".dvc/config", &config(old)), (".dvc/.gitignore", "/config.local\n/tmp\n/cache\n")],
    );
    std::fs::write(scene.clone().join(".dvc/config"), config(new)).unwrap();
    scene.git(&[
        "-c",
        "user.name=x",
        "-c",
        "user.email=x@x",
        "commit",
        "-q",
        "--allow-empty",
        "-am",
        "change the remote",
    ]);
    std::fs::write(scene.clone().join(".dvc/config.local"), "['remote \"st\"']\n    password = hunter22\n")
        .unwrap();
    let commit = |name: &str| scene.git(&["rev-parse", name]).trim().to_owned();
    let (source, target) = (commit("HEAD"), commit("HEAD~1"));
    scene.set("BITBUCKET_PR_ID", "5").set("BITBUCKET_COMMIT", &source[..12]);
    scene
        .set("BITBUCKET_PR_DESTINATION_BRANCH", "main")
        .set("BITBUCKET_PR_DESTINATION_COMMIT", &target[..12]);
    scene.set("TRAIN_COMMAND", "printf weights > m.bin; echo was trained").set("DVC_OUTPUTS", "m.bin");
    scene.set("PUBLISH", "none");
    scene
}

fn basic(at: &str) -> String {
    format!("url = {at}/x\n    auth = basic\n    user = me")
}

#[test]
fn a_pull_request_sends_no_credential_to_another_server_without_a_word_of_the_step() {
    let (trap, server) = (Trap::set(), Server::store(|_| true));
    let evil = format!("http://{}", trap.address);
    let refused = |scene: &Scene, words: &str| {
        let run = scene.run().expect(2);
        assert!(run.out.contains(words) && run.out.contains("DVC_TRUSTED_HOSTS"), "{}", run.out);
        assert!(!run.out.contains("was trained"), "{}", run.out);
        assert_eq!(trap.visits(), 0);
    };
    let mut scene = pull_request(&basic(&server.url), &basic(&evil));
    refused(&scene, "to which the configuration of main sends none");
    // Nothing in this clone says what the target is.
    scene.set("BITBUCKET_PR_DESTINATION_COMMIT", "").set("BITBUCKET_PR_DESTINATION_BRANCH", "develop");
    refused(&scene, "what the configuration of develop says cannot be read in this clone");
    // The file of credentials is no place for it either, once it is in the pull request.
    let scene = pull_request(&basic(&server.url), &basic(&server.url));
    let local = format!("['remote \"st\"']\n    url = {evil}\n    password = hunter22\n");
    std::fs::write(scene.clone().join(".dvc/config.local"), local).unwrap();
    scene.git(&["add", "-f", ".dvc/config.local"]);
    refused(&scene, "to which the configuration of main sends none");

    // With a word of the step, and to the server of the target branch, it goes.
    let to = Server::store(|_| true);
    let mut scene = pull_request(&basic(&server.url), &basic(&to.url));
    scene.set("DVC_TRUSTED_HOSTS", to.url.trim_start_matches("http://")).run().expect(0);
    assert!(!to.requests().is_empty());
    let scene = pull_request(&basic(&server.url), &format!("{}/elsewhere", basic(&server.url)));
    scene.run().expect(0);
    assert!(!server.requests().is_empty());
}

/// The target is the second parent of the merge that is checked out, which Bitbucket made.
#[test]
fn the_target_branch_is_found_in_the_merge_that_is_checked_out() {
    let (trap, server) = (Trap::set(), Server::store(|_| true));
    for (url, code) in [(format!("http://{}", trap.address), 2), (server.url.clone(), 0)] {
        let mut scene = pull_request(&basic(&server.url), &basic(&url));
        let git = |arguments: &[&str]| {
            scene.git(&[&["-c", "user.name=x", "-c", "user.email=x@x"], arguments].concat())
        };
        git(&["checkout", "-q", "-b", "target", "main~1"]);
        git(&["commit", "-q", "--allow-empty", "-m", "meanwhile"]);
        git(&["checkout", "-q", "main"]);
        git(&["merge", "-q", "--no-ff", "-m", "merge", "target"]);
        scene.set("BITBUCKET_PR_DESTINATION_COMMIT", "").set("BITBUCKET_PR_DESTINATION_BRANCH", "develop");
        let run = scene.run().expect(code);
        assert!(
            code == 0 || run.out.contains("to which the configuration of develop sends none"),
            "{}",
            run.out
        );
        assert_eq!(trap.visits(), 0);
    }
}

#[test]
fn no_credential_goes_over_plain_http_or_to_an_unproven_server_without_a_word_of_the_step() {
    for (remote, words) in [
        (basic("http://dvc.example.com"), "over plain HTTP"),
        ("url = webdav://dvc.example.com/x\n    token = hunter22".to_owned(), "over plain HTTP"),
        ("url = s3://bucket/x\n    use_ssl = false".to_owned(), "over plain HTTP"),
        ("url = s3://bucket/x\n    endpointurl = http://dvc.example.com".to_owned(), "over plain HTTP"),
        (format!("{}\n    ssl_verify = false", basic("https://dvc.example.com")), "`ssl_verify` is off"),
        ("url = s3://bucket/x\n    ssl_verify = false".to_owned(), "`ssl_verify` is off"),
    ] {
        for action in ["train", "publish"] {
            let mut scene = Scene::new(Access::Token, &[(".dvc/config", &config(&remote))]);
            scene.set("ACTION", action).set("DVC_OUTPUTS", "m.bin").set("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE");
            if action == "train" {
                scene.set("TRAIN_COMMAND", "echo was trained");
            }
            let run = scene.run().expect(2);
            assert!(run.out.contains(words) && run.out.contains("Next: "), "{remote}: {}", run.out);
            assert!(!run.out.contains("was trained"));
        }
    }
}
