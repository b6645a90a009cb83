"""Where are these keys? Look keys up in a director's index: Parquet files sorted by key, with columns `key` and `_healpix_29`.

Only footers are kept; a lookup reads the row groups whose key range holds a wanted key, and as many of them as there is room for
stay in memory. Room is made by forgetting any of them: a list of keys from all over the sky goes through all groups in order, and
of an index a little larger than the room the least recently used group would always be the one that is needed next. A key that is
not there gets the cell beyond the sky where its orphans lie.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from qengine.catalog.model import HEALPIX, Int64Array, KeyIndex
from qengine.errors import IntegrityError
from qengine.sky.cells import LINE_END, beyond_cell
from qengine.storage.objects import Store

CACHED_BYTES = 384 << 20
"""Room for row groups: those of 24 million numeric keys."""

_BATCH_GROUPS = 16
"""Row groups that are read at once, their two columns side by side."""

_TEXT_BYTES = 64
"""What a short text takes as an object, about."""


@dataclass(frozen=True, slots=True)
class _Footer:
    """Row groups of one index file in key order; bounds are int64 or text objects."""

    file: pq.ParquetFile
    lowest: NDArray[Any]
    highest: NDArray[Any]
    is_text: bool


@dataclass(frozen=True, slots=True)
class _Group:
    """The rows of one row group, sorted by key."""

    keys: NDArray[Any]
    cells: Int64Array

    @property
    def bytes(self) -> int:
        return self.keys.nbytes + self.cells.nbytes + (_TEXT_BYTES * len(self.keys) if self.keys.dtype == object else 0)


class KeyReader:
    """Looks keys up; safe to use from several threads. `store` resolves the index files; `room_bytes` is for row groups."""

    def __init__(self, store: Store, *, room_bytes: int = CACHED_BYTES) -> None:
        self._store = store
        self._room_bytes = room_bytes
        self._kept_bytes = 0
        self._places: list[tuple[str, int]] = []
        self._random = random.Random(0)
        self._lock = threading.Lock()
        self._footers: dict[str, _Footer] = {}
        self._groups: dict[tuple[str, int], _Group] = {}

    def cells(self, index: KeyIndex | None, values: Sequence[int | str]) -> Int64Array:
        """Return for each key the cell where its rows can be: the one that the index knows, else the one beyond the sky. (A number
        beyond 64 bits is no key: it has the first cell there.)"""
        known: dict[int | str, int] = {}
        wanted = sorted(set(values), key=lambda v: (isinstance(v, str), v))
        if index is not None:
            with self._lock:
                for uri in index.uri:
                    known.update(self._search(uri, wanted))
        missing = [v for v in wanted if v not in known]
        numbers = [v for v in missing if isinstance(v, int) and -(2**63) <= v < 2**63]
        texts = [v for v in missing if isinstance(v, str)]
        for group, kind in ((numbers, pa.int64()), (texts, pa.string())):
            if group:
                known.update(zip(group, beyond_cell(pa.array(group, kind)).tolist(), strict=True))
        return np.array([known.get(v, LINE_END) for v in values], np.int64)

    def _search(self, uri: str, wanted: Sequence[int | str]) -> dict[int | str, int]:
        footer = self._footer(uri)
        usable = [v for v in wanted if (footer.is_text if isinstance(v, str) else not footer.is_text and -(2**63) <= v < 2**63)]
        if not len(footer.lowest) or not usable:
            return {}
        values = _array(usable, is_text=footer.is_text)
        groups = np.searchsorted(footer.lowest, values, side="right") - 1
        is_inside = (groups >= 0) & (values <= footer.highest[groups])
        values, groups = values[is_inside], groups[is_inside]
        found: dict[int | str, int] = {}
        # `wanted` is sorted, so the values of one group are neighbours.
        borders = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]]).tolist() if len(groups) else []
        ranges = list(pairwise([*borders, len(groups)]))
        for first in range(0, len(ranges), _BATCH_GROUPS):
            batch = ranges[first : first + _BATCH_GROUPS]
            read = self._read(uri, footer, [int(groups[start]) for start, _ in batch])
            for (start, stop), group in zip(batch, read, strict=True):
                there = values[start:stop]
                places = np.minimum(np.searchsorted(group.keys, there), len(group.keys) - 1)
                is_found = group.keys[places] == there
                found.update(zip(there[is_found].tolist(), group.cells[places[is_found]].tolist(), strict=True))
        return found

    def _footer(self, uri: str) -> _Footer:
        if (footer := self._footers.get(uri)) is None:
            path = self._store.path(uri)
            if not path.is_file():
                raise IntegrityError(f"key index file {uri} is missing from the store")
            file = pq.ParquetFile(path)
            place = file.schema_arrow.get_field_index("key")
            # A file without rows has one row group without statistics.
            count = file.metadata.num_row_groups if file.metadata.num_rows else 0
            stats = [file.metadata.row_group(i).column(place).statistics for i in range(count)]
            is_text = pa.types.is_string(file.schema_arrow.field(place).type)
            lowest, highest = (_array([getattr(s, end) for s in stats], is_text=is_text) for end in ("min", "max"))
            footer = _Footer(file, lowest, highest, is_text)
            self._footers[uri] = footer
        return footer

    def _read(self, uri: str, footer: _Footer, numbers: list[int]) -> list[_Group]:
        """Return row groups, those that are not kept from the file."""
        missing = [number for number in numbers if (uri, number) not in self._groups]
        found = {number: self._groups[uri, number] for number in numbers if (uri, number) in self._groups}
        if missing:
            table = footer.file.read_row_groups(missing, columns=["key", HEALPIX])
            start = 0
            for number in missing:
                rows = table.slice(start, footer.file.metadata.row_group(number).num_rows)
                start += rows.num_rows
                # Copies, because a slice keeps all of the table.
                keys = np.array(rows["key"].to_pylist(), object) if footer.is_text else np.array(rows["key"].to_numpy())
                found[number] = group = _Group(keys, np.array(rows[HEALPIX].to_numpy()))
                self._keep((uri, number), group)
        return [found[number] for number in numbers]

    def _keep(self, place: tuple[str, int], group: _Group) -> None:
        self._groups[place] = group
        self._places.append(place)
        self._kept_bytes += group.bytes
        while self._kept_bytes > self._room_bytes:
            chosen = self._random.randrange(len(self._places))
            self._places[chosen], self._places[-1] = self._places[-1], self._places[chosen]
            self._kept_bytes -= self._groups.pop(self._places.pop()).bytes


def _array(values: Sequence[Any], *, is_text: bool) -> NDArray[Any]:
    return np.array(values, object if is_text else np.int64)
