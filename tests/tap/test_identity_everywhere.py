"""No way through HTTP on which somebody is taken for another: every question that reaches the engine carries who asks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from qengine.catalog.database import Database
from qengine.catalog.model import Catalog
from qengine.catalog.users import Users
from qengine.catalog.who import Identity
from qengine.coordinator.progress import QueryProgress
from qengine.tap.access import AccessSettings, Doorkeeper
from tests.support.fake_service import FakeAnswer, FakePlan, FakeService
from tests.support.tap_server import serving_tap


class Recording(FakeService):
    """Remembers who asked for what."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, Identity | None, str]] = []

    def _note(self, what: str, words: dict[str, Any]) -> None:
        origin = words.get("origin")
        self.seen.append((what, words.get("identity"), origin.method if origin is not None else ""))

    async def query(self, text: str, **words: Any) -> FakeAnswer:
        self._note("query", words)
        return await super().query(text, **words)

    async def explain(self, text: str, **words: Any) -> FakePlan:
        self._note("explain", words)
        return await super().explain(text, **words)

    def catalog(self, **words: Any) -> Catalog:
        self._note("catalog", words)
        return super().catalog(**words)

    def progress(self, query: str, **words: Any) -> QueryProgress:
        if words:  # without any, it is the runner that looks after its own jobs
            self._note("progress", words)
        return super().progress(query, **words)

    def running(self, **words: Any) -> tuple[QueryProgress, ...]:
        self._note("running", words)
        return super().running(**words)

    async def cancel(self, query: str, **words: Any) -> None:
        if words:
            self._note("cancel", words)
        await super().cancel(query, **words)


@pytest.fixture
def service() -> Recording:
    return Recording()


@pytest.fixture
def http(service: Recording, tmp_path: Path) -> Iterator[httpx.Client]:
    database = Database.open(tmp_path, None)
    users = Users(database)
    token, _ = users.create_token(users.add("ann", groups=["dp1"]).name)
    headers = {"authorization": f"Bearer {token}", "user-agent": "probe/1"}
    with (
        serving_tap(service, tmp_path, door=Doorkeeper(users, AccessSettings())) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=20, headers=headers) as client,
    ):
        yield client
    database.close()


QUERY = {"LANG": "ADQL", "QUERY": "SELECT TOP 1 source_id FROM demo.stars", "RESPONSEFORMAT": "csv"}


@pytest.mark.parametrize(
    ("method", "path", "reaches"),
    [
        ("GET", "/sync", "query"), ("POST", "/sync", "query"), ("GET", "/query-plan", "explain"),
        ("GET", "/query-plan?ANALYZE=1", "explain"), ("GET", "/tables", "catalog"), ("GET", "/tables?detail=min", "catalog"),
        ("GET", "/tables?RESPONSEFORMAT=json", "catalog"), ("GET", "/tables/demo.stars", "catalog"), ("GET", "", "catalog"),
        ("GET", "/examples", "catalog"), ("GET", "/progress", "running"), ("GET", "/progress/some-query", "progress"),
        ("DELETE", "/progress/some-query", "cancel"), ("GET", "/availability", "catalog"), ("POST", "/async", "query"),
    ],
)  # fmt: skip
def test_who_asks(http: httpx.Client, service: Recording, method: str, path: str, reaches: str) -> None:
    words = {**QUERY, **({"PHASE": "RUN"} if path == "/async" else {})}
    if "query-plan" in path:
        del words["RESPONSEFORMAT"]
    given = {"data": words} if method == "POST" else {"params": {**words, **dict(httpx.URL(path).params)}}
    answer = http.request(method, path, follow_redirects=path == "", **given)
    assert answer.status_code in (200, 303, 404), answer.text
    deadline = time.monotonic() + 10
    while reaches not in {what for what, _, _ in service.seen} and time.monotonic() < deadline:
        time.sleep(0.02)
    if path == "/async":
        while http.get(f"{answer.headers['location']}/phase").text in ("QUEUED", "EXECUTING") and time.monotonic() < deadline:
            time.sleep(0.02)
    assert reaches in {what for what, _, _ in service.seen}
    for what, identity, _ in service.seen:
        assert identity == Identity("ann", frozenset({"dp1"}), method="token"), what
    assert {origin for what, _, origin in service.seen if what == "query"} <= {"async" if path == "/async" else "sync"}


def test_nobody_in_particular_is_shown_no_queries(http: httpx.Client, service: Recording) -> None:
    del http.headers["authorization"]
    assert http.get("/progress").json()["queries"] == []
    assert service.seen == []


def test_every_route_is_behind_the_door(http: httpx.Client) -> None:
    for path in (
        "/sync",
        "/async",
        "/tables",
        "/examples",
        "/progress",
        "/query-plan",
        "",
        "/metrics",
        "/openapi.json",
        "/nothing",
    ):
        assert http.get(path, headers={"authorization": "Bearer nonsense"}).status_code == 401, path
