"""Servers that do not come to an end, and servers whose names and texts are not for eyes: a call is answered in time and says what was
wrong, a node stays small, and what steers a terminal reaches none."""

import asyncio
import json
import os
import subprocess
import sys
import time

import endless
import raw
from bad_request import Maker
from checks import same
from counted import Counted
from hostile_clients import descriptors, resident_peak

ALONE = True
PROJECT = "hostile-upstreams"
RESPONSE_MS = 1500
#: The deadline of a server, and room for a slow machine.
ANSWER_SECONDS_MAX = 60
LISTED_SECONDS_MAX = 60
LEFT_SECONDS_MAX = 60
#: A node takes 16 MiB of one answer, and of a few at once while this runs.
RESIDENT_BYTES_MAX = 256 << 20
UNREAD_CLIENTS = 16
#: The tool that a client may wait for, as long as it likes.
POURS = "pours"


async def run(at_hand):
    without_end = subprocess.Popen([sys.executable, endless.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    servers = {
        "sound": Counted(),
        "endless-pages": Counted(behaves=endless.EndlessPages),
        "endless-list": Counted(behaves=endless.EndlessList),
        "endless-hello": Counted(behaves=endless.EndlessHello),
        "hostile": Counted(behaves=endless.Hostile),
        "hostile-hello": Counted(behaves=endless.HostileHello),
    }
    try:
        # One of them for each of its tools: a server that fails often is left in peace.
        url = (await raw.apart(without_end.stdout.readline)).strip()
        urls = {f"endless-{name}": url for name in endless.TOOLS} | {name: server.url for name, server in servers.items()}
        await raw.apart(make, at_hand, urls)
        node = at_hand.cluster.nodes[1]
        token = await raw.apart(at_hand.cluster.mint, "hostile-upstreams", PROJECT, "role:run,resource:servers")
        await endless_answers(at_hand, node, token)
        await unread(at_hand, node, token)
        await raw.apart(endless_lists, at_hand, node, token)
        await raw.apart(hostile_names, at_hand, node, token, servers["hostile"])
        await raw.apart(hostile_texts, at_hand, node, token)
    finally:
        without_end.kill()
        without_end.wait()
        for server in servers.values():
            server.close()


def make(at_hand, urls):
    ctl = at_hand.cluster.mcpctl
    for name, url in urls.items():
        ctl("create", "server", name, "--url", url, "--response-ms", str(RESPONSE_MS), "--connect-ms", str(RESPONSE_MS))
    ctl("create", "project", PROJECT, *(word for name in urls for word in ("--server", name)))


def until(look, what, seconds=LISTED_SECONDS_MAX):
    end = time.monotonic() + seconds
    while True:
        if seen := look():
            return seen
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def names(node, token, method="tools/list", member="tools"):
    answer = raw.mcp(node.mcp(PROJECT), token, method)
    return [entry["name"] for entry in answer.message["result"][member]] if answer.status == 200 else []


async def endless_answers(at_hand, node, token):
    """A call of each endless tool beside calls of a sound server: all at once of those that say little, one after the other of those that
    say as much as they can."""
    wanted = {f"endless-{name}__{name}" for name in endless.TOOLS} | {"sound__echo"}
    await raw.apart(until, lambda: wanted <= set(names(node, token)), "the lists of the servers")
    before = descriptors(node)
    floods = [[name] for name in endless.TOOLS if name not in [POURS, *endless.QUIET]]
    sound, slowest = [], 0.0
    for together in [endless.QUIET, *floods]:
        calls = [asyncio.create_task(raw.apart(timed_call, node, token, f"endless-{name}__{name}")) for name in together]
        while not all(call.done() for call in calls):
            answer, took = await raw.apart(timed_call, node, token, "sound__echo")
            slowest = max(slowest, took)
            sound.append(answer)
        for name, call in zip(together, calls):
            with at_hand.checks.check(f"a server without an end, {name}: -32010, effect possible, and no hang"):
                answer, took = await call
                error = answer.message["error"]
                same((answer.status, error["code"]), (200, -32010), answer)
                same((error["data"]["server"], error["data"]["effect"]), (f"endless-{name}", "possible"), answer)
                assert error["data"]["cause"] and took < ANSWER_SECONDS_MAX, f"{took:.1f} s: {answer}"
                print(f"# {name}: {error['data']['cause']}, {took:.2f} s", flush=True)
    with at_hand.checks.check("a sound server is called all the while"):
        print(f"# {len(sound)} sound answers, the slowest in {slowest:.2f} s", flush=True)
        wrong = [answer for answer in sound if answer.status != 200 or "result" not in answer.message]
        assert sound and not wrong and slowest < ANSWER_SECONDS_MAX, f"{len(sound)} answers, {slowest:.1f} s, {wrong[:1]}"
    await small_and_clean(at_hand, node, "endless answers", before)


def timed_call(node, token, tool):
    begun = time.monotonic()
    # A client that hears progress declares a token for it.
    params = {"name": tool, "arguments": {}, "_meta": {"progressToken": "mine"}}
    answer = raw.mcp(node.mcp(PROJECT), token, "tools/call", params, seconds=ANSWER_SECONDS_MAX)
    return answer, time.monotonic() - begun


async def small_and_clean(at_hand, node, what, before):
    with at_hand.checks.check(f"after {what} the node has never held more than {RESIDENT_BYTES_MAX >> 20} MiB"):
        peak = resident_peak(node)
        print(f"# peak after {what}: {peak >> 20} MiB", flush=True)
        assert peak < RESIDENT_BYTES_MAX, f"it held {peak >> 20} MiB"
    with at_hand.checks.check(f"nothing is left of {what}"):
        await raw.apart(until, lambda: nothing_open(node, before), "streams, calls and connections as before", LEFT_SECONDS_MAX)


def nothing_open(node, before):
    lines = raw.send("GET", f"{node.api}/metrics").body.splitlines()
    calls = [line for line in lines if line.startswith("mcpnode_open_streams_and_calls ")]
    assert len(calls) == 1, calls
    # Connections to servers stay a little, for the next call.
    return calls[0].endswith(" 0") and descriptors(node) <= before + 16


async def unread(at_hand, node, token):
    """Clients that call what pours progress at them, and do not read."""
    before = descriptors(node)
    maker = Maker(node, token)
    body = maker.call(f"endless-{POURS}__{POURS}", _meta={"progressToken": 1})
    sent = maker.post(body, path=f"/projects/{PROJECT}/mcp")
    host, port = maker.host.rsplit(":", 1)
    opened = [await asyncio.open_connection(host, int(port), limit=1024) for _ in range(UNREAD_CLIENTS)]
    with at_hand.checks.check("clients that do not read what is poured at them get their answer begun, and are thrown out"):
        for reader, writer in opened:
            writer.write(sent)
        heads = [await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), ANSWER_SECONDS_MAX) for reader, _ in opened]
        assert all(head.startswith(b"HTTP/1.1 200") and b"event-stream" in head for head in heads), heads[0]
        # A reader takes twice its limit and then pauses: from here on nothing is read.
        metrics = lambda: raw.send("GET", f"{node.api}/metrics").body.splitlines()
        gone = lambda: "mcpnode_open_streams_and_calls 0" in metrics()
        assert not await raw.apart(gone), "the calls are not open: this check cannot fail"
        await raw.apart(until, gone, "the node gives the calls up", LEFT_SECONDS_MAX)
    for _, writer in opened:
        writer.transport.abort()
    await small_and_clean(at_hand, node, "clients that do not read", before)


def endless_lists(at_hand, node, token):
    """Lists, and the very first answer, without an end."""
    for name, word in (("endless-list", "bytes"), ("endless-hello", "ms")):
        with at_hand.checks.check(f"{name}: unhealthy, for a reason that names what it was"):
            status = until(lambda: known(at_hand, node, name), f"a probe of {name}")
            same(status["health"], "unhealthy", status)
            assert word in status["reason"], status
    with at_hand.checks.check("endless-pages: some of its pages are taken, and no more"):
        status = until(lambda: known(at_hand, node, "endless-pages"), "a probe of endless-pages")
        same(status["health"], "healthy", status)
        assert 0 < status["tools"] <= 100, status
    with at_hand.checks.check("a project with such servers lists the others at once"):
        begun = time.monotonic()
        assert "sound__echo" in names(node, token)
        assert time.monotonic() - begun < ANSWER_SECONDS_MAX


def known(at_hand, node, name):
    status = at_hand.cluster.api(node, "GET", f"servers/{name}").json["status"]
    return None if status["health"] == "unknown" else status


def hostile_names(at_hand, node, token, server):
    """What can be told apart by its looks is offered, and nothing else can be called."""
    listed = until(lambda: [name for name in names(node, token) if name.startswith("hostile__")], "the hostile server's list")
    offered = {name for is_offered, name in endless.corpus.hostile_names() if is_offered}
    left_out = [name for is_offered, name in endless.corpus.hostile_names() if not is_offered]
    with at_hand.checks.check(f"of {len(offered) + len(left_out)} names of tools, prompts and resources {len(left_out)} are left out"):
        same(sorted(listed), sorted(f"hostile__{name}" for name in offered), "tools")
        prompts = [name for name in names(node, token, "prompts/list", "prompts") if name.startswith("hostile__")]
        same(sorted(prompts), sorted(f"hostile__{name}" for name in offered), "prompts")
        answer = raw.mcp(node.mcp(PROJECT), token, "resources/list")
        uris = [entry["uri"] for entry in answer.message["result"]["resources"] if entry["uri"].startswith("x:")]
        # Behind "x:" nothing is empty.
        same(sorted(uris), sorted(f"x:{name}" for name in offered | {""}), "resources")
    maker, before = Maker(node, token), server.calls
    for name in left_out:
        with at_hand.checks.check(f"a call of {name!r} is one of a tool that does not exist, and reaches nobody"):
            body = json.dumps(maker.call(f"hostile__{name}"))
            answer = raw.send("POST", node.mcp(PROJECT), headers(token), body)
            same((answer.status, answer.json["error"]["code"]), (200, -32602), answer)
            same(server.calls, before, "calls that reached the server")


def headers(token):
    return {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "Authorization": f"Bearer {token}"}


def hostile_texts(at_hand, node, token):
    """What a server says reaches an MCP client as it is, and a terminal or a log as something to look at."""
    with at_hand.checks.check("a client gets a description as the server wrote it"):
        tools = raw.mcp(node.mcp(PROJECT), token, "tools/list").message["result"]["tools"]
        described = [tool["description"] for tool in tools if tool["name"] == "hostile__plain"]
        same(described, [endless.HOSTILE_TEXT], "descriptions")
        answer = raw.call(node.mcp(PROJECT), token, "hostile__plain", {})
        same(answer.message["error"]["message"], endless.HOSTILE_TEXT, "the error")
    commands = [
        ["get", "servers"],
        ["get", "tools"],
        ["get", "tools", "-p", PROJECT],
        ["get", "tools", "-o", "json"],
        ["get", "servers", "-o", "json"],
        ["describe", "server", "hostile"],
        ["describe", "server", "hostile-hello"],
        ["describe", "tool", "hostile/plain"],
        ["describe", "project", PROJECT],
    ]
    for words in commands:
        with at_hand.checks.check(f"mcpctl {' '.join(words)} sends nothing to the terminal that steers it or hides"):
            said = on_a_terminal(at_hand, words)
            assert said, "nothing was said"
            same(unseen(said), [], said[:300])
    with at_hand.checks.check("the log of no node holds what steers a terminal"):
        for path in at_hand.cluster.talk.parent.glob("data/node-*/mcpnode.log"):
            same(unseen(path.read_text(errors="replace")), [], path)


def on_a_terminal(at_hand, words):
    """What a command says, to a terminal where that makes a difference."""
    env = {**os.environ, "MCPCTL_SERVER": at_hand.cluster.nodes[1].api, "MCPCTL_SESSION": at_hand.cluster.session}
    quoted = " ".join(f"'{word}'" for word in [f"{at_hand.cluster.tools}/mcpctl", *words])
    done = subprocess.run(["script", "-qec", quoted, "/dev/null"], env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    return done.stdout.decode(errors="replace").replace("\r\n", "\n")


def unseen(text):
    """Characters that nobody sees, but for the ends of lines."""
    hidden = [(0, 9), (11, 31), (127, 159), (0x200B, 0x200F), (0x2028, 0x202E), (0x2060, 0x206F), (0xFEFF, 0xFEFF)]
    return sorted({hex(ord(c)) for c in text if any(first <= ord(c) <= last for first, last in hidden)})
