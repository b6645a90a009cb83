"""Which distances of a leaf the worker's kernel joins on, and the SQL that reads its pairs.

`plan.skyjoin` turns a join on distance into an equi-join in SQL. On a worker the kernel (`execution.skyjoin`) finds the same pairs
several times faster. So in a leaf each relation of such a join becomes a *side*, a SELECT of its own that the worker runs first,
and the leaf's SQL reads the pairs that the kernel makes of two sides (`plan.physical.SkyJoin`). Before

    SELECT a.x, b.y FROM s.t AS a JOIN s.u AS b ON qe_distance(a.ra, a.dec, b.ra, b.dec) < 0.001 WHERE a.x > 3

and after, in the *wide* form, for an inner join that is the only one on distance:

    first:  SELECT a.x AS x, a.ra AS ra, .., CAST(a.ra AS DOUBLE) AS "qe lon", .. FROM s.t AS a WHERE a.x > 3
    second: SELECT b.y AS y, .. FROM s.u AS b
    SELECT p."0 x", p."1 y" FROM "qe pairs 0" AS p
    WHERE qe_distance(p."0 ra", p."0 dec", p."1 ra", p."1 dec") < 0.001 AND p."0 x" > 3

Everything else has the *row* form, in which the second relation is replaced by its rows in pairs, tied to the first's by number:

    SELECT a.x, b.y FROM "qe pairs 0 rows" AS a LEFT JOIN "qe pairs 0" AS b
    ON b."qe row" = a."qe row" AND qe_distance(a.ra, a.dec, b.ra, b.dec) < 0.001

The row form holds wherever the distance is a term that decides about rows of the second relation: in the ON of its own LEFT JOIN,
in WHERE and inner ONs, and in a block inside (EXISTS, NOT EXISTS, LATERAL, a scalar sub-query), where the first relation is of a
block around it: a row of the second that is in no pair with that row of the first does not fulfil the term. All terms stay as
they are, so candidates may be too many.

Where both places are DOUBLE columns and the radius is a number, the kernel also gives the distance, and `qe_distance` of these
columns becomes `p."qe distance"` everywhere: a row of both relations always is a pair.

Positions may be any expressions of one relation each (epochs propagated), the radius a constant or an expression of one of them. A
side is read with the terms that name it alone, also those around a derived table that it is in (`plan.skyabove`). A relation is
the second of one join at most, and then the first of none; where that leaves a distance without a kernel, and nothing else ties
its relations, the whole leaf keeps its grids.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from sqlglot import exp

from qengine.catalog.model import Table, TableKind, TableSnapshot
from qengine.plan import terms
from qengine.plan.physical import DISTANCE_COLUMN, SkyJoin
from qengine.plan.skyabove import terms_above
from qengine.sql.render import render
from qengine.sql.trees import copy_tree, find, nodes_of

MAX_RADIUS_DEG = 30.0
"""Larger circles are left to the grid, which compares all rows then."""

_KEY_TYPES = ("BIGINT", "INTEGER", "SMALLINT", "TINYINT")
_COMPARISONS: dict[type[exp.Expr], str] = {exp.LT: "<", exp.GT: ">", exp.NEQ: "<>"}
_FLIPPED = {"<": ">", ">": "<", "<>": "<>"}
_OFF_LINE = 3.0
"""Computing cells and sorting by them costs as much as a radius this many times larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SkyPairs:
    """A leaf's SELECT, in which the sides still are CTEs over the catalogue's tables, so that whatever binds tables binds
    theirs."""

    tree: exp.Select
    joins: tuple[SkyJoin, ...]

    def take_out(self, bound: exp.Select) -> tuple[exp.Select, tuple[SkyJoin, ...]]:
        """Return the SELECT without the sides, and the joins with the sides' SQL, after the tables of `tree` have been bound."""
        with_ = bound.args["with_"]
        sides = {cte.alias: cte for cte in with_.expressions}
        joins = tuple(
            SkyJoin(
                name=j.name, first=render(sides[j.first].this), second=render(sides[j.second].this), radius_deg=j.radius_deg,
                comparison=j.comparison, is_wide=j.is_wide, has_distance=j.has_distance,
            )
            for j in self.joins
        )  # fmt: skip
        taken = {name for j in self.joins for name in (j.first, j.second)}
        left = [cte for name, cte in sides.items() if name not in taken]
        bound.set("with_", exp.With(expressions=left) if left else None)
        return bound, joins


@dataclass(frozen=True, slots=True)
class _Item:
    """A base table in some FROM of the leaf."""

    alias: str
    node: exp.Table
    join: exp.Join | None
    select: exp.Select

    @property
    def is_left(self) -> bool:
        return self.join is not None and str(self.join.args.get("side") or "").upper() == "LEFT"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edge:
    """A distance that the kernel may join on. `places` are (lon, lat) by alias; `radius` is a number of degrees or (alias,
    expression); `governing` are the terms that decide about the same rows."""

    first: str
    second: str
    places: Mapping[str, tuple[exp.Expr, exp.Expr]]
    radius: float | tuple[str, exp.Expr]
    governing: tuple[exp.Expr, ...]
    is_inner: bool

    @property
    def pair(self) -> frozenset[str]:
        return frozenset((self.first, self.second))


def sky_pairs(
    select: exp.Select, tables: Mapping[str, TableSnapshot], needed: Collection[AbstractSet[str]] = ()
) -> SkyPairs | None:
    """Return the leaf's SELECT over pairs, or None if no distance in it is for the kernel.

    `tables` are the base tables by alias; `needed` are pairs of aliases that a grid would join: if the kernel cannot tie all of
    them, it is not used.
    """
    tree = copy_tree(select)
    items = {item.alias: item for item in _items(tree) if item.alias in tables}
    edges = _chosen(list(_edges(tree, items)))
    if not edges or not all(_is_tied(pair, edges) for pair in needed):
        return None
    is_wide = len(edges) == 1 and edges[0].is_inner
    joins, ctes = [], []
    for number, edge in enumerate(edges):
        comparison, keys = _comparison(edge, tables)
        names = [f"qe side {number} {place}" for place in (0, 1)]
        relation = f"qe pairs {number}"
        has_distance = _is_exact(edge, tables) and _take_distance(tree, edge, relation if is_wide else edge.second)
        for name, alias in zip(names, (edge.first, edge.second), strict=True):
            side = _side(tree, edge, items[alias], tables[alias].table, keys.get(alias))
            ctes.append(exp.CTE(this=side, alias=exp.TableAlias(this=exp.to_identifier(name, quoted=True))))
        joins.append(
            SkyJoin(
                name=relation, first=names[0], second=names[1], comparison=comparison, is_wide=is_wide, has_distance=has_distance,
                radius_deg=0.0 if isinstance(edge.radius, tuple) else edge.radius,
            )
        )  # fmt: skip
    for edge, join in zip(edges, joins, strict=True):
        (_read_wide if is_wide else _read_rows)(tree, items, edge, join)
    with_ = tree.args.get("with_")
    tree.set("with_", exp.With(expressions=[*ctes, *(with_.expressions if with_ else ())]))
    return SkyPairs(tree=tree, joins=tuple(joins))


# -- edges -------------------------------------------------------------------------------------------------------------------------


def _items(tree: exp.Select) -> Iterator[_Item]:
    for select in find(tree, exp.Select):
        for node, join in terms.from_items(select):
            if isinstance(node, exp.Table) and node.db:
                yield _Item(node.alias_or_name, node, join, select)


def _edges(tree: exp.Select, items: Mapping[str, _Item]) -> Iterator[_Edge]:
    for select in find(tree, exp.Select):
        joins = select.args.get("joins") or []
        if any(str(join.args.get("side") or "").upper() in ("RIGHT", "FULL") for join in joins):
            continue
        where = select.args.get("where")
        inner = list(terms.conjuncts(where.this if where else None))
        for join in joins:
            if str(join.args.get("side") or "").upper() == "LEFT":
                on = tuple(terms.conjuncts(join.args.get("on")))
                alias = join.this.alias_or_name
                yield from filter(None, (_turned(edge, alias) for edge in _edges_of(on, items)))
            else:
                inner += terms.conjuncts(join.args.get("on"))
        for edge in _edges_of(tuple(inner), items):
            here = [alias for alias in (edge.first, edge.second) if items[alias].select is select]
            if not here or any(items[alias].is_left for alias in here):
                continue
            turned = edge if len(here) == 2 else _turned(edge, here[0])
            if turned is not None:
                yield turned if len(here) == 1 else _inner(turned)


def _turned(edge: _Edge, second: str) -> _Edge | None:
    """Return the edge with this second relation, or None if it is about others."""
    if second not in edge.pair:
        return None
    (first,) = edge.pair - {second}
    return _Edge(
        first=first, second=second, places=edge.places, radius=edge.radius, governing=edge.governing, is_inner=edge.is_inner
    )


def _inner(edge: _Edge) -> _Edge:
    return _Edge(
        first=edge.first, second=edge.second, places=edge.places, radius=edge.radius, governing=edge.governing, is_inner=True
    )


def _edges_of(governing: tuple[exp.Expr, ...], items: Mapping[str, _Item]) -> Iterator[_Edge]:
    """Read the distances between two base tables among the terms; those that an equality ties are better joined by it."""
    tied = {a for c in governing if isinstance(terms.bare(c), exp.EQ) and len(a := terms.aliases_of(c)) == 2}
    for node in governing:
        if (found := _distance(node)) is None:
            continue
        arguments, limit = found
        sides = [terms.aliases_of(exp.Tuple(expressions=[a.copy() for a in pair])) for pair in (arguments[:2], arguments[2:4])]
        if any(len(side) != 1 for side in sides) or any(map(_is_opaque, (*arguments, limit))):
            continue
        (one,), (two,) = sides
        if one == two or not {one, two} <= items.keys() or frozenset((one, two)) in tied:
            continue
        value, named = terms.number(limit), terms.aliases_of(limit)
        if value is not None and 0 <= value <= MAX_RADIUS_DEG:
            radius: float | tuple[str, exp.Expr] = float(value)
        elif value is None and len(named) == 1 and named <= {one, two}:
            radius = (next(iter(named)), limit)
        else:
            continue
        places = {one: (arguments[0], arguments[1]), two: (arguments[2], arguments[3])}
        yield _Edge(first=one, second=two, places=places, radius=radius, governing=governing, is_inner=False)


def _distance(node: exp.Expr) -> tuple[list[exp.Expr], exp.Expr] | None:
    """Return ([lon, lat, lon, lat], radius) of a term that says that two places are closer than a radius."""
    if arguments := terms.call(node, "qe_in_circle"):
        return arguments[:4], arguments[4]
    if (found := terms.comparison(node)) is None:
        return None
    operator, left, right = found
    if operator in (exp.LT, exp.LTE) and (arguments := terms.call(left, "qe_distance")):
        return arguments, right
    if operator in (exp.GT, exp.GTE) and (arguments := terms.call(right, "qe_distance")):
        return arguments, left
    return None


def _is_opaque(node: exp.Expr) -> bool:
    """Say whether the expression is another query, or may differ from call to call."""
    return any(isinstance(n, (exp.Query, exp.Window, exp.Star)) or terms.is_random(n) for n in nodes_of(node))


def _chosen(edges: Sequence[_Edge]) -> list[_Edge]:
    """Choose edges so that no relation is the second of two joins, or the second of one and the first of another; none, if that
    leaves an inner edge between relations that nothing ties."""
    best: dict[frozenset[str], _Edge] = {}
    for edge in edges:
        known = best.get(edge.pair)
        if known is None or _cost(edge) < _cost(known):
            best[edge.pair] = edge
    degree = {alias: sum(alias in pair for pair in best) for pair in best for alias in pair}
    chosen: list[_Edge] = []
    firsts: set[str] = set()
    seconds: set[str] = set()
    left = []
    for edge in sorted(best.values(), key=lambda e: e.is_inner):
        turned = _turned(edge, edge.first) if edge.is_inner and degree[edge.second] > degree[edge.first] else edge
        assert turned is not None
        options = [turned] if not edge.is_inner else [turned, _turned(turned, turned.first)]
        fitting = [o for o in options if o and o.second not in firsts | seconds and o.first not in seconds]
        if not fitting:
            left.append(edge)
            continue
        chosen.append(fitting[0])
        firsts.add(fitting[0].first)
        seconds.add(fitting[0].second)
    return [] if any(edge.is_inner and not _is_tied(edge.pair, chosen) for edge in left) else chosen


def _cost(edge: _Edge) -> float:
    radius = edge.radius if not isinstance(edge.radius, tuple) else 1e-9
    is_plain = all(isinstance(terms.bare(place), exp.Column) for pair in edge.places.values() for place in pair)
    return max(radius, 1e-9) * (1.0 if is_plain else _OFF_LINE)


def _is_tied(pair: AbstractSet[str], chosen: Sequence[_Edge]) -> bool:
    """Say whether chosen edges lead from one relation of the pair to the other."""
    reached = {next(iter(pair))}
    while more := {alias for e in chosen if e.pair & reached for alias in e.pair} - reached:
        reached |= more
    return pair <= reached


def _comparison(edge: _Edge, tables: Mapping[str, TableSnapshot]) -> tuple[str, Mapping[str, exp.Expr]]:
    """Return how two integer columns of the pair must compare, which the kernel may test first, and the columns by alias."""
    for node in edge.governing:
        found = terms.bare(node)
        if type(found) not in _COMPARISONS:
            continue
        left, right = terms.plain_column(found.this), terms.plain_column(found.expression)
        if left is None or right is None or {left[0], right[0]} != edge.pair:
            continue
        if any((c := tables[a].table.column(name)) is None or c.type.name not in _KEY_TYPES for a, name in (left, right)):
            continue
        operator = _COMPARISONS[type(found)]
        keys = {left[0]: found.this, right[0]: found.expression}
        return operator if left[0] == edge.first else _FLIPPED[operator], keys
    return "", {}


def _is_exact(edge: _Edge, tables: Mapping[str, TableSnapshot]) -> bool:
    """Say whether the kernel reads the very numbers that `qe_distance` would."""
    named = [(alias, terms.plain_column(node)) for alias, place in edge.places.items() for node in place]
    columns = [None if name is None else tables[alias].table.column(name[1]) for alias, name in named]
    return not isinstance(edge.radius, tuple) and all(c is not None and c.type.name == "DOUBLE" for c in columns)


# -- SQL ---------------------------------------------------------------------------------------------------------------------------


def _take_distance(tree: exp.Select, edge: _Edge, relation: str) -> bool:
    """Read the distance of the edge from the pairs wherever it is computed. Return whether it is anywhere."""
    first, second = edge.places[edge.first], edge.places[edge.second]
    found = [
        node for node in find(tree, exp.Anonymous) if terms.call(node, "qe_distance") in ([*first, *second], [*second, *first])
    ]
    for node in found:
        node.replace(terms.quoted_column(relation, DISTANCE_COLUMN))
    return bool(found)


def _side(tree: exp.Select, edge: _Edge, item: _Item, table: Table, key: exp.Expr | None) -> exp.Select:
    """Return the SELECT of one side: all columns of it that the leaf names, and the kernel's."""
    named = dict.fromkeys(c.name for c in find(tree, exp.Column) if c.table == item.alias)
    used = [name for name in named if name != DISTANCE_COLUMN]
    columns: list[exp.Expr] = [terms.aliased(terms.quoted_column(item.alias, name), name) for name in used]
    place = edge.places[item.alias]
    for name, node in zip(("qe lon", "qe lat"), place, strict=True):
        columns.append(terms.aliased(exp.cast(node.copy(), "DOUBLE"), name))
    if _is_on_line(table, place):
        columns.append(terms.aliased(terms.quoted_column(item.alias, table.line_column), "qe line"))
    if key is not None:
        columns.append(terms.aliased(exp.cast(key.copy(), "BIGINT"), "qe key"))
    if isinstance(edge.radius, tuple) and edge.radius[0] == item.alias:
        columns.append(terms.aliased(exp.cast(edge.radius[1].copy(), "DOUBLE"), "qe radius"))
    select = exp.Select(expressions=columns).from_(item.node.copy(), copy=False)
    condition = terms.all_of([*_own_terms(item), *terms_above(item.select, item.alias, table)])
    return select.where(condition, copy=False) if condition is not None else select


def _is_on_line(table: Table, place: tuple[exp.Expr, exp.Expr]) -> bool:
    names = [found[1] for node in place if (found := terms.column(node)) is not None]
    return table.kind is TableKind.DIRECTOR and names == [table.ra, table.dec] and bool(table.line_column)


def _own_terms(item: _Item) -> list[exp.Expr]:
    """Return the terms that name the relation alone and that each of its rows in the join fulfils."""
    if item.is_left:
        assert item.join is not None
        found = list(terms.conjuncts(item.join.args.get("on")))
    else:
        where = item.select.args.get("where")
        found = list(terms.conjuncts(where.this if where else None))
        for join in item.select.args.get("joins") or []:
            if not join.args.get("side"):
                found += terms.conjuncts(join.args.get("on"))
    own = [node for node in found if terms.aliases_of(node) == {item.alias} and not _is_opaque(node)]
    return [node for node in own if all(column.name != DISTANCE_COLUMN for column in find(node, exp.Column))]


def _read_wide(tree: exp.Select, items: Mapping[str, _Item], edge: _Edge, join: SkyJoin) -> None:
    """Put the relation of pairs in the place of the earlier of the two, and rename their columns everywhere."""
    select = items[edge.first].select
    order = [node.alias_or_name for node, _ in terms.from_items(select)]
    earlier, later = sorted((edge.first, edge.second), key=order.index)
    for number, alias in enumerate((edge.first, edge.second)):
        for column in find(tree, exp.Column):
            if column.table == alias:
                column.set("this", exp.to_identifier(f"{number} {column.name}", quoted=True))
                column.set("table", exp.to_identifier(join.name, quoted=True))
    items[earlier].node.replace(terms.table_node(join.name, join.name))
    gone = items[later].join
    assert gone is not None
    select.set("joins", [j for j in select.args["joins"] if j is not gone] or None)
    if (on := gone.args.get("on")) is not None:
        _require(select, on)


def _read_rows(tree: exp.Select, items: Mapping[str, _Item], edge: _Edge, join: SkyJoin) -> None:
    """Read the second relation from the pairs, tied to the first's rows by number."""
    first, second = items[edge.first], items[edge.second]
    if first.node.db and first.node.parent is not None:
        first.node.replace(terms.table_node(join.rows_name, edge.first))
    second.node.replace(terms.table_node(join.name, edge.second))
    numbers = [terms.quoted_column(alias, "qe row") for alias in (edge.second, edge.first)]
    tie = exp.EQ(this=numbers[0], expression=numbers[1])
    if second.is_left and second.join is not None:
        second.join.set("on", exp.and_(tie, second.join.args["on"], copy=False, wrap=True))
    else:
        _require(second.select, tie)


def _require(select: exp.Select, term: exp.Expr) -> None:
    where = select.args.get("where")
    select.set("where", exp.Where(this=exp.and_(term, *([where.this] if where else []), copy=False, wrap=True)))
