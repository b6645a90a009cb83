"""Mollweide's projection of the whole sky: equal areas stay equal, so that densities look as they are.

The plane is 4 wide and 2 high, (0, 0) in its middle at a chosen right ascension; right ascension increases to the left, declination
upwards, as the sky is seen from inside.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64Array = NDArray[np.float64]

_STEPS = 60
_CLOSE = 1e-12


def to_plane(ra: ArrayLike, dec: ArrayLike, *, center_ra: float = 180.0) -> tuple[Float64Array, Float64Array]:
    """Return (x, y) of positions in degrees, x in [-2, 2], y in [-1, 1]."""
    lon = np.radians((np.asarray(ra, np.float64) - center_ra + 180.0) % 360.0 - 180.0)
    lat = np.radians(np.asarray(dec, np.float64))
    angle = _auxiliary(lat)
    return -2 / np.pi * lon * np.cos(angle), np.sin(angle)


def from_plane(x: ArrayLike, y: ArrayLike, *, center_ra: float = 180.0) -> tuple[Float64Array, Float64Array]:
    """Return (ra, dec) in degrees of points of the plane, NaN for those that are not on the sky."""
    across, up = np.asarray(x, np.float64), np.asarray(y, np.float64)
    is_sky = (across / 2) ** 2 + up**2 < 1.0
    safe = np.where(is_sky, up, 0.0)
    angle = np.arcsin(safe)
    lat = np.arcsin(np.clip((2 * angle + np.sin(2 * angle)) / np.pi, -1.0, 1.0))
    lon = -np.pi * np.where(is_sky, across, 0.0) / (2 * np.cos(angle))
    ra = (np.degrees(lon) + center_ra) % 360.0
    return np.where(is_sky, ra, np.nan), np.where(is_sky, np.degrees(lat), np.nan)


def _auxiliary(lat: Float64Array) -> Float64Array:
    """Return the angle t with 2 t + sin 2 t = pi sin(lat), by Newton's method in a form that converges at the poles too."""
    goal = np.pi * np.abs(np.sin(lat))
    # near a pole, t = pi/2 - e with (2 e)^3 / 6 = pi - goal; it is the better beginning everywhere
    near = np.cbrt(6 * np.maximum(np.pi - goal, 0.0)) / 2
    angle = np.clip(np.pi / 2 - near, 0.0, np.pi / 2)
    for _ in range(_STEPS):
        slope = 2 + 2 * np.cos(2 * angle)
        step = np.where(slope > _CLOSE, (2 * angle + np.sin(2 * angle) - goal) / np.maximum(slope, _CLOSE), 0.0)
        angle = np.clip(angle - step, 0.0, np.pi / 2)
        if not np.abs(step).max(initial=0.0) > _CLOSE:
            break
    return np.asarray(np.sign(lat) * angle)
