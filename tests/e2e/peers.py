"""The MCP clients that the suite tests with, behind one interface: each a program that takes one request per line."""

import asyncio
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
ANSWER_SECONDS_MAX = 30


class Refused(Exception):
    """The client could not do what it was asked: with the JSON-RPC code, if any, and the HTTP statuses that it saw."""

    def __init__(self, answer):
        super().__init__(f"{answer['error']} (HTTP {answer['http']}, code {answer['code']})")
        self.code = answer["code"]
        self.http = answer["http"]


class Peer:
    """A client program. It holds any number of sessions."""

    def __init__(self, name, protocol, argv):
        self.name = name
        self.protocol = protocol
        self.argv = argv
        self.waiting = {}
        self.number = 0

    async def start(self):
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(*self.argv, stdin=pipe, stdout=pipe, limit=2**24)
        self.reader = asyncio.create_task(self.read())

    async def read(self):
        while line := await self.process.stdout.readline():
            answer = json.loads(line)
            waiting = self.waiting.pop(answer["id"], None)
            if waiting and not waiting.done():
                waiting.set_result(answer)
        for waiting in self.waiting.values():
            if not waiting.done():
                waiting.set_exception(RuntimeError(f"{self.name} ended"))

    async def ask(self, session, op, **what):
        self.number += 1
        waiting = self.waiting[self.number] = asyncio.get_running_loop().create_future()
        request = {"id": self.number, "session": session, "op": op, **what}
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        answer = await asyncio.wait_for(waiting, ANSWER_SECONDS_MAX)
        if "error" in answer:
            raise Refused(answer)
        return answer["result"]

    async def open(self, url, token):
        return await self.open_with(url=url, token=token)

    async def open_with(self, **how):
        self.number += 1
        session = Session(self, f"s{self.number}")
        opened = await session.ask("open", **how)
        session.protocol = opened["protocol"]
        return session

    async def stop(self):
        self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), 5)
        except TimeoutError:
            self.process.kill()


class Session:
    """A connection of a peer to one gateway with one token."""

    def __init__(self, peer, name):
        self.peer = peer
        self.name = name
        self.protocol = None

    async def ask(self, op, **what):
        return await self.peer.ask(self.name, op, **what)

    async def call(self, name, arguments):
        return await self.ask("call", name=name, arguments=arguments)

    async def close(self):
        await self.ask("close")


def all_peers(cache):
    """Both SDKs in both eras. `auto` asks for the modern one first, as a stock client would; a revision is one to insist on."""
    python = [sys.executable, str(HERE / "python_client.py")]
    typescript = ["node", str(HERE / "typescript_client.mjs"), f"{cache}/node"]
    pinned = "2026-07-28"
    return [
        Peer("python legacy", "2025-11-25", [*python, "legacy"]),
        Peer("python modern", "2026-07-28", [*python, "auto"]),
        Peer("typescript legacy", "2025-11-25", [*typescript, "legacy"]),
        Peer("typescript modern", "2026-07-28", [*typescript, "auto"]),
        Peer("typescript pinned", pinned, [*typescript, pinned]),
    ]
