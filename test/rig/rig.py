"""An EC2 whose instances boot, in a network of its own. See README.md.

Exit code 77: it cannot run here; the reason is on stderr.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import base

HERE = Path(__file__).parent
SKIP = 77


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ready", required=True, metavar="FILE", help="written, as JSON, when the lab can be used")
    parser.add_argument("--scale", type=float, default=0.05, help="of EC2's time: of the 120 s between notice and end")
    parser.add_argument("--base", metavar="DIR", help="where the guests' root file system is cached (~/.cache/trainspot)")
    parser.add_argument("--init", choices=["systemd", "sh"], default="systemd", help="what guests boot with; sh is quicker")
    parser.add_argument("--bind", action="append", default=[], metavar="HOST_DIR:GUEST_DIR", help="seen, read-only, by all guests")
    parser.add_argument("--end-with-stdin", action="store_true", help="end when standard input does")
    parser.add_argument("--prepare", action="store_true", help="only make sure of what the rig needs")
    return parser.parse_args()


def start(options, root, cache):
    """The lab, in namespaces that end with us: the kernel kills its first process when we die, and with that all others."""
    scratch = cache / "lab"  # a tmpfs is mounted there, seen by the lab alone
    scratch.mkdir(exist_ok=True)
    settings = {"root": str(root), "scratch": str(scratch), "scale": options.scale, "init": options.init,
                "binds": options.bind, "socket": str(Path(options.ready).absolute()) + ".socket"}
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL",
         "unshare", "--net", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "--propagation", "private", "--mount-proc",
         # A shell as the first process, for it reaps.
         "/bin/sh", "-c", '"$@" & wait $!', "lab", sys.executable, "-u", HERE / "lab.py", json.dumps(settings)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)


def write(path, text):
    """Appear at once, whole."""
    path = Path(path).absolute()
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    os.replace(file.name, path)


def child_of(pid):
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def main():
    options = arguments()
    try:
        base.require()
        cache = base.cache_folder(options.base)
        root = base.root(cache)
    except base.CannotRun as reason:
        print(f"the rig cannot run here: {reason}", file=sys.stderr)
        return SKIP
    if options.prepare:
        return 0

    lab = start(options, root, cache)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: lab.kill())
    if options.end_with_stdin:
        threading.Thread(target=lambda: (sys.stdin.buffer.read(), lab.kill()), daemon=True).start()
    for line in lab.stdout:
        if line.startswith("READY "):
            facts = {"pid": child_of(lab.pid), **json.loads(line[6:])}
            write(options.ready, json.dumps(facts, indent=2) + "\n")
        else:
            print(line, end="", file=sys.stderr, flush=True)
    status = lab.wait()
    for path in (options.ready, options.ready + ".socket"):
        Path(path).unlink(missing_ok=True)
    return 0 if status == -signal.SIGKILL else 1


if __name__ == "__main__":
    sys.exit(main())
