"""Clients that people really use, as a program: one request per line in, one answer per line out, as python_client.py does.

Usage: kinds_client.py KIND, in the environment that has the KIND's packages:
mcp-1 (Python SDK 1.x), sse (its HTTP+SSE client, which is what vLLM uses), stdio (its stdio client, for bridges), fastmcp, langchain, openai-agents.

`open` takes the URL of the endpoint and the token; for stdio `argv` and `env` instead. `call` gives text, isError and the progress that came;
`cancel` begins a call and cancels it at its first progress.
"""

import asyncio
import contextlib
import json
import sys

KIND = sys.argv[1]
SECONDS_MAX = 20


def texts(content):
    return " ".join(getattr(part, "text", None) or "" for part in content)


class Sdk:
    """A `ClientSession` of the SDK, 1.x."""

    def __init__(self, session):
        self.session = session

    async def tools(self):
        return [tool.name for tool in (await self.session.list_tools()).tools]

    async def call(self, name, arguments, progress):
        called = await self.session.call_tool(name, arguments, progress_callback=progress)
        return texts(called.content), bool(called.isError)

    async def cancel(self, name, arguments):
        from mcp.types import CancelledNotification, CancelledNotificationParams, ClientNotification

        begun = asyncio.Event()

        async def note(*_progress):
            begun.set()

        number = self.session._request_id
        call = asyncio.create_task(self.session.call_tool(name, arguments, progress_callback=note))
        await begun.wait()
        params = CancelledNotificationParams(requestId=number, reason="e2e")
        told = CancelledNotification(method="notifications/cancelled", params=params)
        await self.session.send_notification(ClientNotification(told))
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)


@contextlib.asynccontextmanager
async def sdk(streams):
    from mcp import ClientSession

    async with streams as (read, write, *_), ClientSession(read, write) as session:
        await session.initialize()
        yield Sdk(session)


def bearer(request):
    return {"Authorization": f"Bearer {request['token']}"}


def mcp_1(request):
    from mcp.client.streamable_http import streamablehttp_client

    return sdk(streamablehttp_client(request["url"], headers=bearer(request), timeout=SECONDS_MAX))


def sse(request):
    from mcp.client.sse import sse_client

    # As vLLM does it: the token stands in the URL, and no header is set.
    scheme, rest = request["url"].split("://")
    return sdk(sse_client(f"{scheme}://token:{request['token']}@{rest.removesuffix('/mcp')}/sse"))


def stdio(request):
    from mcp.client.stdio import StdioServerParameters, stdio_client

    command, *args = request["argv"]
    return sdk(stdio_client(StdioServerParameters(command=command, args=args, env=request["env"]), errlog=sys.stderr))


class FastMcp:
    def __init__(self, client):
        self.client = client

    async def tools(self):
        return [tool.name for tool in await self.client.list_tools()]

    async def call(self, name, arguments, progress):
        called = await self.client.call_tool_mcp(name, arguments, progress_handler=progress)
        return texts(called.content), bool(called.is_error if hasattr(called, "is_error") else called.isError)

    async def cancel(self, name, arguments):
        begun = asyncio.Event()

        async def note(*_progress):
            begun.set()

        call = asyncio.create_task(self.client.call_tool_mcp(name, arguments, progress_handler=note))
        await begun.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)


@contextlib.asynccontextmanager
async def fastmcp(request):
    from fastmcp import Client

    async with Client(request["url"], auth=request["token"], timeout=SECONDS_MAX) as client:
        yield FastMcp(client)


class LangChain:
    def __init__(self, session, notes):
        self.session, self.notes = session, notes

    async def tools(self):
        from langchain_mcp_adapters.callbacks import Callbacks
        from langchain_mcp_adapters.tools import load_mcp_tools

        async def note(progress, total, message, context):
            self.notes.append(progress)

        self.loaded = {tool.name: tool for tool in await load_mcp_tools(self.session, callbacks=Callbacks(on_progress=note))}
        return list(self.loaded)

    async def call(self, name, arguments, progress):
        from langchain_core.tools import ToolException

        if not hasattr(self, "loaded"):
            await self.tools()
        self.notes.clear()
        try:
            said = await self.loaded[name].ainvoke({"type": "tool_call", "id": "1", "name": name, "args": arguments})
        except ToolException as error:
            return str(error), True
        for step in self.notes:
            await progress(step, None, None)
        return str(said.content), said.status == "error"


@contextlib.asynccontextmanager
async def langchain(request):
    from langchain_mcp_adapters.client import MultiServerMCPClient

    server = {"transport": "streamable_http", "url": request["url"], "headers": bearer(request)}
    async with MultiServerMCPClient({"e2e": server}).session("e2e") as session:
        yield LangChain(session, [])


class OpenaiAgents:
    def __init__(self, server):
        self.server = server

    async def tools(self):
        return [tool.name for tool in await self.server.list_tools()]

    async def call(self, name, arguments, _progress):
        called = await self.server.call_tool(name, arguments)
        return texts(called.content), bool(called.isError)


@contextlib.asynccontextmanager
async def openai_agents(request):
    from agents.mcp import MCPServerStreamableHttp

    params = {"url": request["url"], "headers": bearer(request), "timeout": SECONDS_MAX}
    async with MCPServerStreamableHttp(params=params, client_session_timeout_seconds=SECONDS_MAX) as server:
        yield OpenaiAgents(server)


OPEN = {"mcp-1": mcp_1, "sse": sse, "stdio": stdio, "fastmcp": fastmcp, "langchain": langchain, "openai-agents": openai_agents}


async def live(requests, opening):
    """One connection, in a task of its own: what is opened in a task has to be closed in it."""
    try:
        async with OPEN[KIND](opening) as client:
            write(opening, {"result": {"protocol": None}})
            opening = None
            while (request := await requests.get())["op"] != "close":
                try:
                    write(request, {"result": await asyncio.wait_for(carry_out(client, request), SECONDS_MAX)})
                except Exception as error:
                    refuse(request, error)
            write(request, {"result": {}})
    except BaseException as error:  # noqa: B902: what went wrong comes in groups
        if opening is not None:
            refuse(opening, error)


async def carry_out(client, request):
    match request["op"]:
        case "tools":
            return await client.tools()
        case "call":
            progress = []

            async def note(done, _total=None, _message=None):
                progress.append(done)

            text, is_error = await client.call(request["name"], request["arguments"], note)
            return {"text": text, "isError": is_error, "progress": progress}
        case "cancel":
            await client.cancel(request["name"], request["arguments"])
            return {}
    raise ValueError(f"unknown op {request['op']}")


def refuse(request, error):
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    status = getattr(getattr(error, "response", None), "status_code", None)
    write(request, {"error": f"{type(error).__name__}: {error}", "code": None, "http": [status] if status else []})


def write(request, answer):
    sys.stdout.write(json.dumps({"id": request["id"], **answer}) + "\n")
    sys.stdout.flush()


async def main():
    sessions, tasks = {}, set()
    lines = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        request = json.loads(line)
        if request["op"] == "open":
            requests = sessions[request["session"]] = asyncio.Queue()
            task = asyncio.create_task(live(requests, request))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        else:
            sessions[request["session"]].put_nowait(request)


asyncio.run(main())
