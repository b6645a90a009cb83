"""Begin, contribute, commit, abort: what is visible when, who excludes whom, and what stays after mishaps."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import threading
import time
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from qengine.catalog.model import TableKind
from qengine.catalog.registry import LoadState, Registry
from qengine.errors import ConfigError, ConflictError, InputError, LimitError, QEngineError, RegistryError, SchemaError
from qengine.loader import leftovers
from qengine.loader.journal import Journal, journals
from qengine.loader.load import load
from qengine.loader.publish import STAGED, Tree
from qengine.loader.request import LoadRequest
from qengine.loader.sources.open import InputOptions
from qengine.loader.transaction import Transaction
from qengine.storage.hats import read_properties
from qengine.storage.objects import Store
from tests.loader.stores import Site, sky
from tests.support.postgres import ON_BOTH, NewDatabase

pytestmark = ON_BOTH

CHILD = {"kind": TableKind.CHILD, "director": "obj", "director_key": "oid", "key": "sid"}


def request(*inputs: Path, label: str = "", **words: Any) -> LoadRequest:
    given = {"catalog": "demo", "table": "obj", "rows_per_tile": 100, "workers": 2, **words}
    if given["table"] == "obj":
        given.setdefault("key", "id")
    return LoadRequest(inputs=inputs, options=InputOptions(label=label), **given)


def begin(site: Site, **context: Any) -> Transaction:
    return Transaction.begin("demo", site.registry, site.store, context=context)


def family(site: Site) -> tuple[Path, Path]:
    objects = sky(300)
    rng = np.random.default_rng(5)
    child = {"sid": np.arange(900), "oid": rng.choice(objects["id"], 900), "flux": rng.normal(size=900)}
    return site.write("obj.parquet", objects), site.write("src.parquet", child)


def published(site: Site) -> dict[str, int]:
    return {one.table.name: one.rows for one in site.registry.catalog() if one.table.schema == "demo"}


def test_tables_of_a_family_are_published_at_once(site: Site) -> None:
    objects, child = family(site)
    begun = begin(site, why="a test", pipeline="v1")
    # a child before its director: the commit puts them in order
    assert begun.contribute(request(child, table="src", **CHILD)).rows == 900
    assert begun.contribute(request(objects), contributor="me").inputs[0].label == str(objects)
    assert published(site) == {}
    done = begun.commit()
    assert published(site) == {"obj": 309, "src": 900}
    assert {one.table: (one.snapshot, one.stored) for one in done.reports} == {"obj": (1, 309), "src": (1, 900)}
    assert (done.load.state, done.load.snapshot) == (LoadState.FINISHED, 1)
    assert (done.load.context["why"], done.load.context["pipeline"]) == ("a test", "v1")
    assert "@" in done.load.context["by"]
    assert len(site.registry.snapshots("demo")) == 1
    inputs = {one.table: one for one in site.registry.inputs("demo")}
    assert inputs["obj"].sha256 == inputs["obj"].version
    assert len(inputs["obj"].sha256) == 64
    assert set(site.read(site.snapshot("src").home)["_load"].to_pylist()) == {done.load.number}
    assert begun.commit().reports == done.reports  # said again
    with pytest.raises(RegistryError, match="finished"):
        begun.abort()


def test_the_order_of_contributions_does_not_matter(site: Site, database: NewDatabase, tmp_path: Path) -> None:
    whole = pa.table(sky(300))
    files = [site.write(f"{at}.parquet", whole.slice(at * 103, 103)) for at in range(3)]
    digests = []
    for number, order in enumerate(([0, 1, 2], [2, 0, 1])):
        store = Store(tmp_path / f"store{number}")
        with Registry.open(store.root, url=database()) as registry:
            begun = Transaction.begin("demo", registry, store)
            for at in order:
                begun.contribute(request(files[at]))
            begun.commit()
            found = registry.catalog().find("demo", "obj")
            assert found is not None
            digests.append(found.home.digest.to_pylist())
    assert digests[0] == digests[1]


def test_contributions_must_go_together(site: Site) -> None:
    objects, child = family(site)
    begun = begin(site)
    begun.contribute(request(objects, label="a"))
    begun.contribute(request(objects, label="b"))  # two equal files with different labels are two inputs
    begun.contribute(request(objects, label="a"))  # said again
    with pytest.raises(ConflictError, match="other content"):
        begun.contribute(request(child, label="a"))
    with pytest.raises(InputError, match="missing"):
        begun.contribute(request(child, label="c"))
    with pytest.raises(ConfigError, match="rows_per_tile"):
        begun.contribute(request(objects, label="d", rows_per_tile=7))
    with pytest.raises(ConflictError, match="of catalogue demo"):
        begun.contribute(request(objects, label="e", catalog="other"))
    with pytest.raises(SchemaError):
        Transaction.begin("tap_schema", site.registry, site.store)
    assert sorted(one.inputs[0].label for one in begun.receipts()) == ["a", "b"]


def test_a_failed_commit_can_be_aborted_or_said_again(site: Site) -> None:
    objects, child = family(site)
    site.load(objects, key="id", rows_per_tile=100)
    files = {name for name in site.files() if "_loads" not in name}
    begun = begin(site)
    bad = dict(sky(200, seed=4))
    bad["ra"] = np.where(np.arange(209) == 77, 400.0, bad["ra"])
    path = site.write("bad.parquet", bad)
    begun.contribute(request(child, table="src", **CHILD))
    begun.contribute(request(path, table="bad", key="id"))
    with pytest.raises(InputError, match="400"):
        begun.commit()
    assert begun.load.state is LoadState.OPEN
    assert "400" in begun.load.error
    assert published(site) == {"obj": 309}
    with pytest.raises(InputError, match="400"):
        begun.commit()
    begun.abort("bad input")
    assert (begun.load.state, begun.load.error) == (LoadState.ABORTED, "bad input")
    left = {name for name in site.files() if "_loads" not in name} - files
    assert all(name.endswith(".load.lock") for name in left)
    with pytest.raises(RegistryError, match="aborted"):
        begun.contribute(request(child, table="src", **CHILD))


def test_an_input_that_was_changed_since_is_refused(site: Site) -> None:
    objects, _ = family(site)
    begun = begin(site)
    begun.contribute(request(objects))
    site.write("obj.parquet", sky(301))
    with pytest.raises(InputError, match="changed since it was contributed"):
        begun.commit()
    assert published(site) == {}


def test_a_load_of_nothing_and_one_of_nothing_new(site: Site) -> None:
    objects, _ = family(site)
    empty = begin(site).commit()
    assert (empty.reports, empty.load.state, empty.load.snapshot) == ((), LoadState.FINISHED, 0)
    site.load(objects, key="id")
    begun = begin(site)
    begun.contribute(request(objects, rows_per_tile=50))
    [report] = begun.commit().reports
    assert (report.skipped_inputs, report.read, report.snapshot) == (1, 0, 1)
    assert site.registry.snapshot_number("demo") == 1


def test_two_loads_of_one_table_wait_or_conflict(site: Site) -> None:
    objects, _ = family(site)
    first, second, third = begin(site), begin(site), begin(site)
    for begun in (first, second, third):
        begun.contribute(request(objects))
    reached, go_on = threading.Event(), threading.Event()
    told: list[str] = []

    def progress(stage: str, done: int, total: int) -> None:
        reached.set()
        go_on.wait(20)

    def waiting(stage: str, done: int, total: int) -> None:
        told.append(stage)
        go_on.set()

    worker = threading.Thread(target=first.commit, kwargs={"progress": progress})
    worker.start()
    assert reached.wait(20)
    with pytest.raises(ConflictError, match="another load of demo.obj is running"):  # noqa: RUF043
        third.commit()
    done = second.commit(progress=waiting, wait_s=20)
    worker.join()
    assert told[0].startswith("wait: another load of demo.obj")
    # the second begins from what the first has published: its input is there already
    assert done.reports[0].skipped_inputs == 1
    assert published(site) == {"obj": 309}
    assert third.commit().reports[0].skipped_inputs == 1


def _commit_and_hang(root: Path, url: str | None, name: str, reached: Event) -> None:
    def progress(stage: str, done: int, total: int) -> None:
        if stage == "write":
            reached.set()
            time.sleep(60)

    with Registry.open(root, url=url) as registry:
        Transaction.open(name, registry, Store(root)).commit(progress=progress)


def killed(site: Site, begun: Transaction) -> None:
    """Commit in a process that dies when parts are being written."""
    context = multiprocessing.get_context("spawn")
    reached = context.Event()
    process = context.Process(target=_commit_and_hang, args=(site.store.root, site.url, begun.id, reached))
    process.start()
    assert reached.wait(60)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(20)


def test_a_load_that_is_killed_while_another_waits(site: Site) -> None:
    objects, _ = family(site)
    first, second = begin(site), begin(site)
    first.contribute(request(objects, label="first"))
    second.contribute(request(objects, label="second", table="other"))
    killed(site, first)
    assert first.load.state is LoadState.COMMITTING
    assert journals(site.store.root, "demo")[0].is_idle()
    assert second.commit(wait_s=20).reports[0].stored == 309
    with pytest.raises(ConflictError, match="commit has begun"):
        first.contribute(request(objects, label="more"))
    assert first.commit().reports[0].stored == 309
    assert published(site) == {"obj": 309, "other": 309}


def test_work_of_an_unfinished_load_is_not_swept(site: Site) -> None:
    objects, _ = family(site)
    begun = begin(site)
    begun.contribute(request(objects))
    killed(site, begun)
    parts = {name for name in site.files() if "/parts/" in name or "/keys/" in name}
    assert parts
    begin(site).abort()
    assert leftovers.heal(site.store.root, site.registry, "demo") == ()
    leftovers.sweep_idle(site.store.root, site.registry, "demo")
    assert parts <= site.files()
    begun.abort()
    assert not parts & site.files()
    assert not list((site.store.root / "demo/_loads").iterdir())


def _load_on_a_small_disk(root: Path, url: str | None, path: Path, limit: int, told: Any) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Registry.open(root, url=url) as registry:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            load(request(path, rows_per_tile=100_000), registry, Store(root))
            told.put(None)
        except QEngineError as error:
            told.put(error)


def test_a_full_disk_is_told_and_the_load_can_go_on(site: Site) -> None:
    path = site.write("big.parquet", sky(60_000))
    site.load(site.write("small.parquet", sky(50)), key="id", table="small")
    before = published(site)
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    process = context.Process(target=_load_on_a_small_disk, args=(site.store.root, site.url, path, 400_000, told))
    process.start()
    error = told.get(timeout=60)
    process.join(20)
    assert isinstance(error, LimitError)
    assert "no room on the disk" in error.message
    assert "--resume" in error.hint
    assert published(site) == before
    [stopped] = [one for one in site.registry.loads() if one.state is not LoadState.FINISHED]
    assert (stopped.state, "no room" in stopped.error) == (LoadState.OPEN, True)
    report = load(request(path, rows_per_tile=100_000), site.registry, site.store, resume=True)
    assert (report.load, report.stored) == (stopped.id, 60_009)
    listed = {
        *site.snapshot().home.uri.to_pylist(),
        *site.snapshot().orphan.uri.to_pylist(),
        *site.snapshot().margin.uri.to_pylist(),
    }
    assert {name for name in site.files() if "obj/parts/" in name} == listed


def unnamed(site: Site) -> tuple[Journal, Path]:
    """Make of a finished load one whose process has died between the publish and the names of its trees."""
    [one] = site.registry.loads()
    folder = site.store.root / "demo/obj"
    journal = Journal.of(site.store.root, "demo", one.id)
    snapshots = folder / "snapshots"
    primary, margin = snapshots / f"{STAGED}{one.id}", snapshots / f"{STAGED}{one.id}-margin"
    (snapshots / "1").rename(primary)
    (snapshots / "1_10arcs").rename(margin)
    (folder / "collection.properties").unlink()
    tree = Tree(table="demo.obj", snapshots=snapshots, primary=primary, margin=margin, margin_arcsec=10.0, name="demo_obj")
    journal.write_trees([tree.to_json(site.store.root)])
    return journal, folder


def test_a_load_that_has_just_begun_is_not_taken_for_a_dead_one(site: Site) -> None:
    ending = threading.Event()
    failures: list[BaseException] = []

    def heal() -> None:
        try:
            while not ending.is_set():
                leftovers.heal(site.store.root, site.registry, "lsst")
        except BaseException as error:
            failures.append(error)

    healers = [threading.Thread(target=heal) for _ in range(2)]
    for thread in healers:
        thread.start()
    try:
        for _ in range(25):
            begun = Transaction.begin("lsst", site.registry, site.store)
            time.sleep(0.002)
            assert begun.journal.folder.is_dir()
            with begun.journal.locked(is_shared=False, wait_s=5):
                assert (begun.journal.folder / "lock").is_file()
            begun.abort()
    finally:
        ending.set()
        for thread in healers:
            thread.join()
    assert not failures


def test_a_tree_without_a_name_is_healed_by_whoever_comes_next(site: Site) -> None:
    objects, _ = family(site)
    site.load(objects, key="id")
    journal, folder = unnamed(site)
    begin(site)
    assert read_properties(folder / "collection.properties")["hats_primary_table_url"] == "snapshots/1"
    assert (folder / "snapshots/1/properties").is_file()
    assert (folder / "snapshots/1_10arcs/properties").is_file()
    assert journal.trees() == []


def test_a_load_that_died_before_its_links_is_healed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(folder: Path, root: Path) -> None:
        raise KeyboardInterrupt

    objects, _ = family(site)
    monkeypatch.setattr("qengine.loader.publish.fill_tree", die)
    with pytest.raises(KeyboardInterrupt):
        site.load(objects, key="id")
    monkeypatch.undo()
    assert len(site.snapshot().home)  # it is published
    folder = site.store.root / "demo/obj"
    assert not (folder / "collection.properties").exists()
    leftovers.heal(site.store.root, site.registry, "demo")
    assert read_properties(folder / "collection.properties")["hats_primary_table_url"] == "snapshots/1"
    linked = {path.stat().st_ino for path in (folder / "snapshots/1/dataset").rglob("Npix=*/*.parquet")}
    assert linked == {site.store.path(uri).stat().st_ino for uri in site.snapshot().home.uri.to_pylist()}


def test_a_tree_that_came_too_late_is_not_pointed_to(site: Site) -> None:
    objects, _ = family(site)
    site.load(objects, key="id")
    _, folder = unnamed(site)
    later = site.registry.begin_load({}, catalog="demo")
    site.registry.publish(later, "demo", [replace(site.snapshot(), margin_arcsec=5.0)])
    site.registry.finish_load(later)
    leftovers.heal(site.store.root, site.registry, "demo")
    assert not (folder / "collection.properties").exists()
    assert not list((folder / "snapshots").glob(f"{STAGED}*"))


def test_readers_see_whole_snapshots_while_a_load_commits(site: Site) -> None:
    objects, child = family(site)
    seen: list[dict[str, int]] = []

    def progress(stage: str, done: int, total: int) -> None:
        with Registry.open(site.store.root, url=site.url) as other:
            seen.append({one.table.name: one.rows for one in other.catalog() if one.table.schema == "demo"})

    begun = begin(site)
    begun.contribute(request(objects))
    begun.contribute(request(child, table="src", **CHILD))
    begun.commit(progress=progress)
    assert seen
    assert all(one == {} for one in seen)
    assert published(site) == {"obj": 309, "src": 900}
