"""Rows in IN: `(a, b) IN ((1, 2), (3, 4))` and `(a, b) IN (SELECT x, y ..)`.

Rows are compared member by member: unknown if a NULL leaves it open, as the standard has it. (DuckDB takes two NULLs for equal.)
A list is an OR of ANDs. A sub-query is EXISTS with the comparison inside; that is FALSE where IN is unknown, which is the same
under AND and OR of a condition that only has to be true. Elsewhere (below NOT, or as a value) a second EXISTS finds the unknown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlglot import exp

from qengine.catalog.types import BOOLEAN, INTEGER, NULL
from qengine.errors import QueryTypeError
from qengine.sql.nodes import cast, column, quoted, truth, typed
from qengine.sql.operators import as_term, balanced, plain_query

if TYPE_CHECKING:
    from qengine.sql.expressions import Expressions

MAX_MEMBERS = 10_000


def bind_row_in(binder: Expressions, node: exp.In) -> exp.Expr:
    """Bind IN whose left side is a row."""
    row = list(node.this.expressions)
    if node.args.get("query") is not None:
        return _in_query(binder, node, row)
    if len(node.expressions) * len(row) > MAX_MEMBERS:
        raise binder.error(QueryTypeError, node, f"more than {MAX_MEMBERS} values", "write IN (SELECT ..) over VALUES or an upload")
    subjects = [binder.value(part) for part in row]
    alternatives = []
    for member in node.expressions:
        if not isinstance(member, exp.Tuple) or len(member.expressions) != len(row):
            raise binder.error(QueryTypeError, member, f"a row of {len(row)} values is expected here")
        others = [binder.value(part) for part in member.expressions]
        alternatives.append(_equal(binder, [subject.copy() for subject in subjects], others, member))
    return balanced(exp.Or, [as_term(term) for term in alternatives])


def _equal(binder: Expressions, left: list[exp.Expr], right: list[exp.Expr], node: exp.Expr) -> exp.Expr:
    terms: list[exp.Expr] = []
    for one, two in zip(left, right, strict=True):
        first, second = binder.comparable(one, two, node)
        terms.append(typed(exp.EQ(this=first, expression=second), BOOLEAN))
    return balanced(exp.And, terms)


def _in_query(binder: Expressions, node: exp.In, row: list[exp.Expr]) -> exp.Expr:
    if _only_has_to_be_true(node):
        return _existence(binder, node, row, is_unknown=False)
    ifs = [
        exp.If(this=_existence(binder, node, row, is_unknown=False), true=truth(value=True)),
        exp.If(this=_existence(binder, node, row, is_unknown=True), true=cast(typed(exp.Null(), NULL), BOOLEAN)),
    ]
    return typed(exp.Case(ifs=ifs, default=truth(value=False)), BOOLEAN)


def _existence(binder: Expressions, node: exp.In, row: list[exp.Expr], *, is_unknown: bool) -> exp.Expr:
    query, types = binder.subquery(plain_query(node.args["query"]), binder.scope)
    if len(types) != len(row):
        raise binder.error(QueryTypeError, node, f"the sub-query of IN has {len(types)} columns, the row has {len(row)}")
    alias = binder.context.new_alias("rows")
    at: exp.Expr = query
    while isinstance(at, (exp.SetOperation, exp.Subquery)):
        at = at.this
    found = [typed(column(alias, item.alias), kind) for item, kind in zip(at.expressions, types, strict=True)]
    condition = _equal(binder, [binder.value(part) for part in row], list(found), node)
    if is_unknown:
        condition = typed(exp.Is(this=exp.Paren(this=condition), expression=typed(exp.Null(), NULL)), BOOLEAN)
    one = typed(exp.Literal.number(1), INTEGER)
    select = exp.Select(
        expressions=[typed(exp.Alias(this=one, alias=quoted("one")), INTEGER)],
        from_=exp.From(this=exp.Subquery(this=query, alias=exp.TableAlias(this=quoted(alias)))),
        where=exp.Where(this=condition),
    )
    return typed(exp.Exists(this=select), BOOLEAN)


def _only_has_to_be_true(node: exp.Expr) -> bool:
    parent = node.parent
    while isinstance(parent, (exp.And, exp.Or, exp.Paren)):
        parent = parent.parent
    return isinstance(parent, (exp.Where, exp.Having, exp.Join))
