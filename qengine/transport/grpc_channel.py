"""The channel to a worker process over gRPC.

Whatever goes wrong between here and the worker ends an attempt as `Failed(WorkerLostError)`: a refused or broken connection, a
stream that ends without a result, and silence. A worker says something at least every second, so `idle_s` of silence means that
it hangs even if its kernel still answers keepalive pings. Messages of other attempts are dropped.

A worker on this machine is noticed by a file with a random name that it has made beside its spools. Its spools are then mapped
from the disk: gRPC takes five copies of every row, through two processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pyarrow as pa

from qengine.errors import IntegrityError, ProtocolError, QEngineError, WorkerLostError
from qengine.plan.physical import Failed, Finished, QueryId, Task, TaskEvent, WorkerId
from qengine.storage.digest import FastDigest
from qengine.storage.frames import find_frames, map_frames
from qengine.transport import codec
from qengine.transport.channel import WorkerStatus
from qengine.transport.grpc_options import CANCEL, CLIENT_OPTIONS, FETCH, PULL, PUT, RELEASE, RUN, STATUS, client_credentials
from qengine.transport.tls import TlsFiles

_FETCH_TRIES = 3
_CHUNK_BYTES = 4 << 20
_MAPPED_FROM_BYTES = 1 << 20
_SLOWEST_BYTES_PER_S = 4e6
_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]


class GrpcChannel:
    """A worker at `address` (host:port). Use it from one event loop; the connection is made at the first call.

    Without `maps_spools` all rows come over the network, also those of a worker whose disk is ours.
    """

    def __init__(
        self,
        address: str,
        *,
        worker: str = "",
        idle_s: float = 5.0,
        call_s: float = 5.0,
        tls: TlsFiles | None = None,
        maps_spools: bool = True,
    ) -> None:
        self._address = address
        self._worker = WorkerId(worker or address)
        self._idle_s = idle_s
        self._call_s = call_s
        self._tls = tls
        self._connection: grpc.aio.Channel | None = None
        self._is_closed = False
        self._maps_spools = maps_spools
        self._spools: Path | None = None

    @property
    def worker(self) -> WorkerId:
        return self._worker

    @property
    def address(self) -> str:
        return self._address

    @property
    def mapped_from_bytes(self) -> int | None:
        return _MAPPED_FROM_BYTES if self._spools is not None else None

    async def run(self, task: Task) -> AsyncIterator[TaskEvent]:
        if self._is_closed:
            yield self._lost(task, "the channel is closed")
            return
        call = self._stream(RUN)(codec.encode_run(task))
        try:
            while True:
                try:
                    event = await self._next_event(call, task)
                except QEngineError as error:
                    event = Failed(task=task.id, attempt=task.attempt, epoch=task.epoch, error=error)
                except grpc.aio.AioRpcError as error:
                    event = self._lost(task, _said(error))
                except TimeoutError:
                    event = self._lost(task, f"it was silent for {self._idle_s:g} s")
                yield event
                if isinstance(event, Finished | Failed):
                    return
        finally:
            call.cancel()

    async def fetch(self, spool: str) -> AsyncIterator[pa.RecordBatch]:
        if self._spools is not None and (near := await asyncio.to_thread(_mapped, self._spools, spool)) is not None:
            near.reverse()
            while near:
                yield near.pop()
            return
        digest = FastDigest()
        frames = tries = 0
        while True:
            call = self._stream(FETCH)(codec.encode_fetch(spool, frames))
            try:
                async for frame in self._frames(call):
                    frames += 1
                    tries = 0
                    digest.update(frame)
                    for batch in codec.decode_batches(frame):
                        yield batch
                break
            except (grpc.aio.AioRpcError, TimeoutError) as error:
                # A pull that broke goes on where it was, as long as the worker lives.
                tries += 1
                if tries == _FETCH_TRIES:
                    said = _said(error) if isinstance(error, grpc.aio.AioRpcError) else f"it was silent for {self._idle_s:g} s"
                    raise WorkerLostError(f"worker {self._worker} was lost with spool {spool}: {said}") from error
            finally:
                call.cancel()
        if digest.hexdigest() != spool.split("-")[0]:
            raise IntegrityError(f"the rows of spool {spool} are not those that worker {self._worker} wrote")
        await self._unary(RELEASE, codec.encode_release(spool))

    async def pull(self, query: QueryId, name: str) -> AsyncIterator[bytes]:
        """Yield the file of a partition that the worker has, for another worker. Raise `PartitionLostError` if it does not have it,
        `WorkerLostError` if it cannot be reached."""
        call = self._stream(PULL)(codec.encode_pull(query, name))
        try:
            async for piece in self._frames(call):
                yield piece
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            said = _said(error) if isinstance(error, grpc.aio.AioRpcError) else f"it was silent for {self._idle_s:g} s"
            raise WorkerLostError(f"worker {self._worker} was lost with partition {name}: {said}") from error
        finally:
            call.cancel()

    async def put(self, query: QueryId, name: str, content: memoryview) -> None:
        digest = FastDigest()
        digest.update(content)

        async def messages() -> AsyncIterator[bytes]:
            yield codec.encode_put(query, name, digest.hexdigest())
            for start in range(0, len(content), _CHUNK_BYTES):
                yield codec.encode_put_data(bytes(content[start : start + _CHUNK_BYTES]))

        timeout_s = self._call_s + len(content) / _SLOWEST_BYTES_PER_S
        try:
            reply = await self._open().stream_unary(PUT, None, None)(messages(), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise WorkerLostError(f"worker {self._worker} was lost while it was given {name}: {_said(error)}") from error
        codec.check_put_reply(bytes(reply))

    async def cancel(self, query: QueryId) -> None:
        await self._unary(CANCEL, codec.encode_cancel(query))

    async def status(self) -> WorkerStatus:
        status = codec.decode_status(await self._unary(STATUS, codec.encode_status_request()))
        codec.check_protocol(status.protocol)
        self._spools = await asyncio.to_thread(_folder_of, status.mark) if self._maps_spools else None
        return status

    async def close(self) -> None:
        self._is_closed = True
        if self._connection is not None:
            await self._connection.close(None)
            self._connection = None

    # -- the connection -------------------------------------------------------------------------------------------------------

    def _open(self) -> grpc.aio.Channel:
        if self._is_closed:
            raise WorkerLostError(f"the channel to worker {self._worker} is closed")
        if self._connection is None:
            # Made here and not in the constructor: a connection of grpc.aio belongs to the running event loop.
            options: list[tuple[str, Any]] = list(CLIENT_OPTIONS)
            if self._tls is None:
                self._connection = grpc.aio.insecure_channel(self._address, options=options)
            else:
                if self._tls.peer_name:
                    options.append(("grpc.ssl_target_name_override", self._tls.peer_name))
                self._connection = grpc.aio.secure_channel(self._address, client_credentials(self._tls), options=options)
        return self._connection

    def _stream(self, method: str) -> Any:
        return self._open().unary_stream(method, None, None)

    async def _unary(self, method: str, request: bytes) -> bytes:
        try:
            return bytes(await self._open().unary_unary(method, None, None)(request, timeout=self._call_s))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise ProtocolError(f"{self._address} is no worker of this release: {_said(error)}") from error
            raise WorkerLostError(f"worker {self._worker} cannot be reached: {_said(error)}") from error

    async def _next_event(self, call: Any, task: Task) -> TaskEvent:
        while True:
            async with asyncio.timeout(self._idle_s):
                message = await call.read()
            if message is _EOF:
                return self._lost(task, "it ended the stream without a result")
            event = codec.decode_event(message)
            if (event.task, event.attempt, event.epoch) == (task.id, task.attempt, task.epoch):
                return event

    async def _frames(self, call: Any) -> AsyncIterator[bytes]:
        while True:
            async with asyncio.timeout(self._idle_s):
                message = await call.read()
            if message is _EOF:
                return
            yield codec.decode_frame_message(message)

    def _lost(self, task: Task, why: str) -> Failed:
        error = WorkerLostError(f"worker {self._worker} was lost: {why}", details={"worker": self._worker})
        return Failed(task=task.id, attempt=task.attempt, epoch=task.epoch, error=error)


def _folder_of(mark: str) -> Path | None:
    """Return the directory in which we see the file that a worker has made."""
    return Path(mark).parent if mark and Path(mark).is_file() else None


def _mapped(spools: Path, spool: str) -> list[pa.RecordBatch] | None:
    """Return the rows of a spool on a disk that we share, and delete it; None if it has to come over the network after all."""
    try:
        path = find_frames(spools, spool)
        batches = map_frames(path)
        path.unlink()
    except OSError:
        return None
    return batches


def _said(error: grpc.aio.AioRpcError) -> str:
    return f"{error.code().name.lower()}: {error.details()}"
