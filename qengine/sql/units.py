"""Units: the factor between two VOUnits. The only user of astropy in the engine, loaded when a statement needs it.

Only factors are constants; a unit whose conversion is anything else (magnitudes to fluxes, Celsius to Kelvin) is refused.
"""

from __future__ import annotations

import contextlib
import warnings
from functools import cache
from typing import Any

from qengine.errors import QueryTypeError


@cache
def factor(found: str, wanted: str) -> float:
    """Return the number of `wanted` units in one `found`; raise `QueryTypeError` if one is no unit or they differ in kind."""
    if found == wanted:
        return 1.0
    from astropy import units

    one, other = _parsed(found), _parsed(wanted)
    try:
        return float(one.to(other))
    except (units.UnitConversionError, units.UnitTypeError, TypeError) as error:
        raise QueryTypeError(
            f"{found} cannot be converted to {wanted}", hint="both have to measure the same kind of thing"
        ) from error


def _parsed(text: str) -> Any:
    """Read a VOUnit; what is not one (`uas`) as astropy's own notation."""
    from astropy import units

    for notation in ("vounit", "generic"):
        with contextlib.suppress(ValueError, TypeError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return units.Unit(text, format=notation)
    raise QueryTypeError(f"'{text}' is not a unit", hint="write a VOUnit such as mas, km.s**-1, deg or Jy")
