"""The harness itself: skies hold what they promise, seeds repeat, truth is true, and the comparison sees wrong answers."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import fields

import healpy
import mpmath
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.support import query_ast as q
from tests.support import sky_truth as truth
from tests.support.compare import difference
from tests.support.oracle import Answer, Oracle, UnfairQueryError
from tests.support.printers import AdqlPrinter
from tests.support.query_gen import QueryGenerator
from tests.support.reduce import smaller
from tests.support.sky_builder import Sky, build_sky

SEEDS = range(6)


@pytest.fixture(scope="module")
def skies() -> list[Sky]:
    return [build_sky(seed) for seed in SEEDS]


# -- skies --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_sky_holds_every_awkward_place(seed: int) -> None:
    objects = build_sky(seed).table("Object")
    ra, dec = objects.rows["ra"].to_pylist(), objects.rows["dec"].to_pylist()
    places = [
        (x, y) for x, y in zip(ra, dec, strict=True) if x is not None and y is not None and not math.isnan(x) and not math.isnan(y)
    ]
    assert max(y for _, y in places) == 90
    assert min(y for _, y in places) == -90
    assert 0.0 in ra
    assert math.nextafter(360.0, 0) in ra
    assert all(0 <= x < 360 for x, _ in places)
    assert None in ra
    assert None in dec
    assert any(x is not None and math.isnan(x) for x in ra)
    assert max(Counter(places).values()) >= 2, "two objects at one place"


@pytest.mark.parametrize("seed", SEEDS)
def test_sky_has_pairs_across_two_and_more_tiles(seed: int) -> None:
    objects = build_sky(seed).table("Object").clean.select(["ra", "dec"]).drop_null()
    ra, dec = objects["ra"].to_numpy(), objects["dec"].to_numpy()
    away = truth.distance_deg(ra[:, None], dec[:, None], ra[None, :], dec[None, :])
    tile = healpy.ang2pix(2, ra, dec, nest=True, lonlat=True)
    near = away < 61 / 3600
    assert (near & (tile[:, None] != tile[None, :])).any(), "no pair across a border"
    assert max(len(set(tile[row])) for row in near) >= 3, "no row with neighbours in three tiles"


@pytest.mark.parametrize("seed", SEEDS)
def test_sky_has_orphans_of_every_sort_and_big_keys(seed: int) -> None:
    sky = build_sky(seed)
    keys = sky.table("Object").rows["objectId"].to_pylist()
    assert len(set(keys)) == len(keys)
    assert any(key > 2**53 for key in keys)
    for child in ("Source", "Forced"):
        used = sky.table(child).rows["objectId"].to_pylist()
        assert None in used
        assert set(used) - set(keys) - {None}, "no unknown director"
        assert len(set(used)) < len(keys), "every object has children"


@pytest.mark.parametrize("seed", SEEDS)
def test_sums_are_exact_in_any_order(seed: int) -> None:
    for table in build_sky(seed).tables:
        for name, column in zip(table.clean.column_names, table.clean.columns, strict=True):
            if pa.types.is_floating(column.type) and name not in (table.ra, table.dec):
                values = [value for value in column.to_pylist() if value is not None]
                assert all(value * 8 == int(value * 8) for value in values), name
                assert sum(values) == math.fsum(values)


def test_clean_rows_have_no_nan(skies: list[Sky]) -> None:
    for sky in skies:
        for table in sky.tables:
            assert any(
                pc.any(pc.is_nan(c)).as_py() for c in table.rows.columns if pa.types.is_floating(c.type)
            ) or table.name not in ("Object", "Source")
            assert not any(pc.any(pc.is_nan(c)).as_py() for c in table.clean.columns if pa.types.is_floating(c.type))


# -- truth --------------------------------------------------------------------------------------------------------------------


def _mp_distance(lon1: float, lat1: float, lon2: float, lat2: float) -> float:
    """The angle between unit vectors with 60 digits."""
    with mpmath.workdps(60):
        one, two = ([mpmath.radians(mpmath.mpf(x)) for x in pair] for pair in ((lon1, lat1), (lon2, lat2)))
        u, v = (mpmath.matrix([mpmath.cos(b) * mpmath.cos(a), mpmath.cos(b) * mpmath.sin(a), mpmath.sin(b)]) for a, b in (one, two))
        return float(mpmath.degrees(2 * mpmath.asin(mpmath.norm(u - v) / 2)))


def test_distance_agrees_with_sixty_digits() -> None:
    rng = random.Random(1)
    for _ in range(300):
        lon, lat = rng.uniform(0, 360), rng.choice((rng.uniform(-90, 90), 90.0, -89.9999))
        there = truth.offset(lon, lat, rng.uniform(0, 360), rng.choice((1e-6, 1e-3, 1, 90, 179.99)))
        assert math.isclose(
            float(truth.distance_deg(lon, lat, *there)), _mp_distance(lon, lat, *there), rel_tol=1e-12, abs_tol=1e-15
        )


def test_polygon_agrees_with_winding_of_bearings() -> None:
    """A point is inside when the bearings of the vertices, seen from it, turn once around."""
    rng = random.Random(2)
    for seed in range(40):
        generator = QueryGenerator(build_sky(0), f"polygon {seed}")
        polygon = generator.polygon()
        points = [truth.offset(*polygon.center, rng.uniform(0, 360), rng.uniform(0, 60)) for _ in range(40)]
        lon, lat = np.array(points).T
        inside, border = truth.in_polygon(lon, lat, polygon.center, polygon.vertices)
        for i, point in enumerate(points):
            if not border[i]:
                assert inside[i] == (abs(_turning(point, polygon.vertices)) > 180), (polygon, point)


def _turning(point: tuple[float, float], vertices: tuple[tuple[float, float], ...]) -> float:
    total = 0.0
    bearings = [_bearing(point, vertex) for vertex in vertices]
    for i in range(len(bearings)):
        total += (bearings[i] - bearings[i - 1] + 180) % 360 - 180
    return total


def _bearing(one: tuple[float, float], two: tuple[float, float]) -> float:
    turn, lat1, lat2 = math.radians(two[0] - one[0]), math.radians(one[1]), math.radians(two[1])
    east = math.sin(turn) * math.cos(lat2)
    return math.degrees(math.atan2(east, math.cos(lat1) * math.sin(lat2) - math.sin(lat1) * math.cos(lat2) * math.cos(turn)))


def test_box_is_a_polygon_of_its_corners() -> None:
    lon, lat = np.random.default_rng(3).uniform((20, 20), (60, 60), (400, 2)).T
    inside, _ = truth.in_box(lon, lat, (40.0, 40.0), (20.0, 12.0))
    x, y = math.tan(math.radians(10)), math.tan(math.radians(6))
    corners = []
    for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        reach = math.degrees(math.atan(math.hypot(x, y)))
        corners.append(truth.offset(40.0, 40.0, math.degrees(math.atan2(sx * x, sy * y)), reach))
    expected, _ = truth.in_polygon(lon, lat, (40.0, 40.0), tuple(corners))
    assert (inside == expected).all()
    assert 0 < inside.sum() < 400


def test_border_is_seen_but_distance_zero_is_certain() -> None:
    assert bool(truth.is_border_distance(1.0000000001, 1.0))
    assert not bool(truth.is_border_distance(1.00000001, 1.0))
    assert not bool(truth.is_border_distance(0.0, 0.0))


# -- queries ------------------------------------------------------------------------------------------------------------------


def _nodes(value: object) -> list[str]:
    found = []
    if isinstance(value, tuple):
        for item in value:
            found += _nodes(item)
    elif isinstance(value, q.Node):
        found.append(type(value).__name__)
        if isinstance(value, q.Join):
            found.append(f"Join {value.kind}")
        if isinstance(value, q.SetOp):
            found.append(f"{value.op}{' ALL' if value.all else ''}")
        if isinstance(value, q.Aggregate):
            found.append(value.name)
        for field in fields(value):  # type: ignore[arg-type]
            found += _nodes(getattr(value, field.name))
    return found


CONSTRUCTS = (
    "Quotient", "Case", "Cast", "Window", "Scalar", "Distance", "Circle", "Polygon", "Box", "Inside", "Within", "Between", "InList", "Like",
    "IsNull", "Or", "Not", "InQuery", "Exists", "Derived", "With", "Shared", "Star", "Order", "COUNT", "SUM", "AVG", "MIN", "MAX", "STDDEV",
    "VARIANCE", "UNION", "UNION ALL", "INTERSECT", "EXCEPT", "Join INNER", "Join ,", "Join LEFT", "Join RIGHT", "Join FULL",
)  # fmt: skip


def test_generator_reaches_every_construct(skies: list[Sky]) -> None:
    seen: Counter[str] = Counter()
    for seed in range(600):
        seen.update(set(_nodes(QueryGenerator(skies[0], seed).query())))
    missing = [name for name in CONSTRUCTS if seen[name] < 2]
    assert not missing


def test_a_seed_repeats(skies: list[Sky]) -> None:
    again = build_sky(0)
    for one, two in zip(skies[0].tables, again.tables, strict=True):
        assert one.clean.equals(two.clean)
    for seed in range(20):
        one, two = QueryGenerator(skies[0], seed).query(), QueryGenerator(again, seed).query()
        assert one == two
        assert AdqlPrinter(random.Random(seed)).query(one) == AdqlPrinter(random.Random(seed)).query(two)


def test_oracle_answers_most_queries_with_rows(skies: list[Sky]) -> None:
    oracle = Oracle(skies)
    count: Counter[str] = Counter()
    for seed in range(300):
        try:
            answer = oracle.answer(QueryGenerator(skies[seed % len(skies)], seed).query())
            count["rows" if answer.rows else "empty"] += 1
        except UnfairQueryError:
            count["unfair"] += 1
    assert count["rows"] > 150
    assert count["unfair"] < 30


# -- comparison ---------------------------------------------------------------------------------------------------------------


def _query(*, order: tuple[q.Order, ...] = (), top: int | None = None, offset: int | None = None, fuzzy: bool = False) -> q.Select:
    column: q.Node = q.Column("a", "x")
    value = q.Aggregate("AVG", column) if fuzzy else column
    return q.Select(
        items=(q.Item(value, "x", "x"), q.Item(column, "y", "y")),
        source=q.TableRef("s", "t", "a"),
        order=order,
        top=top,
        offset=offset,
    )


def _answer(rows: list[tuple[object, ...]], keys: list[tuple[object, ...]] | None = None) -> Answer:
    return Answer(sql="", names=("x", "y"), rows=tuple(rows), keys=tuple(keys or [()] * len(rows)))


def _got(rows: list[tuple[object, ...]]) -> pa.Table:
    return pa.table({"x": [row[0] for row in rows], "y": [row[1] for row in rows]})


ROWS: list[tuple[object, ...]] = [(1, "a"), (1, "b"), (2, "c"), (None, "d"), (2, "c")]


def test_equal_multisets_are_equal_in_any_order() -> None:
    assert not difference(_query(), _answer(ROWS), _got(ROWS[::-1]))


@pytest.mark.parametrize(
    "rows",
    [ROWS[:-1], [*ROWS, ROWS[0]], [*ROWS[:-1], (2, "d")], [*ROWS[:-1], ROWS[0]], [*ROWS[:3], (0, "d"), ROWS[4]]],
    ids=["lost", "twice", "changed", "exchanged", "null"],
)
def test_wrong_multisets_are_seen(rows: list[tuple[object, ...]]) -> None:
    assert difference(_query(), _answer(ROWS), _got(rows))


def test_wrong_type_or_name_is_seen() -> None:
    assert difference(_query(), _answer(ROWS), _got([(None if x is None else float(x), y) for x, y in ROWS]))
    assert difference(_query(), _answer(ROWS), _got(ROWS).rename_columns(["x", "z"]))


def test_last_digits_count_only_where_they_are_exact() -> None:
    rows: list[tuple[object, ...]] = [(0.1, 1), (0.3, 1)]
    near: list[tuple[object, ...]] = [(0.3 + 1e-12, 1), (0.1, 1)]
    assert not difference(_query(fuzzy=True), _answer(rows), _got(near))
    assert difference(_query(), _answer(rows), _got(near))
    assert difference(_query(fuzzy=True), _answer(rows), _got([(0.3001, 1), (0.1, 1)]))


SORTED = [(1, "a"), (1, "b"), (2, "c"), (2, "c"), (None, "d")]


def _by_x(**cut: int) -> q.Select:
    return _query(order=(q.Order(0, None, False, "ordinal"),), **cut)


def _keyed() -> Answer:
    return _answer(ROWS, [(row[0],) for row in ROWS])


def test_order_allows_ties_and_nothing_else() -> None:
    assert not difference(_by_x(), _keyed(), _got(list(SORTED)))
    assert not difference(_by_x(), _keyed(), _got([SORTED[1], SORTED[0], *SORTED[2:]]))
    assert difference(_by_x(), _keyed(), _got([SORTED[2], *SORTED[:2], *SORTED[3:]]))
    assert difference(_by_x(), _keyed(), _got([SORTED[4], *SORTED[:4]])), "NULL first"


def test_cut_through_ties_keeps_any_of_them() -> None:
    assert not difference(_by_x(top=1), _keyed(), _got([(1, "b")]))
    assert not difference(_by_x(top=2, offset=1), _keyed(), _got([(1, "a"), (2, "c")]))
    assert difference(_by_x(top=1), _keyed(), _got([(2, "c")]))
    assert difference(_by_x(top=2), _keyed(), _got([(1, "a"), (1, "a")])), "one row twice"
    assert difference(_by_x(top=2), _keyed(), _got([(1, "a")])), "too few"


def test_cut_without_order_is_a_subset_of_the_right_size() -> None:
    assert not difference(_query(top=2), _answer(ROWS), _got([(2, "c"), (2, "c")]))
    assert not difference(_query(top=9, offset=4), _answer(ROWS), _got([(1, "b")]))
    assert difference(_query(top=2), _answer(ROWS), _got([(1, "a"), (1, "a")]))
    assert difference(_query(top=2), _answer(ROWS), _got([(1, "a")]))


def test_descending_order_puts_nulls_last() -> None:
    query = _query(order=(q.Order(0, None, True, "ordinal"),))
    assert not difference(query, _keyed(), _got([(2, "c"), (2, "c"), (1, "a"), (1, "b"), (None, "d")]))
    assert difference(query, _keyed(), _got([(None, "d"), (2, "c"), (2, "c"), (1, "a"), (1, "b")]))


def test_reduction_offers_only_smaller_queries(skies: list[Sky]) -> None:
    for seed in range(20):
        query = QueryGenerator(skies[0], seed).query()
        size = len(_nodes(query))
        for candidate in smaller(query):
            assert len(_nodes(candidate)) <= size
            assert candidate != query
