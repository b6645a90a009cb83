"""`qe_in_polygon` with constant vertices as flat arithmetic.

DuckDB's macros are textual: the general macro projects the vertices again in every place where a projected one is used, and a
polygon of four corners grows into a statement that takes minutes. But the vertices of a bound statement are constants. So
everything that depends on them only (middle, axes, projected corners, normals of the edges) is computed here, and a row only
needs its unit vector, three products with the frame, and a few comparisons for each edge. The unit vector and the products are
computed once for a row: DuckDB evaluates the argument of a lambda once.

With the products u, v (axes) and w (middle) of a row, the projected point is (u / w, v / w), w > 0. A ray to the right crosses
the edge (x1, y1)-(x2, y2) if y1 w > v differs from y2 w > v and u < (x2 - x1) (v - y1 w) / (y2 - y1) + x1 w. A point within
the tolerance of an edge is inside.
"""

from __future__ import annotations

import math

import numpy as np

from qengine.sql.shapes import vectors

TOLERANCE = math.radians(1e-10)


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
