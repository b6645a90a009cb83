"""How blocks lie in one another, and what in a block looks at several rows.

A sub-query in an expression is met when the block's own expressions are walked without entering FROM. A block *gathers* where its
answer for one row depends on other rows: GROUP BY, DISTINCT, windows, aggregates, LIMIT. Each gathering has columns that keep rows
apart: two rows that differ in a grouping column never meet in a group. `plan.locality` says which of these columns also keep the
rows of one value in one task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from sqlglot import exp

from qengine.plan import terms
from qengine.plan.logical import Block, Gathering, Nested, Place
from qengine.sql.trees import children_of, nodes_of

_LATE = ("expressions", "group", "having", "qualify", "order", "windows", "distinct")
_STABLE = (
    exp.Count, exp.Sum, exp.Avg, exp.Min, exp.Max, exp.Stddev, exp.StddevSamp, exp.StddevPop, exp.Variance, exp.VariancePop,
    exp.Median, exp.Quantile,
)  # fmt: skip


def own_nodes(node: exp.Expr) -> list[exp.Expr]:
    """Return the node and what is below it, each before what is below it, without going into queries below it."""
    if isinstance(column := node.unalias(), exp.Column):
        return [node] if column is node else [node, column]  # by far most of them; nothing but names is below
    found, pending = [], [node]
    while pending:
        found.append(below := pending.pop())
        children = children_of(below)
        children.reverse()
        pending += [n for n in children if not isinstance(n, exp.Query) or isinstance(n, (exp.Table, exp.Subquery))]
    return found


def own_expressions(select: exp.Select, *, late_only: bool = False) -> Iterator[exp.Expr]:
    """Yield the expressions of a block: of what it puts out (SELECT, GROUP BY, ..), and of WHERE and ON unless `late_only`."""
    for clause in _LATE:
        value = select.args.get(clause)
        yield from (v for v in (value if isinstance(value, list) else [value]) if isinstance(v, exp.Expr))
    if late_only:
        return
    if (where := select.args.get("where")) is not None:
        yield where.this
    for join in select.args.get("joins") or ():
        if (on := join.args.get("on")) is not None:
            yield on


def queries_in(node: exp.Expr) -> list[exp.Query]:
    """Return the outermost queries in an expression, from left to right."""
    found: list[exp.Query] = []
    pending = [] if isinstance(node.unalias(), exp.Column) else [node]
    while pending:
        below = pending.pop()
        if isinstance(below, (exp.Select, exp.SetOperation)):
            found.append(below)
            continue
        children = children_of(below)
        children.reverse()
        pending += children
    return found


def nested_queries(select: exp.Select, lift: Callable[[exp.Expr, exp.Select], Block]) -> tuple[Nested, ...]:
    """Return the sub-queries in the block's expressions."""
    late = {id(query) for node in own_expressions(select, late_only=True) for query in queries_in(node)}
    found = []
    for node in own_expressions(select):
        for query in queries_in(node):
            block = lift(query, query) if isinstance(query, exp.Select) else None
            is_early = id(query) not in late or _is_aggregated(query, select)
            found.append(Nested(node=query, block=block, is_early=is_early, span=terms.span_of(query)))
    return tuple(found)


def _is_aggregated(query: exp.Expr, select: exp.Select) -> bool:
    """Say whether the sub-query stands in the argument of an aggregate, which is computed where rows are made."""
    parent = query.parent
    while parent is not None and parent is not select:
        if parent.meta_get("aggregate") and not isinstance(parent.parent, exp.Window):
            return True
        parent = parent.parent
    return False


def holders(query: exp.Expr) -> exp.Expr | None:
    """Return the expression that uses the sub-query: In, Exists, a comparison, ..."""
    parent = query.parent
    while isinstance(parent, (exp.Subquery, exp.Paren)):
        parent = parent.parent
    if isinstance(parent, exp.In):
        # The sub-query may also be the left side.
        held = parent.args.get("query")
        return parent if held is not None and any(n is query for n in held.walk()) else None
    return parent


def is_positive(node: exp.Expr) -> bool:
    """Say whether FALSE and NULL of this condition mean the same: it stands in WHERE or ON under AND and OR only."""
    parent = node.parent
    while isinstance(parent, (exp.And, exp.Or, exp.Paren)):
        parent = parent.parent
    return isinstance(parent, (exp.Where, exp.Join))


def plain_outputs(select: exp.Select) -> Mapping[str, Place]:
    """Return the output columns that are plain columns. Those of ROLLUP and the like may be NULL instead and are none."""
    if not has_plain_groups(select):
        return {}
    return {item.alias_or_name: place for item in select.expressions if (place := terms.plain_column(item.unalias())) is not None}


def has_plain_groups(select: exp.Select) -> bool:
    """Say whether GROUP BY, if there is one, is a list of expressions."""
    group = select.args.get("group")
    return group is None or not any(value for key, value in group.args.items() if key != "expressions")


def is_windowed(node: exp.Expr) -> bool:
    """Say whether an aggregate is that of a window."""
    parent = node.parent
    while isinstance(parent, (exp.Filter, exp.IgnoreNulls, exp.RespectNulls, exp.WithinGroup)):
        parent = parent.parent
    return isinstance(parent, exp.Window) and parent.this is not None and node in parent.this.walk()


def aggregates_of(select: exp.Select) -> list[exp.Expr]:
    """Return the block's own aggregates, without those of windows and of sub-queries."""
    nodes = (n for e in own_expressions(select, late_only=True) for n in own_nodes(e))
    return [n for n in nodes if n.meta_get("aggregate") and not is_windowed(n)]


def windows_of(select: exp.Select) -> list[exp.Window]:
    """Return the block's own windows."""
    return [n for e in own_expressions(select, late_only=True) for n in own_nodes(e) if isinstance(n, exp.Window)]


def gatherings(select: exp.Select) -> tuple[Gathering, ...]:
    """Return what in the block looks at several rows."""
    found = []
    group = select.args.get("group")
    if group is not None:
        keys = group.expressions if has_plain_groups(select) else []
        found.append(Gathering(kind="GROUP BY", places=_places(keys)))
    elif select.args.get("having") is not None or aggregates_of(select):
        found.append(Gathering(kind="an aggregate", places=frozenset()))
    for window in windows_of(select):
        named = window.args.get("alias") is not None
        found.append(Gathering(kind="a window", places=frozenset() if named else _places(window.args.get("partition_by") or [])))
    if (distinct := select.args.get("distinct")) is not None:
        on = distinct.args.get("on")
        chosen = on.expressions if on is not None else [item.unalias() for item in select.expressions]
        found.append(Gathering(kind="DISTINCT", places=_places(chosen)))
    if select.args.get("limit") is not None or select.args.get("offset") is not None:
        found.append(Gathering(kind="LIMIT", places=frozenset()))
    return tuple(found)


def _places(nodes: list[exp.Expr]) -> frozenset[Place]:
    return frozenset(place for node in nodes if (place := terms.plain_column(node)) is not None)


def is_repeatable(select: exp.Select) -> bool:
    """Say whether the block gives the same rows each time that it runs."""
    for node in nodes_of(select):
        if isinstance(node, (exp.Window, exp.Limit, exp.Offset)) or terms.is_random(node):
            return False
        if isinstance(node, exp.Distinct) and node.args.get("on") is not None:
            return False
        if node.meta_get("aggregate") and not isinstance(node, _STABLE):
            return False
    return True
