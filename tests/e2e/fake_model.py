"""A model endpoint that asks for one tool, once, and then says what the tool answered: enough for a headless Claude Code.

It speaks the Anthropic Messages API, streamed or not. The user's prompt says what to do: `CALL tool {"json": "arguments"}`, where the tool is named
as the MCP server names it.
"""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WANTED = re.compile(r"CALL (\S+) (\{.*?\})(?=\s|$)")


class Model:
    """The endpoint, on a port that is free. `seen` holds the names of the tools that clients offered."""

    def __init__(self):
        self.seen = set()
        model = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_args):
                pass

            def do_GET(self):
                self.say({})

            def do_HEAD(self):
                self.say({})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
                if "count_tokens" in self.path:
                    return self.say({"input_tokens": 1})
                blocks = model.answer(body)
                if not body.get("stream"):
                    return self.say(message(blocks))
                return self.stream(blocks)

            def say(self, value):
                text = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def stream(self, blocks):
                text = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events(blocks)).encode()
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, body):
        """The blocks of the model's next turn."""
        offered = [tool["name"] for tool in body.get("tools", [])]
        self.seen.update(offered)
        answered = results(body)
        if answered:
            return [{"type": "text", "text": "TOOL SAID: " + " | ".join(answered)}]
        wanted = WANTED.search(prompt(body))
        tool = next((name for name in offered if wanted and name.endswith(f"__{wanted[1]}")), None)
        if tool is None:
            return [{"type": "text", "text": f"NO SUCH TOOL AMONG {offered}"}]
        return [{"type": "tool_use", "id": "toolu_e2e", "name": tool, "input": json.loads(wanted[2])}]


def contents(message):
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def prompt(body):
    texts = [block["text"] for m in body["messages"] if m["role"] == "user" for block in contents(m) if block["type"] == "text"]
    return "\n".join(texts)


def results(body):
    """What tools answered: texts, and whether each was an error."""
    found = []
    for block in (block for m in body["messages"] for block in contents(m) if block["type"] == "tool_result"):
        content = block.get("content", "")
        texts = [content] if isinstance(content, str) else [part.get("text", "") for part in content]
        found.append(("ERROR " if block.get("is_error") else "") + " ".join(texts))
    return found


def message(blocks):
    reason = "tool_use" if any(block["type"] == "tool_use" for block in blocks) else "end_turn"
    usage = {"input_tokens": 1, "output_tokens": 1}
    return {
        "id": "msg_e2e", "type": "message", "role": "assistant", "model": "e2e", "content": blocks,
        "stop_reason": reason, "stop_sequence": None, "usage": usage,
    }  # fmt: skip


def events(blocks):
    """The same as a stream."""
    whole = message(blocks)
    yield {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}}
    for at, block in enumerate(blocks):
        if block["type"] == "text":
            start, delta = {**block, "text": ""}, {"type": "text_delta", "text": block["text"]}
        else:
            start, delta = {**block, "input": {}}, {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        yield {"type": "content_block_start", "index": at, "content_block": start}
        yield {"type": "content_block_delta", "index": at, "delta": delta}
        yield {"type": "content_block_stop", "index": at}
    yield {"type": "message_delta", "delta": {"stop_reason": whole["stop_reason"], "stop_sequence": None}, "usage": whole["usage"]}
    yield {"type": "message_stop"}
