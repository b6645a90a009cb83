"""Proving keys: that no key of a director occurs twice, and where each of them lies.

A loaded director has been proven by its load. An attached catalogue proves nothing about keys, so joins by key cannot be done
tile by tile. `prove_keys` reads the key and the line column of all its parts, out of core as a load does it (`loader.keys`):
(key, cell) pairs go to buckets by range of keys, each bucket is sorted and searched for equal neighbours, and the buckets become
the key index. With it a new snapshot is published in which the key is proven: key locality is on, lookups by key go to their
tile, and children can be loaded.

Where a catalogue has no line column, a key's cell is the first one of its tile: tiles of such catalogues are read whole or not at
all, and so a row that was filed in the wrong tile is found where it lies.

Of a director whose key is proven already, the pairs are compared with the published index.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qengine.catalog.model import HEALPIX, Int64Array, KeyIndex, Parts, TableKind, TableSnapshot
from qengine.catalog.registry import Registry
from qengine.errors import ConfigError, InputError, IntegrityError, QEngineError
from qengine.loader import keys
from qengine.loader.journal import Journal
from qengine.loader.key_cells import KeyCells
from qengine.loader.pool import in_order
from qengine.loader.request import Progress
from qengine.loader.spill import Spill
from qengine.storage.objects import Store
from qengine.storage.parts import sync_parts

_BATCH_ROWS = 1 << 17
_BUDGET_BYTES = 512 << 20
_THREADS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyProof:
    """What was read. `nulls` rows have no key; `snapshot` is the one in which the key is proven, `is_new` if it was published for
    that."""

    key: str
    rows: int
    nulls: int
    snapshot: int
    is_new: bool

    def to_text(self) -> str:
        """Return the proof for people."""
        nulls = f", {self.nulls:,} rows have none" if self.nulls else ""
        what = "proven, and joined on within tiles from now on" if self.is_new else "as its index says"
        return f"key {self.key}: {self.rows - self.nulls:,} keys, each in one row{nulls}: {what} (snapshot {self.snapshot})"


def prove_keys(
    catalog: str, table: str, registry: Registry, store: Store, *, key: str = "", progress: Progress | None = None
) -> KeyProof:
    """Prove that `key` (empty: the one that was declared) is unique in a director, and publish that if it was not known.

    Raise `DuplicateKeyError` that names some keys if it is not, `IntegrityError` if the published index does not agree with the
    rows, `ConfigError` if the table has no key to prove. Nothing is published then.
    """
    found = registry.catalog().find(catalog, table)
    if found is None:
        raise ConfigError(f"there is no table {catalog}.{table}", hint="qengine tables lists them")
    name = _key_of(found, key)
    context = {"operation": "verify keys", "table": found.table.full_name, "key": name}
    base = {found.table.full_name.lower(): registry.manifest_digests().get(found.table.full_name.lower(), "")}
    load = registry.begin_load(context, catalog=found.table.schema)
    journal = Journal.of(store.root, found.table.schema, load)
    try:
        with journal.locked(is_shared=False):
            proof = _prove(found, name, registry, store, journal, load, base, progress)
            registry.finish_load(load)
    except QEngineError as error:
        registry.abort_load(load, str(error))
        raise
    finally:
        journal.remove()
    return proof


def _prove(
    found: TableSnapshot, name: str, registry: Registry, store: Store, journal: Journal, load: str, base: dict[str, str],
    progress: Progress | None,
) -> KeyProof:  # fmt: skip
    is_known = found.table.is_key_proven and found.table.key == name and found.key_index is not None
    folder = journal.work / "keys" if is_known else store.root / found.table.schema / found.table.name / "keys"
    with ThreadPoolExecutor(_THREADS, "keys") as pool:
        pairs, nulls = _pairs(found, name, store, journal.work / "pairs", pool, progress)
        index = keys.write_index(pairs, folder, store, name=name)
    if is_known:
        assert found.key_index is not None
        _compare(index, found.key_index, store, f"{found.table.full_name}: key {name}")
        return KeyProof(key=name, rows=found.rows, nulls=nulls, snapshot=found.number, is_new=False)
    made = [store.path(uri) for uri in index.uri]
    sync_parts(made)
    store.keep(made)
    proven = replace(found, table=replace(found.table, key=name, is_key_proven=True), key_index=index)
    number = registry.publish(load, found.table.schema, [proven], base=base)
    return KeyProof(key=name, rows=found.rows, nulls=nulls, snapshot=number, is_new=True)


def _key_of(found: TableSnapshot, wanted: str) -> str:
    table = found.table
    if table.kind is not TableKind.DIRECTOR:
        raise ConfigError(f"{table.full_name} is a {table.kind.value} table; keys are proven of directors")
    name = wanted or table.key
    if not name:
        raise ConfigError(f"{table.full_name}: no key is declared", hint="name it with --key COLUMN")
    if table.column(name) is None:
        raise ConfigError(f"{table.full_name} has no column {name}", hint=", ".join(c.name for c in table.columns if not c.hidden))
    if table.key and table.is_key_proven and name != table.key:
        raise ConfigError(f"{table.full_name} has the key {table.key} already", hint=f"prove {table.key}")
    return name


@dataclass(frozen=True, slots=True)
class _Part:
    path: Path
    start: int


def _parts(found: TableSnapshot, store: Store) -> Iterator[_Part]:
    for parts in (found.home, found.orphan):
        yield from _each(parts, store)


def _each(parts: Parts, store: Store) -> Iterator[_Part]:
    for uri, start in zip(parts.uri.to_pylist(), parts.start.tolist(), strict=True):
        yield _Part(store.path(uri), start)


def _pairs(
    found: TableSnapshot, name: str, store: Store, folder: Path, pool: ThreadPoolExecutor, progress: Progress | None
) -> tuple[Spill, int]:
    """Return all (key, cell) pairs in buckets of keys, and the number of rows without a key."""
    sample = keys.KeySample()
    count = 0
    for batch, _ in _read(found, store, [name]):
        sample.add(keys.to_keys(_plain(batch.column(0)), name))
        count += batch.num_rows
        if progress is not None:
            progress("sample keys", count, max(count, found.rows))
    if count != found.rows:
        raise InputError(
            f"{found.table.full_name} has {count:,} rows, but {found.rows:,} when it was attached", hint="attach it anew"
        )
    borders = sample.borders(count)
    line = found.table.line_column
    arrow = keys.key_type(_arrow_type(found, name, store), name)
    pairs = Spill(folder, keys.index_schema(arrow), pool, budget_bytes=_BUDGET_BYTES)
    nulls = done = 0

    def work(item: tuple[pa.RecordBatch, _Part]) -> tuple[list[tuple[int, pa.RecordBatch]], int, int]:
        batch, part = item
        values = keys.to_keys(_plain(batch.column(0)), name)
        cells: Int64Array = batch.column(1).cast(pa.int64()).to_numpy() if line else np.full(batch.num_rows, part.start, np.int64)
        return keys.key_pieces(values, cells, borders), values.null_count, batch.num_rows

    for pieces, without, rows in in_order(pool, work, _read(found, store, [name, line] if line else [name]), ahead=_THREADS + 2):
        pairs.put(pieces)
        nulls += without
        done += rows
        if progress is not None:
            progress("prove keys", done, found.rows)
    return pairs, nulls


def _read(found: TableSnapshot, store: Store, columns: list[str]) -> Iterator[tuple[pa.RecordBatch, _Part]]:
    for part in _parts(found, store):
        try:
            with pq.ParquetFile(part.path) as file:
                for batch in file.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False):
                    yield batch.select(columns), part
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{part.path}: cannot be read: {error}", hint="attach the catalogue anew if it has changed") from error


def _arrow_type(found: TableSnapshot, name: str, store: Store) -> pa.DataType:
    for part in _parts(found, store):
        kind = pq.read_schema(part.path).field(name).type
        return kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.int64()


def _plain(values: pa.Array) -> pa.Array:
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def _compare(made: KeyIndex, published: KeyIndex, store: Store, where: str) -> None:
    """Raise `IntegrityError` if the two indexes differ."""
    if made.rows != published.rows:
        raise IntegrityError(
            f"{where}: {made.rows:,} keys in the rows, {published.rows:,} in the index", hint="load the table anew"
        )
    known: KeyCells | None = None
    for uri in made.uri:
        rows = pq.read_table(store.path(uri))
        known = known or KeyCells(published, store, arrow=rows.schema.field(keys.KEY).type)
        cells, is_known = known.cells(rows[keys.KEY].combine_chunks())
        wrong = np.flatnonzero(~is_known | (cells != rows[HEALPIX].to_numpy()))
        if len(wrong):
            key = rows[keys.KEY][int(wrong[0])].as_py()
            raise IntegrityError(f"{where} {key!r} does not lie where the index says", hint="load the table anew")
