"""The largest value that an expression can have: a bound from constants and from the statistics of a snapshot.

`DISTANCE(a, b) < 3 * a.radius / 3600` needs a margin of three times the largest radius. Interval arithmetic over +, -, * and / by a
constant gives it; a column's smallest and largest value come from its parts' statistics. NULLs never fulfil the comparison, so
they do not matter. What is not known in every part that has values, or is not finite, has no bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from sqlglot import exp

from qengine.catalog.model import TableSnapshot
from qengine.plan import terms
from qengine.plan.logical import Origin, Place

SLACK = 1e-6
"""Relative widening of each step against rounding; FLOATs have seven digits."""


def upper_bound(node: exp.Expr, resolve: Callable[[Place], Origin | None]) -> float | None:
    """Return a number that no value of the expression exceeds, or None. It is not below zero: a negative radius matches nothing."""
    found = _interval(node, resolve)
    if found is None or not math.isfinite(found[1]):
        return None
    return max(found[1], 0.0)


def extremes(table: TableSnapshot, column: str) -> tuple[float, float] | None:
    """Return the smallest and largest value of a numeric column; None if a part does not tell. (0, 0) for no values at all."""
    found = table.table.column(column)
    if found is None or not found.type.is_numeric:
        return None
    low, high = math.inf, -math.inf
    for parts in (table.home, table.orphan):
        if not len(parts):
            continue
        stats = parts.stats.get(column)
        if stats is None or stats.minimum.dtype == object:
            return None
        if bool(np.any(~stats.is_known & (stats.nulls != parts.rows))):
            return None
        if stats.is_known.any():
            low = min(low, float(np.min(stats.minimum[stats.is_known])))
            high = max(high, float(np.max(stats.maximum[stats.is_known])))
    return (0.0, 0.0) if low > high else (low, high)


def _interval(node: exp.Expr, resolve: Callable[[Place], Origin | None]) -> tuple[float, float] | None:
    node = terms.bare(node)
    if (value := terms.number(node)) is not None:
        return float(value), float(value)
    if isinstance(node, exp.Neg):
        inner = _interval(node.this, resolve)
        return None if inner is None else (-inner[1], -inner[0])
    if (place := terms.column(node)) is not None:
        origin = resolve(place)
        return extremes(origin.table, origin.column) if origin is not None else None
    if isinstance(node, exp.Cast) and node.to.this in (exp.DataType.Type.DOUBLE, exp.DataType.Type.FLOAT):
        return _interval(node.this, resolve)
    if not isinstance(node, (exp.Add, exp.Sub, exp.Mul, exp.Div)):
        return None
    one, two = _interval(node.this, resolve), _interval(node.expression, resolve)
    if one is None or two is None:
        return None
    match node:
        case exp.Add():
            return _hull([a + b for a in one for b in two], one, two)
        case exp.Sub():
            return _hull([a - b for a in one for b in two], one, two)
        case exp.Mul():
            return _hull([a * b for a in one for b in two])
    return _hull([a / b for a in one for b in two]) if two[0] == two[1] != 0 else None


def _hull(values: list[float], *operands: tuple[float, float]) -> tuple[float, float] | None:
    """Return the interval of the values, widened by what rounding may do to the largest number in it."""
    if not all(map(math.isfinite, values)):
        return None
    slack = SLACK * max(abs(v) for v in (*values, *(v for operand in operands for v in operand)))
    return min(values) - slack, max(values) + slack
