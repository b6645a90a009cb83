"""Tables that are there already: append, replace, upsert, children that follow, compaction; always as a fresh load would have it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import qengine
from qengine.catalog.model import HIDDEN_COLUMNS, TableSnapshot
from qengine.errors import ConfigError, ConflictError, DuplicateKeyError
from qengine.loader.request import LoadReport, OnDuplicate
from qengine.loader.sources.open import InputOptions
from qengine.sky.cells import LINE_END, RangeSet
from qengine.sky.healpix import cells_of
from tests.loader.stores import Site

CHILD = {"table": "src", "kind": "child", "director": "obj", "director_key": "oid", "key": ""}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def put(site: Site, label: str, columns: Mapping[str, Any], **words: Any) -> LoadReport:
    """Load columns as the input of this label."""
    path = site.write(f"{label}.parquet", dict(columns))
    return site.load(path, **{"key": "id", "options": InputOptions(label=label), **words})


def some(ids: range, *, seed: int = 0, near: tuple[float, float] | None = None) -> dict[str, Any]:
    """Objects of these ids: all over the sky, or near a place."""
    rng = np.random.default_rng([seed, ids.start])
    count = len(ids)
    ra, dec = rng.uniform(0, 360, count), np.degrees(np.arcsin(rng.uniform(-1, 1, count)))
    if near is not None:
        ra, dec = near[0] + rng.normal(0, 0.02, count), near[1] + rng.normal(0, 0.02, count)
    return {"id": np.array(ids, np.int64), "ra": np.mod(ra, 360), "dec": dec, "mag": rng.integers(10, 25, count).astype(np.float32)}


def children(ids: range, *, first: int, per: int = 3, seed: int = 0) -> dict[str, Any]:
    oid = np.repeat(np.array(ids, np.int64), per)
    rng = np.random.default_rng([seed, first])
    return {"oid": oid, "sid": np.arange(first, first + len(oid)), "flux": rng.random(len(oid))}


def rows(snapshot: TableSnapshot, site: Site) -> list[dict[str, Any]]:
    """All rows without what is hidden, sorted."""
    tables = [site.read(parts) for parts in (snapshot.home, snapshot.orphan) if len(parts)]
    if not tables:
        return []
    names = [name for name in tables[0].column_names if name not in HIDDEN_COLUMNS and not name.startswith("_director")]
    table = pa.concat_tables([one.select(names) for one in tables])
    return sorted(table.to_pylist(), key=lambda row: str(sorted(row.items())))


def expected(*inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    tables = [pa.table(dict(one)) for one in inputs]
    return sorted(pa.concat_tables(tables).to_pylist(), key=lambda row: str(sorted(row.items()))) if tables else []


def check(site: Site, objects: list[Mapping[str, Any]], sources: list[Mapping[str, Any]] | None = None) -> None:
    """The store holds just these rows, each where it belongs, and answers as one DuckDB would."""
    found = site.snapshot()
    assert rows(found, site) == expected(*objects)
    _check_ranges(found, site)
    _check_margins(found, site)
    keys = [key for one in objects for key in np.asarray(one["id"]).tolist()]
    assert found.key_index is not None
    assert found.key_index.rows == len(keys)
    with qengine.connect(site.store.root) as client:
        assert client.query("SELECT COUNT(*) AS n, MAX(id) AS m FROM demo.obj").to_arrow().to_pylist() == [
            {"n": len(keys), "m": max(keys, default=None)}
        ]
        for key in keys[:: max(1, len(keys) // 3)]:
            assert client.query(f"SELECT id FROM demo.obj WHERE id = {key}").to_arrow().num_rows == 1
        if sources is not None:
            child = site.snapshot("src")
            assert rows(child, site) == expected(*sources)
            _check_ranges(child, site)
            joined = sum(int(np.isin(np.asarray(one["oid"]), keys).sum()) for one in sources)
            text = "SELECT COUNT(*) AS n FROM demo.obj o JOIN demo.src s ON s.oid = o.id"
            assert client.query(text).to_arrow().to_pylist() == [{"n": joined}]


def _check_ranges(found: TableSnapshot, site: Site) -> None:
    for parts in (found.home, found.orphan):
        ranges = sorted(set(zip(parts.start.tolist(), parts.stop.tolist(), strict=True)))
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(ranges))
        for i in range(len(parts)):
            cells = site.read(_only(parts, i)).column("_healpix_29").to_numpy()
            assert (np.diff(cells) >= 0).all()
            assert parts.start[i] <= cells[0]
            assert cells[-1] < parts.stop[i]
            assert (parts.rows[i], parts.lowest[i], parts.highest[i]) == (len(cells), cells[0], cells[-1])
    table = site.read(found.home) if len(found.home) else None
    if table is not None and "ra" in table.column_names:
        assert (table["_healpix_29"].to_numpy() == cells_of(table["ra"].to_numpy(), table["dec"].to_numpy())).all()


def _only(parts: Any, i: int) -> Any:
    from qengine.catalog.joining import take_parts

    return take_parts(parts, np.array([i]))


def _check_margins(found: TableSnapshot, site: Site) -> None:
    """Every row within the radius of a tile is in its margin, none twice, and none that is not in the table."""
    if not len(found.home):
        return
    home = site.read(found.home)
    ids, cells = home["id"].to_numpy(), home["_healpix_29"].to_numpy()
    held: dict[tuple[int, int], list[int]] = {}
    for i in range(len(found.margin)):
        tile = int(found.margin.start[i]), int(found.margin.stop[i])
        held.setdefault(tile, []).extend(site.read(_only(found.margin, i))["id"].to_pylist())
    tiles = set(zip(found.home.start.tolist(), found.home.stop.tolist(), strict=True))
    assert set(held) <= tiles
    by_cell = dict(zip(ids.tolist(), cells.tolist(), strict=True))
    from qengine.sky.coverage import ring

    for start, stop in tiles:
        mine = held.get((start, stop), [])
        assert len(set(mine)) == len(mine)
        around = ring(RangeSet.from_ranges(np.array([start]), np.array([stop])), found.margin_arcsec / 3600)
        needed = set(ids[around.contains(cells)].tolist())
        assert set(mine) == needed, (start, stop)
        assert all(not start <= by_cell[one] < stop for one in mine)


def test_appending(site: Site) -> None:
    first, second, third = some(range(300)), some(range(300, 500)), some(range(500, 520), near=(10.0, 20.0))
    put(site, "a", first)
    before = set(site.snapshot().home.uri.to_pylist())
    report = put(site, "b", second)
    assert (report.read, report.stored) == (200, 200)
    check(site, [first, second])
    assert before <= set(site.snapshot().home.uri.to_pylist())
    put(site, "c", third)
    check(site, [first, second, third])
    again = put(site, "c", third)
    assert again.skipped_inputs == 1
    check(site, [first, second, third])


def test_appending_where_nothing_was(site: Site) -> None:
    first = some(range(200), near=(10.0, 20.0))
    put(site, "a", first)
    second = some(range(200, 400), near=(200.0, -70.0))
    put(site, "b", second)
    third = some(range(400, 600))
    put(site, "c", third)
    check(site, [first, second, third])


def test_rows_without_a_position(site: Site) -> None:
    first, second = some(range(100)), some(range(100, 200))
    for one in (first, second):
        one["ra"] = [None if i % 10 == 0 else float(v) for i, v in enumerate(one["ra"])]
    put(site, "a", first)
    put(site, "b", second)
    assert (site.snapshot().orphan.start >= LINE_END).all()
    assert rows(site.snapshot(), site) == expected(first, second)


def test_replacing_an_input(site: Site) -> None:
    first, old, new = some(range(300)), some(range(300, 400), near=(50, 0)), some(range(320, 450), seed=7, near=(50, 0.05))
    put(site, "a", first)
    put(site, "tract", old)
    untouched = set(site.snapshot().home.uri.to_pylist())
    report = put(site, "tract", new)
    assert (report.replaced_inputs, report.removed, report.stored) == (1, 100, 130)
    check(site, [first, new])
    assert len(untouched & set(site.snapshot().home.uri.to_pylist())) > 3
    put(site, "tract", some(range(0)) | {"id": np.array([], np.int64)})
    check(site, [first])


def test_keys_that_are_there(site: Site) -> None:
    first = some(range(200))
    put(site, "a", first)
    moved = some(range(150, 250), seed=3)
    with pytest.raises(DuplicateKeyError, match="50 keys are there already, such as 150, 151"):
        put(site, "b", moved)
    check(site, [first])
    report = put(site, "b", moved, on_duplicate=OnDuplicate.REPLACE)
    assert (report.removed, report.stored) == (50, 100)
    kept = {name: values[:150] for name, values in first.items()}
    check(site, [kept, moved])


def test_equal_rows_are_left_out(site: Site) -> None:
    first = some(range(200))
    put(site, "a", first)
    more = some(range(200, 220))
    mixed = {name: np.concatenate([first[name][100:120], more[name]]) for name in first}
    report = put(site, "b", mixed, on_duplicate=OnDuplicate.SKIP_IDENTICAL)
    assert (report.skipped, report.stored) == (20, 20)
    check(site, [first, more])
    mixed["mag"] = mixed["mag"] + 1
    mixed["id"] = mixed["id"] + 0
    with pytest.raises(DuplicateKeyError, match="key 100 is there already, with another value of mag"):
        put(site, "c", mixed, on_duplicate=OnDuplicate.SKIP_IDENTICAL)
    check(site, [first, more])


def test_only_keys_that_are_indexed_are_compared(site: Site) -> None:
    put(site, "o", some(range(100)))
    with pytest.raises(ConfigError, match="no index of unique keys"):
        put(site, "s", children(range(10), first=0), **CHILD, on_duplicate=OnDuplicate.REPLACE)


def test_a_filter(site: Site) -> None:
    first = some(range(300))
    report = put(site, "a", first, filter="mag < 20 AND id >= 10")
    keep = (first["mag"] < 20) & (first["id"] >= 10)
    assert (report.read, report.filtered, report.stored) == (300, int((~keep).sum()), int(keep.sum()))
    check(site, [{name: values[keep] for name, values in first.items()}])


def test_children_are_appended(site: Site) -> None:
    objects, one, two = some(range(100)), children(range(60), first=0), children(range(30, 100), first=1000)
    put(site, "o", objects)
    put(site, "s", one, **CHILD)
    put(site, "t", two, **CHILD)
    check(site, [objects], [one, two])


def test_orphans_find_their_directors(site: Site) -> None:
    first, later = some(range(100)), some(range(100, 200))
    source = children(range(50, 150), first=0)
    put(site, "o", first)
    assert put(site, "s", source, **CHILD).without_director == 150
    assert len(site.snapshot("src").orphan)
    put(site, "p", later)
    check(site, [first, later], [source])
    assert not len(site.snapshot("src").orphan)


def test_children_follow_their_directors(site: Site) -> None:
    first, old = some(range(100)), some(range(100, 200), near=(50, 0))
    new = some(range(100, 200), seed=5, near=(50, 0.3))
    source = children(range(200), first=0)
    put(site, "o", first)
    put(site, "tract", old)
    put(site, "s", source, **CHILD)
    untouched = set(site.snapshot("src").home.uri.to_pylist())
    put(site, "tract", new)
    check(site, [first, new], [source])
    assert untouched & set(site.snapshot("src").home.uri.to_pylist())
    table = site.read(site.snapshot("src").home)
    place = dict(zip(np.concatenate([first["id"], new["id"]]).tolist(), np.concatenate([first["ra"], new["ra"]]), strict=True))
    assert table["_director_ra"].to_pylist() == [place[one] for one in table["oid"].to_pylist()]


def test_directors_that_go_leave_no_orphans_unless_that_is_allowed(site: Site) -> None:
    first, old, new = some(range(100)), some(range(100, 200), near=(50, 0)), some(range(150, 250), seed=5, near=(50, 0.3))
    source = children(range(200), first=0)
    put(site, "o", first)
    put(site, "tract", old)
    put(site, "s", source, **CHILD)
    with pytest.raises(ConflictError, match=r"demo\.src would lose their director, such as those of 1"):
        put(site, "tract", new)
    check(site, [first, old], [source])
    put(site, "tract", new, allow_orphans=True)
    check(site, [first, new], [source])
    assert int(site.snapshot("src").orphan.rows.sum()) == 150
    put(site, "back", {name: values[:50] for name, values in old.items()})
    check(site, [first, new, {name: values[:50] for name, values in old.items()}], [source])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_any_history_is_as_a_fresh_load(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    site = Site(tmp_path_factory.mktemp("history"))
    objects: dict[str, Mapping[str, Any]] = {"seed": some(range(40))}
    sources: dict[str, Mapping[str, Any]] = {"c": children(range(60), first=0)}
    put(site, "seed", objects["seed"])
    put(site, "c", sources["c"], **CHILD)
    for step in range(data.draw(st.integers(1, 4), label="steps")):
        label = data.draw(st.sampled_from(["a", "b", "seed"]), label="label")
        start = {"a": 40, "b": 100, "seed": 0}[label]
        count = data.draw(st.integers(0, 40), label="count")
        near = data.draw(st.sampled_from([None, (0.0, 41.8), (359.99, 90.0), (45.0, 0.0)]), label="near")
        near = near if near is None or near[1] < 89 else (near[0], 89.0)
        new = some(range(start, start + count), seed=step + 1, near=near)
        put(site, label, new, allow_orphans=True)
        objects[label] = new
        if data.draw(st.booleans(), label="child too"):
            name = data.draw(st.sampled_from(["c", "d"]), label="child")
            sources[name] = children(range(20, 20 + data.draw(st.integers(0, 80))), first=1000 * (step + 1), seed=step)
            put(site, name, sources[name], **CHILD)
        check(site, [one for one in objects.values() if len(one["id"])], [one for one in sources.values() if len(one["oid"])])
