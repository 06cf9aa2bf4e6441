"""The clients that people use, each through a node that is drawn for every connection: list, call, progress, error, cancellation where the
client has it, a revoke in mid-session. Headless Claude Code asks for a tool because a fake model
tells it to. The stanzas that `mcpctl connect` prints are run as they are.
"""

import asyncio
import json
import os
import random
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import raw
from checks import same
from fake_model import Model
from fixture import PROJECT, called
from peers import HERE, Peer

ECHO, LONG = "everything__echo", "everything__trigger-long-running-operation"
STEPS = {"duration": 0.2, "steps": 4}
SECONDS_MAX = 60
#: Kinds of kinds_client.py: where their packages are, and what they lack.
KINDS = {
    "mcp-1": ("clients", set()),
    "sse": ("clients", set()),
    "fastmcp": ("python", set()),
    "langchain": ("clients", {"cancel"}),
    "openai-agents": ("clients", {"cancel", "progress"}),
}


async def run(fixture):
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"# nodes are drawn with SEED={seed}", flush=True)
    clients = Clients(fixture, random.Random(seed))
    await raw.apart(clients.prepare)
    kinds = [Kind(clients, kind, *KINDS[kind]) for kind in KINDS]
    kinds += [Bridge(clients, "mcpctl mcp stdio"), Bridge(clients, "mcp-remote")]
    await asyncio.gather(*(kind.run() for kind in kinds), raw.apart(clients.stanzas))
    await raw.apart(clients.inspector)
    await raw.apart(clients.claude)
    await clients.revoked(kinds)
    await asyncio.gather(*(kind.stop() for kind in kinds))


class Clients:
    """What they share."""

    def __init__(self, fixture, lots):
        self.fixture = fixture
        self.lots = lots
        self.cluster = fixture.cluster
        self.check = fixture.checks.check
        self.home = tempfile.mkdtemp(prefix="mcpnode-clients-")
        self.cache = Path(fixture.cache)

    def prepare(self):
        self.cluster.mcpctl("create", "project", PROJECT, "--allow-sse", "--force")
        self.token = self.cluster.mint("clients", PROJECT, "role:run,resource:servers")

    def node(self):
        return self.lots.choice(self.cluster.nodes)

    def env(self, **more):
        """An environment with nothing of ours in it but what is given."""
        return {"HOME": self.home, "PATH": os.environ["PATH"], "MCPCTL_TOKEN": self.token, **more}

    def connect(self, client, node):
        return self.cluster.mcpctl("connect", client, "-p", PROJECT, "--server", node.gateway)

    def run(self, argv, env=None, cwd=None, given=None):
        done = subprocess.run(
            argv, env=env or self.env(), cwd=cwd, input=given, capture_output=True, text=True, timeout=SECONDS_MAX
        )
        return done.returncode, done.stdout, hidden(done.stderr)

    def stanzas(self):
        """Programs that `mcpctl connect` prints list the tools."""
        node = self.cache / "node"
        programs = {
            "python": ([self.cache / "python/bin/python"], "x.py"),
            "python-1": ([self.cache / "clients/bin/python"], "x.py"),
            "fastmcp": ([self.cache / "python/bin/python"], "x.py"),
            "langchain": ([self.cache / "clients/bin/python"], "x.py"),
            "openai-agents": ([self.cache / "clients/bin/python"], "x.py"),
            "typescript": (["node"], "x.mjs"),
            "curl": (["bash"], "x.sh"),
        }
        for client, (program, name) in programs.items():
            with self.check(f"the stanza of mcpctl connect {client} lists the tools"):
                at = tempfile.mkdtemp(dir=self.home)
                # Packages are looked for from the file on.
                os.symlink(node / "node_modules", f"{at}/node_modules")
                Path(at, name).write_text(self.connect(client, self.node()))
                code, out, err = self.run([*program, f"{at}/{name}"])
                assert code == 0 and ECHO in out, f"exit {code}: {out[-500:]} {err[-1500:]}"

    def inspector(self):
        """The Inspector's command line in both eras, by the stanza."""
        for era, node in (("legacy", self.node()), ("modern", self.node())):
            config = Path(self.home, f"inspector-{era}.json")
            config.write_text(self.connect("inspector", node).replace("PUT-THE-TOKEN-HERE", self.token))
            config.chmod(0o600)
            program = self.cache / "node/node_modules/.bin/inspector"
            args = [program, "--cli", "--config", config, "--server", PROJECT, "--protocol-era", era, "--quiet", "--method"]
            env = self.env(MCP_INSPECTOR_SECRET_STORE="memory")
            where = f"inspector --cli {era} through {node.name}"
            with self.check(f"{where}: lists"):
                code, out, err = self.run([*args, "tools/list"], env)
                assert code == 0 and ECHO in out, f"exit {code}: {err[-1500:]}"
            with self.check(f"{where}: calls, and shows an error"):
                call = [*args, "tools/call", "--tool-name"]
                code, out, err = self.run([*call, ECHO, "--tool-arg", "message=from the inspector"], env)
                assert code == 0 and "from the inspector" in out, f"exit {code}: {err[-1500:]}"
                code, out, err = self.run([*call, "everything__get-sum", "--tool-arg", "a=x"], env)
                assert code != 0 or '"isError": true' in out, f"exit {code}: {out[-500:]}"

    def claude(self):
        """Headless Claude Code, whose model is told to ask for a tool."""
        model = Model()
        node = self.node()
        try:
            where = f"Claude Code through {node.name}"
            config = Path(self.home, ".mcp.json")
            config.write_text(self.connect("claude", node))
            with self.check(f"{where}: lists and calls"):
                said = self.ask_claude(model, config, 'CALL everything__echo {"message":"from claude"}')
                assert "TOOL SAID:" in said and "from claude" in said, said
                prefix = f"mcp__{PROJECT}__"
                offered = {name.removeprefix(prefix) for name in model.seen if name.startswith(prefix)}
                same(called(offered), self.fixture.wanted_tools(), "tools")
            with self.check(f"{where}: waits for a tool that reports progress"):
                said = self.ask_claude(model, config, f"CALL {LONG} {json.dumps(STEPS)}")
                assert "Long running operation completed" in said, said
            with self.check(f"{where}: is told of an error"):
                said = self.ask_claude(model, config, 'CALL everything__get-sum {"a":"x"}')
                assert "TOOL SAID: ERROR" in said, said
        finally:
            model.close()

    def ask_claude(self, model, config, prompt):
        native = self.cache / "node/node_modules/@anthropic-ai" / f"claude-code-linux-{machine()}/claude"
        argv = [native, "-p", prompt, "--mcp-config", config, "--strict-mcp-config"]
        argv += ["--allowedTools", f"mcp__{PROJECT}", "--output-format", "json"]
        env = self.env(
            ANTHROPIC_BASE_URL=model.url,
            ANTHROPIC_API_KEY="none",
            CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
            DISABLE_AUTOUPDATER="1",
            # All tools at once, and not before the server is connected.
            ENABLE_TOOL_SEARCH="false",
            MCP_CONNECTION_NONBLOCKING="false",
        )
        code, out, err = self.run(argv, env, cwd=self.home, given="")
        assert code == 0, f"exit {code}: {out[-1000:]} {err[-1000:]}"
        return json.loads(out)["result"]

    async def revoked(self, kinds):
        """What every client holds is refused the moment the revoke is acknowledged."""
        held = [kind for kind in kinds if kind.session]
        await raw.apart(self.cluster.mcpctl, "revoke", "mcptoken", "clients", "-p", PROJECT)

        async def refused(kind):
            with self.check(f"{kind.name}: the open session is refused once the token is revoked"):
                try:
                    said = await kind.session.call(ECHO, {"message": "still there?"})
                except (Exception, asyncio.CancelledError):
                    return
                # Some give the error to the model as what the tool said.
                assert said["isError"] or "still there?" not in said["text"], said

        await asyncio.gather(*(refused(kind) for kind in held))
        with self.check("mcpctl mcp stdio ends with 4 once the token is revoked"):
            argv = [f"{self.cluster.tools}/mcpctl", "mcp", "stdio", "-p", PROJECT, "--server", self.node().gateway]
            line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"})
            code, out, err = await raw.apart(self.run, argv, None, None, line + "\n")
            same(code, 4, err)
            assert '"httpStatus":401' in out and self.token not in out + err, out
        shutil.rmtree(self.home, ignore_errors=True)


class Kind:
    """A client that stays connected."""

    def __init__(self, clients, kind, packages, lacks):
        self.clients, self.name, self.lacks = clients, kind, lacks
        python = clients.cache / packages / "bin/python"
        self.peer = Peer(kind, None, [str(python), "-W", "ignore", str(HERE / "kinds_client.py"), kind])
        self.session = None

    def opening(self, node):
        return {"url": node.mcp(PROJECT), "token": self.clients.token}

    async def run(self):
        await self.peer.start()
        node = self.clients.node()
        where, check = f"{self.name} through {node.name}", self.clients.check
        with check(f"{where}: connects and lists"):
            self.session = await self.peer.open_with(**self.opening(node))
            tools = called(await self.session.ask("tools"))
            same(tools, self.clients.fixture.wanted_tools(), "tools")
        if self.session is None:
            return
        with check(f"{where}: calls"):
            said = await self.session.call(ECHO, {"message": "hello there"})
            assert not said["isError"] and "hello there" in said["text"], said
        if "progress" not in self.lacks:
            with check(f"{where}: progress arrives in order"):
                same((await self.session.call(LONG, STEPS))["progress"], [1, 2, 3, 4], "progress")
        with check(f"{where}: is told of an error"):
            try:
                said = await self.session.call("everything__get-sum", {"a": "x"})
                assert said["isError"], said
            except Exception as error:
                assert "everything__get-sum" in str(error) or "nvalid" in str(error) or "required" in str(error), error
        if "cancel" not in self.lacks:
            with check(f"{where}: cancels, and goes on"):
                await self.session.ask("cancel", name=LONG, arguments={"duration": 30, "steps": 60})
                said = await self.session.call(ECHO, {"message": "after it"})
                assert "after it" in said["text"], said

    async def stop(self):
        await self.peer.stop()


class Bridge(Kind):
    """A client that speaks stdio only, with one of the bridges."""

    def __init__(self, clients, name):
        super().__init__(clients, "stdio", "clients", set())
        self.name = name

    def opening(self, node):
        if self.name == "mcp-remote":
            stanza = json.loads(self.clients.connect("mcp-remote", node))["mcpServers"][PROJECT]
            program = str(self.clients.cache / "node/node_modules/.bin/mcp-remote")
            argv = [program, *stanza["args"][2:], "--allow-http"]
            env = {name: value.replace("PUT-THE-TOKEN-HERE", self.clients.token) for name, value in stanza["env"].items()}
            return {"argv": argv, "env": self.clients.env(**env)}
        file = Path(self.clients.home, "token")
        file.write_text(self.clients.token)
        file.chmod(0o600)
        stanza = json.loads(self.clients.connect("claude-desktop", node))["mcpServers"][PROJECT]
        argv = [f"{self.clients.cluster.tools}/mcpctl", *stanza["args"]]
        return {"argv": [str(file) if "ABSOLUTE" in word else word for word in argv], "env": {"PATH": os.environ["PATH"]}}


def hidden(text):
    return re.sub(r"(mcpctl_(pat|ses)_\w{4})\w+", r"\1...", text)


def machine():
    return {"x86_64": "x64", "aarch64": "arm64"}[os.uname().machine]
