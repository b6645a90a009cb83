"""EXPLAIN: a physical plan as plain values, for people before they run a query and for golden tests. `plan.explain_text` writes
them as text.

Tiles, parts and row groups are those that meet the work, rows and bytes (of the used columns) what they hold at most: from the
manifest. Rows that come out (`plan.selectivity`) and seconds (`plan.forecast`) are guesses. After ANALYZE each fragment carries
what happened beside its estimates, and the whole query the time of its stations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qengine.catalog.model import TableSnapshot
from qengine.errors import Span
from qengine.plan.explain_text import to_text
from qengine.plan.forecast import Forecast, LeafForecast, forecast
from qengine.plan.fragment import LeafFragment, LeafInput, PhysicalPlan, Reach
from qengine.plan.logical import Tree
from qengine.plan.predicates import final_predicates, predicates_of
from qengine.sky.cells import RangeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedStep:
    """A statement that runs before the main one. `rows` is known after ANALYZE."""

    name: str
    reason: str
    plan: PhysicalPlan
    actual: tuple[Mapping[str, Any], ...] = ()
    rows: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What would happen, and after ANALYZE what did.

    `steps` run before; as long as they have not, nothing in `plan` is pruned by their rows. `tree` is the statement after the
    optimizer. After ANALYZE, `actual` has one mapping of figures per leaf, `exchanged` those of the exchange, `times` the seconds
    of each station and `answer_rows` the rows of the answer. Fragments of at most `interactive_tasks` tasks begin in that lane.
    """

    statement: str
    language: str
    snapshots: Mapping[str, int]
    warnings: tuple[str, ...]
    plan: PhysicalPlan
    tree: Tree | None = None
    actual: tuple[Mapping[str, Any], ...] = ()
    steps: tuple[ExplainedStep, ...] = ()
    exchanged: Mapping[str, Any] | None = None
    times: Mapping[str, float] = field(default_factory=dict)
    answer_rows: int | None = None
    interactive_tasks: int = 4

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        cost = forecast(self.plan)
        costs = [forecast(step.plan) for step in self.steps]
        found = {
            "statement": self.statement,
            "language": self.language,
            "snapshots": dict(self.snapshots),
            "warnings": list(self.warnings),
            "columns": [{"name": c.name, "type": str(c.type), "unit": c.unit, "ucd": c.ucd} for c in self.plan.columns],
            "steps": [self._step(step, step_cost) for step, step_cost in zip(self.steps, costs, strict=True)],
            "fragments": self._fragments(self.plan, cost, self.actual),
            "exchange": _exchange(self.plan, self.exchanged),
            "final": self.plan.final_sql,
            "final_predicates": [self._text(span) for span in self._final_predicates()],
            "coordinator_tables": [table.table.full_name for _, table in self.plan.inline],
            "tasks": self.plan.tasks,
            "estimated": _estimated(cost, sum(one.seconds for one in costs)),
        }
        if self.times:
            found["actual"] = {"rows": self.answer_rows, "seconds": dict(self.times)}
        return found

    def to_text(self) -> str:
        """Return the plan as indented lines."""
        return to_text(self.to_json())

    def _step(self, step: ExplainedStep, cost: Forecast) -> dict[str, Any]:
        return {
            "name": step.name,
            "reason": step.reason,
            "rows": step.rows,
            "tasks": step.plan.tasks,
            "fragments": self._fragments(step.plan, cost, step.actual),
            "final": step.plan.final_sql,
            "estimated": _estimated(cost, 0.0),
        }

    def _fragments(self, plan: PhysicalPlan, cost: Forecast, actual: tuple[Mapping[str, Any], ...]) -> list[dict[str, Any]]:
        found = [self._leaf(leaf, expected) for leaf, expected in zip(plan.leaves, cost.leaves, strict=True)]
        for entry, figures in zip(found, actual, strict=False):
            entry["actual"] = dict(figures)
        return found

    def _leaf(self, leaf: LeafFragment, expected: LeafForecast) -> dict[str, Any]:
        e = leaf.estimate
        owner = next((i.table for i in leaf.inputs if i.alias == leaf.owner), None)
        return {
            "relation": leaf.relation,
            "kind": leaf.kind,
            "owner": leaf.owner,
            "gathered_because": leaf.gathered,
            "lane": "interactive" if leaf.task_count <= self.interactive_tasks else "scan",
            "inputs": [
                {
                    "alias": i.alias,
                    "table": i.table.table.full_name,
                    "snapshot": i.table.number,
                    "reads": _reads(i),
                    "margin_arcsec": round(i.margin_deg * 3600, 6) if i.reach is Reach.RING else 0.0,
                    "columns": list(i.columns),
                    "of_columns": len(i.table.table.columns),
                }
                for i in leaf.inputs
            ],
            "pairs_within_arcsec": [round(join.radius_deg * 3600, 6) or None for join in leaf.sky_joins],
            "predicates": [{"text": self._text(p.span), "use": p.use} for p in predicates_of(leaf.leaf)],
            "tasks": leaf.task_count,
            "tiles": 0 if owner is None else tiles(owner, leaf.work),
            "of_tiles": 0 if owner is None else tiles(owner, RangeSet.whole()),
            "parts": e.parts,
            "of_parts": e.parts_total,
            "row_groups": e.row_groups,
            "rows": e.rows,
            "bytes": e.bytes,
            "row_limit": leaf.row_limit,
            "stops_early_by": _order(leaf),
            "result_rows": expected.result_rows,
            "seconds": round(expected.seconds, 4),
            "sql": leaf.sql,
        }

    def _final_predicates(self) -> tuple[Span, ...]:
        if self.tree is None or self.plan.final_sql is None:
            return ()
        return final_predicates(self.tree, [p.span for leaf in self._leaves() for p in predicates_of(leaf.leaf)])

    def _leaves(self) -> Iterator[LeafFragment]:
        yield from self.plan.leaves
        for step in self.steps:
            yield from step.plan.leaves

    def _text(self, span: Span) -> str:
        return " ".join(self.statement[span.start : span.end].split())


def tiles(table: TableSnapshot, work: RangeSet) -> int:
    """Count the ranges of the line that meet `work` and in which the table has parts."""
    count = 0
    for parts in (table.home, table.orphan):
        starts = parts.start[parts.meeting(work)]
        count += int(np.count_nonzero(np.diff(starts))) + 1 if len(starts) else 0
    return count


def _reads(i: LeafInput) -> str:
    """Return how much of an input each task reads."""
    if i.table.inline is None:
        return i.reach.value
    return "broadcast" if i.near is None else "near"


def _estimated(cost: Forecast, steps_s: float) -> dict[str, Any]:
    return {
        "bytes": cost.bytes,
        "rows": cost.rows,
        "result_rows": cost.result_rows,
        "seconds": round(cost.seconds + steps_s, 4),
        "steps_s": round(steps_s, 4),
        "leaves_s": round(cost.leaf_s, 4),
        "merge_s": round(cost.merge_s, 4),
        "export_s": round(cost.export_s, 4),
    }


def _exchange(plan: PhysicalPlan, exchanged: Mapping[str, Any] | None) -> dict[str, Any] | None:
    planned = plan.exchange
    if planned is None:
        return None
    found: dict[str, Any] = {
        "kind": "hash",
        "partitions": planned.count,
        "relations": [
            {"relation": plan.leaves[number].relation, "by": [name for name, _ in one.keys], "from_bytes": one.threshold_bytes}
            for number, one in sorted(planned.partitioning.items())
        ],
        "middles": [
            {"relation": middle.relation, "kind": middle.kind, "reads": [i.relation for i in middle.inputs], "sql": middle.sql}
            for middle in planned.middles
        ],
        "final": planned.final_sql,
    }
    if exchanged is not None:
        found["actual"] = dict(exchanged)
    return found


def _order(leaf: LeafFragment) -> str | None:
    """Return the column by whose statistics the parts are read in turn, with its direction."""
    if leaf.top is None:
        return None
    return f"{leaf.top.spec.column} {'descending' if leaf.top.spec.is_descending else 'ascending'}"
