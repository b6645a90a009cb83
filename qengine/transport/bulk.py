"""Large byte fields of protobuf messages, written by hand.

The Python runtime of protobuf copies a field of some megabytes several times, which takes up to 2 ms a megabyte. The wire format of
such a field is its number, its length and the bytes, so a message is its small fields, encoded as ever, followed by these.
"""

from __future__ import annotations

from collections.abc import Sequence

_LENGTH_DELIMITED = 2


def with_bytes(head: bytes, path: Sequence[int], pieces: Sequence[bytes | memoryview]) -> bytes:
    """Return the message `head` with a field of bytes added, which are `pieces` one after another.

    `path` are the numbers of the fields that lead to it, from the message inwards; those before the last are messages with nothing
    else in them.
    """
    size = sum(len(piece) if isinstance(piece, bytes) else piece.nbytes for piece in pieces)
    heads: list[bytes] = []
    for number in reversed(path):
        heads.append(_varint(number << 3 | _LENGTH_DELIMITED) + _varint(size))
        size += len(heads[-1])
    return b"".join((head, *reversed(heads), *pieces))


def take_bytes(message: bytes, path: Sequence[int]) -> tuple[bytes, memoryview] | None:
    """Take a message apart that `with_bytes` made: return the head and the bytes. None for any other message."""
    start, stop = 0, len(message)
    head = b""
    try:
        for depth, number in enumerate(path):
            found = _last_field(message, start, stop)
            if found is None or found[0] != number or (depth and found[1] != start):
                return None
            if not depth:
                head = message[: found[1]]
            start = found[2]
    except IndexError:
        return None
    return head, memoryview(message)[start:stop]


def _last_field(message: bytes, start: int, stop: int) -> tuple[int, int, int] | None:
    """Return (number, begin, begin of the content) of the last field, if that is a field of bytes which ends at `stop`."""
    at = start
    while at < stop:
        key, content = _read_varint(message, at)
        if key & 7 != _LENGTH_DELIMITED:
            return None
        size, content = _read_varint(message, content)
        if content + size >= stop:
            return (key >> 3, at, content) if content + size == stop else None
        at = content + size
    return None


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80 or shift > 63:
            return value, at
        shift += 7


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)
