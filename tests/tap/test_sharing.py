"""Processes of one service that share what somebody is allowed, over a real registry."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from qengine.catalog.demand import DemandStore
from qengine.catalog.migrations.tables import DEMANDS
from qengine.catalog.registry import Registry
from qengine.catalog.who import Identity
from qengine.errors import TooManyRequestsError
from qengine.tap.limits import Gate, LimitSettings
from qengine.tap.sharing import sharing

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
