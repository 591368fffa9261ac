//! What a dry run tells of the policy of the documentation: with all of it each check passes, and each
//! statement and each action that is missing is told by a check's line, as far as anything can be told before
//! there is a machine.

use super::evaluator::{actions_of, documented};
use super::gatekeeper::{Caller, Unknown, WITHOUT_QUOTA, key, serve};
use super::lab::SHOWN;
use super::moto::Moto;
use crate::support::{Access, Scene, say};

const OURS: &str = "acme/forest";
const ALLOWED: &str = "✔";
const FAILS: &str = "✖";
const OPEN: &str = "-";
/// What a line says of a permission that no call can try beforehand.
const UNTELLABLE: &str = "cannot be told before there is a machine";

/// Each statement, and what a dry run without it says: the mark, what was checked, and the action that it
/// names.
const STATEMENTS: [(&str, &str, &str, &str); 18] = [
    ("Look", FAILS, "a plan of what to rent", "ec2:DescribeVpcs"),
    ("MakeWithTheTagsOfARun", FAILS, "make a launch template", "ec2:CreateLaunchTemplate"),
    ("MakeFromTheTemplateOfARun", FAILS, "ask for a fleet of a spot machine", "ec2:CreateFleet"),
    ("MakeInTheGroupOfARun", FAILS, "launch a spot machine", "ec2:RunInstances"),
    ("MakeOutOfWhatIsThere", FAILS, "ask for a fleet of a spot machine", "ec2:CreateFleet"),
    ("TagWhatIsMade", FAILS, "make a security group", "ec2:CreateTags"),
    ("EndOnlyWhatIsOurs", FAILS, "remove what was made", "ec2:DeleteSecurityGroup"),
    ("GroupWithTheTagsOfARun", FAILS, "make a security group", "ec2:CreateSecurityGroup"),
    ("GroupInItsVpc", FAILS, "make a security group", "ec2:CreateSecurityGroup"),
    ("GroupOpened", FAILS, "let port 22 in", "ec2:AuthorizeSecurityGroupIngress"),
    ("ImagesByName", FAILS, "a plan of what to rent", "ssm:GetParameters"),
    ("TypesByNeed", FAILS, "a plan of what to rent", "ec2:GetInstanceTypesFromInstanceRequirements"),
    ("OptionalPrices", OPEN, "read spot prices", "ec2:DescribeSpotPriceHistory"),
    ("OptionalQuotas", OPEN, "vCPU quota", "servicequotas:GetServiceQuota"),
    (
        "OptionalSecondLookAtANotice",
        OPEN,
        "see an interruption in the spot request",
        "ec2:DescribeSpotInstanceRequests",
    ),
    ("OptionalConsole", OPEN, "read a machine's console", "ec2:GetConsoleOutput"),
    ("OptionalPipeInsideTheVpc", OPEN, "find the pipe among the VPC's", "ec2:DescribeNetworkInterfaces"),
    (
        "OptionalTakeover",
        OPEN,
        "take over the machine of a killed pipe",
        "ec2-instance-connect:SendSSHPublicKey",
    ),
];

/// The actions without which a run goes on.
const OPTIONAL: [&str; 5] = [
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSpotInstanceRequests",
    "ec2:DescribeSpotPriceHistory",
    "pricing:GetProducts",
    "servicequotas:GetServiceQuota",
];

/// The actions on a machine, and the checks of them.
const ON_A_MACHINE: [(&str, &str); 3] = [
    ("ec2:TerminateInstances", "end a machine"),
    ("ec2:GetConsoleOutput", "read a machine's console"),
    ("ec2-instance-connect:SendSSHPublicKey", "take over the machine of a killed pipe"),
];

/// A step that only tries, on behalf of one caller after the other.
struct Trial {
    scene: Scene,
    callers: usize,
}

/// What a trial said.
struct Told {
    code: Option<i32>,
    /// A text for each check, with its mark.
    checks: Vec<String>,
    all: String,
}

impl Trial {
    fn new(endpoint: &str) -> Self {
        let mut scene = Scene::new(Access::Token, &[]);
        scene.set("CLOUD", "aws").set("AWS_ENDPOINT_URL", endpoint).set("DRY_RUN", "true");
        scene.set("AWS_DEFAULT_REGION", "eu-west-1").set("IMAGE", "al2023");
        // moto's default VPC has no way in.
        scene.set("SSH_ADDRESS", "private").set("SSH_CIDR", "203.0.113.7/32");
        scene.set("TRAIN_COMMAND", "true").set("OUTPUTS", "m.bin").set("MAX_RUNTIME", "1h");
        Self { scene, callers: 0 }
    }

    /// Runs the pipe for the next caller, with these variables.
    fn next(&mut self, variables: &[(&str, &str)]) -> Told {
        for (name, value) in [("INSTANCE_TYPE", "m5.large"), ("CPUS", ""), ("MEMORY", "")] {
            self.scene.set(name, value);
        }
        for (name, value) in variables {
            self.scene.set(name, value);
        }
        self.scene.set("AWS_ACCESS_KEY_ID", &key(self.callers)).set("AWS_SECRET_ACCESS_KEY", "s3cr3tvalue");
        // Each is a run of its own: what one could not remove is not the next one's.
        self.scene.set("BITBUCKET_STEP_UUID", &format!("{{22222222-2222-2222-2222-{:012}}}", self.callers));
        self.callers += 1;
        let run = self.scene.run();
        let mut checks: Vec<String> = Vec::new();
        for line in run.out.lines() {
            match checks.last_mut() {
                Some(check) if line.starts_with("  ") => check.extend(["\n", line]),
                _ if [ALLOWED, FAILS, OPEN].iter().any(|mark| line.starts_with(&format!("{mark} "))) => {
                    checks.push(line.to_owned());
                }
                _ => {}
            }
        }
        checks.retain(|check| !check.contains("DRY_RUN: "));
        Told { code: run.code, checks, all: format!("{}\n{}", run.log, run.out) }
    }
}

impl Told {
    /// The check of this mark and subject that names an action.
    fn check(&self, mark: &str, subject: &str, action: &str) -> &str {
        let fits =
            |check: &&String| check.starts_with(mark) && check.contains(subject) && check.contains(action);
        let check = self.checks.iter().find(fits);
        check.unwrap_or_else(|| panic!("no '{mark} {subject} … {action}':\n{}", self.all))
    }

    /// Fails unless the checks that did not pass are these, by their subjects.
    fn assert_passed_but(&self, subjects: &[&str]) {
        let others: Vec<&String> = self.checks.iter().filter(|check| !check.starts_with(ALLOWED)).collect();
        let is_expected = |check: &&String| subjects.iter().any(|subject| check.contains(subject));
        assert!(others.iter().all(is_expected) && others.len() == subjects.len(), "{others:#?}");
    }

    fn assert_code(&self) {
        let failed = self.checks.iter().any(|check| check.starts_with(FAILS));
        assert_eq!(self.code, Some(if failed { 2 } else { 0 }), "{}", self.all);
    }
}

fn caller(lacks: &str, unknown: Unknown) -> Caller {
    let lacks = Some(lacks.to_owned()).filter(|lacks| !lacks.is_empty());
    Caller { repository: OURS, lacks, unknown }
}

/// What asks for types by what they have.
const BY_NEED: [(&str, &str); 3] = [("INSTANCE_TYPE", ""), ("CPUS", "2"), ("MEMORY", "4")];

fn wish(lacks: &str) -> &'static [(&'static str, &'static str)] {
    if lacks == "TypesByNeed" || lacks.contains("FromInstanceRequirements") { &BY_NEED } else { &[] }
}

#[test]
fn with_the_whole_policy_each_check_passes() {
    let moto = match Moto::start() {
        Ok(moto) => moto,
        Err(reason) => return skip::skip(&reason),
    };
    let stranger = Caller { repository: "acme/meadow", lacks: None, unknown: Unknown::Denied };
    let orders = [Unknown::Allowed, Unknown::Denied, Unknown::NotFound];
    let callers = orders.map(|unknown| caller("", unknown)).into_iter();
    let callers = callers.chain([stranger, caller("", Unknown::Allowed), caller("", Unknown::Allowed)]);
    let mut trial = Trial::new(&serve(moto.url(), callers.collect()));
    let both = [("PURCHASE", "spot-then-on-demand")];
    let told = trial.next(&both);
    told.assert_passed_but(&[]);
    told.assert_code();
    assert_eq!(told.checks.iter().filter(|check| check.contains("eu-west-1: ")).count(), 18, "{}", told.all);
    // What AWS says of a machine that does not exist is told for what it is.
    for _ in 1..orders.len() {
        let told = trial.next(&both);
        told.assert_passed_but(&ON_A_MACHINE.map(|(_, subject)| subject));
        told.assert_code();
        for (action, subject) in ON_A_MACHINE {
            assert!(told.check(OPEN, subject, action).contains(UNTELLABLE), "{}", told.all);
        }
    }
    // The policy with another repository's name filled in.
    let told = trial.next(&both);
    told.check(FAILS, "make a security group", "ec2:CreateSecurityGroup");
    told.check(FAILS, "make a launch template", "ec2:CreateLaunchTemplate");
    told.check(OPEN, "launch a spot machine", "not tried, as there is no launch template");
    told.assert_code();
    let told = trial.next(&BY_NEED);
    // Without the types' sizes no quota can be compared.
    assert!(!told.checks.iter().any(|check| check.starts_with(FAILS)), "{}", told.all);
    let told = trial.next(&[("AWS_DEFAULT_REGION", WITHOUT_QUOTA)]);
    let smallest = "no type fits into its quota for spot machines (Standard (A, C, D, H, I, M, R, T, Z): 0, the smallest of your types has 2)";
    told.check(FAILS, "vCPU quota for spot machines", smallest);
    told.assert_code();
}

#[test]
fn each_statement_that_the_policy_lacks_is_told_by_a_check() {
    let mut named: Vec<&str> = STATEMENTS.iter().map(|(name, ..)| *name).collect();
    let policy = documented();
    let mut all: Vec<&str> =
        policy["Statement"].as_array().unwrap().iter().map(|it| it["Sid"].as_str().unwrap()).collect();
    named.sort_unstable();
    all.sort_unstable();
    assert_eq!(named, all);
    let moto = match Moto::start() {
        Ok(moto) => moto,
        Err(reason) => return skip::skip(&reason),
    };
    let callers = STATEMENTS.map(|(name, ..)| caller(name, Unknown::Denied));
    let mut trial = Trial::new(&serve(moto.url(), callers.into()));
    for (name, mark, subject, action) in STATEMENTS {
        let told = trial.next(wish(name));
        let line = told.check(mark, subject, action);
        assert!(mark != FAILS || line.contains(&format!("Next: allow {action} to the role")), "{}", told.all);
        let on_a_machine = ON_A_MACHINE.iter().any(|(_, other)| *other == subject);
        assert_eq!(line.contains(UNTELLABLE), on_a_machine, "{line}");
        told.assert_code();
        let line: String = line.lines().next().unwrap().chars().take(110).collect();
        say(&format!("{SHOWN}{name:27} | {action:42} | {line}"));
    }
}

#[test]
fn each_action_that_the_policy_lacks_is_named() {
    let statements = documented()["Statement"].as_array().unwrap().clone();
    // A statement of one action is tried as a whole.
    let several = statements.iter().map(actions_of).filter(|actions| actions.len() > 1).flatten();
    let mut actions: Vec<String> = several.chain(ON_A_MACHINE.map(|(action, _)| action.to_owned())).collect();
    actions.sort_unstable();
    actions.dedup();
    let moto = match Moto::start() {
        Ok(moto) => moto,
        Err(reason) => return skip::skip(&reason),
    };
    let callers = actions.iter().map(|action| caller(action, Unknown::Allowed));
    let mut trial = Trial::new(&serve(moto.url(), callers.collect()));
    for action in &actions {
        let told = trial.next(wish(action));
        let is_optional = OPTIONAL.contains(&action.as_str());
        let on_a_machine = ON_A_MACHINE.iter().find(|(other, _)| other == action);
        if let Some((_, subject)) = on_a_machine {
            assert!(told.check(OPEN, subject, action).contains(UNTELLABLE), "{}", told.all);
        } else {
            let line = told.check(if is_optional { OPEN } else { FAILS }, "", action);
            assert!(
                is_optional || line.contains(&format!("Next: allow {action} to the role")),
                "{}",
                told.all
            );
        }
        told.assert_code();
    }
}
