"""Function calls: scalar functions as the function table says; those with a form of their own are in `special`."""

from __future__ import annotations

from sqlglot import exp

from qengine.catalog.types import DOUBLE, NULL, VARCHAR, SqlType
from qengine.errors import QueryTypeError
from qengine.sql.aggregates import bind_aggregate, bind_window, finished, ordered
from qengine.sql.arguments import bind_arguments, find_function
from qengine.sql.coercion import widened
from qengine.sql.expressions import Expressions
from qengine.sql.functions import Function, Role
from qengine.sql.geometry import geometry_call
from qengine.sql.nodes import cast, is_null, type_of, typed, unit_of, with_unit
from qengine.sql.special import SPECIAL

__all__ = ["bind_call", "bind_window", "ordered"]

_ANY = SqlType("TINYINT")
"""A type that no cast takes for its target: DuckDB's own result type is not looked at."""


def bind_call(binder: Expressions, node: exp.Anonymous) -> exp.Expr:
    """Bind a call that is not followed by OVER."""
    function = find_function(binder, node)
    if function.role is Role.GEOMETRY:
        return geometry_call(binder, node)
    if function.role is Role.WINDOW:
        raise binder.error(QueryTypeError, node, f"{function.name} needs OVER (..)")
    if function.role is Role.AGGREGATE:
        return finished(function, bind_aggregate(binder, node, function, where=None))
    if (special := SPECIAL.get(function.name.upper())) is not None and (found := special(binder, node, function)) is not None:
        return found
    return _scalar(binder, node, function)


def _scalar(binder: Expressions, node: exp.Anonymous, function: Function) -> exp.Expr:
    arguments = bind_arguments(binder, node, function)
    unit = unit_of(arguments[0]) if function.unit == "=" and arguments else function.unit.replace("=", "")
    target, result = function.target, function.result
    if function.name == "RAND":
        arguments = []
    if function.name == "LOG" and binder.language.has_sql_meaning:
        target = "log10"
    if function.name == "MOD":
        kind, arguments = binder.unify(arguments, node)
        result = widened(kind) or DOUBLE
        arguments = [cast(argument, result) for argument in arguments]
    if function.name in ("CONCAT", "CONCAT_WS"):
        arguments = [cast(argument, VARCHAR) for argument in arguments]
    if result is None:
        result = next((type_of(argument) for argument in arguments if not is_null(argument)), NULL)
    elif result.name == "element":
        result = SqlType(type_of(arguments[0]).name[:-2])
    bound: exp.Expr = typed(exp.Anonymous(this=target, expressions=arguments), result)
    if function.needs_cast:
        bound = cast(typed(bound, _ANY), result)
    return with_unit(bound, unit)
