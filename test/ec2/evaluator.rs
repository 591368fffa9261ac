//! What AWS asks of an IAM policy for a call, by resource and with which keys, after AWS's list of actions,
//! resources and condition keys of EC2; and what the policy of the documentation answers. moto ignores
//! conditions, so a crate evaluates it.

use iam_rs::{Arn, Context, Decision, IAMPolicy, IAMRequest, PolicyEvaluator, Principal, PrincipalId};
use serde_json::Value;
use std::collections::BTreeMap;

/// The tags of a thing, or those that a call gives.
pub(crate) type Tags = BTreeMap<String, String>;

/// The policy of the documentation, in which no repository is filled in.
pub(crate) fn documented() -> Value {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/iam-policy.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The actions of a statement.
pub(crate) fn actions_of(statement: &Value) -> Vec<String> {
    let action = &statement["Action"];
    let several = action.as_array().map(|actions| actions.iter().map(|one| one.as_str().unwrap().to_owned()));
    several.map_or_else(|| vec![action.as_str().unwrap().to_owned()], Iterator::collect)
}

/// The policy for a repository, as its administrator makes it, without the statement or the action of this
/// name.
pub(crate) fn policy(repository: &str, without: Option<&str>) -> PolicyEvaluator {
    let mut policy = documented();
    let before = policy.clone();
    let statements = policy["Statement"].as_array_mut().unwrap();
    if let Some(name) = without {
        statements.retain(|statement| statement["Sid"] != name);
        for statement in statements.iter_mut() {
            let kept: Vec<String> =
                actions_of(statement).into_iter().filter(|action| action != name).collect();
            statement["Action"] = kept.into();
        }
        statements.retain(|statement| !actions_of(statement).is_empty());
        assert_ne!(policy, before, "{name} is not in the policy");
    }
    let text = policy.to_string().replace("WORKSPACE/REPOSITORY", repository);
    PolicyEvaluator::with_policies(vec![IAMPolicy::from_json(&text).unwrap()])
}

/// One thing that AWS asks of a policy before it makes a call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Question {
    pub(crate) action: String,
    resource: String,
    pub(crate) context: Vec<(String, String)>,
}

impl Question {
    pub(crate) fn new(action: &str, resource: &str) -> Self {
        let resource = match resource {
            "" => "arn:aws:ec2:us-east-1:111122223333:*".to_owned(),
            // Everybody's: images and snapshots are in no account.
            _ if resource.starts_with("image") || resource.starts_with("snapshot") => {
                format!("arn:aws:ec2:us-east-1::{resource}")
            }
            _ if resource.starts_with("arn:") => resource.to_owned(),
            _ => format!("arn:aws:ec2:us-east-1:111122223333:{resource}"),
        };
        Self { action: action.to_owned(), resource, context: Vec::new() }
    }

    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.context.push((key.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn tagged(mut self, key: &str, tags: &Tags) -> Self {
        self.context.extend(tags.iter().map(|(tag, value)| (format!("aws:{key}/{tag}"), value.clone())));
        self
    }

    /// Something that is made with tags, by a call to `action`; the tags need a permission of their own.
    pub(crate) fn made(action: &str, kind: &str, tags: &Tags) -> [Self; 2] {
        let (_, call) = action.split_once(':').unwrap();
        [
            Self::new(action, &format!("{kind}/*")).tagged("RequestTag", tags),
            Self::new("ec2:CreateTags", &format!("{kind}/*"))
                .with("ec2:CreateAction", call)
                .tagged("RequestTag", tags),
        ]
    }

    /// Something that is there, with the tags that it has.
    pub(crate) fn there(action: &str, kind: &str, tags: &Tags) -> Self {
        Self::new(action, &format!("{kind}/1")).tagged("ResourceTag", tags)
    }

    pub(crate) fn is_allowed_by(&self, policy: &PolicyEvaluator) -> bool {
        let role = PrincipalId::String("arn:aws:iam::111122223333:role/trainspot".to_owned());
        let context = self
            .context
            .iter()
            .fold(Context::new(), |context, (key, value)| context.with_string(key.clone(), value.clone()));
        let (principal, arn) = (Principal::Aws(role), Arn::parse(&self.resource).unwrap());
        let request = IAMRequest::new_with_context(principal, self.action.clone(), arn, context);
        policy.evaluate(&request).unwrap().decision == Decision::Allow
    }
}

/// The tags that a call gives to things of a kind.
pub(crate) fn given(parameters: &Value, kind: &str) -> Tags {
    let fields = parameters.as_object().unwrap();
    let place = fields.iter().find(|(name, value)| name.ends_with("ResourceType") && **value == kind);
    let Some((name, _)) = place else { return Tags::new() };
    let prefix = name.trim_end_matches("ResourceType");
    let key = |name: &String| name.starts_with(prefix) && name.ends_with(".Key");
    let text = |name: &str| fields[name].as_str().unwrap().to_owned();
    fields
        .keys()
        .filter(|name| key(name))
        .map(|name| (text(name), text(&name.replace(".Key", ".Value"))))
        .collect()
}

/// What AWS asks for the launch of a machine by a call with these parameters.
fn of_a_launch(parameters: &Value, there: &Tags, by_template_call: &Value) -> Vec<Question> {
    let run = "ec2:RunInstances";
    let plain = ["subnet/subnet-1", "image/ami-1", "snapshot/snap-1"].map(|what| Question::new(run, what));
    let used = ["launch-template", "security-group"].map(|kind| Question::there(run, kind, there));
    let by_call = ["instance", "volume"].map(|kind| (kind, given(parameters, kind)));
    let is_spot = parameters.as_object().unwrap().values().any(|value| value == "spot");
    let request = is_spot.then_some("spot-instances-request");
    let by_template = ["network-interface"].into_iter().chain(request);
    let by_template = by_template.map(|kind| (kind, given(by_template_call, kind)));
    let made = by_call.into_iter().chain(by_template);
    let made = made.flat_map(|(kind, tags)| Question::made(run, kind, &tags));
    plain.into_iter().chain(used).chain(made).collect()
}

/// All that AWS asks for a call. `there` are the tags of what the call names, `by_template` the call that
/// made its template. A fleet that is not launched, as with `DryRun`, launches no machine in the caller's
/// name.
pub(crate) fn questions(call: &Value, there: &Tags, by_template: &Value) -> Vec<Question> {
    let text = |field: &str| call[field].as_str().unwrap();
    let (action, parameters) = (format!("{}:{}", text("service"), text("action")), &call["parameters"]);
    let made = |kind: &str| Question::made(&action, kind, &given(parameters, kind));
    match text("action") {
        "CreateFleet" => {
            let plain = ["subnet/subnet-1", "image/ami-1"].map(|what| Question::new(&action, what));
            let own = ["fleet", "instance", "volume"].into_iter().flat_map(made);
            let template = Question::there(&action, "launch-template", there);
            let launch = if parameters["DryRun"] == "true" {
                Vec::new()
            } else {
                of_a_launch(parameters, there, by_template)
            };
            plain.into_iter().chain(own).chain([template]).chain(launch).collect()
        }
        "RunInstances" => of_a_launch(parameters, there, by_template),
        "CreateLaunchTemplate" => made("launch-template").into(),
        "CreateSecurityGroup" => {
            made("security-group").into_iter().chain([Question::new(&action, "vpc/vpc-1")]).collect()
        }
        "AuthorizeSecurityGroupIngress" | "DeleteSecurityGroup" => {
            vec![Question::there(&action, "security-group", there)]
        }
        "DeleteLaunchTemplate" => vec![Question::there(&action, "launch-template", there)],
        "TerminateInstances" | "GetConsoleOutput" => vec![Question::there(&action, "instance", there)],
        "SendSSHPublicKey" => {
            let user = parameters["InstanceOSUser"].as_str().unwrap();
            let action = "ec2-instance-connect:SendSSHPublicKey";
            vec![Question::there(action, "instance", there).with("ec2:osuser", user)]
        }
        "GetParameters" => {
            vec![Question::new(&action, "arn:aws:ssm:us-east-1::parameter/aws/service/canonical/x")]
        }
        _ => vec![Question::new(&action, "")],
    }
}
