"""MCP servers that do not come to an end, or that say what is not meant for eyes.

As a program it is the first of them, says where, and ends with its standard input: what it pours is not to hold up the test.
"""

import contextlib
import json
import sys
import time

import corpus
from counted import Counted, Handler

#: They stop by themselves some time: a test is over by then.
SECONDS = 90
PAUSE_SECONDS = 0.05
#: What each tool of the endless server does with a call.
TOOLS = [
    "comments",
    "flood-of-comments",
    "foreign-progress",
    "list-changes",
    "pings",
    "questions",
    "dripping-json",
    "endless-json",
    "endless-event",
    "endless-data",
    "dripping-event",
    "endless-head",
    "dripping-head",
    "continues",
    "endless-chunk-size",
    "zipped",
    "pours",
]
#: Those that say little.
QUIET = ["comments", "dripping-json", "dripping-event", "dripping-head", "zipped"]


class Endless(Handler):
    """Its tools answer without an end, each in its way."""

    tools = [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]

    def call(self, message, echo):
        name = message["params"]["name"]
        self.close_connection = True
        with contextlib.suppress(OSError):
            getattr(self, name.replace("-", "_"))(message)

    def begin(self, kind):
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.wfile.write(head.encode())

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def again_and_again(self, write, data, pause=0.0):
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            write(data)
            if pause:
                time.sleep(pause)

    def events(self, message, pause=0.0, count=100):
        """Many events at a time, or one now and then."""
        self.begin("text/event-stream")
        event = f"data: {json.dumps(message)}\n\n".encode()
        self.again_and_again(self.chunk, event if pause else event * count, pause)

    def comments(self, _):
        self.begin("text/event-stream")
        self.again_and_again(self.chunk, b": here\n\n", PAUSE_SECONDS)

    def flood_of_comments(self, _):
        self.begin("text/event-stream")
        self.again_and_again(self.chunk, b": here\n\n" * 1000)

    def foreign_progress(self, _):
        params = {"progressToken": "somebody-else", "progress": 1}
        self.events({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})

    def list_changes(self, _):
        self.events({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})

    def pings(self, _):
        self.events({"jsonrpc": "2.0", "id": 1, "method": "ping"})

    def questions(self, _):
        self.events({"jsonrpc": "2.0", "id": 1, "method": "roots/list"})

    def pours(self, message):
        """Progress of the very call, 16 KiB each."""
        token = message["params"]["_meta"]["progressToken"]
        params = {"progressToken": token, "progress": 1, "message": "x" * (16 << 10)}
        self.events({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}, count=8)

    def dripping_json(self, _):
        self.begin("application/json")
        self.again_and_again(self.chunk, b" ", PAUSE_SECONDS)

    def endless_json(self, message):
        self.begin("application/json")
        self.chunk(b'{"jsonrpc":"2.0","id":%d,"result":{"x":"' % message["id"])
        self.again_and_again(self.chunk, b"x" * 65536)

    def endless_event(self, _):
        self.begin("text/event-stream")
        self.chunk(b"data: ")
        self.again_and_again(self.chunk, b"x" * 65536)

    def endless_data(self, _):
        self.begin("text/event-stream")
        self.again_and_again(self.chunk, b"data:\n" * 10_000)

    def dripping_event(self, _):
        self.begin("text/event-stream")
        self.again_and_again(self.chunk, b"data: x\n", PAUSE_SECONDS)

    def endless_head(self, _):
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        self.again_and_again(self.wfile.write, b"X-More: " + b"x" * 1000 + b"\r\n")

    def dripping_head(self, _):
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        self.again_and_again(self.wfile.write, b"X: y\r\n", PAUSE_SECONDS)

    def continues(self, _):
        self.again_and_again(self.wfile.write, b"HTTP/1.1 100 Continue\r\n\r\n" * 10)

    def endless_chunk_size(self, _):
        self.begin("application/json")
        self.again_and_again(self.wfile.write, b"0" * 1000)

    def zipped(self, _):
        body = b"\x1f\x8b\x08\0\0\0\0\0\0\3" + b"\0" * 1000
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class EndlessPages(Handler):
    """There is always another page."""

    pages = 0

    def result(self, message, result):
        if "tools" in result:
            EndlessPages.pages += 1
            tools = [{"name": f"page-{EndlessPages.pages}", "inputSchema": {"type": "object"}}]
            result = {"tools": tools, "nextCursor": str(EndlessPages.pages)}
        super().result(message, result)


class EndlessList(Endless):
    """The list itself does not end."""

    def result(self, message, result):
        if "tools" not in result:
            return super().result(message, result)
        self.close_connection = True
        self.begin("application/json")
        self.chunk(b'{"jsonrpc":"2.0","id":%d,"result":{"tools":[{"name":"a"}' % message["id"])
        with contextlib.suppress(OSError):
            self.again_and_again(self.chunk, b',{"name":"a"}' * 1000)


class EndlessHello(Endless):
    """It does not come to the point."""

    def result(self, message, result):
        if "serverInfo" not in result:
            return super().result(message, result)
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.flood_of_comments(message)


#: Texts for people that steer a terminal, hide, or turn around what stands beside them.
HOSTILE_TEXT = "\x1b[2J\x1b[31mred\x9b0m \x1b]0;owned\x07 \u202etxet desrever\u202c \u200bhidden\u200d \u2066a\u2069\r\nsecond line\0"


class Hostile(Handler):
    """Names that are not for eyes (`corpus/hostile_names.txt`), and texts that are not for terminals."""

    names = [name for _, name in corpus.hostile_names()]
    tools = [{"name": name, "title": HOSTILE_TEXT, "description": HOSTILE_TEXT, "inputSchema": {"type": "object", "title": HOSTILE_TEXT}} for name in names]

    def result(self, message, result):
        if "serverInfo" in result:
            result["capabilities"] |= {"prompts": {}, "resources": {}}
            result["serverInfo"] = {"name": HOSTILE_TEXT, "version": HOSTILE_TEXT}
            result["instructions"] = HOSTILE_TEXT
        super().result(message, result)

    def error(self, message, code, text):
        """What it does not know is a list of prompts or resources."""
        if message["method"] == "prompts/list":
            return self.result(message, {"prompts": [{"name": name, "description": HOSTILE_TEXT} for name in self.names]})
        if message["method"] == "resources/list":
            return self.result(message, {"resources": [{"uri": f"x:{name}", "name": HOSTILE_TEXT} for name in self.names]})
        if message["method"] == "resources/templates/list":
            return self.result(message, {"resourceTemplates": []})
        super().error(message, code, text)

    def call(self, message, echo):
        self.error(message, -32000, HOSTILE_TEXT)


class HostileHello(Handler):
    """It refuses in words that steer a terminal."""

    def result(self, message, result):
        super().error(message, -32000, HOSTILE_TEXT)


if __name__ == "__main__":
    print(Counted(behaves=Endless).url, flush=True)
    sys.stdin.read()
