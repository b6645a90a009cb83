"""What station 4 knows of a block: read the facts of one query block out of the bound tree.

Input is a SELECT whose names are resolved; output is a `Block`: relations in join order, the terms of WHERE and ON with the rows
that they speak of, and what planning can use of them: key equalities, sky distances, regions, keys, value ranges. Nothing is
decided here, and the tree is not changed.

Which rows does a term speak of? A term of WHERE, or of the ON of an inner join, is fulfilled by every row that the block puts
out: its scope is empty. A term in the ON of `LEFT JOIN x` only decides which rows of x match: its scope is x. RIGHT and FULL joins
turn that around; they are an obstacle to leaf-local execution, and only pushdown looks at such blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from sqlglot import exp

from qengine.catalog.model import Catalog, Table, TableKind
from qengine.errors import Span
from qengine.plan import terms
from qengine.plan.logical import Block, Conjunct, KeyEdge, KeyFact, RangeFact, RegionFact, Relation, SkyEdge
from qengine.plan.regions import keys_of, range_of, region_of
from qengine.sql.trees import find

LEAST_RADIUS_DEG = 1e-9
"""Coincident places need not be in one cell: the rim of a circle has a tolerance, and a pole has many right ascensions."""


def lift_block(select: exp.Select, catalog: Catalog) -> Block:
    """Return the facts of one block."""
    relations = _relations(select, catalog)
    found = tuple(_conjuncts(select, relations))
    tables = {alias: r.table.table for alias, r in relations.items() if r.table is not None}
    obstacle, place = _obstacle(select, relations)
    return Block(
        relations=relations,
        conjuncts=found,
        key_edges=tuple(_key_edges(found, tables)),
        sky_edges=tuple(_sky_edges(found, tables)),
        regions=tuple(_regions(found, tables)),
        keys=tuple(_keys(found, tables)),
        ranges=tuple(_ranges(found, tables)),
        obstacle=obstacle,
        span=place,
    )


def _relations(select: exp.Select, catalog: Catalog) -> Mapping[str, Relation]:
    relations: dict[str, Relation] = {}
    for item, join in terms.from_items(select):
        side = "" if join is None else str(join.args.get("side") or "").upper()
        table = catalog.find(item.db, item.name) if isinstance(item, exp.Table) and item.db else None
        if side in ("RIGHT", "FULL"):
            for alias, earlier in relations.items():
                relations[alias] = Relation(alias=alias, table=earlier.table, side=earlier.side, is_null_supplied=True)
        relations[item.alias_or_name] = Relation(
            alias=item.alias_or_name, table=table, side=side, is_null_supplied=side in ("LEFT", "FULL")
        )
    return relations


def _conjuncts(select: exp.Select, relations: Mapping[str, Relation]) -> Iterator[Conjunct]:
    where = select.args.get("where")
    for node in terms.conjuncts(where.this if where else None):
        yield Conjunct(node=node, aliases=terms.aliases_of(node), scope="")
    is_turned = any(r.side in ("RIGHT", "FULL") for r in relations.values())
    for item, join in terms.from_items(select):
        if join is None:
            continue
        alias = item.alias_or_name
        scope = alias if relations[alias].side or is_turned else ""
        for node in terms.conjuncts(join.args.get("on")):
            yield Conjunct(node=node, aliases=terms.aliases_of(node), scope=scope)


def _obstacle(select: exp.Select, relations: Mapping[str, Relation]) -> tuple[str, Span | None]:
    if select.args.get("with_"):
        return "WITH", terms.span_of(select)
    is_stored = any(r.is_sharded for r in relations.values())
    for item, join in terms.from_items(select):
        if not isinstance(item, exp.Table) or not item.db:
            return f"the derived table {item.alias_or_name}", terms.span_of(item)
        relation = relations[item.alias_or_name]
        if relation.table is None or (relation.table.inline is not None and not is_stored):
            return f"the coordinator's table {item.db}.{item.name}", terms.span_of(item)
        if relation.side in ("RIGHT", "FULL"):
            return f"a {relation.side} JOIN", terms.span_of(join)
    nested = next((n for n in find(select, exp.Query) if n is not select and not isinstance(n, exp.Table)), None)
    if nested is not None:
        return "a sub-query", terms.span_of(nested)
    return "", None


def _locality_key(place: tuple[str, str] | None, tables: Mapping[str, Table]) -> Table | None:
    if place is None or (table := tables.get(place[0])) is None:
        return None
    return table if table.locality_key and table.locality_key == place[1] else None


def _key_edges(found: tuple[Conjunct, ...], tables: Mapping[str, Table]) -> Iterator[KeyEdge]:
    for conjunct in found:
        node = terms.bare(conjunct.node)
        if not isinstance(node, exp.EQ):
            continue
        left, right = terms.plain_column(node.this), terms.plain_column(node.expression)
        one, two = _locality_key(left, tables), _locality_key(right, tables)
        if left and right and one and two and left[0] != right[0] and one.family == two.family:
            yield KeyEdge(left=left[0], right=right[0], scope=conjunct.scope)


def _sky_edges(found: tuple[Conjunct, ...], tables: Mapping[str, Table]) -> Iterator[SkyEdge]:
    for conjunct in found:
        pair = distance_pair(conjunct.node)
        if pair is None:
            continue
        positions, radius = pair
        (left, left_columns), (right, right_columns) = positions
        columns = {left: left_columns, right: right_columns}
        yield SkyEdge(
            left=left, right=right, radius_deg=max(radius, LEAST_RADIUS_DEG), scope=conjunct.scope, node=conjunct.node,
            columns=columns,
            is_on_line=all(alias in tables and _is_on_line(tables[alias], place) for alias, place in columns.items()),
        )  # fmt: skip


def distance_pair(node: exp.Expr) -> tuple[tuple[tuple[str, tuple[str, str]], tuple[str, tuple[str, str]]], float] | None:
    """Read `qe_distance(a.ra, a.dec, b.ra, b.dec) < r` or `qe_in_circle(a.ra, a.dec, b.ra, b.dec, r)` with a constant r.

    Return (((a, (ra, dec)), (b, (ra, dec))), r in degrees), or None.
    """
    if (found := terms.bound_below(node)) and (arguments := terms.call(found[0], "qe_distance")):
        radius: float | int | None = found[1]
    elif arguments := terms.call(node, "qe_in_circle"):
        radius = terms.number(arguments[4])
    else:
        return None
    places = [terms.column(a) for a in arguments[:4]]
    if radius is None or radius < 0:
        return None
    ra1, dec1, ra2, dec2 = places
    if ra1 is None or dec1 is None or ra2 is None or dec2 is None:
        return None
    if ra1[0] != dec1[0] or ra2[0] != dec2[0] or ra1[0] == ra2[0]:
        return None
    return ((ra1[0], (ra1[1], dec1[1])), (ra2[0], (ra2[1], dec2[1]))), float(radius)


def _is_on_line(table: Table, place: tuple[str, str]) -> bool:
    return table.kind is TableKind.DIRECTOR and place == (table.ra, table.dec) and bool(table.line_column)


def _regions(found: tuple[Conjunct, ...], tables: Mapping[str, Table]) -> Iterator[RegionFact]:
    for conjunct in found:
        if conjunct.scope or len(conjunct.aliases) != 1:
            continue
        (alias,) = conjunct.aliases
        table = tables.get(alias)
        if table is not None and (region := region_of(conjunct.node, alias, table)) is not None:
            yield RegionFact(alias=alias, region=region, is_on_line=table.kind is TableKind.DIRECTOR)


def _keys(found: tuple[Conjunct, ...], tables: Mapping[str, Table]) -> Iterator[KeyFact]:
    for conjunct in found:
        if conjunct.scope:
            continue
        if hit := keys_of(conjunct.node, lambda place: _locality_key(place, tables) is not None):
            yield KeyFact(alias=hit[0], family=tables[hit[0]].family, values=hit[1])


def _ranges(found: tuple[Conjunct, ...], tables: Mapping[str, Table]) -> Iterator[RangeFact]:
    for conjunct in found:
        if conjunct.scope or (hit := range_of(conjunct.node)) is None:
            continue
        (alias, name), low, high = hit
        table = tables.get(alias)
        column = table.column(name) if table else None
        if column is not None and column.type.is_numeric:
            if column.type.name == "FLOAT":
                # DuckDB compares a FLOAT with an integer after rounding the integer to FLOAT.
                low, high = min(low, _rounded(low)), max(high, _rounded(high))
            yield RangeFact(alias=alias, column=name, low=low, high=high)


def _rounded(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(value))
