"""Tags, states, expiry, leases, budgets and rollback, in SQLite and PostgreSQL, and after a registry was lost."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from qengine.catalog.inputs import InputRecord
from qengine.catalog.registry import Registry
from qengine.catalog.releases import ReleaseState
from qengine.errors import ConflictError, RegistryError, SnapshotExpiredError
from tests.unit.catalog.snapshots import snapshot
from tests.unit.catalog.test_loads import url  # noqa: F401 - the two databases


@pytest.fixture
def registry(url: str, tmp_path: Path) -> Iterator[Registry]:  # noqa: F811
    with Registry.open(tmp_path, url=url) as found:
        for number in (1, 2, 3, 4):
            publish(found, number)
        yield found


def publish(registry: Registry, rows: int) -> None:
    """One more snapshot of demo.Object, whose only input replaces the last."""
    load = registry.open_load("demo", {})
    old = registry.inputs("demo", "Object")
    new = InputRecord(load=load.number, catalog="demo", table="Object", number=0, label="only", version=str(rows))
    table = snapshot("Object", count=rows)
    registry.publish(load.id, "demo", [table], inputs=[new], replaced=old, is_final=True)


def versions(registry: Registry) -> list[str]:
    return [one.version for one in registry.inputs("demo")]


def parts(registry: Registry, version: int | str | None = None) -> int:
    found = registry.catalog(snapshots={} if version is None else {"demo": version}).find("demo", "Object")
    assert found is not None
    return len(found.home)


def test_a_tag_names_a_snapshot_for_good(registry: Registry) -> None:
    tag = registry.releases.tag("DEMO", 2, "DP1", doi="10.71929/x")
    assert (tag.catalog, tag.name, tag.number) == ("demo", "DP1", 2)
    assert parts(registry, "dp1") == 2
    with pytest.raises(ConflictError, match="dp1 is snapshot 2"):
        registry.releases.tag("demo", 3, "dp1")
    with pytest.raises(ConflictError, match="DOI"):
        registry.releases.untag("demo", "DP1")
    registry.releases.tag("demo", 3, "rc-1")
    registry.releases.untag("demo", "RC-1")
    with pytest.raises(RegistryError, match=r"no snapshot or tag 'rc-1' \(its tags are DP1\)"):
        registry.catalog(snapshots={"demo": "rc-1"})
    for wrong in ("", "1st", "a b", "x" * 200):
        with pytest.raises(RegistryError, match="cannot be a tag"):
            registry.releases.tag("demo", 1, wrong)
    with pytest.raises(RegistryError, match="no snapshot 9"):
        registry.releases.tag("demo", 9, "later")


def test_a_time_means_what_was_the_latest_then(registry: Registry) -> None:
    times = [entry.published for entry in registry.snapshots("demo")]
    assert registry.releases.resolve("demo", times[1].isoformat()) == 2
    assert registry.releases.resolve("demo", "2100-01-01") == 4
    assert registry.releases.resolve("demo", "4") == 4
    before = (times[0] - timedelta(hours=1)).astimezone(UTC).isoformat()
    with pytest.raises(RegistryError, match="had no snapshot at"):
        registry.releases.resolve("demo", before)
    with pytest.raises(RegistryError, match="no catalogue nothing"):
        registry.releases.resolve("nothing", 1)


def test_expiry_spares_the_latest_tagged_and_leased(registry: Registry) -> None:
    registry.releases.tag("demo", 1, "first")
    registry.releases.hold("reader", [("demo", 2)], seconds=60)
    assert registry.releases.expire("demo", keep=1) == (3,)
    with pytest.raises(SnapshotExpiredError, match="snapshot 3 of demo expired"):
        registry.catalog(snapshots={"demo": 3})
    assert parts(registry, "first") == 1
    registry.releases.hold("reader", [], seconds=60)
    assert registry.releases.expire("demo", keep=0) == (2,)
    assert registry.releases.history("demo").kept == (1, 4)
    assert parts(registry) == 4
    assert registry.releases.expire("demo", keep=1, older_than=timedelta(days=1)) == ()
    with pytest.raises(RegistryError, match="which snapshots"):
        registry.releases.expire("demo")


def test_what_expired_is_forgotten_after_a_while(registry: Registry, tmp_path: Path) -> None:
    registry.releases.expire("demo", keep=2)
    assert registry.releases.forget("demo", older_than=timedelta(hours=1)) == ()
    registry.releases.hold("reader", [("demo", 1)], seconds=60)
    assert registry.releases.forget("demo", older_than=timedelta(0)) == (2,)
    assert len(registry.manifests("demo")) == 3
    assert registry.forget_unpublished("demo") == 1
    assert registry.rebuild() == 4
    with pytest.raises(SnapshotExpiredError):
        registry.catalog(snapshots={"demo": 2})
    assert parts(registry, 3) == 3


def test_frozen_is_for_good(registry: Registry) -> None:
    assert registry.releases.states() == {}
    registry.releases.promote("demo", ReleaseState.INTERNAL, groups=("science", "ops"))
    assert registry.releases.states()["demo"].groups == {"science", "ops"}
    with pytest.raises(RegistryError, match="groups say who reads"):
        registry.releases.promote("demo", ReleaseState.RELEASED, groups=("science",))
    registry.releases.promote("demo", ReleaseState.FROZEN)
    with pytest.raises(ConflictError, match="demo is frozen"):
        publish(registry, 5)
    with pytest.raises(ConflictError, match="demo is frozen"):
        registry.releases.promote("demo", ReleaseState.STAGED)
    with pytest.raises(ConflictError, match="demo is frozen"):
        registry.releases.rollback("demo", 1)
    assert registry.snapshot_number("demo") == 4


def test_rolling_back_goes_forward(registry: Registry) -> None:
    assert versions(registry) == ["4"]
    assert registry.releases.rollback("demo", 2, why="bad photometry") == 5
    assert (parts(registry), parts(registry, 4), versions(registry)) == (2, 4, ["2"])
    assert registry.loads()[-1].context["why"] == "bad photometry"
    publish(registry, 3)
    assert (registry.snapshot_number("demo"), versions(registry)) == (6, ["3"])
    assert registry.releases.rollback("demo", 5) == 7
    assert (parts(registry), versions(registry)) == (2, ["2"])
    with pytest.raises(RegistryError, match="at snapshot 7 already"):
        registry.releases.rollback("demo", 7)


def test_a_lost_registry_comes_back_with_tags_states_and_inputs(tmp_path: Path) -> None:
    with Registry.open(tmp_path) as registry:
        for number in (1, 2, 3):
            publish(registry, number)
        registry.releases.tag("demo", 2, "DP1", doi="10.1/x", note="the first")
        registry.releases.promote("demo", ReleaseState.INTERNAL, groups=("science",))
        registry.releases.rollback("demo", 1)
        before = registry.releases.history("demo"), registry.releases.states(), versions(registry)
    for file in tmp_path.glob("registry.sqlite*"):
        file.unlink()
    with Registry.open(tmp_path) as registry:
        assert registry.rebuild() == 4
        assert (registry.releases.history("demo"), registry.releases.states(), versions(registry)) == before
        assert registry.rebuild() == 4
    (tmp_path / "demo" / "_release.json").write_text("{")
    with Registry.open(tmp_path) as registry, pytest.raises(RegistryError, match="cannot be read"):
        registry.rebuild()
    shutil.rmtree(tmp_path / "demo")


def test_budgets(registry: Registry) -> None:
    registry.releases.set_budget("demo", 10**12)
    registry.releases.set_budget("", 2 * 10**12)
    registry.releases.set_budget("demo", 5)
    assert registry.releases.budgets() == {"demo": 5, "": 2 * 10**12}
    registry.releases.set_budget("demo", None)
    assert registry.releases.budgets() == {"": 2 * 10**12}
    assert datetime.now(UTC)
