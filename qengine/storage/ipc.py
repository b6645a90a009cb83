"""A record batch as one complete Arrow IPC stream: how rows travel and how they are spooled."""

from __future__ import annotations

import pyarrow as pa

_END = b"\xff\xff\xff\xff\0\0\0\0"
"""Ends a stream: a message without content."""


def stream_pieces(batch: pa.RecordBatch) -> tuple[bytes | memoryview, ...]:
    """Return the stream of a batch as pieces to be written one after another.

    The rows are copied once, into a buffer of the right size; a stream writer lets its buffer grow, copying them again and again.
    """
    if any(_needs_writer(field.type) for field in batch.schema):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        return (memoryview(sink.getvalue()),)
    return memoryview(batch.schema.serialize()), memoryview(batch.serialize()), _END


def stream_bytes(batch: pa.RecordBatch) -> bytes:
    """Return the stream of a batch."""
    return b"".join(stream_pieces(batch))


def _needs_writer(kind: pa.DataType) -> bool:
    """Dictionaries are messages of their own, which only a writer makes."""
    if pa.types.is_dictionary(kind):
        return True
    return any(_needs_writer(kind.field(number).type) for number in range(kind.num_fields))
