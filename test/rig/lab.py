"""Inside the namespaces: network, moto behind its gate, the control API, and the service that tells a caller's address."""

import json
import os
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT, CONTROL_PORT, ADDRESS_PORT = 5000, 5001, 80


def import_moto():
    """Moto reads its settings when it is imported."""
    os.environ.update(MOTO_ENABLE_AMI_VALIDATION="1", MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION="1",
                      MOTO_ENABLE_KEYPAIR_VALIDATION="0", MOTO_PORT=str(PORT), AWS_ACCESS_KEY_ID="rig",
                      AWS_SECRET_ACCESS_KEY="rig", AWS_DEFAULT_REGION="us-east-1")
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    return DomainDispatcherApplication(create_backend_app), MotoRequestHandler


class CallerAddress(BaseHTTPRequestHandler):
    """What checkip.amazonaws.com is: the caller's address and a newline."""

    def do_GET(self):
        body = f"{self.client_address[0]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain;charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class UnixServer(ThreadingHTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self):
        Path(self.server_address).unlink(missing_ok=True)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "rig", 0

    def get_request(self):
        request, _ = super().get_request()
        return request, ("unix", 0)


def serve(server):
    threading.Thread(target=server.serve_forever, daemon=True).start()


def main():
    settings = json.loads(sys.argv[1])
    moto, request_handler = import_moto()
    from werkzeug.serving import make_server

    import network
    from aws import patch_all
    from control import Control, handler
    from faults import Faults
    from gate import Gate
    from guest import Site
    from machines import Machines

    class QuietHandler(request_handler):
        protocol_version = "HTTP/1.1"

        def log_request(self, *_):
            pass

    network.set_up_lab()
    site = Site(Path(settings["root"]), Path(settings["scratch"]), settings["binds"], settings["init"])
    machines, faults = Machines(site, settings["scale"]), Faults()
    patch_all(machines, faults)
    gate = Gate(moto, faults, machines)
    control = handler(Control(gate, faults, machines))

    serve(make_server(network.ENDPOINT, PORT, gate, threaded=True, request_handler=QuietHandler))
    serve(ThreadingHTTPServer((network.ENDPOINT, ADDRESS_PORT), CallerAddress))
    serve(ThreadingHTTPServer((network.ENDPOINT, CONTROL_PORT), control))
    serve(UnixServer(settings["socket"], control))
    print("READY " + json.dumps({
        "endpoint": f"http://{network.ENDPOINT}:{PORT}",
        "control": f"http://{network.ENDPOINT}:{CONTROL_PORT}",
        "socket": settings["socket"],
        "check_ip": f"http://{network.ENDPOINT}/",
        "address": network.OWN,
        "scale": settings["scale"],
        "variables": {
            "AWS_ENDPOINT_URL": f"http://{network.ENDPOINT}:{PORT}",
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "AWS_DEFAULT_REGION": "us-east-1",
            "PUBLIC_IP_URL": f"http://{network.ENDPOINT}/",
        },
    }), flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
