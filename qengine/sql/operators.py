"""Pure helpers of expressions: folding of constants, widening of operands, units, chains of AND and OR."""

from __future__ import annotations

from sqlglot import exp

from qengine.catalog.types import BIGINT, BOOLEAN, INTEGER, NULL, SqlType
from qengine.sql.coercion import arithmetic_type
from qengine.sql.nodes import cast, inner, number_of, paren, type_of, typed, unit_of

_CHAIN = 16


def plain_query(node: exp.Expr) -> exp.Query:
    """Take a query out of its parentheses where they carry nothing of their own."""
    while isinstance(node, exp.Subquery) and isinstance(node.this, exp.Query):
        if any(node.args.get(key) for key in ("order", "limit", "offset", "with_")):
            break
        node = node.this
    assert isinstance(node, exp.Query)
    return node


def widen(node: exp.Expr, kind: SqlType) -> exp.Expr:
    """Widen an operand where DuckDB would compute in a narrower or another type than `kind`."""
    found = type_of(node)
    if found in (INTEGER, BIGINT) and (kind.is_integer or kind.is_float):
        return node
    if found.name in ("FLOAT", "DOUBLE", "HUGEINT", "NULL"):
        return node if found != NULL else typed(exp.Cast(this=node, to=exp.DataType(this=exp.DType.INT)), INTEGER)
    return cast(node, arithmetic_type(found, NULL) or kind)


def fold(kind: type[exp.Expr], left: int | float | None, right: int | float | None, *, truncates: bool) -> int | float | None:
    if left is None or right is None:
        return None
    try:
        if kind is exp.Add:
            return _small(left + right)
        if kind is exp.Sub:
            return _small(left - right)
        if kind is exp.Mul:
            return _small(left * right)
        if kind in (exp.Div, exp.IntDiv) and right != 0:
            if truncates:
                quotient = abs(int(left)) // abs(int(right))
                return quotient if (left < 0) == (right < 0) else -quotient
            return _small(float(left) / float(right))
    except OverflowError:
        return None
    return None


def _small(value: int | float) -> int | float | None:
    """A folded value that a literal of its kind can hold."""
    if isinstance(value, int):
        return value if abs(value) < 2**63 else None
    return value if abs(value) < float("inf") and value == value else None


def unit_after(kind: type[exp.Expr], left: exp.Expr, right: exp.Expr) -> str:
    """The unit of a sum of equals, and of a product with a pure number; empty where it is not obvious."""
    first, second = unit_of(left), unit_of(right)
    if kind in (exp.Add, exp.Sub):
        return first if first == second else ""
    if kind is exp.Mul and number_of(left) is not None:
        return second
    if kind in (exp.Mul, exp.Div, exp.IntDiv) and number_of(right) is not None:
        return first
    return ""


def terms_of(node: exp.Expr) -> list[exp.Expr]:
    """The operands of a chain of one connector, without recursion; parentheses around the same connector are opened."""
    found, stack = [], [node]
    while stack:
        item = stack.pop()
        bare = inner(item)
        if type(bare) is type(node):
            stack += [bare.expression, bare.this]
        else:
            found.append(item)
    return found


def as_term(node: exp.Expr) -> exp.Expr:
    return paren(node) if isinstance(inner(node), exp.Connector) else node


def balanced(kind: type[exp.Expr], terms: list[exp.Expr]) -> exp.Expr:
    """Join terms: as a chain, or, where there are many, as a flat tree that nothing recurses deeply on."""
    if len(terms) == 1:
        return terms[0]
    cut = len(terms) - 1 if len(terms) <= _CHAIN else len(terms) // 2
    return typed(kind(this=balanced(kind, terms[:cut]), expression=balanced(kind, terms[cut:])), BOOLEAN)
