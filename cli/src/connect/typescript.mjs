import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const transport = new StreamableHTTPClientTransport(new URL("{{url}}"), {
    requestInit: { headers: { Authorization: `Bearer ${process.env.MCPCTL_TOKEN}` } },
});
const client = new Client({ name: "example", version: "1.0.0" });
await client.connect(transport);
for (const tool of (await client.listTools()).tools) {
    console.log(tool.name);
}
await client.close();
