"""What stays of a table that changes, and what has to go: the step between finding the places of new rows and distributing them.

Rows of replaced inputs and rows whose keys come anew leave their parts (`loader.shrink`); children whose director is somewhere else
by now go with the new rows. New keys that are there already are an error, or are left out where the whole row is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qengine.catalog.joining import join_parts, take_parts
from qengine.catalog.model import NO_PARTS, PartRole, Parts
from qengine.errors import ConflictError, DuplicateKeyError
from qengine.loader import children, keys
from qengine.loader.desk import Desk, Follow, Kept
from qengine.loader.locate import ChildLocator, Locator, Placement
from qengine.loader.request import OnDuplicate
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
from qengine.loader.stored import read_ranges
from qengine.sky.cells import LINE_END, RangeSet, beyond_cell
from qengine.storage.parts import PartFormat

_SHOWN = 5


def kept_of(desk: Desk, placement: Placement, locator: Locator, pool: ThreadPoolExecutor) -> Kept:
    """Let rows go from the parts of the snapshot before, and return what stays. `placement` is that of the new rows."""
    base, work, table = desk.base, desk.work, desk.table
    if base is None:
        return Kept()
    leaving = Leaving(codes=work.codes, keys=None, ranges=work.ranges)
    if placement.keys is not None and desk.request.on_duplicate is OnDuplicate.REPLACE:
        again, cells = keys.find_keys(base.key_index, desk.store, placement.keys)
        leaving = Leaving(codes=work.codes, keys=again, ranges=work.ranges | ranges_of(cells))
    kept = Kept(home=base.home, orphan=base.orphan, margin=base.margin, index=base.key_index)
    if work.is_compact:
        _take_out(desk, kept)
    sift, ranges = sift_out(leaving, table.key), leaving.ranges
    touches = Touches(leaving=leaving, key=table.key)
    if work.follow is not None and isinstance(locator, ChildLocator):
        sift = _following(desk, leaving, work.follow, locator)
        ranges = ranges | work.follow.ranges
        touches = replace(touches, director_key=table.director_key, follow=work.follow.keys)
    if leaving or work.follow is not None:
        moved: list[pa.Table] = []
        for name, role in (("home", PartRole.HOME), ("orphan", PartRole.ORPHAN), ("margin", PartRole.MARGIN)):
            done = shrunk(desk, getattr(kept, name), role, ranges, sift, touches, pool)
            setattr(kept, name, done.parts)
            kept.written += done.written
            moved += done.moved
            kept.gone += done.gone if role is not PartRole.MARGIN else []
        _drop_margins(kept)
        files = write_moved(moved, desk.scratch / "moved.arrow")
        if files:
            kept.stored.append(desk.stored(NO_PARTS, files))
    if kept.index is not None and kept.gone:
        gone = keys.sorted_keys(one_column(kept.gone, table.key, desk.key_type))
        kept.index = keys.without_keys(kept.index, desk.store, gone, desk.keys_folder)
    return kept


def shrunk(
    desk: Desk, parts: Parts, role: PartRole, ranges: RangeSet, sift: Sift, touches: Touches, pool: ThreadPoolExecutor,
    schema: pa.Schema | None = None, form: PartFormat | None = None,
) -> Shrunk:  # fmt: skip
    """Let rows go from parts of one role."""
    return shrink(
        parts, role, ranges, sift, touches=touches, store=desk.store, folder=desk.parts_folder, schema=schema or desk.schema,
        form=form or desk.form, pool=pool, ahead=desk.limits.workers,
    )  # fmt: skip


def _drop_margins(kept: Kept) -> None:
    """Drop margins of tiles that have no rows any more: if rows come again, their tile is a new one with a whole margin."""
    home = np.concatenate([kept.home.start, [one.start for one in kept.written if one.role is PartRole.HOME]]).astype(np.int64)
    kept.margin = take_parts(kept.margin, np.flatnonzero(np.isin(kept.margin.start, home)))
    kept.written = [one for one in kept.written if one.role is not PartRole.MARGIN or one.start in home]


def _take_out(desk: Desk, kept: Kept) -> None:
    """Take the parts of ranges that have several out, to be written anew."""
    for name in ("home", "orphan"):
        parts: Parts = getattr(kept, name)
        _, at, counts = np.unique(parts.start, return_inverse=True, return_counts=True)
        is_several = counts[at] > 1
        if is_several.any():
            kept.stored.append(desk.stored(take_parts(parts, np.flatnonzero(is_several))))
            setattr(kept, name, take_parts(parts, np.flatnonzero(~is_several)))
            if name == "home":
                stays = ~np.isin(kept.margin.start, parts.start[is_several])
                kept.margin = take_parts(kept.margin, np.flatnonzero(stays))


def _following(desk: Desk, leaving: Leaving, follow: Follow, locator: ChildLocator) -> Sift:
    """Return the function that lets children go where their directors are, and gives the others their directors' positions."""
    director, column = desk.definition.director, desk.table.director_key
    assert director is not None
    complete = children.position_filler(director, column, desk.store)
    schema = desk.shape.schema
    names = schema.names

    def sift(rows: pa.Table, start: int, stop: int) -> Sifted:
        goes = leaves(rows, leaving, desk.table.key).to_numpy()
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
        if not desk.request.allow_orphans:
            _check_orphans(desk.table.full_name, lost.filter(pa.array(before[affected[~is_known]] < LINE_END)))
        moves = (cells != before) & ~goes
        stays = rows.select(names).filter(pa.array(~goes & ~moves))
        at = pa.array(np.flatnonzero(moves))
        moved = rows.select(names).take(at).set_column(0, schema.field(0), pa.array(cells[moves]))
        return Sifted(complete(stays, start, stop), moved=moved, gone=rows.filter(pa.array(goes)) if goes.any() else None)

    return sift


def changed_by(desk: Desk, placement: Placement, kept: Kept) -> tuple[pa.Array, RangeSet]:
    """Return a director's keys that came or went, and where rows of children of them can be."""
    gone = one_column(kept.gone, desk.table.key, desk.key_type)
    came = placement.keys if placement.keys is not None else gone.slice(0, 0)
    ranges = RangeSet.empty()
    if len(came):
        ranges = ranges | ranges_of(np.asarray(beyond_cell(came)))
    for rows in kept.gone:
        ranges = ranges | ranges_of(rows.column("_healpix_29").to_numpy())
    return keys.sorted_keys(pa.concat_arrays([came, gone])), ranges


def duplicates(desk: Desk, placement: Placement, kept: Kept) -> Callable[[pa.RecordBatch, str], pa.Array] | None:
    """Raise `DuplicateKeyError` for keys that are there already, or return what says of which rows the same are there."""
    if placement.keys is None:
        return None
    again, cells = keys.find_keys(kept.index, desk.store, placement.keys)
    if not len(again):
        return None
    key, columns = desk.table.key, desk.definition.columns.names
    if desk.request.on_duplicate is not OnDuplicate.SKIP_IDENTICAL:
        shown = ", ".join(repr(one) for one in again[:_SHOWN].to_pylist())
        raise DuplicateKeyError(
            f"{desk.table.full_name}: {len(again):,} keys are there already, such as {shown}",
            hint="--on-duplicate skip-identical leaves equal rows out, --on-duplicate replace takes the new ones",
            details={"keys": again[:_SHOWN].to_pylist(), "rows": len(again)},
        )
    parts = join_parts([kept.home, kept.orphan])
    tables = list(read_ranges(parts, ranges_of(cells), "_healpix_29", desk.store, desk.schema))
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
