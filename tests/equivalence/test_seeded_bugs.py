"""The suite tests itself: with a seeded bug between coordinator and workers, wrong rows must be found,
and the same query must be right without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from qengine.catalog.registry import Registry
from qengine.transport.channel import WorkerChannel
from tests.support import sabotage
from tests.support.cluster import LocalCluster, in_process_cluster
from tests.support.harness import Harness
from tests.support.oracle import Oracle
from tests.support.sabotage import Sabotage, SabotagedChannel, part_ranges
from tests.support.sky_builder import Sky

QUERIES = 30

NEIGHBOURS = {"two_near": 1, "self_near": 1}
PAIRS = {"self_near": 1}
TABLES = {"single": 1, "family": 1}
PLAIN = {"plain": 1, "aggregate": 1}

BUGS = (
    Sabotage(name="margin dropped", task=sabotage.drop_margins, sources=NEIGHBOURS, shapes=PLAIN),
    Sabotage(name="wrong owner", task=sabotage.widen_owner, sources=PAIRS, shapes=PLAIN),
    Sabotage(name="attempt merged twice", events=sabotage.merge_twice, sources=TABLES, shapes=PLAIN),
    Sabotage(name="tile lost", events=sabotage.lose_task, sources=TABLES, shapes=PLAIN),
    Sabotage(name="part lost", task=sabotage.lose_part, sources=TABLES, shapes=PLAIN),
    Sabotage(name="orphans lost", task=sabotage.lose_orphans, sources=TABLES, shapes=PLAIN),
    Sabotage(name="ranges shifted", task=sabotage.shift_ranges, sources=NEIGHBOURS, shapes=PLAIN),
)

Open = Callable[[Sabotage], AbstractContextManager[LocalCluster]]


@pytest.fixture(scope="module")
def open_cluster(store_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Open:
    """Opens an in-process cluster whose channels have the given bug."""
    where = part_ranges(Registry.open(store_root).catalog())

    @contextmanager
    def opened(bug: Sabotage) -> Iterator[LocalCluster]:
        def wrap(channel: WorkerChannel) -> WorkerChannel:
            return SabotagedChannel(channel, bug, where)

        with in_process_cluster(store_root, tmp_path_factory.mktemp("work"), wrap=wrap) as cluster:
            yield cluster

    return opened


@pytest.fixture(scope="module")
def honest(open_cluster: Open, skies: list[Sky], oracle: Oracle) -> Iterator[Harness]:
    with open_cluster(Sabotage(name="none")) as cluster:
        yield Harness(cluster, skies, oracle=oracle)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name.replace(" ", "-"))
def test_seeded_bug_is_caught(bug: Sabotage, open_cluster: Open, honest: Harness) -> None:
    seeds = [f"{bug.name} {number}" for number in range(QUERIES)]
    with open_cluster(bug) as cluster:
        harness = Harness(cluster, list(honest.skies.values()), oracle=honest.oracle)
        report = harness.run(seeds, shapes=bug.shapes, sources=bug.sources, enough=2)
    wrong = [finding for finding in report.findings if "Error" not in finding.complaint]
    assert wrong, f"{bug.name} was not noticed in {report.asked} queries"
    right = honest.run([finding.seed for finding in wrong], shapes=bug.shapes, sources=bug.sources)
    assert not right.findings, str(right)
