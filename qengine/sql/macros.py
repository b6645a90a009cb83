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

_TOLERANCE = "1e-10"

MACROS: tuple[str, ...] = (
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
    "CREATE MACRO qe__unit(a) AS list_transform(a, lambda x: x / sqrt(qe__dot(a, a)))",
    "CREATE MACRO qe__corners(v) AS list_transform(generate_series(1, len(v) // 2), lambda i: qe__vector(v[2 * i - 1], v[2 * i]))",
    "CREATE MACRO qe__middle(c) AS qe__unit([list_sum(list_transform(c, lambda x: x[1])), "
    "list_sum(list_transform(c, lambda x: x[2])), list_sum(list_transform(c, lambda x: x[3]))])",
    # two axes of the plane that touches the sphere at m
    "CREATE MACRO qe__east(m) AS qe__unit(CASE WHEN abs(m[3]) < 0.9 THEN [-m[2], m[1], 0e0] ELSE [0e0, -m[3], m[2]] END)",
    "CREATE MACRO qe__plane(p, m) AS "
    "[qe__dot(p, qe__east(m)) / qe__dot(p, m), qe__dot(p, qe__cross(m, qe__east(m))) / qe__dot(p, m)]",
    "CREATE MACRO qe__flat(c, m) AS list_transform(c, lambda p: qe__plane(p, m))",
    # edges as {x1, y1, x2, y2, n: unit normal, a, b: end vectors}
    "CREATE MACRO qe__edges(c, f) AS list_transform(generate_series(1, len(c)), lambda i: {"
    "'x1': f[i][1], 'y1': f[i][2], 'x2': f[i % len(c) + 1][1], 'y2': f[i % len(c) + 1][2], "
    "'a': c[i], 'b': c[i % len(c) + 1], 'n': qe__cross(c[i], c[i % len(c) + 1])})",
    "CREATE MACRO qe__crossings(e, x, y) AS len(list_filter(e, lambda s: "
    "(s.y1 > y) <> (s.y2 > y) AND x < (s.x2 - s.x1) * (y - s.y1) / (s.y2 - s.y1) + s.x1))",
    "CREATE MACRO qe__on_edge(e, p) AS len(list_filter(e, lambda s: "
    f"abs(qe__dot(p, s.n)) <= radians({_TOLERANCE}) * sqrt(qe__dot(s.n, s.n)) "
    f"AND qe__dot(p, qe__cross(s.n, s.a)) >= -radians({_TOLERANCE}) AND qe__dot(p, qe__cross(s.b, s.n)) >= -radians({_TOLERANCE}) "
    "AND qe__dot(p, s.a) + qe__dot(p, s.b) > 0)) > 0",
    "CREATE MACRO qe__in_edges(p, m, e) AS qe__dot(p, m) > 0 AND "
    "(qe__crossings(e, qe__plane(p, m)[1], qe__plane(p, m)[2]) % 2 = 1 OR qe__on_edge(e, p))",
    "CREATE MACRO qe__in_corners(p, c) AS qe__in_edges(p, qe__middle(c), qe__edges(c, qe__flat(c, qe__middle(c))))",
    "CREATE MACRO qe_in_polygon(lon, lat, v) AS CASE WHEN (lon + lat) IS NOT NULL "
    "THEN qe__in_corners(qe__vector(lon, lat), qe__corners(v)) END",
)
