"""COUNT(DISTINCT x), COUNT(DISTINCT y) of everything, partition by partition.

The rows of a *counted* leaf (`plan.split`) have a value of x, or one of y, or the partial aggregates of all rows. Equal values are
in one partition, so each partition counts its own, and the counts of all partitions add up; so do the partial aggregates, which
stand in one partition, whose key is NULL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlglot import exp

from qengine.catalog.types import SqlType
from qengine.plan import terms
from qengine.plan.nesting import aggregates_of
from qengine.plan.split import SUM_OF_INTEGERS, counted_value, is_mergeable
from qengine.sql.trees import copy_tree

Halves = tuple[exp.Select, exp.Select]
"""The half of a block for partitions and the half for the final part."""


def counted_columns(select: exp.Select, *, is_apart: bool) -> tuple[str, ...]:
    """Return the columns x of COUNT(DISTINCT x) if the block can be counted partition by partition. `is_apart` says that each value
    stands in rows of its own."""
    found: list[str] = []
    for node in aggregates_of(select):
        if (value := counted_value(node)) is not None and isinstance(value, exp.Column):
            found.append(value.name)
        elif not is_mergeable(node) or (not is_apart and not isinstance(node, (exp.Min, exp.Max))):
            return ()
    values = tuple(dict.fromkeys(found))
    return values if is_apart or len(values) == 1 else ()


def split_counts(select: exp.Select, relation: str, columns: Mapping[str, SqlType]) -> Halves:
    """Return the block's aggregates over one partition, and the block over theirs. Some of them merge partial ones already."""
    parts: dict[exp.Expr, str] = {}
    items: list[exp.Expr] = []

    def merged(node: exp.Expr) -> exp.Expr | None:
        if isinstance(node, exp.Window) or not isinstance(node, exp.AggFunc):
            return None
        if node not in parts:
            parts[node] = f"part {len(parts)}"
            is_integer = isinstance(node, exp.Sum) and isinstance(node.this, exp.Column) and columns[node.this.name].is_integer
            item = exp.Cast(this=copy_tree(node), to=terms.named_type(SUM_OF_INTEGERS.name)) if is_integer else copy_tree(node)
            items.append(terms.aliased(item, parts[node]))
        part = terms.quoted_column(relation, parts[node])
        if isinstance(node, exp.Count):
            total = exp.Coalesce(this=exp.Sum(this=part), expressions=[exp.Literal.number(0)])
            return exp.Cast(this=total, to=terms.named_type("BIGINT"))
        return type(node)(this=part)

    final = copy_tree(select, without=("from_",))
    _replace_below(final, merged)
    middle = exp.Select(expressions=items).from_(copy_tree(select.args["from_"].this), copy=False)
    return middle, final.from_(terms.table_node(relation, relation), copy=False)


def _replace_below(node: exp.Expr, rule: Callable[[exp.Expr], exp.Expr | None]) -> None:
    for child in list(node.iter_expressions()):
        if (replacement := rule(child)) is not None:
            child.replace(replacement)
        else:
            _replace_below(child, rule)
