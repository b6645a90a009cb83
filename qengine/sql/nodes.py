"""Making nodes of the bound tree: typed, with metadata, canonical numbers and casts.

Only plain immutable values go into `meta` (`SqlType`, `Span`, text, booleans): `copy()` copies meta deeply, so a node kept there
would lose its place in the tree.
"""

from __future__ import annotations

import math
from typing import TypeVar

from sqlglot import exp

from qengine.catalog.model import Column
from qengine.catalog.output import OutputColumn
from qengine.catalog.types import BIGINT, BOOLEAN, DOUBLE, HUGEINT, INTEGER, NULL, VARCHAR, SqlType
from qengine.errors import Span

N = TypeVar("N", bound=exp.Expr)

_ABOUT = ("unit", "ucd", "utype", "description", "system")
_DATA_TYPES = {
    "TINYINT": exp.DType.TINYINT, "SMALLINT": exp.DType.SMALLINT, "INTEGER": exp.DType.INT, "BIGINT": exp.DType.BIGINT,
    "HUGEINT": exp.DType.INT128, "FLOAT": exp.DType.FLOAT, "DOUBLE": exp.DType.DOUBLE, "VARCHAR": exp.DType.VARCHAR,
    "BOOLEAN": exp.DType.BOOLEAN, "TIMESTAMP": exp.DType.TIMESTAMP, "DATE": exp.DType.DATE, "BLOB": exp.DType.BLOB,
}  # fmt: skip


def typed(node: N, sql_type: SqlType, span: Span | None = None) -> N:
    """Record the type of a node, and its place in the statement if known."""
    node.meta["sql_type"] = sql_type
    if span is not None:
        node.meta["span"] = span
    return node


def type_of(node: exp.Expr) -> SqlType:
    """Return the type of a bound expression."""
    found: SqlType = node.meta["sql_type"]
    return found


def span_of_bound(node: exp.Expr) -> Span | None:
    found: Span | None = node.meta.get("span")
    return found


def about(node: N, column: Column | OutputColumn) -> N:
    """Record unit, UCD, utype and description of the column that a node is."""
    for key in _ABOUT:
        if value := getattr(column, key):
            node.meta[key] = value
    if isinstance(column, OutputColumn) and column.origin:
        node.meta["origin"] = column.origin
    return node


def unit_of(node: exp.Expr) -> str:
    return str(node.meta.get("unit", ""))


def with_unit(node: N, unit: str) -> N:
    if unit:
        node.meta["unit"] = unit
    return node


def output_column(name: str, node: exp.Expr) -> OutputColumn:
    """Return what a select item is to the outside."""
    known = {key: str(node.meta.get(key, "")) for key in _ABOUT}
    return OutputColumn(name=name, type=type_of(node), origin=node.meta.get("origin", ()), **known)


def quoted(name: str) -> exp.Identifier:
    return exp.Identifier(this=name, quoted=True)


def column(alias: str, name: str) -> exp.Column:
    return exp.Column(this=quoted(name), table=quoted(alias))


def call(name: str, *arguments: exp.Expr) -> exp.Anonymous:
    return exp.Anonymous(this=name, expressions=list(arguments))


def inner(node: exp.Expr) -> exp.Expr:
    """Return the node inside any parentheses."""
    while isinstance(node, exp.Paren):
        node = node.this
    return node


def paren(node: exp.Expr) -> exp.Expr:
    """Put parentheses around an operator, so that it can be an operand of any other."""
    if not isinstance(inner(node), (exp.Binary, exp.Unary, exp.Between, exp.In)) or isinstance(node, exp.Paren):
        return node
    return typed(exp.Paren(this=node), type_of(node), span_of_bound(node))


# -- numbers ------------------------------------------------------------------------------------------------------------------


def number_of(node: exp.Expr) -> int | float | None:
    """Return the value of a number literal, negated or not; None for everything else."""
    node = inner(node)
    if isinstance(node, exp.Neg):
        value = number_of(node.this)
        return None if value is None else -value
    if isinstance(node, exp.Literal) and not node.is_string:
        text = str(node.this)
        return int(text) if text.isdigit() else float(text)
    return None


def number(value: int | float, span: Span | None = None) -> exp.Expr:
    """Return a literal, negated where it must be; integers take the narrowest type from INTEGER on, others are DOUBLE."""
    if isinstance(value, int):
        size = abs(value)
        kind = INTEGER if size < 2**31 else BIGINT if size < 2**63 else HUGEINT if size < 2**127 else DOUBLE
        text = str(size) if kind is not DOUBLE else repr(float(size))
    else:
        kind, text = DOUBLE, repr(abs(value))
    literal = typed(exp.Literal(this=text, is_string=False), kind, span)
    negative = value < 0 or (isinstance(value, float) and math.copysign(1.0, value) < 0)
    return typed(exp.Neg(this=literal), kind, span) if negative else literal


def text_of(node: exp.Expr) -> str | None:
    """Return the value of a text literal; None for everything else."""
    node = inner(node)
    return str(node.this) if isinstance(node, exp.Literal) and node.is_string else None


def text_literal(value: str, span: Span | None = None) -> exp.Literal:
    return typed(exp.Literal(this=value, is_string=True), VARCHAR, span)


def truth(value: bool) -> exp.Boolean:
    return typed(exp.Boolean(this=value), BOOLEAN)


# -- casts --------------------------------------------------------------------------------------------------------------------


def data_type(sql_type: SqlType) -> exp.DataType:
    found = _DATA_TYPES.get(sql_type.name)
    return exp.DataType(this=found) if found else exp.DataType.build(sql_type.name, dialect="duckdb")


def cast(node: exp.Expr, target: SqlType) -> exp.Expr:
    """Return `node` as `target`: itself if it has the type, another literal where that is the same, else a CAST."""
    current = type_of(node)
    if current.name == target.name:
        return node
    value = number_of(node)
    if value is not None and target is DOUBLE:
        return number(float(value), span_of_bound(node))
    if value is not None and isinstance(value, int) and target in (BIGINT, INTEGER) and current is INTEGER and target is INTEGER:
        return node
    result = typed(exp.Cast(this=node, to=data_type(target)), target, span_of_bound(node))
    for key in _ABOUT:
        if key in node.meta:
            result.meta[key] = node.meta[key]
    return result


def is_null(node: exp.Expr) -> bool:
    return type_of(node) == NULL
