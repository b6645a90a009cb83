"""Loads in the registry: numbers, states, inputs, what a publish checks, and registries that older versions made."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from qengine.catalog import migrations
from qengine.catalog.inputs import InputRecord
from qengine.catalog.registry import LoadState, Registry
from qengine.errors import ConflictError, RegistryError, SchemaError
from tests.support.postgres import empty_database
from tests.unit.catalog.snapshots import snapshot


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database: a file, or one of PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/elsewhere.sqlite"
        return
    with empty_database(request.getfixturevalue("postgres_url")) as found:
        yield found


@pytest.fixture
def registry(url: str, tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(tmp_path, url=url) as found:
        yield found


def one(load: int, number: int = 0, **words: object) -> InputRecord:
    given = {"label": f"label {number}", "version": "1", "rows_stored": 5, "coverage": b"\0\1\xff" * 8, **words}
    return InputRecord(load=load, catalog="demo", table="Object", number=number, **given)  # type: ignore[arg-type]


def test_loads_are_numbered_and_move_from_state_to_state(registry: Registry) -> None:
    first, second = registry.open_load("demo", {"why": "a test"}), registry.open_load("other", {})
    assert second.number == first.number + 1
    assert (first.state, first.catalog, first.context, first.snapshot) == (LoadState.OPEN, "demo", {"why": "a test"}, 0)
    assert registry.commit_load(first.id).state is LoadState.COMMITTING
    assert registry.commit_load(first.id).state is LoadState.COMMITTING  # a process died; another goes on
    registry.reopen_load(first.id, "disk full")
    assert (registry.load(first.id[:8]).state, registry.load(first.id).error) == (LoadState.OPEN, "disk full")
    registry.abort_load(first.id, "no more")
    for change in (registry.commit_load, registry.reopen_load, registry.abort_load, registry.finish_load):
        with pytest.raises(RegistryError, match="aborted"):
            change(first.id)
    with pytest.raises(RegistryError, match="unknown"):
        registry.load("nothing")
    with pytest.raises(RegistryError, match="unknown"):
        registry.load("")
    for name in ("tap_schema", "a/b", "1st"):
        with pytest.raises(SchemaError):
            registry.open_load(name, {})
    assert [load.id for load in registry.loads()] == [first.id, second.id]


def test_many_writers_take_different_numbers(registry: Registry) -> None:
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(registry.open_load("demo", {}).number)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 12


def test_a_publish_that_ends_its_load_records_inputs_and_replaces_old_ones(registry: Registry) -> None:
    first = registry.open_load("demo", {})
    inputs = [one(first.number, 0), one(first.number, 1, kind="butler", version="uuid")]
    assert registry.publish(first.id, "demo", [snapshot("Object")], base={"demo.Object": ""}, inputs=inputs, is_final=True) == 1
    done = registry.load(first.id)
    assert (done.state, done.snapshot, done.finished is not None) == (LoadState.FINISHED, 1, True)
    assert registry.inputs("DEMO") == registry.inputs("demo", "object") == registry.inputs_of_load(first.number) == tuple(inputs)
    assert registry.inputs("demo", "Source") == ()

    second = registry.open_load("demo", {})
    again = one(second.number, 0, label="label 1", version="uuid2")
    base = registry.manifest_digests()
    registry.publish(
        second.id, "demo", [snapshot("Object", seed=2)], base=base, inputs=[again], replaced=[inputs[1]], is_final=True
    )
    assert registry.inputs("demo", "Object") == (inputs[0], again)
    assert registry.inputs_of_load(first.number) == (inputs[0], replace(inputs[1], replaced_by=second.number))

    third = registry.open_load("demo", {})
    unknown = one(99, 0)
    with pytest.raises(RegistryError, match="not known"):
        registry.publish(third.id, "demo", [snapshot("Object", seed=3)], inputs=[], replaced=[unknown], is_final=True)
    assert registry.load(third.id).state is LoadState.OPEN
    assert registry.snapshot_number("demo") == 2


def test_only_tables_that_were_changed_or_read_must_be_as_they_were(registry: Registry, tmp_path: Path) -> None:
    begun = registry.open_load("demo", {})
    registry.publish(begun.id, "demo", [snapshot("Object"), snapshot("Source")], is_final=True)
    base = registry.manifest_digests()
    loads = [registry.open_load("demo", {}) for _ in range(4)]
    registry.publish(loads[0].id, "demo", [snapshot("Object", seed=1)], base={"demo.Object": base["demo.object"]}, is_final=True)
    registry.publish(loads[1].id, "demo", [snapshot("Source", seed=1)], base={"demo.Source": base["demo.source"]}, is_final=True)
    assert registry.snapshot_number("demo") == 3
    before = sorted(tmp_path.rglob("*.parquet"))
    for words, checked in (
        ("demo.Object has been changed", {"demo.Object": base["demo.object"]}),
        (
            "demo.Source has been changed",
            {"demo.Object": registry.manifest_digests()["demo.object"], "demo.Source": base["demo.source"]},
        ),
        ("demo.Object is there by now", {"demo.Object": ""}),
        ("demo.Gone is gone", {"demo.Gone": "0" * 64}),
    ):
        with pytest.raises(ConflictError, match=words):
            registry.publish(loads[2].id, "demo", [snapshot("Object", seed=2)], base=checked, is_final=True)
    assert sorted(tmp_path.rglob("*.parquet")) == before
    assert registry.publish(loads[2].id, "demo", [snapshot("New")], base={"demo.New": ""}, is_final=True) == 4


def test_a_rebuilt_registry_knows_loads_and_inputs(tmp_path: Path) -> None:
    with Registry.open(tmp_path) as registry:
        first = registry.open_load("demo", {"why": "first"})
        old = one(first.number)
        registry.publish(first.id, "demo", [snapshot("Object")], inputs=[old], is_final=True)
        second = registry.open_load("demo", {})
        new = one(second.number, version="2")
        registry.publish(second.id, "demo", [snapshot("Object", seed=1)], inputs=[new], replaced=[old], is_final=True)
        assert registry.rebuild() == 2
        assert registry.inputs("demo") == (new,)
    for path in tmp_path.glob("registry.sqlite*"):
        path.unlink()
    with Registry.open(tmp_path) as registry:
        registry.rebuild()
        assert registry.inputs("demo") == (new,)
        assert registry.inputs_of_load(first.number) == (replace(old, replaced_by=second.number),)
        assert [(load.id, load.number, load.snapshot) for load in registry.loads()] == [(first.id, 1, 1), (second.id, 2, 2)]
        assert registry.load(first.id).context == {"why": "first"}
        assert registry.open_load("demo", {}).number == 3


def _old(url: str) -> None:
    """A registry of version 0002: a published load, one that failed and one that was under way."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        migrations.upgrade(connection, to="0002")
        load = "INSERT INTO loads (id, state, context, started, finished, error) VALUES"
        for values in (
            "('b', 'finished', '{\"table\": \"Object\"}', '2026-01-02 00:00:00', '2026-01-02 01:00:00', '')",
            "('a', 'aborted', '{}', '2026-01-01 00:00:00', '2026-01-01 01:00:00', 'disk full')",
            "('c', 'running', '{}', '2026-01-03 00:00:00', NULL, '')",
        ):
            connection.execute(sa.text(f"{load} {values}".replace(":00", "\\:00")))
        connection.execute(sa.text("INSERT INTO catalogs (name, folded_name, latest) VALUES ('demo', 'demo', 7)"))
        connection.execute(
            sa.text(
                "INSERT INTO snapshots (catalog, number, load_id, published) VALUES ('demo', 7, 'b', '2026-01-02 01\\:00\\:00')"
            )
        )
    engine.dispose()


def test_an_old_registry_is_migrated(url: str, tmp_path: Path) -> None:
    _old(url)
    with Registry.open(tmp_path, url=url) as registry:
        loads = {load.id: load for load in registry.loads()}
        assert [(name, load.number, load.state.value) for name, load in loads.items()] == [
            ("a", 1, "aborted"), ("b", 2, "finished"), ("c", 3, "aborted"),
        ]  # fmt: skip
        assert (loads["b"].catalog, loads["b"].snapshot, loads["b"].context) == ("demo", 7, {"table": "Object"})
        assert loads["a"].error == "disk full"
        assert "updated" in loads["c"].error
        assert loads["c"].finished is not None
        assert [entry.number for entry in registry.snapshots("demo")] == [7]
        assert registry.inputs("demo") == ()
        # rows of older versions carry the snapshot's number, 7: no load may have that
        assert registry.open_load("demo", {}).number == 8


def test_migrations_can_be_taken_back(url: str) -> None:
    from alembic import command
    from alembic.config import Config

    _old(url)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        migrations.upgrade(connection)
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = connection
        command.downgrade(config, "0002")
    columns = {column["name"] for column in sa.inspect(engine).get_columns("loads")}
    engine.dispose()
    assert columns == {"id", "state", "context", "started", "finished", "error"}


def test_an_old_registry_that_may_only_be_read_has_no_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _old(f"sqlite:///{tmp_path}/registry.sqlite")
    monkeypatch.setattr("qengine.catalog.database._may_write", lambda root: False)
    with Registry.open(tmp_path) as registry:
        assert registry.loads() == ()
        assert registry.inputs("demo") == ()
