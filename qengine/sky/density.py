"""How many rows lie where on the sky, from what is known without reading rows: a HATS map, or the ranges of parts.

A density is a full-sky map in NESTED order: rows per pixel. Parts say how many rows lie in a range of the line; within it they are
taken as evenly spread. The rows before a cell are then a function that rises along straight lines, and a pixel's rows are its
difference between the pixel's ends: one sort of the borders, however many parts there are and however their ranges overlap.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qengine.sky.cells import LINE_END, ORDER, Int64Array

Float64Array = NDArray[np.float64]
SKY_SQUARE_DEG = 4 * np.pi * (180 / np.pi) ** 2

_FILLED = 3.0


def rows_of_ranges(start: Int64Array, stop: Int64Array, rows: Int64Array, order: int) -> Float64Array:
    """Return the rows per pixel of `order` of parts with these ranges; ranges beyond the sky do not count."""
    on_sky = (stop <= LINE_END) & (stop > start)
    first, last, count = start[on_sky], stop[on_sky], rows[on_sky]
    pixels = np.arange(12 * 4**order + 1, dtype=np.float64) * float(4 ** (ORDER - order))
    if not len(first):
        return np.zeros(12 * 4**order)
    slope = count / (last - first)
    borders = np.concatenate([first, last])
    order_of = np.argsort(borders, kind="stable")
    at = borders[order_of].astype(np.float64)
    rising = np.cumsum(np.concatenate([slope, -slope])[order_of])
    before = np.concatenate([[0.0], np.cumsum(rising[:-1] * np.diff(at))])
    return np.asarray(np.maximum(np.diff(np.interp(pixels, at, before)), 0.0))


def coarsened(counts: Float64Array, *, lowest: int = 3) -> Float64Array:
    """Return the map in the finest order at which most pixels that have rows have several, so that chance is not what is seen."""
    while len(counts) > 12 * 4**lowest:
        filled = counts > 0
        if not filled.any() or np.median(counts[filled]) >= _FILLED:
            break
        counts = counts.reshape(-1, 4).sum(axis=1)
    return counts


def per_square_degree(counts: Float64Array) -> Float64Array:
    """Return a map of rows as rows per square degree."""
    return counts * (len(counts) / SKY_SQUARE_DEG)
