"""Aggregates and window functions.

Some aggregates are written in terms of those of ADQL, because these are computed in the tiles and merged: COUNT_IF counts a CASE,
BOOL_AND and BOOL_OR are the least and the greatest of 0 and 1, ANY_VALUE is the least. FILTER becomes a CASE inside the aggregate,
except for LIST, which keeps NULLs.

An answer must not depend on how a table is cut. So aggregates that go by the order of rows get one: what ORDER BY inside the
parentheses says, and then the order of the values.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlglot import exp

from qengine.catalog.types import BIGINT, BOOLEAN, DOUBLE, FLOAT, INTEGER, SqlType, to_adql
from qengine.errors import QueryTypeError, UnsupportedQueryError
from qengine.sql.arguments import bind_argument, find_function
from qengine.sql.expressions import Expressions
from qengine.sql.functions import FUNCTIONS, Function, Role
from qengine.sql.nodes import call, cast, is_null, number, number_of, type_of, typed, unit_of, with_unit

_NODES: dict[str, type[exp.Expr]] = {
    "COUNT": exp.Count, "SUM": exp.Sum, "AVG": exp.Avg, "MIN": exp.Min, "MAX": exp.Max, "STDDEV": exp.Stddev,
    "STDDEV_POP": exp.StddevPop, "STDDEV_SAMP": exp.StddevSamp, "VARIANCE": exp.Variance, "VAR_POP": exp.VariancePop,
    "VAR_SAMP": exp.Variance, "COUNT_IF": exp.Count, "BOOL_AND": exp.Min, "BOOL_OR": exp.Max, "ANY_VALUE": exp.Min,
}  # fmt: skip
_ORDERED = ("string_agg", "list", "mode", "arg_min", "arg_max")
_ORDERABLE = ("string_agg", "list")
_FRACTIONS = ("quantile_cont", "quantile_disc", "approx_quantile")
_HISTOGRAM = "qe_bin"
_MOST_BINS = 10_000


@dataclass(frozen=True, slots=True)
class _Call:
    """The parts of a call of an aggregate as written."""

    values: list[exp.Expr]
    order: list[exp.Ordered]
    is_distinct: bool


def bind_aggregate(binder: Expressions, node: exp.Expr, function: Function, *, where: exp.Expr | None) -> exp.Expr:
    """Bind an aggregate call (or one with WITHIN GROUP); `where` is the parsed condition of FILTER.

    The call is marked as an aggregate; `finished` gives it its final type.
    """
    clause = binder.clause
    if not clause.takes_aggregates:
        hint = "conditions on aggregates stand after HAVING, or in a query around this one" if clause.name == "WHERE" else ""
        raise binder.error(QueryTypeError, node, f"{function.name} cannot stand in {clause.name}", hint)
    if clause.depth:
        hint = "compute the inner one in a sub-query"
        raise binder.error(QueryTypeError, node, f"{function.name} cannot stand inside another aggregate", hint)
    clause.aggregates += 1
    clause.depth += 1
    condition = binder.condition(where) if where is not None else None
    written = _taken_apart(binder, node, function)
    bound = _bound(binder, node, function, written, condition)
    clause.depth -= 1
    return bound


def _bound(binder: Expressions, node: exp.Expr, function: Function, written: _Call, condition: exp.Expr | None) -> exp.Expr:
    first = written.values[0]
    if isinstance(first, exp.Star):
        if function.name != "COUNT":
            raise binder.error(QueryTypeError, node, f"{function.name}(*) has no meaning", "only COUNT takes *")
        argument: exp.Expr = exp.Star() if condition is None else number(1)
    else:
        argument = _value(binder, function, first)
    others = [
        bind_argument(binder, part, kind, function)[0]
        for part, kind in zip(written.values[1:], function.arguments[1:], strict=False)
    ]
    others = _constants(binder, node, function, others)
    _check_home(binder, node, argument)
    order = _order(binder, node, function, written, argument)
    keeps_nulls = function.target == "list"
    value = argument
    if function.target == _HISTOGRAM:
        argument, others = typed(call(_HISTOGRAM, argument, *others), INTEGER), []
    if condition is not None and not keeps_nulls:
        argument = typed(exp.Case(ifs=[exp.If(this=condition, true=argument)]), type_of(argument))
    if written.is_distinct:
        argument = exp.Distinct(expressions=[argument])
    kind = _NODES.get(function.name)
    if kind is not None:
        bound: exp.Expr = kind(this=argument)
    else:
        parts = [argument, *others]
        if order:
            parts[-1] = exp.Order(this=parts[-1], expressions=order)
        bound = exp.Anonymous(this="histogram" if function.target == _HISTOGRAM else function.target, expressions=parts)
    if condition is not None and keeps_nulls:
        bound = exp.Filter(this=bound, expression=exp.Where(this=condition))
    bound.meta["aggregate"] = True
    if function.unit == "=":
        with_unit(bound, unit_of(value))
    if function.name in ("MIN", "MAX"):
        for key in ("ucd", "utype", "description", "system"):
            if key in value.meta:
                bound.meta[key] = value.meta[key]
    return typed(bound, _result(function, value))


def _result(function: Function, value: exp.Expr) -> SqlType:
    if isinstance(value, exp.Star):
        return BIGINT
    if function.result is None:
        return type_of(value)
    if function.result.name == "list":
        return SqlType(f"{type_of(value).name}[]")
    return function.result


def _taken_apart(binder: Expressions, node: exp.Expr, function: Function) -> _Call:
    if isinstance(node, exp.WithinGroup):
        return _within_group(binder, node, function)
    parts, order = list(node.expressions), []
    if parts and isinstance(parts[-1], exp.Order):
        order, parts[-1] = list(parts[-1].expressions), parts[-1].this
    is_distinct = bool(parts) and isinstance(parts[0], exp.Distinct)
    if is_distinct:
        parts = [*parts[0].expressions, *parts[1:]]
        if not function.takes(len(parts)):
            hint = "write SELECT COUNT(*) FROM (SELECT DISTINCT a, b FROM ..) AS q"
            raise binder.error(UnsupportedQueryError, node, "DISTINCT over several values is not supported here", hint)
    if order and function.target not in _ORDERABLE:
        raise binder.error(QueryTypeError, node, f"{function.name} does not depend on the order of rows: it takes no ORDER BY")
    return _Call(parts, order, is_distinct)


def _within_group(binder: Expressions, node: exp.WithinGroup, function: Function) -> _Call:
    body, order = node.this, node.expression
    if function.name not in ("PERCENTILE_CONT", "PERCENTILE_DISC", "MODE") or not isinstance(order, exp.Order):
        hint = "PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY x)"
        raise binder.error(QueryTypeError, node, f"{function.name} takes no WITHIN GROUP", hint)
    wanted = 0 if function.name == "MODE" else 1
    if len(order.expressions) != 1 or len(body.expressions) != wanted:
        message = f"{function.name} .. WITHIN GROUP takes {wanted} arguments and one ORDER BY term"
        raise binder.error(QueryTypeError, node, message)
    term, parts = order.expressions[0], list(body.expressions)
    if parts and term.args.get("desc"):
        # DuckDB counts a negative fraction from the greatest value downwards
        parts = [exp.Neg(this=parts[0].copy())]
    return _Call([term.this, *parts], [], is_distinct=False)


def _constants(binder: Expressions, node: exp.Expr, function: Function, others: list[exp.Expr]) -> list[exp.Expr]:
    """Check the arguments that are the same for all rows; scisql's per cent become a fraction."""
    if function.target in _FRACTIONS:
        least, most = (0, 100) if function.name == "scisql_percentile" else (0, 1)
        fraction = number_of(others[0])
        is_descending = isinstance(node, exp.WithinGroup)
        if fraction is None or not (least <= fraction <= most or (is_descending and -most <= fraction <= 0)):
            raise binder.error(QueryTypeError, node, f"the fraction of {function.name} is a number from {least} to {most}")
        share = number(float(fraction) / most)
        return [cast(share, FLOAT) if function.target == "approx_quantile" else share]
    if function.target == _HISTOGRAM:
        low, high, bins = (number_of(other) for other in others)
        if low is None or high is None or not low < high or not isinstance(bins, int) or not 1 <= bins <= _MOST_BINS:
            message = f"{function.name} takes two numbers, the first less than the second, and a number of bins up to {_MOST_BINS}"
            raise binder.error(QueryTypeError, node, message)
    return others


def _order(binder: Expressions, node: exp.Expr, function: Function, written: _Call, value: exp.Expr) -> list[exp.Ordered]:
    if function.target not in _ORDERED:
        return []
    found = []
    for item in written.order:
        term = binder.value(item.this)
        if written.is_distinct and term != value:
            raise binder.error(QueryTypeError, item, "with DISTINCT the values can be ordered by themselves only")
        found.append(ordered(term, item))
    if not written.order or (found[-1].this != value and not written.is_distinct):
        found.append(exp.Ordered(this=value.copy(), desc=False, nulls_first=False))
    return found


def _value(binder: Expressions, function: Function, node: exp.Expr) -> exp.Expr:
    """Bind the first argument: booleans are summed and compared as 0 and 1; extremes need an order."""
    (argument,) = bind_argument(binder, node, function.arguments[0], function)
    if function.name == "COUNT_IF":
        return typed(exp.Case(ifs=[exp.If(this=argument, true=number(1))]), INTEGER)
    if function.name in ("BOOL_AND", "BOOL_OR"):
        return cast(argument, INTEGER)
    kind = type_of(argument)
    if kind.is_boolean and function.name in ("MIN", "MAX", "SUM", "AVG"):
        return cast(argument, INTEGER)
    if function.name in ("MIN", "MAX", "ANY_VALUE") and (kind.name.endswith("[]") or kind.name == "BLOB"):
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


def finished(function: Function, bound: exp.Expr) -> exp.Expr:
    """Return the call with its final type. SUM of integers is BIGINT and overflow an error: DuckDB sums in HUGEINT, so the cast
    decides."""
    kind = type_of(bound)
    if function.name == "SUM":
        if kind.is_integer:
            return cast(typed(bound, SqlType("HUGEINT")), BIGINT)
        return typed(bound, DOUBLE) if kind.is_float else cast(typed(bound, SqlType("DECIMAL")), DOUBLE)
    if function.name in ("BOOL_AND", "BOOL_OR"):
        return cast(typed(bound, INTEGER), BOOLEAN)
    if function.name == "REGR_COUNT":
        return cast(typed(bound, SqlType("UINTEGER")), BIGINT)
    if function.target == _HISTOGRAM:
        found = next(part for part in bound.walk() if isinstance(part, exp.Anonymous) and part.this == "histogram")
        bins = next(part for part in found.find_all(exp.Anonymous) if part.this == _HISTOGRAM).expressions[3]
        return typed(call("qe_counts", bound, bins.copy()), SqlType("BIGINT[]"))
    return bound


# -- windows ------------------------------------------------------------------------------------------------------------------


def bind_window(binder: Expressions, node: exp.Window) -> exp.Expr:
    """Bind `f(..) [WITHIN GROUP (..)] [FILTER (..)] [OVER (..)]`."""
    body, where = node.this, None
    if isinstance(body, exp.Filter):
        body, where = body.this, body.expression.this
    named = body.this if isinstance(body, exp.WithinGroup) else body
    if not isinstance(named, exp.Anonymous):
        raise binder.error(UnsupportedQueryError, node, "this form of a window function is not supported")
    function = find_function(binder, named, is_counted=not isinstance(body, exp.WithinGroup))
    is_window = node.args.get("over") is not None
    if function.role is not Role.AGGREGATE and (where is not None or body is not named):
        word = "FILTER" if where is not None else "WITHIN GROUP"
        raise binder.error(QueryTypeError, node, f"{word} belongs to aggregates, {function.name} is none")
    if not is_window:
        return finished(function, bind_aggregate(binder, body, function, where=where))
    if not binder.clause.takes_windows:
        hint = "write the condition after QUALIFY" if binder.clause.name == "WHERE" else "use a sub-query"
        raise binder.error(QueryTypeError, node, f"a window function cannot stand in {binder.clause.name}", hint)
    if function.role is Role.AGGREGATE:
        bound_call = _windowed_aggregate(binder, body, function, where)
    elif function.role is Role.WINDOW:
        arguments = [
            value
            for part, kind in zip(named.expressions, function.arguments, strict=False)
            for value in bind_argument(binder, part, kind, function)
        ]
        result = function.result or type_of(arguments[0])
        bound_call = typed(exp.Anonymous(this=function.target, expressions=arguments), result)
        if function.unit == "=":
            with_unit(bound_call, unit_of(arguments[0]))
    else:
        raise binder.error(QueryTypeError, node, f"{function.name} is not a window function")
    binder.clause.windows += 1
    order = node.args.get("order")
    bound = exp.Window(
        this=bound_call,
        partition_by=[binder.value(part) for part in node.args.get("partition_by") or []],
        order=exp.Order(expressions=[ordered(binder.value(item.this), item) for item in order.expressions]) if order else None,
        spec=_frame(binder, node.args.get("spec")),
        over="OVER",
    )
    return finished(function, with_unit(typed(bound, type_of(bound_call)), unit_of(bound_call)))


def _windowed_aggregate(binder: Expressions, body: exp.Expr, function: Function, where: exp.Expr | None) -> exp.Expr:
    """A windowed aggregate does not make its block an aggregated one; aggregates inside it do (`SUM(COUNT(*)) OVER ()`)."""
    clause = binder.clause
    before, takes, clause.takes_aggregates = clause.aggregates, clause.takes_aggregates, True
    named = body.this if isinstance(body, exp.WithinGroup) else body
    nested = [part for argument in named.expressions for part in argument.find_all(exp.Anonymous) if _is_aggregate(part)]
    if nested:
        raise binder.error(UnsupportedQueryError, body, "an aggregate inside a window function is not supported", "use a sub-query")
    bound = bind_aggregate(binder, body, function, where=where)
    bound.meta.pop("aggregate")
    clause.aggregates, clause.takes_aggregates = before, takes
    return bound


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
    written = {key: spec.args.get(key) for key in ("start_side", "end_side", "exclude")}
    return exp.WindowSpec(kind=str(spec.args.get("kind")), **written, **sides)


def ordered(node: exp.Expr, item: exp.Ordered) -> exp.Ordered:
    """Return an ORDER BY item: NULLs last in both directions, unless the statement says NULLS FIRST."""
    if isinstance(node, (exp.Literal, exp.Neg)) and not type_of(node).is_text:
        node = typed(exp.Cast(this=node, to=exp.DataType(this=exp.DType.DOUBLE)), DOUBLE)
    return exp.Ordered(this=node, desc=bool(item.args.get("desc")), nulls_first=bool(item.args.get("nulls_first")))
