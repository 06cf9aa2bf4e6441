"""The Python SDK's client as a program: one request per line on standard input, one answer per line on standard output.

A request is {"id", "op", "session", ...}; an answer {"id", "result" | "error", "code", "http"}, where `http` lists the status
of every HTTP answer that the session has had since the last request. Each session lives in a task of its own, because the
SDK's streams must be closed by the task that opened them.

Usage: python_client.py legacy|auto
"""

import asyncio
import json
import sys

import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

MODE = sys.argv[1]
SECONDS_MAX = 20


def plain(result):
    return result.model_dump(by_alias=True, mode="json", exclude_none=True)


class Session:
    """One connection to one gateway with one token."""

    def __init__(self):
        self.requests = asyncio.Queue()
        self.statuses = []

    async def status(self, response):
        self.statuses.append(response.status_code)

    async def live(self, opening):
        """Opens, serves requests until one of them is `close`, and closes."""
        headers = {"Authorization": f"Bearer {opening['token']}"} if opening.get("token") else {}
        try:
            async with httpx2.AsyncClient(
                headers=headers, timeout=SECONDS_MAX, event_hooks={"response": [self.status]}
            ) as http:
                transport = streamable_http_client(opening["url"], http_client=http)
                client = Client(transport, mode=MODE, read_timeout_seconds=SECONDS_MAX, cache=None)
                async with client:
                    self.answer(opening, {"protocol": client.protocol_version})
                    opening = None
                    await self.serve(client)
        except BaseException as error:  # noqa: B902: the SDK wraps what went wrong into groups
            if opening is None:
                raise
            self.refuse(opening, error)

    async def serve(self, client):
        while True:
            request = await self.requests.get()
            if request["op"] == "close":
                self.answer(request, {})
                return
            try:
                self.answer(request, await self.carry_out(client, request))
            except Exception as error:
                self.refuse(request, error)

    async def carry_out(self, client, request):
        match request["op"]:
            case "tools":
                return await pages(client.list_tools, "tools")
            case "call":
                progress = []

                async def note(done, total, message):
                    progress.append(done)

                called = await client.call_tool(request["name"], request["arguments"], progress_callback=note)
                return {**plain(called), "progress": progress}
            case "resources":
                return await pages(client.list_resources, "resources")
            case "read":
                return plain(await client.read_resource(request["uri"]))
            case "prompts":
                return await pages(client.list_prompts, "prompts")
            case "prompt":
                return plain(await client.get_prompt(request["name"], request["arguments"]))
        raise ValueError(f"unknown op {request['op']}")

    def answer(self, request, result):
        write({"id": request["id"], "result": result, "http": self.drained()})

    def refuse(self, request, error):
        error = innermost(error)
        code = error.error.code if isinstance(error, MCPError) else None
        write({"id": request["id"], "error": f"{type(error).__name__}: {error}", "code": code, "http": self.drained()})

    def drained(self):
        statuses, self.statuses = self.statuses, []
        return statuses


async def pages(call, kind):
    found, cursor = [], None
    while True:
        page = plain(await call(cursor=cursor))
        found += page[kind]
        cursor = page.get("nextCursor")
        if cursor is None:
            return found


def innermost(error):
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def write(answer):
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def main():
    sessions = {}
    tasks = set()
    lines = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        request = json.loads(line)
        if request["op"] == "open":
            session = sessions[request["session"]] = Session()
            task = asyncio.create_task(session.live(request))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        else:
            sessions[request["session"]].requests.put_nowait(request)


asyncio.run(main())
