"""Canaries: secrets that are driven through every route and error path, and must turn up nowhere.

A cluster of its own, at trace level, that packs a snapshot every few commands. Looked through: logs, metrics, audit segments,
every file of the data directories, arguments and environment of every process, what reached the MCP servers, and what `mcpctl`
said when it failed.

Where a canary may stand, and why:

- the answer that mints a token, a session or a join token; the caller's own request and the answer to it
- the environment of a child whose server has the secret in its `env`, and of the `mcpnode child` around it; the headers of an HTTP
  server that has it in its `headers`: configured so, on purpose (checked to be there, so that the check can fail)
- the credentials file that `mcpctl login` writes (0600); the files and standard input that `mcpctl` was given
- a name or a description that holds one is stored as what it is. So the wrong places that are tried are those which are refused
"""

import base64
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import raw
from checks import same
from cluster import Cluster
from counted import Counted

ALONE = True
READY_SECONDS_MAX = 90
WAIT_SECONDS_MAX = 60
SNAPSHOT_ENTRIES = 40
PROJECT = "canaries"
ADMIN = "canary@example.com"
#: What makes a canary unmistakable: as long as no file holds it by chance.
CORE = 24


async def run(at_hand):
    await raw.apart(Aviary(at_hand).run)


def forms(core):
    """A canary as it might be written: as it is (also percent-encoded or within JSON: it is letters and digits), percent-encoded
    in full, in hexadecimal, in base64 at each of its three positions, as a list of numbers, reversed bytes excepted."""
    text = core.encode()
    yield text
    yield "".join(f"%{byte:02x}" for byte in text).encode()
    yield "".join(f"%{byte:02X}" for byte in text).encode()
    yield text.hex().encode()
    yield text.hex().upper().encode()
    yield " ".join(f"{byte:02x}" for byte in text).encode()
    yield ", ".join(map(str, text)).encode()
    yield ",".join(map(str, text)).encode()
    yield text.decode().encode("utf-16-le")
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for before in range(3):
            # The first and last characters depend on what stands beside it.
            coded = encode(b"\0" * before + text)
            yield coded[4 if before else 0 : len(coded) // 4 * 4 - 4]


class Scanner:
    """Knows the canaries, and finds them."""

    def __init__(self):
        self.needles = {}

    def knows(self, name, core):
        assert len(core) >= CORE, f"{name} is too short to be unmistakable"
        for form in forms(core):
            self.needles[form] = name

    def found(self, hay):
        return sorted({name for needle, name in self.needles.items() if needle in hay})

    def excerpt(self, hay):
        """Where the first one stands, for the report."""
        at, needle = min((hay.find(needle), needle) for needle in self.needles if needle in hay)
        return hay[max(0, at - 160) : at + len(needle) + 20]


class Aviary:
    """The cluster, its canaries, and what was said about them."""

    def __init__(self, at_hand):
        self.checks = at_hand.checks
        self.tools = at_hand.cluster.tools
        self.scanner = Scanner()
        self.said = []
        self.dir = Path(tempfile.mkdtemp(prefix="mcpnode-canary."))
        self.dev = None
        self.upstream = Counted()

    def run(self):
        try:
            self.start()
            self.hatch()
            self.proper_places()
            self.every_route()
            self.mcp_paths()
            self.failing_commands()
            self.look_everywhere()
        finally:
            self.stop()

    # The cluster.

    def start(self):
        env = {name: value for name, value in os.environ.items() if not name.startswith(("MCP", "RUST_LOG"))}
        env |= {"RUST_LOG": "trace", "MCPNODE_LOG_SNAPSHOT_ENTRIES": str(SNAPSHOT_ENTRIES)}
        data, written, ready = self.dir / "data", self.dir / "env", self.dir / "ready"
        flags = ["--replicas", "3", "--processes", "--data-dir", data, "--env-file", written, "--ready-file", ready]
        talk = (self.dir / "dev.log").open("wb")
        self.dev = subprocess.Popen([f"{self.tools}/mcpnode", "dev", *flags], env=env, stdin=subprocess.DEVNULL, stdout=talk, stderr=talk)
        wait_for("the canaries' cluster", lambda: ready.exists() or self.dev.poll() is not None, READY_SECONDS_MAX)
        assert ready.exists(), (self.dir / "dev.log").read_text()[-2000:]
        lines = [line.removeprefix("export ") for line in written.read_text().splitlines() if line.startswith("export ")]
        told = {name: value.strip("'") for name, value in (line.split("=", 1) for line in lines)}
        self.cluster = Cluster(told, self.tools, self.dir / "dev.log", self.dir / "pids")
        self.nodes = self.cluster.nodes

    def stop(self):
        self.upstream.close()
        if self.dev and self.dev.poll() is None:
            self.dev.send_signal(signal.SIGTERM)
            try:
                self.dev.wait(15)
            except subprocess.TimeoutExpired:
                self.dev.kill()
        if not os.environ.get("KEEP"):
            shutil.rmtree(self.dir, ignore_errors=True)

    # The canaries.

    def canary(self, name):
        """A value with characters that encodings change around a core that they do not."""
        core = secrets.token_hex(CORE)
        self.scanner.knows(name, core)
        return f'C4nary/{core}+"ä %'

    def minted(self, name, bearer):
        """A bearer whose beginning may be shown."""
        self.scanner.knows(name, bearer[-CORE:])
        return bearer

    def api(self, method, path, body=None, bearer=None, headers=None, node=0, text=None):
        fields = {"Content-Type": "application/json"}
        fields |= {"Authorization": f"Bearer {bearer or self.cluster.session}"} | (headers or {})
        sent = text if text is not None else None if body is None else json.dumps(body)
        answer = raw.send(method, f"{self.nodes[node].api}/api/v1/{path}", fields, sent.encode() if sent else None)
        return answer

    def made(self, method, path, body, **more):
        answer = self.api(method, path, body, **more)
        assert answer.status in (200, 201), f"{method} {path}: {answer}"
        return answer.json

    def hatch(self):
        """Puts every canary in its proper place."""
        self.password, self.wrong_password = self.canary("a password"), self.canary("a wrong password")
        self.next_password, self.value = self.canary("a changed password"), self.canary("a secret's value")
        # No name either: a project's name that a stranger asks for stands in the audit as it is.
        header = secrets.token_hex(CORE)
        self.scanner.knows("a secret's value that is a header", header)
        self.header_value = f"C4nary/{header}"
        # Longer than a line of stderr that is kept, and so never there as a whole.
        long = secrets.token_hex(CORE)
        self.scanner.knows("a long secret's value", long)
        self.long_value = f"C4nary/{long}" + "x" * 3000
        self.made("POST", "users", {"email": ADMIN, "password": self.password})
        binding = {"subjects": [{"kind": "User", "name": ADMIN}], "roleBindings": [{"role": "admin", "resource": "*"}, {"action": "*"}]}
        self.made("POST", "rbac", {"name": "canary", **binding})
        login = {"email": ADMIN, "password": self.password}
        self.session = self.minted("a session", self.made("POST", "auth/login", login)["token"])
        self.made("POST", "secrets", {"name": "canary", "data": self.data()})
        reference = "${secret:canary/key}"
        script = 'echo "stderr says $CANARY" >&2; exec "$0" demo-server'
        stdio = {"transport": "stdio", "command": "sh", "args": ["-c", script, f"{self.tools}/mcpnode"], "env": {"CANARY": reference}}
        dies = {"transport": "stdio", "command": "sh", "args": ["-c", 'echo "dying of $CANARY" >&2; exit 3'], "env": {"CANARY": reference}}
        http = {"transport": "http", "url": self.upstream.url, "headers": {"X-Canary": "${secret:canary/header}"}, "responseMs": 1500}
        nowhere = {"transport": "http", "url": "http://127.0.0.1:9/mcp", "headers": {"X-Canary": "${secret:canary/header}"}}
        wordy = {**dies, "env": {"CANARY": "${secret:canary/long}"}}
        servers = {"stdio": stdio, "dies": dies, "wordy": wordy, "counted": http, "nowhere": nowhere}
        for name, spec in servers.items():
            self.made("POST", "servers", {"name": name, **spec})
        self.made("POST", "projects", {"name": PROJECT, "servers": list(servers)})
        bindings = [{"role": "run", "resource": "servers"}]
        token = {"name": "canary", "project": PROJECT, "roleBindings": bindings}
        self.token = self.minted("a token", self.made("POST", "mcptokens", token, bearer=self.session)["token"])
        self.unknown = self.minted("an unknown token", "mcpctl_pat_" + secrets.token_hex(32)[:43])
        self.made("POST", "serviceaccounts", {"name": "canary"})
        opened = self.made("POST", "serviceaccounts/canary/sessions", {}, bearer=self.session)
        self.service = self.minted("a service account's session", opened["token"])
        join = self.made("POST", "cluster/join-tokens", {}, bearer=self.session)
        self.join_token = self.minted("a join token", join["token"])

    def data(self):
        return {"key": self.value, "header": self.header_value, "long": self.long_value}

    def everywhere(self):
        """Every canary that a client may hold."""
        bearers = [self.session, self.token, self.unknown, self.service, self.join_token]
        return [*bearers, self.password, self.wrong_password, self.next_password, self.value, self.header_value]

    # What is driven through.

    def proper_places(self):
        """Logins that fail, a password changed and reset, a secret replaced, a token rotated."""
        for node in range(3):
            for wrong in ({"password": self.wrong_password}, {"email": "nobody@example.com", "password": self.wrong_password}):
                self.api("POST", "auth/login", {"email": ADMIN, **wrong}, node=node)
        change = {"oldPassword": self.wrong_password, "newPassword": self.next_password}
        self.api("POST", "auth/password", change, bearer=self.session)
        self.api("POST", "auth/setup", {"email": ADMIN, "setupSecret": self.value, "password": self.password})
        self.made("POST", "auth/password", {"oldPassword": self.password, "newPassword": self.wrong_password}, bearer=self.session)
        self.made("POST", f"users/{ADMIN}/password", {"password": self.next_password})
        # A reset closes sessions: the one that is looked for has to be good while it goes through the routes.
        answer = self.made("POST", "auth/login", {"email": ADMIN, "password": self.next_password})
        self.session = self.minted("a second session", answer["token"])
        key = {"Idempotency-Key": secrets.token_hex(8)}
        for _ in range(2):
            self.api("PUT", "secrets/canary", {"data": self.data()}, headers=key)
        self.api("PATCH", "secrets/canary", {"data": {"key": self.value}}, headers={"If-Match": '"1"'})

    def every_route(self):
        """Every route of the description, with the canaries in all places where they do not belong."""
        described = self.api("GET", "openapi.json").json
        routes = [(method.upper(), path) for path, methods in described["paths"].items() for method in methods if method != "parameters"]
        properties = sorted({name for schema in described["components"]["schemas"].values() for name in schema.get("properties", {})})
        done = accepted = 0
        for at, (method, path) in enumerate(routes):
            canary = self.everywhere()[at % len(self.everywhere())]
            for what in self.misuses(method, path.removeprefix("/api/v1/"), canary, properties):
                answer = self.api(method, node=at % 3, **what)
                done += 1
                accepted += answer.status < 400
        with self.checks.check(f"canaries went through {len(routes)} routes in {done} requests, and the routes that change things refused them"):
            assert len(routes) > 50 and done > 10 * len(routes), (len(routes), done)
            assert accepted < done / 4, f"{accepted} of {done} were accepted: the wrong places are not wrong"

    def misuses(self, method, path, canary, properties):
        in_path, in_query = re.sub(r"\{\w+\}", quote(canary, safe=""), path), f"{path}?x={quote(canary)}&{quote(canary)}=1&limit={quote(canary)}"
        nowhere = re.sub(r"\{\w+\}", "there-is-none", path)
        latin = canary.encode().decode("latin-1")
        # A bearer of a kind that is let in is tried on what ends nothing.
        for bearer in self.everywhere():
            if not (path == "auth/logout" and bearer in (self.session, self.service)):
                yield {"path": nowhere, "bearer": bearer.encode().decode("latin-1"), "text": "{"}
        yield {"path": in_path}
        yield {"path": in_path, "body": {"name": canary}}
        yield {"path": in_query}
        if path == "auth/logout":
            return
        bodies = [
            {name: {canary: canary} for name in properties},
            {name: [canary, {"x": canary}] for name in properties},
            {canary: canary},
            {"roleBindings": [{"role": canary, "resource": canary}], "subjects": [{"kind": canary, "name": canary}], canary: 1},
            {"password": canary, "current": canary, "new": canary, "secret": canary, "token": canary, "ttl": canary, "x": 1},
            [canary],
            canary,
        ]
        for body in bodies:
            yield {"path": nowhere, "body": body}
        yield {"path": nowhere, "text": json.dumps({"name": canary})[:-3]}
        yield {"path": nowhere, "text": '{"a": "' + canary}
        for name in ("If-Match", "Idempotency-Key", "Mcp-Min-Index", "Origin", "Content-Type", "X-Forwarded-For", "Cookie", "Host", "Traceparent"):
            yield {"path": nowhere, "body": {"x": 1}, "headers": {name: latin}}
        yield {"path": nowhere, "headers": {"Authorization": f"Basic {base64.b64encode(f'admin:{canary}'.encode()).decode()}"}}
        yield {"path": nowhere, "headers": {"Authorization": latin}}

    def mcp_paths(self):
        """Calls that succeed and fail, at servers that repeat what they are sent; and canaries where MCP does not want them."""
        wait_for("the tools of the canaries' servers", self.lists_tools, WAIT_SECONDS_MAX)
        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "e2e", "version": "1"}}
        initialize = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello})
        ping = json.dumps({"jsonrpc": "2.0", "id": 2, "method": "ping"})
        for node in self.nodes:
            url = node.mcp(PROJECT)
            mine = {"Authorization": f"Bearer {self.token}"}
            session = raw.send("POST", url, mine, initialize).headers["mcp-session-id"]
            self.minted("an MCP session", session)
            same(raw.send("POST", url, mine | {"Mcp-Session-Id": session}, ping).status, 200, "ping in a session")
            raw.send("POST", url, {"Authorization": f"Bearer {self.unknown}", "Mcp-Session-Id": session}, ping)
            raw.send("DELETE", url, mine | {"Mcp-Session-Id": session})
            others = [f"{node.gateway}/mcp", node.mcp(PROJECT).removesuffix("/mcp") + "/servers/counted/mcp"]
            others += [url.removesuffix("/mcp") + "/sse", url.removesuffix("/mcp") + "/messages"]
            for other in others:
                raw.call(other, self.token, "counted__echo", {"message": "hello"})
                for secret in (self.token, *self.everywhere()):
                    password = base64.b64encode(f"x:{secret}".encode()).decode()
                    for how in (f"Basic {password}", f"Bearer {secret}".encode().decode("latin-1")):
                        raw.send("POST", other, {"Authorization": how}, ping)
                        raw.send("POST", f"{other}?session={quote(secret)}", {"Authorization": how}, ping)
                        if not other.endswith("/sse"):
                            raw.send("GET", other, {"Authorization": how})
            for tool in ("echo", "slow", "rubbish", "hangup", "fails", "refuses", "mangled"):
                raw.call(url, self.token, f"counted__{tool}", {"message": "hello"})
            for tool in ("dies__x", "wordy__x", "nowhere__x", "stdio__echo", "stdio__fail"):
                raw.call(url, self.token, tool, {"message": "hello"})
            for canary in self.everywhere():
                latin = canary.encode().decode("latin-1")
                raw.call(url, latin, "counted__echo", {})
                raw.call(url, self.token, "no-such-tool", {})
                raw.mcp(f"{url}?token={quote(canary)}", self.token, "tools/list")
                raw.mcp(f"{node.gateway}/projects/{quote(canary, safe='')}/mcp", self.token, "tools/list")
                for name in ("Mcp-Session-Id", "Mcp-Name", "Mcp-Method", "MCP-Protocol-Version", "Origin", "Cookie", "Accept", "Last-Event-ID"):
                    raw.mcp(url, self.token, "tools/list", headers={name: latin})
                for text in (canary, json.dumps([canary]), json.dumps({"jsonrpc": canary, "id": canary, "method": 1})):
                    raw.send("POST", url, {"Authorization": f"Bearer {self.token}"}, text.encode())
                raw.send("DELETE", url, {"Authorization": f"Bearer {self.token}", "Mcp-Session-Id": latin})
                raw.send("GET", url, {"Authorization": f"Basic {base64.b64encode(canary.encode()).decode()}"})

    def lists_tools(self):
        for node in self.nodes:
            answer = raw.mcp(node.mcp(PROJECT), self.token, "tools/list")
            if answer.status != 200:
                return False
            servers = {tool["name"].split("__")[0] for tool in answer.message["result"]["tools"]}
            if not {"counted", "stdio"} <= servers:
                return False
        return True

    def failing_commands(self):
        """What a person gets to read when a command fails, and when it shows what there is."""
        given = self.dir / "given"
        given.mkdir()
        (given / "key").write_text(self.value)
        (given / "join").write_text(self.join_token)
        broken = f"kind: secret\nname: other\ndata:\n  key: {self.header_value}\n {self.header_value}: [\n"
        wrong = f"kind: secret\nname: other\ndata:\n  key: [{self.header_value}]\nnope: {self.header_value}\n"
        number = f"kind: user\nname: x\nemail: u@example.com\npassword: [{self.header_value}]\n"
        refused = f"kind: secret\nname: BAD NAME\ndata: {{key: {self.header_value}}}\n"
        dead = {"MCPCTL_SERVER": "http://127.0.0.1:9"}
        rows = [
            (["get", "secrets", "-o", "yaml"], None, {}),
            (["describe", "secret", "canary"], None, {}),
            (["get", "all", "-o", "yaml"], None, {}),
            (["describe", "mcptoken", "canary", "-p", PROJECT], None, {}),
            (["describe", "server", "dies"], None, {}),
            (["describe", "server", "wordy"], None, {}),
            (["describe", "server", "counted"], None, {}),
            (["get", "servers", "-o", "json"], None, {}),
            (["get", "nodes"], None, dead),
            (["create", "secret", "other", "--from-file", f"key={given}/key"], None, dead),
            (["create", "secret", "BAD NAME", "--from-file", f"key={given}/key"], None, {}),
            (["create", "secret", "canary", "--from-file", f"key={given}/key"], None, {}),
            (["create", "secret", "other", "--from-env-file", "-"], f"{self.header_value}\nKEY={self.header_value}", {}),
            (["create", "user", "BAD", "--password-stdin"], self.wrong_password, {}),
            (["create", "user", "x@example.com", "--password-stdin"], self.wrong_password, dead),
            (["login", "--email", ADMIN, "--password-stdin"], self.wrong_password, {}),
            (["login", "--email", ADMIN, "--setup-secret-file", f"{given}/key"], None, {}),
            (["apply", "-f", "-"], broken, {}),
            (["apply", "-f", "-"], wrong, {}),
            (["apply", "-f", "-"], number, {}),
            (["apply", "-f", "-"], refused, {}),
            (["diff", "-f", "-"], f"kind: secret\nname: canary\ndata: {{key: {self.header_value}}}\n", {}),
            (["get", "projects"], None, {"MCPCTL_SESSION": self.session[:-1]}),
            (["get", "projects"], None, {"MCPCTL_SESSION": self.value}),
            (["get", "projects"], None, {"MCPCTL_SESSION": self.unknown}),
            (["get", "projects"], None, {"MCPCTL_SERVER": f"http://user:{self.header_value[7:]}@127.0.0.1:9"}),
        ]
        base = {name: value for name, value in os.environ.items() if not name.startswith("MCP")}
        base |= {"MCPCTL_SERVER": self.nodes[0].api, "MCPCTL_SESSION": self.session, "HOME": str(self.dir), "RUST_BACKTRACE": "1", "RUST_LOG": "trace"}
        for words, standard, env in rows:
            done = subprocess.run([f"{self.tools}/mcpctl", *words], env=base | env, input=standard, capture_output=True, text=True, timeout=60)
            self.said.append((" ".join(words), f"{done.stdout}\n{done.stderr}".encode()))
        join = ["join", "127.0.0.1:9", "--token-file", f"{given}/join", "--data-dir", f"{self.dir}/joiner", "--name", "joiner", "--no-start"]
        done = subprocess.run([f"{self.tools}/mcpnode", *join], env=base, capture_output=True, timeout=60)
        self.said.append(("mcpnode join", done.stdout + done.stderr))
        shutil.rmtree(given)

    # Where is looked.

    def look_everywhere(self):
        data = self.dir / "data"
        wait_for("a snapshot of every node", lambda: all(any(self.snapshots(node)) for node in self.nodes), WAIT_SECONDS_MAX)
        self.clean("what mcpctl and mcpnode said", self.said)
        metrics = [(node.name, raw.send("GET", f"{node.api}/metrics").body.encode()) for node in self.nodes]
        self.clean("metrics of all nodes", metrics)
        self.processes()
        self.upstream_headers()
        files = [path for path in data.rglob("*") if path.is_file()]
        kinds = {
            "logs of all nodes": lambda path: path.suffix == ".log",
            "audit segments": lambda path: "audit" in path.parts,
            "snapshots": lambda path: "snapshots" in path.parts,
            "store files": lambda path: path.suffix == ".redb" or path.name.endswith(".acked"),
        }
        rest = set(files)
        for what, of_kind in kinds.items():
            some = [path for path in files if of_kind(path) and path in rest]
            rest -= set(some)
            self.clean(f"{what}", [(str(path.relative_to(data)), path.read_bytes()) for path in some], at_least=3)
        self.clean("every other file of the data directories", [(str(p.relative_to(data)), p.read_bytes()) for p in rest])
        self.clean("what dev said", [("dev.log", (self.dir / "dev.log").read_bytes())])
        self.plant(data)

    def snapshots(self, node):
        return (self.dir / "data" / node.name / "snapshots").iterdir()

    def clean(self, what, hays, at_least=1):
        """No canary is in any of them. That they are there, and not empty, belongs to it."""
        size = sum(len(hay) for _, hay in hays)
        with self.checks.check(f"no canary in {what} ({len(hays)}, {size >> 10} KiB)"):
            assert len(hays) >= at_least and size > 0, "there is nothing to look through"
            leaks = [f"{name}: {', '.join(self.scanner.found(hay))}\n  {self.scanner.excerpt(hay)!r}" for name, hay in hays if self.scanner.found(hay)]
            assert not leaks, "\n".join(leaks)

    def processes(self):
        """Arguments and environment of the nodes and all their children. The two servers with the secret in `env` have it there."""
        pids = descendants(self.dev.pid)
        arguments, environments, meant = [], [], 0
        for pid in pids:
            try:
                argv, env = (Path(f"/proc/{pid}/{file}").read_bytes() for file in ("cmdline", "environ"))
            except OSError:
                continue
            arguments.append((str(pid), argv))
            entries = env.split(b"\0")
            meant += any(entry.startswith(b"CANARY=") and self.scanner.found(entry) for entry in entries)
            environments.append((str(pid), b"\0".join(entry for entry in entries if not entry.startswith(b"CANARY="))))
        self.clean("arguments of all processes", arguments, at_least=4)
        self.clean("environment of all processes, but for the variable that was configured", environments, at_least=4)
        with self.checks.check("the child that was given a secret has it"):
            assert meant, f"none of {len(pids)} processes"

    def upstream_headers(self):
        """The server gets its own secret, and never what a client presents."""
        sent = "\n".join(self.upstream.seen).encode()
        with self.checks.check(f"what reached the server ({len(self.upstream.seen)} requests) holds its own secret and no bearer"):
            same(self.scanner.found(sent), ["a secret's value that is a header"], "canaries in what was sent")

    def plant(self, data):
        """The scanner finds what it looks for, in every form: otherwise it proves nothing."""
        with self.checks.check("a planted canary is found, in every form"):
            core = next(iter(self.scanner.needles)).decode()
            for form in forms(core):
                file = data / "node-1" / "planted"
                file.write_bytes(b"\x01\xff noise " + form + b" noise")
                assert self.scanner.found(file.read_bytes()), form
                file.unlink()
            whole = json.dumps({"p": self.value}), quote(self.value), base64.b64encode(b"user:" + self.value.encode()).decode()
            for text in (*whole, self.value.encode().hex(), repr(list(self.value.encode()))):
                same(self.scanner.found(text.encode()), ["a secret's value"], text)


def descendants(pid):
    """A process and all that it started, directly or not."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents.setdefault(int(stat.rsplit(")", 1)[1].split()[1]), []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += parents.get(found[-1], [])
    return found


def wait_for(what, condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.1)
