"""A session that nobody uses ends: 404 with `-32001` on every node, as a session that never was.

A minute is the shortest idleness that a project may ask for, and a node grants two more to a session whose token the cluster may have
seen elsewhere. So the session is opened early, while other phases run, and looked at late. Another one is used all the while.
"""

import asyncio
import json
import time

import raw
from bad_request import INITIALIZE, PING, Maker, Row, check
from counted import Counted

#: It sets up what it needs itself.
ALONE = True
PROJECT = "aged-sessions"
IDLE_SECONDS = 60
#: What a node waits longer, because it hears late of what a token does elsewhere; and a second for clocks that count in whole ones.
AGED_SECONDS = IDLE_SECONDS + 120 + 1
USED_EVERY_SECONDS = 5


class Aging:
    """Two sessions of one age. `idle` is let alone."""

    def __init__(self, at_hand):
        self.node = at_hand.cluster.nodes[0]
        spec = {"limits": {"sessionIdleSeconds": IDLE_SECONDS}}
        at_hand.cluster.mcpctl("apply", "-f", "-", given=json.dumps({"kind": "project", "metadata": {"name": PROJECT}, "spec": spec}))
        self.tokens = [at_hand.cluster.mint(name, PROJECT) for name in ("idle", "used")]
        self.idle, self.used = (self.opened(token) for token in self.tokens)
        # Behind both answers: the node has noted their last use before.
        self.opened_at = time.monotonic()

    def opened(self, token):
        return raw.send("POST", self.node.mcp(PROJECT), {"Authorization": f"Bearer {token}"}, json.dumps(INITIALIZE)).headers["mcp-session-id"]

    def use(self):
        fields = {"Authorization": f"Bearer {self.tokens[1]}", "Mcp-Session-Id": self.used}
        raw.send("POST", self.node.mcp(PROJECT), fields, json.dumps(PING))

    async def keep_in_use(self):
        while True:
            try:
                await raw.apart(self.use)
            except OSError:
                pass
            await asyncio.sleep(USED_EVERY_SECONDS)


async def begin(at_hand):
    """Opens the two, once."""
    if not hasattr(at_hand, "aging"):
        at_hand.aging = await raw.apart(Aging, at_hand)
        at_hand.aging.user = asyncio.create_task(at_hand.aging.keep_in_use())


async def run(at_hand):
    await begin(at_hand)
    aging = at_hand.aging
    # Looking would be using: this waits for a time and for nothing else.
    await asyncio.sleep(max(0.0, aging.opened_at + AGED_SECONDS - time.monotonic()))
    aging.user.cancel()
    await raw.apart(judge, at_hand, aging)


def judge(at_hand, aging):
    path = f"/projects/{PROJECT}/mcp"
    nobody = Counted()
    try:
        for node in at_hand.cluster.nodes:
            maker = Maker(node, aging.tokens[0])
            for method, body in (("POST", PING), ("GET", b""), ("DELETE", b"")):
                sent = maker.post(body, path=path, headers=[("Mcp-Session-Id", aging.idle)], length=method == "POST", method=method)
                check(at_hand, node, nobody, Row(f"an expired session on {node.name}, {method}", sent, 404, -32001))
        maker = Maker(aging.node, aging.tokens[1])
        sent = maker.post(PING, path=path, headers=[("Mcp-Session-Id", aging.used)])
        check(at_hand, aging.node, nobody, Row("a session of the same age that was used", sent, 200, says=('"result"',)))
    finally:
        nobody.close()
