"""What the loader does with values that are not what they should be.

* NaN becomes NULL in every float column and is counted; infinities stay. (Parquet statistics leave NaN out, so engines disagree.)
* A position that is NULL or NaN in either coordinate is no position: the row goes beyond the sky.
* An infinite coordinate or |dec| > 90 is quarantined: the row is not in the table, but in a file with the reason
  (`loader.quarantine`).
* A right ascension outside [0, 360) is refused, because it usually means another unit or another frame; a load may ask to
  have it taken modulo 360.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from qengine.errors import InputError

INFINITE = 1
BAD_DEC = 2
REPEATED = 3
ALREADY_THERE = 4
REASONS = {
    INFINITE: "a coordinate is infinite",
    BAD_DEC: "declination outside [-90, 90]",
    REPEATED: "an earlier row of the load has the same key",
    ALREADY_THERE: "a row with this key is in the table already",
}


@dataclass(frozen=True, slots=True)
class Positions:
    """Checked positions of some rows. `is_placed` where there is one; `reason` is 0, or a key of `REASONS` for rows in
    quarantine."""

    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    is_placed: NDArray[np.bool_]
    reason: NDArray[np.int8]
    wrapped: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where rows came from: the input, and for each row its place there, from 0."""

    source: str
    rows: NDArray[np.int64]


def check_positions(ra: pa.Array, dec: pa.Array, *, names: tuple[str, str], place: Place, is_wrapping: bool) -> Positions:
    """Return the positions in degrees. Raise `InputError` for right ascensions outside [0, 360) unless they are wrapped."""
    ra_deg, dec_deg = to_float64(ra, names[0], place.source), to_float64(dec, names[1], place.source)
    has_both = ~(np.isnan(ra_deg) | np.isnan(dec_deg))
    reason = np.zeros(len(ra_deg), np.int8)
    with np.errstate(invalid="ignore"):
        reason[np.abs(dec_deg) > 90] = BAD_DEC
        reason[np.isinf(ra_deg) | np.isinf(dec_deg)] = INFINITE
        is_out = np.isfinite(ra_deg) & ((ra_deg < 0) | (ra_deg >= 360))
    wrapped = int(is_out.sum())
    if wrapped and not is_wrapping:
        row = int(np.flatnonzero(is_out)[0])
        raise InputError(
            f"{place.source}: row {int(place.rows[row]) + 1}, column {names[0]!r}: {float(ra_deg[row])!r} is outside [0, 360)",
            hint="is it in degrees, and ICRS? --ra-wrap takes it modulo 360",
        )
    if wrapped:
        ra_deg = wrap(ra_deg)
    return Positions(ra_deg, dec_deg, has_both & (reason == 0), reason, wrapped)


def wrap(ra: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return finite right ascensions modulo 360, and all others as they are."""
    with np.errstate(invalid="ignore"):
        wrapped = np.mod(ra, 360.0)
    wrapped[wrapped == 360.0] = 0.0  # of -1e-20
    return np.where(np.isfinite(ra) & ((ra < 0) | (ra >= 360)), wrapped, ra)


def to_float64(values: pa.Array, name: str, where: str) -> NDArray[np.float64]:
    """Return a column of numbers with NaN for NULL. Raise `InputError` if it holds no numbers."""
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type) or pa.types.is_decimal(values.type)):
        raise InputError(f"{where}: column {name!r} holds {values.type}, not a number of degrees")
    found: NDArray[np.float64] = pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return found


def nan_to_null(values: pa.Array) -> tuple[pa.Array, int]:
    """Return the column with NaN as NULL, and how many there were. Columns that cannot hold NaN come back as they are."""
    if not pa.types.is_floating(values.type) or not len(values):
        return values, 0
    # The plain buffer is much faster to look at than the nullable column; NaN under a NULL is seen, too, and not counted.
    raw = np.frombuffer(values.buffers()[1], values.type.to_pandas_dtype(), len(values), values.offset * values.type.bit_width // 8)
    is_nan = np.isnan(raw)
    if not is_nan.any():
        return values, 0
    mask = pa.array(is_nan)
    count = int(is_nan.sum()) if not values.null_count else int(pc.sum(pc.and_(mask, values.is_valid())).as_py() or 0)
    return (pc.if_else(mask, pa.scalar(None, values.type), values), count) if count else (values, 0)
