"""Columns that are added, widened or dropped: older parts are read as the table declares them, by workers and by the manifest."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qengine import connect
from qengine.catalog.evolution import evolve, evolved_parts, is_wider
from qengine.catalog.felis_schema import to_felis
from qengine.catalog.model import NO_PARTS, Column, ColumnStats, Parts, RowGroups, Table, TableKind, TableSnapshot
from qengine.catalog.schema import infer_table
from qengine.catalog.types import BIGINT, DOUBLE, FLOAT, INTEGER, SMALLINT, VARCHAR, SqlType, to_arrow
from qengine.errors import SchemaError
from qengine.storage.evolved import as_declared, stored
from tests.loader.stores import Site

ROWS = 400


def rows_of(is_new: bool) -> pa.Table:
    rng = np.random.default_rng(int(is_new))
    ra = rng.uniform(0, 360, ROWS)
    dec = rng.uniform(50, 80, ROWS) * (-1 if is_new else 1)
    number = np.arange(ROWS) + ROWS * is_new
    columns: dict[str, Any] = {"id": pa.array(number, pa.int64()), "ra": ra, "dec": dec}
    holes = rng.random(ROWS) < 0.2
    columns["count"] = pa.array(rng.integers(-50, 50, ROWS), pa.int64() if is_new else pa.int16(), mask=holes)
    columns["flux"] = pa.array(rng.normal(0, 10, ROWS), pa.float64(), mask=holes).cast(pa.float64() if is_new else pa.float32())
    columns["ratio"] = pa.array(rng.integers(0, 9, ROWS), pa.int32()).cast(pa.float64() if is_new else pa.int32())
    days = pa.array([dt.date(2020, 1, 1) + dt.timedelta(int(n)) for n in rng.integers(0, 99, ROWS)], pa.date32())
    columns["seen"] = days.cast(pa.timestamp("us")) if is_new else days
    if is_new:
        columns["label"] = [f"label {n % 7}" if n % 3 else None for n in range(ROWS)]
        columns["extra"] = pa.array(rng.integers(0, 1000, ROWS), pa.int32())
        columns["shape"] = pa.array(rng.normal(0, 1, ROWS))
    else:
        columns["gone"] = ["x"] * ROWS
    return pa.table(columns)


def together(parts: Parts, others: Parts, names: list[str]) -> Parts:
    """Return both, in order: what a commit that carries parts over makes."""
    order = np.argsort(np.concatenate([parts.start, others.start]), kind="stable")

    def both(name: str) -> Any:
        return np.concatenate([getattr(parts, name), getattr(others, name)])[order]

    counts = np.concatenate([np.diff(parts.row_groups.offset), np.diff(others.row_groups.offset)])
    first = np.concatenate([parts.row_groups.offset[:-1], others.row_groups.offset[:-1] + parts.row_groups.offset[-1]])
    at = np.concatenate([np.arange(first[i], first[i] + counts[i]) for i in order])

    def groups(name: str) -> Any:
        return np.concatenate([getattr(parts.row_groups, name), getattr(others.row_groups, name)])[at]

    stats = {}
    for name in names:
        if name in parts.stats and name in others.stats:
            a, b = parts.stats[name], others.stats[name]
            exact = [np.zeros(len(s.nulls), bool) if s.is_exact is None else s.is_exact for s in (a, b)]
            assert a.minimum.dtype == b.minimum.dtype, name
            stats[name] = ColumnStats(
                *(np.concatenate([getattr(a, f), getattr(b, f)])[order] for f in ("minimum", "maximum", "nulls", "is_known")), np.concatenate(exact)[order]
            )  # fmt: skip
    return Parts(
        digest=pa.concat_arrays([parts.digest, others.digest]).take(pa.array(order)), uri=pa.concat_arrays([parts.uri, others.uri]).take(pa.array(order)),
        **{name: both(name) for name in ("rows", "bytes", "start", "stop", "lowest", "highest")},
        row_groups=RowGroups(np.concatenate([[0], np.cumsum(counts[order])]).astype(np.int64), *(groups(name) for name in ("lowest", "highest", "rows", "bytes"))),
        stats=stats,
    )  # fmt: skip


@pytest.fixture(scope="module", params=["carried over", "appended"])
def evolved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Site, duckdb.DuckDBPyConnection]:
    """A store with one table whose parts are of two ages, and one DuckDB with all its rows."""
    site = Site(tmp_path_factory.mktemp("evolved"))
    words: dict[str, Any] = {"key": "id", "margin_arcsec": 0.0, "rows_per_tile": 60}
    files = {is_new: site.write(f"{is_new}.parquet", rows_of(is_new)) for is_new in (False, True)}
    site.load(files[False], **words)
    if request.param == "carried over":
        site.load(files[True], table="newer", **words)
        _carry_over(site)
    else:
        schema = _declare(site, files[True].parent.parent / "schema")
        with pytest.raises(SchemaError, match="the load adds label, extra, shape"):
            site.load(files[True], schema=schema)
        site.load(files[True], schema=schema, evolve=True)
    table = site.snapshot().table
    duck = duckdb.connect()
    names = ", ".join(f'CAST("{c.name}" AS {c.type.name}) AS "{c.name}"' for c in table.columns if not c.hidden)
    paths = [str(path) for path in files.values()]
    duck.execute(f"CREATE TABLE obj AS SELECT {names} FROM read_parquet({paths}, union_by_name = true)")
    return site, duck


def _declare(site: Site, folder: Path) -> Path:
    """Write the schema that the table is to have."""
    folder.mkdir()
    arrow = rows_of(True).schema
    table = infer_table(arrow, schema="demo", name="obj", kind=TableKind.DIRECTOR)
    (folder / "schema.yaml").write_text(to_felis(replace(table, key="id")))
    (folder / "sharding.toml").write_text('[tables.obj]\nkind = "director"\nra = "ra"\ndec = "dec"\n')
    return folder


def _carry_over(site: Site) -> None:
    """Publish the parts of both tables as one."""
    old, new = site.snapshot("obj"), site.snapshot("newer")
    evolution = evolve(old.table, replace(new.table, name="obj", family=old.table.family))
    assert evolution.added == ("label", "extra", "shape")
    assert evolution.dropped == ("gone",)
    assert [name for name, _, _ in evolution.widened] == ["count", "flux", "ratio", "seen"]
    table = evolution.table
    home = together(evolved_parts(old.home, old.table, table), new.home, [c.name for c in table.columns])
    merged = TableSnapshot(table=table, number=0, home=home, orphan=NO_PARTS, margin=NO_PARTS)
    site.registry.publish(site.registry.begin_load({}, catalog="demo"), "demo", [merged])


STATEMENTS = (
    "SELECT * FROM {t}",
    'SELECT COUNT(*) AS n, COUNT(label) AS a, COUNT(extra) AS b, COUNT("count") AS c, COUNT(shape) AS d FROM {t}',
    'SELECT MIN(flux) AS a, MAX(flux) AS b, MIN(ratio) AS c, MAX(extra) AS d, MIN(label) AS e, MAX("count") AS f, MAX(seen) AS g FROM {t}',
    "SELECT id, label FROM {t} WHERE label IS NULL AND flux > 0.5",
    "SELECT id FROM {t} WHERE extra > 500 OR ratio = 3",
    "SELECT id, flux * 2 AS f FROM {t} WHERE flux BETWEEN -1 AND 1 AND ratio < 5",
    'SELECT label, COUNT(*) AS n, CAST(SUM("count") AS DOUBLE) AS s, AVG(shape) AS m FROM {t} GROUP BY label',
    "SELECT a.id, b.extra FROM {t} a JOIN {t} b ON a.id = b.id WHERE a.ratio = 2",
    "SELECT TOP 7 id, extra FROM {t} ORDER BY extra DESC, id",
    "SELECT COUNT(*) AS n FROM {t} WHERE seen > CAST('2020-02-01 00:00:00' AS TIMESTAMP)",
)


@pytest.fixture(scope="module")
def cluster(evolved: tuple[Site, duckdb.DuckDBPyConnection]) -> Iterator[Any]:
    with connect(evolved[0].store.root, workers=2) as client:
        yield client


def canonical(table: pa.Table) -> list[str]:
    return sorted(repr([_rounded(v) for v in row.values()]) for row in table.to_pylist())


def _rounded(value: Any) -> Any:
    return round(float(value), 9) if isinstance(value, (float, Decimal)) else value


@pytest.mark.parametrize("statement", STATEMENTS)
def test_parts_of_two_ages_are_one_table(evolved: tuple[Site, duckdb.DuckDBPyConnection], cluster: Any, statement: str) -> None:
    expected = evolved[1].execute(_top(statement.format(t="obj"))).to_arrow_table()
    found = cluster.query(statement.format(t="demo.obj"), "sql").to_arrow()
    assert found.column_names == expected.column_names
    assert canonical(found) == canonical(expected)
    assert found.num_rows > 0


def _top(sql: str) -> str:
    return sql.replace("SELECT TOP 7", "SELECT").replace("DESC, id", "DESC NULLS LAST, id LIMIT 7") if "TOP 7" in sql else sql


def test_the_manifest_answers_for_older_parts(evolved: tuple[Site, duckdb.DuckDBPyConnection], cluster: Any) -> None:
    for sql in ("SELECT COUNT(label) AS a, COUNT(extra) AS b FROM {t}", "SELECT MIN(flux) AS c, MAX(extra) AS d FROM {t}"):
        assert "owner obj" not in cluster.explain(sql.format(t="demo.obj"), "sql").to_text()
        found = cluster.query(sql.format(t="demo.obj"), "sql").to_arrow()
        assert canonical(found) == canonical(evolved[1].execute(sql.format(t="obj")).to_arrow_table())


def test_hats_readers_see_all_columns(evolved: tuple[Site, duckdb.DuckDBPyConnection]) -> None:
    site = evolved[0]
    found = sorted((site.store.root / "demo/obj/snapshots").glob("*/dataset/_common_metadata"), key=lambda p: int(p.parts[-3]))
    if len(found) < 2:
        pytest.skip("no tree was made of parts that were only carried over")
    names = {field.name: field.type for field in pq.read_schema(found[-1])}
    table = site.snapshot().table
    assert {c.name: to_arrow(c.type) for c in table.columns if not c.hidden}.items() <= names.items()
    assert "gone" not in names


def test_rows_of_older_parts_as_declared(evolved: tuple[Site, duckdb.DuckDBPyConnection]) -> None:
    snapshot = evolved[0].snapshot()
    schema = pa.schema([(c.name, to_arrow(c.type)) for c in snapshot.table.columns if not c.hidden])
    tables = [evolved[0].read(Parts(**{**_fields(snapshot.home), "uri": pa.array([uri])})) for uri in snapshot.home.uri.to_pylist()]
    made = pa.concat_tables([as_declared(table, schema) for table in tables])
    assert canonical(made) == canonical(evolved[1].execute("SELECT * FROM obj").to_arrow_table())
    assert stored(tables[0].schema, ["label", "id", "nothing", "ra"])[-2:] == ["id", "ra"]


def _fields(parts: Parts) -> dict[str, Any]:
    return {name: getattr(parts, name) for name in Parts.__dataclass_fields__}


# -- what is allowed ------------------------------------------------------------------------------------------------------------


def a_table(*columns: Column, **words: Any) -> Table:
    base = (Column(name="id", type=BIGINT), Column(name="ra", type=DOUBLE), Column(name="dec", type=DOUBLE), *columns)
    return Table(schema="s", name="t", kind=TableKind.DIRECTOR, family="s.t", key="id", ra="ra", dec="dec", columns=base, **words)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            a_table(Column(name="a", type=BIGINT)),
            a_table(Column(name="a", type=INTEGER)),
            "column a is BIGINT and cannot become INTEGER",
        ),
        (a_table(Column(name="a", type=BIGINT)), a_table(Column(name="a", type=DOUBLE)), "cannot become DOUBLE"),
        (a_table(Column(name="a", type=DOUBLE)), a_table(Column(name="a", type=FLOAT)), "cannot become FLOAT"),
        (a_table(Column(name="a", type=VARCHAR)), a_table(Column(name="a", type=BIGINT)), "cannot become BIGINT"),
        (a_table(), a_table(Column(name="a", type=FLOAT, nullable=False)), "the new column a may not be NULL"),
        (a_table(Column(name="a", type=FLOAT)), a_table(Column(name="a", type=FLOAT, nullable=False)), "may be NULL in the rows"),
        (
            a_table(Column(name="a", type=FLOAT, unit="mag")),
            a_table(Column(name="a", type=FLOAT, unit="nJy")),
            "is in mag, not nJy",
        ),
        (a_table(dropped=("A",)), a_table(Column(name="a", type=FLOAT)), "a column a was dropped, and older parts still have it"),
        (a_table(Column(name="A", type=FLOAT)), a_table(Column(name="a", type=FLOAT)), "differs from A in case only"),
        (a_table(), replace(a_table(Column(name="k", type=BIGINT)), key="k"), "its key is id, not k"),
        (a_table(), replace(a_table(), ra="dec", dec="ra"), "its ra is ra, not dec"),
    ],
)
def test_changes_that_are_refused(old: Table, new: Table, words: str) -> None:
    with pytest.raises(SchemaError) as caught:
        evolve(old, new)
    assert words in caught.value.message
    assert caught.value.hint


def test_keys_keep_their_type_and_placing_columns_stay() -> None:
    old = a_table()
    columns = tuple(replace(c, type=INTEGER) if c.name == "id" else c for c in old.columns)
    with pytest.raises(SchemaError, match="id is a key and stays INTEGER, not BIGINT"):
        evolve(replace(old, columns=columns), old)
    with pytest.raises(SchemaError, match="dec is its dec and cannot be dropped"):
        evolve(old, replace(old, columns=old.columns[:2]))


def test_dropped_names_are_remembered() -> None:
    first = evolve(a_table(Column(name="a", type=FLOAT), Column(name="b", type=FLOAT)), a_table(Column(name="b", type=FLOAT)))
    second = evolve(first.table, replace(first.table, columns=a_table().columns))
    assert (first.table.dropped, second.table.dropped, second.dropped) == (("a",), ("a", "b"), ("b",))
    assert "drops b" in second.to_text()
    assert not evolve(a_table(), a_table())


KINDS = [
    SqlType(name) for name in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "FLOAT", "DOUBLE")
]


@given(st.sampled_from(KINDS), st.sampled_from(KINDS), st.data())
def test_a_wider_type_holds_every_value(before: SqlType, after: SqlType, data: st.DataObject) -> None:
    if not is_wider(before, after):
        return
    if before.is_integer:
        bits = to_arrow(before).bit_width
        low, high = (0, 2**bits - 1) if before.name.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        value: float = data.draw(st.sampled_from([low, high, 0, 1, high - 1]) | st.integers(low, high))
    else:
        value = data.draw(st.floats(width=32, allow_nan=False))
    rows = pa.table({"a": pa.array([value, None], to_arrow(before))})
    read = as_declared(rows, pa.schema([("a", to_arrow(after)), ("b", pa.string())]))
    assert read.to_pylist() == [{"a": value, "b": None}, {"a": None, "b": None}]


def test_narrower_is_not_wider() -> None:
    assert is_wider(SMALLINT, INTEGER)
    assert is_wider(FLOAT, DOUBLE)
    assert not is_wider(DOUBLE, FLOAT)
    assert not is_wider(BIGINT, DOUBLE)
    assert not is_wider(INTEGER, FLOAT)
