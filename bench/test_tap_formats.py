"""A million rows of ten columns through HTTP, in each format, from a query service that has them in memory.

What is measured is what the service does to rows: format, base64, chunks, sockets; the client, in a process of its own (curl),
writes to /dev/null. astropy's writers take the same rows in the same run.
"""

from __future__ import annotations

import io
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.io.votable import from_table
from astropy.table import Table

from qengine.catalog.model import NO_PARTS, Catalog, Column, TableKind, TableSnapshot
from qengine.catalog.model import Table as CatalogTable
from qengine.catalog.types import from_arrow
from qengine.tap.app import create_app
from qengine.tap.service import TapSettings
from qengine.tap.web import HttpSettings
from tests.support.fake_service import FakeService
from tests.support.http_server import serving

ROWS = 1_000_000
TARGETS_S = {"votable/b2": 1.5, "votable/td": 4.0, "parquet": 1.0, "csv": 2.0}
ASTROPY_ROWS = 20_000
"""astropy takes minutes for a million; its time grows with the rows."""


def rows(count: int) -> pa.Table:
    """Six doubles, a long, an int, a float and a boolean."""
    random = np.random.default_rng(5)
    doubles = {f"d{number}": random.uniform(0, 360, count) for number in range(6)}
    more = {"id": np.arange(count), "n": random.integers(0, 1000, count).astype(np.int32)}
    return pa.table({**doubles, **more, "f": random.normal(20, 2, count).astype(np.float32), "flag": random.random(count) < 0.5})


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    data = rows(ROWS)
    columns = tuple(Column(name=field.name, type=from_arrow(field.type)) for field in data.schema)
    table = CatalogTable(schema="big", name="t", kind=TableKind.REPLICATED, columns=columns)
    snapshot = TableSnapshot(table=table, number=1, home=NO_PARTS, orphan=NO_PARTS, margin=NO_PARTS, inline=data)
    service: Any = FakeService(Catalog((snapshot,)), batch_rows=65_536)
    with serving(create_app(service, TapSettings(maxrec=2 * ROWS), http=HttpSettings(log="none"))) as address:
        yield f"{address}/tap"


def fetch(url: str, kind: str) -> int:
    words = ["-d", "LANG=ADQL", "-d", f"RESPONSEFORMAT={kind}", "--data-urlencode", "QUERY=SELECT * FROM big.t"]
    told = ["-o", "/dev/null", "-w", "%{http_code} %{size_download}"]
    done = subprocess.run(
        ["curl", "-sS", "--noproxy", "*", *told, *words, f"{url}/sync"], check=True, capture_output=True, text=True
    )
    status, size = done.stdout.split()
    assert status == "200"
    return int(size)


@pytest.mark.parametrize("kind", TARGETS_S)
def test_format(benchmark: Any, url: str, kind: str) -> None:
    size = benchmark.pedantic(fetch, args=(url, kind), rounds=3, warmup_rounds=1)
    benchmark.extra_info |= {"bytes": size, "target_s": TARGETS_S[kind]}
    assert size > 10_000_000


@pytest.mark.parametrize("kind", ["binary2", "tabledata", "csv"])
def test_astropy(benchmark: Any, kind: str) -> None:
    data = rows(ASTROPY_ROWS)
    table = Table({name: np.asarray(data[name]) for name in data.column_names})

    def write() -> None:
        out = io.StringIO() if kind == "csv" else io.BytesIO()
        if kind == "csv":
            table.write(out, format="ascii.csv")
        else:
            from_table(table).to_xml(out, tabledata_format=kind)

    began = time.perf_counter()
    benchmark.pedantic(write, rounds=1)
    benchmark.extra_info["s_for_all_rows"] = (time.perf_counter() - began) * ROWS / ASTROPY_ROWS
