"""The client that the suite's client scenarios test: our gateway, as the client of the suite's server. Called with the URL of that
server, it makes it a server of the cluster, and does through the gateway what the scenario wants done.

MCP_CONFORMANCE_SCENARIO and MCP_CONFORMANCE_PROTOCOL_VERSION say what and how; MCPCTL, MCPCTL_SERVER, MCPCTL_SESSION and GATEWAYS
where the cluster is.
"""

import base64
import itertools
import json
import os
import re
import subprocess
import sys
import time
import urllib.request

LISTED_SECONDS_MAX = 5
ANSWER_SECONDS_MAX = 20
SCENARIO = os.environ["MCP_CONFORMANCE_SCENARIO"]
VERSION = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", "2025-11-25")
MODERN = VERSION >= "2026"
CAPABILITIES = {"sampling": {}, "elicitation": {}, "roots": {}}
#: What the tools of the scenarios take.
ARGUMENTS = {"add_numbers": {"a": 2, "b": 3}}


def ctl(*args):
    done = subprocess.run([os.environ["MCPCTL"], *args], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"mcpctl {args[:3]}: {done.stderr}"
    return done.stdout


class Gateway:
    """A client of the gateway that asks another node each time."""

    def __init__(self, name, token):
        self.nodes = itertools.cycle(os.environ["GATEWAYS"].split())
        self.path = f"/projects/{name}/servers/{name}/mcp"
        self.token = token
        self.ids = itertools.count(1)
        self.session = None
        self.patience = ANSWER_SECONDS_MAX

    def post(self, message, headers):
        all_headers = {
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": VERSION,
            **headers,
        }
        if self.session:
            all_headers["Mcp-Session-Id"] = self.session
        request = urllib.request.Request(next(self.nodes) + self.path, json.dumps(message).encode(), all_headers)
        with urllib.request.urlopen(request, timeout=self.patience) as answer:
            self.session = answer.headers.get("mcp-session-id", self.session)
            if "text/event-stream" not in answer.headers.get("content-type", ""):
                return json.loads(answer.read() or b"null")
            for line in answer:
                if line.startswith(b"data:") and "id" in (said := json.loads(line[5:])):
                    if "method" not in said:
                        return said
                    self.reply(said)

    def reply(self, asked):
        """Answers what a server asks: a form is accepted as it stands, with its defaults."""
        self.post({"jsonrpc": "2.0", "id": asked["id"], "result": accepted(asked)}, {})

    def ask(self, method, headers=(), **params):
        if MODERN:
            params["_meta"] = {
                "io.modelcontextprotocol/protocolVersion": VERSION,
                "io.modelcontextprotocol/clientInfo": {"name": "conformance", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": CAPABILITIES,
            }
            headers = {"Mcp-Method": method, **dict(headers)}
            if "name" in params or "uri" in params:
                headers["Mcp-Name"] = params.get("name") or params["uri"]
        message = {"jsonrpc": "2.0", "id": next(self.ids), "method": method, "params": params}
        return self.post(message, dict(headers))

    def open(self):
        if not MODERN:
            info = {"name": "conformance", "version": "1"}
            self.ask("initialize", protocolVersion=VERSION, capabilities=CAPABILITIES, clientInfo=info)
            self.post({"jsonrpc": "2.0", "method": "notifications/initialized"}, {})

    def all(self, method, what):
        answer = self.ask(method)
        return answer.get("result", {}).get(what, [])

    def call(self, tool, arguments, **more):
        """Calls a tool, and again with what it needs, if it says so."""
        answer = self.ask("tools/call", mirrored(tool, arguments), name=tool["name"], arguments=arguments, **more)
        if "error" in answer:
            print(f"{tool['name']}: {answer['error']}", file=sys.stderr)
        result = answer.get("result", {})
        if result.get("resultType") != "input_required" or "inputResponses" in more:
            return answer
        given = {key: accepted(asked) for key, asked in result.get("inputRequests", {}).items()}
        if SCENARIO == "sep-2322-client-request-state":
            self.ask("tools/call", name="test_mrtr_unrelated", arguments={})
        state = {"requestState": result["requestState"]} if "requestState" in result else {}
        return self.call(tool, arguments, inputResponses=given, **state)


def call_until_answered(gateway, tool):
    """The server of this scenario has one session for everybody, and gives the rest of a call to whichever stream is opened next: that
    may be the one on which a gateway hears of changed lists. Once that is open, the next one is that of the call."""
    gateway.patience = 3
    for _ in range(5):
        try:
            return gateway.call(tool, {})
        except TimeoutError:
            print("not answered, once more", file=sys.stderr)


def accepted(asked):
    if asked["method"] == "elicitation/create":
        schema = asked["params"].get("requestedSchema", {}).get("properties", {})
        content = {name: of["default"] for name, of in schema.items() if "default" in of}
        return {"action": "accept", "content": content or {name: True for name in schema}}
    if asked["method"] == "roots/list":
        return {"roots": []}
    return {"role": "assistant", "content": {"type": "text", "text": "yes"}, "model": "none"}


def mirrored(tool, arguments):
    """The headers that repeat arguments, as a modern client sends them."""
    if not MODERN:
        return {}
    schema = tool.get("inputSchema", {}).get("properties", {})
    headers = {}
    for name, of in schema.items():
        if "x-mcp-header" in of and arguments.get(name) is not None:
            value = arguments[name]
            text = value if isinstance(value, str) else json.dumps(value)
            plain = text.isascii() and text.isprintable() and text == text.strip() and not text.startswith("=?")
            if not plain:
                text = f"=?base64?{base64.b64encode(text.encode()).decode()}?="
            headers[f"Mcp-Param-{of['x-mcp-header']}"] = text
    return headers


def arguments_for(tool):
    schema = tool.get("inputSchema", {})
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
    for call in context.get("toolCalls", []):
        if call.get("name") == tool["name"]:
            return call.get("arguments", {})
    values = {"string": "text", "number": 2, "integer": 2, "boolean": True, "array": [], "object": {}}
    given = {name: values.get(of.get("type"), "text") for name, of in schema.get("properties", {}).items()}
    return ARGUMENTS.get(tool["name"], given)


def main(url):
    name = f"c{os.getpid()}"
    ctl("create", "server", name, "--transport", "http", "--url", url)
    try:
        use(name)
    finally:
        # The suite's server stops when its streams are closed, and a gateway holds them for as long as it knows the server.
        ctl("delete", "project", name)
        ctl("delete", "server", name)


def use(name):
    ctl("create", "project", name, "--server", name)
    minted = ctl("create", "mcptoken", name, "-p", name, "--bind", "role:run,resource:servers")
    gateway = Gateway(name, re.search(r"mcpctl_pat_\w+", minted).group(0))
    gateway.open()
    end = time.monotonic() + LISTED_SECONDS_MAX
    # Each node is asked in turn, so that all of them know the list.
    while not all(lists := [gateway.all("tools/list", "tools") for _ in os.environ["GATEWAYS"].split()]) and time.monotonic() < end:
        time.sleep(0.1)
    tools = lists[0]
    if not tools:
        # Some scenarios want to see no more than how a session is opened.
        return print("nothing is listed", file=sys.stderr)
    by_name = {tool["name"]: tool for tool in tools}
    if SCENARIO == "sse-retry":
        return call_until_answered(gateway, tools[0])
    if SCENARIO == "json-schema-2020-12-preservation":
        seen = by_name["json_schema_2020_12_tool"]["inputSchema"]
        gateway.call(by_name["json_schema_echo"], {"schema": seen})
        return
    if SCENARIO != "json-schema-ref-no-deref":
        context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
        calls = [(by_name[call["name"]], call.get("arguments", {})) for call in context.get("toolCalls", []) if call["name"] in by_name]
        for tool, arguments in calls or [(tool, arguments_for(tool)) for tool in tools]:
            gateway.call(tool, arguments)
        for resource in gateway.all("resources/list", "resources"):
            gateway.ask("resources/read", uri=resource["uri"])
        for prompt in gateway.all("prompts/list", "prompts"):
            gateway.ask("prompts/get", name=prompt["name"], arguments={})


main(sys.argv[-1])
