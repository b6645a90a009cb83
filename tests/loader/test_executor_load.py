"""A load is the same whoever does its heavy tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qengine.loader.executor import Processes
from tests.loader.executed import counts, digests, load_family
from tests.loader.stores import Site

Make = Callable[[Path], Site]


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with Processes(2) as executor:
        yield executor


def test_a_family_loaded_by_processes_is_that_of_threads(tmp_path: Path, make_site: Make, processes: Processes) -> None:
    one, two = make_site(tmp_path / "one"), make_site(tmp_path / "two")
    by_threads = load_family(one, None)
    by_processes = load_family(two, processes)
    assert [counts(report) for report in by_processes] == [counts(report) for report in by_threads]
    assert digests(two) == digests(one)
    assert all(digests(one)["obj"].values())
