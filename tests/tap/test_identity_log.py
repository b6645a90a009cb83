"""Every query is logged, and who asked sees it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from qengine.app import cluster
from qengine.catalog.registry import Registry
from qengine.catalog.who import ANONYMOUS, LOCAL, Identity, Origin
from qengine.coordinator.service import QueryService
from qengine.errors import QEngineError
from tests.loader.stores import Site, sky

ANN, BOB = Identity("ann"), Identity("bob")
ROOT = Identity("root", is_admin=True)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    made.load(made.write("a.parquet", sky(100)), key="id")
    return made


@asynccontextmanager
async def logging_service(site: Site) -> AsyncIterator[QueryService]:
    with Registry.open(site.store.root) as registry, registry.query_log() as log:
        async with cluster(site.store.root, query_log=log) as service:
            yield service


async def rows(service: QueryService, who: Identity, text: str, **words: Any) -> list[dict[str, Any]]:
    return list((await (await service.query(text, identity=who, **words)).to_table()).to_pylist())


async def logged(service: QueryService, who: Identity, count: int, where: str = "") -> list[dict[str, Any]]:
    """What `who` sees of the log when there are as many entries."""
    deadline = time.monotonic() + 10
    while True:
        found = await rows(service, who, f"SELECT * FROM qengine_meta.queries q {where} ORDER BY started, query_id")
        if len(found) >= count or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.1)


MINE = "WHERE statement NOT LIKE '%qengine_meta%'"


def test_who_asked_what_and_what_came_of_it(site: Site) -> None:
    async def scenario() -> None:
        async with logging_service(site) as service:
            text = "SELECT id FROM demo.obj WHERE id > 14"
            expected = len(await rows(service, ANN, text, origin=Origin("sync", "192.0.2.7 TOPCAT"), query_id="the-first-one"))
            for bad in ("SELECT nothing FROM demo.obj", "SELECT FROM", "SELECT CAST(name AS INTEGER) AS i FROM demo.obj"):
                with pytest.raises(QEngineError):
                    await rows(service, ANN, bad)
            left = await service.query(text, identity=BOB)
            await anext(aiter(left.batches))
            await left.close()
            await rows(service, ANONYMOUS, text)
            await service.explain(text, identity=ANN)
            await service.explain(text, identity=ANN, analyze=True)
            mine = await logged(service, ANN, 5, MINE)
            assert {row["user_name"] for row in mine} == {"ann"}
            [good] = [row for row in mine if row["outcome"] == "finished" and row["method"] == "sync"]
            assert good["query_id"] == "the-first-one"
            assert good["statement"] == text
            assert good["client"] == "192.0.2.7 TOPCAT"
            assert good["row_count"] == expected
            assert 8 * expected <= good["byte_count"] < 9 * expected
            assert 0 < good["duration_s"] < 60
            assert good["snapshots"] == '{"demo": 1}'
            assert good["error_code"] is None
            failed = [row for row in mine if row["outcome"] == "failed"]
            assert [row["error_code"] for row in failed] == ["unknown_name", "syntax", "execution"]
            assert "nothing" in failed[0]["error"]
            assert [row["method"] for row in mine if row["method"] == "explain"] == ["explain"]
            [other] = await logged(service, BOB, 1, MINE)
            assert (other["outcome"], other["user_name"]) == ("cancelled", "bob")
            assert await logged(service, ANONYMOUS, 0) == []
            everybody = await logged(service, ROOT, 7, MINE)
            assert {row["user_name"] for row in everybody} == {"ann", "bob", None}
            assert len(everybody) == 7
            assert len(await logged(service, LOCAL, 7, MINE)) == 7
            counts = "SELECT COUNT(*) AS n, SUM(row_count) AS r FROM queries WHERE statement NOT LIKE '%queries%'"
            assert (await rows(service, BOB, counts))[0]["n"] == 1

    asyncio.run(scenario())


def test_the_log_is_described(site: Site) -> None:
    async def scenario() -> None:
        async with cluster(site.store.root) as service:
            text = "SELECT column_name FROM TAP_SCHEMA.columns WHERE table_name = 'qengine_meta.queries'"
            names = {row["column_name"] for row in await rows(service, ANONYMOUS, text)}
            assert {"query_id", "user_name", "statement", "started", "duration_s", "row_count", "byte_count", "outcome"} <= names

    asyncio.run(scenario())


def test_no_way_to_the_entries_of_others(site: Site) -> None:
    async def scenario() -> None:
        async with logging_service(site) as service:
            await rows(service, ANN, "SELECT 'a secret' AS word FROM demo.obj")
            await logged(service, ANN, 1, MINE)
            for text in (
                "SELECT statement FROM qengine_meta.queries", "SELECT statement FROM queries WHERE user_name = 'ann'",
                "WITH q AS (SELECT * FROM queries) SELECT * FROM q", "SELECT * FROM demo.obj o, qengine_meta.queries q",
                "SELECT * FROM queries UNION ALL SELECT * FROM queries", "SELECT id FROM demo.obj WHERE name IN (SELECT statement FROM queries)",
                "SELECT * FROM qengine_meta.queries AT (VERSION => 1)",
            ):  # fmt: skip
                for who in (BOB, ANONYMOUS, Identity("ANN"), Identity("ann ")):
                    with suppress(QEngineError):
                        assert "a secret" not in repr(await rows(service, who, text))

    asyncio.run(scenario())
