"""Queries of a running service by their ids: progress, cancel, limits on cost, plans, the state of workers. A real cluster."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qengine.app import ClusterSettings, cluster, connect
from qengine.cli import run
from qengine.client.remote import RemoteClient
from qengine.coordinator.dispatch import DispatchSettings
from qengine.coordinator.progress import QueryPhase, QueryProgress
from qengine.coordinator.watch import WatchSettings
from qengine.errors import QueryCancelledError, QueryTooExpensiveError, UnknownNameError
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.opening import open_store
from qengine.tap.app import create_app
from qengine.tap.server import listening

COUNT = "SELECT COUNT(*) AS n FROM sky.stars"
ENDLESS = "SELECT COUNT(*) AS n FROM sky.stars a, sky.stars b, sky.stars c WHERE a.mag + b.mag < c.mag"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("progress")
    generator = np.random.default_rng(5)
    rows = 6000
    pq.write_table(
        pa.table(
            {
                "id": pa.array(range(rows), pa.int64()),
                "ra": generator.uniform(0, 360, rows),
                "dec": np.degrees(np.arcsin(generator.uniform(-1, 1, rows))),
                "mag": generator.uniform(0, 20, rows),
            }
        ),
        folder / "stars.parquet",
    )
    files, registry = open_store(folder / "store", create=True)
    with registry:
        request = LoadRequest(
            inputs=(folder / "stars.parquet",), catalog="sky", table="stars", key="id", ra="ra", dec="dec", rows_per_tile=500
        )
        load(request, registry, files)
    return folder / "store"


@contextmanager
def served(store: Path, settings: ClusterSettings) -> Iterator[str]:
    """A service in a thread; yields its address."""
    started, ended = threading.Event(), threading.Event()
    found: list[str] = []

    async def serve() -> None:
        async with cluster(store, settings) as service, listening(create_app(service)) as server:
            found.append(f"{server.address}/tap")
            started.set()
            await asyncio.to_thread(ended.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert started.wait(60)
    try:
        yield found[0]
    finally:
        ended.set()
        thread.join(60)


@pytest.fixture(scope="module")
def url(store: Path) -> Iterator[str]:
    with served(store, ClusterSettings()) as address:
        yield address


def ask(url: str, text: str, **more: str) -> httpx.Response:
    headers = {name.replace("_", "-"): more.pop(name) for name in ("X_Query_Id",) if name in more}
    return httpx.post(
        f"{url}/sync",
        data={"LANG": "ADQL", "QUERY": text, "RESPONSEFORMAT": "csv", **more},
        headers=headers,
        timeout=60,
        trust_env=False,
    )


def get(url: str, **headers: str) -> httpx.Response:
    return httpx.get(url, headers=headers, timeout=60, trust_env=False)


def test_a_query_has_an_id_and_ends_at_one(url: str) -> None:
    chosen = ask(url, COUNT, X_Query_Id="my-own-id-1")
    assert chosen.headers["x-query-id"] == "my-own-id-1"
    assert chosen.text.split() == ["n", "6000"]
    progress = get(f"{url}/progress/my-own-id-1").json()
    assert progress["phase"] == "finished"
    assert progress["fraction"] == 1.0
    assert progress["rows"] == 1
    assert progress["statement"] == COUNT
    given = ask(url, COUNT).headers["x-query-id"]
    assert get(f"{url}/progress/{given}").json()["phase"] == "finished"
    assert "my-own-id-1 already" in ask(url, COUNT, X_Query_Id="my-own-id-1").text
    assert "cannot be the id" in ask(url, COUNT, X_Query_Id="../..").text
    failed = ask(url, "SELECT id / 0 FROM sky.nothing", X_Query_Id="my-own-id-2")
    assert failed.status_code == 400
    assert get(f"{url}/progress/my-own-id-2").json()["phase"] == "failed"


def test_who_is_not_known(url: str) -> None:
    assert get(f"{url}/progress/nobody-knows-me").status_code == 404
    assert httpx.delete(f"{url}/progress/nobody-knows-me", trust_env=False).status_code == 404
    with RemoteClient(url) as client, pytest.raises(UnknownNameError):
        client.progress("nobody-knows-me")


def test_a_running_query_is_listed_and_cancelled(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(ask(url, ENDLESS, X_Query_Id="endless-1")))
    thread.start()
    until = time.monotonic() + 30
    while not any(
        one["query"] == "endless-1" and one["phase"] in ("running", "merging") for one in get(f"{url}/progress").json()["queries"]
    ):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert run(["status", "--url", url]) == 0
    said = capsys.readouterr().out
    assert "query endless-1: " in said
    assert "alive" in said
    assert run(["cancel", "endless-1", "--url", url]) == 0
    thread.join(20)
    assert not thread.is_alive()
    assert "cancelled" in answers[0].text
    assert get(f"{url}/progress/endless-1").json()["phase"] == "cancelled"
    assert get(f"{url}/progress").json()["queries"] == []
    assert ask(url, COUNT).text.split() == ["n", "6000"]


def test_a_query_that_costs_too_much_is_refused(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused = ask(url, "SELECT id, mag FROM sky.stars", MAXCOST="1kB")
    assert refused.status_code == 400
    assert "estimated to read" in refused.text
    assert "CONTAINS(POINT(ra, dec)" in refused.text
    assert "MAXCOST=much" in ask(url, COUNT, MAXCOST="much").text
    with RemoteClient(url) as client, pytest.raises(QueryTooExpensiveError, match=r"allowed are 1\.0 kB"):
        client.query("SELECT id, mag FROM sky.stars", max_cost="1kB")
    assert run(["query", "SELECT id, mag FROM sky.stars", "--url", url, "--max-cost", "1kB"]) == 1
    assert "error[too_expensive]" in capsys.readouterr().err


def test_plans_with_what_happened(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    where = httpx.URL(
        f"{url}/query-plan", params={"LANG": "ADQL", "QUERY": "SELECT id FROM sky.stars WHERE mag < 5", "ANALYZE": "1"}
    )
    tree = get(str(where), accept="application/json").json()
    (fragment,) = tree["fragments"]
    assert fragment["predicates"] == [{"text": "mag < 5", "use": "prunes parts by statistics"}]
    assert fragment["actual"]["rows"] == tree["actual"]["rows"] > 0
    assert sum(worker["tasks"] for worker in fragment["actual"]["workers"]) == fragment["tasks"]
    assert tree["actual"]["seconds"]["total"] > 0
    text = get(str(where)).text
    assert "actual:" in text
    assert "slowest: task" in text
    assert run(["explain", COUNT, "--url", url, "--analyze", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["estimated"]["seconds"] >= 0


def test_progress_in_python(store: Path) -> None:
    seen: list[QueryProgress] = []
    with connect(store) as client:
        result = client.query(ENDLESS, on_progress=seen.append)
        assert client.running()[0].query == result.query

        def cancel_soon() -> None:
            while not any(one.phase in (QueryPhase.RUNNING, QueryPhase.MERGING) for one in seen):
                time.sleep(0.05)
            client.cancel(result.query)

        thread = threading.Thread(target=cancel_soon, daemon=True)
        thread.start()
        with pytest.raises(QueryCancelledError):
            result.to_arrow()
        thread.join(10)
        assert result.progress().phase is QueryPhase.CANCELLED
        fractions = [one.fraction for one in seen]
        assert fractions == sorted(fractions)
        dropped = client.query(COUNT)
        dropped.close()
        assert client.running() == ()


def test_dead_workers_are_told(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = ClusterSettings(addresses=(address,), dispatch=DispatchSettings(watch=WatchSettings(lease_s=1.0)))
    with served(store, settings) as url:
        availability = get(f"{url}/availability").text
        assert "<vosi:available>false</vosi:available>" in availability
        assert "1 of 1 workers cannot be used" in availability
        assert run(["status", "--url", url]) == 0
        said = capsys.readouterr().out
        assert ": lost" in said
        assert "no worker is alive" in said


def test_rates_are_learned_and_kept(store: Path) -> None:
    with connect(store) as client:
        for _ in range(30):
            client.query("SELECT AVG(mag) AS m FROM sky.stars WHERE id <> 7").to_arrow()
    _, registry = open_store(store)
    with registry:
        rates: dict[str, Any] = dict(registry.rates())
    assert 0 < rates["dispatch_s"] < 1
