"""The lab's network: addresses of TEST-NETs, a bridge, and for each guest a network namespace with a way to it.

Nothing here has a route out, so a mistaken address leads nowhere.
"""

import ctypes
import os
import subprocess
import threading
from pathlib import Path

ENDPOINT = "203.0.113.1"  # where "AWS" answers
OWN = "203.0.113.77"  # whence the pipe calls: its public address
GATEWAY = "169.254.0.1"
METADATA = "169.254.169.254"
BRIDGE_MAC = "02:00:5e:00:00:01"
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def run(*command, input=None):
    """Run a command; its output. Raises with what it said on stderr."""
    done = subprocess.run(command, input=input, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def ip(lines, namespace=None):
    """Run lines of `ip -batch`, in a namespace that a file stands for."""
    enter = ["nsenter", f"--net={namespace}"] if namespace else []
    run(*enter, "ip", "-batch", "-", input="\n".join(lines) + "\n")


def set_up_lab():
    """Give this network namespace its addresses and its bridge."""
    ip([
        "link set lo up",
        f"addr add {ENDPOINT}/32 dev lo",
        f"addr add {OWN}/32 dev lo",
        # Whoever calls the endpoint from here does it from the pipe's address.
        f"route replace local {ENDPOINT} dev lo table local src {OWN}",
        f"link add br0 address {BRIDGE_MAC} type bridge",
        f"addr add {GATEWAY}/32 dev br0",
        "link set br0 up",
    ])
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def in_namespace(path, make):
    """What `make` returns when called in the network namespace of this file: a socket made there stays there."""
    result = []

    def enter():
        with open(path) as file:
            if _libc.setns(file.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        result.append(make())

    # A thread of its own: no other code ever runs in the wrong namespace.
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return result[0]


class Wire:
    """A guest's network namespace, its private and public address, and the cable to the bridge."""

    def __init__(self, number, namespace: Path, private, public):
        self.port = f"v{number}"
        self.namespace, self.private, self.public = namespace, private, public
        mac = f"02:00:5e:01:{number >> 8 & 255:02x}:{number & 255:02x}"
        namespace.touch()
        run("unshare", f"--net={namespace}", "true")
        ip(self._lab_side(mac))
        ip(self._guest_side(), namespace)

    # Neighbours are fixed on both sides: with a pulled cable packets vanish, where a lookup in vain would be an error.
    def _lab_side(self, mac):
        lines = [
            f"link add {self.port} type veth peer name eth0 address {mac} netns {self.namespace}",
            f"link set {self.port} master br0 up",
            f"route replace {self.private}/32 dev br0 src {OWN}",
            f"neigh replace {self.private} lladdr {mac} dev br0 nud permanent",
        ]
        if self.public:
            lines.append(f"route replace {self.public}/32 via {self.private} dev br0 onlink src {OWN}")
        return lines

    def _guest_side(self):
        lines = ["link set lo up", f"addr add {METADATA}/32 dev lo"]
        if self.public:
            lines.append(f"addr add {self.public}/32 dev lo")
        return lines + [
            "link set eth0 up",
            f"addr add {self.private}/32 dev eth0",
            f"route add {GATEWAY} dev eth0",
            f"route add default via {GATEWAY} dev eth0",
            f"neigh replace {GATEWAY} lladdr {BRIDGE_MAC} dev eth0 nud permanent",
        ]

    def pull(self):
        """Silence both ways: nothing arrives, nothing is refused."""
        ip([f"link set {self.port} nomaster"])

    def plug(self):
        ip([f"link set {self.port} master br0"])

    def remove(self):
        """Take all of it away. The addresses lead nowhere from then on."""
        for line in [f"link del {self.port}", f"route del {self.private}/32 dev br0",
                     f"neigh del {self.private} dev br0"] + ([f"route del {self.public}/32"] if self.public else []):
            subprocess.run(["ip", *line.split()], capture_output=True)
        # An address that is gone stays silent, as on EC2, instead of being refused at once.
        addresses = [self.private] + ([self.public] if self.public else [])
        ip([f"route replace {address}/32 dev br0 src {OWN}" for address in addresses]
           + [f"neigh replace {address} lladdr 02:00:5e:ff:ff:ff dev br0 nud permanent" for address in addresses])
        subprocess.run(["umount", "-l", self.namespace], capture_output=True)
        self.namespace.unlink(missing_ok=True)
