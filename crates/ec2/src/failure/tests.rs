use super::*;

fn answer(code: &str, message: &str, status: u16) -> Failure {
    of_answer(Some(code), Some(message), Some(status)).during("ec2:DescribeSubnets", "cannot list subnets")
}

#[test]
fn the_code_decides_before_the_status() {
    for (code, status, class) in [
        ("InsufficientInstanceCapacity", 500, Class::Elsewhere),
        ("SpotMaxPriceTooLow", 400, Class::Elsewhere),
        ("InvalidFleetConfiguration", 400, Class::Elsewhere),
        ("MaxSpotInstanceCountExceeded", 400, Class::OtherFamily),
        ("RequestLimitExceeded", 503, Class::Transient),
        ("IncorrectState", 400, Class::Transient),
        ("SomethingNew", 500, Class::Transient),
        ("SomethingNew", 429, Class::Transient),
        ("SomethingNew", 400, Class::Fatal),
        ("InvalidInstanceID.NotFound", 400, Class::Gone),
        ("InvalidGroup.NotFound", 400, Class::Gone),
        ("InvalidLaunchTemplateName.NotFoundException", 400, Class::Gone),
        ("ParameterNotFound", 400, Class::Gone),
        ("InvalidAMIID.NotFound", 400, Class::Fatal),
        ("UnauthorizedOperation", 403, Class::Fatal),
        ("ExpiredToken", 400, Class::Fatal),
    ] {
        assert_eq!(answer(code, "x", status).class(), class, "{code} {status}");
    }
    assert_eq!(Failure::told("UnfulfillableCapacity", "x").class(), Class::Elsewhere);
    assert_eq!(Failure::told("SomethingNew", "x").class(), Class::Fatal);
}

#[test]
fn no_code_has_two_classes() {
    let all: Vec<&str> = CLASSES.iter().flat_map(|(_, codes)| *codes).copied().collect();
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
    let failure = Failure::from(error).during("ec2:DescribeVpcs", "cannot list VPCs");
    assert_eq!(failure.class(), Class::Fatal);
    assert_eq!(
        Error::from(failure).render(),
        "cannot list VPCs: the session of role x has ended\nNext: do this"
    );
}

#[tokio::test(start_paused = true)]
async fn only_what_may_pass_is_tried_again() {
    for (code, expected) in [("RequestLimitExceeded", POLICY.attempts), ("InvalidParameterValue", 1)] {
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
    let error = Error::from(Failure::from(ours));
    assert_eq!((error.render(), error.exit_kind()), (shown, Kind::Machine));
}

#[test]
fn a_quota_of_nothing_is_told_from_one_that_is_used_up() {
    let text = |limit| {
        format!("You have requested more vCPU capacity than your current vCPU limit of {limit} allows for")
    };
    assert!(Failure::told("VcpuLimitExceeded", &text(0)).is_quota_of_none());
    assert!(!Failure::told("VcpuLimitExceeded", &text(10)).is_quota_of_none());
    assert!(!Failure::told("InsufficientInstanceCapacity", &text(0)).is_quota_of_none());
}
