"""Rows of an attempt in memory and on disk."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pyarrow as pa
import pytest

from qengine.coordinator.holding import Holding


def batch(first: int, size: int = 1000) -> pa.RecordBatch:
    return pa.record_batch({"n": pa.array(range(first, first + size), pa.int64()), "s": ["é" * 5] * size})


async def rows_of(holding: Holding) -> list[int]:
    return [n async for rows in holding.batches() for n in rows["n"].to_pylist()]


@pytest.mark.parametrize(("hold_bytes", "is_on_disk"), [(1 << 20, False), (50_000, True), (0, True)])
def test_rows_come_back_in_order_from_wherever_they_are(tmp_path: Path, hold_bytes: int, is_on_disk: bool) -> None:
    async def work() -> None:
        holding = Holding(hold_bytes, tmp_path)
        for number in range(8):
            await holding.add(batch(number * 1000))
        assert holding.rows == 8000
        assert holding.is_on_disk == is_on_disk
        assert await rows_of(holding) == list(range(8000))
        assert await rows_of(holding) == []
        assert not list(tmp_path.iterdir())

    asyncio.run(work())


def test_discarding_while_a_thread_writes(tmp_path: Path) -> None:
    async def work() -> None:
        for pause in (0.0, 0.001, 0.003):
            holding = Holding(0, tmp_path)
            writing = asyncio.create_task(holding.add(batch(0, 200_000)))
            await asyncio.sleep(pause)
            writing.cancel()
            holding.discard()
            with contextlib.suppress(asyncio.CancelledError):  # unless the thread was faster
                await writing
            holding.discard()
            assert await rows_of(holding) == []
        await asyncio.get_running_loop().shutdown_default_executor()
        assert not list(tmp_path.iterdir())

    asyncio.run(work())


def test_leaving_in_the_middle_of_reading(tmp_path: Path) -> None:
    async def work() -> None:
        holding = Holding(0, tmp_path)
        for number in range(4):
            await holding.add(batch(number * 1000))
        reading = holding.batches()
        assert (await anext(reading)).num_rows == 1000
        await reading.aclose()  # type: ignore[attr-defined]
        assert await rows_of(holding) == []

    asyncio.run(work())
