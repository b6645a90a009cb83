"""From inputs to the tables of the next snapshot: what a commit does between its base and the publish.

`change_tables` takes what every table of a transaction is to become (`TableChange`) and returns the new snapshots of these tables
(`TableResult`), with all their parts on disk. It reads the base, the inputs and the store, and knows neither registry nor
journal; so it can be done again, by another process, with the same result. Directors come before the tables that lie where
their rows lie.

1. `definition.define` says what the table is.
2. `locate.locate` reads the columns that decide where rows go, and keeps a cell for every row.
3. `partition` makes tiles of the cells, and buckets: ranges of the line that fit into memory.
4. `distribute.distribute` reads all columns, cleans them, and puts every row into its bucket and every key into its key bucket.
5. `keys.write_index` proves that keys are unique and writes the key index.
6. `write.write_buckets` sorts each bucket and writes its parts; copies of rows near tiles go aside, and `write.write_margins`
   writes them.

A match table does steps 2 to 6 twice, once for each of its layouts (`loader.match`).

Memory is bounded by `LoadRequest.memory_bytes`, whatever the size of the inputs; the same inputs give the same parts, byte for
byte.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from qengine.catalog.inputs import InputRecord
from qengine.catalog.model import Catalog, Int64Array, KeyIndex, PartRole, Table, TableKind, TableSnapshot
from qengine.errors import SchemaError
from qengine.loader import children, keys, margin, publish, write
from qengine.loader.definition import Definition, check_new, define_for, without_parts
from qengine.loader.distribute import Shape, Tally, distribute
from qengine.loader.locate import ChildLocator, DirectorLocator, Locator, Placement, locate
from qengine.loader.match import MatchLocator, Separation
from qengine.loader.partition import Tiles, child_buckets, director_buckets, tiles_of
from qengine.loader.replicated import replicated_schema, write_replicated
from qengine.loader.request import LoadReport, LoadRequest, Progress
from qengine.loader.sources.source import Source
from qengine.loader.spill import Spill
from qengine.loader.write import Layout, Written
from qengine.storage.objects import Store
from qengine.storage.parts import PartFormat, sync_parts
from qengine.storage.statistics import PartRecord, part_record, to_parts

_TILE_BYTES = 512 << 20
_CHILD_PARTS = 4
"""A child's part may have as many times the rows of a tile."""
_MIN_MEMORY = 2 << 30
_COPIES = 4
"""A bucket is in memory as it was read, as it is sorted, and as it is encoded."""
_HIDDEN_BYTES = 16
_BUCKET_ROWS = 1_000_000
"""Columns of 8 MB: larger buffers go back to the system each time, and fresh pages cost more than the work on them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How a load of this width is cut: threads, rows of a tile, a part, an orphan part and a bucket, and bytes kept before
    spilling."""

    workers: int
    tile_rows: int
    part_rows: int
    bucket_rows: int
    spill_bytes: int

    @property
    def ahead(self) -> int:
        """Return how many batches may be under way."""
        return self.workers + 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """What the steps before publishing have made. `cells` is empty for a replicated table."""

    written: tuple[Written, ...]
    schema: pa.Schema
    tally: Tally
    tiles: Tiles
    key_index: KeyIndex | None
    placement: Placement | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSource:
    """An input at work: the rows, and what the registry will keep of it; its number is that of the hidden column `_input`."""

    source: Source
    record: InputRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class TableChange:
    """What a table is to become: `inputs` are added as `request` says, and rows of the inputs `replaced` go away.

    `is_compact` asks for ranges with many or small parts to be rewritten.
    """

    request: LoadRequest
    inputs: tuple[InputSource, ...]
    replaced: tuple[InputRecord, ...] = ()
    is_compact: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TreePlan:
    """What `publish.stage_tree` needs to build the HATS tree of a table."""

    table: Table
    written: tuple[Written, ...]
    schema: pa.Schema
    tiles: Tiles
    margin_arcsec: float
    counts: Int64Array
    facts: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableResult:
    """What a table has become: its snapshots (two for a match table, one for each layout), what was read, the report (numbers
    of load
    and snapshot come later) and the HATS tree to build, None where there is none."""

    snapshots: tuple[TableSnapshot, ...]
    inputs: tuple[InputRecord, ...]
    report: LoadReport
    tree: TreePlan | None


def change_tables(
    changes: Sequence[TableChange], base: Catalog, *, load: int, name: str, store: Store, folder: Path,
    progress: Progress | None = None,
) -> tuple[TableResult, ...]:  # fmt: skip
    """Write the parts of all changes and return what the tables have become.

    `load` and `name` are number and id of the load; `folder` is for scratch and for what a later attempt may go on with.
    Raise `InputError` for inputs that cannot be taken, `SchemaError` or `ConfigError` for a definition that does not fit them,
    `DuplicateKeyError` if the key is not unique, `ConflictError` if the table cannot be changed.
    """
    report = progress or _silent
    results: list[TableResult] = []
    views: dict[str, Table] = {}
    catalog = base
    for change in changes:
        began = time.monotonic()
        sources = [one.source for one in change.inputs]
        check_new(change.request, catalog)
        definition = define_for(change.request, sources, catalog)
        sources = [definition.fit(source) for source in sources]
        views |= {view.full_name: view for view in definition.views}
        separation = Separation()
        definitions = [definition, *([definition.other] if definition.other is not None else [])]
        runs = [
            _Run(change.request, each, sources, store, folder / change.request.table / str(number), name, load, report, separation)
            for number, each in enumerate(definitions)
        ]
        loaded = [run.run() for run in runs]
        snapshots = tuple(_snapshot(run, made) for run, made in zip(runs, loaded, strict=True))
        first, made = runs[0], loaded[0]
        results.append(
            TableResult(
                snapshots=snapshots,
                inputs=tuple(one.record for one in change.inputs),
                report=_report(runs, loaded, time.monotonic() - began),
                tree=_tree(first, made, snapshots[0]) if made.placement is not None else None,
            )
        )
        catalog = Catalog((*(one for one in catalog if not _is_among(one, snapshots)), *snapshots))
    if results and views:
        last = results[-1]
        results[-1] = dataclasses.replace(last, snapshots=(*last.snapshots, *(without_parts(view) for view in views.values())))
    return tuple(results)


def _is_among(one: TableSnapshot, others: Sequence[TableSnapshot]) -> bool:
    return any(one.table.full_name.lower() == other.table.full_name.lower() for other in others)


class _Run:
    """One load at work: what was asked, and where things lie."""

    def __init__(
        self, request: LoadRequest, definition: Definition, sources: Sequence[Source], store: Store, scratch: Path, name: str,
        number: int, progress: Progress, separation: Separation,
    ) -> None:  # fmt: skip
        # both layouts of a match table lie in one folder
        folder = store.root / request.catalog / request.table
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        self.separation = separation
        self.request = request
        self.definition = definition
        self.table = definition.table
        self.sources = sources
        self.store = store
        self.folder = folder
        self.scratch = scratch
        self.name = name
        self.progress = progress
        self.limits = limits(request, sources, definition)
        self.shape = Shape(columns=definition.columns, load=number, wrapped=definition.table.ra if request.ra_wrap else "")
        self.quarantine = folder / "quarantine" / f"{name}.parquet"

    def run(self) -> _Loaded:
        """Write all files of the table."""
        with ThreadPoolExecutor(self.limits.workers, "load") as pool:
            if self.table.kind is TableKind.REPLICATED:
                return self._replicated(pool)
            return self._sharded(pool)

    def _replicated(self, pool: ThreadPoolExecutor) -> _Loaded:
        tally = Tally()
        written = tuple(
            write_replicated(
                self.sources, self.shape, pool, folder=self.folder / "parts", part_rows=self.limits.tile_rows,
                ahead=self.limits.ahead, tally=tally, progress=self.progress,
            )
        )  # fmt: skip
        schema = replicated_schema(self.shape.columns)
        none = np.empty(0, np.int64)
        return _Loaded(written=written, schema=schema, tally=tally, tiles=Tiles(none, none), key_index=None, placement=None)

    def _sharded(self, pool: ThreadPoolExecutor) -> _Loaded:
        limits, table = self.limits, self.table
        is_director = table.kind is TableKind.DIRECTOR
        placement = locate(self.sources, self._locator(), pool, folder=self.scratch, ahead=limits.ahead, progress=self.progress)
        tiles, bucket_start = self._partition(placement)
        layout = self._layout(tiles, bucket_start)

        rows = self._spill("rows", self.shape.schema, pool)
        pairs = self._key_spill(pool) if is_director and table.key else None
        tally = distribute(
            self.sources, placement, self.shape, pool, bucket_start=bucket_start, rows=rows, keys=pairs, key=table.key,
            quarantine=self.quarantine, ahead=limits.ahead, progress=self.progress,
        )  # fmt: skip
        index = keys.write_index(pairs, self.folder / "keys", self.store, name=table.key) if pairs is not None else None

        margin_arcsec = self.definition.margin_arcsec
        has_margin = margin_arcsec > 0
        rings = margin.rings_of(tiles, margin_arcsec, pool) if has_margin else None
        copies = self._spill("margin", margin.margin_schema(self.shape.schema), pool) if has_margin else None
        written = list(
            write.write_buckets(rows, layout, pool, ahead=limits.workers, rings=rings, margin=copies, progress=self.progress)
        )
        if copies is not None:
            written += write.write_margins(copies, layout, pool, ahead=limits.workers, progress=self.progress)
        schema = self.shape.schema if is_director else children.with_director_position(self.shape.schema)
        return _Loaded(written=tuple(written), schema=schema, tally=tally, tiles=tiles, key_index=index, placement=placement)

    def _locator(self) -> Locator:
        table = self.table
        if self.definition.director is None:
            return DirectorLocator(ra=table.ra, dec=table.dec, key=table.key, is_wrapping=self.request.ra_wrap)
        own = self.definition.columns.field(table.director_key)
        arrow = children.family_key_type(self.definition.director, own)
        child = ChildLocator(
            director_key=table.director_key, directors=children.read_key_cells(self.definition.director, self.store, arrow)
        )
        other = self.definition.other
        if other is None or other.director is None:
            return child
        column = other.table.director_key
        arrow = children.family_key_type(other.director, other.columns.field(column))
        rights = children.read_key_cells(other.director, self.store, arrow)
        return MatchLocator(left=child, right_key=column, rights=rights, separation=self.separation)

    def _partition(self, placement: Placement) -> tuple[Tiles, np.ndarray[tuple[int], np.dtype[np.int64]]]:
        if self.definition.director is None:
            tiles = tiles_of(placement.cells, self.limits.tile_rows)
            return tiles, director_buckets(placement.cells, tiles, self.limits.bucket_rows)
        return children.tiles_of_director(self.definition.director), child_buckets(placement.cells, self.limits.bucket_rows)

    def _layout(self, tiles: Tiles, bucket_start: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Layout:
        table, director = self.table, self.definition.director
        order = tuple(name for name in (table.director_key, table.key) if name)
        complete = children.position_filler(director, table.director_key, self.store) if director else write.unchanged
        return Layout(
            tiles=tiles, bucket_start=bucket_start, part_rows=self.limits.part_rows, keys=order, complete=complete,
            folder=self.folder / "parts", form=PartFormat(bloom=_bloom(table.key, director is not None)),
        )  # fmt: skip

    def _spill(self, name: str, schema: pa.Schema, pool: ThreadPoolExecutor) -> Spill:
        return Spill(self.scratch / name, schema, pool, budget_bytes=self.limits.spill_bytes)

    def _key_spill(self, pool: ThreadPoolExecutor) -> Spill:
        arrow = keys.key_type(self.definition.columns.field(self.table.key).type, self.table.key)
        return Spill(self.scratch / "keys", keys.index_schema(arrow), pool, budget_bytes=self.limits.spill_bytes // 2)


def limits(request: LoadRequest, sources: Sequence[Source], definition: Definition) -> Limits:
    """Return how to cut a load of these inputs so that it stays within its memory."""
    row_bytes = max(source.row_bytes for source in sources) + _HIDDEN_BYTES
    workers = request.workers or os.cpu_count() or 1
    memory = request.memory_bytes or max(_MIN_MEMORY, workers << 30)
    tile_rows = max(1, min(definition.rows_per_tile, _TILE_BYTES // row_bytes))
    part_rows = max(1, min(_CHILD_PARTS * definition.rows_per_tile, _TILE_BYTES // row_bytes))
    # A bucket may hold one tile; if many threads at one tile each are too much, there are fewer threads.
    workers = max(1, min(workers, (memory * 3 // 4) // (_COPIES * tile_rows * row_bytes)))
    bucket_rows = max(tile_rows, min(_BUCKET_ROWS, (memory * 3 // 4) // (_COPIES * workers * row_bytes)))
    return Limits(
        workers=workers, tile_rows=tile_rows, part_rows=part_rows if definition.director else tile_rows,
        bucket_rows=bucket_rows, spill_bytes=memory // 4,
    )  # fmt: skip


def _bloom(key: str, is_child: bool) -> tuple[str, ...]:
    # A director's key has its index; a child's own key is found by bloom filters.
    return (key,) if key and is_child else ()


def _snapshot(run: _Run, loaded: _Loaded) -> TableSnapshot:
    """Return the table as it will be published; its files are on disk for good."""
    table, store = run.separation.measured(run.table), run.store
    visible = [column.name for column in table.columns]
    home, orphan, margins = (
        to_parts(_records(loaded.written, role, store, table.line_column, visible))
        for role in (PartRole.HOME, PartRole.ORPHAN, PartRole.MARGIN)
    )
    snapshot = TableSnapshot(
        table=table, number=0, home=home, orphan=orphan, margin=margins, margin_arcsec=run.definition.margin_arcsec,
        key_index=loaded.key_index,
    )  # fmt: skip
    stored = sum(part.file.rows for part in loaded.written if part.role is not PartRole.MARGIN)
    if stored + loaded.tally.quarantined != loaded.tally.read:
        raise SchemaError(f"{loaded.tally.read:,} rows were read, but {stored:,} stored")
    index = loaded.key_index.uri if loaded.key_index else ()
    sync_parts([*(part.file.path for part in loaded.written), *(store.path(uri) for uri in index)])
    return snapshot


def _tree(run: _Run, loaded: _Loaded, snapshot: TableSnapshot) -> TreePlan:
    """Return the HATS tree: of a match table, that of its first layout."""
    director = run.definition.director
    cells = loaded.placement.cells if loaded.placement is not None else np.empty(0, np.int64)
    return TreePlan(
        table=run.table, written=loaded.written, schema=loaded.schema, tiles=loaded.tiles, margin_arcsec=snapshot.margin_arcsec,
        counts=publish.pixel_counts(cells), facts={"qengine_director_snapshot": str(director.number)} if director else {},
    )  # fmt: skip


def _records(written: Sequence[Written], role: PartRole, store: Store, line: str, columns: Sequence[str]) -> list[PartRecord]:
    return [
        part_record(
            part.file.path, uri=store.uri(part.file.path), digest=part.file.digest, start=part.start, stop=part.stop,
            line_column=line, columns=columns,
        )
        for part in written
        if part.role is role
    ]  # fmt: skip


def _report(runs: Sequence[_Run], made: Sequence[_Loaded], seconds: float) -> LoadReport:
    """Return what was done. Rows of a match table are counted once, its parts in both layouts."""
    run, loaded = runs[0], made[0]
    written, tally, placement = loaded.written, loaded.tally, loaded.placement
    everything = [part for each in made for part in each.written]
    home = [part for part in written if part.role is PartRole.HOME]
    return LoadReport(
        catalog=run.table.schema,
        table=run.table.name,
        load=run.name,
        snapshot=0,
        read=tally.read,
        stored=write.count_rows(written, PartRole.HOME) + write.count_rows(written, PartRole.ORPHAN),
        orphaned=write.count_rows(written, PartRole.ORPHAN),
        without_director=placement.unknown if placement else 0,
        quarantined=tally.quarantined,
        quarantine=run.store.uri(run.quarantine) if tally.quarantined else "",
        wrapped=placement.wrapped if placement else 0,
        nan=dict(tally.nan),
        tiles=len(np.unique(np.searchsorted(loaded.tiles.start, [part.start for part in home], "right"))) if placement else 0,
        parts=sum(part.role is not PartRole.MARGIN for part in everything),
        separation_arcsec=run.separation.largest_deg * 3600,
        margin_rows=write.count_rows(written, PartRole.MARGIN),
        input_bytes=sum(source.identity.bytes for source in run.sources),
        bytes=sum(part.file.bytes for part in everything),
        seconds=seconds,
    )


def _silent(stage: str, done: int, total: int) -> None:
    del stage, done, total
