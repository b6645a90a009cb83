"""Measured rates: averages that several processes move, and that no bad measurement ruins."""

from __future__ import annotations

import math
import shutil
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from qengine.catalog import migrations
from qengine.catalog.rates import MEMORY_S, Observed, moved
from qengine.catalog.registry import Registry
from qengine.errors import RegistryError

DEFAULTS = {"scan": 100.0, "join": 5.0}
VALUES = st.floats(0.1, 1e6)
WEIGHTS = st.floats(0, 1e4)


def test_the_first_measurement_begins_at_the_default(tmp_path: Path) -> None:
    with Registry.open(tmp_path) as registry:
        assert registry.rates() == {}
        registry.record_rates({"scan": Observed(400.0, MEMORY_S * math.log(2))}, DEFAULTS)
        assert registry.rates() == {"scan": pytest.approx(200.0)}
        registry.record_rates({"scan": Observed(200.0, 1e9), "join": Observed(5.0, 1.0)}, DEFAULTS)
        assert registry.rates() == {"scan": pytest.approx(200.0), "join": pytest.approx(5.0)}
    with Registry.open(tmp_path) as registry:
        assert registry.rates()["scan"] == pytest.approx(200.0)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, 1e9, 1e-9])
def test_what_is_no_measurement_is_left_out(tmp_path: Path, value: float) -> None:
    with Registry.open(tmp_path) as registry:
        registry.record_rates({"scan": Observed(value, 10.0), "unknown": Observed(1.0, 1.0)}, DEFAULTS)
        assert registry.rates() == {}


@given(start=VALUES, seen=VALUES, weight=WEIGHTS)
def test_an_average_moves_towards_what_is_seen(start: float, seen: float, weight: float) -> None:
    found = moved(start, Observed(seen, weight))
    assert min(start, seen) * 0.999999 <= found <= max(start, seen) * 1.000001


@given(st.lists(st.tuples(VALUES, st.floats(0.1, 100)), min_size=1, max_size=20))
def test_joined_observations_lie_between_theirs(parts: list[tuple[float, float]]) -> None:
    joined = Observed(*parts[0])
    for part in parts[1:]:
        joined = joined.joined(Observed(*part))
    assert joined.weight_s == pytest.approx(sum(weight for _, weight in parts))
    values = [value for value, _ in parts]
    assert min(values) * 0.999999 <= joined.value <= max(values) * 1.000001


def test_several_writers_lose_nothing(tmp_path: Path) -> None:
    with Registry.open(tmp_path) as first, Registry.open(tmp_path) as second:

        def write(registry: Registry) -> None:
            for _ in range(10):
                registry.record_rates({"scan": Observed(200.0, 3.0)}, DEFAULTS)

        threads = [threading.Thread(target=write, args=(registry,)) for registry in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expected = 200.0 * (100.0 / 200.0) ** math.exp(-60.0 / MEMORY_S)
        assert first.rates() == {"scan": pytest.approx(expected)}


def test_a_registry_of_the_first_version_is_migrated(tmp_path: Path) -> None:
    _of_first_version(tmp_path)
    with Registry.open(tmp_path) as registry:
        assert registry.rates() == {}
        registry.record_rates({"scan": Observed(50.0, 1.0)}, DEFAULTS)
        assert registry.rates()["scan"] < 100.0


def test_a_registry_of_the_first_version_that_may_only_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _of_first_version(tmp_path)
    copied = tmp_path / "copy"
    copied.mkdir()
    shutil.copy(tmp_path / "registry.sqlite", copied)
    monkeypatch.setattr("qengine.catalog.database._may_write", lambda root: False)
    with Registry.open(copied) as registry:
        assert registry.rates() == {}
        assert not [one for one in registry.catalog() if one.table.schema not in ("TAP_SCHEMA", "qengine_meta")]
        with pytest.raises(RegistryError):
            registry.record_rates({"scan": Observed(50.0, 1.0)}, DEFAULTS)


def _of_first_version(root: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{root}/registry.sqlite")
    with engine.begin() as connection:
        migrations.upgrade(connection, to="0001")
    engine.dispose()


def test_the_newest_version_is_the_last_revision() -> None:
    assert migrations._script().get_current_head() == migrations.HEAD
