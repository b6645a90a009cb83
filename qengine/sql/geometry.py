"""Geometry functions of ADQL: they become calls of the macros in `qengine.sql.macros`, in degrees, with constants folded.

`predicate` gives the boolean form of CONTAINS, INTERSECTS (`qengine.sql.forms`) and the Qserv spellings (`qengine.sql.qserv`); it
is what `CONTAINS(..) = 1` turns into. Forms whose exact meaning we cannot compute are refused with their place.
"""

from __future__ import annotations

import math

from sqlglot import exp

from qengine.catalog.types import CIRCLE, DOUBLE, INTEGER, POINT, POLYGON, SqlType
from qengine.errors import QueryError, QueryTypeError, UnsupportedQueryError
from qengine.sky.cells import LINE_END
from qengine.sky.moc import from_ascii, to_ascii
from qengine.sql.expressions import Expressions
from qengine.sql.forms import MOC, Form, Forms, form_of, moc_text, vertices
from qengine.sql.nodes import call, cast, inner, number, number_of, text_literal, text_of, type_of, typed, with_unit
from qengine.sql.qserv import is_qserv, qserv_predicate
from qengine.sql.regions_text import region_from_text
from qengine.sql.shapes import (
    Shape,
    array,
    box_corners,
    check_frame,
    make_shape,
    normal_lon,
    polygon_area,
    polygon_centroid,
    shape_of,
)  # fmt: skip

_FULL_SKY_DEG2 = 4 * math.pi * math.degrees(1) ** 2


def predicate(binder: Expressions, node: exp.Expr) -> exp.Expr | None:
    """Return the boolean form of a geometric predicate, or None if `node` is not one."""
    node = inner(node)
    if not isinstance(node, exp.Anonymous) or isinstance(node.this, exp.Identifier):
        return None
    name = node.name.upper()
    if is_qserv(name):
        return qserv_predicate(binder, node)
    if name not in ("CONTAINS", "INTERSECTS"):
        return None
    found = [_form(binder, part) for part in node.expressions]
    if len(found) != 2:
        raise _error(binder, node, f"{name} takes 2 arguments, not {len(found)}")
    forms = Forms(binder, node)
    return forms.contains(*found) if name == "CONTAINS" else forms.intersects(*found)


def geometry_call(binder: Expressions, node: exp.Anonymous) -> exp.Expr:
    """Bind a call of a geometry function that stands for a value."""
    name = node.name.upper()
    if (found := predicate(binder, node)) is not None:
        if binder.language.is_strict:
            raise _error(binder, node, f"{name} must be compared with 0 or 1")
        return found if name.startswith("QSERV_") else cast(found, INTEGER)
    arguments = [binder.value(part) for part in node.expressions]
    match name:
        case "POINT" | "CIRCLE" | "BOX" | "POLYGON":
            return _constructor(binder, node, name, _without_frame(binder, node, arguments))
        case "REGION":
            text = text_of(arguments[0]) if len(arguments) == 1 else None
            if text is None:
                raise _error(binder, node, "REGION takes one text in quotes")
            return region_from_text(binder.context, node, text)
        case "MOC" | "GAVO_MOCINTERSECT" | "GAVO_MOCUNION":
            return _moc(binder, node, name, arguments)
        case "DISTANCE":
            return _distance(binder, node, arguments)
        case _:
            return _measure(binder, node, name, arguments)


def _moc(binder: Expressions, node: exp.Anonymous, name: str, arguments: list[exp.Expr]) -> exp.Expr:
    if name == "MOC":
        text = text_of(arguments[0]) if len(arguments) == 1 else None
        if text is None:
            raise _error(binder, node, "MOC takes one text in quotes", "such as MOC('5/12-15 6/100')")
        try:
            ranges = from_ascii(text)
        except QueryTypeError as error:
            raise _error(binder, node, error.message, error.hint) from error
    else:
        if len(arguments) != 2:
            raise _error(binder, node, f"{name} takes 2 coverage maps, not {len(arguments)}")
        maps = [moc_text(binder, part, bound).ranges for part, bound in zip(node.expressions, arguments, strict=True)]
        ranges = maps[0] & maps[1] if name == "GAVO_MOCINTERSECT" else maps[0] | maps[1]
    return typed(text_literal(to_ascii(ranges)), MOC)


def _measure(binder: Expressions, node: exp.Anonymous, name: str, arguments: list[exp.Expr]) -> exp.Expr:
    shape = shape_of(arguments[0]) if len(arguments) == 1 else None
    if shape is None and len(arguments) == 1 and type_of(arguments[0]) == MOC and name == "AREA":
        cells = moc_text(binder, node.expressions[0], arguments[0]).ranges.cells
        return with_unit(number(cells / LINE_END * _FULL_SKY_DEG2), "deg**2")
    if shape is None:
        raise _error(binder, node, f"{name} takes one geometry")
    constants = shape.constants()
    if name == "COORDSYS":
        return text_literal("ICRS")
    if name in ("COORD1", "COORD2"):
        if shape.kind != POINT:
            raise _error(binder, node, f"{name} takes a POINT")
        if constants is not None:
            return with_unit(number(constants[0] if name == "COORD1" else constants[1]), "deg")
        if name == "COORD2":
            return with_unit(shape.values[1], "deg")
        return with_unit(typed(call("qe_lon", shape.values[0]), DOUBLE), "deg")
    if name == "CENTROID":
        if shape.kind == POLYGON:
            if constants is None:
                return typed(call("qe_centroid_polygon", vertices(shape)), POINT)
            return array(POINT, polygon_centroid(constants))
        return array(POINT, list(shape.values[:2]))
    if shape.kind == POINT:
        return with_unit(number(0.0), "deg**2")
    if shape.kind == CIRCLE:
        if constants is not None:
            half = math.radians(min(constants[2], 180.0)) / 2
            return with_unit(number(_FULL_SKY_DEG2 * math.sin(half) ** 2), "deg**2")
        return with_unit(typed(call("qe_area_circle", shape.values[2]), DOUBLE), "deg**2")
    if constants is None:
        return with_unit(typed(call("qe_area_polygon", vertices(shape)), DOUBLE), "deg**2")
    return with_unit(number(polygon_area(constants)), "deg**2")


def _constructor(binder: Expressions, node: exp.Anonymous, name: str, arguments: list[exp.Expr]) -> exp.Expr:
    values: list[exp.Expr] = []
    for argument in arguments:
        shape = shape_of(argument)
        if shape is not None and shape.kind == POINT and name != "POINT":
            values += shape.values
        else:
            values.append(_number(binder, node, argument))
    context = binder.context
    if name == "POLYGON":
        if len(values) < 6 or len(values) % 2:
            raise _error(binder, node, "POLYGON takes at least three points or pairs of numbers")
        return make_shape(context, node, POLYGON, values)
    count = {"POINT": 2, "CIRCLE": 3, "BOX": 4}[name]
    if len(values) != count:
        raise _error(binder, node, f"{name} takes {count} numbers in degrees, not {len(values)}")
    if name == "BOX":
        shape = Shape(POLYGON, tuple(values))
        constants = shape.constants()
        if constants is None:
            return typed(call("qe_box", *(cast(value, DOUBLE) for value in values)), POLYGON)
        return make_shape(context, node, POLYGON, [number(value) for value in box_corners(context, node, constants)])
    return make_shape(context, node, POINT if name == "POINT" else CIRCLE, values)


def _distance(binder: Expressions, node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    if len(arguments) == 4:
        values = [_number(binder, node, argument) for argument in arguments]
    elif len(arguments) == 2:
        shapes = [shape_of(argument) for argument in arguments]
        if not all(shape is not None and shape.kind == POINT for shape in shapes):
            raise _error(binder, node, "DISTANCE takes two POINTs or four numbers")
        values = [value for shape in shapes if shape for value in shape.values]
    else:
        raise _error(binder, node, f"DISTANCE takes two POINTs or four numbers, not {len(arguments)} arguments")
    for index in (1, 3):
        lat = number_of(values[index])
        if lat is not None and not -90 <= lat <= 90:
            raise _error(binder, node, f"latitude {lat} is beyond the poles")
    for index in (0, 2):
        lon = number_of(values[index])
        if lon is not None:
            values[index] = number(normal_lon(float(lon)))
    return with_unit(typed(call("qe_distance", *values), DOUBLE), "deg")


def _form(binder: Expressions, node: exp.Expr) -> Form:
    found = form_of(binder, node, binder.value(node))
    if found is None:
        raise binder.error(QueryTypeError, node, "a geometry is expected here", "such as POINT(ra, dec) or CIRCLE(ra, dec, radius)")
    return found


def _without_frame(binder: Expressions, node: exp.Expr, arguments: list[exp.Expr]) -> list[exp.Expr]:
    """Drop the deprecated first argument, the coordinate system, after checking it."""
    if arguments and (frame := text_of(arguments[0])) is not None:
        check_frame(binder.context, node, frame)
        return arguments[1:]
    if arguments and isinstance(inner(arguments[0]), exp.Null):
        return arguments[1:]
    return arguments


def _number(binder: Expressions, node: exp.Expr, argument: exp.Expr) -> exp.Expr:
    kind: SqlType = type_of(argument)
    if not (kind.is_numeric or kind.name == "NULL"):
        raise _error(binder, node, "coordinates are numbers in degrees")
    value = number_of(argument)
    if value is not None:
        return number(float(value), argument.meta.get("span"))
    return argument if kind == DOUBLE or kind.is_numeric else cast(argument, DOUBLE)


def _error(binder: Expressions, node: exp.Expr, message: str, hint: str = "") -> QueryError:
    return binder.error(QueryTypeError, node, message, hint)


def _unsupported(binder: Expressions, node: exp.Expr, what: str) -> QueryError:
    return binder.error(UnsupportedQueryError, node, f"{what} is not supported")
