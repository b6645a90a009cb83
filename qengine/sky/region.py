"""Regions of the sky: the exact test, and how deep a point lies.

Every region answers two questions about positions in ICRS degrees:

* `contains`: is the point inside? The border counts as inside; accuracy is far better than 1 mas, poles and RA wrap included.
* `depth_deg`: a number that is positive only if the point is inside and the border is at least that far away, and negative
only if the
  point is outside and the region is at least that far away. Its size may be too small, never too large; coverage rests on it.

Depths combine: of a union the largest counts, of an intersection the smallest.

Polygons have great-circle edges and lie within an open hemisphere. The gnomonic projection around their middle maps great
circles to straight lines, so the exact test is even-odd in the plane: count the edges that a ray to the right crosses. The
smaller side is inside, whatever the direction of the vertices. A point within 1e-10 degrees of an edge is inside.
`qe_in_polygon` does the same in SQL.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qengine.errors import QueryTypeError

Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

EDGE_DEG = 1e-10
FAR_DEG = 360.0


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
        return np.asarray(distance_deg(ra, dec, self.ra, self.dec) <= self.radius)

    def depth_deg(self, ra: Float64Array, dec: Float64Array) -> Float64Array:
        return np.asarray(self.radius - distance_deg(ra, dec, self.ra, self.dec))


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
        west, east = (np.radians(ra - edge) for edge in (self.ra_min, self.ra_max))
        cosine = np.cos(np.radians(dec))
        after = np.degrees(np.arcsin(np.clip(cosine * np.sin(west), -1, 1)))
        before = np.degrees(np.arcsin(np.clip(-cosine * np.sin(east), -1, 1)))
        lune = np.minimum(after, before) if self.width <= 180.0 else np.maximum(after, before)
        return np.asarray(np.minimum(band, lune))


@dataclass(frozen=True, slots=True)
class Polygon:
    """The smaller side of a closed line of great-circle arcs through `vertices` (ra, dec) in degrees; convex or not."""

    vertices: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if len(self.vertices) < 3:
            raise QueryTypeError("a polygon needs at least three vertices")
        if any(not math.isfinite(v) for vertex in self.vertices for v in vertex) or any(abs(d) > 90 for _, d in self.vertices):
            raise QueryTypeError("a vertex of the polygon is not a position", hint="declinations lie between -90 and 90 degrees")
        _frame(self.vertices)

    def contains(self, ra: ArrayLike, dec: ArrayLike) -> BoolArray:
        points = unit_vectors(ra, dec)
        frame, corners = _frame(self.vertices)
        depth = points @ frame[2]
        in_front = depth > 1e-12
        safe = np.where(in_front, depth, 1.0)
        x, y = points @ frame[0] / safe, points @ frame[1] / safe
        inside = np.zeros(x.shape, bool)
        for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            if y1 == y2:
                continue
            crosses = (y1 > y) != (y2 > y)
            inside ^= crosses & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
        near = self._border_deg(points) <= EDGE_DEG
        return np.asarray((in_front & inside) | near)

    def depth_deg(self, ra: Float64Array, dec: Float64Array) -> Float64Array:
        border = self._border_deg(unit_vectors(ra, dec))
        return np.asarray(np.where(self.contains(ra, dec), border, -border))

    def _border_deg(self, points: Float64Array) -> Float64Array:
        """Distance from points, shape (n, 3), to the nearest edge; shape (n,)."""
        corners = unit_vectors(*np.array(self.vertices, np.float64).T)
        nearest = np.full(points.shape[:-1], np.inf)
        for one, two in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            nearest = np.minimum(nearest, _arc_distance(points, one, two))
        return np.asarray(np.degrees(nearest))


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
    lon, lat = math.radians(ra), math.radians(dec)
    east = np.array([-math.sin(lon), math.cos(lon), 0.0])
    north = np.array([-math.sin(lat) * math.cos(lon), -math.sin(lat) * math.sin(lon), math.cos(lat)])
    middle = np.array([math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat)])
    x, y = math.tan(math.radians(width) / 2), math.tan(math.radians(height) / 2)
    corners = []
    for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        point = middle + sx * x * east + sy * y * north
        point /= np.linalg.norm(point)
        height_deg = math.degrees(math.asin(max(-1.0, min(1.0, point[2]))))
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


def _frame(vertices: tuple[tuple[float, float], ...]) -> tuple[Float64Array, Float64Array]:
    """Return an orthonormal frame (x, y, middle; shape (3, 3)) and the projected corners (shape (n, 2)).

    Raise `QueryTypeError` if no hemisphere around the middle holds all vertices.
    """
    corners = unit_vectors(*np.array(vertices, np.float64).T)
    for middle in _middles(corners):
        if (corners @ middle).min() > 1e-6:
            helper = np.eye(3)[np.argmin(np.abs(middle))]
            x = np.cross(helper, middle)
            x /= np.linalg.norm(x)
            frame = np.stack([x, np.cross(middle, x), middle])
            depth = corners @ middle
            return frame, np.stack([corners @ frame[0] / depth, corners @ frame[1] / depth], axis=-1)
    raise QueryTypeError("the polygon does not fit into a hemisphere", hint="split it into smaller polygons and join them with OR")


def _middles(corners: Float64Array) -> list[Float64Array]:
    """Candidates for the middle of an enclosing hemisphere: the mean, then improved towards the furthest corner."""
    middle = corners.sum(axis=0)
    found = []
    for step in range(200):
        length = np.linalg.norm(middle)
        if length > 1e-9:
            middle = middle / length
            found.append(middle)
            if (corners @ middle).min() > 1e-6:
                break
        middle = middle + corners[np.argmin(corners @ middle)] / (step + 2)
    return found


def _arc_distance(points: Float64Array, one: Float64Array, two: Float64Array) -> Float64Array:
    """Distance in radians from points to the shorter arc between two unit vectors."""
    normal = np.cross(one, two)
    length = np.linalg.norm(normal)
    ends = np.minimum(_chord_angle(points, one), _chord_angle(points, two))
    if length < 1e-15:
        return ends
    normal = normal / length
    beside = (np.cross(normal, one) @ points.T >= 0) & (np.cross(two, normal) @ points.T >= 0)
    return np.asarray(np.where(beside, np.abs(np.arcsin(np.clip(points @ normal, -1, 1))), ends))


def _chord_angle(points: Float64Array, one: Float64Array) -> Float64Array:
    return np.asarray(2 * np.arcsin(np.clip(np.linalg.norm(points - one, axis=-1) / 2, 0, 1)))
