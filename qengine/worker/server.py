"""A worker: the front process that serves gRPC and hands each attempt to a slot process.

The front computes nothing and decodes no rows, so it always answers. What it decides:

* *Order.* Attempts wait for a free slot (`transport.turns`), also those that were sent ahead so that a slot which ends one begins
  the next at once; the caller hears of each every second.
* *Ends.* An attempt ends when its slot says so; else its deadline passes, or somebody cancels it (an explicit cancel, or the
  caller left). The slot then has `GRACE_S` to end by itself and is killed, because DuckDB does not interrupt scalar functions.
* *Deaths.* A slot that dies in an attempt fails it with `WorkerLostError`, which is tried again. A query whose attempts have
  killed two slots on this worker gets `QueryTooLargeError`, and nothing of it runs here any more: no retry brings it to an end. A
  slot that says nothing for `SILENCE_S` hangs, and is killed like that.
* *Partitions.* What an attempt reads of other workers' partitions is fetched before it takes a slot (`worker.peers`): slots have no
  network.
* *Epochs.* An attempt of an older epoch than one that was seen for the same query is refused: a newer coordinator has taken over.

A slot is free as soon as it has delivered its last frame to the front; the front holds what the caller has not read yet, which is
at most `hold_bytes` an attempt.

No child outlives the front (`worker.slot`), and a front that was given a pipe by its parent ends with that. SIGTERM drains: no new
calls, running attempts get `drain_s`. The process keeps its user: an installation that lets strangers query should run workers
under a user that cannot write the store (architecture, section 5), which is the business of systemd, a container or a batch system.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import shutil
import signal
import tempfile
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from qengine.errors import (
    ConfigError,
    ProtocolError,
    QEngineError,
    QueryCancelledError,
    QueryTimeoutError,
    QueryTooLargeError,
    WorkerLostError,
)
from qengine.execution.spool import Spool
from qengine.plan.physical import PROTOCOL_VERSION, Failed, Progress, QueryId, WorkerId
from qengine.transport import codec
from qengine.transport.channel import WorkerStatus
from qengine.transport.grpc_server import GrpcServer
from qengine.transport.version import qengine_version
from qengine.worker.frames import Frame
from qengine.worker.peers import Peers
from qengine.worker.settings import WorkerSettings
from qengine.worker.slots import SlotPool, SlotProcess

GRACE_S = 2.0
SILENCE_S = 8.0
_SIGN_S = 1.0
_STOP_S = 1.0
_DEATHS = 2
_REMEMBERED_QUERIES = 10000


@dataclass(slots=True, eq=False)
class _Attempt:
    """One attempt on its way: messages for the caller in `out`, None behind the last."""

    head: codec.RunHead
    serial: int
    out: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class _QueryRecord:
    """What is remembered of a query: its newest epoch, and how many slots died of it."""

    epoch: int = 0
    deaths: int = 0


class Worker:
    """The service that `GrpcServer` serves."""

    def __init__(self, settings: WorkerSettings, pool: SlotPool, spool: Spool) -> None:
        self.incarnation = secrets.token_hex(8)
        self._settings = settings
        self._pool = pool
        self._spool = spool
        self._mark = spool.mark().resolve()
        self._peers = Peers(spool, settings.tls)
        self._serials = itertools.count(1)
        self._attempts: dict[int, _Attempt] = {}
        self._pumps: dict[asyncio.Task[None], QueryId] = {}
        self._late: set[asyncio.Task[None]] = set()
        self._queries: OrderedDict[QueryId, _QueryRecord] = OrderedDict()

    async def run(self, head: codec.RunHead, request: bytes) -> AsyncIterator[bytes]:
        attempt = _Attempt(head, next(self._serials))
        try:
            self._admit(head)
        except QEngineError as error:
            yield _failed(head, error)
            return
        self._attempts[attempt.serial] = attempt
        pump = asyncio.create_task(self._pump(attempt, request))
        self._pumps[pump] = head.task.query
        pump.add_done_callback(self._pumps.pop)
        try:
            while True:
                try:
                    async with asyncio.timeout(_SIGN_S):
                        message = await attempt.out.get()
                except TimeoutError:
                    yield codec.encode_waiting(head)
                    continue
                if message is None:
                    return
                yield message
        finally:
            del self._attempts[attempt.serial]
            attempt.cancelled.set()

    async def frames(self, spool: str, skip: int) -> AsyncIterator[bytes]:
        frames = self._spool.frames(spool, skip=skip)
        while (frame := await asyncio.to_thread(next, frames, None)) is not None:
            yield frame

    async def release(self, spool: str) -> None:
        await asyncio.to_thread(self._spool.drop, spool)

    async def pieces(self, query: QueryId, name: str) -> AsyncIterator[bytes]:
        pieces = self._spool.partition_bytes(query, name)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece

    async def put(self, query: QueryId, name: str, digest: str, chunks: AsyncIterator[bytes]) -> None:
        writer = self._spool.relation_writer(query, name)
        try:
            async for chunk in chunks:
                await asyncio.to_thread(writer.write, chunk)
            writer.finish(digest)
        finally:
            writer.abort()

    async def cancel(self, query: QueryId) -> None:
        for attempt in self._attempts.values():
            if attempt.head.task.query == query:
                attempt.cancelled.set()
        # What still runs would leave files behind.
        late = await self._ended(query, _STOP_S)
        await asyncio.to_thread(self._spool.drop_query, query)
        if late:
            dropping = asyncio.create_task(self._drop_later(query))
            self._late.add(dropping)
            dropping.add_done_callback(self._late.discard)

    async def _ended(self, query: QueryId, patience_s: float) -> set[asyncio.Task[None]]:
        """Wait for the ends of the attempts of a query; return what has not ended."""
        ending = [pump for pump, whose in self._pumps.items() if whose == query]
        return (await asyncio.wait(ending, timeout=patience_s))[1] if ending else set()

    async def _drop_later(self, query: QueryId) -> None:
        # A slot that does not stop is killed after GRACE_S.
        await self._ended(query, 2 * GRACE_S)
        await asyncio.to_thread(self._spool.drop_query, query)

    async def close(self) -> None:
        """Close the connections to other workers."""
        await self._peers.close()

    def status(self) -> WorkerStatus:
        return WorkerStatus(
            worker=WorkerId(self._settings.worker),
            protocol=PROTOCOL_VERSION,
            version=qengine_version(),
            slots=self._settings.slots,
            running=tuple(str(attempt.head.task) for attempt in self._attempts.values()),
            store=self._settings.far or str(self._settings.store_root),
            ahead=self._settings.slots,
            mark=str(self._mark),
        )

    # -- one attempt ----------------------------------------------------------------------------------------------------------

    def _admit(self, head: codec.RunHead) -> None:
        codec.check_protocol(head.protocol)
        record = self._record(head.task.query)
        if head.epoch < record.epoch:
            raise ProtocolError(
                f"attempt {head.task} is of epoch {head.epoch}, but epoch {record.epoch} has taken over",
                hint="another coordinator runs this query",
            )
        record.epoch = head.epoch
        if record.deaths >= _DEATHS:
            raise _deadly(head.task.query)

    async def _pump(self, attempt: _Attempt, request: bytes) -> None:
        """Bring an attempt through a slot; whatever happens, the caller gets a last message and then None."""
        try:
            if attempt.head.pulls:
                await self._pull(attempt)
            slot = await self._take(attempt)
            try:
                await self._relay(attempt, slot, request)
            finally:
                self._pool.give_back(slot)
        except QEngineError as error:
            attempt.out.put_nowait(_failed(attempt.head, error))
        finally:
            attempt.out.put_nowait(None)

    async def _pull(self, attempt: _Attempt) -> None:
        """Fetch the partitions that the attempt reads, unless it is cancelled before."""
        head = attempt.head

        def on_piece() -> None:
            attempt.out.put_nowait(
                codec.encode_event(Progress(task=head.task, attempt=head.attempt, epoch=head.epoch, fraction=0.0))
            )

        pulling = asyncio.create_task(self._peers.fetch(head.task.query, head.pulls, on_piece))
        cancelled = asyncio.create_task(attempt.cancelled.wait())
        try:
            await asyncio.wait({pulling, cancelled}, timeout=head.deadline_s, return_when=asyncio.FIRST_COMPLETED)
            if not pulling.done():
                raise (
                    QueryCancelledError("the query was cancelled")
                    if cancelled.done()
                    else QueryTimeoutError(f"the deadline of {head.deadline_s:g} s passed")
                )
            await pulling
        finally:
            for task in (pulling, cancelled):
                task.cancel()

    async def _take(self, attempt: _Attempt) -> SlotProcess:
        """Wait for a slot, unless the attempt is cancelled before."""
        taking = asyncio.create_task(self._pool.take(is_scan=attempt.head.is_scan))
        cancelled = asyncio.create_task(attempt.cancelled.wait())
        try:
            await asyncio.wait({taking, cancelled}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            cancelled.cancel()
            if not taking.done():
                taking.cancel()
        if attempt.cancelled.is_set():
            if taking.done() and not taking.cancelled():
                self._pool.give_back(taking.result())
            raise QueryCancelledError("the query was cancelled")
        return taking.result()

    async def _relay(self, attempt: _Attempt, slot: SlotProcess, request: bytes) -> None:
        slot.run(attempt.serial, request)
        limit = attempt.head.deadline_s
        kill_at = time.monotonic() + limit + GRACE_S
        silent_at = time.monotonic() + SILENCE_S
        is_stopping = False
        cancelled = asyncio.create_task(attempt.cancelled.wait())
        frame: asyncio.Task[Frame | None] | None = None
        try:
            while True:
                frame = frame or asyncio.create_task(slot.next_frame(attempt.serial))
                waiting = {frame} if is_stopping else {frame, cancelled}
                wait_s = max(min(kill_at, silent_at) - time.monotonic(), 0.0)
                await asyncio.wait(waiting, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
                if frame.done():
                    received = frame.result()
                    frame = None
                    if received is None:
                        raise await self._died(attempt, slot)
                    silent_at = time.monotonic() + SILENCE_S
                    attempt.out.put_nowait(received.message)
                    if received.kind.is_last:
                        return
                elif cancelled.done() and not is_stopping:
                    is_stopping = True
                    slot.cancel(attempt.serial)
                    kill_at = min(kill_at, time.monotonic() + GRACE_S)
                elif time.monotonic() >= kill_at:
                    await slot.kill()
                    if is_stopping:
                        raise QueryCancelledError("the query was cancelled")
                    raise QueryTimeoutError(f"the deadline of {limit:g} s passed")
                elif time.monotonic() >= silent_at:
                    await slot.kill()
                    raise await self._died(attempt, slot)
        finally:
            cancelled.cancel()
            if frame is not None:
                frame.cancel()

    async def _died(self, attempt: _Attempt, slot: SlotProcess) -> QEngineError:
        query = attempt.head.task.query
        record = self._record(query)
        record.deaths += 1
        if record.deaths >= _DEATHS:
            return _deadly(query)
        return WorkerLostError(
            f"a slot of worker {self._settings.worker} died in task {attempt.head.task}: {slot.epitaph}",
            details={"worker": self._settings.worker},
        )

    def _record(self, query: QueryId) -> _QueryRecord:
        record = self._queries.setdefault(query, _QueryRecord())
        self._queries.move_to_end(query)
        if len(self._queries) > _REMEMBERED_QUERIES:
            self._queries.popitem(last=False)
        return record


async def serve_worker(settings: WorkerSettings) -> None:
    """Serve until SIGTERM, SIGINT or the end of the parent. Print `listening on HOST:PORT` once calls are taken.

    Raise `ConfigError` if the store does not exist, the address is taken, or slots do not start.
    """
    if settings.far:
        settings.store_root.mkdir(parents=True, exist_ok=True)
    elif not settings.store_root.is_dir():
        raise ConfigError(f"there is no store at {settings.store_root}")
    work_dir = settings.work_dir or Path(tempfile.mkdtemp(prefix=f"qengine-{settings.worker}-"))
    work_dir.mkdir(parents=True, exist_ok=True)
    spool = Spool(work_dir / "spool")
    spool.clear()
    shutil.rmtree(work_dir / "temp", ignore_errors=True)
    pool = SlotPool(settings, work_dir)
    try:
        worker = Worker(settings, pool, spool)
        server = GrpcServer(worker, settings.listen, tls=settings.tls)
        await pool.start()
        await server.start()
        print(f"listening on {server.address}", flush=True)
        is_draining = await _until_told(settings.parent_fd)
        await server.stop(settings.drain_s if is_draining else 0.0)
        await worker.close()
    finally:
        await pool.close()
        spool.clear()
        if settings.work_dir is None:
            shutil.rmtree(work_dir, ignore_errors=True)


async def _until_told(parent_fd: int | None) -> bool:
    """Wait for a reason to stop; return whether running attempts may end first."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[bool] = loop.create_future()

    def tell(*, is_draining: bool) -> None:
        if not told.done():
            told.set_result(is_draining)

    loop.add_signal_handler(signal.SIGTERM, lambda: tell(is_draining=True))
    loop.add_signal_handler(signal.SIGINT, lambda: tell(is_draining=False))
    if parent_fd is not None:
        # The parent never writes: readable means that it has closed its end, or died.
        loop.add_reader(parent_fd, lambda: tell(is_draining=False))
    try:
        return await told
    finally:
        if parent_fd is not None:
            loop.remove_reader(parent_fd)
        # A second signal while draining ends the process at once; the slots die with it.
        loop.remove_signal_handler(signal.SIGTERM)
        loop.remove_signal_handler(signal.SIGINT)


def main(settings: WorkerSettings) -> None:
    """Run a worker in this process until it is told to stop."""
    asyncio.run(serve_worker(settings))


def _failed(head: codec.RunHead, error: QEngineError) -> bytes:
    return codec.encode_event(Failed(task=head.task, attempt=head.attempt, epoch=head.epoch, error=error))


def _deadly(query: QueryId) -> QueryTooLargeError:
    return QueryTooLargeError(
        f"query {query} has ended {_DEATHS} slot processes and is not tried again",
        hint="it needs more memory than a slot has; select less, or ask the operator",
    )
