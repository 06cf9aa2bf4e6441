"""A revoke that was acknowledged holds at once: on every node, for every client, for what was open and for what is new."""

import asyncio
import http.client
import threading

import raw
from checks import same
from fixture import PROJECT
from refusals import ECHO, HELLO, last_word, refused

IN_FLIGHT = "everything__trigger-long-running-operation"
BEGIN_SECONDS_MAX = 10
CUT_SECONDS_MAX = 5


async def run(fixture):
    cluster = fixture.cluster
    token = await raw.apart(cluster.mint, "doomed", PROJECT, "role:run,resource:servers")
    held = []
    with fixture.checks.check("every client holds a session on every node with a token that is about to go"):
        for peer in fixture.peers:
            for node in cluster.nodes:
                session = await peer.open(node.mcp(PROJECT), token)
                await session.call(ECHO, HELLO)
                held.append((peer, node, session))
    running = [InFlight(node, token) for node in cluster.nodes]
    with fixture.checks.check("a call is under way on every node"):
        await asyncio.gather(*(call.has_begun() for call in running))

    with fixture.checks.check("the revoke is acknowledged as effective"):
        said = await raw.apart(cluster.mcpctl, "revoke", "mcptoken", "doomed", "-p", PROJECT)
        assert "refused on 3 of 3" in said, said

    # At once: everything is tried at the same time.
    calls = [node_refuses(fixture, node, token) for node in cluster.nodes]
    calls += [session_refuses(fixture, *row) for row in held]
    calls += [newcomer_refused(fixture, peer, node, token) for peer in fixture.peers for node in cluster.nodes]
    calls += [was_cut(fixture, node, call) for node, call in zip(cluster.nodes, running)]
    await asyncio.gather(*calls)


class InFlight:
    """A call that reports progress and would still be running long after the revoke."""

    def __init__(self, node, token):
        self.underway = threading.Event()
        arguments = {"duration": 60, "steps": 120}
        params = {"name": IN_FLIGHT, "arguments": arguments, "_meta": {"progressToken": "p"}}
        self.task = asyncio.create_task(raw.apart(raw.mcp, node.mcp(PROJECT), token, "tools/call", params, on_data=self.seen))

    def seen(self, _line):
        self.underway.set()

    async def has_begun(self):
        assert await raw.apart(self.underway.wait, BEGIN_SECONDS_MAX), "no progress arrived"


async def node_refuses(fixture, node, token):
    with fixture.checks.check(f"{node.name} refuses the revoked token at once: 401"):
        answers = await asyncio.gather(*(last_word(raw.call, node.mcp(PROJECT), token, ECHO, HELLO) for _ in range(5)))
        same([answer.status for answer in answers], [401] * 5, answers)
    with fixture.checks.check(f"{node.name} does not know the revoked token at the API any more: 401"):
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{node.api}/api/v1/mcptokens/introspect"
        same((await last_word(raw.send, "GET", url, headers)).status, 401, url)


async def session_refuses(fixture, peer, node, session):
    with fixture.checks.check(f"{peer.name}: the open session on {node.name} is refused at once: 401"):
        await refused(lambda: session.call(ECHO, HELLO), 401)


async def newcomer_refused(fixture, peer, node, token):
    with fixture.checks.check(f"{peer.name}: a new session on {node.name} is refused at once: 401"):
        await refused(lambda: peer.open(node.mcp(PROJECT), token), 401)


async def was_cut(fixture, node, call):
    with fixture.checks.check(f"{node.name} cut the call that was under way"):
        try:
            answer = await asyncio.wait_for(call.task, CUT_SECONDS_MAX)
        except (OSError, http.client.HTTPException):
            return
        except TimeoutError:
            raise AssertionError("it was still running") from None
        assert '"result"' not in answer.body, answer
