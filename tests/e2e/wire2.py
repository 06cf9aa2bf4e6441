"""HTTP/2 by the byte, over plain TCP: one request of fields that no library would send, and what became of it."""

import struct

from wire import connect, receive

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, GOAWAY, CONTINUATION = 0, 1, 3, 4, 7, 9
END_STREAM, END_HEADERS = 1, 4
#: The most that a frame may hold, unless the other side has allowed more.
FRAME_BYTES_MAX = 16384
#: Statuses that are one byte (RFC 7541, table A), and how the digits of the others are coded (table B).
INDEXED = {8: "200", 9: "204", 10: "206", 11: "304", 12: "400", 13: "404", 14: "500"}
DIGITS = {"00000": "0", "00001": "1", "00010": "2", "011001": "3", "011010": "4", "011011": "5", "011100": "6", "011101": "7", "011110": "8", "011111": "9"}  # fmt: skip


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(text):
    """A text as it is, behind its length (RFC 7541, 5.1 and 5.2)."""
    data = text.encode("latin-1")
    if len(data) < 127:
        return bytes([len(data)]) + data
    length, rest = b"\x7f", len(data) - 127
    while rest >= 128:
        length += bytes([rest % 128 | 128])
        rest //= 128
    return length + bytes([rest]) + data


def head(fields, stream=1, flags=0):
    """A head in as many frames as it takes."""
    block = b"".join(b"\0" + literal(name) + literal(value) for name, value in fields)
    pieces = [block[at : at + FRAME_BYTES_MAX] for at in range(0, len(block), FRAME_BYTES_MAX)]
    frames = [frame(CONTINUATION if number else HEADERS, 0 if number else flags, stream, piece) for number, piece in enumerate(pieces)]
    frames[-1] = frames[-1][:4] + bytes([frames[-1][4] | END_HEADERS]) + frames[-1][5:]
    return b"".join(frames)


def status_of(block):
    """The status that a head begins with."""
    while block[0] & 0xE0 == 0x20:
        # The size of the table, which the other side may choose anew.
        block = block[1:] if block[0] & 0x1F != 0x1F else block[2:]
    if block[0] & 0x80:
        return INDEXED[block[0] & 0x7F]
    assert block[0] & 0x0F == 8 and block[0] & 0x30 in (0, 0x10) or block[0] == 0x48, f"no status: {block[:8].hex()}"
    length, coded = block[1] & 0x7F, block[1] & 0x80
    data = block[2 : 2 + length]
    if not coded:
        return data.decode()
    bits, status = "".join(f"{byte:08b}" for byte in data), ""
    while len(status) < 3:
        code = next(code for code in DIGITS if bits.startswith(code))
        status, bits = status + DIGITS[code], bits[len(code) :]
    return status


def fate(url, fields, body=None):
    """What becomes of a request: its status, `reset`, `goaway`, or `closed`. Without a body it ends with its head."""
    sent = PREFACE + frame(SETTINGS, 0, 0, b"")
    if body is None:
        sent += head(fields, flags=END_STREAM)
    else:
        sent += head(fields) + frame(DATA, END_STREAM, 1, body)
    with connect(url) as stream:
        try:
            stream.sendall(sent)
        except (BrokenPipeError, ConnectionResetError):
            pass
        got = b""
        while True:
            while len(got) >= 9 and len(got) >= 9 + (length := int.from_bytes(got[:3])):
                kind, of, payload = got[3], int.from_bytes(got[5:9]), got[9 : 9 + length]
                got = got[9 + length :]
                if kind == HEADERS and of == 1:
                    return status_of(payload)
                if kind == RESET and of == 1:
                    return "reset"
                if kind == GOAWAY:
                    return "goaway"
            more = receive(stream)
            if not more:
                return "closed"
            got += more
