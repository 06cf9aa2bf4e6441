"""What the suite sets up through `mcpctl`: upstreams that we did not write, projects, tokens. And what they answer directly."""

import asyncio

from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters

import raw

PROJECT = "e2e"
OTHER = "elsewhere"
LISTED_SECONDS_MAX = 60
#: Tools that are not called, each with its reason. Servers list some of them to clients only that can be asked: it does not matter here
#: whether the gateway is one.
SKIPPED = {
    "simulate-research-query": "runs only as a task of the experimental tasks API",
    "get-roots-list": "needs roots from the client",
    "trigger-sampling-request": "needs sampling by the client",
    "trigger-sampling-request-async": "needs sampling by the client",
    "trigger-elicitation-request": "needs elicitation by the client",
    "trigger-elicitation-request-async": "needs elicitation by the client",
    "trigger-url-elicitation": "needs elicitation by the client",
}
#: Tools whose answers differ from call to call, so that only their success is compared.
VARYING = {
    "get_current_time",
    "convert_time",
    "get-env",
    "get-resource-reference",
    "gzip-file-as-resource",
    "toggle-simulated-logging",
    "toggle-subscriber-updates",
}


class Upstream:
    """An MCP server: how the gateway is told about it, and how it is reached directly."""

    def __init__(self, name, how, direct):
        self.name = name
        self.how = how
        self.direct = direct
        self.tools = []
        self.answers = {}

    async def ask_directly(self):
        """Lists its tools and calls them without a gateway, for comparison."""
        client = Client(self.direct, mode="legacy", read_timeout_seconds=20, cache=None)
        async with client:
            tools = (await client.list_tools()).tools
            self.tools = [tool.model_dump(by_alias=True, mode="json", exclude_none=True) for tool in tools]
            for tool in self.tools:
                if tool["name"] in SKIPPED:
                    continue
                called = await client.call_tool(tool["name"], arguments_for(tool))
                self.answers[tool["name"]] = called.model_dump(by_alias=True, mode="json", exclude_none=True)


def upstreams(cache, http_url):
    """The three of them."""
    everything = f"{cache}/node/node_modules/@modelcontextprotocol/server-everything/dist/index.js"
    clock = f"{cache}/python/bin/mcp-server-time"
    return [
        Upstream(
            "everything",
            ["--transport", "stdio", "--command", "node", "--arg", everything, "--arg", "stdio"],
            StdioServerParameters(command="node", args=[everything, "stdio"]),
        ),
        Upstream("everything-http", ["--transport", "http", "--url", http_url], http_url),
        Upstream(
            "clock",
            ["--transport", "stdio", "--command", clock, "--arg=--local-timezone", "--arg", "UTC"],
            StdioServerParameters(command=clock, args=["--local-timezone", "UTC"]),
        ),
    ]


_number = 0


def arguments_for(tool):
    """Sensible arguments, from what the tool says about them."""
    global _number
    _number += 1
    special = {
        "trigger-long-running-operation": {"duration": 0.2, "steps": 4},
        "gzip-file-as-resource": {"name": f"e2e-{_number}.gz", "data": "data:text/plain,hello"},
        "get_current_time": {"timezone": "Europe/Warsaw"},
        "convert_time": {"source_timezone": "UTC", "time": "12:30", "target_timezone": "Asia/Tokyo"},
    }
    if tool["name"] in special:
        return special[tool["name"]]
    schema = tool["inputSchema"]
    required = schema.get("required", [])
    return {name: example(of) for name, of in schema.get("properties", {}).items() if name in required}


def example(schema):
    """A value that the schema allows."""
    if "default" in schema:
        return schema["default"]
    if "enum" in schema:
        return schema["enum"][0]
    values = {"string": "hello", "number": 2, "integer": 2, "boolean": True, "array": [], "object": {}}
    return values[schema["type"]]


def called(names):
    """Of tools as clients see them, those that are called."""
    return {name for name in names if name.split("__", 1)[1] not in SKIPPED}


class Fixture:
    """Everything that the checks need."""

    def __init__(self, cluster, servers, peers, checks, cache):
        self.cluster = cluster
        self.servers = servers
        self.peers = peers
        self.checks = checks
        self.cache = cache

    async def set_up(self):
        """Asks the upstreams directly, then tells the gateway about them."""
        await asyncio.gather(*(server.ask_directly() for server in self.servers))
        await asyncio.gather(*(peer.start() for peer in self.peers))
        await raw.apart(self.make)
        await asyncio.gather(*(self.listed(node) for node in self.cluster.nodes))

    def make(self):
        ctl = self.cluster.mcpctl
        for server in self.servers:
            ctl("create", "server", server.name, *server.how)
        attached = [word for server in self.servers for word in ("--server", server.name)]
        ctl("create", "project", PROJECT, *attached)
        ctl("create", "project", OTHER, *attached)
        mint = self.cluster.mint
        self.token = mint("full", PROJECT, "role:run,resource:servers")
        self.bare = mint("bare", PROJECT)
        self.viewer = mint("viewer", PROJECT, "role:view,resource:servers")
        self.revoked = mint("revoked", PROJECT, "role:run,resource:servers")
        ctl("revoke", "mcptoken", "revoked", "-p", PROJECT)

    async def listed(self, node):
        """Waits until a node lists all upstreams. A server that was never probed is listed as empty."""
        wanted = self.wanted_tools()
        listed = set()
        try:
            async with asyncio.timeout(LISTED_SECONDS_MAX):
                while True:
                    answer = await raw.apart(raw.mcp, node.mcp(PROJECT), self.token, "tools/list")
                    if answer.status == 200:
                        listed = called({tool["name"] for tool in answer.message["result"]["tools"]})
                        if listed == wanted:
                            return
                    await asyncio.sleep(0.1)
        except TimeoutError:
            missing, extra = sorted(wanted - listed), sorted(listed - wanted)
            raise TimeoutError(f"{node.name} does not list the upstreams: missing {missing}, not wanted {extra}") from None

    def wanted_tools(self):
        return called({f"{server.name}__{tool['name']}" for server in self.servers for tool in server.tools})
