//! The REST client against the fake, which holds every request to Bitbucket's contract when it is dropped.

mod patience;
mod pipelines;
mod pull_requests;
mod runners;

use fake_bitbucket::{ACCESS_TOKEN, API_EMAIL, API_TOKEN, FakeBitbucket, Fault};
use serde_json::{Value, json};
use std::time::Duration;
use trainspot_base::retry::RetryPolicy;
use trainspot_bitbucket::{BuildState, BuildStatus, Client, Credential, NewPullRequest, Patience, status_of};
use trainspot_report::{Cell, Datum, Insights};

const MARKER: &str = "[trainspot:main]: https://bitbucket.org/acme/trainspot";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Everything a hundred times faster than in earnest.
const PATIENCE: Patience = Patience {
    rate_limit: Duration::ZERO,
    request: Duration::from_millis(500),
    attempts: RetryPolicy {
        attempts: 4,
        first_wait: Duration::from_millis(10),
        longest_wait: Duration::from_millis(50),
        total: Duration::from_secs(10),
    },
};

fn client_with(fake: &FakeBitbucket, credential: Credential) -> Client {
    let client = Client::new(&fake.api_url(), fake.workspace(), fake.slug(), credential);
    client.expect("a client").with_patience(PATIENCE)
}

pub(crate) fn client(fake: &FakeBitbucket) -> Client {
    client_with(fake, Credential::AccessToken(ACCESS_TOKEN.into()))
}

/// A client behind the Pipelines proxy. It asks for the real API: only the proxy knows where that is.
fn proxied(fake: &FakeBitbucket) -> Client {
    let credential = Credential::PipelinesProxy { proxy_url: fake.proxy_url() };
    let client = Client::new("https://api.bitbucket.org/2.0", fake.workspace(), fake.slug(), credential);
    client.expect("a client").with_patience(PATIENCE)
}

fn new_pull_request() -> NewPullRequest {
    NewPullRequest {
        source: "trainspot/\"main\"".into(),
        destination: "main".into(),
        title: "Train: forest".into(),
        description: "Accuracy: 0.93".into(),
        close_source_branch: true,
    }
}

fn status(state: BuildState) -> BuildStatus {
    BuildStatus {
        key: format!("trainspot-{}", "k".repeat(60)),
        state,
        name: "Training".into(),
        description: "d".repeat(400),
        url: "https://bitbucket.org/acme/forest/pipelines/results/7".into(),
        refname: Some("trainspot/main".into()),
    }
}

/// One cell of each type, in the shape that the report's room makes.
fn report() -> Value {
    let datum = |title: &str, cell| Datum { title: title.into(), cell };
    let link = Cell::Link { text: "Pipeline".into(), href: "https://bitbucket.org/p".into() };
    json!(Insights {
        title: "Training".into(),
        details: "Trained on m5.large".into(),
        report_type: "TEST",
        reporter: "trainspot",
        result: "PASSED",
        link: Some("https://bitbucket.org/acme/forest".into()),
        data: vec![
            datum("Saved", Cell::Percentage(71.5)),
            datum("Took", Cell::Duration(90_000)),
            datum("Converged", Cell::Boolean(true)),
            datum("Page", link),
            datum("Machine", Cell::Text("m5.large".into())),
            datum("Loss", Cell::Number(0.5)),
        ],
    })
}

#[tokio::test]
async fn a_pull_request_is_opened_once_and_then_left_as_it_is() {
    let fake = FakeBitbucket::start();
    // Others in the way: of other branches, and one of the same that is no longer open.
    fake.add_pull_request("Another", "other", "main");
    let declined = fake.add_pull_request("Old", "trainspot/\"main\"", "main");
    fake.decline_pull_request(declined);
    let client = client(&fake);
    let first = client.find_or_open_pull_request(&new_pull_request()).await.unwrap();
    assert_eq!((first.id, first.opened), (3, true));
    assert_eq!(first.url, "https://bitbucket.org/acme/forest/pull-requests/3");
    let changed = NewPullRequest { title: "Other".into(), description: "Other".into(), ..new_pull_request() };
    let second = client.find_or_open_pull_request(&changed).await.unwrap();
    assert_eq!((second.id, second.opened), (3, false));
    let kept = &fake.pull_requests()[2];
    assert_eq!((&*kept.title, &*kept.description), ("Train: forest", "Accuracy: 0.93"));
    assert!(kept.close_source_branch);
    assert_eq!(fake.pull_requests().len(), 3);
}

#[tokio::test]
async fn a_lost_answer_does_not_open_a_second_pull_request() {
    let fake = FakeBitbucket::start();
    fake.next(Fault::on("POST", "/pullrequests").drop_after_acting());
    let opened = client(&fake).find_or_open_pull_request(&new_pull_request()).await.unwrap();
    assert!(opened.opened, "it is ours, though its answer was lost");
    assert_eq!(fake.pull_requests().len(), 1);
    assert_eq!(fake.count("POST", "/pullrequests"), 1);
}

#[tokio::test]
async fn a_comment_is_found_on_the_third_page_and_edited() {
    let fake = FakeBitbucket::start();
    let id = fake.add_pull_request("Mine", "a", "main");
    let other = fake.add_pull_request("Another", "b", "main");
    fake.add_comment(other, MARKER);
    let deleted = fake.add_comment(id, MARKER);
    fake.delete_comment(deleted);
    for number in 0..5 {
        fake.add_comment(id, &format!("nice {number}"));
    }
    let client = client(&fake);
    let first = client.upsert_comment(id, MARKER, &format!("{MARKER}\n\none")).await.unwrap();
    let second = client.upsert_comment(id, MARKER, &format!("{MARKER}\n\ntwo")).await.unwrap();
    assert_eq!(first, second);
    let living: Vec<_> = fake.comments().into_iter().filter(|c| c.pull_request == id && !c.deleted).collect();
    assert_eq!(living.len(), 6);
    assert_eq!(living[5].body, format!("{MARKER}\n\ntwo"));
    assert_eq!(fake.count("GET", "/comments"), 6, "three pages, twice");
}

#[tokio::test]
async fn a_lost_answer_does_not_leave_two_comments() {
    let fake = FakeBitbucket::start();
    let id = fake.add_pull_request("Mine", "a", "main");
    fake.next(Fault::on("POST", "/comments").drop_after_acting());
    client(&fake).upsert_comment(id, MARKER, MARKER).await.unwrap();
    assert_eq!(fake.comments().len(), 1);
    // A front end that gives up tells no more than a dropped connection.
    fake.next(Fault::on("PUT", "/comments").answer(504, "<html><body>Gateway Time-out</body></html>"));
    client(&fake).upsert_comment(id, MARKER, MARKER).await.unwrap();
    assert_eq!(fake.comments().len(), 1);
}

/// A contributor may write our marker as often as he likes, before and after us; our report stays one
/// comment, and his stay his.
#[tokio::test]
async fn a_marker_in_somebody_elses_comment_is_not_ours() {
    let fake = FakeBitbucket::start();
    let id = fake.add_pull_request("Mine", "a", "main");
    let forged = format!("{MARKER}\n\nforged");
    let quoting = format!("Look at this:\n\n{MARKER}");
    let client = client(&fake);
    fake.add_comment(id, &forged);
    let first = client.upsert_comment(id, MARKER, MARKER).await.unwrap();
    for number in 0..3 {
        fake.add_comment(id, &forged);
        fake.add_comment_of(&format!("{{another-{number}}}"), id, &forged);
        // Of the identity whose token we have: a person's own words.
        fake.add_comment_of(&fake.comments()[1].author, id, &quoting);
        let body = format!("{MARKER}\n\nrun {number}");
        assert_eq!(client.upsert_comment(id, MARKER, &body).await.unwrap(), first);
    }
    let bodies: Vec<_> = fake.comments().into_iter().map(|comment| comment.body).collect();
    let count = |body: &str| bodies.iter().filter(|other| *other == body).count();
    assert_eq!((bodies.len(), count(&forged), count(&quoting)), (11, 7, 3), "{bodies:?}");
    assert_eq!(bodies[1], format!("{MARKER}\n\nrun 2"));
    assert_eq!(fake.count("POST", "/comments"), 1);
    // One request for each author, however many comments he wrote.
    assert_eq!(fake.count("PUT", "/comments/"), 1 + 3 + 4 + 5);
}

#[tokio::test]
async fn the_comment_of_an_earlier_token_is_replaced_by_one_of_our_own_once() {
    let fake = FakeBitbucket::start();
    let id = fake.add_pull_request("Mine", "a", "main");
    fake.add_comment_of("{an earlier token}", id, MARKER);
    let client = client(&fake);
    client.upsert_comment(id, MARKER, MARKER).await.unwrap();
    client.upsert_comment(id, MARKER, &format!("{MARKER} new")).await.unwrap();
    let bodies: Vec<_> = fake.comments().into_iter().map(|comment| comment.body).collect();
    assert_eq!(bodies, [MARKER, &format!("{MARKER} new")]);
}

#[tokio::test]
async fn a_status_replaces_the_one_before_and_fits() {
    let fake = FakeBitbucket::start();
    let client = client(&fake);
    client.set_build_status(COMMIT, &status(BuildState::InProgress)).await.unwrap();
    client.set_build_status(COMMIT, &status(BuildState::Successful)).await.unwrap();
    let [status] = &*fake.statuses() else { panic!("one status") };
    assert_eq!(status.commit, COMMIT);
    assert_eq!(status.key.len(), 40);
    assert_eq!(status.body["state"], "SUCCESSFUL");
    assert_eq!(status.body["refname"], "trainspot/main");
}

#[tokio::test]
async fn a_report_needs_no_token_behind_the_proxy() {
    let fake = FakeBitbucket::start();
    proxied(&fake).put_report(COMMIT, "trainspot", &report()).await.unwrap();
    let [put] = &*fake.reports() else { panic!("one report") };
    assert_eq!((&*put.commit, &*put.id), (COMMIT, "trainspot"));
    assert_eq!(put.body["data"].as_array().unwrap().len(), 6);
    assert_eq!(put.body["data"][5]["value"], 0.5);
    let [request] = &*fake.requests() else { panic!("one request") };
    assert!(request.through_proxy && request.absolute && request.authorization.is_none());
    assert_eq!(request.user_agent.as_deref(), Some(concat!("trainspot/", env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn the_proxy_allows_nothing_else_and_the_error_says_what_to_set() {
    let fake = FakeBitbucket::start();
    let error = proxied(&fake).set_build_status(COMMIT, &status(BuildState::Failed)).await.unwrap_err();
    assert_eq!(status_of(&error), Some(401));
    assert!(error.render().contains("set BITBUCKET_ACCESS_TOKEN"), "{}", error.render());
}

#[tokio::test]
async fn both_kinds_of_token_are_accepted() {
    let fake = FakeBitbucket::start();
    let api = Credential::ApiToken { email: API_EMAIL.into(), token: API_TOKEN.into() };
    client_with(&fake, api).put_report(COMMIT, "{r/1}", &report()).await.unwrap();
    client(&fake).put_report(COMMIT, "{r/1}", &report()).await.unwrap();
    let [put] = &*fake.reports() else { panic!("one report") };
    assert_eq!(put.id, "{r/1}");
}

#[tokio::test]
async fn a_refusal_names_what_where_why_and_what_to_check() {
    let refusals = [
        (
            401,
            r#"{"type":"error","error":{"message":"Token is invalid"}}"#,
            "Token is invalid",
            "BITBUCKET_ACCESS_TOKEN",
        ),
        (403, r#"{"error":"lacks privilege"}"#, "lacks privilege", "pullrequest:write on acme/forest"),
        (404, "Repository not found", "Repository not found", "acme/forest exists"),
        (400, "<!DOCTYPE html><html><body><h1>Bad Request (400)</h1></body></html>", "Bad Request (400)", ""),
    ];
    for (code, body, why, advice) in refusals {
        let fake = FakeBitbucket::start();
        fake.next(Fault::on("POST", "/pullrequests").answer(code, body).times(9));
        let error = client(&fake).find_or_open_pull_request(&new_pull_request()).await.unwrap_err();
        let text = error.render();
        assert_eq!(status_of(&error), Some(code));
        assert_eq!(fake.count("POST", "/pullrequests"), 1, "a refusal is final");
        let expected =
            ["cannot open a pull request from trainspot/\"main\" to main in acme/forest", why, advice];
        assert!(expected.iter().all(|part| text.contains(part)), "{text}");
        assert!(!text.contains('<') && !text.contains(ACCESS_TOKEN), "{text}");
    }
}

#[tokio::test]
async fn a_field_at_fault_is_named() {
    let fake = FakeBitbucket::start();
    let same = NewPullRequest { source: "main".into(), ..new_pull_request() };
    let error = client(&fake).find_or_open_pull_request(&same).await.unwrap_err();
    assert!(
        error.render().contains("destination: source and destination are the same"),
        "{}",
        error.render()
    );
}

#[tokio::test]
async fn a_wrong_token_is_refused() {
    let fake = FakeBitbucket::start();
    let wrong = client_with(&fake, Credential::AccessToken("wrong".into()));
    let error = wrong.set_build_status(COMMIT, &status(BuildState::Failed)).await.unwrap_err();
    assert_eq!(status_of(&error), Some(401));
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn the_token_goes_to_no_other_host() {
    let (fake, other) = (FakeBitbucket::start(), FakeBitbucket::start());
    let id = fake.add_pull_request("Mine", "a", "main");
    let elsewhere = format!("{}/repositories/acme/forest/pullrequests/1/comments?page=2", other.api_url());
    let page = format!(r#"{{"values":[],"next":"{elsewhere}"}}"#);
    fake.next(Fault::on("GET", "/comments").answer(200, &page));
    let error = client(&fake).upsert_comment(id, MARKER, MARKER).await.unwrap_err();
    assert!(error.render().contains("next page is on another host"), "{}", error.render());
    for code in [301, 307, 308] {
        fake.next(Fault::on("POST", "/statuses").answer(code, "").header("Location", &elsewhere));
        let error = client(&fake).set_build_status(COMMIT, &status(BuildState::Failed)).await.unwrap_err();
        assert!(error.render().contains(&elsewhere), "{}", error.render());
    }
    assert!(other.requests().is_empty());
}

#[tokio::test]
async fn pages_that_lead_in_circles_come_to_an_end() {
    let fake = FakeBitbucket::start();
    let id = fake.add_pull_request("Mine", "a", "main");
    let next = format!("{}/repositories/acme/forest/pullrequests/1/comments?page=2", fake.api_url());
    fake.next(
        Fault::on("GET", "/comments").answer(200, &format!(r#"{{"values":[],"next":"{next}"}}"#)).times(999),
    );
    let error = client(&fake).upsert_comment(id, MARKER, MARKER).await.unwrap_err();
    assert!(error.render().contains("more than 100 pages"), "{}", error.render());
    assert_eq!(fake.comments().len(), 0);
}

#[tokio::test]
async fn a_step_is_over_when_it_is_completed() {
    let fake = FakeBitbucket::start();
    for (state, over) in [("PENDING", false), ("IN_PROGRESS", false), ("COMPLETED", true)] {
        fake.set_step("{a-1}", "{b-2}", state);
        assert_eq!(client(&fake).step_is_over("a-1", "b-2").await.unwrap(), Some(over), "{state}");
    }
    assert_eq!(client(&fake).step_is_over("a-1", "c-3").await.unwrap(), None);
    fake.next(Fault::on("GET", "/pipelines/").answer(403, r#"{"error":"no scope"}"#).times(9));
    let error = client(&fake).step_is_over("a-1", "b-2").await.unwrap_err().render();
    assert!(error.contains("the token needs the scope pipeline on acme/"), "{error}");
}
