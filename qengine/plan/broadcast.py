"""Station 3b: what is small runs first, as a statement of its own; its rows are a replicated table for the rest.

A block whose relations do not all lie together can still run tile by tile when everything but one group of co-located relations is
*small*: the small ones are computed first and given whole to every worker. The same for sub-queries that do not depend on the row
(`IN (SELECT ..)`, `EXISTS`, scalar ones). This module finds such pieces:

    SELECT .. FROM big b JOIN (SELECT key, MAX(x) AS m FROM other GROUP BY key) d ON b.key = d.key
    ->  step b0:  SELECT key, MAX(x) AS m FROM other GROUP BY key
        then:     SELECT .. FROM big b JOIN "qe step".b0 AS d ON b.key = d.key

Both are ordinary SQL. The caller runs the steps (each may have steps of its own), adds their rows to the catalogue as replicated
tables in the schema `STEPS`, folds scalars into constants (`fold`), and asks again until there is nothing left to do. Then the main
statement is planned with the *values* of the small side known: their keys, ranges and positions prune the large one
(`plan.dynamic`).

What is small is an estimate (`plan.estimate`), which only decides speed: a step that turns out too large is given up by the caller,
who names it `forbidden`, and the statement is planned without it.

Which relations become steps? For every relation that could own the rows of the block, those that are not tied to it; the owner that
leaves the least to broadcast is taken, if the block is then proven local. If no owner works, small relations that a large one is
joined with become steps all the same, because their values prune what has to be gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

import pyarrow as pa
from sqlglot import exp

from qengine.catalog.model import NO_PARTS, Catalog, Column, Table, TableKind, TableSnapshot
from qengine.catalog.types import SqlType, to_arrow
from qengine.plan import terms
from qengine.plan.estimate import Estimator, reading
from qengine.plan.lift import lift_block
from qengine.plan.locality import Locality, margins_from, prove_locality
from qengine.plan.logical import STEPS, UNKNOWN, Block
from qengine.plan.nesting import queries_in
from qengine.plan.split import storable
from qengine.sql.trees import find, nodes_of


@dataclass(frozen=True, slots=True, kw_only=True)
class BroadcastLimits:
    """A step is made of what is estimated at `estimated_bytes` or less, and given up when it turns out to be `actual_bytes` or
    more. A piece is only worth a step beside relations that are `least_gain` times larger."""

    estimated_bytes: int = 32 << 20
    actual_bytes: int = 256 << 20
    least_gain: float = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A statement to run first. `name` is its table in the schema `STEPS`; `reason` is for EXPLAIN; `signature` tells the caller's
    `forbidden` which piece it is."""

    name: str
    tree: exp.Query
    columns: tuple[tuple[str, SqlType], ...]
    reason: str
    signature: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """The statement with its steps taken out; without steps it is the statement as it was."""

    tree: exp.Query
    steps: tuple[Step, ...]


def stage(
    tree: exp.Query,
    catalog: Catalog,
    estimator: Estimator,
    *,
    limits: BroadcastLimits,
    forbidden: Collection[str] = (),
    prefix: str = "b",
) -> Staged:
    """Take out the outermost pieces that should run first. Steps are named `prefix` and a number."""
    if _is_plainly_local(tree, catalog):
        return Staged(tree=tree, steps=())
    work = _Staging(catalog, estimator, limits, frozenset(forbidden), prefix)
    result = work.visit(tree.copy(), {})
    return Staged(tree=result, steps=tuple(work.steps)) if work.steps else Staged(tree=tree, steps=())


def step_table(step: Step, rows: pa.Table | None, *, expected_rows: int = 0) -> TableSnapshot:
    """Return a step's rows as a replicated table; without rows, a table of which nothing is known yet, but for a guess how many."""
    schema = pa.schema([(name, to_arrow(found)) for name, found in step.columns])
    table = Table(
        schema=STEPS, name=step.name, kind=TableKind.REPLICATED, line_column="",
        columns=tuple(Column(name=name, type=found) for name, found in step.columns),
    )  # fmt: skip
    return TableSnapshot(
        table=table, number=UNKNOWN if rows is None else 0, home=NO_PARTS, orphan=NO_PARTS, margin=NO_PARTS,
        inline=schema.empty_table() if rows is None else rows, expected_rows=expected_rows,
    )  # fmt: skip


def with_tables(catalog: Catalog, tables: Collection[TableSnapshot]) -> Catalog:
    """Return the catalogue with further tables."""
    return Catalog(tables=(*catalog.tables, *tables))


def _is_plainly_local(tree: exp.Query, catalog: Catalog) -> bool:
    """Say whether the statement is one block that runs tile by tile as it is: most small queries are."""
    if not isinstance(tree, exp.Select) or len(find(tree, exp.Select)) > 1:
        return False
    return not tree.args.get("joins") or isinstance(prove_locality(lift_block(tree, catalog)), Locality)


class _Staging:
    def __init__(
        self, catalog: Catalog, estimator: Estimator, limits: BroadcastLimits, forbidden: frozenset[str], prefix: str
    ) -> None:
        self._catalog = catalog
        self._estimator = estimator
        self._limits = limits
        self._forbidden = forbidden
        self._prefix = prefix
        self.steps: list[Step] = []

    # -- walking ----------------------------------------------------------------------------------------------------------

    def visit(self, query: exp.Query, ctes: dict[str, exp.CTE]) -> exp.Query:
        """Take steps out of the query in place. `ctes` are the common table expressions that it may name."""
        ctes = dict(ctes)
        with_ = query.args.get("with_")
        if with_ is not None:
            for cte in with_.expressions:
                ctes[cte.alias] = cte
        if isinstance(query, exp.Select):
            if self._subqueries(query, ctes):
                return query
            block = lift_block(query, self._catalog)
            if isinstance(prove_locality(block), Locality) and _is_closed(query):
                return query
            if self._relations(query, block, ctes):
                return query
        for part in query.iter_expressions():
            for child in queries_in(part):
                self.visit(child, ctes)
        return query

    # -- sub-queries ------------------------------------------------------------------------------------------------------

    def _subqueries(self, query: exp.Select, ctes: dict[str, exp.CTE]) -> bool:
        """Make steps of the sub-queries in this block's expressions that do not depend on its rows."""
        found = False
        for holder in list(_expression_queries(query)):
            inner = _query_of(holder)
            if not _is_closed(inner) or not _is_repeatable(inner) or not self._is_worth_a_step(inner, ctes):
                continue
            body = inner.copy()
            if isinstance(holder, exp.Exists):
                body = _one_row(body)
            elif isinstance(holder, exp.In):
                body = _values(body)
            reason = {"In": "IN", "Exists": "EXISTS"}.get(type(holder).__name__, "a scalar sub-query")
            step = self._step(body, ctes, reason)
            if step is None or (isinstance(holder, exp.In) and self._size(step) > self._limits.estimated_bytes):
                continue
            inner.replace(_reading(self._take(step)))
            found = True
        return found

    def _size(self, step: Step) -> float:
        return self._estimator.bytes_of(step.tree, step.columns)

    # -- relations --------------------------------------------------------------------------------------------------------

    def _relations(self, query: exp.Select, block: Block, ctes: dict[str, exp.CTE]) -> bool:
        """Make steps of FROM items, so that the block is local, or at least prunes what is gathered."""
        items = {item.alias_or_name: item for item, _ in terms.from_items(query)}
        if len(items) < 2 or not any(r.is_sharded for r in block.relations.values()):
            return False
        sizes: dict[str, tuple[Step, float] | None] = {}

        def candidate(alias: str) -> tuple[Step, float] | None:
            if alias not in sizes:
                sizes[alias] = self._candidate(query, block, items[alias], ctes)
            return sizes[alias]

        best: tuple[float, dict[str, Step]] | None = None
        for owner, relation in block.relations.items():
            if not relation.is_sharded or relation.is_null_supplied:
                continue
            near = margins_from(block, owner)
            others = [a for a, r in block.relations.items() if a not in near and not self._is_everywhere(r.table)]
            chosen = {a: found for a in others if (found := candidate(a)) is not None}
            if not others or len(chosen) < len(others):
                continue
            total = sum(size for _, size in chosen.values())
            if total > self._limits.estimated_bytes or (best is not None and total >= best[0]):
                continue
            steps = {a: step for a, (step, _) in chosen.items()}
            if self._would_be_local(query, steps):
                best = (total, steps)
        chosen_steps = best[1] if best is not None else self._pruning(block, candidate)
        for alias, step in chosen_steps.items():
            items[alias].replace(_step_table_node(self._take(step), alias))
        _drop_unused(query)
        return bool(chosen_steps)

    def _pruning(self, block: Block, candidate: Callable[[str], tuple[Step, float] | None]) -> dict[str, Step]:
        """Return small relations beside large sharded ones that a term ties them to: their values prune."""
        large = {
            a: float(r.table.home.bytes.sum())
            for a, r in block.relations.items() if r.is_sharded and r.table is not None
        }  # fmt: skip
        chosen: dict[str, Step] = {}
        for alias, relation in block.relations.items():
            if self._is_everywhere(relation.table) or (relation.is_null_supplied and relation.side != "LEFT"):
                continue
            partners = {
                other for c in block.conjuncts if alias in c.aliases and len(c.aliases) == 2 and _ties(c.node)
                for other in c.aliases - {alias}
            }  # fmt: skip
            reach = max((large[p] for p in partners if p in large and p not in chosen), default=0.0)
            if reach <= 0:
                continue
            found = candidate(alias)
            if found is not None and found[1] <= self._limits.estimated_bytes and reach > self._limits.least_gain * found[1]:
                chosen[alias] = found[0]
        return chosen

    def _would_be_local(self, query: exp.Select, steps: dict[str, Step]) -> bool:
        trial = query.copy()
        named = {alias: replace(step, name=f"trial{number}") for number, (alias, step) in enumerate(steps.items())}
        for item, _ in list(terms.from_items(trial)):
            if (chosen := named.get(item.alias_or_name)) is not None:
                item.replace(_step_table_node(chosen, item.alias_or_name))
        _drop_unused(trial)
        catalog = with_tables(self._catalog, [step_table(step, None) for step in named.values()])
        return isinstance(prove_locality(lift_block(trial, catalog)), Locality)

    def _candidate(self, query: exp.Select, block: Block, item: exp.Expr, ctes: dict[str, exp.CTE]) -> tuple[Step, float] | None:
        """Return the step that a FROM item would be, and its estimated bytes."""
        alias = item.alias_or_name
        select: exp.Query
        if isinstance(item, exp.Table) and item.db:
            select = reading(query, block, item)
        elif isinstance(item, exp.Table) and item.name in ctes:
            select = ctes[item.name].this.copy()
        elif isinstance(item, exp.Subquery) and isinstance(item.this, exp.Query):
            select = item.this.copy()
        else:
            return None
        if not _is_closed(select) or not _is_repeatable(select):
            return None
        step = self._step(select, ctes, f"the small side {alias}")
        return None if step is None else (step, self._size(step))

    # -- steps ------------------------------------------------------------------------------------------------------------

    def _step(self, body: exp.Query, ctes: dict[str, exp.CTE], reason: str) -> Step | None:
        tree = _with_ctes(body, ctes)
        signature = tree.sql(dialect="duckdb")
        if signature in self._forbidden:
            return None
        names = [(item.alias_or_name, terms.sql_type(item)) for item in tree.selects]
        if any(not name or found is None for name, found in names):
            return None
        columns = tuple((name, storable(found)) for name, found in names)
        return Step(name="", tree=tree, columns=columns, reason=reason, signature=signature)

    def _take(self, step: Step) -> Step:
        named = replace(step, name=f"{self._prefix}{len(self.steps)}")
        self.steps.append(named)
        return named

    def _is_worth_a_step(self, query: exp.Query, ctes: dict[str, exp.CTE]) -> bool:
        """Say whether a step of the query says more than the query itself: it reads stored rows, or a list of VALUES."""
        if query.find(exp.Values) is not None:
            return True
        for node in query.find_all(exp.Table):
            if not node.db:
                if node.name in ctes:
                    return True
                continue
            table = self._catalog.find(node.db, node.name)
            if table is not None and table.inline is None:
                return True
        return False

    @staticmethod
    def _is_everywhere(table: TableSnapshot | None) -> bool:
        return table is not None and (table.inline is not None or not table.table.is_sharded)


# -- trees ------------------------------------------------------------------------------------------------------------


def _expression_queries(query: exp.Select) -> Iterator[exp.Expr]:
    """Yield what holds a sub-query in the block's own expressions: In, Exists, or a scalar Subquery."""
    for key, value in query.args.items():
        if key in ("from_", "with_", "laterals"):
            continue
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, exp.Join):
                part = part.args.get("on")
            if isinstance(part, exp.Expr):
                yield from _holders(part)


def _holders(node: exp.Expr) -> Iterator[exp.Expr]:
    if isinstance(node, exp.Exists) or (isinstance(node, exp.In) and node.args.get("query") is not None):
        yield node
        if isinstance(node, exp.In):
            yield from _holders(node.this)
        return
    if isinstance(node, exp.Subquery) and isinstance(node.this, exp.Query):
        yield node
        return
    if isinstance(node, exp.Query):
        return
    for child in node.iter_expressions():
        yield from _holders(child)


def _query_of(holder: exp.Expr) -> exp.Query:
    query = holder.args["query"].this if isinstance(holder, exp.In) else holder.this
    while isinstance(query, exp.Subquery) and isinstance(query.this, exp.Query):
        query = query.this
    assert isinstance(query, exp.Query)
    return query


def _is_closed(query: exp.Query) -> bool:
    """Say whether the query names columns of its own relations only (aliases are unique in a statement)."""
    own = {t.alias_or_name for t in query.find_all(exp.Table, exp.Subquery)}
    own |= {c.alias for c in query.find_all(exp.Lateral, exp.Unnest, exp.Values) if c.alias}
    return all(c.table in own for c in query.find_all(exp.Column))


def _is_repeatable(query: exp.Query) -> bool:
    return not any(map(terms.is_random, nodes_of(query)))


def _values(query: exp.Query) -> exp.Query:
    """Return a query of the same values, each once: which there are is all that IN asks."""
    if isinstance(query, exp.Select) and query.args.get("limit") is None and query.args.get("offset") is None:
        query.set("order", None)
        if query.args.get("distinct") is None:
            query.set("distinct", exp.Distinct())
    return query


def _one_row(query: exp.Query) -> exp.Query:
    """Return a query that has a row if `query` has one, with one column."""
    if isinstance(query, exp.Select) and not _is_grouped(query):
        query.set("order", None)
        if query.args.get("distinct") is None and query.args.get("limit") is None and query.args.get("offset") is None:
            one = exp.cast(exp.Literal.number(1), "INTEGER")
            one.meta["sql_type"] = storable(SqlType("INTEGER"))
            item = terms.aliased(one, "one")
            query.set("expressions", [item])
            query.set("limit", exp.Limit(expression=exp.Literal.number(1)))
    return query


def _is_grouped(query: exp.Select) -> bool:
    return bool(query.args.get("group") or query.args.get("having") or query.args.get("qualify")) or any(
        n.meta.get("aggregate") or isinstance(n, exp.Window) for n in query.find_all(exp.Expr)
    )


def _with_ctes(body: exp.Query, ctes: dict[str, exp.CTE]) -> exp.Query:
    """Return the query with the common table expressions that it names from outside, those before first."""
    inner = {c.alias for c in body.find_all(exp.CTE)}
    needed: list[str] = []

    def need(tree: exp.Expr) -> None:
        for table in tree.find_all(exp.Table):
            if not table.db and table.name in ctes and table.name not in inner and table.name not in needed:
                need(ctes[table.name].this)
                if table.name not in needed:
                    needed.append(table.name)

    need(body)
    if needed:
        own = body.args.get("with_")
        outer = [ctes[name].copy() for name in needed]
        body.set("with_", exp.With(expressions=[*outer, *(own.expressions if own is not None else ())]))
    return body


def _drop_unused(query: exp.Select) -> None:
    """Take out common table expressions of the block that nothing names any more."""
    with_ = query.args.get("with_")
    if with_ is None:
        return
    kept = list(with_.expressions)
    query.set("with_", None)
    while True:
        named = {t.name for tree in (query, *(cte.this for cte in kept)) for t in tree.find_all(exp.Table) if not t.db}
        if all(cte.alias in named for cte in kept):
            break
        kept = [cte for cte in kept if cte.alias in named]
    query.set("with_", exp.With(expressions=kept) if kept else None)


def _reading(step: Step) -> exp.Select:
    """Return `SELECT <columns> FROM <step>`, typed like the step."""
    alias = f"qe {step.name}"
    items: list[exp.Expr] = []
    for name, found in step.columns:
        node = terms.quoted_column(alias, name)
        node.meta["sql_type"] = found
        item = terms.aliased(node, name)
        item.meta["sql_type"] = found
        items.append(item)
    return exp.Select(expressions=items).from_(_step_table_node(step, alias), copy=False)


def _step_table_node(step: Step, alias: str) -> exp.Table:
    node = terms.table_node(step.name, alias)
    node.set("db", exp.to_identifier(STEPS, quoted=True))
    return node


def _ties(node: exp.Expr) -> bool:
    """Say whether the term ties its two relations by an equality or a distance."""
    node = terms.bare(node)
    if isinstance(node, exp.EQ):
        return terms.plain_column(node.this) is not None and terms.plain_column(node.expression) is not None
    found = terms.bound_below(node)
    return terms.call(node, "qe_in_circle") is not None or (found is not None and terms.call(found[0], "qe_distance") is not None)
