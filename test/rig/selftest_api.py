"""Tests of the API: what moto lacked, faults, tokens. One after another, each in an empty lab."""

import json
import time
from datetime import datetime, timezone

from botocore.exceptions import ClientError, ConnectionClosedError, ConnectionError

from bench import check, eventually, refused

TWO = [{"InstanceType": "m5.large"}, {"InstanceType": "m6i.large"}]


def the_template_is_honoured(bench):
    group = bench.ec2.create_security_group(GroupName="door", Description="door")["GroupId"]
    template = bench.template("full", tags=[("run", "7")], SecurityGroupIds=[group])
    answer = bench.fleet(template, TWO)
    check(answer["Errors"] == [], f"no errors: {answer['Errors']}")
    machine = answer["Instances"][0]["InstanceIds"][0]
    check(answer["Instances"][0]["Lifecycle"] == "spot", "it is spot")
    seen = bench.describe(machine)
    check(seen["State"]["Name"] == "pending", "it starts as pending")
    check([g["GroupId"] for g in seen["SecurityGroups"]] == [group], "the group is the template's")
    check(seen["MetadataOptions"]["HttpTokens"] == "required", "so are the metadata options")
    check(seen["InstanceLifecycle"] == "spot" and seen["PublicIpAddress"].startswith("198.51.100."), "public address")
    volume = bench.ec2.describe_volumes(VolumeIds=[seen["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]])["Volumes"][0]
    check((volume["Size"], volume["VolumeType"], volume["Encrypted"]) == (30, "gp3", True), f"the disk: {volume}")
    request = bench.request_of(machine)
    check(request["Type"] == "one-time" and request["InstanceId"] == machine, "a one-time request")
    for name, tags in (("instance", seen["Tags"]), ("volume", volume["Tags"]), ("request", request["Tags"])):
        check({"Key": "run", "Value": "7"} in tags, f"the {name} has the run's tag")
    behaviour = bench.ec2.describe_instance_attribute(InstanceId=machine, Attribute="instanceInitiatedShutdownBehavior")
    check(behaviour["InstanceInitiatedShutdownBehavior"]["Value"] == "terminate", "it ends when it shuts down")
    refused("DependencyViolation", bench.ec2.delete_security_group, GroupId=group)
    kinds = {found["kind"] for found in bench.control("leftovers")}
    check(kinds >= {"instance", "volume", "launch-template", "security-group", "spot-instances-request", "fleet",
                    "network-interface"}, f"all of it is listed as left: {kinds}")
    bench.ec2.terminate_instances(InstanceIds=[machine])
    check(bench.state(machine) == "shutting-down", "it takes a moment to end")
    eventually("terminated", lambda: bench.state(machine) == "terminated", 10)
    bench.ec2.delete_security_group(GroupId=group)
    bench.ec2.delete_launch_template(LaunchTemplateId=template)
    check(bench.control("leftovers") == [], f"nothing is left: {bench.control('leftovers')}")


def capacity_and_prices_choose_the_pool(bench):
    template = bench.template("pools")
    bench.control("capacity", [{"score": 0}, {"type": "m6i.large", "zone": "us-east-1b", "score": 9}])
    answer = bench.fleet(template, TWO)
    chosen = answer["Instances"][0]["LaunchTemplateAndOverrides"]["Overrides"]
    check((chosen["InstanceType"], chosen["AvailabilityZone"]) == ("m6i.large", "us-east-1b"), f"most capacity: {chosen}")
    bench.control("capacity", [{"score": 0}, {"type": "m6i.large", "zone": "us-east-1b", "score": 0}])
    answer = bench.fleet(template, TWO)
    check(answer["Instances"] == [] and len(answer["Errors"]) >= 10, "no pool at all, and each is told")
    check({error["ErrorCode"] for error in answer["Errors"]} <= {"InsufficientInstanceCapacity", "Unsupported"}, "why")
    bench.control("capacity", [])
    bench.control("faults", [{"kind": "capacity", "instance_type": "m5.large", "code": "MaxSpotInstanceCountExceeded"},
                             {"kind": "capacity", "instance_type": "m6i.large", "zone": "us-east-1a"}])
    answer = bench.fleet(template, TWO)
    check(answer["Instances"][0]["InstanceType"] == "m6i.large", "the pools without a fault are left")
    answer = bench.fleet(template, [{"InstanceType": "m5.large"}])
    check({error["ErrorCode"] for error in answer["Errors"]} == {"MaxSpotInstanceCountExceeded"}, "the fault's own code")
    answer = bench.fleet(template, [{"InstanceType": "m6g.large"}])
    check({error["ErrorCode"] for error in answer["Errors"]} == {"InvalidParameterValue"}, "the wrong architecture")
    answer = bench.fleet(template, [{"InstanceType": "m6i.large", "MaxPrice": "0.002"}])
    check({error["ErrorCode"] for error in answer["Errors"]} == {"SpotMaxPriceTooLow"}, "too low a price")
    answer = bench.fleet(template, [{"InstanceType": "m6i.large"}], purchase="on-demand")
    check(answer["Instances"][0]["Lifecycle"] == "on-demand", "on demand")
    check("InstanceLifecycle" not in bench.describe(answer["Instances"][0]["InstanceIds"][0]), "and not spot")


def requirements_find_types(bench):
    asked = {"VCpuCount": {"Min": 4, "Max": 4}, "MemoryMiB": {"Min": 16384},
             "AcceleratorTypes": ["gpu"], "AcceleratorCount": {"Min": 1}, "AcceleratorTotalMemoryMiB": {"Min": 20000}}
    found = bench.ec2.get_instance_types_from_instance_requirements(
        ArchitectureTypes=["x86_64"], VirtualizationTypes=["hvm"], InstanceRequirements=asked)["InstanceTypes"]
    kinds = {kind["InstanceType"] for kind in found}
    check({"g5.xlarge", "g6.xlarge"} <= kinds and not kinds & {"g4dn.xlarge", "m5.xlarge"}, f"GPUs of 20 GB: {kinds}")
    template = bench.template("needs")
    answer = bench.fleet(template, [{"InstanceRequirements": {"VCpuCount": {"Min": 2, "Max": 4}, "MemoryMiB": {"Min": 8000},
                                                              "AcceleratorCount": {"Max": 0}}}])
    kind = answer["Instances"][0]["InstanceType"]
    facts = bench.ec2.describe_instance_types(InstanceTypes=[kind])["InstanceTypes"][0]
    check(2 <= facts["VCpuInfo"]["DefaultVCpus"] <= 4 and facts["MemoryInfo"]["SizeInMiB"] >= 8000, f"it fits: {kind}")
    check("x86_64" in facts["ProcessorInfo"]["SupportedArchitectures"], "and can run the image")


def prices_are_plausible(bench):
    now = datetime.now(timezone.utc)
    rows = bench.ec2.describe_spot_price_history(InstanceTypes=["m5.large"], StartTime=now,
                                                 ProductDescriptions=["Linux/UNIX"])["SpotPriceHistory"]
    check(len(rows) >= 5 and len({row["SpotPrice"] for row in rows}) > 1, "a price for each zone")
    check(all(row["ProductDescription"] == "Linux/UNIX" and (now - row["Timestamp"]).days < 1 for row in rows), "of now")
    pricing = bench.client("pricing")
    filters = {"instanceType": "m5.large", "regionCode": "us-east-1", "operatingSystem": "Linux", "tenancy": "Shared",
               "preInstalledSw": "NA", "capacitystatus": "Used"}
    hour = usd(pricing, filters)
    check(0.05 < hour < 0.2, f"m5.large costs {hour}")
    check(all(float(row["SpotPrice"]) < hour for row in rows), "spot is cheaper")
    month = usd(pricing, {"volumeApiName": "gp3", "regionCode": "us-east-1", "productFamily": "Storage"})
    check(month == 0.08, f"a GB of gp3 costs {month}")


def usd(pricing, filters):
    answer = pricing.get_products(ServiceCode="AmazonEC2", Filters=[
        {"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in filters.items()])
    check(len(answer["PriceList"]) == 1, f"one product: {answer['PriceList']}")
    term, = json.loads(answer["PriceList"][0])["terms"]["OnDemand"].values()
    dimension, = term["priceDimensions"].values()
    return float(dimension["pricePerUnit"]["USD"])


def images_are_named_by_parameters(bench):
    for architecture, name in (("amd64", "x86_64"), ("arm64", "arm64")):
        image = bench.ec2.describe_images(ImageIds=[bench.image(architecture)])["Images"][0]
        check(image["Architecture"] == name and image["RootDeviceName"] == "/dev/sda1", f"{image}")
        check(image["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 8, "its snapshot's size")
    parameter = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
    ids = [bench.client("ssm", region).get_parameter(Name=parameter)["Parameter"]["Value"] for region in ("us-east-1", "eu-west-1")]
    check(ids[0] != ids[1], "each region has its own")
    learning = bench.client("ec2", "eu-west-1").describe_images(ImageIds=[ids[1]])["Images"][0]
    check(learning["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 75, "a deep-learning image is large")
    refused("InvalidAMIID.NotFound", bench.ec2.describe_images, ImageIds=[ids[1]])


def tokens_are_idempotent(bench):
    template = bench.template("token")
    first = bench.fleet(template, TWO, ClientToken="a")
    check(bench.fleet(template, TWO, ClientToken="a")["FleetId"] == first["FleetId"], "the same fleet")
    check(len(bench.control("instances")) == 1, "one machine")
    refused("IdempotentParameterMismatch", bench.fleet, template=template, overrides=TWO[:1], ClientToken="a")
    run = {"ImageId": bench.image(), "InstanceType": "m5.large", "MinCount": 1, "MaxCount": 1, "ClientToken": "b"}
    ids = {bench.ec2.run_instances(**run)["Instances"][0]["InstanceId"] for _ in range(2)}
    check(len(ids) == 1, "the same instance")
    refused("IdempotentParameterMismatch", bench.ec2.run_instances, **{**run, "InstanceType": "m6i.large"})


def faults_meet_their_calls(bench):
    look = bench.ec2.describe_vpcs
    bench.control("faults", [{"kind": "error", "action": "DescribeVpcs", "nth": 2, "count": 1, "status": 503,
                              "code": "RequestLimitExceeded", "message": "slow down"}])
    look()
    refused("RequestLimitExceeded", look)
    look()
    bench.control("faults", [{"kind": "error", "action": "DescribeVpcs", "status": 403, "code": "UnauthorizedOperation"}])
    refused("UnauthorizedOperation", look)
    bench.ec2.describe_subnets()
    bench.control("faults", [{"kind": "reset", "action": "CreateSecurityGroup", "count": 1}])
    broken(bench.ec2.create_security_group, GroupName="one", Description="one")
    check(bench.control("leftovers") == [], "a reset call is not carried out")
    bench.control("faults", [{"kind": "lost", "action": "CreateSecurityGroup", "count": 1}])
    broken(bench.ec2.create_security_group, GroupName="one", Description="one")
    check([found["kind"] for found in bench.control("leftovers")] == ["security-group"], "a lost answer's call is")
    refused("InvalidGroup.Duplicate", bench.ec2.create_security_group, GroupName="one", Description="one")
    bench.control("faults", [{"kind": "delay", "action": "DescribeVpcs", "seconds": 0.7}])
    started = time.monotonic()
    look()
    check(0.7 <= time.monotonic() - started < 3, "a delayed call takes its time")
    calls = [call for call in bench.control("calls") if call["action"] == "CreateSecurityGroup"]
    check([call["fault"] for call in calls] == ["reset", "lost", None], f"calls are written down: {calls}")
    check(calls[2]["code"] == "InvalidGroup.Duplicate" and calls[2]["parameters"]["GroupName"] == "one", "with their results")
    check([rule["met"] for rule in bench.control("faults")] == [1], "rules count")


def broken(action, **parameters):
    try:
        answer = action(**parameters)
    except (ConnectionClosedError, ConnectionError, OSError) as error:
        return check(not isinstance(error, ClientError), "the connection broke")
    raise AssertionError(f"the connection was to break, not to bring {answer}")


def one_is_left_alive(bench):
    """For the test that kills the rig."""
    bench.reach(bench.rent(bench.template("last")))


TESTS = [the_template_is_honoured, capacity_and_prices_choose_the_pool, requirements_find_types, prices_are_plausible,
         images_are_named_by_parameters, tokens_are_idempotent, faults_meet_their_calls, one_is_left_alive]
