"""Measure the pipe against its goals, and beside git, tar, cp and scp that do the same work.

usage: bench.py FOLDER

FOLDER holds the release builds of trainspot, fake-bitbucket and ssh-fetch. See measuring.py for how times, ratios and memory are
taken. A goal that is missed is reported; it does not make this program fail.
"""

import array
import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import (
    MIB,
    first_byte,
    ratio,
    replace,
    repository,
    row,
    run_peer,
    run_pipe,
    show,
    timed_copy,
    write_noise,
)

LIMIT = 400  # seconds for everything: a machine that needs more has nothing to tell
STARTS = 50
COPIES = 3
OUTPUT_BYTES = 1024 * MIB
MODEL_BYTES = 95_000_000
LOG_BYTES = 200_000_000
FILES, FILE_BYTES = 5000, 20 * 1024
HISTORY = 3000

ADD, COMMIT = ["git", "add", "model.bin"], ["git", "commit", "-q", "-m", "Update the model"]
PUSH = ["git", "push", "-q", "origin", "HEAD:refs/heads/result"]
# In one piece, as the pipe does: git's small chunks stall on the way to the fake, whose fault it may be.
WHOLE_PUSH = ["git", "-c", "http.postBuffer=200m", *PUSH[1:]]


# Making what is measured


class Bitbucket:
    """A fake Bitbucket in front of a repository with a real-sized history."""

    def __init__(self, program, folder):
        self.repository, self.clone, self.pristine = folder / "forest.git", folder / "clone", folder / "pristine.git"
        command = [program, "--repo", self.repository, "--commits", str(HISTORY), "--clone", self.clone]
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, **streams, text=True)
        said = (self.process.stdout.readline().strip().partition("=") for _ in range(7))
        self.says = {name: value for name, _, value in said}
        shutil.copytree(self.repository, self.pristine)

    def fresh(self, clone, model):
        """Forgets all pushes, and makes a clone as Pipelines does, shallow, with a model in it."""
        replace(self.pristine, self.repository)
        replace(self.clone, clone)
        origin = self.says["BITBUCKET_GIT_HTTP_ORIGIN"]
        configure = ["git", "config", f"http.{origin}.proxy", self.says["FAKE_PROXY_URL"]]
        subprocess.run(configure, cwd=clone, check=True)
        shutil.copy(model, clone)
        os.sync()
        return clone

    def step(self, clone):
        """The variables of a step without any credential."""
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=clone, check=True, capture_output=True, text=True)
        own = ("BITBUCKET_WORKSPACE", "BITBUCKET_REPO_SLUG", "BITBUCKET_GIT_HTTP_ORIGIN")
        return {name: self.says[name] for name in own} | {
            "CI": "true",
            "BITBUCKET_BRANCH": "main",
            "BITBUCKET_COMMIT": head.stdout.strip(),
            "BITBUCKET_BUILD_NUMBER": "1",
            "PIPELINES_PROXY": self.says["FAKE_PROXY_URL"],
            "BITBUCKET_API_URL": "http://api.bitbucket.org/2.0",
        }

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Server:
    """OpenSSH's server on the loopback, and a client of each kind for it: ours, and scp."""

    SSHD = Path("/usr/sbin/sshd")

    def __init__(self, fetcher, program, folder, file):
        self.folder, self.file, self.user = folder, file, pwd.getpwuid(os.getuid()).pw_name
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        command = [fetcher, program, folder, str(self.port), self.user, file]
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.client = subprocess.Popen(command, **streams, text=True)
        while not (folder / "client.pub").exists():
            time.sleep(0.05)
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        (folder / "home").mkdir()
        (folder / "sshd_config").write_text(self.configuration())
        sshd = [self.SSHD, "-D", "-f", folder / "sshd_config"]
        self.process = subprocess.Popen(sshd, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def configuration(self):
        return f"""
            ListenAddress 127.0.0.1:{self.port}
            HostKey {self.folder}/host
            AuthorizedKeysFile {self.folder}/client.pub
            ForceCommand HOME='{self.folder}/home' exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"
            Subsystem sftp /usr/lib/openssh/sftp-server
            PidFile none
            StrictModes no
            UsePAM no
        """

    def fetch(self, copy):
        """Seconds, and the peak memory of the client in bytes."""
        copy.mkdir()
        self.client.stdin.write(f"{copy}\n")
        self.client.stdin.flush()
        seconds, kibibytes = self.client.stdout.readline().split()
        shutil.rmtree(copy)
        return float(seconds), int(kibibytes) * 1024

    def scp(self, copy):
        """A shell command that does the same."""
        options = "-o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        where = f"-F none -P {self.port} -i {self.folder}/client"
        return f"scp -q {where} {options} {self.user}@127.0.0.1:{self.file} {copy}"

    def close(self):
        # Ends the machine as well.
        self.client.stdin.close()
        self.client.wait()
        self.process.terminate()
        self.process.wait()


def write_weights(path, size):
    """Normal float32 numbers, which compress a little, as a network's weights do.

    They repeat after 4 MB, farther than deflate looks back; a random beginning makes each file another blob.
    """
    generator = random.Random(1)
    block = array.array("f", (generator.gauss(0, 0.02) for _ in range(1_000_000))).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((os.urandom(16) + block * (size // len(block) + 1))[:size])


def write_log(path, size):
    line = "epoch {:6d}  loss 0.{:06d}  accuracy 0.{:06d}  3.21 s, 1234 samples a second on the first device\n"
    text = "".join(line.format(n, n * 7919 % 1_000_000, n * 104_729 % 1_000_000) for n in range(10_000)).encode()
    path.write_bytes((text * (size // len(text) + 1))[:size])


# The figures


def start_up(program, folder):
    """The pipe ends at once after its first line: the folder is no repository."""
    (folder / "empty").mkdir()
    environment = {"ACTION": "publish", "OUTPUTS": "model", "BITBUCKET_CLONE_DIR": str(folder / "empty")}
    git = shutil.which("git")
    ours, peers = [], []
    for _ in range(STARTS):
        ours.append(1000 * first_byte([str(program)], environment, 2))
        peers.append(1000 * first_byte([git, "--version"], {}, 1))
    met = statistics.median(ours) < 10
    yield row("start to first log line, beside git's", "{:.1f} ms", ours, peers, "< 10 ms", met)
    yield row("… the slowest of 50", "{:.1f} ms", [max(ours)], [max(peers)])


def big_output(program, folder):
    """1 GiB that a training left is brought into the clone: read, hashed, compressed, sent, and all of that back."""
    source = folder / "big.bin"
    write_noise(source, OUTPUT_BYTES)
    clone = repository(folder / "build")
    variables = {"TRAIN_COMMAND": f"mkdir model && ln {source} model/big.bin", "OUTPUTS": "model/big.bin"}
    runs, copies, tars = [], [], []
    for _ in range(COPIES):
        runs.append(run_pipe(program, clone, variables | {"PUBLISH": "none"}))
        shutil.rmtree(clone / "model")
        copies.append(timed_copy("cp --reflink=never big.bin copy", folder / "copy"))
        tars.append(timed_copy("mkdir copy && tar c big.bin | tar x -C copy", folder / "copy"))
    peak, agents = (max(peaks) / MIB for peaks in ([run.peak for run in runs], [run.agents for run in runs]))
    yield row("1 GiB output: the pipe's peak memory", "{:.1f} MiB", [peak], goal="< 40 MiB", met=peak < 40)
    yield row("… the largest agent's", "{:.1f} MiB", [agents])
    seconds = [run.between("training done", "fetched") for run in runs]
    yield row("… fetched in, beside cp", "{:.2f} s", seconds, copies)
    yield row("… and beside tar c | tar x", "{:.2f} s", seconds, tars)
    speeds = ([OUTPUT_BYTES / MIB / each for each in times] for times in (seconds, copies))
    yield row("… which is, beside cp", "{:.0f} MiB/s", *speeds)


def output_over_ssh(fetcher, program, folder):
    """1 GiB from a machine behind OpenSSH's server, whose ciphers, processes and disk both have."""
    name = "1 GiB output over SSH, beside scp"
    if not Server.SSHD.exists() or not shutil.which("scp"):
        yield (name, "", "", "", "ratio ≤ 1", "no sshd: apt-get install openssh-server")
        return
    source = folder / "big.bin"
    write_noise(source, OUTPUT_BYTES)
    fetches, copies = [], []
    with contextlib.closing(Server(fetcher, program, folder, source)) as server:
        for _ in range(COPIES):
            fetches.append(server.fetch(folder / "copies"))
            copies.append(timed_copy(server.scp("copy"), folder / "copy"))
    seconds, peak = [seconds for seconds, _ in fetches], max(peak for _, peak in fetches) / MIB
    yield row(name, "{:.2f} s", seconds, copies, "ratio ≤ 1", ratio(seconds, copies) <= 1)
    speeds = ([OUTPUT_BYTES / MIB / each for each in times] for times in (seconds, copies))
    yield row("… which is", "{:.0f} MiB/s", *speeds)
    yield row("… peak memory", "{:.1f} MiB", [peak], goal="< 40 MiB", met=peak < 40)


def push(program, folder, bitbucket, kind, write, turns):
    """A model committed and pushed through the proxy, which both reach with the same settings and no credential."""
    model, ours, peers = folder / "model.bin", [], []
    write(model, MODEL_BYTES)
    for _ in range(turns):
        clone = bitbucket.fresh(folder / "build", model)
        variables = {"ACTION": "publish", "OUTPUTS": "model.bin", "BRANCH": "result"}
        ours.append(run_pipe(program, clone, bitbucket.step(clone) | variables))
        peers.append(run_peer(ADD, COMMIT, WHOLE_PUSH, cwd=bitbucket.fresh(folder / "build", model)))
    plain, least = run_peer(ADD, COMMIT, PUSH, cwd=bitbucket.fresh(folder / "build", model))
    seconds, theirs = [run.seconds for run in ours], [sum(seconds) for seconds, _ in peers]
    yield row(f"95 MB {kind}: commit and push", "{:.2f} s", seconds, theirs, "ratio ≤ 1", ratio(seconds, theirs) <= 1)
    yield row("… of which git push", "{:.2f} s", [], [seconds[-1] for seconds, _ in peers])
    yield row("… beside git without http.postBuffer, once", "{:.2f} s", [statistics.median(seconds)], [sum(plain)])
    peak, theirs = max(run.peak for run in ours) / MIB, min(least, *(peak for _, peak in peers)) / MIB
    yield row("… peak memory, beside git's least", "{:.1f} MiB", [peak], [theirs], "≤ git's", peak <= theirs)


def long_log(program, folder):
    """A training that prints 200 MB; the pipe's own output goes nowhere."""
    log = folder / "log"
    write_log(log, LOG_BYTES)
    clone = repository(folder / "build")
    variables = {"TRAIN_COMMAND": f"cat {log} && touch done", "OUTPUTS": "done", "PUBLISH": "none"}
    run = run_pipe(program, clone, variables)
    seconds, peak = run.between("training started", "training done"), run.peak / MIB
    yield row("200 MB log: followed in", "{:.2f} s", [seconds])
    yield row("… peak memory", "{:.1f} MiB", [peak], goal="< 40 MiB", met=peak < 40)


def many_files(program, folder):
    """5,000 files go to the machine; the peer unpacks them as well, without list, hashes and compression."""
    clone = repository(folder / "build")
    for number in range(FILES):
        write_noise(clone / f"data/{number % 50}/{number}.bin", FILE_BYTES)
    ours, tars = [], []
    for _ in range(COPIES):
        run = run_pipe(program, clone, {"TRAIN_COMMAND": "touch done", "OUTPUTS": "done", "PUBLISH": "none"})
        ours.append(run.between("machine ready", "training started"))
        tars.append(timed_copy("mkdir copy && tar c -C build . | tar x -C copy", folder / "copy"))
    yield row("5,000 files of 20 KiB sent, beside tar", "{:.2f} s", ours, tars)


# The report


def figures(binaries, folder):
    """Every row, each group in a folder of its own that goes with it."""
    program = folder / "trainspot"
    shutil.copy2(binaries / "trainspot", program)
    with contextlib.closing(Bitbucket(binaries / "fake-bitbucket", folder)) as bitbucket:
        for measure in (
            lambda room: start_up(program, room),
            lambda room: big_output(program, room),
            lambda room: output_over_ssh(binaries / "ssh-fetch", program, room),
            lambda room: push(program, room, bitbucket, "of random bytes", write_noise, 5),
            lambda room: push(program, room, bitbucket, "of float32 weights", write_weights, 3),
            lambda room: long_log(program, room),
            lambda room: many_files(program, room),
        ):
            with tempfile.TemporaryDirectory(dir=folder) as room:
                yield from measure(Path(room))


def machine():
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / MIB / 1024
    git = subprocess.run(["git", "--version"], check=True, capture_output=True, text=True).stdout.strip()
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores, {memory:.0f} GiB of memory, load {load:.1f} before the start; {git}"


def give_up(*_):
    raise SystemExit(f"error: not done after {LIMIT} s")


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    signal.signal(signal.SIGALRM, give_up)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.alarm(LIMIT)
    start = time.monotonic()
    print(machine())
    with tempfile.TemporaryDirectory(prefix="trainspot-bench-") as folder:
        show(figures(Path(sys.argv[1]).resolve(), Path(folder)))
    print(f"measured in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
