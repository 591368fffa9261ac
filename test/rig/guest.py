"""A guest: a root file system of its own, namespaces, an init, a console. It knows nothing of EC2."""

import os
import shutil
import signal
import subprocess
import threading
import time
import tty
from pathlib import Path

from network import METADATA, Wire, in_namespace, run

HERE = Path(__file__).parent
ABANDONED_SECONDS = 600.0  # the age of a cgroup whose rig has surely ended, or runs something in it

CLOUD_CONFIG = """\
datasource_list: [Ec2]
datasource:
  Ec2: {{metadata_urls: ['http://169.254.169.254'], max_wait: 20, timeout: 5, strict_id: false, apply_network_config: false}}
network: {{config: disabled}}
growpart: {{mode: 'off'}}
resize_rootfs: false
locale: C.UTF-8
apt: {{preserve_sources_list: true}}
manage_etc_hosts: false
system_info:
  default_user:
    name: {user}
    lock_passwd: true
    gecos: {user}
    sudo: ['ALL=(ALL) NOPASSWD:ALL']
    shell: /bin/bash
"""


class Site:
    """What all guests of a lab share: the base root, a tmpfs for what they write, their cgroup, mounts and init."""

    def __init__(self, base: Path, scratch: Path, binds, init):
        self.base, self.scratch, self.binds, self.init = base, scratch, binds, init
        run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", scratch)
        cgroups = scratch / "cgroup"
        cgroups.mkdir()
        run("mount", "-t", "cgroup2", "cgroup2", cgroups)
        self.cgroup = cgroups / "trainspot-rig"
        self.cgroup.mkdir(exist_ok=True)
        for left in self.cgroup.iterdir():
            if is_abandoned(left):
                remove_cgroup(left)


    def young(self):
        """Options of unshare for a guest that has been up for no time, where this host's clocks can be shifted."""
        if not os.path.exists("/proc/self/timens_offsets"):
            return []
        clocks = {"boottime": time.CLOCK_BOOTTIME, "monotonic": time.CLOCK_MONOTONIC}
        return ["--time", *(word for name, clock in clocks.items() for word in (f"--{name}", f"-{int(time.clock_gettime(clock))}"))]


def is_abandoned(cgroup: Path):
    """Whether this is the cgroup of a rig that was killed. A younger one may be that of a guest which another rig is just
    about to start, and is empty until then."""
    try:
        return cgroup.is_dir() and time.time() - cgroup.stat().st_mtime > ABANDONED_SECONDS
    except OSError:
        return False  # another rig has removed it meanwhile


def remove_cgroup(folder: Path):
    """Remove a cgroup and those below it, as far as nothing runs in them."""
    for inner, _, _ in os.walk(folder, topdown=False):
        try:
            os.rmdir(inner)
        except OSError:
            pass


class Guest:
    """One that runs from `start` until its init ends, is killed, or powers itself off."""

    def __init__(self, site: Site, number, name, hostname, user, private, public, on_end):
        self.site, self.name, self.on_end = site, name, on_end
        self.folder = site.scratch / name
        self.root, self.upper = self.folder / "root", self.folder / "upper"
        for folder in (self.root, self.upper, self.folder / "work"):
            folder.mkdir(parents=True)
        run("mount", "-t", "overlay", "overlay", "-o",
            f"lowerdir={site.base},upperdir={self.upper},workdir={self.folder}/work", self.root)
        self._furnish(hostname, user)
        self.wire = Wire(number, self.folder / "net", private, public)
        self.cgroup = site.cgroup / f"{os.stat('/proc/self/ns/pid').st_ino}-{name}"
        self.console_text = bytearray()
        self.process = None
        self.ended = threading.Event()

    def _furnish(self, hostname, user):
        etc = self.root / "etc"
        (etc / "hostname").write_text(hostname + "\n")
        (etc / "hosts").write_text(f"127.0.0.1 localhost {hostname}\n")
        (etc / "cloud/cloud.cfg.d/90_rig.cfg").write_text(CLOUD_CONFIG.format(user=user))
        shutil.copy(HERE / "guest_init.sh", etc / "rig-init")

    def listen(self, socket_maker):
        """A socket made in the guest's network, at the metadata address."""
        return in_namespace(self.wire.namespace, lambda: socket_maker((METADATA, 80)))

    def start(self):
        self.cgroup.mkdir(exist_ok=True)
        master, slave = os.openpty()
        tty.setraw(slave)
        console = os.ttyname(slave)
        self.process = subprocess.Popen(
            ["nsenter", f"--net={self.wire.namespace}",
             "unshare", "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child", "--propagation", "private",
             *self.site.young(),
             HERE / "guest.sh", self.root, console, self.site.init, *self.site.binds],
            stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: (self.cgroup / "cgroup.procs").write_text("0"),
        )
        threading.Thread(target=self._read_console, args=(master,), daemon=True).start()
        threading.Thread(target=self._wait, args=(slave,), daemon=True).start()

    def _read_console(self, master):
        try:
            while data := os.read(master, 65536):
                self.console_text += data
        except OSError:
            pass  # the other end is closed
        os.close(master)

    def _wait(self, slave):
        status = self.process.wait()
        os.close(slave)
        # unshare ends as its child did: reboot(2) in a pid namespace gives SIGINT for "off" and SIGHUP for "again".
        self.on_end({-signal.SIGINT: "off", -signal.SIGHUP: "reboot"}.get(status, "killed"))

    def shut_down(self):
        """Ask it to power itself off, as the button of a computer does. False where its init does not know that."""
        first = self.pid()
        if self.site.init != "systemd" or first is None:
            return False
        os.kill(first, signal.SIGRTMIN + 4)
        return True

    def kill(self):
        """End everything in it, at once."""
        if self.process:
            self.process.kill()

    def pid(self):
        """Its first process, as this lab sees it; None when it has none."""
        try:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            return int(children[0]) if children else None
        except (OSError, AttributeError):
            return None

    def processes(self):
        """The processes in it: (pid, arguments, environment), the latter two as bytes."""
        first = self.pid()
        if first is None:
            return
        namespace = os.readlink(f"/proc/{first}/ns/pid")
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and os.readlink(entry / "ns/pid") == namespace:
                    yield int(entry.name), (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            except OSError:
                continue  # it ended meanwhile

    def remove(self):
        """Take away all that is left of an ended guest. Its console stays readable."""
        self.wire.remove()
        subprocess.run(["umount", "-l", self.root], capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        remove_cgroup(self.cgroup)
        self.ended.set()
