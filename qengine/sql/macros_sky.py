"""DuckDB macros of HEALPix, epoch propagation, times and texts: what the functions of astronomy are made of. Plain SQL text.

*HEALPix.* `qe_healpix(order, lon, lat)` repeats the arithmetic of healpy's `ang2pix` for the NESTED scheme operation by operation,
in the order in which healpy does it, so that the rounding is the same and every position falls into the pixel that loading gave it.
What lies on the border of two pixels belongs to the one that healpy says: pixels own their southern corners' side as computed, and
no other rule is promised. Pixels of lower orders are prefixes of those of order 29. `qe_cell(cell, order)` is the same where
the cell of order 29 is stored; cells from 12 * 4^29 on are beyond the sky and have no pixel.

DuckDB's macros are textual: a value that is used twice is computed twice, unless it is the variable of a lambda. So steps that feed
several later ones go through `list_transform([value], lambda x: ..)[1]`.
"""

from __future__ import annotations

_RAD = "0.017453292519943295e0"
_HALF_PI = "1.5707963267948966e0"
_OVER_HALF_PI = "0.6366197723675814e0"
_SIDE = 2**29
_SKY = 12 * 4**29
_MAS = "4.84813681109536e-09"
"""A milliarcsecond in radians."""
_AU = "4.740470446e0"
"""One astronomical unit per Julian year in km/s."""

# x = 0b...cba -> 0b...c0b0a and back, by halves, quarters, ...
_SPREAD = (
    "(y | (y * 65536)) & 281470681808895", "(y | (y * 256)) & 71777214294589695", "(y | (y * 16)) & 1085102592571150095",
    "(y | (y * 4)) & 3689348814741910323", "(y | (y * 2)) & 6148914691236517205",
)  # fmt: skip
_PACK = (
    "y & 6148914691236517205", "(y | (y >> 1)) & 3689348814741910323", "(y | (y >> 2)) & 1085102592571150095",
    "(y | (y >> 4)) & 71777214294589695", "(y | (y >> 8)) & 281470681808895", "(y | (y >> 16)) & 4294967295",
)  # fmt: skip


def _chain(first: str, steps: tuple[str, ...], variable: str = "y") -> str:
    """Return SQL that computes `steps` one after the other, each from the value of the one before it."""
    text = f"[{first}]"
    for step in steps:
        text = f"list_transform({text}, lambda {variable}: {step})"
    return f"{text}[1]"


_NUMBER = f"CASE WHEN fmod(lon, 360e0) < 0 THEN CASE WHEN fmod(lon, 360e0) + 360e0 >= 360e0 THEN 0e0 ELSE fmod(lon, " \
    f"360e0) + 360e0 END " \
    f"ELSE fmod(lon, 360e0) END * {_RAD} * {_OVER_HALF_PI}"  # fmt: skip

_CELL = _chain(
    f"{{'t': {_NUMBER}, 'h': {_HALF_PI} - lat * {_RAD}}}",
    (
        # z and, near the poles, the sine of the polar angle; t is the longitude in quarters of a turn
        "{'t': CASE WHEN s.t >= 4 THEN s.t - 4 ELSE s.t END, 'z': cos(s.h), 's': sin(s.h), "
        "'p': s.h < 0.01e0 OR s.h > 3.14159e0 - 0.01e0}",
        # belt: the two diagonals; caps: number of the ring and place in the quarter
        "CASE WHEN abs(s.z) <= 2e0 / 3e0 THEN "
        f"{{'c': false, 'n': s.z >= 0, 'q': 0::BIGINT, 'a': trunc({_SIDE}e0 * (0.5e0 + s.t) - {_SIDE}e0 * (s.z * 0.75e0))::BIGINT, "
        f"'b': trunc({_SIDE}e0 * (0.5e0 + s.t) + {_SIDE}e0 * (s.z * 0.75e0))::BIGINT}} "
        "ELSE list_transform([{'q': least(3, trunc(s.t)), 'w': CASE WHEN abs(s.z) < 0.99e0 OR NOT s.p "
        f"THEN {_SIDE}e0 * sqrt(3 * (1 - abs(s.z))) ELSE {_SIDE}e0 * s.s / sqrt((1e0 + abs(s.z)) / 3e0) END}}], "
        "lambda k: {'c': true, 'n': s.z >= 0, 'q': k.q::BIGINT, "
        f"'a': least(trunc((s.t - k.q) * k.w)::BIGINT, {_SIDE - 1}), "
        f"'b': least(trunc((1e0 - (s.t - k.q)) * k.w)::BIGINT, {_SIDE - 1})}})[1] END",
        # face, x, y
        f"CASE WHEN s.c THEN CASE WHEN s.n THEN {{'f': s.q, 'x': {_SIDE} - s.b - 1, 'y': {_SIDE} - s.a - 1}} "
        "ELSE {'f': s.q + 8, 'x': s.a, 'y': s.b} END "
        f"ELSE {{'f': CASE WHEN s.a >> 29 = s.b >> 29 THEN (s.a >> 29) | 4 WHEN s.a < s.b AND s.a >> 29 < s.b >> 29 THEN s.a >> 29 "
        f"ELSE (s.b >> 29) + 8 END, 'x': s.b & {_SIDE - 1}, 'y': {_SIDE} - (s.a & {_SIDE - 1}) - 1}} END",
        f"s.f * {4**29} + qe__spread(s.x) + 2 * qe__spread(s.y)",
    ),
    "s",
)  # fmt: skip

_CENTER = _chain(
    "{'n': pow(2, o)::BIGINT, 'f': i // pow(4, o)::BIGINT, 'x': qe__pack(i % pow(4, o)::BIGINT), "
    "'y': qe__pack((i % pow(4, o)::BIGINT) >> 1)}",
    (
        "{'n': s.n, 'd': s.x - s.y, 'f': s.f, 'j': (CASE WHEN s.f < 4 THEN 2 WHEN s.f < 8 THEN 3 "
        "ELSE 4 END) * s.n - s.x - s.y - 1}",
        # ring number r counted from the pole (the belt: n), z, sine of the polar angle near the poles
        "{'n': s.n, 'd': s.d, 'f': s.f, 'j': s.j, 'r': CASE WHEN s.j < s.n THEN s.j WHEN s.j > 3 * s.n "
        "THEN 4 * s.n - s.j ELSE s.n END}",
        "{'n': s.n, 'r': s.r, 'u': s.r::DOUBLE * s.r / (3e0 * s.n * s.n), 'j': s.j, "
        "'m': ([1, 3, 5, 7, 0, 2, 4, 6, 1, 3, 5, 7])[s.f + 1] * s.r + s.d}",
        "{'a': CASE WHEN s.r = s.n THEN 45e0 * (CASE WHEN s.m < 0 THEN s.m + 8 * s.r ELSE s.m END) / s.n "
        "ELSE 45e0 * (CASE WHEN s.m < 0 THEN s.m + 8 * s.r ELSE s.m END) / s.r END, "
        "'z': CASE WHEN s.j < s.n THEN 1 - s.u WHEN s.j > 3 * s.n THEN s.u - 1 ELSE (2 * s.n - s.j) * 2e0 / (3e0 * s.n) END, "
        "'s': CASE WHEN s.j < s.n OR s.j > 3 * s.n THEN sqrt(s.u * (2 - s.u)) END}",
        "[s.a, degrees(atan2(s.z, coalesce(s.s, sqrt((1 - s.z) * (1 + s.z)))))]",
    ),
    "s",
)  # fmt: skip

_MOTION = _chain(
    "{'a': radians(ra), 'd': radians(de), 'x': coalesce(plx, 0e0), 'u': pma * " + _MAS + ", 'v': pmd * " + _MAS + ", "
    "'w': coalesce(rv, 0e0) * coalesce(plx, 0e0) / " + _AU + " * " + _MAS + ", 't': t}",
    (
        "{'x': s.x, 'w': s.w, 't': s.t, 'k': s.u * s.u + s.v * s.v, "
        "'r': [cos(s.d) * cos(s.a), cos(s.d) * sin(s.a), sin(s.d)], "
        "'m': [-s.u * sin(s.a) - s.v * sin(s.d) * cos(s.a), s.u * cos(s.a) - s.v * sin(s.d) * sin(s.a), s.v * cos(s.d)]}",
        "{'x': s.x, 'w': s.w, 't': s.t, 'k': s.k, 'r': s.r, 'm': s.m, 'g': 1 + s.w * s.t, "
        "'f': 1 / sqrt((1 + s.w * s.t) * (1 + s.w * s.t) + s.k * s.t * s.t)}",
        "{'x': s.x * s.f, 'w': (s.w + (s.k + s.w * s.w) * s.t) * s.f * s.f, "
        "'r': [(s.r[1] * s.g + s.m[1] * s.t) * s.f, (s.r[2] * s.g + s.m[2] * s.t) * s.f, (s.r[3] * s.g + s.m[3] * s.t) * s.f], "
        "'m': [(s.m[1] * s.g - s.r[1] * s.k * s.t) * s.f * s.f * s.f, (s.m[2] * s.g - s.r[2] * s.k * s.t) * s.f * s.f * s.f, "
        "(s.m[3] * s.g - s.r[3] * s.k * s.t) * s.f * s.f * s.f]}",
        "{'x': s.x, 'w': s.w, 'm': s.m, 'a': atan2(s.r[2], s.r[1]), 'd': atan2(s.r[3], sqrt(s.r[1] * s.r[1] + s.r[2] * s.r[2]))}",
        f"[qe_lon(degrees(s.a)), degrees(s.d), CASE WHEN plx IS NOT NULL THEN s.x END, "
        f"(s.m[2] * cos(s.a) - s.m[1] * sin(s.a)) / {_MAS}, "
        f"(s.m[3] * cos(s.d) - sin(s.d) * (s.m[1] * cos(s.a) + s.m[2] * sin(s.a))) / {_MAS}, "
        f"CASE WHEN rv IS NOT NULL AND s.x > 0 THEN s.w * {_AU} / (s.x * {_MAS}) END]",
    ),
    "s",
)  # fmt: skip

_SEXAGESIMAL = (
    "list_transform([string_split_regex(regexp_replace(trim(x), '^[+-] *', ''), '[^0-9.]+')], lambda p: TRY_CAST(p[1] AS DOUBLE) "
    "+ coalesce(TRY_CAST(p[2] AS DOUBLE), 0e0) / 60 + coalesce(TRY_CAST(p[3] AS DOUBLE), 0e0) / 3600)[1] "
    "* CASE WHEN starts_with(trim(x), '-') THEN -1 ELSE 1 END"
)

SKY_MACROS: tuple[str, ...] = (
    f"CREATE MACRO qe__spread(x) AS {_chain('x', _SPREAD)}",
    f"CREATE MACRO qe__pack(x) AS {_chain('x', _PACK)}",
    f"CREATE MACRO qe__cell(lon, lat) AS {_CELL}",
    "CREATE MACRO qe_healpix(o, lon, lat) AS CASE WHEN o BETWEEN 0 AND 29 AND isfinite(lon) AND abs(lat) <= 90 "
    "THEN qe__cell(lon, lat) >> (58 - 2 * o) END",
    f"CREATE MACRO qe_cell(c, o) AS CASE WHEN o BETWEEN 0 AND 29 AND c < {_SKY} THEN c >> (58 - 2 * o) END",
    f"CREATE MACRO qe_healpix_center(o, i) AS CASE WHEN o BETWEEN 0 AND 29 AND i >= 0 AND i < 12 * pow(4, "
    f"o)::BIGINT THEN {_CENTER} END",
    f"CREATE MACRO qe__motion(ra, de, plx, pma, pmd, rv, t) AS {_MOTION}",
    "CREATE MACRO qe_epoch_prop(ra, de, plx, pma, pmd, rv, t0, t1) AS CASE WHEN (ra + de + pma + pmd + t0 + t1) IS NOT NULL "
    "THEN qe__motion(ra, de, plx, pma, pmd, rv, t1 - t0) END",
    "CREATE MACRO qe_epoch_prop_pos(ra, de, plx, pma, pmd, rv, t0, t1) AS qe_epoch_prop(ra, de, plx, pma, pmd, rv, t0, t1)[1:2]",
    "CREATE MACRO qe__place(x, y, z) AS [qe_lon(degrees(atan2(y, x))), degrees(atan2(z, sqrt(x * x + y * y)))]",
    # the tangential plane: position + east * xi + north * eta
    "CREATE MACRO qe_apply_pm(ra, de, pma, pmd, t) AS CASE WHEN (ra + de + pma + pmd + t) IS NOT NULL THEN "
    + _chain(
        "{'a': radians(ra), 'd': radians(de), 'u': radians(pma * t), 'v': radians(pmd * t)}",
        (
            "{'x': cos(s.d) * cos(s.a) - s.u * sin(s.a) - s.v * sin(s.d) * cos(s.a), "
            "'y': cos(s.d) * sin(s.a) + s.u * cos(s.a) - s.v * sin(s.d) * sin(s.a), 'z': sin(s.d) + s.v * cos(s.d)}",
            "qe__place(s.x, s.y, s.z)",
        ),
        "s",
    )
    + " END",
    # m: the nine numbers of a rotation, row by row
    "CREATE MACRO qe_rotate(lon, lat, m) AS CASE WHEN (lon + lat) IS NOT NULL THEN "
    + _chain(
        "{'x': cos(radians(lat)) * cos(radians(lon)), 'y': cos(radians(lat)) * sin(radians(lon)), 'z': sin(radians(lat))}",
        (
            "{'x': m[1] * s.x + m[2] * s.y + m[3] * s.z, 'y': m[4] * s.x + m[5] * s.y + m[6] * s.z, "
            "'z': m[7] * s.x + m[8] * s.y + m[9] * s.z}",
            "qe__place(s.x, s.y, s.z)",
        ),
        "s",
    )
    + " END",
    # times: naive, UTC
    "CREATE MACRO qe_epoch(t) AS epoch_us(t) / 1e6",
    "CREATE MACRO qe_mjd(t) AS epoch_us(t) / 8.64e10 + 40587e0",
    "CREATE MACRO qe_jd(t) AS epoch_us(t) / 8.64e10 + 2440587.5e0",
    "CREATE MACRO qe_time(x) AS make_timestamp(round(x * 1e6)::BIGINT)",
    "CREATE MACRO qe_time_of_mjd(x) AS make_timestamp(round((x - 40587e0) * 8.64e10)::BIGINT)",
    # texts
    "CREATE MACRO qe_nocasematch(s, p) AS CAST(s ILIKE p AS INTEGER)",
    "CREATE MACRO qe_hashlist_has(s, w) AS CASE WHEN s IS NOT NULL AND w IS NOT NULL THEN "
    "CAST(list_contains(string_split(lower(s), '#'), lower(w)) AS INTEGER) END",
    "CREATE MACRO qe_hasword(s, w) AS CASE WHEN s IS NOT NULL AND w IS NOT NULL THEN list_transform("
    "[string_split_regex(lower(s), '[^\\pL\\pN]+')], lambda h: CAST(len(list_filter(string_split_regex(lower(trim(w)), '\\s+'), "
    "lambda n: len(list_filter(h, lambda v: starts_with(v, n))) = 0)) = 0 AS INTEGER))[1] END",
    "CREATE MACRO qe_match(p, s) AS CAST(regexp_matches(s, p) AS INTEGER)",
    f"CREATE MACRO qe_dms(x) AS {_SEXAGESIMAL}",
    "CREATE MACRO qe_hms(x) AS 15 * qe_dms(x)",
    # intervals and bins
    "CREATE MACRO qe_overlaps(a, b, c, d) AS CAST(a <= b AND c <= d AND a <= d AND c <= b AS INTEGER)",
    "CREATE MACRO qe_interval_has(x, a, b) AS CAST(x >= a AND x <= b AS INTEGER)",
    "CREATE MACRO qe_bin(x, a, b, n) AS CAST(CASE WHEN x < a THEN 0 WHEN x >= b THEN n + 1 "
    "WHEN x IS NOT NULL THEN least(floor((x - a) / (b - a) * n) + 1, n) END AS INTEGER)",
    "CREATE MACRO qe_counts(h, n) AS list_transform([h], lambda m: list_transform(generate_series(0, n + 1), "
    "lambda i: coalesce(map_extract_value(m, i::INTEGER), 0)::BIGINT))[1]",
    "CREATE MACRO qe_normal_random(m, s) AS m + s * sqrt(-2 * ln(1 - random())) * cos(2 * pi() * random())",
    # bits and lists
    "CREATE MACRO qe_bitand(a, b) AS a & b",
    "CREATE MACRO qe_bitor(a, b) AS a | b",
    "CREATE MACRO qe_bitnot(a) AS ~a",
    "CREATE MACRO qe_shift_left(a, n) AS a << n",
    "CREATE MACRO qe_shift_right(a, n) AS a >> n",
    "CREATE MACRO qe_list_first(x) AS list_extract(x, 1)",
    "CREATE MACRO qe_list_last(x) AS list_extract(x, -1)",
)
