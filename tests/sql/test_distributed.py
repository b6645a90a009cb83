"""The wider syntax, distributed: what a plan gives, task by task, is what DuckDB gives for its own spelling of the statement."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.plan.world import World, sorted_rows

CASES = [
    line for line in (Path(__file__).parent / "distributed.sql").read_text().splitlines() if line and not line.startswith("--")
]


@pytest.fixture(scope="module")
def plan_world() -> World:
    return World()


@pytest.mark.parametrize("line", CASES)
def test_rows_are_those_of_one_duckdb(plan_world: World, line: str) -> None:
    text, _, duckdb_text = line.partition(" => ")
    language, _, text = text.partition(":") if text.startswith("sql:") else ("adql", "", text)
    expected = plan_world.oracle.execute(duckdb_text).fetchall() if duckdb_text else plan_world.truth(text, language=language)
    assert expected
    assert sorted_rows(plan_world.truth(text, language=language)) == sorted_rows(expected)
    assert sorted_rows(plan_world.answer(text, language=language)) == sorted_rows(expected)
