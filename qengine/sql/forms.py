"""CONTAINS and INTERSECTS of any two forms: which macro says it, for shapes made of constants or of columns.

With `in` for `qe_in_circle` and `qe_in_polygon`, d for the distance of two centres, and e(c, P) for the distance of a point to the
edges of a polygon (`qe_edge_distance`):

    point in circle, polygon        in
    circle (c, r) in circle (C, R)  d + r <= R
    circle (c, r) in polygon P      c in P and e(c, P) >= r
    polygon P in circle (C, R)      all vertices within R if R <= 90; else the complement, a small circle, does not meet P
    polygon P in polygon Q          vertices and edge middles of P in Q, no edges cross, no vertex of Q inside P
    circle meets circle             d <= r + R
    circle (c, r) meets polygon P   c in P or e(c, P) <= r
    polygon meets polygon           a vertex of one in the other, or edges cross

Borders belong to the shapes, and 1e-10 degrees of tolerance absorb rounding. A union contains a point if a member does, and meets
what a member meets; whether it contains a shape that lies in no single member cannot be said from the members, and is refused.
Where a term implies a simpler one about the position of a row (the middle of a circle in a polygon), that is added, because
planning prunes by it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlglot import exp

from qengine.catalog.types import BOOLEAN, CIRCLE, DOUBLE, POINT, POLYGON, SqlType
from qengine.errors import QueryError, QueryTypeError, UnsupportedQueryError
from qengine.sky.cells import RangeSet
from qengine.sky.moc import from_ascii
from qengine.sql.expressions import Expressions
from qengine.sql.nodes import call, number, number_of, paren, text_literal, text_of, truth, type_of, typed
from qengine.sql.operators import balanced
from qengine.sql.regions_text import REGION, Combination, read_region
from qengine.sql.shapes import Shape, array, polygon_cap, shape_of

MOC = SqlType("VARCHAR", "moc")
"""Type of a coverage map: its ASCII form."""

_TOLERANCE = 1e-10


@dataclass(frozen=True, slots=True)
class CellMap:
    """A coverage map as an argument."""

    text: str
    ranges: RangeSet


Form = Shape | Combination | CellMap


def form_of(binder: Expressions, node: exp.Expr, bound: exp.Expr) -> Form | None:
    """Take a bound geometry apart; None if it is none. `node` is its place in the statement."""
    kind = type_of(bound)
    text = text_of(bound)
    if kind == MOC and text is not None:
        return CellMap(text, from_ascii(text) if text else RangeSet.empty())
    if kind == REGION and text is not None:
        found = read_region(binder.context, node, text)
        assert isinstance(found, Combination)
        return found
    return shape_of(bound)


@dataclass(frozen=True, slots=True)
class Forms:
    """The relations of forms; errors are placed at `node`."""

    binder: Expressions
    node: exp.Expr

    def contains(self, inner: Form, outer: Form) -> exp.Expr:
        """Return the condition that `inner` lies in `outer`."""
        match inner, outer:
            case CellMap(), CellMap():
                return truth(not (inner.ranges - outer.ranges))
            case Shape(kind=kind), CellMap() if kind == POINT:
                return typed(call("qe_in_moc", *inner.values, text_literal(outer.text)), BOOLEAN)
            case Combination(operator="UNION"), _:
                return balanced(exp.And, [paren(self.contains(self._member(m), outer)) for m in inner.members])
            case Shape(), Combination():
                return self._in_combination(inner, outer)
            case Shape(), Shape():
                return self._in_shape(inner, outer)
        raise self._unsupported(f"CONTAINS({_name(inner)}, {_name(outer)})")

    def intersects(self, first: Form, second: Form) -> exp.Expr:
        """Return the condition that two forms have a point in common."""
        if isinstance(second, Shape) and second.kind == POINT:
            first, second = second, first
        if isinstance(first, Shape) and first.kind == POINT:
            return self.contains(first, second)
        if isinstance(second, Combination):
            first, second = second, first
        match first, second:
            case CellMap(), CellMap():
                return truth(bool(first.ranges & second.ranges))
            case Combination(operator="UNION"), _:
                return balanced(exp.Or, [paren(self.intersects(self._member(m), second)) for m in first.members])
            case Combination(operator="NOT"), Shape():
                return _not(self.contains(second, self._member(first.members[0])))
            case Shape(), Shape():
                return self._shapes_meet(first, second)
        raise self._unsupported(f"INTERSECTS({_name(first)}, {_name(second)})")

    # -- combinations -----------------------------------------------------------------------------------------------------------

    def _in_combination(self, inner: Shape, outer: Combination) -> exp.Expr:
        is_point = inner.kind == POINT
        match outer.operator:
            case "INTERSECTION":
                return balanced(exp.And, [paren(self.contains(inner, self._member(m))) for m in outer.members])
            case "UNION" if is_point or len(outer.members) == 1:
                return balanced(exp.Or, [paren(self.contains(inner, self._member(m))) for m in outer.members])
            case "NOT":
                member = self._member(outer.members[0])
                return _not(self.contains(inner, member) if is_point else self.intersects(inner, member))
            case "RANGE" if is_point:
                return self._in_range(inner, outer.numbers)
        raise self._unsupported(f"CONTAINS({_name(inner)}, {outer.operator})")

    def _in_range(self, point: Shape, numbers: tuple[float, ...]) -> exp.Expr:
        west, east, south, north = numbers
        lon, lat = point.values
        terms: list[exp.Expr] = [_between(lat, south, north)]
        if east - west < 360:
            low, high = west % 360.0, east % 360.0
            if low <= high:
                terms.append(_between(lon, low, high))
            else:
                after = typed(exp.GTE(this=paren(lon.copy()), expression=number(low)), BOOLEAN)
                before = typed(exp.LTE(this=paren(lon.copy()), expression=number(high)), BOOLEAN)
                terms.append(paren(balanced(exp.Or, [after, before])))
        else:
            terms.append(typed(exp.Not(this=typed(exp.Is(this=paren(lon.copy()), expression=exp.Null()), BOOLEAN)), BOOLEAN))
        return balanced(exp.And, terms)

    def _member(self, member: Combination | exp.Expr) -> Form:
        if isinstance(member, Combination):
            return member
        shape = shape_of(member)
        assert shape is not None
        return shape

    # -- shapes -----------------------------------------------------------------------------------------------------------------

    def _in_shape(self, inner: Shape, outer: Shape) -> exp.Expr:
        match inner.kind, outer.kind:
            case (kind, other) if kind == POINT and other == CIRCLE:
                return typed(call("qe_in_circle", *inner.values, *outer.values), BOOLEAN)
            case (kind, other) if kind == POINT and other == POLYGON:
                return typed(call("qe_in_polygon", *inner.values, vertices(outer)), BOOLEAN)
            case (kind, other) if kind == POINT and other == POINT:
                return _at_most(_distance(inner, outer), number(_TOLERANCE))
            case (kind, other) if kind == CIRCLE and other == CIRCLE:
                small, large = number_of(inner.values[2]), number_of(outer.values[2])
                if small is not None and large is not None:
                    return _at_most(
                        _distance(inner, outer), number(float(large) - float(small) + _TOLERANCE if large < 180 else 180.0)
                    )
                if large is not None and large >= 180:
                    return _at_most(_distance(inner, outer), number(180.0))
                reach = typed(exp.Add(this=_distance(inner, outer), expression=paren(inner.values[2].copy())), DOUBLE)
                within = _at_most(reach, _plus(outer.values[2], _TOLERANCE))
                if large is not None:
                    return balanced(exp.And, [_at_most(_distance(inner, outer), number(float(large) + _TOLERANCE)), within])
                return within
            case (kind, other) if kind == CIRCLE and other == POLYGON:
                lon, lat, radius = inner.values
                centre = typed(call("qe_in_polygon", lon.copy(), lat.copy(), vertices(outer)), BOOLEAN)
                edges = typed(call("qe_edge_distance", lon.copy(), lat.copy(), vertices(outer)), DOUBLE)
                return balanced(exp.And, [centre, _at_most(radius, _plus(edges, _TOLERANCE))])
            case (kind, other) if kind == POLYGON and other == CIRCLE:
                return typed(call("qe_polygon_in_circle", vertices(inner), *outer.values), BOOLEAN)
            case (kind, other) if kind == POLYGON and other == POLYGON:
                return typed(call("qe_polygon_in_polygon", vertices(inner), vertices(outer)), BOOLEAN)
        error = self._unsupported("a POINT that contains a region")
        error.hint = "the region is the second argument: CONTAINS(POINT(ra, dec), CIRCLE(..))"
        raise error

    def _shapes_meet(self, first: Shape, second: Shape) -> exp.Expr:
        if first.kind == POLYGON:
            first, second = second, first
        if first.kind == POLYGON:
            return typed(call("qe_polygons_meet", vertices(first), vertices(second)), BOOLEAN)
        if second.kind == CIRCLE:
            reach = [number_of(first.values[2]), number_of(second.values[2])]
            if reach[0] is not None and reach[1] is not None:
                total: exp.Expr = number(float(reach[0]) + float(reach[1]))
            else:
                total = typed(exp.Add(this=paren(first.values[2]), expression=paren(second.values[2])), DOUBLE)
            return _at_most(_distance(first, second), total)
        lon, lat, radius = first.values
        centre = typed(call("qe_in_polygon", lon.copy(), lat.copy(), vertices(second)), BOOLEAN)
        edges = typed(call("qe_edge_distance", lon.copy(), lat.copy(), vertices(second)), DOUBLE)
        meets = balanced(exp.Or, [centre, _at_most(edges, _plus(radius, _TOLERANCE))])
        constants, size = second.constants(), number_of(radius)
        if constants is None or size is None or first.constants() is not None:
            return meets
        cap_lon, cap_lat, cap_radius = polygon_cap(constants)
        near = typed(
            call("qe_in_circle", lon.copy(), lat.copy(), *map(number, (cap_lon, cap_lat, cap_radius + float(size) + 1e-9))), BOOLEAN
        )
        return balanced(exp.And, [near, paren(meets)])

    def _unsupported(self, what: str) -> QueryError:
        return self.binder.error(UnsupportedQueryError, self.node, f"{what} is not supported")


def vertices(shape: Shape) -> exp.Expr:
    """Return the list of coordinates of a polygon."""
    return shape.column.copy() if shape.column is not None else array(POLYGON, [value.copy() for value in shape.values])


def moc_text(binder: Expressions, node: exp.Expr, bound: exp.Expr) -> CellMap:
    """Return the coverage map that a bound argument is; raise `QueryTypeError` if it is none."""
    form = form_of(binder, node, bound)
    if not isinstance(form, CellMap):
        raise binder.error(QueryTypeError, node, "a coverage map is expected here", "such as MOC('5/12-15 6/100')")
    return form


def _distance(first: Shape, second: Shape) -> exp.Expr:
    return typed(call("qe_distance", *(v.copy() for v in (*first.values[:2], *second.values[:2]))), DOUBLE)


def _at_most(left: exp.Expr, right: exp.Expr) -> exp.Expr:
    return typed(exp.LTE(this=paren(left.copy()), expression=paren(right.copy())), BOOLEAN)


def _plus(value: exp.Expr, more: float) -> exp.Expr:
    known = number_of(value)
    if known is not None:
        return number(float(known) + more)
    return typed(exp.Add(this=paren(value.copy()), expression=number(more)), DOUBLE)


def _between(value: exp.Expr, low: float, high: float) -> exp.Expr:
    return typed(exp.Between(this=paren(value.copy()), low=number(low), high=number(high)), BOOLEAN)


def _not(condition: exp.Expr) -> exp.Expr:
    return typed(exp.Not(this=paren(condition)), BOOLEAN)


def _name(form: Form) -> str:
    match form:
        case CellMap():
            return "MOC"
        case Combination():
            return form.operator
        case Shape():
            return form.kind.xtype.upper()
