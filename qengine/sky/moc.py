"""Coverage maps (MOC) as text, and as a region.

The ASCII form of the IVOA's recommendation lists orders and pixels, single or as inclusive ranges: `5/12-15 17 6/100`. White space,
commas and line ends separate; an order without pixels only sets the finest order (`29/`). A map is a set of ranges of the line, so
it is exact: a position is inside if its cell of order 29 is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from qengine.errors import QueryTypeError
from qengine.sky.cells import ORDER, Int64Array, RangeSet
from qengine.sky.healpix import Float64Array, cells_of
from qengine.sky.region import BoolArray

_WORD = re.compile(r"(?:(\d+)/)?(?:(\d+)(?:-(\d+))?)?")
MOST_RANGES = 50_000
"""A map in a statement may have so many ranges; larger ones are uploaded as tables."""


@dataclass(frozen=True, slots=True)
class Cells:
    """The positions in some cells. The border of a cell belongs to the cell that HEALPix says."""

    ranges: RangeSet

    def contains(self, ra: ArrayLike, dec: ArrayLike) -> BoolArray:
        lon, lat = np.broadcast_arrays(np.asarray(ra, np.float64), np.asarray(dec, np.float64))
        is_place = np.isfinite(lon) & (np.abs(lat) <= 90)
        cells = cells_of(np.where(is_place, lon, 0.0), np.where(is_place, lat, 0.0))
        return np.asarray(is_place & self.ranges.contains(cells))

    def depth_deg(self, ra: Float64Array, dec: Float64Array) -> Float64Array:
        """Nothing is said (0): coverage takes the ranges themselves."""
        return np.zeros(np.shape(ra))


def from_ascii(text: str) -> RangeSet:
    """Return the cells of a map in ASCII form; raise `QueryTypeError` if it is none."""
    order = -1
    starts: list[int] = []
    stops: list[int] = []
    for word in re.split(r"[\s,]+", text.strip()):
        found = _WORD.fullmatch(word)
        if found is None or not word or (order < 0 and found[1] is None):
            raise QueryTypeError(f"'{word}' is not part of a coverage map", hint="write order/pixels, such as 5/12-15 6/100")
        if found[1] is not None:
            order = int(found[1])
            if order > ORDER:
                raise QueryTypeError(f"orders of a coverage map go from 0 to {ORDER}, not to {order}")
        if found[2] is None:
            continue
        first, last = int(found[2]), int(found[3] or found[2])
        if not first <= last < 12 * 4**order:
            raise QueryTypeError(
                f"pixels {first} to {last} are not pixels of order {order}", hint=f"they end at {12 * 4**order - 1}"
            )
        shift = 2 * (ORDER - order)
        starts.append(first << shift)
        stops.append((last + 1) << shift)
    if not starts:
        return RangeSet.empty()
    found_ranges = RangeSet.from_ranges(np.array(starts, np.int64), np.array(stops, np.int64))
    if len(found_ranges) > MOST_RANGES:
        hint = "upload it as a table of cells and join by ivo_healpix_index"
        raise QueryTypeError(f"the coverage map has {len(found_ranges)} ranges, more than {MOST_RANGES}", hint=hint)
    return found_ranges


def to_ascii(ranges: RangeSet) -> str:
    """Return the shortest list of pixels, by order."""
    orders, indexes = ranges.to_tiles()
    words = []
    for order in np.unique(orders).tolist():
        words.append(f"{order}/" + " ".join(_runs(np.sort(indexes[orders == order]))))
    return " ".join(words)


def _runs(pixels: Int64Array) -> list[str]:
    breaks = np.flatnonzero(np.diff(pixels) > 1) + 1
    return [f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in (part.tolist() for part in np.split(pixels, breaks))]
