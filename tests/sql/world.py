"""A small catalogue, and one DuckDB that holds its rows under the same names: statements are bound and really run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb

from qengine.catalog.model import NO_PARTS, Catalog, Column, Table, TableKind, TableSnapshot
from qengine.catalog.types import BIGINT, BOOLEAN, DOUBLE, FLOAT, INTEGER, POLYGON, SMALLINT, TIMESTAMP, VARCHAR
from qengine.sql.bind import BoundQuery, bind
from qengine.sql.macros import MACROS
from qengine.sql.parse import parse
from qengine.sql.render import render

STARS = Table(
    schema="demo", name="Star", kind=TableKind.DIRECTOR, key="id", ra="ra", dec="dec", family="demo.Star",
    columns=(
        Column(name="id", type=BIGINT, ucd="meta.id;meta.main", description="identifier"),
        Column(name="ra", type=DOUBLE, unit="deg", ucd="pos.eq.ra;meta.main", description="right ascension", column_index=1),
        Column(name="dec", type=DOUBLE, unit="deg", ucd="pos.eq.dec;meta.main", column_index=2),
        Column(name="mag", type=FLOAT, unit="mag"),
        Column(name="n", type=INTEGER),
        Column(name="small", type=SMALLINT),
        Column(name="flag", type=BOOLEAN),
        Column(name="Name", type=VARCHAR),
        Column(name="seen", type=TIMESTAMP),
        Column(name="_load", type=INTEGER, hidden=True),
    ),
)  # fmt: skip
EPOCHS = Table(
    schema="demo", name="Epoch", kind=TableKind.CHILD, director="Star", director_key="id", family="demo.Star",
    columns=(Column(name="id", type=BIGINT), Column(name="night", type=INTEGER), Column(name="flux", type=DOUBLE, unit="nJy")),
)  # fmt: skip
FIELDS = Table(
    schema="obs", name="field", kind=TableKind.REPLICATED,
    columns=(Column(name="field_id", type=INTEGER), Column(name="region", type=POLYGON), Column(name="order", type=INTEGER)),
)  # fmt: skip
TWIN = Table(schema="obs", name="Epoch", kind=TableKind.REPLICATED, columns=(Column(name="x", type=INTEGER),))

CATALOG = Catalog(
    tuple(TableSnapshot(table=t, number=1, home=NO_PARTS, orphan=NO_PARTS, margin=NO_PARTS) for t in (STARS, EPOCHS, FIELDS, TWIN))
)

STAR_ROWS: list[tuple[Any, ...]] = [
    (1, 0.0, 0.0, 1.5, 7, 1, True, "a", "2020-01-01 00:00:00", 1),
    (2, 359.9, 0.0, 2.5, -7, 2, False, "b", "2020-06-01 12:00:00", 1),
    (3, 0.1, 0.0, 3.5, 0, 3, True, "B", None, 1),
    (4, 10.0, 90.0, None, 5, 4, None, None, None, 1),
    (5, 200.0, 89.9, 0.5, 5, 5, True, "ab%", "2021-01-01 00:00:00", 1),
    (6, 180.0, -45.0, 2.5, None, 32767, False, "é", None, 1),
]
EPOCH_ROWS = [(1, 1, 10.0), (1, 2, 20.0), (2, 1, 5.0), (9, 1, 1.0)]
FIELD_ROWS = [(1, [359.0, -1.0, 1.0, -1.0, 1.0, 1.0, 359.0, 1.0], 2), (2, [100.0, 10.0, 120.0, 10.0, 110.0, 30.0], 1)]


@dataclass(frozen=True, slots=True)
class Answer:
    bound: BoundQuery
    sql: str
    rows: list[tuple[Any, ...]]
    types: tuple[str, ...]


class World:
    """Binds statements against `CATALOG` and runs them."""

    def __init__(self) -> None:
        self.db = duckdb.connect()
        for macro in MACROS:
            self.db.execute(macro)
        for table, rows in ((STARS, STAR_ROWS), (EPOCHS, EPOCH_ROWS), (FIELDS, FIELD_ROWS), (TWIN, [(1,)])):
            self.db.execute(f'CREATE SCHEMA IF NOT EXISTS "{table.schema}"')
            columns = ", ".join(f'"{c.name}" {c.type.name}' for c in table.columns)
            self.db.execute(f'CREATE TABLE "{table.schema}"."{table.name}" ({columns})')
            marks = ", ".join("?" for _ in table.columns)
            self.db.executemany(f'INSERT INTO "{table.schema}"."{table.name}" VALUES ({marks})', rows)

    def run(self, text: str, language: str = "adql") -> Answer:
        bound = bind(parse(text, language), CATALOG)
        sql = render(bound.tree)
        result = self.db.execute(sql)
        types = tuple(str(column[1]) for column in result.description)
        assert [column[0] for column in result.description] == [c.name for c in bound.columns], sql
        assert types == tuple(c.type.name for c in bound.columns), sql
        return Answer(bound, sql, result.fetchall(), types)

    def rows(self, text: str, language: str = "adql") -> list[tuple[Any, ...]]:
        """Run the statement; the types that DuckDB gives must be those that were bound."""
        return self.run(text, language).rows

    def value(self, expression: str, language: str = "adql") -> Any:
        """The value of an expression over the first star."""
        return self.rows(f"SELECT {expression} AS v FROM demo.star WHERE id = 1", language)[0][0]
