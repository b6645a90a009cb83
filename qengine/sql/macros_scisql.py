"""DuckDB macros of scisql's photometry. NULL where an argument is NULL or not finite, a flux is not positive, or an error
negative."""

from __future__ import annotations

_RATIO = "1.085736204758129569e0"
"""2.5 / ln(10)"""
_SCALE = "3.630780547701013425e-20"
"""Flux of AB magnitude 0, erg/s/cm2/Hz."""


def _flux(name: str, formula: str) -> str:
    return f"CREATE MACRO {name}(f) AS CASE WHEN isfinite(f) AND f > 0 THEN {formula} END"


def _pair(name: str, formula: str) -> str:
    return f"CREATE MACRO {name}(f, e) AS CASE WHEN isfinite(f) AND isfinite(e) AND f > 0 AND e >= 0 THEN {formula} END"


def _all(name: str, arguments: str, condition: str, formula: str) -> str:
    finite = " AND ".join(f"isfinite({a.strip()})" for a in arguments.split(","))
    return f"CREATE MACRO {name}({arguments}) AS CASE WHEN {finite} AND {condition} THEN {formula} END"


SCISQL_MACROS: tuple[str, ...] = (
    "CREATE MACRO qe__red(x) AS CASE WHEN x >= 0 AND x <= 360 THEN x ELSE qe_lon(x) END",
    # scisql's box: longitudes are reduced unless the box spans the circle
    "CREATE MACRO qe_in_box(lon, lat, w, s, e, n) AS CASE WHEN (lon + lat + w + s + e + n) IS NULL THEN NULL "
    "WHEN s > n OR lat < s OR lat > n THEN false WHEN e - w >= 360 THEN true "
    "WHEN qe__red(w) <= qe__red(e) THEN qe_lon(lon) BETWEEN qe__red(w) AND qe__red(e) "
    "ELSE qe_lon(lon) >= qe__red(w) OR qe_lon(lon) <= qe__red(e) END",
    # semi-axes in arcsec; x is north, y east at the centre, turned by the position angle
    "CREATE MACRO qe_in_ellipse(lon, lat, lon0, lat0, a, b, t) AS qe_in_circle(lon, lat, lon0, lat0, "
    "degrees(asin(radians(a / 3600))) + 1e-9) "
    "AND list_transform([{'n': cos(radians(lat0)) * sin(radians(lat)) "
    "- sin(radians(lat0)) * cos(radians(lat)) * cos(radians(lon - lon0)), "
    "'e': cos(radians(lat)) * sin(radians(lon - lon0))}], lambda k: pow((k.e * sin(radians(t)) "
    "+ k.n * cos(radians(t))) / radians(a / 3600), 2) "
    "+ pow((k.e * cos(radians(t)) - k.n * sin(radians(t))) / radians(b / 3600), 2) <= 1)[1]",
    _flux("qe_nanojanskytoabmag", "-2.5e0 * log10(f) + 31.4e0"),
    _pair("qe_nanojanskytoabmagsigma", f"{_RATIO} * e / f"),
    _all("qe_abmagtonanojansky", "m", "true", "pow(10e0, -0.4e0 * (m - 31.4e0))"),
    _all("qe_abmagtonanojanskysigma", "m, e", "e >= 0", f"e * pow(10e0, -0.4e0 * (m - 31.4e0)) / {_RATIO}"),
    _flux("qe_fluxtoabmag", "-2.5e0 * log10(f) - 48.6e0"),
    _pair("qe_fluxtoabmagsigma", f"{_RATIO} * e / f"),
    _all("qe_abmagtoflux", "m", "true", "pow(10e0, -0.4e0 * (m + 48.6e0))"),
    _all("qe_abmagtofluxsigma", "m, e", "e >= 0", f"e * pow(10e0, -0.4e0 * (m + 48.6e0)) / {_RATIO}"),
    _all("qe_dntoflux", "d, z", "z <> 0", f"{_SCALE} * d / z"),
    _all("qe_dntofluxsigma", "d, e, z, y", "z <> 0 AND e >= 0 AND y >= 0",
    f"{_SCALE} * sqrt(d * y * d * y + e * z * e * z) / (z * z)"),
    _all("qe_fluxtodn", "f, z", "true", f"f * z / {_SCALE}"),
    _all("qe_fluxtodnsigma", "f, e, z, y", "e >= 0 AND y >= 0",
         f"sqrt((f / {_SCALE}) * y * (f / {_SCALE}) * y + z * (e / {_SCALE}) * z * (e / {_SCALE}))"),
    "CREATE MACRO qe_dntoabmag(d, z) AS qe_fluxtoabmag(qe_dntoflux(d, z))",
    "CREATE MACRO qe_dntoabmagsigma(d, e, z, y) AS qe_fluxtoabmagsigma(qe_dntoflux(d, z), qe_dntofluxsigma(d, e, z, y))",
    "CREATE MACRO qe_abmagtodn(m, z) AS qe_fluxtodn(qe_abmagtoflux(m), z)",
    "CREATE MACRO qe_abmagtodnsigma(m, e, z, y) AS qe_fluxtodnsigma(qe_abmagtoflux(m), qe_abmagtofluxsigma(m, e), z, y)",
)  # fmt: skip
