//! Servers that fail, are silent, or ask to wait: what is tried again, and for how long.

use super::{COMMIT, MARKER, PATIENCE, client, report, status};
use crate::support::is_late;
use fake_bitbucket::{ACCESS_TOKEN, FakeBitbucket, Fault};
use std::time::{Duration, Instant};
use trainspot_base::retry::RetryPolicy;
use trainspot_bitbucket::{BuildState, Client, Credential, Patience, status_of};

#[tokio::test]
async fn what_passes_is_tried_again() {
    let fake = FakeBitbucket::start();
    for fault in [
        Fault::on("PUT", "/reports").answer(500, "oops"),
        Fault::on("PUT", "/reports").answer(503, "<html><body>Down</body></html>"),
        Fault::on("PUT", "/reports").drop_before_acting(),
    ] {
        fake.next(fault);
    }
    client(&fake).put_report(COMMIT, "r", &report()).await.unwrap();
    assert_eq!(fake.count("PUT", "/reports"), 4);
}

#[tokio::test]
async fn what_does_not_pass_is_given_up() {
    let fake = FakeBitbucket::start();
    fake.next(Fault::on("PUT", "/reports").answer(503, "down").times(9));
    let error = client(&fake).put_report(COMMIT, "r", &report()).await.unwrap_err();
    assert_eq!(status_of(&error), Some(503));
    assert_eq!(fake.count("PUT", "/reports"), 4);
}

#[tokio::test]
async fn a_rate_limit_is_waited_out_as_asked() {
    for header in ["Retry-After", "X-RateLimit-Reset"] {
        let fake = FakeBitbucket::start();
        fake.next(Fault::on("POST", "/statuses").answer(429, "Rate limit").header(header, "1"));
        let start = Instant::now();
        client(&fake).set_build_status(COMMIT, &status(BuildState::Stopped)).await.unwrap();
        assert!(start.elapsed() >= Duration::from_secs(1), "{header}: {:?}", start.elapsed());
    }
}

#[tokio::test]
async fn a_rate_limit_that_lasts_too_long_is_reported_at_once() {
    let fake = FakeBitbucket::start();
    fake.next(Fault::on("POST", "/statuses").answer(429, "Rate limit").header("Retry-After", "3600"));
    let error = client(&fake).set_build_status(COMMIT, &status(BuildState::Stopped)).await.unwrap_err();
    assert!(error.render().contains("it asks to wait for 3600 s"), "{}", error.render());
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn a_silent_server_costs_one_deadline_an_attempt_and_no_more_than_the_total() {
    let fake = FakeBitbucket::start();
    fake.next(Fault::on("PUT", "/reports").delay(Duration::from_secs(30)));
    client(&fake).put_report(COMMIT, "r", &report()).await.unwrap();
    fake.next(Fault::on("PUT", "/reports").delay(Duration::from_secs(30)).times(9));
    let attempts = RetryPolicy { total: Duration::from_millis(700), ..PATIENCE.attempts };
    let hasty = client(&fake).with_patience(Patience { attempts, ..PATIENCE });
    let start = Instant::now();
    let error = hasty.put_report(COMMIT, "r", &report()).await.unwrap_err();
    assert!(!is_late(start, Duration::from_secs(3)), "{:?}", start.elapsed());
    assert!(error.render().contains("did not do it within 0.7 s"), "{}", error.render());
}

#[tokio::test]
async fn an_answer_that_is_cut_short_is_asked_for_again() {
    let fake = FakeBitbucket::start();
    let id = fake.add_pull_request("Mine", "a", "main");
    fake.next(Fault::on("GET", "/comments").cut_answer_after(10));
    client(&fake).upsert_comment(id, MARKER, MARKER).await.unwrap();
    assert_eq!((fake.count("GET", "/comments"), fake.comments().len()), (2, 1));
}

#[tokio::test]
async fn nobody_there_is_said_so() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/2.0", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::new(&url, "acme", "forest", Credential::AccessToken(ACCESS_TOKEN.into())).unwrap();
    let error = client.with_patience(PATIENCE).put_report(COMMIT, "r", &report()).await.unwrap_err();
    assert_eq!(status_of(&error), None);
    assert!(error.render().contains("Connection refused"), "{}", error.render());
}
