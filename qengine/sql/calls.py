"""Function calls: scalar functions, aggregates and windows, as the function table says."""

from __future__ import annotations

from sqlglot import exp

from qengine.catalog.types import BIGINT, DOUBLE, INTEGER, NULL, VARCHAR, SqlType, to_adql
from qengine.errors import QueryTypeError, UnknownNameError, UnsupportedQueryError
from qengine.sql.coercion import widened
from qengine.sql.expressions import Expressions
from qengine.sql.functions import FUNCTIONS, Function, Role, known_names
from qengine.sql.geometry import geometry_call
from qengine.sql.nodes import cast, is_null, number, number_of, type_of, typed, unit_of, with_unit
from qengine.sql.spans import nearest

_AGGREGATE_NODES: dict[str, type[exp.Expr]] = {
    "COUNT": exp.Count, "SUM": exp.Sum, "AVG": exp.Avg, "MIN": exp.Min, "MAX": exp.Max, "STDDEV": exp.Stddev,
    "STDDEV_POP": exp.StddevPop, "STDDEV_SAMP": exp.StddevSamp, "VARIANCE": exp.Variance, "VAR_POP": exp.VariancePop,
    "VAR_SAMP": exp.Variance,
}  # fmt: skip


def bind_call(binder: Expressions, node: exp.Anonymous) -> exp.Expr:
    """Bind a call that is not followed by OVER."""
    function = _function(binder, node)
    if function.role is Role.GEOMETRY:
        return geometry_call(binder, node)
    if function.role is Role.WINDOW:
        raise binder.error(QueryTypeError, node, f"{function.name} needs OVER (..)")
    if function.role is Role.AGGREGATE:
        return _finished(function, bind_aggregate(binder, node, function, where=None))
    return _scalar(binder, node, function)


def _function(binder: Expressions, node: exp.Anonymous) -> Function:
    name = node.name.upper()
    function = None if isinstance(node.this, exp.Identifier) else FUNCTIONS.get(name)
    if function is None or (function.is_extension and binder.language.is_strict):
        hint = nearest(name, known_names(extensions=not binder.language.is_strict))
        raise binder.error(UnknownNameError, node, f"there is no function {node.name}", hint)
    if function.role is not Role.GEOMETRY and not function.takes(len(node.expressions)):
        count = len(node.expressions)
        raise binder.error(QueryTypeError, node, f"{name} takes {function.arity} arguments, not {count}")
    if function.is_extension:
        binder.context.extension(f"function {name}")
    return function


# -- scalar functions ---------------------------------------------------------------------------------------------------------


def _scalar(binder: Expressions, node: exp.Anonymous, function: Function) -> exp.Expr:
    if function.name == "IN_UNIT":
        raise binder.error(UnsupportedQueryError, node, "IN_UNIT is not supported", "multiply with the factor")
    arguments = _arguments(binder, node, function)
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
    if result is None:
        result = next((type_of(argument) for argument in arguments if not is_null(argument)), NULL)
    bound: exp.Expr = typed(exp.Anonymous(this=target, expressions=arguments), result)
    if function.name == "SIGN":
        bound = cast(typed(bound, SqlType("TINYINT")), result)
    return with_unit(bound, unit)


def _arguments(binder: Expressions, node: exp.Anonymous, function: Function) -> list[exp.Expr]:
    kinds = list(function.arguments)
    kinds += [kinds[-1]] * (len(node.expressions) - len(kinds)) if kinds else []
    bound = []
    for part, kind in zip(node.expressions, kinds, strict=False):
        if isinstance(part, (exp.Star, exp.Distinct)):
            raise binder.error(QueryTypeError, part, f"{function.name} takes values")
        bound.append(_argument(binder, part, kind, function))
    if "same" in kinds:
        _, bound = binder.unify(bound, node)
    return bound


def _argument(binder: Expressions, node: exp.Expr, kind: str, function: Function) -> exp.Expr:
    value = binder.value(node)
    found = type_of(value)
    if found.is_geometry:
        raise binder.error(QueryTypeError, node, f"{function.name} does not take a geometry")
    if kind in ("any", "same"):
        return value
    if is_null(value):
        return cast(value, {"text": VARCHAR, "integer": INTEGER}.get(kind, DOUBLE))
    if kind == "text":
        if not found.is_text:
            raise binder.error(QueryTypeError, node, f"{function.name} takes a text here, not {to_adql(found)}")
        return value
    number_type = widened(found)
    if number_type is None or (kind == "integer" and not number_type.is_integer):
        wanted = "an integer" if kind == "integer" else "a number"
        raise binder.error(QueryTypeError, node, f"{function.name} takes {wanted} here, not {to_adql(found)}")
    if kind == "double":
        return cast(value, DOUBLE)
    if kind == "integer":
        return cast(value, INTEGER) if number_type != BIGINT or number_of(value) is None else value
    return value if found.is_float else cast(value, number_type)


# -- aggregates ---------------------------------------------------------------------------------------------------------------


def bind_aggregate(binder: Expressions, node: exp.Anonymous, function: Function, *, where: exp.Expr | None) -> exp.Expr:
    """Bind an aggregate call; `where` is the parsed condition of FILTER. The call is marked, its type not yet final."""
    clause = binder.clause
    if not clause.takes_aggregates:
        hint = "use HAVING" if clause.name == "WHERE" else ""
        raise binder.error(QueryTypeError, node, f"{function.name} cannot stand in {clause.name}", hint)
    if clause.depth:
        raise binder.error(QueryTypeError, node, f"{function.name} cannot stand inside another aggregate")
    clause.aggregates += 1
    clause.depth += 1
    condition = binder.condition(where) if where is not None else None
    first = node.expressions[0]
    is_distinct = isinstance(first, exp.Distinct)
    if isinstance(first, exp.Star):
        if function.name != "COUNT":
            raise binder.error(QueryTypeError, node, f"{function.name}(*) has no meaning", "only COUNT takes *")
        if condition is None:
            argument: exp.Expr = exp.Star()
        else:
            argument = number(1)
    else:
        parts = first.expressions if is_distinct else [first]
        if len(parts) != 1:
            raise binder.error(UnsupportedQueryError, node, "DISTINCT over several values is not supported here")
        argument = _argument(binder, parts[0], function.arguments[0], function)
        argument = _countable(binder, argument, function, parts[0])
    others = [
        _argument(binder, part, kind, function) for part, kind in zip(node.expressions[1:], function.arguments[1:], strict=False)
    ]
    fraction = number_of(others[0]) if others else None
    if function.name == "QUANTILE" and not (fraction is not None and 0 <= fraction <= 1):
        raise binder.error(QueryTypeError, node, "the fraction of QUANTILE is a number from 0 to 1")
    clause.depth -= 1
    _check_home(binder, node, argument)
    if condition is not None:
        argument = typed(exp.Case(ifs=[exp.If(this=condition, true=argument)]), type_of(argument))
    if is_distinct:
        argument = exp.Distinct(expressions=[argument])
    kind = _AGGREGATE_NODES.get(function.name)
    bound = kind(this=argument) if kind else exp.Anonymous(this=function.target, expressions=[argument, *others])
    bound.meta["aggregate"] = True
    value = argument.expressions[0] if is_distinct else argument
    result = function.result or (type_of(value) if not isinstance(value, exp.Star) else BIGINT)
    if function.unit == "=":
        with_unit(bound, unit_of(_subject(value)))
    if function.name in ("MIN", "MAX"):
        for key in ("ucd", "utype", "description"):
            if key in _subject(value).meta:
                bound.meta[key] = _subject(value).meta[key]
    return typed(bound, result)


def _subject(value: exp.Expr) -> exp.Expr:
    return value.args["ifs"][0].args["true"] if isinstance(value, exp.Case) and len(value.args["ifs"]) == 1 else value


def _countable(binder: Expressions, argument: exp.Expr, function: Function, node: exp.Expr) -> exp.Expr:
    """Booleans are summed and compared as 0 and 1; extremes need an order."""
    kind = type_of(argument)
    if kind.is_boolean and function.name in ("MIN", "MAX", "SUM", "AVG"):
        return cast(argument, INTEGER)
    if function.name in ("MIN", "MAX") and (kind.name.endswith("[]") or kind.name == "BLOB"):
        raise binder.error(QueryTypeError, node, f"{function.name} does not take {to_adql(kind)}")
    if is_null(argument):
        return cast(argument, DOUBLE if function.name != "COUNT" else INTEGER)
    return argument


def _check_home(binder: Expressions, node: exp.Expr, argument: exp.Expr) -> None:
    """An aggregate over columns of an outer block only would belong to that block: refuse it."""
    own = binder.scope.aliases()
    names = {found.table for found in argument.find_all(exp.Column)} if not isinstance(argument, exp.Star) else set()
    if names and not names & own:
        raise binder.error(UnsupportedQueryError, node, "an aggregate over columns of the outer query is not supported")


def _finished(function: Function, bound: exp.Expr) -> exp.Expr:
    """SUM of integers is BIGINT and overflow an error: DuckDB sums in HUGEINT, so the cast decides."""
    kind = type_of(bound)
    if function.name == "SUM":
        if kind.is_integer:
            return cast(typed(bound, SqlType("HUGEINT")), BIGINT)
        return typed(bound, DOUBLE) if kind.is_float else cast(typed(bound, SqlType("DECIMAL")), DOUBLE)
    return bound


# -- windows ------------------------------------------------------------------------------------------------------------------


def bind_window(binder: Expressions, node: exp.Window) -> exp.Expr:
    """Bind `f(..) [FILTER (..)] OVER (..)`, and a FILTER without OVER, which becomes a CASE inside the aggregate."""
    body, where = node.this, None
    if isinstance(body, exp.Filter):
        body, where = body.this, body.expression.this
    if not isinstance(body, exp.Anonymous):
        raise binder.error(UnsupportedQueryError, node, "this form of a window function is not supported")
    function = _function(binder, body)
    is_window = node.args.get("over") is not None
    if where is not None and function.role is not Role.AGGREGATE:
        raise binder.error(QueryTypeError, node, f"FILTER belongs to aggregates, {function.name} is none")
    if not is_window:
        return _finished(function, bind_aggregate(binder, body, function, where=where))
    if not binder.clause.takes_windows:
        raise binder.error(QueryTypeError, node, f"a window function cannot stand in {binder.clause.name}", "use a sub-query")
    if function.role is Role.AGGREGATE:
        call = _windowed_aggregate(binder, body, function, where)
    elif function.role is Role.WINDOW:
        arguments = _arguments(binder, body, function)
        call = typed(exp.Anonymous(this=function.target, expressions=arguments), function.result or type_of(arguments[0]))
        if function.unit == "=":
            with_unit(call, unit_of(arguments[0]))
    else:
        raise binder.error(QueryTypeError, node, f"{function.name} is not a window function")
    binder.clause.windows += 1
    order = node.args.get("order")
    bound = exp.Window(
        this=call,
        partition_by=[binder.value(part) for part in node.args.get("partition_by") or []],
        order=exp.Order(expressions=[ordered(binder.value(item.this), item) for item in order.expressions]) if order else None,
        spec=_frame(binder, node.args.get("spec")),
        over="OVER",
    )
    result = with_unit(typed(bound, type_of(call)), unit_of(call))
    return _finished(function, result)


def _windowed_aggregate(binder: Expressions, body: exp.Anonymous, function: Function, where: exp.Expr | None) -> exp.Expr:
    """A windowed aggregate does not make its block an aggregated one; aggregates inside it do (`SUM(COUNT(*)) OVER ()`)."""
    clause = binder.clause
    before, takes, clause.takes_aggregates = clause.aggregates, clause.takes_aggregates, True
    nested = [part for argument in body.expressions for part in argument.find_all(exp.Anonymous) if _is_aggregate(part)]
    if nested:
        raise binder.error(UnsupportedQueryError, body, "an aggregate inside a window function is not supported", "use a sub-query")
    call = bind_aggregate(binder, body, function, where=where)
    call.meta.pop("aggregate")
    clause.aggregates, clause.takes_aggregates = before, takes
    return call


def _is_aggregate(node: exp.Anonymous) -> bool:
    function = FUNCTIONS.get(node.name.upper())
    return function is not None and function.role is Role.AGGREGATE


def _frame(binder: Expressions, spec: exp.Expr | None) -> exp.Expr | None:
    if spec is None:
        return None
    sides = {}
    for key in ("start", "end"):
        side = spec.args.get(key)
        if isinstance(side, exp.Expr):
            value = number_of(binder.value(side))
            if not isinstance(value, int):
                raise binder.error(QueryTypeError, side, "the reach of a window frame is a whole number")
            side = number(value)
        sides[key] = side
    kind = str(spec.args.get("kind"))
    return exp.WindowSpec(kind=kind, start_side=spec.args.get("start_side"), end_side=spec.args.get("end_side"), **sides)


def ordered(node: exp.Expr, item: exp.Ordered) -> exp.Ordered:
    """Return an ORDER BY item: NULLs last in both directions, unless the statement says NULLS FIRST."""
    if isinstance(node, (exp.Literal, exp.Neg)) and not type_of(node).is_text:
        node = typed(exp.Cast(this=node, to=exp.DataType(this=exp.DType.DOUBLE)), DOUBLE)
    return exp.Ordered(this=node, desc=bool(item.args.get("desc")), nulls_first=bool(item.args.get("nulls_first")))
