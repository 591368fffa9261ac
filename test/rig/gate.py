"""The gate before moto: every AWS call passes it, is written down, may meet a fault, and is idempotent by its token."""

import hashlib
import io
import json
import socket
import time
import urllib.parse
import uuid

from aws import prices
from machines import LOCK

TOKENED = {"RunInstances", "CreateFleet", "CreateLaunchTemplate", "CreateVolume"}
TAKES_NO_TURN = {"AssumeRoleWithWebIdentity"}


class Reset(Exception):
    """The connection is to be closed without an answer."""


class Call:
    """What a request asks: service, region, action, and its parameters as a flat dict of strings."""

    def __init__(self, environ):
        length = int(environ.get("CONTENT_LENGTH") or 0)
        self.body = environ["wsgi.input"].read(length)
        environ["wsgi.input"] = io.BytesIO(self.body)
        self.service = self.region = None
        scope = environ.get("HTTP_AUTHORIZATION", "")
        if "Credential=" in scope:
            _, _, self.region, self.service, *_ = scope.split("Credential=")[1].split(",")[0].split("/")
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        if target:
            self.action = target.split(".")[-1]
            self.json = json.loads(self.body or b"{}")
            self.parameters = {key: value if isinstance(value, str) else json.dumps(value) for key, value in self.json.items()}
        else:
            text = self.body.decode(errors="replace") or environ.get("QUERY_STRING", "")
            self.parameters = dict(urllib.parse.parse_qsl(text, keep_blank_values=True))
            self.action = self.parameters.get("Action") or f"{environ['REQUEST_METHOD']} {environ.get('PATH_INFO', '/')}"
            self.json = None
        self.service = self.service or ("sts" if self.action.startswith("AssumeRole") else "s3")
        self.started = time.time()

    def identity(self):
        """A hash of all parameters but the client token."""
        kept = sorted((key, value) for key, value in self.parameters.items() if key != "ClientToken")
        return hashlib.sha256(json.dumps([self.region, kept]).encode()).hexdigest()

    def error(self, status, code, message):
        """The service's way to say an error: (status, content type, body)."""
        request = str(uuid.uuid4())
        if self.json is not None:
            return status, "application/x-amz-json-1.1", json.dumps({"__type": code, "message": message}).encode()
        words = tuple(map(_escape, (code, message)))
        if self.service == "ec2":
            text = "<Response><Errors><Error><Code>%s</Code><Message>%s</Message></Error></Errors>"
            text = text % words + f"<RequestID>{request}</RequestID></Response>"
        else:
            text = "<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error>" % words
            text += f"<RequestId>{request}</RequestId></ErrorResponse>"
        return status, "text/xml", text.encode()


def _escape(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class Gate:
    """WSGI: faults, record, tokens; then the rig's own services, then moto."""

    def __init__(self, moto, faults, machines):
        self.moto, self.faults, self.machines = moto, faults, machines
        self.calls, self.tokens = [], {}

    def reset(self):
        self.calls, self.tokens = [], {}

    def __call__(self, environ, start_response):
        call = Call(environ)
        record = {"service": call.service, "region": call.region, "action": call.action, "time": call.started,
                  "parameters": call.parameters, "status": None, "code": None, "fault": None}
        self.calls.append(record)
        try:
            status, headers, body = self._answer(call, environ, record)
        except Reset:
            record["seconds"] = round(time.time() - call.started, 4)
            _reset(environ)
            start_response("500 reset", [])
            return []
        record.update(status=status, code=_code(body) if status >= 400 else None,
                      seconds=round(time.time() - call.started, 4))
        start_response(f"{status} -", headers)
        return [body]

    def _answer(self, call, environ, record):
        fault = self.faults.take(call)
        record["fault"] = fault and fault.kind
        if fault and fault.kind == "delay":
            time.sleep(fault.seconds)
        if fault and fault.kind == "reset":
            raise Reset
        if fault and fault.kind == "error":
            return _plain(call.error(fault.status, fault.code, fault.message))
        answer = self._carry_out(call, environ)
        if fault and fault.kind == "lost":
            record.update(status=answer[0], lost=True)
            raise Reset
        return answer

    def _carry_out(self, call, environ):
        with LOCK:
            token = call.parameters.get("ClientToken") if call.action in TOKENED else None
            before = self.tokens.get((call.region, call.action, token)) if token else None
            if before:
                if before[0] == call.identity():
                    return before[1]
                return _plain(call.error(400, "IdempotentParameterMismatch",
                                         "The client token was used with other parameters before."))
            answer = self._own(call) or self._moto(environ)
            if token and answer[0] < 400:
                self.tokens[call.region, call.action, token] = (call.identity(), answer)
            return answer

    def _own(self, call):
        """Services that moto does not have."""
        if call.service == "pricing" and call.action == "GetProducts":
            status, answer = prices.get_products(call.json)
        elif call.action == "SendSSHPublicKey":
            status, answer = self._send_key(call.json)
        elif call.action == "DecodeAuthorizationMessage":
            return _plain((200, "text/xml", b"<DecodeAuthorizationMessageResponse xmlns='https://sts.amazonaws.com/doc/"
                           b"2011-06-15/'><DecodeAuthorizationMessageResult><DecodedMessage>{}</DecodedMessage>"
                           b"</DecodeAuthorizationMessageResult></DecodeAuthorizationMessageResponse>"))
        else:
            return None
        return _plain((status, "application/x-amz-json-1.1", json.dumps(answer).encode()))

    def _send_key(self, asked):
        machine = self.machines.by_id.get(asked["InstanceId"])
        if machine is None:
            return 400, {"__type": "EC2InstanceNotFoundException", "message": f"Instance {asked['InstanceId']} not found"}
        if machine.instance.state != "running":
            return 400, {"__type": "EC2InstanceStateInvalidException", "message": "Instance is not in running state"}
        machine.send_key(asked["InstanceOSUser"], asked["SSHPublicKey"])
        return 200, {"RequestId": str(uuid.uuid4()), "Success": True}

    def _moto(self, environ):
        head = []
        body = b"".join(self.moto(environ, lambda status, headers, *_: head.append((status, headers))))
        status, headers = head[-1]
        return int(status.split()[0]), headers, body


def _plain(answer):
    status, kind, body = answer
    return status, [("Content-Type", kind), ("Content-Length", str(len(body)))], body


def _code(body):
    text = body.decode(errors="replace")
    if text.startswith("{"):
        return json.loads(text).get("__type", "").split("#")[-1]
    return text.split("<Code>")[1].split("</Code>")[0] if "<Code>" in text else None


def _reset(environ):
    """Close the connection with a reset, so that nobody takes it for an end of the answer."""
    connection = environ["werkzeug.socket"]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    connection.close()
