"""The manifest: one table at one snapshot, as an immutable Parquet file of its parts.

Every row is a part, of any role; a role's rows stand together, in the order of `Parts`. Numbers are plain columns, row groups
four list columns, and every column's statistics five flat columns (`min:`, `max:`, `nulls:`, `known:`, `exact:` and its name). The
definition of the table, the name and number of the snapshot, the width of the margin and the key index are in the file's
key-value metadata; so a manifest says by itself what it is, and a lost registry can be restored from manifests.

Reading is columnar: arrays go from Arrow to numpy without a loop over parts. Statistics are read when a query first asks for a
column's (a table of 1,300 columns has 6,500 such arrays, and a query needs a handful of them), and then kept.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qengine.catalog import definition, durable
from qengine.catalog.joining import aligned
from qengine.catalog.model import NO_PARTS, ColumnStats, KeyIndex, PartRole, Parts, RowGroups, Table, TableSnapshot
from qengine.errors import BugError, RegistryError

FORMAT = 1
"""Raised when a manifest's meaning changes; a reader refuses a format that it does not know."""

_KEY = b"qengine.manifest"
_TABLE = b"qengine.table"
_NUMBERS = ("rows", "bytes", "start", "stop", "lowest", "highest")
_GROUPS = ("lowest", "highest", "rows", "bytes")
_STATS = ("min", "max", "nulls", "known")
_EXACT = "exact"
"""Manifests of earlier versions lack it: their bounds prune, but answer nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a manifest says about itself. `parts` counts the parts of each role (home, orphan, margin)."""

    catalog: str
    table: str
    number: int
    margin_arcsec: float
    key_index: KeyIndex | None
    parts: tuple[int, int, int]
    columns: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]


def write_manifest(snapshot: TableSnapshot, path: Path) -> None:
    """Write `snapshot` to `path`, whole or not at all."""
    if snapshot.inline is not None:
        raise BugError(f"{snapshot.table.full_name} is inline: it has no manifest")
    roles = (snapshot.home, snapshot.orphan, snapshot.margin)
    arrays = _part_columns(roles)
    for name in sorted({name for parts in roles for name in parts.stats}):
        arrays.update(_stats_columns(name, roles))
    index = snapshot.key_index
    header = {
        "format": FORMAT,
        "catalog": snapshot.table.schema,
        "table": snapshot.table.name,
        "number": snapshot.number,
        "margin_arcsec": snapshot.margin_arcsec,
        "key_index": index and {"uri": index.uri, "digest": index.digest, "rows": index.rows},
        "parts": [len(parts) for parts in roles],
        "columns": [sorted(parts.stats) for parts in roles],
    }
    metadata = {_KEY: json.dumps(header).encode(), _TABLE: definition.to_json(snapshot.table).encode()}
    table = pa.table(arrays).replace_schema_metadata(metadata)
    with durable.writing(path) as temporary:
        # Digests do not compress and have no duplicates; numbers do, and decode fast when they are bit-packed differences.
        encodings = dict.fromkeys(("start", "stop", "lowest", "highest"), "DELTA_BINARY_PACKED")
        pq.write_table(
            table, temporary, compression="zstd", compression_level=1, use_dictionary=False, write_statistics=False,
            column_encoding=encodings, row_group_size=max(len(table), 1), store_schema=True,
        )  # fmt: skip


def read_header(path: Path) -> Header:
    """Return what the manifest says about itself, without reading parts. Raise `RegistryError` if it is none."""
    return _header(_open(path), path)


def read_definition(path: Path) -> Table:
    """Return the definition of the table in the manifest."""
    return _definition(_open(path), path)


def read_manifest(path: Path, table: Table | None = None) -> TableSnapshot:
    """Return the snapshot in the manifest; `table` spares decoding its definition when the registry has it.

    Raise `RegistryError` if the file is missing, broken, or of a newer format.
    """
    file = _open(path)
    header = _header(file, path)
    try:
        content = file.read(columns=["digest", "uri", *_NUMBERS, *(f"group:{name}" for name in _GROUPS)]).combine_chunks()
    except (pa.ArrowException, OSError) as error:
        raise _broken(path, error) from error
    if len(content) != sum(header.parts):
        raise _broken(path, f"{len(content)} parts where {sum(header.parts)} should be")
    # The open file is kept for statistics: parsing the footer of a wide table again would take longer than planning a query.
    source = _Source(path, file)
    roles = []
    start = 0
    for count, names in zip(header.parts, header.columns, strict=True):
        stats = StoredStats(source, frozenset(names), start, count)
        roles.append(_parts(content.slice(start, count), stats) if count else NO_PARTS)
        start += count
    return TableSnapshot(
        table=table or _definition(file, path), number=header.number, home=roles[0], orphan=roles[1], margin=roles[2],
        margin_arcsec=header.margin_arcsec, key_index=header.key_index,
    )  # fmt: skip


class _Source:
    """An open manifest, read by one thread at a time."""

    def __init__(self, path: Path, file: pq.ParquetFile) -> None:
        self._path = path
        self._file = file
        self._lock = threading.Lock()
        self._names: frozenset[str] | None = None

    def has(self, column: str) -> bool:
        """Say whether the manifest has a column of this name."""
        if self._names is None:
            self._names = frozenset(self._file.schema_arrow.names)
        return column in self._names

    def read(self, columns: list[str]) -> pa.Table:
        try:
            with self._lock:
                return self._file.read(columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise _broken(self._path, error) from error


class StoredStats(Mapping[str, ColumnStats]):
    """Statistics per column of the parts `start : start + count` of a manifest, read on first use and then kept."""

    def __init__(self, source: _Source, names: frozenset[str], start: int, count: int) -> None:
        self._source = source
        self._names = names
        self._range = (start, count)
        self._read: dict[str, ColumnStats] = {}

    def __getitem__(self, name: str) -> ColumnStats:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._read:
            # Two threads may both read it: they get equal arrays, and one of them stays.
            self._read[name] = self._load(name)
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names))

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def _load(self, name: str) -> ColumnStats:
        parts = (*_STATS, _EXACT) if self._source.has(f"{_EXACT}:{name}") else _STATS
        content = self._source.read([f"{part}:{name}" for part in parts]).slice(*self._range)
        minimum, maximum, nulls, known, *exact = (_numpy(content.column(f"{part}:{name}")) for part in parts)
        return ColumnStats(
            minimum, maximum, nulls.astype(np.int64, copy=False), known.astype(np.bool_, copy=False),
            exact[0].astype(np.bool_, copy=False) if exact else None,
        )  # fmt: skip


def _part_columns(roles: Sequence[Parts]) -> dict[str, pa.Array]:
    arrays: dict[str, Any] = {
        "role": pa.array(np.repeat(np.array(list(PartRole), np.int8), [len(parts) for parts in roles])),
        "digest": pa.concat_arrays([parts.digest for parts in roles]),
        "uri": pa.concat_arrays([parts.uri for parts in roles]),
    }
    for name in _NUMBERS:
        arrays[name] = pa.array(np.concatenate([getattr(parts, name) for parts in roles]))
    groups_per_part = np.concatenate([np.diff(parts.row_groups.offset) for parts in roles])
    offset = pa.array(np.concatenate([[0], np.cumsum(groups_per_part)]).astype(np.int32))
    for name in _GROUPS:
        values = np.concatenate([getattr(parts.row_groups, name) for parts in roles])
        arrays[f"group:{name}"] = pa.ListArray.from_arrays(offset, pa.array(values))
    return arrays


def _stats_columns(name: str, roles: Sequence[Parts]) -> dict[str, pa.Array]:
    """Return the five arrays of a column's statistics. Roles that lack them are filled with "not known", and so are those whose
    values are of another type (a role in which nothing is known has no type of its own)."""
    filled = aligned([parts.stats.get(name) for parts in roles], [len(parts) for parts in roles])
    dtype = filled[0].minimum.dtype
    kind = pa.string() if dtype == np.object_ else None
    return {
        f"min:{name}": pa.array(np.concatenate([s.minimum for s in filled]), kind),
        f"max:{name}": pa.array(np.concatenate([s.maximum for s in filled]), kind),
        f"nulls:{name}": pa.array(np.concatenate([s.nulls for s in filled])),
        f"known:{name}": pa.array(np.concatenate([s.is_known for s in filled])),
        f"exact:{name}": pa.array(
            np.concatenate([np.zeros(len(s.nulls), np.bool_) if s.is_exact is None else s.is_exact for s in filled])
        ),
    }


def _parts(content: pa.Table, stats: StoredStats) -> Parts:
    lists = [content.column(f"group:{name}").chunk(0) for name in _GROUPS]
    offset = np.asarray(lists[0].offsets).astype(np.int64)
    lowest, highest, rows, size = (np.asarray(group.values)[offset[0] : offset[-1]] for group in lists)
    return Parts(
        digest=content.column("digest").chunk(0),
        uri=content.column("uri").chunk(0),
        **{name: _numpy(content.column(name)) for name in _NUMBERS},
        row_groups=RowGroups(offset - offset[0], lowest, highest, rows, size),
        stats=stats,
    )


def _numpy(column: pa.ChunkedArray) -> Any:
    return column.to_numpy()


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, memory_map=True)
    except FileNotFoundError as error:
        raise RegistryError(f"manifest {path} is missing", hint="restore it from a copy of the store") from error
    except (pa.ArrowException, OSError) as error:
        raise _broken(path, error) from error


def _metadata(file: pq.ParquetFile, key: bytes, path: Path) -> bytes:
    found: bytes | None = (file.schema_arrow.metadata or {}).get(key)
    if found is None:
        raise _broken(path, "it is a Parquet file, but not a manifest")
    return found


def _header(file: pq.ParquetFile, path: Path) -> Header:
    try:
        words = json.loads(_metadata(file, _KEY, path))
        if words["format"] > FORMAT:
            raise RegistryError(
                f"manifest {path} has format {words['format']}; this qengine reads up to {FORMAT}", hint="update qengine"
            )
        index, names = words["key_index"], words["columns"]
        home, orphan, margin = words["parts"]
        return Header(
            catalog=words["catalog"], table=words["table"], number=words["number"], margin_arcsec=words["margin_arcsec"],
            key_index=index and KeyIndex(uri=tuple(index["uri"]), digest=tuple(index["digest"]), rows=index["rows"]),
            parts=(home, orphan, margin), columns=(tuple(names[0]), tuple(names[1]), tuple(names[2])),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        raise _broken(path, error) from error


def _definition(file: pq.ParquetFile, path: Path) -> Table:
    try:
        return definition.from_json(_metadata(file, _TABLE, path).decode())
    except UnicodeDecodeError as error:
        raise _broken(path, error) from error


def _broken(path: Path, reason: object) -> RegistryError:
    return RegistryError(f"manifest {path} cannot be read: {reason}", hint="restore it from a copy of the store")
