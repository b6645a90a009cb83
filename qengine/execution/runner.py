"""Runs tasks, one after another: verified parts in, events out.

`TaskRunner.run` computes one attempt in the calling thread and hands each event to `emit`:

1. resolve the parts to files, check their sizes and footers, and start their digests (`verify`);
2. build the statement (`inputs`) and let DuckDB stream it (`duck`);
3. emit the rows as they come, so that they travel while the next ones are computed, up to the task's `hold_bytes`; beyond that
   write all of them to a spool (`spool`). Rows count only when the attempt is finished, whatever was sent before. The rows of a
   partitioned task are held back, and go to one file per partition when they are many (`partition`);
4. wait for the digests, look at other tasks' partitions once more, then emit `Finished`. Any failure, whatever happened before,
   is one `Failed`.

Meanwhile the runner's watchdog thread emits `Progress` every second, and when the deadline passes or somebody cancels it interrupts
DuckDB again and again until the attempt has ended: an interrupt between two statements would be lost. DuckDB does not look at
the interrupt within one call of a scalar function. Whoever owns the thread or the process has to end it then: a worker kills the
slot, the in-process channel leaves the thread behind.
"""

from __future__ import annotations

import re
import resource
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from qengine.errors import (
    BugError,
    IntegrityError,
    PartitionLostError,
    QEngineError,
    QueryCancelledError,
    QueryTimeoutError,
    QueryTooLargeError,
)
from qengine.execution.duck import DuckEngine, EngineSettings
from qengine.execution.inputs import Schemas, task_sql
from qengine.execution.partition import PartitionWriter, partitioned_sql
from qengine.execution.skyjoin import SkyRelations
from qengine.execution.spool import Spool, SpoolWriter
from qengine.execution.verify import PartVerifier
from qengine.plan.physical import (
    SHARED,
    Batch,
    Failed,
    Finished,
    PartRef,
    Progress,
    Started,
    Task,
    TaskEvent,
    TaskStats,
    partition_of,
)
from qengine.storage.cache import PartCache

Emit = Callable[[TaskEvent], None]
"""Takes an event; called by the running thread and by the watchdog, never by both at once."""

BATCH_BYTES = 4 << 20
"""Size of a record batch that leaves a runner, about."""

PROGRESS_S = 1.0
_LEAST_BYTES = 32 << 20
_INTERRUPT_EVERY_S = 0.05
_TILE_FOLDER = re.compile(r"Norder=\d+")


@dataclass(slots=True)
class _Attempt:
    """What the running thread and the watchdog share about the attempt on hand."""

    task: Task
    emit: Emit
    started: float
    next_progress: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    is_over: bool = False
    is_cancelled: bool = False
    is_late: bool = False

    @property
    def must_stop(self) -> bool:
        return self.is_cancelled or self.is_late

    @property
    def ends_at(self) -> float:
        return self.started + self.task.limits.deadline_s


class TaskRunner:
    """One slot's worth of work: an engine of its own, and what it shares with its neighbours (verifier, spool).

    `settings.roots` is replaced: the runner's engine reads below `store_root`, the spool and `attached`. When a task names an
    absolute file elsewhere, `is_attach_open` says whether the engine is opened again with that catalogue's root added (about 10 ms,
    once per catalogue and slot), or the task is refused. It is opened again, too, for a task that may have less memory than
    `settings.memory_bytes`, or more than the one before. `cache` has the parts of an object store, below `store_root`.
    """

    def __init__(
        self,
        store_root: Path,
        settings: EngineSettings,
        *,
        verifier: PartVerifier,
        spool: Spool,
        attached: Sequence[Path] = (),
        is_attach_open: bool = True,
        cache: PartCache | None = None,
    ) -> None:
        self._store_root = store_root.resolve()
        self._cache = cache
        self._verifier = verifier
        self._spool = spool
        self._is_attach_open = is_attach_open
        self._settings = replace(settings, roots=(self._store_root, spool.root.resolve(), *(root.resolve() for root in attached)))
        self._most_bytes = settings.memory_bytes
        self._engine = DuckEngine(self._settings)
        self._real: dict[str, Path] = {}
        self._attempt: _Attempt | None = None
        self._wake = threading.Condition()
        self._is_closed = False
        self._watchdog = threading.Thread(target=self._watch, name="qengine-watchdog", daemon=True)
        self._watchdog.start()

    def run(self, task: Task, emit: Emit) -> None:
        """Run one attempt and emit its events, the last of which is `Finished` or `Failed`. Never raises an error of the task."""
        now = time.monotonic()
        attempt = _Attempt(task, emit, now, now + PROGRESS_S)
        with self._wake:
            self._attempt = attempt
            self._wake.notify()
        emit(Started(task=task.id, attempt=task.attempt, epoch=task.epoch))
        try:
            self._compute(attempt)
        except QEngineError as error:
            self._end(attempt, Failed(task=task.id, attempt=task.attempt, epoch=task.epoch, error=_reason(attempt, error)))
        except Exception as error:  # whatever it is, the other side must hear of it, and the runner lives on
            bug = BugError(f"the runner failed: {error!r}", details={"task": str(task.id), "sql": task.sql})
            self._end(attempt, Failed(task=task.id, attempt=task.attempt, epoch=task.epoch, error=bug))
        finally:
            with self._wake:
                self._attempt = None

    def cancel(self) -> None:
        """End the running attempt, if any, with `QueryCancelledError`. Returns at once."""
        with self._wake:
            if self._attempt is not None:
                self._attempt.is_cancelled = True
                self._wake.notify()

    def close(self) -> None:
        """Stop the watchdog and close the engine. The runner must be idle."""
        with self._wake:
            self._is_closed = True
            self._wake.notify()
        self._watchdog.join()
        self._engine.close()

    # -- the attempt ----------------------------------------------------------------------------------------------------------

    def _compute(self, attempt: _Attempt) -> None:
        task = attempt.task
        paths = self._resolve(task)
        try:
            with self._holding(attempt, paths):
                self._compute_from(attempt, paths)
        except IntegrityError:
            if self._cache is not None:
                self._cache.drop_damaged(uri for uri, _ in self._far_parts(paths))
            raise

    def _compute_from(self, attempt: _Attempt, paths: Mapping[str, tuple[PartRef, Path]]) -> None:
        task = attempt.task
        cpu = time.thread_time() if self._settings.threads == 1 else time.process_time()
        digests = self._verifier.open(paths.values())
        schemas = {uri: self._verifier.schema(part, path) for uri, (part, path) in paths.items() if part.digest}
        try:
            held, spooled, stats = self._joined_rows(attempt, lambda part: str(paths[part.uri][1]), schemas)
        except QEngineError:
            # A damaged part makes DuckDB fail in any way: the digest knows better what is wrong.
            if not attempt.must_stop:
                _await(attempt, digests)
                self._look_again(task)
            raise
        try:
            _await(attempt, digests)
            self._look_again(task)
        except QEngineError:
            if spooled:
                spooled.abort()
            raise
        if task.partition is not None:
            for rows in held:
                self._send(attempt, rows)
        used = (time.thread_time() if self._settings.threads == 1 else time.process_time()) - cpu
        stats = replace(
            stats,
            elapsed_s=time.monotonic() - attempt.started,
            cpu_s=used,
            spool=spooled.finish() if isinstance(spooled, SpoolWriter) else "",
            partitions=spooled.finish() if isinstance(spooled, PartitionWriter) else (),
        )
        self._end(attempt, Finished(task=task.id, attempt=task.attempt, epoch=task.epoch, stats=stats))

    def _joined_rows(
        self, attempt: _Attempt, resolve: Callable[[PartRef], str], schemas: Schemas
    ) -> tuple[list[pa.RecordBatch], SpoolWriter | PartitionWriter | None, TaskStats]:
        """Make the relations of the task's sky joins, if it has any, and compute all rows."""
        task = attempt.task
        sql = task_sql(task, resolve, schemas)
        if task.partition is not None:
            sql = partitioned_sql(sql, task.partition)
        if not task.sky_joins:
            return self._rows(attempt, sql)

        def read(side: str) -> pa.Table:
            with self._engine.stream(task_sql(replace(task, sql=side), resolve, schemas)) as reader:
                return reader.read_all()

        relations = SkyRelations(self._engine, read, lambda: attempt.must_stop)
        try:
            for join in task.sky_joins:
                relations.add(join)
            return self._rows(attempt, sql)
        finally:
            relations.close()
            self._give_back()

    def _give_back(self) -> None:
        """Let the system have what the rows of a sky join took, if the process is large: malloc would keep it in pieces, and need
        more for the next task's rows."""
        if _resident_bytes() > self._settings.memory_bytes // 2:
            pa.default_memory_pool().release_unused()

    def _rows(self, attempt: _Attempt, sql: str) -> tuple[list[pa.RecordBatch], SpoolWriter | PartitionWriter | None, TaskStats]:
        """Compute all rows and send them. Return those that are held back, or the files that have all rows instead."""
        task, limits, partition = attempt.task, attempt.task.limits, attempt.task.partition
        hold_bytes = limits.hold_bytes if partition is None else min(limits.hold_bytes, partition.threshold_bytes)
        held: list[pa.RecordBatch] = []
        spooled: SpoolWriter | PartitionWriter | None = None
        rows = size = 0
        try:
            reader = self._engine.stream(sql)
            with reader:
                for batch in reader:
                    if attempt.must_stop:
                        raise QueryCancelledError("the attempt was stopped")
                    rows += batch.num_rows
                    size += batch.nbytes
                    if size > limits.result_bytes:
                        raise QueryTooLargeError(
                            f"the result of one task is larger than {limits.result_bytes} bytes",
                            hint="select fewer columns or rows, or aggregate",
                        )
                    if spooled is None and size > hold_bytes:
                        if partition is None:
                            spooled = self._spool.writer(task.id.query)
                        else:
                            spooled = PartitionWriter(self._spool, task.id.query, partition.count)
                        for earlier in held:
                            spooled.write(earlier)
                        held.clear()
                    for piece in _pieces(batch):
                        if spooled is not None:
                            spooled.write(piece)
                        else:
                            held.append(piece)
                            if partition is None:
                                self._send(attempt, piece)
                if rows == 0:
                    # An empty result still has columns and types, which whoever merges needs.
                    held.append(pa.RecordBatch.from_pylist([], schema=reader.schema))
                    if partition is None:
                        self._send(attempt, held[0])
        except BaseException:
            if spooled is not None:
                spooled.abort()
            raise
        return held, spooled, TaskStats(rows=rows, result_bytes=size, input_bytes=task.input_bytes, elapsed_s=0.0, cpu_s=0.0)

    def _send(self, attempt: _Attempt, rows: pa.RecordBatch) -> None:
        task = attempt.task
        attempt.emit(Batch(task=task.id, attempt=task.attempt, epoch=task.epoch, rows=rows))

    def _end(self, attempt: _Attempt, event: Finished | Failed) -> None:
        with attempt.lock:
            attempt.is_over = True
        attempt.emit(event)

    def _holding(self, attempt: _Attempt, paths: Mapping[str, tuple[PartRef, Path]]) -> AbstractContextManager[None]:
        """Have the parts of an object store on the disk, and keep them there while the attempt runs."""
        if self._cache is None:
            return nullcontext()
        return self._cache.hold(self._far_parts(paths), must_stop=lambda: attempt.must_stop)

    def _far_parts(self, paths: Mapping[str, tuple[PartRef, Path]]) -> list[tuple[str, int]]:
        """Return URI and bytes of the parts that the cache has to have: not of attached files, nor of other tasks' partitions."""
        found = [(uri, part, path) for uri, (part, path) in paths.items() if not Path(uri).is_absolute()]
        return [(uri, part.bytes) for uri, part, path in found if path == self._store_root / uri]

    # -- files and the engine -------------------------------------------------------------------------------------------------

    def _resolve(self, task: Task) -> dict[str, tuple[PartRef, Path]]:
        paths: dict[str, tuple[PartRef, Path]] = {}
        missing: set[Path] = set()
        lost: list[PartitionLostError] = []
        for task_input in task.inputs:
            for part in (*task_input.parts, *task_input.margin_parts):
                if (found := partition_of(part)) is not None:
                    try:
                        paths[part.uri] = (part, self._spool.partition(task.id.query, found[0]))
                    except PartitionLostError as error:
                        lost.append(error)
                    continue
                if part.uri.startswith(SHARED):
                    # A file of our own spool: its size was checked when it came, and the reference only has an estimate.
                    paths[part.uri] = (replace(part, bytes=0), self._spool.relation(task.id.query, part.uri.removeprefix(SHARED)))
                    continue
                path = Path(part.uri)
                if ".." in path.parts:
                    raise BugError(f"part {part.uri} climbs out of its directory")
                if not path.is_absolute():
                    path = self._store_root / path
                else:
                    # DuckDB follows links before it compares with its allowed directories.
                    path = self._real.get(part.uri) or self._real.setdefault(part.uri, path.resolve())
                    if not any(path.is_relative_to(root) for root in self._settings.roots):
                        missing.add(catalog_root(path))
                paths[part.uri] = (part, path)
        if lost:
            gone = [name for error in lost for name in error.details["partitions"]]
            raise PartitionLostError(f"{lost[0].message} (and {len(lost) - 1} more)", details={"partitions": gone})
        if missing and not self._is_attach_open:
            names = ", ".join(sorted(map(str, missing)))
            raise IntegrityError(f"this worker may not read below {names}", hint="start it with these attached roots")
        # Less than a task may have is no use to it, and more than the slot has cannot be had.
        memory_bytes = min(self._most_bytes, max(task.limits.memory_bytes, _LEAST_BYTES))
        if missing or self._engine.is_broken or memory_bytes != self._settings.memory_bytes:
            self._engine.close()
            self._settings = replace(self._settings, roots=(*self._settings.roots, *sorted(missing)), memory_bytes=memory_bytes)
            self._engine = DuckEngine(self._settings)
        return paths

    def _look_again(self, task: Task) -> None:
        """Raise `PartitionLostError` if a partition was damaged or deleted between the first look at it and the end of reading."""
        for part in (part for task_input in task.inputs for part in task_input.parts):
            if (found := partition_of(part)) is not None:
                self._spool.partition(task.id.query, found[0])

    # -- the watchdog ---------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while True:
            with self._wake:
                if self._is_closed:
                    return
                attempt = self._attempt
                if attempt is None:
                    self._wake.wait()
                    continue
                if not attempt.must_stop:
                    self._wake.wait(max(min(attempt.ends_at, attempt.next_progress) - time.monotonic(), 0.0))
                else:
                    self._wake.wait(_INTERRUPT_EVERY_S)
                if self._attempt is not attempt:
                    continue
                now = time.monotonic()
                attempt.is_late = attempt.is_late or (now >= attempt.ends_at and not attempt.is_cancelled)
                if attempt.must_stop:
                    self._engine.interrupt()
            if now >= attempt.next_progress:
                attempt.next_progress = now + PROGRESS_S
                self._report(attempt)

    def _report(self, attempt: _Attempt) -> None:
        task = attempt.task
        with attempt.lock:
            if not attempt.is_over:
                fraction = self._engine.progress()
                attempt.emit(Progress(task=task.id, attempt=task.attempt, epoch=task.epoch, fraction=fraction))


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:  # a system that does not say
        return 0


def catalog_root(path: Path) -> Path:
    """Return the directory that a slot must be allowed to read for an attached file: that above its tile folders
    (`Norder=..`), else its own."""
    for parent in path.parents:
        if _TILE_FOLDER.fullmatch(parent.name):
            return parent.parent
    return path.parent


def _reason(attempt: _Attempt, error: QEngineError) -> QEngineError:
    if attempt.is_late:
        return QueryTimeoutError(f"the deadline of {attempt.task.limits.deadline_s:g} s passed")
    if attempt.is_cancelled:
        return QueryCancelledError("the query was cancelled")
    return error


def _await(attempt: _Attempt, digests: Sequence[Future[None]]) -> None:
    for digest in digests:
        while not attempt.must_stop:
            try:
                digest.result(timeout=_INTERRUPT_EVERY_S)
                break
            except FutureTimeoutError:
                if digest.done():
                    raise
        if attempt.must_stop:
            raise QueryCancelledError("the attempt was stopped")


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Yield a batch in slices of about `BATCH_BYTES`."""
    count = min(max(-(-batch.nbytes // BATCH_BYTES), 1), max(batch.num_rows, 1))
    step = -(-batch.num_rows // count) if batch.num_rows else 1
    for start in range(0, max(batch.num_rows, 1), step):
        yield batch.slice(start, step)
