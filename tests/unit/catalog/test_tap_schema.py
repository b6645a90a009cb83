"""TAP_SCHEMA describes what is published, and itself."""

from __future__ import annotations

from dataclasses import replace

import duckdb
import pyarrow as pa
import pytest

from qengine.catalog import names
from qengine.catalog.model import NO_PARTS, Column, ForeignKey, Release, Table, TableKind, TableSnapshot
from qengine.catalog.tap_schema import tap_schema
from qengine.catalog.types import BIGINT, CIRCLE, DOUBLE, POINT, TIMESTAMP, VARCHAR
from qengine.sql import words


def snapshot(table: Table) -> TableSnapshot:
    return TableSnapshot(table=table, number=1, home=NO_PARTS, orphan=NO_PARTS, margin=NO_PARTS)


THING = Table(
    schema="demo",
    name="Object",
    kind=TableKind.DIRECTOR,
    key="id",
    ra="ra",
    dec="dec",
    description="Things",
    table_index=4,
    release=Release(title="Demonstration"),
    columns=(
        Column(name="_healpix_29", type=BIGINT, hidden=True),
        Column(name="id", type=BIGINT, ucd="meta.id"),
        Column(name="ra", type=DOUBLE, unit="deg", principal=True, column_index=1),
        Column(name="dec", type=DOUBLE),
        Column(name="size", type=VARCHAR),
        Column(name="2mass id", type=POINT),
        Column(name="round", type=CIRCLE, std=True),
        Column(name="seen", type=TIMESTAMP, indexed=True),
    ),
)
FORCED = Table(
    schema="demo",
    name="Forced",
    kind=TableKind.CHILD,
    director="Object",
    director_key="objectId",
    columns=(Column(name="objectId", type=BIGINT), Column(name="visit", type=BIGINT)),
    foreign_keys=(ForeignKey(columns=("visit",), target="Visit", target_columns=("visit",), description="not published"),),
)


@pytest.fixture
def database() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    for table in tap_schema([snapshot(THING), snapshot(FORCED)]):
        connection.register(f"T_{table.table.name}", table.inline)
    return connection


def test_describes_itself(database: duckdb.DuckDBPyConnection) -> None:
    tables = tap_schema([])
    assert [table.table.full_name for table in tables] == [
        f"TAP_SCHEMA.{name}" for name in ("schemas", "tables", "columns", "keys", "key_columns")
    ]
    for table in tables:
        assert table.table.kind is TableKind.REPLICATED
        assert table.inline.column_names == [column.name for column in table.table.columns]
        assert len(table.home) == 0
        described = database.sql(
            f"SELECT column_name, std, description FROM T_columns WHERE table_name = 'TAP_SCHEMA.{table.table.name}' ORDER BY column_index"
        ).fetchall()
        assert [name.strip('"') for name, _, _ in described] == table.inline.column_names
        assert all(std == 1 and text for _, std, text in described)
    assert {row["key_id"] for row in tables[3].inline.to_pylist()} == {
        "TAP_SCHEMA.tables.1", "TAP_SCHEMA.columns.1", "TAP_SCHEMA.keys.1", "TAP_SCHEMA.keys.2", "TAP_SCHEMA.key_columns.1",
    }  # fmt: skip
    joined = tables[3].inline.join(tables[4].inline, "key_id").to_pylist()
    assert {(row["from_table"], row["from_column"], row["target_table"], row["target_column"]) for row in joined} == {
        ("TAP_SCHEMA.tables", "schema_name", "TAP_SCHEMA.schemas", "schema_name"),
        ("TAP_SCHEMA.columns", "table_name", "TAP_SCHEMA.tables", "table_name"),
        ("TAP_SCHEMA.keys", "from_table", "TAP_SCHEMA.tables", "table_name"),
        ("TAP_SCHEMA.keys", "target_table", "TAP_SCHEMA.tables", "table_name"),
        ("TAP_SCHEMA.key_columns", "key_id", "TAP_SCHEMA.keys", "key_id"),
    }


def test_order_and_types_of_columns() -> None:
    columns = tap_schema([])[2].inline
    assert columns.column_names == [
        "table_name", "column_name", "datatype", "arraysize", "xtype", "size", "description", "utype", "unit", "ucd", "indexed",
        "principal", "std", "column_index",
    ]  # fmt: skip
    assert columns.schema.field("size").type == pa.int32()
    assert columns.schema.field("std").type == pa.int32()


def test_rows_of_a_table(database: duckdb.DuckDBPyConnection) -> None:
    found = database.sql(
        "SELECT column_name, datatype, arraysize, xtype, size, unit, ucd, indexed, principal, std, column_index "
        "FROM T_columns WHERE table_name = 'demo.Object'"
    ).fetchall()
    assert found == [
        ("id", "long", None, None, None, None, "meta.id", 1, 0, 0, None),
        ("ra", "double", None, None, None, "deg", None, 1, 1, 0, 1),
        ("dec", "double", None, None, None, None, None, 1, 0, 0, None),
        ('"size"', "unicodeChar", "*", None, None, None, None, 0, 0, 0, None),
        ('"2mass id"', "double", "2", "point", 2, None, None, 0, 0, 0, None),
        ('"round"', "double", "3", "circle", 3, None, None, 0, 0, 1, None),
        ("seen", "char", "*", "timestamp", None, None, None, 1, 0, 0, None),
    ]
    assert database.sql("SELECT * FROM T_tables WHERE schema_name = 'demo'").fetchall() == [
        ("demo", "demo.Object", "table", None, "Things", 4), ("demo", "demo.Forced", "table", None, None, None),
    ]  # fmt: skip
    assert database.sql("SELECT schema_name, description, schema_index FROM T_schemas").fetchall() == [
        ("demo", "Demonstration", 1), ("TAP_SCHEMA", "Description of the tables of this service", 2),
    ]  # fmt: skip


def test_director_keys_are_foreign_keys_and_unpublished_targets_are_not(database: duckdb.DuckDBPyConnection) -> None:
    keys = "SELECT from_table, from_column, target_table, target_column FROM T_keys JOIN T_key_columns USING (key_id) "
    assert database.sql(keys + "WHERE from_table NOT LIKE 'TAP%'").fetchall() == [("demo.Forced", "objectId", "demo.Object", "id")]
    declared = replace(FORCED, foreign_keys=(ForeignKey(columns=("objectId",), target="Object", target_columns=("id",)),))
    own = [
        row for row in tap_schema([snapshot(THING), snapshot(declared)])[3].inline.to_pylist() if row["from_table"] == "demo.Forced"
    ]
    assert len(own) == 1


def test_columns_refer_to_tables_once(database: duckdb.DuckDBPyConnection) -> None:
    assert database.sql("SELECT count(*) - count(DISTINCT table_name) FROM T_tables").fetchone() == (0,)
    assert database.sql("SELECT count(*) FROM T_columns c ANTI JOIN T_tables t USING (table_name)").fetchone() == (0,)
    assert database.sql("SELECT count(*) FROM T_columns WHERE column_name = '_healpix_29'").fetchone() == (0,)


def test_quoting() -> None:
    assert [names.quoted(name) for name in ("ra", "Size", "_x", "a b", 'q"q', "é")] == [
        "ra",
        '"Size"',
        '"_x"',
        '"a b"',
        '"q""q"',
        '"é"',
    ]
    assert names.RESERVED == words.RESERVED
