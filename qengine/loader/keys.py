"""Keys: the index from key to cell, what is found in it, and its use by children.

The index of a director is a list of Parquet files sorted by key. A load adds files of its own (`loader.fresh`), each with the next
range of keys; those of several loads may overlap.

Keys are integers (as int64) or text. A NULL key is not in the index and equals nothing.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from qengine.catalog.model import HEALPIX, Int64Array, KeyIndex
from qengine.errors import DuplicateKeyError, InputError, SchemaError
from qengine.loader.spill import Piece, Spill, scatter
from qengine.storage.objects import Store
from qengine.storage.parts import PartFile, PartFormat, write_part

KEY = "key"
"""Name of the key's column in an index, whatever the table calls it."""

_BUCKET_ROWS = 16_000_000
_SAMPLED = 4_000_000
_SHOWN = 5


def key_type(arrow: pa.DataType, name: str) -> pa.DataType:
    """Return the type in which keys of a column are indexed and compared. Raise `SchemaError` for types that make no keys."""
    if pa.types.is_integer(arrow):
        return pa.int64()
    if pa.types.is_string(arrow) or pa.types.is_large_string(arrow):
        return pa.string()
    raise SchemaError(f"column {name!r} is {arrow}; a key is an integer or text", hint="name another column with --key, or none")


def to_keys(values: pa.Array, name: str) -> pa.Array:
    """Return a key column in its key type. Raise `InputError` for an unsigned value that int64 cannot hold."""
    try:
        return pc.cast(values, key_type(values.type, name))
    except pa.ArrowInvalid as error:
        raise InputError(f"key column {name!r}: {error}", hint="keys beyond 2^63-1 need a text column") from error


def index_schema(arrow: pa.DataType) -> pa.Schema:
    """Return the schema of an index of keys of this type."""
    return pa.schema([pa.field(KEY, arrow), pa.field(HEALPIX, pa.int64())])


class KeySample:
    """Some keys, from which borders of key buckets are taken: every 64th, and fewer of very many. Which ones these are depends on
    the keys and their order only, not on the batches that they come in."""

    def __init__(self) -> None:
        self._kept: list[pa.Array] = []
        self._step = 64
        self._seen = 0
        self._held = 0

    def add(self, keys: pa.Array) -> None:
        """Keep some of the keys."""
        self._kept.append(keys.take(pa.array(np.arange(-self._seen % self._step, len(keys), self._step))))
        self._seen += len(keys)
        self._held += len(self._kept[-1])
        if self._held > _SAMPLED:
            keys = pa.concat_arrays(self._kept)
            self._kept = [keys.take(pa.array(np.arange(0, len(keys), 2)))]
            self._step *= 2
            self._held = len(self._kept[0])

    def borders(self, rows: int) -> pa.Array:
        """Return the sorted first keys of all buckets but the first, for a table of `rows` rows."""
        buckets = -(-rows // _BUCKET_ROWS)
        keys = pa.concat_arrays(self._kept) if self._kept else pa.array([], pa.int64())
        keys = keys.drop_null()
        keys = keys.take(pc.sort_indices(keys))
        marks = [i * len(keys) // buckets for i in range(1, buckets)] if len(keys) else []
        return keys.take(pa.array(sorted(set(marks)), pa.int64())).unique()


def key_pieces(keys: pa.Array, cells: Int64Array, borders: pa.Array) -> list[Piece]:
    """Return (key, cell) pairs by key bucket, without NULL keys."""
    pairs = pa.record_batch([keys, pa.array(cells)], schema=index_schema(keys.type))
    return by_key(pairs.filter(keys.is_valid()) if keys.null_count else pairs, borders)


def by_key(pairs: pa.RecordBatch, borders: pa.Array) -> list[Piece]:
    """Return (key, cell, ..) by key bucket; no key is NULL."""
    bucket = np.zeros(pairs.num_rows, np.int64)
    if pa.types.is_integer(borders.type) and len(borders):
        return scatter(pairs, np.searchsorted(borders.to_numpy(), pairs.column(0).to_numpy(), "right"))
    for border in borders:
        bucket += pc.greater_equal(pairs.column(0), border).to_numpy(zero_copy_only=False)
    return scatter(pairs, bucket)


def write_index(pairs: Spill, folder: Path, store: Store, *, name: str) -> KeyIndex:
    """Write the index of all pairs and return it. Raise `DuplicateKeyError` (naming some) if a key occurs twice."""
    files: list[PartFile] = []
    for bucket in pairs.buckets():
        table = pairs.take(bucket)
        table = table.take(sorted_by_key(table.column(0)))
        check_unique(table.column(0), name)
        files.append(write_part(table.combine_chunks(), folder, PartFormat(sorted_by=(KEY,))))
    return KeyIndex(
        uri=tuple(store.uri(f.path) for f in files), digest=tuple(f.digest for f in files), rows=sum(f.rows for f in files)
    )


def sorted_by_key(keys: pa.ChunkedArray) -> pa.Array:
    """Return the order of keys that are not NULL; equal ones stay as they come."""
    if pa.types.is_integer(keys.type):
        return pa.array(np.argsort(keys.to_numpy(), kind="stable"))
    return pc.sort_indices(keys)  # stable


def check_unique(keys: pa.ChunkedArray, name: str) -> None:
    """Raise `DuplicateKeyError` (naming some) if one of the sorted keys occurs twice."""
    is_same = pc.equal(keys.slice(1), keys.slice(0, max(0, len(keys) - 1)))
    count = int(pc.sum(is_same).as_py() or 0)
    if count:
        doubled = keys.slice(1).filter(is_same).unique()[:_SHOWN].to_pylist()
        shown = ", ".join(repr(key) for key in doubled)
        raise DuplicateKeyError(
            f"key {name!r} is not unique: {count:,} rows repeat a key, such as {shown}",
            hint="remove the duplicates, name the true key, or load without a key (no joins by key within tiles)",
            details={"keys": doubled, "rows": count},
        )


def sorted_keys(keys: pa.Array) -> pa.Array:
    """Return the keys sorted, each once, without NULL."""
    found = keys.drop_null().unique()
    return found.take(pc.sort_indices(found))


def find_keys(index: KeyIndex | None, store: Store, wanted: pa.Array) -> tuple[pa.Array, Int64Array]:
    """Return those of the sorted keys that are in an index, sorted, and their cells. Only the row groups are read whose keys meet
    them."""
    keys, cells = [], []
    for uri in index.uri if index is not None else ():
        with pq.ParquetFile(store.path(uri)) as file:
            for group in range(file.metadata.num_row_groups):
                near = _between(wanted, file, group)
                if not len(near):
                    continue
                rows = file.read_row_group(group)
                at = KeyLookup(_one(rows.column(KEY))).find(near)
                keys.append(near.filter(pa.array(at >= 0)))
                cells.append(rows.column(HEALPIX).to_numpy()[at[at >= 0]])
    if not keys:
        return wanted.slice(0, 0), np.empty(0, np.int64)
    found = pa.concat_arrays(keys)
    order = pc.sort_indices(found)
    return found.take(order), np.concatenate(cells)[order.to_numpy()]


def cells_of_keys(index: KeyIndex | None, store: Store, keys: pa.Array) -> tuple[Int64Array, NDArray[np.bool_]]:
    """Return the cell of each key and whether it is known, for a few keys (in any order) of an index of any size."""
    known, cells = find_keys(index, store, sorted_keys(keys))
    at = KeyLookup(known).find(keys)
    return (cells[at] if len(cells) else np.zeros(len(at), np.int64)), at >= 0


def without_keys(index: KeyIndex, store: Store, gone: pa.Array, folder: Path) -> KeyIndex:
    """Return the index without the sorted keys: files that hold one are written again."""
    uris, digests, rows = [], [], 0
    for uri, digest in zip(index.uri, index.digest, strict=True):
        with pq.ParquetFile(store.path(uri)) as file:
            is_near = any(len(_between(gone, file, group)) for group in range(file.metadata.num_row_groups))
            table = file.read() if is_near else None
            count = file.metadata.num_rows
        if table is not None:
            kept = table.filter(pc.invert(pc.is_in(table.column(KEY), gone)))
            if kept.num_rows < count:
                if kept.num_rows:
                    part = write_part(kept.combine_chunks(), folder, PartFormat(sorted_by=(KEY,)))
                    uri, digest, count = store.uri(part.path), part.digest, part.rows
                else:
                    continue
        uris.append(uri)
        digests.append(digest)
        rows += count
    return KeyIndex(uri=tuple(uris), digest=tuple(digests), rows=rows)


def joined_index(one: KeyIndex | None, other: KeyIndex | None) -> KeyIndex | None:
    """Return the index of the keys of both."""
    if one is None or other is None:
        return one or other
    # the same pairs give the same file
    files = dict(zip((*one.uri, *other.uri), (*one.digest, *other.digest), strict=True))
    return KeyIndex(uri=tuple(files), digest=tuple(files.values()), rows=one.rows + other.rows)


def _between(keys: pa.Array, file: pq.ParquetFile, group: int) -> pa.Array:
    """Return those of the sorted keys that lie between the smallest and the largest key of a row group."""
    if not file.metadata.num_rows:
        return keys.slice(0, 0)
    place = file.schema_arrow.get_field_index(KEY)
    statistics = file.metadata.row_group(group).column(place).statistics
    if statistics is None or not statistics.has_min_max:
        return keys
    at, value = range(len(keys)), lambda place: keys[place].as_py()
    first = bisect_left(at, statistics.min, key=value)
    return keys.slice(first, bisect_right(at, statistics.max, lo=first, key=value) - first)


class KeyLookup:
    """Finds the row of a key in a sorted list of keys."""

    def __init__(self, keys: pa.Array) -> None:
        self._keys = keys
        self._integers = keys.to_numpy() if pa.types.is_integer(keys.type) else None

    def find(self, wanted: pa.Array) -> Int64Array:
        """Return for each key its position, -1 for NULL and for keys that are not there."""
        if self._integers is None:
            at_text: Int64Array = pc.fill_null(pc.index_in(wanted, self._keys), -1).to_numpy().astype(np.int64)
            return at_text
        found = np.full(len(wanted), -1, np.int64)
        if not len(self._integers):
            return found
        is_known = wanted.is_valid().to_numpy(zero_copy_only=False) if wanted.null_count else np.ones(len(wanted), np.bool_)
        values = pc.fill_null(wanted, 0).to_numpy()
        # Sorted needles walk through the haystack in order: ten times as fast as random ones.
        order = np.argsort(values)
        needles = values[order]
        at = np.minimum(np.searchsorted(self._integers, needles), len(self._integers) - 1)
        found[order] = np.where(self._integers[at] == needles, at, -1)
        found[~is_known] = -1
        return found


def _one(column: pa.ChunkedArray) -> pa.Array:
    chunks: Sequence[pa.Array] = column.chunks
    return chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks) if chunks else pa.array([], column.type)
