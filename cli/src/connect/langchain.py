import asyncio
import os

from langchain_mcp_adapters.client import MultiServerMCPClient


async def main():
    headers = {"Authorization": f"Bearer {os.environ['MCPCTL_TOKEN']}"}
    client = MultiServerMCPClient({"{{project}}": {"transport": "streamable_http", "url": "{{url}}", "headers": headers}})
    for tool in await client.get_tools():
        print(tool.name)


asyncio.run(main())
