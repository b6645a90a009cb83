"""Terms of a statement read as tests of one relation's columns.

`test_of` gives what `plan.values` can ask the statistics. What cannot be read is no test; under AND it is left out, under OR
nothing is known of the whole. NOT goes inwards: of a comparison, of BETWEEN, of IN and of IS NULL it is another test, and by De
Morgan (which holds for NULLs too) that of AND and OR.

An open end of a range is moved to the next value of the column's type: the next integer, float, microsecond or text. Comparisons
may round on the way (a FLOAT is compared with an integer as FLOAT, a BIGINT with a DOUBLE as DOUBLE); all rounding is monotone, so
the test rounds as well, and a FLOAT's bounds are widened to its neighbours where the constant is none.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlglot import exp

from qengine.catalog.model import Column, Table
from qengine.catalog.types import SqlType
from qengine.plan import terms
from qengine.plan.values import AllOf, AnyOf, IsNull, NoneOf, OneOf, Test, Value, Within
from qengine.sql.lists import integers_of
from qengine.storage.statistics import text_above

_EPOCH = dt.datetime(1970, 1, 1)
_INSTANT = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?)?")


def test_of(node: exp.Expr, alias: str, table: Table) -> Test | None:
    """Return a test that every row of `alias` fulfils for which the term is TRUE; None if nothing can be said."""
    return _test(node, alias, table, is_not=False)


def _test(node: exp.Expr, alias: str, table: Table, *, is_not: bool) -> Test | None:
    node = terms.bare(node)
    if isinstance(node, exp.Not):
        return _test(node.this, alias, table, is_not=not is_not)
    if isinstance(node, (exp.And, exp.Or)):
        is_and = isinstance(node, exp.And) is not is_not
        branches = terms.conjuncts(node) if isinstance(node, exp.And) else terms.disjuncts(node)
        found = [_test(branch, alias, table, is_not=is_not) for branch in branches]
        known = tuple(test for test in found if test is not None)
        if is_and:
            return (AllOf(known) if len(known) > 1 else known[0]) if known else None
        return AnyOf(known) if len(known) == len(found) else None
    return _leaf(node, alias, table, is_not=is_not)


def _leaf(node: exp.Expr, alias: str, table: Table, *, is_not: bool) -> Test | None:
    if isinstance(node, exp.Is) and isinstance(node.expression, exp.Null):
        place = terms.plain_column(node.this)
        return IsNull(place[1], not is_not) if place is not None and place[0] == alias else None
    if isinstance(node, exp.Boolean):
        return AnyOf(()) if bool(node.this) is is_not else None
    if isinstance(node, exp.Column):
        side = _side(node, alias, table)
        value = 0 if is_not else 1
        return Within(side.name, value, value) if side is not None and side.type.is_boolean else None
    if isinstance(node, exp.Between):
        bounds = [node.args["low"], node.args["high"]]
        if (read := _constants(node.this, bounds, alias, table)) is None:
            return None
        side, (low, high) = read
        if is_not:
            return AnyOf((side.range(None, low, is_open=True), side.range(high, None, is_open=True)))
        return side.range(low, high)
    if isinstance(node, exp.In):
        return _list(node, alias, table, is_not=is_not)
    if isinstance(node, exp.Like) and not node.args.get("negate"):
        return _like(node, alias, table, is_not=is_not)
    return _comparison(node, alias, table, is_not=is_not)


def _list(node: exp.In, alias: str, table: Table, *, is_not: bool) -> Test | None:
    if not node.expressions or node.args.get("query") is not None:
        return None
    read: tuple[_Side, list[Value]] | None
    if (integers := integers_of(node.expressions[0])) is not None:
        side = _side(node.this, alias, table)
        if side is None or _kind(side.type) != "number":
            return None
        read = side, [float(v) if side.is_cast else v for v in integers]
    else:
        known = [e for e in node.expressions if not isinstance(terms.bare(e), exp.Null)]
        if not known or (is_not and len(known) < len(node.expressions)):
            return AnyOf(())  # with a NULL in the list NOT IN is never TRUE
        read = _constants(node.this, known, alias, table)
    if read is None:
        return None
    side, values = read
    return NoneOf(side.name, _sorted(values)) if is_not else OneOf(side.name, side.rounded(values))


_NEGATED: dict[type[exp.Expr], type[exp.Expr]] = {
    exp.LT: exp.GTE, exp.LTE: exp.GT, exp.GT: exp.LTE, exp.GTE: exp.LT, exp.EQ: exp.NEQ, exp.NEQ: exp.EQ,
}  # fmt: skip


def _comparison(node: exp.Expr, alias: str, table: Table, *, is_not: bool) -> Test | None:
    operator = type(node)
    if operator not in _NEGATED:
        return None
    read = _constants(node.this, [node.expression], alias, table)
    if read is None:
        read = _constants(node.expression, [node.this], alias, table)
        operator = terms.FLIPPED.get(operator, operator)
    if read is None:
        return None
    if is_not:
        operator = _NEGATED[operator]
    side, (value,) = read
    if operator is exp.EQ:
        return side.range(value, value)
    if operator is exp.NEQ:
        return NoneOf(side.name, (value,))
    is_open = operator in (exp.LT, exp.GT)
    low, high = (value, None) if operator in (exp.GT, exp.GTE) else (None, value)
    return side.range(low, high, is_open=is_open)


def _like(node: exp.Like, alias: str, table: Table, *, is_not: bool) -> Test | None:
    read = _constants(node.this, [node.expression], alias, table)
    if read is None or not isinstance(read[1][0], str):
        return None
    side, (pattern,) = read
    prefix = re.split("[%_]", str(pattern), maxsplit=1)[0]
    if not prefix or (is_not and pattern != f"{prefix}%"):
        return None
    above = text_above(prefix)
    if is_not:
        return AnyOf((Within(side.name, None, prefix), *(() if above is None else (Within(side.name, above, None),))))
    return Within(side.name, prefix, prefix if pattern == prefix else above)


# -- columns and constants -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Side:
    """The column of a comparison. `is_cast`: it is compared as DOUBLE."""

    name: str
    type: SqlType
    is_cast: bool

    @property
    def is_narrow(self) -> bool:
        return self.type.name == "FLOAT"

    def range(self, low: Value | None, high: Value | None, *, is_open: bool = False) -> Within:
        """Return the range as a test, its open ends moved to the next value."""
        if is_open:
            low = None if low is None else self._next(low, up=True)
            high = None if high is None else self._next(high, up=False)
        if self.is_narrow:
            low = None if low is None else min(low, _float32(low))
            high = None if high is None else max(high, _float32(high))
        return Within(self.name, low, high)

    def rounded(self, values: Sequence[Value]) -> tuple[Value, ...]:
        """Return the values that the column may have where it is equal to one of these."""
        return _sorted([*values, *(_float32(v) for v in values)] if self.is_narrow else values)

    def _next(self, value: Value, *, up: bool) -> Value:
        if isinstance(value, str):
            return f"{value}\0" if up else value
        if self.is_narrow:
            # Between the constant and its neighbours of 32 bits comparisons may round either way.
            near = _float32(value)
            return float(np.nextafter(np.float32(near), np.float32(math.inf if up else -math.inf))) if near == value else value
        if isinstance(value, int) and not self.type.is_float and not self.type.name.startswith("DECIMAL"):
            return value + 1 if up else value - 1
        return math.nextafter(float(value), math.inf if up else -math.inf)


def _constants(node: exp.Expr, values: Sequence[exp.Expr], alias: str, table: Table) -> tuple[_Side, list[Value]] | None:
    """Return the column and the constants that it is compared with, as its statistics have them; None if they are not such."""
    side = _side(node, alias, table)
    if side is None:
        return None
    found = [_constant(value, side) for value in values]
    known = [value for value in found if value is not None]
    if len(known) < len(found):
        return None
    if side.is_cast or any(isinstance(value, float) for value in known):
        # One DOUBLE makes all of the comparison DOUBLE.
        known = [float(value) if isinstance(value, int) else value for value in known]
    return side, known


def _side(node: exp.Expr, alias: str, table: Table) -> _Side | None:
    """Read a column, possibly as DOUBLE; booleans also as a number."""
    node = terms.bare(node)
    is_cast = False
    column: Column | None
    if isinstance(node, exp.Cast):
        inner = terms.bare(node.this)
        column = table.column(inner.name) if isinstance(inner, exp.Column) and inner.table == alias else None
        if column is None or not (_is_number(node) if column.type.is_boolean else _is_double(node) and column.type.is_numeric):
            return None
        is_cast = not column.type.is_boolean
    else:
        column = table.column(node.name) if isinstance(node, exp.Column) and node.table == alias else None
    if column is None or not _kind(column.type):
        return None
    return _Side(column.name, column.type, is_cast)


def _is_double(node: exp.Cast) -> bool:
    return bool(node.to.this == exp.DataType.Type.DOUBLE)


def _is_number(node: exp.Cast) -> bool:
    return node.to.this in (exp.DataType.Type.INT, exp.DataType.Type.BIGINT, exp.DataType.Type.DOUBLE)


def _kind(found: SqlType) -> str:
    if found.is_numeric or found.is_boolean:
        return "number"
    return "text" if found.is_text else "time" if found.name in ("TIMESTAMP", "DATE") else ""


def _constant(node: exp.Expr, side: _Side) -> Value | None:
    node = terms.bare(node)
    match _kind(side.type):
        case "number":
            if isinstance(node, exp.Boolean):
                return int(bool(node.this)) if side.type.is_boolean else None
            value = terms.number(node)
            return None if value is None or math.isnan(value) else value
        case "text":
            return str(node.this) if isinstance(node, exp.Literal) and node.is_string else None
        case _:
            return _instant(node)


def _instant(node: exp.Expr) -> int | None:
    """Return the microseconds of `CAST('2020-01-01 00:00:00' AS TIMESTAMP)`."""
    if not isinstance(node, exp.Cast) or node.to.this not in (exp.DataType.Type.TIMESTAMP, exp.DataType.Type.DATE):
        return None
    text = terms.bare(node.this)
    if not isinstance(text, exp.Literal) or not text.is_string or (match := _INSTANT.fullmatch(str(text.this))) is None:
        return None
    year, month, day, hour, minute, second = (int(group or 0) for group in match.groups()[:6])
    if node.to.this == exp.DataType.Type.DATE:
        hour = minute = second = 0
    try:
        whole = dt.datetime(year, month, day, hour, minute, second) - _EPOCH
    except ValueError:
        return None
    fraction = 0 if node.to.this == exp.DataType.Type.DATE else int((match[7] or "").ljust(6, "0"))
    return (whole.days * 86_400 + whole.seconds) * 1_000_000 + fraction


def _float32(value: Value) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def _sorted(values: Sequence[Value]) -> tuple[Value, ...]:
    return tuple(sorted(set(values)))
