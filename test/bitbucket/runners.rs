//! Self-hosted runners: at most one of a name, whatever gets lost.

use super::{client, client_with, proxied};
use fake_bitbucket::{API_EMAIL, API_TOKEN, FakeBitbucket, Fault, Options};
use secrecy::ExposeSecret as _;
use trainspot_bitbucket::{
    Credential, NewRegistration, NewRunner, Platform, RegistrationStatus, Scope, status_of,
};

const RUNNERS: &str = "/pipelines-config/runners";
const RUNNER_SCOPES: [Scope; 2] = [Scope::Repository, Scope::Workspace];

fn new(name: &str) -> NewRunner {
    NewRunner::new(name, Platform::LinuxShell, &["gpu.train".to_owned()]).unwrap()
}

/// What is registered is what the fake knows, secret included, and nothing else is there.
fn assert_only(fake: &FakeBitbucket, registered: &NewRegistration) {
    let [runner] = &*fake.runners() else { panic!("one runner: {:?}", fake.runners()) };
    assert_eq!((&runner.uuid, &runner.name), (&registered.runner.uuid, &registered.runner.name));
    assert_eq!(runner.oauth_id, registered.oauth.id);
    assert_eq!(runner.oauth_secret, registered.oauth.secret.expose_secret());
}

#[tokio::test]
async fn a_runner_is_registered_seen_disabled_and_deleted() {
    for level in RUNNER_SCOPES {
        let fake = FakeBitbucket::start();
        let client = client(&fake);
        let registered = client.register_runner(level, &new("t-1")).await.unwrap();
        assert_only(&fake, &registered);
        let runner = registered.runner;
        assert_eq!(runner.labels, ["self.hosted", "linux.shell", "gpu.train"]);
        assert_eq!(runner.status, RegistrationStatus::Unregistered);
        fake.set_runner(&runner.uuid, "ONLINE");
        let seen = client.runner(level, &runner.uuid).await.unwrap().unwrap();
        assert_eq!((&seen.uuid, seen.status), (&runner.uuid, RegistrationStatus::Online));
        assert!(client.disable_runner(level, &runner).await.unwrap());
        assert_eq!(fake.runners()[0].status, "DISABLED");
        client.delete_runner(level, &runner.uuid).await.unwrap();
        assert!(fake.runners().is_empty());
        // What is gone is as good as deleted.
        client.delete_runner(level, &runner.uuid).await.unwrap();
        assert_eq!(client.runner(level, &runner.uuid).await.unwrap(), None);
        assert!(!client.disable_runner(level, &runner).await.unwrap());
    }
}

#[tokio::test]
async fn a_repositorys_runners_are_not_its_workspaces() {
    let fake = FakeBitbucket::start();
    // Three pages of each.
    for number in 0..5 {
        fake.add_runner(&format!("r-{number}"), &["self.hosted", "linux"], false);
        fake.add_runner(&format!("w-{number}"), &["self.hosted", "linux"], true);
    }
    for (level, letter) in RUNNER_SCOPES.into_iter().zip(["r", "w"]) {
        let listed = client(&fake).runners_of(level).await.unwrap();
        let names: Vec<_> = listed.into_iter().map(|runner| runner.name).collect();
        assert_eq!(names, (0..5).map(|number| format!("{letter}-{number}")).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_lost_answer_leaves_one_runner_whose_secret_is_known() {
    for level in RUNNER_SCOPES {
        let fake = FakeBitbucket::start();
        fake.add_runner("t-2", &["self.hosted", "linux"], level == Scope::Repository);
        let other = fake.runners()[0].uuid.clone();
        fake.next(Fault::on("POST", RUNNERS).drop_after_acting());
        fake.next(Fault::on("POST", RUNNERS).cut_answer_after(20));
        let registered = client(&fake).register_runner(level, &new("t-2")).await.unwrap();
        assert_eq!(fake.count("POST", RUNNERS), 3);
        // One of the same name at the other level is another one.
        client(&fake)
            .delete_runner(
                if level == Scope::Repository { Scope::Workspace } else { Scope::Repository },
                &other,
            )
            .await
            .unwrap();
        assert_only(&fake, &registered);
    }
}

#[tokio::test]
async fn what_was_never_answered_is_taken_back_or_else_named() {
    let fake = FakeBitbucket::start();
    fake.next(Fault::on("POST", RUNNERS).drop_after_acting().times(4));
    let error = client(&fake).register_runner(Scope::Repository, &new("t-0")).await.unwrap_err();
    assert_eq!((error.leftovers().count(), fake.count("POST", RUNNERS)), (0, 4));
    assert!(fake.runners().is_empty());
    // An answer that is not understood is as good as none.
    fake.next(Fault::on("POST", RUNNERS).answer(200, r#"{"uuid":"{x}","name":"t-0"}"#));
    client(&fake).register_runner(Scope::Repository, &new("t-0")).await.unwrap_err();
    // Each attempt takes back what the one before it may have made; here none can.
    fake.next(Fault::on("POST", RUNNERS).drop_after_acting());
    fake.next(Fault::on("DELETE", RUNNERS).answer(503, "down").times(9));
    let error = client(&fake).register_runner(Scope::Repository, &new("t-0")).await.unwrap_err();
    assert_eq!(error.leftovers().collect::<Vec<_>>(), ["perhaps a runner t-0 of acme/forest, never used"]);
    assert_eq!(fake.runners().len(), 1);
}

#[tokio::test]
async fn a_runner_that_is_made_late_is_taken_back() {
    let fake = FakeBitbucket::start();
    // Bitbucket goes on with what its front end gave up on: the runner appears after the second attempt
    // looked.
    fake.next(Fault::on("POST", RUNNERS).answer(504, "Gateway Time-out"));
    fake.next(Fault::on("POST", RUNNERS).delay(std::time::Duration::from_millis(300)));
    let client = client(&fake);
    let late = async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        fake.add_runner("t-1", &["self.hosted", "linux.shell"], false)
    };
    let new = new("t-1");
    let (registered, _) = tokio::join!(client.register_runner(Scope::Repository, &new), late);
    assert_only(&fake, &registered.unwrap());
}

#[tokio::test]
async fn a_runner_that_died_before_it_was_used_is_replaced() {
    let fake = FakeBitbucket::start();
    fake.add_runner("t-3", &["self.hosted", "linux.shell"], false);
    let registered = client(&fake).register_runner(Scope::Repository, &new("t-3")).await.unwrap();
    assert_only(&fake, &registered);
}

#[tokio::test]
async fn a_runner_in_use_is_left_alone() {
    for status in ["ONLINE", "OFFLINE", "DISABLED", "UNHEALTHY"] {
        let fake = FakeBitbucket::start();
        let uuid = fake.add_runner("t-4", &["self.hosted", "linux.shell"], false);
        fake.set_runner(&uuid, status);
        let error = client(&fake).register_runner(Scope::Repository, &new("t-4")).await.unwrap_err().render();
        assert!(error.contains("there is one already") && error.contains(&uuid), "{error}");
        assert_eq!(fake.runners().len(), 1);
        assert_eq!(fake.count("POST", RUNNERS), 0);
    }
}

#[tokio::test]
async fn what_passes_is_tried_again_and_leaves_one() {
    for fault in [
        Fault::on("POST", RUNNERS).answer(429, "Rate limit").header("Retry-After", "0"),
        Fault::on("POST", RUNNERS).answer(503, "<html><body>Down</body></html>"),
        Fault::on("GET", RUNNERS).answer(500, "oops"),
        Fault::on("GET", RUNNERS).drop_before_acting(),
        Fault::on("POST", RUNNERS).drop_before_acting(),
    ] {
        let fake = FakeBitbucket::start();
        fake.next(fault);
        let registered = client(&fake).register_runner(Scope::Repository, &new("t-5")).await.unwrap();
        assert_only(&fake, &registered);
    }
}

#[tokio::test]
async fn a_lost_answer_to_a_deletion_is_no_error() {
    let fake = FakeBitbucket::start();
    let uuid = fake.add_runner("t-6", &["self.hosted", "linux"], false);
    fake.next(Fault::on("DELETE", RUNNERS).drop_after_acting());
    client(&fake).delete_runner(Scope::Repository, &uuid).await.unwrap();
    assert!(fake.runners().is_empty());
}

#[tokio::test]
async fn a_refusal_says_what_the_token_lacks_and_where() {
    let scopes = r#"{"type":"error","error":{"message":"Your credentials lack one or more required privilege scopes.",
        "detail":{"required":["runner:write"],"granted":["repository"]}}}"#;
    let cases = [(Scope::Repository, "on acme/forest"), (Scope::Workspace, "on the workspace acme")];
    for (level, place) in cases {
        let fake = FakeBitbucket::start();
        fake.next(Fault::on("POST", RUNNERS).answer(403, scopes).times(9));
        let error = client(&fake).register_runner(level, &new("t-7")).await.unwrap_err();
        assert_eq!(status_of(&error), Some(403));
        let text = error.render();
        for part in ["register the runner t-7 in", "required: runner:write", "the scope runner:write", place]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(fake.count("POST", RUNNERS), 1);
    }
    let fake = FakeBitbucket::start();
    let api = Credential::ApiToken { email: API_EMAIL.into(), token: API_TOKEN.into() };
    fake.next(Fault::on("GET", RUNNERS).answer(403, scopes));
    let error = client_with(&fake, api).runners_of(Scope::Repository).await.unwrap_err().render();
    assert!(error.contains("read:runner:bitbucket"), "{error}");
    let wrong = client_with(&fake, Credential::AccessToken("wrong".into()));
    let error = wrong.register_runner(Scope::Repository, &new("t-7")).await.unwrap_err();
    assert_eq!(status_of(&error), Some(401));
    let error = proxied(&fake).register_runner(Scope::Repository, &new("t-7")).await.unwrap_err().render();
    assert!(error.contains("set BITBUCKET_ACCESS_TOKEN"), "{error}");
}

#[tokio::test]
async fn a_hundred_runners_are_the_most_and_the_error_says_so() {
    let fake = FakeBitbucket::start_with(Options { page_length: 100, ..Options::default() });
    for number in 0..100 {
        fake.add_runner(&number.to_string(), &["self.hosted", "linux"], false);
    }
    let error = client(&fake).register_runner(Scope::Repository, &new("t-8")).await.unwrap_err().render();
    assert!(error.contains("maximum number of runners") && error.contains("100 runners each"), "{error}");
    client(&fake).register_runner(Scope::Workspace, &new("t-8")).await.unwrap();
}

#[tokio::test]
async fn that_a_runner_was_not_disabled_is_told() {
    let fake = FakeBitbucket::start_with(Options { disables: false, ..Options::default() });
    let client = client(&fake);
    let registered = client.register_runner(Scope::Repository, &new("t-9")).await.unwrap();
    assert!(!client.disable_runner(Scope::Repository, &registered.runner).await.unwrap());
}
