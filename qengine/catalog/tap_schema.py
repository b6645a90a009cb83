"""TAP_SCHEMA 1.1: the tables that describe all tables, themselves included.

Derived, never typed: what is published decides the rows. The five tables are small, so they are Arrow tables within the
coordinator (`TableSnapshot.inline`). Hidden columns are left out, foreign keys to tables that are not published too; a child's
director key is a foreign key to its director even where no schema says so. Names that a statement can only write between double
quotes have them here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from qengine.catalog.model import NO_PARTS, Column, ForeignKey, Table, TableKind, TableSnapshot
from qengine.catalog.names import quoted
from qengine.catalog.types import INTEGER, VARCHAR, SqlType, to_arrow, to_votable

NAME = "TAP_SCHEMA"

Row = dict[str, Any]

# table -> (description, columns as (name, type, description)); the order is the one of TAP 1.1, section 4
_TABLES: dict[str, tuple[str, tuple[tuple[str, SqlType, str], ...]]] = {
    "schemas": (
        "Schemas of this service: one per catalogue, and TAP_SCHEMA",
        (
            ("schema_name", VARCHAR, "Name of the schema"),
            ("utype", VARCHAR, "Utype of the schema"),
            ("description", VARCHAR, "What the schema is about"),
            ("schema_index", INTEGER, "Recommended place of the schema in a list"),
        ),
    ),
    "tables": (
        "Tables that a query can name",
        (
            ("schema_name", VARCHAR, "Name of the table's schema"),
            ("table_name", VARCHAR, "Name of the table as a query writes it"),
            ("table_type", VARCHAR, "table or view"),
            ("utype", VARCHAR, "Utype of the table"),
            ("description", VARCHAR, "What a row of the table is"),
            ("table_index", INTEGER, "Recommended place of the table in a list"),
        ),
    ),
    "columns": (
        "Columns of the tables",
        (
            ("table_name", VARCHAR, "Name of the column's table"),
            ("column_name", VARCHAR, "Name of the column as a query writes it"),
            ("datatype", VARCHAR, "VOTable datatype"),
            ("arraysize", VARCHAR, "VOTable arraysize; NULL for single values"),
            ("xtype", VARCHAR, "DALI xtype"),
            ("size", INTEGER, "Fixed length of arrays; use arraysize instead"),
            ("description", VARCHAR, "What the column holds"),
            ("utype", VARCHAR, "Utype of the column"),
            ("unit", VARCHAR, "Unit in VOUnit syntax"),
            ("ucd", VARCHAR, "Unified content descriptor"),
            ("indexed", INTEGER, "1 if conditions on the column make a query faster, else 0"),
            ("principal", INTEGER, "1 if the column belongs to the most useful ones, else 0"),
            ("std", INTEGER, "1 if a standard defines the column, else 0"),
            ("column_index", INTEGER, "Recommended place of the column in a list"),
        ),
    ),
    "keys": (
        "Foreign keys: rows of one table that name rows of another",
        (
            ("key_id", VARCHAR, "Identifier of the foreign key"),
            ("from_table", VARCHAR, "Table that has the key"),
            ("target_table", VARCHAR, "Table whose rows it names"),
            ("description", VARCHAR, "What the key means"),
            ("utype", VARCHAR, "Utype of the key"),
        ),
    ),
    "key_columns": (
        "Columns of the foreign keys",
        (
            ("key_id", VARCHAR, "Identifier of the foreign key"),
            ("from_column", VARCHAR, "Column of the table that has the key"),
            ("target_column", VARCHAR, "Column of the table whose rows it names"),
        ),
    ),
}
_KEYS: dict[str, tuple[tuple[str, str], ...]] = {
    "tables": (("schema_name", "schemas"),),
    "columns": (("table_name", "tables"),),
    "keys": (("from_table", "tables"), ("target_table", "tables")),
    "key_columns": (("key_id", "keys"),),
}
_TARGET_COLUMN = {"schemas": "schema_name", "tables": "table_name", "keys": "key_id"}


def tap_schema(tables: Sequence[TableSnapshot]) -> tuple[TableSnapshot, ...]:
    """Return the five tables of TAP_SCHEMA with the rows that describe `tables` and themselves."""
    own = [_definition(number, name) for number, name in enumerate(_TABLES)]
    described = [*(snapshot.table for snapshot in tables), *own]
    keys = list(_foreign_keys(described))
    rows: dict[str, list[Row]] = {
        "schemas": _schema_rows(described),
        "tables": [_table_row(table) for table in described],
        "columns": [row for table in described for row in _column_rows(table)],
        "keys": [row for row, _ in keys],
        "key_columns": [pair for _, pairs in keys for pair in pairs],
    }
    return tuple(
        TableSnapshot(
            table=table, number=0, home=NO_PARTS, orphan=NO_PARTS, margin=NO_PARTS, inline=_arrow(table, rows[table.name])
        )
        for table in own
    )


def table_name(table: Table) -> str:
    """Return the qualified name of the table as TAP_SCHEMA and statements write it."""
    return f"{quoted(table.schema)}.{quoted(table.name)}"


def _definition(number: int, name: str) -> Table:
    description, columns = _TABLES[name]
    return Table(
        schema=NAME,
        name=name,
        kind=TableKind.REPLICATED,
        line_column="",
        description=description,
        table_index=number + 1,
        columns=tuple(
            Column(name=column, type=kind, description=text, principal=True, std=True, column_index=index + 1)
            for index, (column, kind, text) in enumerate(columns)
        ),
        foreign_keys=tuple(
            ForeignKey(columns=(column,), target=target, target_columns=(_TARGET_COLUMN[target],))
            for column, target in _KEYS.get(name, ())
        ),
    )


def _arrow(table: Table, rows: Sequence[Row]) -> pa.Table:
    schema = pa.schema([(column.name, to_arrow(column.type)) for column in table.columns])
    # Empty text means that nothing is known, which is NULL here.
    return pa.table({name: [None if row[name] == "" else row[name] for row in rows] for name in schema.names}, schema=schema)


def _schema_rows(tables: Sequence[Table]) -> list[Row]:
    titles: dict[str, str] = {}
    for table in tables:
        titles[table.schema] = titles.get(table.schema) or table.release.title
    titles[NAME] = "Description of the tables of this service"
    return [
        {"schema_name": quoted(name), "utype": "", "description": title, "schema_index": number + 1}
        for number, (name, title) in enumerate(titles.items())
    ]


def _table_row(table: Table) -> Row:
    return {
        "schema_name": quoted(table.schema),
        "table_name": table_name(table),
        "table_type": "view" if table.view else "table",
        "utype": table.utype,
        "description": table.description,
        "table_index": table.table_index,
    }


def _column_rows(table: Table) -> Iterator[Row]:
    pruning = {table.key, table.director_key, table.ra, table.dec, table.time_key} if table.is_sharded else set()
    for column in table.shown:
        if column.hidden:
            continue
        shape = to_votable(column.type)
        yield {
            "table_name": table_name(table),
            # TAP 1.1 writes this one column with quotes, and so do its clients: "size" is reserved.
            "column_name": quoted(column.name),
            "datatype": shape.datatype,
            "arraysize": shape.arraysize,
            "xtype": shape.xtype,
            "size": int(shape.arraysize) if shape.arraysize.isdigit() else None,
            "description": column.description,
            "utype": column.utype,
            "unit": column.unit,
            "ucd": column.ucd,
            "indexed": int(column.indexed or column.name in pruning),
            "principal": int(column.principal),
            "std": int(column.std),
            "column_index": column.column_index,
        }


def _foreign_keys(tables: Sequence[Table]) -> Iterator[tuple[Row, list[Row]]]:
    """Yield every foreign key between visible columns of described tables, with its pairs of columns."""
    by_name = {(table.schema, table.name): table for table in tables}
    for table in tables:
        number = 0
        for key in _all_keys(table, by_name.get((table.schema, table.director))):
            target = by_name.get((table.schema, key.target))
            if target is None or not (_are_visible(table, key.columns) and _are_visible(target, key.target_columns)):
                continue
            number += 1
            name = f"{table.full_name}.{number}"
            row = {
                "key_id": name,
                "from_table": table_name(table),
                "target_table": table_name(target),
                "description": key.description,
                "utype": "",
            }
            pairs = zip(key.columns, key.target_columns, strict=True)
            yield row, [{"key_id": name, "from_column": quoted(a), "target_column": quoted(b)} for a, b in pairs]


def _all_keys(table: Table, director: Table | None) -> Iterator[ForeignKey]:
    yield from table.foreign_keys
    if director is None or not director.key:
        return
    own = ForeignKey(columns=(table.director_key,), target=director.name, target_columns=(director.key,))
    if not any(
        (key.columns, key.target, key.target_columns) == (own.columns, own.target, own.target_columns) for key in table.foreign_keys
    ):
        yield own


def _are_visible(table: Table, names: Sequence[str]) -> bool:
    columns = [table.column(name) for name in names]
    return all(column is not None and not column.hidden for column in columns)
