"""Station 3: rewrites that keep the statement ordinary SQL with the same rows.

`RULES` is the order. A rule takes the tree and the catalogue and returns a new tree; its docstring is a pair of SQL before and
after, and `tests/rules` runs both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from sqlglot import exp

from qengine.catalog.model import Catalog, Table, TableKind
from qengine.plan import terms
from qengine.plan.answers import answer_by_manifest
from qengine.plan.floats import narrow_floats
from qengine.plan.regions import polygon_vertices
from qengine.plan.split import limit_of
from qengine.plan.spread import spread_unions
from qengine.plan.stored_cells import plain_tests, stored_cells
from qengine.plan.turn import halve_full_joins, turn_right_joins
from qengine.plan.unfold import merge_derived, prune_outputs, unfold_ctes
from qengine.sql.trees import copy_tree, find

Rule = Callable[[exp.Query, Catalog], exp.Query]

_PAD_DEG = 1e-6
"""Boxes are larger than their shape by this much; it is far above rounding and far below anything that costs time."""


_SHAPES = frozenset({"qe_in_circle", "qe_in_polygon", "qe_distance"})


def optimize(tree: exp.Query, catalog: Catalog) -> exp.Query:
    """Apply all rules in order."""
    for rule in RULES:
        tree = rule(tree, catalog)
    return tree


def capped(tree: exp.Query, maxrec: int | None) -> exp.Query:
    """Limit the statement to one row more than MAXREC, enough to see that there are more."""
    if maxrec is None:
        return tree
    limit, _ = limit_of(tree)
    if limit is not None and limit <= maxrec:
        return tree
    tree = copy_tree(tree)
    tree.set("limit", exp.Limit(expression=exp.Literal.number(maxrec + 1)))
    return tree


def bound_shapes(tree: exp.Query, catalog: Catalog) -> exp.Query:
    """Add the box of a shape: `qe_in_circle(t.ra, t.dec, 10, 0, 1)` ->
    `(t.dec BETWEEN -1 AND 1 AND t.ra BETWEEN 9 AND 11 AND qe_in_circle(t.ra, t.dec, 10, 0, 1))`.

    The same for `qe_distance(..) < r` from a constant place and for `qe_in_polygon`. A shape implies its box, but where one
    coordinate is NULL the box may be FALSE and the shape NULL; so this holds only where both mean that the row goes: in terms of
    WHERE and ON and under AND and OR in them, not under NOT. Only positions that a table declares have a box, and right ascension
    is only bounded where it is known to be in [0, 360).
    """
    if not any(str(call.this).lower() in _SHAPES for call in find(tree, exp.Anonymous)):
        return tree
    tree = copy_tree(tree)
    tables = {t.alias_or_name: found.table for t in find(tree, exp.Table) if t.db and (found := catalog.find(t.db, t.name))}
    for select in find(tree, exp.Select):
        where = select.args.get("where")
        conditions = [where.this] if where is not None else []
        conditions += [on for join in select.args.get("joins") or () if (on := join.args.get("on")) is not None]
        for condition in conditions:
            for node in list(_positive_terms(condition)):
                if (shape := _cap(node)) is not None:
                    ra, dec, cap = shape
                    if not _is_declared(dec, tables):
                        continue
                    node.replace(exp.Paren(this=exp.and_(*_box(ra, dec, cap, tables), copy_tree(node), copy=False)))
    return tree


def _is_declared(dec: exp.Expr, tables: dict[str, Table]) -> bool:
    """Say whether this is a table's declaration, which is in [-90, 90]; that of a derived table may be any number."""
    place = terms.column(dec)
    table = tables.get(place[0]) if place else None
    return table is not None and place is not None and bool(table.dec) and place[1] == table.dec


def _positive_terms(node: exp.Expr) -> Iterator[exp.Expr]:
    node = terms.bare(node)
    if isinstance(node, (exp.And, exp.Or)):
        yield from _positive_terms(node.left)
        yield from _positive_terms(node.right)
    else:
        yield node


RULES: tuple[Rule, ...] = (
    unfold_ctes, turn_right_joins, merge_derived, halve_full_joins, spread_unions, prune_outputs, answer_by_manifest, plain_tests,
    stored_cells, bound_shapes, narrow_floats,
)  # fmt: skip


def _cap(node: exp.Expr) -> tuple[exp.Expr, exp.Expr, tuple[float, float, float]] | None:
    """Return (ra, dec, (centre ra, centre dec, radius)) of a cap that holds the constant shape that `node` tests."""
    if arguments := terms.call(node, "qe_in_circle"):
        ra, dec, *rest = arguments
        values = [terms.number(r) for r in rest]
    elif (found := terms.bound_below(node)) and (arguments := terms.call(found[0], "qe_distance")):
        ra, dec, *rest = arguments
        if terms.column(ra) is None:
            ra, dec, rest = arguments[2], arguments[3], arguments[:2]
        values = [*map(terms.number, rest), found[1]]
    elif arguments := terms.call(node, "qe_in_polygon"):
        ra, dec = arguments[:2]
        vertices = polygon_vertices(arguments[2])
        values = list(_cap_of_vertices(vertices)) if vertices else []
    else:
        return None
    known = [float(v) for v in values if v is not None]
    if len(known) != 3 or terms.column(ra) is None or terms.column(dec) is None or abs(known[1]) > 90 or not 0 <= known[2] < 180:
        return None
    return ra, dec, (known[0] % 360.0, known[1], known[2])


def _cap_of_vertices(vertices: tuple[tuple[float, float], ...]) -> tuple[float, float, float]:
    """Return a cap that holds the polygon: a cap of less than a hemisphere is convex, so holding the vertices is enough."""
    points = [_unit(ra, dec) for ra, dec in vertices]
    x, y, z = (math.fsum(axis) for axis in zip(*points, strict=True))
    length = math.sqrt(x * x + y * y + z * z)
    if length < 1e-9:
        return 0.0, 0.0, 180.0
    centre = (x / length, y / length, z / length)
    radius = max(2 * math.asin(min(1.0, math.dist(centre, point) / 2)) for point in points)
    return (
        math.degrees(math.atan2(y, x)) % 360.0,
        math.degrees(math.atan2(centre[2], math.hypot(centre[0], centre[1]))),
        math.degrees(radius) if radius < math.pi / 2 else 180.0,
    )


def _unit(ra: float, dec: float) -> tuple[float, float, float]:
    lon, lat = math.radians(ra), math.radians(dec)
    return math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat)


def _box(ra: exp.Expr, dec: exp.Expr, cap: tuple[float, float, float], tables: dict[str, Table]) -> list[exp.Expr]:
    centre_ra, centre_dec, radius = cap
    reach = radius + _PAD_DEG
    box: list[exp.Expr] = []
    low, high = centre_dec - reach, centre_dec + reach
    if low > -90 or high < 90:
        box.append(_between(dec, max(low, -90.0), min(high, 90.0)))
    place = terms.column(ra)
    table = tables.get(place[0]) if place else None
    is_normal = table is not None and place is not None and table.kind is TableKind.DIRECTOR and place[1] == table.ra
    if not is_normal or table is None or table.has_nan or low <= -89.99 or high >= 89.99:
        return box
    width = math.degrees(math.asin(min(1.0, math.sin(math.radians(reach)) / math.cos(math.radians(centre_dec))))) + _PAD_DEG
    west, east = centre_ra - width, centre_ra + width
    if reach >= 90 or east - west >= 360:
        return box
    if west < 0 or east >= 360:
        after = exp.GTE(this=copy_tree(ra), expression=_literal(west % 360.0))
        before = exp.LTE(this=copy_tree(ra), expression=_literal(east % 360.0))
        box.append(exp.Paren(this=exp.Or(this=after, expression=before)))
    else:
        box.append(_between(ra, west, east))
    return box


def _between(node: exp.Expr, low: float, high: float) -> exp.Expr:
    return exp.Between(this=copy_tree(node), low=_literal(low), high=_literal(high))


def _literal(value: float) -> exp.Expr:
    node = exp.Literal.number(repr(abs(value)) if "e" in repr(value) else f"{abs(value)!r}e0")
    return exp.Neg(this=node) if value < 0 else node
