"""Rows in partitions: every row once, equal values together, and files that are what their names say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qengine.errors import PartitionLostError
from qengine.execution.duck import DuckEngine, EngineSettings
from qengine.execution.partition import PartitionWriter, partitioned_sql
from qengine.execution.spool import Spool
from qengine.plan.physical import PARTITION, Partitioning, QueryId
from qengine.storage.digest import FastDigest

Q = QueryId("q")


@pytest.fixture(scope="module")
def engine() -> Iterator[DuckEngine]:
    made = DuckEngine(EngineSettings())
    yield made
    made.close()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def number_of(engine: DuckEngine, value: str, kind: str, count: int = 97) -> int:
    """The partition of one value."""
    sql = partitioned_sql(f"SELECT {value} AS a", Partitioning(keys=(("a", kind),), count=count, threshold_bytes=0))
    return int(engine.stream(sql).read_all().column(PARTITION)[0].as_py())


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("BIGINT", ["7::TINYINT", "7::INTEGER", "7::BIGINT", "7::UINTEGER"]),
        ("HUGEINT", ["7::UBIGINT", "7::BIGINT", "7::SMALLINT"]),
        ("DOUBLE", ["7::BIGINT", "7.0::DOUBLE", "7.00::DECIMAL(9,2)", "7::FLOAT"]),
        ("DOUBLE", ["0.0::DOUBLE", "-0.0::DOUBLE", "0::INTEGER", "-0.0::FLOAT"]),
        ("FLOAT", ["16777217::INTEGER", "16777216::FLOAT"]),
        ("DOUBLE", ["9007199254740993::BIGINT", "9007199254740992::DOUBLE"]),
        ("DOUBLE", ["'nan'::DOUBLE", "-('nan'::DOUBLE)", "'nan'::FLOAT"]),
        ("BIGINT", ["NULL::BIGINT", "NULL::INTEGER", "NULL::VARCHAR"]),
    ],
)
def test_values_that_sql_calls_equal_meet(engine: DuckEngine, kind: str, values: list[str]) -> None:
    assert len({number_of(engine, value, kind) for value in values}) == 1


def test_text_is_compared_byte_by_byte(engine: DuckEngine) -> None:
    assert len({number_of(engine, f"'{text}'", "VARCHAR", 10_000) for text in ("a", "A", "a ", "á")}) == 4


def test_values_spread_evenly(engine: DuckEngine) -> None:
    sql = partitioned_sql(
        "SELECT range AS a FROM range(100000)", Partitioning(keys=(("a", "BIGINT"),), count=16, threshold_bytes=0)
    )
    counts = engine.stream(sql).read_all().column(PARTITION).value_counts().to_pylist()
    assert len(counts) == 16
    assert all(5800 < entry["counts"] < 6700 for entry in counts)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    numbers=st.lists(st.lists(st.integers(0, 299), max_size=50), max_size=6),
    count=st.sampled_from([300, 512]),
)
def test_every_row_is_in_its_file_once(tmp_path: Path, numbers: list[list[int]], count: int) -> None:
    spool = Spool(tmp_path / "spool")
    writer = PartitionWriter(spool, Q, count)
    expected: dict[int, list[str | None]] = {}
    for batch in numbers:
        texts = [None if n % 5 == 0 else f"{n} {place}" for place, n in enumerate(batch)]
        for n, text in zip(batch, texts, strict=True):
            expected.setdefault(n, []).append(text)
        writer.write(pa.record_batch({"a": pa.array(texts, pa.string()), PARTITION: pa.array(batch, pa.uint16())}))
    parts = writer.finish()
    assert [p.number for p in parts] == sorted(expected)
    for part in parts:
        path = spool.partition(Q, part.name)
        rows = pq.read_table(path)
        assert rows.column_names == ["a"]
        assert rows["a"].to_pylist() == expected[part.number]
        assert (part.rows, part.bytes) == (rows.num_rows, path.stat().st_size)
        digest = FastDigest()
        digest.update(path.read_bytes())
        assert part.name.startswith(digest.hexdigest())
    spool.drop_query(Q)


def test_what_is_aborted_leaves_nothing(spool: Spool) -> None:
    writer = PartitionWriter(spool, Q, 4)
    rows = pa.array(range(2_000_000), pa.int64())
    for _ in range(4):
        writer.write(pa.record_batch({"a": rows, PARTITION: pa.array([n % 4 for n in range(len(rows))], pa.uint16())}))
    assert list(spool.root.glob("*/*"))
    writer.abort()
    assert not list(spool.root.glob("*/*"))


def test_damage_and_strange_names(spool: Spool) -> None:
    writer = PartitionWriter(spool, Q, 1)
    writer.write(pa.record_batch({"a": pa.array([1, 2, 3]), PARTITION: pa.array([0, 0, 0], pa.uint16())}))
    (part,) = writer.finish()
    path = spool.partition(Q, part.name)
    data = bytearray(path.read_bytes())
    data[5] ^= 128
    path.write_bytes(bytes(data))
    for name in (part.name, part.name, "../x", ""):
        with pytest.raises(PartitionLostError) as raised:
            spool.partition(Q, name)
        assert raised.value.details["partitions"] == [name]
    assert not path.exists()


def test_the_hash_is_that_of_all_workers_of_this_protocol(engine: DuckEngine) -> None:
    """All workers must put a value into the same partition. When a release of DuckDB changes its hash, raise `PROTOCOL_VERSION`."""
    values = [
        ("42", "BIGINT"),
        ("'star'", "VARCHAR"),
        ("0.5", "DOUBLE"),
        ("NULL", "BIGINT"),
        ("TIMESTAMP '2020-01-01'", "TIMESTAMP"),
    ]
    assert [number_of(engine, value, kind, 60_000) for value, kind in values] == [25065, 48999, 9412, 53709, 57513]
