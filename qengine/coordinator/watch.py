"""One worker as the coordinator sees it over time: alive, suspected or lost.

A heartbeat asks `status()` every `heartbeat_s`. A worker is lost when it refuses, or when nothing has been heard from it (neither
an answer nor an event of an attempt) for `lease_s`; then it is asked again with growing pauses until it answers and joins. An
attempt that ended with a broken connection makes its worker *suspect*: it gets no new attempts until the probe that follows at
once has answered, so that a dead worker costs each query at most the attempts that it was running.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from qengine.errors import BugError, QEngineError, WorkerLostError
from qengine.plan.physical import QueryId, WorkerId
from qengine.transport.channel import WorkerChannel, WorkerStatus

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSettings:
    """Times in seconds."""

    heartbeat_s: float = 1.0
    lease_s: float = 5.0
    reconnect_min_s: float = 0.1
    reconnect_max_s: float = 5.0


class Health(Enum):
    """`NEW`: never reached. Only `ALIVE` workers get attempts."""

    NEW = "new"
    ALIVE = "alive"
    SUSPECT = "suspect"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """One worker, for `qengine status`. `status` is its latest answer, `error` why it is not alive."""

    worker: WorkerId
    health: Health
    status: WorkerStatus | None
    error: QEngineError | None

    @property
    def is_alive(self) -> bool:
        """Whether it gets tasks."""
        return self.health is Health.ALIVE

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "worker": str(self.worker),
            "health": self.health.value,
            "slots": None if self.status is None else self.status.slots,
            "error": "" if self.error is None else str(self.error),
        }


class Watch:
    """Keeps an eye on one worker; `on_change` is called after `health` changed."""

    def __init__(self, channel: WorkerChannel, settings: WatchSettings, on_change: Callable[[Watch], None]) -> None:
        self.channel = channel
        self.health = Health.NEW
        self.status: WorkerStatus | None = None
        self.error: QEngineError | None = None
        self._settings = settings
        self._on_change = on_change
        self._heard_at = 0.0
        self._nudge = asyncio.Event()

    @property
    def worker(self) -> WorkerId:
        return self.channel.worker

    def heard(self, at: float) -> None:
        """An event of an attempt came in: the worker lives."""
        self._heard_at = at

    def suspect(self) -> None:
        """An attempt lost its connection: probe at once."""
        if self.health is Health.ALIVE:
            self._set(Health.SUSPECT)
            self._nudge.set()

    async def probe(self) -> None:
        """Ask once, and take notice of the answer."""
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        try:
            async with asyncio.timeout(self._settings.lease_s):
                status = await self.channel.status()
        except QEngineError as error:
            self._lost(error)
        except TimeoutError:
            # A busy worker may be slow to answer while its rows keep coming.
            if self._heard_at < asked_at:
                self._lost(WorkerLostError(f"worker {self.worker} has been silent for {self._settings.lease_s:g} s"))
        except Exception as error:  # a channel that breaks its contract must not end the watch over its worker
            log.exception("the channel to worker %s is broken", self.worker)
            self._lost(BugError(f"the channel to worker {self.worker} raised {error!r}"))
        else:
            self.status = status
            self.error = None
            self._heard_at = loop.time()
            if self.health is not Health.ALIVE:
                self._set(Health.ALIVE)

    async def cancel(self, query: QueryId, patience_s: float) -> None:
        """Have the worker forget a query. One that cannot be told in time finds out by itself: its streams are closed."""
        if self.health is Health.LOST:
            return
        try:
            async with asyncio.timeout(patience_s):
                await self.channel.cancel(query)
        except (QEngineError, TimeoutError) as error:
            log.warning("query %s could not be cancelled on worker %s: %s", query, self.worker, error)

    async def run(self) -> None:
        """Probe for ever; cancel it to end."""
        pause = self._settings.reconnect_min_s
        while True:
            is_lost = self.health in (Health.LOST, Health.NEW)
            try:
                async with asyncio.timeout(pause if is_lost else self._settings.heartbeat_s):
                    await self._nudge.wait()
            except TimeoutError:
                pass
            self._nudge.clear()
            await self.probe()
            is_still_lost = is_lost and self.health is not Health.ALIVE
            pause = min(pause * 2, self._settings.reconnect_max_s) if is_still_lost else self._settings.reconnect_min_s

    def _lost(self, error: QEngineError) -> None:
        self.error = error
        if self.health is not Health.LOST:
            self._set(Health.LOST)

    def _set(self, health: Health) -> None:
        before, self.health = self.health, health
        level = logging.WARNING if health is Health.LOST else logging.INFO
        log.log(level, "worker %s: %s -> %s%s", self.worker, before.value, health.value, f": {self.error}" if self.error else "")
        self._on_change(self)
