"""The rig's test of itself: starts a lab, and asks of it what the pipe's tests will rely on. About half a minute.

Exit code 77: the rig cannot run here.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
SKIP = 77


def inside(facts):
    """All tests, in the lab's network. Any exception is a failure."""
    import selftest_api
    import selftest_machines
    from bench import CHECKED, Bench

    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(facts, Path(folder))
        tests = selftest_machines.TESTS
        # Machines at the same time, as a test suite has them; what counts calls or sets faults comes alone, after them.
        with ThreadPoolExecutor() as pool:
            for name, done in [(test.__name__, pool.submit(timed, test, bench)) for test in tests]:
                print(f"{name}: {done.result():.1f} s", flush=True)
        for test in selftest_api.TESTS:
            bench.control("reset", {})
            print(f"{test.__name__}: {timed(test, bench):.1f} s", flush=True)
    print(f"{len(tests) + len(selftest_api.TESTS)} tests, {len(CHECKED)} checks", flush=True)


def timed(test, bench):
    started = time.monotonic()
    test(bench)
    return time.monotonic() - started


def start(folder, *options):
    """A lab. (process, facts); exits with 77 where there can be none."""
    ready = Path(folder) / "ready.json"
    lab = subprocess.Popen([sys.executable, HERE / "rig.py", "--ready", ready, *options])
    while not ready.exists():
        if (status := lab.poll()) is not None:
            sys.exit(status)
        time.sleep(0.05)
    return lab, json.loads(ready.read_text())


def network_of(pid):
    return os.readlink(f"/proc/{pid}/ns/net")


def living_in(networks):
    """The processes of this host that are in one of these network namespaces."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and network_of(entry.name) in networks:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def dies_whole(lab, facts):
    """A killed rig leaves nothing: no process in the lab's network or in its guests'."""
    names = {network_of(facts["pid"])}
    for line in subprocess.run(["nsenter", "-t", str(facts["pid"]), "-p", "-m", "lsns", "-t", "net", "-no", "NS"],
                               capture_output=True, text=True, check=True).stdout.split():
        names.add(f"net:[{line}]")
    names.discard(network_of("self"))
    before = living_in(names)
    if len(before) < 10:
        raise AssertionError(f"a lab with a machine is more than these processes: {before}")
    lab.kill()
    lab.wait()
    end = time.monotonic() + 10
    while left := living_in(names):
        if time.monotonic() > end:
            raise AssertionError(f"these outlived the rig: {left}")
        time.sleep(0.05)
    print(f"a killed rig: {len(before)} processes before, none after", flush=True)


def main():
    if len(sys.argv) > 1:
        return inside(json.loads(Path(sys.argv[1]).read_text()))
    for init in ("systemd", "sh"):
        with tempfile.TemporaryDirectory() as folder:
            lab, facts = start(folder, "--init", init, "--bind", f"{HERE}:/opt/bound")
            try:
                print(f"== guests with {init}", flush=True)
                ready = str(Path(folder) / "ready.json")
                subprocess.run(["nsenter", "-t", str(facts["pid"]), "-n", sys.executable, __file__, ready], check=True)
                dies_whole(lab, facts)
            finally:
                lab.kill()


if __name__ == "__main__":
    main()
