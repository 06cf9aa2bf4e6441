// The TypeScript SDK's client as a program, with the same lines in and out as python_client.py.
//
// Usage: node typescript_client.mjs DIR legacy|auto|REVISION, where DIR/node_modules holds the SDK.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [dir, mode] = process.argv.slice(2);
const sdk = createRequire(pathToFileURL(`${dir}/`)).resolve("@modelcontextprotocol/client");
const { Client, StreamableHTTPClientTransport } = await import(pathToFileURL(sdk));

const negotiation = ["legacy", "auto"].includes(mode) ? mode : { pin: mode };

const MS_MAX = 20_000;
const sessions = new Map();

class Session {
    statuses = [];
    /** Requests of one session are carried out one after the other. */
    turn = Promise.resolve();

    async open({ url, token }) {
        const statuses = this.statuses;
        const transport = new StreamableHTTPClientTransport(new URL(url), {
            requestInit: { headers: token ? { Authorization: `Bearer ${token}` } : {} },
            fetch: async (...args) => {
                const response = await fetch(...args);
                statuses.push(response.status);
                return response;
            },
        });
        this.client = new Client({ name: "e2e", version: "1" }, { versionNegotiation: { mode: negotiation } });
        this.client.onerror = () => {};
        await this.client.connect(transport, { timeout: MS_MAX });
        return { protocol: this.client.getNegotiatedProtocolVersion() };
    }

    async carryOut(request) {
        const options = { timeout: MS_MAX };
        const fresh = { timeout: MS_MAX, cacheMode: "bypass" };
        switch (request.op) {
            case "open":
                return this.open(request);
            case "close":
                await this.client.close();
                return {};
            case "tools":
                return (await this.client.listTools({}, fresh)).tools;
            case "call": {
                const progress = [];
                const onprogress = (p) => progress.push(p.progress);
                const called = await this.client.callTool(
                    { name: request.name, arguments: request.arguments },
                    { ...options, onprogress },
                );
                return { ...called, progress };
            }
            case "resources":
                return (await this.client.listResources({}, fresh)).resources;
            case "read":
                return this.client.readResource({ uri: request.uri }, fresh);
            case "prompts":
                return (await this.client.listPrompts({}, fresh)).prompts;
            case "prompt":
                return this.client.getPrompt({ name: request.name, arguments: request.arguments }, options);
        }
        throw new Error(`unknown op ${request.op}`);
    }

    async answer(request) {
        const answer = { id: request.id };
        try {
            answer.result = await this.carryOut(request);
        } catch (error) {
            answer.error = `${error.name}: ${error.message}`;
            answer.code = typeof error.code === "number" ? error.code : null;
        }
        answer.http = this.statuses.splice(0);
        process.stdout.write(`${JSON.stringify(answer)}\n`);
    }
}

for await (const line of createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    if (request.op === "open") sessions.set(request.session, new Session());
    const session = sessions.get(request.session);
    session.turn = session.turn.then(() => session.answer(request));
}
process.exit(0);
