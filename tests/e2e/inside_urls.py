"""Servers whose URLs lead to what only the gateway's machine, its network or its cloud can see (`corpus/ssrf_urls.txt`), on a node that
allows nothing private: whatever becomes of each, nobody comes to the port that stands for all of it.

The same node may connect to 127.7.7.7, by its settings: a server there is healthy, so the refusals are not for want of trying, and
one that redirects from there to elsewhere on the machine is not followed.
"""

import asyncio
import contextlib
import socket
import threading

import corpus
import raw
from checks import same
from counted import Counted
from own_cluster import OwnCluster

ALONE = True
URLS_MIN = 60
PROBED_SECONDS_MAX = 60
ALLOWED = "127.7.7.7"
SAYS = {
    "never": ["the gateway never connects there"],
    "private": ["is a private address"],
    # What this machine makes of such a name is its own affair: an address that is refused, or none.
    "nowhere": ["the gateway never connects there", "is a private address", "failed to lookup", "lookup address"],
}


class Visitors:
    """A port of every address of this machine, of both families, that counts who comes."""

    def __init__(self):
        self.count = 0
        self.listeners = []
        for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            with contextlib.suppress(OSError):
                listener = socket.socket(family, socket.SOCK_STREAM)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind((host, self.port if self.listeners else 0))
                listener.listen()
                self.listeners.append(listener)
                threading.Thread(target=self.count_those_who_come, args=[listener], daemon=True).start()

    @property
    def port(self):
        return self.listeners[0].getsockname()[1]

    def count_those_who_come(self, listener):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                self.count += 1
                connection.close()

    def close(self):
        for listener in self.listeners:
            listener.close()


async def run(at_hand):
    await raw.apart(everything, at_hand)


def everything(at_hand):
    visitors, allowed = Visitors(), Counted(host=ALLOWED)
    led_away = Counted(host=ALLOWED, redirect_to=f"http://127.0.0.1:{visitors.port}/mcp")
    own = OwnCluster(at_hand.cluster.tools, 1, {"MCPNODE_UPSTREAMS_ALLOW_PRIVATE": "false", "MCPNODE_UPSTREAMS_ALLOWED_NETWORKS": f"{ALLOWED}/32"})
    try:
        node = own.cluster.nodes[0]
        with at_hand.checks.check("the port that counts who comes counts"):
            socket.create_connection(("127.0.0.1", visitors.port)).close()
            until(lambda: visitors.count == 1, "the visitor")
        servers = made(at_hand, own.cluster, node, visitors.port)
        for expected, url, name in servers:
            refused(at_hand, own.cluster, node, expected, url, name)
        with at_hand.checks.check(f"a server at {ALLOWED}, which the node's settings allow, is healthy"):
            same(probed(own.cluster, node, "allowed", allowed.url)["health"], "healthy", "health")
        with at_hand.checks.check("a server there that redirects to elsewhere on this machine is not followed"):
            status = probed(own.cluster, node, "led-away", led_away.url)
            same(status["health"], "unhealthy", status)
            assert "redirect" in status["reason"], status
        called(at_hand, own.cluster, node, [name for _, _, name in servers])
        with at_hand.checks.check(f"nobody has come of {len(servers)} servers"):
            same(visitors.count, 1, "who came, this test among them")
    finally:
        own.stop()
        visitors.close()
        allowed.close()
        led_away.close()


def made(at_hand, cluster, node, port):
    """Makes a server of every URL, and gives those that were taken."""
    urls, taken = list(corpus.ssrf_urls(port)), []
    with at_hand.checks.check(f"there are at least {URLS_MIN} URLs, all different"):
        assert len(set(urls)) == len(urls) >= URLS_MIN, len(urls)
    for number, (expected, url) in enumerate(urls):
        name = f"inside-{number}"
        answer = cluster.api(node, "POST", "servers", {"name": name, "transport": "http", "url": url})
        with at_hand.checks.check(f"a server at {url}: {'refused' if expected == '422' else 'taken'}"):
            same(answer.status, 422 if expected == "422" else 201, answer)
        if answer.status == 201:
            taken.append((expected, url, name))
    return taken


def refused(at_hand, cluster, node, expected, url, name):
    with at_hand.checks.check(f"{url} is not asked: {expected}"):
        status = until(lambda: known(cluster, node, name), f"the probe of {name}")
        same(status["health"], "unhealthy", status)
        assert any(word in status["reason"] for word in SAYS.get(expected, [])), status


def called(at_hand, cluster, node, names):
    """Calls of each, by its endpoint: there is nothing to call."""
    cluster.api(node, "POST", "projects", {"name": "inside", "servers": names})
    token = cluster.mint("inside", "inside", "role:run,resource:servers")
    with at_hand.checks.check("no tool of any of them is listed, and a call of each is refused"):
        same(raw.mcp(node.mcp("inside"), token, "tools/list").message["result"]["tools"], [], "tools")
        for name in names:
            answer = raw.call(f"{node.gateway}/projects/inside/servers/{name}/mcp", token, "echo", {})
            same((answer.status, answer.message["error"]["code"]), (200, -32602), answer)


def probed(cluster, node, name, url):
    answer = cluster.api(node, "POST", "servers", {"name": name, "transport": "http", "url": url})
    same(answer.status, 201, answer)
    return until(lambda: known(cluster, node, name), f"the probe of {name}")


def known(cluster, node, name):
    """What a server's probe has found, once there was one."""
    status = cluster.api(node, "GET", f"servers/{name}").json["status"]
    return None if status["health"] == "unknown" else status


def until(look, what):
    return asyncio.run(wait_for(look, what))


async def wait_for(look, what):
    try:
        async with asyncio.timeout(PROBED_SECONDS_MAX):
            while not (seen := look()):
                await asyncio.sleep(0.05)
            return seen
    except TimeoutError:
        raise AssertionError(f"not within {PROBED_SECONDS_MAX} s: {what}") from None
