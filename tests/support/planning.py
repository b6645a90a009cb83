"""Stations 1 to 6 without workers or files, for plan tests."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qengine.catalog.model import Catalog, Int64Array
from qengine.plan.cost import CostModel
from qengine.plan.cut import CutQuery, cut
from qengine.plan.explain import Explanation
from qengine.plan.fragment import PhysicalPlan, fragment
from qengine.plan.optimize import optimize
from qengine.plan.prune import lookups
from qengine.sql.bind import bind
from qengine.sql.parse import parse


def pieces_of(text: str, catalog: Catalog, language: str = "adql") -> CutQuery:
    """Parse, bind, optimize and cut."""
    return cut(optimize(bind(parse(text, language), catalog).tree, catalog), catalog)


def plan_of(text: str, catalog: Catalog, *, language: str = "adql", cells: Mapping[int | str, int] | None = None) -> PhysicalPlan:
    """Plan with an imaginary key index: `cells` says where keys are; other keys are in cell 0."""
    bound = bind(parse(text, language), catalog)
    pieces = cut(optimize(bound.tree, catalog), catalog)
    resolved: dict[object, Int64Array] = {}
    for leaf in pieces.leaves:
        for lookup in lookups(leaf):
            resolved[lookup] = np.array([(cells or {}).get(v, 0) for v in lookup.values], np.int64)
    return fragment(pieces, resolved, bound.columns, CostModel(slots=4))  # type: ignore[arg-type]


def explain_text(text: str, catalog: Catalog) -> str:
    """EXPLAIN as text."""
    plan = plan_of(text, catalog)
    tree = optimize(bind(parse(text, "adql"), catalog).tree, catalog)
    return Explanation(statement=text, language="adql", snapshots={"dp": 1}, warnings=(), plan=plan, tree=tree).to_text()
