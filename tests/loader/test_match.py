"""A match table lies by both of its directors, each pair once in each layout, and knows how far its pairs are apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from qengine.catalog.model import HEALPIX, LAYOUT, TableKind, TableSnapshot
from qengine.catalog.registry import Registry
from qengine.errors import ConfigError, ConflictError, DuplicateKeyError
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.sky.cells import LINE_END, beyond_cell
from tests.loader.stores import Site, sky

MATCH: dict[str, Any] = {"table": "pair", "kind": TableKind.MATCH, "left": "obj.oid", "right": "star.sid"}
SHIFT_DEG = 0.0003


def directors(site: Site) -> tuple[dict[str, Any], dict[str, Any]]:
    """Load `obj` and `star`, which are the same places a little to the north."""
    objects = sky(400)
    count = len(objects["id"])
    stars = {"id": [f"s{i}" for i in range(count)], "ra": objects["ra"], "dec": np.clip(objects["dec"] + SHIFT_DEG, -90, 90)}
    site.load(site.write("obj.parquet", objects), key="id")
    site.load(site.write("star.parquet", stars), table="star", key="id")
    return objects, stars


def pairs(objects: dict[str, Any], stars: dict[str, Any], *, extra: tuple[tuple[int | None, str | None], ...] = ()) -> pa.Table:
    found = [(int(k), stars["id"][i]) for i, k in enumerate(objects["id"].tolist()) for _ in range(i % 3)]
    found += extra
    return pa.table(
        {
            "oid": pa.array([p[0] for p in found], pa.int64()),
            "sid": pa.array([p[1] for p in found], pa.string()),
            "number": pa.array(range(len(found)), pa.int64()),
        }
    )


def rows_of(site: Site, snapshot: TableSnapshot) -> pa.Table:
    return pa.concat_tables([site.read(parts) for parts in (snapshot.home, snapshot.orphan) if len(parts)])


def test_each_layout_has_every_pair_once_where_its_director_lies(site: Site) -> None:
    objects, stars = directors(site)
    given = pairs(objects, stars, extra=((None, "s1"), (10**9, "s2"), (int(objects["id"][3]), "nobody"), (None, None)))
    report = site.load(site.write("pair.parquet", given), **MATCH)
    left = site.snapshot("pair")
    right = left.other
    assert right is not None
    assert report.stored == left.rows == right.rows == given.num_rows
    for layout, director, key in ((left, "obj", "oid"), (right, "star", "sid")):
        assert layout.table.kind is TableKind.MATCH
        assert layout.table.family == f"demo.{director}"
        assert layout.table.locality_key == layout.table.director_key == key
        rows = rows_of(site, layout)
        assert sorted(rows["number"].to_pylist()) == list(range(given.num_rows))
        kin = site.snapshot(director)
        cells = rows_of(site, kin)
        cell_of = dict(zip(cells["id"].to_pylist(), cells[HEALPIX].to_pylist(), strict=True))
        lost = beyond_cell(rows[key].combine_chunks())
        expected = [cell_of.get(k, int(lost[i])) for i, k in enumerate(rows[key].to_pylist())]
        assert rows[HEALPIX].to_pylist() == expected


def test_the_separation_is_the_largest_of_pairs_with_two_places(site: Site) -> None:
    objects, stars = directors(site)
    report = site.load(site.write("pair.parquet", pairs(objects, stars)), **MATCH)
    left = site.snapshot("pair")
    assert left.table.match is not None
    assert left.other is not None
    assert left.other.table.match is not None
    assert SHIFT_DEG <= left.table.match.separation_deg < SHIFT_DEG + 1e-6
    assert left.other.table.match.separation_deg == left.table.match.separation_deg
    assert report.separation_arcsec == pytest.approx(SHIFT_DEG * 3600, abs=0.01)
    assert "apart" in report.to_text()
    assert (left.table.match.strays, left.table.match.orphans, left.other.table.match.orphans) == (0, 0, 0)
    assert (left.table.match.family, left.table.match.key) == ("demo.star", "sid")
    assert (left.other.table.match.family, left.other.table.match.key) == ("demo.obj", "oid")


def test_pairs_without_two_places_are_counted(site: Site) -> None:
    objects, stars = sky(300), sky(300, seed=2)
    objects["ra"][5] = np.nan
    stars["id"] = [f"s{i}" for i in range(len(stars["ra"]))]
    site.load(site.write("obj.parquet", objects), key="id")
    site.load(site.write("star.parquet", stars), table="star", key="id")
    known, lost = int(objects["id"][7]), int(objects["id"][5])
    given = [(known, "s7"), (lost, "s5"), (None, "s6"), (10**9, "s8"), (known, "nobody"), (None, None)]
    columns = {"oid": pa.array([g[0] for g in given], pa.int64()), "sid": pa.array([g[1] for g in given], pa.string())}
    site.load(site.write("pair.parquet", columns), **MATCH)
    left = site.snapshot("pair")
    assert left.other is not None
    assert left.table.match is not None
    assert left.other.table.match is not None
    assert left.table.match.strays == left.other.table.match.strays == 1
    assert left.table.match.orphans == 2, "s6 and s8 are known, and their partners are not"
    assert left.other.table.match.orphans == 1
    assert (rows_of(site, left)[HEALPIX].to_numpy() >= LINE_END).sum() == 4


def test_users_see_one_table(site: Site) -> None:
    objects, stars = directors(site)
    site.load(site.write("pair.parquet", pairs(objects, stars)), **MATCH)
    assert [t.table.name for t in site.registry.catalog() if t.table.schema == "demo"] == ["obj", "pair", "star"]
    assert sorted(t.name for t in site.registry.definitions()) == ["obj", "pair", "star"]
    assert site.registry.rebuild() == 3
    with Registry.open(site.store.root) as again:
        found = again.catalog().find("demo", "pair")
        assert found is not None
        assert found.other is not None
        assert found.other.table.name == "pair" + LAYOUT


def test_a_third_table_carries_both_layouts_over(site: Site) -> None:
    objects, stars = directors(site)
    site.load(site.write("pair.parquet", pairs(objects, stars)), **MATCH)
    site.load(site.write("band.parquet", {"band": ["u", "g"]}), table="band", kind=TableKind.REPLICATED)
    found = site.snapshot("pair")
    assert found.other is not None
    assert found.number == found.other.number


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"left": "obj"}, "--left TABLE.COLUMN"),
        ({"right": ""}, "--right TABLE.COLUMN"),
        ({"left": "obj.nothing"}, "no such column"),
        ({"left": "nothing.oid"}, "not a director"),
        ({"right": "star.oid"}, "both sides"),
    ],
)
def test_what_is_no_match_is_refused(site: Site, words: dict[str, str], message: str) -> None:
    objects, stars = directors(site)
    before = site.files()
    with pytest.raises(ConfigError, match=message):
        site.load(site.write("pair.parquet", pairs(objects, stars)), **(MATCH | words))
    assert {f for f in site.files() if "/parts/" in f} == {f for f in before if "/parts/" in f}


def test_keys_of_the_wrong_kind_leave_nothing(site: Site) -> None:
    objects, stars = directors(site)
    given = pairs(objects, stars)
    wrong = given.set_column(1, "sid", pa.array(range(given.num_rows), pa.int64()))
    with pytest.raises(Exception, match="same type"):
        site.load(site.write("pair.parquet", wrong), **MATCH)
    assert site.registry.catalog().find("demo", "pair") is None
    site.load(site.write("pair.parquet", given), **MATCH)
    assert site.snapshot("pair").other is not None


def test_keys_of_a_director_with_pairs_cannot_come_twice(site: Site) -> None:
    objects, stars = directors(site)
    site.load(site.write("pair.parquet", pairs(objects, stars)), **MATCH)
    with pytest.raises(DuplicateKeyError, match="are there already"):
        site.load(site.write("obj2.parquet", sky(100)), key="id")


@pytest.mark.parametrize("stage", ["locate", "read"])
def test_a_load_that_ends_between_its_layouts_shows_neither(site: Site, stage: str) -> None:
    objects, stars = directors(site)
    path = site.write("pair.parquet", pairs(objects, stars))
    seen: list[str] = []

    def unplugged(found: str, done: int, total: int) -> None:
        if found == stage and done >= total:
            seen.append(found)
            if len(seen) == 2:
                raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        load(LoadRequest(inputs=(path,), catalog="demo", rows_per_tile=50, **MATCH), site.registry, site.store, progress=unplugged)
    assert site.registry.catalog().find("demo", "pair") is None
    assert not [f for f in site.files() if "/pair/tmp-" in f]
    report = site.load(path, **MATCH)
    assert report.stored == site.snapshot("pair").rows


def test_pairs_do_not_lose_their_directors_silently(site: Site) -> None:
    objects, stars = directors(site)
    site.load(site.write("pair.parquet", pairs(objects, stars)), **MATCH)
    before = site.snapshot("pair")
    kept = {name: values[:-40] for name, values in objects.items()}
    with pytest.raises(ConflictError, match=r"rows or more of demo\.pair would lose their director"):
        site.load(site.write("obj.parquet", kept), key="id")
    assert site.snapshot("pair").rows == before.rows
    site.load(site.write("obj.parquet", kept), key="id", allow_orphans=True)
    after = site.snapshot("pair")
    assert after.rows == before.rows
    assert after.table.match is not None
    assert after.table.match.orphans > (before.table.match.orphans if before.table.match else 0)
