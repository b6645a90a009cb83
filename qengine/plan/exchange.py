"""Decides what is exchanged, and plans it: which leaves write partitions, how many, and what runs on them.

Sizes are estimates here and only decide whether partitions are worth preparing: a leaf whose rows may be more than
`CostModel.exchange_bytes` is planned to write partitions, which costs a hash per row, and its tasks write them when a result is
really large (`Partitioning.threshold_bytes`). The coordinator sees the true sizes before the middles run.

A partial aggregate repeats its groups in every task, so that leaves with many groups get few, large tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlglot import exp

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
    repeating = {n for n in keys if plan.leaves[n].kind == "partial" and n in wanted and plan.leaves[n].task_count > cost.slots}
    leaves = plan.leaves
    if repeating:
        large = coarse(replace(cost, tasks_per_slot=1, min_task_s=cost.max_task_s, max_task_s=_COARSE_TASK_S)).leaves
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
    return leaf.estimate.rows * sum(width(found) for _, found in leaf.columns)


def exchange_json(exchange: PlannedExchange, leaves: Sequence[LeafFragment]) -> dict[str, Any]:
    """Return what EXPLAIN says about an exchange."""
    return {
        "partitions": exchange.count,
        "relations": [
            {
                "relation": leaves[number].relation,
                "hash_of": [name for name, _ in p.keys],
                "hashed_as": [kind for _, kind in p.keys],
                "written_beyond_bytes": p.threshold_bytes,
            }
            for number, p in sorted(exchange.partitioning.items())
        ],
        "middles": [
            {"relation": m.relation, "kind": m.kind, "reads": [i.relation for i in m.inputs], "sql": m.sql}
            for m in exchange.middles
        ],
        "final": exchange.final_sql,
    }


def exchange_lines(found: Mapping[str, Any]) -> list[str]:
    """Return the same as indented lines."""
    lines = []
    for relation in found["relations"]:
        columns = ", ".join(relation["hash_of"])
        lines.append(
            f"  exchange of {relation['relation']} by hash of {columns} in {found['partitions']} partitions, where it is large"
        )
    for middle in found["middles"]:
        lines.append(f"    {middle['relation']}: {middle['kind']} of {', '.join(middle['reads'])}, per partition on workers")
        lines.append(f"    {middle['sql']}")
    lines.append(
        f"    the rows of {found['middles'][0]['relation']} are then the answer"
        if found["final"] is None
        else f"    then on the coordinator: {found['final']}"
    )
    if actual := found.get("actual"):
        lines.append("    actual: " + ", ".join(f"{name} {value}" for name, value in actual.items()))
    return lines
