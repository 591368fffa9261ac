"""EC2 machines: a moto instance and the guest that it boots, and what becomes of both."""

import base64
import math
import threading
import time
from datetime import datetime, timezone

from moto.ec2.models.instances import Instance, StateReason

import metadata
from guest import Guest

LOCK = threading.RLock()  # moto is not made for threads: held around everything that touches it

PENDING_SECONDS = 1.0
SHUTTING_DOWN_SECONDS = 0.5  # at the least
SHUTDOWN_PATIENCE_SECONDS = 300  # until EC2 ends a guest that does not shut down, before scaling
CHECKS_SECONDS = 5.0  # until the status checks of a running machine are `ok`
NOTICE_SECONDS = 120  # between an interruption's notice and the end, before scaling
KEY_SECONDS = 60  # how long EC2 Instance Connect keeps a key
CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}

_terminate = Instance.terminate  # moto's own: state, network interfaces, volumes


def iso(moment):
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class Machines:
    """All machines of a lab, by instance id; gone ones too, until `reset`."""

    def __init__(self, site, scale):
        self.site, self.scale = site, scale
        self.by_id = {}
        self.count = 0
        self.unknown_seconds = 0  # how long a new one is unknown to DescribeInstances and TerminateInstances

    def launch(self, instance):
        self.count += 1
        machine = Machine(self, instance, self.count)
        self.by_id[instance.id] = machine
        machine.begin()

    def get(self, instance_id):
        return self.by_id[instance_id]

    def free_address(self):
        """A public address that no living machine has."""
        taken = {machine.public for machine in self.by_id.values() if not machine.gone.is_set()}
        for step in range(250):
            address = f"198.51.100.{(self.count + step) % 250 + 2}"
            if address not in taken:
                return address
        raise RuntimeError("more than 250 machines at once")

    def reset(self):
        """End all of them and forget them."""
        for machine in list(self.by_id.values()):
            machine.end("Client.UserInitiatedShutdown", "reset", grace=0)
        for machine in list(self.by_id.values()):
            machine.gone.wait(20)
        self.by_id.clear()
        self.unknown_seconds = 0


class Machine:
    def __init__(self, machines, instance, number):
        self.machines, self.instance, self.number = machines, instance, number
        self.private, self.public = instance.private_ip, instance.public_ip
        self.notice = self.rebalance_notice = None
        self.user_data = base64.b64decode(str(instance.user_data)) if instance.user_data else b""
        self.key_material = self._key_material()
        self.sent_keys = []  # (user, key, until)
        self.guest = self.server = None
        self.running_since = None
        self.reason = None  # (code, message) of an end that was asked for
        self.dead = self.partitioned = False
        self.made = time.monotonic()
        self.how = None  # its system ended: "off", "reboot" or "killed"
        self.gone = threading.Event()  # state is terminated or stopped, and nothing of it runs
        self._set_state("pending")

    def age(self):
        return time.monotonic() - self.made

    def _key_material(self):
        pairs = [pair for pair in self.instance.ec2_backend.key_pairs.values()
                 if pair.key_name == self.instance.key_name]
        material = pairs[0].material_public if pairs else None
        return material.decode() if isinstance(material, bytes) else material

    def _set_state(self, name):
        self.instance._state.name, self.instance._state.code = name, CODES[name]

    def begin(self):
        threading.Thread(target=self._boot, daemon=True).start()

    def _boot(self):
        started = time.monotonic()
        images = self.instance.ec2_backend.amis
        image = images.get(self.instance.image_id)
        user = "ec2-user" if image and "al2023" in (image.name or "") else "ubuntu"
        hostname = self.instance.private_dns_name.split(".")[0]
        try:
            guest = Guest(self.machines.site, self.number, self.instance.id, hostname, user,
                          self.private, self.public, self._guest_ended)
            self.server = metadata.serve(guest, lambda: metadata.tree_of(self))
        except Exception as error:
            print(f"{self.instance.id} cannot boot: {error}", flush=True)
            self.end("Server.InternalError", f"the rig could not boot it: {error}")
            return self._finish()
        time.sleep(max(0, PENDING_SECONDS - (time.monotonic() - started)))
        with LOCK:
            self.guest = guest
            if self.reason:  # ended while pending
                return self._finish()
            try:
                guest.start()
            except Exception as error:
                print(f"{self.instance.id} cannot start: {error}", flush=True)
                return self.end("Server.InternalError", f"the rig could not start it: {error}")
            self._set_state("running")
            self.running_since = time.time()

    def _guest_ended(self, how):
        with LOCK:
            self.how = how
            if how == "reboot" and not self.reason:
                return self.guest.start()
            if self.reason is None and how == "off" and not self.dead:
                self.reason = ("Client.InstanceInitiatedShutdown", "Instance initiated shutdown")
            if self.reason is None and self.dead == "left running":
                return  # crashed, and EC2 has not seen it
            if self.reason is None:
                self.reason = ("Server.InternalError", "Internal error")
        self._finish()

    def end(self, code, message, grace=SHUTTING_DOWN_SECONDS, shutdown=False):
        """Have it terminated, for this reason: at once, or with `shutdown` by its own system, which EC2 waits minutes for.
        Returns at once; a second call changes nothing."""
        with LOCK:
            if self.reason or self.gone.is_set():
                return
            self.reason = (code, message)
            self._set_state("shutting-down")
            guest = self.guest
        if guest and guest.process and guest.process.poll() is None:
            if shutdown and guest.shut_down():
                grace = SHUTDOWN_PATIENCE_SECONDS * self.machines.scale
            threading.Timer(grace, guest.kill).start()
        elif guest:
            threading.Thread(target=self._finish).start()

    def _finish(self):
        """The guest is over: say so, and take its remains away."""
        code, message = self.reason
        if self.server:
            threading.Thread(target=self.server.shutdown).start()
            self.server.server_close()
        if self.guest:
            self.guest.remove()
        with LOCK:
            instance = self.instance
            if code == "Client.InstanceInitiatedShutdown" and instance.instance_initiated_shutdown_behavior == "stop":
                instance.stop()
            else:
                _terminate(instance)
            instance.state_reason = StateReason(f"{code}: {message}", code)
            instance._reason = f"{message} ({datetime.now(timezone.utc):%Y-%m-%d %H:%M:%S GMT})"
            if request := self.spot_request():
                request.instance_ended(code)
        self.gone.set()

    def spot_request(self):
        identifier = getattr(self.instance, "spot_instance_request_id", None)
        return self.instance.ec2_backend.spot_instance_requests.get(identifier)

    def interrupt(self, seconds=None):
        """EC2 takes it back: the notice now, the end after the (scaled) two minutes. Returns when that is."""
        seconds = NOTICE_SECONDS * self.machines.scale if seconds is None else seconds
        at = math.ceil(time.time() + seconds)
        with LOCK:
            self.notice = iso(at)
            if request := self.spot_request():
                request.interrupted()
        threading.Timer(at - time.time(), self.end, (
            "Server.SpotInstanceTermination", "Spot instance termination", 0)).start()
        return self.notice

    def rebalance(self):
        self.rebalance_notice = iso(time.time())

    def crash(self, left_running=False):
        """Everything in it dies at once. EC2 then says `terminated`, or goes on saying `running`."""
        with LOCK:
            if left_running:
                self.dead = "left running"
                self.guest.wire.pull()
            else:
                self.dead = "crashed"
        self.guest.kill()

    def partition(self):
        self.partitioned = True
        self.guest.wire.pull()

    def heal(self):
        self.partitioned = False
        self.guest.wire.plug()

    def console(self):
        return bytes(self.guest.console_text) if self.guest else b""

    def send_key(self, user, key):
        self.sent_keys.append((user, key.strip(), time.time() + KEY_SECONDS))

    def connect_keys(self):
        """Keys that EC2 Instance Connect was given in the last minute, by user."""
        keys = {}
        for user, key, until in self.sent_keys:
            if until > time.time():
                keys[user] = keys.get(user, "") + key + "\n"
        return keys

    def status(self, kind):
        """`ok`, `initializing` or `impaired`, as DescribeInstanceStatus has it for `instance` or `system`."""
        if self.running_since and time.time() - self.running_since < CHECKS_SECONDS:
            return "initializing", "initializing"
        if kind == "instance" and (self.dead or self.partitioned):
            return "impaired", "failed"
        return "ok", "passed"
