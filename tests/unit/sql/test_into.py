"""INTO is taken out of a statement where it is a clause, and nowhere else; positions of all the rest hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qengine.errors import QEngineError, QuerySyntaxError
from qengine.sql.into import take_into


@pytest.mark.parametrize("language", ["adql", "adql-strict", "sql"])
@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("SELECT a INTO mydb.t FROM s.x", "t"),
        ("SELECT a, (SELECT 1 FROM y) AS b\ninto\nMyDB . T FROM s.x WHERE a = 'INTO mydb.u FROM'", "T"),
        ('SELECT TOP 5 a INTO "mydb"."date" FROM s.x', "date"),
        ("SELECT a INTO mydb.t FROM s.x UNION SELECT a FROM s.y", "t"),
    ],
)
def test_it_is_taken_out(text: str, table: str, language: str) -> None:
    found = take_into(text, language)
    assert found is not None
    assert found.table == table
    assert len(found.text) == len(text)
    assert all(new in (old, " ") for old, new in zip(text, found.text, strict=True))
    assert found.text.split() == [*text.split()[: len(found.text[: text.lower().index("into")].split())], *_rest(text, table)]


def _rest(text: str, table: str) -> list[str]:
    at = text.lower().index("into")
    return text[text.index("FROM", text.index(table, at)) :].split()


@pytest.mark.parametrize(
    "text",
    [
        "SELECT a FROM s.x", "SELECT 'INTO mydb.t FROM' AS b FROM s.x", "SELECT a -- INTO mydb.t\n FROM s.x", 'SELECT "into" FROM s.x',
        "SELECT a FROM (SELECT a INTO mydb.t FROM s.x) q", "SELECT a FROM s.x INTO mydb.t", "SELECT a INTO FROM s.x",
        "SELECT a INTO mydb.t", "SELECT a INTO mydb.t, mydb.u FROM s.x", "SELECT a FROM s.x UNION SELECT a INTO mydb.t FROM s.x",
        "INTO", "SELECT 'INTO", "SELECT a INTO mydb. FROM s.x",
    ],
)  # fmt: skip
def test_other_uses_are_left_to_the_parser(text: str) -> None:
    assert take_into(text, "adql") is None


@pytest.mark.parametrize("text", ["SELECT a INTO t FROM s.x", "SELECT a INTO s.t FROM s.x", "SELECT a INTO c.mydb.t FROM s.x"])
def test_other_places_are_refused(text: str) -> None:
    with pytest.raises(QuerySyntaxError, match="a table of your own") as caught:
        take_into(text, "adql")
    assert caught.value.span is not None
    assert text[caught.value.span.start : caught.value.span.end] == text[text.index("INTO") : text.index(" FROM")]


@given(st.lists(st.sampled_from(["SELECT", "a", "INTO", "mydb", ".", "t", "FROM", "(", ")", "UNION", ",", "'", '"', ";"])))
def test_whatever_is_written(words: list[str]) -> None:
    text = " ".join(words)
    try:
        found = take_into(text, "adql")
    except QEngineError:
        return
    assert found is None or len(found.text) == len(text)
