//! The policy of the documentation, evaluated with its conditions over the calls of a run: enough for its own
//! repository, and of no use against another's.

use super::evaluator::{Question, Tags, policy, questions};
use super::lab::{Lab, SHOWN, in_lab};
use super::rent::{aws, ec2, end, launch_request, told};
use crate::local_machine::spec;
use iam_rs::{
    Arn, Context, Decision, EvaluationOptions, IAMPolicy, IAMRequest, PolicyEvaluator, Principal, PrincipalId,
};
use std::collections::BTreeSet;
use trainspot_compute::Compute as _;
use trainspot_compute::aws::AwsSettings;
use trainspot_compute::link::Agent;
use trainspot_protocol::AgentCommand;

const OURS: &str = "acme/forest";
const THEIRS: &str = "acme/meadow";

/// What AWS asks during a whole run with a takeover, and for what a run may ask that this one does not need.
async fn of_a_run(lab: &Lab) -> BTreeSet<Question> {
    let aws = AwsSettings { image: Some("ubuntu-24.04".to_owned()), ..aws(lab) };
    let (first, request) = (ec2(aws.clone()).await, launch_request("policy"));
    let machine = told(first.launch(&request).await);
    let agent = Agent::new(told(first.connect(&machine, &request).await), "first");
    agent.ask(AgentCommand::Start(Box::new(spec("true")))).await.unwrap();
    drop((first, agent));
    let second = ec2(aws).await;
    let found = told(second.find(&request.run).await);
    drop(Agent::new(told(second.connect(&found[0], &request).await), "first"));
    told(second.status(&found[0]).await);
    // All that there is was made by this run, with the same tags.
    let left = lab.get("leftovers").await;
    let there: Tags = serde_json::from_value(left[0]["tags"].clone()).unwrap();
    end(&second, &request).await;
    let calls = lab.get("calls").await;
    let calls = calls.as_array().unwrap();
    let template = calls.iter().find(|call| call["action"] == "CreateLaunchTemplate").unwrap();
    let scene = ["AttachInternetGateway", "CreateInternetGateway", "CreateRoute"];
    let ours = calls.iter().filter(|call| !scene.iter().any(|action| call["action"] == *action));
    let asked = ours.flat_map(|call| questions(call, &there, &template["parameters"]));
    let further = [
        Question::there("ec2:GetConsoleOutput", "instance", &there),
        Question::new("ec2:GetInstanceTypesFromInstanceRequirements", ""),
        Question::new("ec2:DescribeNetworkInterfaces", ""),
        Question::new("ec2:DescribeSpotPriceHistory", ""),
    ];
    asked.chain(further).collect()
}

fn actions<'a>(questions: impl IntoIterator<Item = &'a Question>) -> BTreeSet<&'a str> {
    questions.into_iter().map(|question| question.action.split_once(':').unwrap().1).collect()
}

#[test]
fn the_documented_policy_is_enough_for_its_repository_and_of_no_use_against_another() {
    in_lab(async |lab: &Lab| {
        let asked = of_a_run(lab).await;
        let (ours, theirs) = (policy(OURS, None), policy(THEIRS, None));
        let denied: Vec<_> = asked.iter().filter(|question| !question.is_allowed_by(&ours)).collect();
        assert!(denied.is_empty(), "denied to its own repository: {denied:#?}");
        // Every call that makes, opens, enters or ends something of this repository's is denied to the other
        // one.
        let denied = actions(asked.iter().filter(|question| !question.is_allowed_by(&theirs)));
        let expected = [
            "AuthorizeSecurityGroupIngress",
            "CreateFleet",
            "CreateLaunchTemplate",
            "CreateSecurityGroup",
            "CreateTags",
            "DeleteLaunchTemplate",
            "DeleteSecurityGroup",
            "GetConsoleOutput",
            "RunInstances",
            "SendSSHPublicKey",
            "TerminateInstances",
        ];
        assert_eq!(denied, BTreeSet::from(expected));
        // Whatever names something of ours, or gives it our tags, is: each one, not only one of its action.
        let names_ours = |question: &&Question| question.context.iter().any(|(_, value)| value == OURS);
        let open: Vec<_> = asked.iter().filter(names_ours).filter(|it| it.is_allowed_by(&theirs)).collect();
        assert!(open.is_empty(), "open to another repository: {open:#?}");
        let named = asked.iter().filter(names_ours).count();
        crate::support::say(&format!(
            "{SHOWN}policy: {} questions of a run, {named} of them about its own things",
            asked.len()
        ));
        each_statement_is_needed(&asked);
        attackers_are_denied(&asked, &theirs);
    });
}

/// Without each statement, something is denied; and what that is.
fn each_statement_is_needed(asked: &BTreeSet<Question>) {
    for (statement, expected) in [
        ("Look", &["DescribeImages", "DescribeInstances"] as &[_]),
        ("MakeWithTheTagsOfARun", &["CreateFleet", "CreateLaunchTemplate", "RunInstances"]),
        ("MakeFromTheTemplateOfARun", &["CreateFleet", "RunInstances"]),
        ("MakeInTheGroupOfARun", &["RunInstances"]),
        ("MakeOutOfWhatIsThere", &["CreateFleet", "RunInstances"]),
        ("TagWhatIsMade", &["CreateTags"]),
        ("EndOnlyWhatIsOurs", &["DeleteLaunchTemplate", "DeleteSecurityGroup", "TerminateInstances"]),
        ("GroupWithTheTagsOfARun", &["CreateSecurityGroup"]),
        ("GroupInItsVpc", &["CreateSecurityGroup"]),
        ("GroupOpened", &["AuthorizeSecurityGroupIngress"]),
        ("ImagesByName", &["GetParameters"]),
        ("TypesByNeed", &["GetInstanceTypesFromInstanceRequirements"]),
        ("OptionalPrices", &["DescribeSpotPriceHistory"]),
        ("OptionalSecondLookAtANotice", &["DescribeSpotInstanceRequests"]),
        ("OptionalConsole", &["GetConsoleOutput"]),
        ("OptionalPipeInsideTheVpc", &["DescribeNetworkInterfaces"]),
        ("OptionalTakeover", &["SendSSHPublicKey"]),
    ] {
        let policy = policy(OURS, Some(statement));
        let denied = actions(asked.iter().filter(|question| !question.is_allowed_by(&policy)));
        for action in expected {
            assert!(denied.contains(action), "without {statement}, {action} is not denied: {denied:?}");
        }
    }
}

/// What another repository could try beyond the calls of an honest run.
fn attackers_are_denied(asked: &BTreeSet<Question>, theirs: &PolicyEvaluator) {
    let tags = |repository: Option<&str>, run: Option<&str>| -> Tags {
        let both = [("trainspot:repository", repository), ("trainspot:run", run)];
        both.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned()))).collect()
    };
    let own = tags(Some(THEIRS), Some("1"));
    let launch = |kind: &str, tags: &Tags| Question::made("ec2:RunInstances", kind, tags)[0].clone();
    let enter = |user: &str, tags: &Tags| {
        Question::there("ec2-instance-connect:SendSSHPublicKey", "instance", tags).with("ec2:osuser", user)
    };
    let retag = |tags: &Tags| Question::there("ec2:CreateTags", "instance", tags).tagged("RequestTag", &own);
    for attack in [
        // What has no tag of ours is nobody's to end, open or enter.
        Question::there("ec2:TerminateInstances", "instance", &Tags::new()),
        Question::there("ec2:AuthorizeSecurityGroupIngress", "security-group", &tags(None, Some("1"))),
        enter("ubuntu", &tags(None, Some("1"))),
        Question::there("ec2:RunInstances", "security-group", &tags(Some(OURS), Some("1"))),
        Question::there("ec2:RunInstances", "launch-template", &tags(Some(OURS), Some("1"))),
        // A machine that poses as another repository's, or as nobody's.
        launch("instance", &tags(Some(OURS), Some("1"))),
        launch("instance", &tags(None, Some("1"))),
        launch("instance", &tags(Some(THEIRS), None)),
        // Tags on what is there: to make it one's own.
        retag(&tags(Some(OURS), Some("1"))),
        retag(&own),
        // Root of a machine of one's own, and a name that only begins like it.
        enter("root", &own),
        enter("ubuntu", &tags(Some("acme/meadow-2"), Some("1"))),
        enter("ubuntu", &tags(Some("ACME/MEADOW"), Some("1"))),
    ] {
        assert!(!attack.is_allowed_by(theirs), "{attack:#?}");
    }
    assert!(enter("ubuntu", &own).is_allowed_by(theirs) && launch("instance", &own).is_allowed_by(theirs));
    let reads = |question: &&Question| question.action.contains(":Describe");
    assert!(asked.iter().filter(reads).all(|question| question.is_allowed_by(theirs)));
}

/// The trust policy of `docs/aws.md`, with this pattern for `sub`.
fn trust(sub: &str) -> PolicyEvaluator {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/aws.md")).unwrap();
    let (_, block) = text.split_once("```json\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let written = r"{REPOSITORY_UUID}*:*";
    assert!(block.contains(written) && text.contains(r#"`"{REPOSITORY_UUID}:{ENVIRONMENT_UUID}:*"`"#));
    let block = block.replace(written, sub).replace("ACCOUNT", "111122223333");
    let policy = IAMPolicy::from_json(&block).unwrap();
    // A trust policy names no resource: the role is the one that it belongs to.
    let options = EvaluationOptions { ignore_resource_constraints: true, ..EvaluationOptions::default() };
    PolicyEvaluator::with_policies(vec![policy]).with_options(options)
}

fn admits(policy: &PolicyEvaluator, sub: &str, audience: &str) -> bool {
    let provider = "api.bitbucket.org/2.0/workspaces/WORKSPACE/pipelines-config/identity/oidc";
    let principal = format!("arn:aws:iam::111122223333:oidc-provider/{provider}");
    let context = Context::new().with_string(format!("{provider}:sub"), sub);
    let context = context.with_string(format!("{provider}:aud"), audience);
    let request = IAMRequest::new_with_context(
        Principal::Federated(PrincipalId::String(principal)),
        "sts:AssumeRoleWithWebIdentity",
        Arn::parse("arn:aws:iam::111122223333:role/trainspot").unwrap(),
        context,
    );
    policy.evaluate(&request).unwrap().decision == Decision::Allow
}

#[test]
fn the_documented_trust_policy_admits_one_repository_and_if_so_written_one_environment() {
    let audience = "ari:cloud:bitbucket::workspace/WORKSPACE_UUID";
    let (repository, narrow) = (trust("{1-1}*:*"), trust("{1-1}:{e-1}:*"));
    for (sub, by_repository, by_environment) in [
        ("{1-1}:{s-1}", true, false),
        ("{1-1}:{e-1}:{s-1}", true, true),
        ("{1-1}:{e-2}:{s-1}", true, false),
        ("{2-2}:{s-1}", false, false),
        ("{2-2}:{1-1}:{s-1}", false, false),
        ("{2-2}:{e-1}:{s-1}", false, false),
    ] {
        assert_eq!(admits(&repository, sub, audience), by_repository, "{sub}");
        assert_eq!(admits(&narrow, sub, audience), by_environment, "{sub}");
        assert!(!admits(&repository, sub, "ari:cloud:bitbucket::workspace/ANOTHER"), "{sub}");
    }
}
