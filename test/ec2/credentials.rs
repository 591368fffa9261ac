//! Who the pipe is to AWS: nobody, a role for as long as it allows, or a role that it does not get.

use super::http;
use super::moto::{Account, plain, with_environment};
use crate::support::{Access, Run, Scene};
use std::sync::{Arc, Mutex};
use trainspot_base::error::Kind;
use trainspot_compute::aws::AwsSettings;
use trainspot_ec2::AwsClients;
use trainspot_ec2::plan::Plan;

fn sts_error(code: &str, message: &str) -> (u16, String) {
    let error = format!("<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>");
    (
        400,
        format!("<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">{error}</ErrorResponse>"),
    )
}

fn session(key: &str) -> (u16, String) {
    let credentials = format!(
        "<Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>\
         <SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>"
    );
    let result = format!("<AssumeRoleWithWebIdentityResult>{credentials}</AssumeRoleWithWebIdentityResult>");
    let name = "AssumeRoleWithWebIdentityResponse";
    (200, format!("<{name} xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">{result}</{name}>"))
}

/// A role of four hours, that may do nothing.
fn four_hours(head: &str, body: &str) -> (u16, String) {
    let allowed = ["DurationSeconds=14400", "DurationSeconds=3600"];
    if body.contains("DurationSeconds=43200") {
        let message = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.";
        return sts_error("ValidationError", message);
    }
    if let Some(length) = allowed.into_iter().find(|length| body.contains(length)) {
        return session(if length.ends_with("14400") { "FOURHOURS" } else { "ONEHOUR" });
    }
    if head.to_lowercase().contains("x-amz-target: amazonssm.") {
        return (400, r#"{"__type":"AccessDeniedException","Message":"no"}"#.to_owned());
    }
    let error = "<Error><Code>UnauthorizedOperation</Code><Message>You are not authorized to perform this \
                 operation.</Message></Error>";
    (403, format!("<Response><Errors>{error}</Errors><RequestID>x</RequestID></Response>"))
}

/// A step that rents, where the repository defines this much of an access key: the rest is the text of
/// `pipe.yml`'s default.
fn step_with(defined: &[(&str, &str)], endpoint: &str) -> Run {
    let mut scene = Scene::new(Access::Token, &[]);
    scene.set("CLOUD", "aws").set("INSTANCE_TYPE", "m5.large").set("AWS_DEFAULT_REGION", "eu-west-1");
    scene.set("TRAIN_COMMAND", "true").set("OUTPUTS", "m.bin").set("MAX_RUNTIME", "1h");
    scene.set("AWS_EC2_METADATA_DISABLED", "true").set("AWS_ENDPOINT_URL", endpoint);
    for name in ["AWS_OIDC_ROLE_ARN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
        scene.set(name, &format!("${name}"));
    }
    for (name, value) in defined {
        scene.set(name, value);
    }
    scene.run()
}

#[test]
fn the_text_of_a_default_is_no_credential() {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&requests);
    let url = http::serve(move |head, body| {
        seen.lock().unwrap().push(head.to_owned());
        four_hours(head, body)
    });
    let run = step_with(&[], &url).expect(2);
    for words in ["there are no credentials for AWS", "AWS_ACCESS_KEY_ID", "add `oidc: true` to the step"] {
        assert!(run.out.contains(words), "{words}: {}", run.out);
    }
    assert!(requests.lock().unwrap().is_empty());
    // Nor is it the session of a key that has none, which AWS would not know.
    step_with(&[("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "s3cr3tvalue")], &url)
        .expect(3);
    let requests = requests.lock().unwrap();
    assert!(requests.iter().any(|head| head.contains("Credential=AKIAEXAMPLE/")), "{requests:?}");
    assert!(
        !requests.iter().any(|head| head.to_lowercase().contains("x-amz-security-token")),
        "{requests:?}"
    );
}

fn by_oidc() -> AwsSettings {
    Account::numbered("123456789012").aws(&["eu-west-1"], &["m5.large"])
}

#[test]
fn without_any_credentials_it_says_how_to_give_some() {
    with_environment(&[], async || {
        let error =
            AwsClients::new(&plain(&["eu-west-1"], &["m5.large"]).account, "acme/forest").await.unwrap_err();
        assert_eq!(error.exit_kind(), Kind::Configuration);
        let shown = error.render();
        assert!(
            shown.starts_with("there are no credentials for AWS: AWS_OIDC_ROLE_ARN is not set"),
            "{shown}"
        );
        assert!(shown.contains("\nNext: add `oidc: true` to the step"), "{shown}");
    });
}

#[test]
fn the_session_is_the_longest_that_the_role_allows_and_all_missing_permissions_are_told_at_once() {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&requests);
    let url = http::serve(move |head, body| {
        seen.lock().unwrap().push(format!("{head}{body}"));
        four_hours(head, body)
    });
    with_environment(&[("AWS_ENDPOINT_URL", &url)], async || {
        let cloud = AwsClients::new(&by_oidc().account, "acme/forest").await.unwrap();
        let error = Plan::make(&cloud, &by_oidc()).await.unwrap_err();
        assert_eq!(error.exit_kind(), Kind::Machine);
        let shown = error.render();
        for action in
            ["ec2:DescribeVpcs", "ec2:DescribeSubnets", "ec2:DescribeRouteTables", "ssm:GetParameters"]
        {
            assert!(shown.contains(&format!("allow {action} to")), "{action}: {shown}");
        }
    });
    let requests = requests.lock().unwrap();
    let signed: Vec<&String> = requests.iter().filter(|request| request.contains("Credential=")).collect();
    // The parent of the process that asks sees what was asked; the process itself sees nothing.
    assert!(signed.len() >= 5 || std::env::var_os("TRAINSPOT_TEST_ACCOUNT").is_some(), "{}", signed.len());
    assert!(signed.iter().all(|request| request.contains("Credential=FOURHOURS/")), "{signed:?}");
    assert!(
        !requests
            .iter()
            .any(|request| request.contains("RoleSessionName") && request.contains("Credential="))
    );
}

#[test]
fn a_role_that_is_not_given_is_told_with_what_to_do() {
    for (code, word) in [
        ("AccessDenied", "trust policy names the provider and this repository"),
        ("InvalidIdentityToken", "make Bitbucket an identity provider"),
        ("ExpiredTokenException", "the step's OIDC token is over"),
    ] {
        let url = http::serve(move |_, _| sts_error(code, "no"));
        with_environment(&[("AWS_ENDPOINT_URL", &url), ("WORD", word)], async || {
            let shown = AwsClients::new(&by_oidc().account, "acme/forest").await.unwrap_err().render();
            assert!(
                shown.starts_with("cannot take the role arn:aws:iam::123456789012:role/train: "),
                "{shown}"
            );
            let word = std::env::var("WORD").unwrap();
            assert!(shown.contains(&word), "{word}: {shown}");
        });
        // In the process itself the first round is all.
        if std::env::var_os("WORD").is_some() {
            return;
        }
    }
}
