"""Checks of what bad input gets, on a live node, over sockets of our own. `bad_table.py` says which row of the table is checked where.

Every request below, were it not for what is wrong with it, would be a call that reaches an MCP server; so the count of that
server says whether a refusal came too late.
"""

import asyncio
import json
import time

import aged_sessions
import bad_api
import bad_headers
import bad_http2
import bad_lease
import bad_quota
import corpus
import raw
import wire
from bad_request import INITIALIZE, META, PROJECT, SERVER, Maker, Row, check
from checks import same
from counted import TOOLS, Counted

#: It sets up what it needs itself.
ALONE = True
OTHER = "bad-input-other"
GOING = "going"
RESPONSE_MS = 1500
LISTED_SECONDS_MAX = 60
#: A call of an upstream that fails is answered within this time: the deadline of its server, and room for a slow machine.
FAILURE_SECONDS_MAX = 15
MEGABYTES_4 = 4 << 20
LOOKED_TIMES_MAX = 10
CHUNKED = ("Transfer-Encoding", "chunked")


async def run(at_hand):
    counted, going = Counted(), Counted()
    try:
        await aged_sessions.begin(at_hand)
        await raw.apart(make, at_hand, counted, going)
        for node in at_hand.cluster.nodes:
            await listed(at_hand, node)
        # The nodes run one program: one of them gets every row.
        node = at_hand.cluster.nodes[0]
        maker = Maker(node, at_hand.hostile)
        await raw.apart(no_false_alarm, at_hand, node, maker, counted)
        for row in rows(maker, at_hand):
            await raw.apart(check, at_hand, node, counted, row)
        await raw.apart(no_look_up, at_hand, node, maker)
        await raw.apart(bad_http2.run, at_hand, node, maker, counted)
        await raw.apart(sessions, at_hand, node, maker, counted)
        for other in at_hand.cluster.nodes[1:]:
            await raw.apart(foreign_session, at_hand, other, node, counted)
        await raw.apart(alike, at_hand, node, maker, counted)
        await raw.apart(upstreams, at_hand, node, maker, counted, going)
        await bad_quota.run(at_hand, node, counted)
        await raw.apart(bad_api.run, at_hand, node)
        await bad_lease.run(at_hand, node, maker, counted)
    finally:
        counted.close()


def make(at_hand, counted, going):
    ctl, mint = at_hand.cluster.mcpctl, at_hand.cluster.mint
    ctl("create", "server", SERVER, "--url", counted.url, "--response-ms", str(RESPONSE_MS))
    ctl("create", "server", GOING, "--url", going.url, "--response-ms", str(RESPONSE_MS))
    for project in (PROJECT, OTHER):
        ctl("create", "project", project, "--server", SERVER, "--server", GOING)
    at_hand.hostile = mint("hostile", PROJECT, "role:run,resource:servers")
    at_hand.second = mint("second", PROJECT, "role:run,resource:servers")
    at_hand.elsewhere = mint("elsewhere", OTHER, "role:run,resource:servers")
    at_hand.looker = mint("looker", PROJECT, "role:view,resource:servers")
    at_hand.narrow = mint("narrow", PROJECT, f"role:run,resource:tools,name:{SERVER}/echo")


async def listed(at_hand, node):
    """Waits until a node lists both servers: before, there is nothing to call."""
    wanted = {f"{server}__{tool}" for server in (SERVER, GOING) for tool in TOOLS}
    async with asyncio.timeout(LISTED_SECONDS_MAX):
        while True:
            answer = await raw.apart(raw.mcp, node.mcp(PROJECT), at_hand.hostile, "tools/list")
            if answer.status == 200 and {tool["name"] for tool in answer.message["result"]["tools"]} == wanted:
                return
            await asyncio.sleep(0.1)


def no_false_alarm(at_hand, node, maker, counted):
    """What the rows change is fine before they change it."""
    good = [
        ("legacy", maker.post()),
        ("modern", maker.post(maker.modern(), headers=maker.modern_headers())),
        ("chunked", maker.post(chunked(json.dumps(maker.call()).encode()), headers=[CHUNKED], length=False)),
        ("of our own origin", maker.post(headers=[("Origin", f"http://{maker.host}")])),
        ("with an encoded letter in the path", maker.post(path=f"/projects/%62ad-input/mcp")),
        ("of nearly 4 MiB", maker.post(maker.call(arguments={"x": "x" * (MEGABYTES_4 - 500)}))),
        ("of depth 128", maker.post(deep(maker, 128))),
    ]
    for what, sent in good:
        check(at_hand, node, counted, Row(f"a good call, {what}", sent, 200, says=('"result"',), reaches=1))


def chunked(body):
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


def deep(maker, levels):
    """A call whose body is so many levels deep: three of them are the message's own."""
    inner = b"[" * (levels - 3) + b"]" * (levels - 3)
    return json.dumps(maker.call(arguments={"x": "here"})).encode().replace(b'"here"', inner)


def rows(maker, at_hand):
    """The table, but for what takes more than one request."""
    yield from bearers(maker, at_hand)
    yield from bodies(maker)
    yield from listed_bodies(maker)
    yield from sizes(maker)
    yield from metadata(maker)
    yield from versions(maker)
    yield from framing(maker)
    yield from paths(maker)
    yield from origins(maker)
    yield from rights(maker, at_hand)


def bearers(maker, at_hand):
    challenge = {"www-authenticate": "Bearer"}
    mine = ("Authorization", f"Bearer {maker.token}")
    path = f"/projects/{PROJECT}/mcp"
    given = [
        ("two Authorization headers", {"headers": [mine]}),
        ("two bearers in one header", {"token": f"{maker.token}, Bearer {maker.token}"}),
        ("a bearer with something behind it", {"token": f"{maker.token} x"}),
        ("a token in the query", {"token": "", "path": f"{path}?access_token={maker.token}"}),
        ("a token in the query beside a good header", {"path": f"{path}?token={maker.token}"}),
        ("a session in the query beside a good header", {"path": f"{path}?s={at_hand.cluster.session}"}),
        ("a token as HTTP Basic password", {"token": "", "headers": [("Authorization", f"Basic {maker.token}")]}),
        ("a token without a scheme", {"token": "", "headers": [("Authorization", maker.token)]}),
        ("a token in another header", {"token": "", "headers": [("X-Api-Key", maker.token)]}),
        ("a token in a cookie", {"token": "", "headers": [("Cookie", f"token={maker.token}")]}),
        ("a token with a letter of another alphabet", {"token": maker.token[:-1] + "\u00e9"}),
        ("a token that is one character short", {"token": maker.token[:-1]}),
        ("a token in capitals", {"token": maker.token.upper()}),
    ]
    for what, how in given:
        yield Row(what, maker.post(**how), 401, headers=challenge)
    for what, sent, status in bad_headers.authorizations(maker):
        yield Row(what, sent, status, headers=challenge)


def bodies(maker):
    good = json.dumps(maker.call())
    yield Row("invalid UTF-8", maker.post(good.encode().replace(b"{}", b'{"x":"\xff\xfe"}')), 400, -32700)
    yield Row("an overlong UTF-8 form", maker.post(good.encode().replace(b"{}", b'{"x":"\xc0\xaf"}')), 400, -32700)
    for what, body in [("no body", b""), ("half a body", good.encode()[:-5]), ("no JSON", b"hello"), ("two bodies", good.encode() * 2)]:
        yield Row(what, maker.post(body), 400, -32700)
    yield Row("a batch", maker.post(f"[{good}]".encode()), 400, -32600)
    yield Row("an empty batch", maker.post(b"[]"), 400, -32600)
    yield Row("a string for a message", maker.post(b'"tools/call"'), 400, -32600)
    doubled = [
        ("id", '"id": 7', '"id": 7, "id": 8'),
        ("method", '"method"', '"method": "ping", "method"'),
        ("method, once spelt with an escape", '"method"', '"m\\u0065thod": "ping", "method"'),
        ("params", '"params"', '"params": {}, "params"'),
        ("params.name", '"name"', '"name": "other", "name"'),
        ("jsonrpc", '"jsonrpc"', '"jsonrpc": "2.0", "jsonrpc"'),
    ]
    for what, old, new in doubled:
        assert old in good
        yield Row(f"a doubled {what}", maker.post(good.replace(old, new, 1).encode()), 400, -32600)
    read = '{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"a:b","uri":"c:d"}}'
    yield Row("a doubled params.uri", maker.post(read.encode()), 400, -32600)
    changed = [
        ("an id of null", {"id": None}),
        ("an id that is an object", {"id": {}}),
        ("another version of JSON-RPC", {"jsonrpc": "1.0"}),
        ("a method that is a number", {"method": 5}),
    ]
    for what, change in changed:
        yield Row(what, maker.post({**maker.call(), **change}), 400, -32600)


def listed_bodies(maker):
    """The lists of bodies with doubled members, and of JSON bombs."""
    for what, status, code, reaches, body in [*corpus.duplicate_keys(), *corpus.json_bombs()]:
        says = () if code else ('"result"',)
        yield Row(what, maker.post(body), status, code, says=says, reaches=reaches)


def sizes(maker):
    yield Row("a body of more than 4 MiB, announced", maker.post(b"x" * (MEGABYTES_4 + 1)), 413, -32600)
    announced = maker.post(b"", headers=[("Content-Length", str(1 << 40))], length=False)
    yield Row("a body of a terabyte, announced and not sent", announced, 413, -32600)
    body = chunked(b"x" * (MEGABYTES_4 + 1))
    yield Row("a body of more than 4 MiB, chunked", maker.post(body, headers=[CHUNKED], length=False), 413, -32600)
    yield Row("a body of depth 129", maker.post(deep(maker, 129)), 400, -32600)
    yield Row("a body of depth 100,000", maker.post(deep(maker, 100_000)), 400, -32600)
    yield Row("a body of depth 100,000 that is never closed", maker.post(b"[" * 100_000), 400)
    yield Row("headers of more than 32 KiB", maker.post(headers=[("X-Long", "x" * 33_000)]), 431, closed=True)
    yield Row("many headers of more than 32 KiB", maker.post(headers=[(f"X-{n}", "x" * 400) for n in range(90)]), 431, closed=True)
    yield Row("500 headers", maker.post(headers=[(f"X-{n}", "x") for n in range(500)]), 431, closed=True)
    yield Row("a URI of more than 32 KiB", maker.post(path="/" + "x" * 33_000), 431, closed=True)


def metadata(maker):
    changed = [
        ("Mcp-Method that disagrees", {"Mcp_Method": "tools/list"}),
        ("Mcp-Name that disagrees", {"Mcp_Name": f"{SERVER}__other"}),
        ("a version header that disagrees", {"MCP_Protocol_Version": "2025-11-25"}),
        ("a base64 sentinel that does not decode", {"Mcp_Name": "=?base64?!!?="}),
        ("a base64 sentinel of invalid UTF-8", {"Mcp_Name": "=?base64?/w==?="}),
        ("no Mcp-Method", {"Mcp_Method": None}),
        ("no Mcp-Name", {"Mcp_Name": None}),
        ("no version header", {"MCP_Protocol_Version": None}),
    ]
    for what, change in changed:
        yield Row(what, maker.post(maker.modern(), headers=maker.modern_headers(**change)), 400, -32020)
    twice = [*maker.modern_headers(), ("Mcp-Method", "tools/call")]
    yield Row("Mcp-Method twice", maker.post(maker.modern(), headers=twice), 400, -32020)
    for key in META:
        rest = {name: value for name, value in META.items() if name != key}
        yield Row(f"no _meta {key}", maker.post(maker.modern(rest), headers=maker.modern_headers()), 400, -32602, says=(key,))
    yield Row("modern headers over a body without _meta", maker.post(headers=maker.modern_headers()), 400, -32602)


def versions(maker):
    hello = {"protocolVersion": "1999-01-01", "capabilities": {}, "clientInfo": {"name": "e2e", "version": "1"}}
    initialize = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
    yield Row("initialize of an unknown version gets the newest", maker.post(initialize), 200, says=('"2025-11-25"',))
    new = "2099-01-01"
    meta = {**META, "io.modelcontextprotocol/protocolVersion": new}
    headers = maker.modern_headers(MCP_Protocol_Version=new)
    yield Row("a modern version that is unknown", maker.post(maker.modern(meta), headers=headers), 400, -32022, says=("supported", raw.MODERN))
    old = [("MCP-Protocol-Version", "1999-01-01")]
    yield Row("a version header that is unknown", maker.post(headers=old), 400, -32022, says=("supported",))


def framing(maker):
    """What is ambiguous about where a request ends is refused, and nothing else is read from that connection."""
    body = json.dumps(maker.call()).encode()
    sized = ("Content-Length", str(len(body)))

    def framed(*headers, body=body):
        return maker.post(body, headers=headers, length=False)

    good = maker.post()
    given = [
        ("two lengths", framed(sized, ("Content-Length", "3"))),
        ("two lengths in one header", framed(("Content-Length", f"{len(body)}, 3"))),
        ("the same length twice", framed(sized, sized)),
        ("the same length twice in one header", framed(("Content-Length", f"{len(body)}, {len(body)}"))),
        ("a signed length", framed(("Content-Length", f"+{len(body)}"))),
        ("a negative length", framed(("Content-Length", "-1"))),
        ("a length in hexadecimal", framed(("Content-Length", hex(len(body))))),
        ("a coding that is not chunked at last", framed(("Transfer-Encoding", "chunked, gzip"), body=chunked(body))),
        ("two codings", framed(("Transfer-Encoding", "gzip, chunked"), body=chunked(body))),
        ("chunked twice", framed(CHUNKED, CHUNKED, body=chunked(body))),
        ("an unknown coding", framed(("Transfer-Encoding", "xchunked"), body=chunked(body))),
        ("chunked in HTTP/1.0", framed(CHUNKED, body=chunked(body)).replace(b"HTTP/1.1", b"HTTP/1.0")),
        ("a bare line feed behind the request line", good.replace(b"\r\n", b"\n", 1)),
        ("a bare line feed behind a header", good.replace(b"json\r\n", b"json\n", 1)),
        ("a bare line feed for the empty line", good.replace(b"\r\n\r\n", b"\r\n\n", 1)),
        ("a bare line feed before a request", b"\n" + good),
        ("bare line feeds everywhere", good.replace(b"\r\n", b"\n")),
        ("a header smuggled behind a bare line feed", good.replace(b"json\r\n", b"json\nX-Smuggled: x\r\n", 1)),
        ("a folded length", framed(("Content-Length", f"\r\n {len(body)}"))),
        ("a space before the colon of a length", framed(("Content-Length ", str(len(body))))),
        ("a folded header", good.replace(b"\r\nAccept: ", b"\r\nAccept:\r\n ")),
        ("a space before the colon", good.replace(b"Accept:", b"Accept :")),
        ("a space before a header", good.replace(b"Accept:", b" Accept:")),
        ("a NUL in a header", good.replace(b"Accept: ", b"Accept: \0")),
        ("a bare carriage return in a header", good.replace(b"Accept: ", b"Accept: x\rX: ")),
        ("a NUL in the path", good.replace(b"/mcp ", b"/mcp\0 ", 1)),
        ("a space in the path", good.replace(b"/mcp ", b"/mcp x ", 1)),
        ("no version of HTTP", good.replace(b" HTTP/1.1", b"", 1)),
        ("no HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 60 + b"\r\n\r\n"),
    ]
    for what, sent in given:
        yield Row(what, sent, 400, closed=True)
    # What stands behind a body in chunks is not read, wherever somebody in front of us believes that it ends.
    smuggled = maker.post(maker.call(f"{SERVER}__other"))
    sent = framed(CHUNKED, body=chunked(body)) + smuggled
    yield Row("a body in chunks, and a request smuggled behind it", sent, 200, closed=True, reaches=1)
    for what, pair in (("Content-Length with Transfer-Encoding", (sized, CHUNKED)), ("the two the other way round", (CHUNKED, sized))):
        yield Row(f"{what}, and a request smuggled behind it", framed(*pair, body=chunked(body)) + smuggled, 400, closed=True)
    bad = framed(CHUNKED, body=b"zz\r\n" + body + b"\r\n0\r\n\r\n")
    yield Row("a chunk of no size", bad, 400, closed=True)
    huge = framed(CHUNKED, body=b"ffffffffffffffffff\r\n")
    yield Row("a chunk larger than can be counted", huge, 400, closed=True)


def paths(maker):
    given = [
        "/projects/../mcp",
        f"/projects/x/../{PROJECT}/mcp",
        f"/projects/%2e%2e/{PROJECT}/mcp",
        f"/projects/{PROJECT}/servers/../mcp",
        f"/projects/{PROJECT}/servers/..%2f{SERVER}/mcp",
        f"/projects/{PROJECT}/servers/%252e%252e/mcp",
        f"/projects/%2562ad-input/mcp",
        f"/projects/{PROJECT}%00/mcp",
        f"/projects/{PROJECT}%0a/mcp",
        f"/projects/{PROJECT}%2fmcp",
        f"/projects/{PROJECT.upper()}/mcp",
        f"/projects/{PROJECT}%20/mcp",
        f"/projects/{PROJECT};x=1/mcp",
        "/projects/b%C3%A4d-input/mcp",
        "/projects/%ff/mcp",
        "/projects/%/mcp",
        "/projects//mcp",
        "//mcp",
        "/mcp/",
        f"/projects/{PROJECT}/mcp/",
        f"/projects/{PROJECT}/mcp/../mcp",
        "/projects/" + "x" * 10_000 + "/mcp",
        f"/projects/{PROJECT}/servers/there-is-none/mcp",
        f"/Projects/{PROJECT}/mcp",
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-authorization-server",
    ]
    for path in given:
        yield Row(f"the path {path[:60]}", maker.post(path=path), 404)


def origins(maker):
    port = maker.host.rsplit(":", 1)[1]
    for host in ["evil.example", f"127.0.0.1.evil.example:{port}", f"evil.example:{port}", f"user@{maker.host}", "127.0.0.1:99999x", "0.0.0.0"]:
        yield Row(f"the host {host}", maker.post(host=host), 403, -32003)
    whole = maker.post(path=f"http://evil.example/projects/{PROJECT}/mcp")
    yield Row("a target of another host, whatever the Host header says", whole, 403, -32003)
    for origin in ["https://evil.example", "null", f"http://{maker.host}.evil.example", f"https://evil.example#{maker.host}", "file://"]:
        yield Row(f"the origin {origin}", maker.post(headers=[("Origin", origin)]), 403, -32003)
    yield Row("two hosts", maker.post(headers=[("Host", maker.host)]), 403, -32003)
    yield Row("two hosts, the second one evil", maker.post(headers=[("Host", "evil.example")]), 403, -32003)
    yield Row("no host", maker.post().replace(f"Host: {maker.host}\r\n".encode(), b""), 403, -32003)
    for what, sent, status in bad_headers.hosts_and_origins(maker):
        yield Row(what, sent, status)
    two = [("Origin", f"http://{maker.host}"), ("Origin", "https://evil.example")]
    yield Row("a good origin and a bad one", maker.post(headers=two), 403, -32003)


def rights(maker, at_hand):
    right = f"role:run,resource:tools,name:{SERVER}/echo"
    yield Row("a tool that may be seen and not run", maker.post(token=at_hand.looker), 200, -32003, says=(right,))
    for name in ["echo", "counted_echo", f"{SERVER}__", f"__echo", f"{SERVER}__echo\u0000", f" {SERVER}__echo", f"{SERVER}__ECHO", ""]:
        yield Row(f"the tool {name!r}", maker.post(maker.call(name)), 200, -32602)
    no_name = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"arguments": {}}}
    yield Row("a call of nothing", maker.post(no_name), 200, -32602)
    get = maker.post(b"", length=False, method="PUT")
    yield Row("a method that MCP does not use", get, 405, headers={"allow": "POST"})


def no_look_up(at_hand, node, maker):
    """A bearer of a wrong shape is refused by looking at it."""
    with at_hand.checks.check("a bearer of a wrong shape is not looked up anywhere"):
        def asked():
            metrics = raw.send("GET", f"{node.api}/metrics").body.splitlines()
            return next(line for line in metrics if line.startswith("mcpnode_gateway_freshened_total"))

        # Clients of earlier phases may come back at any moment with a token that was revoked, which is looked up. A look-up for each of
        # these bearers would be seen every time.
        for _ in range(LOOKED_TIMES_MAX):
            before = asked()
            for row in bearers(maker, at_hand):
                wire.exchange(node.gateway, row.sent)
            if asked() == before:
                break
        else:
            raise AssertionError(f"there were look-ups each of {LOOKED_TIMES_MAX} times")
        before = asked()
        wire.exchange(node.gateway, maker.post(token="mcpctl_pat_" + "2" * 43))
        assert asked() != before, "the look-up of a token of the right shape is not counted: this check cannot fail"


def sessions(at_hand, node, maker, counted):
    """A session belongs to a token, and is as it was given out."""
    def opened(token, project):
        answer, _ = wire.exchange(node.gateway, maker.post(INITIALIZE, token=token, path=f"/projects/{project}/mcp"))
        return answer.headers["mcp-session-id"]

    mine, others, elsewhere = opened(maker.token, PROJECT), opened(at_hand.second, PROJECT), opened(at_hand.elsewhere, OTHER)
    ended = opened(maker.token, PROJECT)
    kept = Row("a good session", maker.post(headers=[("Mcp-Session-Id", mine)]), 200, says=('"result"',), reaches=1)
    check(at_hand, node, counted, kept)
    end = maker.post(b"", headers=[("Mcp-Session-Id", ended)], length=False, method="DELETE")
    check(at_hand, node, counted, Row("the end of a session", end, 204))
    middle = len(mine) // 2
    given = [
        ("another token's session", others),
        ("a session of another project", elsewhere),
        ("a session that has ended", ended),
        ("a session with a changed byte", mine[:middle] + ("A" if mine[middle] != "A" else "B") + mine[middle + 1 :]),
        ("a session with a changed last byte", mine[:-2] + ("A" if mine[-2] != "A" else "B") + mine[-1]),
        ("a session cut short", mine[:-4]),
        ("a session with something behind it", mine + "AAAA"),
        ("two sessions glued together", mine + others),
        ("a session as other gateways give them out", "0f2c0b5e-9c7d-4b56-8d0a-3f4f1b1f9d7e"),
        ("an empty session", ""),
        ("a session of 8 KiB", "A" * 8192),
        ("a session that is no ASCII", "s\u00e9ance"),
    ]
    for what, session in given:
        for method, body in (("POST", None), ("GET", b""), ("DELETE", b"")):
            sent = maker.post(body, headers=[("Mcp-Session-Id", session)], length=method == "POST", method=method)
            check(at_hand, node, counted, Row(f"{what}, {method}", sent, 404, -32001))


def foreign_session(at_hand, node, issuer, counted):
    """A session is another token's on every replica, and its own token's too."""
    first, there = Maker(issuer, at_hand.second), Maker(node, at_hand.hostile)
    opened, _ = wire.exchange(issuer.gateway, first.post(INITIALIZE))
    session = [("Mcp-Session-Id", opened.headers["mcp-session-id"])]
    for method, body in (("POST", None), ("GET", b""), ("DELETE", b"")):
        sent = there.post(body, headers=session, length=method == "POST", method=method)
        check(at_hand, node, counted, Row(f"another token's session on {node.name}, {method}", sent, 404, -32001))
    own = there.post(headers=session, token=at_hand.second)
    check(at_hand, node, counted, Row(f"its own token's on {node.name}", own, 200, says=('"result"',), reaches=1))


def alike(at_hand, node, maker, counted):
    """Whoever may not see a tool cannot tell it from one that does not exist."""
    def refusal(token, tool):
        return wire.exchange(node.gateway, maker.post(maker.call(tool), token=token))[0]

    with at_hand.checks.check("a tool that is hidden and one that does not exist are refused in the same words"):
        before = counted.calls
        hidden, none = refusal(at_hand.narrow, f"{SERVER}__other"), refusal(at_hand.narrow, f"{SERVER}__there-is-none")
        same(hidden.json["error"]["code"], -32602, hidden)
        same(hidden.body.replace("other", "?"), none.body.replace("there-is-none", "?"), "the two refusals")
        same(hidden.headers.keys(), none.headers.keys(), "the headers of the two")
        same(counted.calls, before, "calls that reached the server")


def upstreams(at_hand, node, maker, counted, going):
    """A server that fails is a JSON-RPC error that says which, why, and whether the call may have had an effect."""
    going.close()
    given = [
        (f"{GOING}__echo", GOING, "none", 0, "a server that is down"),
        (f"{SERVER}__slow", SERVER, "possible", 1, "a server that is too slow"),
        (f"{SERVER}__rubbish", SERVER, "possible", 1, "a server that answers rubbish"),
        (f"{SERVER}__mangled", SERVER, "possible", 1, "a server that answers somebody else"),
        (f"{SERVER}__much", SERVER, "possible", 1, "a server that answers too much"),
        (f"{SERVER}__hangup", SERVER, "possible", 1, "a server that hangs up"),
        (f"{SERVER}__fails", SERVER, "possible", 1, "a server that answers HTTP 500"),
    ]
    for tool, server, effect, reaches, what in given:
        with at_hand.checks.check(f"{what}: -32010, effect {effect}, and no hang"):
            before, begun = counted.calls, time.monotonic()
            answer, _ = wire.exchange(node.gateway, maker.post(maker.call(tool)))
            took = time.monotonic() - begun
            same(answer.status, 200, answer)
            error = answer.message["error"]
            same(error["code"], -32010, answer)
            same((error["data"]["server"], error["data"]["effect"]), (server, effect), answer)
            assert error["data"]["cause"] and server in error["message"], answer
            assert took < FAILURE_SECONDS_MAX, f"it took {took:.1f} s"
            same(counted.calls - before, reaches, "calls that reached the server")
    check(at_hand, node, counted, Row("the server is called as before", maker.post(), 200, says=('"result"',), reaches=1))
