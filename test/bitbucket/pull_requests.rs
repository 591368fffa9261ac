//! Pull requests: their reviewers, and titles that are too long.

use super::{COMMIT, client, new_pull_request, status};
use fake_bitbucket::{FakeBitbucket, Fault};
use trainspot_bitbucket::{BuildState, BuildStatus, NewPullRequest, status_of};

#[tokio::test]
async fn default_reviewers_are_asked_but_the_author_is_not() {
    let fake = FakeBitbucket::start();
    let people = [("{1}", "Grace"), ("{2}", "Ada"), ("{3}", "Edsger")];
    for (uuid, name) in people {
        fake.add_default_reviewer(uuid, name);
    }
    client(&fake).find_or_open_pull_request(&new_pull_request()).await.unwrap();
    assert_eq!(fake.pull_requests()[0].reviewers, ["{1}", "{3}"]);
    // Nobody is asked where the list of them cannot be had.
    fake.decline_pull_request(1);
    fake.next(Fault::on("GET", "/effective-default-reviewers").answer(403, r#"{"error":"no"}"#));
    client(&fake).find_or_open_pull_request(&new_pull_request()).await.unwrap();
    assert!(fake.pull_requests()[1].reviewers.is_empty());
}

#[tokio::test]
async fn a_refusal_that_names_no_reviewer_asks_nobody() {
    let fake = FakeBitbucket::start();
    fake.add_default_reviewer("{1}", "Grace");
    let refusal = r#"{"type":"error","error":{"message":"Malformed reviewers list"}}"#;
    fake.next(Fault::on("POST", "/pullrequests").answer(400, refusal));
    client(&fake).find_or_open_pull_request(&new_pull_request()).await.unwrap();
    assert!(fake.pull_requests()[0].reviewers.is_empty());
    fake.decline_pull_request(1);
    fake.next(Fault::on("POST", "/pullrequests").answer(400, r#"{"error":"the branch is odd"}"#));
    let error = client(&fake).find_or_open_pull_request(&new_pull_request()).await.unwrap_err();
    assert_eq!((status_of(&error), fake.pull_requests().len()), (Some(400), 1));
}

#[tokio::test]
async fn a_long_title_is_cut_by_characters() {
    let fake = FakeBitbucket::start();
    let new = NewPullRequest { title: "ü".repeat(300), ..new_pull_request() };
    client(&fake).find_or_open_pull_request(&new).await.unwrap();
    assert_eq!(fake.pull_requests()[0].title, "ü".repeat(254) + "…");
    let status = BuildStatus { name: "ü".repeat(300), ..status(BuildState::Failed) };
    client(&fake).set_build_status(COMMIT, &status).await.unwrap();
    assert_eq!(fake.statuses()[0].body["name"].as_str().unwrap().chars().count(), 255);
}
