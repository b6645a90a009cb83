"""Regions of the sky: the exact test, and how deep a point lies.

Every region answers two questions about positions in ICRS degrees:

* `contains`: is the point inside? The border counts as inside; accuracy is far better than 1 mas, poles and RA wrap included.
* `depth_deg`: positive only if the point is inside and the border is at least that far away, negative only if the point is
  outside and the region is at least that far away. Its size may be too small, never too large; coverage rests on it.

Depths combine: of a union the largest counts, of an intersection the smallest. A point with a NaN coordinate is in no region.

Polygons have great-circle edges and lie within an open hemisphere. The gnomonic projection around their middle maps great
circles to straight lines, so the exact test is even-odd in the plane:

1. The middle is the mean of the unit vectors of the vertices, or, if a vertex is 90 degrees or more away from it, the middle of
   the smallest cap that holds them all. If that is no less than a hemisphere, the polygon is refused.
2. With axes x and y at right angles to the middle m, a vector p is projected to (p.x / p.m, p.y / p.m); p.m <= 0 is outside.
3. A point is inside if a ray from it in the direction of x crosses the edges an odd number of times. An edge from (x1, y1) to
   (x2, y2) is crossed if exactly one of y1, y2 is above y and the crossing lies to the right of the point.
4. A point within 1e-10 degrees of an edge is inside whatever the ray says: that is the border, and it absorbs rounding.

So the smaller side is inside whatever the direction of the vertices. `qe_in_polygon` does the same in SQL.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qengine.errors import QueryTypeError

Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

EDGE_DEG = 1e-10
"""How far from the border a point still counts as on it: 0.36 microarcseconds, above rounding and far below 1 mas."""

FAR_DEG = 360.0
"""Depth of what has no border."""

ROUNDING = 1e-15
"""Bound of the rounding of a component of a unit vector or a product of two. Taken off sines, it keeps distances lower bounds
where the arcsine is steep."""

HEMISPHERE = 1e-6
"""Sine of how far vertices must stay inside the rim of the hemisphere; the projection is exact up to there."""

_BLOCK = 1 << 18


class Region(Protocol):
    """A part of the sky."""

    def contains(self, ra: ArrayLike, dec: ArrayLike) -> BoolArray: ...

    def depth_deg(self, ra: Float64Array, dec: Float64Array) -> Float64Array: ...


@dataclass(frozen=True, slots=True)
class Circle:
    """The points within `radius` of (`ra`, `dec`); degrees, radius 0 to 180."""

    ra: float
    dec: float
    radius: float

    def contains(self, ra: ArrayLike, dec: ArrayLike) -> BoolArray:
        return np.asarray((distance_deg(ra, dec, self.ra, self.dec) <= self.radius + EDGE_DEG) & (self.radius >= 0))

    def depth_deg(self, ra: Float64Array, dec: Float64Array) -> Float64Array:
        return circle_depth_deg(self.ra, self.dec, self.radius, ra, dec)


@dataclass(frozen=True, slots=True)
class RaDecBox:
    """ra_min <= ra <= ra_max and dec_min <= dec <= dec_max, degrees; ra_min > ra_max means across RA 0."""

    ra_min: float
    ra_max: float
    dec_min: float
    dec_max: float

    @property
    def width(self) -> float:
        return self.ra_max - self.ra_min if self.ra_min <= self.ra_max else self.ra_max + 360.0 - self.ra_min

    def contains(self, ra: ArrayLike, dec: ArrayLike) -> BoolArray:
        lon, lat = np.asarray(ra, np.float64), np.asarray(dec, np.float64)
        if self.ra_min <= self.ra_max:
            inside = (lon >= self.ra_min) & (lon <= self.ra_max)
        else:
            inside = (lon >= self.ra_min) | (lon <= self.ra_max)
        return np.asarray(inside & (lat >= self.dec_min) & (lat <= self.dec_max))

    def depth_deg(self, ra: Float64Array, dec: Float64Array) -> Float64Array:
        above = dec - self.dec_min if self.dec_min > -90 else np.full_like(dec, FAR_DEG)
        below = self.dec_max - dec if self.dec_max < 90 else np.full_like(dec, FAR_DEG)
        band = np.minimum(above, below)
        if self.width >= 360.0:
            return band
        # Between two meridians, which end in the poles: the nearest point of a meridian more than 90 degrees of RA away is a pole.
        side = np.full_like(dec, FAR_DEG)
        for edge in (self.ra_min, self.ra_max):
            turn = np.radians(ra - edge)
            sine = np.cos(np.radians(dec)) * np.abs(np.sin(turn))
            side = np.minimum(side, np.where(np.cos(turn) >= 0, np.degrees(_arcsine(sine)), 90.0 - np.abs(dec)))
        is_between = (ra - self.ra_min) % 360.0 <= self.width
        return np.asarray(np.minimum(band, np.where(is_between, side, -side)))


@dataclass(frozen=True, slots=True)
class EverySky:
    """The whole sky."""

    def contains(self, ra: ArrayLike, dec: ArrayLike) -> BoolArray:
        return np.asarray(np.isfinite(np.asarray(ra, np.float64)) & np.isfinite(np.asarray(dec, np.float64)))

    def depth_deg(self, ra: Float64Array, dec: Float64Array) -> Float64Array:
        return np.full(np.shape(ra), FAR_DEG)


@dataclass(frozen=True, slots=True)
class NoSky:
    """Nothing."""

    def contains(self, ra: ArrayLike, dec: ArrayLike) -> BoolArray:
        return np.zeros(np.broadcast_shapes(np.shape(ra), np.shape(dec)), bool)

    def depth_deg(self, ra: Float64Array, dec: Float64Array) -> Float64Array:
        return np.full(np.shape(ra), -FAR_DEG)


@dataclass(frozen=True, slots=True)
class Polygon:
    """The smaller side of a closed line of great-circle arcs through `vertices` (ra, dec) in degrees; convex or not.

    Raise `QueryTypeError` for less than three vertices, for vertices that are no positions, and if no open hemisphere holds them.
    """

    vertices: tuple[tuple[float, float], ...]
    _outline: _Outline = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.vertices) < 3:
            raise QueryTypeError("a polygon needs at least three vertices")
        if any(not math.isfinite(v) for vertex in self.vertices for v in vertex) or any(abs(d) > 90 for _, d in self.vertices):
            raise QueryTypeError("a vertex of the polygon is not a position", hint="declinations lie between -90 and 90 degrees")
        object.__setattr__(self, "_outline", _Outline.through(unit_vectors(*np.array(self.vertices, np.float64).T)))

    def contains(self, ra: ArrayLike, dec: ArrayLike) -> BoolArray:
        inside, border = self._outline.measure(unit_vectors(ra, dec))
        return np.asarray(inside | (border <= EDGE_DEG))

    def depth_deg(self, ra: Float64Array, dec: Float64Array) -> Float64Array:
        inside, border = self._outline.measure(unit_vectors(ra, dec))
        return np.asarray(np.where(inside, border, -border))


@dataclass(frozen=True, slots=True)
class Union:
    """Points in any of the regions; empty for none."""

    regions: tuple[Region, ...]

    def contains(self, ra: ArrayLike, dec: ArrayLike) -> BoolArray:
        inside = np.zeros(np.shape(ra), bool)
        for region in self.regions:
            inside = inside | region.contains(ra, dec)
        return np.asarray(inside)

    def depth_deg(self, ra: Float64Array, dec: Float64Array) -> Float64Array:
        depth = np.full(np.shape(ra), -FAR_DEG)
        for region in self.regions:
            depth = np.maximum(depth, region.depth_deg(ra, dec))
        return depth


@dataclass(frozen=True, slots=True)
class Intersection:
    """Points in all of the regions; the whole sky for none."""

    regions: tuple[Region, ...]

    def contains(self, ra: ArrayLike, dec: ArrayLike) -> BoolArray:
        inside = np.ones(np.shape(ra), bool)
        for region in self.regions:
            inside = inside & region.contains(ra, dec)
        return np.asarray(inside)

    def depth_deg(self, ra: Float64Array, dec: Float64Array) -> Float64Array:
        depth = np.full(np.shape(ra), FAR_DEG)
        for region in self.regions:
            depth = np.minimum(depth, region.depth_deg(ra, dec))
        return depth


def box(ra: float, dec: float, width: float, height: float) -> Polygon:
    """Return ADQL's BOX: a polygon of great circles whose sides cross the parallel and meridian of the centre at the half-widths
    (ADQL 2.1, section 4.2.5: the corners are the intersections of these great circles).

    Seen from the centre in the gnomonic projection it is the rectangle of half-sides tan(width / 2) and tan(height / 2).
    """
    if not (0 < width < 180 and 0 < height < 180):
        raise QueryTypeError("a box is wider and higher than 0 and less than 180 degrees")
    if not (math.isfinite(ra) and abs(dec) <= 90):
        raise QueryTypeError("the centre of the box is not a position", hint="declinations lie between -90 and 90 degrees")
    lon, lat = math.radians(ra), math.radians(dec)
    east = np.array([-math.sin(lon), math.cos(lon), 0.0])
    north = np.array([-math.sin(lat) * math.cos(lon), -math.sin(lat) * math.sin(lon), math.cos(lat)])
    middle = np.array([math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat)])
    x, y = math.tan(math.radians(width) / 2), math.tan(math.radians(height) / 2)
    corners = []
    for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        point = middle + sx * x * east + sy * y * north
        height_deg = math.degrees(math.atan2(point[2], math.hypot(point[0], point[1])))
        corners.append((math.degrees(math.atan2(point[1], point[0])) % 360.0, height_deg))
    return Polygon(tuple(corners))


def distance_deg(ra1: ArrayLike, dec1: ArrayLike, ra2: ArrayLike, dec2: ArrayLike) -> Float64Array:
    """Return great-circle distances in degrees (Vincenty's form of atan2: exact for small, large and antipodal distances)."""
    lon1, lat1, lon2, lat2 = (np.radians(np.asarray(v, np.float64)) for v in (ra1, dec1, ra2, dec2))
    delta = lon2 - lon1
    across = np.cos(lat2) * np.sin(delta)
    along = np.cos(lat1) * np.sin(lat2) - np.sin(lat1) * np.cos(lat2) * np.cos(delta)
    apart = np.sin(lat1) * np.sin(lat2) + np.cos(lat1) * np.cos(lat2) * np.cos(delta)
    return np.asarray(np.degrees(np.arctan2(np.hypot(across, along), apart)))


def unit_vectors(ra: ArrayLike, dec: ArrayLike) -> Float64Array:
    """Return unit vectors of positions in degrees; shape (..., 3)."""
    lon, lat = np.radians(np.asarray(ra, np.float64)), np.radians(np.asarray(dec, np.float64))
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def circle_depth_deg(ra0: ArrayLike, dec0: ArrayLike, radius: ArrayLike, ra: Float64Array, dec: Float64Array) -> Float64Array:
    """Return how deep positions lie in circles; all arguments are broadcast, so each position may have its own circle."""
    reach = np.asarray(radius, np.float64)
    return np.asarray(np.where(reach >= 180.0, FAR_DEG, reach - distance_deg(ra0, dec0, ra, dec)))


@dataclass(frozen=True, slots=True)
class _Outline:
    """A polygon prepared for the tests.

    `axes` are x, y and the middle, shape (3, 3); `flat` the projected edges as rows x1, y1, x2, y2, shape (4, n); `corners` the
    vertices, shape (n, 3). Edges that have a length: `normals` of their great circles, `ahead` and `behind` the normals of the two
    great circles through their ends at right angles to them, between which a point is beside the edge; shape (m, 3).
    """

    axes: Float64Array
    flat: Float64Array
    corners: Float64Array
    normals: Float64Array
    ahead: Float64Array
    behind: Float64Array

    @classmethod
    def through(cls, corners: Float64Array) -> _Outline:
        """Prepare the polygon through unit vectors, shape (n, 3)."""
        middle = _middle(corners)
        x = np.cross(np.eye(3)[np.argmin(np.abs(middle))], middle)
        x /= np.linalg.norm(x)
        axes = np.stack([x, np.cross(middle, x), middle])
        plane = (corners @ axes[:2].T) / (corners @ middle)[:, None]
        following = np.roll(corners, -1, axis=0)
        # The cross product with the difference, not with the next vertex: exact for vertices that are microarcseconds apart.
        normals = np.cross(corners, following - corners)
        lengths = np.linalg.norm(normals, axis=1)
        solid = lengths > 0
        normals = normals[solid] / lengths[solid, None]
        ahead, behind = np.cross(normals, corners[solid]), np.cross(following[solid], normals)
        return cls(axes, np.concatenate([plane, np.roll(plane, -1, axis=0)], axis=1).T, corners, normals, ahead, behind)

    def measure(self, points: Float64Array) -> tuple[BoolArray, Float64Array]:
        """Return for unit vectors, shape (..., 3), what the ray test says, and the distance in degrees to the nearest edge (a lower
        bound, too small by rounding only)."""
        flat = points.reshape(-1, 3)
        inside, border = np.empty(len(flat), bool), np.empty(len(flat), np.float64)
        rows = max(1, _BLOCK // len(self.corners))
        for first in range(0, len(flat), rows):
            block = slice(first, first + rows)
            inside[block], border[block] = self._is_inside(flat[block]), self._border_deg(flat[block])
        return inside.reshape(points.shape[:-1]), border.reshape(points.shape[:-1])

    def _is_inside(self, points: Float64Array) -> BoolArray:
        depth = points @ self.axes[2]
        in_front = depth > 1e-12
        safe = np.where(in_front, depth, 1.0)
        x, y = (points @ self.axes[0] / safe)[:, None], (points @ self.axes[1] / safe)[:, None]
        x1, y1, x2, y2 = self.flat
        level = y1 == y2
        slope = np.where(level, 0.0, (x2 - x1) / np.where(level, 1.0, y2 - y1))
        crossings = ((y1 > y) != (y2 > y)) & (x < slope * (y - y1) + x1)
        return np.asarray(in_front & (np.count_nonzero(crossings, axis=1) % 2 == 1))

    def _border_deg(self, points: Float64Array) -> Float64Array:
        chords = np.zeros((len(points), len(self.corners)))
        for axis in range(3):
            chords += (points[:, axis, None] - self.corners[:, axis]) ** 2
        to_corner = 2 * _arcsine(np.sqrt(chords.min(axis=1)) / 2)
        if not len(self.normals):
            return np.asarray(np.degrees(to_corner))
        is_beside = (points @ self.ahead.T >= 0) & (points @ self.behind.T >= 0)
        sines = np.where(is_beside, np.abs(points @ self.normals.T), 1.0).min(axis=1)
        to_edge = np.where(is_beside.any(axis=1), _arcsine(sines), np.pi)
        return np.asarray(np.degrees(np.minimum(to_corner, to_edge)))


def _middle(corners: Float64Array) -> Float64Array:
    """Return the middle of an open hemisphere that holds all unit vectors: their mean if it will do, else that of the smallest cap.

    That cap has one, two or three of the corners on its rim. The least m with c.m = 1 for these corners c points to its middle, and
    c.m >= 1 holds for all others. So: find it for a few corners, add the corner that violates it most, and go on with the
    corners on the new rim and so forth; the cap grows with every step, until it holds all.
    """
    mean = corners.mean(axis=0)
    if (corners @ mean).min() > HEMISPHERE * float(np.linalg.norm(mean)):
        return np.asarray(mean / np.linalg.norm(mean))
    rim = corners[:1]
    for _ in range(10 * len(corners)):
        if (found := _smallest_cap(rim)) is None:
            break
        rim, middle = found
        heights = corners @ middle
        length = float(np.linalg.norm(middle))
        if heights.min() >= 1 - 1e-9:
            if heights.min() > HEMISPHERE * length:
                return np.asarray(middle / length)
            break
        rim = np.concatenate([rim, corners[np.argmin(heights)][None]])
    raise QueryTypeError("the polygon does not fit into a hemisphere", hint="split it into smaller polygons and join them with OR")


def _smallest_cap(points: Float64Array) -> tuple[Float64Array, Float64Array] | None:
    """Return (points on the rim, m) of the smallest cap that holds at most four points; None if no hemisphere does."""
    best: tuple[Float64Array, Float64Array] | None = None
    for count in range(1, min(3, len(points)) + 1):
        for chosen in itertools.combinations(range(len(points)), count):
            rim = points[list(chosen)]
            middle = np.linalg.pinv(rim) @ np.ones(count)
            is_cap = np.allclose(rim @ middle, 1, atol=1e-9) and (points @ middle).min() >= 1 - 1e-9
            if is_cap and (best is None or np.linalg.norm(middle) < np.linalg.norm(best[1])):
                best = rim, middle
    return best


def _arcsine(sines: Float64Array) -> Float64Array:
    """Return a lower bound of the arcsine in radians of numbers that carry the rounding of a few operations."""
    return np.asarray(np.arcsin(np.clip(sines - ROUNDING, 0.0, 1.0)))
