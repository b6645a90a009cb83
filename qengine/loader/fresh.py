"""Keys of new rows: proven to be unique among themselves, and indexed, before a row is moved.

The first pass has left the key of every row in a file beside the cells. Keys go to buckets by range, whose borders come from a
sample; each bucket fits into memory, is sorted, checked for neighbours that are equal, and becomes a file of the index: so
uniqueness is proven out of core, as a by-product of the index. Of rows with the same key the first one may stay and the others be
put aside, if the load says so.

The files of the index are also the list of new keys, sorted, of which one at a time is in memory (`key_chunks`).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qengine.catalog.model import HEALPIX, Int64Array, KeyIndex
from qengine.loader.keys import KEY, by_key, check_unique, index_schema, sorted_by_key
from qengine.loader.locate import Placement
from qengine.loader.pool import in_order
from qengine.loader.spill import Piece, Spill
from qengine.storage.objects import Store
from qengine.storage.parts import PartFile, PartFormat, write_part

_ROW = "row"


@dataclass(frozen=True, slots=True)
class Fresh:
    """The index of the keys of all new rows, and the rows (by their number in the load) whose key another one has taken."""

    index: KeyIndex
    repeated: Int64Array


def index_keys(
    placement: Placement, arrow: pa.DataType, pool: ThreadPoolExecutor, *, scratch: Path, folder: Path, store: Store, name: str,
    budget_bytes: int, ahead: int, keeps_first: bool,
) -> Fresh:  # fmt: skip
    """Index the keys of all new rows that are not put aside; a NULL is no key. Index files go to `folder`.

    If `keeps_first`, rows that repeat a key are left to the caller; otherwise raise `DuplicateKeyError`, naming some.
    """
    schema = index_schema(arrow)
    if keeps_first:
        schema = schema.append(pa.field(_ROW, pa.int64()))
    spill = Spill(scratch, schema, pool, budget_bytes=budget_bytes)

    def work(item: tuple[int, pa.Array]) -> list[Piece]:
        first, keys = item
        cells = np.asarray(placement.cells[first : first + len(keys)])
        columns = [keys, pa.array(cells), *([pa.array(np.arange(first, first + len(keys)))] if keeps_first else [])]
        pairs = pa.record_batch(columns, schema=schema)
        return by_key(pairs.filter(pc.and_(keys.is_valid(), pa.array(cells >= 0))), placement.key_borders)

    for pieces in in_order(pool, work, _numbered(placement), ahead=ahead):
        spill.put(pieces)
    files: list[PartFile] = []
    repeated: list[Int64Array] = []
    for bucket in spill.buckets():
        table = spill.take(bucket)
        table = table.take(sorted_by_key(table.column(0)))
        if keeps_first:
            is_again = np.concatenate([[False], pc.equal(table[KEY].slice(1), table[KEY].slice(0, len(table) - 1)).to_numpy()])
            repeated.append(table[_ROW].to_numpy()[is_again.astype(bool)])
            table = table.filter(pa.array(~is_again.astype(bool))).drop_columns([_ROW])
        check_unique(table.column(0), name)
        files.append(write_part(table.combine_chunks(), folder, PartFormat(sorted_by=(KEY,))))
    index = KeyIndex(
        uri=tuple(store.uri(one.path) for one in files), digest=tuple(one.digest for one in files),
        rows=sum(one.rows for one in files),
    )  # fmt: skip
    return Fresh(index, np.sort(np.concatenate(repeated)) if repeated else np.empty(0, np.int64))


def _numbered(placement: Placement) -> Iterator[tuple[int, pa.Array]]:
    """Yield the keys of all rows, and the number of the first one of each batch."""
    first = 0
    if placement.keys is None:
        return
    with pa.OSFile(str(placement.keys)) as file, pa.ipc.open_stream(file) as reader:
        for batch in reader:
            yield first, batch.column(0)
            first += batch.num_rows


def key_chunks(index: KeyIndex | None, store: Store) -> Iterator[tuple[pa.Array, Int64Array]]:
    """Yield the keys of an index whose files follow each other, sorted, and their cells, a bounded number at a time."""
    for uri in index.uri if index is not None else ():
        table = pq.read_table(store.path(uri)).combine_chunks()
        keys = table.column(KEY)
        yield (keys.chunk(0) if keys.num_chunks else pa.array([], keys.type)), table.column(HEALPIX).to_numpy()
