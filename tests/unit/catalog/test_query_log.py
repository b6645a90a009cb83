"""The log of queries, in SQLite and PostgreSQL: written soon, kept for a while, never in the way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from qengine.catalog.database import Database
from qengine.catalog.query_log import LoggedQuery, QueryLog, QueryLogSettings, forget, read_queries
from tests.support.postgres import ON_BOTH, NewDatabase

pytestmark = ON_BOTH

ENTRY = LoggedQuery(
    id="q1", user="ann", method="sync", client="192.0.2.1 pyvo", language="adql", statement="SELECT 'ä'", rows=3, bytes=24,
    started=datetime(2026, 11, 1, 12, tzinfo=UTC), duration_s=0.5, outcome="finished", snapshots={"dp1": 3},
)  # fmt: skip


@pytest.fixture
def kept(database: NewDatabase, tmp_path: Path) -> Iterator[Database]:
    found = Database.open(tmp_path, database())
    yield found
    found.close()


def written(kept: Database, user: str | None = None) -> list[str]:
    with kept.reading() as connection:
        return [row["query_id"] for row in read_queries(connection, user)]


def test_entries_come_back_within_a_second(kept: Database) -> None:
    with QueryLog(kept) as log:
        log.add(ENTRY)
        deadline = time.monotonic() + 10
        while not written(kept) and time.monotonic() < deadline:
            time.sleep(0.02)
        with kept.reading() as connection:
            [row] = read_queries(connection, "ann")
    assert row == {
        "query_id": "q1", "user_name": "ann", "method": "sync", "client": "192.0.2.1 pyvo", "language": "adql",
        "statement": "SELECT 'ä'", "started": datetime(2026, 11, 1, 12), "duration_s": 0.5, "row_count": 3, "byte_count": 24,
        "outcome": "finished", "error_code": "", "error": "", "snapshots": '{"dp1": 3}',
    }  # fmt: skip


def test_what_waits_is_written_at_the_end_in_order(kept: Database) -> None:
    with QueryLog(kept) as log:
        for number in range(2500):
            log.add(replace(ENTRY, id=f"q{number}", user="ann" if number % 2 else "bob"))
    assert written(kept) == [f"q{number}" for number in range(2500)]
    assert written(kept, "bob") == [f"q{number}" for number in range(0, 2500, 2)]
    assert written(kept, "") == []


def test_any_text_can_be_logged(kept: Database) -> None:
    with QueryLog(kept) as log:
        log.add(replace(ENTRY, statement="a\0b\udcff" + "x" * 200_000, client="\0" * 9000, error="é" * 9000, id="i" * 99))
    with kept.reading() as connection:
        [row] = read_queries(connection, None)
    assert row["statement"].startswith("a\ufffdb?xxx")
    assert len(row["statement"]) == 100_000
    assert row["statement"].endswith(" ...")


def test_old_and_surplus_entries_go(kept: Database) -> None:
    at = datetime.now(UTC)
    with QueryLog(kept) as log:
        for number in range(10):
            log.add(replace(ENTRY, id=f"q{number}", started=at - timedelta(days=10 if number < 3 else 1)))
    assert forget(kept, QueryLogSettings(retention_days=5)) == 3
    assert forget(kept, QueryLogSettings(retention_days=5, retention_rows=4)) == 3
    assert written(kept) == ["q6", "q7", "q8", "q9"]


def test_a_log_that_is_off_and_one_whose_database_is_gone(kept: Database, caplog: pytest.LogCaptureFixture) -> None:
    with QueryLog(kept, QueryLogSettings(is_on=False)) as log:
        log.add(ENTRY)
    assert written(kept) == []
    with kept.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE queries RENAME TO elsewhere")
    began = time.monotonic()
    with QueryLog(kept) as log:
        for _ in range(25_000):
            log.add(ENTRY)
        assert time.monotonic() - began < 5
        time.sleep(0.7)
        with kept.writing() as connection:
            connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO queries")
    assert len(written(kept)) == 20_000
    assert "cannot be written now" in caplog.text
    assert "5000 queries are missing" in caplog.text
