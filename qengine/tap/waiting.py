"""Waiting for jobs to change, without a thread for each who waits.

As long as somebody waits, one task asks the registry a few times a second for the phases of all jobs that are waited for, so that
changes by other processes are seen, too; what this process changes it says itself (`look`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

from qengine.catalog.jobs import JobStore, Phase
from qengine.errors import QEngineError

_EVERY_S = 0.25


class PhaseWatch:
    """Who waits for which jobs. It belongs to one event loop."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._waiting: Counter[str] = Counter()
        self._phases: dict[str, tuple[int, Phase | None]] = {}
        self._rounds = 0
        self._seen = asyncio.Condition()
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def look(self) -> None:
        """Ask the registry now: something has changed."""
        self._woken.set()

    async def changed(self, job: str, phase: Phase, *, within_s: float) -> None:
        """Return when the job is in another phase than `phase` or is gone, or after a time."""
        self._waiting[job] += 1
        known = self._rounds  # what was asked before may be older than what the caller knows
        if self._task is None:
            self._task = asyncio.create_task(self._ask())
        try:
            async with asyncio.timeout(within_s), self._seen:
                while not self._has_changed(job, phase, known):
                    await self._seen.wait()
        except TimeoutError:
            return
        finally:
            self._waiting[job] -= 1
            if not self._waiting[job]:
                del self._waiting[job]
                self._phases.pop(job, None)

    def _has_changed(self, job: str, phase: Phase, known: int) -> bool:
        asked, found = self._phases.get(job, (known, phase))
        return asked > known and found is not phase

    async def _ask(self) -> None:
        while self._waiting:
            jobs = list(self._waiting)
            self._woken.clear()
            self._rounds += 1
            with suppress(QEngineError):  # a registry that is away may be back next time
                found = await asyncio.to_thread(self._store.phases, jobs)
                async with self._seen:
                    self._phases |= {job: (self._rounds, found.get(job)) for job in jobs if job in self._waiting}
                    self._seen.notify_all()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), _EVERY_S)
        self._task = None
