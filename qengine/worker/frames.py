"""How a worker's front and its slots talk over a Unix socket: frames of kind, attempt and message.

A frame is a header (kind: 1 byte, serial: 8 bytes, size: 4 bytes, little endian) and a protobuf message of `transport.codec`. The
front passes messages on without decoding them; the kind tells it what it must know. `serial` numbers the attempts of a worker, so
that a cancel which arrives late does not hit the next attempt.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from enum import IntEnum
from typing import NamedTuple

HEADER = struct.Struct("<BQI")


class Kind(IntEnum):
    """What a frame is. READY has no message and says that the slot can take work."""

    RUN = 1
    CANCEL = 2
    READY = 3
    EVENT = 4
    LAST = 5
    FAILED = 6

    @property
    def is_last(self) -> bool:
        return self in (Kind.LAST, Kind.FAILED)


class Frame(NamedTuple):
    """One frame; LAST is the event `Finished`, FAILED the event `Failed`, EVENT any other."""

    kind: Kind
    serial: int
    message: bytes


def send(to: socket.socket, frame: Frame) -> None:
    """Send a frame; blocks until the other side has room."""
    to.sendall(HEADER.pack(frame.kind, frame.serial, len(frame.message)))
    if frame.message:
        to.sendall(frame.message)


def receive(source: socket.socket) -> Frame | None:
    """Return the next frame; None when the other side is gone."""
    head = _exactly(source, HEADER.size)
    if head is None:
        return None
    kind, serial, size = HEADER.unpack(head)
    message = _exactly(source, size)
    return None if message is None else Frame(Kind(kind), serial, message)


async def read_frame(source: asyncio.StreamReader) -> Frame | None:
    """Return the next frame; None when the other side is gone."""
    try:
        kind, serial, size = HEADER.unpack(await source.readexactly(HEADER.size))
        return Frame(Kind(kind), serial, await source.readexactly(size) if size else b"")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def write_frame(to: asyncio.StreamWriter, frame: Frame) -> None:
    to.write(HEADER.pack(frame.kind, frame.serial, len(frame.message)) + frame.message)


def _exactly(source: socket.socket, size: int) -> bytes | None:
    chunks = []
    while size:
        chunk = source.recv(min(size, 1 << 20))
        if not chunk:
            return None
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)
