//! moto behind the policy of the documentation, evaluated with its conditions as AWS does before each call.
//!
//! A caller is known by its access key, so that one server serves callers whose policies lack different
//! things.

use super::evaluator::{Tags, given, policy, questions};
use super::http;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

/// The machine that a dry run names where there is none.
const NO_MACHINE: &str = "i-00000000000000000";
/// The region in which the account may have no virtual CPU at all; elsewhere it is five.
pub(crate) const WITHOUT_QUOTA: &str = "eu-central-1";

/// What AWS does first with a call on a machine that does not exist. Its documentation does not say.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unknown {
    /// It asks the policy, with no tags.
    Denied,
    /// It looks for the machine.
    NotFound,
    /// It asks the policy as if the machine had the run's tags.
    Allowed,
}

/// One who calls AWS.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The repository whose name is filled in.
    pub(crate) repository: &'static str,
    /// The statement or action that its policy lacks.
    pub(crate) lacks: Option<String>,
    pub(crate) unknown: Unknown,
}

/// The access key of the caller of this number.
pub(crate) fn key(number: usize) -> String {
    format!("AKIA{number:04}")
}

/// Serves these callers until the process ends, and returns its address.
pub(crate) fn serve(moto: &str, callers: Vec<Caller>) -> String {
    let moto = moto.trim_start_matches("http://").to_owned();
    let gatekeeper = Arc::new(Gatekeeper { moto, callers, made: Mutex::default() });
    http::serve(move |head, body| gatekeeper.answer(head, body))
}

struct Gatekeeper {
    /// Host and port.
    moto: String,
    callers: Vec<Caller>,
    made: Mutex<Made>,
}

/// What the present caller has made, so far as it matters to the policy.
#[derive(Clone, Default)]
struct Made {
    tags: Tags,
    /// The parameters of the call that made the launch template.
    template: Value,
}

impl Gatekeeper {
    fn answer(&self, head: &str, body: &str) -> (u16, String) {
        let call = Call::read(head, body);
        let caller = &self.callers[call.caller];
        let made = self.made.lock().unwrap().clone();
        let there = match caller.unknown {
            Unknown::NotFound if call.names_no_machine() => return call.not_found(),
            Unknown::Denied if call.names_no_machine() => Tags::new(),
            _ => made.tags,
        };
        let policy = policy(caller.repository, caller.lacks.as_deref());
        let asked = questions(&call.asked, &there, &made.template);
        if let Some(denied) = asked.iter().find(|question| !question.is_allowed_by(&policy)) {
            return call.denied(&denied.action);
        }
        let answer = call.beside_moto().unwrap_or_else(|| forward(&self.moto, head, body));
        if answer.0 == 200 {
            self.remember(&call);
        }
        answer
    }

    fn remember(&self, call: &Call) {
        let (mut made, parameters) = (self.made.lock().unwrap(), &call.asked["parameters"]);
        match call.action() {
            "CreateSecurityGroup" => made.tags = given(parameters, "security-group"),
            "CreateLaunchTemplate" => {
                made.tags = given(parameters, "launch-template");
                made.template = parameters.clone();
            }
            _ => {}
        }
    }
}

/// A request, as [`questions`] reads it.
struct Call {
    caller: usize,
    region: String,
    speaks_json: bool,
    asked: Value,
}

impl Call {
    fn read(head: &str, body: &str) -> Self {
        let (_, scope) = head.split_once("Credential=").unwrap();
        let scope: Vec<&str> = scope.split([',', '/']).take(4).collect();
        let [key, _, region, service] = scope[..] else { panic!("{head}") };
        let target = head.lines().find(|line| line.to_lowercase().starts_with("x-amz-target:"));
        let (action, parameters) = if let Some(target) = target {
            (target.rsplit('.').next().unwrap().to_owned(), serde_json::from_str(body).unwrap())
        } else {
            let form = reqwest::Url::parse(&format!("http://form/?{body}")).unwrap();
            let pairs = form.query_pairs().map(|(name, value)| (name.into_owned(), Value::from(&*value)));
            let parameters: Value = pairs.collect();
            (parameters["Action"].as_str().unwrap().to_owned(), parameters)
        };
        Self {
            caller: key.trim_start_matches("AKIA").parse().unwrap(),
            region: region.to_owned(),
            speaks_json: target.is_some(),
            asked: json!({"service": service, "action": action, "parameters": parameters}),
        }
    }

    fn action(&self) -> &str {
        self.asked["action"].as_str().unwrap()
    }

    fn names_no_machine(&self) -> bool {
        self.asked["parameters"].as_object().unwrap().values().any(|value| value == NO_MACHINE)
    }

    fn denied(&self, action: &str) -> (u16, String) {
        let user = "User: arn:aws:sts::111122223333:assumed-role/trainspot/step is not authorized to perform";
        let why = format!("{user}: {action} because no identity-based policy allows the {action} action");
        if self.speaks_json {
            return (400, json!({"__type": "AccessDeniedException", "message": why}).to_string());
        }
        let why = format!("You are not authorized to perform this operation. {why}");
        (403, error("UnauthorizedOperation", &why))
    }

    fn not_found(&self) -> (u16, String) {
        if self.speaks_json {
            return (
                400,
                json!({"__type": "EC2InstanceNotFoundException", "message": NO_MACHINE}).to_string(),
            );
        }
        (400, error("InvalidInstanceID.NotFound", &format!("The instance ID '{NO_MACHINE}' does not exist")))
    }

    /// The answers to calls that moto does not have, or looks for the machine at first.
    fn beside_moto(&self) -> Option<(u16, String)> {
        let answer = match self.action() {
            "GetServiceQuota" => {
                let value = if self.region == WITHOUT_QUOTA { 0.0 } else { 5.0 };
                json!({"Quota": {"ServiceCode": "ec2", "Value": value}}).to_string()
            }
            "GetProducts" => json!({"FormatVersion": "aws_v1", "PriceList": []}).to_string(),
            "GetConsoleOutput" | "TerminateInstances" => {
                return Some((412, error("DryRunOperation", "allowed")));
            }
            "SendSSHPublicKey" => json!({"RequestId": "x", "Success": true}).to_string(),
            action @ "GetInstanceTypesFromInstanceRequirements" => format!(
                "<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><instanceTypeSet><item>\
                 <instanceType>m5.large</instanceType></item></instanceTypeSet></{action}Response>"
            ),
            _ => return None,
        };
        Some((200, answer))
    }
}

fn error(code: &str, message: &str) -> String {
    let error = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    format!("<Response><Errors>{error}</Errors><RequestID>x</RequestID></Response>")
}

/// The same request to moto, which closes a connection of HTTP 1.0 after its answer.
fn forward(moto: &str, head: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(moto).unwrap();
    stream.write_all(format!("{}{body}", head.replacen("HTTP/1.1", "HTTP/1.0", 1)).as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split_whitespace().nth(1).unwrap().parse().unwrap(), body.to_owned())
}
