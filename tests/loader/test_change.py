"""Tables that change: appended to, replaced, merged by key; after each step they are what a model in Python says."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qengine.catalog.model import HEALPIX, TableKind
from qengine.errors import ConflictError, DuplicateKeyError
from qengine.loader.once import compact
from qengine.loader.request import LoadReport, LoadRequest, OnDuplicate
from qengine.loader.sources.open import InputOptions
from qengine.loader.transaction import Transaction
from qengine.sky.cells import LINE_END, beyond_cell
from qengine.sky.healpix import cells_of
from qengine.storage.keyindex import KeyReader
from tests.loader.stores import Site

Row = tuple[float, float, float]
MARGIN_DEG = 10 / 3600
CHILD: dict[str, Any] = {"table": "src", "kind": TableKind.CHILD, "director": "obj", "director_key": "oid", "key": "sid"}


class Model:
    """What a director and its children must hold: rows by label of their input."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.objects: dict[str, dict[int, Row]] = {}
        self.sources: dict[str, dict[int, int]] = {}
        self.files = 0

    def rows(self, ids: list[int], seed: int) -> dict[int, Row]:
        rng = np.random.default_rng(seed)
        ra = np.where(rng.random(len(ids)) < 0.7, 100 + rng.normal(0, 0.01, len(ids)), rng.uniform(0, 360, len(ids)))
        dec = np.where(ra < 101, rng.normal(41.81, 0.01, len(ids)), rng.uniform(-80, 80, len(ids)))
        mag = rng.integers(10, 20, len(ids))
        return {i: (float(ra[n]), float(dec[n]), float(mag[n])) for n, i in enumerate(ids)}

    def load(self, label: str, columns: dict[str, Any], **words: Any) -> LoadReport:
        self.files += 1
        path = self.site.write(f"{self.files}.parquet", columns)
        return self.site.load(path, options=InputOptions(label=label), rows_per_tile=12, allow_orphans=True, **words)

    def put_objects(self, label: str, rows: dict[int, Row], *, on_duplicate: OnDuplicate = OnDuplicate.ERROR) -> LoadReport:
        made = self.load(label, object_columns(rows), key="id", on_duplicate=on_duplicate)
        self.objects[label] = rows
        if on_duplicate is OnDuplicate.REPLACE:
            for other, held in self.objects.items():
                if other != label:
                    self.objects[other] = {i: row for i, row in held.items() if i not in rows}
        return made

    def put_sources(self, label: str, rows: dict[int, int]) -> LoadReport:
        made = self.load(
            label, {"sid": pa.array(list(rows), pa.int64()), "oid": pa.array(list(rows.values()), pa.int64())}, **CHILD
        )
        self.sources[label] = rows
        return made

    def check(self) -> None:
        objects = {i: row for held in self.objects.values() for i, row in held.items()}
        snapshot = self.site.snapshot()
        everything = [self.site.read(parts) for parts in (snapshot.home, snapshot.orphan) if len(parts)]
        found = pa.concat_tables(everything) if everything else pa.table({"id": [], "ra": [], "dec": [], "mag": []})
        assert sorted(zip(*(found[name].to_pylist() for name in ("id", "ra", "dec", "mag")), strict=True)) == sorted(
            (i, *row) for i, row in objects.items()
        )
        check_ranges(snapshot.home)
        self.check_margins(objects)
        wanted = list(range(60))
        cells = KeyReader(self.site.store).cells(snapshot.key_index, wanted)
        place = {i: int(cells_of(np.array([row[0]]), np.array([row[1]]))[0]) for i, row in objects.items()}
        expected = [place[i] if i in place else int(beyond_cell(pa.array([i]))[0]) for i in wanted]
        assert cells.tolist() == expected
        assert snapshot.key_index is not None
        assert snapshot.key_index.rows == len(objects)
        if self.sources:
            self.check_sources(objects, expected)

    def check_sources(self, objects: dict[int, Row], cells: list[int]) -> None:
        snapshot = self.site.snapshot("src")
        tables = [self.site.read(parts) for parts in (snapshot.home, snapshot.orphan) if len(parts)]
        held = {s: o for rows in self.sources.values() for s, o in rows.items()}
        check_ranges(snapshot.home)
        check_ranges(snapshot.orphan)
        names = ("sid", "oid", HEALPIX, "_director_ra", "_director_dec")
        found = sorted(row for table in tables for row in zip(*(table[name].to_pylist() for name in names), strict=True))
        nowhere = (None, None, None)
        assert found == sorted((s, o, cells[o], *objects.get(o, nowhere)[:2]) for s, o in held.items())

    def check_margins(self, objects: dict[int, Row]) -> None:
        snapshot = self.site.snapshot()
        ids = np.array(list(objects), np.int64)
        if not len(ids):
            assert not len(snapshot.margin)
            return
        ra, dec = (np.array([row[n] for row in objects.values()]) for n in (0, 1))
        cells = cells_of(ra, dec)
        points = vectors(ra, dec)
        is_near = np.linalg.norm(points[:, np.newaxis] - points, axis=2) < 2 * np.sin(np.radians(MARGIN_DEG) / 2)
        held: dict[int, list[int]] = {}
        for start, uri in zip(snapshot.margin.start.tolist(), snapshot.margin.uri.to_pylist(), strict=True):
            held.setdefault(start, []).extend(self.site.read_one(uri)["id"].to_pylist())
        assert held.keys() <= set(snapshot.home.start.tolist())
        for start, stop in {(int(a), int(b)) for a, b in zip(snapshot.home.start, snapshot.home.stop, strict=True)}:
            inside = (cells >= start) & (cells < stop)
            needed = set(ids[~inside & is_near[inside].any(axis=0)].tolist())
            copies = held.get(start, [])
            assert len(copies) == len(set(copies))
            assert needed <= set(copies) <= set(ids[~inside].tolist())


def object_columns(rows: dict[int, Row]) -> dict[str, Any]:
    values = np.array(list(rows.values()), np.float64).reshape(-1, 3)
    return {"id": pa.array(list(rows), pa.int64()), "ra": values[:, 0], "dec": values[:, 1], "mag": values[:, 2]}


def vectors(ra: np.ndarray[Any, Any], dec: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    a, d = np.radians(ra), np.radians(dec)
    return np.column_stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])


def check_ranges(parts: Any) -> None:
    pairs = sorted({(int(a), int(b)) for a, b in zip(parts.start, parts.stop, strict=True)})
    assert all(one[1] <= two[0] for one, two in pairwise(pairs))
    assert (parts.lowest >= parts.start).all()
    assert (parts.highest < parts.stop).all()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "again", "merge", "child", "child again", "compact"]), st.integers(0, 2), st.integers(0, 10_000)
        ),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_sequence_of_loads_is_what_a_model_says(steps: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = Model(Site(Path(folder)))
        model.put_objects("0", model.rows(list(range(20)), 1))
        model.put_sources("0", {s: s % 30 for s in range(90)})
        model.check()
        next_id, next_source = 20, 90
        for number, (what, which, seed) in enumerate(steps):
            rng = np.random.default_rng(seed)
            label = str(which % max(1, len(model.objects)))
            if what == "add":
                ids = list(range(next_id, min(60, next_id + int(rng.integers(1, 12)))))
                next_id += len(ids)
                model.put_objects(f"n{number}", model.rows(ids, seed))
            elif what == "again":
                label = list(model.objects)[which % len(model.objects)]
                kept = [i for i in model.objects[label] if rng.random() < 0.7]
                model.put_objects(label, {**model.rows(kept, seed)})
            elif what == "merge":
                ids = sorted(set(rng.integers(0, next_id, 8).tolist()))
                model.put_objects(f"m{number}", model.rows(ids, seed), on_duplicate=OnDuplicate.REPLACE)
            elif what == "compact":
                compact("demo", [], model.site.registry, model.site.store)
                assert all(
                    len(np.unique(one.start)) == len(one) for one in (model.site.snapshot().home, model.site.snapshot("src").home)
                )
            elif what == "child":
                rows = {next_source + n: int(rng.integers(0, 60)) for n in range(20)}
                next_source += 20
                model.put_sources(f"c{number}", rows)
            else:
                label = list(model.sources)[which % len(model.sources)]
                model.put_sources(label, {s: int(rng.integers(0, 60)) for s in model.sources[label] if rng.random() < 0.8})
            model.check()


def test_parts_that_nothing_touches_stay(site: Site) -> None:
    rng = np.random.default_rng(1)
    north = {"id": np.arange(500), "ra": rng.uniform(0, 360, 500), "dec": rng.uniform(10, 80, 500)}
    south = {"id": np.arange(500, 600), "ra": rng.uniform(40, 42, 100), "dec": rng.uniform(-42, -40, 100)}
    site.load(site.write("north.parquet", north), key="id")
    before = site.snapshot()
    report = site.load(site.write("south.parquet", south), key="id")
    after = site.snapshot()
    assert report.stored == 100
    assert set(before.home.uri.to_pylist()) < set(after.home.uri.to_pylist())
    assert set(before.margin.uri.to_pylist()) <= set(after.margin.uri.to_pylist())
    assert after.rows == 600


def test_keys_that_are_there(site: Site) -> None:
    rows = {"id": np.arange(50), "ra": np.linspace(0, 300, 50), "dec": np.linspace(-50, 50, 50), "mag": np.arange(50.0)}
    site.load(site.write("a.parquet", rows), key="id")
    new = {name: np.concatenate([values[40:], values[40:] + 50]) for name, values in rows.items()}
    new["ra"], new["dec"] = (
        np.concatenate([rows["ra"][40:], np.linspace(1, 9, 10)]),
        np.concatenate([rows["dec"][40:], np.zeros(10)]),
    )
    path = site.write("b.parquet", new)
    with pytest.raises(DuplicateKeyError, match="10 keys are there already"):
        site.load(path, key="id")
    assert site.snapshot().rows == 50
    report = site.load(path, key="id", on_duplicate=OnDuplicate.SKIP_IDENTICAL)
    assert (report.read, report.stored, report.skipped) == (20, 10, 10)
    new["mag"] = new["mag"] + 1
    other = site.write("c.parquet", new)
    with pytest.raises(DuplicateKeyError, match="another value of mag"):
        site.load(other, key="id", on_duplicate=OnDuplicate.SKIP_IDENTICAL)
    site.load(other, key="id", on_duplicate=OnDuplicate.REPLACE)
    snapshot = site.snapshot()
    found = site.read(snapshot.home)
    assert snapshot.rows == 60
    assert pc.sum(found["mag"]).as_py() == rows["mag"][:40].sum() + new["mag"].sum()
    record = next(one for one in site.registry.inputs("demo") if one.label == str(path))
    assert (record.rows_read, record.rows_stored, record.rows_skipped) == (20, 10, 10)


def test_children_that_lose_their_director_are_refused_unless_allowed(site: Site) -> None:
    model = Model(site)
    model.put_objects("a", model.rows(list(range(20)), 1))
    model.put_sources("s", {s: s % 20 for s in range(60)})
    fewer = site.write("fewer.parquet", object_columns(model.rows(list(range(10)), 2)))
    before = site.registry.snapshot_number("demo")
    with pytest.raises(ConflictError, match="would lose their director"):
        site.load(fewer, key="id", options=InputOptions(label="a"))
    assert site.registry.snapshot_number("demo") == before
    model.check()
    model.put_objects("a", model.rows(list(range(10)), 2))
    model.check()
    assert (site.read(site.snapshot("src").orphan)[HEALPIX].to_numpy() >= LINE_END).all()


def test_director_and_children_are_replaced_together(site: Site) -> None:
    model = Model(site)
    model.put_objects("t1", model.rows(list(range(30)), 1))
    model.put_sources("t1", {s: s % 30 for s in range(90)})
    objects, sources = model.rows(list(range(15, 45)), 5), {s: 15 + s % 30 for s in range(30, 120)}
    transaction = Transaction.begin("demo", site.registry, site.store)
    path = site.write("new.parquet", object_columns(objects))
    transaction.contribute(LoadRequest(inputs=(path,), catalog="demo", table="obj", key="id", options=InputOptions(label="t1")))
    path = site.write("news.parquet", {"sid": list(sources), "oid": list(sources.values())})
    transaction.contribute(LoadRequest(inputs=(path,), catalog="demo", options=InputOptions(label="t1"), **CHILD))
    transaction.commit()
    model.objects["t1"], model.sources["t1"] = objects, sources
    model.check()


def test_rows_that_a_filter_leaves_out_are_counted(site: Site) -> None:
    rows = {"id": np.arange(50), "ra": np.linspace(0, 300, 50), "dec": np.linspace(-50, 50, 50), "mag": np.arange(50.0)}
    report = site.load(site.write("a.parquet", rows), key="id", filter="mag < 20 AND id <> 3")
    assert (report.read, report.stored, report.filtered) == (50, 19, 31)
    record = site.registry.inputs("demo")[0]
    assert (record.rows_read, record.rows_stored, record.rows_filtered) == (50, 19, 31)


def test_replicated_tables_grow(site: Site) -> None:
    words = {"table": "small", "kind": TableKind.REPLICATED}
    site.load(site.write("a.parquet", {"n": [1, 2, 3]}), options=InputOptions(label="a"), **words)
    site.load(site.write("b.parquet", {"n": [4]}), **words)
    site.load(site.write("c.parquet", {"n": [5, 6]}), options=InputOptions(label="a"), **words)
    assert sorted(site.read(site.snapshot("small").home)["n"].to_pylist()) == [4, 5, 6]


def test_ranges_that_grow_are_written_anew(site: Site) -> None:
    model = Model(site)
    for step in range(12):
        model.put_objects(str(step), model.rows(list(range(5 * step, 5 * step + 5)), step))
        home = site.snapshot().home
        _, counts = np.unique(home.start, return_counts=True)
        assert counts.max() <= 8
    model.check()
    compact("demo", ["obj"], site.registry, site.store)
    model.check()
    after = site.snapshot().home
    assert len(np.unique(after.start)) == len(after)
    compact("demo", ["obj"], site.registry, site.store)
    assert site.snapshot().home.uri.to_pylist() == after.uri.to_pylist()
