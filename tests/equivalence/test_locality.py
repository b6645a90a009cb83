"""Random blocks inside blocks: what runs whole in the leaf gives the rows of one DuckDB, and so does what does not.

Nothing is broadcast here: in a small sky everything is small, and hardly a block would have to be local. A failure prints its seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import NO_BROADCASTS, grpc_cluster
from tests.support.harness import Harness
from tests.support.locality_gen import LocalityGenerator
from tests.support.oracle import Oracle
from tests.support.sky_builder import Sky

QUERIES = 120
MANY_QUERIES = 4000


@pytest.fixture(scope="module")
def harness(store_root: Path, skies: list[Sky], oracle: Oracle) -> Iterator[Harness]:
    with grpc_cluster(store_root, workers=2, broadcast=NO_BROADCASTS) as cluster:
        yield Harness(cluster, skies, oracle=oracle, generator=LocalityGenerator)


def test_blocks_inside_blocks(harness: Harness) -> None:
    report = harness.run(f"locality {seed}" for seed in range(QUERIES))
    assert not report.findings, str(report)
    assert report.asked > 0.8 * QUERIES
    assert report.empty < 0.6 * QUERIES


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_blocks_inside_blocks(harness: Harness) -> None:
    report = harness.run(f"locality {seed}" for seed in range(QUERIES, QUERIES + MANY_QUERIES))
    assert not report.findings, str(report)
