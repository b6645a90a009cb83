"""Predicates read as regions, keys and value ranges.

Every reader over-covers: the region, the key list or the range that it returns holds at least the rows that can fulfil the
predicate. What it cannot read it leaves out; the predicate itself stays in the statement and decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from sqlglot import exp

from qengine.catalog.model import Table, TableKind
from qengine.plan import terms
from qengine.sky.cells import ORDER, RangeSet
from qengine.sky.moc import Cells, from_ascii
from qengine.sky.region import Circle, EverySky, Intersection, Polygon, RaDecBox, Region, Union

FULL_CIRCLE_DEG = 360.0

EXACT = 2**53
"""A list with a DOUBLE in it is compared as DOUBLE: from here on several integers are equal to one of its values."""


def region_of(node: exp.Expr, alias: str, table: Table) -> Region | None:
    """Return a region that holds the own positions of all rows of `alias` that fulfil `node`; None if nothing can be said."""
    node = _certain(terms.bare(node))
    if isinstance(node, exp.Or):
        branches = [region_of(branch, alias, table) for branch in terms.disjuncts(node)]
        known = [b for b in branches if b is not None]
        return Union(tuple(known)) if len(known) == len(branches) else None
    if isinstance(node, exp.And):
        return intersection([r for term in terms.conjuncts(node) if (r := region_of(term, alias, table)) is not None])
    if isinstance(node, exp.Between):
        low, high = terms.number(node.args["low"]), terms.number(node.args["high"])
        if low is None or high is None:
            return None
        return _coordinate_box(node.this, alias, table, float(low), float(high))
    for reader in (_cone, _polygon, _map, _pixels, _coordinate_comparison):
        if (found := reader(node, alias, table)) is not None:
            return found
    return None


def intersection(regions: Sequence[Region]) -> Region | None:
    """Intersect regions; the coordinate boxes among them become one. None for no regions.

    A box that holds one of the circles says nothing more (`plan.optimize` adds such boxes), and circles are covered fastest.
    """
    circles = [r for r in regions if isinstance(r, Circle)]
    boxes = [r for r in regions if isinstance(r, RaDecBox) and not any(_holds(r, circle) for circle in circles)]
    merged: list[Region] = [r for r in regions if not isinstance(r, RaDecBox)]
    if boxes:
        plain = [b for b in boxes if b.ra_min <= b.ra_max]
        merged += [b for b in boxes if b.ra_min > b.ra_max]
        if plain:
            ra_min, ra_max = max(b.ra_min for b in plain), min(b.ra_max for b in plain)
            dec_min, dec_max = max(b.dec_min for b in plain), min(b.dec_max for b in plain)
            if ra_min <= ra_max and dec_min <= dec_max:
                merged.append(RaDecBox(ra_min, ra_max, dec_min, dec_max))
            else:
                merged.append(Union(()))
    if not merged:
        return None
    return merged[0] if len(merged) == 1 else Intersection(tuple(merged))


def _holds(box: RaDecBox, circle: Circle) -> bool:
    """Say whether the whole circle is in the box; False if in doubt."""
    if circle.dec - circle.radius < box.dec_min or circle.dec + circle.radius > box.dec_max:
        return False
    if box.ra_min <= 0 and box.ra_max >= FULL_CIRCLE_DEG:
        return True
    if abs(circle.dec) + circle.radius >= 90:
        return False
    reach = math.degrees(math.asin(math.sin(math.radians(circle.radius)) / math.cos(math.radians(circle.dec))))
    return box.ra_min <= circle.ra - reach and circle.ra + reach <= box.ra_max


def needs_position(region: Region) -> bool:
    """Say whether only rows with both coordinates can be in the region as a predicate.

    A row with one of them NULL lies beyond the sky, but may well fulfil a comparison of the other.
    """
    match region:
        case EverySky():
            return False
        case Union(regions):
            return all(map(needs_position, regions))
        case Intersection(regions):
            return any(map(needs_position, regions))
        case RaDecBox(ra_min, ra_max, dec_min, dec_max):
            return (ra_min > 0 or ra_max < FULL_CIRCLE_DEG) and (dec_min > -90 or dec_max < 90)
        case _:
            return True


def _is_position(ra: exp.Expr, dec: exp.Expr, alias: str, table: Table) -> bool:
    return bool(table.ra) and terms.column(ra) == (alias, table.ra) and terms.column(dec) == (alias, table.dec)


def _cone(node: exp.Expr, alias: str, table: Table) -> Region | None:
    if arguments := terms.call(node, "qe_in_circle"):
        ra, dec, *rest = arguments
        return _circle(ra, dec, [terms.number(r) for r in rest], alias, table)
    if (found := terms.bound_below(node)) and (arguments := terms.call(found[0], "qe_distance")):
        radius = found[1]
        one, two = arguments[:2], arguments[2:]
        for (ra, dec), centre in ((one, two), (two, one)):
            if region := _circle(ra, dec, [*map(terms.number, centre), radius], alias, table):
                return region
    return None


def _circle(ra: exp.Expr, dec: exp.Expr, values: list[float | int | None], alias: str, table: Table) -> Region | None:
    if not _is_position(ra, dec, alias, table):
        return None
    known = [float(v) for v in values if v is not None]
    if len(known) != 3 or not all(map(math.isfinite, known)):
        return None
    centre_ra, centre_dec, radius = known
    if radius < 0:
        return Union(())
    if abs(centre_dec) > 90:
        return None
    return Circle(centre_ra % FULL_CIRCLE_DEG, centre_dec, min(radius, 180.0))


def _polygon(node: exp.Expr, alias: str, table: Table) -> Region | None:
    arguments = terms.call(node, "qe_in_polygon")
    if not arguments or not _is_position(arguments[0], arguments[1], alias, table):
        return None
    vertices = polygon_vertices(arguments[2])
    return Polygon(vertices) if vertices else None


def polygon_vertices(node: exp.Expr) -> tuple[tuple[float, float], ...] | None:
    """Return the vertices (ra, dec) in degrees of an array literal [ra1, dec1, ra2, dec2, ...] of constants."""
    node = terms.bare(node)
    if isinstance(node, exp.Cast):
        node = terms.bare(node.this)
    if not isinstance(node, exp.Array):
        return None
    known = [float(v) for v in map(terms.number, node.expressions) if v is not None]
    if len(known) != len(node.expressions) or len(known) < 6 or len(known) % 2:
        return None
    return tuple(zip(known[0::2], known[1::2], strict=True))


def _certain(node: exp.Expr) -> exp.Expr:
    """Return p of `COALESCE(p, FALSE)`, which is TRUE where p is."""
    arguments = terms.call(node, "coalesce")
    if arguments is not None and len(arguments) == 2 and isinstance(arguments[1], exp.Boolean) and not arguments[1].this:
        return terms.bare(arguments[0])
    return node


def _is_cell(node: exp.Expr, alias: str, table: Table) -> bool:
    """Say whether the node is the stored cell of the table's own position."""
    return table.kind is TableKind.DIRECTOR and bool(table.line_column) and terms.column(node) == (alias, table.line_column)


def _map(node: exp.Expr, alias: str, table: Table) -> Region | None:
    """A coverage map around the position or its stored cell."""
    if arguments := terms.call(node, "qe_in_moc"):
        is_own = _is_position(arguments[0], arguments[1], alias, table)
    elif arguments := terms.call(node, "qe_in_cells"):
        is_own = _is_cell(arguments[0], alias, table)
    else:
        return None
    text = terms.constant(arguments[-1])
    return Cells(from_ascii(text) if text else RangeSet.empty()) if is_own and isinstance(text, str) else None


def _pixels(node: exp.Expr, alias: str, table: Table) -> Region | None:
    """The HEALPix pixel of the position is one of some constants."""
    sides: list[tuple[exp.Expr, exp.Expr]]
    if isinstance(node, exp.EQ):
        sides = [(node.this, node.expression), (node.expression, node.this)]
    elif isinstance(node, exp.In) and node.expressions and not node.args.get("query"):
        sides = [(node.this, exp.Tuple(expressions=[e.copy() for e in node.expressions]))]
    else:
        return None
    for side, values in sides:
        if arguments := terms.call(side, "qe_healpix"):
            order, is_own = terms.number(arguments[0]), _is_position(arguments[1], arguments[2], alias, table)
        elif arguments := terms.call(side, "qe_cell"):
            order, is_own = terms.number(arguments[1]), _is_cell(arguments[0], alias, table)
        else:
            continue
        found = [terms.number(v) for v in (values.expressions if isinstance(values, exp.Tuple) else [values])]
        if is_own and isinstance(order, int) and 0 <= order <= ORDER and all(isinstance(v, int) for v in found):
            kept = [v for v in found if isinstance(v, int) and 0 <= v < 12 * 4**order]
            shift = 2 * (ORDER - order)
            return Cells(RangeSet.from_ranges([v << shift for v in kept], [(v + 1) << shift for v in kept]))
    return None


def _coordinate_comparison(node: exp.Expr, alias: str, table: Table) -> Region | None:
    if (found := terms.comparison(node)) is None:
        return None
    operator, left, right = found
    value, side = terms.number(right), left
    if value is None:
        value, side, operator = terms.number(left), right, terms.FLIPPED[operator]
    if value is None:
        return None
    low, high = -math.inf, math.inf
    if operator in (exp.LT, exp.LTE, exp.EQ):
        high = float(value)
    if operator in (exp.GT, exp.GTE, exp.EQ):
        low = float(value)
    return _coordinate_box(side, alias, table, low, high)


def _coordinate_box(node: exp.Expr, alias: str, table: Table, low: float, high: float) -> Region | None:
    """Bounds on the declared ra or dec as a box. Attached tables may hold any RA, so only their declination is used."""
    place = terms.column(node)
    if not table.ra or place not in ((alias, table.ra), (alias, table.dec)):
        return None
    if place == (alias, table.dec):
        low, high = max(low, -90.0), min(high, 90.0)
        return RaDecBox(0.0, FULL_CIRCLE_DEG, low, high) if low <= high else Union(())
    if table.has_nan:
        return None
    low, high = max(low, 0.0), min(high, FULL_CIRCLE_DEG)
    return RaDecBox(low, high, -90.0, 90.0) if low <= high else Union(())


def keys_of(node: exp.Expr, is_key: Callable[[tuple[str, str]], bool]) -> tuple[str, tuple[int | str, ...]] | None:
    """Return (alias, values) if `node` says that a key column is one of some constants: =, IN, and OR of these."""
    node = terms.bare(node)
    if isinstance(node, exp.Or):
        found = [keys_of(branch, is_key) for branch in terms.disjuncts(node)]
        known = [f for f in found if f is not None]
        if len(known) != len(found) or len({alias for alias, _ in known}) != 1:
            return None
        return known[0][0], tuple(dict.fromkeys(v for _, values in known for v in values))
    if isinstance(node, exp.In) and node.expressions and not node.args.get("query"):
        place, constants = terms.plain_column(node.this), terms.constants_in(node)
    elif isinstance(node, exp.EQ):
        left, right = terms.constant(node.this), terms.constant(node.expression)
        place = terms.plain_column(node.this if left is None else node.expression)
        constants = [right if left is None else left]
    else:
        return None
    if place is None or not is_key(place):
        return None
    if any(isinstance(c, float) for c in constants) and any(not isinstance(c, str) and abs(c or 0) >= EXACT for c in constants):
        return None
    values = [int(c) if isinstance(c, float) and c.is_integer() else c for c in constants]
    if not all(isinstance(v, (int, str)) for v in values):
        return None
    return place[0], tuple(dict.fromkeys(v for v in values if isinstance(v, (int, str))))


def range_of(node: exp.Expr) -> tuple[tuple[str, str], float, float] | None:
    """Return ((alias, column), low, high) of a comparison of a column with numbers; bounds count as inside."""
    node = terms.bare(node)
    if isinstance(node, exp.Between):
        place, low, high = terms.column(node.this), terms.number(node.args["low"]), terms.number(node.args["high"])
        return (place, float(low), float(high)) if place and low is not None and high is not None else None
    if isinstance(node, exp.In) and node.expressions and not node.args.get("query"):
        place, values = terms.column(node.this), terms.numbers_in(node)
        known = [float(v) for v in values if v is not None]
        return (place, min(known), max(known)) if place and len(known) == len(values) else None
    if (found := terms.comparison(node)) is None:
        return None
    operator, left, right = found
    place, value = terms.column(left), terms.number(right)
    if place is None:
        place, value, operator = terms.column(right), terms.number(left), terms.FLIPPED[operator]
    if place is None or value is None:
        return None
    low = float(value) if operator in (exp.GT, exp.GTE, exp.EQ) else -math.inf
    high = float(value) if operator in (exp.LT, exp.LTE, exp.EQ) else math.inf
    return place, low, high
