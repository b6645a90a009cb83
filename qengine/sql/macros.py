"""DuckDB macros of the geometry, installed on every connection that runs rendered SQL.

All angles are degrees. Distances use h = sin^2(d/2) and its complement 1 - h = cos^2(d/2), each computed without cancellation, so
that 2 atan2(sqrt h, sqrt(1 - h)) is exact to far below 1 mas for any two points, coincident and antipodal ones included. The rim of
a circle and the edges of a polygon count as inside; `1e-10` degrees of tolerance absorb the rounding of the last digits.

A polygon is a list [ra1, dec1, ra2, dec2, ...] within the hemisphere around the mean of its vertices (the binder refuses others).
Its points are projected gnomonically from that mean, where great circles are straight lines; a point is inside if a ray from it
crosses the edges an odd number of times, or if it lies on an edge. Names with two underscores are not for statements.

NULL coordinates give NULL.
"""

from __future__ import annotations

from qengine.sql.macros_scisql import SCISQL_MACROS
from qengine.sql.macros_sky import SKY_MACROS

_TOLERANCE = "1e-10"

_GEOMETRY: tuple[str, ...] = (
    # longitude in [0, 360)
    "CREATE MACRO qe_lon(x) AS x - 360e0 * floor(x / 360e0)",
    "CREATE MACRO qe__sin2(x) AS sin(radians(x) / 2) * sin(radians(x) / 2)",
    "CREATE MACRO qe__cos2(x) AS cos(radians(x) / 2) * cos(radians(x) / 2)",
    # sin^2(d/2) of the distance d of two points
    "CREATE MACRO qe__hav(lon1, lat1, lon2, lat2) AS "
    "qe__sin2(lat1 - lat2) + cos(radians(lat1)) * cos(radians(lat2)) * qe__sin2(lon1 - lon2)",
    # the same of the distance to the antipode, cos^2(d/2)
    "CREATE MACRO qe__anti(lon1, lat1, lon2, lat2) AS "
    "qe__sin2(lat1 + lat2) + cos(radians(lat1)) * cos(radians(lat2)) * qe__cos2(lon1 - lon2)",
    "CREATE MACRO qe_distance(lon1, lat1, lon2, lat2) AS "
    "degrees(2 * atan2(sqrt(qe__hav(lon1, lat1, lon2, lat2)), sqrt(qe__anti(lon1, lat1, lon2, lat2))))",
    "CREATE MACRO qe_in_circle(lon, lat, lon0, lat0, r) AS CASE "
    "WHEN r < 0 THEN CASE WHEN (lon + lat + lon0 + lat0) IS NOT NULL THEN false END "
    f"WHEN r <= 90 THEN qe__hav(lon, lat, lon0, lat0) <= qe__sin2(r + {_TOLERANCE}) "
    f"WHEN r < 180 THEN qe__anti(lon, lat, lon0, lat0) >= qe__cos2(r + {_TOLERANCE}) "
    "WHEN (lon + lat + lon0 + lat0) IS NOT NULL THEN r IS NOT NULL OR NULL END",
    "CREATE MACRO qe_area_circle(r) AS 4 * pi() * degrees(1) * degrees(1) * qe__sin2(least(r, 180e0))",
    # unit vectors
    "CREATE MACRO qe__vector(lon, lat) AS "
    "[cos(radians(lat)) * cos(radians(lon)), cos(radians(lat)) * sin(radians(lon)), sin(radians(lat))]",
    "CREATE MACRO qe__dot(a, b) AS a[1] * b[1] + a[2] * b[2] + a[3] * b[3]",
    "CREATE MACRO qe__cross(a, b) AS [a[2] * b[3] - a[3] * b[2], a[3] * b[1] - a[1] * b[3], a[1] * b[2] - a[2] * b[1]]",
    "CREATE MACRO qe__unit(a) AS list_transform([a], lambda u: list_transform(u, lambda x: x / sqrt(qe__dot(u, u))))[1]",
    # the frame of a polygon: corners c, mean direction m, two axes e, n of the plane that touches the sphere there
    "CREATE MACRO qe__corners(v) AS list_transform(generate_series(1, len(v) // 2), lambda i: qe__vector(v[2 * i - 1], v[2 * i]))",
    "CREATE MACRO qe__mean(c) AS qe__unit([list_sum(list_transform(c, lambda x: x[1])), "
    "list_sum(list_transform(c, lambda x: x[2])), list_sum(list_transform(c, lambda x: x[3]))])",
    "CREATE MACRO qe__east(m) AS qe__unit(CASE WHEN abs(m[3]) < 0.9e0 THEN [-m[2], m[1], 0e0] ELSE [0e0, -m[3], m[2]] END)",
    "CREATE MACRO qe__frame(v) AS list_transform([qe__corners(v)], lambda c: list_transform([qe__mean(c)], lambda m: "
    "list_transform([qe__east(m)], lambda e: {'c': c, 'm': m, 'e': e, 'n': qe__cross(m, e)})[1])[1])[1]",
    # edges: plane coordinates of both ends, unit vectors a, b of the ends, n their normal
    "CREATE MACRO qe__edges(v) AS list_transform([qe__frame(v)], lambda f: list_transform([list_transform(f.c, lambda p: "
    "[qe__dot(p, f.e) / qe__dot(p, f.m), qe__dot(p, f.n) / qe__dot(p, f.m)])], lambda q: "
    "list_transform(generate_series(1, len(q)), lambda i: {'x1': q[i][1], 'y1': q[i][2], 'x2': q[i % len(q) + 1][1], "
    "'y2': q[i % len(q) + 1][2], 'a': f.c[i], 'b': f.c[i % len(q) + 1], 'n': qe__cross(f.c[i], f.c[i % len(q) + 1])}))[1])[1]",
    "CREATE MACRO qe__crossings(s, x, y) AS len(list_filter(s, lambda g: "
    "(g.y1 > y) <> (g.y2 > y) AND x < (g.x2 - g.x1) * (y - g.y1) / (g.y2 - g.y1) + g.x1))",
    "CREATE MACRO qe__on_edge(s, p) AS len(list_filter(s, lambda g: "
    f"abs(qe__dot(p, g.n)) <= radians({_TOLERANCE}) * sqrt(qe__dot(g.n, g.n)) "
    f"AND qe__dot(p, qe__cross(g.n, g.a)) >= -radians({_TOLERANCE}) AND qe__dot(p, qe__cross(g.b, g.n)) >= -radians({_TOLERANCE}) "
    "AND qe__dot(p, g.a) + qe__dot(p, g.b) > 0)) > 0",
    "CREATE MACRO qe__inside(p, f, s) AS qe__dot(p, f.m) > 0 AND (qe__crossings(s, qe__dot(p, f.e) / qe__dot(p, f.m), "
    "qe__dot(p, f.n) / qe__dot(p, f.m)) % 2 = 1 OR qe__on_edge(s, p))",
    "CREATE MACRO qe_in_polygon(lon, lat, v) AS CASE WHEN (lon + lat) IS NOT NULL AND v IS NOT NULL THEN list_transform("
    "[{'p': qe__vector(lon, lat), 'f': qe__frame(v), 's': qe__edges(v)}], lambda t: qe__inside(t.p, t.f, t.s))[1] END",
)

MACROS: tuple[str, ...] = (*_GEOMETRY, *SKY_MACROS, *SCISQL_MACROS)
"""Everything that rendered SQL calls, in the order in which it has to be created."""
