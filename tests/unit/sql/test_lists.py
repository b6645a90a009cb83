"""A long list of integers means the same as one that is parsed number by number.

A comment of the form /* */ switches the short way off, so that both ways can be compared.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qengine.errors import QEngineError, QueryError, QuerySyntaxError
from qengine.plan.prune import lookups
from qengine.sql.bind import bind
from qengine.sql.lists import LEAST, integers_of, list_node, take_lists
from qengine.sql.parse import parse
from qengine.sql.render import render
from tests.support.imaginary import survey
from tests.support.planning import pieces_of

CATALOG = survey(2)
MANY = list(range(-5, LEAST))


def listed(values: list[int], separator: str = ", ") -> str:
    return f"({separator.join(map(str, values))})"


def bound_text(statement: str) -> str:
    return render(bind(parse(statement, "adql"), CATALOG).tree)


def test_long_lists_leave_a_blank_of_the_same_length() -> None:
    lines = listed(MANY, " ,\n")
    text = f"SELECT 'a IN {listed(MANY)}' FROM t WHERE x in\n{lines} AND y IN (1, 2)"
    shown, lists = take_lists(text)
    ((start, values),) = lists.items()
    assert text[start] == "("
    assert list(values) == MANY
    assert len(shown) == len(text)
    assert [i for i, c in enumerate(shown) if c == "\n"] == [i for i, c in enumerate(text) if c == "\n"]
    assert shown[: start + 3] == text[: start + 3]
    assert shown.endswith(") AND y IN (1, 2)")


@pytest.mark.parametrize(
    "text",
    [
        f"SELECT 1 -- x IN {listed(MANY)}",
        f'SELECT "x IN {listed(MANY)}" FROM t',
        f"SELECT 'it''s IN {listed(MANY)}'",
        f"SELECT /* /* */ ' */ 'x IN {listed(MANY)}'",
        f"SELECT x FROM t WHERE MYIN {listed(MANY)}",
        f"SELECT x FROM t WHERE x IN {listed(MANY[: LEAST - 1])}",
        f"SELECT x FROM t WHERE x IN ({', '.join(map(str, MANY))}, 1.5)",
        f"SELECT x FROM t WHERE x IN ({', '.join(map(str, MANY))}, {10**18})",
        f"SELECT x FROM t WHERE x IN ({', '.join(map(str, MANY))}, )",
    ],
)
def test_what_is_no_list_of_integers_stays(text: str) -> None:
    assert take_lists(text) == (text, {})


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-(10**18) + 1, 10**18 - 1), min_size=LEAST, max_size=80), st.booleans())
def test_both_ways_give_the_same_statement_and_keys(values: list[int], is_negated: bool) -> None:
    word = "NOT IN" if is_negated else "IN"
    text = f"SELECT objectId FROM dp.Object WHERE objectId {word} {listed(values)} AND mag IN (1, 2)"
    assert bound_text(text) == bound_text(text + " /* number by number */")
    short, long = pieces_of(text, CATALOG), pieces_of(text + " /* number by number */", CATALOG)
    assert [lookups(leaf) for leaf in short.leaves] == [lookups(leaf) for leaf in long.leaves]
    assert [leaf.restrictions for leaf in short.leaves] == [leaf.restrictions for leaf in long.leaves]


@pytest.mark.parametrize("column", ["mag", "flags", "objectId", "ra"])
def test_every_numeric_column_takes_a_list(column: str) -> None:
    text = f"SELECT objectId FROM dp.Object WHERE {column} IN {listed(MANY)}"
    assert bound_text(text) == bound_text(text + " /* number by number */")


def test_errors_are_the_same_and_have_a_place() -> None:
    text = f"SELECT objectId FROM dp.Object WHERE 'a' IN {listed(MANY)}"
    with pytest.raises(QueryError) as short:
        bound_text(text)
    with pytest.raises(QueryError) as long:
        bound_text(text + " /* number by number */")
    assert short.value.message == long.value.message
    assert short.value.span is not None
    assert text[short.value.span.start : short.value.span.end] == listed(MANY)
    with pytest.raises(QEngineError) as behind:
        bound_text(f"SELECT objectId FROM dp.Object WHERE objectId IN {listed(MANY)} AND nothing = 1")
    assert behind.value.span is not None
    assert behind.value.span.column == len(f"SELECT objectId FROM dp.Object WHERE objectId IN {listed(MANY)} AND ") + 1


def test_list_in_a_string_that_does_not_end() -> None:
    with pytest.raises(QuerySyntaxError, match="is not closed"):
        parse(f"SELECT 'x IN {listed(MANY)}", "adql")


def test_lists_count_as_words() -> None:
    with pytest.raises(QuerySyntaxError, match="more than 60000 words"):
        parse(f"SELECT objectId FROM dp.Object WHERE objectId IN {listed([1] * 30_001, ',')}", "adql")


def test_subqueries_and_expressions_in_lists_are_as_ever() -> None:
    text = "SELECT objectId FROM dp.Object WHERE objectId IN (SELECT objectId FROM dp.Object WHERE mag > 1 + 1)"
    assert "SELECT" in bound_text(text)


def test_node_of_a_list() -> None:
    node = list_node([3, -4])
    assert integers_of(node) == (3, -4)
    assert node.sql(dialect="duckdb") == "3, -4"
    assert node == list_node([3, -4]) != list_node([3, 4])
