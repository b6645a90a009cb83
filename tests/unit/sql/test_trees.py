"""Copies share nothing with the original; walks see what sqlglot's walk sees, in the same order."""

from __future__ import annotations

import pytest
import sqlglot
from sqlglot import exp

from qengine.sql.parse import parse
from qengine.sql.render import render
from qengine.sql.trees import copy_tree, find, nodes_of

STATEMENTS = [
    "SELECT a, b + 1 AS c FROM s.t WHERE a IN (1, 2, 3) AND b BETWEEN 1 AND 2 ORDER BY a DESC",
    "SELECT COUNT(*) FROM s.t JOIN s.u ON t.a = u.a GROUP BY t.b HAVING COUNT(*) > 3",
    "WITH w AS (SELECT a FROM s.t) SELECT a FROM w WHERE EXISTS (SELECT 1 FROM s.u WHERE u.a = w.a) UNION SELECT b FROM s.u",
    "SELECT CASE WHEN a > 1 THEN 'x' ELSE 'y' END, CAST(b AS DOUBLE) FROM s.t WHERE DISTANCE(POINT(1, 2), POINT(a, b)) < 0.1",
]


@pytest.mark.parametrize("text", STATEMENTS)
def test_copy_is_equal_and_shares_nothing(text: str) -> None:
    tree = parse(text, "adql").tree
    hash(tree)
    for number, node in enumerate(nodes_of(tree)):
        node.meta["number"] = number
    copy = copy_tree(tree)
    assert copy == tree
    assert repr(copy) == repr(tree.copy())
    assert {id(node) for node in nodes_of(copy)}.isdisjoint(id(node) for node in nodes_of(tree))
    for number, (ours, theirs) in enumerate(zip(nodes_of(copy), nodes_of(tree.copy()), strict=True)):
        assert (ours.arg_key, ours.index) == (theirs.arg_key, theirs.index)
        assert ours.meta["number"] == number
        assert ours.parent is None or ours in ours.parent.iter_expressions()
    for node in nodes_of(copy):
        node.meta["number"] = -1
    assert [node.meta["number"] for node in nodes_of(tree)] == list(range(len(nodes_of(tree))))


def test_change_of_a_copy_is_not_seen_in_the_original() -> None:
    tree = parse(STATEMENTS[0], "adql").tree
    before = repr(tree)
    copy = copy_tree(tree)
    hash(copy)
    for column in find(copy, exp.Column):
        column.replace(exp.column("other"))
    assert repr(tree) == before
    assert copy != tree


@pytest.mark.parametrize("text", STATEMENTS)
def test_walks_are_those_of_sqlglot(text: str) -> None:
    tree = parse(text, "adql").tree
    assert [id(node) for node in nodes_of(tree)] == [id(node) for node in tree.walk()]
    assert [id(node) for node in find(tree, exp.Column)] == [id(node) for node in tree.find_all(exp.Column)]


def test_copy_without_clauses() -> None:
    tree = parse(STATEMENTS[0], "adql").tree
    copy = copy_tree(tree, without=("where", "order", "limit"))
    expected = tree.copy()
    for clause in ("where", "order", "limit"):
        expected.set(clause, None)
    assert copy == expected
    assert tree.args["where"] is not None


def test_rendering_leaves_the_tree_alone() -> None:
    tree = sqlglot.parse_one("SELECT a * (b + c) - (d - e) FROM t", dialect="duckdb")
    for node in find(tree, exp.Paren):
        node.replace(node.this)
    before = repr(tree)
    assert render(tree) == 'SELECT ("a" * ("b" + "c")) - ("d" - "e") FROM "t"'
    assert repr(tree) == before
