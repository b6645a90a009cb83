from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from qengine.errors import (
    BugError,
    ExecutionError,
    IntegrityError,
    PartitionLostError,
    QueryCancelledError,
    QueryTimeoutError,
    QueryTooLargeError,
)
from qengine.execution.runner import TaskRunner, catalog_root
from qengine.execution.spool import Spool
from qengine.plan.physical import Batch, Failed, Finished, Partitioning, Progress, Started, Task, TaskEvent, TaskInput
from tests.support.tasks import error_of, make_task, part_ref, rows_of, write_part

Run = Callable[[Task], list[TaskEvent]]
ENDLESS = "SELECT sum(a.range * b.range) AS s FROM range(10000000) a, range(10000000) b"


def _table(n: int = 5000) -> pa.Table:
    return pa.table({"_healpix_29": pa.array(range(n), pa.int64()), "a": pa.array([i * 0.5 for i in range(n)])})


def test_trivial_task(run: Run) -> None:
    events = run(make_task("SELECT 1 AS one"))
    assert [type(e) for e in events] == [Started, Batch, Finished]
    assert rows_of(events) == [{"one": 1}]
    assert all((e.attempt, e.epoch) == (0, 1) for e in events)


def test_reads_parts_in_ranges(run: Run, store: Path) -> None:
    part = write_part(store, "p/one.parquet", _table())
    given = TaskInput(name="t0", parts=(part,), columns=("a",), ranges=((10, 12), (100, 101)))
    events = run(make_task('SELECT "t0"."a" FROM "t0" WHERE "a" > 5 ORDER BY 1', [given]))
    assert rows_of(events) == [{"a": 5.5}, {"a": 50.0}]
    stats = events[-1].stats  # type: ignore[union-attr]
    assert stats.rows == 2
    assert stats.input_bytes == part.bytes
    assert stats.spool == ""


def test_empty_result_has_columns(run: Run) -> None:
    events = run(make_task("SELECT 1 AS one, 'x' AS two WHERE false"))
    (batch,) = [e for e in events if isinstance(e, Batch)]
    assert batch.rows.num_rows == 0
    assert batch.rows.schema == pa.schema({"one": pa.int32(), "two": pa.string()})


def test_batches_are_small(run: Run) -> None:
    events = run(make_task("SELECT range AS i, range::VARCHAR || repeat('x', 200) AS s FROM range(100000)", hold_bytes=1 << 30))
    sizes = [e.rows.nbytes for e in events if isinstance(e, Batch)]
    assert max(sizes) < 6 << 20
    assert len(rows_of(events)) == 100000


def test_rows_travel_while_the_next_are_computed(run: Run) -> None:
    slow = "SELECT i, repeat('x', 100) AS s FROM (SELECT range AS i FROM range(200000)) WHERE sqrt(i + 1) > 0"
    events = run(make_task(f"{slow} UNION ALL SELECT 1, error('at the end')"))
    assert isinstance(events[-1], Failed)
    assert any(isinstance(e, Batch) for e in events)


@pytest.mark.parametrize("harm", ["flip", "remove"])
def test_a_partition_that_is_damaged_while_it_is_read_is_lost(run: Run, runner: TaskRunner, spool: Spool, harm: str) -> None:
    partition = Partitioning(keys=(("i", "BIGINT"),), count=1, threshold_bytes=0)
    last = run(replace(make_task("SELECT range AS i FROM range(1000)"), partition=partition))[-1]
    assert isinstance(last, Finished)
    (written,) = last.stats.partitions
    reading = make_task("SELECT * FROM t", [TaskInput(name="t", parts=(written.at("dir:here"),), columns=("i",))])
    assert len(rows_of(run(reading))) == 1000
    events: list[TaskEvent] = []

    def emit(event: TaskEvent) -> None:
        events.append(event)
        if isinstance(event, Batch):
            path = spool.partition(reading.id.query, written.name)
            data = bytearray(path.read_bytes())
            path.unlink()
            if harm == "flip":
                data[len(data) // 2] ^= 1
                path.write_bytes(data)

    runner.run(reading, emit)
    error = error_of(events)
    assert isinstance(error, PartitionLostError)
    assert error.details["partitions"] == [written.name]


def test_a_task_has_the_memory_that_it_may_have_and_spills(run: Run) -> None:
    limit = "SELECT value FROM duckdb_settings() WHERE name = 'memory_limit'"
    many = "SELECT count(*) AS n FROM (SELECT range % 1500000 AS g, max(range) AS m FROM range(3000000) GROUP BY 1)"
    for given, expected in ((64 << 20, "64.0 MiB"), (1 << 40, "256.0 MiB"), (0, "32.0 MiB"), (64 << 20, "64.0 MiB")):
        assert rows_of(run(make_task(limit, memory_bytes=given))) == [{"value": expected}]
    assert rows_of(run(make_task(many, memory_bytes=64 << 20))) == [{"n": 1500000}]


def test_large_result_is_spooled(run: Run, spool: Spool) -> None:
    events = run(make_task("SELECT range AS i FROM range(1000000)", hold_bytes=1 << 20))
    last = events[-1]
    assert isinstance(last, Finished)
    assert sum(e.rows.nbytes for e in events if isinstance(e, Batch)) <= 1 << 20  # sent before it was known to be large
    assert sum(b.num_rows for b in spool.batches(last.stats.spool)) == 1000000
    spool.drop(last.stats.spool)
    with pytest.raises(IntegrityError):
        list(spool.batches(last.stats.spool))


def test_damaged_spool_is_noticed(run: Run, spool: Spool, tmp_path: Path) -> None:
    last = run(make_task("SELECT range AS i FROM range(1000000)", hold_bytes=1 << 20))[-1]
    assert isinstance(last, Finished)
    (path,) = tmp_path.glob("spool/*/*.frames")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(IntegrityError):
        list(spool.batches(last.stats.spool))


def test_result_bytes_is_a_limit(run: Run, tmp_path: Path) -> None:
    error = error_of(run(make_task("SELECT range AS i FROM range(10000000)", hold_bytes=1 << 20, result_bytes=4 << 20)))
    assert isinstance(error, QueryTooLargeError)
    assert [p for p in (tmp_path / "spool").rglob("*") if p.is_file()] == []


def test_deadline_interrupts(run: Run) -> None:
    began = time.monotonic()
    error = error_of(run(make_task(ENDLESS, deadline_s=0.3)))
    assert isinstance(error, QueryTimeoutError)
    assert 0.3 <= time.monotonic() - began < 2
    assert rows_of(run(make_task("SELECT 1 AS one"))) == [{"one": 1}]


def test_progress_every_second_and_cancel(runner: TaskRunner) -> None:
    events: list[TaskEvent] = []
    timer = threading.Timer(2.3, runner.cancel)
    timer.start()
    runner.run(make_task(ENDLESS), events.append)
    timer.join()
    assert isinstance(error_of(events), QueryCancelledError)
    assert sum(isinstance(e, Progress) for e in events) == 2


def test_cancel_of_an_idle_runner_does_nothing(runner: TaskRunner, run: Run) -> None:
    runner.cancel()
    assert rows_of(run(make_task("SELECT 1 AS one"))) == [{"one": 1}]


@pytest.mark.parametrize("flip_at", [0.3, 0.6])
def test_flipped_bit_is_noticed(run: Run, store: Path, flip_at: float) -> None:
    part = write_part(store, "p/one.parquet", _table())
    path = store / part.uri
    data = bytearray(path.read_bytes())
    data[int(len(data) * flip_at)] ^= 1
    path.write_bytes(data)
    error = error_of(run(make_task("SELECT sum(a) AS s FROM t0", [TaskInput(name="t0", parts=(part,), columns=("a",))])))
    assert isinstance(error, IntegrityError)
    assert part.uri in str(error)


@pytest.mark.parametrize("damage", ["missing", "short", "rows", "garbage"])
def test_damaged_part_is_noticed(run: Run, store: Path, damage: str) -> None:
    part = write_part(store, "p/one.parquet", _table())
    path = store / part.uri
    match damage:
        case "missing":
            path.unlink()
        case "short":
            path.write_bytes(path.read_bytes()[:-100])
        case "rows":
            write_part(store, part.uri, _table(4999))
            part = part_ref(path, part.uri, 5000)
        case _:
            path.write_bytes(b"x" * part.bytes)
    error = error_of(run(make_task("SELECT count(*) AS n FROM t0", [TaskInput(name="t0", parts=(part,), columns=())])))
    assert isinstance(error, IntegrityError)


def test_replaced_file_is_verified_again(run: Run, store: Path) -> None:
    part = write_part(store, "p/one.parquet", _table())
    task = make_task("SELECT count(*) AS n FROM t0", [TaskInput(name="t0", parts=(part,), columns=())])
    assert rows_of(run(task)) == [{"n": 5000}]
    data = bytearray((store / part.uri).read_bytes())
    data[len(data) // 2] ^= 1
    (store / "p/other").write_bytes(data)
    os.replace(store / "p/other", store / part.uri)
    assert isinstance(error_of(run(task)), IntegrityError)


def test_attached_catalogue_elsewhere(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "hats [x]*"
    uri = str(root / "dataset/Norder=1/Dir=0/Npix=3.parquet")
    write_part(root, "dataset/Norder=1/Dir=0/Npix=3.parquet", _table(10))
    part = part_ref(Path(uri), uri, 10)
    given = TaskInput(name="t0", parts=(part,), columns=("a",))
    assert rows_of(run(make_task("SELECT count(*) AS n, max(a) AS m FROM t0", [given]))) == [{"n": 10, "m": 4.5}]


def test_attached_catalogue_behind_a_link(run: Run, tmp_path: Path) -> None:
    write_part(tmp_path / "real", "Norder=1/Npix=3.parquet", _table(10))
    (tmp_path / "link").symlink_to(tmp_path / "real")
    uri = str(tmp_path / "link/Norder=1/Npix=3.parquet")
    part = part_ref(Path(uri), uri, 10)
    assert rows_of(run(make_task("SELECT sum(a) AS s FROM t0", [TaskInput(name="t0", parts=(part,), columns=("a",))]))) == [
        {"s": 22.5}
    ]


def test_attached_roots_can_be_fixed(store: Path, tmp_path: Path, spool: Spool, runner: TaskRunner) -> None:
    strict = TaskRunner(store, runner._settings, verifier=runner._verifier, spool=spool, is_attach_open=False)
    uri = str(tmp_path / "elsewhere" / "x.parquet")
    write_part(tmp_path / "elsewhere", "x.parquet", _table(10))
    events: list[TaskEvent] = []
    strict.run(
        make_task("SELECT 1 AS n FROM t0", [TaskInput(name="t0", parts=(part_ref(Path(uri), uri, 10),), columns=())]), events.append
    )
    strict.close()
    assert "may not read" in str(error_of(events))


def test_catalog_root() -> None:
    assert catalog_root(Path("/d/cat/dataset/Norder=1/Dir=0/Npix=3.parquet")) == Path("/d/cat/dataset")
    assert catalog_root(Path("/d/cat/dataset/Norder=1/Dir=0/Npix=3/a.parquet")) == Path("/d/cat/dataset")
    assert catalog_root(Path("/d/x.parquet")) == Path("/d")


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT CAST('x' AS INTEGER) AS a", ExecutionError),
        ("SELECT CAST(CASE WHEN range < 500000 THEN '1' ELSE 'x' END AS INTEGER) AS a FROM range(1000000)", ExecutionError),
        ("SELECT 9223372036854775807 + range AS a FROM range(9)", ExecutionError),
        ("SELECT nope FROM range(3)", BugError),
        ("SELECT * FROM nowhere", BugError),
        ("SELECT ((", BugError),
        ("SELECT 1) ; SELECT (1", BugError),
        ("SELECT list(range) AS l FROM range(100000000)", QueryTooLargeError),
    ],
)
def test_errors_are_ours(run: Run, sql: str, kind: type[Exception]) -> None:
    error = error_of(run(make_task(sql)))
    assert isinstance(error, kind), error
    assert rows_of(run(make_task("SELECT 1 AS one"))) == [{"one": 1}]
