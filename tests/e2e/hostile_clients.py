"""Sixty-four hostile clients at once: a node stays small, goes on answering an honest one, and keeps nothing of them.

Four times: some of every kind that speaks HTTP/1, some of every kind that speaks HTTP/2, and then all of them with what makes a node
hold most: a body that stops just short of its end, and answers that nobody takes. The node is started in a control group
that gives it 256 MiB and no more; where there can be none, what the system has noted of it is looked at, and with CI=true that is not enough.
"""

import asyncio
import contextlib
import itertools
import os
import secrets
import signal
import time
from urllib.parse import urlsplit

import hostile_http2
import memory_limit
import raw
from bad_input import MEGABYTES_4
from bad_request import Maker
from checks import same

ALONE = True
PROJECT = "hostile-clients"
CLIENTS = 64
SECONDS = 10
#: They come within this time: a siege, and not one blow.
RAMP_SECONDS = 4
RESIDENT_BYTES_MAX = 256 << 20
LEFT_SECONDS_MAX = 60
#: Connections to peers come and go by themselves.
DESCRIPTORS_SPARE = 8
#: The honest client is asked for no more than this, on a machine on which the hostile ones need most of the time.
ANSWER_SECONDS_MAX = 8
#: No shorter than what a node waits for a client's headers.
PAUSE_SECONDS = 0.2


async def run(at_hand):
    await raw.apart(at_hand.cluster.mcpctl, "create", "project", PROJECT)
    token = await raw.apart(at_hand.cluster.mint, "honest", PROJECT)
    node = at_hand.cluster.nodes[1]
    limit, why = memory_limit.made(RESIDENT_BYTES_MAX)
    print(f"# the node's memory is limited by {limit.folder}" if limit else f"# no limit on the node's memory: {why}", flush=True)
    with at_hand.checks.check("there is a limit on the besieged node's memory"):
        assert limit or os.environ.get("CI") != "true", why
    try:
        if limit:
            with at_hand.checks.check("the limit is one: a process that takes more is killed"):
                assert await raw.apart(bites), "it was not"
            await started_within(at_hand, node, limit)
            with at_hand.checks.check("the besieged node is within the limit"):
                assert limit.holds(node.pid), f"{node.pid} is not"
        await until(node, token, lambda status: status == 200)
        for which, clients in sieges():
            await besieged(at_hand, node, token, limit, which, clients)
    finally:
        if limit:
            limit.remove()


def bites():
    """Tried in a group of its own, so that what is charged to the node's is the node's."""
    trial, _ = memory_limit.made(RESIDENT_BYTES_MAX, "mcpnode-e2e-trial")
    try:
        return trial.bites()
    finally:
        trial.remove()


def sieges():
    yield "of many kinds", list(itertools.islice(itertools.cycle(KINDS), CLIENTS))
    yield "of HTTP/2", list(itertools.islice(itertools.cycle(hostile_http2.KINDS), CLIENTS))
    yield "that stall near the end of 4 MiB", [stalled_body] * CLIENTS
    yield "that take no answer", [hostile_http2.h2_unread_answers, hostile_http2.api_h2_unread_metrics] * (CLIENTS // 2)


async def started_within(at_hand, node, limit):
    """Starts the node anew, so that everything that it holds is within the limit."""
    before = node.pid
    node.signal(signal.SIGTERM)
    async with asyncio.timeout(LEFT_SECONDS_MAX):
        while os.path.exists(f"/proc/{before}/fd") and is_running(before):
            await asyncio.sleep(0.1)
    await raw.apart(at_hand.cluster.restart, node, limit.join)
    await at_hand.cluster.ready(node)


def is_running(pid):
    """Whoever has ended may still stand there until its parent looks."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    return False


async def besieged(at_hand, node, token, limit, which, clients):
    """One siege, and what is true during and after it."""
    before = descriptors(node)
    tally = {}
    end = time.monotonic() + SECONDS
    delays = [RAMP_SECONDS * number / len(clients) for number in range(len(clients))]
    hostile = [asyncio.create_task(keep_on(client, node, token, end, tally, delay)) for client, delay in zip(clients, delays)]
    slowest, answers = await honest(node, token, end)
    for task in hostile:
        task.cancel()
    await asyncio.gather(*hostile, return_exceptions=True)
    with at_hand.checks.check(f"{CLIENTS} hostile clients {which}: all of them got at the node"):
        same(sorted(tally), sorted({client.__name__ for client in clients}), "kinds that were let in at least once")
    with at_hand.checks.check(f"{CLIENTS} hostile clients {which}: honest ones are answered all the while, by the gateway and the API"):
        wrong = [status for status in answers if status != 200]
        assert len(answers) >= SECONDS and not wrong, f"{len(answers)} answers, {len(wrong)} of them not 200: {wrong[:5]}"
        assert slowest < ANSWER_SECONDS_MAX, f"the slowest took {slowest:.1f} s"
    with at_hand.checks.check(f"{CLIENTS} hostile clients {which}: the node has never held more than 256 MiB"):
        peak = resident_peak(node)
        charged = f", {(limit.peak() or 0) >> 20} MiB with files" if limit else ""
        print(f"# peak {peak >> 20} MiB{charged}, {len(answers)} honest answers, the slowest in {slowest:.2f} s; {tally}", flush=True)
        assert peak < RESIDENT_BYTES_MAX, f"it held {peak >> 20} MiB"
        same(limit.kills() if limit else 0, 0, "processes that the kernel killed for want of memory")
    with at_hand.checks.check(f"{CLIENTS} hostile clients {which}: nothing is left of them"):
        await left(node, before)


async def honest(node, token, end, project=PROJECT):
    """Asks all the while, one request after the other; gives the longest wait and every status."""
    slowest, answers = 0.0, []
    while time.monotonic() < end:
        begun = time.monotonic()
        answer = await raw.apart(raw.mcp, node.mcp(project), token, "tools/list")
        slowest = max(slowest, time.monotonic() - begun)
        answers.append(answer.status)
        begun = time.monotonic()
        answers.append((await raw.apart(raw.send, "GET", f"{node.api}/readyz")).status)
        slowest = max(slowest, time.monotonic() - begun)
        await asyncio.sleep(0.05)
    return slowest, answers


async def left(node, before):
    """Waits until streams, calls and descriptors are as before."""
    async with asyncio.timeout(LEFT_SECONDS_MAX):
        while True:
            lines = (await raw.apart(raw.send, "GET", f"{node.api}/metrics")).body.splitlines()
            open_now = {name: int(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#")) if name in GAUGES}
            same(sorted(open_now), sorted(GAUGES), "metrics of what is open")
            if not any(open_now.values()) and descriptors(node) <= before + DESCRIPTORS_SPARE:
                return
            await asyncio.sleep(0.2)


GAUGES = ["mcpnode_gateway_streams", "mcpnode_open_streams_and_calls"]


async def until(node, token, good):
    async with asyncio.timeout(20):
        while not good((await raw.apart(raw.mcp, node.mcp(PROJECT), token, "tools/list")).status):
            await asyncio.sleep(0.05)


def descriptors(node):
    return len(os.listdir(f"/proc/{node.pid}/fd"))


def resident_peak(node):
    with open(f"/proc/{node.pid}/status") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


async def keep_on(client, node, token, end, tally, delay):
    """One hostile client, that comes again whenever it is thrown out."""
    await asyncio.sleep(delay)
    maker = Maker(node, token)
    maker.path = f"/projects/{PROJECT}/mcp"
    if client.__name__.startswith("api_"):
        maker.host = urlsplit(node.api).netloc
    host, port = maker.host.rsplit(":", 1)
    while time.monotonic() < end:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                tally[client.__name__] = tally.get(client.__name__, 0) + 1
                await client(maker, reader, writer)
            finally:
                writer.transport.abort()


def post(maker, *args, **more):
    return maker.post(*args, path=f"/projects/{PROJECT}/mcp", **more)


async def slow_headers(maker, reader, writer):
    """A header line now and then, without an end."""
    writer.write(f"POST /projects/{PROJECT}/mcp HTTP/1.1\r\nHost: {maker.host}\r\n".encode())
    for number in range(100):
        writer.write(f"X-{number}: x\r\n".encode())
        await writer.drain()
        await asyncio.sleep(PAUSE_SECONDS)


async def slow_body(maker, reader, writer):
    """4 MiB announced, and a few bytes at a time."""
    writer.write(post(maker, b"", headers=[("Content-Length", str(MEGABYTES_4))], length=False))
    for _ in range(100):
        writer.write(b"[" * 1000)
        await writer.drain()
        await asyncio.sleep(PAUSE_SECONDS)


async def stalled_body(maker, reader, writer):
    """4 MiB announced, all but the last of them sent, and silence; then gone, because a node throws out late bodies after 30 s."""
    writer.write(post(maker, b"", headers=[("Content-Length", str(MEGABYTES_4))], length=False))
    for _ in range(63):
        writer.write(b" " * (MEGABYTES_4 // 64))
        await writer.drain()
    await asyncio.wait_for(reader.read(1), 5)


async def abandoned_streams(maker, reader, writer):
    """A session, its stream opened, and gone without a word."""
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "e2e", "version": "1"}}
    writer.write(post(maker, {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}))
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    session = next(line.split(": ")[1] for line in head.split("\r\n") if line.lower().startswith("mcp-session-id"))
    length = next(int(line.split(": ")[1]) for line in head.split("\r\n") if line.lower().startswith("content-length"))
    await reader.readexactly(length)
    accept = ("Mcp-Session-Id", session)
    writer.write(post(maker, b"", headers=[accept], length=False, method="GET"))
    await reader.readuntil(b"\r\n\r\n")


async def unknown_tokens(maker, reader, writer):
    """Well-formed tokens that nobody has issued, as fast as they are refused: each may have been issued a moment ago elsewhere."""
    for _ in range(50):
        writer.write(post(maker, token="mcpctl_pat_" + secrets.token_hex(32)[:43]))
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = next(int(line.split(": ")[1]) for line in head.split("\r\n") if line.startswith("content-length"))
        await reader.readexactly(length)


async def half_open(maker, reader, writer):
    """A connection on which nothing is ever said; or that is closed in our direction at once."""
    if secrets.randbelow(2):
        writer.write_eof()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(reader.read(1), 3)


async def huge_headers(maker, reader, writer):
    """A header that never ends."""
    writer.write(f"GET /mcp HTTP/1.1\r\nHost: {maker.host}\r\nX-Huge: ".encode())
    for _ in range(1000):
        writer.write(b"x" * 65536)
        await writer.drain()


async def deep_json(maker, reader, writer):
    """Four megabytes of brackets."""
    writer.write(post(maker, b"[" * (MEGABYTES_4 - 1)))
    await writer.drain()
    await reader.readuntil(b"\r\n\r\n")


async def api_slow_headers(maker, reader, writer):
    """The same at the API."""
    await slow_headers(maker, reader, writer)


async def api_stalled_body(maker, reader, writer):
    """A login whose body stops before its end."""
    head = f"POST /api/v1/auth/login HTTP/1.1\r\nHost: {maker.host}\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
    writer.write(head.encode() + b" " * 900_000)
    await writer.drain()
    await asyncio.wait_for(reader.read(1), 5)


async def api_unread_answers(maker, reader, writer):
    """Thousands of questions in a row, and no answer read."""
    writer.write(f"GET /metrics HTTP/1.1\r\nHost: {maker.host}\r\n\r\n".encode() * 5000)
    await asyncio.sleep(SECONDS)


async def unread_answers(maker, reader, writer):
    """The same at the gateway, with answers of some size."""
    ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    writer.write(post(maker, ask) * 5000)
    await asyncio.sleep(SECONDS)


async def chunks(maker, reader, writer):
    """A body of chunks of one byte each, for as long as it is taken."""
    writer.write(post(maker, b"", headers=[("Transfer-Encoding", "chunked")], length=False))
    for _ in range(10_000):
        writer.write(b"1\r\n[\r\n" * 100)
        await writer.drain()
        await asyncio.sleep(hostile_http2.PAUSE_SECONDS)


KINDS = [
    slow_headers,
    slow_body,
    stalled_body,
    abandoned_streams,
    unknown_tokens,
    half_open,
    huge_headers,
    deep_json,
    unread_answers,
    chunks,
    api_slow_headers,
    api_stalled_body,
    api_unread_answers,
]
