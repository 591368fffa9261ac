"""Tests of the machines: boot, metadata, interruption, and every way to end. They run at the same time."""

import json
import subprocess
import time

from bench import check, eventually


def boots_and_powers_off(bench):
    template = bench.template("off", tags=[("run", "off")])
    machine = bench.rent(template)
    address = bench.reach(machine)
    look = bench.ssh(address, "cloud-init status --wait >/dev/null; cat /run/bootcmd-was-here; sudo -n id -u; hostname; "
                     "cut -d. -f1 /proc/uptime; ls /opt/bound/rig.py; touch /opt/bound/x || echo read-only").stdout.split()
    check(look[:2] == ["early", "0"], f"bootcmd ran, sudo works: {look}")
    check(look[2].startswith("ip-172-31-"), "the name is EC2's")
    check(int(look[3]) < 120, f"its uptime is its own: {look[3]}")
    check(look[4:] == ["/opt/bound/rig.py", "read-only"], f"a bound folder is seen, read-only: {look}")
    metadata(bench, machine, address)
    instance_connect(bench, machine, address)
    search(bench, machine, address)
    check("Cloud-init" in bench.control(f"instances/{machine}/console", {})["text"], "the console is the machine's")
    check("Cloud-init" in bench.ec2.get_console_output(InstanceId=machine)["Output"], "GetConsoleOutput gives it")
    check(bench.seen(machine)["alive"], "it is alive")

    bench.ssh(address, "sudo -n systemctl poweroff --force --force")
    eventually("off", lambda: bench.state(machine) == "terminated", 10)
    check(bench.reason(machine) == "Client.InstanceInitiatedShutdown", "it ended itself")
    check(bench.request_of(machine)["State"] == "closed", "its request is closed")
    check(not bench.seen(machine)["alive"], "nothing of it runs")
    left = [found for found in bench.control("leftovers") if found["tags"].get("run") == "off"]
    check(left == [], f"volume, interface and request are gone: {left}")
    bench.ec2.delete_launch_template(LaunchTemplateId=template)


def metadata(bench, machine, address):
    base = "http://169.254.169.254/latest"
    script = f"""
import json, urllib.request, urllib.error
def ask(path, method="GET", **headers):
    try:
        return urllib.request.urlopen(urllib.request.Request("{base}/" + path, method=method, headers=headers)).read().decode()
    except urllib.error.HTTPError as error:
        return error.code
token = ask("api/token", "PUT", **{{"X-aws-ec2-metadata-token-ttl-seconds": "60"}})
paths = ["instance-id", "spot/instance-action", "events/recommendations/rebalance", "placement/availability-zone", "public-ipv4"]
print(json.dumps([ask("meta-data/instance-id")] + [ask("meta-data/" + path, **{{"X-aws-ec2-metadata-token": token}}) for path in paths]))
"""
    run = bench.ssh(address, f"python3 - <<'END'\n{script}\nEND")
    check(run.returncode == 0, f"metadata can be asked: {run.stderr}")
    zone = bench.describe(machine)["Placement"]["AvailabilityZone"]
    check(json.loads(run.stdout) == [401, machine, 404, 404, zone, address], f"metadata: {run.stdout}")
    bench.control(f"instances/{machine}/rebalance", {})
    run = bench.ssh(address, f"python3 - <<'END'\n{script}\nEND")
    check("noticeTime" in json.loads(run.stdout)[3], "the rebalance recommendation is seen")


def instance_connect(bench, machine, address):
    path = bench.folder / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "other", "-f", path], check=True)
    check(bench.ssh(address, "true", key="other").returncode != 0, "a key that nobody sent is refused")
    bench.client("ec2-instance-connect").send_ssh_public_key(
        InstanceId=machine, InstanceOSUser="ubuntu", SSHPublicKey=bench.text("other.pub"))
    run = bench.ssh(address, "echo in", key="other")
    check(run.stdout == "in\n", f"a key that was sent lets in: {run.stderr}")


def search(bench, machine, address):
    bench.ssh(address, "echo find-me-in-a-file > ~/kept; echo find-me-in-memory > /dev/shm/kept; "
              "nohup env HIDDEN=find-me-in-a-process sleep 60 >/dev/null 2>&1 &")
    needles = ["find-me-in-a-file", "find-me-in-memory", "find-me-in-a-process", "bootcmd-was-here", "not-there-at-all-x"]
    found = bench.control("grep", {"needles": needles, "instances": [machine]})
    where = {(hit["needle"], hit["what"]) for hit in found}
    check({(0, "file"), (1, "file"), (2, "environment"), (3, "user data")} <= where, f"what is there is found: {where}")
    check(4 not in {needle for needle, _ in where}, "what is not there is not")
    files = bench.control(f"instances/{machine}/files", {"contents": ["/home/ubuntu/kept"]})
    check("/home/ubuntu/kept" in files["files"] and files["contents"]["/home/ubuntu/kept"], "files are listed and read")


def is_interrupted(bench):
    machine = bench.rent(bench.template("spot"))
    address = bench.reach(machine)
    check(bench.request_of(machine)["Status"]["Code"] == "fulfilled", "fulfilled")
    started = time.time()
    bench.control(f"instances/{machine}/interrupt", {})
    status = bench.request_of(machine)
    check((status["State"], status["Status"]["Code"]) == ("closed", "instance-terminated-no-capacity"), "the request tells at once")
    check(bench.state(machine) == "running", "the instance runs on")
    notice = bench.ssh(address, NOTICE).stdout
    check(json.loads(notice)["action"] == "terminate", f"the metadata tell: {notice}")
    eventually("interrupted", lambda: bench.state(machine) == "terminated", 30)
    took, due = time.time() - started, 120 * bench.facts["scale"]
    check(due - 0.5 <= took <= due + 5, f"it ended {took:.1f} s after the notice, not {due:.1f}")
    check(bench.reason(machine) == "Server.SpotInstanceTermination", "the reason is the interruption")


NOTICE = """python3 -c '
import urllib.request as u
base = "http://169.254.169.254/latest/"
token = u.urlopen(u.Request(base + "api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})).read().decode()
print(u.urlopen(u.Request(base + "meta-data/spot/instance-action", headers={"X-aws-ec2-metadata-token": token})).read().decode())
'"""


def is_cut_off_and_crashes(bench):
    machine = bench.rent(bench.template("crash"))
    address = bench.reach(machine)
    bench.control(f"instances/{machine}/partition", {})
    run = bench.ssh(address, "true")
    check(run.returncode != 0 and "timed out" in run.stderr, f"silence, not a refusal: {run.stderr}")
    bench.control(f"instances/{machine}/heal", {})
    check(bench.ssh(address, "echo back").stdout == "back\n", "it is back as it was")
    bench.control(f"instances/{machine}/crash", {})
    check(bench.state(machine) == "terminated", "a crash ends it")
    check(bench.reason(machine) == "Server.InternalError", "by EC2's fault")


def is_dead_but_said_to_run(bench):
    machine = bench.rent(bench.template("zombie"))
    address = bench.reach(machine)
    bench.control(f"instances/{machine}/crash", {"left_running": True})
    eventually("dead", lambda: not bench.seen(machine)["alive"])
    check(bench.state(machine) == "running", "EC2 has not seen it")
    check("timed out" in bench.ssh(address, "true").stderr, "and it is silent")
    answer = bench.ec2.terminate_instances(InstanceIds=[machine])["TerminatingInstances"][0]
    check(answer["CurrentState"]["Name"] == "shutting-down", "it can be terminated all the same")
    eventually("gone", lambda: bench.state(machine) == "terminated", 10)
    check(bench.reason(machine) == "Client.UserInitiatedShutdown", "by us")


TESTS = [boots_and_powers_off, is_interrupted, is_cut_off_and_crashes, is_dead_but_said_to_run]
