"""One table of a load at work: from the snapshot before and the inputs to the parts of the next snapshot.

1. `locate` finds the cells of all new rows; `fresh` proves that their keys are unique and indexes them.
2. Rows that are to go leave their parts (`loader.shrink`): of replaced inputs, with keys that come anew, and children whose
   director is somewhere else by now; the latter go with the new rows. Keys that are there already are an error, or as asked.
3. Targets: ranges that exist take their rows as further parts, between them are new tiles (`loader.gaps`).
4. `distribute` puts every row into its bucket.
5. `write` sorts each bucket and writes its parts. Tiles that were there get copies of the new rows for their margins; new tiles get
   copies of all rows around them.

A table that is new does the same with nothing before it. Each of these steps is a stage (`loader.stages`): what a load that was
killed has done is taken over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qengine.catalog.joining import join_parts
from qengine.catalog.model import HEALPIX, NO_PARTS, Int64Array, KeyIndex, PartRole, TableKind, TableSnapshot
from qengine.errors import SchemaError
from qengine.loader import children, keys, margin, write
from qengine.loader.desk import Desk, Follow, Made
from qengine.loader.distribute import Refuse, Skip, Sorting, Tally, distribute
from qengine.loader.elsewhere import Elsewhere
from qengine.loader.filtered import Filtered
from qengine.loader.fresh import Fresh, index_keys
from qengine.loader.gaps import gap_tiles
from qengine.loader.keep import changed_by, duplicates, find_again, kept_of, refusing, shrunk
from qengine.loader.kept import Kept, index_of, index_words, written_of, written_words
from qengine.loader.key_merge import joined
from qengine.loader.lines import own_locator
from qengine.loader.locate import ChildLocator, Locator, Piece, Placement, Rows, locate, placed_in
from qengine.loader.match import MatchLocator, Separation
from qengine.loader.partition import Targets, Tiles, child_buckets, director_buckets, snapped, tiles_of
from qengine.loader.quality import REPEATED
from qengine.loader.replicated import is_worn, replicated_schema, write_again, write_replicated
from qengine.loader.request import OnDuplicate
from qengine.loader.shrink import Leaving, Touches, sift_out
from qengine.loader.spill import Spill, SpillFile
from qengine.loader.stages import Stages
from qengine.loader.steps import WriteLog, has_parts
from qengine.loader.stored import read_ranges
from qengine.loader.wear import freed
from qengine.loader.write import Layout, Written
from qengine.sky.cells import LINE_END, RangeSet, distinct
from qengine.sky.coverage import ring
from qengine.storage.parts import PartFormat

_NEAR_ORDER = 10
_CHUNK = 1 << 22


class TableRun:
    """The work on one table, or on one layout of a match table."""

    def __init__(self, desk: Desk, separation: Separation) -> None:
        self.desk = desk
        self.separation = separation
        self.stages = Stages(desk.scratch, desk.mark)
        self.away = Elsewhere(desk.executor, desk, self.stages) if desk.executor is not None else None

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
            done = shrunk(desk, base.home, PartRole.HOME, leaving.ranges, sift, touches, pool, schema=schema, form=form)
            kept = Kept.all_of(base)
            kept.stays[PartRole.HOME], kept.written, kept.gone_rows = done.untouched, done.written, done.gone_rows
            if desk.work.is_compact and is_worn(base.home, desk.table.dropped, desk.limits.tile_rows):
                again = write_again(
                    base.home, desk.shape, desk.store, name=desk.table.full_name, folder=desk.parts_folder,
                    part_rows=desk.limits.tile_rows, progress=desk.progress,
                )  # fmt: skip
                kept.stays[PartRole.HOME][:], kept.written = False, list(again)
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
        desk = self.desk
        new: list[Rows] = list(desk.work.sources)
        placement = self._located(new, "locate", pool)
        fresh = self._indexed(placement, pool) if desk.is_keyed else None
        kept = self._kept(placement, fresh, pool)
        stored: list[Rows] = self._stored(kept)
        if stored:
            moved = self._located(stored, "relocate", pool)
            pieces = (replace(one, source=one.source + len(new)) for one in moved.pieces)
            placement = replace(
                placement, cells=np.concatenate([placement.cells, moved.cells]), pieces=(*placement.pieces, *pieces)
            )
        targets, bucket_start = self._partition(placement, kept)
        layout = self._layout(targets, bucket_start)
        spill, tally, index = self._distributed([*new, *stored], placement, fresh, kept, layout, pool)
        written = [*kept.written, *self._write(spill, layout, kept, placement, pool)]
        follow = None
        if desk.is_keyed and fresh is not None:
            went, ranges = changed_by(desk, kept)
            follow = Follow(keys=went, ranges=ranges, has_come=fresh.index.rows > 0)
        return Made(
            kept=kept, written=tuple(written), schema=desk.schema, tally=tally, targets=targets,
            key_index=self._joined(kept, index), placement=placement, follow=follow,
        )  # fmt: skip

    # -- stages ---------------------------------------------------------------------------------------------------------------

    def _located(self, rows: Sequence[Rows], stage: str, pool: ThreadPoolExecutor) -> Placement:
        """Find the cells of rows."""
        desk, stages = self.desk, self.stages
        if (done := stages.find(stage)) is not None:
            for source, count in zip(rows, done["left_out"], strict=True):
                if isinstance(source, Filtered):
                    source.left_out = count
            self.separation.restore(done["separation"])
            borders = pa.array(done["borders"], pa.string() if done["is_text"] else pa.int64())
            return placed_in(
                stages.folder(stage),
                key_borders=borders,
                wrapped=done["wrapped"],
                unknown=done["unknown"],
                pieces=tuple(Piece(**one) for one in done["pieces"]),
            )
        folder = stages.begin(stage)
        if self.away is not None:
            placement = self.away.locate(rows, self._locator, folder, self.separation)
        else:
            placement = locate(rows, self._locator, pool, folder=folder, ahead=desk.limits.ahead, progress=desk.progress)
        found = {
            "left_out": [source.left_out if isinstance(source, Filtered) else 0 for source in rows],
            "separation": self.separation.words(), "borders": placement.key_borders.to_pylist(),
            "is_text": pa.types.is_string(placement.key_borders.type), "wrapped": placement.wrapped, "unknown": placement.unknown,
            "pieces": [asdict(one) for one in placement.pieces],
        }  # fmt: skip
        stages.finish(stage, found, [stages.seal(path) for path in sorted(folder.iterdir())])
        return placement

    def _indexed(self, placement: Placement, pool: ThreadPoolExecutor) -> Fresh:
        """Index the keys of the new rows; those that repeat one are put aside where the load says so."""
        desk, stages, stage = self.desk, self.stages, "keys"
        done = stages.find(stage)
        if done is not None and (index := index_of(done["index"])) is not None and self._has_keys(index):
            fresh = Fresh(index, np.load(stages.folder(stage) / "repeated.npy"))
        else:
            folder = stages.begin(stage)
            fresh = index_keys(
                placement, desk.key_type, pool, scratch=folder / "pairs", folder=desk.keys_folder, store=desk.store,
                name=desk.table.key, budget_bytes=desk.limits.spill_bytes // 2, ahead=desk.limits.ahead,
                keeps_first=desk.request.on_duplicate is OnDuplicate.QUARANTINE,
            )  # fmt: skip
            np.save(folder / "repeated.npy", fresh.repeated)
            stages.finish(stage, {"index": index_words(fresh.index)}, [stages.seal(folder / "repeated.npy")])
        placement.cells[fresh.repeated] = -REPEATED
        return fresh

    def _kept(self, placement: Placement, fresh: Fresh | None, pool: ThreadPoolExecutor) -> Kept:
        """Let rows go from the parts of the snapshot before."""
        desk, stages, stage = self.desk, self.stages, "keep"
        if desk.base is None:
            return Kept()
        if (done := stages.find(stage)) is not None:
            kept = Kept.restore(done, stages.folder(stage), desk.base, desk.store, desk.parts_folder)
            if self._has_parts(kept.written) and (kept.index is None or self._has_keys(kept.index)):
                self.separation.restore(done["separation"])
                return kept
        folder = stages.begin(stage)
        kept = kept_of(desk, placement, fresh, folder, pool)
        words, files = kept.save(folder)
        stages.finish(stage, words | {"separation": self.separation.words()}, [stages.seal(path) for path in files])
        return kept

    def _stored(self, kept: Kept) -> list[Rows]:
        """Return rows that are there already and are written with the new ones."""
        parts = join_parts([kept.rewritten(PartRole.HOME), kept.rewritten(PartRole.ORPHAN)]) if kept.base is not None else NO_PARTS
        files = (kept.moved,) if kept.moved is not None else ()
        return [self.desk.stored(parts, files)] if len(parts) or files else []

    def _distributed(
        self, rows: Sequence[Rows], placement: Placement, fresh: Fresh | None, kept: Kept, layout: Layout, pool: ThreadPoolExecutor
    ) -> tuple[Spill, Tally, KeyIndex | None]:
        """Put all rows into their buckets, and return the index of those keys that stay."""
        desk, stages, stage = self.desk, self.stages, "distribute"
        schema, folder = desk.shape.schema, stages.folder("distribute")
        steps = self._steps(layout, pool)
        if (done := stages.find(stage)) is not None:
            files = [SpillFile(one[0], folder / one[1], *one[2:]) for one in done["files"]]
            left = [one for one in files if one.bucket not in steps.known]
            index = index_of(done["index"])
            is_whole = stages.check(stages.sealed(one.path, one.bytes, one.digest) for one in left)
            if is_whole and (index is None or self._has_keys(index)):
                spill = Spill.opened(files, folder, schema, pool)
                return spill, Tally.from_json(done["tally"]), index
        stages.begin(stage)
        index, skip, refuse = self._duplicates(fresh, kept)
        sorting = Sorting(shape=desk.shape, bucket_start=layout.bucket_start, skip=skip, refuse=refuse)
        # what is compared with rows that are there already is compared here
        if self.away is not None and skip is None and refuse is None:
            sealed, tally = self.away.distribute(rows, placement, sorting, folder)
            spill = Spill.opened(sealed, folder, schema, pool)
        else:
            spill = Spill(folder, schema, pool, budget_bytes=desk.limits.spill_bytes)
            tally = distribute(
                rows, placement, sorting, pool, rows=spill, quarantine=desk.quarantine, ahead=desk.limits.ahead,
                progress=desk.progress,
            )  # fmt: skip
            sealed = spill.seal()
        names = [one.path.relative_to(folder).as_posix() for one in sealed]
        found = {
            "files": [[one.bucket, name, one.rows, one.bytes, one.digest] for name, one in zip(names, sealed, strict=True)],
            "tally": tally.to_json(),
            "index": None if index is None else index_words(index),
        }  # fmt: skip
        stages.finish(stage, found, [stages.seal(desk.quarantine)] if tally.quarantined else [])
        return spill, tally, index

    @cached_property
    def _locator(self) -> Locator:
        table = self.desk.table
        if self.desk.definition.director is None:
            return own_locator(table, is_wrapping=self.desk.request.ra_wrap)
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
            free = freed(kept) if not self.desk.is_director else _NOTHING
            taken = Targets.of(fixed, free)
            outside = np.concatenate([_NOTHING.start, *(chunk[taken.at(chunk) < 0] for chunk in _on_sky(placement.cells))])
            on_sky = taken.start < LINE_END
            new = gap_tiles(np.sort(outside), Tiles(taken.start[on_sky], taken.stop[on_sky]), rows)
            free = Tiles(np.concatenate([free.start, new.start]), np.concatenate([free.stop, new.stop]))
            targets = Targets.of(fixed, free)
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
        complete = children.PositionFiller.of(director, table.director_key, self.desk.store) if director else write.unchanged
        return Layout(
            targets=targets, bucket_start=bucket_start, part_rows=self.desk.limits.part_rows, keys=order, complete=complete,
            folder=self.desk.parts_folder, form=self.desk.form,
        )  # fmt: skip

    def _write(self, spill: Spill, layout: Layout, kept: Kept, placement: Placement, pool: ThreadPoolExecutor) -> list[Written]:
        """Write all buckets, and then margins."""
        desk, stages, stage, away = self.desk, self.stages, "margins", self.away
        ahead, arcsec, progress = desk.limits.workers, desk.definition.margin_arcsec, desk.progress
        steps = self._steps(layout, pool)
        steps.begin()
        if arcsec <= 0:
            plan = write.Plan(layout=layout)
            return list(
                write.write_buckets(
                    spill,
                    plan,
                    pool,
                    ahead=ahead,
                    margin=None,
                    progress=progress,
                    steps=steps,
                    elsewhere=away.buckets if away else None,
                )
            )
        targets = layout.targets
        fresh, known = self._margins(targets, placement)
        rings = margin.rings_of(targets, fresh, arcsec, pool)
        others = margin.rings_of(targets, known, arcsec, pool) if len(known) else None
        schema = margin.margin_schema(desk.shape.schema)
        copies = Spill(desk.scratch / "copies", schema, pool, budget_bytes=desk.limits.spill_bytes)
        plan = write.Plan(layout=layout, rings=rings, known=others, load=desk.number)
        home = list(
            write.write_buckets(
                spill,
                plan,
                pool,
                ahead=ahead,
                margin=copies,
                progress=progress,
                steps=steps,
                elsewhere=away.buckets if away else None,
            )
        )
        if (done := stages.find(stage)) is not None:
            edges = [written_of(one, desk.parts_folder) for one in done["written"]]
            if self._has_parts(edges):
                return home + edges
        stages.begin(stage)
        if len(kept.parts(PartRole.HOME)) or kept.written:
            around = RangeSet.from_ranges(rings.start, rings.stop)
            bucket = write.bucket_of_targets(layout)
            for rows in self._around(kept, around):
                copies.put(margin.margin_pieces(rows, rings, bucket))
        edges = list(
            write.write_margins(copies, layout, pool, ahead=ahead, progress=progress, elsewhere=away.margins if away else None)
        )
        stages.finish(stage, {"written": [written_words(one) for one in edges]})
        return home + edges

    def _steps(self, layout: Layout, pool: ThreadPoolExecutor) -> WriteLog:
        return WriteLog(self.stages, self.desk.parts_folder, pool, write.bucket_of_targets(layout))

    def _has_parts(self, written: Sequence[Written]) -> bool:
        return has_parts(one.file.path for one in written)

    def _has_keys(self, index: KeyIndex) -> bool:
        return has_parts(self.desk.store.path(uri) for uri in index.uri)

    def _duplicates(self, fresh: Fresh | None, kept: Kept) -> tuple[KeyIndex | None, Skip | None, Refuse | None]:
        """Return the index of those new keys that stay, and what says which rows are left out or put aside for what is there."""
        desk = self.desk
        if fresh is None or kept.index is None or not fresh.index.rows:
            return (fresh.index if fresh is not None else None), None, None
        again, cells = find_again(desk, kept.index, fresh.index)
        if not len(again):
            return fresh.index, None, None
        skip = duplicates(desk, again, cells, kept)
        refuse = None if skip is not None else refusing(again, desk.table.key)
        return keys.without_keys(fresh.index, desk.store, again, desk.keys_folder), skip, refuse

    def _joined(self, kept: Kept, index: KeyIndex | None) -> KeyIndex | None:
        desk = self.desk
        return joined(kept.index, index, desk.store, desk.keys_folder, is_compact=desk.work.is_compact) if desk.is_keyed else None

    def _margins(self, targets: Targets, placement: Placement) -> tuple[Int64Array, Int64Array]:
        """Return the tiles that need a whole margin, and those near new rows, which need copies of these only."""
        on_sky = targets.start < LINE_END
        fresh = np.flatnonzero(on_sky & ~targets.is_fixed)
        if not targets.is_fixed.any():
            return fresh, np.empty(0, np.int64)
        shift = 2 * (29 - _NEAR_ORDER)
        cells = placement.cells[(placement.cells >= 0) & (placement.cells < LINE_END)]
        pixels = distinct(np.asarray(cells) >> shift)
        touched = RangeSet.from_ranges(pixels << shift, (pixels + 1) << shift)
        near = touched | ring(touched, self.desk.definition.margin_arcsec / 3600)
        return fresh, np.flatnonzero(on_sky & targets.is_fixed & near.overlaps(targets.start, targets.stop))

    def _around(self, kept: Kept, ranges: RangeSet) -> list[pa.Table]:
        """Return the rows that stay where they are and lie in the ranges, sorted by cell a table each."""
        found = list(read_ranges(kept.parts(PartRole.HOME), ranges, HEALPIX, self.desk.store, self.desk.shape.schema))
        for one in kept.written:
            if one.role is PartRole.HOME and ranges.overlaps(np.array([one.start]), np.array([one.stop]))[0]:
                table = pq.read_table(one.file.path).select(self.desk.shape.schema.names)
                inside = ranges.contains(table.column("_healpix_29").to_numpy())
                found.append(table.filter(pa.array(inside)).replace_schema_metadata(None))
        return found


_NOTHING = Tiles(np.empty(0, np.int64), np.empty(0, np.int64))


def _on_sky(cells: Int64Array) -> Iterator[Int64Array]:
    """Yield the cells on the sky, some at a time."""
    for first in range(0, len(cells), _CHUNK):
        chunk = np.asarray(cells[first : first + _CHUNK])
        yield chunk[(chunk >= 0) & (chunk < LINE_END)]
