"""Messages written by hand are those that protobuf writes, and whatever is no such message is left to protobuf."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qengine.plan.physical import Batch, Finished, QueryId, TaskId, TaskStats
from qengine.storage.ipc import stream_bytes
from qengine.transport import codec
from qengine.transport.bulk import take_bytes, with_bytes
from qengine.transport.generated import worker_pb2

EVENT = (4, 1)


def event_of(content: bytes, query: str = "q") -> worker_pb2.Event:
    event = worker_pb2.Event(batch=worker_pb2.Batch(arrow=content))
    event.id.task.query = query
    event.id.epoch = 2**40
    return event


@given(st.binary(max_size=400), st.text(max_size=5), st.integers(1, 4))
def test_messages_are_those_of_protobuf(content: bytes, query: str, pieces: int) -> None:
    event = event_of(content, query)
    head = worker_pb2.Event(id=event.id).SerializeToString()
    step = max(1, -(-len(content) // pieces))
    parts = [memoryview(content)[start : start + step] for start in range(0, len(content), step)]
    written = with_bytes(head, EVENT, parts)
    assert worker_pb2.Event.FromString(written) == event
    taken = take_bytes(written, EVENT)
    assert taken is not None
    assert (taken[0], bytes(taken[1])) == (head, content)
    if content:  # protobuf leaves out empty fields
        assert written == event.SerializeToString()


@given(st.binary(max_size=60))
def test_anything_else_is_left_to_protobuf(message: bytes) -> None:
    taken = take_bytes(message, EVENT)
    if taken is not None:
        assert with_bytes(taken[0], EVENT, [taken[1]])[len(taken[0]) :].endswith(bytes(taken[1]))
    frame = take_bytes(message, (1,))
    assert frame is None or message.endswith(bytes(frame[1]))


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_cut_messages_are_not_taken(cut: int) -> None:
    assert take_bytes(event_of(b"x" * 300).SerializeToString()[:-cut], EVENT) is None


def test_other_events_are_not_taken() -> None:
    stats = TaskStats(rows=1, result_bytes=2, input_bytes=3, elapsed_s=0.5, cpu_s=0.25)
    finished = Finished(task=TaskId(QueryId("q"), 0, 1), attempt=1, epoch=2, stats=stats)
    assert take_bytes(codec.encode_event(finished), EVENT) is None
    assert codec.decode_event(codec.encode_event(finished)) == finished


@pytest.mark.parametrize(
    "batch",
    [
        pa.record_batch({"a": [1, None, 3], "b": ["x", None, "zz"]}),
        pa.record_batch({"a": pa.array([], pa.int64())}),
        pa.record_batch({"a": pa.array(["u", "v", "u"]).dictionary_encode(), "b": pa.array([[1.0], None, []])}),
        pa.record_batch({"a": pa.array([{"x": 1, "y": ["p"]}, None])}),
        pa.record_batch({"a": list(range(1000)), "b": [str(i) for i in range(1000)]}).slice(100, 7),
    ],
)
def test_batches_travel(batch: pa.RecordBatch) -> None:
    with pa.ipc.open_stream(stream_bytes(batch)) as reader:
        assert reader.read_all().to_batches() == ([batch] if batch.num_rows else [])
    sent = codec.encode_event(Batch(task=TaskId(QueryId("q"), 0, 1), attempt=1, epoch=2, rows=batch))
    assert len(sent) < 3000 + batch.nbytes
    event = codec.decode_event(sent)
    assert isinstance(event, Batch)
    assert event.rows == batch
    assert codec.decode_batches(codec.decode_frame_message(codec.encode_frame_message(stream_bytes(batch)))) == [batch]
