"""What processes of one service tell each other of their queries, in SQLite and PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from qengine.catalog.database import Database
from qengine.catalog.demand import DemandStore
from qengine.catalog.migrations.tables import DEMANDS
from tests.support.postgres import ON_BOTH, NewDatabase

pytestmark = ON_BOTH


@pytest.fixture
def shared(database: NewDatabase, tmp_path: Path) -> Iterator[Database]:
    found = Database.open(tmp_path, database())
    yield found
    found.close()


def rows(shared: Database) -> list[tuple[str, int]]:
    with shared.reading() as connection:
        return sorted((name, count) for name, count in connection.execute(sa.select(DEMANDS.c.name, DEMANDS.c.queries)))


def test_one_process_says_only_that_it_lives(shared: Database) -> None:
    one = DemandStore(shared)
    assert one.exchange({"user ann": 3}) == {}
    assert rows(shared) == [("", 0)]
    one.leave()
    assert rows(shared) == []


def test_each_hears_the_sum_of_the_others(shared: Database) -> None:
    one, two, three = DemandStore(shared), DemandStore(shared), DemandStore(shared)
    for each in (one, two, three):
        each.exchange({})
    assert one.exchange({"user ann": 2, "address 10.0.0.1": 1}) == {}
    assert two.exchange({"user ann": 3, "user bob": 0}) == {"user ann": 2, "address 10.0.0.1": 1}
    assert three.exchange({}) == {"user ann": 5, "address 10.0.0.1": 1}
    assert one.exchange({"user bob": 1}) == {"user ann": 3}
    assert three.exchange({}) == {"user ann": 3, "user bob": 1}
    two.leave()
    assert three.exchange({}) == {"user bob": 1}


def test_those_who_say_nothing_any_more_do_not_count(shared: Database) -> None:
    one, two = DemandStore(shared, lease_s=0.3), DemandStore(shared, lease_s=0.3)
    two.exchange({})
    one.exchange({"user ann": 2})
    assert two.exchange({}) == {"user ann": 2}
    time.sleep(0.4)
    assert two.exchange({}) == {}
    assert one.exchange({"user ann": 2}) == {}, "it comes back"
    assert two.exchange({}) == {"user ann": 2}
    time.sleep(3.5)
    two.exchange({"user bob": 1})
    assert [name for name, _ in rows(shared)] == [""], "what the dead have left is swept"
