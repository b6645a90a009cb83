"""The composition root: the one place that knows all parts and puts them together.

A *cluster* is a query service over a store with its workers. Workers are threads of this process, processes of this machine that
the cluster starts and ends itself, or processes that run already, named by their addresses; the service cannot tell them apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qengine.catalog.query_log import QueryLog, QueryLogSettings
from qengine.catalog.releases import release_state
from qengine.client.local import LocalClient
from qengine.client.remote import RemoteClient
from qengine.config import Config
from qengine.coordinator.dispatch import Dispatcher, DispatchSettings
from qengine.coordinator.leases import leasing
from qengine.coordinator.merge import Merger, MergeSettings
from qengine.coordinator.rates import RateKeeper
from qengine.coordinator.service import QueryService, ServiceSettings
from qengine.errors import ConfigError
from qengine.opening import open_store
from qengine.storage import place
from qengine.storage.bucket import is_bucket
from qengine.storage.cache import CacheSettings, PartCache
from qengine.storage.keyindex import KeyReader
from qengine.storage.objects import Store
from qengine.transport.channel import WorkerChannel
from qengine.transport.grpc_channel import GrpcChannel
from qengine.worker.local import in_process_channel
from qengine.worker.settings import WorkerSettings
from qengine.worker.supervise import keep_worker

if TYPE_CHECKING:
    from qengine.tap.credentials import AccessSettings
    from qengine.tap.jobs import JobSettings
    from qengine.tap.limits import LimitSettings
    from qengine.tap.mydb_keep import MydbSettings
    from qengine.tap.service import TapSettings
    from qengine.tap.upload_scan import UploadLimits
    from qengine.tap.web import HttpSettings

_GC_THRESHOLDS = (20_000, 5, 5)
"""New objects, collections of them and collections of the middle generation before the next older generation is looked at.

What many queries at once leave behind is old by the time they end. So the oldest generation is looked at every half a million
objects: with rarer looks, gigabytes waited for it.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """`workers` is how many worker processes to start; 0 runs everything in this process. `addresses` are workers that run already
    (then none is started). `slots` is how many tasks a worker runs at once. `cache` is for the
    parts of an object store, on the disk of each worker."""

    workers: int = 0
    slots: int = 1
    addresses: tuple[str, ...] = ()
    registry_url: str | None = None
    cache: CacheSettings = field(default_factory=CacheSettings)
    dispatch: DispatchSettings = field(default_factory=DispatchSettings)
    service: ServiceSettings = field(default_factory=ServiceSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """How the service presents itself, whom it lets in, who may ask for how much, what it logs, how it runs jobs, how it speaks
    HTTP, what tables it takes with a query, and how it makes those of users."""

    tap: TapSettings
    access: AccessSettings
    limits: LimitSettings
    log: QueryLogSettings
    jobs: JobSettings
    http: HttpSettings
    uploads: UploadLimits
    mydb: MydbSettings


@contextlib.asynccontextmanager
async def cluster(
    root: Path | str,
    settings: ClusterSettings | None = None,
    *,
    channels: Sequence[WorkerChannel] | None = None,
    query_log: QueryLog | None = None,
) -> AsyncIterator[QueryService]:
    """Open a store and serve queries over it until the context ends; `query_log` is told of each. `channels` replaces the workers
    (for tests of faults)."""
    settings = settings or ClusterSettings()
    store, registry = open_store(root, registry_url=settings.registry_url)
    with contextlib.ExitStack() as stack:
        stack.enter_context(registry)
        work_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qengine-coordinator-")))
        if channels is None:
            channels = _channels(store, settings, stack, work_dir)
        merger = Merger(MergeSettings(temp_dir=work_dir / "merge"))
        epoch = time.time_ns()
        rates = RateKeeper(registry)
        async with merger, Dispatcher(channels, epoch=epoch, settings=settings.dispatch) as dispatcher:
            service = QueryService(
                registry, dispatcher=dispatcher, merger=merger, keys=KeyReader(store), settings=settings.service, rates=rates,
                rights=partial(registry.rights.current, release_state(settings.service.unstated)), query_log=query_log,
            )  # fmt: skip
            releases = registry.releases
            async with leasing(service.reading, lambda holder, reads, s: releases.hold(holder, reads, seconds=s)):
                yield service
        await rates.close()


def _channels(store: Store, settings: ClusterSettings, stack: contextlib.ExitStack, work_dir: Path) -> list[WorkerChannel]:
    if settings.addresses:
        return [GrpcChannel(address) for address in settings.addresses]
    root, address = place.parts_place(store)
    if settings.workers:
        given = WorkerSettings(store_root=root, far=address, cache_bytes=settings.cache.bytes)
        return [
            GrpcChannel(stack.enter_context(keep_worker(root, worker=f"w{number}", slots=settings.slots, settings=given)))
            for number in range(settings.workers)
        ]
    # Scans leave one slot to interactive queries, so that one more than there are cores keeps all cores busy.
    slots = max(len(os.sched_getaffinity(0)), settings.slots) + 1
    cache = PartCache(root, address, settings.cache) if address else None
    return [in_process_channel(root, slots=slots, work_dir=work_dir / "local", cache=cache)]


def connect(store_or_url: Path | str, workers: int = 0, *, token: str = "") -> LocalClient | RemoteClient:
    """Connect to a store (a directory, or `s3://bucket/prefix`) or to a running service (an http URL).

    A store is served by this process, or by `workers` worker processes on this machine that live as long as the connection. A
    service is told by `token`, or the one in the variable QENGINE_TOKEN, who asks. Use the client as a context manager.
    """
    text = str(store_or_url)
    if "://" in text and not is_bucket(text):
        if workers:
            raise ConfigError("workers belong to a store, not to a running service", hint="leave out workers with a URL")
        return RemoteClient(text, token=token)
    if workers < 0:
        raise ConfigError(f"{workers} workers cannot be started", hint="0 runs everything in this process")
    open_store(text)[1].close()
    return LocalClient(cluster(text, ClusterSettings(workers=workers)))


def serve(
    store: Path | str, *, workers: int = 2, port: int = 8080, host: str = "127.0.0.1", addresses: tuple[str, ...] = ()
) -> None:
    """Serve a store over TAP until Ctrl-C or SIGTERM: a coordinator in this process, `workers` worker processes, HTTP at /tap.

    With `addresses` of running workers (`qengine worker`), which must see the same store, none is started.

    Settings come from the TOML file that QENGINE_CONFIG names and from the environment: sections tap, http, access, limits, log,
    jobs, uploads, mydb, cache, dispatch and service.
    """
    # The web framework takes long to import, and only a service needs it.
    from qengine.tap.credentials import AccessSettings
    from qengine.tap.jobs import JobSettings
    from qengine.tap.limits import LimitSettings
    from qengine.tap.mydb_keep import MydbSettings
    from qengine.tap.service import TapSettings
    from qengine.tap.upload_scan import UploadLimits
    from qengine.tap.web import HttpSettings

    file = os.environ.get("QENGINE_CONFIG")
    config = Config.read(Path(file) if file else None, os.environ)
    tap = config.fill("tap", TapSettings)
    access = config.fill("access", AccessSettings)
    limits = config.fill("limits", LimitSettings)
    log = config.fill("log", QueryLogSettings)
    jobs = config.fill("jobs", JobSettings)
    http = config.fill("http", HttpSettings)
    uploads = config.fill("uploads", UploadLimits)
    mydb = config.fill("mydb", MydbSettings)
    settings = ClusterSettings(
        workers=workers,
        addresses=addresses,
        cache=config.fill("cache", CacheSettings),
        dispatch=config.fill("dispatch", DispatchSettings),
        service=config.fill("service", ServiceSettings),
    )
    config.finish()
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        front = Front(tap=tap, access=access, limits=limits, log=log, jobs=jobs, http=http, uploads=uploads, mydb=mydb)
        asyncio.run(_serve(store, settings, front, host=host, port=port))


async def _serve(store: Path | str, settings: ClusterSettings, front: Front, *, host: str, port: int) -> None:
    from qengine.tap.access import Doorkeeper
    from qengine.tap.app import create_app
    from qengine.tap.jobs_http import offering_jobs
    from qengine.tap.limits import Gate
    from qengine.tap.logs import start_logging
    from qengine.tap.mydb_into import KeepingService
    from qengine.tap.mydb_keep import Keeper
    from qengine.tap.server import listening
    from qengine.tap.sharing import sharing

    serving = asyncio.current_task()
    if serving is not None:
        # Ctrl-C cancels the task already; a service manager's SIGTERM ends workers and requests in the same orderly way.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    with contextlib.ExitStack() as around:
        files, registry = open_store(store, registry_url=settings.registry_url)
        around.enter_context(registry)
        door, gate = Doorkeeper(registry.users, front.access), Gate(front.limits, front.tap)
        query_log = around.enter_context(registry.query_log(front.log))
        keeper = Keeper(registry, files, gate, front.mydb)
        async with (
            cluster(store, settings, query_log=query_log) as engine,
            contextlib.nullcontext(KeepingService(engine, keeper, gate)) as service,
            offering_jobs(registry, service, tap=front.tap, settings=front.jobs, gate=gate) as desk,
            sharing(gate, registry.demand()),
            listening(
                create_app(
                    service, front.tap, jobs=desk, door=door, gate=gate, http=front.http, uploads=front.uploads, keeper=keeper
                ),
                host=host,
                port=port,
                shutdown_s=front.http.shutdown_s,
            ) as server,
        ):
            if front.http.log == "json":
                start_logging()
            _spare_collector()
            print(f"TAP at {server.address}/tap, {_who(settings, engine)}; Ctrl-C stops it", file=sys.stderr, flush=True)
            await server.wait()


def _spare_collector() -> None:
    """Tell the garbage collector of this process, which is all ours, that what is loaded by now stays, and to come less often.

    Trees of statements are cyclic, so that it comes several times for each query; looking at all modules again took a fifth of a
    small query's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def _who(settings: ClusterSettings, service: QueryService) -> str:
    """Say who answers, and which workers could not be reached: they are tried again all the time."""
    lost = [state for state in service.workers() if not state.is_alive]
    count = (len(settings.addresses) or settings.workers) - len(lost)
    if lost:
        reasons = ", ".join(f"{state.worker} ({state.error})" if state.error is not None else str(state.worker) for state in lost)
        return f"answered by {count} of {count + len(lost)} workers so far, not by {reasons}"
    return "answered by " + {0: "this process", 1: "one worker"}.get(count, f"{count} workers")
