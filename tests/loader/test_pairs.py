"""A match table whose directors and pairs change is as a fresh load would have made it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qengine.catalog.model import HEALPIX, TableKind, TableSnapshot
from qengine.errors import ConflictError
from qengine.loader.request import LoadRequest
from qengine.loader.sources.open import InputOptions
from qengine.loader.transaction import Transaction
from tests.loader.stores import Site

PAIR: dict[str, Any] = {"table": "pair", "kind": TableKind.MATCH, "left": "obj.oid", "right": "star.sid"}

Rows = Mapping[str, Any]


def places(ids: range, *, seed: int = 0, near: float | None = None, shift: float = 0.0) -> dict[str, Any]:
    """Rows of a director: over the sky or near a right ascension; every tenth has no position."""
    rng = np.random.default_rng([seed, ids.start])
    count = len(ids)
    ra = rng.uniform(0, 360, count) if near is None else near + rng.normal(0, 0.01, count)
    dec = np.degrees(np.arcsin(rng.uniform(-0.99, 0.99, count))) if near is None else rng.normal(20, 0.01, count)
    lost = np.array(ids, np.int64) % 10 == 9
    return {"id": np.array(ids, np.int64), "ra": np.where(lost, np.nan, np.mod(ra, 360)), "dec": dec + shift}


def pairs(first: int, left: list[int], right: list[int]) -> dict[str, Any]:
    return {"number": np.arange(first, first + len(left)), "oid": pa.array(left, pa.int64()), "sid": pa.array(right, pa.int64())}


def put(site: Site, table: str, label: str, columns: Rows, **words: Any) -> None:
    path = site.write(f"{table}-{label}.parquet", dict(columns))
    about = PAIR if table == "pair" else {"table": table, "key": "id"}
    site.load(path, options=InputOptions(label=label), **{**about, **words})


def all_rows(site: Site, snapshot: TableSnapshot) -> list[tuple[Any, ...]]:
    """Rows with the place that each has, sorted."""
    tables = [site.read(parts) for parts in (snapshot.home, snapshot.orphan) if len(parts)]
    names = ("number", "oid", "sid", HEALPIX, "_director_ra", "_director_dec")
    found = [row for one in tables for row in zip(*(one[name].to_pylist() for name in names), strict=True)]
    return sorted(found, key=str)


def facts(snapshot: TableSnapshot) -> tuple[int, int]:
    assert snapshot.table.match is not None
    return snapshot.table.match.strays, snapshot.table.match.orphans


class World:
    """A site that changes, and what it has been given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site = Site(folder / "changing")
        self.given: dict[tuple[str, str], Rows] = {}
        self.fresh = 0

    def put(self, table: str, label: str, columns: Rows, **words: Any) -> None:
        put(self.site, table, label, columns, **words)
        self.given[table, label] = columns

    def check(self) -> None:
        """Compare with a store that was given the same at once."""
        self.fresh += 1
        fresh = Site(self.folder / f"fresh-{self.fresh}")
        for table in ("obj", "star", "pair"):
            for (name, label), columns in self.given.items():
                if name == table and len(next(iter(columns.values()))):
                    put(fresh, table, label, columns)
        mine, other = self.site.snapshot("pair"), fresh.snapshot("pair")
        assert mine.other is not None
        assert other.other is not None
        for one, two in ((mine, other), (mine.other, other.other)):
            assert all_rows(self.site, one) == all_rows(fresh, two)
            assert facts(one) == facts(two)
            assert one.table.match is not None
            assert two.table.match is not None
            assert one.table.match.separation_deg >= two.table.match.separation_deg
        assert mine.table.match is not None
        assert mine.other.table.match is not None
        assert mine.table.match.separation_deg == mine.other.table.match.separation_deg


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.put("obj", "sky", places(range(300)))
    made.put("obj", "tract", places(range(300, 360), near=50.0))
    made.put("star", "sky", places(range(300), shift=0.001))
    made.put("star", "tract", places(range(300, 360), near=50.0, shift=0.001))
    keys = [*range(360), *range(50)]
    made.put("pair", "a", pairs(0, keys, keys))
    return made


def files(snapshot: TableSnapshot) -> set[str]:
    return {*snapshot.home.uri.to_pylist(), *snapshot.orphan.uri.to_pylist()}


def test_appending_writes_only_where_pairs_come(world: World) -> None:
    before = world.site.snapshot("pair")
    assert before.other is not None
    world.put("pair", "b", pairs(1000, [300, 301], [300, 301]))
    after = world.site.snapshot("pair")
    assert after.other is not None
    assert files(before) < files(after), "parts that are there stay"
    assert files(before.other) < files(after.other)
    assert len(files(after)) - len(files(before)) <= 2
    world.check()


def test_pairs_are_replaced_by_input(world: World) -> None:
    world.put("pair", "b", pairs(1000, [1, 2, 999, 19], [1, 888, 3, 19]))
    world.check()
    world.put("pair", "b", pairs(2000, [5, 6], [6, 777]))
    world.check()
    world.put("pair", "b", pairs(0, [], []))
    world.check()


@pytest.mark.parametrize("side", ["obj", "star"])
def test_pairs_go_where_either_director_goes(world: World, side: str) -> None:
    before = world.site.snapshot("pair")
    world.put(side, "tract", places(range(300, 360), near=50.2, seed=4))
    world.check()
    after = world.site.snapshot("pair")
    assert len(files(before) & files(after)) > len(files(before)) // 2


@pytest.mark.parametrize("side", ["obj", "star"])
def test_pairs_that_lose_a_director_are_refused_unless_allowed(world: World, side: str) -> None:
    fewer = places(range(300, 330), near=50.0)
    with pytest.raises(ConflictError, match=r"of demo\.pair would lose their director"):
        world.put(side, "tract", fewer)
    world.given[side, "tract"] = places(range(300, 360), near=50.0, shift=0.001 if side == "star" else 0.0)
    world.check()
    world.put(side, "tract", fewer, allow_orphans=True)
    world.check()
    world.put(side, "back", places(range(330, 360), near=50.0))
    world.check()


def together(world: World, label: str, obj: Rows, star: Rows, **words: Any) -> None:
    """Change both directors in one load."""
    load = Transaction.begin("demo", world.site.registry, world.site.store)
    for table, columns in (("obj", obj), ("star", star)):
        path = world.site.write(f"{table}-{label}-new.parquet", dict(columns))
        options = InputOptions(label=label)
        load.contribute(LoadRequest(inputs=(path,), catalog="demo", table=table, key="id", options=options, **words))
    load.commit()
    world.given["obj", label], world.given["star", label] = obj, star


def test_both_directors_change_at_once(world: World) -> None:
    together(world, "tract", places(range(300, 360), near=51.0, seed=1), places(range(300, 360), near=51.0, seed=2))
    world.check()


def test_both_directors_are_lost_at_once(world: World) -> None:
    fewer = places(range(300, 330), near=50.0)
    with pytest.raises(ConflictError, match="would lose their director"):
        together(world, "tract", fewer, fewer)
    together(world, "tract", fewer, fewer, allow_orphans=True)
    world.check()


def test_a_director_and_its_pairs_are_replaced_together(world: World) -> None:
    world.put("pair", "tract", pairs(5000, list(range(300, 360)), list(range(300, 360))))
    load = Transaction.begin("demo", world.site.registry, world.site.store)
    new, kept = places(range(320, 380), near=50.0, seed=3), pairs(6000, list(range(320, 380)), list(range(300, 360)))
    for table, columns, words in (("obj", new, {"key": "id"}), ("pair", kept, PAIR)):
        path = world.site.write(f"{table}-again.parquet", dict(columns))
        options = InputOptions(label="tract")
        request = {"catalog": "demo", "table": table, "options": options, "allow_orphans": True, **words}
        load.contribute(LoadRequest(inputs=(path,), **request))
    load.commit()
    world.given["obj", "tract"], world.given["pair", "tract"] = new, kept
    world.check()


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_history_of_pairs_is_as_a_fresh_load(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    world = World(tmp_path_factory.mktemp("pairs"))
    world.put("obj", "s", places(range(40)))
    world.put("star", "s", places(range(40), shift=0.001))
    world.put("pair", "s", pairs(0, list(range(60)), list(range(60))))
    for step in range(data.draw(st.integers(1, 4))):
        what = data.draw(st.sampled_from(["obj", "star", "both", "pair", "other pair"]))
        label = data.draw(st.sampled_from(["s", "t"]))
        start = {"s": 0, "t": 40}[label]
        count = data.draw(st.integers(1, 30))
        near = data.draw(st.sampled_from([None, 0.0, 50.0]))
        new = places(range(start, start + count), seed=step + 1, near=near)
        if what in ("obj", "star"):
            world.put(what, label, new, allow_orphans=True)
        elif what == "both":
            together(world, label, new, places(range(start, start + count), seed=step + 9, near=near), allow_orphans=True)
        else:
            rng = np.random.default_rng(step)
            left, right = (rng.integers(0, 80, count).tolist() for _ in range(2))
            world.put("pair", {"pair": "s", "other pair": "p"}[what], pairs(1000 * (step + 1), left, right))
        world.check()
