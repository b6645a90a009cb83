"""The table that the examples of the function table are about: `sky.t`, four rows in one DuckDB."""

from __future__ import annotations

import duckdb

from qengine.catalog.model import NO_PARTS, Catalog, Column, Table, TableKind, TableSnapshot
from qengine.catalog.types import BIGINT, DOUBLE, POINT, TIMESTAMP, VARCHAR, SqlType
from qengine.sql.bind import BoundQuery, bind
from qengine.sql.functions import Function, Role
from qengine.sql.macros import MACROS
from qengine.sql.parse import parse
from qengine.sql.render import render

TABLE = Table(
    schema="sky", name="t", kind=TableKind.DIRECTOR, key="id", ra="ra", dec="dec", family="sky.t",
    columns=(
        Column(name="id", type=BIGINT),
        Column(name="ra", type=DOUBLE, unit="deg"),
        Column(name="dec", type=DOUBLE, unit="deg"),
        Column(name="n", type=BIGINT),
        Column(name="x", type=DOUBLE, unit="mas"),
        Column(name="name", type=VARCHAR),
        Column(name="flag", type=SqlType("BOOLEAN")),
        Column(name="seen", type=TIMESTAMP),
        Column(name="times", type=SqlType("DOUBLE[]")),
        Column(name="curve", type=SqlType('STRUCT("mjd" DOUBLE[], "flux" DOUBLE[])')),
        Column(name="place", type=POINT),
        Column(name="_healpix_29", type=BIGINT, hidden=True),
    ),
)  # fmt: skip
CATALOG = Catalog((TableSnapshot(table=TABLE, number=1, home=NO_PARTS, orphan=NO_PARTS, margin=NO_PARTS),))
ROWS = """
SELECT n AS id, 10e0 AS ra, 20e0 + (n - 1) / 1000 AS dec, n, n / 2 AS x, chr(96 + n::INTEGER) AS name, n > 2 AS flag,
       make_timestamp(2020, 1, n, 12, 0, 0) AS seen, [1.0, 2.0, 4.0]::DOUBLE[] AS times,
       {'mjd': [1.0, 2.0]::DOUBLE[], 'flux': [3.0, 4.0]::DOUBLE[]} AS curve, [10.0, 20.0]::DOUBLE[] AS place,
       qe_healpix(29, 10e0, 20e0 + (n - 1) / 1000) AS _healpix_29
FROM (VALUES (1::BIGINT), (2), (3), (4)) v(n)
"""


class Examples:
    """Binds statements about `sky.t` and runs them."""

    def __init__(self) -> None:
        self.db = duckdb.connect()
        for macro in MACROS:
            self.db.execute(macro)
        self.db.execute("CREATE SCHEMA sky")
        self.db.execute(f"CREATE TABLE sky.t AS {ROWS}")

    def bound(self, text: str, language: str = "adql") -> BoundQuery:
        return bind(parse(text, language), CATALOG)

    def rows(self, text: str, language: str = "adql") -> list[tuple[object, ...]]:
        """Run a statement; the types that DuckDB gives must be those that were bound."""
        bound = self.bound(text, language)
        sql = render(bound.tree)
        result = self.db.execute(sql)
        found = [str(column[1]).replace('"', "") for column in result.description or ()]
        assert found == [c.type.name.replace('"', "") for c in bound.columns], sql
        return result.fetchall()

    def value(self, expression: str, language: str = "adql") -> object:
        return self.rows(f"SELECT {expression} AS v FROM sky.t WHERE n = 1", language)[0][0]

    def example(self, function: Function, language: str = "adql") -> object:
        """Return what the example of a function gives: for a scalar the value of the first row."""
        return self.rows(statement_of(function), language)[0][0]


def statement_of(function: Function) -> str:
    """Return the example as a statement."""
    if function.example.startswith("SELECT"):
        return function.example
    where = " WHERE n = 1" if function.role in (Role.SCALAR, Role.GEOMETRY) else ""
    order = " ORDER BY n" if function.role is Role.WINDOW else ""
    return f"SELECT {function.example} AS v FROM sky.t{where}{order}"
