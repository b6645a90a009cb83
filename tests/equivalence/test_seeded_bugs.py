"""The suite tests itself: with a seeded bug between coordinator and workers, wrong answers must be found; without it, none."""

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

QUERIES = 20

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


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name.replace(" ", "-"))
def test_seeded_bug_is_caught(bug: Sabotage, open_cluster: Open, skies: list[Sky], oracle: Oracle) -> None:
    seeds = [f"{bug.name} {number}" for number in range(QUERIES)]
    with open_cluster(bug) as cluster:
        wrong = Harness(cluster, skies, oracle=oracle).run(seeds, shapes=bug.shapes or {}, sources=bug.sources)
    assert [finding for finding in wrong.findings if "Error" not in finding.complaint], (
        f"{bug.name} was not noticed in {wrong.asked} queries"
    )


def test_the_same_queries_are_right_without_a_bug(open_cluster: Open, skies: list[Sky], oracle: Oracle) -> None:
    with open_cluster(Sabotage(name="none")) as cluster:
        for bug in BUGS:
            seeds = [f"{bug.name} {number}" for number in range(QUERIES)]
            report = Harness(cluster, skies, oracle=oracle).run(seeds, shapes=bug.shapes or {}, sources=bug.sources)
            assert not report.findings, str(report)
