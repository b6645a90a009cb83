"""Which rows of a table that is already here a task needs: those near its cells.

Rows of an upload, a step or a table of the coordinator are put on the workers as a whole, and each task could read all of them. A
large one that is joined by position is sharded instead: put in the order of its cells, cut into pieces, of which a worker is sent
those that its tasks need; and a task reads the cells within reach of its own: its rows of a million uploaded ones, and no others.

A row m of such a table may be left out of the task with cells R if no output row of the task can have it. That holds when

* a sky edge `DISTANCE(m, h) < r` ties it to the position of a director's rows h that are places on the line, read within
  margin d of R (`plan.locality`): m is then within d + r of R;
* and the edge decides alone: it holds for all rows of the block, and m is neither null-supplied nor chosen among others (ASOF); or
  m comes by `LEFT JOIN m ON ..` and the edge stands in that ON, so that what is left out would not have matched.

Rows without a position fulfil no edge. Positions that are none (latitudes beyond the poles, infinite ones) are not reasoned about:
then every task reads the whole table, as it does of one that is small.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from qengine.catalog.model import Int64Array, TableKind, TableSnapshot
from qengine.plan.cost import CostModel
from qengine.plan.cut import Leaf
from qengine.plan.logical import UNKNOWN, Block, SkyEdge
from qengine.sky.cells import RangeSet
from qengine.sky.coverage import ring
from qengine.sky.healpix import cells_of

LINE = "qe line"
"""The column that is added: the cell of the row's position."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NearRows:
    """The rows that have positions, sorted by `LINE`, which is `cells`. A task needs those within `radius_deg` of its cells. Pieces
    have `piece_rows` rows each, but the last; `name` is the beginning of their names on workers."""

    name: str
    rows: pa.Table
    cells: Int64Array
    piece_rows: int
    radius_deg: float

    @property
    def pieces(self) -> dict[str, pa.Table]:
        """Return all pieces by their names."""
        return dict(self._piece(number) for number in range(-(-len(self.cells) // self.piece_rows)))

    def within(self, ranges: RangeSet) -> Iterator[tuple[str, pa.Table, float]]:
        """Yield name, rows, and which share of them lies in the ranges, of the pieces that have such rows."""
        starts, stops = np.searchsorted(self.cells, np.stack([ranges.starts, ranges.stops]))
        # Rows from which pieces begin, and how many of the wanted rows lie before each of these.
        edges = np.arange(0, len(self.cells) + self.piece_rows, self.piece_rows)
        before = (np.minimum(stops, edges[:, None]) - np.minimum(starts, edges[:, None])).sum(axis=1)
        for number in np.flatnonzero(np.diff(before)).tolist():
            name, rows = self._piece(number)
            yield name, rows, float(before[number + 1] - before[number]) / len(rows)

    def _piece(self, number: int) -> tuple[str, pa.Table]:
        return f"{self.name}, {number}", self.rows.slice(number * self.piece_rows, self.piece_rows)

    def ranges(self, low: int, high: int) -> RangeSet:
        """Return the cells of which a task with the cells from `low` to below `high` needs the rows."""
        home = RangeSet.from_ranges(np.array([low], np.int64), np.array([high], np.int64)) & RangeSet.sky()
        return home | ring(home, self.radius_deg)


def near_rows(leaf: Leaf, alias: str, cost: CostModel) -> NearRows | None:
    """Return the rows of the relation `alias` in order, if it is large and joined by position; otherwise None."""
    relation = leaf.block.relations.get(alias)
    table = relation.table if relation is not None else None
    if table is None or table.inline is None or table.number == UNKNOWN or table.inline.num_rows < cost.near_rows:
        return None
    edge = min(_edges(leaf, alias, table), key=lambda found: found[0], default=None)
    if edge is None or LINE in table.inline.column_names:
        return None
    radius, (ra, dec) = edge
    rows = _in_order(table.inline, ra, dec)
    if rows is None:
        return None
    return NearRows(
        name=f"{table.table.full_name} by {ra}, {dec}", rows=rows, cells=rows.column(LINE).to_numpy(),
        piece_rows=cost.near_piece_rows, radius_deg=radius,
    )  # fmt: skip


def _edges(leaf: Leaf, alias: str, table: TableSnapshot) -> Iterator[tuple[float, tuple[str, str]]]:
    """Yield how far from a task's cells rows can be that matter, and the columns of their positions."""
    assert table.inline is not None
    block = leaf.block
    relation = block.relations[alias]
    for edge in block.sky_edges:
        if alias not in (edge.left, edge.right) or edge.left == edge.right:
            continue
        is_inner = edge.scope == "" and not relation.is_null_supplied and not relation.is_chosen
        is_left = edge.scope == alias and relation.side == "LEFT" and not relation.is_chosen
        other = edge.right if alias == edge.left else edge.left
        if (is_inner or is_left) and _is_on_line(block, other, edge) and set(edge.columns[alias]) <= set(table.inline.column_names):
            yield edge.radius_deg + leaf.locality.margin_deg.get(other, 0.0), edge.columns[alias]


def _is_on_line(block: Block, alias: str, edge: SkyEdge) -> bool:
    relation = block.relations.get(alias)
    if relation is None or relation.table is None or not relation.is_sharded:
        return False
    table = relation.table.table
    return table.kind is TableKind.DIRECTOR and edge.columns[alias] == (table.ra, table.dec) and bool(table.line_column)


def _in_order(rows: pa.Table, ra: str, dec: str) -> pa.Table | None:
    if not all(_is_number(rows.schema.field(name).type) for name in (ra, dec)):
        return None
    lon, lat = (rows.column(name).cast(pa.float64()).to_numpy() for name in (ra, dec))
    if np.isinf(lon).any() or (np.abs(lat) > 90).any():  # NaN, which NULL is here, is neither
        return None
    known = np.flatnonzero(~(np.isnan(lon) | np.isnan(lat)))
    cells = cells_of(lon[known] % 360.0, lat[known])
    order = np.argsort(cells, kind="stable")
    return rows.take(pa.array(known[order])).append_column(LINE, pa.array(cells[order])).combine_chunks()


def _is_number(found: pa.DataType) -> bool:
    return bool(pa.types.is_integer(found) or pa.types.is_floating(found))
