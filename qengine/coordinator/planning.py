"""Stations 3 to 6 behind the optimizer: from ordinary SQL to a physical plan, steps included.

What needs more than the catalogue is here: the index of keys, and how many slots there are. Nothing runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from qengine.catalog.model import Catalog
from qengine.catalog.output import OutputColumn
from qengine.plan.broadcast import BroadcastLimits, Staged, Step, stage, step_table, with_tables
from qengine.plan.cost import CostModel
from qengine.plan.cut import CutQuery, cut
from qengine.plan.estimate import Estimator
from qengine.plan.exchange import with_exchange
from qengine.plan.forecast import forecast
from qengine.plan.fragment import PhysicalPlan, fragment
from qengine.plan.logical import Tree
from qengine.plan.prune import Resolved, lookups
from qengine.storage.keyindex import KeyReader


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """A step as far as it can be planned before anything has run."""

    step: Step
    plan: PhysicalPlan
    steps: tuple[PlannedStep, ...]


class Planner:
    """Makes plans. `cost` is asked for each of them, because workers come and go."""

    def __init__(self, keys: KeyReader, cost: Callable[[], CostModel], limits: BroadcastLimits) -> None:
        self._keys = keys
        self._cost = cost
        self.limits = limits

    def stage(self, tree: Tree, catalog: Catalog, *, forbidden: Collection[str] = (), prefix: str = "b") -> Staged:
        """Take out what should run first."""
        estimator = Estimator(catalog, self._cost())
        return stage(tree, catalog, estimator, limits=self.limits, forbidden=forbidden, prefix=prefix)

    def plan(self, tree: Tree, catalog: Catalog, columns: tuple[OutputColumn, ...], *, first: int = 0) -> PhysicalPlan:
        """Cut the statement, look its keys up, and make fragments numbered from `first`."""
        pieces = cut(tree, catalog)
        resolved = self._resolve(pieces, catalog)
        plan = fragment(pieces, resolved, columns, self._cost(), first=first)
        return with_exchange(plan, pieces, lambda cost: fragment(pieces, resolved, columns, cost, first=first))

    def outline(
        self, tree: Tree, catalog: Catalog, columns: tuple[OutputColumn, ...], *, prefix: str = "b"
    ) -> tuple[PhysicalPlan, tuple[PlannedStep, ...]]:
        """Plan a statement whose steps have not run: their rows are unknown, so nothing is pruned by them yet."""
        steps: list[PlannedStep] = []
        while (staged := self.stage(tree, catalog, prefix=f"{prefix}{len(steps)}_")).steps:
            tables = []
            for step in staged.steps:
                plan, inner = self.outline(step.tree, catalog, columns_of(step), prefix=f"{step.name}_")
                steps.append(PlannedStep(step=step, plan=plan, steps=inner))
                tables.append(step_table(step, None, expected_rows=forecast(plan).result_rows))
            catalog = with_tables(catalog, tables)
            tree = staged.tree
        return self.plan(tree, catalog, columns), tuple(steps)

    def _resolve(self, pieces: CutQuery, catalog: Catalog) -> Resolved:
        wanted = {lookup for leaf in pieces.leaves for lookup in lookups(leaf)}
        resolved = {}
        for lookup in wanted:
            director = catalog.find(lookup.schema, lookup.table)
            if director is not None and director.key_index is not None:
                resolved[lookup] = self._keys.cells(director.key_index, lookup.values)
        return resolved


def columns_of(step: Step) -> tuple[OutputColumn, ...]:
    """Return what the rows of a step are."""
    return tuple(OutputColumn(name=name, type=found) for name, found in step.columns)
