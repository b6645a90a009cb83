"""Children: rows that lie where their director lies.

A child is placed by looking up its director's key in the director's key index, so it depends on one snapshot of the director,
which the load records. Rows of a child carry their director's position (`_director_ra`, `_director_dec`), so that HATS
readers, who insist that a row's declared position lies in its tile, can use the same files. The positions come from the
director's parts in the range that is being written: both are sorted along the line.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qengine.catalog.model import NO_PARTS, Catalog, Parts, TableKind, TableSnapshot
from qengine.catalog.schema import to_arrow_schema
from qengine.errors import ConfigError, SchemaError
from qengine.loader.key_cells import KeyCells
from qengine.loader.keys import KeyLookup, key_type, to_keys
from qengine.loader.partition import Tiles
from qengine.storage.evolved import as_declared
from qengine.storage.objects import Store

DIRECTOR_RA = "_director_ra"
DIRECTOR_DEC = "_director_dec"


def find_director(catalog: Catalog, schema: str, name: str) -> TableSnapshot:
    """Return the director that children are placed by. Raise `ConfigError` if it cannot place any."""
    if not name:
        raise ConfigError("a child needs its director", hint="name it with --director TABLE --director-key COLUMN")
    found = catalog.find(schema, name)
    if found is None or found.table.kind is not TableKind.DIRECTOR:
        known = [t.table.name for t in catalog if t.table.schema.lower() == schema.lower() and t.table.kind is TableKind.DIRECTOR]
        hint = f"directors of {schema}: {', '.join(known)}" if known else "load the director first"
        raise ConfigError(f"{schema}.{name} is not a director", hint=hint)
    if found.key_index is None or not found.table.is_key_proven:
        raise ConfigError(
            f"{found.table.full_name} has no proven key, so children cannot be placed by it", hint="load it again with --key"
        )
    return found


def tiles_of_director(director: TableSnapshot) -> Tiles:
    """Return the tiles of the director: its children have the same."""
    starts, first = np.unique(director.home.start, return_index=True)
    return Tiles(starts, director.home.stop[first])


def family_key_type(director: TableSnapshot, column: pa.Field) -> pa.DataType:
    """Return the type in which child and director compare keys. Raise `SchemaError` if one is text and the other a number."""
    key = director.table.column(director.table.key)
    is_text = key is not None and key.type.is_text
    own = key_type(column.type, column.name)
    if pa.types.is_string(own) != is_text:
        raise SchemaError(
            f"column {column.name!r} is {column.type}, but the key {director.table.key!r} of {director.table.full_name} is "
            f"{'text' if is_text else 'an integer'}",
            hint="store both as the same type",
        )
    return own


def read_key_cells(director: TableSnapshot, store: Store, arrow: pa.DataType) -> KeyCells:
    """Return the key index of the director."""
    if director.key_index is None:
        raise SchemaError(f"{director.table.full_name} has no key index")
    return KeyCells(director.key_index, store, arrow=arrow)


def with_director_position(schema: pa.Schema, director: TableSnapshot) -> pa.Schema:
    """Return the schema of a child's rows with the position of the director, if it has one, after the other hidden columns."""
    if not director.table.ra:
        return schema
    hidden = [field for field in schema if field.name.startswith("_")][:3]
    rest = list(schema)[len(hidden) :]
    return pa.schema([*hidden, pa.field(DIRECTOR_RA, pa.float64()), pa.field(DIRECTOR_DEC, pa.float64()), *rest])


@dataclass(frozen=True, slots=True)
class PositionFiller:
    """Adds the director's position to the rows of a child in a range [start, stop) of the line; it changes nothing where directors
    have none. `director_key` is the child's column with the key."""

    director: TableSnapshot
    director_key: str
    store: Store

    @classmethod
    def of(cls, director: TableSnapshot, director_key: str, store: Store) -> PositionFiller:
        """Return the filler with just that of the director which it needs: others may get it by file."""
        home = replace(director.home, stats={})
        return cls(replace(director, home=home, orphan=NO_PARTS, margin=NO_PARTS, key_index=None, other=None), director_key, store)

    def __call__(self, rows: pa.Table, start: int, stop: int) -> pa.Table:
        table = self.director.table
        if not table.ra:
            return rows
        names = dict.fromkeys((table.key, table.ra, table.dec))
        columns = to_arrow_schema(c for c in table.columns if c.name in names).remove_metadata()
        kin = _read_range(self.director.home, columns, (start, stop), self.store)
        keys = to_keys(_flat(kin.column(table.key)), table.key)
        order = pc.sort_indices(keys)
        at = KeyLookup(keys.take(order)).find(to_keys(_flat(rows.column(self.director_key)), self.director_key))
        where = order.take(pa.array(at, mask=at < 0))
        schema = with_director_position(rows.schema, self.director)
        values = {name: rows.column(name) for name in rows.schema.names}
        for name, source in ((DIRECTOR_RA, table.ra), (DIRECTOR_DEC, table.dec)):
            values[name] = pc.cast(_flat(kin.column(source)), pa.float64()).take(where)
        return pa.table([values[name] for name in schema.names], schema=schema)


def _read_range(parts: Parts, schema: pa.Schema, bounds: tuple[int, int], store: Store) -> pa.Table:
    """Return rows of the parts in the range (and a few beside it: whole row groups) with the columns of `schema`."""
    found: list[pa.Table] = []
    for i in np.flatnonzero((parts.lowest < bounds[1]) & (parts.highest >= bounds[0])):
        with pq.ParquetFile(store.path(parts.uri[i].as_py())) as file:
            first, last = parts.row_groups.offset[i], parts.row_groups.offset[i + 1]
            lowest, highest = parts.row_groups.lowest[first:last], parts.row_groups.highest[first:last]
            groups = np.flatnonzero((lowest < bounds[1]) & (highest >= bounds[0]))
            # Parts of different ages may have positions of different widths.
            found.append(as_declared(file.read_row_groups(groups.tolist(), columns=schema.names), schema))
    return pa.concat_tables(found) if found else schema.empty_table()


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
