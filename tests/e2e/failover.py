"""The leader is killed with -9 under a loop of calls and writes. Nothing that was acknowledged may be missing afterwards."""

import asyncio
import http.client
import signal
import time

import raw
from bridge import Bridge
from checks import same
from fixture import PROJECT
from refusals import ECHO, HELLO, last_word
from revocation import IN_FLIGHT as LONG

#: Longest time without an answered call on a survivor. The leases are made to outlast an election.
GAP_SECONDS_MAX = 3
WRITE_SECONDS_MAX = 15
BEFORE = 10
AFTER = 20


class Load:
    """Calls through every node and writes through every node, one after the other each, until told to stop."""

    def __init__(self, fixture):
        self.fixture = fixture
        self.cluster = fixture.cluster
        self.stopping = False
        self.down = None
        self.calls = {node.name: [] for node in self.cluster.nodes}
        self.wrong = []
        self.minted = {}
        self.revoked = {}
        self.unknown = 0
        #: When each acknowledged write was sent, and when it was answered.
        self.written_at = []

    async def call_loop(self, node):
        """Notes when a call was answered. 503 is a way to say `not now`; anything else is wrong."""
        while not self.stopping:
            try:
                answer = await raw.apart(raw.call, node.mcp(PROJECT), self.fixture.token, ECHO, HELLO, seconds=5)
            except (OSError, http.client.HTTPException) as error:
                if self.down is not node:
                    self.wrong.append(f"{node.name}: {error!r}")
                await asyncio.sleep(0.05)
                continue
            if answer.status == 200 and "result" in answer.message:
                self.calls[node.name].append(time.monotonic())
            elif answer.status == 503:
                await asyncio.sleep(0.05)
            else:
                self.wrong.append(f"{node.name}: {answer}")

    async def write_loop(self, writer, revokes):
        """Mints tokens, and one writer revokes every other one. What was answered counts; what was not may have happened or not.

        A revoke after the kill waits until the dead leader's lease has run out; minting goes on beside it.
        """
        number = 0
        while not self.stopping:
            number += 1
            name = f"kept-{writer}-{number}"
            body = {"name": name, "project": PROJECT, "roleBindings": [{"role": "run", "resource": "servers"}]}
            minted = await self.write(number, "mcptokens", body)
            if minted is None:
                continue
            token = minted.json["token"]
            if not revokes or number % 2:
                self.minted[name] = token
            elif await self.write(number, f"mcptokens/{minted.json['id']}/revoke", {}):
                self.revoked[name] = token
            # A revoke that was not answered may have happened or not: nothing can be said about its token.

    async def write(self, number, path, body):
        node = self.cluster.nodes[number % len(self.cluster.nodes)]
        sent = time.monotonic()
        try:
            answer = await raw.apart(self.cluster.api, node, "POST", path, body, seconds=10)
        except (OSError, http.client.HTTPException):
            self.unknown += 1
            return None
        if answer.status in (200, 201, 202):
            self.written_at.append((sent, time.monotonic()))
            return answer
        if answer.status not in (503, 504):
            self.wrong.append(f"write on {node.name}: {answer}")
        self.unknown += 1
        await asyncio.sleep(0.05)
        return None

    async def written(self, count, since):
        """Waits until this many writes that were sent after a moment are acknowledged; gives the time of the first answer."""
        async with asyncio.timeout(WRITE_SECONDS_MAX + count):
            while True:
                after = [answered for sent, answered in self.written_at if sent > since]
                if len(after) >= count:
                    return min(after)
                await asyncio.sleep(0.02)


async def run(fixture):
    cluster, check = fixture.cluster, fixture.checks.check
    load = Load(fixture)
    loops = [load.call_loop(node) for node in cluster.nodes] + [load.write_loop("mint", False), load.write_loop("revoke", True)]
    tasks = [asyncio.create_task(loop) for loop in loops]
    try:
        await load.written(BEFORE, 0)
        leader = await cluster.leader()
        survivors = [node for node in cluster.nodes if node is not leader]
        load.down = leader
        bridge = await Bridge.open(cluster, fixture.token, PROJECT, [leader, *survivors])
        long = await bridge.call(LONG, {"duration": 60, "steps": 120})
        await bridge.until(lambda message: message.get("method") == "notifications/progress")
        killed_at = time.monotonic()
        leader.signal(signal.SIGKILL)
        with check("the bridge says that the call on the killed node may have had an effect, and goes on with its session"):
            lost = await bridge.answer(long)
            same((lost["error"]["code"], lost["error"]["data"]["effect"]), (-32010, "possible"), lost)
            said = await bridge.answer(await bridge.call(ECHO, HELLO))
            assert "result" in said, said
            print(f"# the bridge's first answer {time.monotonic() - killed_at:.2f} s after the kill")
            same(await bridge.close(), 0, "exit code")
        with check(f"the leader {leader.name} is killed with -9, and writes go on"):
            first = await load.written(1, killed_at)
            print(f"# first acknowledged write {first - killed_at:.2f} s after the kill")
            await load.written(AFTER, killed_at)
        with check("the survivors have another leader"):
            assert await cluster.leader(among=survivors) in survivors
        with check("mcpctl works although a node is down"):
            assert "full" in await raw.apart(cluster.mcpctl, "get", "mcptokens")
        with check(f"{leader.name} is started again by the line of dev and gets a lease"):
            await raw.apart(cluster.restart, leader)
            await cluster.ready(leader)
        with check("writes go on after its return"):
            await load.written(AFTER, time.monotonic())
        survived_until = time.monotonic()
    finally:
        load.stopping = True
        await asyncio.gather(*tasks)
    for node in survivors:
        with check(f"calls through {node.name} went on all the time"):
            moments = [killed_at, *(at for at in load.calls[node.name] if killed_at < at < survived_until), survived_until]
            gap = max(later - earlier for earlier, later in zip(moments, moments[1:]))
            print(f"# {len(moments) - 2} calls through {node.name}, longest gap {gap:.2f} s")
            assert gap < GAP_SECONDS_MAX, f"no call was answered for {gap:.2f} s"
    with check("nothing but `not now` was answered meanwhile"):
        assert not load.wrong, "\n".join(load.wrong)
    print(f"# {len(load.minted)} minted, {len(load.revoked)} revoked, {load.unknown} writes without an answer")
    await nothing_missing(fixture, load)


async def nothing_missing(fixture, load):
    """Every acknowledged token works on every node, every acknowledged revoke holds on every node."""
    for node in fixture.cluster.nodes:
        url = node.mcp(PROJECT)
        with fixture.checks.check(f"{node.name} admits every token that was minted with an acknowledged answer"):
            await all_answer(url, load.minted, 200)
        with fixture.checks.check(f"{node.name} refuses every token whose revoke was acknowledged"):
            await all_answer(url, load.revoked, 401)
    with fixture.checks.check("the list of tokens shows every one of them"):
        items = (await raw.apart(fixture.cluster.api, fixture.cluster.nodes[0], "GET", "mcptokens?limit=1000")).json["items"]
        listed = {item["name"]: item["status"] for item in items}
        wanted = {**dict.fromkeys(load.minted, "active"), **dict.fromkeys(load.revoked, "revoked")}
        same({name: listed.get(name) for name in wanted}, wanted, "tokens")


async def all_answer(url, tokens, status):
    assert tokens, "there is none: this run proves nothing"
    answers = await asyncio.gather(*(last_word(raw.mcp, url, token, "tools/list") for token in tokens.values()))
    wrong = {name: answer for name, answer in zip(tokens, answers) if answer.status != status}
    assert not wrong, wrong
