"""What it costs that each row of one relation meets each row of another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from qengine.app import ClusterSettings, cluster
from qengine.coordinator.service import QueryService
from qengine.errors import QueryTooExpensiveError
from qengine.plan.forecast import forecast
from tests.support.cluster import load_skies
from tests.support.sky_builder import build_sky


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[QueryService, asyncio.Runner]]:
    root = load_skies(Path(tmp_path_factory.mktemp("loops")), [build_sky(7)])
    with asyncio.Runner() as runner:
        opened = cluster(root, ClusterSettings(workers=0))
        yield runner.run(opened.__aenter__()), runner
        runner.run(opened.__aexit__(None, None, None))


@pytest.fixture
def service(running: tuple[QueryService, asyncio.Runner]) -> QueryService:
    return running[0]


def seconds(service: QueryService, rest: str) -> float:
    return forecast(service.plan(f"SELECT COUNT(*) AS n FROM {rest}", language="sql").plan).seconds


def test_relations_that_nothing_ties_cost_their_product(service: QueryService) -> None:
    one = "sky7.Object AS a"
    counts = {name: service.catalog().find("sky7", name).rows for name in ("Object", "Star", "Filter")}  # type: ignore[union-attr]
    tied = [
        f"{one} JOIN sky7.Star AS b ON a.flags = b.grade",
        f"{one} JOIN sky7.Star AS b ON DISTANCE(a.ra, a.dec, b.raj2000, b.dej2000) < 0.01",
        f"{one} JOIN sky7.Filter AS f ON f.band = a.name",
        f"{one} LEFT JOIN sky7.Filter AS f ON f.rank = a.flags AND f.wavelength > a.rMag",
    ]
    for statement in tied:
        plan = service.plan(f"SELECT COUNT(*) AS n FROM {statement}", language="sql").plan
        assert [leaf.estimate.pairs for leaf in plan.leaves if leaf.estimate.pairs > leaf.estimate.rows] == [], statement
    loose = service.plan(f"SELECT COUNT(*) AS n FROM {one} JOIN sky7.Filter AS f ON f.wavelength > a.rMag", language="sql").plan
    assert [leaf.estimate.pairs for leaf in loose.leaves] == [counts["Object"] * counts["Filter"]]
    steps = service.plan(
        f"SELECT COUNT(*) AS n FROM {one}, sky7.Star AS b, sky7.Star AS c WHERE a.gMag + b.mag > c.mag", language="sql"
    )
    assert sum(leaf.estimate.pairs for leaf in steps.plan.leaves) > counts["Object"] * counts["Star"]


def test_a_limit_of_cost_refuses_them(running: tuple[QueryService, asyncio.Runner]) -> None:
    service, runner = running
    stars = ", ".join(f"sky7.Star AS s{n}" for n in range(7))
    text = f"SELECT COUNT(*) AS n FROM sky7.Object AS a, {stars} WHERE a.gMag > s0.mag"
    assert seconds(service, text.partition(" FROM ")[2]) > 3600

    async def ask() -> None:
        async for _ in (await service.query(text, language="sql", max_cost="60s")).batches:
            pass

    with pytest.raises(QueryTooExpensiveError):
        runner.run(ask())
