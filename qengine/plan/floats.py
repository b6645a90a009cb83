"""A rule of station 3: constants beside FLOAT columns become FLOAT constants, so that comparisons reach the files' statistics.

DuckDB compares a FLOAT column with a DOUBLE constant after widening the column, value by value. A widened column is no column: the
comparison skips no row groups, and nobody knows how much it lets through, so that joins are built on the wrong side. But between
two neighbouring FLOATs there is no value that the comparison could tell apart: x > 0.1 holds for a FLOAT x exactly when x > F,
with F the largest FLOAT that is not above 0.1.
"""

from __future__ import annotations

import math

import numpy as np
from sqlglot import exp

from qengine.catalog.model import Catalog
from qengine.catalog.types import DOUBLE, FLOAT
from qengine.plan import terms
from qengine.sql.trees import copy_tree, find, nodes_of

_COMPARISONS = (exp.GT, exp.GTE, exp.LT, exp.LTE, exp.EQ, exp.NEQ)
_EXACT = 2**53
_LARGEST = float(np.finfo(np.float32).max)


def narrow_floats(tree: exp.Query, catalog: Catalog) -> exp.Query:
    """`t.f > 0.1` -> `t.f > CAST(0.09999999403953552 AS FLOAT)`, where the column t.f of a stored table is FLOAT.

    The same for the other comparisons and BETWEEN, written either way round. Both mean the same for every FLOAT and for NULL, so
    this holds anywhere in the statement. Equality with a constant that is no FLOAT stays, and so do integers (DuckDB turns those
    into FLOAT itself) and constants beyond the largest FLOAT.
    """
    if not any(_replacement(node, None) for node in nodes_of(tree)):
        return tree
    tree = copy_tree(tree)
    stored = {t.alias_or_name for t in find(tree, exp.Table) if t.db and _is_stored(t, catalog)}
    for node in nodes_of(tree):
        for old, new in _replacement(node, stored):
            new.meta.update(old.meta)
            new.meta["sql_type"] = FLOAT
            old.replace(new)
    return tree


def _is_stored(table: exp.Table, catalog: Catalog) -> bool:
    found = catalog.find(table.db, table.name)
    return found is not None and found.inline is None


def _replacement(node: exp.Expr, stored: set[str] | None) -> list[tuple[exp.Expr, exp.Expr]]:
    """Return constants of the comparison and what they become; `stored` are the aliases in question (None: any)."""
    if isinstance(node, exp.Between):
        bounds = [node.args["low"], node.args["high"]]
        if not _is_float(node.this, stored) or not any(terms.sql_type(bound) == DOUBLE for bound in bounds):
            return []
        low, high = _narrowed(exp.GTE, bounds[0]), _narrowed(exp.LTE, bounds[1])
        return [(bounds[0], low), (bounds[1], high)] if low is not None and high is not None else []
    if type(node) not in _COMPARISONS:
        return []
    kind, column, constant = type(node), node.this, node.expression
    if _is_float(constant, stored):
        kind, column, constant = terms.FLIPPED.get(kind, kind), constant, column
    if not _is_float(column, stored) or terms.sql_type(constant) != DOUBLE:
        return []
    new = _narrowed(kind, constant)
    return [(constant, new)] if new is not None else []


def _is_float(node: exp.Expr, stored: set[str] | None) -> bool:
    column = terms.bare(node)
    return isinstance(column, exp.Column) and terms.sql_type(column) == FLOAT and (stored is None or column.table in stored)


def _narrowed(kind: type[exp.Expr], constant: exp.Expr) -> exp.Expr | None:
    """Return the FLOAT that a FLOAT must be compared with instead; None if there is none or it need not be."""
    value = terms.number(constant)
    if value is None or abs(value) > (_EXACT if isinstance(value, int) else _LARGEST):
        return None
    nearest = np.float32(value)
    if float(nearest) != value:
        if kind in (exp.EQ, exp.NEQ):
            return None
        is_upper = kind in (exp.GTE, exp.LT)  # x >= c and x < c are about the least FLOAT that is not below c
        if is_upper != (float(nearest) > value):
            nearest = np.nextafter(nearest, np.float32(math.inf if is_upper else -math.inf))
    if not np.isfinite(nearest):
        return None
    size = abs(float(nearest))
    literal: exp.Expr = exp.Literal.number(repr(size) if "e" in repr(size) else f"{size!r}e0")
    if math.copysign(1.0, float(nearest)) < 0:
        literal = exp.Neg(this=literal)
    return exp.Cast(this=literal, to=terms.named_type("FLOAT"))
