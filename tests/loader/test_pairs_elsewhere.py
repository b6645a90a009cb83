"""Match tables whose directors are in other catalogues, which change without them: every answer stays that of one database."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from qengine.app import ClusterSettings, cluster
from qengine.catalog.model import TableKind
from qengine.coordinator.service import ServiceSettings
from qengine.errors import ConfigError, ConflictError
from qengine.loader.once import refresh
from qengine.loader.sources.open import InputOptions
from qengine.plan.cost import CostModel
from tests.loader.stores import Site
from tests.loader.test_pairs import all_rows, facts, pairs, places
from tests.support.cluster import NO_BROADCASTS

FINE = CostModel(min_task_s=1e-6, max_task_s=2e-5, part_bytes=50)
COUNT = 80

DIRECTORS = {"obj": "dp.obj", "star": "ext.star"}
PAIRS = {
    "dp.pair": {"left": "obj.oid", "right": "ext.star.sid"},
    "ext.pair": {"left": "dp.obj.oid", "right": "star.sid"},
    "mix.pair": {"left": "dp.obj.oid", "right": "ext.star.sid"},
}

STATEMENTS = [
    "SELECT o.id, m.number, s.id AS sid FROM dp.obj o JOIN {pair} m ON m.oid = o.id JOIN ext.star s ON s.id = m.sid",
    "SELECT m.number, o.id FROM {pair} m JOIN dp.obj o ON o.id = m.oid",
    "SELECT m.number, s.id FROM {pair} m LEFT JOIN ext.star s ON s.id = m.sid",
    "SELECT s.id FROM ext.star s WHERE NOT EXISTS (SELECT 1 FROM {pair} m WHERE m.sid = s.id)",
    "SELECT m.number FROM {pair} m WHERE m.sid IN (3, 4, 85, 61) OR m.oid = 5",
    "SELECT m.number FROM {pair} m WHERE m.sid IN (3, 4, 85, 61)",
    "SELECT m.number FROM {pair} m WHERE m.oid IN (3, 4, 85, 61)",
    "SELECT o.id, COUNT(*) AS n FROM dp.obj o LEFT JOIN {pair} m ON m.oid = o.id GROUP BY o.id",
]

JOINS = {
    "obj": "SELECT m.number, o.id FROM {pair} m JOIN dp.obj o ON o.id = m.oid",
    "star": "SELECT m.number, s.id FROM {pair} m JOIN ext.star s ON s.id = m.sid",
}


class World:
    """A store with two directors and match tables between them, and the same rows in one DuckDB."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site = Site(folder / "site")
        self.given: dict[tuple[str, str], Mapping[str, Any]] = {}
        self.put("obj", "sky", spread(range(COUNT)))
        self.put("star", "sky", spread(range(COUNT), shift=0.001))
        for name in PAIRS:
            self.put_pairs(name, "a", pairs(0, [*range(COUNT + 10)], [*range(COUNT + 10)]))

    def put(self, director: str, label: str, columns: Mapping[str, Any], **words: Any) -> None:
        catalog, table = DIRECTORS[director].split(".")
        self._load(catalog, table, label, columns, key="id", **words)
        self.given[DIRECTORS[director], label] = columns

    def put_pairs(self, name: str, label: str, columns: Mapping[str, Any], **words: Any) -> None:
        catalog, table = name.split(".")
        self._load(catalog, table, label, columns, kind=TableKind.MATCH, **PAIRS[name], **words)
        self.given[name, label] = columns

    def _load(self, catalog: str, table: str, label: str, columns: Mapping[str, Any], **words: Any) -> None:
        path = self.site.write(f"{catalog}-{table}-{label}.parquet", dict(columns))
        options = InputOptions(label=label)
        self.site.load(path, catalog=catalog, table=table, options=options, rows_per_tile=10, **words)

    def check(
        self, *, snapshots: Mapping[str, int] | None = None, tables: Mapping[str, str] | None = None
    ) -> dict[tuple[str, str], str]:
        """Compare answers with those of one DuckDB, and return EXPLAIN of the join of each match table with each director. `tables`
        are names that stand for the tables in the statements asked here."""
        oracle = duckdb.connect()
        for name in ("dp.obj", "ext.star", *PAIRS):
            catalog = name.partition(".")[0]
            oracle.execute(f"CREATE SCHEMA IF NOT EXISTS {catalog}")
            rows = pa.concat_tables([pa.table(dict(columns)) for (table, _), columns in self.given.items() if table == name])
            oracle.register("incoming", rows)
            oracle.execute(f"CREATE TABLE {name} AS SELECT * FROM incoming")

        async def run() -> dict[tuple[str, str], str]:
            found = {}
            settings = ClusterSettings(service=ServiceSettings(cost=FINE, broadcast=NO_BROADCASTS))
            async with cluster(self.site.store.root, settings) as service:
                for pair in PAIRS:
                    for text in STATEMENTS:
                        asked = text.format(pair=pair)
                        for name, other in (tables or {}).items():
                            asked = asked.replace(f"{name} ", f"{other} ")
                        answer = await (await service.query(asked, snapshots=snapshots)).to_table()
                        mine = sorted((tuple(row.values()) for row in answer.to_pylist()), key=repr)
                        assert mine == sorted(oracle.execute(text.format(pair=pair)).fetchall(), key=repr), asked
                    for side, text in JOINS.items():
                        found[pair, side] = (await service.explain(text.format(pair=pair), snapshots=snapshots)).to_text()
            return found

        found = asyncio.run(run())
        oracle.close()
        return found

    def check_fresh(self) -> None:
        """Compare the match tables with those of a store that was given the same at once."""
        fresh = World.__new__(World)
        fresh.folder, fresh.given = self.folder, {}
        number = sum(1 for each in self.folder.iterdir())
        fresh.site = Site(self.folder / f"fresh-{number}")
        for (name, label), columns in self.given.items():
            if name in DIRECTORS.values():
                fresh.put(name.partition(".")[2], label, columns)
        for (name, label), columns in self.given.items():
            if name in PAIRS:
                fresh.put_pairs(name, label, columns)
        for name in PAIRS:
            mine, other = (each.site.registry.catalog().find(*name.split(".")) for each in (self, fresh))
            assert mine is not None
            assert other is not None
            assert mine.other is not None
            assert other.other is not None
            for one, two in ((mine, other), (mine.other, other.other)):
                assert all_rows(self.site, one) == all_rows(fresh.site, two)
                assert facts(one) == facts(two)
                assert one.table.match is not None
                assert two.table.match is not None
                assert one.table.match.separation_deg == two.table.match.separation_deg


def spread(ids: range, **words: Any) -> dict[str, Any]:
    """Rows of a director that all have a position."""
    found = places(ids, **words)
    return {**found, "ra": np.nan_to_num(found["ra"], nan=77.0)}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def is_local(text: str) -> bool:
    return "gathered because" not in text


CHANGES = {
    "moves": lambda world, side: world.put(side, "sky", places(range(COUNT), seed=5), allow_orphans=True),
    "loses": lambda world, side: world.put(side, "sky", places(range(40), shift=0.0), allow_orphans=True),
    "gains": lambda world, side: world.put(side, "more", places(range(COUNT, COUNT + 20))),
}


CASES = [("moves", "star"), ("loses", "obj"), ("gains", "star")]
SLOW = [("moves", "obj"), ("loses", "star"), ("gains", "obj")]


@pytest.mark.parametrize(("change", "side"), [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)])
def test_answers_stay_true_and_a_refresh_makes_them_local_again(world: World, change: str, side: str) -> None:
    if (change, side) == CASES[0]:
        assert all(is_local(text) for text in world.check().values())
    CHANGES[change](world, side)
    own = DIRECTORS[side].partition(".")[0]
    for (pair, joined), text in world.check().items():
        # Match tables of the director's own catalogue have followed it.
        is_stale = not pair.startswith(own)
        assert is_local(text) == (joined != side or not is_stale), text
        assert (f"qengine refresh {pair.replace('.', ' ')} " in text) == is_stale, text
    for catalog in ("dp", "ext", "mix"):
        refresh(catalog, (), world.site.registry, world.site.store, allow_orphans=True)
    assert all(is_local(text) for text in world.check().values())
    world.check_fresh()


def test_a_refresh_asks_before_pairs_lose_a_director(world: World) -> None:
    CHANGES["loses"](world, "obj")
    site = world.site
    with pytest.raises(ConflictError, match=r"of mix\.pair would lose their director"):
        refresh("mix", (), site.registry, site.store)
    assert [one.state.value for one in site.registry.loads()].count("open") == 0
    assert len(refresh("mix", ("PAIR",), site.registry, site.store, allow_orphans=True)) == 1
    number = site.registry.snapshot_number("mix")
    assert refresh("mix", (), site.registry, site.store) == (), "nothing has changed since"
    assert site.registry.snapshot_number("mix") == number
    with pytest.raises(ConfigError, match=r"no match table dp\.obj"):
        refresh("dp", ("obj",), site.registry, site.store)


@pytest.mark.slow
def test_pairs_are_placed_anew_when_their_table_is_changed(world: World) -> None:
    CHANGES["moves"](world, "star")
    world.put_pairs("dp.pair", "b", pairs(1000, [1, 2], [3, 4]))
    CHANGES["gains"](world, "obj")  # ext.pair and mix.pair still wait for it
    texts = world.check()
    assert all(is_local(texts["dp.pair", side]) for side in DIRECTORS)
    CHANGES["gains"](world, "star")
    world.put("obj", "sky", places(range(COUNT), seed=7), allow_orphans=True)  # takes dp.pair with it
    texts = world.check()
    assert all(is_local(texts["dp.pair", side]) for side in DIRECTORS)
    for catalog in ("ext", "mix"):
        refresh(catalog, (), world.site.registry, world.site.store, allow_orphans=True)
    world.check_fresh()


def test_snapshots_of_directors_that_the_pairs_do_not_know(world: World) -> None:
    """The match table at its latest snapshot, a director at an older one, and the other way round."""
    before = dict(world.given)
    CHANGES["moves"](world, "star")
    for catalog in ("dp", "mix"):
        refresh(catalog, (), world.site.registry, world.site.store)
    after, world.given = world.given, before
    assert not is_local(world.check(snapshots={"ext": 2})["dp.pair", "star"])
    world.check(tables={"ext.star": "ext.star AT (VERSION => 2)"})
    world.given = after
    world.check(snapshots={"mix": 1})
    world.check(tables={"dp.pair": "dp.pair AT (VERSION => 2)", "mix.pair": "mix.pair AT (VERSION => 1)"})
