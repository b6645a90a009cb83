"""Publishing a snapshot of a hundred thousand parts.

A table of that many tiny tiles is loaded once (minutes), then a few rows are appended, so that nearly all of the commit is to
carry over, to write down and to publish parts that did not change. `published_s` is the time until the slowest of the new snapshots
answered queries: what is measured besides is the HATS tree, a hundred thousand folders and links that follow. `reader_s` is the
longest that a reader in another thread has waited for the catalogue meanwhile, the new snapshot included, and `first_s` what a
process takes that opens the store anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.conftest import DATA
from bench.loads import fresh_folder, load_once
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.opening import open_store

PARTS = 100_000
_ROWS_PER_TILE = 10


@pytest.fixture(scope="module")
def many() -> Iterator[Path]:
    """A store with table `many` of at least `PARTS` parts."""
    with fresh_folder(DATA / "many-parts") as out:
        # Evenly spread points fill pixels of one order evenly: 12 * 4^7 = 196,608 of them, with four rows each; and a little more
        # than half of the sky is enough.
        spread = 4 * 12 * 4**7
        number = np.arange(int(0.53 * spread))
        dec = np.degrees(np.arcsin(1 - (2 * number + 1) / spread))
        ra = np.degrees(number * (np.pi * (3 - np.sqrt(5)))) % 360
        (out / "input").mkdir()
        pq.write_table(pa.table({"id": number, "ra": ra, "dec": dec}), out / "input" / "all.parquet")
        load_once(
            "qengine", out / "store", {"many": [out / "input"]},
            request={"key": "id", "rows_per_tile": _ROWS_PER_TILE, "margin_arcsec": 0},
        )  # fmt: skip
        yield out


def test_publish(benchmark: Any, many: Path) -> None:
    benchmark.group = "publish_1e5_parts"
    began = time.perf_counter()
    store, registry = open_store(many / "store")
    with registry:
        found = registry.catalog().find("bench", "many")
        first = time.perf_counter() - began
        assert found is not None
        parts = len(found.home)
        assert parts >= PARTS
        is_over, waits, seen = threading.Event(), [0.0], {registry.snapshot_number("bench"): 0.0}

        def read() -> None:
            while not is_over.wait(0.01):
                at = time.perf_counter()
                registry.catalog()
                waits.append(time.perf_counter() - at)
                seen.setdefault(registry.snapshot_number("bench"), time.perf_counter())

        reader = threading.Thread(target=read)
        reader.start()
        key, published = iter(range(10**9, 2 * 10**9)), []

        def append() -> None:
            file = many / "input" / f"more-{next(key)}.parquet"
            pq.write_table(pa.table({"id": [next(key)], "ra": [10.0], "dec": [20.0]}), file)
            began = time.perf_counter()
            load(LoadRequest(inputs=(file,), catalog="bench", table="many"), registry, store)
            published.append(seen[registry.snapshot_number("bench")] - began)

        benchmark.pedantic(append, rounds=3, iterations=1)
        is_over.set()
        reader.join()
        benchmark.extra_info.update(parts=parts, published_s=max(published), reader_s=max(waits), first_s=first)
