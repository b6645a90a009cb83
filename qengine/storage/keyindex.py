"""Where are these keys? Look keys up in a director's index: Parquet files sorted by key, with columns `key` and `_healpix_29`.

Only footers are kept; a lookup reads the row groups whose key range holds a wanted key, and the latest of them stay in memory. A
key that is not there gets the cell beyond the sky where its orphans lie.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qengine.catalog.model import HEALPIX, Int64Array, KeyIndex
from qengine.errors import IntegrityError
from qengine.sky.cells import beyond_cell
from qengine.storage.objects import Store

CACHED_GROUPS = 256


@dataclass(frozen=True, slots=True)
class _Footer:
    """Row groups of one index file in key order."""

    file: pq.ParquetFile
    lowest: list[Any]
    highest: list[Any]


class KeyReader:
    """Looks keys up; safe to use from several threads. `store` resolves the index files."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._footers: dict[str, _Footer] = {}
        self._groups: OrderedDict[tuple[str, int], tuple[Any, Int64Array]] = OrderedDict()

    def cells(self, index: KeyIndex | None, values: Sequence[int | str]) -> Int64Array:
        """Return all cells where rows of these keys can be: one for each known key, the one beyond the sky for each unknown one."""
        found: list[int] = []
        missing: list[int | str] = list(values)
        if index is not None:
            wanted = sorted(set(values), key=lambda v: (isinstance(v, str), v))
            known = {}
            with self._lock:
                for uri in index.uri:
                    known.update(self._search(uri, wanted))
            found = list(known.values())
            missing = [v for v in wanted if v not in known]
        numbers = [v for v in missing if isinstance(v, int) and -(2**63) <= v < 2**63]
        texts = [v for v in missing if isinstance(v, str)]
        beyond = [beyond_cell(pa.array(group, kind)) for group, kind in ((numbers, pa.int64()), (texts, pa.string())) if group]
        return np.unique(np.concatenate([np.array(found, np.int64), *beyond]))

    def _search(self, uri: str, wanted: Sequence[int | str]) -> dict[int | str, int]:
        footer = self._footer(uri)
        if not footer.lowest:
            return {}
        is_text = isinstance(footer.lowest[0], str)
        usable = [v for v in wanted if isinstance(v, str) == is_text]
        found: dict[int | str, int] = {}
        lowest = np.array(footer.lowest, dtype=object)
        for value in usable:
            group = int(np.searchsorted(lowest, value, side="right")) - 1
            if group < 0 or value > footer.highest[group]:
                continue
            keys, cells = self._group(uri, footer, group)
            place = int(np.searchsorted(keys, value))
            if place < len(keys) and keys[place] == value:
                found[value] = int(cells[place])
        return found

    def _footer(self, uri: str) -> _Footer:
        if (footer := self._footers.get(uri)) is None:
            path = self._store.path(uri)
            if not path.is_file():
                raise IntegrityError(f"key index file {uri} is missing from the store")
            file = pq.ParquetFile(path)
            place = file.schema_arrow.get_field_index("key")
            stats = [file.metadata.row_group(i).column(place).statistics for i in range(file.metadata.num_row_groups)]
            footer = _Footer(file, [s.min for s in stats], [s.max for s in stats])
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
