"""The only user of a HEALPix library: positions to cells, tiles to positions, neighbours, sizes.

Loading and planning must use the same library: libraries differ in about 1e-7 of points, at cell borders. Positions are
degrees, cells are NESTED.
"""

from __future__ import annotations

import warnings
from functools import cache

import healpy
import numpy as np
from numpy.typing import ArrayLike, NDArray

from qengine.errors import InputError
from qengine.sky.cells import ORDER, Int64Array

Float64Array = NDArray[np.float64]

MIN_WIDTH = 0.6
"""Everything within MIN_WIDTH * sqrt(pixel area) of a pixel is in it or its neighbours. The true factor falls from 0.71 at
order 2 to 0.678 at order 8 and stays there (measured on borders of pixels at all places up to order 28)."""


def cells_of(ra: ArrayLike, dec: ArrayLike) -> Int64Array:
    """Return the order-29 cells of positions in degrees; shape (n,). RA of any turn is taken.

    Raise `InputError` unless all values are finite and all |dec| <= 90.
    """
    lon, lat = np.asarray(ra, np.float64), np.asarray(dec, np.float64)
    if not (np.isfinite(lon).all() and (np.abs(lat) <= 90.0).all()):
        raise InputError("a position is not finite or its declination is beyond a pole", hint="set such positions to NULL")
    lon = lon % 360.0
    lon = np.where(lon >= 360.0, 0.0, lon)  # what the remainder of a tiny negative number rounds to
    return np.asarray(healpy.ang2pix(2**ORDER, lon, lat, nest=True, lonlat=True), np.int64)


def centers(order: int, index: ArrayLike) -> tuple[Float64Array, Float64Array]:
    """Return (ra, dec) in degrees of the centres of pixels of one order."""
    ra, dec = healpy.pix2ang(2**order, np.asarray(index, np.int64), nest=True, lonlat=True)
    return np.asarray(ra, np.float64), np.asarray(dec, np.float64)


def center_vectors(order: int, index: ArrayLike) -> Float64Array:
    """Return unit vectors of the centres of pixels of one order; shape (n, 3)."""
    return np.stack(healpy.pix2vec(2**order, np.asarray(index, np.int64), nest=True), axis=-1)


def tile_vertices(order: int, index: int, *, step: int = 1) -> tuple[Float64Array, Float64Array]:
    """Return (ra, dec) in degrees of 4 * step points on the border of a pixel, corners included."""
    x, y, z = np.asarray(healpy.boundaries(2**order, index, step=step, nest=True), np.float64)
    # healpy.vec2ang takes an arc cosine, which is wrong by 3 mas at the poles.
    return np.degrees(np.arctan2(y, x)) % 360.0, np.degrees(np.arctan2(z, np.hypot(x, y)))


def neighbours(order: int, index: ArrayLike) -> Int64Array:
    """Return the distinct pixels that share a side or corner with any of the given ones; sorted."""
    found = np.asarray(healpy.get_all_neighbours(2**order, np.asarray(index, np.int64), nest=True), np.int64).ravel()
    found = np.sort(found[found >= 0])
    return found[np.r_[True, found[1:] > found[:-1]]] if len(found) else found


def neighbours_of_each(order: int, index: ArrayLike) -> Int64Array:
    """Return for each pixel those that share a side or corner with it; shape (n, 8), -1 where a corner has no eighth pixel."""
    return np.asarray(healpy.get_all_neighbours(2**order, np.asarray(index, np.int64), nest=True), np.int64).T


@cache
def max_radius_deg(order: int) -> float:
    """Return an upper bound of the distance from a pixel's centre to its corners."""
    return float(healpy.max_pixrad(2**order, degrees=True)) * 1.01


@cache
def min_width_deg(order: int) -> float:
    """Return a distance so that everything within it of a pixel is in the pixel or its neighbours."""
    return MIN_WIDTH * float(np.degrees(healpy.nside2resol(2**order)))


def pixels_of(pixels: int, ra: Float64Array, dec: Float64Array) -> Int64Array:
    """Return which pixel of a full-sky map of so many pixels positions in degrees lie in."""
    return np.asarray(healpy.ang2pix(healpy.npix2nside(pixels), ra, dec, nest=True, lonlat=True), np.int64)


def read_map(path: str) -> Float64Array:
    """Return a HEALPix FITS map as a full-sky map of counts in NESTED order, whether it is dense or sparse; unseen pixels are 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about order and scheme, which are in the header
        found = np.asarray(healpy.read_map(path, nest=True, dtype=np.float64), np.float64)
    return np.where(np.isfinite(found) & (found > 0), found, 0.0)
