"""The lists of bad input beside this file, `corpus/*.txt`: a line each, with what it is to get. `#` begins a comment.

Where each kind of bad input is, with how many there are of it at least:

- header smuggling (length and coding together, two lengths, bare line feeds, folded lines), 35: `bad_input.py`; by the byte, however it is
  cut: `node/src/framing/tests.rs`; HTTP/2, 16: `bad_http2.py`
- header and body disagree, 11: `bad_input.py`
- malformed `Authorization`, 40 and 13: `bad_headers.py`, `bad_input.py`, which looks for look-ups of a wrong shape as well
- `Host` and `Origin`, 30 and 14: `bad_headers.py`, `bad_input.py`
- URLs of what is inside, 89, on a node that allows nothing private: `corpus/ssrf_urls.txt`, `inside_urls.py`; addresses: `node/wire/src/reach/tests.rs`
- JSON bombs, 19, and doubled members, 19: `corpus/json_bombs.txt`, `corpus/duplicate_keys.txt`, `bad_input.py`
- servers that do not come to an end, 17 ways to answer a call and 3 to answer a list: `hostile_upstreams.py`; floods: `node/wire/tests/it/http.rs`
- clients that never read: `hostile_clients.py` (HTTP/1 and 2), `hostile_upstreams.py` (what a server pours)
- slow heads and bodies, 2,000 at once: `slow_clients.py`; who has to be admitted first: `node/gateway/tests/it/bodies.rs`
- hostile names of tools, prompts and resources, 38, and texts: `corpus/hostile_names.txt`, `hostile_upstreams.py`
- another token's session on each replica: `bad_input.py`; expired ones: `aged_sessions.py`
- memory: a control group of 256 MiB in `hostile_clients.py`, the peak of the process in the others
- no contact with a server where access is refused: the counter in `bad_request.py`, and the port of `inside_urls.py`
- the readers of messages, events, lines and session ids under a fuzzer: `tests/fuzz` (`wire/message`, `wire/sse`, `wire/lines`, `gateway/session`)
"""

import json
from pathlib import Path

HERE = Path(__file__).parent / "corpus"


def lines(name):
    """The lines of a list, without comments."""
    text = (HERE / f"{name}.txt").read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def duplicate_keys():
    """What is wrong, HTTP status, code, calls that reach the server, body."""
    for number, line in enumerate(lines("duplicate_keys"), 1):
        status, code, reaches, body = line.split(" ", 3)
        yield f"doubled members {number}", int(status), code_of(code), int(reaches), body.encode()


def json_bombs():
    """The same of bodies that are small to write and large to read."""
    for number, line in enumerate(lines("json_bombs"), 1):
        status, code, reaches, begins, unit, times, ends = (field.strip() for field in line.split("|"))
        body = begins + unit * int(times) + ends
        yield f"JSON bomb {number}, {len(body):,} bytes", int(status), code_of(code), int(reaches), body.encode()


def ssrf_urls(port):
    """What becomes of a server with it, and the URL."""
    for line in lines("ssrf_urls"):
        expected, url = line.split(" ", 1)
        yield expected, url.replace("PORT", str(port))


def code_of(text):
    return None if text == "-" else int(text)


def hostile_names():
    """Whether a name is offered, and the name."""
    for line in lines("hostile_names"):
        expected, name = line.split(" ", 1)
        yield expected == "offered", json.loads(name)
