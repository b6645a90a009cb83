"""TOP n ORDER BY a column: which parts can hold one of the n best rows, and in which order are they read?

Every task of such a leaf sends its n best rows. The statistics of the parts (the owner's, or those of a relation in the same
cells) say how good the best value of a part can be.

* Where nothing but the table is asked for (no terms, no joins), the statistics alone bound the n-th best value: some parts that
  together have n values end before it. A part whose best value is worse than that is never read (`narrowed`).
* The parts with the best bounds are tasks of their own (`alone`), the rest is cut as ever; tasks run from the best bound to the
  worst (`order_of`). As soon as the n-th best value that has come is better than what any unread task can hold, the rest is not
  read (`coordinator.top`). With more columns in ORDER BY equal is not enough, since the others decide.

NULLs are last in both directions, so parts with nothing else are read last. Parts of which nothing is known are read in any case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlglot import exp

from qengine.catalog.model import Int64Array, Parts, TableSnapshot
from qengine.catalog.types import SqlType
from qengine.plan import terms
from qengine.plan.cut import Leaf
from qengine.plan.logical import Relation
from qengine.plan.split import limit_of
from qengine.sky.cells import RangeSet, distinct

MAX_ROWS = 100_000
"""Beyond so many rows, stopping early would cost more than it saves."""

_LEAST_ALONE = 8
_MOST_ALONE = 64
_EXACT_TYPES = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")


_FEWER = ("where", "joins", "group", "having", "qualify", "distinct")
"""Clauses by which a leaf puts out fewer rows than it reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopSpec:
    """The leaf's answer is its `rows` first rows by `column` of `table`, which is `output` in the rows that tasks send.

    `is_only`: no other column decides between equal ones. `is_bare`: all rows of the table take part.
    """

    table: TableSnapshot
    output: str
    column: str
    type: SqlType
    rows: int
    is_descending: bool
    is_only: bool
    is_bare: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TopOrder:
    """In which order tasks run, and what they can hold.

    Arrays have shape (tasks,) and are in that order: `tasks` are the fragment's numbers, `best` the best value that a task may send
    where it `is_known`; a task that `is_null` sends nothing but NULLs.
    """

    spec: TopSpec
    tasks: Int64Array
    best: NDArray[Any]
    is_known: NDArray[np.bool_]
    is_null: NDArray[np.bool_]


def top_of(leaf: Leaf) -> TopSpec | None:
    """Return what the leaf's TOP n is ordered by, if it is a column that statistics can know."""
    select = leaf.split.leaf
    order = select.args.get("order")
    limit, _ = limit_of(select)
    if leaf.split.kind != "rows" or order is None or not limit or limit > MAX_ROWS:
        return None
    first = order.expressions[0]
    place = terms.plain_column(first.this) if isinstance(first, exp.Ordered) else None
    relation = leaf.block.relations.get(place[0]) if place is not None else None
    if place is None or relation is None or relation.table is None or not _is_at_home(leaf, relation):
        return None
    column = relation.table.table.column(place[1])
    if column is None or first.args.get("nulls_first") or not _is_orderly(column.type):
        return None
    outputs = [e.alias for e in select.expressions if terms.cast_column(e.this) == place]
    if not outputs:
        return None
    is_bare = not any(select.args.get(clause) for clause in _FEWER) and not leaf.block.nested
    return TopSpec(
        table=relation.table, output=outputs[0], column=column.name, type=column.type, rows=limit,
        is_descending=bool(first.args.get("desc")),
        is_only=len(order.expressions) == 1, is_bare=is_bare and len(leaf.block.relations) == 1,
    )  # fmt: skip


def _is_at_home(leaf: Leaf, relation: Relation) -> bool:
    """Say whether tasks read the relation in the cells that are theirs: the owner, and what is tied to it by keys."""
    if not relation.is_sharded or not leaf.locality.owner:
        return False
    return relation.alias == leaf.locality.owner or leaf.locality.margin_deg.get(relation.alias) == 0


def _is_orderly(found: SqlType) -> bool:
    return found.name in _EXACT_TYPES or found.is_float or found.is_text or found.name in ("TIMESTAMP", "DATE")


# -- parts ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Parts that meet the work. `best` is the best value that a part may hold, `worst` the worst, both where it `is_known`;
    `values` how many it holds at least, and `is_met` says that one of them is `best`."""

    start: Int64Array
    stop: Int64Array
    best: NDArray[Any]
    worst: NDArray[Any]
    is_known: NDArray[np.bool_]
    is_null: NDArray[np.bool_]
    is_met: NDArray[np.bool_]
    values: Int64Array


def _bounds(spec: TopSpec, work: RangeSet) -> _Bounds:
    kind: Any = object if spec.type.is_text else np.float64 if spec.type.is_float else np.int64
    found = [_bounds_of(spec, parts, parts.meeting(work), kind) for parts in (spec.table.home, spec.table.orphan)]
    return _Bounds(*(np.concatenate(columns) for columns in zip(*found, strict=True)))


def _bounds_of(spec: TopSpec, parts: Parts, selected: Int64Array, kind: Any) -> tuple[NDArray[Any], ...]:
    start, stop, rows = parts.start[selected], parts.stop[selected], parts.rows[selected]
    stats = parts.stats.get(spec.column) if len(selected) else None
    if stats is None or (stats.minimum.dtype != kind and stats.is_known.any()):
        nothing = np.zeros(len(selected), np.bool_)
        none = np.full(len(selected), "" if kind is object else 0, kind)
        return start, stop, none, none, nothing, rows == 0, nothing, np.zeros(len(selected), np.int64)
    nulls = stats.nulls[selected]
    is_null = (rows == 0) | ((nulls >= 0) & (nulls >= rows))
    is_known = stats.is_known[selected] & ~is_null
    low, high = stats.minimum[selected].astype(kind), stats.maximum[selected].astype(kind)
    best, worst = (high, low) if spec.is_descending else (low, high)
    is_exact = np.zeros(len(selected), np.bool_) if stats.is_exact is None else stats.is_exact[selected]
    values = np.where(is_known, np.where(nulls >= 0, rows - nulls, 1), 0)
    return start, stop, best, worst, is_known, is_null, is_exact & is_known, values.astype(np.int64)


def narrowed(spec: TopSpec, work: RangeSet) -> RangeSet:
    """Take parts out of the work that cannot hold one of the best rows."""
    if not spec.is_bare:
        return work
    found = _bounds(spec, work)
    limit = _limit(spec, found)
    if limit is None:
        return work
    is_worse = np.zeros(len(found.start), np.bool_)
    known = np.flatnonzero(found.is_known)
    best = found.best[known]
    is_worse[known] = best < limit if spec.is_descending else best > limit
    gone = is_worse | found.is_null
    kept = RangeSet.from_ranges(found.start[~gone], found.stop[~gone])
    return work - (RangeSet.from_ranges(found.start[gone], found.stop[gone]) - kept)


def _limit(spec: TopSpec, found: _Bounds) -> Any:
    """Return a value that the n-th best is not worse than; None if it may be NULL."""
    limits = []
    for values, weight, chosen in (
        (found.worst, found.values, np.flatnonzero(found.is_known)),
        (found.best, np.ones(len(found.start), np.int64), np.flatnonzero(found.is_met)),
    ):
        along = chosen[np.argsort(values[chosen], kind="stable")]
        along = along[::-1] if spec.is_descending else along
        enough = int(np.searchsorted(np.cumsum(weight[along]), spec.rows))
        if enough < len(along):
            limits.append(values[along[enough]])
    return (max(limits) if spec.is_descending else min(limits)) if limits else None


# -- tasks ---------------------------------------------------------------------------------------------------


def alone(spec: TopSpec, work: RangeSet, slots: int) -> Int64Array:
    """Return cells at which a task should begin so that each of the most promising parts is a task of its own."""
    found = _bounds(spec, work)
    known = np.flatnonzero(found.is_known)
    count = max(_LEAST_ALONE, 2 * slots, min(spec.rows, _MOST_ALONE))
    along = known[np.argsort(found.best[known], kind="stable")]
    chosen = (along[::-1] if spec.is_descending else along)[:count]
    return distinct(np.concatenate([found.start[chosen], found.stop[chosen]]))


def order_of(spec: TopSpec, work: RangeSet, bounds: Int64Array) -> TopOrder:
    """Return the order of the tasks that begin and end at `bounds`: unknown ones first, then from the best to the worst."""
    found = _bounds(spec, work)
    count = len(bounds) - 1
    first = np.searchsorted(bounds, found.start, side="right") - 1
    last = np.searchsorted(bounds, found.stop, side="left") - 1
    span = np.maximum(last - first + 1, 0)
    part = np.repeat(np.arange(len(span)), span)
    task = np.repeat(first - np.r_[0, np.cumsum(span)[:-1]], span) + np.arange(int(span.sum()))
    is_known = np.ones(count, np.bool_)
    is_known[task[~found.is_known[part] & ~found.is_null[part]]] = False
    is_null = np.ones(count, np.bool_)
    is_null[task[~found.is_null[part]]] = False
    best = np.full(count, "" if found.best.dtype == object else 0, found.best.dtype)
    has_best = found.is_known[part]
    part, task = part[has_best], task[has_best]
    along = np.argsort(found.best[part], kind="stable")
    # Of several parts of a task the last assignment stays: the best.
    along = along if spec.is_descending else along[::-1]
    best[task[along]] = found.best[part[along]]
    ranked = np.argsort(best, kind="stable")
    ranked = ranked[::-1] if spec.is_descending else ranked
    group = np.where(~is_known, 0, np.where(is_null, 2, 1))
    tasks = ranked[np.argsort(group[ranked], kind="stable")].astype(np.int64)
    return TopOrder(spec=spec, tasks=tasks, best=best[tasks], is_known=is_known[tasks], is_null=(is_null & is_known)[tasks])
