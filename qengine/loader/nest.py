"""Nested light curves: the rows of child tables as columns of their director's rows, structures of lists as nested-pandas has them.

A director's rows are taken in pieces, so many that their children fit into memory. The children of a piece are in the row groups
of the child whose cells meet those of the piece; the piece may lie anywhere (the rows of a margin lie around a tile). A director
without children has empty lists, which is not the same as NULL: nothing is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qengine.catalog.model import HEALPIX, Column, Int64Array, TableKind, TableSnapshot
from qengine.catalog.schema import to_arrow_schema
from qengine.errors import ConfigError
from qengine.loader.keys import KeyLookup, to_keys
from qengine.storage.evolved import as_declared
from qengine.storage.objects import Store

PIECE_ROWS = 1 << 20
"""Children of one piece, about."""


@dataclass(frozen=True, slots=True)
class Nesting:
    """The child tables that become columns of a director's rows."""

    director: TableSnapshot
    children: tuple[TableSnapshot, ...]
    store: Store

    @classmethod
    def of(cls, director: TableSnapshot, children: Sequence[TableSnapshot], store: Store) -> Nesting:
        """Return it. Raise `ConfigError` if a table is no child of the director, or has the name of one of its columns."""
        for child in children:
            table = child.table
            if table.kind is not TableKind.CHILD or table.family != director.table.family:
                raise ConfigError(
                    f"{table.full_name} is not a child of {director.table.full_name}", hint="only children can be nested"
                )
            if any(column.name.lower() == table.name.lower() for column in director.table.columns):
                raise ConfigError(f"{director.table.full_name} has a column {table.name} already")
        return cls(director, tuple(children), store)

    @property
    def fields(self) -> tuple[pa.Field, ...]:
        """Return the columns that are added."""
        return tuple(_field(child) for child in self.children)

    def pieces(self, rows: pa.Table) -> Iterator[pa.Table]:
        """Yield the director's rows with the columns added, in their order."""
        children = sum(child.rows for child in self.children)
        step = max(1, PIECE_ROWS * max(self.director.rows, 1) // max(children, 1))
        for start in range(0, max(rows.num_rows, 1), step):
            piece = rows.slice(start, step)
            for child in self.children:
                piece = piece.append_column(_field(child), self._nested(piece, child))
            yield piece

    def _nested(self, piece: pa.Table, child: TableSnapshot) -> pa.Array:
        kin = self._kin(piece, child)
        keys = to_keys(piece.column(self.director.table.key).combine_chunks(), self.director.table.key)
        order = pc.sort_indices(keys)
        at = KeyLookup(keys.take(order)).find(to_keys(kin.column(child.table.director_key).combine_chunks(), "key"))
        is_here = at >= 0
        kin, owner = kin.filter(pa.array(is_here)), order.to_numpy()[at[is_here]]
        by_owner = np.argsort(owner, kind="stable")
        kin = kin.take(pa.array(by_owner)).combine_chunks()
        offsets = pa.array(np.r_[0, np.cumsum(np.bincount(owner, minlength=piece.num_rows))].astype(np.int32), pa.int32())
        field = _field(child)
        lists = [pa.ListArray.from_arrays(offsets, _one(kin.column(each.name)), type=each.type) for each in field.type]
        return pa.StructArray.from_arrays(lists, fields=list(field.type))

    def _kin(self, piece: pa.Table, child: TableSnapshot) -> pa.Table:
        """Return the rows of the row groups that may hold children of the piece, by time where the child has one."""
        cells: Int64Array = np.sort(piece.column(HEALPIX).to_numpy())
        columns = [*_columns(child), *(c for c in child.table.columns if c.name == child.table.director_key)]
        schema = to_arrow_schema(columns).remove_metadata()
        groups = child.home.row_groups
        is_met = np.searchsorted(cells, groups.lowest) < np.searchsorted(cells, groups.highest, "right")
        found: list[pa.Table] = []
        part_of = np.searchsorted(groups.offset, np.flatnonzero(is_met), "right") - 1
        for part in np.unique(part_of).tolist():
            with pq.ParquetFile(self.store.path(child.home.uri[part].as_py())) as file:
                numbers = np.flatnonzero(is_met[groups.offset[part] : groups.offset[part + 1]]).tolist()
                stored = [name for name in schema.names if name in file.schema_arrow.names]
                found.append(as_declared(file.read_row_groups(numbers, columns=stored), schema))
        kin = pa.concat_tables(found) if found else schema.empty_table()
        times = [time.column for time in child.table.times if time.column in schema.names]
        return kin.sort_by([(times[0], "ascending")]) if times else kin


def _columns(child: TableSnapshot) -> tuple[Column, ...]:
    return tuple(c for c in child.table.columns if not c.hidden and c.name != child.table.director_key)


def _field(child: TableSnapshot) -> pa.Field:
    schema = to_arrow_schema(_columns(child)).remove_metadata()
    return pa.field(child.table.name, pa.struct([pa.field(each.name, pa.list_(each.type)) for each in schema]))


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
