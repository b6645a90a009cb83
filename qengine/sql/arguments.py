"""Finding the function of a call, and binding its arguments to the kinds that the function table says."""

from __future__ import annotations

from sqlglot import exp

from qengine.catalog.types import BIGINT, DOUBLE, INTEGER, POINT, TIMESTAMP, VARCHAR, SqlType, to_adql
from qengine.errors import QueryError, QueryTypeError, UnknownNameError
from qengine.sql.casts import canonical_time
from qengine.sql.coercion import is_temporal, widened
from qengine.sql.expressions import Expressions
from qengine.sql.functions import FUNCTIONS, REFUSED, Function, Role, known_names
from qengine.sql.mistakes import FOREIGN_FUNCTIONS
from qengine.sql.nodes import cast, inner, is_null, number_of, span_of_bound, text_literal, text_of, type_of
from qengine.sql.shapes import shape_of
from qengine.sql.spans import nearest

_NULLS = {
    "text": VARCHAR, "integer": INTEGER, "bigint": BIGINT, "time": TIMESTAMP, "list": SqlType("DOUBLE[]"),
    "numbers": SqlType("DOUBLE[]"),
}  # fmt: skip

_LARGEST = 2**31 - 1


def find_function(binder: Expressions, node: exp.Anonymous, *, is_counted: bool = True) -> Function:
    """Return the function that a call names; raise an error unless the profile has it and it takes so many arguments."""
    name = node.name.upper()
    function = None if isinstance(node.this, exp.Identifier) else FUNCTIONS.get(name)
    if function is None and name in REFUSED and not binder.language.is_strict:
        raise binder.error(
            UnknownNameError, node, f"there is no function {node.name}", f"it is left out on purpose: {REFUSED[name]}"
        )
    if function is None and name in FOREIGN_FUNCTIONS:
        raise binder.error(UnknownNameError, node, f"there is no function {node.name}", FOREIGN_FUNCTIONS[name])
    if function is None or (function.is_extension and binder.language.is_strict):
        hint = nearest(name, known_names(extensions=not binder.language.is_strict))
        raise binder.error(UnknownNameError, node, f"there is no function {node.name}", hint)
    count = sum(len(part.expressions) if isinstance(part, exp.Distinct) else 1 for part in node.expressions)
    if is_counted and function.role is not Role.GEOMETRY and not (function.takes(count) or function.takes(len(node.expressions))):
        hint = f"it is written {' or '.join(function.forms)}"
        raise binder.error(QueryTypeError, node, f"{function.name} takes {function.arity} arguments, not {count}", hint)
    if function.is_extension:
        binder.context.extension(f"function {function.name}")
    return function


def bind_arguments(binder: Expressions, node: exp.Anonymous, function: Function) -> list[exp.Expr]:
    """Bind all arguments of a scalar function."""
    kinds = list(function.arguments)
    kinds += [kinds[-1]] * (len(node.expressions) - len(kinds)) if kinds else []
    bound = []
    for part, kind in zip(node.expressions, kinds, strict=False):
        bound += bind_argument(binder, part, kind, function)
    if "same" in kinds:
        _, bound = binder.unify(bound, node)
    return bound


def bind_argument(binder: Expressions, node: exp.Expr, kind: str, function: Function) -> list[exp.Expr]:
    """Bind one argument; raise `QueryTypeError` if it is not of its kind. A point gives two values, all others one."""
    if isinstance(node, (exp.Star, exp.Distinct, exp.Order)):
        raise binder.error(QueryTypeError, node, f"{function.name} takes values")
    if kind == "boolean" and not isinstance(inner(node), exp.Column):
        return [binder.condition(node)]
    value = binder.value(node)
    found = type_of(value)
    if kind == "point":
        shape = shape_of(value)
        if shape is None or shape.kind != POINT:
            raise _wrong(binder, node, function, "a POINT", found)
        return list(shape.values)
    if found.is_geometry and kind not in ("list", "numbers"):
        raise binder.error(QueryTypeError, node, f"{function.name} does not take a geometry")
    if kind in ("any", "same"):
        return [value]
    if kind == "boolean":
        if not found.is_boolean:
            raise _wrong(binder, node, function, "a condition", found)
        return [value]
    if is_null(value):
        return [cast(value, _NULLS.get(kind, DOUBLE))]
    return [_of_kind(binder, node, value, kind, function)]


def _of_kind(binder: Expressions, node: exp.Expr, value: exp.Expr, kind: str, function: Function) -> exp.Expr:
    found = type_of(value)
    match kind:
        case "text":
            if not found.is_text:
                raise _wrong(binder, node, function, "a text", found)
            return value
        case "word":
            return _word(binder, node, value, function)
        case "time":
            if (text := text_of(value)) is not None:
                return cast(text_literal(canonical_time(text, value), span_of_bound(value)), TIMESTAMP)
            if not is_temporal(found):
                raise _wrong(binder, node, function, "a time", found)
            return cast(value, TIMESTAMP)
        case "list" | "numbers":
            element = found.name[:-2]
            if not found.name.endswith("[]") or (kind == "numbers" and not SqlType(element).is_numeric):
                raise _wrong(binder, node, function, "a list of numbers" if kind == "numbers" else "a list", found)
            return cast(value, SqlType("DOUBLE[]")) if kind == "numbers" else value
        case "struct":
            if not found.name.startswith("STRUCT"):
                raise _wrong(binder, node, function, "a structure", found)
            return value
    number_type = widened(found)
    is_whole = kind in ("integer", "bigint")
    if number_type is None or (is_whole and not number_type.is_integer):
        raise _wrong(binder, node, function, "an integer" if is_whole else "a number", found)
    if kind == "double":
        return cast(value, DOUBLE)
    if kind == "bigint":
        return cast(value, BIGINT)
    if kind == "integer":
        constant = number_of(value)
        if constant is not None and abs(constant) > _LARGEST:
            raise binder.error(QueryTypeError, node, f"{function.name} takes an integer of at most {_LARGEST} here")
        return cast(value, INTEGER) if number_type != BIGINT or constant is None else value
    return value if found.is_float else cast(value, number_type)


def _word(binder: Expressions, node: exp.Expr, value: exp.Expr, function: Function) -> exp.Expr:
    text = text_of(value)
    if text is None:
        raise binder.error(QueryTypeError, node, f"{function.name} takes a text in quotes here")
    if function.words and text.lower() not in function.words:
        known = ", ".join(function.words)
        raise binder.error(QueryTypeError, node, f"{function.name} does not know '{text}'", nearest(text, function.words) or known)
    return text_literal(text.lower() if function.words else text, span_of_bound(value))


def _wrong(binder: Expressions, node: exp.Expr, function: Function, wanted: str, found: SqlType) -> QueryError:
    return binder.error(QueryTypeError, node, f"{function.name} takes {wanted} here, not {to_adql(found)}")
