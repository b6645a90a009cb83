"""Stations 1 to 6 over a million imaginary tiles. Targets: a cone under 20 ms, the full sky under 1 s."""

from __future__ import annotations

from typing import Any

import pytest

from qengine.catalog.model import Catalog
from tests.support.imaginary import survey
from tests.support.planning import plan_of

STATEMENTS = {
    "plan_cone": "SELECT objectId FROM dp.Object WHERE CONTAINS(POINT(ra, dec), CIRCLE(45, 45, 0.5)) = 1",
    "plan_key": "SELECT * FROM dp.Object WHERE objectId = 5",
    "plan_full_sky": "SELECT COUNT(*) AS n FROM dp.Object WHERE flags > 3",
    "plan_join": "SELECT COUNT(*) AS n FROM dp.Object o JOIN dp.ForcedSource f ON f.objectId = o.objectId",
    "plan_statistics": "SELECT COUNT(*) AS n FROM dp.Object WHERE mag BETWEEN 12 AND 13",
}


@pytest.fixture(scope="module")
def million() -> Catalog:
    return survey(9, count=1_000_000)


@pytest.mark.parametrize("name", STATEMENTS)
def test_planning(benchmark: Any, million: Catalog, name: str) -> None:
    benchmark.group = name
    plan = benchmark(plan_of, STATEMENTS[name], million)
    assert plan.tasks > 0
