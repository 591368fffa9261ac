"""The instance metadata service, version 2 only: what 169.254.169.254 answers inside of a guest."""

import json
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


def serve(guest, tree):
    """Serve `tree()`, a dict of dicts with bytes or str as leaves, to this guest. Returns the server."""
    handler = type("Handler", (Metadata,), {"tree": staticmethod(tree), "tokens": set()})
    server = guest.listen(lambda address: Server(address, handler))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 5}, daemon=True).start()
    return server


class Metadata(BaseHTTPRequestHandler):
    """GET and PUT as EC2 answers them: 401 without a token, 404 where nothing is, listings with a slash for folders."""

    protocol_version = "HTTP/1.1"
    server_version = "EC2ws"

    def do_PUT(self):
        seconds = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if self.path != "/latest/api/token":
            return self._send(405, b"")
        if not seconds.isdigit() or not 1 <= int(seconds) <= 21600:
            return self._send(400, b"")
        token = uuid.uuid4().hex
        self.tokens.add(token)
        self._send(200, token.encode(), {"X-aws-ec2-metadata-token-ttl-seconds": seconds})

    def do_GET(self):
        if self.headers.get("X-aws-ec2-metadata-token") not in self.tokens:
            return self._send(401, b"")
        parts = [part for part in self.path.split("?")[0].split("/") if part]
        # Dated versions are all the same.
        if not parts:
            return self._send(200, b"latest\n2021-03-23\n")
        node = self.tree()
        for part in parts[1:]:
            node = node.get(part) if isinstance(node, dict) else None
        if node is None:
            return self._send(404, b"")
        self._send(200, listing(node) if isinstance(node, dict) else node if isinstance(node, bytes) else node.encode())

    def _send(self, status, body, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Folder(dict):
    """One that names its entries otherwise than they are reached, as public-keys does."""

    names: list


def listing(node):
    if isinstance(node, Folder):
        return "\n".join(node.names).encode()
    return "\n".join(name + ("/" if isinstance(child, dict) else "") for name, child in node.items()).encode()


def tree_of(machine):
    """The metadata of an EC2 machine, now."""
    instance = machine.instance
    identity = {
        "instanceId": instance.id, "instanceType": instance.instance_type, "imageId": instance.image_id,
        "region": instance.region_name, "availabilityZone": instance.availability_zone,
        "accountId": instance.owner_id, "architecture": instance.architecture,
        "privateIp": instance.private_ip, "version": "2017-09-30",
    }
    data = {
        "ami-id": instance.image_id,
        "instance-id": instance.id,
        "instance-type": instance.instance_type,
        "instance-life-cycle": instance.lifecycle or "on-demand",
        "hostname": instance.private_dns_name,
        "local-hostname": instance.private_dns_name,
        "local-ipv4": instance.private_ip,
        "mac": "02:00:5e:01:00:01",
        "services": {"domain": "amazonaws.com", "partition": "aws"},
        "placement": {"availability-zone": instance.availability_zone, "region": instance.region_name},
    }
    if instance.public_ip:
        data["public-ipv4"] = instance.public_ip
        data["public-hostname"] = instance.public_dns_name
    if machine.key_material:
        data["public-keys"] = Folder({"0": {"openssh-key": machine.key_material}})
        data["public-keys"].names = [f"0={instance.key_name}"]
    if keys := machine.connect_keys():
        data["managed-ssh-keys"] = {"active-keys": keys}
    if machine.notice:
        data["spot"] = {"instance-action": json.dumps({"action": "terminate", "time": machine.notice}),
                        "termination-time": machine.notice}
    if machine.rebalance_notice:
        data["events"] = {"recommendations": {"rebalance": json.dumps({"noticeTime": machine.rebalance_notice})}}
    tree = {"meta-data": data, "dynamic": {"instance-identity": {"document": json.dumps(identity)}}}
    if machine.user_data:
        tree["user-data"] = machine.user_data
    return tree
