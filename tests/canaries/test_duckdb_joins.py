"""Joins that a DuckDB release has got wrong (2.0.0), on the installed one, against brute force in numpy.

Range joins with further conditions as outer joins were planned with unmatched rows lost or doubled. A new release of DuckDB is
taken only when these pass.
"""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

N = 12000
RADIUS = 0.06


@pytest.fixture(scope="module", params=[1, 2])
def connection(request: pytest.FixtureRequest) -> Iterator[duckdb.DuckDBPyConnection]:
    made = duckdb.connect(config={"threads": request.param})
    yield made
    made.close()


@pytest.fixture(scope="module")
def stars() -> pa.Table:
    """Gaia-like: clustered positions, few bright stars."""
    rng = np.random.default_rng(24623)
    centers = rng.uniform((0, -60), (360, 60), (40, 2))
    near = centers[rng.integers(0, 40, N // 2)] + rng.normal(0, 0.4, (N // 2, 2))
    spread = np.column_stack([rng.uniform(0, 360, N - N // 2), np.degrees(np.arcsin(rng.uniform(-1, 1, N - N // 2)))])
    ra, dec = np.concatenate([near, spread]).T
    return pa.table({"id": np.arange(N), "ra": ra % 360, "dec": np.clip(dec, -90, 90), "mag": rng.exponential(2.0, N) * -1 + 14})


def _haversine(a: str, b: str) -> str:
    return (
        f"degrees(2 * asin(sqrt(least(1, pow(sin(radians({b}.dec - {a}.dec) / 2), 2) + "
        f"cos(radians({a}.dec)) * cos(radians({b}.dec)) * pow(sin(radians({b}.ra - {a}.ra) / 2), 2)))))"
    )


def _pairs(stars: pa.Table, left: NDArray[np.int64]) -> list[tuple[int, int]]:
    ra, dec = np.radians(stars["ra"].to_numpy()), np.radians(stars["dec"].to_numpy())
    found = []
    for i in left:
        h = np.sin((dec - dec[i]) / 2) ** 2 + np.cos(dec) * np.cos(dec[i]) * np.sin((ra - ra[i]) / 2) ** 2
        near = np.flatnonzero((np.degrees(2 * np.arcsin(np.sqrt(np.minimum(h, 1)))) < RADIUS) & (np.arange(N) != i))
        found += [(int(i), int(j)) for j in near]
    return found


@pytest.fixture(scope="module")
def bright(stars: pa.Table) -> NDArray[np.int64]:
    return np.flatnonzero(stars["mag"].to_numpy() < 8)


@pytest.fixture(scope="module")
def pairs(stars: pa.Table, bright: NDArray[np.int64]) -> list[tuple[int, int]]:
    return _pairs(stars, bright)


@pytest.mark.parametrize("kind", ["INNER", "LEFT", "RIGHT", "FULL"])
def test_range_join_with_further_conditions(
    connection: duckdb.DuckDBPyConnection, stars: pa.Table, bright: NDArray[np.int64], pairs: list[tuple[int, int]], kind: str
) -> None:
    connection.register("g", stars)
    assert 200 < len(bright) < 5000
    on = f"a.dec BETWEEN b.dec - {RADIUS} AND b.dec + {RADIUS} AND {_haversine('a', 'b')} < {RADIUS} AND a.id <> b.id"
    sides = "(SELECT * FROM g WHERE mag < 8) a", "g b"
    if kind == "RIGHT":
        sides = "g b", "(SELECT * FROM g WHERE mag < 8) a"
    got = connection.execute(f"SELECT a.id, b.id FROM {sides[0]} {kind} JOIN {sides[1]} ON {on}").fetchall()
    expected: list[tuple[int | None, int | None]] = list(pairs)
    if kind != "INNER":
        expected += [(int(i), None) for i in set(bright.tolist()) - {i for i, _ in pairs}]
    if kind == "FULL":
        expected += [(None, j) for j in set(range(N)) - {j for _, j in pairs}]
    assert sorted(got, key=str) == sorted(expected, key=str)


@pytest.mark.parametrize("seed", range(32))
def test_random_range_joins(connection: duckdb.DuckDBPyConnection, seed: int) -> None:
    """Two inequalities, a residual condition, NULLs, every kind of join, against the definition of a join."""
    rng = np.random.default_rng(seed)
    kind = ("INNER", "LEFT", "RIGHT", "FULL")[seed % 4]
    n, m = rng.integers(1, 3000, 2) if seed % 3 == 0 else rng.integers(1, 60, 2)

    def table(rows: int) -> pa.Table:
        columns = {"id": pa.array(range(rows))}
        for name in "xyz":
            columns[name] = pa.array(rng.integers(0, 40, rows), mask=rng.random(rows) < 0.1)
        return pa.table(columns)

    left, right = table(int(n)), table(int(m))
    connection.register("l", left)
    connection.register("r", right)
    width, apart = int(rng.integers(0, 3)), int(rng.integers(1, 6))
    residual = ("l.z <> r.z", f"l.z + r.z < {10 * apart}", f"abs(l.z - r.z) > {apart}")[seed % 3]
    on = f"l.x BETWEEN r.x - {width} AND r.x + {width} AND l.y >= r.y AND {residual}"
    got = connection.execute(f"SELECT l.id, r.id FROM l {kind} JOIN r ON {on}").fetchall()

    def column(rows: pa.Table, name: str) -> NDArray[np.float64]:
        return rows[name].to_numpy(zero_copy_only=False).astype(float)

    with np.errstate(invalid="ignore"):
        a = {name: column(left, name)[:, None] for name in "xyz"}
        b = {name: column(right, name)[None, :] for name in "xyz"}
        z = (a["z"] != b["z"], a["z"] + b["z"] < 10 * apart, np.abs(a["z"] - b["z"]) > apart)[seed % 3]
        z &= ~np.isnan(a["z"] + b["z"])
        hit = (a["x"] >= b["x"] - width) & (a["x"] <= b["x"] + width) & (a["y"] >= b["y"]) & z
    expected: list[tuple[int | None, int | None]] = [(int(i), int(j)) for i, j in np.argwhere(hit)]
    if kind in ("LEFT", "FULL"):
        expected += [(int(i), None) for i in np.flatnonzero(~hit.any(axis=1))]
    if kind in ("RIGHT", "FULL"):
        expected += [(None, int(j)) for j in np.flatnonzero(~hit.any(axis=0))]
    assert sorted(got, key=str) == sorted(expected, key=str)


@pytest.mark.parametrize("seed", range(8))
def test_right_join_with_is_null(connection: duckdb.DuckDBPyConnection, seed: int) -> None:
    """An anti join written as an outer join."""
    rng = np.random.default_rng(seed)
    left = pa.table({"a": rng.integers(0, 500, 400)})
    right = pa.table({"a": rng.integers(0, 500, 400)})
    connection.register("l", left)
    connection.register("r", right)
    want = sorted(int(v) for v in right["a"].to_numpy() if not ((left["a"].to_numpy() > v) & (left["a"].to_numpy() < v + 2)).any())
    got = connection.execute(
        "SELECT r.a FROM l RIGHT JOIN r ON l.a > r.a AND l.a < r.a + 2 WHERE l.a IS NULL ORDER BY 1"
    ).fetchall()
    assert [row[0] for row in got] == want


def test_arrow_scan_with_filters(connection: duckdb.DuckDBPyConnection) -> None:
    """Filters pushed into Arrow data, dictionaries and slices included."""
    rows = pa.table({"i": range(10000), "d": pa.array([f"k{i % 7}" for i in range(10000)]).dictionary_encode()})
    connection.register("t", rows.slice(1234, 5000))
    got = connection.execute("SELECT count(*), min(i), max(i) FROM t WHERE i >= 2000 AND d = 'k3'").fetchone()
    want = [i for i in range(2000, 6234) if i % 7 == 3]
    assert got == (len(want), want[0], want[-1])
