"""The cross-match of all objects with a second catalogue within an arcsecond: ids and separation of every pair.

Bare is the join on a grid in one DuckDB statement over all files. LSDB and pyacid read the HATS trees that qengine published,
each in a process of its own that reports the time of the match alone (`bench.peers.crossmatch_once`). QENGINE_BENCH_PEERS names
Python interpreters for them, as `lsdb=PYTHON,pyacid=PYTHON`; by default LSDB runs in this environment and pyacid is left out
where it is not installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import sqlglot

from bench.conftest import Bench
from bench.datagen import CATALOG
from bench.peers import reference
from qengine.catalog.model import TableSnapshot
from qengine.client.local import LocalClient
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.opening import open_store
from qengine.plan.skyjoin import GridEdge, cell_size_deg, grid_join
from qengine.sql.macros import MACROS

RADIUS_ARCSEC = 1.0
GROUP = "crossmatch_1arcsec"
ROUNDS = 2

ADQL = f"""SELECT m."objectId", m."refId", m.separation_arcsec
           FROM CROSSMATCH({CATALOG}."Object", {CATALOG}."Reference", {RADIUS_ARCSEC}, 'all') AS m"""
DISTANCE = "qe_distance(a.coord_ra, a.coord_dec, b.ra, b.dec)"
BARE = f"""SELECT a."objectId", b."refId", {DISTANCE} * 3600 AS separation_arcsec FROM bench."Object" AS a
           JOIN bench."Reference" AS b ON {DISTANCE} <= {RADIUS_ARCSEC / 3600}"""


@pytest.fixture(scope="module")
def other(bench: Bench) -> TableSnapshot:
    """The second catalogue, made and loaded once."""
    inputs = bench.inputs / "Reference"
    if not inputs.exists():
        reference.generate(bench.inputs / "Object", inputs)
    store, registry = open_store(bench.store.root)
    with registry:
        found = registry.catalog().find(CATALOG, "Reference")
        if found is None:
            request = LoadRequest(
                inputs=(inputs,), catalog=CATALOG, table="Reference", key="refId", ra="ra", dec="dec",
                margin_arcsec=reference.MARGIN_ARCSEC,
            )  # fmt: skip
            load(request, registry, store)
            found = registry.catalog().find(CATALOG, "Reference")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def expected(bench: Bench, other: TableSnapshot) -> int:
    return len(by_grid(bench, other))


def by_grid(bench: Bench, other: TableSnapshot) -> pa.Table:
    """The pairs by the join on a grid, in one DuckDB with two threads."""
    position = ("coord_ra", "coord_dec")
    edge = GridEdge(
        home="a", expanded="b", home_position=position, expanded_position=("ra", "dec"), radius_deg=RADIUS_ARCSEC / 3600,
        cell_deg=cell_size_deg(RADIUS_ARCSEC / 3600, bench.tables["Object"].rows),
    )  # fmt: skip
    statement = grid_join(sqlglot.parse_one(BARE, dialect="duckdb"), [edge], {}).sql(dialect="duckdb")  # type: ignore[arg-type]
    with duckdb.connect(config={"threads": 2}) as connection:
        for macro in MACROS:
            connection.execute(macro)
        connection.execute("CREATE SCHEMA bench")
        files = {"Object": bench.files("Object"), "Reference": [str(bench.store.path(u)) for u in other.home.uri.to_pylist()]}
        for name, paths in files.items():
            connection.execute(f'CREATE VIEW bench."{name}" AS SELECT * FROM read_parquet({paths})')
        return connection.execute(statement).to_arrow_table()


def test_crossmatch(
    benchmark: Any, engine: str, bench: Bench, other: TableSnapshot, clients: dict[str, LocalClient], expected: int
) -> None:
    benchmark.group = GROUP
    if engine == "bare":
        found = benchmark.pedantic(lambda: by_grid(bench, other), rounds=ROUNDS)
    else:
        # The first join on distance of a process loads the kernel.
        clients[engine].query(f"{ADQL} WHERE m.mag < 5").to_arrow()
        found = benchmark.pedantic(lambda: clients[engine].query(ADQL).to_arrow(), rounds=ROUNDS)
    assert found.num_rows == expected
    benchmark.extra_info["rows_per_s_core"] = bench.tables["Object"].rows / benchmark.stats.stats.median / 2


@pytest.mark.parametrize("engine", ["lsdb", "pyacid"])
def test_peer(benchmark: Any, engine: str, bench: Bench, other: TableSnapshot, expected: int) -> None:
    benchmark.group = GROUP
    python = dict(entry.split("=", 1) for entry in os.environ.get("QENGINE_BENCH_PEERS", "").split(",") if entry)
    if engine not in python and importlib.util.find_spec({"pyacid": "acid"}.get(engine, engine)) is None:
        pytest.skip(f"{engine} is not installed; QENGINE_BENCH_PEERS names another Python that has it")
    collections = [str(bench.store.root / CATALOG / name) for name in ("Object", "Reference")]
    figures: dict[str, Any] = {}

    def match() -> None:
        done = subprocess.run(
            [python.get(engine, sys.executable), "-m", "bench.peers.crossmatch_once", engine, *collections, str(RADIUS_ARCSEC)],
            cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            pytest.skip(f"{engine} failed: {done.stderr.strip().splitlines()[-1]}")
        figures.update(json.loads(done.stdout.splitlines()[-1]))

    benchmark.pedantic(match, rounds=1)
    benchmark.extra_info["match_ms"] = figures["wall_s"] * 1e3
    benchmark.extra_info["cpu_ms"] = figures["cpu_s"] * 1e3
    benchmark.extra_info["rows"] = figures["rows"]
    benchmark.extra_info["expected_rows"] = expected
    benchmark.extra_info["rate"] = bench.tables["Object"].rows / figures["wall_s"] / 2
