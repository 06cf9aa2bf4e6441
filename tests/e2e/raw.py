"""MCP and the API over plain HTTP, for what an SDK would not send or not show."""

import asyncio
import http.client
import json
from urllib.parse import urlsplit

MODERN = "2026-07-28"
SECONDS_MAX = 20


class Answer:
    """An HTTP answer. `message` is its JSON-RPC message, if there is one."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def message(self):
        if "text/event-stream" not in self.headers.get("content-type", ""):
            return self.json
        data = [line[5:].strip() for line in self.body.splitlines() if line.startswith("data:")]
        return json.loads(data[-1])

    def __repr__(self):
        return f"HTTP {self.status} {self.body[:300]}"


def send(method, url, headers=None, body=None, seconds=SECONDS_MAX, on_data=None):
    """One request on a connection of its own. `on_data` is told of each event's data as it comes."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=seconds)
    try:
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        lines = []
        for line in answer:
            lines.append(line.decode(errors="replace"))
            if on_data and line.startswith(b"data:"):
                on_data(lines[-1])
        return Answer(answer.status, headers, "".join(lines))
    finally:
        connection.close()


def mcp(url, token, method, params=None, headers=None, seconds=SECONDS_MAX, on_data=None):
    """A request of the modern era, which needs neither handshake nor session."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "e2e", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = dict(params or {})
    params["_meta"] = {**meta, **params.get("_meta", {})}
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    fields = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": MODERN,
        "Mcp-Method": method,
    }
    if "name" in params:
        fields["Mcp-Name"] = params["name"]
    if token is not None:
        fields["Authorization"] = f"Bearer {token}"
    return send("POST", url, {**fields, **(headers or {})}, json.dumps(message), seconds, on_data)


def call(url, token, tool, arguments, **more):
    """`tools/call`."""
    return mcp(url, token, "tools/call", {"name": tool, "arguments": arguments}, **more)


async def apart(function, *args, **more):
    """Runs a blocking function beside everything else."""
    return await asyncio.to_thread(function, *args, **more)

