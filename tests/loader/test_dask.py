"""Loads on a Dask cluster of processes, one of which dies in the middle."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

from qengine.errors import ClusterError, InputError, PoisonTaskError
from qengine.loader.executor_dask import DaskCluster
from tests.loader.executed import change_family, counts, digests, load_family, load_with, objects
from tests.loader.stores import Site
from tests.loader.test_executor import Task, write

pytestmark = pytest.mark.slow

Make = Callable[[Path], Site]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def dask(address: str) -> Iterator[DaskCluster]:
    with DaskCluster(address) as executor:
        yield executor


def kill_worker(address: str) -> int:
    """Kill one of the processes that work; its nanny begins another."""
    with Client(address, set_as_default=False) as client:
        pid: int = next(iter(client.run(os.getpid).values()))
    os.kill(pid, signal.SIGKILL)
    return pid


def test_every_result_comes_once_though_a_worker_is_killed(tmp_path: Path, dask: DaskCluster) -> None:
    tasks = [Task(folder=tmp_path, number=number, deadly=5) for number in range(20)]
    found = list(dask.run(write, tasks, ahead=4))
    assert (tmp_path / "died").exists()
    assert sorted(number for number, _ in found) == list(range(20))
    assert all(path.read_text() == str(number) for number, path in found)


def test_a_task_that_always_kills_its_worker_ends_the_run(tmp_path: Path, dask: DaskCluster) -> None:
    with pytest.raises(PoisonTaskError, match="workers died"):
        list(dask.run(write, [Task(folder=tmp_path, number=0, deadly=0, is_always=True)], ahead=2))


def test_an_error_of_a_task_is_raised_and_items_are_taken_as_needed(tmp_path: Path, dask: DaskCluster) -> None:
    taken: list[int] = []

    def tasks() -> Iterator[Task]:
        for number in (0, 1, 2, -1, 4, 5, 6, 7):
            taken.append(number)
            yield Task(folder=tmp_path, number=number)

    with pytest.raises(ValueError, match="negative"):
        list(dask.run(write, tasks(), ahead=2))
    assert len(taken) <= 6


def test_no_scheduler() -> None:
    with pytest.raises(ClusterError, match="no Dask scheduler"):
        DaskCluster("tcp://127.0.0.1:1", timeout_s=1.0)


def test_a_family_loaded_while_workers_die_is_that_of_threads(
    tmp_path: Path, make_site: Make, address: str, dask: DaskCluster
) -> None:
    one, two = make_site(tmp_path / "one"), make_site(tmp_path / "two")
    expected = load_family(one, None)
    killed: dict[str, int] = {}

    def disturb(stage: str, done: int, total: int) -> None:
        # the first task of the stage has ended; others are at work
        if stage in ("locate", "read", "write") and stage not in killed and 0 < done < total:
            killed[stage] = kill_worker(address)

    reports = load_family(two, dask, progress=disturb)
    assert killed.keys() == {"locate", "read", "write"}
    assert [counts(report) for report in reports] == [counts(report) for report in expected]
    assert digests(two) == digests(one)
    assert not [name for name in two.files() if name.endswith(".tmp")]


def test_changes_on_a_cluster_are_those_of_threads(tmp_path: Path, make_site: Make, dask: DaskCluster) -> None:
    one, two = make_site(tmp_path / "one"), make_site(tmp_path / "two")
    for site in (one, two):
        load_family(site, None, rows=3000)
    expected = change_family(one, None)
    assert [counts(report) for report in change_family(two, dask)] == [counts(report) for report in expected]
    assert digests(two) == digests(one)


def test_an_error_on_a_cluster_is_that_of_the_load(site: Site, dask: DaskCluster) -> None:
    path = site.write("obj.parquet", objects(300))
    content = bytearray(path.read_bytes())
    content[40:400] = bytes(360)
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"obj\.parquet: cannot read past row 1"):
        load_with(site, dask, path, key="id")
