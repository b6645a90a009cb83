"""Merging of key index files: an index whose files overlap in many places is slow to look into, since a key may be in each of them.

Every load adds files of its own. Where more than `DEPTH` of them hold keys of the same range, the small ones there are merged into
files that follow each other; large ones are left alone until there are too many of these, too. So a key is written again about once
for every eightfold growth of what it is merged with (O'Neil et al. 1996, "The log-structured merge-tree", in its size-tiered form),
and an append of a few rows to a large table does not rewrite its index. A compaction merges whatever overlaps.

Files are merged by windows of the range of keys, whose borders are bounds of row groups: a window of all files is in memory, and no
more. The same files give the same merged ones. Files that were merged stay for the snapshots that name them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qengine.catalog.model import KeyIndex
from qengine.loader.keys import KEY, joined_index, sorted_by_key
from qengine.storage.objects import Store
from qengine.storage.parts import PartFile, PartFormat, write_part

DEPTH = 8
"""Files of an index that may hold keys of the same range."""

WINDOW_ROWS = 4_000_000
_GROWTH = 8
_SMALL_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class _Group:
    """A row group of a file: its place there, its smallest and largest key, and its rows."""

    place: int
    low: Any
    high: Any
    rows: int


@dataclass(frozen=True, slots=True)
class _File:
    uri: str
    digest: str
    groups: tuple[_Group, ...]

    @property
    def rows(self) -> int:
        return sum(one.rows for one in self.groups)

    @property
    def low(self) -> Any:
        return self.groups[0].low

    @property
    def high(self) -> Any:
        return self.groups[-1].high


def joined(kept: KeyIndex | None, fresh: KeyIndex | None, store: Store, folder: Path, *, is_compact: bool) -> KeyIndex | None:
    """Return the index of the keys of both, merged where too many files overlap, or, if `is_compact`, wherever any do."""
    index = joined_index(kept, fresh)
    return None if index is None else merged(index, store, folder, depth=1 if is_compact else DEPTH)


def merged(index: KeyIndex, store: Store, folder: Path, *, depth: int = DEPTH, window_rows: int = WINDOW_ROWS) -> KeyIndex:
    """Return the index with no more than `depth` files over any key; new files go to `folder`. It is returned as it is if that
    holds already."""
    if len(index.uri) <= depth:
        return index
    files = [_read(store, uri, digest) for uri, digest in zip(index.uri, index.digest, strict=True)]
    files = [one for one in files if one.groups]
    stay: list[_File] = []
    made: list[PartFile] = []
    for cluster in _clusters(files):
        together = _chosen(cluster, depth)
        stay += [one for one in cluster if one not in together]
        if together:
            made += _merge(together, store, folder, window_rows)
    if not made:
        return index
    return KeyIndex(
        uri=(*(one.uri for one in stay), *(store.uri(one.path) for one in made)),
        digest=(*(one.digest for one in stay), *(one.digest for one in made)),
        rows=sum(one.rows for one in stay) + sum(one.rows for one in made),
    )


def overlapping(bounds: Sequence[tuple[Any, Any]]) -> int:
    """Return how many of these closed ranges hold the same key, at most."""
    steps = sorted([(low, 0) for low, _ in bounds] + [(high, 1) for _, high in bounds])
    at = most = 0
    for _, is_end in steps:
        at += -1 if is_end else 1
        most = max(most, at)
    return most


def _read(store: Store, uri: str, digest: str) -> _File:
    with pq.ParquetFile(store.path(uri)) as file:
        column = file.schema_arrow.get_field_index(KEY)
        groups = []
        for place in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(place)
            bounds = group.column(column).statistics
            if bounds is not None and bounds.has_min_max:
                groups.append(_Group(place, bounds.min, bounds.max, group.num_rows))
            elif group.num_rows:
                keys = file.read_row_group(place, columns=[KEY]).column(0)
                groups.append(_Group(place, keys[0].as_py(), keys[-1].as_py(), group.num_rows))
    return _File(uri, digest, tuple(groups))


def _clusters(files: Sequence[_File]) -> Iterator[list[_File]]:
    """Yield files that overlap, directly or by others between them."""
    found: list[_File] = []
    end: Any = None
    for one in sorted(files, key=lambda file: (file.low, file.high, file.uri)):
        if found and one.low > end:
            yield found
            found = []
        end = one.high if not found else max(end, one.high)
        found.append(one)
    if found:
        yield found


def _chosen(cluster: Sequence[_File], depth: int) -> list[_File]:
    """Return the files to merge: none if they are few enough, otherwise the small ones, so many that there is room for more."""
    if overlapping([(one.low, one.high) for one in cluster]) <= depth:
        return []
    largest = max(one.rows for one in cluster)
    limit = _SMALL_ROWS
    while limit < largest:
        large = [(one.low, one.high) for one in cluster if one.rows > limit]
        if overlapping(large) + 1 <= max(1, depth // 2):
            return [one for one in cluster if one.rows <= limit]
        limit *= _GROWTH
    return list(cluster)


def in_order(index: KeyIndex, store: Store, window_rows: int = WINDOW_ROWS) -> Iterator[pa.Table]:
    """Yield all pairs of an index, sorted by key, about so many at a time."""
    files = [_read(store, uri, digest) for uri, digest in zip(index.uri, index.digest, strict=True)]
    yield from _sorted([one for one in files if one.groups], store, window_rows)


def _merge(files: Sequence[_File], store: Store, folder: Path, window_rows: int) -> list[PartFile]:
    return [write_part(rows, folder, PartFormat(sorted_by=(KEY,))) for rows in _sorted(files, store, window_rows)]


def _sorted(files: Sequence[_File], store: Store, window_rows: int) -> Iterator[pa.Table]:
    after: Any = None
    for last in _windows(files, window_rows):
        rows = pa.concat_tables([piece for one in files for piece in _between(one, store, after, last)])
        yield rows.take(sorted_by_key(rows.column(KEY))).combine_chunks()
        after = last


def _windows(files: Sequence[_File], window_rows: int) -> Iterator[Any]:
    """Yield the last keys of windows with about so many rows."""
    groups = sorted((group.high, group.rows) for one in files for group in one.groups)
    held = 0
    for number, (high, rows) in enumerate(groups):
        held += rows
        is_last = number == len(groups) - 1
        if is_last or (held >= window_rows and groups[number + 1][0] > high):
            yield high
            held = 0


def _between(file: _File, store: Store, after: Any, last: Any) -> Iterator[pa.Table]:
    """Yield the rows with keys beyond `after` (None: all) and up to `last`."""
    places = [one.place for one in file.groups if one.low <= last and (after is None or one.high > after)]
    if not places:
        return
    with pq.ParquetFile(store.path(file.uri)) as opened:
        rows = opened.read_row_groups(places)
    keys = rows.column(KEY)
    inside = pc.less_equal(keys, pa.scalar(last, keys.type))
    if after is not None:
        inside = pc.and_(inside, pc.greater(keys, pa.scalar(after, keys.type)))
    rows = rows.filter(inside)
    if rows.num_rows:
        yield rows
