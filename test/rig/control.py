"""The control API: JSON over HTTP, for tests. Paths and fields are listed in README.md."""

import base64
import json
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

from moto.core.base_backend import BackendDict
from moto.core.model_instances import reset_model_data

import leftovers
import search
from aws import fleet
from machines import LOCK


class Control:
    """What can be asked of the lab. Each method takes the request's fields and returns what is answered."""

    def __init__(self, gate, faults, machines):
        self.gate, self.faults, self.machines = gate, faults, machines

    # GET

    def get_faults(self, _):
        return [rule.describe() for rule in self.faults.rules]

    def get_calls(self, query):
        """The calls so far, oldest first; `since` is how many to leave out."""
        return self.gate.calls[int(query.get("since", 0)):]

    def get_instances(self, _):
        with LOCK:
            return [self._describe(machine) for machine in self.machines.by_id.values()]

    def get_leftovers(self, _):
        with LOCK:
            return leftovers.find()

    # POST

    def post_faults(self, rules):
        """Replace all rules by these."""
        self.faults.replace(rules)
        return self.get_faults({})

    def post_faults_add(self, rules):
        self.faults.add(rules)
        return self.get_faults({})

    def post_faults_remove(self, asked):
        """Remove the rules that have all these fields."""
        self.faults.remove(asked)
        return self.get_faults({})

    def post_capacity(self, scores):
        """[{type, zone, score}], each of the first two optional; an empty list forgets them all."""
        if not scores:
            fleet.CAPACITY.clear()
        for score in scores:
            fleet.CAPACITY[score.get("type", "*"), score.get("zone", "*")] = int(score["score"])
        return [{"type": kind, "zone": zone, "score": score} for (kind, zone), score in fleet.CAPACITY.items()]

    def post_unknown(self, asked):
        """For how many seconds a new machine is unknown to calls that describe or end it."""
        self.machines.unknown_seconds = float(asked["seconds"])
        return {}

    def post_grep(self, asked):
        """Search `needles` (strings; or `needles_base64`) in everything that `instances` (or all) hold, and all tags."""
        needles = [needle.encode() for needle in asked.get("needles", [])]
        needles += [base64.b64decode(needle) for needle in asked.get("needles_base64", [])]
        if not needles or not all(needles):
            raise ValueError("grep needs needles, none of them empty")
        wanted = asked.get("instances")
        chosen = [machine for identifier, machine in self.machines.by_id.items() if wanted is None or identifier in wanted]
        return search.find(chosen, needles)

    def post_reset(self, _):
        """End all machines, forget all calls, faults and resources."""
        self.machines.reset()
        with LOCK:
            BackendDict.reset()
            reset_model_data()
            self.faults.replace([])
            self.gate.reset()
            fleet.CAPACITY.clear()
        return {}

    # POST /instances/ID/…

    def instance_interrupt(self, machine, asked):
        return {"time": machine.interrupt(asked.get("seconds"))}

    def instance_rebalance(self, machine, _):
        machine.rebalance()
        return {}

    def instance_crash(self, machine, asked):
        machine.crash(bool(asked.get("left_running")))
        if not asked.get("left_running"):
            machine.gone.wait(20)
        return {}

    def instance_partition(self, machine, _):
        machine.partition()
        return {}

    def instance_heal(self, machine, _):
        machine.heal()
        return {}

    def instance_console(self, machine, _):
        return {"text": machine.console().decode(errors="replace")}

    def instance_files(self, machine, asked):
        """What the machine wrote: every path, and with `contents` a list of paths, their bytes in Base64."""
        here = dict(search.files(machine.guest))
        contents = {path: base64.b64encode(search.read(here[path])).decode() for path in asked.get("contents", [])}
        return {"files": sorted(here), "contents": contents}

    def _describe(self, machine):
        instance, request = machine.instance, machine.spot_request()
        return {
            "id": instance.id, "state": instance.state, "reason": instance.state_reason.code or None,
            "type": instance.instance_type, "zone": instance.availability_zone, "region": instance.region_name,
            "private": machine.private, "public": machine.public, "lifecycle": instance.lifecycle or "on-demand",
            "spot_request": request and {"id": request.id, "state": request.state, "status": request.status["Code"]},
            "notice": machine.notice, "ended": machine.how, "alive": bool(machine.guest and machine.guest.pid()),
            "tags": {tag["key"]: tag["value"] for tag in instance.get_tags()},
        }


def handler(control):
    """A request handler class for this control."""
    return type("Handler", (Handler,), {"control": control})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    control: Control

    def do_GET(self):
        self._answer("get", parse_qs(urlsplit(self.path).query))

    def do_POST(self):
        self._answer("post", None)

    def _answer(self, method, query):
        try:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = {name: values[0] for name, values in query.items()} if query is not None else json.loads(body or b"{}")
            status, answer = 200, self._route(method, urlsplit(self.path).path.strip("/").split("/"), asked)
        except LookupError as error:
            status, answer = 404, {"error": f"there is no {error}"}
        except Exception as error:
            status, answer = 400, {"error": f"{type(error).__name__}: {error}"}
        self._send(status, json.dumps(answer, default=str).encode())

    def _route(self, method, parts, asked):
        if parts[0] == "instances" and len(parts) == 3:
            machine = self.control.machines.get(parts[1])
            return self._find(f"instance_{parts[2]}")(machine, asked)
        return self._find("_".join([method, *parts]))(asked)

    def _find(self, name):
        found = getattr(self.control, name, None)
        if found is None:
            raise LookupError(f"{self.command} {self.path}")
        return found

    def _send(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass
