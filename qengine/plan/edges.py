"""Which terms of a block tie its relations together on the line: equal keys, small distances, pairs of a match table.

A column of a derived table that is a plain column inside it stands for that column: `d.id = f.id` where d is
`(SELECT o.objectId AS id, .. FROM Object o ..)` is an equality of the keys of o and f, and so an edge between d and f. `resolve`
follows such columns down.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from sqlglot import exp

from qengine.catalog.model import Match, TableKind
from qengine.plan import terms
from qengine.plan.logical import Conjunct, KeyEdge, MatchEdge, Origin, Place, Relation, SkyEdge
from qengine.plan.radius import upper_bound

LEAST_RADIUS_DEG = 1e-9
"""Coincident places need not be in one cell: the rim of a circle has a tolerance, and a pole has many right ascensions."""

MAX_SEPARATION_DEG = 1.0
"""A match table with a wider pair ties nothing: most of the sky would be in every margin."""

Relations = Mapping[str, Relation]


def resolve(place: Place | None, relations: Relations, outer: Relations | None = None) -> Origin | None:
    """Return the table's column that the column stands for, None if it is computed or of no stored table."""
    if place is None:
        return None
    alias, name = place
    relation = relations.get(alias)
    if relation is None:
        found = resolve(place, outer) if outer else None
        return replace(found, alias=found.base) if found is not None else None
    if relation.table is not None:
        return Origin(alias=alias, base=alias, column=name, table=relation.table)
    if relation.inner is None:
        return None
    inner = resolve(relation.inner.outputs.get(name), relation.inner.relations)
    return replace(inner, alias=alias) if inner is not None else None


def locality_key(place: Place | None, relations: Relations, outer: Relations | None = None) -> Origin | None:
    """Return the table's locality key that the column stands for, None if it is none."""
    origin = resolve(place, relations, outer)
    if origin is None or not origin.table.table.locality_key or origin.table.table.locality_key != origin.column:
        return None
    return origin


def key_edge(left: Origin | None, right: Origin | None, scope: str) -> KeyEdge | None:
    """Return the edge between two locality keys if they are of different relations of one family."""
    if left is None or right is None or left.alias == right.alias or left.table.table.family != right.table.table.family:
        return None
    return KeyEdge(left=left.alias, right=right.alias, scope=scope, left_base=left.base, right_base=right.base)


def key_edges(found: tuple[Conjunct, ...], relations: Relations, visible: Relations) -> Iterator[KeyEdge]:
    """Yield the equalities of locality keys. `visible` are the relations of enclosing blocks too."""
    for conjunct in found:
        node = terms.bare(conjunct.node)
        if not isinstance(node, exp.EQ):
            continue
        one, two = (locality_key(terms.plain_column(side), relations, visible) for side in (node.this, node.expression))
        if (edge := key_edge(one, two, conjunct.scope)) is not None:
            yield edge


def match_edges(found: tuple[Conjunct, ...], relations: Relations, keys: tuple[KeyEdge, ...]) -> Iterator[MatchEdge]:
    """Yield the equalities of a match table's other key with its director's. `keys` are the block's key edges."""
    for conjunct in found:
        node = terms.bare(conjunct.node)
        if not isinstance(node, exp.EQ):
            continue
        for mine, other in ((node.this, node.expression), (node.expression, node.this)):
            place, key = terms.plain_column(mine), terms.plain_column(other)
            one, two = (relations.get(p[0]) if p is not None else None for p in (place, key))
            if one is None or two is None or one.table is None or two.table is None or place is None or key is None:
                continue
            match, director = one.table.table.match, two.table.table
            if match is None or place[1] != match.key or director.kind is not TableKind.DIRECTOR or director.family != match.family:
                continue
            if director.locality_key != key[1] or not director.line_column or not _is_bounded(one, match, relations, keys):
                continue
            yield MatchEdge(
                match=one.alias, director=two.alias, radius_deg=max(match.separation_deg, LEAST_RADIUS_DEG), scope=conjunct.scope
            )


def _is_bounded(relation: Relation, match: Match, relations: Relations, keys: tuple[KeyEdge, ...]) -> bool:
    """Say whether each row of the match table that takes part has two known places, or no partner on the other side.

    A pair whose own director is unknown lies beyond the sky, wherever its other director is; it takes no part if the own director
    is joined.
    """
    if match.strays or match.separation_deg > MAX_SEPARATION_DEG:
        return False
    scope = relation.alias if relation.is_null_supplied or relation.is_chosen else ""
    for edge in keys:
        other = edge.right if edge.left == relation.alias else edge.left
        own = relations.get(other)
        is_tied = relation.alias in (edge.left, edge.right) and edge.scope == scope
        if is_tied and own is not None and own.table is not None and own.table.table.kind is TableKind.DIRECTOR:
            return True
    return match.orphans == 0


def sky_edges(found: tuple[Conjunct, ...], relations: Relations, visible: Relations) -> Iterator[SkyEdge]:
    """Yield the distances below a radius."""

    def largest(node: exp.Expr) -> float | None:
        return upper_bound(node, lambda place: resolve(place, relations, visible))

    for conjunct in found:
        pair = distance_pair(conjunct.node)
        bound = None if pair is None else pair[1] if isinstance(pair[1], float) else largest(pair[1])
        if pair is None or bound is None:
            continue
        (left, left_columns), (right, right_columns) = pair[0]
        columns = {left: left_columns, right: right_columns}
        one, two = (_position(alias, names, relations, visible) for alias, names in columns.items())
        yield SkyEdge(
            left=one.alias if one else left, right=two.alias if two else right,
            radius_deg=max(bound, LEAST_RADIUS_DEG), scope=conjunct.scope, node=conjunct.node, columns=columns,
            is_on_line=one is not None and two is not None,
            left_base=one.base if one else left, right_base=two.base if two else right,
        )  # fmt: skip


Positions = tuple[tuple[str, tuple[str, str]], tuple[str, tuple[str, str]]]


def distance_pair(node: exp.Expr) -> tuple[Positions, float | exp.Expr] | None:
    """Read `qe_distance(a.ra, a.dec, b.ra, b.dec) < r` or `qe_in_circle(a.ra, a.dec, b.ra, b.dec, r)`.

    Return (((a, (ra, dec)), (b, (ra, dec))), r in degrees, or the expression that it is if it is no constant), or None.
    """
    radius: exp.Expr
    if (found := terms.side_below(node)) and (arguments := terms.call(found[0], "qe_distance")):
        radius = found[1]
    elif arguments := terms.call(node, "qe_in_circle"):
        radius = arguments[4]
    else:
        return None
    ra1, dec1, ra2, dec2 = (terms.column(a) for a in arguments[:4])
    if ra1 is None or dec1 is None or ra2 is None or dec2 is None:
        return None
    if ra1[0] != dec1[0] or ra2[0] != dec2[0] or ra1[0] == ra2[0]:
        return None
    value = terms.number(radius)
    if value is not None and value < 0:
        return None
    return ((ra1[0], (ra1[1], dec1[1])), (ra2[0], (ra2[1], dec2[1]))), radius if value is None else float(value)


def _position(alias: str, names: tuple[str, str], relations: Relations, visible: Relations) -> Origin | None:
    """Return where the position comes from if it is a place on the line."""
    ra, dec = (resolve((alias, name), relations, visible) for name in names)
    if ra is None or dec is None or ra.base != dec.base:
        return None
    table = ra.table.table
    is_place = table.kind is TableKind.DIRECTOR and (ra.column, dec.column) == (table.ra, table.dec) and bool(table.line_column)
    return ra if is_place else None
