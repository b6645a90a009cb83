"""Meaning of aggregates with options, scisql's NULL rules, units, epochs and frames: against numpy, astropy and mpmath."""

from __future__ import annotations

import math

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import Distance, SkyCoord
from astropy.time import Time

from qengine.errors import QuerySyntaxError, QueryTypeError, UnknownNameError
from tests.sql.examples import Examples


@pytest.fixture(scope="module")
def examples() -> Examples:
    return Examples()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("STRING_AGG(name, ',' ORDER BY x DESC)", "d,c,b,a"), ("STRING_AGG(DISTINCT name, ',')", "a,b,c,d"),
        ("LIST(DISTINCT MOD(n, 2) ORDER BY MOD(n, 2) DESC)", [1, 0]), ("LIST(n) FILTER (WHERE n > 2)", [3, 4]),
        ("LIST(NULLIF(n, 2) ORDER BY n)", [1, None, 3, 4]), ("STRING_AGG(name, ',') FILTER (WHERE flag = 1)", "c,d"),
        ("PERCENTILE_CONT(0.25) WITHIN GROUP (ORDER BY n DESC)", 3.25), ("PERCENTILE_DISC(0.25) WITHIN GROUP (ORDER BY n DESC)", 4),
        ("PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY name)", "b"), ("MODE() WITHIN GROUP (ORDER BY MOD(n, 2))", 0),
        ("COUNT_IF(x > 0.5) FILTER (WHERE n < 4)", 2), ("BOOL_AND(n < 3) FILTER (WHERE n < 3)", True), ("BOOL_OR(n > 9)", False),
        ("ARG_MAX(name, NULLIF(n, 4))", "c"), ("ARG_MIN(n, flag)", 1), ("HISTOGRAM(x, 0.5, 1.5, 2) FILTER (WHERE n < 4)", [0, 1, 1,
        1]),
        ("MEDIAN(DISTINCT MOD(n, 2))", 0.5), ("BIT_OR(n) FILTER (WHERE n > 2)", 7), ("REGR_SLOPE(n, NULLIF(x, 1.0))", 2.0),
        ("ivo_histogram(x, 5, 6, 2)", [4, 0, 0, 0]), ("scisql_percentile(n, 100)", 4.0), ("ANY_VALUE(NULLIF(n, 1))", 2),
    ],
)  # fmt: skip
def test_aggregates_with_options(examples: Examples, expression: str, expected: object) -> None:
    found = examples.rows(f"SELECT {expression} AS v FROM sky.t")[0][0]
    assert found == (pytest.approx(expected) if isinstance(expected, float) else expected)


def test_aggregates_as_windows(examples: Examples) -> None:
    text = "SELECT n, MEDIAN(x) OVER (ORDER BY n) AS m, COUNT_IF(flag = 1) OVER () AS c, BOOL_OR(flag) OVER (ORDER BY n) AS b FROM sky.t"
    assert examples.rows(f"{text} ORDER BY n") == [(1, 0.5, 2, False), (2, 0.75, 2, False), (3, 1.0, 2, True), (4, 1.25, 2, True)]
    assert examples.rows("SELECT STRING_AGG(name, '') OVER (PARTITION BY flag) AS s FROM sky.t ORDER BY n") == [
        ("ab",), ("ab",), ("cd",), ("cd",),
    ]  # fmt: skip
    assert examples.rows("SELECT HISTOGRAM(x, 0, 2, 2) OVER () AS h FROM sky.t WHERE n = 1") == [([0, 1, 0, 0],)]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("scisql_s2PtInCircle(NULL, 1, 1, 1, 1)", 0), ("scisql_s2PtInBox(1, 1, 0, NULL, 2, 2)", 0),
        ("scisql_s2PtInBox(1, 1, 0, 2, 2, 0)", 0),
        ("scisql_s2PtInBox(5, 1, 350, 0, 370, 2)", 1), ("scisql_s2PtInBox(5, 1, -10, 0, 10, 2)", 1),
        ("scisql_s2PtInBox(5, 1, 0, 0, 360, 2)", 1),
        ("scisql_s2PtInBox(5, 1, -100, 0, 260, 2)", 1), ("scisql_s2PtInBox(20, 1, 350, 0, 10, 2)", 0),
        ("scisql_s2PtInEllipse(0, 0.002, 0, 0, 10, 5, 0)", 1), ("scisql_s2PtInEllipse(0.002, 0, 0, 0, 10, 5, 0)", 0),
        ("scisql_s2PtInEllipse(0.002, 0, 0, 0, 10, 5, 90)", 1), ("scisql_s2PtInEllipse(180, 0, 0, 0, 10, 5, 0)", 0),
        ("scisql_s2PtInEllipse(NULL, 0, 0, 0, 10, 5, 0)", 0), ("scisql_s2PtInCPoly(NULL, 0, 0, 0, 1, 0, 0, 1)", 0),
        ("scisql_angSep(NULL, 0, 0, 1)", None), ("scisql_nanojanskyToAbMag(0)", None), ("scisql_nanojanskyToAbMag(-1)", None),
        ("scisql_nanojanskyToAbMag(NULL)", None), ("scisql_nanojanskyToAbMagSigma(1, -1)", None), ("scisql_fluxToAbMag(0)", None),
        ("scisql_nanojanskyToAbMagSigma(0, 1)", None), ("fluxToAbMagSigma(NULL, 1)", None), ("scisql_dnToAbMag(-5, 1)", None),
    ],
)  # fmt: skip
def test_null_rules_of_scisql(examples: Examples, expression: str, expected: object) -> None:
    assert examples.value(expression) == expected


def test_photometry_is_the_ab_system(examples: Examples) -> None:
    for flux in (1e-3, 1.0, 3631e9, 7.25e4):
        magnitude = (flux * u.nJy).to(u.ABmag).value
        assert examples.value(f"scisql_nanojanskyToAbMag({flux!r})") == pytest.approx(magnitude, abs=2e-4)
        assert examples.value(f"scisql_abMagToNanojansky(scisql_nanojanskyToAbMag({flux!r}))") == pytest.approx(flux, rel=1e-12)
        assert examples.value(f"dnToAbMag(fluxToDn({flux!r} * 1e-32, 7), 7)") == pytest.approx(
            -2.5 * math.log10(flux * 1e-32) - 48.6
        )


@pytest.mark.parametrize(
    ("expression", "expected", "unit"),
    [
        ("IN_UNIT(ra, 'rad')", math.radians(10), "rad"), ("IN_UNIT(ra, 'deg')", 10.0, "deg"), ("IN_UNIT(x, 'arcsec')", 0.0005,
        "arcsec"),
        ("IN_UNIT(2 * x, 'uas')", 1000.0, "uas"), ("IN_UNIT(IN_UNIT(ra, 'arcsec'), 'arcmin')", 600.0, "arcmin"),
    ],
)  # fmt: skip
def test_units(examples: Examples, expression: str, expected: float, unit: str) -> None:
    assert examples.value(expression, "adql-strict" if "*" not in expression else "adql") == pytest.approx(expected, rel=1e-14)
    assert examples.bound(f"SELECT {expression} AS v FROM sky.t").columns[0].unit == unit


@pytest.mark.parametrize(
    "expression", ["IN_UNIT(n, 'deg')", "IN_UNIT(5, 'deg')", "IN_UNIT(ra, 'mag')", "IN_UNIT(ra, 'parrots')", "IN_UNIT(ra, name)"]
)
def test_wrong_units_are_errors_with_a_place(examples: Examples, expression: str) -> None:
    with pytest.raises(QueryTypeError) as caught:
        examples.value(expression)
    assert caught.value.span is not None


def test_epoch_propagation_is_that_of_astropy(examples: Examples) -> None:
    rng = np.random.default_rng(8)
    for _ in range(15):
        ra, dec = rng.uniform(0, 360), rng.uniform(-85, 85)
        plx, pma, pmd, rv = rng.uniform(1, 500), rng.uniform(-5000, 5000), rng.uniform(-5000, 5000), rng.uniform(-200, 200)
        star = SkyCoord(
            ra=ra * u.deg, dec=dec * u.deg, distance=Distance(parallax=plx * u.mas), pm_ra_cosdec=pma * u.mas / u.yr,
            pm_dec=pmd * u.mas / u.yr, radial_velocity=rv * u.km / u.s, obstime=Time(2016.0, format="jyear", scale="tdb"),
        )  # fmt: skip
        moved = star.apply_space_motion(new_obstime=Time(1950.0, format="jyear", scale="tdb"))
        arguments = ", ".join(repr(float(v)) for v in (ra, dec, plx, pma, pmd, rv, 2016, 1950))
        found = examples.value(f"ivo_epoch_prop({arguments})")
        assert isinstance(found, list)
        there = SkyCoord(found[0] * u.deg, found[1] * u.deg)
        assert there.separation(SkyCoord(moved.ra, moved.dec)).mas < 0.5
        assert found[2] == pytest.approx(moved.distance.to(u.mas, u.parallax()).value, rel=1e-5)
        assert found[3:5] == pytest.approx(
            [moved.pm_ra_cosdec.to_value(u.mas / u.yr), moved.pm_dec.to_value(u.mas / u.yr)], rel=1e-5, abs=1e-3
        )
        assert found[5] == pytest.approx(moved.radial_velocity.to_value(u.km / u.s), abs=1e-2)
        assert examples.value(f"ivo_epoch_prop_pos({arguments})") == found[:2]
    assert examples.value("ivo_epoch_prop(10, 20, NULL, 1, 1, NULL, 2000, 2010)")[2] is None  # type: ignore[index]
    assert examples.value("ivo_epoch_prop(10, NULL, 1, 1, 1, 1, 2000, 2010)") is None


def test_frames(examples: Examples) -> None:
    for lon, lat in ((0.0, 0.0), (123.0, -45.0), (300.0, 80.0)):
        place = SkyCoord(lon * u.deg, lat * u.deg, frame="galactic").icrs
        found = examples.value(f"ivo_geom_transform('GALACTIC', 'ICRS', POINT({lon}, {lat}))")
        assert isinstance(found, list)
        assert SkyCoord(found[0] * u.deg, found[1] * u.deg).separation(place).arcsec < 0.05
        back = examples.value(
            f"DISTANCE(POINT({lon}, {lat}), ivo_geom_transform('ICRS', 'GALACTIC', POINT({found[0]!r}, {found[1]!r})))"
        )
        assert back == pytest.approx(0, abs=1e-11)


def test_times(examples: Examples) -> None:
    for text in ("2020-02-29T23:59:59.5", "1999-01-01T00:00:00", "1858-11-17T00:00:00", "2061-07-28T12:00:00.000001"):
        stamp = f"CAST('{text}' AS TIMESTAMP)"
        time = Time(text, scale="tai")
        assert examples.value(f"ivo_to_mjd({stamp})") == pytest.approx(time.mjd, abs=1e-10)
        assert examples.value(f"gavo_to_jd({stamp})") == pytest.approx(time.jd, abs=1e-9)
        assert examples.value(f"TO_MJD(MJD_TO_TIMESTAMP({float(time.mjd)!r}))") == pytest.approx(time.mjd, abs=1e-9)


def test_strict_adql_has_its_functions_only(examples: Examples) -> None:
    assert examples.value("ivo_hasword('a b', 'b')", "adql-strict") == 1
    for text in ("MEDIAN(x)", "qserv_areaspec_circle(1, 2, 3)", "STRING_AGG(name, ',')", "REGEXP_MATCHES(name, 'a')"):
        with pytest.raises((UnknownNameError, QuerySyntaxError)):
            examples.bound(f"SELECT {text} AS v FROM sky.t", "adql-strict")


@pytest.mark.parametrize("name", ["ivo_simbadpoint('M31')", "repeat('x', 9)", "scisql_s2HtmId(1, 2, 3)"])
def test_what_is_left_out_says_why(examples: Examples, name: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        examples.value(name)
    assert "on purpose" in caught.value.hint
