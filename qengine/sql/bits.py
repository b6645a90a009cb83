"""Bit operators: `&`, `|`, `^`, `~`, `<<`, `>>` on integers, as MySQL and so Qserv has them.

Systems differ in which of them binds stronger, so two different ones beside each other need parentheses. `^` is the exclusive or;
in the profile `sql`, where it is DuckDB's, it raises to a power.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlglot import exp

from qengine.catalog.types import BIGINT, DOUBLE, INTEGER, to_adql
from qengine.errors import QueryTypeError
from qengine.sql.coercion import arithmetic_type
from qengine.sql.nodes import call, cast, is_null, paren, type_of, typed

if TYPE_CHECKING:
    from qengine.sql.expressions import Expressions

BITS = (
    exp.BitwiseAnd, exp.BitwiseOr, exp.BitwiseXor, exp.BitwiseLeftShift, exp.BitwiseRightShift, exp.BitwiseNot,
)  # fmt: skip
_SHIFTS = (exp.BitwiseLeftShift, exp.BitwiseRightShift)
_SYMBOLS: dict[type[exp.Expr], str] = {
    exp.BitwiseAnd: "&", exp.BitwiseOr: "|", exp.BitwiseXor: "^", exp.BitwiseLeftShift: "<<", exp.BitwiseRightShift: ">>",
    exp.BitwiseNot: "~",
}  # fmt: skip


def bind_bits(binder: Expressions, node: exp.Expr) -> exp.Expr:
    """Bind one bit operator; raise `QueryTypeError` for operands that are no integers, and where the order is doubtful."""
    symbol = _SYMBOLS[type(node)]
    if isinstance(node, exp.BitwiseXor) and binder.language.has_sql_meaning:
        base, power = (cast(binder.value(side), DOUBLE) for side in (node.this, node.expression))
        return typed(call("pow", base, power), DOUBLE)
    operands = [node.this] if isinstance(node, exp.BitwiseNot) else [node.this, node.expression]
    doubtful = (*BITS, exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod) if isinstance(node, exp.BitwiseXor) else BITS
    for operand in operands:
        if isinstance(operand, doubtful) and type(operand) is not type(node) and not isinstance(operand, exp.BitwiseNot):
            message = f"the order of {symbol} and the operator beside it differs between systems"
            raise binder.error(QueryTypeError, node, message, "put parentheses around what belongs together")
    bound = [binder.value(operand) for operand in operands]
    for operand, value in zip(operands, bound, strict=True):
        if not (type_of(value).is_integer or is_null(value)):
            hint = "POWER(x, y) raises to a power" if symbol == "^" else ""
            raise binder.error(QueryTypeError, operand, f"{symbol} needs integers, not {to_adql(type_of(value))}", hint)
    kind = arithmetic_type(type_of(bound[0]), type_of(bound[-1]))
    if kind is None or not kind.is_integer:
        kind = INTEGER
    if isinstance(node, _SHIFTS):
        kind = BIGINT
    sides = [paren(cast(value, kind)) for value in bound]
    if isinstance(node, exp.BitwiseNot):
        return typed(exp.BitwiseNot(this=sides[0]), kind)
    if isinstance(node, exp.BitwiseXor):
        return typed(call("xor", *sides), kind)
    return typed(type(node)(this=sides[0], expression=sides[1]), kind)
