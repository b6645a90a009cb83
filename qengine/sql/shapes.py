"""Geometry values of the bound tree: a list of DOUBLE in degrees with a DALI xtype, made of constants or of columns.

A point is `[lon, lat]`, a circle `[lon, lat, radius]`, a polygon `[lon1, lat1, lon2, lat2, ..]`. Constants are checked and
normalised here: longitudes to [0, 360), latitudes refused beyond the poles, polygons refused unless they lie within an open
hemisphere (`qe_in_polygon` and pruning both rest on that).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlglot import exp

from qengine.catalog.types import CIRCLE, DOUBLE, INTEGER, POINT, POLYGON, SqlType
from qengine.errors import QueryTypeError, UnsupportedQueryError
from qengine.sky.region import Polygon, box
from qengine.sql.nodes import call, cast, number, number_of, span_of_bound, type_of, typed
from qengine.sql.scopes import Context

_FRAMES = ("", "ICRS", "UNKNOWN", "UNKNOWNFRAME")


@dataclass(frozen=True, slots=True)
class Shape:
    """A geometry taken apart. `values` are bound DOUBLE nodes; for a column that holds a polygon, `column` is it."""

    kind: SqlType
    values: tuple[exp.Expr, ...]
    column: exp.Expr | None = None

    def constants(self) -> list[float] | None:
        """All values as numbers, or None if one depends on the row."""
        found = [number_of(value) for value in self.values]
        if self.column is not None or any(value is None for value in found):
            return None
        return [float(value) for value in found if value is not None]


def shape_of(node: exp.Expr) -> Shape | None:
    """Take a bound geometry apart; None if the node is not one."""
    kind = type_of(node)
    if not kind.is_geometry:
        return None
    if isinstance(node, exp.Array):
        return Shape(kind, tuple(node.expressions))
    if kind == POLYGON:
        return Shape(kind, (), node)
    count = 2 if kind == POINT else 3
    return Shape(kind, tuple(
        typed(call("list_extract", node.copy(), typed(exp.Literal.number(index + 1), INTEGER)), DOUBLE) for index in range(count)
    ))  # fmt: skip


def array(kind: SqlType, values: list[exp.Expr] | list[float]) -> exp.Expr:
    """Return a geometry node of these values."""
    nodes = [number(float(value)) if isinstance(value, (int, float)) else cast(value, DOUBLE) for value in values]
    return typed(exp.Array(expressions=nodes), kind)


def make_shape(context: Context, node: exp.Expr, kind: SqlType, values: list[exp.Expr]) -> exp.Expr:
    """Check and normalise the values of a geometry written in the statement at `node` and return it."""
    pairs = values[:2] if kind == CIRCLE else values
    fixed = list(values)
    for index in range(0, len(pairs), 2):
        lon, lat = number_of(values[index]), number_of(values[index + 1])
        if lat is not None and not -90 <= lat <= 90:
            raise context.error(
                QueryTypeError, node, f"latitude {lat} is beyond the poles", "latitudes go from -90 to 90: is it POINT(ra, dec)?"
            )
        if lon is not None:
            fixed[index] = number(normal_lon(float(lon)), span_of_bound(values[index]))
    radius = number_of(values[2]) if kind == CIRCLE else None
    if kind == CIRCLE and radius is not None and radius < 0:
        raise context.error(QueryTypeError, node, f"the radius {radius} is negative")
    if kind == CIRCLE and radius is not None and radius > 180:
        hint = f"radii are degrees: {radius} arcsec are {radius / 3600:.6g}"
        raise context.error(QueryTypeError, node, f"the radius {radius} is more than the whole sky", hint)
    if kind == CIRCLE and radius is not None and radius > 10:
        context.warn(f"the radius of a circle is {radius} degrees; radii are degrees, not arcsec")
    result = array(kind, fixed)
    shape = shape_of(result)
    constants = shape.constants() if shape else None
    if kind == POLYGON and constants is not None:
        check_polygon(context, node, constants)
    return result


def normal_lon(lon: float) -> float:
    """Return a longitude in [0, 360)."""
    lon = math.fmod(lon, 360.0)
    if lon < 0:
        lon += 360.0
    return 0.0 if lon >= 360.0 else lon + 0.0


# -- polygons -----------------------------------------------------------------------------------------------------------------


def vectors(constants: list[float]) -> NDArray[np.float64]:
    """Unit vectors of the vertices, shape (n, 3)."""
    lon, lat = np.radians(np.array(constants).reshape(-1, 2)).T
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


def check_polygon(context: Context, node: exp.Expr, constants: list[float]) -> None:
    """Refuse polygons that have no unambiguous inside, or that `qe_in_polygon` could not project from the mean of the vertices."""
    if len(constants) < 6 or len(constants) % 2:
        raise context.error(QueryTypeError, node, "a polygon has at least three vertices, two numbers each")
    try:
        Polygon(tuple(zip(constants[0::2], constants[1::2], strict=True)))
    except QueryTypeError as error:
        raise context.error(QueryTypeError, node, error.message, error.hint) from error
    corners = vectors(constants)
    center = corners.sum(axis=0)
    length = float(np.linalg.norm(center))
    if length < 1e-9 or float((corners @ center).min()) / length < 1e-6:
        message = "the polygon does not lie within a hemisphere around the mean of its vertices"
        raise context.error(UnsupportedQueryError, node, message, "split it into smaller polygons and join them with OR")


def box_corners(context: Context, node: exp.Expr, values: list[float]) -> list[float]:
    """The corners of BOX(lon, lat, width, height), a polygon of great circles."""
    if not -90 <= values[1] <= 90:
        raise context.error(QueryTypeError, node, f"latitude {values[1]} is beyond the poles")
    try:
        found = box(*values)
    except QueryTypeError as error:
        raise context.error(QueryTypeError, node, error.message, error.hint) from error
    return [value for vertex in found.vertices for value in vertex]


def polygon_area(constants: list[float]) -> float:
    """Area in square degrees by the angles of the triangles around the first vertex (signed sum, so any shape)."""
    corners = vectors(constants)
    first = corners[0]
    excess = 0.0
    for second, third in itertools.pairwise(corners[1:]):
        volume = float(first @ np.cross(second, third))
        excess += 2 * math.atan2(volume, 1 + float(first @ second) + float(second @ third) + float(third @ first))
    return math.degrees(math.degrees(abs(excess)))


def polygon_centroid(constants: list[float]) -> list[float]:
    """The direction of the integral of the position over the polygon: half the sum of edge lengths times edge normals."""
    corners = vectors(constants)
    total = np.zeros(3)
    for first, second in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        normal = np.cross(first, second)
        length = float(np.linalg.norm(normal))
        if length > 0:
            total += math.atan2(length, float(first @ second)) * normal / length
    if float(total @ corners.sum(axis=0)) < 0:
        total = -total
    x, y, z = (float(part) for part in total)
    return [normal_lon(math.degrees(math.atan2(y, x))), math.degrees(math.atan2(z, math.hypot(x, y)))]


def polygon_cap(constants: list[float]) -> tuple[float, float, float]:
    """Return (lon, lat, radius) of a circle that holds the polygon: a cap of less than a hemisphere that holds the vertices
    does."""
    corners = vectors(constants)
    middle = corners.sum(axis=0)
    middle /= float(np.linalg.norm(middle))
    reach = 2 * np.degrees(np.arcsin(np.clip(np.linalg.norm(corners - middle, axis=1) / 2, 0, 1)))
    x, y, z = (float(part) for part in middle)
    lon, lat = normal_lon(math.degrees(math.atan2(y, x))), math.degrees(math.atan2(z, math.hypot(x, y)))
    return lon, lat, min(float(reach.max()) + 1e-9, 90.0)


# -- text ---------------------------------------------------------------------------------------------------------------------


def check_frame(context: Context, node: exp.Expr, frame: str) -> None:
    """Refuse coordinate systems other than ICRS: positions are never converted silently."""
    name = frame.strip().upper().split(" ")[0]
    if name not in _FRAMES:
        message = f"the coordinate system '{frame}' is not supported; positions are ICRS"
        raise context.error(UnsupportedQueryError, node, message, "convert the coordinates to ICRS, or leave the system out")
