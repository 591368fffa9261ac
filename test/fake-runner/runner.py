#!/usr/bin/env python3
"""A stand-in for Atlassian's runner: what it reads, what it logs, and a step that it runs. See README.md."""

import argparse
import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
VERSION = "5.7.0"
# Atlassian's runner asks every 30 s, and is told over a websocket in between.
POLL = 0.2


def settings(arguments):
    """The runner's settings: flags in the shell's form, the environment in Docker's."""
    env = os.environ.get
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for flag, default in {
        "accountUuid": env("ACCOUNT_UUID"),
        "repositoryUuid": env("REPOSITORY_UUID"),
        "runnerUuid": env("RUNNER_UUID"),
        "OAuthClientId": env("OAUTH_CLIENT_ID"),
        "OAuthClientSecret": env("OAUTH_CLIENT_SECRET"),
        "runtime": env("RUNTIME", "linux-docker"),
        "workingDirectory": env("WORKING_DIRECTORY"),
    }.items():
        parser.add_argument(f"--{flag}", default=default, required=default is None and flag != "repositoryUuid")
    return parser.parse_args(arguments)


class Gone(Exception):
    """The step is over, as far as Bitbucket is concerned."""


class Stopped(Exception):
    """The runner was told to end."""


class Bitbucket:
    """The fake's door for runners."""

    def __init__(self, address, given):
        ids = [given.accountUuid, given.repositoryUuid or "-", given.runnerUuid]
        quoted = "/".join(urllib.parse.quote(one, safe="") for one in ids)
        self.base = f"{address}/runner/{quoted}"
        pair = f"{given.OAuthClientId}:{given.OAuthClientSecret}".encode()
        self.authorization = "Basic " + base64.b64encode(pair).decode()
        # The host's proxies do not know the way.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(self, method, verb, body=None):
        request = urllib.request.Request(f"{self.base}/{verb}", data=body, method=method)
        request.add_header("Authorization", self.authorization)
        try:
            with self.opener.open(request, timeout=10) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            if error.code == 410:
                raise Gone from error
            raise

    def state(self, status):
        self.call("PUT", "state", json.dumps({"status": status, "version": VERSION}).encode())

    def next_step(self):
        told = self.call("GET", "step")
        return json.loads(told) if told else None


class Runner:
    def __init__(self, given, behaviour):
        self.given = given
        self.behaviour = behaviour
        self.bitbucket = Bitbucket((os.environ.get("FAKE_BITBUCKET") or (HERE / "address").read_text()).strip(), given)
        self.work = Path(given.workingDirectory).resolve()
        self.process = None

    def log(self, text):
        """Version 1 says when; version 5 as its users show it does not."""
        now = time.time()
        stamp = time.strftime("[%Y-%m-%d %H:%M:%S", time.gmtime(now)) + f",{int(now * 1000) % 1000:03}] "
        print((stamp if self.is_old() else "") + text, flush=True)

    def is_old(self):
        return self.behaviour.get("log") == 1

    def say_state(self, status):
        if self.is_old():
            more = " and checking for new steps assigned to the runner after 0 seconds and then every 30 seconds"
            self.log(f'Updating runner status to "{status}"' + (more if status == "ONLINE" else "") + ".")
        else:
            self.log(f'Updating runner state to "{status}".')
        self.bitbucket.state(status)

    def run(self):
        try:
            return self.serve()
        except Stopped:
            self.end_step()
            self.say_state("OFFLINE")
            return 143
        except urllib.error.HTTPError as error:
            self.log(f"ERROR An error occurred whilst talking to Bitbucket: {error.code} {error.read().decode()}")
            return 1

    def serve(self):
        self.log("Runner starting.")
        self.log(f"Runner version: {VERSION}")
        self.log(f"Runner runtime: {self.given.runtime}")
        time.sleep(self.behaviour.get("startup", 0))
        if self.behaviour.get("never_online"):
            self.log("ERROR An error occurred whilst connecting: UnknownHostException: auth.example.com")
            while True:
                time.sleep(1)
        self.say_state("ONLINE")
        if self.behaviour.pop("update", None):
            self.log("Updating runner to version 5.8.0")
            return self.serve()
        if "exit_after_online" in self.behaviour:
            return self.behaviour["exit_after_online"]
        while True:
            self.bitbucket.state("ONLINE")
            step = self.bitbucket.next_step()
            if step:
                self.take(step)
            time.sleep(POLL)

    def take(self, step):
        ids = {
            "accountUuid": self.given.accountUuid,
            "repositoryUuid": self.given.repositoryUuid or step["environment"]["BITBUCKET_REPO_UUID"],
            "pipelineUuid": step["pipeline"],
            "stepUuid": step["step"],
        }
        self.log("Getting step StepId{" + ", ".join(f"{name}={uuid}" for name, uuid in ids.items()) + "}.")
        build = self.work / "build"
        build.mkdir(parents=True, exist_ok=True)
        try:
            passed = self.run_script(step, build)
            self.log(f"Completing step with result Result{{status={'PASSED' if passed else 'FAILED'}, error=None}}.")
            self.bitbucket.call("POST", "result", b"PASSED" if passed else b"FAILED")
        except Gone:
            self.end_step()
            self.log("Completing step with result Result{status=STOPPED, error=None}.")
        self.log("Tearing down directories.")
        if self.behaviour.get("unhealthy"):
            self.log("An error occurred whilst tearing down directories.")
            self.say_state("UNHEALTHY")
            while True:
                time.sleep(1)
        shutil.rmtree(build)

    def run_script(self, step, build):
        """Runs a step as bash does it, its output sent on while it comes; whether it passed."""
        script = "".join(f"{line}\n" for line in step["script"])
        environment = dict(os.environ, **step["environment"], BITBUCKET_CLONE_DIR=str(build))
        for name in list(environment):
            if name.startswith(("OAUTH_CLIENT", "FAKE_")):
                del environment[name]
        self.process = subprocess.Popen(
            ["bash", "-e", "-c", script],
            cwd=build, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        os.set_blocking(self.process.stdout.fileno(), False)
        while True:
            over = self.process.poll() is not None
            output = self.process.stdout.read() or b""
            # Without a word too: it is how Bitbucket hears that the runner lives, and the runner that it must stop.
            self.bitbucket.call("POST", "log", output)
            if over:
                return self.process.returncode == 0
            time.sleep(POLL)

    def end_step(self):
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def stop(_signal, _frame):
    raise Stopped


def main():
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    file = HERE / "behaviour.json"
    behaviour = json.loads(file.read_text()) if file.exists() else {}
    sys.exit(Runner(settings(sys.argv[1:]), behaviour).run())


main()
