from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.loader.stores import Site
from tests.support.postgres import NewDatabase


@pytest.fixture
def make_site(database: NewDatabase) -> Iterator[Callable[[Path], Site]]:
    made: list[Site] = []

    def make(root: Path) -> Site:
        made.append(Site(root, database()))
        return made[-1]

    yield make
    for each in made:
        each.registry.close()


@pytest.fixture
def site(tmp_path: Path, make_site: Callable[[Path], Site]) -> Site:
    return make_site(tmp_path)
