"""HTTP/2 by the byte, over plain TCP: one request of fields that no library would send, and what became of it."""

import struct

from wire import connect, receive

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, END_HEADERS = 1, 4
#: How a server that indexes what it can says these (RFC 7541, tables A and B).
STATUSES = {b"\x88": "200", b"\x8c": "400", b"\x8d": "404", b"\x48\x82\x68\x41": "421"}


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(text):
    data = text.encode("latin-1")
    assert len(data) < 127 + 128, "longer texts take more than the two bytes of length that are made here"
    return (bytes([len(data)]) if len(data) < 127 else bytes([127, len(data) - 127])) + data


def fate(url, fields, body):
    """What becomes of a request: its status, `reset`, `goaway`, or `closed`."""
    block = b"".join(b"\0" + literal(name) + literal(value) for name, value in fields)
    sent = PREFACE + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, END_HEADERS, 1, block) + frame(DATA, END_STREAM, 1, body)
    with connect(url) as stream:
        stream.sendall(sent)
        got = b""
        while True:
            while len(got) >= 9 and len(got) >= 9 + (length := int.from_bytes(got[:3])):
                kind, of, payload = got[3], int.from_bytes(got[5:9]), got[9 : 9 + length]
                got = got[9 + length :]
                if kind == HEADERS and of == 1:
                    return next((status for start, status in STATUSES.items() if payload.startswith(start)), f"unknown: {payload[:8].hex()}")
                if kind == RESET and of == 1:
                    return "reset"
                if kind == GOAWAY:
                    return "goaway"
            more = receive(stream)
            if not more:
                return "closed"
            got += more
