"""A whole service in this process for requests by chance: cluster, registry, users, jobs and application, without sockets.

Requests go to the ASGI application directly, which makes many of them cheap. What nobody foresees is not turned into 500 on its way
here: it is raised. Of `PRIVATE`, a catalogue that only ann may read, and of her job nothing may be in any answer.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from qengine.app import ClusterSettings, cluster
from qengine.catalog.registry import Registry
from qengine.tap.access import AccessSettings, Doorkeeper
from qengine.tap.app import create_app
from qengine.tap.jobs import JobSettings
from qengine.tap.jobs_http import offering_jobs
from qengine.tap.limits import Gate, LimitSettings
from qengine.tap.service import TapSettings
from tests.support.cluster import load_skies
from tests.support.sky_builder import build_sky

HANG_S = 10.0
PRIVATE, SECRET = "kwazoo", "zibbzebra"
INSIDE = re.compile(
    r'Traceback|File "|\.py\b|/tmp/|/work/|/home/|site-packages|(?<!\.)\.parquet|(?<!SQL-)duckdb|sqlglot|sqlalchemy|pyarrow|NoneType|object (?:is|has) no',
    re.IGNORECASE,
)
"""What errors must not tell; pages may name the SQL of DuckDB."""

OTHERS = re.compile(f"{PRIVATE}|{SECRET}|Traceback|/tmp/|site-packages", re.IGNORECASE)
"""What nobody is told."""


@dataclass
class FuzzedService:
    """The service of one event loop in another thread. `job` is the id of ann's job, `bob` the token of somebody else."""

    loop: asyncio.AbstractEventLoop
    client: httpx.AsyncClient
    ending: asyncio.Event
    sky: str
    bob: str
    ann: str
    job: str = ""
    sent: int = 0
    longest_s: float = 0.0

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Return the answer to a request; raise if it takes too long or fails unforeseen."""
        work = asyncio.wait_for(self.client.request(method, f"http://host/tap{path}", **more), HANG_S)
        began = time.monotonic()
        answer = asyncio.run_coroutine_threadsafe(work, self.loop).result(HANG_S + 5)
        self.longest_s = max(self.longest_s, time.monotonic() - began)
        self.sent += 1
        return answer

    def check(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Return the answer to a request when it is no fault of ours and tells nothing that it should not."""
        answer = self.ask(method, path, **more)
        what = (method, path, {name: value for name, value in more.items() if name != "headers"})
        assert answer.status_code < 500, (what, answer.text[:2000])
        is_error = answer.status_code >= 400 or b'"ERROR"' in answer.content[:1000]
        # What was sent may be quoted.
        sent = str(what).lower()
        told = [found[0] for found in (INSIDE if is_error else OTHERS).finditer(answer.text) if found[0].lower() not in sent]
        told += [found[0] for found in OTHERS.finditer(answer.text) if found[0].lower() not in sent]
        assert not told, (told, what, answer.text[:2000])
        return answer


@contextmanager
def fuzzed_service(folder: Path) -> Iterator[FuzzedService]:
    """Serve two skies, one of which is ann's."""
    open_sky, private = build_sky(7), build_sky(8, name=PRIVATE)
    root = load_skies(folder, [open_sky, private])
    ready, made, failures = threading.Event(), list[FuzzedService](), list[BaseException]()

    async def serve() -> None:
        tap = TapSettings(request_bytes=1_000_000, maxrec=1000)
        gate = Gate(LimitSettings(anonymous="queries=50", users="queries=50"), tap)
        with Registry.open(root) as registry:
            users = registry.users
            tokens = [users.create_token(users.add(name).name)[0] for name in ("ann", "bob")]
            registry.rights.grant(PRIVATE, "", "user:ann")
            async with (
                cluster(root, ClusterSettings()) as service,
                offering_jobs(registry, service, tap=tap, settings=JobSettings(active_limit=5), gate=gate) as desk,
            ):
                app = create_app(service, tap, jobs=desk, door=Doorkeeper(users, AccessSettings()), gate=gate)
                async with httpx.AsyncClient(transport=httpx.ASGITransport(app), timeout=None) as client:
                    one = FuzzedService(
                        asyncio.get_running_loop(), client, asyncio.Event(), open_sky.name, bob=tokens[1], ann=tokens[0]
                    )
                    made.append(one)
                    ready.set()
                    await one.ending.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failures.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait(60)
    if not made:
        raise RuntimeError("the service did not start") from failures[0]
    one = made[0]
    text = {"LANG": "ADQL", "QUERY": f"SELECT TOP 3 * FROM {PRIVATE}.Object", "RUNID": SECRET, "PHASE": "RUN"}
    found = one.ask("POST", "/async", data=text, headers={"Authorization": f"Bearer {one.ann}"})
    one.job = found.headers["location"].rpartition("/")[2]
    try:
        yield one
    finally:
        one.loop.call_soon_threadsafe(one.ending.set)
        thread.join(30)
        assert not failures, failures
