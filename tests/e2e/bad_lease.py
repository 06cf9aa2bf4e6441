"""A node that holds no lease, and a cluster without a leader: 503 with `Retry-After`, at both listeners, and nothing reaches a server."""

import json
import signal
import time

import raw
from bad_request import PROJECT, Row, check
from checks import same

SECONDS_MAX = 60


async def run(at_hand, node, maker, counted):
    others = [other for other in at_hand.cluster.nodes if other is not node]
    try:
        for other in others:
            other.signal(signal.SIGSTOP)
        await raw.apart(alone, at_hand, node, maker, counted)
    finally:
        for other in others:
            other.signal(signal.SIGCONT)
    for one in at_hand.cluster.nodes:
        await at_hand.cluster.ready(one)
    await raw.apart(good_again, at_hand, node, maker)


def alone(at_hand, node, maker, counted):
    until("the last lease has run out", lambda: raw.send("GET", f"{node.api}/readyz").status == 503)
    retry = {"retry-after": "1"}
    for what, sent in (("a call", maker.post()), ("a read", maker.post({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}))):
        check(at_hand, node, counted, Row(f"{what} at a node without a lease", sent, 503, headers=retry))
    stranger = maker.post(token="mcpctl_pat_" + "1" * 43)
    check(at_hand, node, counted, Row("a token that a node without a lease does not know", stranger, 503, headers=retry))
    wrong = maker.post(token="mcpctl_pat_short")
    check(at_hand, node, counted, Row("a bearer of a wrong shape, lease or not", wrong, 401, headers={"www-authenticate": "Bearer"}))
    same(raw.send("GET", f"{node.gateway}/readyz").status, 503, "readiness of the gateway")
    rows = [
        ("a read", "GET", "projects", None),
        ("a change", "POST", "projects", {"name": "refused"}),
    ]
    for what, method, path, body in rows:
        with at_hand.checks.check(f"API: {what} at a node without a lease and a leader: 503 with Retry-After"):
            answer = at_hand.cluster.api(node, method, path, body)
            same(answer.status, 503, answer)
            assert answer.json["code"] in ("no_lease", "no_leader"), answer
            assert answer.headers.get("retry-after", "").isdigit() and answer.json.get("hint"), answer


def good_again(at_hand, node, maker):
    with at_hand.checks.check("with its lease the node serves again, and the change that was refused was not made"):
        until("the call is answered", lambda: raw.send("POST", node.mcp(PROJECT), {"Authorization": f"Bearer {maker.token}"}, json.dumps(maker.call())).status == 200)
        names = {project["name"] for project in at_hand.cluster.api(node, "GET", "projects").json["items"]}
        assert "refused" not in names, names


def until(what, holds):
    end = time.monotonic() + SECONDS_MAX
    while not holds():
        assert time.monotonic() < end, f"not within {SECONDS_MAX} s: {what}"
        time.sleep(0.05)
