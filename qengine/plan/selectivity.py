"""Guesses of how many rows predicates keep. Only estimates and the choice between plans depend on them, never an answer.

* A comparison of a number with constants keeps the share of the column's range (least and largest value of all parts) that it
  covers, as if values were spread evenly; without statistics a quarter.
* An equality keeps a twentieth, of a director's key one row; a list as many times that as it has values. LIKE and IS keep a
  twentieth.
* NOT keeps the rest, OR at most the sum, AND the product (terms are taken as independent); anything else keeps a half.
* A region keeps everything: pruning has left little else already.
* GROUP BY keeps a tenth, for each task; an aggregate without groups makes a row per task.
"""

from __future__ import annotations

import math

import numpy as np
from sqlglot import exp

from qengine.catalog.model import TableSnapshot
from qengine.plan import terms
from qengine.plan.cut import Leaf, pushable_terms
from qengine.plan.regions import range_of, region_of

GROUPS = 0.1
EQUAL = 0.05
COMPARED = 0.25
OTHER = 0.5


def guess_rows(leaf: Leaf, rows: int, tasks: int, *, is_limited: bool = True) -> int:
    """Return about how many rows all tasks of the leaf put out, which together read `rows` of the owner; with `is_limited` no more
    than its limit."""
    kept = float(rows)
    owner = leaf.block.table_of(leaf.locality.owner) if leaf.locality.owner else None
    for alias, relation in leaf.block.relations.items():
        if relation.table is None or relation.table.inline is not None:
            continue
        for term in pushable_terms(leaf.block, alias):
            if not relation.side or relation.side == "INNER":
                kept *= selectivity(term, alias, relation.table)
        if owner is not None and relation.is_sharded and relation.table is not owner and _is_tied_by_key(leaf, alias):
            # A director has many children; each of them makes a row.
            kept *= max(1.0, relation.table.rows / max(owner.rows, 1))
    if leaf.split.kind == "partial":
        kept = kept * GROUPS if leaf.split.leaf.args.get("group") is not None else float(tasks)
    if is_limited and leaf.split.row_limit is not None:
        kept = min(kept, float(leaf.split.row_limit))
    return math.ceil(kept)


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
    key = table.table.key
    if key and any(column.name == key for column in node.find_all(exp.Column)):
        return 1.0 / max(table.rows, 1)
    return EQUAL


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
