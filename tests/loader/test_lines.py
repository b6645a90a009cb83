"""Families on the line of hashes and series on that of times: what is loaded, appended, replaced and asked for is what one DuckDB says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from qengine import connect
from qengine.catalog.model import TableKind
from qengine.cli import app
from qengine.client.local import LocalClient
from qengine.errors import ConfigError, DuplicateKeyError, QEngineError, SchemaError
from qengine.loader.lines import time_cells, to_times
from qengine.loader.once import compact
from qengine.loader.sources.open import InputOptions
from qengine.loader.verify import verify_children, verify_files
from qengine.sky.cells import LINE_END
from tests.loader.stores import Site, sky


def orbits(rows: int = 500) -> pa.Table:
    rng = np.random.default_rng(3)
    made = {
        "name": [f"2026 Q{i}" for i in range(1000)],
        "a": rng.uniform(1, 40, 1000),
        "e": rng.uniform(0, 1, 1000),
        "h": rng.integers(5, 25, 1000),
    }
    return pa.table(made).slice(0, rows).combine_chunks()


def sightings(rows: int = 3000, *, first: int = 0, names: int = 520) -> pa.Table:
    """Own positions all over the sky; some are of objects that nobody knows, some of none."""
    rng = np.random.default_rng(first + 4)
    dec = np.degrees(np.arcsin(rng.uniform(-1, 1, rows)))
    owner = rng.integers(0, names, rows)
    return pa.table(
        {
            "sid": np.arange(first, first + rows),
            "object": [f"2026 Q{i}" if i % 97 else None for i in owner],
            "ra": rng.uniform(0, 360, rows),
            "dec": dec,
            "mjd": rng.uniform(60000, 61000, rows),
            "flux": rng.normal(0, 1, rows),
        }
    )


def visits(rows: int = 2000, *, first: int = 0, start: float = 60000.0) -> pa.Table:
    rng = np.random.default_rng(first + 5)
    mjd = start + rng.permutation(rows) / 7.0
    times: list[Any] = mjd.tolist()
    times[3], times[4], times[5] = None, float("nan"), float("inf")
    return pa.table(
        {
            "visit": np.arange(first, first + rows),
            "mjd": times,
            "seeing": rng.uniform(0.5, 2, rows),
            "ra": rng.uniform(0, 360, rows),
            "dec": rng.uniform(-80, 10, rows),
        }
    )


@pytest.fixture
def moving(site: Site) -> Site:
    site.load(site.write("orbits.parquet", orbits()), table="orbit", key="name", line="hash")
    site.load(
        site.write("sightings.parquet", sightings()),
        table="sighting",
        kind=TableKind.CHILD,
        director="orbit",
        director_key="object",
    )
    site.load(site.write("sky.parquet", sky(600)), table="star", key="id")
    return site


@pytest.fixture
def series(site: Site) -> Site:
    site.load(
        site.write("visits.parquet", visits()), table="visit", kind=TableKind.SERIES, key="visit", time_key="mjd", rows_per_tile=100
    )
    site.load(site.write("sky.parquet", sky(600)), table="star", key="id")
    return site


@pytest.fixture
def client(site: Site) -> Iterator[LocalClient]:
    with connect(site.store.root) as made:
        assert isinstance(made, LocalClient)
        yield made


def bare(**tables: pa.Table) -> duckdb.DuckDBPyConnection:
    engine = duckdb.connect()
    engine.execute("CREATE SCHEMA demo")
    for name, rows in tables.items():
        engine.register(f"in_{name}", rows)
        columns = ", ".join(
            f"CASE WHEN isnan({c.name}) THEN NULL ELSE {c.name} END AS {c.name}" if pa.types.is_floating(c.type) else c.name
            for c in rows.schema
        )
        engine.execute(f"CREATE TABLE demo.{name} AS SELECT {columns} FROM in_{name}")
    return engine


def same(client: LocalClient, engine: duckdb.DuckDBPyConnection, *statements: str) -> None:
    for text in statements:
        ours = client.query(text).to_arrow().to_pylist()
        theirs = engine.execute(text).to_arrow_table().to_pylist()
        key = lambda row: tuple((v is None, v) for v in row.values())  # noqa: E731
        ours, theirs = sorted(ours, key=key), sorted(theirs, key=key)
        assert len(ours) == len(theirs), text
        for a, b in zip(ours, theirs, strict=True):
            assert list(a) == list(b), text
            assert all(
                x == (pytest.approx(y, rel=1e-9) if isinstance(y, float) else y)
                for x, y in zip(a.values(), b.values(), strict=True)
            ), (text, a, b)


MOVING = (
    "SELECT COUNT(*) AS n FROM demo.orbit",
    "SELECT COUNT(*) AS n, SUM(s.flux) AS f FROM demo.orbit AS o JOIN demo.sighting AS s ON o.name = s.object WHERE o.h > 12",
    "SELECT o.name, COUNT(s.sid) AS n FROM demo.orbit AS o LEFT JOIN demo.sighting AS s ON s.object = o.name GROUP BY o.name",
    "SELECT s.object, MAX(s.mjd) - MIN(s.mjd) AS arc FROM demo.sighting AS s GROUP BY s.object HAVING COUNT(*) > 7",
    "SELECT * FROM demo.orbit WHERE name = '2026 Q17'",
    "SELECT sid, flux FROM demo.sighting WHERE object IN ('2026 Q17', '2026 Q518', 'nobody')",
    "SELECT COUNT(*) AS n FROM demo.sighting AS s WHERE NOT EXISTS (SELECT 1 FROM demo.orbit AS o WHERE o.name = s.object)",
    "SELECT COUNT(*) AS n FROM demo.orbit AS o WHERE o.name NOT IN (SELECT s.object FROM demo.sighting AS s WHERE s.object IS NOT NULL)",
    "SELECT COUNT(*) AS n FROM demo.sighting AS a JOIN demo.sighting AS b ON a.object = b.object AND a.sid < b.sid",
    "SELECT COUNT(*) AS n FROM demo.sighting WHERE ra BETWEEN 10 AND 50 AND dec > 0",
    "SELECT o.h, COUNT(DISTINCT s.object) AS n FROM demo.orbit AS o JOIN demo.sighting AS s ON o.name = s.object GROUP BY o.h",
    "SELECT s.sid, t.id FROM demo.sighting AS s JOIN demo.star AS t ON t.id = s.sid WHERE s.flux > 1",
)


def test_a_family_by_hash(moving: Site, client: LocalClient) -> None:
    engine = bare(orbit=orbits(), sighting=sightings(), star=pa.table(sky(600)))
    same(client, engine, *MOVING)
    near = (
        "SELECT COUNT(*) AS n FROM demo.sighting AS s JOIN demo.star AS t ON DISTANCE(POINT(s.ra, s.dec), POINT(t.ra, t.dec)) < 3"
    )
    by_hand = (
        "SELECT COUNT(*) AS n FROM demo.sighting AS s JOIN demo.star AS t ON 2 * degrees(asin(sqrt("
        "pow(sin(radians(s.dec - t.dec) / 2), 2) + cos(radians(s.dec)) * cos(radians(t.dec)) * pow(sin(radians(s.ra - t.ra) / 2), 2)))) < 3"
    )
    assert client.query(near).to_arrow().to_pylist() == engine.execute(by_hand).to_arrow_table().to_pylist()


def test_a_join_by_the_key_is_done_where_the_rows_lie(moving: Site, client: LocalClient) -> None:
    plan = client.explain(MOVING[1]).to_text()
    assert "exchange" not in plan.lower()
    assert "r1" not in plan, "the tables are read by one fragment"
    home = moving.snapshot("orbit").home
    assert len(home) > 5
    assert (moving.snapshot("sighting").home.lowest < LINE_END).all()
    one = client.explain("SELECT * FROM demo.orbit WHERE name = '2026 Q17'").to_json()
    every = client.explain("SELECT * FROM demo.orbit WHERE h = 17").to_json()
    assert str(one) != str(every)
    assert not len(moving.snapshot("orbit").margin)
    assert not (moving.store.root / "demo" / "orbit" / "collection.properties").exists()


def test_hash_families_change(moving: Site, client: LocalClient) -> None:
    """Orphans go to their director when it comes; an input that is replaced takes its rows along."""
    before = len(moving.read(moving.snapshot("sighting").orphan))
    late = orbits(520).slice(500)
    moving.load(moving.write("late.parquet", late), table="orbit")
    engine = bare(orbit=orbits(520), sighting=sightings(), star=pa.table(sky(600)))
    same(client, engine, *MOVING)
    assert len(moving.read(moving.snapshot("sighting").orphan)) < before
    more = sightings(800, first=3000)
    moving.load(moving.write("more.parquet", more), table="sighting", options=InputOptions(label="more"))
    less = more.slice(100)
    moving.load(moving.write("less.parquet", less), table="sighting", options=InputOptions(label="more"))
    engine = bare(orbit=orbits(520), sighting=pa.concat_tables([sightings(), less]), star=pa.table(sky(600)))
    same(client, engine, *MOVING)
    compact("demo", ("orbit", "sighting"), moving.registry, moving.store)
    same(client, engine, *MOVING)
    catalog = moving.registry.catalog()
    assert verify_children(moving.snapshot("sighting"), catalog, moving.store) == 3700
    tables = [moving.snapshot(name) for name in ("orbit", "sighting")]
    assert verify_files(tables, moving.store, catalog="demo", snapshot=1).is_sound
    with pytest.raises(DuplicateKeyError):
        moving.load(moving.write("again.parquet", late), table="orbit", options=InputOptions(label="again"))


SERIES = (
    "SELECT COUNT(*) AS n, MIN(mjd) AS a, AVG(seeing) AS s FROM demo.visit WHERE mjd BETWEEN 60010 AND 60020",
    "SELECT COUNT(*) AS n FROM demo.visit WHERE mjd IS NULL",
    "SELECT visit, mjd FROM demo.visit WHERE mjd > 60280",
    "SELECT * FROM demo.visit WHERE visit = 77",
    "SELECT * FROM demo.visit WHERE visit IN (3, 4, 5)",
    "SELECT FLOOR(mjd / 30) AS month, COUNT(*) AS n FROM demo.visit WHERE mjd < 1e9 GROUP BY FLOOR(mjd / 30)",
    "SELECT v.visit, w.visit AS other FROM demo.visit AS v JOIN demo.visit AS w ON w.visit = v.visit + 1 WHERE v.seeing < 0.6",
    "SELECT v.visit, t.id FROM demo.visit AS v JOIN demo.star AS t ON t.id = v.visit",
    "SELECT COUNT(*) AS n FROM demo.visit WHERE dec BETWEEN -30 AND -20",
    "SELECT visit FROM demo.visit WHERE mjd < 1e9 ORDER BY mjd DESC, visit LIMIT 5",
)


def test_a_series(series: Site, client: LocalClient) -> None:
    engine = bare(visit=visits(), star=pa.table(sky(600)))
    same(client, engine, *SERIES)
    home = series.snapshot("visit").home
    assert len(home) > 10
    times = home.stats["mjd"]
    assert (np.asarray(times.minimum[1:], float) >= np.asarray(times.maximum[:-1], float)).all(), "parts lie in the order of times"
    assert series.snapshot("visit").orphan.rows.sum() == 3
    plan = client.explain(SERIES[0], analyze=True).to_json()
    whole = client.explain("SELECT COUNT(*) AS n, AVG(seeing) AS s FROM demo.visit", analyze=True).to_json()
    assert _reads(plan) < 0.3 * _reads(whole)
    later = visits(700, first=2000, start=60500.0)
    series.load(series.write("later.parquet", later), table="visit", options=InputOptions(label="later"))
    same(client, bare(visit=pa.concat_tables([visits(), later]), star=pa.table(sky(600))), *SERIES)
    fewer = later.slice(200)
    series.load(series.write("fewer.parquet", fewer), table="visit", options=InputOptions(label="later"))
    compact("demo", ("visit",), series.registry, series.store)
    same(client, bare(visit=pa.concat_tables([visits(), fewer]), star=pa.table(sky(600))), *SERIES)
    assert verify_files([series.snapshot("visit")], series.store, catalog="demo", snapshot=1).is_sound


def _reads(plan: Any) -> float:
    """Return the bytes that a plan expects to read."""
    if isinstance(plan, dict):
        own = [float(v) for k, v in plan.items() if k in ("bytes", "read_bytes", "bytes_read") and isinstance(v, int | float)]
        return sum(own) + sum(_reads(v) for v in plan.values())
    return sum(_reads(v) for v in plan) if isinstance(plan, list | tuple) else 0.0


def test_series_lie_by_dates_and_whole_numbers_too(site: Site, client: LocalClient) -> None:
    moments = np.datetime64("2026-01-01") + np.arange(300) * np.timedelta64(3600, "s")
    rows = pa.table({"taken": pa.array(moments.astype("datetime64[us]")), "n": np.arange(300)})
    site.load(site.write("log.parquet", rows), table="log", kind=TableKind.SERIES, time_key="taken", rows_per_tile=50)
    site.load(site.write("ticks.parquet", rows.select(["n"])), table="ticks", kind=TableKind.SERIES, time_key="n", rows_per_tile=50)
    same(
        client, bare(log=rows, ticks=rows.select(["n"])),
        "SELECT COUNT(*) AS c FROM demo.log WHERE taken >= '2026-01-05T00:00:00'",
        "SELECT SUM(n) AS c FROM demo.ticks WHERE n BETWEEN 70 AND 90",
    )  # fmt: skip
    assert len(site.snapshot("log").home) > 3


def test_what_cannot_be(site: Site) -> None:
    visit, orbit = site.write("v.parquet", visits(20)), site.write("o.parquet", orbits(20))
    cases: list[tuple[Path, dict[str, Any], type[QEngineError], str]] = [
        (visit, {"kind": TableKind.SERIES}, ConfigError, "which column holds the times"),
        (visit, {"kind": TableKind.SERIES, "time_key": "nothing"}, ConfigError, "no such column"),
        (orbit, {"kind": TableKind.SERIES, "time_key": "name"}, SchemaError, "is no time"),
        (visit, {"time_key": "mjd"}, ConfigError, "only a series"),
        (visit, {"kind": TableKind.SERIES, "time_key": "mjd", "line": "hash"}, ConfigError, "lies on the line of times"),
        (orbit, {"line": "hash"}, ConfigError, "made of keys"),
        (orbit, {"key": "name"}, SchemaError, "--line hash"),
    ]
    for path, words, kind, said in cases:
        with pytest.raises(kind) as caught:
            site.load(path, **words)
        assert said in f"{caught.value} {caught.value.hint}"
    site.load(orbit, table="orbit", key="name", line="hash")
    site.load(site.write("s.parquet", sky(20)), table="star", key="id")
    pairs = site.write("p.parquet", {"id": [1, 2], "name": ["2026 Q1", "2026 Q2"]})
    with pytest.raises(ConfigError, match="does not lie on the sky"):
        site.load(pairs, table="pair", kind=TableKind.MATCH, left="star.id", right="orbit.name")


def test_command_line(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(visits(300), tmp_path / "v.parquet")
    pq.write_table(orbits(30), tmp_path / "o.parquet")
    words = ["--store", str(tmp_path / "store"), "--into", "demo"]
    for more in (
        [str(tmp_path / "v.parquet"), "--table", "visit", "--kind", "series", "--time-key", "mjd", "--key", "visit"],
        [str(tmp_path / "o.parquet"), "--table", "orbit", "--line", "hash", "--key", "name"],
    ):
        done = CliRunner().invoke(app, ["load", *more, *words])
        assert done.exit_code == 0, done.output
    picture = ["tables", "--map", "demo.orbit", "-o", str(tmp_path / "m.png"), "--store", str(tmp_path / "store")]
    assert "no rows on the sky" in str(CliRunner().invoke(app, picture).exception)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=50))
def test_places_are_in_the_order_of_times(values: list[float]) -> None:
    times = np.sort(np.array(values))
    cells = time_cells(times)
    assert (np.diff(cells) >= 0).all()
    assert (cells >= 0).all()
    assert (cells < LINE_END).all()
    assert time_cells(np.array([-0.0])) == time_cells(np.array([0.0]))


def test_times_of_all_types() -> None:
    stamp = pa.array([0, 1_000_000, None], pa.timestamp("us", "UTC"))
    assert to_times(stamp, "t", "x").tolist()[:2] == [0.0, 1e6]
    assert np.isnan(to_times(stamp, "t", "x")[2])
    assert to_times(pa.array([1], pa.date32()), "t", "x").tolist() == [86_400e6]
    assert to_times(pa.array([2**60], pa.timestamp("ns")), "t", "x").tolist() == [float(2**60 // 1000)]
    with pytest.raises(SchemaError, match="is no time"):
        to_times(pa.array(["a"]), "t", "x")
