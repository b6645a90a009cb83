"""How many rows a statement gives, guessed before anything runs. Only the choice between plans depends on it, never an answer.

Rows of a table come from the manifest after pruning (regions, keys and ranges leave row groups), times a guess for each further
term: an equality keeps a twentieth, a comparison a quarter, anything else a half. A join of tied relations has the rows of its
larger side, one of untied relations their product; GROUP BY keeps a tenth.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

from qengine.catalog.model import Catalog
from qengine.catalog.types import SqlType
from qengine.plan import terms
from qengine.plan.cost import CostModel, width
from qengine.plan.cut import cut, pushable_terms
from qengine.plan.fragment import fragment
from qengine.plan.lift import lift_block
from qengine.plan.logical import Block
from qengine.plan.regions import region_of
from qengine.plan.split import limit_of
from qengine.sql.lists import integers_of

_GROUPS = 0.1


class Estimator:
    """Guesses sizes over one catalogue."""

    def __init__(self, catalog: Catalog, cost: CostModel) -> None:
        self._catalog = catalog
        self._cost = cost

    def bytes_of(self, tree: exp.Query, columns: Sequence[tuple[str, SqlType]]) -> float:
        """Return the guessed size of the rows of `tree`."""
        return self.rows_of(tree) * sum(width(found) for _, found in columns)

    def rows_of(self, tree: exp.Query) -> float:
        """Return the guessed number of rows of `tree`."""
        return self._rows(tree, {})

    def _rows(self, tree: exp.Query, ctes: dict[str, exp.Query]) -> float:
        with_ = tree.args.get("with_")
        if with_ is not None:
            ctes = {**ctes, **{cte.alias: cte.this for cte in with_.expressions}}
        if isinstance(tree, exp.Subquery):
            rows = self._rows(tree.this, ctes)
        elif isinstance(tree, exp.SetOperation):
            rows = self._rows(tree.left, ctes) + self._rows(tree.right, ctes)
        else:
            assert isinstance(tree, exp.Select)
            rows = self._select_rows(tree, ctes)
        limit, _ = limit_of(tree)
        return rows if limit is None else min(rows, float(limit))

    def _select_rows(self, select: exp.Select, ctes: dict[str, exp.Query]) -> float:
        if select.args.get("group") is None and any(n.meta.get("aggregate") for item in select.expressions for n in item.walk()):
            return 1.0
        block = lift_block(select, self._catalog)
        rows: dict[str, float] = {}
        for item, _ in terms.from_items(select):
            rows[item.alias_or_name] = self._item_rows(select, block, item, ctes)
        tied = {alias for c in block.conjuncts if len(c.aliases) >= 2 for alias in c.aliases}
        total = max((rows[a] for a in rows if a in tied), default=1.0)
        for alias, count in rows.items():
            if alias not in tied:
                total *= max(count, 1.0)
        return max(total * _GROUPS, 1.0) if select.args.get("group") is not None else total

    def _item_rows(self, select: exp.Select, block: Block, item: exp.Expr, ctes: dict[str, exp.Query]) -> float:
        if isinstance(item, exp.Subquery) and isinstance(item.this, exp.Query):
            return self._rows(item.this, ctes)
        if not isinstance(item, exp.Table):
            return 1.0
        if not item.db:
            return self._rows(ctes[item.name], {k: v for k, v in ctes.items() if k != item.name}) if item.name in ctes else 1.0
        table = self._catalog.find(item.db, item.name)
        if table is None or table.inline is not None:
            return float(table.rows) if table is not None else 1.0
        alias = item.alias_or_name
        plan = fragment(cut(reading(select, block, item), self._catalog), {}, (), self._cost)
        rows = float(sum(leaf.estimate.rows for leaf in plan.leaves))
        for fact in block.keys:
            if fact.alias == alias:
                director = self._catalog.find(*fact.family.split(".", 1))
                per_key = table.rows / max(director.rows, 1) if director is not None else 1.0
                rows = min(rows, len(fact.values) * max(per_key, 1.0))
        for term in pushable_terms(block, alias):
            if region_of(term, alias, table.table) is None:
                rows *= _kept(term)
        return rows


def reading(query: exp.Select, block: Block, item: exp.Table) -> exp.Select:
    """Return a SELECT of the columns of a FROM item that the statement uses, and of the rows that its own terms leave."""
    alias = item.alias_or_name
    used: dict[str, exp.Column] = {}
    for node in query.root().find_all(exp.Column):
        if node.table == alias:
            used.setdefault(node.name, node)
    items: list[exp.Expr] = []
    for name, node in used.items():
        found = terms.aliased(node.copy(), name)
        found.meta["sql_type"] = terms.sql_type(node)
        items.append(found)
    if not items:
        one = exp.cast(exp.Literal.number(1), "INTEGER")
        one.meta["sql_type"] = SqlType("INTEGER")
        items = [terms.aliased(one, "one")]
    select = exp.Select(expressions=items).from_(item.copy(), copy=False)
    condition = terms.all_of(pushable_terms(block, alias))
    return select.where(condition, copy=False) if condition is not None else select


def _choices(node: exp.In) -> int:
    if not node.expressions:
        return 1
    return len(integers_of(node.expressions[0]) or node.expressions)


def _kept(term: exp.Expr) -> float:
    node = terms.bare(term)
    if isinstance(node, exp.In):
        return min(1.0, 0.05 * _choices(node)) if node.args.get("query") is None else 0.25
    if isinstance(node, (exp.EQ, exp.Like, exp.ILike, exp.Is)):
        return 0.05
    if isinstance(node, (exp.LT, exp.LTE, exp.GT, exp.GTE, exp.Between)):
        return 0.25
    return 0.5
