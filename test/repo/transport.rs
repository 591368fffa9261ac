//! Credentials, the proxy, and a network that misbehaves.

use super::*;
use crate::support::is_late;
use fake_bitbucket::{API_TOKEN, Fault};
use std::time::{Duration, Instant};

const RECEIVE: &str = "git-receive-pack";

fn token(world: &World, username: &'static str, secret: &str) -> GitRemote {
    GitRemote { url: world.fake.git_url(), access: Access::Token { username, secret: secret.into() } }
}

#[tokio::test]
async fn both_kinds_of_token_and_the_proxy_are_let_in() {
    let world = World::new();
    let proxy = Access::Proxy { url: world.fake.proxy_url() };
    let remotes = [
        token(&world, "x-token-auth", ACCESS_TOKEN),
        token(&world, "x-bitbucket-api-token-auth", API_TOKEN),
        GitRemote { url: world.fake.http_origin(), access: proxy },
    ];
    for (number, remote) in remotes.iter().enumerate() {
        let seen = remote.check().await.unwrap();
        world.write("model/forest.bin", format!("forest {number}").as_bytes());
        let publication = Publication { seen, ..publication(pull_request()) };
        let (commit, ..) = pushed(world.publish_to(remote, publication).await);
        assert_eq!(world.bare.head(BRANCH), Some(commit));
    }
    assert_eq!(world.count(BRANCH), 63);
}

#[tokio::test]
async fn who_is_not_let_in_learns_which_variable_to_look_at() {
    let world = World::new();
    let anonymous = GitRemote { url: world.fake.git_url(), access: Access::Anonymous };
    let cases = [
        (token(&world, "x-token-auth", "wrong-secret"), "check BITBUCKET_ACCESS_TOKEN"),
        (token(&world, "x-bitbucket-api-token-auth", "wrong-secret"), "check ATLASSIAN_API_TOKEN"),
        (anonymous, "set BITBUCKET_ACCESS_TOKEN"),
    ];
    for (remote, hint) in cases {
        let checked = remote.check().await.unwrap_err().render();
        let text = failed(world.publish_to(&remote, publication(pull_request())).await).render();
        assert_eq!(checked, text);
        assert!(text.contains("401") && text.contains(hint), "{text}");
        assert!(!text.contains("wrong-secret"), "{text}");
    }
    let mut elsewhere = world.by_token();
    elsewhere.url = elsewhere.url.replace(world.fake.slug(), "other");
    let text = failed(world.publish_to(&elsewhere, publication(pull_request())).await).render();
    assert!(text.contains("404") && text.contains("it must belong to this repository"), "{text}");
    assert_eq!(world.fake.count("POST", RECEIVE), 0);
}

#[tokio::test]
async fn a_refusal_is_told_in_the_servers_words() {
    let world = World::new();
    world.bare.reject_pushes_to("main");
    let text = failed(world.publish(push()).await).render();
    assert!(text.contains("Permission denied to update branch main."), "{text}");
    assert!(text.contains("pre-receive hook declined"), "{text}");
    assert!(text.contains("use PUBLISH: pull-request"), "{text}");
    assert_eq!(world.fake.count("POST", RECEIVE), 1, "a refusal is final");
    pushed(world.publish(pull_request()).await);
}

#[tokio::test]
async fn a_deep_history_stays_where_it_is() {
    let world = World::with_commits(3000);
    assert_eq!(world.git_in_clone(&["rev-list", "--count", "HEAD"]).trim(), "50");
    pushed(world.publish(pull_request()).await);
    assert_eq!(world.count(BRANCH), 3001);
    // A branch that left main long before the clone's first commit, and a main that moved on.
    let old = world.bare.git(&["rev-parse", "main~2000"]);
    world.bare.git(&["branch", "old", &old]);
    world.bare.commit("main", "meanwhile", &[("other.txt", b"o")]);
    let destination = Destination::PullRequest { branch: "old".into(), target: None };
    let (commit, ..) = pushed(world.publish(destination).await);
    assert_eq!(world.bare.git(&["rev-parse", &format!("{commit}^")]), old);
    pushed(world.publish(push()).await);
    assert_eq!(world.count("main"), 3002);
    world.bare.git(&["fsck", "--strict"]);
}

#[tokio::test]
async fn a_large_file_that_others_pushed_is_not_fetched() {
    let world = World::new();
    world.bare.git(&["config", "uploadpack.allowFilter", "true"]);
    world.bare.commit("main", "a large file", &[("large.bin", &bytes_of(30_000_000))]);
    // The answer would be cut if it came.
    world.fake.next(Fault::on("POST", "git-upload-pack").cut_answer_after(1_000_000).times(5));
    let (commit, ..) = pushed(world.publish(push()).await);
    assert_eq!(world.changes(&commit), ["A\tmodel/forest.bin", "A\tmodel/metrics.json"]);
}

#[tokio::test]
async fn what_the_clone_has_is_not_fetched_again() {
    let world = World::new();
    world.bare.commit("main", "a large file", &[("large.bin", &bytes_of(5_000_000))]);
    world.bare.commit("main", "another", &[("other.txt", b"o")]);
    fs::remove_dir_all(world.clone()).unwrap();
    world.fake.clone_as_pipelines("main", &world.clone());
    world.write("model/forest.bin", b"forest 1");
    world.write("model/metrics.json", b"{}");
    world.bare.commit("main", "meanwhile", &[("other.txt", b"p")]);
    // The answer would be cut if it held the large file.
    world.fake.next(Fault::on("POST", "git-upload-pack").cut_answer_after(100_000).times(5));
    pushed(world.publish(push()).await);
    let again = Destination::PullRequest { branch: "main".into(), target: Some("none".into()) };
    assert!(matches!(world.publish(again).await.unwrap(), Published::Unchanged { .. }));
}

#[tokio::test]
async fn a_model_that_the_remote_has_is_not_sent_again() {
    let world = World::new();
    let model = bytes_of(5_000_000);
    world.bare.commit("main", "the model", &[("model/forest.bin", &model)]);
    fs::remove_dir_all(world.clone()).unwrap();
    world.fake.clone_as_pipelines("main", &world.clone());
    world.write("model/metrics.json", b"{}");
    world.fake.next(Fault::on("POST", RECEIVE).cut_request_after(100_000).times(5));
    let (commit, ..) = pushed(world.publish(pull_request()).await);
    assert_eq!(world.changes(&commit), ["A\tmodel/metrics.json"]);
}

#[tokio::test]
async fn a_repository_that_was_renamed_is_followed() {
    let world = World::new();
    let mut renamed = world.by_token();
    renamed.url = renamed.url.replace(world.fake.slug(), "old-name");
    let now = format!("{}/info/refs?service=git-upload-pack", world.fake.git_url());
    world.fake.next(Fault::on("GET", "old-name").answer(301, "moved").header("location", &now));
    pushed(world.publish_to(&renamed, publication(pull_request())).await);
}

#[tokio::test]
async fn commits_that_only_the_clone_has_are_named_as_the_cause() {
    let world = World::new();
    let who = ["-c", "user.name=a", "-c", "user.email=a@example.com"];
    world.git_in_clone(&[&who[..], &["commit", "--quiet", "--allow-empty", "-m", "local"]].concat());
    let text = failed(world.publish(pull_request()).await).render();
    assert!(text.contains("the clone has commits that the remote lacks"), "{text}");
}

#[tokio::test]
async fn a_connection_cut_during_the_push_is_opened_again() {
    let world = World::new();
    let model = bytes_of(5_000_000);
    world.write("model/forest.bin", &model);
    world.fake.next(Fault::on("POST", RECEIVE).cut_request_after(1_000_000));
    let (commit, ..) = pushed(world.publish(pull_request()).await);
    assert_eq!(world.bare.file(&commit, "model/forest.bin").unwrap(), model);
    assert_eq!(world.fake.count("POST", RECEIVE), 2);
}

#[tokio::test]
async fn a_push_whose_answer_is_lost_is_not_made_twice() {
    let world = World::new();
    for destination in [pull_request(), push()] {
        world.fake.next(Fault::on("POST", RECEIVE).drop_after_acting());
        pushed(world.publish(destination).await);
    }
    assert_eq!((world.count(BRANCH), world.count("main")), (61, 61));
    assert_eq!(world.fake.count("POST", RECEIVE), 2);
}

#[tokio::test]
async fn a_server_that_stays_broken_is_an_error_in_the_end() {
    let world = World::new();
    let before = world.fake.count("GET", "info/refs");
    world.fake.next(Fault::on("GET", "info/refs").answer(503, "down for maintenance").times(9));
    let text = failed(world.publish(pull_request()).await).render();
    assert!(text.contains("503") && text.contains("down for maintenance"), "{text}");
    assert_eq!(world.fake.count("GET", "info/refs") - before, 5);
}

#[tokio::test]
async fn a_credential_does_not_follow_a_redirect_to_another_host() {
    let (world, other) = (World::new(), World::new());
    let before = other.fake.requests().len();
    let elsewhere = format!("{}/info/refs?service=git-upload-pack", other.fake.git_url());
    world.fake.next(Fault::on("GET", "info/refs").answer(302, "moved").header("location", &elsewhere));
    let text = failed(world.publish(pull_request()).await).render();
    assert!(text.contains("302") && text.contains(&elsewhere), "{text}");
    assert_eq!(other.fake.requests().len(), before);
}

#[tokio::test]
async fn what_is_not_git_is_said_to_be_so() {
    let world = World::new();
    world.fake.next(Fault::on("GET", "info/refs").answer(200, "<html>Log in</html>").times(9));
    let text = failed(world.publish(pull_request()).await).render();
    assert!(text.contains("not git's protocol"), "{text}");
}

#[tokio::test]
async fn dropping_the_publication_stops_it() {
    let world = World::new();
    world.fake.next(Fault::on("POST", RECEIVE).delay(Duration::from_secs(30)));
    let start = Instant::now();
    let publishing = tokio::time::timeout(Duration::from_secs(3), world.publish(pull_request())).await;
    assert!(publishing.is_err(), "it ended too early");
    while exists(&world.clone().join(".git/trainspot")) {
        assert!(!is_late(start, Duration::from_secs(10)), "it goes on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(world.bare.head(BRANCH), None);
}

#[tokio::test]
async fn a_model_just_below_the_limit() {
    let world = World::new();
    let model = bytes_of(95_000_000);
    world.write("model/forest.bin", &model);
    let (commit, ..) = pushed(world.publish(pull_request()).await);
    assert!(world.bare.file(&commit, "model/forest.bin").unwrap() == model, "other bytes arrived");
    world.bare.git(&["fsck", "--strict"]);
}
