"""The area functions of Qserv and the point tests of scisql, as the predicates that planning knows.

`scisql_s2PtInX(lon, lat, ..)` is 0, not NULL, where an argument is NULL: the predicate stands in `COALESCE(.., FALSE)`, which
planning looks through. Errors of arguments, for which scisql returns NULL, are refused here where they are constants.

`qserv_areaspec_X(..)` names no column. It restricts the position of every director in FROM, as Qserv does, or, where there is none,
of the one table that declares a position.

An ellipse is scisql's: with the unit vector of a position along north and east at the centre, turned by the position angle,
(x / major)^2 + (y / minor)^2 <= 1. scisql would take the mirror image beyond the limb of the sky too; the circle around the
ellipse, which is part of the predicate, leaves it out.
"""

from __future__ import annotations

import math

from sqlglot import exp

from qengine.catalog.model import Table, TableKind
from qengine.catalog.types import BOOLEAN, DOUBLE, POLYGON
from qengine.errors import QueryError, QueryTypeError
from qengine.sky.region import RaDecBox
from qengine.sql.arguments import bind_argument, find_function
from qengine.sql.expressions import Expressions
from qengine.sql.functions import Function
from qengine.sql.nodes import call, column, number, number_of, paren, truth, typed
from qengine.sql.operators import balanced
from qengine.sql.scopes import Source
from qengine.sql.shapes import array, check_polygon, normal_lon

_LIMIT_DEG = 10.0
"""scisql takes ellipses up to this semi-major axis."""


def is_qserv(name: str) -> bool:
    """Say whether a name, in upper case, is one of this module."""
    return name.startswith(("SCISQL_S2PTIN", "QSERV_AREASPEC_"))


def qserv_predicate(binder: Expressions, node: exp.Anonymous) -> exp.Expr:
    """Return the boolean form of `scisql_s2PtIn..` or `qserv_areaspec_..`."""
    function = find_function(binder, node)
    name = function.name.upper()
    parts = list(node.expressions)
    values = [bind_argument(binder, part, "double", function)[0] for part in parts]
    if name.startswith("SCISQL_"):
        kind = name.removeprefix("SCISQL_S2PTIN").replace("CPOLY", "POLY")
        inside = _test(binder, node, function, kind, values[:2], values[2:])
        return typed(call("coalesce", inside, truth(False)), BOOLEAN)
    kind = name.removeprefix("QSERV_AREASPEC_")
    if any(number_of(value) is None for value in values):
        raise _error(binder, node, f"{function.name} takes numbers", "restrict by a column with DISTANCE(..) < radius")
    places = _places(binder, node, function)
    terms = []
    for source, table in places:
        place = [_position(source, table, table.ra), _position(source, table, table.dec)]
        terms.append(paren(_test(binder, node, function, kind, place, [value.copy() for value in values])))
    return balanced(exp.And, terms)


def _places(binder: Expressions, node: exp.Expr, function: Function) -> list[tuple[Source, Table]]:
    found: list[tuple[Source, Table]] = []
    for source in binder.scope.sources:
        table = source.table
        if table is not None and table.ra and table.dec:
            found.append((source, table))
    directors = [(source, table) for source, table in found if table.kind is TableKind.DIRECTOR]
    if directors:
        return directors
    if len(found) == 1:
        return found
    message = f"{function.name} restricts the position of a director, and there is none in this FROM"
    if len(found) > 1:
        message = f"{function.name} could restrict {' or '.join(source.name for source, _ in found)}"
    raise _error(binder, node, message, "join the director, or write CONTAINS(POINT(t.ra, t.dec), CIRCLE(..)) = 1")


def _position(source: Source, table: Table, name: str) -> exp.Expr:
    declared = table.column(name)
    return source.reference(declared) if declared is not None else typed(column(source.alias, name), DOUBLE)


def _test(
    binder: Expressions, node: exp.Expr, function: Function, kind: str, place: list[exp.Expr], values: list[exp.Expr]
) -> exp.Expr:
    count = len(values)
    wanted = {"BOX": 4, "CIRCLE": 3, "ELLIPSE": 5}.get(kind)
    if (wanted is not None and count != wanted) or (kind == "POLY" and (count < 6 or count % 2)):
        raise _error(binder, node, f"{function.name} is written {' or '.join(function.forms)}")
    known = [number_of(value) for value in values]
    constants = [float(value) for value in known if value is not None]
    is_constant = len(constants) == count
    for lat in [known[1], known[3]] if kind == "BOX" else known[1::2] if kind == "POLY" else known[1:2]:
        if lat is not None and not -90 <= lat <= 90:
            raise _error(binder, node, f"latitude {lat} is beyond the poles", "latitudes go from -90 to 90")
    match kind:
        case "CIRCLE":
            if known[2] is not None and not 0 <= known[2] <= 180:
                raise _error(binder, node, f"the radius {known[2]} is not between 0 and 180 degrees")
            return typed(call("qe_in_circle", *place, *values), BOOLEAN)
        case "BOX":
            if is_constant and constants[2] < constants[0] and (constants[2] < 0 or constants[0] > 360):
                raise _error(
                    binder, node, f"longitudes from {constants[0]} to {constants[2]} are no range", "write the lesser one first"
                )
            return _box(place, values, constants if is_constant else None)
        case "ELLIPSE":
            return _ellipse(binder, node, place, values, constants if is_constant else None)
        case _:
            if is_constant:
                constants = [normal_lon(v) if i % 2 == 0 else v for i, v in enumerate(constants)]
                check_polygon(binder.context, node, constants)
                return typed(call("qe_in_polygon", *place, array(POLYGON, constants)), BOOLEAN)
            return typed(call("qe_in_polygon", *place, array(POLYGON, values)), BOOLEAN)


def _box(place: list[exp.Expr], values: list[exp.Expr], constants: list[float] | None) -> exp.Expr:
    """A range of coordinates; where it is constant as comparisons, which prune.

    Longitudes are compared as they are: declared right ascensions are in [0, 360); those of other origin are reduced.
    """
    lon, lat = place
    if constants is None:
        return typed(call("qe_in_box", *place, *values), BOOLEAN)
    west, south, east, north = constants
    terms: list[exp.Expr] = [_between(lat, south, north)]
    is_whole = east - west >= 360
    if not is_whole:
        box = RaDecBox(
            normal_lon(west) if not 0 <= west <= 360 else west, normal_lon(east) if not 0 <= east <= 360 else east, south, north
        )
        angle = lon if isinstance(lon, exp.Column) else typed(call("qe_lon", lon.copy()), DOUBLE)
        if box.ra_min <= box.ra_max:
            terms.append(_between(angle, box.ra_min, box.ra_max))
        else:
            after = typed(exp.GTE(this=paren(angle.copy()), expression=number(box.ra_min)), BOOLEAN)
            before = typed(exp.LTE(this=paren(angle.copy()), expression=number(box.ra_max)), BOOLEAN)
            terms.append(paren(balanced(exp.Or, [after, before])))
    else:
        missing = typed(exp.Is(this=paren(lon.copy()), expression=exp.Null()), BOOLEAN)
        terms.append(typed(exp.Not(this=paren(missing)), BOOLEAN))
    return balanced(exp.And, terms)


def _ellipse(
    binder: Expressions, node: exp.Expr, place: list[exp.Expr], values: list[exp.Expr], constants: list[float] | None
) -> exp.Expr:
    inside = typed(call("qe_in_ellipse", *(v.copy() for v in (*place, *values))), BOOLEAN)
    if constants is None:
        return inside
    lon, lat, major, minor, _ = constants
    if not 0 <= minor <= major or major > _LIMIT_DEG * 3600:
        message = f"semi-axes of {major} and {minor} arcsec are no ellipse"
        raise _error(binder, node, message, f"0 <= minor <= major <= {_LIMIT_DEG * 3600:.0f} arcsec")
    radius = math.degrees(math.asin(math.radians(major / 3600))) + 1e-9
    near = typed(call("qe_in_circle", *(v.copy() for v in place), number(normal_lon(lon)), number(lat), number(radius)), BOOLEAN)
    return balanced(exp.And, [near, paren(inside)])


def _between(value: exp.Expr, low: float, high: float) -> exp.Expr:
    return typed(exp.Between(this=paren(value.copy()), low=number(low), high=number(high)), BOOLEAN)


def _error(binder: Expressions, node: exp.Expr, message: str, hint: str = "") -> QueryError:
    return binder.error(QueryTypeError, node, message, hint)
