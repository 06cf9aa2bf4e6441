"""An MCP server over streamable HTTP that counts the calls that reach it, keeps what it was sent, and misbehaves on demand."""

import contextlib
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: Longer than the response deadline that its servers are given.
SLOW_SECONDS = 4
#: More than a gateway takes from an upstream (16 MiB).
MUCH_BYTES = 17 << 20
#: Its tools, and what each does with a call.
TOOLS = ["echo", "other", "slow", "rubbish", "much", "hangup", "fails", "refuses", "mangled"]


class Counted:
    """The server, on a port of its own, until it is closed."""

    def __init__(self, host="127.0.0.1", redirect_to=None, behaves=None):
        """`redirect_to`: it sends everybody there. `behaves`: a handler that is more than [Handler]."""
        self.calls = 0
        self.seen = []
        self.lock = threading.Lock()
        handler = type("Counting", (behaves or Handler,), {"counted": self, "redirect_to": redirect_to})
        self.server = Server((host, 0), handler)
        self.url = f"http://{host}:{self.server.server_address[1]}/mcp"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.server.hang_up()

    def note(self, headers, body, is_call):
        with self.lock:
            self.calls += is_call
            self.seen.append(f"{headers}\n{body}")


class Server(ThreadingHTTPServer):
    """A thread per connection; and none is left when it is down."""

    daemon_threads = True

    def __init__(self, *args):
        super().__init__(*args)
        self.open = set()

    def process_request(self, request, client_address):
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self.open.discard(request)
        super().shutdown_request(request)

    def hang_up(self):
        for request in list(self.open):
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, client_address):
        """A client that hangs up is no error of ours."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    counted = None
    redirect_to = None
    tools = [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]

    def do_POST(self):
        if self.redirect_to:
            return self.lead_away()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        message = json.loads(body)
        method = message.get("method")
        self.counted.note(self.headers, body, method == "tools/call")
        if "id" not in message:
            return self.answer(202, b"")
        if method == "initialize":
            info = {"name": "counted", "version": "1"}
            return self.result(message, {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info})
        if method == "tools/list":
            return self.result(message, {"tools": self.tools})
        if method == "tools/call":
            return self.call(message, f"{self.headers}\n{body}")
        return self.error(message, -32601, "Method not found")

    def do_GET(self):
        self.answer(405, b"")

    do_DELETE = do_GET

    def lead_away(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(307)
        self.send_header("Location", self.redirect_to)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def call(self, message, echo):
        tool = message["params"]["name"]
        if tool == "slow":
            time.sleep(SLOW_SECONDS)
        if tool == "rubbish":
            return self.answer(200, b"<html>this is no JSON</html>")
        if tool == "mangled":
            return self.answer(200, b'{"jsonrpc":"2.0","id":"somebody else\'s","result":{}}')
        if tool == "much":
            return self.answer(200, b'{"jsonrpc":"2.0","id":1,"result":{"x":"' + b"x" * MUCH_BYTES + b'"}}')
        if tool == "hangup":
            self.close_connection = True
            return None
        if tool == "fails":
            return self.answer(500, echo.encode(), "text/plain")
        if tool == "refuses":
            return self.error(message, -32000, echo)
        return self.result(message, {"content": [{"type": "text", "text": json.dumps(message["params"].get("arguments"))}]})

    def result(self, message, result):
        self.answer(200, json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode())

    def error(self, message, code, text):
        error = {"code": code, "message": text}
        self.answer(200, json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": error}).encode())

    def answer(self, status, body, kind="application/json"):
        try:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True

    def log_message(self, *_):
        """Says nothing: what came is kept."""
