"""Hostile clients that speak HTTP/2: what the protocol lets one connection ask for, and no answer taken."""

import asyncio
import struct

from wire2 import DATA, END_HEADERS, HEADERS, PREFACE, RESET, SETTINGS, frame, literal

CONTINUATION, PING = 9, 6
ACK = 1
#: What a node lets one connection have open.
STREAMS = 100
#: Longer than a siege: what is asked for here is memory, not work.
STAY_SECONDS = 30
#: Between batches of frames, so that a machine of two cores that runs all of this has time for the honest client.
PAUSE_SECONDS = 0.02


def block(fields):
    return b"".join(b"\0" + literal(name) + literal(value) for name, value in fields)


def asked(maker, path, method="GET", token=True):
    fields = [(":method", method), (":scheme", "http"), (":authority", maker.host), (":path", path)]
    return fields + ([("authorization", f"Bearer {maker.token}")] if token else [])


async def stay(reader, writer):
    """Answers pings and takes nothing else, so that the connection looks alive."""
    async with asyncio.timeout(STAY_SECONDS):
        while True:
            head = await reader.readexactly(9)
            payload = await reader.readexactly(int.from_bytes(head[:3]))
            if head[3] == PING and head[4] == 0:
                writer.write(frame(PING, ACK, 0, payload))
                await writer.drain()


async def unread_answers(maker, reader, writer, path, token):
    """As many requests as may be open, and no room for an answer: a window of nothing."""
    writer.write(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)))
    for number in range(STREAMS):
        writer.write(frame(HEADERS, END_HEADERS | 1, 2 * number + 1, block(asked(maker, path, token=token))))
    await writer.drain()
    await stay(reader, writer)


async def h2_unread_answers(maker, reader, writer):
    await unread_answers(maker, reader, writer, maker.path, True)


async def api_h2_unread_metrics(maker, reader, writer):
    await unread_answers(maker, reader, writer, "/metrics", False)


async def h2_open_bodies(maker, reader, writer):
    """As many bodies as may be open, some of each, and no end of any."""
    writer.write(PREFACE + frame(SETTINGS, 0, 0, b""))
    fields = block([*asked(maker, maker.path, "POST"), ("content-type", "application/json"), ("content-length", str(4 << 20))])
    for number in range(STREAMS):
        writer.write(frame(HEADERS, END_HEADERS, 2 * number + 1, fields))
        writer.write(frame(DATA, 0, 2 * number + 1, b"[" * 4000))
    await writer.drain()
    await stay(reader, writer)


async def h2_endless_head(maker, reader, writer):
    """A head that goes on and on: CONTINUATION without END_HEADERS."""
    writer.write(PREFACE + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, 0, 1, block(asked(maker, maker.path))))
    piece = b"".join(b"\0" + literal(f"x-{number}") + literal("x" * 200) for number in range(70))
    for _ in range(2000):
        writer.write(frame(CONTINUATION, 0, 1, piece))
        await writer.drain()
        await asyncio.sleep(PAUSE_SECONDS)


async def h2_inflated_head(maker, reader, writer):
    """One long value, remembered by the compression, and said again by one byte, thousands of times."""
    value = b"x" * 3900
    remembered = b"\x40" + literal("x-long") + b"\x7f" + bytes([(len(value) - 127) % 128 | 128, (len(value) - 127) // 128]) + value
    writer.write(PREFACE + frame(SETTINGS, 0, 0, b""))
    for number in range(3):
        fields = block(asked(maker, maker.path)) + remembered + b"\xbe" * 12_000
        writer.write(frame(HEADERS, END_HEADERS | 1, 2 * number + 1, fields))
        await writer.drain()
    await stay(reader, writer)


async def h2_rapid_resets(maker, reader, writer):
    """Requests that are taken back as soon as they are made."""
    writer.write(PREFACE + frame(SETTINGS, 0, 0, b""))
    fields = block(asked(maker, maker.path))
    for number in range(100_000):
        writer.write(frame(HEADERS, END_HEADERS | 1, 2 * number + 1, fields) + frame(RESET, 0, 2 * number + 1, struct.pack(">I", 8)))
        if number % 50 == 0:
            await writer.drain()
            await asyncio.sleep(PAUSE_SECONDS)


async def h2_settings_and_pings(maker, reader, writer):
    """Frames that want an acknowledgement, and nobody who reads them."""
    writer.write(PREFACE)
    for _ in range(10_000):
        writer.write((frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535)) + frame(PING, 0, 0, b"12345678")) * 50)
        await writer.drain()
        await asyncio.sleep(PAUSE_SECONDS)


KINDS = [
    h2_unread_answers,
    api_h2_unread_metrics,
    h2_open_bodies,
    h2_endless_head,
    h2_inflated_head,
    h2_rapid_resets,
    h2_settings_and_pings,
]
