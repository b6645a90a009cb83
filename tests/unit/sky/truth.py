"""The sphere in extended precision, by other formulas than `qengine.sky` has: what its tests compare with.

Distances are atan2(|a x b|, a . b) of unit vectors in numpy's long double. A point is in a polygon if the turns of the edges as
seen from it add up to an odd number of full turns; there is no projection.
"""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

Wide = NDArray[np.longdouble]
Float64Array = NDArray[np.float64]

PI = np.longdouble("3.14159265358979323846264338328")
DEGREE = PI / 180
MAS_DEG = 1e-3 / 3600

EQUATORIAL_EDGE = math.degrees(math.asin(2 / 3))
"""Declination at which HEALPix pixels change their shape."""

SPECIAL_RA = (0.0, 360.0, 45.0, 90.0, 180.0, 270.0, 315.0, 1e-12, 359.9999999999999)
SPECIAL_DEC = (90.0, -90.0, 0.0, EQUATORIAL_EDGE, -EQUATORIAL_EDGE, 89.9999999, -89.9999999)

RA = st.one_of(st.floats(0, 360), st.sampled_from(SPECIAL_RA))
DEC = st.one_of(st.floats(-90, 90), st.sampled_from(SPECIAL_DEC))
RADIUS_DEG = st.one_of(
    st.floats(math.log10(0.01 / 3600), math.log10(170)).map(lambda power: 10**power), st.sampled_from([90.0, 170.0])
)
SEED = st.integers(0, 2**32)


def vectors(ra: ArrayLike, dec: ArrayLike) -> Wide:
    """Unit vectors of positions in degrees; shape (..., 3)."""
    lon, lat = np.asarray(ra, np.longdouble) * DEGREE, np.asarray(dec, np.longdouble) * DEGREE
    lon, lat = np.broadcast_arrays(lon, lat)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def positions(points: Wide) -> tuple[Float64Array, Float64Array]:
    """(ra, dec) in degrees, ra in [0, 360]."""
    x, y, z = np.moveaxis(points, -1, 0)
    ra = np.arctan2(y, x) / DEGREE
    return np.where(ra < 0, ra + 360, ra).astype(float), (np.arctan2(z, np.hypot(x, y)) / DEGREE).astype(float)


def angle(one: Wide, two: Wide) -> Wide:
    """Distance in degrees between unit vectors."""
    return np.arctan2(np.sqrt((np.cross(one, two) ** 2).sum(-1)), (one * two).sum(-1)) / DEGREE


def distance(ra1: ArrayLike, dec1: ArrayLike, ra2: ArrayLike, dec2: ArrayLike) -> Wide:
    return angle(vectors(ra1, dec1), vectors(ra2, dec2))


def move(ra: ArrayLike, dec: ArrayLike, by_deg: ArrayLike, bearing_deg: ArrayLike) -> tuple[Float64Array, Float64Array]:
    """Go from positions by a distance in a direction (0 is north, 90 east)."""
    lon, lat = np.asarray(ra, np.longdouble) * DEGREE, np.asarray(dec, np.longdouble) * DEGREE
    by, bearing = np.asarray(by_deg, np.longdouble)[..., None] * DEGREE, np.asarray(bearing_deg, np.longdouble)[..., None] * DEGREE
    north = np.stack(np.broadcast_arrays(-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)), axis=-1)
    east = np.stack(np.broadcast_arrays(-np.sin(lon), np.cos(lon), 0 * lat), axis=-1)
    return positions(np.cos(by) * vectors(ra, dec) + np.sin(by) * (np.cos(bearing) * north + np.sin(bearing) * east))


def is_in_polygon(points: Wide, corners: Wide) -> NDArray[np.bool_]:
    """Even-odd of the turns around each point; corners in an open hemisphere. Unreliable on the edges themselves."""
    turns = np.zeros(points.shape[:-1], np.longdouble)
    for one, two in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        a, b = np.cross(points, one), np.cross(points, two)
        turns += np.arctan2((points * np.cross(a, b)).sum(-1), (a * b).sum(-1))
    # Seen from the antipode of the inside the line turns too.
    in_front = points @ corners.sum(axis=0) > 0
    return in_front & (np.rint(turns / (2 * PI)).astype(int) % 2 == 1)


def to_edges(points: Wide, corners: Wide) -> Wide:
    """Distance in degrees from points to the nearest edge."""
    nearest = np.full(points.shape[:-1], np.longdouble(360))
    for one, two in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        normal = np.cross(one, two - one)  # with `two` itself, short edges would lose the digits that are wanted here
        size = np.sqrt((normal**2).sum())
        ends = np.minimum(angle(points, one), angle(points, two))
        if size > 0:
            above = points @ normal / size
            foot = points - above[..., None] * normal / size
            beside = (np.cross(one, foot) @ normal >= 0) & (np.cross(foot, two) @ normal >= 0)
            beside_deg = np.abs(np.arctan2(above, np.sqrt((foot**2).sum(-1)))) / DEGREE
            ends = np.where(beside, np.minimum(beside_deg, ends), ends)
        nearest = np.minimum(nearest, ends)
    return nearest


def star(ra: float, dec: float, radii_deg: list[float], turn_deg: float) -> tuple[tuple[float, float], ...]:
    """Vertices of a polygon around a centre, one per radius at equal bearings; convex or not, never crossing itself."""
    bearings = turn_deg + 360.0 * np.arange(len(radii_deg)) / len(radii_deg)
    found = move(np.full(len(radii_deg), ra), np.full(len(radii_deg), dec), np.array(radii_deg), bearings)
    return tuple(zip(found[0].tolist(), found[1].tolist(), strict=True))


@st.composite
def stars(draw: st.DrawFn, largest_deg: float = 80.0) -> tuple[tuple[float, float], ...]:
    """Vertices of polygons of any size around any place."""
    size = 10 ** draw(st.floats(-5, math.log10(largest_deg)))
    # At least five vertices, none near the middle: no two neighbours are opposite to each other, and all lie in one hemisphere.
    radii = draw(st.lists(st.floats(0.15, 1), min_size=5, max_size=12))
    found = star(draw(RA), draw(DEC), [size * r for r in radii], draw(st.floats(0, 360)))
    return found if draw(st.booleans()) else found[::-1]


def scatter(rng: np.random.Generator, ra: float, dec: float, size_deg: float, count: int) -> tuple[Float64Array, Float64Array]:
    """Positions around a place, at all scales up to `size_deg`, and some all over the sky."""
    by = np.minimum(size_deg * np.r_[rng.uniform(0, 1, count), 10 ** rng.uniform(-6, 0, count // 2)], 180)
    near = move(np.full(len(by), ra), np.full(len(by), dec), by, rng.uniform(0, 360, len(by)))
    far = rng.uniform(0, 360, count // 4), np.degrees(np.arcsin(rng.uniform(-1, 1, count // 4)))
    return np.r_[near[0], far[0], SPECIAL_RA[:4]], np.r_[near[1], far[1], SPECIAL_DEC[:4]]
