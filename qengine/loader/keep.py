"""What stays of a table that changes, and what has to go: the step between finding the places of new rows and distributing them.

*Leaving.* Rows of replaced inputs and rows whose keys come anew leave their parts (`loader.shrink`).

*Following.* Rows that are placed by a director go with the new rows if it is somewhere else by now. A director's key that went can
have children where it was; one that came can only have orphans. So the parts that meet the ranges of keys that went are looked
through for these keys, and the orphans for keys that are known now. What would lose its director is an error, unless the load
allows it.

*Duplicates.* New keys that are there already are an error, are left out where the whole row is the same, or are put aside.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from qengine.catalog.joining import join_parts
from qengine.catalog.model import HEALPIX, LAYOUT, Int64Array, KeyIndex, PartRole, Parts
from qengine.errors import ConflictError, DuplicateKeyError
from qengine.loader import children, keys
from qengine.loader.desk import Desk, Follow
from qengine.loader.distribute import Refuse, Skip
from qengine.loader.fresh import Fresh, key_chunks
from qengine.loader.kept import Kept, moved_path
from qengine.loader.locate import Placement
from qengine.loader.quality import ALREADY_THERE
from qengine.loader.request import OnDuplicate
from qengine.loader.shrink import Leaving, Moved, Shrunk, Sift, Sifted, Touches, leaves, one_column, ranges_of, shrink, sift_out
from qengine.loader.stored import read_ranges
from qengine.loader.wear import join_margins, take_worn
from qengine.sky.cells import BEYOND_END, LINE_END, RangeSet, beyond_cell
from qengine.storage.parts import PartFormat

_SHOWN = 5
_BEYOND = RangeSet.from_ranges(np.array([LINE_END]), np.array([BEYOND_END]))


def kept_of(desk: Desk, placement: Placement, fresh: Fresh | None, folder: Path, pool: ThreadPoolExecutor) -> Kept:
    """Let rows go from the parts of the snapshot before, and return what stays. `placement` and `fresh` are places and keys of new
    rows; rows on the way to another place are kept in `folder`."""
    base, work, table = desk.base, desk.work, desk.table
    if base is None:
        return Kept()
    leaving = Leaving(codes=work.codes, keys=None, ranges=work.ranges)
    if fresh is not None and desk.request.on_duplicate is OnDuplicate.REPLACE:
        again, cells = find_again(desk, base.key_index, fresh.index)
        leaving = Leaving(codes=work.codes, keys=again, ranges=work.ranges | ranges_of(cells))
    kept = Kept.all_of(base)
    sift, ranges = sift_out(leaving, table.key), leaving.ranges
    touches = Touches(leaving=leaving, key=table.key)
    if desk.definition.director is not None and (work.follow is not None or work.pairing is not None):
        follower = Follower(desk, leaving, work.follow)
        sift = follower.sift
        if work.follow is not None:
            ranges = ranges | work.follow.ranges | (_BEYOND if work.follow.has_come else RangeSet.empty())
            touches = replace(touches, follows=(HEALPIX, table.director_key), moves=follower.moves)
    if leaving or work.follow is not None:
        columns = [HEALPIX, *([table.key] if desk.is_keyed else [])]
        moved = Moved(moved_path(folder))
        gone: list[pa.Table] = []
        for role in PartRole:
            done = shrunk(desk, kept.parts(role), role, ranges, sift, touches, pool, gone=columns, moved=moved)
            kept.stays[role] = done.untouched
            kept.written += done.written
            if role is not PartRole.MARGIN:
                gone += done.gone
                kept.gone_rows += done.gone_rows
        kept.moved = moved.close()
        kept.gone = pa.concat_tables(gone) if gone else None
        _drop_margins(kept)
    if kept.index is not None and kept.gone is not None and desk.is_keyed:
        went = keys.sorted_keys(one_column([kept.gone], table.key, desk.key_type))
        kept.index = keys.without_keys(kept.index, desk.store, went, desk.keys_folder)
    take_worn(desk, kept, placement.cells)
    join_margins(desk, kept, pool)
    return kept


def shrunk(
    desk: Desk, parts: Parts, role: PartRole, ranges: RangeSet, sift: Sift, touches: Touches, pool: ThreadPoolExecutor, *,
    schema: pa.Schema | None = None, form: PartFormat | None = None, gone: list[str] | None = None, moved: Moved | None = None,
) -> Shrunk:  # fmt: skip
    """Let rows go from parts of one role."""
    return shrink(
        parts, role, ranges, sift, touches=touches, store=desk.store, folder=desk.parts_folder, schema=schema or desk.schema,
        form=form or desk.form, pool=pool, ahead=desk.limits.workers, gone=gone or (), moved=moved,
    )  # fmt: skip


def _drop_margins(kept: Kept) -> None:
    """Drop margins of tiles that have no rows any more: if rows come again, their tile is a new one with a whole margin."""
    home = np.array([one.start for one in kept.written if one.role is PartRole.HOME], np.int64)
    home = np.concatenate([kept.parts(PartRole.HOME).start, home])
    base = kept.base
    if base is not None:
        kept.stays[PartRole.MARGIN] &= np.isin(base.margin.start, home)
    kept.written = [one for one in kept.written if one.role is not PartRole.MARGIN or one.start in home]


class Follower:
    """Lets the rows of a child go where their directors are, and gives the others their directors' positions."""

    def __init__(self, desk: Desk, leaving: Leaving, follow: Follow | None) -> None:
        director = desk.definition.director
        assert director is not None
        self._desk = desk
        self._leaving = leaving
        self._index = director.key_index
        self._column = desk.table.director_key
        self._gone = keys.KeyLookup(follow.keys) if follow is not None else None
        self._is_whole = follow is not None and follow.is_whole
        self._pairing = desk.work.pairing
        self._complete = children.PositionFiller.of(director, self._column, desk.store)

    def moves(self, rows: pa.Table, start: int) -> bool:
        """Say whether one of the rows of a part has a director that went, or an orphan one that came."""
        if self._is_whole:
            return True
        own = keys.to_keys(rows.column(self._column).combine_chunks(), self._column)
        if self._went(own).any():
            return True
        if start < LINE_END:
            return False
        cells, is_known = self._cells(own)
        if self._pairing is not None and (keys.cells_of_keys(self._pairing.own_before, self._desk.store, own)[1] != is_known).any():
            return True
        return bool((is_known & (cells != rows.column(HEALPIX).to_numpy())).any())

    def sift(self, rows: pa.Table, start: int, stop: int) -> Sifted:
        """Sort out the rows of a part."""
        desk, schema = self._desk, self._desk.shape.schema
        goes = leaves(rows, self._leaving, desk.table.key).to_numpy()
        own = keys.to_keys(rows.column(self._column).combine_chunks(), self._column)
        went = self._went(own)
        is_seen = went | (start >= LINE_END) | self._is_whole
        affected = np.flatnonzero((is_seen & own.is_valid().to_numpy(zero_copy_only=False)) & ~goes)
        before: Int64Array = rows.column(HEALPIX).to_numpy()
        cells = before.copy()
        found, is_known = self._cells(own.take(pa.array(affected)))
        lost = own.take(pa.array(affected[~is_known]))
        cells[affected[is_known]] = found[is_known]
        cells[affected[~is_known]] = beyond_cell(lost) if len(lost) else 0
        if not desk.request.allow_orphans:
            was_known = went | (self._is_whole & (before < LINE_END))
            _check_orphans(desk.table.full_name.removesuffix(LAYOUT), lost.filter(pa.array(was_known[affected[~is_known]])))
        if self._pairing is not None:
            self._pairing.leave(rows.filter(pa.array(goes)), self._column, desk.store)
            self._pairing.follow(rows.take(pa.array(affected)), self._column, desk.store)
            self._pairing.stay(rows.filter(pa.array(~goes)), self._column, desk.store)
        moves = (cells != before) & ~goes
        if not goes.any() and not moves.any() and not went.any() and not self._has_moved(rows, start, stop):
            return Sifted(None)
        stays = rows.select(schema.names).filter(pa.array(~goes & ~moves))
        moved = rows.select(schema.names).take(pa.array(np.flatnonzero(moves)))
        moved = moved.set_column(0, schema.field(0), pa.array(cells[moves]))
        return Sifted(self._complete(stays, start, stop), moved=moved, gone=rows.filter(pa.array(goes)) if goes.any() else None)

    def _has_moved(self, rows: pa.Table, start: int, stop: int) -> bool:
        """Say whether a director has another position within the cell that it was in."""
        if not self._is_whole or children.DIRECTOR_RA not in rows.schema.names:
            return False
        now = self._complete(rows.select(self._desk.shape.schema.names), start, stop)
        return not all(now.column(name).equals(rows.column(name)) for name in (children.DIRECTOR_RA, children.DIRECTOR_DEC))

    def _went(self, own: pa.Array) -> NDArray[np.bool_]:
        return self._gone.find(own) >= 0 if self._gone is not None else np.zeros(len(own), np.bool_)

    def _cells(self, own: pa.Array) -> tuple[Int64Array, NDArray[np.bool_]]:
        return keys.cells_of_keys(self._index, self._desk.store, own)


def changed_by(desk: Desk, kept: Kept) -> tuple[pa.Array, RangeSet]:
    """Return a director's keys that went (they may have come again), and where they were."""
    gone = [kept.gone] if kept.gone is not None else []
    ranges = ranges_of(kept.gone.column(HEALPIX).to_numpy()) if kept.gone is not None else RangeSet.empty()
    return keys.sorted_keys(one_column(gone, desk.table.key, desk.key_type)), ranges


def find_again(desk: Desk, index: KeyIndex | None, new: KeyIndex) -> tuple[pa.Array, Int64Array]:
    """Return those of the new keys that are in an index, sorted, and their cells there."""
    found = [keys.find_keys(index, desk.store, chunk) for chunk, _ in key_chunks(new, desk.store)]
    if not found:
        return pa.array([], desk.key_type), np.empty(0, np.int64)
    return pa.concat_arrays([one for one, _ in found]), np.concatenate([cells for _, cells in found])


def duplicates(desk: Desk, again: pa.Array, cells: Int64Array, kept: Kept) -> Skip | None:
    """Raise `DuplicateKeyError` for keys that are there already (`again`, at `cells`), or return what says of which rows the same
    are there; None if that need not be asked."""
    if not len(again) or desk.request.on_duplicate is OnDuplicate.QUARANTINE:
        return None
    key, columns = desk.table.key, desk.definition.columns.names
    if desk.request.on_duplicate is not OnDuplicate.SKIP_IDENTICAL:
        shown = ", ".join(repr(one) for one in again[:_SHOWN].to_pylist())
        raise DuplicateKeyError(
            f"{desk.table.full_name}: {len(again):,} keys are there already, such as {shown}",
            hint="--on-duplicate skip-identical leaves equal rows out, --on-duplicate replace takes the new ones",
            details={"keys": again[:_SHOWN].to_pylist(), "rows": len(again)},
        )
    parts = join_parts([kept.parts(PartRole.HOME), kept.parts(PartRole.ORPHAN)])
    tables = list(read_ranges(parts, ranges_of(cells), HEALPIX, desk.store, desk.schema))
    there = pa.concat_tables(tables).select(columns).combine_chunks() if tables else desk.schema.empty_table().select(columns)
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


def refusing(again: pa.Array, key: str) -> Refuse:
    """Return what puts the rows with one of the sorted keys aside."""
    lookup = keys.KeyLookup(again)

    def refuse(rows: pa.RecordBatch, cells: Int64Array) -> Int64Array:
        is_there = lookup.find(keys.to_keys(rows.column(key), key)) >= 0
        return np.where(is_there & (cells >= 0), -ALREADY_THERE, cells)

    return refuse


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
