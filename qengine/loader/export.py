"""Export: a snapshot as HATS collections that need nothing else, with checksums.

A directory gets a collection for each sharded table (the catalogue, its margin, index tables), a Parquet file for each replicated
one, the definition of every table as Felis, `export.json` that says what it is, and `SHA256SUMS` over all files. Parts are copied
byte by byte while their digest is compared with the published one; only parts of another age, whose columns differ from those of
the table now, and directors that get nested children are written anew. Rows beyond the sky have no place in HATS: they are plain
Parquet files in `beyond_the_sky`.

Everything is written into a hidden directory beside the target, which gets its name at the end: an export is there or it is not.
Views and virtual columns are not exported: they are in the Felis file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qengine.catalog import durable
from qengine.catalog.felis_schema import to_felis
from qengine.catalog.model import HEALPIX, Column, Int64Array, Parts, TableKind, TableSnapshot
from qengine.catalog.schema import to_arrow_schema
from qengine.errors import ConfigError, IntegrityError
from qengine.loader import publish
from qengine.loader.children import DIRECTOR_DEC, DIRECTOR_RA
from qengine.loader.gaps import leaf_tiles
from qengine.loader.nest import Nesting
from qengine.loader.partition import Tiles
from qengine.loader.pool import in_order
from qengine.loader.request import Progress
from qengine.storage.evolved import as_declared
from qengine.storage.hats import Leaf, catalogue_properties, leaf_folder, link_name, write_face, write_properties
from qengine.storage.hats_more import index_schema, places_of, write_index, write_thumbnail
from qengine.storage.objects import Store

SUMS = "SHA256SUMS"
BEYOND = "beyond_the_sky"

_BLOCK = 1 << 20
_THREADS = 2
_INDEX_PIECE = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """What to export: tables of one snapshot of a catalogue to the directory `target`, which must not be there. `nested` are
    children that become columns of their directors, `indexed` the columns of directors that get index tables, `about` what
    `export.json` says of the snapshot besides."""

    tables: tuple[TableSnapshot, ...]
    target: Path
    catalog: str
    snapshot: int
    nested: tuple[TableSnapshot, ...] = ()
    indexed: tuple[str, ...] = ()
    about: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What was written. `rows` and `beyond` by table: on the sky (or replicated), and beyond it."""

    target: Path
    rows: dict[str, int]
    beyond: dict[str, int]
    files: int
    bytes: int

    def to_text(self) -> str:
        """Return the report for people."""
        lines = [
            f"{name}: {rows:,} rows" + (f", {self.beyond[name]:,} beyond the sky" if self.beyond[name] else "")
            for name, rows in self.rows.items()
        ]
        return "\n".join([*lines, f"{self.target}: {self.files:,} files, {self.bytes / 1e6:,.1f} MB"])


def export(request: ExportRequest, store: Store, *, progress: Progress | None = None) -> ExportReport:
    """Write the tables. Raise `ConfigError` if the target is there, or a table cannot be exported; `IntegrityError` for a part that
    is not what was published. Nothing is left then."""
    if request.target.exists():
        raise ConfigError(f"{request.target} exists", hint="name a directory that does not")
    for found in request.tables:
        if any(uri.startswith("/") for uri in found.home.uri.to_pylist()):
            raise ConfigError(f"{found.table.full_name} is attached", hint="it is a HATS catalogue where it lies: copy that")
    draft = request.target.with_name(f".{request.target.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)  # of an export that died
    try:
        draft.mkdir(parents=True)
        _Export(request, store, draft, progress).run()
        files, size = _write_sums(draft)
        os.rename(draft, request.target)
        durable.sync_directory(request.target.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    rows = {t.table.name: int(t.home.rows.sum()) for t in request.tables}
    beyond = {t.table.name: int(t.orphan.rows.sum()) for t in request.tables}
    return ExportReport(target=request.target, rows=rows, beyond=beyond, files=files, bytes=size)


@dataclass(slots=True)
class _Export:
    request: ExportRequest
    store: Store
    root: Path
    progress: Progress | None
    done: int = 0

    def run(self) -> None:
        request = self.request
        for found in request.tables:
            folder = self.root / found.table.name
            folder.mkdir()
            (folder / "schema.yaml").write_text(to_felis(found.table))
            if found.table.is_sharded:
                self._collection(found, folder)
            else:
                for number, uri in enumerate(found.home.uri.to_pylist()):
                    self._place(found, uri, found.home.digest[number].as_py(), folder / f"part.{number}.parquet", None)
        words = {
            "catalog": request.catalog, "snapshot": request.snapshot, "exported": datetime.now(UTC).isoformat(timespec="seconds"),
            "software": f"qengine {version('qengine')}", **dict(request.about),
            "tables": {t.table.name: {"rows": t.rows, "beyond_the_sky": int(t.orphan.rows.sum())} for t in request.tables},
        }  # fmt: skip
        (self.root / "export.json").write_text(json.dumps(words, indent=1, default=str))

    def _collection(self, found: TableSnapshot, folder: Path) -> None:
        table, name = found.table, found.table.name
        children = [c for c in self.request.nested if c.table.family == table.family and table.kind is TableKind.DIRECTOR]
        nesting = Nesting.of(found, children, self.store) if children else None
        tiles = leaf_tiles(found.home.start, found.home.stop)
        is_own = table.kind is TableKind.DIRECTOR
        ra, dec = (table.ra, table.dec) if is_own else (DIRECTOR_RA, DIRECTOR_DEC)
        schema = self._schema(found, nesting)
        common: dict[str, Any] = {
            "ra": ra, "dec": dec, "schema": schema, "builder": f"qengine {version('qengine')}",
            "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%MUTC"),
        }  # fmt: skip
        leaves = self._leaves(found, found.home, tiles, folder / name, nesting)
        about = {"qengine_snapshot": str(found.number), "obs_title": table.release.title, "obs_doi": table.release.doi}
        if table.epoch is not None:
            about["hats_coordinate_epoch"] = f"J{table.epoch}"
        properties = catalogue_properties(name=name, product="object" if is_own else "source", leaves=leaves, **common) | about
        counts = self._counts(found.home)
        write_face(folder / name, leaves, schema, properties=properties, point_map=counts)
        write_thumbnail(folder / name, (leaf.parts[0] for leaf in leaves), schema)
        collection = {"obs_collection": name, "hats_primary_table_url": name}
        if len(found.margin):
            margin = f"{name}_{found.margin_arcsec:g}arcs"
            edges = self._leaves(found, found.margin, tiles, folder / margin, nesting)
            words = catalogue_properties(name=margin, product="margin", leaves=edges, **common)
            words |= {"hats_margin_threshold": f"{found.margin_arcsec:g}", "hats_primary_table_url": name}
            write_face(folder / margin, edges, schema, properties=words)
            collection |= {"all_margins": margin, "default_margin": margin}
        indexes = []
        for column in self.request.indexed if is_own else ():
            where = f"{name}_index_{column}"
            self._index(found, leaves, column, folder / where, name=where, primary=name, common=common)
            indexes += [column, where]
        if indexes:
            collection |= {"all_indexes": " ".join(indexes), "default_index": indexes[0]}
        write_properties(folder / "collection.properties", collection)
        for number, uri in enumerate(found.orphan.uri.to_pylist()):
            digest = found.orphan.digest[number].as_py()
            self._place(found, uri, digest, folder / BEYOND / link_name(digest), None)

    def _schema(self, found: TableSnapshot, nesting: Nesting | None) -> pa.Schema:
        columns: Sequence[Column] = found.table.columns
        hidden = [column for column in columns if column.hidden]
        schema = to_arrow_schema([*hidden, *(column for column in columns if not column.hidden)])
        return pa.schema([*schema, *(nesting.fields if nesting is not None else ())])

    def _leaves(
        self, found: TableSnapshot, parts: Parts, tiles: Tiles, folder: Path, nesting: Nesting | None
    ) -> tuple[Leaf, ...]:  # fmt: skip
        """Put parts into the leaves of a tree."""
        (folder / "dataset").mkdir(parents=True)
        orders, indexes = tiles.orders, tiles.indexes
        tile = np.searchsorted(tiles.start, parts.start, "right") - 1
        uris, digests = parts.uri.to_pylist(), parts.digest.to_pylist()

        def place(number: int) -> tuple[int, Path, int]:
            at = int(tile[number])
            target = folder / leaf_folder(int(orders[at]), int(indexes[at])) / link_name(digests[number])
            self._place(found, uris[number], digests[number], target, nesting)
            return at, target, int(parts.rows[number])

        placed: dict[int, list[tuple[Path, int]]] = {}
        with ThreadPoolExecutor(_THREADS, "export") as pool:
            for at, target, rows in in_order(pool, place, range(len(parts)), ahead=2 * _THREADS):
                placed.setdefault(at, []).append((target, rows))
                self._tell()
        return tuple(
            Leaf(
                order=int(orders[at]),
                index=int(indexes[at]),
                parts=tuple(sorted(path for path, _ in files)),
                rows=sum(rows for _, rows in files),
                bytes=sum(path.stat().st_size for path, _ in files),
            )
            for at, files in sorted(placed.items())
        )

    def _place(self, found: TableSnapshot, uri: str, digest: str, target: Path, nesting: Nesting | None) -> None:
        source = self.store.path(uri)
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy(source, digest, target)
        schema = self._schema(found, None).remove_metadata()
        if nesting is None and _plain(pq.read_schema(target)).equals(_plain(schema)):
            return
        draft = target.with_name(f".{target.name}")
        with pq.ParquetFile(target) as file:
            wanted = self._schema(found, nesting).remove_metadata()
            stored = [name for name in schema.names if name in file.schema_arrow.names]
            with pq.ParquetWriter(draft, _plain(wanted), compression="zstd", write_page_index=True) as writer:
                for group in range(file.metadata.num_row_groups):
                    rows = as_declared(file.read_row_group(group, columns=stored), _plain(schema))
                    for piece in nesting.pieces(rows) if nesting is not None else (rows,):
                        writer.write_table(piece)
        os.replace(draft, target)

    def _counts(self, parts: Parts) -> Int64Array:
        order = publish.map_order(int(parts.rows.sum()))
        counts = np.zeros(12 * 4**order, np.int64)
        for uri in parts.uri.to_pylist():
            counts += publish.pixel_counts(pq.read_table(self.store.path(uri), columns=[HEALPIX]).column(0).to_numpy(), order)
        return counts

    def _index(
        self, found: TableSnapshot, leaves: Sequence[Leaf], column: str, folder: Path, *, name: str, primary: str,
        common: dict[str, Any],
    ) -> None:  # fmt: skip
        known = found.table.column(column)
        if known is None:
            raise ConfigError(f"{found.table.full_name} has no column {column} to index")
        schema = index_schema(to_arrow_schema([known]).remove_metadata().field(0))

        def pieces() -> Iterator[pa.Table]:
            places = []
            for leaf in leaves:
                values = pa.chunked_array(
                    [c for path in leaf.parts for c in pq.read_table(path, columns=[column]).column(0).chunks], schema.field(0).type
                )
                places.append(places_of(values.combine_chunks(), leaf.order, leaf.index, schema))
            rows = pa.concat_tables(places) if places else schema.empty_table()
            rows = rows.take(pc.sort_indices(rows.column(0)))
            for start in range(0, max(rows.num_rows, 1), _INDEX_PIECE):
                yield rows.slice(start, _INDEX_PIECE)

        write_index(folder, pieces(), schema, name=name, primary=primary, builder=common["builder"], created=common["created"])

    def _tell(self) -> None:
        self.done += 1
        if self.progress is not None:
            total = sum(len(t.home) + len(t.margin) for t in self.request.tables if t.table.is_sharded)
            self.progress("export parts", self.done, total)


def _plain(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field.remove_metadata() for field in schema])


def _copy(source: Path, digest: str, target: Path) -> None:
    """Copy a part; it must be what was published."""
    found = hashlib.sha256()
    try:
        with source.open("rb") as read, target.open("wb") as written:
            while block := read.read(_BLOCK):
                found.update(block)
                written.write(block)
    except FileNotFoundError as error:
        raise IntegrityError(f"part {source} is missing", hint="qengine verify --repair restores it from a copy") from error
    if digest and found.hexdigest() != digest:
        raise IntegrityError(
            f"part {source} has digest {found.hexdigest()}, but {digest} was published",
            hint="qengine verify --repair restores it from a copy",
        )


def _write_sums(root: Path) -> tuple[int, int]:
    """Write the checksums of all files, as `sha256sum -c` reads them; return how many there are, and their bytes."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    lines = [f"{durable.sha256(path)}  {path.relative_to(root).as_posix()}\n" for path in files]
    (root / SUMS).write_text("".join(lines))
    for path in (*files, root / SUMS):
        durable.sync_file(path)
    return len(files) + 1, sum(path.stat().st_size for path in files)
