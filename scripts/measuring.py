"""How the pipe and its peers are run and compared.

What is compared runs in turns (ours, the peer, ours, …) on the same machine; a time is the median, a ratio the median of those of
each turn, because machines are noisy. Memory is the highest resident set of one process.
"""

import contextlib
import os
import shutil
import statistics
import subprocess
import threading
import time
from pathlib import Path
from typing import NamedTuple

MIB = 1024 * 1024
HEADER = ("figure", "ours", "peer", "ratio", "goal", "met")
ROW = "{:42} | {:>11} | {:>11} | {:>5} | {:10} | {}"


# Running


class Run(NamedTuple):
    """What a run of the pipe was."""

    seconds: float
    lines: list  # when it logged what
    peak: int  # bytes, of the pipe
    agents: int  # bytes, of the largest agent

    def between(self, first, last):
        """Seconds between the log lines that contain these words."""
        start, end = (next(at for at, line in self.lines if words in line) for words in (first, last))
        return end - start


class Peaks(threading.Thread):
    """Watches the high-water marks of a program's processes, wherever in the process tree they are.

    The kernel's own account (ru_maxrss) begins with the memory of the process that forked, here this one's.
    """

    def __init__(self, program):
        super().__init__(daemon=True)
        self.program, self.highest, self.done = str(program), {"pipe": 0, "agent": 0}, threading.Event()

    def run(self):
        while not self.done.wait(0.02):
            for process in Path("/proc").glob("[0-9]*"):
                # It may end at any moment.
                with contextlib.suppress(OSError, StopIteration):
                    self.look(process)

    def look(self, process):
        if os.readlink(process / "exe") != self.program:
            return
        role = "agent" if b"\0agent\0" in (process / "cmdline").read_bytes() else "pipe"
        status = (process / "status").read_text().splitlines()
        kibibytes = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
        self.highest[role] = max(self.highest[role], kibibytes * 1024)

    def stop(self):
        self.done.set()
        self.join()
        return self.highest["pipe"], self.highest["agent"]


def run_pipe(program, clone, variables):
    """Runs the pipe to its good end."""
    environment = {
        "PATH": os.environ["PATH"],
        "TMPDIR": str(clone.parent),
        "BITBUCKET_CLONE_DIR": str(clone),
        "CLOUD": "local",
    }
    peaks, lines = Peaks(program), []
    peaks.start()
    start = time.perf_counter()
    with subprocess.Popen(
        [program],
        cwd=clone,
        env=environment | variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        lines = [(time.perf_counter(), line) for line in process.stderr]
    seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"error: the pipe failed ({process.returncode}):\n" + "".join(line for _, line in lines))
    return Run(seconds, lines, *peaks.stop())


def run_peer(*commands, cwd):
    """Runs the commands one after the other: the seconds of each, and the memory of the largest process in bytes."""
    seconds, peak = [], 0
    for command in commands:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=cwd, env=peer_environment(), stdout=subprocess.DEVNULL)
        # Covers the processes that it waited for; what Popen does not know of, it would wait for again.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds.append(time.perf_counter() - start)
        if process.returncode:
            raise SystemExit(f"error: {command} failed ({process.returncode})")
        peak = max(peak, usage.ru_maxrss * 1024)
    return seconds, peak


def peer_environment():
    """Git as it comes, without the settings of whoever measures."""
    return {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}


def first_byte(command, environment, stream):
    """Seconds from the start of a program to the first byte that it writes to a stream."""
    reader, writer = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, writer if number == stream else null, number) for number in range(3)]
    start = time.perf_counter()
    process = os.posix_spawn(command[0], command, environment, file_actions=actions)
    os.close(writer)
    os.read(reader, 1)
    seconds = time.perf_counter() - start
    while os.read(reader, 65536):
        pass
    os.close(reader)
    os.close(null)
    os.waitpid(process, 0)
    return seconds


def timed_copy(command, copy):
    """Seconds of a shell command that makes a copy, which is removed."""
    (seconds,), _ = run_peer(["sh", "-c", command], cwd=copy.parent)
    if copy.is_dir():
        shutil.rmtree(copy)
    else:
        copy.unlink()
    return seconds


# What they work on


def replace(source, destination):
    shutil.rmtree(destination, ignore_errors=True)
    shutil.copytree(source, destination, symlinks=True)


def repository(folder):
    """A repository with one small commit."""
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("# Forest\n")
    who = ["-c", "user.name=bench", "-c", "user.email=bench@example.com"]
    for command in (["init", "-q", "-b", "main"], ["add", "."], [*who, "commit", "-q", "-m", "begin"]):
        subprocess.run(["git", *command], cwd=folder, env=peer_environment(), check=True)
    return folder


def write_noise(path, size):
    """Random bytes: nothing can compress them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for start in range(0, size, MIB):
            file.write(os.urandom(min(MIB, size - start)))


# Comparing


def ratio(ours, peers):
    return statistics.median(one / other for one, other in zip(ours, peers, strict=True))


def row(name, form, ours, peers=(), goal="", met=None):
    """A line of the table; the lists hold one value for each turn."""
    shown = [form.format(statistics.median(values)) if values else "" for values in (ours, peers)]
    compared = f"{ratio(ours, peers):.2f}" if ours and peers else ""
    return (name, *shown, compared, goal, {None: "", True: "yes", False: "MISSED"}[met])


def show(rows):
    print(ROW.format(*HEADER))
    for line in rows:
        print(ROW.format(*line), flush=True)
