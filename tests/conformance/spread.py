"""A small proxy that gives every request to another replica: the load balancer without affinity that MCP allows.

It reads the first part of the path as a label, so that what it saw can be told per scenario, and adds the bearer, of which the
suite knows nothing. One request per connection: so nothing can stick to a replica.
"""

import asyncio
import itertools
from collections import defaultdict

HEAD_BYTES_MAX = 64 << 10


class Spread:
    """The proxy, and which replicas served what. `replicas` are pairs of host and port."""

    def __init__(self, replicas, path, token):
        self.replicas = replicas
        self.path = path
        self.token = token
        # Each label goes its own round, so that requests of one scenario never meet the same replica twice in a row.
        self.turns = defaultdict(lambda: itertools.cycle(range(len(replicas))))
        self.served = defaultdict(list)

    async def start(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, limit=HEAD_BYTES_MAX)
        self.port = self.server.sockets[0].getsockname()[1]

    def url(self, label):
        return f"http://localhost:{self.port}/{label}/mcp"

    async def serve(self, reader, writer):
        upstream = None
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            method, target, version = lines[0].split(" ")
            label = target.split("/")[1]
            replica = next(self.turns[label])
            self.served[label].append((method, replica))
            upstream = await asyncio.open_connection(*self.replicas[replica])
            passed = [line for line in lines[1:-2] if line.split(":")[0].lower() != "connection"]
            ours = ["Connection: close", f"Authorization: Bearer {self.token}"]
            upstream[1].write("\r\n".join([f"{method} {self.path} {version}", *passed, *ours, "", ""]).encode("latin-1"))
            await forward(reader, writer, upstream, lines[1:-2])
        except asyncio.IncompleteReadError:
            pass  # It had nothing more to ask.
        except (OSError, ValueError) as error:
            if upstream is None:
                print(f"# spread: {error!r}")
        finally:
            for end in (writer, upstream and upstream[1]):
                if end:
                    end.close()


async def forward(reader, writer, upstream, headers):
    """Passes on the body, and everything that comes back, until either side has left."""

    async def there():
        length = next((line.split(":")[1] for line in headers if line.lower().startswith("content-length:")), None)
        if length is not None:
            upstream[1].write(await reader.readexactly(int(length)))
            await upstream[1].drain()
        # What comes then is nothing, or the end: the caller has left, so the replica is left too.
        while data := await reader.read(HEAD_BYTES_MAX):
            upstream[1].write(data)
            await upstream[1].drain()

    async def back():
        while data := await upstream[0].read(HEAD_BYTES_MAX):
            writer.write(data)
            await writer.drain()

    ways = [asyncio.create_task(there()), asyncio.create_task(back())]
    done, other = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    for task in other:
        task.cancel()
    await asyncio.gather(*ways, return_exceptions=True)
