"""Two thousand slow clients at once: half of them dribble a head, half a body, from several addresses. An honest client is answered all
the while, the node stays small, strangers are sent away before their bodies come, and nothing is left of any of them.

What an honest client's p99 becomes meanwhile is measured by the benchmark (`bench --only slow`).
"""

import asyncio
import contextlib
import time

import raw
from bad_input import MEGABYTES_4
from bad_request import Maker
from checks import same
from hostile_clients import descriptors, honest, left, resident_peak

ALONE = True
PROJECT = "slow-clients"
CLIENTS = 2000
#: One address has a quarter of a node's places.
ADDRESSES = 16
SECONDS = 15
OPEN_SECONDS_MAX = 60
PAUSE_SECONDS = 1.0
RESIDENT_BYTES_MAX = 256 << 20
ANSWER_SECONDS_MAX = 20
#: Bodies so small that they need no room among the larger ones, and as large as may be.
SIZES = [100, 8_000, MEGABYTES_4]
SENT_AWAY_SECONDS_MAX = 20


async def run(at_hand):
    await raw.apart(at_hand.cluster.mcpctl, "create", "project", PROJECT)
    token = await raw.apart(at_hand.cluster.mint, "slow", PROJECT)
    node = at_hand.cluster.nodes[2]
    maker = Maker(node, token)
    before, open_now = descriptors(node), [0]
    end = asyncio.get_running_loop().time() + OPEN_SECONDS_MAX + SECONDS
    clients = [asyncio.create_task(keep_on(maker, number, open_now, end)) for number in range(CLIENTS)]
    try:
        with at_hand.checks.check(f"{CLIENTS} slow clients are connected at once"):
            async with asyncio.timeout(OPEN_SECONDS_MAX):
                while open_now[0] < CLIENTS:
                    await asyncio.sleep(0.05)
        slowest, answers = await honest_ones(node, token, open_now)
        open_for = [count for _, count in answers]
    finally:
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    with at_hand.checks.check(f"beside {CLIENTS} slow clients honest ones are answered, by the gateway and the API"):
        wrong = [status for status, _ in answers if status != 200]
        print(f"# {len(answers)} honest answers, the slowest in {slowest:.2f} s; {min(open_for)} to {max(open_for)} slow clients open", flush=True)
        assert answers and not wrong, f"{len(answers)} answers, {len(wrong)} of them not 200: {wrong[:5]}"
        assert slowest < ANSWER_SECONDS_MAX, f"the slowest took {slowest:.1f} s"
    with at_hand.checks.check(f"beside {CLIENTS} slow clients the node has never held more than {RESIDENT_BYTES_MAX >> 20} MiB"):
        peak = resident_peak(node)
        print(f"# peak {peak >> 20} MiB", flush=True)
        assert peak < RESIDENT_BYTES_MAX, f"it held {peak >> 20} MiB"
    with at_hand.checks.check(f"nothing is left of {CLIENTS} slow clients"):
        await left(node, before)
    await strangers(at_hand, node, maker)


async def honest_ones(node, token, open_now):
    """The slowest answer, and every answer's status with how many slow clients were there."""
    slowest, answers = 0.0, []
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        at_once, statuses = await honest(node, token, time.monotonic() + 0.2, PROJECT)
        slowest = max(slowest, at_once)
        answers += [(status, open_now[0]) for status in statuses]
    return slowest, answers


async def keep_on(maker, number, open_now, end):
    """One slow client, that comes again whenever it is thrown out."""
    loop = asyncio.get_running_loop()
    host, port = maker.host.rsplit(":", 1)
    local = (f"127.0.0.{2 + number % ADDRESSES}", 0)
    while loop.time() < end:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            _, writer = await asyncio.open_connection(host, int(port), local_addr=local)
            open_now[0] += 1
            try:
                await dribble(maker, number, writer)
            finally:
                open_now[0] -= 1
                writer.transport.abort()
        await asyncio.sleep(0.1)


async def dribble(maker, number, writer):
    """A few bytes a second, of a head or of a body, until the node has had enough."""
    if number % 2:
        writer.write(f"POST /projects/{PROJECT}/mcp HTTP/1.1\r\nHost: {maker.host}\r\n".encode())
        piece = b"X-More: x\r\n"
    else:
        size = SIZES[number // 2 % len(SIZES)]
        writer.write(maker.post(b"", path=f"/projects/{PROJECT}/mcp", headers=[("Content-Length", str(size))], length=False))
        piece = b" "
    while True:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(PAUSE_SECONDS)


async def strangers(at_hand, node, maker):
    """A small body that does not come costs a place among the requests: nobody has one for long whom the node does not know."""
    sent = maker.post(b"", path=f"/projects/{PROJECT}/mcp", headers=[("Content-Length", "100")], length=False, token="mcpctl_pat_" + "3" * 43)
    host, port = maker.host.rsplit(":", 1)
    with at_hand.checks.check("a stranger whose body does not come is refused without it: 401"):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(sent)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SENT_AWAY_SECONDS_MAX)
            same(head.split(b"\r\n")[0], b"HTTP/1.1 401 Unauthorized", "the status line")
        finally:
            writer.transport.abort()
