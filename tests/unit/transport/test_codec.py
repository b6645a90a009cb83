from __future__ import annotations

import contextlib

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qengine import errors
from qengine.errors import ClusterError, ProtocolError, QEngineError, Span
from qengine.plan.physical import (
    PROTOCOL_VERSION,
    Batch,
    Failed,
    Finished,
    PartRef,
    Progress,
    QueryId,
    Started,
    Task,
    TaskId,
    TaskInput,
    TaskLimits,
    TaskStats,
    WorkerId,
)
from qengine.transport import codec
from qengine.transport.channel import WorkerStatus
from qengine.transport.generated import common_pb2, worker_pb2

text = st.text(st.characters(codec="utf-8"), max_size=20)
size = st.integers(0, 2**62)
task_ids = st.builds(TaskId, st.builds(QueryId, text), st.integers(0, 2**31), st.integers(0, 2**31))
parts = st.lists(st.builds(PartRef, text, text, st.integers(-1, 2**62), size), max_size=3).map(tuple)
names = st.lists(text, max_size=3).map(tuple)
ranges = st.lists(st.tuples(size, size), max_size=4).map(tuple)
inputs = st.builds(
    TaskInput,
    name=text,
    parts=parts,
    columns=names,
    ranges=ranges,
    margin_parts=parts,
    nan_columns=names,
    line_column=text,
    types=names,
)
limits = st.builds(TaskLimits, deadline_s=st.floats(0, 1e9), memory_bytes=size, result_bytes=size, hold_bytes=size)
tasks = st.builds(
    Task,
    id=task_ids,
    attempt=st.integers(0, 2**31),
    epoch=st.integers(0, 2**62),
    sql=text,
    inputs=st.lists(inputs, max_size=3).map(tuple),
    limits=limits,
)


def _all_errors(kind: type[QEngineError] = QEngineError) -> list[type[QEngineError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in _all_errors(child))]


@given(tasks)
def test_tasks_survive(task: Task) -> None:
    payload = codec.encode_run(task)
    assert codec.decode_run(payload) == task
    head = codec.decode_run_head(payload)
    assert (head.protocol, head.task, head.attempt, head.epoch) == (PROTOCOL_VERSION, task.id, task.attempt, task.epoch)
    assert head.deadline_s == task.limits.deadline_s


@pytest.mark.parametrize("kind", _all_errors())
def test_every_error_survives(kind: type[QEngineError]) -> None:
    error = kind("what", span=Span(1, 2, 3, 4), hint="do", details={"n": [1, "x"], "m": {"a": None}})
    event = codec.decode_event(codec.encode_event(Failed(task=TaskId(QueryId("q"), 1, 2), attempt=3, epoch=4, error=error)))
    assert isinstance(event, Failed)
    assert type(event.error) is kind
    assert (event.error.message, event.error.span, event.error.hint, event.error.details) == (
        error.message,
        error.span,
        error.hint,
        error.details,
    )
    assert (event.task, event.attempt, event.epoch) == (TaskId(QueryId("q"), 1, 2), 3, 4)


@pytest.mark.parametrize(
    ("blame", "retryable", "kind"),
    [
        (common_pb2.BLAME_USER, False, errors.QueryError),
        (common_pb2.BLAME_LIMIT, False, errors.LimitError),
        (common_pb2.BLAME_DATA, False, errors.DataError),
        (common_pb2.BLAME_BUG, False, errors.BugError),
        (common_pb2.BLAME_CLUSTER, True, errors.ClusterError),
        (common_pb2.BLAME_CLUSTER, False, errors.RangesUnavailableError),
    ],
)
def test_errors_of_a_newer_release_keep_blame_and_retry(blame: common_pb2.Blame, retryable: bool, kind: type[QEngineError]) -> None:
    message = worker_pb2.Event(
        failed=worker_pb2.Failed(error=common_pb2.Error(code="of_tomorrow", blame=blame, retryable=retryable))
    )
    event = codec.decode_event(message.SerializeToString())
    assert isinstance(event, Failed)
    assert type(event.error) is kind
    assert event.error.retryable is retryable


def test_events_survive() -> None:
    rows = pa.record_batch({"a": [1, None], "b": pa.array(["x", "x"]).dictionary_encode(), "c": [[1.5], []]})
    name = TaskId(QueryId("q"), 0, 7)
    stats = TaskStats(rows=1, result_bytes=2, input_bytes=3, elapsed_s=4.5, cpu_s=5.5, spool="abc")
    for event in (
        Started(task=name, attempt=1, epoch=2),
        Progress(task=name, attempt=1, epoch=2, fraction=0.25),
        Batch(task=name, attempt=1, epoch=2, rows=rows),
        Finished(task=name, attempt=1, epoch=2, stats=stats),
    ):
        assert codec.decode_event(codec.encode_event(event)) == event


def test_sliced_batches_send_only_their_rows() -> None:
    whole = pa.record_batch({"a": list(range(100000))})
    event = Batch(task=TaskId(QueryId("q"), 0, 7), attempt=1, epoch=2, rows=whole.slice(500, 10))
    payload = codec.encode_event(event)
    assert len(payload) < 2000
    assert codec.decode_event(payload) == event


def test_waiting_is_no_event() -> None:
    head = codec.RunHead(PROTOCOL_VERSION, TaskId(QueryId("q"), 0, 7), 1, 2, 3.0)
    assert codec.decode_event(codec.encode_waiting(head)) == Progress(task=head.task, attempt=1, epoch=2, fraction=0.0)


def test_another_protocol_is_refused() -> None:
    payload = worker_pb2.RunRequest(protocol=PROTOCOL_VERSION + 1).SerializeToString()
    with pytest.raises(ProtocolError, match="versions"):
        codec.decode_run(payload)
    with pytest.raises(ProtocolError):
        codec.decode_fetch(worker_pb2.FetchRequest(protocol=0).SerializeToString())
    with pytest.raises(ProtocolError):
        codec.decode_event(worker_pb2.Event().SerializeToString())


@given(st.binary(min_size=1, max_size=60))
def test_noise_is_an_error_of_ours(noise: bytes) -> None:
    for decode in (codec.decode_run, codec.decode_run_head, codec.decode_event, codec.decode_status, codec.decode_fetch):
        with contextlib.suppress(ClusterError):
            decode(noise)


def test_status_survives() -> None:
    status = WorkerStatus(worker=WorkerId("w"), protocol=1, version="0.1", slots=2, running=("q/0/1",), store="/s")
    assert codec.decode_status(codec.encode_status(status, "x")) == status
