"""What the API says to requests that are not as it wants them: a problem with a code, and every fault with its field."""

import json
from dataclasses import dataclass
from urllib.parse import urlsplit

import wire
from checks import same

MEGABYTE = 1 << 20


@dataclass
class Ask:
    """One request to the API, and what it gets."""

    what: str
    line: str
    status: int
    code: str
    fields: tuple = ()
    body: object = None
    headers: tuple = ()
    drop: tuple = ()
    content: str | None = "application/json"


def run(at_hand, node):
    ask(at_hand, node, Ask("a good project", "POST projects", 201, "", body={"name": "bad-api"}))
    ask(at_hand, node, Ask("a good change of it", "PATCH projects/bad-api", 200, "", body={"description": "x"}))
    for one in asks(at_hand):
        ask(at_hand, node, one)
    with at_hand.checks.check("API: whoever is refused amid a large body gets the answer, fifty times of fifty"):
        for _ in range(50):
            same(unread(node), 401, "status")
    with at_hand.checks.check("none of the refused requests has made anything"):
        names = {project["name"] for project in at_hand.cluster.api(node, "GET", "projects").json["items"]}
        assert not names & {"refused", "x"}, names


def unread(node):
    """The status that a client gets which goes on sending after it was refused, and reads only then. A connection that is closed at
    once answers it with a reset."""
    host = urlsplit(node.api).netloc
    head = f"POST /api/v1/projects HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {MEGABYTE}\r\n\r\n"
    with wire.connect(node.api) as stream:
        stream.sendall(head.encode())
        for _ in range(MEGABYTE // 4096):
            stream.sendall(b" " * 4096)
        return wire.read_answer(stream)[0].status


def ask(at_hand, node, one):
    host = urlsplit(node.api).netloc
    method, path = one.line.split(" ", 1)
    body = one.body if isinstance(one.body, bytes) else b"" if one.body is None else json.dumps(one.body).encode()
    headers = [("Host", host), ("Authorization", f"Bearer {at_hand.cluster.session}"), ("Content-Length", str(len(body)))]
    headers += [("Content-Type", one.content)] if one.content else []
    headers = [pair for pair in headers if pair[0] not in one.drop] + list(one.headers)
    head = "".join(f"{name}: {value}\r\n" for name, value in headers)
    sent = f"{method} {path if path.startswith('/') else '/api/v1/' + path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body
    with at_hand.checks.check(f"API: {one.what}: {one.status} {one.code}"):
        answer, _ = wire.exchange(node.api, sent)
        assert answer is not None, "the connection ended without an answer"
        same(answer.status, one.status, answer)
        if not one.code:
            return
        problem = answer.json
        same(problem["code"], one.code, answer)
        same(answer.headers["content-type"], "application/problem+json", "content type")
        same((problem["status"], bool(problem["detail"]), bool(problem["requestId"])), (one.status, True, True), answer)
        same(sorted(fault["field"] for fault in problem.get("errors", [])), sorted(one.fields), answer)
        assert all(fault["detail"] for fault in problem.get("errors", [])), answer


def asks(at_hand):
    yield from fields()
    yield from bodies()
    yield from queries()
    yield from headers(at_hand)
    yield from paths()


def fields():
    server = {"name": "Not A Name", "transport": "carrier-pigeon", "args": "x", "connectMs": "soon", "nope": 1, "stateful": 3}
    at_once = ("name", "transport", "args", "connectMs", "nope", "stateful")
    user = {"email": 7, "password": ["x"], "colour": "red"}
    token = {"name": "UPPER", "project": "", "rbac": "everything", "ttl": "a while", "nope": {}}
    rbac = {"name": "x", "subjects": [{"kind": "Alien", "name": "x"}], "roleBindings": [{"role": "king", "resource": "servers"}, 5]}
    return [
        Ask("an unknown field", "POST projects", 422, "invalid", ("colour",), {"name": "refused", "colour": 1}),
        Ask("a wrong type", "POST projects", 422, "invalid", ("description",), {"name": "refused", "description": 5}),
        Ask("a wrong type where there is none at all", "POST projects", 422, "invalid", ("name",), {"name": None}),
        Ask("a name of the wrong shape", "POST projects", 422, "invalid", ("name",), {"name": "../x"}),
        Ask("a name with a NUL", "POST projects", 422, "invalid", ("name",), {"name": "x\0"}),
        Ask("a name that is too long", "POST projects", 422, "invalid", ("name",), {"name": "x" * 300}),
        Ask("a text that is too long", "POST projects", 422, "invalid", ("description",), {"name": "refused", "description": "x" * 5000}),
        Ask("six faults of a server at once", "POST servers", 422, "invalid", at_once, server),
        Ask("three faults of a user at once", "POST users", 422, "invalid", ("email", "password", "colour"), user),
        Ask("five faults of a token at once", "POST mcptokens", 422, "invalid", ("name", "project", "rbac", "ttl", "nope"), token),
        Ask("faults deep in a definition", "POST rbac", 422, "invalid", ("subjects[0]", "roleBindings[0]", "roleBindings[1]"), rbac),
        Ask("an unknown field of a change", "PATCH projects/bad-api", 422, "invalid", ("colour",), {"colour": 1}),
        Ask("another name in the body than in the path", "PUT projects/bad-api", 422, "invalid", ("name",), {"name": "other"}),
    ]


def bodies():
    good = b'{"name":"refused"}'
    broken = [
        ("no body", b""),
        ("half a body", good[:-3]),
        ("two bodies", good + good),
        ("an array", b"[" + good + b"]"),
        ("a string", b'"refused"'),
        ("null", b"null"),
        ("invalid UTF-8", b'{"name":"refused","description":"\xff"}'),
        ("a doubled field", b'{"name":"refused","name":"x"}'),
        ("a body of depth 100,000", b'{"name":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        ("a comment", b'{"name":"refused"/*x*/}'),
    ]
    for what, body in broken:
        yield Ask(what, "POST projects", 400, "bad_request", body=body)
    for content in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx", "application/json-patch+json", "", None):
        yield Ask(f"content type {content!r}", "POST projects", 415, "unsupported_media_type", body=good, content=content)
    large = {"name": "refused", "description": "x" * MEGABYTE}
    yield Ask("a body of more than 1 MiB", "POST projects", 413, "too_large", body=large)
    announced = (("Content-Length", str(1 << 40)),)
    yield Ask("a terabyte, announced", "POST projects", 413, "too_large", headers=announced, drop=("Content-Length",))
    body = json.dumps(large).encode()
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    how = {"headers": (("Transfer-Encoding", "chunked"),), "drop": ("Content-Length",)}
    yield Ask("more than 1 MiB, chunked", "POST projects", 413, "too_large", body=chunked, **how)


def queries():
    return [
        Ask("an unknown parameter", "GET projects?limt=3", 422, "invalid", ("limt",)),
        Ask("an unknown parameter of a write", "POST projects?dryRun=true", 422, "invalid", ("dryRun",), {"name": "refused"}),
        Ask("a parameter given twice", "GET projects?limit=1&limit=2", 422, "invalid", ("limit",)),
        Ask("two wrong parameters", "GET projects?limit=0&continue=zz", 422, "invalid", ("limit", "continue")),
        Ask("a limit that is no number", "GET projects?limit=many", 422, "invalid", ("limit",)),
        Ask("a limit beyond what can be counted", "GET projects?limit=99999999999999999999", 422, "invalid", ("limit",)),
        Ask("a weaker consistency than there is", "GET projects?consistency=eventual", 422, "invalid", ("consistency",)),
    ]


def headers(at_hand):
    change = {"description": "y"}
    me = ("Authorization", f"Bearer {at_hand.cluster.session}")
    for value in ("yesterday", "*x", '"', "-1", ""):
        yield Ask(f"If-Match: {value}", "PATCH projects/bad-api", 422, "invalid", ("If-Match",), change, (("If-Match", value),))
    yield Ask("a version that is over", "PATCH projects/bad-api", 409, "version_mismatch", (), change, (("If-Match", '"1"'),))
    for what, key in (("empty", ""), ("of 10,000 characters", "k" * 10_000)):
        given = (("Idempotency-Key", key),)
        yield Ask(f"an Idempotency-Key {what}", "POST projects", 422, "invalid", ("Idempotency-Key",), {"name": "refused"}, given)
    yield Ask("an index that is no number", "GET projects", 422, "invalid", ("Mcp-Min-Index",), None, (("Mcp-Min-Index", "soon"),))
    yield Ask("two Authorization headers", "GET projects", 401, "not_authenticated", (), None, (me,))
    yield Ask("no Authorization header", "GET projects", 401, "not_authenticated", drop=("Authorization",))
    basic = (("Authorization", "Basic dXNlcjpwYXNz"),)
    yield Ask("a foreign scheme", "GET projects", 401, "not_authenticated", headers=basic, drop=("Authorization",))
    evil = (("Host", "evil.example"),)
    yield Ask("another host", "GET projects", 403, "host_not_allowed", headers=evil, drop=("Host",))
    yield Ask("a page of another origin", "GET projects", 403, "origin_not_allowed", headers=(("Origin", "https://evil.example"),))


def paths():
    for path in ("nothing", "projects/", "projects/a/b/c", "../v1/projects", "//projects", "Projects", "projects%2fbad-api"):
        yield Ask(f"the path {path}", f"GET {path}", 404, "no_such_route")
    for name in ("..%2fbad-api", "%2e%2e", "bad-api%00", "%252e%252e", "BAD-API", "x" * 2000):
        yield Ask(f"the name {name[:30]}", f"GET projects/{name}", 404, "not_found")
    yield Ask("a name that is no text", "GET projects/%ff", 404, "no_such_route")
    yield Ask("a method that a path does not take", "DELETE version", 405, "method_not_allowed")
