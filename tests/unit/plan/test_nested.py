"""Blocks inside blocks: what runs whole in the leaf, and that it gives the rows of one database."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.imaginary import survey
from tests.support.planning import plan_of
from tests.unit.plan.world import World, sorted_rows

CASES = [line for line in (Path(__file__).parent / "nested.sql").read_text().splitlines() if line and not line.startswith("--")]


def how(world: World, text: str, language: str) -> str:
    """Return what becomes of the statement, as the file calls it."""
    pieces = world.pieces(text, language)
    if any(leaf.gathered for leaf in pieces.leaves):
        return "gather"
    if len(pieces.leaves) > 1:
        return "several"
    return "local" if pieces.is_passthrough else "final"


@pytest.mark.parametrize("line", CASES)
def test_a_block_runs_where_it_can_and_gives_the_same_rows(plan_world: World, line: str) -> None:
    expected, _, rest = line.partition("|")
    language, _, text = rest.partition(":") if rest.startswith("sql:") else ("adql", "", rest)
    assert how(plan_world, text, language) == expected
    assert sorted_rows(plan_world.answer(text, language=language)) == sorted_rows(plan_world.truth(text, language=language))


@pytest.mark.parametrize(
    "text",
    [
        "SELECT TOP 20 mag, COUNT(*) AS n FROM dp.Object GROUP BY mag, objectId ORDER BY mag",
        "SELECT DISTINCT TOP 20 mag, objectId FROM dp.Object ORDER BY mag",
    ],
)
def test_the_first_groups_may_need_more_parts_than_the_first_rows(text: str) -> None:
    (leaf,) = plan_of(text, survey(3)).leaves
    assert leaf.estimate.parts == leaf.estimate.parts_total
    (rows,) = plan_of("SELECT TOP 20 mag, objectId FROM dp.Object ORDER BY mag", survey(3)).leaves
    assert rows.estimate.parts < rows.estimate.parts_total
