"""Guesses of how many rows predicates keep. Only estimates and the choice between plans depend on them, never an answer.

* A comparison of a number with constants keeps the share of the column's range (least and largest value of all parts) that it
  covers, as if values were spread evenly; without statistics a quarter.
* An equality keeps a twentieth, a list as many times that as it has values. LIKE and IS keep a twentieth.
* NOT keeps the rest, OR at most the sum, AND the product (terms are taken as independent); anything else keeps a half.
* Regions keep the share of each part's cells that pruning left. Keys keep one row each of a director, a few of a child.
* GROUP BY keeps a tenth for each task, at most as many rows as its columns can have values (a hundred thousand if that is not
  known); an aggregate without groups makes a row per task.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from sqlglot import exp

from qengine.catalog.model import Int64Array, TableSnapshot
from qengine.plan import terms
from qengine.plan.cut import Leaf, pushable_terms
from qengine.plan.logical import KeyFact
from qengine.plan.regions import range_of, region_of
from qengine.plan.split import limit_of
from qengine.sky.cells import RangeSet

GROUPS = 0.1
MANY_GROUPS = 100_000
CHILDREN = 10
EQUAL = 0.05
COMPARED = 0.25
OTHER = 0.5


def guess_rows(leaf: Leaf, work: RangeSet, rows: int, tasks: int, *, is_limited: bool = True) -> int:
    """Return about how many rows all tasks of the leaf put out, which together read `rows` of the owner, on the cells `work`; with
    `is_limited` no more than its limit."""
    kept = float(rows)
    owner = leaf.block.table_of(leaf.locality.owner) if leaf.locality.owner else None
    if owner is not None and kept:
        kept = min(kept, max(1.0, rows_inside(owner, work)))
        keys = [r.fact for r in leaf.restrictions if isinstance(r.fact, KeyFact) and r.distance_deg == 0]
        each = CHILDREN if owner.table.director else 1
        kept = min([kept, *(float(len(fact.values) * each) for fact in keys)])
    for alias, relation in leaf.block.relations.items():
        if relation.table is None or relation.table.inline is not None:
            continue
        for term in pushable_terms(leaf.block, alias):
            if not relation.side or relation.side == "INNER":
                kept *= selectivity(term, alias, relation.table)
        if owner is not None and relation.is_sharded and relation.table is not owner and _is_tied_by_key(leaf, alias):
            # A director has many children; each of them makes a row.
            kept *= max(1.0, relation.table.rows / max(owner.rows, 1))
    if leaf.split.kind in ("partial", "counted"):
        kept = _groups(leaf, kept, tasks)
    limit, _ = limit_of(leaf.split.leaf)
    if is_limited and limit is not None:
        # With ORDER BY each task gives its first rows, else any of them do.
        kept = min(kept, float(limit) * (max(tasks, 1) if leaf.split.row_limit is None else 1))
    return math.ceil(kept)


def rows_inside(table: TableSnapshot, work: RangeSet) -> float:
    """Return how many rows of the table lie in `work`, as if those of each part were spread evenly over its range."""
    below = np.r_[0, np.cumsum(work.stops - work.starts)].astype(np.float64)

    def cells_before(at: Int64Array) -> NDArray[np.float64]:
        place = np.searchsorted(work.starts, at, side="right")
        inside = np.minimum(at - np.where(place > 0, work.starts[place - 1], at), _length(work, place - 1))
        return np.asarray(below[np.maximum(place - 1, 0)] + np.where(place > 0, inside, 0), np.float64)

    found = 0.0
    if not len(work):
        return found
    for parts in (table.home, table.orphan):
        met = parts.meeting(work)
        if len(met):
            cells = cells_before(parts.stop[met]) - cells_before(parts.start[met])
            found += float((parts.rows[met] * cells / np.maximum(parts.stop[met] - parts.start[met], 1)).sum())
    return found


def _length(work: RangeSet, place: Int64Array) -> Int64Array:
    chosen = np.maximum(place, 0)
    return np.asarray(work.stops[chosen] - work.starts[chosen], np.int64)


def _groups(leaf: Leaf, rows: float, tasks: int) -> float:
    group = leaf.split.leaf.args.get("group")
    if group is None:
        return float(tasks)
    sets = [keys.expressions for found in group.args.get("grouping_sets") or () for keys in found.expressions] or [
        group.expressions
    ]
    return sum(_rows_of_groups(leaf, keys, rows, tasks) for keys in sets)


def _rows_of_groups(leaf: Leaf, keys: list[exp.Expr], rows: float, tasks: int) -> float:
    values = 1.0
    for node in keys:
        place = terms.plain_column(node)
        table = leaf.block.table_of(place[0]) if place is not None else None
        values *= _values(table, place[1]) if table is not None and place is not None else MANY_GROUPS
    return min(rows, tasks * max(1.0, min(rows / max(tasks, 1) * GROUPS, values)))


def _values(table: TableSnapshot, column: str) -> float:
    """Return how many values a column may have: known for integers with statistics."""
    stats = table.home.stats.get(column)
    if stats is None or not np.issubdtype(stats.minimum.dtype, np.integer) or not stats.is_known.any():
        return MANY_GROUPS
    return float(np.max(stats.maximum[stats.is_known])) - float(np.min(stats.minimum[stats.is_known])) + 1


def selectivity(node: exp.Expr, alias: str, table: TableSnapshot) -> float:
    """Return the share of the table's rows that about fulfil the term."""
    node = terms.bare(node)
    if isinstance(node, exp.Not):
        return 1.0 - selectivity(node.this, alias, table)
    if region_of(node, alias, table.table) is not None:
        return 1.0
    if isinstance(node, exp.Or):
        return min(1.0, sum(selectivity(branch, alias, table) for branch in terms.disjuncts(node)))
    if isinstance(node, exp.And):
        return math.prod(selectivity(term, alias, table) for term in terms.conjuncts(node))
    if isinstance(node, exp.In):
        return min(1.0, _equal(node, table) * max(len(terms.constants_in(node)), 1)) if node.expressions else COMPARED
    if isinstance(node, exp.EQ):
        return _equal(node, table)
    if isinstance(node, (exp.Like, exp.ILike, exp.Is)):
        return EQUAL
    if isinstance(node, (exp.LT, exp.LTE, exp.GT, exp.GTE, exp.Between)):
        found = range_of(node)
        return COMPARED if found is None else _covered(found[1], found[2], found[0][1], table)
    return OTHER


def _equal(node: exp.Expr, table: TableSnapshot) -> float:
    keys = {table.table.key, table.table.director_key} - {""}
    return 1.0 if any(column.name in keys for column in node.find_all(exp.Column)) else EQUAL


def _covered(low: float, high: float, column: str, table: TableSnapshot) -> float:
    stats = table.home.stats.get(column)
    if stats is None or stats.minimum.dtype == object or not stats.is_known.any():
        return COMPARED
    known = stats.is_known
    least, largest = float(np.min(stats.minimum[known])), float(np.max(stats.maximum[known]))
    if not (math.isfinite(least) and math.isfinite(largest)) or least >= largest:
        return COMPARED
    covered = (min(high, largest) - max(low, least)) / (largest - least)
    return min(1.0, max(covered, 1.0 / max(table.rows, 1)))


def _is_tied_by_key(leaf: Leaf, alias: str) -> bool:
    return any(alias in (edge.left, edge.right) for edge in leaf.block.key_edges)
