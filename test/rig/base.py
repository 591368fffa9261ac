"""What the rig needs of this host, and the root file system that its guests start from: made once, then cached."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NEEDED = {"debootstrap": "debootstrap", "ip": "iproute2", "nsenter": "util-linux", "setpriv": "util-linux", "mount": "mount"}


class CannotRun(Exception):
    """Why this host cannot carry the rig."""


def require():
    """Install what is missing, where we may. Raises CannotRun."""
    if os.geteuid() != 0:
        raise CannotRun("it needs root, for namespaces and mounts")
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if missing := sorted({package for program, package in NEEDED.items() if not shutil.which(program)}):
        install(missing)
    probe = ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child", "--mount-proc", "true"]
    done = subprocess.run(probe, capture_output=True, text=True)
    if done.returncode:
        raise CannotRun(f"it needs namespaces: {done.stderr.strip()}")


def install(packages):
    done = subprocess.run([HERE.parent.parent / "scripts/apt.sh", *packages], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise CannotRun(f"{', '.join(packages)} cannot be installed: {done.stderr.strip()}")


def cache_folder(given):
    if given:
        return Path(given).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trainspot"


def root(folder: Path):
    """The base root for the recipe as it is, made now unless it is there. Raises CannotRun with the recipe's last words."""
    recipe = HERE / "base_root.sh"
    path = folder / f"rig-root-{hashlib.sha256(recipe.read_bytes()).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "rig-root.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            make(recipe, path)
    return path


def make(recipe, path):
    print(f"==> debootstrap → {path.name} (once, one to two minutes)", file=sys.stderr, flush=True)
    unfinished = path.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    log = path.with_suffix(".log")
    with open(log, "w") as output:
        done = subprocess.run([recipe, unfinished], stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    if done.returncode:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise CannotRun("its root file system could not be made: " + " / ".join(log.read_text().splitlines()[-3:]))
    log.unlink()
    unfinished.rename(path)
