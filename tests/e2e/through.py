"""Every tool, resource and prompt of every upstream, with every client, through every node."""

import asyncio
import json

from checks import same
from fixture import PROJECT, SKIPPED, VARYING, arguments_for, called

PROMPT_ARGUMENTS = {
    "city": "Warsaw",
    "department": "Engineering",
    "name": "Alice",
    "resourceType": "Text",
    "resourceId": "1",
}


async def run(fixture):
    await asyncio.gather(*(with_peer(fixture, peer) for peer in fixture.peers))


async def with_peer(fixture, peer):
    for node in fixture.cluster.nodes:
        await Passage(fixture, peer, node).run()


class Passage:
    """One client on its way through one node."""

    def __init__(self, fixture, peer, node):
        self.fixture = fixture
        self.peer = peer
        self.where = f"{peer.name} through {node.name}"
        self.url = node.mcp(PROJECT)

    async def run(self):
        check = self.fixture.checks.check
        session = None
        with check(f"{self.where}: connects with {self.peer.protocol}"):
            session = await self.peer.open(self.url, self.fixture.token)
            same(session.protocol, self.peer.protocol, "protocol version")
        if session is None:
            return
        with check(f"{self.where}: lists every tool as its server describes it"):
            await self.lists(session)
        for server in self.fixture.servers:
            with check(f"{self.where}: calls every tool of {server.name}"):
                await self.calls(session, server)
        for server in self.fixture.servers:
            if any(tool["name"] == "trigger-long-running-operation" for tool in server.tools):
                with check(f"{self.where}: progress of {server.name} arrives in order"):
                    await self.progresses(session, server)
        with check(f"{self.where}: reads every resource"):
            await self.reads(session)
        with check(f"{self.where}: gets every prompt"):
            await self.prompts(session)
        with check(f"{self.where}: closes"):
            await session.close()

    async def lists(self, session):
        def shape(name, tool):
            return json.dumps([name, tool.get("description"), tool["inputSchema"]], sort_keys=True)

        wanted = {f"{s.name}__{tool['name']}": tool for s in self.fixture.servers for tool in s.tools}
        wanted = [shape(name, wanted[name]) for name in called(wanted)]
        found = {tool["name"]: tool for tool in await session.ask("tools")}
        found = [shape(name, found[name]) for name in called(found)]
        same(sorted(found), sorted(wanted), "tools")

    async def calls(self, session, server):
        wrong = []
        for tool in server.tools:
            name = tool["name"]
            if name in SKIPPED:
                continue
            try:
                called = await session.call(f"{server.name}__{name}", arguments_for(tool))
                if called.get("isError"):
                    wrong.append(f"{name}: {called['content']}")
                elif name not in VARYING:
                    wanted = server.answers[name]
                    for part in ("content", "structuredContent"):
                        same(called.get(part), wanted.get(part), f"{name}: {part}")
            except Exception as error:
                wrong.append(f"{name}: {error}")
        assert not wrong, "\n".join(wrong)

    async def progresses(self, session, server):
        name = f"{server.name}__trigger-long-running-operation"
        called = await session.call(name, {"duration": 0.2, "steps": 20})
        same(called["progress"], list(range(1, 21)), "progress")

    async def reads(self, session):
        resources = await session.ask("resources")
        assert len(resources) >= 2, f"only {len(resources)} resources are listed"
        for resource in resources:
            # What a call has made is kept by the server's process on one node, and listed for all.
            if resource["uri"].startswith("demo://resource/session/"):
                continue
            read = await session.ask("read", uri=resource["uri"])
            assert read["contents"], f"{resource['uri']} is empty"

    async def prompts(self, session):
        prompts = await session.ask("prompts")
        assert len(prompts) >= 2, f"only {len(prompts)} prompts are listed"
        for prompt in prompts:
            arguments = {a["name"]: PROMPT_ARGUMENTS[a["name"]] for a in prompt.get("arguments", []) if a.get("required")}
            got = await session.ask("prompt", name=prompt["name"], arguments=arguments)
            assert got["messages"], f"{prompt['name']} is empty"
