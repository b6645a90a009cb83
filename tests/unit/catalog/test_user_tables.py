"""Tables of users as the registry knows them, in SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qengine.catalog.registry import Registry
from qengine.catalog.rights import PUBLIC
from qengine.catalog.user_tables import UserTables
from qengine.errors import ConflictError, UnknownNameError
from tests.support.postgres import ON_BOTH, NewDatabase
from tests.unit.catalog.snapshots import snapshot


def publish(registry: Registry, catalog: str, *names: str) -> str:
    load = registry.begin_load({"maker": "somebody"})
    registry.publish(load, catalog, [snapshot(name, schema=catalog) for name in names])
    registry.finish_load(load)
    return load


@pytest.fixture
def registry(database: NewDatabase, tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(tmp_path, url=database()) as found:
        yield found


@ON_BOTH
def test_each_user_has_their_own(registry: Registry) -> None:
    tables = UserTables(registry)
    assert tables.of("ann") == ()
    assert tables.bytes_of("ann") == 0
    first = publish(registry, "user_ann", "One")
    second = publish(registry, "user_ann", "two")
    publish(registry, "user_bob", "One")
    publish(registry, "user_ann_2", "three")
    found = tables.of("ann")
    assert [(one.name, one.load) for one in found] == [("One", first), ("two", second)]
    assert tables.find("ann", "one") == found[0]
    assert found[0].created < found[1].created
    assert tables.bytes_of("ann") == sum(one.bytes for one in found) > 0
    with pytest.raises(UnknownNameError, match=r"no table mydb\.three"):
        tables.find("ann", "three")


@ON_BOTH
def test_shares_come_and_go(registry: Registry) -> None:
    tables = UserTables(registry)
    publish(registry, "user_ann", "One", "two")
    assert tables.share("ann", "one", "group:dp1").grantees == ("group:dp1",)
    assert tables.share("ann", "one", "group:dp1").grantees == ("group:dp1",)
    assert tables.share("ann", "one", PUBLIC).grantees == ("group:dp1", PUBLIC)
    assert tables.find("ann", "two").grantees == ()
    assert tables.share("ann", "one", "group:dp1", is_ending=True).grantees == (PUBLIC,)
    assert tables.share("ann", "one", "group:dp1", is_ending=True).grantees == (PUBLIC,)
    with pytest.raises(UnknownNameError):
        tables.share("bob", "one", PUBLIC)


@ON_BOTH
def test_a_dropped_table_is_gone_for_good(registry: Registry, tmp_path: Path) -> None:
    tables = UserTables(registry)
    publish(registry, "user_ann", "One", "two")
    tables.share("ann", "one", PUBLIC)
    assert tables.drop("ann", "ONE").name == "One"
    assert [one.name for one in tables.of("ann")] == ["two"]
    assert registry.rights.listed() == ()
    assert registry.releases.history("user_ann").kept == (2,)
    with pytest.raises(UnknownNameError):
        tables.drop("ann", "one")
    tables.drop("ann", "two")
    assert tables.of("ann") == ()
    registry.rebuild()  # from the records in the store
    assert tables.of("ann") == ()
    publish(registry, "user_ann", "One")
    assert tables.find("ann", "one").grantees == ()


@ON_BOTH
def test_what_changes_meanwhile_is_not_dropped(registry: Registry) -> None:
    publish(registry, "user_ann", "One")
    digests = registry.manifest_digests()
    publish(registry, "user_ann", "One")
    load = registry.begin_load({})
    with pytest.raises(ConflictError, match="has been changed"):
        registry.publish(load, "user_ann", (), base={"user_ann.one": digests["user_ann.one"]}, dropped=("One",))
    assert registry.catalog().find("user_ann", "One") is not None
