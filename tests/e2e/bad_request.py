"""What the phases on bad input share: requests that are good but for what is changed, and how an answer is held against its row."""

import json
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import raw
import wire
from checks import same

PROJECT = "bad-input"
SERVER = "counted"
META = {
    "io.modelcontextprotocol/protocolVersion": raw.MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "e2e", "version": "1"}}
INITIALIZE = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}
PING = {"jsonrpc": "2.0", "id": 2, "method": "ping"}


@dataclass
class Row:
    """One thing that is wrong, and what it gets."""

    what: str
    sent: bytes
    status: int
    code: int | None = None
    closed: bool = False
    says: tuple = ()
    headers: dict = field(default_factory=dict)
    #: Whether the server is to be called all the same.
    reaches: int = 0


class Maker:
    """Makes requests that are good but for what a row changes."""

    def __init__(self, node, token):
        parts = urlsplit(node.gateway)
        self.host = f"{parts.hostname}:{parts.port}"
        self.token = token

    def call(self, tool=f"{SERVER}__echo", **params):
        return {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": tool, "arguments": {}, **params}}

    def modern(self, meta=META):
        return self.call(_meta=meta)

    def modern_headers(self, **changed):
        headers = {"MCP-Protocol-Version": raw.MODERN, "Mcp-Method": "tools/call", "Mcp-Name": f"{SERVER}__echo"}
        headers.update({name.replace("_", "-"): value for name, value in changed.items()})
        return [(name, value) for name, value in headers.items() if value is not None]

    def post(self, body=None, path=f"/projects/{PROJECT}/mcp", headers=(), token=None, host=None, length=True, method="POST"):
        """A request. `headers` are pairs, so that one may come twice; `length=False` leaves framing to them."""
        if body is None:
            body = self.call()
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host or self.host}"]
        lines += [f"Authorization: Bearer {token or self.token}"] if token != "" else []
        lines += ["Content-Type: application/json", "Accept: application/json, text/event-stream"]
        lines += [f"{name}: {value}" for name, value in headers]
        lines += [f"Content-Length: {len(body)}"] if length else []
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def check(at_hand, node, counted, row):
    """Sends what a row says, and holds the answer against it."""
    with at_hand.checks.check(f"{row.what}: {row.status}" + (f", {row.code}" if row.code else "")):
        before = counted.calls
        answer, closed = wire.exchange(node.gateway, row.sent, closing=row.closed)
        assert answer is not None, "the connection ended without an answer"
        same(answer.status, row.status, answer)
        if row.code is not None:
            same(answer.json["error"]["code"], row.code, answer)
        for word in row.says:
            assert word in answer.body, f"{word!r} is not in {answer}"
        for name, value in row.headers.items():
            assert answer.headers.get(name, "").startswith(value), f"{name}: {answer.headers.get(name)!r}"
        assert closed or not row.closed, "the connection is kept"
        same(counted.calls - before, row.reaches, "calls that reached the server")
