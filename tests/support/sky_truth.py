"""Geometry on the sphere in extended precision: what the oracle believes.

Written without qengine and by other formulas: Vincenty's form for distances, a gnomonic projection about the region's centre for
polygons and boxes (great circles become straight lines there). Everything is `numpy.longdouble`, degrees in, degrees out. Each
test also says which answers are too close to the boundary to be a fair question (`BORDER_DEG`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LongArray = NDArray[np.longdouble]
BoolArray = NDArray[np.bool_]

BORDER_DEG = np.longdouble("1e-9")
"""A point closer than this to a boundary makes a query unfair, unless the answer is exact (distance 0)."""

BORDER_ANTIPODE_DEG = np.longdouble("1e-6")
"""The same for distances near 180 degrees, where the haversine of doubles is good to 3 mas only."""

_DEG = np.longdouble("3.14159265358979323846264338327950288") / 180


def _long(values: object) -> LongArray:
    return np.asarray(values, dtype=np.longdouble)


def distance_deg(lon1: object, lat1: object, lon2: object, lat2: object) -> LongArray:
    """Return the great-circle distance in degrees; exactly 0 where the coordinates are the same numbers."""
    one, two = _long(lat1) * _DEG, _long(lat2) * _DEG
    turn = (_long(lon1) - _long(lon2)) * _DEG
    across = np.hypot(np.cos(two) * np.sin(turn), np.cos(one) * np.sin(two) - np.sin(one) * np.cos(two) * np.cos(turn))
    along = np.sin(one) * np.sin(two) + np.cos(one) * np.cos(two) * np.cos(turn)
    same = (_long(lon1) == _long(lon2)) & (_long(lat1) == _long(lat2))
    return np.where(same, np.longdouble(0), np.arctan2(across, along) / _DEG)


def is_border_distance(distance: object, radius: object) -> BoolArray:
    """True where double precision need not know on which side of `radius` a point lies. Distance 0 is always known."""
    far, limit = _long(distance), _long(radius)
    border = np.where(limit > 170, BORDER_ANTIPODE_DEG, BORDER_DEG)
    return np.asarray((np.abs(far - limit) < border) & (far != 0))


def offset(lon: float, lat: float, bearing_deg: float, distance: float) -> tuple[float, float]:
    """Return the position `distance` degrees from (lon, lat) towards `bearing_deg` (east of north); RA in [0, 360)."""
    phi, theta, delta = _long(lat) * _DEG, _long(bearing_deg) * _DEG, _long(distance) * _DEG
    up = np.sin(phi) * np.cos(delta) + np.cos(phi) * np.sin(delta) * np.cos(theta)
    turn = np.arctan2(np.sin(theta) * np.sin(delta) * np.cos(phi), np.cos(delta) - np.sin(phi) * up)
    out_lat = float(np.arcsin(np.clip(up, -1, 1)) / _DEG)
    return wrap(float((_long(lon) * _DEG + turn) / _DEG)), min(90.0, max(-90.0, out_lat))


def wrap(lon: float) -> float:
    """Return `lon` in [0, 360)."""
    turned = lon % 360.0
    return 0.0 if turned >= 360.0 else turned


def gnomonic(lon: object, lat: object, center: tuple[float, float]) -> tuple[LongArray, LongArray, BoolArray]:
    """Project onto the plane that touches the sphere at `center`; the third array is False on the far hemisphere."""
    phi, mid = _long(lat) * _DEG, _long(center[1]) * _DEG
    turn = (_long(lon) - _long(center[0])) * _DEG
    depth = np.sin(mid) * np.sin(phi) + np.cos(mid) * np.cos(phi) * np.cos(turn)
    is_near = np.asarray(depth > np.longdouble("1e-6"))
    safe = np.where(is_near, depth, np.longdouble(1))
    x = np.cos(phi) * np.sin(turn) / safe
    y = (np.cos(mid) * np.sin(phi) - np.sin(mid) * np.cos(phi) * np.cos(turn)) / safe
    return x, y, is_near


def in_polygon(
    lon: object, lat: object, center: tuple[float, float], vertices: tuple[tuple[float, float], ...]
) -> tuple[BoolArray, BoolArray]:
    """Return (inside, border) of a polygon of great circles. `center` must see all vertices on its own hemisphere."""
    x, y, is_near = gnomonic(lon, lat, center)
    vx, vy, seen = gnomonic([v[0] for v in vertices], [v[1] for v in vertices], center)
    if not bool(seen.all()):
        raise ValueError("a vertex is more than 90 degrees from the centre")
    inside = np.zeros(np.shape(x), bool)
    border = np.zeros(np.shape(x), bool)
    for i in range(len(vertices)):
        ax, ay, bx, by = vx[i - 1], vy[i - 1], vx[i], vy[i]
        crosses = (ay > y) != (by > y)
        slope = np.where(by == ay, np.longdouble(1), by - ay)
        inside ^= crosses & (x < (bx - ax) * (y - ay) / slope + ax)
        border |= _segment_distance(x, y, (ax, ay, bx, by)) < 100 * BORDER_DEG * _DEG * (1 + x * x + y * y)
    return inside & is_near, border & is_near


def in_box(lon: object, lat: object, center: tuple[float, float], size: tuple[float, float]) -> tuple[BoolArray, BoolArray]:
    """Return (inside, border) of ADQL's BOX: great circles that cross the arms of the central cross at right angles."""
    x, y, is_near = gnomonic(lon, lat, center)
    half_x, half_y = (np.tan(_long(side) / 2 * _DEG) for side in size)
    inside = (np.abs(x) <= half_x) & (np.abs(y) <= half_y)
    near = 100 * BORDER_DEG * _DEG * (1 + x * x + y * y)
    border = (np.abs(np.abs(x) - half_x) < near) | (np.abs(np.abs(y) - half_y) < near)
    return inside & is_near, border & is_near


def _segment_distance(x: LongArray, y: LongArray, edge: tuple[np.longdouble, ...]) -> LongArray:
    ax, ay, bx, by = edge
    length = (bx - ax) ** 2 + (by - ay) ** 2
    place = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length, 0, 1)
    return np.hypot(x - (ax + place * (bx - ax)), y - (ay + place * (by - ay)))
