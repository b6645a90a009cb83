"""Astronomical functions: the IVOA catalogue of user-defined functions, GAVO's names, coverage maps.

A function of this table that ends in 1 or 0 is compared (`ivo_hasword(..) = 1`), as ADQL has no booleans.
"""

from __future__ import annotations

from qengine.sql.signatures import Function, Role, Value, fn


def _udf(
    signature: str, description: str, example: tuple[str, Value] | str, *, target: str = "", also: tuple[str, ...] = (),
    role: Role = Role.SCALAR, volatile: bool = False, cast: bool = False,
) -> Function:  # fmt: skip
    return fn(signature, description, example, target=target, also=also, role=role, extension=False, volatile=volatile, cast=cast)


_EPOCH = (
    "ra double, dec double, parallax double, pmra double, pmdec double, rv double, ref_epoch double, out_epoch double"
)  # fmt: skip

SKY = (
    _udf(
        "ivo_healpix_index(order integer, lon double, lat double) -> BIGINT", "Number of the HEALPix pixel (NESTED) of a position.",
        ("ivo_healpix_index(17, 1, 1)", 81609757711), target="qe_healpix",
        also=("ivo_healpix_index(order integer, p point) -> BIGINT",),
    ),
    _udf(
        "ivo_healpix_center(order integer, pixel bigint) -> POINT", "Centre of a HEALPix pixel (NESTED).",
        ("ivo_healpix_center(0, 6)", [180.0, 0.0]), target="qe_healpix_center",
    ),
    _udf(
        "MOC(text text) -> MOC", "A coverage map in ASCII form, as second argument of CONTAINS.",
        ("SELECT COUNT(*) AS v FROM sky.t WHERE CONTAINS(POINT(ra, dec), MOC('0/4')) = 1", 4), role=Role.GEOMETRY,
    ),
    _udf(
        "gavo_mocintersect(a moc, b moc) -> MOC".replace(" moc", " geometry"), "What two coverage maps have in common.",
        ("SELECT COUNT(*) AS v FROM sky.t WHERE CONTAINS(POINT(ra, dec), gavo_mocintersect(MOC('0/4'), MOC('0/0-3'))) = 1", 0),
        role=Role.GEOMETRY,
    ),
    _udf(
        "gavo_mocunion(a geometry, b geometry) -> MOC", "Two coverage maps together.",
        ("SELECT COUNT(*) AS v FROM sky.t WHERE CONTAINS(POINT(ra, dec), gavo_mocunion(MOC('0/4'), MOC('0/0-3'))) = 1", 4),
        role=Role.GEOMETRY,
    ),
    _udf(
        "ivo_epoch_prop(" + _EPOCH + ") -> DOUBLE[]",
        "Position (deg), parallax (mas), proper motion (mas/yr) and radial velocity (km/s) at another epoch (Julian years).",
        "ivo_epoch_prop(10, 20, 100, 1000, 0, 10, 2016, 2000)", target="qe_epoch_prop",
    ),
    _udf(
        "ivo_epoch_prop_pos(" + _EPOCH + ") -> POINT", "The position at another epoch.",
        "ivo_epoch_prop_pos(10, 20, 100, 1000, 0, 10, 2016, 2000)", target="qe_epoch_prop_pos",
        also=(
            "ivo_epoch_prop_pos(ra double, dec double, pmra double, pmdec double, ref_epoch double, out_epoch double) -> POINT",
        ),
    ),
    _udf(
        "ivo_apply_pm(ra double, dec double, pmra double, pmdec double, years double) -> POINT",
        "A position moved in its tangential plane; proper motions in deg/yr, pmra with cos(dec).",
        ("ivo_apply_pm(30, 15, 0, 0.1, 20)", [30.0, 16.9991882802]), target="qe_apply_pm",
    ),
    _udf(
        "ivo_geom_transform(from word, to word, p point) -> POINT", "A position in another frame: ICRS, GALACTIC, ECLIPTIC.",
        ("ivo_geom_transform('GALACTIC', 'ICRS', POINT(0, 0))", [266.4049948010461, -28.936173960138692]), target="qe_frame",
    ),
    _udf(
        "ivo_hasword(haystack text, needle text) -> INTEGER",
        "1 if every word of needle is a word of haystack or begins one, whatever the case.",
        ("ivo_hasword('Miller and Urey have', 'miller')", 1), target="qe_hasword",
    ),
    _udf(
        "ivo_nocasematch(value text, pattern text) -> INTEGER", "1 if value ILIKE pattern, else 0.",
        ("ivo_nocasematch('ABcabc', 'ab__bc')", 1), target="qe_nocasematch",
    ),
    _udf(
        "ivo_hashlist_has(hashlist text, item text) -> INTEGER",
        "1 if a word is in a list with # between the words, whatever the case.",
        ("ivo_hashlist_has('Red#green#blue', 'red')", 1), target="qe_hashlist_has",
    ),
    _udf(
        "ivo_interval_overlaps(a1 double, b1 double, a2 double, b2 double) -> INTEGER",
        "1 if [a1, b1] and [a2, b2] have a number in common.", ("ivo_interval_overlaps(-2, 2, 2, 3)", 1), target="qe_overlaps",
    ),
    _udf(
        "ivo_interval_has(x double, low double, high double) -> INTEGER", "1 if low <= x <= high.",
        ("ivo_interval_has(2, 1, 3)", 1), target="qe_interval_has", also=("ivo_interval_has(x double, interval numbers) -> INTEGER",
        ),
    ),
    _udf(
        "ivo_string_agg(s text, separator text) -> VARCHAR", "The texts of a group, joined.", ("ivo_string_agg(name, '+')",
        "a+b+c+d"),
        target="string_agg", role=Role.AGGREGATE,
    ),
    _udf(
        "ivo_histogram(x double, low double, high double, n integer) -> BIGINT[]",
        "Counts below low, in n equal bins, and from high on.", ("ivo_histogram(x, 0, 2, 2)", [0, 1, 2, 1]), target="qe_bin",
        role=Role.AGGREGATE,
    ),
    _udf(
        "ivo_normal_random(mu double, sigma double) -> DOUBLE", "A random number of a normal distribution.",
        "ivo_normal_random(0, 1)",
        target="qe_normal_random", volatile=True,
    ),
    _udf("ivo_to_jd(t time) -> DOUBLE d", "Julian date of a time.", ("ivo_to_jd(seen)", 2458850.0), target="qe_jd"),
    _udf("ivo_to_mjd(t time) -> DOUBLE d", "Modified Julian date of a time.", ("ivo_to_mjd(seen)", 58849.5), target="qe_mjd"),
    _udf("gavo_to_jd(t time) -> DOUBLE d", "ivo_to_jd.", ("gavo_to_jd(seen)", 2458850.0), target="qe_jd"),
    _udf("gavo_to_mjd(t time) -> DOUBLE d", "ivo_to_mjd.", ("gavo_to_mjd(seen)", 58849.5), target="qe_mjd"),
    _udf(
        "gavo_histogram(x double, low double, high double, n integer) -> BIGINT[]", "ivo_histogram.",
        ("gavo_histogram(x, 0, 2, 2)", [0, 1, 2, 1]), target="qe_bin", role=Role.AGGREGATE,
    ),
    _udf(
        "gavo_transform(from word, to word, p point) -> POINT", "ivo_geom_transform.",
        ("gavo_transform('ICRS', 'GALACTIC', POINT(266.40499625, -28.93617242))", None), target="qe_frame",
    ),
    _udf(
        "gavo_normal_random(mu double, sigma double) -> DOUBLE", "ivo_normal_random.", "gavo_normal_random(0, 1)",
        target="qe_normal_random", volatile=True,
    ),
    _udf("gavo_match(pattern text, s text) -> INTEGER", "1 if a regular expression matches a part of s.",
         ("gavo_match('[0-9]+', 'NGC 224')", 1), target="qe_match"),
    _udf("ivo_hms_to_degrees(hms text) -> DOUBLE deg", "Degrees of hours, minutes, seconds.", ("ivo_hms_to_degrees('01:30:00')",
       22.5),
         target="qe_hms"),
    _udf("ivo_dms_to_degrees(dms text) -> DOUBLE deg", "Degrees of degrees, minutes, seconds.", ("ivo_dms_to_degrees('-01:30:00')",
       -1.5),
         target="qe_dms"),
)  # fmt: skip

REFUSED = {
    "IVO_SIMBADPOINT": "it asks a service of somebody else for every call; look the name up first and write its coordinates",
    "GAVO_SIMBADPOINT": "it asks a service of somebody else for every call; look the name up first and write its coordinates",
    "GAVO_IPIX": "it numbers pixels of Q3C; ivo_healpix_index numbers those of HEALPix",
    "SCISQL_S2HTMID": "it numbers pixels of HTM; ivo_healpix_index numbers those of HEALPix",
    "SCISQL_S2CPOLYTOBIN": "polygons have no binary form here; give their vertices to scisql_s2PtInCPoly",
    "REPEAT": "its cost is not bounded by the size of its input",
    "LPAD": "its cost is not bounded by the size of its input",
    "RPAD": "its cost is not bounded by the size of its input",
    "RANGE": "its cost is not bounded by the size of its input",
    "GENERATE_SERIES": "its cost is not bounded by the size of its input",
    "LEVENSHTEIN": "its cost grows with the square of its input",
}
"""Names that users try and that are left out on purpose, with the reason."""
