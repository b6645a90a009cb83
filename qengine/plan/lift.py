"""What station 4 knows of a block: read the facts of one query block out of the bound tree.

Input is a SELECT whose names are resolved; output is a `Block`: relations in join order, the terms of WHERE and ON with the rows
that they speak of, and what planning can use of them: key equalities, sky distances, regions, keys, value ranges. Derived tables
and sub-queries are blocks inside it (`plan.nesting`). Nothing is decided here, and the tree is not changed.

Which rows does a term speak of? A term of WHERE, or of the ON of an inner join, is fulfilled by every row that the block puts
out: its scope is empty. A term in the ON of `LEFT JOIN x` only decides which rows of x match: its scope is x. RIGHT and FULL joins
turn that around. An ASOF join chooses one of the rows that fulfil its ON, so terms of WHERE come after the choice: the terms of its
ON have its scope too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

import numpy as np
from sqlglot import exp

from qengine.catalog.model import Catalog, Table, TableKind, TableSnapshot
from qengine.errors import Span
from qengine.plan import terms
from qengine.plan.edges import Relations, key_edge, key_edges, locality_key, match_edges, resolve, sky_edges
from qengine.plan.locality import Refusal, needs_final, owner_bytes, prove_locality
from qengine.plan.logical import Block, Conjunct, KeyFact, Origin, Place, RangeFact, RegionFact, Relation, ValueFact
from qengine.plan.nesting import gatherings, holders, is_positive, is_repeatable, nested_queries, plain_outputs
from qengine.plan.regions import keys_of, range_of, region_of
from qengine.plan.value_terms import test_of
from qengine.sql.trees import nodes_of

Layouts = frozenset[str]

MAX_LAYOUTS = 3
"""Of how many match tables in a block both layouts are tried."""


def lift_block(select: exp.Select, catalog: Catalog, outer: Relations | None = None, layouts: Layouts | None = None) -> Block:
    """Return the facts of one block. `outer` are the relations of enclosing blocks that it may name.

    `layouts` are the match tables in it (by alias) that are read by their second layout; by default those that serve best.
    """
    if layouts is None and (matches := _match_tables(select, catalog)):
        trials = [frozenset(chosen) for count in range(len(matches) + 1) for chosen in combinations(matches, count)]
        return min((lift_block(select, catalog, outer, trial) for trial in trials), key=_rank)
    enclosing = dict(outer or {})
    seconds = layouts or frozenset()
    relations = _relations(select, catalog, enclosing, seconds)
    visible = {**enclosing, **relations}
    found = tuple(_conjuncts(select, relations))
    obstacle, place = _obstacle(select, relations)
    ties = tuple(key_edges(found, relations, visible))
    return Block(
        relations=relations,
        conjuncts=found,
        key_edges=ties,
        sky_edges=tuple(sky_edges(found, relations, visible)),
        match_edges=tuple(match_edges(found, relations, ties)),
        regions=tuple(_regions(found, relations)),
        keys=tuple(_keys(found, relations)),
        ranges=tuple(_ranges(found, relations)),
        obstacle=obstacle,
        span=place,
        outputs=plain_outputs(select),
        gatherings=gatherings(select),
        nested=nested_queries(select, lambda node, inner: _sub_block(node, inner, catalog, visible, seconds)),
        outer=_outer(select),
        is_repeatable=is_repeatable(select),
        values=tuple(_values(found, relations)),
    )


def _match_tables(select: exp.Select, catalog: Catalog) -> list[str]:
    found = []
    for node in nodes_of(select):
        if isinstance(node, exp.Table) and node.db and (table := catalog.find(node.db, node.name)) and table.other is not None:
            found.append(node.alias_or_name)
    return found[:MAX_LAYOUTS]


def _rank(block: Block) -> tuple[bool, bool, int, float, int]:
    """Order the layouts of a block's match tables: local first, then by keys to look up, margins, and where tasks are cut."""
    proof = prove_locality(block)
    if isinstance(proof, Refusal):
        return True, True, -len(block.keys), 0.0, 0
    return False, needs_final(proof), -len(block.keys), sum(proof.margin_deg.values()), -owner_bytes(block, proof.owner)


# -- relations -------------------------------------------------------------------------------------------


def _relations(select: exp.Select, catalog: Catalog, outer: Relations, layouts: Layouts) -> Relations:
    relations: dict[str, Relation] = {}
    for item, join in terms.from_items(select):
        side = "" if join is None else str(join.args.get("side") or "").upper()
        is_chosen = join is not None and str(join.args.get("method") or "").upper() == "ASOF"
        table = catalog.find(item.db, item.name) if isinstance(item, exp.Table) and item.db else None
        if table is not None and table.other is not None and item.alias_or_name in layouts:
            table = table.other
        query = terms.query_of(item)
        inner = lift_block(query, catalog, {**outer, **relations}, layouts) if isinstance(query, exp.Select) else None
        if side in ("RIGHT", "FULL"):
            for alias, earlier in relations.items():
                relations[alias] = replace(earlier, is_null_supplied=True)
        relations[item.alias_or_name] = Relation(
            alias=item.alias_or_name, table=table, side=side, is_null_supplied=side in ("LEFT", "FULL"), is_chosen=is_chosen,
            inner=inner, is_lateral=inner is not None and bool(inner.outer),
        )  # fmt: skip
    return relations


def _conjuncts(select: exp.Select, relations: Relations) -> Iterator[Conjunct]:
    where = select.args.get("where")
    for node in terms.conjuncts(where.this if where else None):
        yield Conjunct(node=node, aliases=terms.aliases_of(node), scope="")
    is_turned = any(r.side in ("RIGHT", "FULL") for r in relations.values())
    for item, join in terms.from_items(select):
        if join is None:
            continue
        alias = item.alias_or_name
        scope = alias if relations[alias].side or relations[alias].is_chosen or is_turned else ""
        for node in terms.conjuncts(join.args.get("on")):
            yield Conjunct(node=node, aliases=terms.aliases_of(node), scope=scope)


def _obstacle(select: exp.Select, relations: Relations) -> tuple[str, Span | None]:
    if select.args.get("with_"):
        return "WITH", terms.span_of(select)
    for number, (item, join) in enumerate(terms.from_items(select)):
        relation = relations[item.alias_or_name]
        if relation.table is None and relation.inner is None:
            return _unread(item), terms.span_of(item)
        if relation.side == "RIGHT" or (relation.side == "FULL" and number != 1):
            return f"a {relation.side} JOIN", terms.span_of(join)
        if join is not None and str(join.args.get("kind") or "").upper() in ("SEMI", "ANTI"):
            return f"a {join.args['kind']} JOIN", terms.span_of(join)
        if join is not None and (join.args.get("method") or "") and not relation.is_chosen:
            return f"a {join.args['method']} JOIN", terms.span_of(join)
    return "", None


def _unread(item: exp.Expr) -> str:
    alias = item.alias_or_name
    if isinstance(item, exp.Table):
        return f"the common table expression {alias}" if not item.db else f"the unknown table {item.db}.{item.name}"
    return f"the derived table {alias}, which is not one SELECT"


def _outer(select: exp.Select) -> frozenset[str]:
    """Return the aliases that are used inside and defined outside."""
    nodes = nodes_of(select)
    defined = {n.alias_or_name for n in nodes if isinstance(n, (exp.Table, exp.Subquery, exp.Lateral, exp.Values))}
    return frozenset(n.table for n in nodes if isinstance(n, exp.Column) and n.table and n.table not in defined)


# -- sub-queries -----------------------------------------------------------------------------------------


def _sub_block(node: exp.Expr, query: exp.Select, catalog: Catalog, visible: Relations, layouts: Layouts) -> Block:
    """Return the facts of a sub-query. `x IN (SELECT y ..)` looks only for rows with y = x, which is an edge if they are keys."""
    block = lift_block(query, catalog, visible, layouts)
    holder = holders(node)
    if not isinstance(holder, exp.In) or len(query.expressions) != 1:
        return block
    place = terms.plain_column(query.expressions[0].unalias())
    left = locality_key(terms.plain_column(holder.this), {}, visible)
    right = locality_key(place, block.relations)
    edge = key_edge(left, right, "")
    if edge is None or place is None or not all(place in g.places for g in block.gatherings):
        return block
    if not is_positive(holder):
        # The answer is FALSE or NULL, which depends on NULLs that may be anywhere.
        is_null_possible = _may_be_null(terms.plain_column(holder.this), visible) or (
            _may_be_null(place, block.relations) and not _is_kept_not_null(place, block)
        )
        if is_null_possible:
            return block
    return replace(block, key_edges=(*block.key_edges, edge))


def _may_be_null(place: Place | None, relations: Relations) -> bool:
    """Say whether the files may hold a NULL in the column, or a join may put one there."""
    relation = relations.get(place[0]) if place is not None else None
    if relation is None or relation.table is None or relation.is_null_supplied or place is None:
        return True
    return has_nulls(relation.table, place[1])


def has_nulls(table: TableSnapshot, column: str) -> bool:
    """Say whether the statistics leave it possible that the column is NULL in a row."""
    for parts in (table.home, table.orphan):
        stats = parts.stats.get(column)
        if len(parts) and (stats is None or bool(np.any(stats.nulls != 0))):
            return True
    return False


def _is_kept_not_null(place: Place, block: Block) -> bool:
    """Say whether a term of WHERE drops the rows where the column is NULL."""
    for conjunct in block.conjuncts:
        node = terms.bare(conjunct.node)
        if conjunct.scope or not isinstance(node, exp.Not):
            continue
        test = terms.bare(node.this)
        if isinstance(test, exp.Is) and isinstance(test.expression, exp.Null) and terms.plain_column(test.this) == place:
            return True
    return False


# -- facts -----------------------------------------------------------------------------------------------


def _views(alias: str, relation: Relation) -> Iterator[tuple[str, Table]]:
    """Yield (base, table) for a table; for a derived table each table inside whose position it puts out, under the names that it
    gives them."""
    if relation.table is not None:
        yield alias, relation.table.table
        return
    if relation.inner is None:
        return
    names: dict[str, dict[str, str]] = {}
    tables: dict[str, Table] = {}
    for output, place in relation.inner.outputs.items():
        if (origin := resolve(place, relation.inner.relations)) is not None:
            names.setdefault(origin.base, {}).setdefault(origin.column, output)
            tables[origin.base] = origin.table.table
    for base, table in tables.items():
        if table.ra in names[base] and table.dec in names[base]:
            yield base, replace(table, ra=names[base][table.ra], dec=names[base][table.dec])


def _regions(found: tuple[Conjunct, ...], relations: Relations) -> Iterator[RegionFact]:
    for conjunct in found:
        if conjunct.scope or len(conjunct.aliases) != 1:
            continue
        (alias,) = conjunct.aliases
        if (relation := relations.get(alias)) is None:
            continue
        for base, table in _views(alias, relation):
            if (region := region_of(conjunct.node, alias, table)) is not None:
                yield RegionFact(alias=alias, base=base, region=region, is_on_line=table.kind is TableKind.DIRECTOR)


def _keys(found: tuple[Conjunct, ...], relations: Relations) -> Iterator[KeyFact]:
    for conjunct in found:
        if conjunct.scope:
            continue
        places: list[Origin] = []

        def is_key(place: Place, places: list[Origin] = places) -> bool:
            if (origin := locality_key(place, relations)) is not None:
                places.append(origin)
            return origin is not None

        if (hit := keys_of(conjunct.node, is_key)) and len({p.base for p in places}) == 1:
            yield KeyFact(alias=hit[0], base=places[0].base, family=places[0].table.table.family, values=hit[1])


def _ranges(found: tuple[Conjunct, ...], relations: Relations) -> Iterator[RangeFact]:
    """Yield the ranges of columns that derived tables put out; `_values` says more about tables."""
    for conjunct in found:
        if conjunct.scope or (hit := range_of(conjunct.node)) is None:
            continue
        place, low, high = hit
        origin = resolve(place, relations)
        column = origin.table.table.column(origin.column) if origin else None
        if origin is not None and origin.alias != origin.base and column is not None and column.type.is_numeric:
            if column.type.name == "FLOAT":
                # DuckDB compares a FLOAT with an integer after rounding the integer to FLOAT.
                low, high = min(low, _rounded(low)), max(high, _rounded(high))
            yield RangeFact(alias=origin.alias, base=origin.base, column=origin.column, low=low, high=high)


def _values(found: tuple[Conjunct, ...], relations: Relations) -> Iterator[ValueFact]:
    """Yield what statistics can test, for tables of the block itself."""
    for conjunct in found:
        for alias in () if conjunct.scope else conjunct.aliases:
            relation = relations.get(alias)
            if relation is None or relation.table is None or relation.table.inline is not None:
                continue
            if (test := test_of(conjunct.node, alias, relation.table.table)) is not None:
                yield ValueFact(alias=alias, test=test)


def _rounded(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(value))
