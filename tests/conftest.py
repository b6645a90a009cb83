"""What all suites share: how hypothesis searches, and databases of registries.

A test of the registry, or of what depends on how it excludes writers, runs on both databases: `pytestmark = ON_BOTH` in its module.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, settings

from tests.support import postgres
from tests.support.postgres import NewDatabase

# The same examples in every run; no time limit per example, because machines differ.
settings.register_profile("qengine", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("qengine")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a database of PostgreSQL. Tests are skipped where there is none."""
    if postgres.VARIABLE not in os.environ and postgres.programs() is None:
        pytest.skip(postgres.REASON)
    with postgres.server() as url:
        yield url


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[NewDatabase]:
    """Makes databases for registries: `sqlite`, each in its store, unless the test is for `postgresql` (`ON_BOTH`)."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield lambda: None
        return
    url = request.getfixturevalue("postgres_url")
    with ExitStack() as stack:
        yield lambda: stack.enter_context(postgres.empty_database(url))
