use super::super::error_class::CODE_CLASSES;
use super::*;

fn answer(code: &str, message: &str, status: u16) -> AwsError {
    from_answer(Some(code), Some(message), Some(status)).during("ec2:DescribeSubnets", "cannot list subnets")
}

#[test]
fn the_code_decides_before_the_status() {
    for (code, status, class) in [
        ("InsufficientInstanceCapacity", 500, ErrorClass::TryElsewhere),
        ("SpotMaxPriceTooLow", 400, ErrorClass::TryElsewhere),
        ("InvalidFleetConfiguration", 400, ErrorClass::TryElsewhere),
        ("MaxSpotInstanceCountExceeded", 400, ErrorClass::TryOtherFamily),
        ("RequestLimitExceeded", 503, ErrorClass::Transient),
        ("IncorrectState", 400, ErrorClass::Transient),
        ("SomethingNew", 500, ErrorClass::Transient),
        ("SomethingNew", 429, ErrorClass::Transient),
        ("SomethingNew", 400, ErrorClass::Fatal),
        ("InvalidInstanceID.NotFound", 400, ErrorClass::NotFound),
        ("InvalidGroup.NotFound", 400, ErrorClass::NotFound),
        ("InvalidLaunchTemplateName.NotFoundException", 400, ErrorClass::NotFound),
        ("ParameterNotFound", 400, ErrorClass::NotFound),
        ("InvalidAMIID.NotFound", 400, ErrorClass::Fatal),
        ("UnauthorizedOperation", 403, ErrorClass::Fatal),
        ("ExpiredToken", 400, ErrorClass::Fatal),
    ] {
        assert_eq!(answer(code, "x", status).class(), class, "{code} {status}");
    }
    assert_eq!(AwsError::in_answer("UnfulfillableCapacity", "x").class(), ErrorClass::TryElsewhere);
    assert_eq!(AwsError::in_answer("SomethingNew", "x").class(), ErrorClass::Fatal);
}

#[test]
fn no_code_has_two_classes() {
    let all: Vec<&str> = CODE_CLASSES.iter().flat_map(|(_, codes)| *codes).copied().collect();
    let once: std::collections::BTreeSet<&str> = all.iter().copied().collect();
    assert_eq!(all.len(), once.len());
}

#[test]
fn a_missing_permission_is_named_as_aws_names_it() {
    let text = "You are not authorized to perform this operation. User: arn:aws:sts::1:assumed-role/r/s is not \
                authorized to perform: ec2:RunInstances on resource: arn:aws:ec2:*:1:instance/* because no \
                identity-based policy allows the ec2:RunInstances action. Encoded authorization failure message: AbC";
    let shown = Error::from(answer("UnauthorizedOperation", text, 403)).render();
    assert!(shown.contains("Next: allow ec2:RunInstances to"), "{shown}");
    assert!(!shown.contains("AbC"), "{shown}");
}

#[test]
fn a_missing_permission_is_named_by_us_where_aws_does_not() {
    let failure = answer("UnauthorizedOperation", "You are not authorized to perform this operation.", 403);
    assert_eq!(
        Error::from(failure).render(),
        "cannot list subnets: UnauthorizedOperation: You are not authorized to perform this operation.\n\
         Next: allow ec2:DescribeSubnets to the role or user whose credentials the pipe has; \
         docs/iam-policy.json is a policy with all that it needs"
    );
}

#[test]
fn expired_credentials_are_said_plainly() {
    let shown = Error::from(answer("RequestExpired", "Request has expired.", 400)).render();
    assert!(
        shown.starts_with("cannot list subnets: the AWS credentials have expired (RequestExpired"),
        "{shown}"
    );
    assert!(shown.contains("ORPHAN_GRACE"), "{shown}");
}

#[test]
fn an_error_of_our_own_comes_through_the_sdk_with_its_hint() {
    let ours = Error::new("the session of role x has ended").hint("do this");
    let wrapped = aws_credential_types::provider::error::CredentialsError::provider_error(ours);
    let error =
        SdkError::<aws_sdk_ec2::operation::describe_vpcs::DescribeVpcsError>::construction_failure(wrapped);
    let failure = AwsError::from(error).during("ec2:DescribeVpcs", "cannot list VPCs");
    assert_eq!(failure.class(), ErrorClass::Fatal);
    assert_eq!(
        Error::from(failure).render(),
        "cannot list VPCs: the session of role x has ended\nNext: do this"
    );
}

#[tokio::test(start_paused = true)]
async fn only_what_may_pass_is_tried_again() {
    for (code, expected) in [("RequestLimitExceeded", RETRY_POLICY.attempts), ("InvalidParameterValue", 1)] {
        let mut tries = 0;
        let failed = call("ec2:X", "cannot x", || {
            tries += 1;
            std::future::ready(Err::<(), _>(answer(code, "no", 400)))
        });
        assert_eq!(failed.await.unwrap_err().code(), Some(code));
        assert_eq!(tries, expected, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_is_cut_off_and_tried_again() {
    let start = tokio::time::Instant::now();
    let mut tries = 0;
    let result = call("ec2:X", "cannot x", || {
        tries += 1;
        let attempt = tries;
        async move { if attempt == 1 { std::future::pending().await } else { Ok(attempt) } }
    });
    assert_eq!(result.await.unwrap(), 2);
    assert!(start.elapsed() >= ATTEMPT_DEADLINE);
}

#[test]
fn an_error_of_our_own_is_the_same_after_the_way_through_a_failure() {
    let ours = Error::new("the group has the name, but not the tag").hint("remove it").kind(Kind::Machine);
    let shown = ours.render();
    let error = Error::from(AwsError::from(ours));
    assert_eq!((error.render(), error.exit_kind()), (shown, Kind::Machine));
}

#[test]
fn only_a_failure_that_may_pass_makes_an_error_that_says_so() {
    for (code, is_transient) in
        [("Unavailable", true), ("Throttling", true), ("UnauthorizedOperation", false)]
    {
        let failure = AwsError::in_answer(code, "no").during("ec2:CreateFleet", "cannot launch a machine");
        let error = Error::from(failure);
        assert_eq!((error.exit_kind(), error.is_transient()), (Kind::Machine, is_transient), "{code}");
    }
}

#[test]
fn a_quota_of_nothing_is_told_from_one_that_is_used_up() {
    let text = |limit| {
        format!("You have requested more vCPU capacity than your current vCPU limit of {limit} allows for")
    };
    assert!(AwsError::in_answer("VcpuLimitExceeded", &text(0)).is_zero_quota());
    assert!(!AwsError::in_answer("VcpuLimitExceeded", &text(10)).is_zero_quota());
    assert!(!AwsError::in_answer("InsufficientInstanceCapacity", &text(0)).is_zero_quota());
}
