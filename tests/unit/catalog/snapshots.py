"""Snapshots that exist only as arrays: what the catalogue tests publish and read back."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from qengine.catalog.model import (
    NO_PARTS,
    Column,
    ColumnStats,
    ForeignKey,
    KeyIndex,
    Parts,
    Release,
    RowGroups,
    Table,
    TableKind,
    TableSnapshot,
)
from qengine.catalog.types import BIGINT, DOUBLE, POINT, TIMESTAMP, VARCHAR

STEP = 4**20


def table(name: str = "Object", *, schema: str = "demo") -> Table:
    return Table(
        schema=schema,
        name=name,
        kind=TableKind.DIRECTOR,
        family=f"{schema}.{name}",
        key="id",
        ra="ra",
        dec="dec",
        epoch=2016.0,
        description="Things in the sky; ∑ ünïcode",
        table_index=3,
        columns=(
            Column(name="id", type=BIGINT, nullable=False, indexed=True, ucd="meta.id;meta.main"),
            Column(name="ra", type=DOUBLE, unit="deg", ucd="pos.eq.ra;meta.main", principal=True, column_index=2),
            Column(name="dec", type=DOUBLE, unit="deg"),
            Column(name="name", type=VARCHAR),
            Column(name="seen", type=TIMESTAMP),
            Column(name="centre", type=POINT, hidden=True),
        ),
        foreign_keys=(ForeignKey(columns=("id",), target="Other", target_columns=("key",), description="why"),),
        release=Release(title="Demo", doi="10.1/x"),
    )


def parts(count: int, *, groups: int = 3, seed: int = 0) -> Parts:
    random = np.random.default_rng(seed)
    start = np.arange(count, dtype=np.int64) * STEP
    per_part = random.integers(1, groups + 1, count)
    offset = np.concatenate([[0], np.cumsum(per_part)]).astype(np.int64)
    total = int(offset[-1])
    known = random.random(count) < 0.7
    text = [f"n{i}" if known[i] else None for i in range(count)]
    return Parts(
        digest=pa.array([f"{i + seed:064x}" for i in range(count)], pa.string()),
        uri=pa.array([f"demo/Object/parts/{i:x}.parquet" for i in range(count)], pa.string()),
        rows=random.integers(1, 1000, count),
        bytes=random.integers(1, 10**9, count),
        start=start,
        stop=start + STEP,
        lowest=start + 1,
        highest=start + STEP - 1,
        row_groups=RowGroups(offset, *(random.integers(0, 2**60, total) for _ in range(4))),
        stats={
            "id": ColumnStats(random.integers(-5, 5, count), random.integers(5, 9, count), random.integers(0, 3, count), known),
            "ra": ColumnStats(random.random(count), 1 + random.random(count), np.full(count, -1), known),
            "name": ColumnStats(np.array(text, np.object_), np.array(text, np.object_), np.zeros(count, np.int64), known),
        },
    )


def snapshot(name: str = "Object", *, schema: str = "demo", count: int = 5, seed: int = 0) -> TableSnapshot:
    return TableSnapshot(
        table=table(name, schema=schema),
        number=1,
        home=parts(count, seed=seed),
        orphan=parts(2, seed=seed + 1),
        margin=NO_PARTS,
        margin_arcsec=5.5,
        key_index=KeyIndex(uri=("a", "b"), digest=("c", "d"), rows=7),
    )


def assert_same(left: TableSnapshot, right: TableSnapshot) -> None:
    assert left.table == right.table
    assert (left.number, left.margin_arcsec, left.key_index) == (right.number, right.margin_arcsec, right.key_index)
    for role in ("home", "orphan", "margin"):
        assert_same_parts(getattr(left, role), getattr(right, role))


def assert_same_parts(left: Parts, right: Parts) -> None:
    assert left.digest.to_pylist() == right.digest.to_pylist()
    assert left.uri.to_pylist() == right.uri.to_pylist()
    for name in ("rows", "bytes", "start", "stop", "lowest", "highest"):
        _assert_array(getattr(left, name), getattr(right, name))
    for name in ("offset", "lowest", "highest", "rows", "bytes"):
        _assert_array(getattr(left.row_groups, name), getattr(right.row_groups, name))
    assert sorted(left.stats) == sorted(right.stats)
    for name in left.stats:
        for field in ("minimum", "maximum", "nulls", "is_known"):
            _assert_array(getattr(left.stats[name], field), getattr(right.stats[name], field))


def _assert_array(left: np.ndarray, right: np.ndarray) -> None:
    assert left.dtype == right.dtype
    assert left.tolist() == right.tolist()
