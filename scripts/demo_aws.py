"""What demo.sh asks of the rig. usage: demo_aws.py open | variables | interrupt | leftovers RIG_JSON

open: give the default VPC its way to the internet, which AWS's has and moto's lacks.
variables: what leads the pipe there, as NAME=VALUE.
interrupt: copy the pipe's log from stdin, and interrupt the machine that trains: once it has trees, and once after that.
leftovers: what is there, of every type of resource; exit code 1 if there is anything.
"""

import json
import sys
from urllib.request import ProxyHandler, Request, build_opener

TRIGGERS = ["25/200 trees", "resuming with"]
NOTICE = 4  # seconds; a thirtieth of EC2's

what, path = sys.argv[1:]
with open(path) as file:
    facts = json.load(file)
web = build_opener(ProxyHandler({}))


def control(path, asked=None):
    data = None if asked is None else json.dumps(asked).encode()
    with web.open(Request(f"{facts['control']}/{path}", data), timeout=60) as answer:
        return json.load(answer)


def open_vpc():
    import boto3

    names = facts["variables"]
    ec2 = boto3.client("ec2", region_name=names["AWS_DEFAULT_REGION"], endpoint_url=names["AWS_ENDPOINT_URL"],
                       aws_access_key_id=names["AWS_ACCESS_KEY_ID"], aws_secret_access_key=names["AWS_SECRET_ACCESS_KEY"])
    table = ec2.describe_route_tables()["RouteTables"][0]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=table["VpcId"])
    ec2.create_route(RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)


def interrupt():
    triggers = list(TRIGGERS)
    for line in sys.stdin:
        print(line, end="", flush=True)
        if triggers and triggers[0] in line:
            triggers.pop(0)
            # The newest: an earlier one may still be going.
            alive = [machine["id"] for machine in control("instances") if machine["alive"] and not machine["notice"]]
            control(f"instances/{alive[-1]}/interrupt", {"seconds": NOTICE})


if what == "open":
    open_vpc()
elif what == "variables":
    print(*(f"{name}={value}" for name, value in facts["variables"].items()), sep="\n")
elif what == "interrupt":
    interrupt()
elif what == "leftovers":
    left = control("leftovers")
    print(json.dumps(left, indent=2) if left else "nothing")
    sys.exit(1 if left else 0)
else:
    sys.exit(__doc__)
