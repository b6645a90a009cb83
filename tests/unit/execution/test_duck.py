from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from qengine.errors import BugError, IntegrityError, QueryCancelledError, QueryTooLargeError
from qengine.execution.duck import DuckEngine, EngineSettings, engine_error


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[DuckEngine]:
    root = tmp_path / "store"
    root.mkdir()
    made = DuckEngine(EngineSettings(roots=(root,), memory_bytes=120 << 20, temp_dir=tmp_path / "temp", temp_bytes=2 << 30))
    yield made
    made.close()


def _rows(engine: DuckEngine, sql: str) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in engine.stream(sql).read_all().to_pylist()]


def test_registered_tables_and_readers(engine: DuckEngine) -> None:
    table = pa.table({"a": [3, 1, 2]})
    engine.register("t", table)
    assert _rows(engine, "SELECT a FROM t ORDER BY a") == [(1,), (2,), (3,)]
    engine.unregister("t")
    with pytest.raises(BugError):
        engine.stream("SELECT a FROM t")
    engine.register("t", pa.RecordBatchReader.from_batches(table.schema, iter(table.to_batches())))
    assert _rows(engine, "SELECT sum(a)::BIGINT AS s FROM t") == [(6,)]
    engine.unregister("t")
    engine.unregister("never there")


def test_parameters(engine: DuckEngine) -> None:
    assert engine.stream("SELECT ? + 1 AS a, ? AS b", [1, "x'"]).read_all().to_pylist() == [{"a": 2, "b": "x'"}]


def test_python_variables_are_not_tables(engine: DuckEngine) -> None:
    secret = pa.table({"a": [1]})
    with pytest.raises(BugError):
        engine.stream("SELECT * FROM secret")
    assert secret.num_rows == 1


def test_engines_that_spill_at_once_do_not_read_each_others_files(tmp_path: Path) -> None:
    """DuckDB numbers its temporary files: two engines in one directory read what the other had written."""
    settings = EngineSettings(memory_bytes=100 << 20, temp_dir=tmp_path / "temp", temp_bytes=2 << 30)
    found: dict[int, object] = {}

    def sort(number: int) -> None:
        engine = DuckEngine(settings)
        sql = f"SELECT (range + {number}) * 7919 % 20000003 AS a, repeat('x', 20) AS b FROM range(2000000) ORDER BY a"
        try:
            values = pa.Table.from_batches(engine.stream(sql)).column("a").to_numpy()
            found[number] = bool((values[1:] >= values[:-1]).all()), len(values)
        except Exception as error:
            found[number] = error
        finally:
            engine.close()

    threads = [threading.Thread(target=sort, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: (True, 2000000), 1: (True, 2000000)}
    assert not list((tmp_path / "temp").iterdir())


def test_sort_larger_than_memory_spills(engine: DuckEngine, tmp_path: Path) -> None:
    sql = "SELECT range * 7919 % 20000003 AS a, repeat('x', 20) AS b FROM range(4000000) ORDER BY a"
    before, rows = -1, 0
    for batch in engine.stream(sql):
        values = batch.column(0).to_numpy()
        assert values[0] >= before
        before, rows = int(values[-1]), rows + batch.num_rows
    assert rows == 4000000


def test_no_place_to_spill_is_too_large() -> None:
    engine = DuckEngine(EngineSettings(memory_bytes=100 << 20))
    with pytest.raises(QueryTooLargeError):
        engine.stream("SELECT range AS a, repeat('x', 20) AS b FROM range(8000000) ORDER BY b, a DESC").read_all()
    engine.close()


def test_interrupt_from_another_thread(engine: DuckEngine) -> None:
    threading.Timer(0.3, engine.interrupt).start()
    began = time.monotonic()
    with pytest.raises(QueryCancelledError):
        engine.stream("SELECT sum(a.range * b.range) AS s FROM range(10000000) a, range(10000000) b").read_all()
    assert time.monotonic() - began < 2.0
    engine.interrupt()
    assert _rows(engine, "SELECT 1 AS a") == [(1,)]


def test_interrupt_in_mid_stream(engine: DuckEngine) -> None:
    reader = engine.stream("SELECT range AS a FROM range(1000000000)")
    reader.read_next_batch()
    engine.interrupt()
    with pytest.raises(QueryCancelledError):
        reader.read_all()


def test_abandoned_stream_does_not_block(engine: DuckEngine) -> None:
    reader = engine.stream("SELECT range AS a FROM range(1000000000)")
    reader.read_next_batch()
    reader.close()
    assert _rows(engine, "SELECT 1 AS a") == [(1,)]


def test_only_one_select(engine: DuckEngine) -> None:
    for sql in ("", "SELECT 1; SELECT 2", "CREATE TABLE t(a INT)", "SET threads = 4", "EXPLAIN SELECT 1", "BEGIN", "CHECKPOINT"):
        with pytest.raises(BugError) as caught:
            engine.stream(sql)
        assert caught.value.details["sql"] == sql


def test_directories_are_locked(engine: DuckEngine, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    (tmp_path / "store" / "link.csv").symlink_to(tmp_path / "secret.csv")
    (tmp_path / "store" / "open.csv").write_text("a\n1\n")
    assert _rows(engine, f"SELECT * FROM read_csv('{tmp_path}/store/open.csv')") == [(1,)]
    for path in ("secret.csv", "store/../secret.csv", "store/link.csv", "*.csv"):
        with pytest.raises(IntegrityError):
            engine.stream(f"SELECT * FROM read_csv('{tmp_path}/{path}')").read_all()


def test_macros_are_there(engine: DuckEngine) -> None:
    ((distance,),) = _rows(engine, "SELECT qe_distance(10e0, 20e0, 10e0, 21e0) AS d")
    assert distance == pytest.approx(1.0, abs=1e-12)


def test_progress_is_a_fraction(engine: DuckEngine) -> None:
    assert 0.0 <= engine.progress() <= 1.0


def test_closed_engine_can_still_be_interrupted(engine: DuckEngine) -> None:
    engine.close()
    engine.interrupt()
    assert engine.progress() == 0.0


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("INTERRUPT Error: Interrupted!", QueryCancelledError),
        ("Out of Memory Error: failed to allocate", QueryTooLargeError),
        ("IO Error: Could not write file: No space left on device", QueryTooLargeError),
        ("IO Error: No files found that match the pattern", IntegrityError),
        ("Invalid Input Error: No magic bytes found at end of file 'x.parquet'", IntegrityError),
        ("Invalid Error: TProtocolException: Invalid data", IntegrityError),
        ("INTERNAL Error: Assertion failed", BugError),
    ],
)
def test_errors_in_mid_stream_go_by_their_text(text: str, kind: type[Exception]) -> None:
    assert type(engine_error(OSError(text), "SELECT 1")) is kind


def test_engine_that_is_interrupted_while_it_forgets_a_relation_is_not_used_again(engine: DuckEngine) -> None:
    # DuckDB leaves the relation behind and says nothing; the next one of the name would be refused, in every later task.
    is_over = threading.Event()

    def interrupt() -> None:
        while not is_over.is_set():
            engine.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        engine.register("pairs", pa.table({"a": [1]}))
        engine.unregister("pairs")
    finally:
        is_over.set()
        thread.join()
    assert engine.is_broken


def test_engine_without_interrupts_is_used_again(engine: DuckEngine) -> None:
    engine.register("pairs", pa.table({"a": [1]}))
    engine.unregister("pairs")
    engine.register("pairs", pa.table({"a": [1]}))
    engine.unregister("pairs")
    assert not engine.is_broken
