"""What a plan will cost: bytes, rows and seconds, before it runs. A guess for people, limits and progress; nothing else uses it.

A leaf's work is its bytes by the rate of scans, and its rows by the rate of joins by distance or of grouping where it has them.
Its tasks run on as many slots as there are; each costs its dispatch. The rows that it puts out (`plan.selectivity`) are merged on
the coordinator where there is a final part, and the answer is exported. Leaves share the slots, so their times add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from qengine.catalog.output import OutputColumn
from qengine.plan.cost import CostModel, width
from qengine.plan.fragment import LeafFragment, PhysicalPlan
from qengine.plan.selectivity import guess_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafForecast:
    """One leaf: rows that it puts out, and its time on all slots."""

    result_rows: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """A whole plan. `bytes` and `rows` are read, `result_rows` gathered from the leaves; seconds by station."""

    bytes: int
    rows: int
    result_rows: int
    leaves: tuple[LeafForecast, ...]
    merge_s: float
    export_s: float

    @property
    def leaf_s(self) -> float:
        """Time until everything is gathered."""
        return sum(leaf.seconds for leaf in self.leaves)

    @property
    def seconds(self) -> float:
        """Time of everything."""
        return self.leaf_s + self.merge_s + self.export_s


def forecast(plan: PhysicalPlan) -> Forecast:
    """Return what the plan will cost on its cluster."""
    leaves = tuple(_leaf(leaf, plan.cost) for leaf in plan.leaves)
    gathered = sum(leaf.result_rows for leaf in leaves)
    gathered += sum(table.inline.num_rows for _, table in plan.inline if table.inline is not None)
    # Every task makes each group once more.
    answer = sum(
        found.result_rows / max(leaf.task_count, 1) if leaf.kind in ("partial", "counted") else found.result_rows
        for leaf, found in zip(plan.leaves, leaves, strict=True)
    )
    rates = plan.cost.rates
    merge_s = 0.0 if plan.final_sql is None else gathered / rates.merge_rows_per_s
    return Forecast(
        bytes=sum(leaf.estimate.bytes for leaf in plan.leaves),
        rows=sum(leaf.estimate.rows for leaf in plan.leaves),
        result_rows=gathered,
        leaves=leaves,
        merge_s=merge_s,
        export_s=answer * row_bytes(plan.columns) / rates.export_bytes_per_s,
    )


def row_bytes(columns: Iterable[OutputColumn]) -> int:
    """Return about how many bytes a row of the answer takes."""
    return sum(width(column.type) for column in columns)


def work_seconds(leaf: LeafFragment, cost: CostModel) -> Mapping[str, float]:
    """Return the expected seconds of all tasks together by the name of the rate that they depend on, dispatch left out."""
    rates, estimate = cost.rates, leaf.estimate
    found = {"scan_bytes_per_s": (estimate.bytes + estimate.parts * cost.part_bytes) / rates.scan_bytes_per_s}
    if leaf.sky_joins or any(i.margin_deg > 0 for i in leaf.inputs):
        found["sky_join_rows_per_s"] = estimate.rows / rates.sky_join_rows_per_s
    elif estimate.pairs > estimate.rows:
        found["pairs_per_s"] = estimate.pairs / rates.pairs_per_s
    elif leaf.kind in ("partial", "counted") and leaf.leaf.split.leaf.args.get("group") is not None:
        found["group_rows_per_s"] = estimate.rows / rates.group_rows_per_s
    return found


def _leaf(leaf: LeafFragment, cost: CostModel) -> LeafForecast:
    tasks = leaf.task_count
    if not tasks:
        return LeafForecast(result_rows=0, seconds=0.0)
    slots = max(1, min(cost.slots, tasks))
    share = 1.0
    result = guess_rows(leaf.leaf, leaf.work, leaf.estimate.rows, tasks)
    if leaf.row_limit is not None and result:
        # Tasks stop when there are rows enough: about as many are read as give them.
        unlimited = guess_rows(leaf.leaf, leaf.work, leaf.estimate.rows, tasks, is_limited=False)
        share = min(1.0, max(result / max(unlimited, 1), 1.0 / tasks))
    work = sum(work_seconds(leaf, cost).values()) * share
    return LeafForecast(result_rows=result, seconds=(work + max(1.0, tasks * share) * cost.rates.dispatch_s) / slots)
