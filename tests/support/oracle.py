"""The oracle: one DuckDB that holds every row, asked in plain SQL; sky truth comes from numpy in extended precision.

`Oracle.answer(query)` prints the tree by `OraclePrinter`, runs it without TOP, OFFSET and ORDER BY, and returns all rows with their sort
keys; `compare` then knows which answers are right. `sky_compare`, `sky_distance` and `sky_inside` are vectorised functions over
`sky_truth`. A query for which some point lies too close to a boundary for double precision is `Unfair` and is not asked.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from tests.support import query_ast as q
from tests.support import sky_truth as truth
from tests.support.printers import OraclePrinter, Regions
from tests.support.sky_builder import Sky

Vector = pa.ChunkedArray


class UnfairQueryError(Exception):
    """A point lies within rounding of a boundary, so that both answers would be right; or the result is absurdly large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Every row of the query before TOP and OFFSET. `keys` has one tuple of sort keys per row (empty tuples without ORDER BY)."""

    sql: str
    names: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    keys: tuple[tuple[object, ...], ...]


class Oracle:
    """One DuckDB with the tables of `skies` as schema.table, NaN already NULL."""

    MAX_ROWS = 10_000
    MAX_SECONDS = 5.0

    def __init__(self, skies: Iterable[Sky]) -> None:
        self._connection = duckdb.connect(":memory:", config={"threads": 1, "memory_limit": "1GB"})
        self._regions: Regions = {}
        self._is_fair = True
        for sky in skies:
            self.add(sky)
        self._add_functions()

    def add(self, sky: Sky) -> None:
        self._connection.execute(f'CREATE SCHEMA "{sky.name}"')
        for table in sky.tables:
            rows = table.clean
            self._connection.register("incoming", rows)
            self._connection.execute(f'CREATE TABLE "{sky.name}"."{table.name}" AS SELECT * FROM incoming')
            self._connection.unregister("incoming")

    def answer(self, query: q.Node) -> Answer:
        """Run the query. Raise `UnfairQueryError` where double precision may answer either way."""
        self._regions.clear()
        sql = OraclePrinter(self._regions).statement(query)
        result = self.rows(sql)
        names = tuple(_name(item) for item in q.outputs(query))
        order = q.body_of(query).order
        hidden = iter(range(len(names), len(names) + len(order)))
        places = [key.output if key.output >= 0 else next(hidden) for key in order]
        return Answer(
            sql=sql,
            names=names,
            rows=tuple(row[: len(names)] for row in result),
            keys=tuple(tuple(row[place] for place in places) for row in result),
        )

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        """Return the rows of a statement in the oracle's own words. Raise `UnfairQueryError` as `answer` does."""
        self._is_fair = True
        alarm = threading.Timer(self.MAX_SECONDS, self._connection.interrupt)
        alarm.start()
        try:
            result = self._connection.execute(sql).fetchmany(self.MAX_ROWS + 1)
        except (duckdb.InterruptException, duckdb.OutOfMemoryException) as error:
            raise UnfairQueryError("too much work") from error
        finally:
            alarm.cancel()
        if not self._is_fair:
            raise UnfairQueryError("a point lies on a boundary")
        if len(result) > self.MAX_ROWS:
            raise UnfairQueryError("too many rows")
        return result

    def _add_functions(self) -> None:
        double, integer = "DOUBLE", "INTEGER"
        for name, function, arguments, result in (
            ("sky_distance", self._distance, [double] * 4, double),
            ("sky_compare", self._compare, [double] * 5 + ["VARCHAR"], "BOOLEAN"),
            ("sky_inside", self._inside, [double, double, integer], "BOOLEAN"),
        ):
            # One function over Arrow vectors; NULL positions come in and must give NULL.
            self._connection.create_function(name, function, arguments, result, type="arrow", null_handling="special")

    # DuckDB counts the parameters of a function, so they are spelled out.
    def _distance(self, lon1: Vector, lat1: Vector, lon2: Vector, lat2: Vector) -> pa.Array:
        known, values = _known((lon1, lat1, lon2, lat2))
        return pa.array(truth.distance_deg(*values).astype(float), pa.float64(), mask=~known)

    def _compare(self, lon1: Vector, lat1: Vector, lon2: Vector, lat2: Vector, limit: Vector, ops: Vector) -> pa.Array:
        known, (*places, radius) = _known((lon1, lat1, lon2, lat2, limit))
        distance = truth.distance_deg(*places)
        if bool((truth.is_border_distance(distance, radius) & known).any()):
            self._is_fair = False
        op = ops[0].as_py() if len(ops) else "<"
        is_true = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}[op](distance, radius)
        return pa.array(is_true, pa.bool_(), mask=~known)

    def _inside(self, lon: Vector, lat: Vector, numbers: Vector) -> pa.Array:
        known, (x, y) = _known((lon, lat))
        if not len(numbers):
            return pa.array([], pa.bool_())
        number = numbers[0].as_py()
        region = next(region for region, n in self._regions.items() if n == number)
        if isinstance(region, q.Polygon):
            inside, border = truth.in_polygon(x, y, region.center, region.vertices)
        else:
            assert isinstance(region, q.Box)
            inside, border = truth.in_box(x, y, region.center, region.size)
        if bool((border & known).any()):
            self._is_fair = False
        return pa.array(inside, pa.bool_(), mask=~known)


def _known(columns: Iterable[Vector]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Which rows have no NULL, and the values with 0 in place of NULL."""
    arrays = [column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column for column in columns]
    known = np.ones(len(arrays[0]), bool)
    for array in arrays:
        known &= np.asarray(array.is_valid())
    return known, [np.asarray(array.fill_null(0.0), dtype=float) for array in arrays]


def _name(item: q.Node) -> str:
    assert isinstance(item, q.Item)
    return item.alias or item.name
