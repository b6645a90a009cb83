"""A load is all or nothing, and what dead loads leave does no harm."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from qengine.catalog.model import TableKind
from qengine.catalog.registry import Registry
from qengine.errors import ConflictError, InputError
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.storage.hats import read_properties
from qengine.storage.objects import Store, sha256_file
from tests.loader.stores import Site, sky
from tests.support.postgres import ON_BOTH
from tests.unit.catalog.snapshots import snapshot


def test_parts_are_named_by_their_bytes_and_listed_with_their_numbers(site: Site) -> None:
    columns = sky(500)
    columns["ra"][0] = np.nan
    report = site.load(site.write("a.parquet", columns), key="id")
    snapshot = site.snapshot()
    total = 0
    for parts in (snapshot.home, snapshot.orphan, snapshot.margin):
        for i, uri in enumerate(parts.uri.to_pylist()):
            path = site.store.path(uri)
            digest = parts.digest[i].as_py()
            assert uri == f"demo/obj/parts/{digest[:2]}/{digest}.parquet"
            assert sha256_file(path) == digest
            assert path.stat().st_size == parts.bytes[i]
            assert pq.read_metadata(path).num_rows == parts.rows[i]
            total += int(parts.bytes[i])
    assert report.bytes == total
    assert report.parts == len(snapshot.home) + len(snapshot.orphan)
    assert {"id", "ra", "dec", "mag", "name"} <= set(snapshot.home.stats)
    assert snapshot.home.stats["mag"].is_known.all()


def test_hats_tree_links_to_the_parts_and_leaves_orphans_out(site: Site) -> None:
    columns = sky(500)
    columns["ra"][0] = np.nan
    site.load(site.write("a.parquet", columns), key="id")
    snapshot = site.snapshot()
    folder = site.store.root / "demo/obj"
    collection = read_properties(folder / "collection.properties")
    assert collection["hats_primary_table_url"] == "snapshots/1"
    assert collection["all_margins"] == collection["default_margin"] == "snapshots/1_10arcs"
    primary = folder / "snapshots/1"
    properties = read_properties(primary / "hats.properties")
    assert properties == read_properties(primary / "properties")
    assert int(properties["hats_nrows"]) == len(columns["id"]) - 1
    leaves = list((primary / "dataset").rglob("*.parquet"))
    assert len(leaves) == len(snapshot.home)
    inodes = {path.stat().st_ino for path in leaves}
    assert inodes == {site.store.path(uri).stat().st_ino for uri in snapshot.home.uri.to_pylist()}
    lines = (primary / "partition_info.csv").read_text().splitlines()
    assert lines[0].startswith("Norder,Npix")
    assert len(lines) == 1 + len(snapshot.home)


def failing(kind: str) -> dict[str, Any]:
    columns = sky(400)
    if kind == "key":
        columns["id"][5] = columns["id"][6]
    else:
        columns["ra"][300] = 361.0
    return columns


@ON_BOTH
@pytest.mark.parametrize("kind", ["key", "ra"])
def test_a_failed_load_leaves_the_catalogue_and_other_tables_as_they_were(site: Site, kind: str) -> None:
    site.load(site.write("good.parquet", sky(100)), key="id")
    before, files = site.registry.catalog(), site.files()
    path = site.write("bad.parquet", failing(kind))
    with pytest.raises((InputError, Exception)):
        site.load(path, key="id", table="other")
    assert site.registry.catalog() == before
    assert site.registry.snapshot_number("demo") == 1
    left = {name for name in site.files() - files if not name.endswith(".load.lock")}
    assert all(name.startswith(("demo/other/parts/", "demo/other/keys/")) for name in left)
    assert not list(site.store.root.glob("demo/other/snapshots/*"))

    site.load(site.write("fine.parquet", sky(60)), key="id", table="other")
    assert not {name for name in site.files() if name in left}


def _load_and_die(root: Path, url: str | None, path: Path, stage: str) -> None:
    registry = Registry.open(root, url=url)

    def progress(name: str, done: int, total: int) -> None:
        if name == stage:
            os.kill(os.getpid(), signal.SIGKILL)

    load(
        LoadRequest(inputs=(path,), catalog="demo", table="obj", key="id", rows_per_tile=50),
        registry,
        Store(root),
        progress=progress,
    )


@ON_BOTH
@pytest.mark.parametrize("stage", ["locate", "margin"])
def test_a_killed_load_can_be_repeated(site: Site, stage: str) -> None:
    path = site.write("a.parquet", sky(300))
    process = multiprocessing.get_context("spawn").Process(target=_load_and_die, args=(site.store.root, site.url, path, stage))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert site.registry.catalog().find("demo", "obj") is None
    report = site.load(path, key="id")
    assert report.stored == site.snapshot().rows == 309
    assert not list(site.store.root.glob("demo/obj/tmp-*"))
    listed = {uri for parts in (site.snapshot().home, site.snapshot().margin) for uri in parts.uri.to_pylist()}
    assert {name for name in site.files() if "/parts/" in name} == listed


def test_two_loads_of_one_table_exclude_each_other(site: Site) -> None:
    path = site.write("a.parquet", sky(300))
    errors: list[Exception] = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "read" and not errors:
            with pytest.raises(ConflictError, match="another load") as error:
                site.load(path, key="id")
            errors.append(error.value)

    load(LoadRequest(inputs=(path,), catalog="demo", table="obj", key="id"), site.registry, site.store, progress=progress)
    assert len(errors) == 1
    assert site.snapshot().rows == 309


@ON_BOTH
def test_loads_of_different_tables_both_commit(site: Site) -> None:
    path = site.write("a.parquet", sky(300))
    small = site.write("b.parquet", {"x": [1]})
    done: list[str] = []

    def progress(stage: str, at: int, total: int) -> None:
        if not done:
            done.append(stage)
            site.load(small, table="other", kind=TableKind.REPLICATED)

    request = LoadRequest(inputs=(path,), catalog="demo", table="obj", key="id")
    assert load(request, site.registry, site.store, progress=progress).snapshot == 2
    assert {one.table.name for one in site.registry.catalog() if one.table.schema == "demo"} == {"obj", "other"}
    assert read_properties(site.store.root / "demo/obj/collection.properties")["hats_primary_table_url"] == "snapshots/2"


@ON_BOTH
def test_a_load_that_was_overtaken_is_refused_and_can_be_repeated(site: Site) -> None:
    """Somebody who holds no lock (on another machine, without common locks) has published the table meanwhile."""
    path = site.write("a.parquet", sky(300))
    done: list[str] = []

    def progress(stage: str, at: int, total: int) -> None:
        if not done:
            done.append(stage)
            other = site.registry.begin_load({})
            site.registry.publish(other, "demo", [snapshot("obj")])

    with pytest.raises(ConflictError, match=r"demo\.obj is there by now"):
        load(LoadRequest(inputs=(path,), catalog="demo", table="obj", key="id"), site.registry, site.store, progress=progress)
    assert not list(site.store.root.glob("demo/obj/snapshots/*"))
    assert site.registry.snapshot_number("demo") == 1
    assert not list(site.store.root.glob("demo/_loads/*"))
    assert not [name for name in site.files() if "/parts/" in name]


def test_rows_say_which_load_brought_them(site: Site) -> None:
    site.load(site.write("b.parquet", {"x": [1]}), table="other", kind=TableKind.REPLICATED)
    site.load(site.write("a.parquet", sky(30)), key="id")
    assert set(site.read(site.snapshot().home)["_load"].to_pylist()) == {2}


def test_progress_reaches_the_end_of_every_stage(site: Site) -> None:
    seen: dict[str, tuple[int, int]] = {}

    def progress(stage: str, done: int, total: int) -> None:
        assert 0 <= done <= total
        seen[stage] = (done, total)

    path = site.write("a.parquet", sky(2000))
    load(
        LoadRequest(inputs=(path,), catalog="demo", table="obj", key="id", rows_per_tile=50),
        site.registry,
        site.store,
        progress=progress,
    )
    assert list(seen) == ["locate", "read", "write", "margin"]
    assert all(done == total for done, total in seen.values())


def test_the_report_is_readable(site: Site) -> None:
    columns = sky(100)
    columns["mag"][3] = np.nan
    columns["ra"][4] = np.nan
    text = site.load(site.write("a.parquet", columns), key="id").to_text()
    assert "demo.obj: 109 rows in" in text
    assert "NaN stored as NULL: mag 1, ra 1" in text
    assert "without a place on the sky: 1 row" in text
