"""The functions of ADQL 2.1, mandatory and optional."""

from __future__ import annotations

import math

from qengine.sql.signatures import Function, Role, Value, fn


def _std(signature: str, description: str, example: tuple[str, Value] | str, *, target: str = "") -> Function:
    return fn(signature, description, example, target=target, extension=False)


def _aggregate(signature: str, description: str, example: tuple[str, Value]) -> Function:
    return fn(signature, description, example, role=Role.AGGREGATE, extension=False, mergeable=True)


def _geometry(signature: str, description: str, example: tuple[str, Value] | str, *also: str) -> Function:
    return fn(signature, description, example, role=Role.GEOMETRY, extension=False, also=also)


STANDARD = (
    fn("ABS(x number) -> = =", "Absolute value.", ("ABS(-2.5)", 2.5), extension=False),
    _std("CEILING(x double) -> DOUBLE =", "Smallest whole number that is not less than x.", ("CEILING(2.1)", 3.0), target="ceil"),
    _std("FLOOR(x double) -> DOUBLE =", "Largest whole number that is not greater than x.", ("FLOOR(-2.1)", -3.0)),
    _std("EXP(x double) -> DOUBLE", "Exponential.", ("EXP(1)", math.e)),
    _std("LOG(x double) -> DOUBLE", "Natural logarithm (in the profile `sql` the decimal one).", ("LOG(EXP(2))", 2.0), target="ln"),
    _std("LOG10(x double) -> DOUBLE", "Decimal logarithm.", ("LOG10(1000)", 3.0)),
    _std("SQRT(x double) -> DOUBLE", "Square root.", ("SQRT(2)", math.sqrt(2))),
    _std("POWER(x double, y double) -> DOUBLE", "x to the power y.", ("POWER(2, 10)", 1024.0), target="pow"),
    _std("SIN(x double) -> DOUBLE", "Sine of an angle in radians.", ("SIN(0.5)", math.sin(0.5))),
    _std("COS(x double) -> DOUBLE", "Cosine of an angle in radians.", ("COS(0.5)", math.cos(0.5))),
    _std("TAN(x double) -> DOUBLE", "Tangent of an angle in radians.", ("TAN(0.5)", math.tan(0.5))),
    _std("COT(x double) -> DOUBLE", "Cotangent of an angle in radians.", ("COT(0.5)", 1 / math.tan(0.5))),
    _std("ASIN(x double) -> DOUBLE rad", "Arc sine in radians.", ("ASIN(1)", math.pi / 2)),
    _std("ACOS(x double) -> DOUBLE rad", "Arc cosine in radians.", ("ACOS(1)", 0.0)),
    _std("ATAN(x double) -> DOUBLE rad", "Arc tangent in radians.", ("ATAN(1)", math.pi / 4)),
    _std("ATAN2(y double, x double) -> DOUBLE rad", "Direction of (x, y) in radians.", ("ATAN2(1, -1)", 3 * math.pi / 4)),
    _std("DEGREES(x double) -> DOUBLE deg", "Radians to degrees.", ("DEGREES(PI())", 180.0)),
    _std("RADIANS(x double) -> DOUBLE rad", "Degrees to radians.", ("RADIANS(180)", math.pi)),
    _std("MOD(x number, y number) -> = =", "Remainder, with the sign of x.", ("MOD(-5, 3)", -2)),
    _std("PI() -> DOUBLE", "The number pi.", ("PI()", math.pi)),
    fn(
        "RAND([seed integer]) -> DOUBLE", "A random number in [0, 1); the seed is ignored.", "RAND()", target="random",
        extension=False,
        volatile=True,
    ),
    _std("ROUND(x double, [digits integer]) -> DOUBLE =", "Rounded to a number of decimal digits.", ("ROUND(2.345, 2)", 2.35)),
    _std(
        "TRUNCATE(x double, [digits integer]) -> DOUBLE =", "Cut to a number of decimal digits.", ("TRUNCATE(-2.39, 1)", -2.3),
        target="trunc",
    ),
    _std("COALESCE(x same..) -> = =", "The first argument that is not NULL.", ("COALESCE(NULL, 2, 3)", 2)),
    _std("LOWER(s text) -> VARCHAR", "Lower case.", ("LOWER('M31')", "m31")),
    _std("UPPER(s text) -> VARCHAR", "Upper case.", ("UPPER('m31')", "M31")),
    _std(
        "IN_UNIT(x number, unit text) -> DOUBLE", "A column converted from its declared unit to another (VOUnit).",
        ("IN_UNIT(ra, 'arcmin')", 600.0),
    ),
    _aggregate("COUNT(x any) -> BIGINT", "Number of values that are not NULL; COUNT(*) of rows.", ("COUNT(*)", 4)),
    _aggregate("SUM(x number) -> = =", "Sum; of integers a BIGINT, overflow is an error.", ("SUM(n)", 10)),
    _aggregate("AVG(x double) -> DOUBLE =", "Mean.", ("AVG(n)", 2.5)),
    _aggregate("MIN(x any) -> = =", "Least value.", ("MIN(name)", "a")),
    _aggregate("MAX(x any) -> = =", "Greatest value.", ("MAX(x)", 2.0)),
    _geometry("POINT(lon double, lat double) -> POINT", "A position in ICRS degrees.", ("POINT(370, 20)", [10.0, 20.0])),
    _geometry(
        "CIRCLE(lon double, lat double, radius double) -> CIRCLE", "A circle on the sky, degrees.",
        ("CIRCLE(10, 20, 0.5)", [10.0, 20.0, 0.5]), "CIRCLE(center point, radius double) -> CIRCLE",
    ),
    _geometry(
        "BOX(lon double, lat double, width double, height double) -> POLYGON",
        "The polygon of great circles through the sides of a box; not a range of coordinates.", ("AREA(BOX(10, 0, 1, 1))",
        0.9999746164392778),
        "BOX(center point, width double, height double) -> POLYGON",
    ),
    _geometry(
        "POLYGON(lon1 double, lat1 double, lon2 double, lat2 double, lon3 double, lat3 double..) -> POLYGON",
        "A polygon of great circles through at least three vertices, within a hemisphere.",
        ("POLYGON(0, 0, 1, 0, 0, 1)", [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]),
        "POLYGON(vertex1 point, vertex2 point, vertex3 point..) -> POLYGON",
    ),
    _geometry(
        "REGION(text text) -> GEOMETRY",
        "A region in STC-S (Position, Circle, Box, Polygon, Union, Intersection, Not) or DALI form.",
        ("REGION('Circle ICRS 10 20 0.5')", [10.0, 20.0, 0.5]),
    ),
    _geometry(
        "CONTAINS(inner geometry, outer geometry) -> INTEGER", "1 if the first lies in the second, else 0; borders belong to both.",
        ("SELECT COUNT(*) AS v FROM sky.t WHERE CONTAINS(POINT(ra, dec), CIRCLE(10, 21, 1)) = 1", 4),
    ),
    _geometry(
        "INTERSECTS(a geometry, b geometry) -> INTEGER", "1 if the two have a point in common, else 0.",
        ("SELECT COUNT(*) AS v FROM sky.t WHERE INTERSECTS(CIRCLE(ra, dec, 1), BOX(12, 20, 2, 2)) = 1", 4),
    ),
    _geometry(
        "DISTANCE(a point, b point) -> DOUBLE deg", "Distance along the great circle.", ("DISTANCE(POINT(0, 0), POINT(0, 1))", 1.0),
        "DISTANCE(lon1 double, lat1 double, lon2 double, lat2 double) -> DOUBLE deg",
    ),
    _geometry("AREA(shape geometry) -> DOUBLE deg**2", "Area in square degrees.", ("AREA(CIRCLE(0, 0, 1))", 3.141512905745537)),
    _geometry("CENTROID(shape geometry) -> POINT", "The middle of a shape.", ("CENTROID(CIRCLE(10, 20, 1))", [10.0, 20.0])),
    _geometry("COORD1(p point) -> DOUBLE deg", "Longitude in [0, 360).", ("COORD1(POINT(-10, 20))", 350.0)),
    _geometry("COORD2(p point) -> DOUBLE deg", "Latitude.", ("COORD2(POINT(-10, 20))", 20.0)),
    _geometry("COORDSYS(shape geometry) -> VARCHAR", "The coordinate system, which is always ICRS.", ("COORDSYS(POINT(1, 2))",
    "ICRS")),
)  # fmt: skip
"""ADQL 2.1."""
