"""Which terms of the block around a derived table hold for all rows of one relation inside it that can matter.

`plan.unfold` takes a derived table out if it only selects, joins and filters. One with a window stays: the nearest partner of each
row is such a table. Where every window is partitioned by the unique key of a relation, all rows of a partition have the same row of
that relation. So a term about its columns alone keeps or drops partitions whole, and may be tested before the windows are computed:

    SELECT m.x FROM (SELECT a.id, a.x, b.y FROM s.t AS a JOIN s.u AS b ON ..
                     QUALIFY ROW_NUMBER() OVER (PARTITION BY a.id ORDER BY ..) = 1) AS m WHERE m.x > 3 AND m.y < 5

`m.x > 3` may be tested on rows of a. `m.y < 5` may not be tested on rows of b: then another row would be the nearest.
"""

from __future__ import annotations

from sqlglot import exp

from qengine.catalog.model import Table
from qengine.plan import terms
from qengine.plan.physical import DISTANCE_COLUMN
from qengine.sql.trees import copy_tree, find, nodes_of

_OTHER_CLAUSES = ("group", "having", "distinct", "limit", "offset", "fetch")


def terms_above(select: exp.Select, alias: str, table: Table) -> list[exp.Expr]:
    """Return terms of the WHERE around a derived table, about columns of the relation `alias` in its SELECT; empty if it is none,
    or not of this kind."""
    derived = select.parent
    outer = derived.parent_select if isinstance(derived, exp.Subquery) else None
    if derived is None or outer is None or not table.key or not table.is_key_proven:
        return []
    if any(select.args.get(name) for name in _OTHER_CLAUSES):
        return []
    key = (alias, table.key)
    windows = find(select, exp.Window)
    if not windows or not all(key in map(terms.plain_column, window.args.get("partition_by") or []) for window in windows):
        return []
    where = outer.args.get("where")
    items = list(terms.from_items(outer))
    sides = [str(join.args.get("side") or "").upper() for _, join in items if join is not None]
    if where is None or not any(item is derived and _is_kept(join) for item, join in items) or {"RIGHT", "FULL"} & set(sides):
        return []
    outputs = {item.alias_or_name: item.unalias() for item in select.expressions}
    found = []
    for term in terms.conjuncts(where.this):
        if terms.aliases_of(term) == {derived.alias_or_name} and (inner := _inside(term, outputs, alias)) is not None:
            found.append(inner)
    return found


def _is_kept(join: exp.Join | None) -> bool:
    return join is None or not join.args.get("side")


def _inside(term: exp.Expr, outputs: dict[str, exp.Expr], alias: str) -> exp.Expr | None:
    """Return the term over the relation's columns, or None if it is about anything else."""
    if any(isinstance(node, (exp.Query, exp.Window, exp.Star)) or terms.is_random(node) for node in nodes_of(term)):
        return None
    holder = exp.Paren(this=copy_tree(term))
    for column in find(holder, exp.Column):
        found = terms.plain_column(outputs.get(column.name))
        if found is None or found[0] != alias or found[1] == DISTANCE_COLUMN:
            return None
        column.replace(terms.quoted_column(*found))
    return holder
