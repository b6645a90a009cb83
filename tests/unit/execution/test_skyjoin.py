"""The kernel of sky joins finds every pair, each once, and little else: at poles, across RA 0, at corners of pixels, for any radius."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qengine.errors import QueryCancelledError
from qengine.execution import skyjoin
from qengine.execution.duck import DuckEngine, EngineSettings
from qengine.execution.skyjoin import SkyRelations, index_pairs, pixel_order, places
from qengine.plan.physical import SkyJoin
from qengine.sky.healpix import cells_of

Floats = NDArray[np.float64]
MAS = 1 / 3.6e6
# Corners and centres of base pixels, poles, RA 0, and a plain place.
ANCHORS = [
    (45, 0),
    (0, 0),
    (90, 41.8103148957786),
    (0, 41.8103148957786),
    (45, 90),
    (0, -90),
    (10, -41.8103148957786),
    (359.9999, 20),
    (123, -31),
]
RADII = st.one_of(st.sampled_from([MAS, 1 / 3600, 0.01, 1.0, 15.0, 30.0]), st.floats(-6, 1.4).map(lambda x: 10.0**x))


def side(lon: Any, lat: Any, **more: Any) -> pa.Table:
    return pa.table({"qe lon": np.asarray(lon, float), "qe lat": np.asarray(lat, float), **{f"qe {k}": v for k, v in more.items()}})


def distances(one: pa.Table, two: pa.Table) -> Floats:
    """All distances in degrees, in extended precision."""

    def vectors(rows: pa.Table) -> Any:
        lon, lat = (np.radians(rows[f"qe {name}"].to_numpy().astype(np.longdouble)) for name in ("lon", "lat"))
        return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)

    a, b = vectors(one)[:, None, :], vectors(two)[None, :, :]
    half = np.arctan2(np.sqrt(((a - b) ** 2).sum(-1)), np.sqrt(((a + b) ** 2).sum(-1)))
    return np.asarray(np.degrees(2 * half), np.float64)


def counts(
    one: pa.Table,
    two: pa.Table,
    radius: float,
    *,
    capacity: int = skyjoin.PAIRS,
    comparison: str = "",
    run_rows: int = skyjoin.RUN_ROWS,
) -> NDArray[np.int64]:
    found = np.zeros((one.num_rows, two.num_rows), np.int64)
    for pair in index_pairs(places(one, radius), places(two, radius), comparison, capacity=capacity, run_rows=run_rows):
        np.add.at(found, pair[:2], 1)
    return found


def sky(seed: int, rows: int, radius: float) -> tuple[pa.Table, pa.Table]:
    """Two sides of which many rows are about a radius apart, around the anchors and anywhere."""
    rng = np.random.default_rng(seed)
    centre = np.array(ANCHORS, float)[rng.integers(0, len(ANCHORS), rows)]
    anywhere = rng.random(rows) < 0.2
    lon = np.where(anywhere, rng.uniform(0, 360, rows), centre[:, 0]) + rng.normal(0, radius, rows) * rng.choice([0, 1, 10], rows)
    lat = np.where(anywhere, np.degrees(np.arcsin(rng.uniform(-1, 1, rows))), centre[:, 1]) + rng.normal(0, radius, rows)
    lat = np.where(np.abs(lat) > 90, np.sign(lat) * 180 - lat, lat)
    partner = rng.integers(0, rows, rows)
    near = rng.choice([0.0, 0.5, 0.999, 1.001, 2.0], rows) * radius
    angle = rng.uniform(0, 2 * np.pi, rows)
    lat2 = np.clip(lat[partner] + near * np.sin(angle), -90, 90)
    lon2 = lon[partner] + near * np.cos(angle) / np.maximum(np.cos(np.radians(lat2)), 1e-4)
    return side(lon, lat, key=np.arange(rows)), side(lon2, lat2, key=rng.integers(0, rows, rows))


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(1, 60),
    radius=RADII,
    capacity=st.sampled_from([40, 1000]),
    turned=st.booleans(),
    run_rows=st.sampled_from([1, 7, skyjoin.RUN_ROWS]),
)
def test_every_pair_is_found_once_and_little_else(
    seed: int, rows: int, radius: float, capacity: int, turned: bool, run_rows: int
) -> None:
    one, two = sky(seed, rows, radius)
    if turned:
        one, two = two, one.slice(0, max(1, rows // 3))
    truth, found = distances(one, two), counts(one, two, radius, capacity=capacity, run_rows=run_rows)
    assert found.max() <= 1
    assert (found[truth <= radius] == 1).all()
    # A box around a circle: nothing is farther than its corner; near a pole it is as wide as the sky.
    far = np.abs(one["qe lat"].to_numpy()[:, None] - two["qe lat"].to_numpy()[None, :]) > radius + 1e-7
    assert (found[far] == 0).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 60), radius=RADII, on_first=st.booleans())
def test_each_row_may_have_a_radius_of_its_own(seed: int, rows: int, radius: float, on_first: bool) -> None:
    one, two = sky(seed, rows, radius)
    rng = np.random.default_rng(seed)
    radii = radius / rng.choice([1, 2, 50, 3000], rows)
    wild = np.where(rng.random(rows) < 0.1, rng.choice([np.nan, -1.0], rows), radii)
    column = pa.array(wild, from_pandas=True)
    if on_first:
        one = one.append_column("qe radius", column)
        limit = np.nan_to_num(wild, nan=-1.0)[:, None]
    else:
        two = two.append_column("qe radius", column)
        limit = np.nan_to_num(wild, nan=-1.0)[None, :]
    found = counts(one, two, 0.0)
    truth = distances(one, two) <= limit
    assert found.max() <= 1
    assert (found[truth] == 1).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 60), radius=RADII, turn=st.sampled_from([0.0, 360.0, -720.0]))
def test_distances_are_the_numbers_of_the_macro(seed: int, rows: int, radius: float, turn: float) -> None:
    one, two = sky(seed, rows, radius)
    two = two.set_column(0, "qe lon", pa.array(two["qe lon"].to_numpy() + turn))
    engine = DuckEngine(EngineSettings())
    try:
        engine.register("one", one.append_column("row", pa.array(np.arange(one.num_rows))))
        engine.register("two", two.append_column("row", pa.array(np.arange(two.num_rows))))
        sql = 'qe_distance(a."qe lon", a."qe lat", b."qe lon", b."qe lat")'
        truth = engine.stream(
            f"SELECT a.row AS a, b.row AS b, {sql} AS d FROM one AS a, two AS b WHERE {sql} <= {radius!r}"
        ).read_all()
    finally:
        engine.close()
    near = index_pairs(places(one, radius), places(two, radius), capacity=50, has_distances=True)
    found = {(a, b): d for batch in near for a, b, d in zip(*(part.tolist() for part in batch), strict=True)}
    wanted = {(row["a"], row["b"]): row["d"] for row in truth.to_pylist()}
    assert {pair: found.get(pair) for pair in wanted} == wanted
    assert all(d > radius - 1e-12 for pair, d in found.items() if pair not in wanted)


@pytest.mark.parametrize(("comparison", "holds"), [("<", np.less), (">", np.greater), ("<>", np.not_equal)])
@pytest.mark.parametrize("size", [5, 200])
def test_keys_are_compared_first_side_on_the_left(comparison: str, holds: Callable[..., Any], size: int) -> None:
    one, two = sky(7, 60, 1.0)
    two = two.slice(0, size)
    keys = holds.outer(one["qe key"].to_numpy(), two["qe key"].to_numpy())  # type: ignore[attr-defined]
    found = counts(one, two, 1.0, comparison=comparison)
    assert (found[(distances(one, two) <= 1.0) & keys] == 1).all()
    assert (found[~keys] == 0).all()
    assert found.any()


def test_rows_without_a_position_or_key_meet_nobody() -> None:
    one = side([10.0, None, 10.0, np.inf, 10.0], [5.0, 5.0, np.nan, 5.0, 5.0], key=pa.array([1, 2, 3, 4, None]))
    assert counts(one, side([10.0], [5.0], key=[7]), 1.0, comparison="<").ravel().tolist() == [1, 0, 0, 0, 0]


@pytest.mark.parametrize("line", [False, True])
def test_angles_of_any_turn_and_beyond_the_poles(line: bool) -> None:
    lon, lat = np.array([-350.0, 370.0, 190.0, 10.0, 730.0]), np.array([85.0, 85.0, 95.0, 85.0, 85.0])
    more = {"line": cells_of([10.0], [85.0])} if line else {}
    assert counts(side(lon, lat), side([10.0], [85.0], **more), 1e-3).ravel().tolist() == [1] * 5


def test_coincident_rows() -> None:
    one = side(np.full(60, 10.0), np.full(60, 90.0))
    assert (counts(one, one, MAS, capacity=100) == 1).all()


def test_cells_of_the_file_may_be_those_of_another_library() -> None:
    """A cell next to the true one, at the border of a pixel of any order."""
    lon, lat = np.array([45.0]), np.array([0.0])
    true = cells_of(lon, lat)
    for moved in (true - 1, true + 1, true + 3):
        other = side(lon, lat, line=np.clip(moved, 0, 12 * 4**29 - 1))
        assert counts(other, side(lon, lat), 1 / 3600).item() == 1


def test_order_follows_radius_and_density() -> None:
    rng = np.random.default_rng(1)
    dense = np.sort(cells_of(rng.uniform(0, 1, 100_000), rng.uniform(0, 1, 100_000)))
    sparse = np.sort(cells_of(rng.uniform(0, 360, 1000), rng.uniform(-60, 60, 1000)))
    assert pixel_order(dense, dense, 1.0) < pixel_order(dense, dense, 0.001)
    assert pixel_order(sparse, sparse, 1 / 3600) < pixel_order(dense, dense, 1 / 3600)
    assert pixel_order(dense, dense, 30.0) == 0


def test_radii_wider_than_the_kernel_takes_give_all_pairs() -> None:
    wide = counts(side([0, 50, 200], [0, 10, -80]), side([1, 300], [1, 60]), 31.0)
    assert (wide == 1).all()


# -- relations ----------------------------------------------------------------------------------------------------------------------


class Names:
    """Relations by name, as an engine would have them."""

    def __init__(self) -> None:
        self.tables: dict[str, pa.Table] = {}
        self.is_streamed = False

    def register(self, name: str, rows: pa.Table | pa.RecordBatchReader) -> None:
        self.is_streamed = self.is_streamed or isinstance(rows, pa.RecordBatchReader)
        self.tables[name] = rows if isinstance(rows, pa.Table) else rows.read_all()

    def unregister(self, name: str) -> None:
        del self.tables[name]


def relations(one: pa.Table, two: pa.Table, *, is_wide: bool, stop: bool = False) -> Names:
    names = Names()
    made = SkyRelations(names, {"one": one, "two": two}.__getitem__, lambda: stop)
    made.add(SkyJoin(name="p", first="one", second="two", radius_deg=0.5, is_wide=is_wide))
    kept = Names()
    kept.tables, kept.is_streamed = dict(names.tables), names.is_streamed
    made.close()
    assert not names.tables
    return kept


ONE = side([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]).append_column("name", pa.array(["a", None, "c"]))
TWO = side([2.1, 1.9, 9.0], [0.0, 0.0, 0.0]).append_column("x", pa.array([10, 20, 30]))


def test_wide_pairs_have_the_columns_of_both() -> None:
    found = relations(ONE, TWO, is_wide=True).tables
    assert list(found) == ["p"]
    assert sorted(found["p"].to_pylist(), key=str) == [{"0 name": None, "1 x": 10}, {"0 name": None, "1 x": 20}]


def test_rows_and_their_partners() -> None:
    found = relations(ONE, TWO, is_wide=False).tables
    assert found["p rows"].to_pylist() == [{"name": "a", "qe row": 0}, {"name": None, "qe row": 1}, {"name": "c", "qe row": 2}]
    assert sorted(found["p"].to_pylist(), key=str) == [{"qe row": 1, "x": 10}, {"qe row": 1, "x": 20}]


def test_pairs_with_distances() -> None:
    names = Names()
    made = SkyRelations(names, {"one": ONE, "two": TWO}.__getitem__, lambda: False)
    made.add(SkyJoin(name="p", first="one", second="two", radius_deg=0.5, is_wide=False, has_distance=True))
    found = {row["x"]: row["qe distance"] for row in names.tables["p"].to_pylist()}
    assert found == {10: pytest.approx(0.1), 20: pytest.approx(0.1)}


def test_sides_without_columns_or_rows() -> None:
    bare = side([2.0], [0.0])
    assert relations(bare, bare, is_wide=True).tables["p"].num_rows == 1
    empty = relations(ONE.slice(0, 0), TWO, is_wide=True).tables["p"]
    assert empty.num_rows == 0
    assert empty.column_names == ["0 name", "1 x"]


def test_many_pairs_are_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = side(np.full(3000, 5.0), np.full(3000, 5.0)).append_column("x", pa.array(np.arange(3000)))
    monkeypatch.setattr(skyjoin, "HELD_BYTES", 1 << 20)
    found = relations(crowd, crowd, is_wide=True)
    assert found.is_streamed
    assert found.tables["p"].num_rows == 3000**2
    with pytest.raises(QueryCancelledError):
        relations(crowd, crowd, is_wide=True, stop=True)
