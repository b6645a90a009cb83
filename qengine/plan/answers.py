"""COUNT, MIN and MAX from the manifest: what the statistics of a snapshot know exactly needs no row to be read.

A block is answered if it reads one stored table, has neither terms nor groups, and *all* its aggregates are known:

* COUNT(*) and COUNT of a constant: the rows of all parts, those beyond the sky included.
* COUNT(column): the rows less the NULLs, where every part knows its NULLs.
* MIN(column), MAX(column): the smallest and largest bound, where the bounds of every part that has values are values of the column
  (`ColumnStats.is_exact`). A column without any value has NULL for both.

Not known are NULLs of floats in attached files (NaN is NULL there), bounds that were rounded or cut, floats that are zero (its
sign is lost) or infinite, and what has no literal.
"""

from __future__ import annotations

import datetime as dt
import math

import numpy as np
from sqlglot import exp

from qengine.catalog.model import Catalog, ColumnStats, Parts, TableSnapshot
from qengine.catalog.types import SqlType
from qengine.plan import terms
from qengine.plan.logical import UNKNOWN
from qengine.plan.split import limit_of
from qengine.sql.trees import copy_tree, find, nodes_of

_EPOCH = dt.datetime(1970, 1, 1)
_CLAUSES = ("expressions", "from_", "kind", "limit", "order")


def answer_by_manifest(tree: exp.Query, catalog: Catalog) -> exp.Query:
    """`SELECT COUNT(*) AS n, MAX(mag) AS m FROM s.t` -> `SELECT CAST(1000 AS BIGINT) AS n, CAST(24.5e0 AS DOUBLE) AS m`, where the
    snapshot of s.t has 1000 rows and 24.5 is its largest mag."""
    answered = {id(select): found for select in find(tree, exp.Select) if (found := _answers(select, catalog)) is not None}
    if not answered:
        return tree
    selects = [answered.get(id(select)) for select in find(tree, exp.Select)]
    tree = copy_tree(tree)
    for select, values in zip(find(tree, exp.Select), selects, strict=True):
        if values is None:
            continue
        for aggregate, value in zip(_aggregates(select), values, strict=True):
            value.meta.update({key: kept for key, kept in aggregate.meta.items() if key != "aggregate"})
            aggregate.replace(value)
        # One row needs no order, and is within any limit but 0 (`_answers`).
        for clause in ("from_", "order", "limit"):
            select.set(clause, None)
    return tree


def _aggregates(select: exp.Select) -> list[exp.Expr]:
    return [node for item in select.expressions for node in nodes_of(item) if node.meta_get("aggregate")]


def _answers(select: exp.Select, catalog: Catalog) -> list[exp.Expr] | None:
    """Return the values of the block's aggregates, in the order of `_aggregates`; None unless all are known."""
    from_ = select.args.get("from_")
    if from_ is None or any(value for key, value in select.args.items() if key not in _CLAUSES):
        return None
    item = from_.this
    table = catalog.find(item.db, item.name) if isinstance(item, exp.Table) and item.db else None
    limit, _ = limit_of(select)
    if table is None or table.number == UNKNOWN or limit == 0:
        return None
    order = select.args.get("order")
    outputs = [*select.expressions, *(order.expressions if order is not None else ())]
    nodes = [node for output in outputs for node in nodes_of(output)]
    if any(isinstance(node, (exp.Window, exp.Query, exp.Filter, exp.Distinct, exp.Rand)) for node in nodes):
        return None
    aggregates = _aggregates(select)
    inside = {id(column) for node in nodes if node.meta_get("aggregate") for column in find(node, exp.Column)}
    if not aggregates or any(isinstance(node, exp.Column) and id(node) not in inside for node in nodes):
        return None
    found = [_answer(node, item.alias_or_name, table) for node in aggregates]
    known = [value for value in found if value is not None]
    return known if len(known) == len(found) else None


def _answer(node: exp.Expr, alias: str, table: TableSnapshot) -> exp.Expr | None:
    if not isinstance(node, (exp.Count, exp.Min, exp.Max)) or node.expressions:
        return None
    argument = terms.bare(node.this)
    if isinstance(node, exp.Count) and (isinstance(argument, exp.Star) or terms.constant(argument) is not None):
        return _typed(exp.Literal.number(table.rows), "BIGINT")
    if table.inline is not None or not isinstance(argument, exp.Column) or argument.table != alias:
        return None
    column = table.table.column(argument.name)
    if column is None:
        return None
    known = [(parts, parts.stats.get(column.name)) for parts in (table.home, table.orphan) if len(parts) and parts.rows.any()]
    if isinstance(node, exp.Count):
        nulls = _nulls(known)
        return None if nulls is None else _typed(exp.Literal.number(table.rows - nulls), "BIGINT")
    return _extreme(known, column.type, is_max=isinstance(node, exp.Max))


def _nulls(known: list[tuple[Parts, ColumnStats | None]]) -> int | None:
    total = 0
    for _, stats in known:
        if stats is None or (stats.nulls < 0).any():
            return None
        total += int(stats.nulls.sum())
    return total


def _extreme(known: list[tuple[Parts, ColumnStats | None]], found: SqlType, *, is_max: bool) -> exp.Expr | None:
    """Return the largest or smallest value as a literal; None if it is not known."""
    bounds = []
    for parts, stats in known:
        if stats is None:
            return None
        has_values = (stats.nulls < 0) | (stats.nulls < parts.rows)
        is_exact = stats.is_known if stats.is_exact is None else stats.is_known & stats.is_exact
        if stats.is_exact is None and has_values.any():
            return None
        if (has_values & ~is_exact).any():
            return None
        if has_values.any():
            values = (stats.maximum if is_max else stats.minimum)[has_values]
            bounds.append(np.max(values) if is_max else np.min(values))
    if not bounds:
        return _typed(exp.Null(), found.name)
    return _literal(max(bounds) if is_max else min(bounds), found)


def _literal(value: object, found: SqlType) -> exp.Expr | None:
    """Return `CAST(literal AS type)` of a bound; None if there is none that gives exactly this value."""
    node: exp.Expr
    if found.name in ("TIMESTAMP", "DATE") and isinstance(value, (int, np.integer)):
        try:
            instant = _EPOCH + dt.timedelta(microseconds=int(value))
        except OverflowError:
            return None
        text = instant.isoformat(sep=" ") if found.name == "TIMESTAMP" else instant.date().isoformat()
        node = exp.Literal.string(text)
    elif found.is_text and isinstance(value, str):
        if "\0" in value:
            return None
        node = exp.Literal.string(value)
    elif found.is_integer and isinstance(value, (int, np.integer)):
        node = _number(str(abs(int(value))), is_negative=int(value) < 0)
    elif found.is_float and isinstance(value, (float, np.floating)) and math.isfinite(value) and value != 0:
        text = repr(abs(float(value)))
        node = _number(text if "e" in text else f"{text}e0", is_negative=float(value) < 0)
    else:
        return None
    return _typed(node, found.name)


def _number(text: str, *, is_negative: bool) -> exp.Expr:
    node = exp.Literal.number(text)
    return exp.Neg(this=node) if is_negative else node


def _typed(node: exp.Expr, name: str) -> exp.Expr:
    return exp.Cast(this=node, to=terms.named_type(name))
