import asyncio
import os

from agents.mcp import MCPServerStreamableHttp


async def main():
    headers = {"Authorization": f"Bearer {os.environ['MCPCTL_TOKEN']}"}
    async with MCPServerStreamableHttp(name="{{project}}", params={"url": "{{url}}", "headers": headers}) as server:
        # Agent(name="...", instructions="...", mcp_servers=[server]) uses it.
        for tool in await server.list_tools():
            print(tool.name)


asyncio.run(main())
