"""`mcpctl mcp stdio` as a client on stdio sees it: a line out, a line in."""

import asyncio
import json
import os

ANSWER_SECONDS_MAX = 30


class Bridge:
    """A bridge to some nodes, with a legacy session."""

    @classmethod
    async def open(cls, cluster, token, project, nodes):
        bridge = cls()
        argv = [f"{cluster.tools}/mcpctl", "mcp", "stdio", "-p", project, "--server", ",".join(node.gateway for node in nodes)]
        env = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "MCPCTL_TOKEN": token}
        pipe = asyncio.subprocess.PIPE
        bridge.process = await asyncio.create_subprocess_exec(*argv, env=env, stdin=pipe, stdout=pipe, stderr=pipe, limit=2**24)
        bridge.number = 0
        client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "e2e", "version": "1"}}
        await bridge.answer(await bridge.ask("initialize", client))
        await bridge.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return bridge

    async def say(self, message):
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        await self.process.stdin.drain()

    async def ask(self, method, params):
        self.number += 1
        await self.say({"jsonrpc": "2.0", "id": self.number, "method": method, "params": params})
        return self.number

    async def call(self, name, arguments):
        return await self.ask("tools/call", {"name": name, "arguments": arguments, "_meta": {"progressToken": "e2e"}})

    async def until(self, wanted):
        """The next message that is wanted."""
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            while line := await self.process.stdout.readline():
                message = json.loads(line)
                if wanted(message):
                    return message
        raise EOFError((await self.process.stderr.read()).decode())

    async def answer(self, number):
        return await self.until(lambda message: message.get("id") == number and "method" not in message)

    async def close(self):
        """Closes its input; gives the exit code."""
        self.process.stdin.close()
        return await asyncio.wait_for(self.process.wait(), ANSWER_SECONDS_MAX)
