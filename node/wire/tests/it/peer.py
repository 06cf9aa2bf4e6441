"""A small MCP server over stdio, for tests. Argument: the mode it runs in."""
import json
import os
import sys
import threading
import time

mode = sys.argv[1] if len(sys.argv) > 1 else "legacy"
lock = threading.Lock()
cancelled = []


def send(message):
    with lock:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def result(request, value):
    send({"jsonrpc": "2.0", "id": request["id"], "result": value})


def error(request, code, text):
    send({"jsonrpc": "2.0", "id": request["id"], "error": {"code": code, "message": text}})


def text(value):
    return {"content": [{"type": "text", "text": value}]}


def call(request):
    params = request["params"]
    name = params["name"]
    token = params.get("_meta", {}).get("progressToken")
    if name == "echo":
        result(request, text(json.dumps(params, sort_keys=True)))
    elif name == "progress":
        for step in range(20):
            send({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": step}})
            send({"jsonrpc": "2.0", "method": "notifications/progress",
                  "params": {"progressToken": token, "progress": step}})
            time.sleep(0.002)
        result(request, text("done"))
    elif name == "hang":
        pass
    elif name == "die":
        print("going down", file=sys.stderr, flush=True)
        os._exit(3)
    elif name == "cancelled":
        result(request, text(json.dumps(cancelled)))
    elif name == "rubbish":
        with lock:
            print("this is not JSON", flush=True)
        result(request, text("after rubbish"))
    elif name == "flood":
        with lock:
            sys.stdout.write("x" * (1 << 20) + "\n")
            sys.stdout.flush()
    elif name == "changed":
        send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        result(request, text("changed"))
    elif name == "env":
        result(request, text(json.dumps(dict(os.environ))))
    elif name == "ask":
        send({"jsonrpc": "2.0", "id": "s1", "method": "sampling/createMessage", "params": {}})
        send({"jsonrpc": "2.0", "id": "s2", "method": "ping"})
        result(request, text("asked"))
    elif name == "answers":
        result(request, text(json.dumps(answers)))
    else:
        error(request, -32602, "Unknown tool: " + name)


answers = []
print("starting in mode " + mode, file=sys.stderr, flush=True)
if mode == "crash":
    sys.exit(1)
for line in sys.stdin:
    request = json.loads(line)
    method = request.get("method")
    if method is None:
        answers.append(request)
    elif method == "initialize":
        if mode == "modern":
            error(request, -32601, "Method not found")
        else:
            result(request, {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}, "prompts": {}},
                             "serverInfo": {"name": "peer", "version": "1"}})
    elif method == "server/discover":
        if mode == "modern":
            result(request, {"resultType": "complete", "supportedVersions": ["2026-07-28"],
                             "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "public"})
        else:
            error(request, -32601, "Method not found")
    elif method == "tools/list":
        if request["params"].get("cursor") == "2":
            result(request, {"tools": [{"name": "progress", "inputSchema": {"type": "object"}}]})
        else:
            result(request, {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}], "nextCursor": "2"})
    elif method == "notifications/cancelled":
        cancelled.append(request["params"]["requestId"])
    elif method == "tools/call":
        threading.Thread(target=call, args=(request,), daemon=True).start()
    elif method == "ping":
        result(request, {})
    elif "id" in request:
        error(request, -32601, "Method not found")
