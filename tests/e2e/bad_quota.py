"""Over quota: 429 with `Retry-After`, for whoever is over it and nobody else; and what a project says of the size of bodies.

A project for each quota, because all that belongs to one shares it.
"""

import json
import time

import raw
import wire
from bad_request import INITIALIZE, PING, SERVER, Maker, Row, check
from checks import same

LIMITS = {
    "bad-quota-rate": {"perToken": {"requestsPerSecond": 1}},
    "bad-quota-project": {"perProject": {"requestsPerSecond": 1}},
    "bad-quota-none": {"perToken": {"requestsPerSecond": 0}},
    "bad-quota-calls": {"perToken": {"concurrentRequests": 1}},
    "bad-quota-held": {"perToken": {"sessions": 2, "streams": 1}, "bodyBytes": 2000},
}
TRIES_SECONDS_MAX = 60
#: Longer than it would take if nobody kept track of what ends.
BACK_SECONDS_MAX = 30
RUN = "role:run,resource:servers"


class Quotas:
    """The projects, two tokens of each, and the node that counts."""

    def __init__(self, at_hand, node, counted):
        self.at_hand, self.node, self.counted = at_hand, node, counted
        self.makers = {}
        ctl, mint = at_hand.cluster.mcpctl, at_hand.cluster.mint
        for project, limits in LIMITS.items():
            ctl("apply", "-f", "-", given=json.dumps({"kind": "project", "metadata": {"name": project}, "spec": {"servers": [SERVER], "limits": limits}}))
            pair = [Maker(node, mint(f"{project}-{which}", project, RUN)) for which in ("one", "other")]
            self.makers[project] = pair

    def post(self, project, message, which=0, **more):
        maker = self.makers[project][which]
        return maker.post(maker.call() if message is None else message, path=f"/projects/{project}/mcp", **more)

    def send(self, sent):
        answer, _ = wire.exchange(self.node.gateway, sent)
        assert answer is not None, "the connection ended without an answer"
        return answer

    def run(self):
        for rate in (self.rate_of_a_token, self.rate_of_a_project, self.nothing_at_all):
            with self.at_hand.checks.check(f"over quota: {rate.__doc__}"):
                rate()
        with self.at_hand.checks.check("over quota: a token's requests at once: 429 for the second, and the place is free again behind the first"):
            self.at_once()
        with self.at_hand.checks.check("over quota: sessions and streams: 429 for one too many, and an end makes room"):
            self.held()
        self.body()

    def over(self, answer, quota):
        """It says what there is too much of, and when to come back; nothing has reached the server."""
        same(answer.status, 429, answer)
        after = answer.headers.get("retry-after", "")
        assert after.isdigit() and int(after) >= 1, f"Retry-After: {after!r}"
        error = answer.json["error"]
        same((error["data"]["quota"], error["data"]["retryAfterSeconds"]), (quota, int(after)), answer)

    def until_over(self, sent, quota):
        """Asks until it is too much. Every request before that is answered."""
        end = time.monotonic() + TRIES_SECONDS_MAX
        while time.monotonic() < end:
            before = self.counted.calls
            answer = self.send(sent)
            if answer.status == 200:
                continue
            self.over(answer, quota)
            return same(self.counted.calls, before, "calls that reached the server")
        raise AssertionError("it is never too much")

    def comes_back(self, sent):
        end = time.monotonic() + BACK_SECONDS_MAX
        while (answer := self.send(sent)).status == 429:
            assert time.monotonic() < end, "it stays too much"
            time.sleep(0.2)
        same(answer.status, 200, answer)

    def rate_of_a_token(self):
        """a token's requests per second: 429, another token is served, and a moment later so is this one"""
        project = "bad-quota-rate"
        same(self.send(self.post(project, None, which=1)).status, 200, "before")
        self.until_over(self.post(project, None), "requests per second of the token")
        self.comes_back(self.post(project, None, which=1))
        self.comes_back(self.post(project, None))

    def rate_of_a_project(self):
        """a project's requests per second: 429 for all of its tokens together"""
        project = "bad-quota-project"
        end = time.monotonic() + TRIES_SECONDS_MAX
        while True:
            assert time.monotonic() < end, "it is never too much"
            answers = [self.send(self.post(project, PING, which=which)) for which in (0, 1)]
            refused = [answer for answer in answers if answer.status != 200]
            if refused:
                break
        self.over(refused[0], "requests per second of the project")
        self.comes_back(self.post(project, PING))

    def nothing_at_all(self):
        """a quota of nothing: 429, whatever is asked for"""
        before = self.counted.calls
        for message in (None, PING, INITIALIZE):
            self.over(self.send(self.post("bad-quota-none", message)), "requests per second of the token")
        same(self.counted.calls, before, "calls that reached the server")

    def at_once(self):
        project = "bad-quota-calls"
        slow = self.post(project, self.makers[project][0].call(f"{SERVER}__slow"))
        end = time.monotonic() + TRIES_SECONDS_MAX
        while True:
            assert time.monotonic() < end, "two are never under way at once"
            before = self.counted.calls
            with wire.connect(self.node.gateway) as first:
                first.sendall(slow)
                while self.counted.calls == before:
                    assert time.monotonic() < end, "the first call does not reach the server"
                    time.sleep(0.01)
                second = self.send(self.post(project, PING))
                answer, _ = wire.read_answer(first)
            # On a machine that stood still the first was over before the second came.
            if second.status != 200:
                break
        self.over(second, "requests at once of the token")
        same(answer.status, 200, answer)
        self.comes_back(self.post(project, PING))

    def held(self):
        project = "bad-quota-held"
        opened = [self.send(self.post(project, INITIALIZE)) for _ in range(2)]
        same([answer.status for answer in opened], [200, 200], opened)
        sessions = [answer.headers["mcp-session-id"] for answer in opened]
        self.over(self.send(self.post(project, INITIALIZE)), "sessions of the token")
        same(self.send(self.post(project, INITIALIZE, which=1)).status, 200, "another token's session")
        streams = [self.post(project, b"", method="GET", length=False, headers=[("Mcp-Session-Id", session)]) for session in sessions]
        with wire.connect(self.node.gateway) as first:
            first.sendall(streams[0])
            first.settimeout(wire.SECONDS_MAX)
            assert first.recv(12) == b"HTTP/1.1 200", "the first stream is open"
            self.over(self.send(streams[1]), "streams of the token")
        end = self.post(project, b"", method="DELETE", length=False, headers=[("Mcp-Session-Id", sessions[0])])
        same(self.send(end).status, 204, "the end of a session")
        same(self.send(self.post(project, INITIALIZE)).status, 200, "a session in its place")

    def body(self):
        """The project's own limit on a body."""
        maker = self.makers["bad-quota-held"][0]
        for what, size, status, code, reaches in (("within", 1000, 200, None, 1), ("over", 2000, 413, -32600, 0)):
            sent = self.post("bad-quota-held", maker.call(arguments={"x": "y" * size}))
            check(self.at_hand, self.node, self.counted, Row(f"a body {what} what its project allows", sent, status, code, reaches=reaches))


async def run(at_hand, node, counted):
    quotas = await raw.apart(Quotas, at_hand, node, counted)
    await raw.apart(wait_for_tools, quotas)
    await raw.apart(quotas.run)


def wait_for_tools(quotas):
    """Until the servers of the new projects can be called: the one with the least room for it is asked last and least."""
    for project in ("bad-quota-held", "bad-quota-calls"):
        end = time.monotonic() + TRIES_SECONDS_MAX
        while "result" not in (answer := quotas.send(quotas.post(project, None))).body:
            assert time.monotonic() < end, answer
            time.sleep(0.1)
