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

_LON = "CREATE MACRO qe_lon(x) AS x - 360e0 * floor(x / 360e0)"
"""Longitude in [0, 360)."""

_GEOMETRY: tuple[str, ...] = (
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
    "CREATE MACRO qe__corners(v) AS list_transform([v], lambda w: "
    "list_transform(generate_series(1, len(w) // 2), lambda i: qe__vector(w[2 * i - 1], w[2 * i])))[1]",
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
    # a frame is right only if all corners are in front of it
    "CREATE MACRO qe__front(f) AS CASE WHEN list_min(list_transform(f.c, lambda p: qe__dot(p, f.m))) > 1e-6 THEN f "
    "ELSE error('a polygon of a row does not lie within a hemisphere around the mean of its vertices') END",
    # angle of two unit vectors, and the distance of a point from an arc, both in radians and exact everywhere
    "CREATE MACRO qe__angle(p, q) AS 2 * atan2(sqrt((p[1] - q[1]) * (p[1] - q[1]) + (p[2] - q[2]) * (p[2] - q[2]) "
    "+ (p[3] - q[3]) * (p[3] - q[3])), sqrt((p[1] + q[1]) * (p[1] + q[1]) + (p[2] + q[2]) * (p[2] + q[2]) "
    "+ (p[3] + q[3]) * (p[3] + q[3])))",
    "CREATE MACRO qe__to_arc(p, g) AS list_transform([{'l': sqrt(qe__dot(g.n, g.n)), 'x': qe__cross(g.n, g.a)}], lambda k: CASE "
    "WHEN k.l > 0 AND qe__dot(p, k.x) >= 0 AND qe__dot(p, qe__cross(g.b, g.n)) >= 0 "
    "THEN atan2(abs(qe__dot(p, g.n)) / k.l, sqrt(qe__dot(p, g.a) * qe__dot(p, g.a) + qe__dot(p, k.x) * qe__dot(p, "
    "k.x) / (k.l * k.l))) "
    "ELSE least(qe__angle(p, g.a), qe__angle(p, g.b)) END)[1]",
    "CREATE MACRO qe__border(p, s) AS list_min(list_transform(s, lambda g: qe__to_arc(p, g)))",
    "CREATE MACRO qe_edge_distance(lon, lat, v) AS CASE WHEN (lon + lat) IS NOT NULL AND v IS NOT NULL THEN list_transform("
    "[{'p': qe__vector(lon, lat), 's': qe__edges(v)}], lambda t: degrees(qe__border(t.p, t.s)))[1] END",
    # do the arcs of two edges cross away from their ends (u is where their great circles meet, or its antipode)
    "CREATE MACRO qe__beside(u, g) AS qe__dot(u, qe__cross(g.n, g.a)) > 1e-14 * qe__dot(g.n, g.n) "
    "AND qe__dot(u, qe__cross(g.b, g.n)) > 1e-14 * qe__dot(g.n, g.n)",
    "CREATE MACRO qe__cross_at(g, h) AS list_transform([qe__cross(g.n, h.n)], lambda x: qe__dot(x, x) > 0 AND list_transform("
    "[[x[1] / sqrt(qe__dot(x, x)), x[2] / sqrt(qe__dot(x, x)), x[3] / sqrt(qe__dot(x, x))]], lambda u: "
    "(qe__beside(u, g) AND qe__beside(u, h)) OR (qe__beside([-u[1], -u[2], -u[3]], g) AND qe__beside([-u[1], -u[2], "
    "-u[3]], h)))[1])[1]",
    "CREATE MACRO qe__edges_cross(s, t) AS len(list_filter(s, lambda g: len(list_filter(t, lambda h: qe__cross_at(g, "
    "h))) > 0)) > 0",
    "CREATE MACRO qe__both(v, w) AS {'f': qe__front(qe__frame(v)), 's': qe__edges(v), 'g': qe__front(qe__frame(w)), "
    "'t': qe__edges(w)}",
    "CREATE MACRO qe_polygons_meet(v, w) AS CASE WHEN v IS NOT NULL AND w IS NOT NULL THEN list_transform([qe__both(v, "
    "w)], lambda k: "
    "len(list_filter(k.f.c, lambda p: qe__inside(p, k.g, k.t))) > 0 OR len(list_filter(k.g.c, lambda p: qe__inside(p, "
    "k.f, k.s))) > 0 "
    "OR qe__edges_cross(k.s, k.t))[1] END",
    "CREATE MACRO qe_polygon_in_polygon(v, w) AS CASE WHEN v IS NOT NULL AND w IS NOT NULL "
    "THEN list_transform([qe__both(v, w)], lambda k: "
    "len(list_filter(k.f.c, lambda p: NOT qe__inside(p, k.g, k.t))) = 0 "
    "AND len(list_filter(k.s, lambda h: NOT qe__inside(qe__unit([h.a[1] + h.b[1], h.a[2] + h.b[2], h.a[3] + h.b[3]]), "
    "k.g, k.t))) = 0 "
    "AND len(list_filter(k.g.c, lambda p: qe__inside(p, k.f, k.s) AND qe__border(p, k.s) > 1e-11)) = 0 "
    "AND NOT qe__edges_cross(k.s, k.t))[1] END",
    # the sum of the triangles around the first vertex; the direction of the integral of the position
    "CREATE MACRO qe_area_polygon(v) AS list_transform([qe__front(qe__frame(v)).c], lambda c: degrees(degrees(abs(list_sum("
    "list_transform(generate_series(2, len(c) - 1), lambda i: 2 * atan2(qe__dot(c[1], qe__cross(c[i], c[i + 1])), "
    "1 + qe__dot(c[1], c[i]) + qe__dot(c[i], c[i + 1]) + qe__dot(c[i + 1], c[1]))))))))[1]",
    "CREATE MACRO qe__integral(s) AS list_transform([list_transform(s, lambda g: list_transform([sqrt(qe__dot(g.n, "
    "g.n))], lambda l: "
    "CASE WHEN l > 0 THEN list_transform(g.n, lambda x: x / l * atan2(l, qe__dot(g.a, g.b))) ELSE [0e0, 0e0, "
    "0e0] END)[1])], lambda e: "
    "[list_sum(list_transform(e, lambda x: x[1])), list_sum(list_transform(e, lambda x: x[2])), "
    "list_sum(list_transform(e, lambda x: x[3]))])[1]",
    "CREATE MACRO qe_centroid_polygon(v) AS list_transform([{'t': qe__integral(qe__edges(v)), "
    "'m': qe__front(qe__frame(v)).m}], lambda k: "
    "list_transform([CASE WHEN qe__dot(k.t, k.m) < 0 THEN -1 ELSE 1 END], lambda d: "
    "qe__place(d * k.t[1], d * k.t[2], d * k.t[3]))[1])[1]",
    # the rectangle of half-sides tan(w / 2), tan(h / 2) in the plane that touches the sphere at the centre
    "CREATE MACRO qe__box_corner(lon, lat, x, y) AS list_transform([{'c': cos(radians(lon)), 's': sin(radians(lon)), "
    "'p': cos(radians(lat)), 'q': sin(radians(lat)), 'x': x, 'y': y}], "
    "lambda k: qe__place(k.p * k.c - k.x * k.s - k.y * k.q * k.c, "
    "k.p * k.s + k.x * k.c - k.y * k.q * k.s, k.q + k.y * k.p))[1]",
    "CREATE MACRO qe_box(lon, lat, w, h) AS CASE WHEN w > 0 AND w < 180 AND h > 0 AND h < 180 AND abs(lat) <= 90 "
    "AND lon IS NOT NULL THEN "
    "list_transform([{'x': tan(radians(w) / 2), 'y': tan(radians(h) / 2)}], lambda b: list_concat(list_concat("
    "qe__box_corner(lon, lat, -b.x, -b.y), qe__box_corner(lon, lat, b.x, -b.y)), list_concat("
    "qe__box_corner(lon, lat, b.x, b.y), qe__box_corner(lon, lat, -b.x, b.y))))[1] END",
    "CREATE MACRO qe_in_polygon(lon, lat, v) AS CASE WHEN (lon + lat) IS NOT NULL AND v IS NOT NULL THEN list_transform("
    "[{'p': qe__vector(lon, lat), 'f': qe__front(qe__frame(v)), 's': qe__edges(v)}], lambda t: qe__inside(t.p, t.f, t.s))[1] END",
    "CREATE MACRO qe_polygon_in_circle(v, lon, lat, r) AS CASE WHEN v IS NOT NULL AND (lon + lat + r) IS NOT NULL "
    "THEN CASE WHEN r <= 90 "
    "THEN list_transform([qe__vector(lon, lat)], lambda p: list_max(list_transform(qe__corners(v), lambda q: qe__angle(p, q))))[1] "
    f"<= radians(r + {_TOLERANCE}) ELSE r >= 180 OR (NOT qe_in_polygon(lon + 180, -lat, v) "
    f"AND qe_edge_distance(lon + 180, -lat, v) >= 180 - r - {_TOLERANCE}) END END",
)

MACROS: tuple[str, ...] = (_LON, *SKY_MACROS, *_GEOMETRY, *SCISQL_MACROS)
"""Everything that rendered SQL calls, in the order in which it has to be created."""
