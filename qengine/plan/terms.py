"""Small readers of bound expressions: constants, columns, conjuncts, comparisons. Nothing here decides anything."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache

from sqlglot import exp

from qengine.catalog.types import SqlType
from qengine.errors import Span
from qengine.sql.functions import FUNCTIONS
from qengine.sql.lists import integers_of
from qengine.sql.trees import copy_tree, find, nodes_of

FLIPPED: dict[type[exp.Expr], type[exp.Expr]] = {
    exp.LT: exp.GT, exp.LTE: exp.GTE, exp.GT: exp.LT, exp.GTE: exp.LTE, exp.EQ: exp.EQ,
}  # fmt: skip


def sql_type(node: exp.Expr) -> SqlType | None:
    """Return the type that binding gave to the node."""
    found = node.meta_get("sql_type")
    if found is None and isinstance(node, (exp.Alias, exp.Paren)):
        return sql_type(node.this)
    return found if isinstance(found, SqlType) else None


def span_of(node: exp.Expr | None) -> Span | None:
    """Return the place of the node, or of the first node below it that has one."""
    if node is None:
        return None
    return next((s for n in nodes_of(node) if isinstance(s := n.meta_get("span"), Span)), None)


def bare(node: exp.Expr) -> exp.Expr:
    """Strip parentheses."""
    while isinstance(node, exp.Paren):
        node = node.this
    return node


def number(node: exp.Expr | None) -> float | int | None:
    """Return the value of a numeric constant (sign, parentheses and casts to numbers allowed), else None."""
    if node is None:
        return None
    node = bare(node)
    if isinstance(node, exp.Neg):
        value = number(node.this)
        return None if value is None else -value
    if isinstance(node, exp.Cast) and node.to.this in _FLOATS:
        value = number(node.this)
        return None if value is None else float(value)
    if isinstance(node, exp.Cast) and node.to.this == exp.DType.FLOAT:
        value = number(node.this)
        # As `plan.floats` writes them; others would have to be rounded.
        return float(value) if value is not None and _is_float32(value) else None
    if isinstance(node, exp.Literal) and not node.is_string:
        text = str(node.this)
        return int(text) if text.isdigit() else float(text)
    return None


def _is_float32(value: float | int) -> bool:
    return abs(value) <= _LARGEST_FLOAT32 and bool(struct.unpack("f", struct.pack("f", value))[0] == value)


_LARGEST_FLOAT32 = 3.4028234663852886e38
_FLOATS = (exp.DataType.Type.DOUBLE,)


def constant(node: exp.Expr) -> int | float | str | None:
    """Return the value of a number or string constant, else None."""
    node = bare(node)
    if isinstance(node, exp.Literal) and node.is_string:
        return str(node.this)
    return number(node)


def constants_in(node: exp.In) -> list[int | float | str | None]:
    """Return the constants of a list, None where there is none."""
    integers = integers_of(node.expressions[0])
    return [constant(item) for item in node.expressions] if integers is None else list(integers)


def numbers_in(node: exp.In) -> list[int | float | None]:
    """Return the numbers of a list, None where there is none."""
    integers = integers_of(node.expressions[0])
    return [number(item) for item in node.expressions] if integers is None else list(integers)


def cast_column(node: exp.Expr | None) -> tuple[str, str] | None:
    """Return what `plain_column` does of the node, or of what it casts."""
    return plain_column(node.this if isinstance(node, exp.Cast) else node)


def plain_column(node: exp.Expr | None) -> tuple[str, str] | None:
    """Return (alias, name) if the node is a column, possibly in parentheses. A cast to DOUBLE would make large keys equal."""
    found = None if node is None else bare(node)
    return (found.table, found.name) if isinstance(found, exp.Column) else None


def column(node: exp.Expr | None) -> tuple[str, str] | None:
    """Return (alias, name) if the node is a column, possibly in parentheses or cast to DOUBLE."""
    if node is None:
        return None
    node = bare(node)
    if isinstance(node, exp.Cast) and node.to.this in _FLOATS:
        node = bare(node.this)
    return (node.table, node.name) if isinstance(node, exp.Column) else None


def conjuncts(node: exp.Expr | None) -> Iterator[exp.Expr]:
    """Yield the terms of an AND, flattened."""
    if node is None:
        return
    node = bare(node)
    if isinstance(node, exp.And):
        yield from conjuncts(node.left)
        yield from conjuncts(node.right)
    else:
        yield node


def disjuncts(node: exp.Expr) -> Iterator[exp.Expr]:
    """Yield the terms of an OR, flattened."""
    node = bare(node)
    if isinstance(node, exp.Or):
        yield from disjuncts(node.left)
        yield from disjuncts(node.right)
    else:
        yield node


def all_of(terms: list[exp.Expr]) -> exp.Expr | None:
    """Join terms by AND; None for no terms."""
    return exp.and_(*[copy_tree(t) for t in terms], copy=False, wrap=True) if terms else None


def aliases_of(node: exp.Expr) -> frozenset[str]:
    """Return the aliases whose columns the node names."""
    return frozenset(c.table for c in find(node, exp.Column))


def call(node: exp.Expr, name: str) -> list[exp.Expr] | None:
    """Return the arguments if the node is a call of the macro `name`."""
    node = bare(node)
    if isinstance(node, exp.Anonymous) and str(node.this).lower() == name:
        return list(node.expressions)
    return None


VOLATILE = frozenset({function.target for function in FUNCTIONS.values() if function.is_volatile})
"""What functions that may answer differently each time are called in the bound tree."""


def is_random(node: exp.Expr) -> bool:
    """Say whether the node itself may have another value each time that it is computed."""
    if isinstance(node, (exp.Rand, exp.Randn, exp.Uuid, exp.CurrentTimestamp)):
        return True
    return isinstance(node, exp.Anonymous) and str(node.this).lower() in VOLATILE


def comparison(node: exp.Expr) -> tuple[type[exp.Expr], exp.Expr, exp.Expr] | None:
    """Return (operator, left, right) of <, <=, >, >= or =."""
    node = bare(node)
    if type(node) in FLIPPED:
        return type(node), node.this, node.expression
    return None


def side_below(node: exp.Expr) -> tuple[exp.Expr, exp.Expr] | None:
    """Return (smaller, larger) if the node says smaller < larger or <=, written either way round."""
    if (found := comparison(node)) is None or found[0] is exp.EQ:
        return None
    operator, left, right = found
    return (left, right) if operator in (exp.LT, exp.LTE) else (right, left)


def query_of(item: exp.Expr) -> exp.Query | None:
    """Return the query of a derived table, LATERAL or not."""
    while isinstance(item, (exp.Subquery, exp.Lateral)):
        item = item.this
    return item if isinstance(item, (exp.Select, exp.SetOperation)) else None


def bound_below(node: exp.Expr) -> tuple[exp.Expr, float] | None:
    """Return (expression, constant) if the node says expression < constant or <= constant, written either way round."""
    if (found := comparison(node)) is None:
        return None
    operator, left, right = found
    if operator in (exp.LT, exp.LTE) and (value := number(right)) is not None:
        return left, float(value)
    if operator in (exp.GT, exp.GTE) and (value := number(left)) is not None:
        return right, float(value)
    return None


def named_type(name: str) -> exp.DataType:
    """Return a new node of a DuckDB type name."""
    return copy_tree(_parsed_type(name))


@cache
def _parsed_type(name: str) -> exp.DataType:
    return exp.DataType.build(name, dialect="duckdb")


def quoted_column(alias: str, name: str) -> exp.Column:
    """Return the node of a column with both names quoted."""
    return exp.Column(this=exp.to_identifier(name, quoted=True), table=exp.to_identifier(alias, quoted=True))


def aliased(node: exp.Expr, name: str) -> exp.Alias:
    """Return `node AS "name"`."""
    return exp.Alias(this=node, alias=exp.to_identifier(name, quoted=True))


def table_node(name: str, alias: str) -> exp.Table:
    """Return `"name" AS "alias"`."""
    return exp.Table(
        this=exp.to_identifier(name, quoted=True),
        alias=exp.TableAlias(this=exp.to_identifier(alias, quoted=True)),
    )


def from_items(select: exp.Select) -> Iterator[tuple[exp.Expr, exp.Join | None]]:
    """Yield the items of FROM in order, each with the join that brings it in."""
    if (from_ := select.args.get("from_")) is not None:
        yield from_.this, None
    for join in select.args.get("joins") or ():
        yield join.this, join
