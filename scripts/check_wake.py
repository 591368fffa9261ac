"""Check docs/wake.yaml: by cfn-lint, and by what its rules make of a machine's events at moto.

moto's CloudFormation knows neither connections nor API destinations, so that the resources are made by calls. moto
sends an API destination no body, and puts a text into a template without the quotes that EventBridge puts around
it: so each rule gets a log as a target, which shows the events that the rule takes, and the template is filled in
here.

Runs under a Python that has scripts/requirements.txt: see `make docs`.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import boto3
from cfnlint.decode.cfn_yaml import load
from moto import mock_aws

TEMPLATE = Path(__file__).resolve().parent.parent / "docs" / "wake.yaml"
PIPELINE = {"Workspace": "acme", "Repository": "forest", "Pipeline": "train it"}
PARAMETERS = PIPELINE | {"Token": "s3cret-t0ken", "AWS::AccountId": "1"}
# What the agent's event holds: crates/agent/src/wake/event_bus.rs.
DETAIL = {"workspace": "acme", "repo": "forest", "pipeline": "train it", "run": "run-1", "commit": "c0ffee", "reason": "ended"}
# What ends a text, or a template's field, for who does not escape it.
ODD_BRANCH = 'a"},"selector":{"pattern":"deploy"}}\\<run>'

# Each has one mistake; the check is worth something only while cfn-lint finds them.
BROKEN = {
    "a property that is misspelt": ("InvocationEndpoint:", "InvocationEndpiont:"),
    "a reference to nothing": ("!GetAtt Connection.Arn", "!GetAtt Connexion.Arn"),
    "a value that is none of those allowed": ("HttpMethod: POST", "HttpMethod: SEND"),
    "an alias, which CloudFormation does not know": ("Id: pipeline\n", "Id: &id pipeline\n          Input: *id\n"),
}


def lint(text):
    """What cfn-lint says of a template; nothing of a good one."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        command = [Path(sys.executable).with_name("cfn-lint"), file.name]
        answer = subprocess.run(command, capture_output=True, text=True)
    return (answer.stdout + answer.stderr).replace(file.name, TEMPLATE.name) if answer.returncode else None


def resolved(value, known):
    """A part of the template with its references and substitutions carried out."""
    match value:
        case {"Ref": name}:
            return known[name]
        case {"Fn::GetAtt": [name, _]}:
            return known[name]
        case {"Fn::Sub": text}:
            return re.sub(r"\$\{([^}]+)\}", lambda found: known[found[1]], text)
        case dict():
            return {name: resolved(item, known) for name, item in value.items()}
        case list():
            return [resolved(item, known) for item in value]
        case _:
            return value


class Stack:
    """The template's resources at moto, with a log in the place of each rule's target."""

    def __init__(self, template):
        self.template = template
        self.known = dict(PARAMETERS)
        session = boto3.Session("a", "b", region_name="eu-west-1")
        self.events, self.logs, self.iam = (session.client(name) for name in ["events", "logs", "iam"])
        bus = self.properties("Bus")["Name"]
        self.known["Bus"] = self.events.create_event_bus(Name=bus)["EventBusArn"]
        made = self.events.create_connection(Name="c", **self.properties("Connection"))
        self.known["Connection"] = made["ConnectionArn"]
        made = self.events.create_api_destination(Name="d", **self.properties("Destination"))
        self.known["Destination"] = made["ApiDestinationArn"]
        role = self.properties("StarterRole")
        trust = json.dumps(role["AssumeRolePolicyDocument"])
        self.known["StarterRole"] = self.iam.create_role(RoleName="r", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
        self.rules = [name for name, item in template["Resources"].items() if item["Type"] == "AWS::Events::Rule"]
        for rule in self.rules:
            self.make_rule(rule)

    def properties(self, name):
        return resolved(self.template["Resources"][name]["Properties"], self.known)

    def make_rule(self, name):
        properties = self.properties(name)
        bus, pattern = properties["EventBusName"], json.dumps(properties["EventPattern"])
        self.events.put_rule(Name=name, EventBusName=bus, EventPattern=pattern)
        answer = self.events.put_targets(Rule=name, EventBusName=bus, Targets=properties["Targets"])
        assert answer["FailedEntryCount"] == 0, answer
        self.events.remove_targets(Rule=name, EventBusName=bus, Ids=["pipeline"])
        self.logs.create_log_group(logGroupName=name)
        group = self.logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"][0]["arn"].removesuffix(":*")
        self.events.put_targets(Rule=name, EventBusName=bus, Targets=[{"Id": "log", "Arn": group}])

    def bodies(self, detail, source="trainspot", kind="Trainspot run is due"):
        """What each rule that takes this event sends to Bitbucket, by the rule's name."""
        before = {rule: len(self.taken(rule)) for rule in self.rules}
        entry = {"Source": source, "DetailType": kind, "Detail": json.dumps(detail), "EventBusName": self.known["Bus"]}
        answer = self.events.put_events(Entries=[entry])
        assert answer["FailedEntryCount"] == 0, answer
        taken = [rule for rule in self.rules if len(self.taken(rule)) > before[rule]]
        return {rule: self.body(rule, detail) for rule in taken}

    def taken(self, rule):
        return self.logs.filter_log_events(logGroupName=rule)["events"]

    def body(self, rule, detail):
        """The rule's template filled in, as EventBridge does it: a text outside of quotes becomes one of JSON's."""
        [target] = self.properties(rule)["Targets"]
        transformer = target["InputTransformer"]
        values = {}
        for name, path in transformer["InputPathsMap"].items():
            values[name] = json.dumps(detail[path.removeprefix("$.detail.")])
        used = re.sub(r"<([^<>]*)>", lambda found: values[found[1]], transformer["InputTemplate"])
        return json.loads(used)


def check_events(stack):
    selector = {"type": "custom", "pattern": "train it"}
    commit = {"type": "commit", "hash": "c0ffee"}
    variables = [{"key": "TRAINSPOT_RUN", "value": "run-1"}]

    def of_branch(name):
        target = {"type": "pipeline_ref_target", "ref_type": "branch", "ref_name": name}
        return {"RuleOfBranch": {"target": target | {"commit": commit, "selector": selector}, "variables": variables}}

    target = {"type": "pipeline_commit_target", "commit": commit, "selector": selector}
    expect(stack.bodies(DETAIL), {"RuleOfCommit": {"target": target, "variables": variables}})
    for branch in ["main", ODD_BRANCH]:
        expect(stack.bodies(DETAIL | {"branch": branch}), of_branch(branch))
    for other in [{"workspace": "x"}, {"repo": "x"}, {"pipeline": "deploy"}]:
        expect(stack.bodies(DETAIL | other), {})
    for lacking in ["workspace", "repo", "pipeline", "run", "commit"]:
        expect(stack.bodies({name: value for name, value in DETAIL.items() if name != lacking}), {})
    expect(stack.bodies(DETAIL, source="else"), {})
    expect(stack.bodies(DETAIL, kind="else"), {})


def check_rights(stack):
    """The machine may put events on this bus only, and the rules' role start this pipeline only; both are told."""
    policies = [stack.properties("MachinePolicy")["PolicyDocument"]]
    policies += [policy["PolicyDocument"] for policy in stack.properties("StarterRole")["Policies"]]
    allowed = [(item["Action"], item["Resource"]) for policy in policies for item in policy["Statement"]]
    known = stack.known
    expect(allowed, [("events:PutEvents", known["Bus"]), ("events:InvokeApiDestination", known["Destination"])])
    [destination] = stack.events.list_api_destinations()["ApiDestinations"]
    url = "https://api.bitbucket.org/2.0/repositories/acme/forest/pipelines/"
    expect((destination["InvocationEndpoint"], destination["HttpMethod"]), (url, "POST"))


def check_token(template):
    """The token is hidden, and only the connection has it."""
    expect(template["Parameters"]["Token"]["NoEcho"], True)
    parts = {**template["Resources"], "Outputs": template["Outputs"]}
    expect([name for name, part in parts.items() if "Token" in json.dumps(part)], ["Connection"])


def expect(found, expected):
    if found != expected:
        sys.exit(f"error: {TEMPLATE.name}:\n  expected {expected}\n  found    {found}")


def main():
    text = TEMPLATE.read_text()
    if (wrong := lint(text)) is not None:
        sys.exit(f"error: cfn-lint refuses {TEMPLATE.name}:\n{wrong}")
    broken = {name: text.replace(good, bad, 1) for name, (good, bad) in BROKEN.items()}
    missed = [name for name, other in broken.items() if other == text or lint(other) is None]
    if missed:
        sys.exit(f"error: cfn-lint passes {', '.join(missed)}")
    template = load(str(TEMPLATE))
    check_token(template)
    with mock_aws():
        stack = Stack(template)
        check_events(stack)
        check_rights(stack)
    print(f"{TEMPLATE.name} is valid, its rules start one pipeline, and {len(BROKEN)} broken ones are found out")


if __name__ == "__main__":
    main()
