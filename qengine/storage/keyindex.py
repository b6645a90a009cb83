"""Where are these keys? Look keys up in a director's index: Parquet files sorted by key, with columns `key` and `_healpix_29`.

Only footers are kept; a lookup reads the row groups whose key range holds a wanted key, and the latest of them stay in memory. A
key that is not there gets the cell beyond the sky where its orphans lie.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
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

CACHED_GROUPS = 256


@dataclass(frozen=True, slots=True)
class _Footer:
    """Row groups of one index file in key order; bounds are int64 or text objects."""

    file: pq.ParquetFile
    lowest: NDArray[Any]
    highest: NDArray[Any]
    is_text: bool


class KeyReader:
    """Looks keys up; safe to use from several threads. `store` resolves the index files."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._footers: dict[str, _Footer] = {}
        self._groups: OrderedDict[tuple[str, int], tuple[Any, Int64Array]] = OrderedDict()

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
        for start, stop in pairwise([*borders, len(groups)]):
            keys, cells = self._group(uri, footer, int(groups[start]))
            there = values[start:stop]
            places = np.minimum(np.searchsorted(keys, there), len(keys) - 1)
            is_found = keys[places] == there
            found.update(zip(there[is_found].tolist(), cells[places[is_found]].tolist(), strict=True))
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

    def _group(self, uri: str, footer: _Footer, group: int) -> tuple[Any, Int64Array]:
        place = (uri, group)
        if (hit := self._groups.get(place)) is None:
            table = footer.file.read_row_group(group, columns=["key", HEALPIX])
            column = table["key"]
            keys = np.array(column.to_pylist(), object) if pa.types.is_string(column.type) else column.to_numpy()
            hit = (keys, table[HEALPIX].to_numpy())
            self._groups[place] = hit
            while len(self._groups) > CACHED_GROUPS:
                self._groups.popitem(last=False)
        else:
            self._groups.move_to_end(place)
        return hit


def _array(values: Sequence[Any], *, is_text: bool) -> NDArray[Any]:
    return np.array(values, object if is_text else np.int64)
