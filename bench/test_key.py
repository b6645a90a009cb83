"""Key lookups. By hand means that DuckDB is given the file and the cell. One key is another one for each call."""

from __future__ import annotations

import duckdb
import numpy as np
import pytest

from bench.conftest import ROWS, WITH_URL, Bench, Racing
from bench.datagen import ROW_MASK
from qengine.sky.cells import RangeSet

MOST = 2700


@pytest.fixture(scope="module")
def keys(bare: duckdb.DuckDBPyConnection) -> list[int]:
    """Keys of random objects."""
    rows = ", ".join(map(str, np.random.default_rng(7).choice(ROWS, MOST, replace=False).tolist()))
    found = bare.execute(f"SELECT objectId FROM bench.Object WHERE (objectId & {ROW_MASK}) IN ({rows}) ORDER BY hash(objectId)")
    return [key for (key,) in found.fetchall()]


@pytest.fixture(scope="module")
def field_keys(bench: Bench, bare: duckdb.DuckDBPyConnection) -> list[int]:
    """Keys of the objects that are nearest to an object: what somebody who studies a field, or a cluster, has."""
    ((lon, lat),) = bare.execute("SELECT coord_ra, coord_dec FROM bench.Object WHERE abs(coord_dec) < 60 LIMIT 1").fetchall()
    found = bare.execute(
        f"SELECT objectId FROM bench.Object WHERE coord_dec BETWEEN {lat - 2} AND {lat + 2} ORDER BY "
        f"power((coord_ra - {lon}) * cos(radians({lat})), 2) + power(coord_dec - {lat}, 2) LIMIT {MOST}"
    )
    return [key for (key,) in found.fetchall()]


def lookup(bench: Bench, wanted: list[int], columns: str) -> tuple[str, str]:
    """Return the statement and what it is by hand."""
    snapshot = bench.tables["Object"]
    cells = np.unique(bench.keys.cells(snapshot.key_index, wanted))
    files = bench.files("Object", snapshot.home.meeting(RangeSet.from_ranges(cells, cells + 1)))
    listed, places = ", ".join(map(str, wanted)), ", ".join(map(str, cells.tolist()))
    shown = ", ".join(f'"{c.name}"' for c in snapshot.table.columns if not c.hidden) if columns == "*" else columns
    by_hand = f"SELECT {shown} FROM read_parquet({files}) WHERE _healpix_29 IN ({places}) AND objectId IN ({listed})"
    return f"SELECT {columns} FROM bench.Object WHERE objectId IN ({listed})", by_hand


@pytest.mark.parametrize("engine", WITH_URL, indirect=True)
def test_one_object(race: Racing, bench: Bench, keys: list[int]) -> None:
    race("key_1", [lookup(bench, [key], "*") for key in keys[:60]])


@pytest.mark.parametrize("count", [12, MOST])
def test_objects_by_key(race: Racing, bench: Bench, keys: list[int], count: int) -> None:
    race(f"key_{count}", *lookup(bench, keys[:count], "objectId, coord_ra, coord_dec, g_psfFlux"))


def test_objects_of_a_field(race: Racing, bench: Bench, field_keys: list[int]) -> None:
    race(f"key_{MOST}_field", *lookup(bench, field_keys, "objectId, coord_ra, coord_dec, g_psfFlux"))


def test_light_curve(race: Racing, bench: Bench, keys: list[int]) -> None:
    key = keys[0]
    cell = int(bench.keys.cells(bench.tables["Object"].key_index, [key])[0])
    files = bench.files("ForcedSource", bench.tables["ForcedSource"].home.meeting(RangeSet.from_ranges([cell], [cell + 1])))
    head, tail = "SELECT f.visit, f.band, f.psfFlux, f.psfFluxErr FROM", f"WHERE f.objectId = {key}"
    race("light_curve", f"{head} bench.ForcedSource f {tail}", f"{head} read_parquet({files}) f {tail} AND _healpix_29 = {cell}")
