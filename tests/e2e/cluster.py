"""The cluster under test: its addresses, its processes, and `mcpctl`."""

import asyncio
import json
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import raw

MCPCTL_SECONDS_MAX = 60
READY_SECONDS_MAX = 30
LEADER_SECONDS_MAX = 20


class Node:
    """One replica. `pid` changes when it is started again."""

    def __init__(self, number, api, mcp, pid):
        self.name = f"node-{number}"
        self.api = api
        self.gateway = mcp.removesuffix("/projects/demo/mcp")
        self.pid = pid
        self.started = None

    def mcp(self, project):
        return f"{self.gateway}/projects/{project}/mcp"

    def signal(self, which):
        os.kill(self.pid, which)


class Cluster:
    """What `mcpnode dev --processes` wrote into its env file and onto its standard error."""

    def __init__(self, env, tools, talk, pid_file):
        self.session = env["MCPCTL_SESSION"]
        self.tools = tools
        self.talk = Path(talk)
        self.pid_file = Path(pid_file)
        rows = zip(env["MCPCTL_SERVER"].split(","), env["MCP_URLS"].split(), env["MCPNODE_PIDS"].split(","))
        self.nodes = [Node(n, api, mcp, int(pid)) for n, (api, mcp, pid) in enumerate(rows, 1)]

    def mcpctl(self, *args, servers=None, given=None):
        """Runs `mcpctl` with `given` on its standard input; gives what it printed. A failure is an error that holds what it said."""
        servers = servers or [node.api for node in self.nodes]
        env = {**os.environ, "MCPCTL_SERVER": ",".join(servers), "MCPCTL_SESSION": self.session}
        done = subprocess.run(
            [f"{self.tools}/mcpctl", *args],
            env=env,
            input=given,
            capture_output=True,
            text=True,
            timeout=MCPCTL_SECONDS_MAX,
        )
        said = f"mcpctl {shlex.join(args)}: exit {done.returncode}\n{done.stderr}"
        assert done.returncode == 0, re.sub(r"(mcpctl_(pat|ses)_\w{4})\w+", r"\1...", said)
        return done.stdout

    def mint(self, name, project, *bindings):
        """Mints a token the way the README does, and gives the bearer."""
        binds = [word for binding in bindings for word in ("--bind", binding)]
        printed = self.mcpctl("create", "mcptoken", name, "--project", project, *binds)
        lines = [line.strip() for line in printed.splitlines() if "mcpctl_pat_" in line]
        assert len(lines) == 1 and re.fullmatch(r"mcpctl_pat_[0-9A-Za-z]{43}", lines[0]), "the token is alone on its line"
        return lines[0]

    def api(self, node, method, path, body=None, seconds=raw.SECONDS_MAX):
        """One request to the API of a node."""
        headers = {"Authorization": f"Bearer {self.session}", "Content-Type": "application/json"}
        text = None if body is None else json.dumps(body)
        return raw.send(method, f"{node.api}/api/v1/{path}", headers, text, seconds)

    async def leader(self, among=None):
        """The leader, as soon as a node of `among` knows one."""
        among = among or self.nodes
        async with asyncio.timeout(LEADER_SECONDS_MAX):
            while True:
                for asked in among:
                    leader = await self.leader_by(asked)
                    if leader in among:
                        return leader
                await asyncio.sleep(0.05)

    async def leader_by(self, asked):
        try:
            answer = await raw.apart(self.api, asked, "GET", "nodes", seconds=2)
        except OSError:
            return None
        if answer.status != 200:
            return None
        leading = {node["name"] for node in answer.json["items"] if node["state"] == "leader"}
        return next((node for node in self.nodes if node.name in leading), None)

    async def ready(self, node):
        """Waits until a node holds a lease."""
        async with asyncio.timeout(READY_SECONDS_MAX):
            while True:
                try:
                    if (await raw.apart(raw.send, "GET", f"{node.api}/readyz", seconds=2)).status == 200:
                        return
                except OSError:
                    pass
                await asyncio.sleep(0.05)

    def restart(self, node, first=None):
        """Starts a replica again by the line that `dev` printed for it; `first` is done in its process before that."""
        lines = [shlex.split(line) for line in self.talk.read_text().splitlines() if " serve --config " in line]
        line = next(line for line in lines if f"/{node.name}/" in line[-1])
        log = open(Path(line[-1]).with_name("mcpnode.log"), "a")
        node.started = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=first)
        node.pid = node.started.pid
        with self.pid_file.open("a") as file:
            file.write(f"{node.pid}\n")

    def stop_what_was_started(self):
        for node in self.nodes:
            if node.started and node.started.poll() is None:
                node.started.send_signal(signal.SIGTERM)
        for node in self.nodes:
            if node.started:
                try:
                    node.started.wait(10)
                except subprocess.TimeoutExpired:
                    node.started.kill()
