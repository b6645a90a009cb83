"""Bound tree -> DuckDB text.

Names are always quoted, numbers with a point or an exponent stay DOUBLE (DuckDB reads 12.3 as DECIMAL), NULL order is always
written out, and operands that are operators themselves are put in parentheses, so that a rule may put any expression anywhere.
"""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

from sqlglot import exp
from sqlglot.generators.duckdb import DuckDBGenerator

from qengine.sql.deep import run_deep
from qengine.sql.flat import in_circle_sql, in_moc_sql, in_polygon_sql
from qengine.sql.nodes import number_of, text_of
from qengine.sql.trees import copy_tree, nodes_of

_OPERATORS = (exp.Binary, exp.Unary, exp.Between, exp.In, exp.Case)
_SAFE = (exp.Paren, exp.Dot)


class _Text(DuckDBGenerator):
    TRANSFORMS: ClassVar[Any] = {
        **DuckDBGenerator.TRANSFORMS,
        exp.IntDiv: lambda self, node: self.binary(node, "//"),
    }

    def literal_sql(self, expression: exp.Literal) -> str:
        text = super().literal_sql(expression)
        if not expression.is_string and "." in text and "e" not in text.lower():
            return f"{text}e0"
        return text

    def anonymous_sql(self, expression: exp.Anonymous) -> str:
        name, arguments = str(expression.this).lower(), expression.expressions
        if name == "qe_in_polygon" and isinstance(arguments[2], exp.Array):
            constants = _constants(arguments[2].expressions)
            if constants is not None:
                return in_polygon_sql(self.sql(arguments[0]), self.sql(arguments[1]), constants)
        if name in ("qe_in_moc", "qe_in_cells") and (text := text_of(arguments[-1])) is not None:
            places = ", ".join(self.sql(place) for place in arguments[:-1])
            return in_moc_sql(f"qe_healpix(29, {places})" if name == "qe_in_moc" else f"qe_cell({places}, 29)", text)
        if name == "qe_in_circle" and all(isinstance(place, exp.Column) for place in arguments[:2]):
            constants = _constants(arguments[2:])
            if constants is not None and 0 <= constants[2] <= 90:
                lon0, lat0, radius = constants
                return in_circle_sql(self.sql(arguments[0]), self.sql(arguments[1]), (lon0, lat0, radius))
        return str(super().anonymous_sql(expression))

    def datatype_sql(self, expression: exp.DataType) -> str:
        kind = expression.this
        if isinstance(kind, exp.DType) and not any(value for key, value in expression.args.items() if key != "this"):
            return _type_name(kind)
        return str(super().datatype_sql(expression))

    def cast_sql(self, expression: exp.Cast, safe_prefix: str | None = None) -> str:
        if safe_prefix is None and not any(value for key, value in expression.args.items() if key not in ("this", "to")):
            return f"CAST({self.sql(expression, 'this')} AS {self.sql(expression, 'to')})"
        return str(super().cast_sql(expression, safe_prefix))

    def column_sql(self, expression: exp.Column) -> str:
        name, table = expression.this, expression.args.get("table")
        if isinstance(name, exp.Identifier) and isinstance(table, exp.Identifier) and not expression.args.get("db"):
            return f"{_quoted(table)}.{_quoted(name)}"
        return str(super().column_sql(expression))

    def ordered_sql(self, expression: exp.Ordered) -> str:
        direction = " DESC" if expression.args.get("desc") else " ASC"
        nulls = " NULLS FIRST" if expression.args.get("nulls_first") else " NULLS LAST"
        return f"{self.sql(expression, 'this')}{direction}{nulls}"


@cache
def _type_name(kind: exp.DType) -> str:
    return str(DuckDBGenerator().datatype_sql(exp.DataType(this=kind)))


def _quoted(identifier: exp.Identifier) -> str:
    return '"' + str(identifier.this).replace('"', '""') + '"'


def _constants(nodes: list[exp.Expr]) -> list[float] | None:
    found = [number_of(node) for node in nodes]
    known = [float(value) for value in found if value is not None]
    return known if len(known) == len(found) else None


def render(tree: exp.Expr, *, is_given_up: bool = False) -> str:
    """Return the DuckDB text of a bound tree or of a part of one.

    The tree is not changed, unless the caller gives it up: that saves a copy.
    """
    return run_deep(lambda: _render(tree if is_given_up else copy_tree(tree)))


def _render(copy: exp.Expr) -> str:
    # The generator changes some trees while it writes them, so it gets one of its own.
    for node in nodes_of(copy):
        if isinstance(node, _OPERATORS) and not isinstance(node, _SAFE):
            _protect(node)
    return _Text(identify=True, normalize_functions=False, comments=False).generate(copy, copy=False)


def _protect(node: exp.Expr) -> None:
    """Put operands that are operators themselves into parentheses."""
    for child in list(node.iter_expressions()):
        if _needs_parentheses(node, child):
            key, place = child.arg_key, child.index
            assert key is not None
            node.set(key, exp.Paren(this=child), place)


def _needs_parentheses(parent: exp.Expr, child: exp.Expr) -> bool:
    if not isinstance(child, (exp.Binary, exp.Unary, exp.Between, exp.In)) or isinstance(child, _SAFE):
        return False
    if isinstance(parent, exp.Connector):
        return isinstance(child, exp.Connector) and type(child) is not type(parent)
    if isinstance(parent, (exp.Case, exp.Escape)):
        return False
    return not (isinstance(child, exp.Neg) and isinstance(child.this, exp.Literal) and not isinstance(parent, (exp.Neg, exp.Unary)))
