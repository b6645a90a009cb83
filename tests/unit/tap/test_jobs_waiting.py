"""Waiting for jobs: woken by changes here and elsewhere, never by what was known before, and idle when nobody waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Coroutine, Mapping
from typing import Any

from qengine.catalog.jobs import JobStore, Phase
from qengine.errors import RegistryError
from qengine.tap.waiting import PhaseWatch


class Phases(JobStore):
    """A store whose phases a test sets; it counts how often it is asked."""

    def __init__(self) -> None:
        self.now: dict[str, Phase] = {}
        self.asked = 0
        self.is_away = False

    def phases(self, jobs: Collection[str]) -> Mapping[str, Phase]:
        self.asked += 1
        if self.is_away:
            raise RegistryError("away")
        return {job: phase for job, phase in self.now.items() if job in jobs}


def go(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


def test_a_change_wakes_all_who_wait_for_it_and_nobody_else() -> None:
    async def work() -> None:
        store = Phases()
        watch = PhaseWatch(store)
        store.now = {"a": Phase.QUEUED, "b": Phase.QUEUED}
        first, second, other = (asyncio.create_task(watch.changed(job, Phase.QUEUED, within_s=5)) for job in ("a", "a", "b"))
        await asyncio.sleep(0.05)
        store.now["a"] = Phase.EXECUTING
        watch.look()
        await asyncio.wait_for(asyncio.gather(first, second), 0.2)
        assert not other.done()
        del store.now["b"]  # deleted, by another process
        await asyncio.wait_for(other, 1)

    go(work())


def test_the_time_ends_and_then_nobody_asks() -> None:
    async def work() -> None:
        store = Phases()
        store.now = {"a": Phase.PENDING}
        watch = PhaseWatch(store)
        began = time.monotonic()
        await watch.changed("a", Phase.PENDING, within_s=0.3)
        assert 0.25 < time.monotonic() - began < 2
        await asyncio.sleep(0.4)
        asked = store.asked
        await asyncio.sleep(0.6)
        assert store.asked == asked
        await watch.changed("a", Phase.QUEUED, within_s=5)  # and it begins again

    go(work())


def test_what_was_seen_before_is_not_news() -> None:
    async def work() -> None:
        store = Phases()
        watch = PhaseWatch(store)
        store.now = {"a": Phase.PENDING}
        old = asyncio.create_task(watch.changed("a", Phase.PENDING, within_s=2))
        await asyncio.sleep(0.05)
        store.now = {"a": Phase.EXECUTING}  # the next one knows it already, and the watch does not yet
        began = time.monotonic()
        await watch.changed("a", Phase.EXECUTING, within_s=0.2)
        assert time.monotonic() - began >= 0.19
        await old

    go(work())


def test_a_registry_that_is_away() -> None:
    async def work() -> None:
        store = Phases()
        store.is_away = True
        watch = PhaseWatch(store)
        waiting = asyncio.create_task(watch.changed("a", Phase.QUEUED, within_s=5))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        store.is_away = False
        await asyncio.wait_for(waiting, 1)

    go(work())


def test_who_is_cancelled_waits_no_longer() -> None:
    async def work() -> None:
        store = Phases()
        store.now = {"a": Phase.PENDING}
        watch = PhaseWatch(store)
        waiting = [asyncio.create_task(watch.changed("a", Phase.PENDING, within_s=60)) for _ in range(100)]
        await asyncio.sleep(0.1)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.sleep(0.4)
        asked = store.asked
        await asyncio.sleep(0.4)
        assert store.asked == asked < 10

    go(work())
