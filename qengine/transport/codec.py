"""Tasks, events and errors as protobuf messages, and back.

Rows travel as Arrow: a batch is one complete Arrow IPC stream inside its message. Every error keeps its code, blame, retryable
flag, span, hint and details. Bytes that are no message at all were damaged on the way: `ClusterError`, try again. The slots of a
worker use this module, so it must not import grpc.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, assert_never

import pyarrow as pa

from qengine.errors import (
    ClusterError,
    ProtocolError,
    QEngineError,
)
from qengine.plan.physical import (
    PROTOCOL_VERSION,
    Batch,
    Failed,
    Finished,
    Partition,
    Partitioning,
    PartRef,
    Progress,
    QueryId,
    SkyJoin,
    Started,
    Task,
    TaskEvent,
    TaskId,
    TaskInput,
    TaskLimits,
    TaskStats,
    WorkerId,
    partition_of,
)
from qengine.storage.ipc import stream_pieces
from qengine.transport.bulk import take_bytes, with_bytes
from qengine.transport.channel import WorkerStatus
from qengine.transport.error_message import from_message, parse, to_message
from qengine.transport.generated import common_pb2, worker_pb2

_EVENT_BATCH = worker_pb2.Event.DESCRIPTOR.fields_by_name["batch"].number
_BATCH_ARROW = worker_pb2.Batch.DESCRIPTOR.fields_by_name["arrow"].number
_FRAME_ARROW = worker_pb2.Frame.DESCRIPTOR.fields_by_name["arrow"].number


@dataclass(frozen=True, slots=True)
class RunHead:
    """What a worker's front needs to know of a request to run: all but the work itself. `pulls` are names and addresses of
    partitions that must be here before a slot can run it."""

    protocol: int
    task: TaskId
    attempt: int
    epoch: int
    deadline_s: float
    is_scan: bool = False
    pulls: tuple[tuple[str, str], ...] = ()


# -- tasks --------------------------------------------------------------------------------------------------------------------


def encode_run(task: Task) -> bytes:
    """Return the request to run a task."""
    request = worker_pb2.RunRequest(
        protocol=PROTOCOL_VERSION,
        id=_attempt_id(task.id, task.attempt, task.epoch),
        sql=task.sql,
        inputs=[
            worker_pb2.TaskInput(
                name=i.name,
                parts=_parts(i.parts),
                columns=i.columns,
                types=i.types,
                ranges=[bound for pair in i.ranges for bound in pair],
                margin_parts=_parts(i.margin_parts),
                nan_columns=i.nan_columns,
                line_column=i.line_column,
            )
            for i in task.inputs
        ],
        limits=worker_pb2.TaskLimits(
            deadline_s=task.limits.deadline_s,
            memory_bytes=task.limits.memory_bytes,
            result_bytes=task.limits.result_bytes,
            hold_bytes=task.limits.hold_bytes,
        ),
        sky_joins=[
            worker_pb2.SkyJoin(
                name=j.name,
                first=j.first,
                second=j.second,
                radius_deg=j.radius_deg,
                comparison=j.comparison,
                is_wide=j.is_wide,
                has_distance=j.has_distance,
            )
            for j in task.sky_joins
        ],
        partition=None if task.partition is None else _partitioning_message(task.partition),
        is_scan=task.is_scan,
    )
    return bytes(request.SerializeToString())


def decode_run(payload: bytes) -> Task:
    """Return the task of a request. Raise `ProtocolError` if it speaks another version."""
    request = parse(worker_pb2.RunRequest, payload)
    check_protocol(request.protocol)
    limits = request.limits
    return Task(
        id=_task_id(request.id),
        attempt=request.id.attempt,
        epoch=request.id.epoch,
        sql=request.sql,
        inputs=tuple(
            TaskInput(
                name=i.name,
                parts=tuple(PartRef(p.digest, p.uri, p.rows, p.bytes) for p in i.parts),
                columns=tuple(i.columns),
                types=tuple(i.types),
                ranges=tuple(zip(i.ranges[::2], i.ranges[1::2], strict=True)),
                margin_parts=tuple(PartRef(p.digest, p.uri, p.rows, p.bytes) for p in i.margin_parts),
                nan_columns=tuple(i.nan_columns),
                line_column=i.line_column,
            )
            for i in request.inputs
        ),
        limits=TaskLimits(
            deadline_s=limits.deadline_s,
            memory_bytes=limits.memory_bytes,
            result_bytes=limits.result_bytes,
            hold_bytes=limits.hold_bytes,
        ),
        sky_joins=tuple(
            SkyJoin(
                name=j.name,
                first=j.first,
                second=j.second,
                radius_deg=j.radius_deg,
                comparison=j.comparison,
                is_wide=j.is_wide,
                has_distance=j.has_distance,
            )
            for j in request.sky_joins
        ),
        partition=_partitioning(request),
        is_scan=request.is_scan,
    )


def decode_run_head(payload: bytes) -> RunHead:
    """Return who asks for what in a request, without its work."""
    request = parse(worker_pb2.RunRequest, payload)
    references = (PartRef(p.digest, p.uri, p.rows, p.bytes) for i in request.inputs for p in i.parts)
    pulls = tuple(found for part in references if (found := partition_of(part)) is not None)
    return RunHead(
        protocol=request.protocol,
        task=_task_id(request.id),
        attempt=request.id.attempt,
        epoch=request.id.epoch,
        deadline_s=request.limits.deadline_s,
        is_scan=request.is_scan,
        pulls=pulls,
    )


def check_protocol(theirs: int) -> None:
    """Raise `ProtocolError` if the other side speaks another version."""
    if theirs != PROTOCOL_VERSION:
        raise ProtocolError(
            f"the coordinator and the worker speak different versions of the protocol ({theirs} and {PROTOCOL_VERSION})",
            hint="run the same release of qengine on both",
        )


# -- events -------------------------------------------------------------------------------------------------------------------


def encode_event(event: TaskEvent) -> bytes:
    """Return the message of an event."""
    message = worker_pb2.Event(id=_attempt_id(event.task, event.attempt, event.epoch))
    match event:
        case Started():
            message.started.SetInParent()
        case Progress():
            message.progress.fraction = event.fraction
        case Batch():
            return with_bytes(bytes(message.SerializeToString()), (_EVENT_BATCH, _BATCH_ARROW), stream_pieces(event.rows))
        case Finished():
            stats = event.stats
            message.finished.CopyFrom(
                worker_pb2.Finished(
                    rows=stats.rows,
                    result_bytes=stats.result_bytes,
                    input_bytes=stats.input_bytes,
                    elapsed_s=stats.elapsed_s,
                    cpu_s=stats.cpu_s,
                    spool=stats.spool,
                    partitions=[
                        worker_pb2.Partition(number=p.number, name=p.name, rows=p.rows, bytes=p.bytes) for p in stats.partitions
                    ],
                )
            )
        case Failed():
            message.failed.error.CopyFrom(to_message(event.error))
        case _:
            assert_never(event)
    return bytes(message.SerializeToString())


def encode_waiting(head: RunHead) -> bytes:
    """Return the sign of life of an attempt that waits for a slot."""
    return encode_event(Progress(task=head.task, attempt=head.attempt, epoch=head.epoch, fraction=0.0))


def decode_event(payload: bytes) -> TaskEvent:
    """Return an event. Raise `ProtocolError` if it is none of ours."""
    taken = take_bytes(payload, (_EVENT_BATCH, _BATCH_ARROW))
    message = parse(worker_pb2.Event, payload if taken is None else taken[0])
    task, attempt, epoch = _task_id(message.id), message.id.attempt, message.id.epoch
    if taken is not None:
        return Batch(task=task, attempt=attempt, epoch=epoch, rows=_one_batch(bytes(taken[1])))
    match message.WhichOneof("kind"):
        case "started":
            return Started(task=task, attempt=attempt, epoch=epoch)
        case "progress":
            return Progress(task=task, attempt=attempt, epoch=epoch, fraction=message.progress.fraction)
        case "batch":
            return Batch(task=task, attempt=attempt, epoch=epoch, rows=_one_batch(message.batch.arrow))
        case "finished":
            done = message.finished
            stats = TaskStats(
                rows=done.rows,
                result_bytes=done.result_bytes,
                input_bytes=done.input_bytes,
                elapsed_s=done.elapsed_s,
                cpu_s=done.cpu_s,
                spool=done.spool,
                partitions=tuple(Partition(p.number, p.name, p.rows, p.bytes) for p in done.partitions),
            )
            return Finished(task=task, attempt=attempt, epoch=epoch, stats=stats)
        case "failed":
            return Failed(task=task, attempt=attempt, epoch=epoch, error=from_message(message.failed.error))
        case other:
            raise ProtocolError(f"an event of unknown kind {other!r}", hint="run the same release of qengine everywhere")


def decode_batches(arrow: bytes) -> list[pa.RecordBatch]:
    """Return the batches of an Arrow IPC stream."""
    try:
        with pa.ipc.open_stream(arrow) as reader:
            return list(reader)
    except (pa.ArrowException, OSError) as error:
        raise ClusterError(f"a batch of rows cannot be decoded: {error}") from error


def _one_batch(arrow: bytes) -> pa.RecordBatch:
    batches = decode_batches(arrow)
    if len(batches) != 1:
        raise ClusterError(f"a batch message holds {len(batches)} batches")
    return batches[0]


# -- errors -------------------------------------------------------------------------------------------------------------------


# -- the smaller calls --------------------------------------------------------------------------------------------------------


def encode_fetch(spool: str, skip_frames: int) -> bytes:
    request = worker_pb2.FetchRequest(protocol=PROTOCOL_VERSION, spool=spool, skip_frames=skip_frames)
    return bytes(request.SerializeToString())


def decode_fetch(payload: bytes) -> tuple[str, int]:
    """Return the spool's name and how many of its frames to leave out. Raise `ProtocolError` for another version."""
    request = parse(worker_pb2.FetchRequest, payload)
    check_protocol(request.protocol)
    return request.spool, request.skip_frames


def encode_frame_message(frame: bytes | QEngineError) -> bytes:
    if isinstance(frame, QEngineError):
        return bytes(worker_pb2.Frame(error=to_message(frame)).SerializeToString())
    return with_bytes(b"", (_FRAME_ARROW,), (frame,))


def decode_frame_message(payload: bytes) -> bytes:
    """Return a frame. Raise the error that was sent instead of one."""
    if (taken := take_bytes(payload, (_FRAME_ARROW,))) is not None:
        return bytes(taken[1])
    message = parse(worker_pb2.Frame, payload)
    if message.WhichOneof("kind") == "error":
        raise from_message(message.error)
    return bytes(message.arrow)


def encode_release(spool: str) -> bytes:
    return bytes(worker_pb2.ReleaseRequest(spool=spool).SerializeToString())


def decode_release(payload: bytes) -> str:
    return str(parse(worker_pb2.ReleaseRequest, payload).spool)


def encode_pull(query: QueryId, name: str) -> bytes:
    return bytes(worker_pb2.PullRequest(protocol=PROTOCOL_VERSION, query=query, name=name).SerializeToString())


def decode_pull(payload: bytes) -> tuple[QueryId, str]:
    """Return query and name of the wanted partition. Raise `ProtocolError` for another version."""
    request = parse(worker_pb2.PullRequest, payload)
    check_protocol(request.protocol)
    return QueryId(request.query), request.name


def encode_put(query: QueryId, name: str, digest: str) -> bytes:
    """Return the message that begins a relation."""
    return bytes(worker_pb2.PutRequest(protocol=PROTOCOL_VERSION, query=query, name=name, digest=digest).SerializeToString())


def encode_put_data(data: bytes) -> bytes:
    return bytes(worker_pb2.PutRequest(data=data).SerializeToString())


def decode_put(payload: bytes) -> tuple[QueryId, str, str]:
    """Return query, name and digest of the relation that begins. Raise `ProtocolError` for another version."""
    request = parse(worker_pb2.PutRequest, payload)
    check_protocol(request.protocol)
    return QueryId(request.query), request.name, request.digest


def decode_put_data(payload: bytes) -> bytes:
    return bytes(parse(worker_pb2.PutRequest, payload).data)


def encode_put_reply(error: QEngineError | None) -> bytes:
    return bytes(worker_pb2.PutReply(error=None if error is None else to_message(error)).SerializeToString())


def check_put_reply(payload: bytes) -> None:
    """Raise the error that a worker answered with, if any."""
    reply = parse(worker_pb2.PutReply, payload)
    if reply.HasField("error"):
        raise from_message(reply.error)


def encode_cancel(query: QueryId) -> bytes:
    return bytes(worker_pb2.CancelRequest(query=query).SerializeToString())


def decode_cancel(payload: bytes) -> QueryId:
    return QueryId(parse(worker_pb2.CancelRequest, payload).query)


def encode_status_request() -> bytes:
    return bytes(worker_pb2.StatusRequest(protocol=PROTOCOL_VERSION).SerializeToString())


def encode_status(status: WorkerStatus, incarnation: str) -> bytes:
    reply = worker_pb2.StatusReply(
        worker=status.worker,
        protocol=status.protocol,
        version=status.version,
        slots=status.slots,
        running=status.running,
        store=status.store,
        incarnation=incarnation,
        ahead=status.ahead,
        mark=status.mark,
    )
    return bytes(reply.SerializeToString())


def decode_status(payload: bytes) -> WorkerStatus:
    """Return a worker's answer, whatever version it speaks."""
    reply = parse(worker_pb2.StatusReply, payload)
    return WorkerStatus(
        worker=WorkerId(reply.worker),
        protocol=reply.protocol,
        version=reply.version,
        slots=reply.slots,
        running=tuple(reply.running),
        store=reply.store,
        ahead=reply.ahead,
        mark=reply.mark,
    )


# -- pieces -------------------------------------------------------------------------------------------------------------------


def _attempt_id(task: TaskId, attempt: int, epoch: int) -> common_pb2.AttemptId:
    identity = common_pb2.TaskId(query=task.query, fragment=task.fragment, number=task.number)
    return common_pb2.AttemptId(task=identity, attempt=attempt, epoch=epoch)


def _task_id(message: common_pb2.AttemptId) -> TaskId:
    return TaskId(QueryId(message.task.query), message.task.fragment, message.task.number)


def _partitioning_message(partition: Partitioning) -> Any:
    return worker_pb2.Partitioning(
        columns=[name for name, _ in partition.keys],
        types=[kind for _, kind in partition.keys],
        count=partition.count,
        threshold_bytes=partition.threshold_bytes,
    )


def _partitioning(request: Any) -> Partitioning | None:
    if not request.HasField("partition"):
        return None
    given = request.partition
    return Partitioning(
        keys=tuple(zip(given.columns, given.types, strict=True)), count=given.count, threshold_bytes=given.threshold_bytes
    )


def _parts(parts: Iterable[PartRef]) -> list[common_pb2.PartRef]:
    return [common_pb2.PartRef(digest=p.digest, uri=p.uri, rows=p.rows, bytes=p.bytes) for p in parts]
