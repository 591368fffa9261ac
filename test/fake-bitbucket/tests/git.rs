//! Git, the real one, against the fake: what a step's clone can do with a token, and through the proxy.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use fake_bitbucket::{ACCESS_TOKEN, API_TOKEN, BareRepository, FakeBitbucket, Fault};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// A fake in front of a repository with 60 commits, and the directory that holds both it and clones.
fn served() -> (TempDir, BareRepository, FakeBitbucket) {
    let directory = tempfile::tempdir().unwrap();
    let repository = BareRepository::create(&directory.path().join("forest.git"), 60);
    let fake = FakeBitbucket::serving(&repository);
    (directory, repository, fake)
}

/// Runs git; what it printed, on success or failure.
fn git(directory: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("git");
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0");
    let output = command.arg("-C").arg(directory).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    if output.status.success() { Ok(text) } else { Err(text) }
}

fn commit_file(clone: &Path, name: &str, content: &[u8]) {
    std::fs::write(clone.join(name), content).unwrap();
    git(clone, &["add", name]).unwrap();
    git(clone, &["commit", "--quiet", "-m", name]).unwrap();
}

fn proxied(fake: &FakeBitbucket) -> String {
    format!("http.{}.proxy={}", fake.http_origin(), fake.proxy_url())
}

#[test]
fn a_clone_is_as_pipelines_makes_it() {
    let (directory, repository, fake) = served();
    let clone = directory.path().join("clone");
    fake.clone_as_pipelines("main", &clone);
    assert_eq!(git(&clone, &["rev-list", "--count", "HEAD"]).unwrap(), "50");
    assert_eq!(git(&clone, &["rev-parse", "HEAD"]).unwrap(), repository.head("main").unwrap());
    assert_eq!(git(&clone, &["remote", "get-url", "origin"]).unwrap(), "http://bitbucket.org/acme/forest");
    assert_eq!(git(&clone, &["symbolic-ref", "--short", "HEAD"]).unwrap(), "main");
    let config = std::fs::read_to_string(clone.join(".git/config")).unwrap();
    assert!(!config.contains(ACCESS_TOKEN), "{config}");
}

#[test]
fn a_large_push_goes_through_the_proxy_without_credentials() {
    let (directory, repository, fake) = served();
    let clone = directory.path().join("clone");
    fake.clone_as_pipelines("main", &clone);
    // Noise does not compress: the pack is as large, and git sends it in chunks.
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56).to_le_bytes()[0]
    })
    .take(20 << 20)
    .collect();
    commit_file(&clone, "model.bin", &noise);
    git(&clone, &["-c", &proxied(&fake), "push", "origin", "HEAD:refs/heads/trained"]).unwrap();
    assert_eq!(repository.file("trained", "model.bin").unwrap(), noise);
    let pushes: Vec<_> =
        fake.requests().into_iter().filter(|r| r.method == "POST" && r.through_proxy).collect();
    assert!(!pushes.is_empty() && pushes.iter().all(|push| push.absolute && push.authorization.is_none()));
}

#[test]
fn a_push_without_the_proxy_needs_a_token() {
    let (directory, repository, fake) = served();
    let clone = directory.path().join("clone");
    fake.clone_as_pipelines("main", &clone);
    commit_file(&clone, "a.txt", b"a");
    let refused = git(&clone, &["push", &fake.git_url(), "HEAD:refs/heads/a"]).unwrap_err();
    assert!(refused.contains("could not read Username"), "{refused}");
    let user = format!("http://x-bitbucket-api-token-auth:{API_TOKEN}@");
    git(&clone, &["push", &fake.git_url().replace("http://", &user), "HEAD:refs/heads/a"]).unwrap();
    assert_eq!(repository.file("a", "a.txt").unwrap(), b"a");
}

#[test]
fn a_restricted_branch_declines_a_push_with_bitbuckets_words() {
    let (directory, repository, fake) = served();
    repository.reject_pushes_to("main");
    let clone = directory.path().join("clone");
    fake.clone_as_pipelines("main", &clone);
    commit_file(&clone, "a.txt", b"a");
    let declined = git(&clone, &["-c", &proxied(&fake), "push", "origin", "main"]).unwrap_err();
    assert!(declined.contains("remote: Permission denied to update branch main."), "{declined}");
    assert!(declined.contains("pre-receive hook declined"), "{declined}");
    git(&clone, &["-c", &proxied(&fake), "push", "origin", "main:other"]).unwrap();
}

#[test]
fn somebody_elses_push_makes_ours_stale() {
    let (directory, repository, fake) = served();
    let clone = directory.path().join("clone");
    fake.clone_as_pipelines("main", &clone);
    let theirs = repository.commit("main", "theirs", &[("b.txt", b"b\n")]);
    commit_file(&clone, "a.txt", b"a");
    let stale = git(&clone, &["-c", &proxied(&fake), "push", "origin", "main"]).unwrap_err();
    assert!(stale.contains("fetch first"), "{stale}");
    git(&clone, &["-c", &proxied(&fake), "fetch", "origin", "main"]).unwrap();
    assert_eq!(git(&clone, &["rev-parse", "FETCH_HEAD"]).unwrap(), theirs);
    assert_eq!(repository.file("main", "README.md").unwrap(), b"# Forest\n");
}

#[test]
fn a_compressed_request_is_understood() {
    let (directory, repository, fake) = served();
    let clone = directory.path().join("clone");
    fake.clone_as_pipelines("main", &clone);
    // Git compresses what it asks for once it is longer than 1 KiB, which it is with this many commits to
    // offer.
    for number in 0..40 {
        git(&clone, &["commit", "--quiet", "--allow-empty", "-m", &number.to_string()]).unwrap();
    }
    repository.commit("main", "theirs", &[("b.txt", b"b\n")]);
    git(&clone, &["-c", &proxied(&fake), "fetch", "origin", "main"]).unwrap();
    assert!(fake.requests().iter().any(|request| request.encoding.as_deref() == Some("gzip")));
}

#[test]
fn a_connection_that_is_cut_either_way_moves_no_branch() {
    let (directory, repository, fake) = served();
    let clone = directory.path().join("clone");
    fake.clone_as_pipelines("main", &clone);
    commit_file(&clone, "a.bin", &(0..=255).cycle().take(3 << 20).collect::<Vec<u8>>());
    for fault in [
        Fault::on("POST", "git-receive-pack").cut_request_after(100),
        Fault::on("GET", "git-receive-pack").cut_answer_after(20),
        Fault::on("POST", "git-receive-pack").drop_before_acting(),
    ] {
        // More than once: curl tries again by itself where a kept connection ends without an answer.
        fake.next(fault.times(5));
        git(&clone, &["-c", &proxied(&fake), "push", "origin", "HEAD:refs/heads/cut"]).unwrap_err();
        assert_eq!(repository.head("cut"), None);
        fake.forget_faults();
    }
    fake.next(Fault::on("POST", "git-receive-pack").drop_after_acting());
    git(&clone, &["-c", &proxied(&fake), "push", "origin", "HEAD:refs/heads/cut"]).unwrap_err();
    assert!(repository.head("cut").is_some(), "the push was acted upon, though nobody was told");
}

#[test]
fn the_proxy_serves_bitbucket_only() {
    let (directory, _repository, fake) = served();
    let proxy = format!("http.proxy={}", fake.proxy_url());
    let refused = git(directory.path(), &["-c", &proxy, "ls-remote", "http://elsewhere.example/acme/forest"]);
    assert!(refused.as_ref().unwrap_err().contains("403"), "{refused:?}");
}
