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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qengine.catalog.joining import join_parts
from qengine.catalog.model import Int64Array, PartRole, TableKind, TableSnapshot
from qengine.errors import SchemaError
from qengine.loader import children, keys, margin, write
from qengine.loader.desk import Desk, Kept, Made
from qengine.loader.distribute import Tally, distribute
from qengine.loader.gaps import gap_tiles
from qengine.loader.keep import changed_by, duplicates, kept_of, shrunk
from qengine.loader.locate import ChildLocator, DirectorLocator, Locator, Placement, Rows, locate
from qengine.loader.match import MatchLocator, Separation
from qengine.loader.partition import Targets, Tiles, child_buckets, director_buckets, snapped, tiles_of
from qengine.loader.replicated import replicated_schema, write_replicated
from qengine.loader.shrink import (
    Leaving,
    Touches,
    sift_out,
)
from qengine.loader.spill import Spill
from qengine.loader.stored import read_ranges
from qengine.loader.write import Layout, Written
from qengine.sky.cells import LINE_END, RangeSet
from qengine.sky.coverage import ring
from qengine.storage.parts import PartFormat

_NEAR_ORDER = 10


class TableRun:
    """The work on one table, or on one layout of a match table."""

    def __init__(self, desk: Desk, separation: Separation) -> None:
        shutil.rmtree(desk.scratch, ignore_errors=True)
        desk.scratch.mkdir(parents=True)
        self.desk = desk
        self.separation = separation

    def run(self) -> Made:
        """Write all files of the table."""
        with ThreadPoolExecutor(self.desk.limits.workers, "load") as pool:
            return self._replicated(pool) if self.desk.table.kind is TableKind.REPLICATED else self._sharded(pool)

    # -- replicated -----------------------------------------------------------------------------------------------------------

    def _replicated(self, pool: ThreadPoolExecutor) -> Made:
        desk, base = self.desk, self.desk.base
        tally, kept = Tally(), Kept()
        schema = replicated_schema(desk.shape.columns)
        if base is not None:
            leaving = Leaving(codes=desk.work.codes, keys=None, ranges=RangeSet.whole())
            sift, touches = sift_out(leaving, desk.table.key), Touches(leaving=leaving, key="")
            form = PartFormat(sorted_by=())
            done = shrunk(desk, base.home, PartRole.HOME, leaving.ranges, sift, touches, pool, schema, form)
            kept = Kept(home=done.parts, written=done.written, gone=done.gone)
        written = tuple(
            write_replicated(
                desk.work.sources, desk.shape, pool, folder=desk.parts_folder, part_rows=desk.limits.tile_rows,
                ahead=desk.limits.ahead, tally=tally, progress=desk.progress,
            )
        )  # fmt: skip
        return Made(
            kept=kept, written=(*kept.written, *written), schema=schema, tally=tally, targets=Targets.of(_NOTHING, _NOTHING)
        )

    # -- sharded --------------------------------------------------------------------------------------------------------------

    def _sharded(self, pool: ThreadPoolExecutor) -> Made:
        desk, is_keyed = self.desk, self.desk.is_keyed
        rows: list[Rows] = list(desk.work.sources)
        locator = self._locator()
        if desk.definition.previous is not None and desk.table.kind is TableKind.MATCH:
            before = desk.definition.previous
            everything = desk.stored(join_parts([before.home, before.orphan]))
            rows.append(replace(everything, gone=desk.work.codes, is_placed=False))
        placement = self._located(rows, locator, pool, "new", keeps_keys=desk.base is not None and is_keyed)
        kept = kept_of(desk, placement, locator, pool)
        has_rows = desk.base is not None and placement.keys is not None  # a compaction has none of its own
        skip = duplicates(desk, placement, kept) if is_keyed and has_rows else None
        if kept.stored:
            rows += kept.stored
            moved = self._located(kept.stored, locator, pool, "moved")
            placement = replace(placement, cells=np.concatenate([placement.cells, moved.cells]))
        targets, bucket_start = self._partition(placement, kept)
        layout = self._layout(targets, bucket_start)

        spill = self._spill("rows", desk.shape.schema, pool)
        pairs = self._key_spill(pool) if is_keyed else None
        tally = distribute(
            rows, placement, desk.shape, pool, bucket_start=bucket_start, rows=spill, keys=pairs, key=desk.table.key,
            quarantine=desk.quarantine, ahead=desk.limits.ahead, progress=desk.progress, skip=skip,
        )  # fmt: skip
        index = keys.write_index(pairs, desk.keys_folder, desk.store, name=desk.table.key) if pairs is not None else None
        written = [*kept.written, *self._write(spill, layout, kept, placement, pool)]
        changed, ranges = changed_by(desk, placement, kept) if is_keyed else (None, RangeSet.empty())
        return Made(
            kept=kept, written=tuple(written), schema=desk.schema, tally=tally, targets=targets,
            key_index=keys.joined_index(kept.index, index) if is_keyed else None, placement=placement, changed=changed,
            ranges=ranges,
        )  # fmt: skip

    def _located(
        self, rows: Sequence[Rows], locator: Locator, pool: ThreadPoolExecutor, name: str, *, keeps_keys: bool = False
    ) -> Placement:
        desk, folder = self.desk, self.desk.scratch / name
        folder.mkdir()
        return locate(rows, locator, pool, folder=folder, ahead=desk.limits.ahead, progress=desk.progress, keeps_keys=keeps_keys)

    def _locator(self) -> Locator:
        table = self.desk.table
        if self.desk.definition.director is None:
            return DirectorLocator(ra=table.ra, dec=table.dec, key=table.key, is_wrapping=self.desk.request.ra_wrap)
        own = self.desk.definition.columns.field(table.director_key)
        arrow = children.family_key_type(self.desk.definition.director, own)
        child = ChildLocator(
            director_key=table.director_key,
            directors=children.read_key_cells(self.desk.definition.director, self.desk.store, arrow),
        )
        other = self.desk.definition.other
        if other is None or other.director is None:
            return child
        column = other.table.director_key
        arrow = children.family_key_type(other.director, other.columns.field(column))
        rights = children.read_key_cells(other.director, self.desk.store, arrow)
        return MatchLocator(left=child, right_key=column, rights=rights, separation=self.separation)

    # -- where rows go --------------------------------------------------------------------------------------------------------

    def _partition(self, placement: Placement, kept: Kept) -> tuple[Targets, Int64Array]:
        fixed = kept.ranges
        rows = self.desk.limits.tile_rows if self.desk.is_director else self.desk.limits.part_rows
        if not len(fixed):
            tiles = tiles_of(placement.cells, rows) if self.desk.is_director else children.tiles_of_director(self._director())
            if not self.desk.is_director and self.desk.definition.previous is not None:
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
        if self.desk.is_director:
            on_sky = targets.start < LINE_END
            starts = director_buckets(
                placement.cells, Tiles(targets.start[on_sky], targets.stop[on_sky]), self.desk.limits.bucket_rows
            )
        else:
            starts = child_buckets(placement.cells, self.desk.limits.bucket_rows)
        return targets, snapped(starts, targets)

    def _director(self) -> TableSnapshot:
        if self.desk.definition.director is None:
            raise SchemaError(f"{self.desk.table.full_name} has no director")
        return self.desk.definition.director

    def _layout(self, targets: Targets, bucket_start: Int64Array) -> Layout:
        table, director = self.desk.table, self.desk.definition.director
        order = tuple(name for name in (table.director_key, table.key) if name)
        complete = children.position_filler(director, table.director_key, self.desk.store) if director else write.unchanged
        return Layout(
            targets=targets, bucket_start=bucket_start, part_rows=self.desk.limits.part_rows, keys=order, complete=complete,
            folder=self.desk.parts_folder, form=self.desk.form,
        )  # fmt: skip

    def _write(self, spill: Spill, layout: Layout, kept: Kept, placement: Placement, pool: ThreadPoolExecutor) -> list[Written]:
        ahead, arcsec, progress = self.desk.limits.workers, self.desk.definition.margin_arcsec, self.desk.progress
        if arcsec <= 0:
            return list(write.write_buckets(spill, layout, pool, ahead=ahead, rings=None, margin=None, progress=progress))
        targets = layout.targets
        fresh, known = self._margins(targets, placement)
        rings = margin.rings_of(targets, fresh, arcsec, pool)
        others = margin.rings_of(targets, known, arcsec, pool) if len(known) else None
        copies = self._spill("margin", margin.margin_schema(self.desk.shape.schema), pool)
        written = list(
            write.write_buckets(
                spill, layout, pool, ahead=ahead, rings=rings, known=others, margin=copies, progress=progress, load=self.desk.number
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
        near = touched | ring(touched, self.desk.definition.margin_arcsec / 3600)
        return fresh, np.flatnonzero(on_sky & targets.is_fixed & near.overlaps(targets.start, targets.stop))

    def _around(self, kept: Kept, ranges: RangeSet) -> list[pa.Table]:
        """Return the rows that stay where they are and lie in the ranges, sorted by cell a table each."""
        found = list(read_ranges(kept.home, ranges, "_healpix_29", self.desk.store, self.desk.shape.schema))
        for one in kept.written:
            if one.role is PartRole.HOME and ranges.overlaps(np.array([one.start]), np.array([one.stop]))[0]:
                table = pq.read_table(one.file.path).select(self.desk.shape.schema.names)
                inside = ranges.contains(table.column("_healpix_29").to_numpy())
                found.append(table.filter(pa.array(inside)).replace_schema_metadata(None))
        return found

    def _spill(self, name: str, schema: pa.Schema, pool: ThreadPoolExecutor) -> Spill:
        return Spill(self.desk.scratch / name, schema, pool, budget_bytes=self.desk.limits.spill_bytes)

    def _key_spill(self, pool: ThreadPoolExecutor) -> Spill:
        return Spill(
            self.desk.scratch / "keys", keys.index_schema(self.desk.key_type), pool, budget_bytes=self.desk.limits.spill_bytes // 2
        )


_NOTHING = Tiles(np.empty(0, np.int64), np.empty(0, np.int64))
