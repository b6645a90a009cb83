"""Key lookups. By hand means that DuckDB is given the file and the cell. Target: at most 2 times by hand plus 8 ms."""

from __future__ import annotations

import numpy as np
import pytest

from bench.conftest import Bench, Race
from qengine.sky.cells import RangeSet


@pytest.mark.parametrize("count", [1, 12, 2700])
def test_objects_by_key(race: Race, bench: Bench, count: int) -> None:
    keys = np.random.default_rng(7).choice(bench.object_keys, count, replace=False).tolist()
    snapshot = bench.tables["Object"]
    cells = np.unique(bench.keys.cells(snapshot.key_index, keys))
    files = bench.files("Object", snapshot.home.meeting(RangeSet.from_ranges(cells, cells + 1)))
    listed, places = ", ".join(map(str, keys)), ", ".join(map(str, cells.tolist()))
    columns = "*" if count == 1 else "objectId, coord_ra, coord_dec, g_psfFlux"
    shown = ", ".join(f'"{c.name}"' for c in snapshot.table.columns if not c.hidden) if count == 1 else columns
    by_hand = f"SELECT {shown} FROM read_parquet({files}) WHERE _healpix_29 IN ({places}) AND objectId IN ({listed})"
    race(f"key_{count}", f"SELECT {columns} FROM bench.Object WHERE objectId IN ({listed})", by_hand)


def test_light_curve(race: Race, bench: Bench) -> None:
    key = bench.object_keys[len(bench.object_keys) // 2]
    statement = f"SELECT f.visit, f.band, f.psfFlux, f.psfFluxErr FROM bench.ForcedSource f WHERE f.objectId = {key}"
    race("light_curve", statement, statement)
