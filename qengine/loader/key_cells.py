"""Where the rows of many keys lie: the key index of a director at hand, key -> cell.

Each thread of a load that places children asks for all keys of its rows at once, in any order, so that the index has to be at hand
as a whole: in memory if it is not too large, otherwise sorted into a file that is mapped. Of this file only those pages are read
that hold keys asked for; the operating system keeps and drops them as it sees fit. It has no name, and goes with the process.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from qengine.catalog.model import HEALPIX, Int64Array, KeyIndex
from qengine.errors import IntegrityError
from qengine.loader.key_merge import WINDOW_ROWS, in_order
from qengine.loader.keys import KEY, KeyLookup, index_schema
from qengine.storage.objects import Store

HELD_ROWS = 50_000_000
"""Integer keys of an index that is in memory, at 16 bytes each. Text is always in memory."""

_WRONG = "the manifest says that a key index has {:,} keys, but its files have {:,}"
_HINT = "`qengine verify` compares files and manifest"


class KeyCells:
    """The key index of a director: key -> cell. One of more than `held_rows` integers is mapped from a file, and `OSError` is
    raised if the disk has no room for it."""

    def __init__(self, index: KeyIndex, store: Store, *, arrow: pa.DataType, held_rows: int = HELD_ROWS) -> None:
        if index.rows > held_rows and pa.types.is_integer(arrow):
            keys, self._cells = _mapped(in_order(index, store, min(held_rows, WINDOW_ROWS)), index.rows, store)
        else:
            keys, self._cells = _held(index, store, arrow)
        self._lookup = KeyLookup(keys)

    def cells(self, keys: pa.Array) -> tuple[Int64Array, NDArray[np.bool_]]:
        """Return the cell of each key and whether the key is known; cells of unknown keys mean nothing."""
        at = self._lookup.find(keys)
        if not len(self._cells):
            return np.zeros(len(at), np.int64), np.zeros(len(at), np.bool_)
        return self._cells[at], at >= 0


def _held(index: KeyIndex, store: Store, arrow: pa.DataType) -> tuple[pa.Array, Int64Array]:
    tables = [pq.read_table(store.path(uri)) for uri in index.uri]
    table = pa.concat_tables(tables) if tables else index_schema(arrow).empty_table()
    if len(tables) > 1 and pa.types.is_integer(table.schema.field(KEY).type):
        values = table.column(KEY).to_numpy()
        if (values[1:] < values[:-1]).any():  # files of several loads: their ranges of keys overlap
            table = table.take(pa.array(np.argsort(values, kind="stable")))
    table = table.combine_chunks()
    keys = table.column(KEY)
    return keys.chunk(0) if keys.num_chunks else pa.array([], keys.type), table.column(HEALPIX).to_numpy()


def _mapped(pairs: Iterator[pa.Table], rows: int, store: Store) -> tuple[pa.Array, Int64Array]:
    with tempfile.TemporaryFile(dir=store.root) as file:
        os.posix_fallocate(file.fileno(), 0, 16 * rows)  # a full disk is an error here, and the end of the process later
        both: np.memmap[tuple[int, int], np.dtype[np.int64]] = np.memmap(file, np.int64, "w+", shape=(2, rows))
    first = 0
    for table in pairs:
        stop = first + table.num_rows
        if stop > rows:
            raise IntegrityError(_WRONG.format(rows, stop), hint=_HINT)
        both[0, first:stop] = table.column(KEY).to_numpy()
        both[1, first:stop] = table.column(HEALPIX).to_numpy()
        first = stop
    if first != rows:
        raise IntegrityError(_WRONG.format(rows, first), hint=_HINT)
    keys = pa.Array.from_buffers(pa.int64(), rows, [None, pa.py_buffer(both[0])])
    return keys, np.asarray(both[1])
