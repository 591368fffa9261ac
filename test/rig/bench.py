"""What the rig's own test is written with: clients, keys, machines, a shell on them, and checks that count."""

import base64
import json
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

CHECKED = []


def check(held, words):
    """Unlike `assert`, never optimised away; and what was checked is counted."""
    if not held:
        raise AssertionError(words)
    CHECKED.append(words)


def refused(code, action, **parameters):
    """Check that this call is answered with this error code."""
    try:
        answer = action(**parameters)
    except ClientError as error:
        return check(error.response["Error"]["Code"] == code, f"{code}, not {error.response['Error']}")
    raise AssertionError(f"{code} was due, not {answer}")


def eventually(what, look, seconds=30):
    """The first true value of `look`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := look():
            CHECKED.append(what)
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what}")


class Bench:
    """A lab, seen from inside of its network."""

    def __init__(self, facts, folder: Path):
        self.facts, self.folder = facts, folder
        for name in ("host", "client"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", folder / name], check=True)
        self.ec2 = self.client("ec2")

    def client(self, service, region="us-east-1"):
        variables = self.facts["variables"]
        return boto3.client(service, region_name=region, endpoint_url=variables["AWS_ENDPOINT_URL"],
                            aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
                            aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
                            config=Config(retries={"total_max_attempts": 1}, read_timeout=30))

    def control(self, path, asked=None):
        """GET, or POST with a body. Errors are raised with the lab's words."""
        data = None if asked is None else json.dumps(asked).encode()
        try:
            with urllib.request.urlopen(f"{self.facts['control']}/{path}", data=data, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error.read().decode()}") from None

    def seen(self, instance):
        """The lab's own view of it."""
        return next(found for found in self.control("instances") if found["id"] == instance)

    def text(self, name):
        return (self.folder / name).read_text()

    def user_data(self):
        private = "".join(f"    {line}\n" for line in self.text("host").splitlines())
        return ("#cloud-config\nssh_deletekeys: true\nssh_genkeytypes: [ed25519]\nssh_keys:\n  ed25519_private: |\n"
                f"{private}  ed25519_public: |\n    {self.text('host.pub')}"
                f"ssh_authorized_keys:\n  - {self.text('client.pub')}"
                "bootcmd:\n  - [sh, -c, 'echo early > /run/bootcmd-was-here']\n")

    def image(self, architecture="amd64"):
        name = f"/aws/service/canonical/ubuntu/server/24.04/stable/current/{architecture}/hvm/ebs-gp3/ami-id"
        return self.client("ssm").get_parameter(Name=name)["Parameter"]["Value"]

    def template(self, name, tags=(), **more):
        """A launch template as the pipe's; its id."""
        kinds = ("instance", "volume", "spot-instances-request", "network-interface")
        data = {"ImageId": self.image(), "UserData": base64.b64encode(self.user_data().encode()).decode(),
                "InstanceInitiatedShutdownBehavior": "terminate",
                "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
                "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {
                    "VolumeSize": 30, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}}],
                "TagSpecifications": [{"ResourceType": kind, "Tags": [dict(zip(("Key", "Value"), tag)) for tag in tags]}
                                      for kind in kinds if tags], **more}
        data = {key: value for key, value in data.items() if value}
        made = self.ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=data)
        return made["LaunchTemplate"]["LaunchTemplateId"]

    def fleet(self, template, overrides, purchase="spot", **more):
        return self.ec2.create_fleet(
            Type="instant", SpotOptions={"AllocationStrategy": "price-capacity-optimized"},
            LaunchTemplateConfigs=[{"LaunchTemplateSpecification": {"LaunchTemplateId": template, "Version": "$Latest"},
                                    "Overrides": overrides}],
            TargetCapacitySpecification={"TotalTargetCapacity": 1, "DefaultTargetCapacityType": purchase}, **more)

    def rent(self, template):
        return self.fleet(template, [{"InstanceType": "m5.large"}])["Instances"][0]["InstanceIds"][0]

    def describe(self, instance):
        return self.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]

    def state(self, instance):
        return self.describe(instance)["State"]["Name"]

    def reason(self, instance):
        return self.describe(instance)["StateReason"]["Code"]

    def request_of(self, instance):
        asked = self.ec2.describe_spot_instance_requests(
            SpotInstanceRequestIds=[self.describe(instance)["SpotInstanceRequestId"]])
        return asked["SpotInstanceRequests"][0]

    def ssh(self, address, command, key="client", timeout=20):
        """Run it as `ubuntu`, with the host key pinned. The finished process."""
        known = self.folder / f"known-{address}"
        known.write_text(f"{address} {self.text('host.pub')}")
        options = ["StrictHostKeyChecking=yes", f"UserKnownHostsFile={known}", "IdentitiesOnly=yes", "BatchMode=yes",
                   "ConnectTimeout=2", "LogLevel=ERROR"]
        words = [word for option in options for word in ("-o", option)]
        return subprocess.run(["ssh", *words, "-i", self.folder / key, f"ubuntu@{address}", command],
                              capture_output=True, text=True, timeout=timeout)

    def reach(self, instance):
        """Wait until SSH lets us in. The public address."""
        eventually("running", lambda: self.state(instance) == "running")
        address = self.describe(instance)["PublicIpAddress"]
        eventually("ssh", lambda: self.ssh(address, "true").returncode == 0, 90)
        return address
