"""The compiled inner loop of sky joins: which rows of two sorted sets of positions may be closer than a radius.

Rows of both sides are sorted by their cells of order 29 (which is how files lie), so the rows of a pixel of any order are one
slice. The smaller side *drives*: its rows are taken pixel by pixel (a *group*), at an order where a pixel is a few radii wide.
The partners of a group are in the slice of its own pixel and, for rows near a border of the pixel, in those of the neighbours.
Slices are found by galloping from the last one: the neighbour of a pixel is mostly near on the line too.

*Which neighbours.* Coordinates (x, y) inside a base pixel are the bits of the cell, even and odd. In units of base pixels they
change by at most 1.4519 per radian of distance: along a meridian and a parallel HEALPix has, with s = sqrt(6) sin(t / 2) at angle
t from the pole, the derivatives (x/s) (sqrt(6) / 2) cos(t / 2) and (sqrt(6) / pi) / cos(t / 2), of which the sum of squares is
largest at the pole, 3/2 + 6/pi^2; in the equatorial zone it is at most 1.0206^2. So a row that is farther than `reach` cells from
every border of its pixel has all partners in it, and one that is near the left border only has them there or in the left
neighbour. That holds across base pixels too, where x and y turn; there a row near any border looks at all eight neighbours, which
a table gives.

*Which rows.* A candidate differs in declination by at most the radius, and in right ascension by at most the half-width of a circle
at the group's largest |dec|, asin(sin r / cos dec). That box has 4/pi of the circle's area, and no trigonometry for each row.

*Distances.* Whoever wants them gets the candidates' distances, by the operations of the macro `qe_distance` in the same order, so
that they are the same numbers (a test compares them); candidates that are farther than the radius and a little are left out
then. SQL would compute twelve functions for each candidate, and all of them again in the next clause. Otherwise DuckDB applies
the exact test to the candidates.

Measured on 5 million objects (2 arcsec, one core): about 0.3 s. `bench/test_neighbour.py` on 2e7 objects (2 arcsec, two workers
of one thread, reading and counting included): 1.9 s, 5.3 million rows a second and core; 4.2 s when a dense field has the order of
its empty surroundings. Orders 11 to 15 differ by less than a fifth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Int64Array = NDArray[np.int64]
Float64Array = NDArray[np.float64]

STRETCH = 1.452
"""Change of x or y, in base pixels, per radian of distance, at most."""

ANY, LESS, GREATER, DIFFERENT = 0, 1, 2, 3
"""How the keys of a pair must compare, the first side's on the left."""

F = TypeVar("F", bound=Callable[..., Any])

_EVEN = np.int64(0x5555555555555555)
_ODD = np.int64(0x2AAAAAAAAAAAAAAA)
_SLACK_DEG = 1e-8
_RADIAN, _DEGREE = math.pi / 180.0, 180.0 / math.pi


def _compiled(function: F) -> F:
    """Compile a function once for all processes: numba keeps the code beside this file, or in the user's cache directory. Where
    neither can be written, every process compiles for itself (a few seconds)."""
    try:
        return cast(F, numba.njit(nogil=True, cache=True)(function))
    except RuntimeError:
        return cast(F, numba.njit(nogil=True)(function))


@numba.njit(inline="always")
def _squeeze(bits: Any) -> Any:
    """Return the even bits of a number as a number."""
    bits = bits & 0x5555555555555555
    bits = (bits | (bits >> 1)) & 0x3333333333333333
    bits = (bits | (bits >> 2)) & 0x0F0F0F0F0F0F0F0F
    bits = (bits | (bits >> 4)) & 0x00FF00FF00FF00FF
    bits = (bits | (bits >> 8)) & 0x0000FFFF0000FFFF
    return (bits | (bits >> 16)) & 0xFFFFFFFF


@numba.njit(inline="always")
def _moved(pixel: Any, dx: Any, dy: Any) -> Any:
    """Return the pixel one step away in x and y, in the same base pixel."""
    x, y = pixel & _EVEN, pixel & _ODD
    if dx > 0:
        x = ((x | _ODD) + 1) & _EVEN
    elif dx < 0:
        x = (x - 1) & _EVEN
    if dy > 0:
        y = ((y | _EVEN) + 1) & _ODD
    elif dy < 0:
        y = (y - 1) & _ODD
    return x | y


@numba.njit(inline="always")
def _nearness(cell: Any, half_shift: Any, reach: Any) -> Any:
    """Return which borders of its pixel a cell is near: 1 and 2 for low and high x, 4 and 8 for low and high y."""
    size = np.int64(1) << half_shift
    x = _squeeze(cell & ((np.int64(1) << (2 * half_shift)) - 1))
    y = _squeeze((cell & ((np.int64(1) << (2 * half_shift)) - 1)) >> 1)
    return int(x < reach) + 2 * int(x >= size - reach) + 4 * int(y < reach) + 8 * int(y >= size - reach)


@numba.njit(inline="always")
def _is_at_rim(pixel: Any, half_shift: Any) -> Any:
    """Say whether a pixel touches the border of its base pixel."""
    last = (np.int64(1) << (29 - half_shift)) - 1
    inner = pixel & ((np.int64(1) << (2 * (29 - half_shift))) - 1)
    x, y = _squeeze(inner), _squeeze(inner >> 1)
    return x == 0 or y == 0 or x == last or y == last


@numba.njit(inline="always")
def _seek(cells: Any, value: Any, hint: Any) -> Any:
    """Return the first index whose cell is not below `value`, galloping from `hint`."""
    count = len(cells)
    if count == 0:
        return 0
    hint = min(max(hint, 0), count - 1)
    stride = 1
    if cells[hint] < value:
        low, high = hint, hint + 1
        while high < count and cells[high] < value:
            low = high
            stride *= 2
            high = hint + stride
        low, high = low + 1, min(high, count)
    else:
        low, high = hint - 1, hint
        while low >= 0 and cells[low] >= value:
            high = low
            stride *= 2
            low = hint - stride
        low = max(low + 1, 0)
    while low < high:
        middle = (low + high) >> 1
        if cells[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit(inline="always")
def _cells_near(radius_deg: Any) -> Any:
    """Return how many cells of order 29 a circle reaches in x or y, at most; 64 of them (25 mas) for what libraries disagree
    about."""
    return np.int64(STRETCH * math.radians(radius_deg) * 536870912.0) + 64


@_compiled
def rim_pixels(cells: Int64Array, radii_deg: Float64Array, half_shift: int) -> Int64Array:
    """Return the pixels that touch a border of their base pixel and hold a row near one of their own borders; sorted."""
    found = np.empty(16, np.int64)
    count = 0
    previous = np.int64(-1)
    is_rim = False
    for i in range(len(cells)):
        pixel = cells[i] >> (2 * half_shift)
        if pixel != previous:
            previous = pixel
            is_rim = _is_at_rim(pixel, half_shift)
        if not is_rim:
            continue
        radius = radii_deg[i] if len(radii_deg) > 1 else radii_deg[0]
        if _nearness(cells[i], half_shift, _cells_near(radius)) == 0:
            continue
        is_rim = False
        if count == len(found):
            larger = np.empty(2 * count, np.int64)
            larger[:count] = found
            found = larger
        found[count] = pixel
        count += 1
    return found[:count]


@numba.njit(inline="always")
def _distance(lon1: Any, lat1: Any, lon2: Any, lat2: Any) -> Any:
    """Return the distance in degrees, as `qe_distance` of `qengine.sql.macros` computes it: the order of operations counts."""
    across, along, both = (lon1 - lon2) * _RADIAN / 2, (lat1 - lat2) * _RADIAN / 2, (lat1 + lat2) * _RADIAN / 2
    scale = math.cos(lat1 * _RADIAN) * math.cos(lat2 * _RADIAN)
    near = math.sin(along) * math.sin(along) + scale * (math.sin(across) * math.sin(across))
    far = math.sin(both) * math.sin(both) + scale * (math.cos(across) * math.cos(across))
    return 2 * math.atan2(math.sqrt(near), math.sqrt(far)) * _DEGREE


@_compiled
def pairs(
    cells: Int64Array,
    lon: Float64Array,
    lat: Float64Array,
    keys: Int64Array,
    driving_cells: Int64Array,
    driving_lon: Float64Array,
    driving_lat: Float64Array,
    driving_keys: Int64Array,
    asked: tuple[Float64Array, Float64Array, Float64Array, Float64Array],
    radii_deg: Float64Array,
    half_shift: int,
    rim: Int64Array,
    around: Int64Array,
    comparison: int,
    start: int,
    group_rows: int,
    found: Int64Array,
    found_driving: Int64Array,
    found_deg: Float64Array,
) -> tuple[int, int]:
    """Write candidates as indexes of both sides and return (how many, the next driving row).

    Distances go to `found_deg` unless it is empty, of the positions `asked`: (lon, lat, driving lon, driving lat) as they were
    before they were brought into the usual intervals.

    Pixels have order 29 - `half_shift`. `radii_deg` has one value, or one for each driving row. `rim` are `rim_pixels` of the
    driving side, `around` (rims, 8) their neighbours or -1. It stops before the group that would overflow `found`; when it
    returns `start` unchanged, that group alone does: call again with smaller `group_rows` or a larger array.
    """
    shift = 2 * half_shift
    is_varied = len(radii_deg) > 1
    nearness = np.empty(group_rows, np.uint8)
    total, capacity, has_distances = 0, len(found), len(found_deg) > 0
    i, home = start, 0
    while i < len(driving_cells):
        pixel = driving_cells[i] >> shift
        j, near_any, furthest, widest = i, 0, 0.0, 0.0
        reach = _cells_near(radii_deg[0])
        while j < len(driving_cells) and j - i < group_rows and driving_cells[j] >> shift == pixel:
            radius = radii_deg[j] if is_varied else radii_deg[0]
            if is_varied:
                reach = _cells_near(radius)
            near = _nearness(driving_cells[j], half_shift, reach)
            nearness[j - i] = near
            near_any |= near
            furthest = max(furthest, abs(driving_lat[j]))
            widest = max(widest, radius)
            j += 1
        half_width = 181.0
        if furthest + widest < 90.0 - _SLACK_DEG:
            sine = math.sin(math.radians(widest)) / math.cos(math.radians(furthest))
            half_width = math.degrees(math.asin(min(1.0, sine))) + _SLACK_DEG
        before = total
        home = _seek(cells, pixel << shift, home)
        is_rim = near_any != 0 and _is_at_rim(pixel, half_shift)
        row = _seek(rim, pixel, 0) if is_rim else 0
        for direction in range(9):
            needed, other = 0, pixel
            if direction > 0 and is_rim:
                other = around[row, direction - 1]
                if other < 0:
                    continue
            elif direction > 0:
                # Of the nine, 1 to 8: low x, high x, then the same with low y and with high y, and low y, high y.
                across = direction % 3
                along = direction // 3
                needed = across + 4 * along
                if (near_any & needed) != needed:
                    continue
                other = _moved(pixel, 2 * across - 3 if across else 0, 2 * along - 3 if along else 0)
            first = home if direction == 0 else _seek(cells, other << shift, home)
            stop = (other + 1) << shift
            last = first
            while last < len(cells) and cells[last] < stop:
                last += 1
            if last == first:
                continue
            for t in range(i, j):
                if direction > 0:
                    near = nearness[t - i]
                    if near == 0 or (near & needed) != needed:
                        continue
                radius = (radii_deg[t] if is_varied else radii_deg[0]) + _SLACK_DEG
                for a in range(first, last):
                    if not abs(lat[a] - driving_lat[t]) <= radius:
                        continue
                    across_deg = abs(lon[a] - driving_lon[t])
                    if not min(across_deg, 360.0 - across_deg) <= half_width:
                        continue
                    if comparison == 1 and not keys[a] < driving_keys[t]:
                        continue
                    if comparison == 2 and not keys[a] > driving_keys[t]:
                        continue
                    if comparison == 3 and keys[a] == driving_keys[t]:
                        continue
                    distance = 0.0
                    if has_distances:
                        distance = _distance(asked[0][a], asked[1][a], asked[2][t], asked[3][t])
                        if distance > radius:
                            continue
                    if total < capacity:
                        found[total] = a
                        found_driving[total] = t
                        if has_distances:
                            found_deg[total] = distance
                    total += 1
                if total > capacity:
                    return before, i
        i = j
    return total, i
