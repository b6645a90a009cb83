"""What a slot of a worker needs stays within what it was given: large tasks spill to disk and end well."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from qengine.app import ClusterSettings, cluster
from qengine.client.local import LocalClient
from qengine.plan.physical import Finished, Partitioning, Task, TaskEvent
from qengine.transport.grpc_channel import GrpcChannel
from qengine.worker.settings import WorkerSettings
from qengine.worker.slot import ROOM_BYTES
from qengine.worker.supervise import WorkerProcess, start_worker
from tests.faults.test_worker import children_of
from tests.support.cluster import NO_BROADCASTS, service_settings
from tests.support.exchange_store import bare, load_tables, tables
from tests.support.tasks import collect, make_task, rows_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MEMORY = 768 << 20
MANY = 12_000_000

GROUPS = f"SELECT count(*) AS n FROM (SELECT range * 7 AS g, max(range) AS m, sum(range) AS s FROM range({MANY}) GROUP BY 1)"
SORT = f"""SELECT count(*) AS n FROM (
    SELECT row_number() OVER (ORDER BY hash(range)) AS i, range, lag(range) OVER (ORDER BY hash(range)) AS j FROM range({MANY})
) WHERE i > 0"""
JOIN = f"SELECT count(*) AS n FROM (SELECT range * 3 AS a, range AS b FROM range({MANY})) JOIN (SELECT range * 3 AS a FROM range({MANY})) USING (a)"


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[WorkerProcess]:
    (tmp_path / "store").mkdir()
    settings = WorkerSettings(store_root=tmp_path / "store", memory_bytes=MEMORY, work_dir=tmp_path / "work")
    with start_worker(tmp_path / "store", worker="w", settings=settings) as started:
        yield started


def peak_of(worker: WorkerProcess) -> int:
    """The largest resident memory that one of the slots has had."""
    peaks = []
    for pid in children_of(worker.pid):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        assert found is not None
        peaks.append(int(found[1]) * 1024)
    return max(peaks)


@pytest.mark.parametrize("sql", [GROUPS, SORT, JOIN], ids=["groups", "sort", "join"])
def test_a_large_task_spills_and_stays_within_its_memory(worker: WorkerProcess, sql: str) -> None:
    ended = run(worker, make_task(sql, deadline_s=240.0))
    assert rows_of(ended) == [{"n": MANY}]
    assert peak_of(worker) <= MEMORY


def test_many_rows_into_partitions(worker: WorkerProcess) -> None:
    partition = Partitioning(keys=(("i", "BIGINT"),), count=64, threshold_bytes=0)
    task = make_task(f"SELECT range AS i, range * 0.5 AS x, range::VARCHAR AS s FROM range({MANY})", deadline_s=240.0)
    ended = run(worker, replace(task, partition=partition))
    last = ended[-1]
    assert isinstance(last, Finished), last
    assert sum(part.rows for part in last.stats.partitions) == MANY
    assert peak_of(worker) <= MEMORY


def run(worker: WorkerProcess, task: Task) -> list[TaskEvent]:
    async def work() -> list[TaskEvent]:
        channel = GrpcChannel(worker.address, worker="w")
        try:
            return await collect(channel.run(task))
        finally:
            await channel.close()

    return asyncio.run(work())


STATEMENTS = {
    "groups": "SELECT k, COUNT(*) AS n, SUM(v) AS s FROM one.stars GROUP BY k",
    "join": "SELECT COUNT(*) AS n, SUM(a.v) AS s FROM one.stars AS a JOIN two.spots AS b ON a.k = b.k",
    "window": "SELECT COUNT(*) AS n, MAX(r) AS m FROM (SELECT ROW_NUMBER() OVER (PARTITION BY k ORDER BY v) AS r FROM one.stars) AS q",
}


def test_queries_on_workers_with_little_memory(tmp_path: Path) -> None:
    found = tables(300_000)
    store = load_tables(tmp_path / "data", found, rows_per_tile=100_000)
    truth = bare(found)
    settings = WorkerSettings(store_root=store, memory_bytes=96 << 20)
    with start_worker(store, worker="a", settings=settings) as a, start_worker(store, worker="b", settings=settings) as b:
        channels = [GrpcChannel(one.address, worker=one.worker) for one in (a, b)]
        given = ClusterSettings(service=service_settings(3, NO_BROADCASTS, exchange_bytes=0))
        with LocalClient(cluster(store, given, channels=channels)) as client:
            for name, text in STATEMENTS.items():
                assert rows(client.query(text).to_arrow()) == rows(truth.execute(text).to_arrow_table()), name


def test_wide_rows_near_each_other(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    count, wide = 600_000, [f"c{i}" for i in range(80)]
    found = {
        name: pa.table({
            key: np.arange(count), "ra": rng.uniform(100, 101, count), "dec": rng.uniform(0, 1, count),
            **{column: rng.uniform(0, 1, count) for column in wide},
        })
        for name, key in (("stars", "star"), ("spots", "spot"))
    }  # fmt: skip
    store = load_tables(tmp_path / "data", found, rows_per_tile=count)
    settings = WorkerSettings(store_root=store, memory_bytes=MEMORY)
    summed = " + ".join(f"MAX(a.{column}) + MIN(b.{column})" for column in wide)
    near = "DISTANCE(a.ra, a.dec, b.ra, b.dec) < 0.002"
    with start_worker(store, worker="a", settings=settings) as worker:
        channels = [GrpcChannel(worker.address, worker=worker.worker)]
        with LocalClient(cluster(store, ClusterSettings(), channels=channels)) as client:
            query = f"SELECT COUNT(*) AS n, {summed} AS s FROM one.stars AS a JOIN two.spots AS b ON {near}"
            assert client.query(query).to_arrow()["n"][0].as_py() > 1_000_000
            rows = f"SELECT COUNT(*) AS n, COUNT(DISTINCT a.star) AS k FROM one.stars AS a JOIN two.spots AS b ON {near}"
            wide_rows = sum(
                batch.num_rows for batch in client.query(f"SELECT a.*, b.c1 FROM one.stars AS a JOIN two.spots AS b ON {near}")
            )
            assert wide_rows == client.query(rows).to_arrow()["n"][0].as_py()
        # The rows that the kernel works on are beside what DuckDB has.
        assert peak_of(worker) <= MEMORY + ROOM_BYTES // 2


def rows(table: pa.Table) -> list[str]:
    return sorted(str([None if value is None else int(value) for value in row.values()]) for row in table.to_pylist())
