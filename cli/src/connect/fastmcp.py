import asyncio
import os

from fastmcp import Client


async def main():
    async with Client("{{url}}", auth=os.environ["MCPCTL_TOKEN"]) as client:
        for tool in await client.list_tools():
            print(tool.name)


asyncio.run(main())
