"""What the suites on ailing disks share: a cluster of three processes of our own, and what one asks of it.

MCP_PROGRAMS names a folder with an `mcpnode` that is there already; otherwise it is built.
"""

import json
import os
import pathlib
import subprocess
import sys
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
LIMIT = 90
SUITE = pathlib.Path(sys.argv[0]).resolve().parent.name


def fail(why):
    """Ends the suite; the last line is the verdict."""
    sys.stdout.flush()
    sys.exit(f"{SUITE}: FAILED: {why}")


def skip(why):
    """The suite cannot run here. Where CI=true that is a failure: nothing was tested."""
    if os.environ.get("CI") == "true":
        fail(f"nothing was tested: {why}")
    print(f"{SUITE}: SKIPPED: nothing was tested: {why}")
    sys.exit(0)


def say(what):
    print(f"{SUITE}: {what}", flush=True)


def until(what, holds):
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        answer = holds()
        if answer:
            return answer
        time.sleep(0.05)
    fail(f"not within {LIMIT} s: {what}")


class Node:
    """One replica, its process our own."""

    def __init__(self, program, directory, api, mcp, settings):
        self.program, self.directory, self.api, self.mcp = program, directory, api, mcp
        self.settings = settings
        self.process = None

    def start(self):
        log = open(self.directory.parent / f"{self.directory.name}.log", "a")
        command = [self.program, "serve", "--config", self.directory / "mcpnode.toml"]
        environment = {**os.environ, **self.settings}
        self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)

    def stop(self):
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()

    def call(self, session, method, path, body=None):
        headers = {"authorization": f"Bearer {session}", "content-type": "application/json"}
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.api + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def ready(self):
        """Whether it is, and all that it says of itself."""
        try:
            with urllib.request.urlopen(f"{self.api}/readyz?verbose", timeout=5) as answer:
                return answer.status == 200, json.load(answer)
        except urllib.error.HTTPError as error:
            return False, json.load(error)
        except OSError:
            return False, {}

    def knock(self, bearer):
        """What the gateway answers to a bearer: the status, and when to come again."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
        headers = {
            "authorization": f"Bearer {bearer}",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
        }
        try:
            with urllib.request.urlopen(urllib.request.Request(self.mcp, body, headers), timeout=10) as answer:
                return answer.status, None
        except urllib.error.HTTPError as error:
            return error.code, error.headers.get("retry-after")
        except OSError as error:
            return 0, str(error)


def read_env(path):
    lines = (line.removeprefix("export ").strip() for line in path.read_text().splitlines() if line.startswith("export "))
    return {name: value.strip("'") for name, value in (line.split("=", 1) for line in lines)}


def mcpnode():
    """The program."""
    given = os.environ.pop("MCP_PROGRAMS", None)
    if given:
        return pathlib.Path(given) / "mcpnode"
    target = json.loads(subprocess.check_output(["cargo", "metadata", "--format-version", "1", "--no-deps"], cwd=ROOT))
    subprocess.run(["cargo", "build", "--quiet", "-p", "mcpnode"], cwd=ROOT, check=True)
    return pathlib.Path(target["target_directory"]) / "debug" / "mcpnode"


def made_cluster(program, work, settings):
    """A cluster as `dev` makes it, stopped again: each node is to be started by us, with these settings."""
    data, env, ready = work / "data", work / "env", work / "ready"
    flags = ["--replicas", "3", "--processes", "--data-dir", data, "--env-file", env, "--ready-file", ready]
    dev = subprocess.Popen([program, "dev", *flags], stdout=subprocess.DEVNULL, stderr=open(work / "dev.log", "w"))
    until("the cluster's readiness", lambda: ready.exists() or dev.poll() is not None)
    if dev.poll() is not None:
        fail(f"mcpnode dev ended: {(work / 'dev.log').read_text()[-2000:]}")
    env = read_env(env)
    dev.terminate()
    dev.wait(30)
    urls = zip(env["MCPCTL_SERVER"].split(","), env["MCP_URLS"].split(" "))
    nodes = [Node(program, data / f"node-{n + 1}", api, mcp, settings) for n, (api, mcp) in enumerate(urls)]
    return nodes, env["MCPCTL_SESSION"]


def leader(nodes, session, among):
    """Who leads, as soon as one of `among` knows."""

    def found():
        for node in among:
            status, listed = node.call(session, "GET", "/api/v1/nodes")
            if status == 200:
                for item in listed["items"]:
                    if item["state"] == "leader":
                        return next(n for n in nodes if n.directory.name == item["name"])
        return None

    return until("a leader", found)


def mint(node, session, name):
    """A token that was acknowledged, or none."""
    bindings = [{"role": "run", "resource": "servers"}]
    wanted = {"name": name, "project": "demo", "roleBindings": bindings}
    status, minted = node.call(session, "POST", "/api/v1/mcptokens", wanted)
    return minted["token"] if status in (200, 201) else None


def all_admit(nodes, minted):
    """Every node admits every token that was acknowledged."""
    for node in nodes:
        for number, bearer in enumerate(minted):
            # One that has just come back may lose its lease once more: 503 is no answer yet. 401 is one.
            status = until("an answer of the gateway", lambda: (lambda s: s if s not in (0, 503) else None)(node.knock(bearer)[0]))
            if status != 200:
                fail(f"{node.directory.name} answers {status} to token {number} of {len(minted)}")
