"""Catalogues that never existed: snapshots of any number of tiles, made from the model's classes without a file."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa

from qengine.catalog.model import (
    HEALPIX,
    LAYOUT,
    NO_PARTS,
    Catalog,
    Column,
    ColumnStats,
    KeyIndex,
    Match,
    Parts,
    RowGroups,
    Table,
    TableKind,
    TableSnapshot,
)
from qengine.catalog.types import BIGINT, DOUBLE, FLOAT, INTEGER, VARCHAR, SqlType
from qengine.sky.cells import BEYOND_END, LINE_END, ORDER


def columns(**types: SqlType) -> tuple[Column, ...]:
    """Make visible columns, with the hidden line column in front."""
    return (Column(name=HEALPIX, type=BIGINT, hidden=True), *(Column(name=n, type=t) for n, t in types.items()))


def tiled_parts(order: int, *, count: int | None = None, rows: int = 1_000_000, groups: int = 16, row_bytes: int = 60) -> Parts:
    """Make one part for each of the first `count` tiles of an order (all by default), each with `groups` even row groups."""
    tiles = 12 * 4**order if count is None else count
    size = 4 ** (ORDER - order)
    start = np.arange(tiles, dtype=np.int64) * size
    step = size // groups
    lowest = (start[:, None] + np.arange(groups) * step).ravel()
    digests = pa.array([f"{i:064x}" for i in range(tiles)])
    return Parts(
        digest=digests,
        uri=pa.array([f"p/{i}.parquet" for i in range(tiles)]),
        rows=np.full(tiles, rows, np.int64),
        bytes=np.full(tiles, rows * row_bytes, np.int64),
        start=start,
        stop=start + size,
        lowest=start,
        highest=start + size - 1,
        row_groups=RowGroups(
            offset=np.arange(tiles + 1, dtype=np.int64) * groups,
            lowest=lowest,
            highest=lowest + step - 1,
            rows=np.full(tiles * groups, rows // groups, np.int64),
            bytes=np.full(tiles * groups, rows * row_bytes // groups, np.int64),
        ),
        stats={
            "mag": ColumnStats(
                np.linspace(10, 20, tiles), np.linspace(15, 25, tiles), np.zeros(tiles, np.int64), np.ones(tiles, bool)
            )
        },
    )


def beyond_part(rows: int = 100) -> Parts:
    """Make one part for everything beyond the sky."""
    one = np.array([LINE_END], np.int64)
    return Parts(
        digest=pa.array(["f" * 64]), uri=pa.array(["p/beyond.parquet"]), rows=np.array([rows], np.int64),
        bytes=np.array([rows * 60], np.int64), start=one, stop=np.array([BEYOND_END], np.int64), lowest=one,
        highest=np.array([BEYOND_END - 1], np.int64),
        row_groups=RowGroups(np.array([0, 1], np.int64), one, np.array([BEYOND_END - 1], np.int64), np.array([rows], np.int64), np.array([rows * 60], np.int64)),
    )  # fmt: skip


def survey(order: int = 6, *, count: int | None = None) -> Catalog:
    """Object (director), ForcedSource and Source (its children), Star (director of another family, coarser), Pair (matches of Object
    and Star), Filter (replicated)."""
    parts = tiled_parts(order, count=count)
    index = KeyIndex(uri=("p/index.parquet",), digest=("",), rows=1)
    objects = Table(
        schema="dp", name="Object", kind=TableKind.DIRECTOR, family="dp.Object", key="objectId", ra="ra", dec="dec",
        columns=columns(objectId=BIGINT, ra=DOUBLE, dec=DOUBLE, mag=DOUBLE, flags=INTEGER, name=VARCHAR),
    )  # fmt: skip
    forced = Table(
        schema="dp", name="ForcedSource", kind=TableKind.CHILD, family="dp.Object", director="Object", director_key="objectId",
        columns=columns(forcedSourceId=BIGINT, objectId=BIGINT, band=VARCHAR, flux=FLOAT), key="forcedSourceId",
    )  # fmt: skip
    source = Table(
        schema="dp", name="Source", kind=TableKind.CHILD, family="dp.Object", director="Object", director_key="objectId",
        columns=columns(sourceId=BIGINT, objectId=BIGINT, ra=DOUBLE, dec=DOUBLE, flux=DOUBLE), key="sourceId", ra="ra", dec="dec",
    )  # fmt: skip
    star = Table(
        schema="ext", name="Star", kind=TableKind.DIRECTOR, family="ext.Star", key="starId", ra="ra", dec="dec",
        columns=columns(starId=BIGINT, ra=DOUBLE, dec=DOUBLE, mag=DOUBLE),
    )  # fmt: skip
    left = Table(
        schema="dp", name="Pair", kind=TableKind.MATCH, family="dp.Object", director="Object", director_key="objectId",
        columns=columns(objectId=BIGINT, starId=BIGINT, score=DOUBLE),
        match=Match(family="ext.Star", key="starId", separation_deg=0.001),
    )  # fmt: skip
    right = dataclasses.replace(
        left, name="Pair" + LAYOUT, family="ext.Star", director="Star", director_key="starId",
        match=Match(family="dp.Object", key="objectId", separation_deg=0.001, layout_of="Pair"),
    )  # fmt: skip
    band = Table(schema="dp", name="Filter", kind=TableKind.REPLICATED, columns=columns(band=VARCHAR, wavelength=DOUBLE))
    coarse = tiled_parts(max(order - 2, 0))

    def snapshot(table: Table, home: Parts, orphan: Parts = NO_PARTS, key_index: KeyIndex | None = None) -> TableSnapshot:
        return TableSnapshot(table=table, number=1, home=home, orphan=orphan, margin=NO_PARTS, key_index=key_index)

    whole = tiled_parts(0, count=1, rows=6, groups=1)
    pairs = dataclasses.replace(snapshot(left, parts, beyond_part()), other=snapshot(right, coarse, beyond_part()))
    return Catalog(
        tables=(
            pairs,
            snapshot(objects, parts, beyond_part(), index),
            snapshot(forced, parts, beyond_part()),
            snapshot(source, parts, beyond_part()),
            snapshot(star, coarse, key_index=index),
            snapshot(band, whole),
        )
    )
