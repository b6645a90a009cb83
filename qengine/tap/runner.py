"""Runs the jobs of a registry in this process.

Every half second, and whenever somebody wakes it up, the runner

1. looks at the jobs that it runs: one that was aborted, deleted or taken over by another process is cancelled;
2. every few seconds renews its leases, and keeps how far each job is where other processes can see it;
3. claims as many jobs as it has room for, and as their owners may have running at all processes together; of dead processes too:
   those whose leases ran out, and at once those of this machine that are no more;
4. every minute removes jobs whose time of destruction has come, and files that no job has.

A job's query runs as one of /sync does, and its bytes go to a file that takes its name when it is whole and on the disk; then the
job is COMPLETED in one transaction, if it is still this runner's (`catalog.jobs`), or else the file is removed. So a result is
published once, whatever dies in between. The query runs again from its beginning when its process has died.

A runner that stops gives back what it runs; another process, or itself after a restart, goes on with it at once.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from qengine.catalog.database import now
from qengine.catalog.jobs import Job, JobStore, Json, LostClaimError, Phase
from qengine.catalog.users import Users
from qengine.catalog.who import Identity, Origin
from qengine.errors import (
    CredentialsError,
    LimitError,
    PoisonTaskError,
    QEngineError,
    QueryCancelledError,
    QueryTimeoutError,
    StoreUnavailableError,
)
from qengine.tap import jobs
from qengine.tap.failure import as_known
from qengine.tap.jobs import JobSettings
from qengine.tap.limits import UNLIMITED, Gate, Limits, check_room, limited
from qengine.tap.parameters import SyncRequest, check_sync
from qengine.tap.results import ResultFolder, orphans
from qengine.tap.service import AnsweringService, TapSettings
from qengine.tap.stream import Opened, ask, opened, pieces

log = logging.getLogger(__name__)

_EVERY_S = 0.5
_RENEW_S = 2.0
_SWEEP_S = 60.0
_AGAIN_S = 1.0
_WRITTEN_BYTES = 1 << 20


@dataclass(slots=True)
class _Run:
    """A job that runs here. `is_over` says that its outcome is certain and is being written down; all jobs of its owner
    `may_keep` so many bytes then."""

    job: Job
    query: str
    opened: Opened | None = None
    bytes: int = 0
    may_keep: float = math.inf
    is_over: bool = False
    task: asyncio.Task[None] = field(init=False)


class JobRunner:
    """Runs jobs between `start` and `stop`. `wake` says that there may be something to do, `cancel` that a job is not wanted any
    more. `on_change` is called when a job has begun or ended here. `table_bytes` returns what an owner's tables take of
    their storage."""

    def __init__(
        self,
        store: JobStore,
        service: AnsweringService,
        folder: ResultFolder,
        *,
        tap: TapSettings,
        settings: JobSettings,
        gate: Gate | None = None,
        users: Users | None = None,
        table_bytes: Callable[[str], int] = lambda _: 0,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._table_bytes = table_bytes
        self._service = service
        self._folder = folder
        self._gate = gate or Gate(UNLIMITED, tap)
        self._users = users
        self._settings = settings
        self._on_change = on_change
        self._holder = _Holder.own()
        self._runs: dict[str, _Run] = {}
        self._woken = asyncio.Event()
        self._is_stopping = False
        self._renewed_at = self._swept_at = 0.0
        self._work: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to run jobs, in the running event loop."""
        self._work = asyncio.create_task(self._loop())

    async def stop(self) -> None:
        """End all runs and give their jobs back."""
        self._is_stopping = True
        self._woken.set()
        if self._work is not None:
            await self._work  # not cancelled: it may be claiming jobs in a thread
        left = list(self._runs.values())
        for run in left:
            if not run.is_over:
                run.task.cancel()
        await asyncio.gather(*(run.task for run in left), return_exceptions=True)
        with suppress(QEngineError):
            await asyncio.to_thread(self._store.give_back, [run.job.claim for run in left])

    def wake(self) -> None:
        """Look for work now."""
        self._woken.set()

    def cancel(self, job: str) -> None:
        """End the run of a job that was aborted or deleted, if it is here."""
        run = self._runs.get(job)
        if run is not None and not run.is_over:
            run.task.cancel()

    # -- the loop -------------------------------------------------------------------------------------------------------------

    async def _loop(self) -> None:
        trouble = ""
        while not self._is_stopping:
            self._woken.clear()
            try:
                await self._beat()
                trouble = ""
            except Exception as error:  # a registry that is away may be back next time; once is enough to say so
                if trouble != (trouble := str(as_known(error))):
                    log.warning("jobs cannot be looked after now: %s", trouble)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), _EVERY_S)

    async def _beat(self) -> None:
        if self._runs:
            await self._watch()
        room = self._settings.running - len(self._runs)
        if room > 0:
            for job in await asyncio.to_thread(self._claim, room):
                self._begin(job)
        if time.monotonic() - self._swept_at > _SWEEP_S:
            self._swept_at = time.monotonic()
            await asyncio.to_thread(self._sweep)

    async def _watch(self) -> None:
        looked_at = list(self._runs.values())
        phases = await asyncio.to_thread(self._store.phases, [run.job.id for run in looked_at])
        for run in looked_at:
            if phases.get(run.job.id) is not Phase.EXECUTING:
                self.cancel(run.job.id)
        if time.monotonic() - self._renewed_at > min(_RENEW_S, self._settings.lease_s / 4):
            progress = {run.job.id: self._progress(run) for run in looked_at}
            held = await asyncio.to_thread(self._store.renew, self._holder.name, progress, lease_s=self._settings.lease_s)
            self._renewed_at = time.monotonic()
            for run in looked_at:
                if held.get(run.job.id) != run.job.epoch:
                    self.cancel(run.job.id)

    def _claim(self, room: int) -> tuple[Job, ...]:
        dead = [name for name in self._store.holders() if _Holder(name).is_dead()]
        allowed = self._allowed if self._gate.limits_running_jobs else None
        return self._store.claim(self._holder.name, room, lease_s=self._settings.lease_s, dead=dead, allowed=allowed)

    def _allowed(self, job: Job) -> float:
        """Return how many jobs of its owner may run at a time."""
        before = jobs.identity_of_job(job)
        found = before if self._users is None else self._users.still(before)
        # Who is not let in any more is told so when the job runs.
        running = None if found is None else self._gate.limits_of(found).running
        return math.inf if running is None else running

    def _sweep(self) -> None:
        for job in self._store.due():
            with suppress(QEngineError):  # another process may have been faster
                self._store.remove(job.id)
            self._folder.remove(job.id)
            log.info("job %s has reached its time of destruction", job.id)
        present = self._folder.present()
        for name in orphans(present, self._store.known()):
            self._folder.remove(name)

    # -- one job --------------------------------------------------------------------------------------------------------------

    def _begin(self, job: Job) -> None:
        run = _Run(job, f"{job.id}-{job.epoch}")
        self._runs[job.id] = run
        run.task = asyncio.create_task(self._execute(run))
        run.task.add_done_callback(lambda _: self._forget(run))
        self._on_change()

    def _forget(self, run: _Run) -> None:
        del self._runs[run.job.id]
        self._woken.set()
        self._on_change()

    async def _execute(self, run: _Run) -> None:
        job = run.job
        log.info("job %s runs, epoch %d", job.id, job.epoch)
        try:
            result = await self._within_duration(run)
        except QueryCancelledError:  # by its query's id
            await self._end(run, lambda old: jobs.abort(old, at=now()))
        except Exception as error:  # whatever it was, it is the job's end
            known = as_known(error)
            await self._end(run, lambda old: jobs.fail(old, known, at=now()))
        else:
            await self._end(run, lambda old: jobs.complete(old, result, at=now()), may_keep=run.may_keep)

    async def _within_duration(self, run: _Run) -> Json:
        job = run.job
        if job.losses >= self._settings.losses:
            raise PoisonTaskError(
                f"the service has ended {job.losses} times while this job was running; it is not tried again",
                hint="make the query smaller, or ask the operators of the service",
            )
        identity = await self._owner(job)
        limits, allowed = self._gate.limits_of(identity), self._gate.settings_for(identity)
        duration_s = min(job.duration_s or math.inf, math.inf if limits.job_seconds is None else limits.job_seconds)
        clock = asyncio.timeout(None if math.isinf(duration_s) else duration_s)
        try:
            async with clock:
                uploads = await asyncio.to_thread(self._folder.uploads, job) if job.uploads else None
                checked = check_sync(
                    jobs.query_parameters(job), default_maxrec=allowed.maxrec, maxrec_limit=allowed.maxrec_limit, uploads=uploads
                )
                return await self._answer(run, limited(checked, limits), limits, identity)
        except TimeoutError as error:
            if not clock.expired():
                raise
            raise QueryTimeoutError(
                f"the execution took longer than its limit of {duration_s:.0f} s",
                hint="set a longer executionduration, or narrow the query",
            ) from error

    async def _owner(self, job: Job) -> Identity:
        """Return whose job it is, as they are known now: it may have waited for long."""
        before = jobs.identity_of_job(job)
        found = before if self._users is None else await asyncio.to_thread(self._users.still, before)
        if found is None:
            raise CredentialsError(f"{before.user} is not let in any more")
        return found

    async def _answer(self, run: _Run, checked: SyncRequest, limits: Limits, identity: Identity) -> Json:
        answer = await ask(
            self._service, checked, query_id=run.query, identity=identity, origin=Origin("async", f"job {run.job.id}")
        )
        base_url = self._gate.settings_for(identity).base_url or jobs.base_url_of_job(run.job)
        result = run.opened = await opened(answer, checked, partial(self._service.catalog, identity=identity), base_url=base_url)
        result.allowed_bytes = limits.bytes
        path = self._folder.target(run.job, checked.format.suffix)
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            await self._fill(temporary, result, run, await self._room(run, limits))
            await self._room(run, limits)  # others of the owner may have ended meanwhile
            await asyncio.to_thread(self._folder.publish, temporary, path)
        except OSError as error:
            raise StoreUnavailableError(f"the result cannot be written: {error.strerror}", hint="try again later") from error
        finally:
            result.writer.close()
            await result.answer.close()
            temporary.unlink(missing_ok=True)
        return {
            "file": path.name, "media_type": checked.content_type, "rows": result.rows, "bytes": run.bytes,
            "is_overflow": result.is_overflow, "maxrec": checked.maxrec, "warnings": list(answer.warnings),
            "snapshots": dict(answer.snapshots),
        }  # fmt: skip

    async def _room(self, run: _Run, limits: Limits) -> float:
        """Return how many bytes the result may have. Raise `LimitError` if it has more."""
        if limits.storage is None:
            return math.inf
        run.may_keep = limits.storage - await asyncio.to_thread(self._table_bytes, run.job.owner)
        room = run.may_keep - await asyncio.to_thread(self._store.kept_bytes, run.job.owner)
        check_room(run.bytes, room)
        return room

    async def _fill(self, path: Path, result: Opened, run: _Run, room: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._folder.clear_older(run.job)
        held: list[bytes] = []
        size = 0
        with path.open("wb", buffering=0) as file:
            async with aclosing(pieces(result)) as stream:
                async for piece in stream:
                    held.append(piece)
                    size += len(piece)
                    run.bytes += len(piece)
                    check_room(run.bytes, room)
                    if size >= _WRITTEN_BYTES:
                        await asyncio.to_thread(_write, file, b"".join(held))
                        held, size = [], 0
            await asyncio.to_thread(_write, file, b"".join(held))

    async def _end(self, run: _Run, change: Callable[[Job], Job], *, may_keep: float = math.inf) -> None:
        run.is_over = True
        while True:
            try:
                ended = await asyncio.to_thread(self._store.edit, run.job.id, change, claim=run.job.claim, may_keep=may_keep)
            except LostClaimError as error:
                log.info("job %s: %s", run.job.id, error)
                await asyncio.to_thread(self._folder.clear_own, run.job)
                return
            except LimitError as error:  # others of the owner have ended at the same time
                await asyncio.to_thread(self._folder.clear_own, run.job)
                await self._end(run, partial(jobs.fail, error=error, at=now()))
                return
            except QEngineError as error:
                log.warning("the end of job %s cannot be kept now: %s", run.job.id, error)
                if self._is_stopping:
                    return
                await asyncio.sleep(_AGAIN_S)
            else:
                log.info("job %s is %s", ended.id, ended.phase.value)
                return

    def _progress(self, run: _Run) -> Json:
        found: dict[str, Any] = {
            "query": run.query,
            "rows": run.opened.rows if run.opened is not None else 0,
            "bytes_written": run.bytes,
        }
        with suppress(QEngineError):
            known = self._service.progress(run.query).to_json()
            names = ("phase", "fraction", "eta_s", "bytes_done", "bytes_total", "tasks_done", "tasks", "tasks_running")
            found |= {name: known[name] for name in names}
        return found


def _write(file: Any, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]


@asynccontextmanager
async def running(runner: JobRunner) -> AsyncIterator[JobRunner]:
    """Run jobs until the block ends."""
    runner.start()
    try:
        yield runner
    finally:
        await runner.stop()


@dataclass(frozen=True, slots=True)
class _Holder:
    """Who holds leases: a machine, a process of it, when that began, and which of its runners."""

    name: str

    @classmethod
    def own(cls) -> Self:
        return cls(f"{_machine()}:{os.getpid()}:{_began(os.getpid())}:{uuid4().hex}")

    def is_dead(self) -> bool:
        """Return whether its process was on this machine and is certainly no more."""
        machine, process, began, _ = (self.name.split(":") + [""] * 3)[:4]
        if machine != _machine() or not process.isdigit():
            return False
        found = _began(int(process))
        return found is not None and found != began


def _machine() -> str:
    return socket.gethostname().replace(":", "")[:64]


def _began(process: int) -> str | None:
    """Return when a process began, in ticks, empty if there is no such process; None where the system does not say."""
    try:
        # The second field is the program's name and may hold anything.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except FileNotFoundError:
        return "" if Path("/proc/self/stat").exists() else None
    except (OSError, IndexError):
        return None
