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
