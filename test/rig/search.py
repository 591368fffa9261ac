"""A search for byte strings in all that a machine holds or was given, to assert that no secret is there."""

import os
import stat
import string

from moto.core import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends

LIMIT = 256 << 20  # bytes read of one file


def files(guest):
    """(path in the guest, path here) of every file that the guest wrote, in its overlay and its tmpfs mounts."""
    first = guest.pid()
    roots = [("", guest.upper)]
    if first:
        roots += [(folder, f"/proc/{first}/root{folder}") for folder in ("/run", "/dev/shm", "/tmp")]
        mounts = open(f"/proc/{first}/mounts").read().splitlines()
        roots += [(at, f"/proc/{first}/root{at}") for _, at, kind, *_ in map(str.split, mounts)
                  if kind == "tmpfs" and not at.startswith(("/run", "/dev", "/sys", "/proc"))]
    for prefix, root in roots:
        for folder, _, names in os.walk(root):
            for name in names:
                path = os.path.join(folder, name)
                yield prefix + path[len(str(root)):], path


def read(path):
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return b""
        with open(path, "rb") as file:
            return file.read(LIMIT)
    except OSError:
        return b""  # gone meanwhile


def places(machine):
    """(what, where, bytes) for all there is to search of a machine."""
    identifier = machine.instance.id
    yield "user data", identifier, machine.user_data
    yield "console", identifier, machine.console()
    if machine.guest and not machine.gone.is_set():
        for name, path in files(machine.guest):
            yield "file", f"{identifier}:{name}", name.encode() + b"\0" + read(path)
        for pid, arguments, environment in machine.guest.processes():
            yield "arguments", f"{identifier}:{pid}", arguments
            yield "environment", f"{identifier}:{pid}", environment


def tags():
    for backend in list(ec2_backends[DEFAULT_ACCOUNT_ID].values()):
        for tag in backend.describe_tags():
            yield "tag", tag["resource_id"], f"{tag['key']}={tag['value']}".encode()


def find(machines, needles):
    """[{needle: its index, what, where}] for every place that holds a needle, in one line or over several."""
    found = []
    for source in [tags(), *map(places, machines)]:
        for what, where, data in source:
            joined = data.translate(None, string.whitespace.encode())
            found += [{"needle": index, "what": what, "where": where} for index, needle in enumerate(needles)
                      if needle in data or needle in joined]
    return found
