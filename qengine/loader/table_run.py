"""One table of a load at work: from the snapshot before and the inputs to the parts of the next snapshot.

1. `locate` finds the cells of all new rows.
2. Rows that are to go leave their parts (`loader.shrink`): of replaced inputs, with keys that come anew, and children whose
   director is somewhere else by now; the latter go with the new rows. Keys that are there already are an error, or as asked.
3. Targets: ranges that exist take their rows as further parts, between them are new tiles (`loader.gaps`).
4. `distribute` puts every row into its bucket and every key into its key bucket; `keys` proves that keys are unique.
5. `write` sorts each bucket and writes its parts. Tiles that were there get copies of the new rows for their margins; new tiles get
   copies of all rows around them.

A table that is new does the same with nothing before it. A match table is laid out anew as a whole, because how far its pairs are
apart is a property of all of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qengine.catalog.joining import join_parts, take_parts
from qengine.catalog.model import NO_PARTS, Int64Array, KeyIndex, PartRole, Parts, TableKind, TableSnapshot
from qengine.errors import ConflictError, DuplicateKeyError, SchemaError
from qengine.loader import children, keys, margin, write
from qengine.loader.definition import Definition
from qengine.loader.distribute import Shape, Tally, distribute
from qengine.loader.extent import Limits, limits
from qengine.loader.gaps import gap_tiles
from qengine.loader.locate import ChildLocator, DirectorLocator, Locator, Placement, Rows, locate
from qengine.loader.match import MatchLocator, Separation
from qengine.loader.partition import Targets, Tiles, child_buckets, director_buckets, snapped, tiles_of
from qengine.loader.replicated import replicated_schema, write_replicated
from qengine.loader.request import LoadRequest, OnDuplicate, Progress
from qengine.loader.shrink import (
    Leaving,
    Shrunk,
    Sift,
    Sifted,
    Touches,
    leaves,
    one_column,
    ranges_of,
    shrink,
    sift_out,
    write_moved,
)
from qengine.loader.sources.source import Source
from qengine.loader.spill import Spill
from qengine.loader.stored import StoredRows, read_ranges
from qengine.loader.write import Layout, Written
from qengine.sky.cells import LINE_END, RangeSet, beyond_cell
from qengine.sky.coverage import ring
from qengine.storage.objects import Store
from qengine.storage.parts import PartFormat

_NEAR_ORDER = 10
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    """Directors' rows that have come, gone or moved: their `keys` (sorted), and where children of them can be."""

    keys: pa.Array
    ranges: RangeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is to be done to a table: besides the inputs, the inputs (`codes`, and the `ranges` of their rows) that go, the
    directors to follow, and whether ranges with several parts become one again."""

    request: LoadRequest
    sources: tuple[Source, ...]
    codes: pa.Array
    ranges: RangeSet
    follow: Follow | None = None
    is_compact: bool = False


@dataclass(slots=True)
class Kept:
    """What stays of the snapshot before: parts as they are, by role, and parts without the rows that went."""

    home: Parts = NO_PARTS
    orphan: Parts = NO_PARTS
    margin: Parts = NO_PARTS
    written: list[Written] = field(default_factory=list)
    gone: list[pa.Table] = field(default_factory=list)
    stored: list[Rows] = field(default_factory=list)
    index: KeyIndex | None = None

    @property
    def ranges(self) -> Tiles:
        """Return the ranges that parts have."""
        pairs = [np.stack([parts.start, parts.stop], axis=1) for parts in (self.home, self.orphan)] + [
            np.array([(one.start, one.stop) for one in self.written if one.role is not PartRole.MARGIN], np.int64).reshape(-1, 2)
        ]
        unique = np.unique(np.concatenate(pairs), axis=0)
        return Tiles(unique[:, 0], unique[:, 1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What has been made: what was kept, what was written, and what was counted. `changed` are directors' keys that came, went or
    moved, `ranges` where their rows were."""

    kept: Kept
    written: tuple[Written, ...]
    schema: pa.Schema
    tally: Tally
    targets: Targets
    key_index: KeyIndex | None = None
    placement: Placement | None = None
    changed: pa.Array | None = None
    ranges: RangeSet = field(default_factory=RangeSet.empty)


class TableRun:
    """The work on one table, or on one layout of a match table."""

    def __init__(
        self, work: Work, definition: Definition, store: Store, scratch: Path, name: str, number: int, progress: Progress,
        separation: Separation,
    ) -> None:  # fmt: skip
        # both layouts of a match table lie in one folder
        folder = store.root / work.request.catalog / work.request.table
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        self.work = work
        self.request = work.request
        self.separation = separation
        self.definition = definition
        self.table = definition.table
        self.sources = work.sources
        self.store = store
        self.folder = folder
        self.scratch = scratch
        self.name = name
        self.number = number
        self.progress = progress
        self.limits: Limits = limits(work.request, work.sources, definition)
        self.shape = Shape(columns=definition.columns, load=number, wrapped=definition.table.ra if self.request.ra_wrap else "")
        self.quarantine = folder / "quarantine" / f"{name}.parquet"
        self.is_director = self.table.kind is TableKind.DIRECTOR
        self.schema = self.shape.schema if definition.director is None else children.with_director_position(self.shape.schema)
        self.form = PartFormat(bloom=(self.table.key,) if self.table.key and not self.is_director else ())
        self.base: TableSnapshot | None = definition.previous

    def run(self) -> Made:
        """Write all files of the table."""
        with ThreadPoolExecutor(self.limits.workers, "load") as pool:
            return self._replicated(pool) if self.table.kind is TableKind.REPLICATED else self._sharded(pool)

    # -- replicated -----------------------------------------------------------------------------------------------------------

    def _replicated(self, pool: ThreadPoolExecutor) -> Made:
        tally, kept = Tally(), Kept()
        schema = replicated_schema(self.shape.columns)
        if self.base is not None:
            leaving = Leaving(codes=self.work.codes, keys=None, ranges=RangeSet.whole())
            sift = sift_out(leaving, self.table.key)
            touches = Touches(leaving=leaving, key="")
            done = self._shrunk(
                self.base.home, PartRole.HOME, leaving.ranges, sift, touches, pool, schema, PartFormat(sorted_by=())
            )
            kept = Kept(home=done.parts, written=done.written, gone=done.gone)
        written = tuple(
            write_replicated(
                self.sources, self.shape, pool, folder=self.folder / "parts", part_rows=self.limits.tile_rows,
                ahead=self.limits.ahead, tally=tally, progress=self.progress,
            )
        )  # fmt: skip
        return Made(
            kept=kept, written=(*kept.written, *written), schema=schema, tally=tally, targets=Targets.of(_NOTHING, _NOTHING)
        )

    # -- sharded --------------------------------------------------------------------------------------------------------------

    def _sharded(self, pool: ThreadPoolExecutor) -> Made:
        table, is_keyed = self.table, self.is_director and bool(self.table.key)
        rows: list[Rows] = list(self.sources)
        locator = self._locator()
        if self.base is not None and table.kind is TableKind.MATCH:
            everything = join_parts([self.base.home, self.base.orphan])
            rows.append(
                StoredRows(
                    name=f"rows of {table.full_name}", schema=self.shape.schema, store=self.store, parts=everything,
                    gone=self.work.codes, is_placed=False,
                )
            )  # fmt: skip
            self.base = None
        placement = self._located(rows, locator, pool, "new", keeps_keys=self.base is not None and is_keyed)
        kept = self._kept(placement, locator, pool) if self.base is not None else Kept()
        has_rows = self.base is not None and placement.keys is not None  # a compaction has none of its own
        skip = self._duplicates(placement, kept) if is_keyed and has_rows else None
        if kept.stored:
            rows += kept.stored
            moved = self._located(kept.stored, locator, pool, "moved")
            placement = replace(placement, cells=np.concatenate([placement.cells, moved.cells]))
        targets, bucket_start = self._partition(placement, kept)
        layout = self._layout(targets, bucket_start)

        spill = self._spill("rows", self.shape.schema, pool)
        pairs = self._key_spill(pool) if is_keyed else None
        tally = distribute(
            rows, placement, self.shape, pool, bucket_start=bucket_start, rows=spill, keys=pairs, key=table.key,
            quarantine=self.quarantine, ahead=self.limits.ahead, progress=self.progress, skip=skip,
        )  # fmt: skip
        index = keys.write_index(pairs, self.folder / "keys", self.store, name=table.key) if pairs is not None else None
        written = [*kept.written, *self._write(spill, layout, kept, placement, pool)]
        changed, ranges = self._changed(placement, kept) if is_keyed else (None, RangeSet.empty())
        return Made(
            kept=kept, written=tuple(written), schema=self.schema, tally=tally, targets=targets,
            key_index=keys.joined_index(kept.index, index) if is_keyed else None, placement=placement, changed=changed,
            ranges=ranges,
        )  # fmt: skip

    def _located(
        self, rows: Sequence[Rows], locator: Locator, pool: ThreadPoolExecutor, name: str, *, keeps_keys: bool = False
    ) -> Placement:
        folder = self.scratch / name
        folder.mkdir()
        return locate(rows, locator, pool, folder=folder, ahead=self.limits.ahead, progress=self.progress, keeps_keys=keeps_keys)

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

    # -- what stays -----------------------------------------------------------------------------------------------------------

    def _kept(self, placement: Placement, locator: Locator, pool: ThreadPoolExecutor) -> Kept:
        """Let rows go from the parts of the snapshot before, and return what stays."""
        base, work = self.base, self.work
        assert base is not None
        leaving = Leaving(codes=work.codes, keys=None, ranges=work.ranges)
        if placement.keys is not None and self.request.on_duplicate is OnDuplicate.REPLACE:
            again, cells = keys.find_keys(base.key_index, self.store, placement.keys)
            leaving = Leaving(codes=work.codes, keys=again, ranges=work.ranges | ranges_of(cells))
        kept = Kept(home=base.home, orphan=base.orphan, margin=base.margin, index=base.key_index)
        if work.is_compact:
            self._take_out(kept)
        sift, ranges = sift_out(leaving, self.table.key), leaving.ranges
        touches = Touches(leaving=leaving, key=self.table.key)
        if work.follow is not None and isinstance(locator, ChildLocator):
            sift = self._following(leaving, work.follow, locator)
            ranges = ranges | work.follow.ranges
            touches = replace(touches, director_key=self.table.director_key, follow=work.follow.keys)
        if leaving or work.follow is not None:
            moved: list[pa.Table] = []
            for name, role in (("home", PartRole.HOME), ("orphan", PartRole.ORPHAN), ("margin", PartRole.MARGIN)):
                done = self._shrunk(getattr(kept, name), role, ranges, sift, touches, pool, self.schema, self.form)
                setattr(kept, name, done.parts)
                kept.written += done.written
                moved += done.moved
                kept.gone += done.gone if role is not PartRole.MARGIN else []
            self._drop_margins(kept)
            files = write_moved(moved, self.scratch / "moved.arrow")
            if files:
                kept.stored.append(self._stored(NO_PARTS, files))
        if kept.index is not None and kept.gone:
            arrow = keys.key_type(self.definition.columns.field(self.table.key).type, self.table.key)
            gone = keys.sorted_keys(one_column(kept.gone, self.table.key, arrow))
            kept.index = keys.without_keys(kept.index, self.store, gone, self.folder / "keys")
        return kept

    def _shrunk(
        self, parts: Parts, role: PartRole, ranges: RangeSet, sift: Sift, touches: Touches, pool: ThreadPoolExecutor,
        schema: pa.Schema, form: PartFormat,
    ) -> Shrunk:  # fmt: skip
        return shrink(
            parts, role, ranges, sift, touches=touches, store=self.store, folder=self.folder / "parts", schema=schema,
            form=form, pool=pool, ahead=self.limits.workers,
        )  # fmt: skip

    def _drop_margins(self, kept: Kept) -> None:
        """Drop margins of tiles that have no rows any more: if rows come again, their tile is a new one with a whole margin."""
        home = np.concatenate([kept.home.start, [one.start for one in kept.written if one.role is PartRole.HOME]]).astype(np.int64)
        kept.margin = take_parts(kept.margin, np.flatnonzero(np.isin(kept.margin.start, home)))
        kept.written = [one for one in kept.written if one.role is not PartRole.MARGIN or one.start in home]

    def _take_out(self, kept: Kept) -> None:
        """Take the parts of ranges that have several out, to be written anew."""
        for name in ("home", "orphan"):
            parts: Parts = getattr(kept, name)
            _, at, counts = np.unique(parts.start, return_inverse=True, return_counts=True)
            is_several = counts[at] > 1
            if is_several.any():
                kept.stored.append(self._stored(take_parts(parts, np.flatnonzero(is_several)), ()))
                setattr(kept, name, take_parts(parts, np.flatnonzero(~is_several)))
                if name == "home":
                    stays = ~np.isin(kept.margin.start, parts.start[is_several])
                    kept.margin = take_parts(kept.margin, np.flatnonzero(stays))

    def _stored(self, parts: Parts, files: tuple[Path, ...]) -> StoredRows:
        name = f"rows of {self.table.full_name}"
        return StoredRows(name=name, schema=self.shape.schema, store=self.store, parts=parts, files=files)

    def _following(self, leaving: Leaving, follow: Follow, locator: ChildLocator) -> Sift:
        """Return the function that lets children go where their directors are, and gives the others their directors' positions."""
        director, column = self.definition.director, self.table.director_key
        assert director is not None
        complete = children.position_filler(director, column, self.store)
        names = self.shape.schema.names

        def sift(rows: pa.Table, start: int, stop: int) -> Sifted:
            goes = leaves(rows, leaving, self.table.key).to_numpy()
            own = keys.to_keys(rows.column(column).combine_chunks(), column)
            affected = np.flatnonzero(pc.fill_null(pc.is_in(own, follow.keys), False).to_numpy(zero_copy_only=False) & ~goes)
            if not len(affected) and not goes.any():
                return Sifted(None)
            cells = rows.column("_healpix_29").to_numpy().copy()
            before = cells.copy()
            found, is_known = locator.directors.cells(own.take(pa.array(affected)))
            lost = own.take(pa.array(affected[~is_known]))
            cells[affected[is_known]] = found[is_known]
            cells[affected[~is_known]] = beyond_cell(lost) if len(lost) else 0
            if not self.request.allow_orphans:
                _check_orphans(self.table.full_name, lost.filter(pa.array(before[affected[~is_known]] < LINE_END)))
            moves = (cells != before) & ~goes
            stays = rows.select(names).filter(pa.array(~goes & ~moves))
            at = pa.array(np.flatnonzero(moves))
            moved = rows.select(names).take(at).set_column(0, self.shape.schema.field(0), pa.array(cells[moves]))
            return Sifted(complete(stays, start, stop), moved=moved, gone=rows.filter(pa.array(goes)) if goes.any() else None)

        return sift

    def _duplicates(self, placement: Placement, kept: Kept) -> Callable[[pa.RecordBatch, str], pa.Array] | None:
        """Raise `DuplicateKeyError` for keys that are there already, or return what says of which rows the same are there."""
        if placement.keys is None:
            return None
        again, cells = keys.find_keys(kept.index, self.store, placement.keys)
        if not len(again):
            return None
        key, columns = self.table.key, self.definition.columns.names
        if self.request.on_duplicate is not OnDuplicate.SKIP_IDENTICAL:
            shown = ", ".join(repr(one) for one in again[:_SHOWN].to_pylist())
            raise DuplicateKeyError(
                f"{self.table.full_name}: {len(again):,} keys are there already, such as {shown}",
                hint="--on-duplicate skip-identical leaves equal rows out, --on-duplicate replace takes the new ones",
                details={"keys": again[:_SHOWN].to_pylist(), "rows": len(again)},
            )
        parts = join_parts([kept.home, kept.orphan])
        tables = list(read_ranges(parts, ranges_of(cells), "_healpix_29", self.store, self.schema))
        there = pa.concat_tables(tables).select(columns).combine_chunks() if tables else self.schema.empty_table().select(columns)
        known = keys.to_keys(there.column(key).combine_chunks(), key)
        order = pc.sort_indices(known)
        there, lookup = there.take(order), keys.KeyLookup(known.take(order))

        def skip(rows: pa.RecordBatch, name: str) -> pa.Array:
            at = lookup.find(keys.to_keys(rows.column(key), key))
            is_there = at >= 0
            if is_there.any():
                mine, old = rows.filter(pa.array(is_there)), there.take(pa.array(at[is_there]))
                for column in columns:
                    _check_same(mine.column(column), old.column(column).combine_chunks(), mine.column(key), name, column)
            return pa.array(is_there)

        return skip

    def _changed(self, placement: Placement, kept: Kept) -> tuple[pa.Array, RangeSet]:
        """Return the keys that came or went, and where rows of children of them can be."""
        arrow = keys.key_type(self.definition.columns.field(self.table.key).type, self.table.key)
        gone = one_column(kept.gone, self.table.key, arrow)
        came = placement.keys if placement.keys is not None else gone.slice(0, 0)
        ranges = RangeSet.empty()
        if len(came):
            ranges = ranges | ranges_of(np.asarray(beyond_cell(came)))
        for rows in kept.gone:
            ranges = ranges | ranges_of(rows.column("_healpix_29").to_numpy())
        return keys.sorted_keys(pa.concat_arrays([came, gone])), ranges

    # -- where rows go --------------------------------------------------------------------------------------------------------

    def _partition(self, placement: Placement, kept: Kept) -> tuple[Targets, Int64Array]:
        fixed = kept.ranges
        rows = self.limits.tile_rows if self.is_director else self.limits.part_rows
        if not len(fixed):
            tiles = tiles_of(placement.cells, rows) if self.is_director else children.tiles_of_director(self._director())
            if not self.is_director and self.definition.previous is not None:
                # The director's tiles may have changed since; any disjoint ones will do.
                tiles = tiles_of(placement.cells, rows)
            targets = Targets.new(tiles)
        else:
            cells = np.sort(placement.cells[(placement.cells >= 0) & (placement.cells < LINE_END)])
            inside = Targets.of(fixed, _NOTHING)
            at = inside.at(cells)
            outside = cells[(at < 0) | ~inside.is_fixed[np.maximum(at, 0)]]
            on_sky = fixed.start < LINE_END
            targets = Targets.of(fixed, gap_tiles(outside, Tiles(fixed.start[on_sky], fixed.stop[on_sky]), rows))
        if self.is_director:
            on_sky = targets.start < LINE_END
            starts = director_buckets(placement.cells, Tiles(targets.start[on_sky], targets.stop[on_sky]), self.limits.bucket_rows)
        else:
            starts = child_buckets(placement.cells, self.limits.bucket_rows)
        return targets, snapped(starts, targets)

    def _director(self) -> TableSnapshot:
        if self.definition.director is None:
            raise SchemaError(f"{self.table.full_name} has no director")
        return self.definition.director

    def _layout(self, targets: Targets, bucket_start: Int64Array) -> Layout:
        table, director = self.table, self.definition.director
        order = tuple(name for name in (table.director_key, table.key) if name)
        complete = children.position_filler(director, table.director_key, self.store) if director else write.unchanged
        return Layout(
            targets=targets, bucket_start=bucket_start, part_rows=self.limits.part_rows, keys=order, complete=complete,
            folder=self.folder / "parts", form=self.form,
        )  # fmt: skip

    def _write(self, spill: Spill, layout: Layout, kept: Kept, placement: Placement, pool: ThreadPoolExecutor) -> list[Written]:
        ahead, arcsec, progress = self.limits.workers, self.definition.margin_arcsec, self.progress
        if arcsec <= 0:
            return list(write.write_buckets(spill, layout, pool, ahead=ahead, rings=None, margin=None, progress=progress))
        targets = layout.targets
        fresh, known = self._margins(targets, placement)
        rings = margin.rings_of(targets, fresh, arcsec, pool)
        others = margin.rings_of(targets, known, arcsec, pool) if len(known) else None
        copies = self._spill("margin", margin.margin_schema(self.shape.schema), pool)
        written = list(
            write.write_buckets(
                spill, layout, pool, ahead=ahead, rings=rings, known=others, margin=copies, progress=progress, load=self.number
            )
        )
        if len(kept.home) or kept.written:
            around = RangeSet.from_ranges(rings.start, rings.stop)
            bucket = write.bucket_of_targets(layout)
            for rows in self._around(kept, around):
                copies.put(margin.margin_pieces(rows, rings, bucket))
        return written + list(write.write_margins(copies, layout, pool, ahead=ahead, progress=progress))

    def _margins(self, targets: Targets, placement: Placement) -> tuple[Int64Array, Int64Array]:
        """Return the tiles that need a whole margin, and those near new rows, which need copies of these only."""
        on_sky = targets.start < LINE_END
        fresh = np.flatnonzero(on_sky & ~targets.is_fixed)
        if not targets.is_fixed.any():
            return fresh, np.empty(0, np.int64)
        shift = 2 * (29 - _NEAR_ORDER)
        cells = placement.cells[(placement.cells >= 0) & (placement.cells < LINE_END)]
        pixels = np.unique(np.asarray(cells) >> shift)
        touched = RangeSet.from_ranges(pixels << shift, (pixels + 1) << shift)
        near = touched | ring(touched, self.definition.margin_arcsec / 3600)
        return fresh, np.flatnonzero(on_sky & targets.is_fixed & near.overlaps(targets.start, targets.stop))

    def _around(self, kept: Kept, ranges: RangeSet) -> list[pa.Table]:
        """Return the rows that stay where they are and lie in the ranges, sorted by cell a table each."""
        found = list(read_ranges(kept.home, ranges, "_healpix_29", self.store, self.shape.schema))
        for one in kept.written:
            if one.role is PartRole.HOME and ranges.overlaps(np.array([one.start]), np.array([one.stop]))[0]:
                table = pq.read_table(one.file.path).select(self.shape.schema.names)
                inside = ranges.contains(table.column("_healpix_29").to_numpy())
                found.append(table.filter(pa.array(inside)).replace_schema_metadata(None))
        return found

    def _spill(self, name: str, schema: pa.Schema, pool: ThreadPoolExecutor) -> Spill:
        return Spill(self.scratch / name, schema, pool, budget_bytes=self.limits.spill_bytes)

    def _key_spill(self, pool: ThreadPoolExecutor) -> Spill:
        arrow = keys.key_type(self.definition.columns.field(self.table.key).type, self.table.key)
        return Spill(self.scratch / "keys", keys.index_schema(arrow), pool, budget_bytes=self.limits.spill_bytes // 2)


_NOTHING = Tiles(np.empty(0, np.int64), np.empty(0, np.int64))


def _check_orphans(table: str, lost: pa.Array) -> None:
    if len(lost):
        shown = ", ".join(repr(one) for one in lost.unique()[:_SHOWN].to_pylist())
        raise ConflictError(
            f"{len(lost):,} rows or more of {table} would lose their director, such as those of {shown}",
            hint="replace their inputs in the same load, or say --allow-orphans",
        )


def _check_same(mine: pa.Array, old: pa.Array, key: pa.Array, source: str, column: str) -> None:
    same = pc.or_(pc.fill_null(pc.equal(mine, pc.cast(old, mine.type)), False), pc.and_(mine.is_null(), old.is_null()))
    if not pc.all(same).as_py():
        first = key.filter(pc.invert(same))[0].as_py()
        raise DuplicateKeyError(
            f"{source}: the row with key {first!r} is there already, with another value of {column}",
            hint="--on-duplicate replace takes the new rows",
            details={"keys": [first], "rows": 1},
        )
