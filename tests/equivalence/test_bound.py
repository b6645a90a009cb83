"""Station 2 against the oracle: parse, bind and render alone, run on one DuckDB that holds every row.

What fails here is a fault of `qengine.sql`, whatever the planner and the cluster do with the tree afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa
import pytest

from qengine.sql.bind import bind
from qengine.sql.macros import MACROS
from qengine.sql.parse import parse
from qengine.sql.render import render
from tests.support.definitions import catalog_of
from tests.support.harness import Harness
from tests.support.sky_builder import Sky, build_sky


class BoundOnOneDuckDB:
    """Answers by rendering the bound tree."""

    def __init__(self, skies: Sequence[Sky]) -> None:
        self._catalog = catalog_of(skies)
        self._connection = duckdb.connect(":memory:", config={"threads": 1})
        for macro in MACROS:
            self._connection.execute(macro)
        for sky in skies:
            self._connection.execute(f'CREATE SCHEMA "{sky.name}"')
            for table in sky.tables:
                self._connection.register("incoming", table.clean)
                self._connection.execute(f'CREATE TABLE "{sky.name}"."{table.name}" AS SELECT * FROM incoming')
                self._connection.unregister("incoming")

    def query(self, adql: str) -> pa.Table:
        """Answer one statement."""
        bound = bind(parse(adql, "adql"), self._catalog)
        result = self._connection.execute(render(bound.tree)).to_arrow_table()
        assert [column.name for column in bound.columns] == result.column_names
        return result


@pytest.fixture(scope="module")
def harness() -> Harness:
    skies = [build_sky(seed) for seed in range(4)]
    return Harness(BoundOnOneDuckDB(skies), skies)


def test_bound_tree_gives_the_right_rows(harness: Harness) -> None:
    report = harness.run(range(300))
    assert not report.findings, str(report)
    assert report.asked > 270


@pytest.mark.slow
def test_bound_tree_gives_the_right_rows_in_many_queries(harness: Harness) -> None:
    report = harness.run(range(300, 5300))
    assert not report.findings, str(report)
