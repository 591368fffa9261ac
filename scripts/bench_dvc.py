"""Measure what the pipe does for DVC's remotes, beside DVC itself.

usage: bench_dvc.py PROGRAM

PROGRAM is a release build of trainspot. The pipe hashes an output, sends it and writes its pointer (`ACTION: publish` without a
commit); DVC does the same by `dvc add` and `dvc push`. They run in turns on the same machine, each in a new repository and to a new
place in the remote. The S3 is s3s-fs, built once from crates.io: moto's takes 4 ms for each request, for which both would wait.
See measuring.py for how times, ratios and memory are taken. The S3 is on the same processors, and takes more of them than the pipe:
what the clients took of them is told beside.
"""

import contextlib
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from measuring import MIB, ratio, replace, repository, row, run_peer, run_pipe, show, write_noise

ROOT = Path(__file__).parent.parent
BIG = 1024 * MIB
FILES, FILE_BYTES = 10_000, 20 * 1024
# A virtual machine's host takes back memory that is free, and gives it again page by page: seconds for a gigabyte, for whoever is
# next. So each run of a big file finds as much as four copies of it take.
WARM = f"bytearray({4 * BIG})[::4096] = bytes({4 * BIG // 4096})"
TURNS = {"a path": 3, "S3": 3}
S3_VERSION = "0.14.1"
KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


def venv():
    """The folder of DVC's programs."""
    command = [ROOT / "scripts/venv.sh", "dvc-remotes", "test/dvc/remotes.txt"]
    return Path(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())


def s3_server():
    """The program of the S3."""
    root = ROOT / "build/s3s-fs"
    if not (root / "bin/s3s-fs").exists():
        package = ["s3s-fs", "--version", S3_VERSION, "--features", "binary", "--locked"]
        subprocess.run(["cargo", "install", "--quiet", *package, "--root", root], check=True)
    return root / "bin/s3s-fs"


class S3:
    """An S3 with a bucket in a folder of this machine."""

    def __init__(self, folder):
        (folder / "models").mkdir(parents=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url, null = f"http://127.0.0.1:{port}", subprocess.DEVNULL
        keys = ["--access-key", KEYS["AWS_ACCESS_KEY_ID"], "--secret-key", KEYS["AWS_SECRET_ACCESS_KEY"]]
        command = [s3_server(), "--host", "127.0.0.1", "--port", str(port), *keys, folder]
        self.process = subprocess.Popen(command, stdout=null, stderr=null)
        for _ in range(200):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                return
            time.sleep(0.1)
        raise SystemExit("error: the S3 does not answer")

    def close(self):
        self.process.terminate()
        self.process.wait()


def work(folder, data):
    """A new repository with a copy of the data in it."""
    shutil.rmtree(folder, ignore_errors=True)
    repository(folder)
    (replace if data.is_dir() else shutil.copy)(data, folder / "data")
    os.sync()
    if data.is_file():
        # In another process, as it counts among the memory of what this one starts afterwards.
        subprocess.run([sys.executable, "-c", WARM], check=True)
    return folder


class Done(NamedTuple):
    """What sending took."""

    seconds: float
    processor: float  # seconds of all processors, of the client and its children
    peak: float  # MiB


def taken():
    """The processor seconds of all children so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def ours(program, folder, data, remote, endpoint):
    clone = work(folder / "ours", data)
    variables = {"ACTION": "publish", "PUBLISH": "none", "DVC_OUTPUTS": "data", "DVC_REMOTE": remote}
    before = taken()
    run = run_pipe(program, clone, variables | KEYS | ({"AWS_ENDPOINT_URL": endpoint} if endpoint else {}))
    if not (clone / "data.dvc").exists():
        raise SystemExit("error: the pipe wrote no pointer")
    return Done(run.seconds, taken() - before, run.peak / MIB)


def theirs(programs, folder, data, remote, endpoint):
    clone = work(folder / "theirs", data)
    dvc = str(programs / "dvc")
    settings = {"endpointurl": endpoint, "access_key_id": "id", "secret_access_key": "secret", "region": "us-east-1"}
    prepare = [[dvc, "init", "-q"], [dvc, "remote", "add", "-q", "-d", "store", remote]]
    prepare += [[dvc, "remote", "modify", "-q", "store", *each] for each in settings.items() if endpoint]
    prepare.append([dvc, "config", "core.analytics", "false"])
    for command in prepare:
        subprocess.run(command, cwd=clone, check=True)
    before = taken()
    seconds, peak = run_peer([dvc, "add", "-q", "data"], [dvc, "push", "-q"], cwd=clone)
    return Done(sum(seconds), taken() - before, peak / MIB)


def compare(what, goal, data, program, programs, folder, store):
    for where, turns in TURNS.items():
        runs, peers, floors = [], [], []
        for turn in range(turns):
            name = f"{what[:4].strip().replace(',', '')}-{turn}"
            place = (lambda who: f"s3://models/{who}-{name}") if where == "S3" else (lambda who: str(folder / f"{who}-{name}"))
            endpoint = store.url if where == "S3" else None
            runs.append(ours(program, folder, data, place("ours"), endpoint))
            peers.append(theirs(programs, folder, data, place("theirs"), endpoint))
            if data.is_file():
                floors.append(run_peer(["md5sum", str(data)], cwd=folder)[0][0])
        seconds, slower = [run.seconds for run in runs], [peer.seconds for peer in peers]
        times = 1 / ratio(seconds, slower)
        yield row(f"{what} to {where}, beside dvc", "{:.2f} s", seconds, slower, f"{goal} × as fast", times >= goal)
        processor = [[each.processor for each in side] for side in (runs, peers)]
        yield row("… processor time of the client", "{:.2f} s", *processor)
        peak = max(run.peak for run in runs)
        yield row("… peak memory", "{:.1f} MiB", [peak], [max(peer.peak for peer in peers)], "< 64 MiB", peak < 64)
        if floors and where != "S3":
            yield row("… beside md5sum", "{:.2f} s", seconds, floors, "≤ 1.5", ratio(seconds, floors) <= 1.5)


def figures(program, programs, folder, store):
    big, many = folder / "big.bin", folder / "many"
    write_noise(big, BIG)
    yield from compare("1 GiB", 3, big, program, programs, folder, store)
    many.mkdir()
    for number in range(FILES):
        (many / f"{number}.bin").write_bytes(os.urandom(FILE_BYTES))
    yield from compare("10,000 × 20 KiB", 5, many, program, programs, folder, store)


def main():
    program, programs = Path(sys.argv[1]).resolve(), venv()
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(S3(Path(folder, "s3"))) as store:
        folder = Path(folder)
        show(figures(program, programs, folder, store))


if __name__ == "__main__":
    main()
