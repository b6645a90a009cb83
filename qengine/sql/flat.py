"""Shapes with constant arguments as flat arithmetic.

DuckDB's macros are textual, and every place where a row's value is used computes it again. For a polygon that is ruinous: the
general macro projects the vertices wherever a projected one is used. But the shapes of a bound statement are mostly constants, so
everything that depends on them only is computed here.

*Circle*, radius 0 to 90: sin^2(d/2) <= sin^2(r/2) with sin^2(d/2) = sin^2((lat - lat0)/2) + cos lat cos lat0 sin^2((lon -
lon0)/2), as `qe_in_circle` has it, with the same tolerance.

*Polygon*: what is left for a row is its unit vector, three products with the frame of the gnomonic projection, and a few
comparisons for each edge. DuckDB evaluates the argument of a lambda once, so vector and products are computed once for a row.
With the products u, v (axes) and w (middle), the projected point is (u / w, v / w), w > 0. A ray to the right crosses the edge
(x1, y1)-(x2, y2) if y1 w > v differs from y2 w > v and u < (x2 - x1) (v - y1 w) / (y2 - y1) + x1 w. A point within the
tolerance of an edge is inside.
"""

from __future__ import annotations

import math

import numpy as np

from qengine.sky.cells import ORDER, RangeSet
from qengine.sky.moc import from_ascii
from qengine.sql.shapes import vectors

TOLERANCE_DEG = 1e-10
TOLERANCE = math.radians(TOLERANCE_DEG)


def in_circle_sql(lon: str, lat: str, constants: tuple[float, float, float]) -> str:
    """Return the SQL text of the test; `constants` are the centre and the radius (0 to 90), all in degrees."""
    lon0, lat0, radius = constants
    limit = math.sin(math.radians(radius + TOLERANCE_DEG) / 2) ** 2
    half = math.radians(0.5)
    up, across = (f"sin(({x} - {_double(x0)}) * {half!r})" for x, x0 in ((lat, lat0), (lon, lon0)))
    cosine = f"cos(radians({lat})) * {_double(math.cos(math.radians(lat0)))}"
    return f"({up} * {up} + {cosine} * {across} * {across} <= {_double(limit)})"


def in_polygon_sql(lon: str, lat: str, constants: list[float]) -> str:
    """Return the SQL text of the test.

    `lon` and `lat` are SQL texts in degrees, `constants` the coordinates of the vertices, in degrees too. The polygon lies within
    the hemisphere around the mean of its vertices (checked when it was bound).
    """
    corners = vectors(constants)
    middle = corners.sum(axis=0)
    middle /= np.linalg.norm(middle)
    east = np.cross(np.eye(3)[np.argmin(np.abs(middle))], middle)
    east /= np.linalg.norm(east)
    north = np.cross(middle, east)
    depth = corners @ middle
    flat = np.stack([corners @ east / depth, corners @ north / depth], axis=1)
    crossings, borders = [], []
    for one, two, a, b in zip(flat, np.roll(flat, -1, axis=0), corners, np.roll(corners, -1, axis=0), strict=True):
        normal = np.cross(a, b)
        length = float(np.linalg.norm(normal))
        if length == 0:
            continue
        normal /= length
        on_circle = f"abs({_product(normal)}) <= {TOLERANCE!r}"
        between = f"{_product(np.cross(normal, a))} >= {-TOLERANCE!r} AND {_product(np.cross(b, normal))} >= {-TOLERANCE!r}"
        borders.append(f"({on_circle} AND {between})")
        (x1, y1), (x2, y2) = one.tolist(), two.tolist()
        if y1 != y2:
            slope = (x2 - x1) / (y2 - y1)
            low, high = f"{_double(y1)} * q.w", f"{_double(y2)} * q.w"
            right = f"{_double(slope)} * (q.v - {low}) + {_double(x1)} * q.w"
            crossings.append(f"CAST((({low} > q.v) <> ({high} > q.v)) AND q.u < {right} AS INTEGER)")
    odd = f"({' + '.join(crossings) or '0'}) % 2 = 1"
    inside = f"q.w > 0 AND ({odd} OR {' OR '.join(borders) or 'false'})"
    frame = ", ".join(f"'{name}': {_product(axis, 'p')}" for name, axis in (("u", east), ("v", north), ("w", middle)))
    cosine, sine = (f"{function}(radians({lat}))" for function in ("cos", "sin"))
    point = f"{{'x': {cosine} * cos(radians({lon})), 'y': {cosine} * sin(radians({lon})), 'z': {sine}}}"
    rows = f"list_transform([{point}], lambda p: {{'x': p.x, 'y': p.y, 'z': p.z, {frame}}})"
    return f"(CASE WHEN ({lon}) IS NOT NULL AND ({lat}) IS NOT NULL THEN list_transform({rows}, lambda q: {inside})[1] END)"


def _double(value: float) -> str:
    """Write a number so that DuckDB reads a DOUBLE, not a DECIMAL; negative ones in parentheses."""
    text = repr(value) if "e" in repr(value) else f"{value!r}e0"
    return f"({text})" if value < 0 else text


def _product(vector: np.ndarray[tuple[int], np.dtype[np.float64]], row: str = "q") -> str:
    x, y, z = (f"{_double(value)}" for value in vector.tolist())
    return f"({x} * {row}.x + {y} * {row}.y + {z} * {row}.z)"


_FEW_RANGES = 64
"""Up to so many ranges a tree of comparisons is faster than IN lists."""


def in_moc_sql(cell: str, text: str) -> str:
    """Return the SQL text of the test whether a cell of order 29 is in a coverage map in ASCII form; NULL for a NULL cell.

    Few ranges become a binary search by CASE; many an IN list for each order, which DuckDB looks up in a hash table.
    """
    ranges = from_ascii(text) if text else RangeSet.empty()
    if not ranges:
        return f"(({cell}) < 0)"
    if len(ranges) <= _FEW_RANGES:
        pairs = list(ranges.pairs())
        return f"list_transform([{cell}], lambda c: {_search(pairs)})[1]"
    orders, indexes = ranges.to_tiles()
    terms = []
    for order in np.unique(orders).tolist():
        pixels = ", ".join(map(str, indexes[orders == order].tolist()))
        terms.append(f"(({cell}) >> {2 * (ORDER - order)}) IN ({pixels})")
    return f"({' OR '.join(terms)})"


def _search(pairs: list[tuple[int, int]]) -> str:
    if len(pairs) == 1:
        return f"(c >= {pairs[0][0]} AND c < {pairs[0][1]})"
    half = len(pairs) // 2
    return f"CASE WHEN c < {pairs[half][0]} THEN {_search(pairs[:half])} ELSE {_search(pairs[half:])} END"
