"""One store with several skies for the whole session."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cluster import load_skies
from tests.support.oracle import Oracle
from tests.support.sky_builder import Sky, build_sky


@pytest.fixture(scope="session")
def skies() -> list[Sky]:
    return [build_sky(seed) for seed in range(5)]


@pytest.fixture(scope="session")
def store_root(skies: list[Sky], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return load_skies(tmp_path_factory.mktemp("equivalence"), skies)


@pytest.fixture(scope="session")
def oracle(skies: list[Sky]) -> Oracle:
    return Oracle(skies)
