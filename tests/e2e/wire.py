"""HTTP by the byte: requests that no library would send, over a socket of one's own."""

import socket
from urllib.parse import urlsplit

from raw import Answer

SECONDS_MAX = 20


def connect(url, seconds=SECONDS_MAX):
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), seconds)


def exchange(url, sent, seconds=SECONDS_MAX, closing=False):
    """Sends bytes as they are; gives the first answer, and, if asked for, whether the connection was closed behind it.

    A node that refuses early may close while we still send: what it said counts all the same.
    """
    with connect(url, seconds) as stream:
        try:
            stream.sendall(sent)
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer, rest = read_answer(stream)
        return answer, closing and not rest and is_closed(stream)


def read_answer(stream):
    """One answer, and what came behind it. None if the connection ended without one."""
    got = b""
    while b"\r\n\r\n" not in got:
        more = receive(stream)
        if not more:
            return None, got
        got += more
    head, rest = got.split(b"\r\n\r\n", 1)
    lines = head.decode("latin-1").split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
    headers = {name.lower(): value for name, value in fields.items()}
    length = int(headers.get("content-length", 0))
    while len(rest) < length:
        more = receive(stream)
        if not more:
            break
        rest += more
    body, rest = rest[:length], rest[length:]
    return Answer(int(lines[0].split()[1]), headers, body.decode(errors="replace")), rest


def receive(stream):
    try:
        return stream.recv(65536)
    except ConnectionResetError:
        return b""


def is_closed(stream):
    """Whether nothing more comes. A node that keeps a connection would wait 10 s for the next request."""
    stream.settimeout(2)
    try:
        return not receive(stream)
    except TimeoutError:
        return False
