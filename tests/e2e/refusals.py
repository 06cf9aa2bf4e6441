"""Who is not let in, and what is refused to those who are."""

import asyncio

import raw
from checks import same
from fixture import OTHER, PROJECT, called
from peers import Refused

ECHO = "everything__echo"
HELLO = {"message": "hello"}
WORD_SECONDS_MAX = 10


async def run(fixture):
    for node in fixture.cluster.nodes:
        await bearers(fixture, node)
        await projects(fixture, node)
        await without_bindings(fixture, node)
        await view_only(fixture, node)
    await asyncio.gather(*(with_peer(fixture, peer) for peer in fixture.peers))


async def bearers(fixture, node):
    """What is no valid token is 401, whatever is asked for."""
    url = node.mcp(PROJECT)
    unknown = "mcpctl_pat_" + "1" * 43
    rows = [
        ("no token", None, None),
        ("a malformed token", "mcpctl_pat_short", None),
        ("an unknown token", unknown, None),
        ("a revoked token", fixture.revoked, None),
        ("a session bearer", fixture.cluster.session, None),
        ("a foreign scheme", None, {"Authorization": "Basic dXNlcjpwYXNz"}),
    ]
    for what, token, headers in rows:
        with fixture.checks.check(f"{node.name} refuses {what}: 401"):
            answer = await last_word(raw.call, url, token, ECHO, HELLO, headers=headers)
            same(answer.status, 401, answer)
            assert answer.headers.get("www-authenticate", "").startswith("Bearer"), "no WWW-Authenticate: Bearer"


async def last_word(function, *args, **more):
    """The answer to a request, asked again while it is 503."""
    async with asyncio.timeout(WORD_SECONDS_MAX):
        while (answer := await raw.apart(function, *args, **more)).status == 503:
            await asyncio.sleep(0.1)
        return answer


async def projects(fixture, node):
    """A token reaches its own project and no other, whether that exists or not."""
    for project in (OTHER, "demo", "there-is-none"):
        with fixture.checks.check(f"{node.name} refuses project {project} to another's token: 403"):
            answer = await raw.apart(raw.call, node.mcp(project), fixture.token, ECHO, HELLO)
            same(answer.status, 403, answer)
    with fixture.checks.check(f"{node.name} serves /mcp as the token's own project"):
        answer = await raw.apart(raw.call, f"{node.gateway}/mcp", fixture.token, ECHO, HELLO)
        same(answer.status, 200, answer)
        assert "hello" in answer.message["result"]["content"][0]["text"], answer


async def without_bindings(fixture, node):
    url = node.mcp(PROJECT)
    with fixture.checks.check(f"{node.name} lists nothing to a token without bindings"):
        answer = await raw.apart(raw.mcp, url, fixture.bare, "tools/list")
        same(answer.message["result"]["tools"], [], answer)
    with fixture.checks.check(f"{node.name} refuses the call of a token without bindings"):
        answer = await raw.apart(raw.call, url, fixture.bare, ECHO, HELLO)
        same(answer.message["error"]["code"], -32602, answer)


async def view_only(fixture, node):
    url = node.mcp(PROJECT)
    with fixture.checks.check(f"{node.name} lists everything to a token that may only view"):
        answer = await raw.apart(raw.mcp, url, fixture.viewer, "tools/list")
        same(called({tool["name"] for tool in answer.message["result"]["tools"]}), fixture.wanted_tools(), "tools")
    with fixture.checks.check(f"{node.name} refuses the call of a token that may only view, and names the right"):
        answer = await raw.apart(raw.call, url, fixture.viewer, ECHO, HELLO)
        same(answer.message["error"]["code"], -32003, answer)
        assert "run" in answer.message["error"]["message"], answer


async def with_peer(fixture, peer):
    """The SDKs see the same."""
    for node in fixture.cluster.nodes:
        for what, token in (("without token", None), ("with a revoked token", fixture.revoked)):
            with fixture.checks.check(f"{peer.name} {what} is refused by {node.name}: 401"):
                await refused(lambda: peer.open(node.mcp(PROJECT), token), 401)
        with fixture.checks.check(f"{peer.name} is refused another's project by {node.name}: 403"):
            await refused(lambda: peer.open(node.mcp(OTHER), fixture.token), 403)
        with fixture.checks.check(f"{peer.name} without bindings sees no tool and calls none through {node.name}"):
            session = await peer.open(node.mcp(PROJECT), fixture.bare)
            same(await session.ask("tools"), [], "tools")
            try:
                await session.call(ECHO, HELLO)
            except Refused as error:
                same(error.code, -32602, error)
            else:
                raise AssertionError("the call was carried out")
            await session.close()


async def refused(attempt, status):
    """Fails if an attempt is let in, and unless it is refused with this status, if not at once, then soon.

    A replica that cannot ask the leader just now says 503 to a token that it does not know: that is a refusal too, but not
    the last word. `attempt` is a function, because it may be called again.
    """
    async with asyncio.timeout(WORD_SECONDS_MAX):
        while True:
            try:
                await attempt()
            except Refused as error:
                if error.http and set(error.http) == {status}:
                    return
                assert error.http and set(error.http) <= {status, 503}, f"wanted HTTP {status}: {error}"
            else:
                raise AssertionError("it was not refused")
            await asyncio.sleep(0.1)
