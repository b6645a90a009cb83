"""The spellings of Qserv and scisql, with their own meaning.

What scisql says of NULL holds: the tests of positions give 0 where an argument is NULL; photometry gives NULL where an
argument is NULL, a flux is not positive or an error is negative; magnitudes are AB, fluxes in erg/s/cm2/Hz (`flux`), nanojansky or
raw counts (`dn`, with the counts of magnitude 0). The names without the prefix mean the same. Areas of Qserv restrict the
position of every director in FROM.
"""

from __future__ import annotations

import math

from qengine.sql.signatures import Function, Role, Value, fn

_PHOTOMETRY = (
    ("nanojanskyToAbMag(flux double) -> DOUBLE mag", "AB magnitude of a flux in nJy.", "1000000", 16.4),
    ("nanojanskyToAbMagSigma(flux double, sigma double) -> DOUBLE mag", "Its error.", "100, 1", 2.5 / math.log(10) / 100),
    ("abMagToNanojansky(mag double) -> DOUBLE nJy", "Flux in nJy of an AB magnitude.", "31.4", 1.0),
    ("abMagToNanojanskySigma(mag double, sigma double) -> DOUBLE nJy", "Its error.", "31.4, 0.1", 0.04 * math.log(10)),
    ("fluxToAbMag(flux double) -> DOUBLE mag", "AB magnitude of a flux.", "1e-20", 1.4),
    ("fluxToAbMagSigma(flux double, sigma double) -> DOUBLE mag", "Its error.", "1e-20, 1e-22", 2.5 / math.log(10) / 100),
    ("abMagToFlux(mag double) -> DOUBLE", "Flux of an AB magnitude.", "1.4", 1e-20),
    ("abMagToFluxSigma(mag double, sigma double) -> DOUBLE", "Its error.", "1.4, 0.1", 1e-20 * 0.04 * math.log(10)),
    ("dnToFlux(dn double, zero double) -> DOUBLE", "Flux of raw counts.", "2, 1", 2 * 3.630780547701013e-20),
    (
        "dnToFluxSigma(dn double, sigma double, zero double, zeroSigma double) -> DOUBLE", "Its error.", "2, 0.1, 1, 0",
        0.1 * 3.630780547701013e-20,
    ),
    ("fluxToDn(flux double, zero double) -> DOUBLE", "Raw counts of a flux.", "3.630780547701013e-20, 5", 5.0),
    (
        "fluxToDnSigma(flux double, sigma double, zero double, zeroSigma double) -> DOUBLE", "Its error.",
        "3.630780547701013e-20, 3.630780547701013e-21, 5, 0", 0.5,
    ),
    ("dnToAbMag(dn double, zero double) -> DOUBLE mag", "AB magnitude of raw counts.", "100, 10000", 5.0),
    (
        "dnToAbMagSigma(dn double, sigma double, zero double, zeroSigma double) -> DOUBLE mag", "Its error.", "100, 1, 10000, 0",
        2.5 / math.log(10) / 100,
    ),
    ("abMagToDn(mag double, zero double) -> DOUBLE", "Raw counts of an AB magnitude.", "5, 10000", 100.0),
    (
        "abMagToDnSigma(mag double, sigma double, zero double, zeroSigma double) -> DOUBLE", "Its error.", "5, 0.1, 10000, 0",
        100 * 0.04 * math.log(10),
    ),
)  # fmt: skip


def _photometry(prefix: str) -> tuple[Function, ...]:
    found = []
    for signature, description, arguments, value in _PHOTOMETRY:
        name = signature.partition("(")[0]
        text = f"{description}" if prefix else f"scisql_{name}."
        example: tuple[str, Value] = (f"ROUND({prefix}{name}({arguments}) / {_scale(value)}, 3)", round(value / _scale(value), 3))
        found.append(fn(f"{prefix}{signature}", text, example, target=f"qe_{name.lower()}"))
    return tuple(found)


def _scale(value: float) -> float:
    return 1e-20 if 0 < value < 1e-15 else 1.0


def _test(name: str, arguments: str, description: str, example: str) -> Function:
    text = f"scisql_{name}(lon double, lat double, {arguments}) -> INTEGER"
    return fn(text, description, (f"scisql_{name}({example})", 1), role=Role.GEOMETRY)


def _area(name: str, arguments: str, description: str, example: str) -> Function:
    statement = f"SELECT COUNT(*) AS v FROM sky.t WHERE qserv_areaspec_{name}({example})"
    return fn(f"qserv_areaspec_{name}({arguments}) -> BOOLEAN", description, (statement, 4), role=Role.GEOMETRY)


_BOX = "lonMin double, latMin double, lonMax double, latMax double"
_CIRCLE = "lonCenter double, latCenter double, radius double"
_ELLIPSE = "lonCenter double, latCenter double, semiMajor double, semiMinor double, positionAngle double"
_POLYGON = "lon1 double, lat1 double, lon2 double, lat2 double, lon3 double, lat3 double.."

SCISQL = (
    _test("s2PtInBox", _BOX, "1 if a position lies in a range of coordinates (lonMin > lonMax: across 0), else 0.",
       "1, 1, 359, 0, 2, 2"),
    _test("s2PtInCircle", _CIRCLE, "1 if a position lies in a circle, else 0; radius in degrees.", "1, 1, 1, 2, 1"),
    _test("s2PtInEllipse", _ELLIPSE,
          "1 if a position lies in a spherical ellipse, else 0; semi-axes in arcsec, position angle east of north.",
          "1, 1, 1, 1, 10, 5, 0"),
    _test("s2PtInCPoly", _POLYGON, "1 if a position lies in a polygon, else 0.", "0.2, 0.2, 0, 0, 1, 0, 0, 1"),
    fn("scisql_angSep(lon1 double, lat1 double, lon2 double, lat2 double) -> DOUBLE deg", "Distance of two positions in degrees.",
       ("scisql_angSep(0, 0, 0, 1)", 1.0), target="qe_distance"),
    *_photometry("scisql_"),
    *_photometry(""),
    fn("scisql_median(x double) -> DOUBLE =", "MEDIAN.", ("scisql_median(n)", 2.5), target="median", role=Role.AGGREGATE),
    fn("scisql_percentile(x double, percent double) -> DOUBLE =",
       "Quantile with interpolation; the second argument goes from 0 to 100.",
       ("scisql_percentile(n, 25)", 1.75), target="quantile_cont", role=Role.AGGREGATE),
    _area("box", _BOX, "Restricts to a range of coordinates.", "9, 19, 11, 21"),
    _area("circle", _CIRCLE, "Restricts to a circle; radius in degrees.", "10, 20, 1"),
    _area("ellipse", _ELLIPSE, "Restricts to an ellipse; semi-axes in arcsec, position angle east of north.",
       "10, 20, 3600, 1800, 0"),
    _area("poly", _POLYGON, "Restricts to a polygon.", "9, 19, 11, 19, 11, 21, 9, 21"),
)  # fmt: skip
