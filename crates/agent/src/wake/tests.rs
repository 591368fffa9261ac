//! Both ways of waking, at servers that refuse, fail, and lose answers.

use super::test_server::{SeenRequest, TestReply, TestServer};
use super::*;
use serde_json::{Value, json};
use trainspot_protocol::WakeBus;

const TOKEN: &str = "s3cret-t0ken";
/// A hundred times faster than in earnest.
const ATTEMPTS: RetryPolicy = RetryPolicy {
    attempts: 4,
    first_wait: Duration::from_millis(5),
    longest_wait: Duration::from_millis(20),
    total: Duration::from_secs(10),
};
const TAKEN: &str = r#"{"FailedEntryCount":0,"Entries":[{"EventId":"1"}]}"#;

fn spec(bitbucket: Option<&TestServer>, bus: Option<&TestServer>) -> WakeSpec {
    WakeSpec {
        workspace: "acme".into(),
        repo_slug: "forest".into(),
        pipeline: "train it".into(),
        commit: "c0ffee".into(),
        branch: Some("topic".into()),
        bitbucket: bitbucket.map(|server| WakeToken { api_url: server.url.clone(), token: TOKEN.into() }),
        bus: bus.map(|server| WakeBus {
            bus: "wake".into(),
            region: "eu-west-1".into(),
            endpoint: Some(server.url.clone()),
        }),
    }
}

async fn woken(spec: &WakeSpec) -> Result<()> {
    let keys =
        BucketCredentials::Keys { id: "AKID".into(), secret: "s3cret-key".into(), session_token: None };
    let call = WakeCall { spec, run: "run-1", reason: WakeReason::Notice, credentials: &keys };
    call.run(ATTEMPTS).await
}

/// No status: the answer is lost.
const LOST: u16 = 0;

fn reply(status: u16, body: &str) -> TestReply {
    if status == LOST { TestReply::Lost } else { TestReply::Answer(status, body.to_owned()) }
}

/// A Bitbucket whose answers to `POST` are these, one after the other; it has the pipelines that it said it
/// started, and those whose answer it lost.
async fn bitbucket(answers: &'static [u16]) -> TestServer {
    let sent = |seen: &[SeenRequest]| seen.iter().filter(|request| request.method == "POST").count();
    TestServer::start(move |request, seen| {
        if request.method == "GET" {
            let posts = seen.iter().filter(|request| request.method == "POST");
            let there = posts.zip(answers).filter(|(_, status)| matches!(**status, LOST | 201));
            let there = there.map(|(post, _)| {
                let body: Value = serde_json::from_str(&post.body).unwrap();
                json!({ "uuid": "{x}", "build_number": 7, "variables": body["variables"] })
            });
            return reply(200, &json!({ "values": there.collect::<Vec<_>>() }).to_string());
        }
        match answers[sent(seen)] {
            201 => reply(201, r#"{"uuid":"{x}","build_number":7}"#),
            status => reply(status, &format!(r#"{{"error":{{"message":"no {TOKEN}"}}}}"#)),
        }
    })
    .await
}

/// A bus whose answers are these, one after the other.
async fn bus(answers: &'static [(u16, &'static str)]) -> TestServer {
    TestServer::start(move |_, seen| {
        let (status, body) = answers[seen.len()];
        reply(status, body)
    })
    .await
}

fn body(request: &SeenRequest) -> Value {
    serde_json::from_str(&request.body).unwrap()
}

#[tokio::test]
async fn bitbucket_starts_the_pipeline_at_the_runs_commit() {
    let server = bitbucket(&[201]).await;
    woken(&spec(Some(&server), None)).await.unwrap();
    let [post] = &*server.seen("POST") else { panic!("one pipeline") };
    assert_eq!(post.path, "/repositories/acme/forest/pipelines/");
    assert_eq!(post.header("authorization"), format!("Bearer {TOKEN}"));
    let body = body(post);
    let expected = json!({
        "type": "pipeline_ref_target", "ref_type": "branch", "ref_name": "topic",
        "commit": { "type": "commit", "hash": "c0ffee" },
        "selector": { "type": "custom", "pattern": "train it" },
    });
    assert_eq!(body["target"], expected);
    assert_eq!(body["variables"][0], json!({ "key": "TRAINSPOT_RUN", "value": "run-1", "secured": false }));
}

#[tokio::test]
async fn a_commit_stands_alone_where_there_is_no_branch_or_none_any_more() {
    let commit = json!({
        "type": "pipeline_commit_target",
        "commit": { "type": "commit", "hash": "c0ffee" },
        "selector": { "type": "custom", "pattern": "train it" },
    });
    let server = bitbucket(&[201]).await;
    woken(&WakeSpec { branch: None, ..spec(Some(&server), None) }).await.unwrap();
    assert_eq!(body(&server.seen("POST")[0])["target"], commit);
    let server = bitbucket(&[404, 201]).await;
    woken(&spec(Some(&server), None)).await.unwrap();
    let posts = server.seen("POST");
    assert_eq!(body(&posts[0])["target"]["ref_name"], "topic");
    assert_eq!(body(&posts[1])["target"], commit);
}

#[tokio::test]
async fn bitbucket_is_asked_again_while_that_may_help() {
    let server = bitbucket(&[429, 503, 201]).await;
    woken(&spec(Some(&server), None)).await.unwrap();
    assert_eq!(server.seen("POST").len(), 3);
    let server = bitbucket(&[503; 4]).await;
    let error = woken(&spec(Some(&server), None)).await.unwrap_err().render();
    assert!(error.contains("503"), "{error}");
    assert_eq!(server.seen("POST").len(), 4);
}

#[tokio::test]
async fn a_lost_answer_of_bitbucket_starts_no_second_pipeline() {
    let server = bitbucket(&[LOST]).await;
    woken(&spec(Some(&server), None)).await.unwrap();
    assert_eq!(server.seen("POST").len(), 1);
    // The next wake of the same run is another one.
    let server = bitbucket(&[201, 201]).await;
    woken(&spec(Some(&server), None)).await.unwrap();
    woken(&spec(Some(&server), None)).await.unwrap();
    assert_eq!(server.seen("POST").len(), 2);
}

#[tokio::test]
async fn a_refusal_is_final_and_shows_no_token() {
    for (answers, tries) in [(&[401][..], 1), (&[403], 1), (&[404, 404], 2)] {
        let server = bitbucket(answers).await;
        let error = woken(&spec(Some(&server), None)).await.unwrap_err();
        assert_eq!(server.seen("POST").len(), tries, "{answers:?}");
        let (shown, debug) = (error.render(), format!("{error:?}"));
        assert!(shown.starts_with("cannot wake the run run-1"), "{shown}");
        assert!(shown.contains(&answers[0].to_string()) && shown.contains("no $WAKE_TOKEN"), "{shown}");
        assert_eq!(shown.contains("the scope pipeline:write on acme/forest"), answers[0] != 404, "{shown}");
        assert!(!debug.contains(TOKEN) && !shown.contains(TOKEN), "{debug}");
    }
}

#[tokio::test]
async fn the_bus_gets_a_signed_event() {
    let server = bus(&[(200, TAKEN)]).await;
    woken(&spec(None, Some(&server))).await.unwrap();
    let [put] = &*server.seen("POST") else { panic!("one event") };
    assert_eq!(put.header("x-amz-target"), "AWSEvents.PutEvents");
    assert_eq!(put.header("content-type"), "application/x-amz-json-1.1");
    let authorization = put.header("authorization");
    assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKID/"), "{authorization}");
    assert!(authorization.contains("/eu-west-1/events/aws4_request"), "{authorization}");
    assert_eq!(put.header("x-amz-content-sha256").len(), 64);
    let body = body(put);
    let [entry] = &**body["Entries"].as_array().unwrap() else { panic!("one entry") };
    assert_eq!(
        (&entry["Source"], &entry["DetailType"], &entry["EventBusName"]),
        (&json!("trainspot"), &json!("Trainspot run is due"), &json!("wake"))
    );
    let detail: Value = serde_json::from_str(entry["Detail"].as_str().unwrap()).unwrap();
    let mut expected = json!({
        "workspace": "acme", "repo": "forest", "run": "run-1", "commit": "c0ffee",
        "pipeline": "train it", "reason": "notice", "branch": "topic",
    });
    assert_eq!(detail, expected);

    let server = bus(&[(200, TAKEN)]).await;
    woken(&WakeSpec { branch: None, ..spec(None, Some(&server)) }).await.unwrap();
    let sent = body_of_entry(&server);
    expected.as_object_mut().unwrap().remove("branch");
    assert_eq!(sent, expected, "the rule of runs without a branch waits for no such field");
}

fn body_of_entry(server: &TestServer) -> Value {
    let body = body(&server.seen("POST")[0]);
    serde_json::from_str(body["Entries"][0]["Detail"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn the_bus_is_asked_again_while_that_may_help() {
    let throttled = r#"{"FailedEntryCount":1,"Entries":[{"ErrorCode":"ThrottlingException"}]}"#;
    let failed = r#"{"FailedEntryCount":1,"Entries":[{"ErrorCode":"InternalFailure"}]}"#;
    for first in [
        (429, ""),
        (503, "<html>down</html>"),
        (400, r#"{"__type":"com.amazonaws.events#ThrottlingException","message":"slow"}"#),
        (200, throttled),
        (200, failed),
        // A second event does no harm.
        (LOST, ""),
    ] {
        let server = TestServer::start(move |_, seen| match (seen.len(), first) {
            (0, (status, body)) => reply(status, body),
            _ => reply(200, TAKEN),
        })
        .await;
        woken(&spec(None, Some(&server))).await.unwrap();
        assert_eq!(server.seen("POST").len(), 2, "{first:?}");
    }
}

#[tokio::test]
async fn what_the_bus_refuses_for_good_is_told() {
    let cases: [(&[(u16, &str)], &str); 4] = [
        (
            &[(
                200,
                r#"{"FailedEntryCount":1,"Entries":[{"ErrorCode":"MalformedDetail","ErrorMessage":"m"}]}"#,
            )],
            "the event was not taken: MalformedDetail: m",
        ),
        (
            &[(400, r#"{"__type":"AccessDeniedException","Message":"not yours"}"#)],
            "HTTP 400: AccessDeniedException: not yours",
        ),
        (&[(403, r#"{"__type":"x#ExpiredToken","message":"old"}"#)], "HTTP 403: ExpiredToken: old"),
        (&[(200, "{}")], "the answer cannot be understood"),
    ];
    for (answers, why) in cases {
        let server = bus(answers).await;
        let error = woken(&spec(None, Some(&server))).await.unwrap_err().render();
        assert!(error.contains(&format!("cannot put an event on the bus wake: {why}")), "{error}");
        assert_eq!(server.seen("POST").len(), 1, "{error}");
    }
}

#[tokio::test]
async fn the_bus_stands_in_for_bitbucket_and_only_then() {
    let (one, other) = (bitbucket(&[201]).await, bus(&[]).await);
    woken(&spec(Some(&one), Some(&other))).await.unwrap();
    assert!(other.seen("POST").is_empty());
    let (one, other) = (bitbucket(&[401]).await, bus(&[(200, TAKEN)]).await);
    woken(&spec(Some(&one), Some(&other))).await.unwrap();
    assert_eq!((one.seen("POST").len(), other.seen("POST").len()), (1, 1));
}

#[tokio::test]
async fn without_a_way_that_works_both_reasons_are_told() {
    let (one, other) = (bitbucket(&[401]).await, bus(&[(400, r#"{"__type":"InvalidArgument"}"#)]).await);
    let error = woken(&spec(Some(&one), Some(&other))).await.unwrap_err().render();
    assert!(error.contains("401") && error.contains("; and cannot put an event"), "{error}");
    assert!(error.contains("InvalidArgument") && !error.contains(TOKEN), "{error}");
    let error = wake(&spec(None, None), "run-1", WakeReason::Ended).await.unwrap_err().render();
    assert!(error.contains("neither a token for Bitbucket nor an event bus"), "{error}");
}

/// With the bounds in earnest, a machine that nobody answers goes on to its end in time.
#[tokio::test(start_paused = true)]
async fn waking_ends_before_the_machine_is_taken_away() {
    let nobody = TestServer::nobody();
    let begun = tokio::time::Instant::now();
    let keys =
        BucketCredentials::Keys { id: "AKID".into(), secret: "s3cret-key".into(), session_token: None };
    let spec = spec(Some(&nobody), Some(&nobody));
    let call = WakeCall { spec: &spec, run: "r", reason: WakeReason::Notice, credentials: &keys };
    let error = call.run(WakeReason::Notice.attempts()).await.unwrap_err().render();
    assert!(error.contains("; and "), "{error}");
    assert!(begun.elapsed() <= Duration::from_secs(70), "{:?}", begun.elapsed());
}
