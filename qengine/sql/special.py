"""Functions whose arguments are not simply values of a kind: other forms, names in quotes, constants computed when binding."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from sqlglot import exp

from qengine.catalog.types import BIGINT, BOOLEAN, DOUBLE, INTEGER, NULL, POINT, SqlType, struct_fields
from qengine.errors import QueryTypeError
from qengine.sql.arguments import bind_argument
from qengine.sql.coercion import common_type
from qengine.sql.expressions import Expressions
from qengine.sql.functions import Function
from qengine.sql.nodes import call, cast, number, number_of, paren, text_of, type_of, typed, unit_of, with_unit
from qengine.sql.shapes import array
from qengine.sql.spans import nearest
from qengine.sql.units import factor

Special = Callable[[Expressions, exp.Anonymous, Function], exp.Expr | None]


def _in_unit(binder: Expressions, node: exp.Anonymous, function: Function) -> exp.Expr:
    """A column times the factor between its declared unit and the wanted one."""
    (value,) = bind_argument(binder, node.expressions[0], "number", function)
    wanted = text_of(binder.value(node.expressions[1]))
    if wanted is None:
        raise binder.error(QueryTypeError, node.expressions[1], "IN_UNIT takes a unit in quotes", "such as IN_UNIT(pmra, 'deg/yr')")
    found = unit_of(value)
    if not found:
        message = "IN_UNIT needs a value with a unit, and none is declared for this one"
        raise binder.error(QueryTypeError, node.expressions[0], message, "multiply with the factor yourself")
    try:
        ratio = factor(found, wanted)
    except QueryTypeError as error:
        raise binder.error(QueryTypeError, node, error.message, error.hint) from error
    value = paren(cast(value, DOUBLE))
    if ratio == 1.0:
        result = value
    elif ratio < 1 and (1 / ratio).is_integer():
        result = typed(exp.Div(this=value, expression=number(1 / ratio)), DOUBLE)
    else:
        result = typed(exp.Mul(this=value, expression=number(ratio)), DOUBLE)
    copy = result.copy()
    for key in ("unit", "span"):
        copy.meta.pop(key, None)
    return with_unit(copy, wanted)


def _healpix(binder: Expressions, node: exp.Anonymous, function: Function) -> exp.Expr:
    (order,) = bind_argument(binder, node.expressions[0], "integer", function)
    value = number_of(order)
    if value is not None and not 0 <= value <= 29:
        raise binder.error(QueryTypeError, node.expressions[0], f"orders of HEALPix go from 0 to 29, not to {value}")
    if len(node.expressions) == 2:
        place = bind_argument(binder, node.expressions[1], "point", function)
    else:
        place = [value for part in node.expressions[1:] for value in bind_argument(binder, part, "double", function)]
    return typed(call("qe_healpix", order, *place), BIGINT)


def _epoch_position(binder: Expressions, node: exp.Anonymous, function: Function) -> exp.Expr | None:
    """The short form has neither parallax nor radial velocity."""
    if len(node.expressions) == 8:
        return None
    ra, dec, pmra, pmdec, start, stop = (bind_argument(binder, part, "double", function)[0] for part in node.expressions)
    nothing = [cast(typed(exp.Null(), NULL), DOUBLE) for _ in range(2)]
    return typed(call("qe_epoch_prop_pos", ra, dec, nothing[0], pmra, pmdec, nothing[1], start, stop), POINT)


def _interval_has(binder: Expressions, node: exp.Anonymous, function: Function) -> exp.Expr | None:
    if len(node.expressions) == 3:
        return None
    (value,) = bind_argument(binder, node.expressions[0], "double", function)
    (interval,) = bind_argument(binder, node.expressions[1], "numbers", function)
    ends = [typed(call("list_extract", interval.copy(), number(place)), DOUBLE) for place in (1, 2)]
    return typed(call("qe_interval_has", value, *ends), INTEGER)


# -- frames -------------------------------------------------------------------------------------------------------------------

_POLE_RA, _POLE_DEC, _NODE_LON = 192.85948, 27.12825, 122.93192
"""The galactic pole and the galactic longitude of the celestial pole in ICRS degrees, as ESA SP-1200 defines them for Hipparcos and
Gaia."""
_OBLIQUITY = 84381.448 / 3600
"""Obliquity of the ecliptic of J2000 (IAU 1976), degrees."""


def _turn(axis: int, angle_deg: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    if axis == 0:
        return np.array([[1.0, 0, 0], [0, c, s], [0, -s, c]])
    if axis == 1:
        return np.array([[c, 0, -s], [0, 1.0, 0], [s, 0, c]])
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1.0]])


def _frames() -> Mapping[str, np.ndarray[tuple[int, int], np.dtype[np.float64]]]:
    galactic = _turn(2, 180 - _NODE_LON) @ _turn(1, 90 - _POLE_DEC) @ _turn(2, _POLE_RA)
    ecliptic = _turn(0, _OBLIQUITY)
    return {"ICRS": np.eye(3), "GALACTIC": galactic, "ECLIPTIC": ecliptic}


def _transform(binder: Expressions, node: exp.Anonymous, function: Function) -> exp.Expr:
    """A rotation whose nine numbers are computed here."""
    frames = _frames()
    chosen = []
    for part in node.expressions[:2]:
        name = text_of(binder.value(part))
        if name is None or name.upper() not in frames:
            message = f"{function.name} knows the frames {', '.join(frames)}"
            raise binder.error(QueryTypeError, part, message, nearest(name or "", frames))
        chosen.append(frames[name.upper()])
    place = bind_argument(binder, node.expressions[2], "point", function)
    matrix = chosen[1] @ chosen[0].T
    return typed(call("qe_rotate", *place, array(SqlType("DOUBLE[]"), [float(v) for v in matrix.ravel()])), POINT)


# -- lists and structures -----------------------------------------------------------------------------------------------------


def _searched(binder: Expressions, node: exp.Anonymous, function: Function) -> exp.Expr:
    """LIST_CONTAINS and LIST_POSITION: list and value get one type."""
    (items,) = bind_argument(binder, node.expressions[0], "list", function)
    (value,) = bind_argument(binder, node.expressions[1], "any", function)
    kind = common_type(SqlType(type_of(items).name[:-2]), type_of(value))
    if kind is None:
        raise binder.error(QueryTypeError, node, f"{function.name}: the list has no values of this type")
    bound = call(function.target, cast(items, SqlType(f"{kind.name}[]")), cast(value, kind))
    return typed(bound, function.result or BOOLEAN)


def _joined(binder: Expressions, node: exp.Anonymous, function: Function) -> exp.Expr:
    """LIST_CONCAT: both lists get one type."""
    sides = [bind_argument(binder, part, "list", function)[0] for part in node.expressions]
    kind = common_type(*(SqlType(type_of(side).name[:-2]) for side in sides))
    if kind is None:
        raise binder.error(QueryTypeError, node, "the two lists have values of different types")
    whole = SqlType(f"{kind.name}[]")
    return with_unit(typed(call(function.target, *(cast(side, whole) for side in sides)), whole), unit_of(sides[0]))


def _field(binder: Expressions, node: exp.Anonymous, function: Function) -> exp.Expr:
    (value,) = bind_argument(binder, node.expressions[0], "struct", function)
    (name,) = bind_argument(binder, node.expressions[1], "word", function)
    fields = struct_fields(type_of(value))
    wanted = str(name.this)
    found = next((field for field in fields if field.lower() == wanted.lower()), None)
    if found is None:
        raise binder.error(QueryTypeError, node, f"there is no field {wanted}", nearest(wanted, fields))
    return typed(call("struct_extract", value, typed(exp.Literal.string(found), type_of(name))), fields[found])


def _bins(binder: Expressions, node: exp.Anonymous, function: Function) -> exp.Expr:
    """WIDTH_BUCKET: a bin has a width."""
    parts = [
        bind_argument(binder, part, kind, function)[0] for part, kind in zip(node.expressions, function.arguments, strict=True)
    ]
    low, high, count = (number_of(part) for part in parts[1:])
    if (low is not None and high is not None and not low < high) or (count is not None and count < 1):
        raise binder.error(
            QueryTypeError, node, f"{function.name} takes two borders, the first less than the second, and a number of bins"
        )
    return typed(call(function.target, *parts), INTEGER)


SPECIAL: Mapping[str, Special] = {
    "IN_UNIT": _in_unit, "IVO_HEALPIX_INDEX": _healpix, "IVO_EPOCH_PROP_POS": _epoch_position, "IVO_INTERVAL_HAS": _interval_has,
    "IVO_GEOM_TRANSFORM": _transform, "GAVO_TRANSFORM": _transform, "LIST_CONTAINS": _searched, "LIST_POSITION": _searched,
    "LIST_CONCAT": _joined, "STRUCT_EXTRACT": _field, "WIDTH_BUCKET": _bins,
}  # fmt: skip
"""Binders by upper-case name; one that returns None leaves the call to the function table."""
