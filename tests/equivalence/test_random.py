"""Random queries over random skies: a cluster gives the rows of one DuckDB, whatever is asked.

Three worker processes over gRPC, tiny tiles, several catalogues in one store. A failure prints the seed; look at it with

    python -m tests.equivalence.replay SEED
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import NO_BROADCASTS, grpc_cluster
from tests.support.harness import Harness
from tests.support.oracle import Oracle
from tests.support.sky_builder import Sky

QUERIES = 200
MANY_QUERIES = 3400

NEIGHBOURS = {"self_near": 4, "two_near": 4, "child_near": 2, "near_chain": 3, "three_near": 2}


@pytest.fixture(scope="module")
def harness(store_root: Path, skies: list[Sky], oracle: Oracle) -> Iterator[Harness]:
    with grpc_cluster(store_root, workers=3) as cluster:
        yield Harness(cluster, skies, oracle=oracle)


def test_cluster_gives_the_rows_of_one_database(harness: Harness) -> None:
    report = harness.run(range(QUERIES))
    assert not report.findings, str(report)
    assert report.asked > 0.9 * QUERIES
    assert report.empty < 0.5 * QUERIES


@pytest.fixture(scope="module")
def gathering(store_root: Path, skies: list[Sky], oracle: Oracle) -> Iterator[Harness]:
    """A cluster that takes nothing for small."""
    with grpc_cluster(store_root, workers=2, broadcast=NO_BROADCASTS) as cluster:
        yield Harness(cluster, skies, oracle=oracle)


@pytest.fixture(scope="module")
def exchanging(store_root: Path, skies: list[Sky], oracle: Oracle) -> Iterator[Harness]:
    """A cluster that exchanges whatever can be exchanged."""
    with grpc_cluster(store_root, workers=3, broadcast=NO_BROADCASTS, exchange_bytes=0) as cluster:
        yield Harness(cluster, skies, oracle=oracle)


def test_cluster_that_exchanges_everything_gives_them_too(exchanging: Harness) -> None:
    report = exchanging.run(range(30_000, 30_000 + QUERIES))
    assert not report.findings, str(report)


def test_cluster_that_broadcasts_nothing_gives_them_too(gathering: Harness) -> None:
    report = gathering.run(range(10_000, 10_000 + QUERIES))
    assert not report.findings, str(report)


def test_cluster_finds_every_pair_of_neighbours(harness: Harness) -> None:
    report = harness.run((f"near {seed}" for seed in range(30)), sources=NEIGHBOURS)
    assert not report.findings, str(report)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_cluster_gives_the_rows_of_one_database_in_many_queries(harness: Harness) -> None:
    report = harness.run(range(QUERIES, QUERIES + MANY_QUERIES))
    assert not report.findings, str(report)
    assert report.asked > 0.9 * MANY_QUERIES


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_queries_without_broadcasts(gathering: Harness) -> None:
    report = gathering.run(range(20_000, 20_000 + MANY_QUERIES))
    assert not report.findings, str(report)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_queries_with_exchanges(exchanging: Harness) -> None:
    report = exchanging.run(range(40_000, 40_000 + MANY_QUERIES))
    assert not report.findings, str(report)
