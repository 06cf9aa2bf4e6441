"""The rows of the table that read otherwise over HTTP/2: heads that are malformed, too large, or meant for somebody else; at the gateway
and at the API.

A malformed head ends its stream or the connection (RFC 9113, 8.1.1): the library that reads it says so itself, and hands nothing on
that could be answered. What is well-formed gets the status that it gets over HTTP/1, but for a host that is not ours: 421.
"""

import json
from urllib.parse import urlsplit

import wire2
from bad_request import PROJECT
from checks import same

ENDED = {"reset", "goaway", "closed", "400"}


class Ask:
    """A request over HTTP/2 that is good but for what is changed: a call at the gateway, or a read at the API."""

    def __init__(self, url, bearer, path, method, body=None):
        self.url = url
        self.host = urlsplit(url).netloc
        self.path = path
        self.pseudo = [(":method", method), (":scheme", "http"), (":authority", self.host), (":path", path)]
        self.fields = [("authorization", f"Bearer {bearer}"), ("content-type", "application/json")]
        self.body = body

    def without(self, name):
        return [pair for pair in self.pseudo if pair[0] != name]

    def of_host(self, host):
        return self.without(":authority") + [(":authority", host)] + self.fields

    def good(self, *more):
        return self.pseudo + self.fields + list(more)


def run(at_hand, node, maker, counted):
    call = Ask(node.gateway, maker.token, f"/projects/{PROJECT}/mcp", "POST", json.dumps(maker.call()).encode())
    read = Ask(node.api, at_hand.cluster.session, "/api/v1/auth/whoami", "GET")
    tell(at_hand, counted, "HTTP/2", call, malformed(call, maker))
    for what, ask in (("HTTP/2", call), ("API, HTTP/2", read)):
        tell(at_hand, counted, what, ask, sizes(ask))
        tell(at_hand, counted, what, ask, hosts_and_origins(ask))


def tell(at_hand, counted, where, ask, given):
    for what, sent, wanted in given:
        with at_hand.checks.check(f"{where}, {what}: {' or '.join(sorted(wanted))}"):
            before = counted.calls
            became = wire2.fate(ask.url, sent, ask.body)
            assert became in wanted, became
            reaches = int(became == "200" and ask.body is not None)
            same(counted.calls - before, reaches, "calls that reached the server")


def malformed(ask, maker):
    """Bad pseudo headers, and headers that HTTP/2 does not have."""
    path, fields = ask.path, ask.fields
    yield "a good request", ask.good(), {"200"}
    yield "no method", ask.without(":method") + fields, ENDED
    yield "no path", ask.without(":path") + fields, ENDED
    yield "no scheme", ask.without(":scheme") + fields, ENDED
    yield "two paths", ask.pseudo + [(":path", path)] + fields, ENDED
    yield "two authorities", ask.pseudo + [(":authority", "evil.example")] + fields, ENDED
    yield "an unknown pseudo header", ask.pseudo + [(":evil", "x")] + fields, ENDED
    yield "the pseudo header of an answer", ask.pseudo + [(":status", "200")] + fields, ENDED
    yield "a pseudo header behind the others", ask.without(":path") + fields + [(":path", path)], ENDED
    yield "an empty path", ask.without(":path") + [(":path", "")] + fields, ENDED | {"404"}
    yield "a path with a NUL", ask.without(":path") + [(":path", path + "\0")] + fields, ENDED | {"404"}
    yield "a name in capitals", ask.pseudo + [("Authorization", f"Bearer {maker.token}")], ENDED
    yield "a value with a line break", ask.good(("x", "a\r\nb: c")), ENDED
    yield "Connection", ask.good(("connection", "close")), ENDED
    yield "Transfer-Encoding", ask.good(("transfer-encoding", "chunked")), ENDED
    yield "a length that is not the body's", ask.good(("content-length", "3")), ENDED


def sizes(ask):
    """The limit counts names, values and 32 bytes for each (RFC 9113, 10.5.1)."""
    yield "headers of 30 KiB", ask.good(("x-long", "x" * (30 << 10))), {"200"}
    yield "a header of more than 32 KiB", ask.good(("x-long", "x" * (33 << 10))), {"431"}
    yield "a header of 200 KiB", ask.good(("x-long", "x" * (200 << 10))), {"431"} | ENDED - {"400"}
    yield "many headers of more than 32 KiB", ask.good(*((f"x-{number}", "x" * 400) for number in range(90))), {"431"}
    yield "many small headers", ask.good(*((f"x-{number}", "") for number in range(2000))), {"431"}
    yield "a bearer of more than 32 KiB", ask.pseudo + [("authorization", "Bearer " + "x" * (33 << 10))], {"431"}
    yield "a path of more than 32 KiB", ask.without(":path") + [(":path", "/" + "x" * (33 << 10))] + ask.fields, {"431"}


def hosts_and_origins(ask):
    yield "a good read or call", ask.good(), {"200"}
    port = ask.host.rsplit(":", 1)[1]
    for host in ("evil.example", f"127.0.0.1.evil.example:{port}", "127.0.0.2", f"localhost.:{port}", "[::]", "*"):
        yield f"the host {host}", ask.of_host(host), {"421"}
    # Whoever says both means what the connection is for: of the two, `:authority` counts (RFC 9113, 8.3.1).
    yield "another host beside a Host that is ours", ask.of_host("evil.example") + [("host", ask.host)], {"421"} | ENDED
    yield "another host, and a page that is not trusted", ask.of_host("evil.example") + [("origin", "https://evil.example")], {"421"}
    yield "another host, and no bearer", ask.without(":authority") + [(":authority", "evil.example")], {"421"}
    yield "a Host in the place of the authority", ask.without(":authority") + ask.fields + [("host", ask.host)], {"200"}
    yield "a foreign Host in the place of the authority", ask.without(":authority") + ask.fields + [("host", "evil.example")], {"421"}
    for origin in ("https://evil.example", "null", f"http://{ask.host}.evil.example", "file://", ""):
        yield f"the origin {origin!r}", ask.good(("origin", origin)), {"403"}
    yield "two origins, one of them not trusted", ask.good(("origin", f"http://{ask.host}"), ("origin", "https://evil.example")), {"403"}
