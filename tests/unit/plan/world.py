"""A small sky that is really there: tables with rows, cut into parts in memory, and plans that are run on it.

`World.answer` plans a statement, runs every task of every leaf on DuckDB over exactly the rows that the task's inputs name, and
then the final part over what the tasks sent. `World.truth` runs the bound statement over all rows. There are no files, workers or
processes: what differs is a fault of planning.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from qengine.catalog.model import (
    HEALPIX,
    NO_PARTS,
    Catalog,
    Column,
    ColumnStats,
    Int64Array,
    KeyIndex,
    Parts,
    RowGroups,
    Table,
    TableKind,
    TableSnapshot,
)
from qengine.catalog.types import BIGINT, BOOLEAN, DOUBLE, FLOAT, INTEGER, VARCHAR, SqlType, to_arrow
from qengine.execution.skyjoin import SkyRelations
from qengine.plan.cost import CostModel
from qengine.plan.cut import CutQuery, cut
from qengine.plan.fragment import LeafFragment, PhysicalPlan, fragment
from qengine.plan.logical import Lookup
from qengine.plan.optimize import capped, optimize
from qengine.plan.physical import TaskInput
from qengine.plan.prune import lookups
from qengine.plan.reading import task_inputs
from qengine.sky.cells import BEYOND_END, LINE_END, ORDER, RangeSet, beyond_cell
from qengine.sky.coverage import ring
from qengine.sky.healpix import cells_of
from qengine.sql.bind import BoundQuery, bind
from qengine.sql.macros import MACROS
from qengine.sql.parse import parse
from qengine.sql.render import render

Row = tuple[Any, ...]

FINE = CostModel(slots=1, min_task_s=1e-9, max_task_s=1.2e-5, part_bytes=50)
"""Some ten to twenty tasks for each table of this world."""

BIG = 2**53
"""From here on doubles cannot tell integers apart."""


def columns_of(types: Mapping[str, SqlType]) -> tuple[Column, ...]:
    """Columns with the hidden place on the line in front."""
    return (Column(name=HEALPIX, type=BIGINT, hidden=True), *(Column(name=name, type=t) for name, t in types.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A table with its rows (line column first) and, for each row, its part."""

    snapshot: TableSnapshot
    rows: pa.Table


def cut_parts(name: str, cells: Int64Array, rows: pa.Table, borders: Int64Array, group_rows: int) -> tuple[Parts, Int64Array]:
    """Make parts at `borders` (begins; the last one ends the line) of rows sorted by cell. Return them and each row's part."""
    number = np.searchsorted(borders[:-1], cells, side="right") - 1
    used = np.unique(number)
    count, start, stop = [], borders[used], borders[used + 1]
    lowest, highest, offset = [], [], [0]
    group_lowest: list[int] = []
    group_highest: list[int] = []
    group_size: list[int] = []
    stats: dict[str, list[tuple[Any, Any, int]]] = {c: [] for c in rows.column_names}
    for part in used.tolist():
        places = np.flatnonzero(number == part)
        count.append(len(places))
        lowest.append(cells[places[0]])
        highest.append(cells[places[-1]])
        for first in range(0, len(places), group_rows):
            chosen = cells[places[first : first + group_rows]]
            group_lowest.append(int(chosen[0]))
            group_highest.append(int(chosen[-1]))
            group_size.append(len(chosen))
        offset.append(len(group_size))
        for column in stats:
            values = [v for v in rows.column(column).take(pa.array(places)).to_pylist() if v is not None]
            stats[column].append((min(values, default=None), max(values, default=None), len(places) - len(values)))
    size = np.array(count, np.int64) * 100
    parts = Parts(
        digest=pa.array([f"{name}/{p}" for p in used.tolist()], pa.string()),
        uri=pa.array([f"{name}/{p}" for p in used.tolist()], pa.string()),
        rows=np.array(count, np.int64), bytes=size, start=start, stop=stop,
        lowest=np.array(lowest, np.int64), highest=np.array(highest, np.int64),
        row_groups=RowGroups(
            np.array(offset, np.int64), np.array(group_lowest, np.int64), np.array(group_highest, np.int64),
            np.array(group_size, np.int64), np.array(group_size, np.int64) * 100,
        ),
        stats={column: _column_stats(found) for column, found in stats.items()},
    )  # fmt: skip
    return parts, number


def _column_stats(found: Sequence[tuple[Any, Any, int]]) -> ColumnStats:
    known = np.array([low is not None for low, _, _ in found], bool)
    is_text = any(isinstance(low, str) for low, _, _ in found)
    is_integer = all(low is None or isinstance(low, int) for low, _, _ in found)
    kind: Any = object if is_text else np.int64 if is_integer else np.float64
    low, high = (np.array([("" if is_text else 0) if f[side] is None else f[side] for f in found], kind) for side in (0, 1))
    return ColumnStats(low, high, np.array([nulls for _, _, nulls in found], np.int64), known, known)


def tile_borders(order: int, *fine: tuple[int, int]) -> Int64Array:
    """Return the begins of all tiles of an order; `fine` are (order, index) of tiles that are cut in four."""
    size = 4 ** (ORDER - order)
    borders = set(range(0, LINE_END, size))
    for deep, index in fine:
        quarter = 4 ** (ORDER - deep - 1)
        borders |= {index * 4 * quarter + i * quarter for i in range(4)}
    return np.array([*sorted(borders), LINE_END], np.int64)


POSITIONS: tuple[tuple[float | None, float | None], ...] = (
    (0.0, 0.0), (359.9999, 0.0), (0.0001, 0.0), (359.9999999, 0.00001), (45.0, 0.0), (44.99999, 0.00001), (45.00001, -0.00001),
    (10.0, 90.0), (100.0, 90.0), (190.0, 89.9999), (280.0, 89.9998), (0.0, -90.0), (123.0, -89.9999), (180.0, 45.0),
    (180.00005, 45.00003), (45.0, 41.8103148957786), (45.0001, 41.81031), (44.9999, 41.8104), (90.0, -41.8103148957786),
    (None, None), (None, 12.0), (34.0, None), (34.0, 12.0), (34.0, 12.0), (34.0003, 12.0002), (34.5, 12.5), (34.6, 12.4),
    (33.0, 11.0), (33.0, 11.0001), (200.0, -30.0), (201.0, -30.0), (200.5, -30.5), (315.0, 0.0), (315.0, 0.0002),
)  # fmt: skip


def _random_positions(seed: int, count: int) -> list[tuple[float | None, float | None]]:
    rng = np.random.default_rng(seed)
    lon = rng.uniform(0, 360, count)
    lat = np.degrees(np.arcsin(rng.uniform(-1, 1, count)))
    lon[: count // 3] = rng.uniform(30, 36, count // 3)
    lat[: count // 3] = rng.uniform(10, 14, count // 3)
    return list(zip(lon.tolist(), lat.tolist(), strict=True))


def _cells(positions: Sequence[tuple[float | None, float | None]], keys: Sequence[Any]) -> Int64Array:
    beyond = beyond_cell(pa.array(keys))
    found = [
        int(beyond[i]) if ra is None or dec is None else int(cells_of(np.array([ra]), np.array([dec]))[0])
        for i, (ra, dec) in enumerate(positions)
    ]
    return np.array(found, np.int64)


class World:
    """The catalogue, its rows, and DuckDB connections: one with all tables, one with parts."""

    def __init__(self) -> None:
        self.stored: dict[str, Stored] = {}
        self.oracle = duckdb.connect(":memory:", config={"threads": 1})
        self.worker = duckdb.connect(":memory:", config={"threads": 1})
        self.merger = duckdb.connect(":memory:", config={"threads": 1})
        for connection in (self.oracle, self.worker, self.merger):
            for macro in MACROS:
                connection.execute(macro)
        self.cells: dict[tuple[str, Any], int] = {}
        self._build()
        self.catalog = Catalog(tuple(s.snapshot for s in self.stored.values()))

    # -- building -----------------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        places = [*POSITIONS, *_random_positions(1, 60)]
        keys = [*range(-3, len(places) - 8), BIG, BIG + 1, BIG + 2, 2**62, 2**62 + 1]
        cells = _cells(places, keys)
        self.cells |= {("dp.Object", k): int(c) for k, c in zip(keys, cells, strict=True)}
        rng = np.random.default_rng(7)
        self._add(
            Table(
                schema="dp", name="Object", kind=TableKind.DIRECTOR, family="dp.Object", key="objectId", ra="ra", dec="dec",
                columns=columns_of(
                    {"objectId": BIGINT, "ra": DOUBLE, "dec": DOUBLE, "mag": DOUBLE, "flags": INTEGER, "name": VARCHAR,
                     "small": FLOAT, "good": BOOLEAN, "empty": DOUBLE, "order": INTEGER}
                ),
            ),
            cells,
            [keys, [p[0] for p in places], [p[1] for p in places],
             [None if i % 7 == 3 else float(m) for i, m in enumerate(np.round(rng.uniform(15, 25, len(keys)), 2))],
             [None if i % 11 == 5 else i % 4 for i in range(len(keys))],
             [None if i % 5 == 4 else f"n{i % 6}" for i in range(len(keys))],
             [float(np.float32(16777216 + 2 * (i % 3))) if i % 2 else float(np.float32(0.1 * i)) for i in range(len(keys))],
             [None if i % 9 == 8 else i % 2 == 0 for i in range(len(keys))], [None] * len(keys), [i % 5 for i in range(len(keys))]],
            tile_borders(1, (1, 5), (2, 20), (2, 21)), KeyIndex(uri=("index",), digest=("",), rows=len(keys)),
        )  # fmt: skip
        child_keys = [k for i, k in enumerate(keys) for _ in range(i % 4)] + [9001, 9002, 9002, None, None]
        known = self.cells
        own = beyond_cell(pa.array(child_keys, pa.int64()))
        child_cells = np.array([known.get(("dp.Object", k), int(own[i])) for i, k in enumerate(child_keys)], np.int64)
        self._add(
            Table(
                schema="dp", name="ForcedSource", kind=TableKind.CHILD, family="dp.Object", director="Object",
                director_key="objectId", key="forcedSourceId",
                columns=columns_of({"forcedSourceId": BIGINT, "objectId": BIGINT, "band": VARCHAR, "flux": FLOAT}),
            ),
            child_cells,
            [list(range(len(child_keys))), child_keys, [None if i % 8 == 7 else "ugrizy"[i % 6] for i in range(len(child_keys))],
             [None if i % 6 == 1 else float(np.float32(i * 1.5)) for i in range(len(child_keys))]],
            tile_borders(0, (0, 1), (1, 5)), None,
        )  # fmt: skip
        source_keys = [k for i, k in enumerate(keys) for _ in range((i + 1) % 3)]
        by_key = dict(zip(keys, places, strict=True))
        source_places = [
            (None, None) if by_key[k][0] is None or by_key[k][1] is None or i % 13 == 12
            else ((by_key[k][0] + 0.00005 * (i % 3)) % 360, max(-90.0, by_key[k][1] - 0.00005 * (i % 2)))
            for i, k in enumerate(source_keys)
        ]  # fmt: skip
        self._add(
            Table(
                schema="dp", name="Source", kind=TableKind.CHILD, family="dp.Object", director="Object", director_key="objectId",
                key="sourceId", ra="ra", dec="dec",
                columns=columns_of({"sourceId": BIGINT, "objectId": BIGINT, "ra": DOUBLE, "dec": DOUBLE, "flux": DOUBLE}),
            ),
            np.array([known["dp.Object", k] for k in source_keys], np.int64),
            [list(range(len(source_keys))), source_keys, [p[0] for p in source_places], [p[1] for p in source_places],
             [float(i) for i in range(len(source_keys))]],
            tile_borders(2), None,
        )  # fmt: skip
        star_places = [(None if a is None else (a + 0.00004) % 360, d) for a, d in POSITIONS] + _random_positions(3, 30)
        star_keys = [f"S{i}" for i in range(len(star_places) - 3)] + ["7", "07", "x' OR 1=1"]
        star_cells = _cells(star_places, star_keys)
        self.cells |= {("ext.Star", k): int(c) for k, c in zip(star_keys, star_cells, strict=True)}
        self._add(
            Table(
                schema="ext", name="Star", kind=TableKind.DIRECTOR, family="ext.Star", key="starId", ra="ra", dec="dec",
                columns=columns_of({"starId": VARCHAR, "ra": DOUBLE, "dec": DOUBLE, "mag": DOUBLE, "r0": INTEGER}),
            ),
            star_cells,
            [star_keys, [p[0] for p in star_places], [p[1] for p in star_places],
             [None if i % 6 == 2 else float(i % 10) for i in range(len(star_keys))], [i % 3 for i in range(len(star_keys))]],
            tile_borders(0, (0, 4)), KeyIndex(uri=("index",), digest=("",), rows=len(star_keys)), margin_arcsec=36.0,
        )  # fmt: skip
        bands = ["u", "g", "r", "i", "z", "y", "w", None]
        self._add(
            Table(schema="dp", name="Filter", kind=TableKind.REPLICATED, columns=columns_of({"band": VARCHAR, "wavelength": DOUBLE})),
            np.zeros(len(bands), np.int64), [bands, [None if b is None else 300.0 + 100 * i for i, b in enumerate(bands)]],
            np.array([0, BEYOND_END], np.int64), None,
        )  # fmt: skip

    def _add(
        self, table: Table, cells: Int64Array, values: Sequence[Sequence[Any]], borders: Int64Array,
        index: KeyIndex | None, *, margin_arcsec: float = 0.0,
    ) -> None:  # fmt: skip
        along = np.argsort(cells, kind="stable")
        sorted_cells = cells[along]
        data = {HEALPIX: pa.array(sorted_cells)}
        for column, found in zip(table.columns[1:], values, strict=True):
            data[column.name] = pa.array([found[i] for i in along.tolist()], to_arrow(column.type))
        rows = pa.table(data)
        name = table.full_name
        is_sky = sorted_cells < LINE_END
        home, part = cut_parts(name, sorted_cells[is_sky], rows.filter(pa.array(is_sky)), borders, 4)
        labels = [f"{name}/{p}" for p in part.tolist()] + [f"{name}/o{0}"] * int((~is_sky).sum())
        orphan = NO_PARTS
        if (~is_sky).any():
            ends = np.array([LINE_END, BEYOND_END], np.int64)
            orphan, _ = cut_parts(f"{name}/o", sorted_cells[~is_sky], rows.filter(pa.array(~is_sky)), ends, 4)
            orphan = dataclasses.replace(orphan, uri=pa.array([f"{name}/o0"]), digest=pa.array([f"{name}/o0"]))
        with_parts = rows.append_column("part", pa.array(labels))
        margin = NO_PARTS
        if margin_arcsec:
            margin, copies = _margin_parts(name, sorted_cells, with_parts, borders, margin_arcsec)
            with_parts = pa.concat_tables([with_parts, copies])
        self.worker.register("incoming", with_parts)
        self.worker.execute(f'CREATE TABLE "{name}" AS SELECT * FROM incoming')
        self.worker.unregister("incoming")
        self.oracle.execute(f'CREATE SCHEMA IF NOT EXISTS "{table.schema}"')
        self.oracle.register("incoming", rows)
        self.oracle.execute(f'CREATE TABLE "{table.schema}"."{table.name}" AS SELECT * FROM incoming')
        self.oracle.unregister("incoming")
        snapshot = TableSnapshot(
            table=table, number=1, home=home, orphan=orphan, margin=margin, margin_arcsec=margin_arcsec, key_index=index
        )
        self.stored[name] = Stored(snapshot=snapshot, rows=rows)

    # -- planning -----------------------------------------------------------------------------------------------------------

    def bound(self, text: str, language: str = "adql") -> BoundQuery:
        return bind(parse(text, language), self.catalog)

    def pieces(self, text: str, language: str = "adql", maxrec: int | None = None) -> CutQuery:
        return cut(optimize(capped(self.bound(text, language).tree, maxrec), self.catalog), self.catalog)

    def resolve(self, pieces: CutQuery) -> dict[Lookup, Int64Array]:
        """What the key index would say."""
        resolved = {}
        for lookup in {found for leaf in pieces.leaves for found in lookups(leaf)}:
            name = f"{lookup.schema}.{lookup.table}"
            resolved[lookup] = np.array([self._cell(name, value) for value in lookup.values], np.int64)
        return resolved

    def _cell(self, name: str, value: int | str) -> int:
        if (known := self.cells.get((name, value))) is not None:
            return known
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            return LINE_END
        return int(beyond_cell(pa.array([value]))[0])

    def plan(self, text: str, *, language: str = "adql", cost: CostModel = FINE, maxrec: int | None = None) -> PhysicalPlan:
        pieces = self.pieces(text, language, maxrec)
        return fragment(pieces, self.resolve(pieces), self.bound(text, language).columns, cost)

    # -- running ------------------------------------------------------------------------------------------------------------

    def truth(self, text: str, *, language: str = "adql") -> list[Row]:
        """The rows of the bound statement over one database."""
        return self.oracle.execute(render(self.bound(text, language).tree)).fetchall()

    def answer(self, text: str, *, language: str = "adql", cost: CostModel = FINE, maxrec: int | None = None) -> list[Row]:
        """The rows of the plan."""
        return self.run(self.plan(text, language=language, cost=cost, maxrec=maxrec))

    def run(self, plan: PhysicalPlan) -> list[Row]:
        inputs = {leaf.relation: self.run_leaf(leaf) for leaf in plan.leaves}
        if plan.final_sql is None:
            rows = [tuple(row.values()) for row in inputs[plan.leaves[0].relation].to_pylist()]
            limit = plan.leaves[0].row_limit
            return rows if limit is None else rows[:limit]
        for name, rows_of in inputs.items():
            self.merger.register(name, rows_of)
        try:
            return self.merger.execute(plan.final_sql).fetchall()
        finally:
            for name in inputs:
                self.merger.unregister(name)

    def run_leaf(self, leaf: LeafFragment) -> pa.Table:
        """Run every task and collect its rows, typed as the leaf says."""
        schema = pa.schema([(name, to_arrow(found)) for name, found in leaf.columns])
        pieces = []
        for number in range(leaf.task_count):
            inputs = ", ".join(f'"{i.name}" AS ({self.input_sql(i)})' for i in task_inputs(leaf, number))
            relations = SkyRelations(self.worker, self._reader(inputs), lambda: False)
            for join in leaf.sky_joins:
                relations.add(join)
            found = self.worker.execute(f"WITH {inputs} SELECT * FROM ({leaf.sql})").to_arrow_table()
            relations.close()
            assert found.column_names == schema.names
            assert [f.type for f in found.schema] == [f.type for f in schema], (found.schema, schema, leaf.sql)
            pieces.append(found)
        return pa.concat_tables(pieces) if pieces else schema.empty_table()

    def _reader(self, inputs: str) -> Callable[[str], pa.Table]:
        return lambda side: self.worker.execute(f"WITH {inputs} SELECT * FROM ({side})").to_arrow_table()

    def input_sql(self, task_input: TaskInput) -> str:
        """The rows that a worker would read, as the contract of `TaskInput` says."""
        columns = ", ".join(f'"{c}"' for c in task_input.columns) or "1 AS one"
        if not task_input.parts and not task_input.margin_parts:
            nothing = ", ".join(f'CAST(NULL AS {t}) AS "{c}"' for c, t in zip(task_input.columns, task_input.types, strict=True))
            return f"SELECT {nothing or '1 AS one'} WHERE false"
        inside = " OR ".join(f"({HEALPIX} >= {low} AND {HEALPIX} < {high})" for low, high in task_input.ranges) or "true"
        text = f"SELECT {columns} FROM {self._rows_of(task_input.parts)} WHERE ({inside})"
        if task_input.margin_parts:
            first = f"SELECT DISTINCT ON ({HEALPIX}) {HEALPIX} AS cell, part AS p FROM {self._rows_of(task_input.margin_parts)} ORDER BY {HEALPIX}, part"
            text += (
                f" UNION ALL SELECT {columns} FROM {self._rows_of(task_input.margin_parts)} AS m "
                f"WHERE NOT ({inside}) AND EXISTS (FROM ({first}) WHERE cell = m.{HEALPIX} AND p = m.part)"
            )
        return text

    def _rows_of(self, parts: Sequence[Any]) -> str:
        if not parts:
            return '(SELECT * FROM "dp.Object" WHERE false)'
        table = "/".join(parts[0].uri.split("/")[:1])
        names = ", ".join(f"'{part.uri}'" for part in parts)
        return f'(SELECT * FROM "{table}" WHERE part IN ({names}))'


def _margin_parts(
    name: str, cells: Int64Array, rows: pa.Table, borders: Int64Array, margin_arcsec: float
) -> tuple[Parts, pa.Table]:
    """Make the margin of every tile that has rows: the rows in the ring around it."""
    made, begins, ends, sizes = [], [], [], []
    on_sky = cells < LINE_END
    for number, (start, stop) in enumerate(itertools.pairwise(borders.tolist())):
        tile = RangeSet.from_ranges([start], [stop])
        if not (on_sky & tile.contains(cells)).any():
            continue
        near = on_sky & ring(tile, margin_arcsec / 3600).contains(cells)
        if not near.any():
            continue
        copies = rows.filter(pa.array(near))
        label = pa.array([f"{name}/m{number}"] * copies.num_rows)
        made.append(copies.set_column(copies.schema.get_field_index("part"), "part", label))
        begins.append(start)
        ends.append(stop)
        sizes.append(copies.num_rows)
    count = len(made)
    uris = pa.array([t.column("part")[0].as_py() for t in made])
    start, stop = np.array(begins, np.int64), np.array(ends, np.int64)
    size = np.array(sizes, np.int64)
    parts = Parts(
        digest=uris, uri=uris, rows=size, bytes=size * 100, start=start, stop=stop, lowest=start, highest=stop - 1,
        row_groups=RowGroups(np.arange(count + 1, dtype=np.int64), start, stop - 1, size, size * 100),
    )  # fmt: skip
    return parts, pa.concat_tables(made)


def sorted_rows(rows: Sequence[Row]) -> list[str]:
    """Rows as a multiset that can be compared: floats to eleven digits."""
    return sorted(repr(tuple(_plain(value) for value in row)) for row in rows)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.11g}" if value else "0"
    return value
