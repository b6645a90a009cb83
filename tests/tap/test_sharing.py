"""Processes of one service that share what somebody is allowed, over a real registry."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from qengine.catalog.demand import DemandStore
from qengine.catalog.migrations.tables import DEMANDS
from qengine.catalog.registry import Registry
from qengine.catalog.who import Identity
from qengine.errors import TooManyRequestsError
from qengine.tap.limits import Gate, LimitSettings
from qengine.tap.sharing import sharing
from tests.support.postgres import ON_BOTH, NewDatabase

ANN = Identity("ann")
EVERY_S = 0.02


def gate() -> Gate:
    return Gate(LimitSettings(users="queries=4", patience_s=0.05))


async def heard(which: Gate, count: int) -> None:
    async with asyncio.timeout(10):
        while which._elsewhere.get("user ann", 0) != count:
            await asyncio.sleep(EVERY_S)


def test_what_one_process_has_the_other_does_not_give(tmp_path: Path) -> None:
    async def scenario(registry: Registry) -> None:
        here, there = gate(), gate()
        async with sharing(there, registry.demand(), every_s=EVERY_S):
            async with sharing(here, registry.demand(), every_s=EVERY_S):
                taken = [await here.take(ANN, "a") for _ in range(4)]
                await heard(there, 4)
                taken.append(await there.take(ANN, "a"))
                with pytest.raises(TooManyRequestsError):
                    await there.take(ANN, "a")
            await heard(there, 0)
            taken += [await there.take(ANN, "a") for _ in range(3)]
            with pytest.raises(TooManyRequestsError):
                await there.take(ANN, "a")
            for slot in taken:
                slot.release()

    with Registry.open(tmp_path) as registry:
        asyncio.run(scenario(registry))


def test_a_process_that_dies_is_forgotten(tmp_path: Path) -> None:
    async def scenario(registry: Registry) -> None:
        there, dead = gate(), DemandStore(registry._database, lease_s=0.5)
        store = DemandStore(registry._database, lease_s=0.5)
        async with sharing(there, store, every_s=EVERY_S):
            async with asyncio.timeout(10):
                while not there._elsewhere:
                    dead.exchange({"user ann": 4})
                    await asyncio.sleep(EVERY_S)
            await heard(there, 0)
            for slot in [await there.take(ANN, "a") for _ in range(4)]:
                slot.release()

    with Registry.open(tmp_path) as registry:
        asyncio.run(scenario(registry))


_HOLDING = """
import asyncio, sys
from pathlib import Path
from qengine.catalog.database import Database
from qengine.catalog.demand import DemandStore
from qengine.catalog.who import Identity
from qengine.tap.limits import Gate, LimitSettings
from qengine.tap.sharing import sharing

async def hold():
    gate = Gate(LimitSettings(users="queries=4"))
    store = DemandStore(Database.open(Path(sys.argv[1]), sys.argv[2] or None), lease_s=2.0)
    async with sharing(gate, store, every_s=0.05):
        taken = [await gate.take(Identity("ann"), "a") for _ in range(4)]
        await asyncio.sleep(60)

asyncio.run(hold())
"""


@ON_BOTH
def test_queries_of_a_killed_process_do_not_count_for_long(database: NewDatabase, tmp_path: Path) -> None:
    url = database()

    async def scenario(registry: Registry) -> None:
        here = gate()
        async with sharing(here, DemandStore(registry._database, lease_s=2.0), every_s=EVERY_S):
            other = subprocess.Popen([sys.executable, "-c", _HOLDING, str(tmp_path), url or ""])
            try:
                async with asyncio.timeout(30):
                    while here._elsewhere.get("user ann") != 4:
                        assert other.poll() is None
                        await asyncio.sleep(EVERY_S)
                first = await here.take(ANN, "a")
                with pytest.raises(TooManyRequestsError):
                    await here.take(ANN, "a")
            finally:
                other.kill()
                other.wait()
            await heard(here, 0)
            for slot in [first, *[await here.take(ANN, "a") for _ in range(3)]]:
                slot.release()

    with Registry.open(tmp_path, url=url) as registry:
        asyncio.run(scenario(registry))


class Odd(DemandStore):
    """One that is heard once; then it fails as nobody thought of, or does not answer while it is `hanging`."""

    def __init__(self, registry: Registry, hanging: threading.Event | None) -> None:
        super().__init__(registry._database)
        self.calls = 0
        self._hanging = hanging

    def exchange(self, mine: Mapping[str, int]) -> dict[str, int]:
        self.calls += 1
        if self.calls == 1:
            return {"user ann": 4}
        if self._hanging is None:
            raise ValueError("nobody thought of this")
        self._hanging.wait(20)
        return {"user ann": 3}


@pytest.mark.parametrize("is_hanging", [True, False])
def test_counts_that_are_not_renewed_do_not_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture, is_hanging: bool) -> None:
    async def scenario(registry: Registry) -> None:
        here, answers = gate(), threading.Event()
        store = Odd(registry, answers if is_hanging else None)
        async with sharing(here, store, every_s=EVERY_S, patience_s=0.2):
            await heard(here, 4)
            await heard(here, 0)
            for slot in [await here.take(ANN, "a") for _ in range(4)]:
                slot.release()
            if is_hanging:
                assert store.calls == 2, "only one waits for the registry"
                answers.set()
                await heard(here, 3)

    with caplog.at_level(logging.WARNING, "qengine"), Registry.open(tmp_path) as registry:
        asyncio.run(scenario(registry))
    assert sum("limits are counted for this process alone" in message for message in caplog.messages) == 1


def test_without_the_registry_each_counts_for_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(registry: Registry) -> None:
        here, other = gate(), registry.demand()
        async with sharing(here, registry.demand(), every_s=EVERY_S):
            async with asyncio.timeout(10):
                while not here._elsewhere:
                    other.exchange({"user ann": 4})
                    await asyncio.sleep(EVERY_S)
            with registry._database.writing() as connection:
                DEMANDS.drop(connection)
            await heard(here, 0)
            for slot in [await here.take(ANN, "a") for _ in range(4)]:
                slot.release()

    with caplog.at_level(logging.WARNING, "qengine"), Registry.open(tmp_path) as registry:
        asyncio.run(scenario(registry))
    assert sum("limits are counted for this process alone" in message for message in caplog.messages) == 1
