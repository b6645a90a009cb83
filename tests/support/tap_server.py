"""The TAP service with jobs over any query service, on a free port, in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qengine.catalog.registry import Registry
from qengine.tap.app import create_app
from qengine.tap.credentials import Doorkeeper
from qengine.tap.jobs import JobSettings
from qengine.tap.jobs_http import offering_jobs
from qengine.tap.limits import Gate
from qengine.tap.server import listening
from qengine.tap.service import AnsweringService, TapSettings
from qengine.tap.upload_scan import UploadLimits


@contextmanager
def serving_tap(
    service: AnsweringService,
    root: Path,
    *,
    url: str | None = None,
    tap: TapSettings | None = None,
    jobs: JobSettings | None = None,
    door: Doorkeeper | None = None,
    gate: Gate | None = None,
    uploads: UploadLimits | None = None,
) -> Iterator[str]:
    """Serve `service` with jobs kept in the registry of the store `root`, and yield the address, `http://127.0.0.1:<port>/tap`."""
    started = threading.Event()
    addresses: list[str] = []
    failures: list[BaseException] = []
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        ending = asyncio.Event()
        loops.append((asyncio.get_running_loop(), ending))
        chosen = tap or TapSettings()
        with Registry.open(root, url=url) as registry:
            async with (
                offering_jobs(registry, service, tap=chosen, settings=jobs or JobSettings(), gate=gate) as desk,
                listening(create_app(service, chosen, jobs=desk, door=door, gate=gate, uploads=uploads)) as server,
            ):
                addresses.append(server.address)
                started.set()
                await ending.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failures.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    started.wait(30)
    if not addresses:
        raise RuntimeError("the server did not start") from (failures[0] if failures else None)
    try:
        yield f"{addresses[0]}/tap"
    finally:
        loop, ending = loops[0]
        loop.call_soon_threadsafe(ending.set)
        thread.join(30)
        assert not failures, failures
