"""Decides what is exchanged, and plans it: which leaves write partitions, how many, and what runs on them.

Sizes are estimates here and only decide whether partitions are worth preparing: a leaf whose rows may be more than
`CostModel.exchange_bytes` is planned to write partitions, which costs a hash per row, and its tasks write them when a result is
really large (`Partitioning.threshold_bytes`). The coordinator sees the true sizes before the middles run.

A partial aggregate repeats its groups in every task, so that leaves that may have many groups get one large task for each slot. How
many there may be is known for integers, from the range of their values; text is taken for words of which there are few (but nothing
depends on it).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from sqlglot import exp

from qengine.catalog.model import TableSnapshot
from qengine.plan import terms
from qengine.plan.cost import CostModel, width
from qengine.plan.cut import CutQuery
from qengine.plan.middle import Exchange, Middle, find_exchange
from qengine.plan.physical import Partitioning
from qengine.sql.render import render

if TYPE_CHECKING:
    from qengine.plan.fragment import LeafFragment, PhysicalPlan

MAX_PARTITIONS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class MiddleInput:
    """One relation that a middle reads: the rows of leaf `leaf` (an index into the plan's leaves)."""

    leaf: int
    relation: str
    keys: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MiddleFragment:
    """The same SELECT on every partition; its rows are `relation`."""

    number: int
    relation: str
    kind: str
    sql: str
    inputs: tuple[MiddleInput, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedExchange:
    """What runs when a leaf has written partitions. `partitioning` is by index of the leaf. `final_sql` reads middles and the
    leaves that are not partitioned; None when the rows of the only middle are the answer."""

    count: int
    partitioning: Mapping[int, Partitioning]
    middles: tuple[MiddleFragment, ...]
    final_sql: str | None


def with_exchange(plan: PhysicalPlan, pieces: CutQuery, coarse: Callable[[CostModel], PhysicalPlan]) -> PhysicalPlan:
    """Add to a plan what can be exchanged. `coarse` makes the same plan with another cost model."""
    cost = plan.cost
    if cost.exchange_bytes < 0:
        return plan
    sizes = {number: _bytes(leaf) for number, leaf in enumerate(plan.leaves)}
    wanted = frozenset(number for number, size in sizes.items() if size >= cost.exchange_bytes)
    found = find_exchange(pieces, wanted)
    if found is None:
        return plan
    keys = {number: columns for middle in found.middles for number, columns in middle.keys.items()}
    repeating = {n for n in keys if n in wanted and _has_many_groups(plan.leaves[n]) and plan.leaves[n].task_count > cost.slots}
    leaves = plan.leaves
    if repeating:
        large = coarse(
            replace(cost, tasks_per_slot=1, min_task_s=cost.max_task_s, max_task_s=_COARSE_TASK_S, result_bytes=_ANY_BYTES)
        ).leaves
        leaves = tuple(large[n] if n in repeating else leaf for n, leaf in enumerate(plan.leaves))
    total = sum(sizes[number] for number in keys)
    count = min(max(-(-total // max(cost.partition_bytes, 1)), 2 * cost.slots), MAX_PARTITIONS)
    partitioning = {
        number: Partitioning(
            keys=columns, count=count, threshold_bytes=cost.exchange_bytes // max(leaves[number].task_count, 1)
        )
        for number, columns in keys.items()
    }  # fmt: skip
    return replace(plan, leaves=leaves, exchange=_planned(found, leaves, count, partitioning))


_COARSE_TASK_S = 30.0
"""Longest task of a leaf that repeats its groups."""

_ANY_BYTES = 1 << 62
_MANY_GROUPS = 100_000


def _planned(
    found: Exchange, leaves: tuple[LeafFragment, ...], count: int, partitioning: Mapping[int, Partitioning]
) -> PlannedExchange:
    first = leaves[0].number + len(leaves)
    middles = tuple(
        MiddleFragment(
            number=first + place, relation=middle.relation, kind=middle.kind, sql=render(middle.select),
            inputs=tuple(
                MiddleInput(leaf=n, relation=leaves[n].relation, keys=columns) for n, columns in sorted(middle.keys.items())
            ),
        )
        for place, middle in enumerate(found.middles)
    )  # fmt: skip
    is_answer = len(found.middles) == 1 and len(partitioning) == len(leaves) and _passes_on(found.final, found.middles[0])
    return PlannedExchange(
        count=count, partitioning=partitioning, middles=middles, final_sql=None if is_answer else render(found.final)
    )


def _passes_on(final: exp.Query, middle: Middle) -> bool:
    """Say whether the final part gives the rows of the middle as they are."""
    if not isinstance(final, exp.Select) or any(value for key, value in final.args.items() if key not in ("expressions", "from_")):
        return False
    names = [item.alias_or_name for item in middle.select.expressions]
    places = [terms.plain_column(item.unalias()) for item in final.expressions]
    return places == [(middle.relation, name) for name in names] and [i.alias_or_name for i in final.expressions] == names


def _bytes(leaf: LeafFragment) -> int:
    rows = float(leaf.estimate.rows)
    if leaf.kind == "partial":
        rows = min(rows, leaf.task_count * math.prod(most for _, most in _group_counts(leaf)))
    return int(rows * sum(width(found) for _, found in leaf.columns))


def _has_many_groups(leaf: LeafFragment) -> bool:
    if leaf.kind != "partial":
        return False
    counts = _group_counts(leaf)
    return math.prod(most for _, most in counts) > _MANY_GROUPS and any(not is_text for is_text, _ in counts)


def _group_counts(leaf: LeafFragment) -> list[tuple[bool, float]]:
    """Return for each group expression whether it is text, and how many values it can have at most."""
    block = leaf.leaf.block
    found = []
    for node in (leaf.leaf.split.leaf.args.get("group") or exp.Group(expressions=[])).expressions:
        kind = terms.sql_type(node)
        place = terms.plain_column(node)
        table = block.table_of(place[0]) if place is not None else None
        most = math.inf if table is None or place is None else _values(table, place[1])
        found.append((kind is not None and kind.is_text, most))
    return found


def _values(table: TableSnapshot, column: str) -> float:
    """Return how many values (and NULL) an integer column can have, by its statistics; infinity for others."""
    most = 1.0
    lowest, highest = math.inf, -math.inf
    for parts in (table.home, table.orphan):
        if not len(parts):
            continue
        stats = parts.stats.get(column)
        if stats is None or not np.issubdtype(stats.minimum.dtype, np.integer) or not stats.is_known.all():
            return math.inf
        lowest, highest = min(lowest, float(stats.minimum.min())), max(highest, float(stats.maximum.max()))
    return most + max(highest - lowest + 1, 0.0)
