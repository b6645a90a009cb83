"""Publishing is one step that others see whole or not at all; the registry survives crashes, races and its own loss."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from qengine.catalog import definition
from qengine.catalog.migrations.tables import METADATA
from qengine.catalog.registry import LoadState, Registry
from qengine.errors import ConflictError, RegistryError, SchemaError
from tests.support.postgres import ON_BOTH, NewDatabase
from tests.unit.catalog.snapshots import assert_same, snapshot


@pytest.fixture
def url(database: NewDatabase) -> str | None:
    return database()


def publish(registry: Registry, *names: str, catalog: str = "demo", expected: int | None = None, seed: int = 0) -> int:
    load = registry.begin_load({"by": "test"})
    number = registry.publish(load, catalog, [snapshot(name, schema=catalog, seed=seed) for name in names], expected=expected)
    registry.finish_load(load)
    return number


def published(registry: Registry, **asked: int) -> dict[str, int]:
    tables = registry.catalog(snapshots=asked) if asked else registry.catalog()
    return {t.table.full_name: t.number for t in tables if t.table.schema not in ("TAP_SCHEMA", "qengine_meta")}


@ON_BOTH
def test_what_is_published_is_read_by_others(tmp_path: Path, url: str | None) -> None:
    with Registry.open(tmp_path, url=url) as registry:
        assert published(registry) == {}
        assert registry.snapshot_number("demo") == 0
        assert publish(registry, "Object", "Source", expected=0) == 1
        with Registry.open(tmp_path, url=url) as other:
            assert published(other) == {"demo.Object": 1, "demo.Source": 1}
            assert_same(other.catalog().find("DEMO", "object"), snapshot("Object"))
            assert other.snapshot_number("Demo") == 1


@ON_BOTH
def test_other_tables_are_carried_over_and_old_snapshots_stay(tmp_path: Path, url: str | None) -> None:
    with Registry.open(tmp_path, url=url) as registry:
        publish(registry, "Object", "Source")
        publish(registry, "Source", "New", seed=7)
        publish(registry, "Elsewhere", catalog="other")
        assert published(registry) == {"demo.New": 2, "demo.Object": 2, "demo.Source": 2, "other.Elsewhere": 1}
        assert published(registry, demo=1) == {"demo.Object": 1, "demo.Source": 1, "other.Elsewhere": 1}
        assert_same(registry.catalog().find("demo", "Source"), replace(snapshot("Source", seed=7), number=2))
        assert_same(registry.catalog(snapshots={"DEMO": 1}).find("demo", "Source"), snapshot("Source"))
        assert [(entry.number, entry.catalog) for entry in registry.snapshots("demo")] == [(1, "demo"), (2, "demo")]
        assert len(list((tmp_path / "demo/Object/manifests").iterdir())) == 1


@ON_BOTH
def test_second_writer_conflicts_and_leaves_nothing(tmp_path: Path, url: str | None) -> None:
    with Registry.open(tmp_path, url=url) as registry:
        publish(registry, "Object", expected=0)
        files = sorted(path for path in (tmp_path / "demo").rglob("*") if path.is_file())
        with pytest.raises(ConflictError, match="snapshot 1, not 0"):
            publish(registry, "Object", expected=0)
        assert sorted(path for path in (tmp_path / "demo").rglob("*") if path.is_file()) == files
        assert published(registry) == {"demo.Object": 1}
        assert publish(registry, "Object", expected=1) == 2


@ON_BOTH
def test_failure_while_publishing_leaves_nothing(tmp_path: Path, url: str | None) -> None:
    with Registry.open(tmp_path, url=url) as registry:
        publish(registry, "Object")
        files = sorted(path for path in (tmp_path / "demo").rglob("*") if path.is_file())
        (tmp_path / "demo/Broken").write_text("a file where a folder must be")
        with pytest.raises(OSError):
            publish(registry, "Object", "Broken", seed=3)
        (tmp_path / "demo/Broken").unlink()
        assert sorted(path for path in (tmp_path / "demo").rglob("*") if path.is_file()) == files
        assert published(registry) == {"demo.Object": 1}


@ON_BOTH
def test_catalog_is_cached_until_a_publish(tmp_path: Path, url: str | None) -> None:
    with Registry.open(tmp_path, url=url) as registry, Registry.open(tmp_path, url=url) as other:
        publish(registry, "Object")
        first = registry.catalog()
        assert registry.catalog() is first
        begin = time.perf_counter()
        for _ in range(100):
            registry.catalog()
        assert (time.perf_counter() - begin) / 100 < 0.001
        publish(other, "Source")
        second = registry.catalog()
        assert published(registry) == {"demo.Object": 2, "demo.Source": 2}
        # The manifest of a table that was carried over is not read again.
        assert second.find("demo", "Object").home is first.find("demo", "Object").home


@ON_BOTH
def test_names_are_checked(tmp_path: Path, url: str | None) -> None:
    with Registry.open(tmp_path, url=url) as registry:
        publish(registry, "Object")
        for catalog, names, words in (
            ("demo", ["object"], "case only"),
            ("Demo", ["Object"], "case only"),
            ("demo", ["A", "a"], "twice"),
            ("tap_schema", ["t"], "reserved"),
            ("../evil", ["t"], "cannot be the name"),
            ("demo", ["a/b"], "cannot be the name"),
        ):
            with pytest.raises(SchemaError, match=words):
                publish(registry, *names, catalog=catalog)
        load = registry.begin_load({})
        with pytest.raises(SchemaError, match="does not belong"):
            registry.publish(load, "demo", [snapshot("T", schema="other")], expected=None)


@ON_BOTH
def test_loads(tmp_path: Path, url: str | None) -> None:
    with Registry.open(tmp_path, url=url) as registry:
        first = registry.begin_load({"inputs": ["a.parquet"], "path": tmp_path})
        second = registry.begin_load({})
        registry.finish_load(first)
        registry.abort_load(second, "disk full")
        loads = registry.loads()
        assert [(load.id, load.state, load.error) for load in loads] == [
            (first, LoadState.FINISHED, ""), (second, LoadState.ABORTED, "disk full"),
        ]  # fmt: skip
        assert loads[0].context == {"inputs": ["a.parquet"], "path": str(tmp_path)}
        assert loads[0].finished >= loads[0].started
        for load in (first, "unknown"):
            with pytest.raises(RegistryError, match="load"):
                registry.publish(load, "demo", [snapshot()], expected=None)
            with pytest.raises(RegistryError):
                registry.finish_load(load)


@ON_BOTH
def test_definitions_without_manifests(tmp_path: Path, url: str | None) -> None:
    with Registry.open(tmp_path, url=url) as registry:
        publish(registry, "Object")
        shutil.rmtree(tmp_path / "demo/Object")
        assert registry.definitions() == (snapshot().table,)
    assert definition.from_json(definition.to_json(snapshot().table)) == snapshot().table
    with pytest.raises(RegistryError):
        definition.from_json('{"schema": "a", "name": "b", "kind": "director", "columns": [], "later": 1}')


@ON_BOTH
def test_missing_and_changed_manifests(tmp_path: Path, url: str | None) -> None:
    with Registry.open(tmp_path, url=url) as registry:
        publish(registry, "Object")
        publish(registry, "Source")
        [path] = (tmp_path / "demo/Object/manifests").iterdir()
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))
        with pytest.raises(RegistryError, match="not what was published"):
            registry.catalog()
        path.unlink()
        with pytest.raises(RegistryError, match="missing"):
            registry.catalog()


@ON_BOTH
def test_unknown_snapshot_and_catalogue(tmp_path: Path, url: str | None) -> None:
    with Registry.open(tmp_path, url=url) as registry:
        publish(registry, "Object")
        with pytest.raises(RegistryError, match="no snapshot 9"):
            registry.catalog(snapshots={"demo": 9})
        with pytest.raises(RegistryError, match="no catalogue other"):
            registry.catalog(snapshots={"other": 1})


def test_files_that_are_no_registry(tmp_path: Path) -> None:
    (tmp_path / "registry.sqlite").write_bytes(b"this is not a database" * 100)
    with pytest.raises(RegistryError, match="not a database"):
        Registry.open(tmp_path)
    with pytest.raises(RegistryError):
        Registry.open(tmp_path, url="nonsense")
    with pytest.raises(RegistryError):
        Registry.open(tmp_path, url=f"sqlite:///{tmp_path}/no/such/folder/x.sqlite")


def test_newer_schema_is_refused(tmp_path: Path) -> None:
    Registry.open(tmp_path).close()
    with sqlite3.connect(tmp_path / "registry.sqlite") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(RegistryError, match="9999") as caught:
        Registry.open(tmp_path)
    assert "update" in caught.value.hint


def test_revisions_make_the_declared_tables(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    Registry.open(tmp_path).close()
    engine = sa.create_engine(f"sqlite:///{tmp_path}/registry.sqlite")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    engine.dispose()


def test_rebuild_after_loss_of_the_database(tmp_path: Path) -> None:
    with Registry.open(tmp_path) as registry:
        publish(registry, "Object", "Source")
        publish(registry, "Source", seed=5)
        publish(registry, "X", catalog="other")
        before, first = registry.catalog(), registry.catalog(snapshots={"demo": 1})
    for path in tmp_path.glob("registry.sqlite*"):
        path.unlink()
    with Registry.open(tmp_path) as registry:
        assert published(registry) == {}
        assert registry.rebuild() == 3
        for table in before:
            if table.inline is None:
                assert_same(registry.catalog().find(table.table.schema, table.table.name), table)
        for table in first:
            if table.inline is None:
                assert_same(registry.catalog(snapshots={"demo": 1}).find(table.table.schema, table.table.name), table)
        assert publish(registry, "Source", expected=2) == 3


@ON_BOTH
def test_rebuild_without_records(tmp_path: Path, url: str | None) -> None:
    with Registry.open(tmp_path, url=url) as registry:
        publish(registry, "Object", "Source")
        publish(registry, "Source", seed=5)
        expected = published(registry), published(registry, demo=1)
        shutil.rmtree(tmp_path / "demo/_snapshots")
        stale = registry.catalog()
        assert registry.rebuild() == 2
        assert registry.catalog() is not stale
        assert (published(registry), published(registry, demo=1)) == expected


@ON_BOTH
def test_rebuild_ignores_manifests_that_were_never_published(tmp_path: Path, url: str | None) -> None:
    with Registry.open(tmp_path, url=url) as registry:
        publish(registry, "Object")
        [path] = (tmp_path / "demo/Object/manifests").iterdir()
        shutil.copy(path, path.with_name("000002-0000000000000000.parquet"))
        assert registry.rebuild() == 1
        assert published(registry) == {"demo.Object": 1}


@ON_BOTH
def test_threads_share_a_registry(tmp_path: Path, url: str | None) -> None:
    errors: list[BaseException] = []
    with Registry.open(tmp_path, url=url) as registry:
        publish(registry, "Object")
        stop = threading.Event()

        def read() -> None:
            last = 0
            try:
                while not stop.is_set():
                    numbers = published(registry)
                    assert len(set(numbers.values())) == 1  # one snapshot, never a mixture
                    assert numbers["demo.Object"] >= last
                    last = numbers["demo.Object"]
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for seed in range(10):
            publish(registry, "Source", seed=seed)
        stop.set()
        for thread in threads:
            thread.join()
        assert not errors
        assert registry.snapshot_number("demo") == 11


def _publish_five(root: Path, url: str | None, name: str) -> None:
    with Registry.open(root, url=url) as registry:
        for seed in range(5):
            publish(registry, name, seed=seed)


@ON_BOTH
def test_processes_open_and_publish_at_once(tmp_path: Path, url: str | None) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_publish_five, args=(tmp_path, url, name)) for name in ("A", "B", "C")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    with Registry.open(tmp_path, url=url) as registry:
        assert published(registry) == {"demo.A": 15, "demo.B": 15, "demo.C": 15}


_READ_ONLY = """
import sys
from pathlib import Path
from qengine.catalog.registry import Registry
from qengine.errors import RegistryError
with Registry.open(Path(sys.argv[1])) as registry:
    for line in sys.stdin:
        print(sum(1 for one in registry.catalog() if one.table.schema == "demo"), flush=True)
    try:
        registry.begin_load({})
    except RegistryError as error:
        print(error)
"""


def test_store_that_may_only_be_read(tmp_path: Path) -> None:
    root = tmp_path / "store"
    with Registry.open(root) as registry:
        publish(registry, "a")
    command = [sys.executable, "-c", _READ_ONLY, str(root)]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write everywhere")
        command = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override", *command]
    files = [root, *root.rglob("*")]
    for file in files:
        file.chmod(0o555 if file.is_dir() else 0o444)
    try:
        reader = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert reader.stdin is not None
        assert reader.stdout is not None

        def tables_seen() -> int:
            reader.stdin.write("\n")
            reader.stdin.flush()
            return int(reader.stdout.readline())

        assert tables_seen() == 1
        for file in files:
            file.chmod(0o755 if file.is_dir() else 0o644)
        with Registry.open(root) as writer:
            publish(writer, "b")
            assert tables_seen() == 2
            publish(writer, "c")
        assert tables_seen() == 3
        refused, _ = reader.communicate(timeout=30)
        assert "this user may not write to the store" in refused
    finally:
        for file in files:
            file.chmod(0o755 if file.is_dir() else 0o644)
