"""A small sky in the schema of Data Preview 1, as `catalogs/dp1` shards it: random rows, all columns, keys that fit together.

Columns of which nothing is said here hold small random values of their type, one in ten of those that may be NULL is.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qengine.catalog.felis_schema import read_schema
from qengine.catalog.model import HIDDEN_COLUMNS, Column, Table
from qengine.catalog.types import to_arrow
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.opening import open_store

TABLES = {"Object": 400, "ForcedSource": 1600, "Visit": 20, "DiaObject": 150, "DiaSource": 600, "CcdVisit": 40}
"""Tables in the order in which they are loaded, with their rows."""

CENTRE = (53.1, -28.1)
"""Where the objects are, in degrees: around ECDFS."""

_KEYS = {"Object": "objectId", "DiaObject": "diaObjectId", "Visit": "visit"}


def load_dp1(root: Path, tables: Iterable[str] = TABLES) -> Path:
    """Load the tables into a new store under `root`, and return the store."""
    declared = {table.name: table for table in read_schema("dp1")}
    store, registry = open_store(root / "store", create=True)
    random = np.random.default_rng(17)
    sky: dict[str, pa.Table] = {}
    with registry:
        for name in tables:
            sky[name] = _rows(declared[name], TABLES[name], sky, random)
            path = root / f"{name}.parquet"
            pq.write_table(sky[name], path)
            load(LoadRequest(inputs=(path,), catalog="dp1", table=name, schema="dp1", rows_per_tile=None), registry, store)
    return root / "store"


def _rows(table: Table, count: int, sky: dict[str, pa.Table], random: np.random.Generator) -> pa.Table:
    columns = [column for column in table.columns if column.name not in HIDDEN_COLUMNS and not column.hidden]
    made = {column.name: _values(column, count, random) for column in columns}
    director = sky.get(table.director)
    if director is not None:
        chosen = random.integers(0, director.num_rows, count)
        made[table.director_key] = director[_KEYS[table.director]].take(pa.array(chosen)).combine_chunks()
    if key := table.key or _KEYS.get(table.name, ""):
        made[key] = pa.array(10**15 + random.permutation(count), to_arrow(table.column(key).type))  # type: ignore[union-attr]
    if table.ra:
        made[table.ra] = pa.array(CENTRE[0] + random.uniform(-0.5, 0.5, count))
        made[table.dec] = pa.array(CENTRE[1] + random.uniform(-0.5, 0.5, count))
    return pa.table({column.name: made[column.name] for column in columns})


def _values(column: Column, count: int, random: np.random.Generator) -> pa.Array:
    kind = to_arrow(column.type)
    numbers = random.integers(0, 100, count)
    gone = random.random(count) < 0.1 if column.nullable else np.zeros(count, np.bool_)
    if pa.types.is_string(kind):
        return pa.array([f"word {n}" for n in numbers], kind, mask=gone)
    if pa.types.is_timestamp(kind):
        return pa.array(1_700_000_000_000_000 + numbers.astype(np.int64) * 60_000_000, pa.int64(), mask=gone).cast(kind)
    if pa.types.is_boolean(kind):
        return pa.array(numbers > 50, kind, mask=gone)
    if pa.types.is_floating(kind):
        return pa.array(random.normal(20, 3, count), pa.float64(), mask=gone).cast(kind)
    return pa.array(numbers, pa.int64(), mask=gone).cast(kind)
