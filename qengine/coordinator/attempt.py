"""One attempt at a task: from the call of a worker's channel to the last row on the coordinator.

The rows are collected in a `Holding`. When the worker kept the result (a spool), it is fetched here too, so that an attempt that is
over is complete, and its rows are as many as the worker announced. Whatever belongs to another task, attempt or an older epoch is
counted and ignored; a newer epoch means that another coordinator has taken over, and ends the query.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, assert_never, runtime_checkable

from qengine.coordinator.holding import Holding
from qengine.coordinator.watch import Watch
from qengine.errors import ClusterError, ProtocolError, WorkerLostError
from qengine.plan.physical import Batch, Failed, Finished, Progress, Started, Task, TaskEvent, TaskStats
from qengine.transport.channel import WorkerChannel

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """How a run behaves. A worker that says nothing about a started attempt for `silence_s` (about one that has not started:
    `start_s`) has lost it. `stop_s` is how long the end of a run waits for workers to confirm that they stopped."""

    queue_bytes: int = 64 << 20
    silence_s: float = 5.0
    start_s: float = 30.0
    stop_s: float = 2.0
    temp_dir: Path | None = None


@runtime_checkable
class _Closable(Protocol):
    async def aclose(self) -> None: ...


async def close_stream(stream: AsyncIterator[object], patience_s: float) -> None:
    """Close an iterator that can be closed, and do not wait for ever."""
    if isinstance(stream, _Closable):
        try:
            async with asyncio.timeout(patience_s):
                await stream.aclose()
        except TimeoutError:
            log.warning("a stream did not close in %g s", patience_s)


class Attempt:
    """Runs one attempt on one worker.

    Parameters
    ----------
    hold_bytes
        Beyond it the rows wait on disk.
    on_started
        Called when the attempt runs on a slot.
    on_spooled
        Awaited when the worker is done and its spool has to be fetched; returns when there is room for the rows.
    prepare
        Awaited before the task is sent: gives the worker what the task needs.
    """

    def __init__(
        self,
        watch: Watch,
        *,
        hold_bytes: int,
        settings: RunSettings,
        on_started: Callable[[], None],
        on_spooled: Callable[[], Awaitable[None]],
        prepare: Callable[[WorkerChannel, Task], Awaitable[None]] | None = None,
    ) -> None:
        self.watch = watch
        self.fraction = 0.0
        self.stale = 0
        self.has_waited = False
        self.stats: TaskStats | None = None
        self._settings = settings
        self._on_started = on_started
        self._on_spooled = on_spooled
        self._prepare = prepare
        self.holding = Holding(hold_bytes, settings.temp_dir)
        # Rows of a mapped spool are on disk already.
        is_mapped = watch.channel.mapped_from_bytes is not None
        self._spooled = Holding(sys.maxsize if is_mapped else hold_bytes, settings.temp_dir)
        self._heard_at = asyncio.get_running_loop().time()
        self._is_started = False
        self._is_listening = True

    def silence_s(self, at: float) -> float | None:
        """How long the worker has said nothing, if that is longer than it may."""
        silence = at - self._heard_at
        allowed = self._settings.silence_s if self._is_started else self._settings.start_s
        return silence if self._is_listening and silence > allowed else None

    def forgive(self, lag_s: float) -> None:
        """The coordinator itself was asleep for so long; the worker was not silent."""
        self._heard_at += lag_s

    def discard(self) -> None:
        """Forget all rows."""
        self.holding.discard()
        self._spooled.discard()

    async def receive(self, task: Task) -> TaskStats:
        """Run the task and collect its whole result in `holding`. Raise what it failed with, or what is wrong with the answer."""
        if self._prepare is not None:
            self._is_listening = False
            await self._prepare(self.watch.channel, task)
            self._heard()
        stats = await self._listen(task)
        if stats is None:
            raise WorkerLostError(f"worker {self.watch.worker} ended the stream of task {task.id} without a result")
        if stats.spool:
            # The spool is the whole result; what came before it was sent until it grew too large.
            self.holding.discard()
            self.holding = self._spooled
            self._is_listening = False
            await self._on_spooled()
            await self._fetch(stats.spool)
        if self.holding.rows != (0 if stats.partitions else stats.rows):
            raise ClusterError(
                f"worker {self.watch.worker} announced {stats.rows} rows of task {task.id}, and {self.holding.rows} arrived"
            )
        return stats

    async def _listen(self, task: Task) -> TaskStats | None:
        events = self.watch.channel.run(task)
        try:
            async for event in events:
                if not self._concerns(event, task):
                    continue
                self._heard()
                if self.stats is not None:
                    continue  # complete; only the end of the stream is still to come
                match event:
                    case Started():
                        self._is_started = True
                        self._on_started()
                    case Progress():
                        self.fraction = event.fraction
                        # A worker whose slots are busy gives signs of life before it begins.
                        self.has_waited = self.has_waited or not self._is_started
                    case Batch():
                        self._is_listening = False
                        await self.holding.add(event.rows)
                        self._heard()
                    case Finished():
                        self.stats = event.stats
                    case Failed():
                        raise event.error
                    case _:
                        assert_never(event)
        finally:
            await close_stream(events, self._settings.stop_s)
        return self.stats

    def _concerns(self, event: TaskEvent, task: Task) -> bool:
        if event.epoch > task.epoch:
            raise ProtocolError(
                f"worker {self.watch.worker} answers to epoch {event.epoch}, and this coordinator is of epoch {task.epoch}",
                hint="another coordinator has taken over",
            )
        if event.task == task.id and event.attempt == task.attempt and event.epoch == task.epoch:
            return True
        self.stale += 1
        return False

    async def _fetch(self, spool: str) -> None:
        self._heard()
        batches = self.watch.channel.fetch(spool)
        try:
            async for batch in batches:
                self._is_listening = False
                await self.holding.add(batch)
                self._heard()
        finally:
            await close_stream(batches, self._settings.stop_s)

    def _heard(self) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        self._is_listening = True
        self.watch.heard(self._heard_at)
