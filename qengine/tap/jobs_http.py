"""/async: jobs over HTTP, UWS 1.1.

    /async                         GET the list (PHASE, AFTER, LAST), POST makes a job
    /async/<job>                   GET its document (WAIT, PHASE), POST parameters, PHASE or ACTION=DELETE, DELETE
    /async/<job>/phase             GET, POST PHASE=RUN|ABORT        /async/<job>/parameters         GET, POST
    /async/<job>/executionduration GET, POST                        /async/<job>/results            GET
    /async/<job>/destruction       GET, POST                        /async/<job>/results/result     GET the rows
    /async/<job>/quote, owner      GET                              /async/<job>/error              GET as VOTable

What changes a job is answered with 303 to what it has become. A job is its owner's: for others there is none of this id, also in
the answers' times and words. A job that nobody in particular has made is open to all who know its id, 122 random bits; it is in
nobody's list, unless the service is set up for one person (`JobSettings.lists_anonymous`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

import pyarrow as pa
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route

from qengine.catalog.database import now
from qengine.catalog.jobs import Job, JobStore, Phase, UnknownJobError, unknown_job
from qengine.catalog.registry import Registry
from qengine.catalog.user_tables import UserTables
from qengine.errors import DataError, LimitError, QueryError, error_from_json
from qengine.tap import jobs, jobs_xml
from qengine.tap.failure import error_response
from qengine.tap.formats.votable import error_document
from qengine.tap.identity import identity_of
from qengine.tap.jobs import JobSettings
from qengine.tap.limits import UNLIMITED, Gate, Limits, check_storage
from qengine.tap.parameters import Parameters, check_max_cost, check_snapshots, check_statement
from qengine.tap.results import ResultFolder
from qengine.tap.runner import JobRunner, running
from qengine.tap.service import AnsweringService, TapSettings
from qengine.tap.sync import MAXREC_HEADER, STATUS_HEADER, received, while_connected
from qengine.tap.uploads import Uploads
from qengine.tap.waiting import PhaseWatch

_XML = {"content-type": "text/xml", "cache-control": "no-store"}
_TEXT = {"content-type": "text/plain", "cache-control": "no-store"}
_DELETED_AT_ONCE = 1000
_SHOWN_AFTER_DELETION = 20
"""A client is sent to the list; pyvo reads it, and a long one takes long."""

_QUOTE_S = 20.0

log = logging.getLogger(__name__)

Handle = Callable[[Request, Parameters], Awaitable[Response]]
Guard = Callable[[Request, Handle], Awaitable[Response]]
"""Gathers the parameters of a request and answers what goes wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDesk:
    """What /async works with."""

    store: JobStore
    folder: ResultFolder
    service: AnsweringService
    settings: JobSettings
    runner: JobRunner
    watch: PhaseWatch
    gate: Gate
    tables: UserTables


@asynccontextmanager
async def offering_jobs(
    registry: Registry, service: AnsweringService, *, tap: TapSettings, settings: JobSettings, gate: Gate | None = None
) -> AsyncIterator[JobDesk]:
    """Run the jobs of a registry, with their results in its store, and yield what /async works with."""
    store, folder = registry.jobs, ResultFolder(registry.files)
    watch = PhaseWatch(store)
    gate = gate or Gate(UNLIMITED, tap)
    tables = UserTables(registry)
    runner = JobRunner(
        store, service, folder, tap=tap, gate=gate, users=registry.users, settings=settings, on_change=watch.look,
        table_bytes=tables.bytes_of,
    )  # fmt: skip
    async with running(runner):
        yield JobDesk(
            store=store, folder=folder, service=service, settings=settings, runner=runner, watch=watch, gate=gate,
            tables=tables,
        )  # fmt: skip


def routes(desk: JobDesk, guard: Guard, base: Callable[[Request], str], uploads: Uploads, *, path: str) -> list[Route]:
    """Return the routes of /async below `path`; `base` returns the address of the service."""
    handlers = _Handlers(desk, base, uploads)

    def route(end: str, handle: Handle, *methods: str, start: str = "/async") -> Route:
        async def answer(request: Request) -> Response:
            return await guard(request, _missing_is_404(handle))

        return Route(f"{path}{start}{end}", answer, methods=list(methods))

    job = "/{job}"
    return [
        route("", handlers.listed, "GET"),
        route("", handlers.create, "POST"),
        route("", handlers.delete_many, "POST", start="/deletejobs"),
        route(job, handlers.document, "GET"),
        route(job, handlers.change, "POST"),
        route(job, handlers.delete, "DELETE"),
        route(f"{job}/phase", handlers.phase, "GET"),
        route(f"{job}/phase", handlers.set_phase, "POST"),
        route(f"{job}/executionduration", handlers.duration, "GET"),
        route(f"{job}/executionduration", handlers.set_duration, "POST"),
        route(f"{job}/destruction", handlers.destruction, "GET"),
        route(f"{job}/destruction", handlers.set_destruction, "POST"),
        route(f"{job}/quote", handlers.quote, "GET"),
        route(f"{job}/owner", handlers.owner, "GET"),
        route(f"{job}/parameters", handlers.parameters, "GET"),
        route(f"{job}/parameters", handlers.set_parameters, "POST"),
        route(f"{job}/error", handlers.error, "GET"),
        route(f"{job}/results", handlers.results, "GET"),
        route(f"{job}/results/{jobs_xml.RESULT}", handlers.result, "GET"),
    ]


def _missing_is_404(handle: Handle) -> Handle:
    async def answer(request: Request, parameters: Parameters) -> Response:
        try:
            return await handle(request, parameters)
        except UnknownJobError as error:
            return error_response(error, status=404)

    return answer


class _Handlers:
    """Handlers over one desk. Each finds the job first, as the one who asks may see it."""

    def __init__(self, desk: JobDesk, base: Callable[[Request], str], uploads: Uploads) -> None:
        self._desk = desk
        self._store = desk.store
        self._settings = desk.settings
        self._base = base
        self._uploads = uploads
        self._quoting: set[asyncio.Task[None]] = set()

    # -- the list -------------------------------------------------------------------------------------------------------------

    async def listed(self, request: Request, parameters: Parameters) -> Response:
        phases = jobs.parse_phases(parameters.values.get("PHASE", ()))
        after = jobs.parse_time(words, "AFTER") if (words := parameters.one("AFTER")) else None
        last = parameters.one("LAST")
        if last and (not last.isascii() or not last.isdigit() or not 0 < int(last[:10]) < 10**9):
            raise QueryError(f"LAST={last} is not a number of jobs", hint="give a whole number larger than 0")
        user = identity_of(request).user
        found: tuple[Job, ...] = ()
        if user or self._settings.lists_anonymous:
            wanted = int(last) if last else None
            found = await asyncio.to_thread(self._store.listed, user, phases=phases, after=after, last=wanted)
        return _xml(jobs_xml.job_list(found, self._base(request)))

    async def create(self, request: Request, parameters: Parameters) -> Response:
        tables = await received(request, parameters, self._uploads, self._desk.gate)
        job = jobs.create(parameters, identity_of(request), self._settings, at=now(), base_url=self._base(request))
        if _asked_phase(parameters, allowed=("RUN",)):
            job = jobs.run(job, at=now())
        limits = self._desk.gate.limits_of(identity_of(request))
        active_limit = self._settings.active_limit
        if limits.jobs is not None:
            active_limit = min(int(limits.jobs), active_limit or int(limits.jobs))

        def insert() -> None:
            if limits.jobs == 0:
                raise LimitError("jobs are not offered to you", hint="prove who you are, or use /sync")
            try:
                kept = self._keep(job, tables, limits)
                self._store.insert(kept, active_limit=active_limit)
            except BaseException:
                self._desk.folder.remove(job.id)
                raise

        await asyncio.to_thread(insert)
        self._begun(job)
        return self._see(request, job)

    # -- one job --------------------------------------------------------------------------------------------------------------

    async def document(self, request: Request, parameters: Parameters) -> Response:
        job = await self._find(request)
        wait_s = _wait(parameters.one("WAIT"))
        wanted = jobs.parse_phases(parameters.values.get("PHASE", ()))
        if wait_s and job.phase.is_active and (not wanted or job.phase in wanted):
            limit_s = self._settings.wait_s if wait_s < 0 else min(wait_s, self._settings.wait_s)
            await while_connected(request, self._desk.watch.changed(job.id, job.phase, within_s=limit_s))
            job = await self._find(request)
        ahead = await asyncio.to_thread(self._store.ahead, job) if job.phase is Phase.QUEUED else 0
        return _xml(jobs_xml.job_document(job, self._base(request), ahead=ahead))

    async def change(self, request: Request, parameters: Parameters) -> Response:
        action = parameters.one("ACTION").upper()
        if action == "DELETE":
            return await self.delete(request, parameters)
        if action:
            raise QueryError(f"ACTION={action} is not known here", hint="use ACTION=DELETE")
        if parameters.one("PHASE"):
            return await self.set_phase(request, parameters)
        return await self.set_parameters(request, parameters)

    async def delete(self, request: Request, parameters: Parameters) -> Response:
        await self._remove(await self._find(request))
        return RedirectResponse(f"{self._base(request)}/async?LAST={_SHOWN_AFTER_DELETION}", status_code=303)

    async def delete_many(self, request: Request, parameters: Parameters) -> Response:
        """What TapPlus of astroquery sends: JOB_IDS=a,b. All of them are there, or nothing is deleted."""
        ids = [one for value in parameters.values.get("JOB_IDS", ()) for one in value.split(",") if one]
        if not 0 < len(ids) <= _DELETED_AT_ONCE:
            raise QueryError(f"JOB_IDS names {len(ids)} jobs", hint=f"name 1 to {_DELETED_AT_ONCE} jobs, with commas between")
        found = [_visible(await asyncio.to_thread(self._store.find, one), request) for one in dict.fromkeys(ids)]
        for job in found:
            await self._remove(job)
        return _text(f"deleted {len(found)}")

    async def _remove(self, job: Job) -> None:
        with suppress(UnknownJobError):  # somebody was faster
            await asyncio.to_thread(self._store.remove, job.id)
        self._desk.runner.cancel(job.id)
        self._desk.watch.look()
        await asyncio.to_thread(self._desk.folder.remove, job.id)

    async def phase(self, request: Request, parameters: Parameters) -> Response:
        return _text((await self._find(request)).phase.value)

    async def set_phase(self, request: Request, parameters: Parameters) -> Response:
        wanted = _asked_phase(parameters, allowed=("RUN", "ABORT"))
        if not wanted:
            raise QueryError("PHASE is missing", hint="use PHASE=RUN or PHASE=ABORT")
        if wanted == "RUN":
            job = await self._edit(request, lambda old: jobs.run(old, at=now()))
            self._begun(job)
        else:
            job = await self._edit(request, lambda old: jobs.abort(old, at=now()))
            self._desk.runner.cancel(job.id)
            self._desk.watch.look()
        return self._see(request, job)

    async def duration(self, request: Request, parameters: Parameters) -> Response:
        return _text(str((await self._find(request)).duration_s))

    async def set_duration(self, request: Request, parameters: Parameters) -> Response:
        wanted = parameters.one("EXECUTIONDURATION")
        return self._see(request, await self._edit(request, lambda old: jobs.set_duration(old, wanted, self._settings)))

    async def destruction(self, request: Request, parameters: Parameters) -> Response:
        return _text(jobs.to_time((await self._find(request)).destruction))

    async def set_destruction(self, request: Request, parameters: Parameters) -> Response:
        wanted = parameters.one("DESTRUCTION")
        return self._see(
            request, await self._edit(request, lambda old: jobs.set_destruction(old, wanted, self._settings, at=now()))
        )

    async def quote(self, request: Request, parameters: Parameters) -> Response:
        expected = jobs_xml.quote(await self._find(request))
        return _text("" if expected is None else jobs.to_time(expected))

    async def owner(self, request: Request, parameters: Parameters) -> Response:
        return _text((await self._find(request)).owner)

    async def parameters(self, request: Request, parameters: Parameters) -> Response:
        return _xml(jobs_xml.parameters_document(await self._find(request)))

    async def set_parameters(self, request: Request, parameters: Parameters) -> Response:
        def change(old: Job) -> Job:
            return jobs.add_parameters(old, parameters, self._settings, at=now())

        if not parameters.values.get("UPLOAD"):
            return self._see(request, await self._edit(request, change))
        before = await self._find(request)
        change(before)  # what is wrong is said before tables are read
        tables = await received(request, parameters, self._uploads, self._desk.gate)
        limits = self._desk.gate.limits_of(identity_of(request))
        kept = await asyncio.to_thread(self._keep, replace(before, uploads={}), tables, limits)
        try:
            job = await self._edit(request, lambda old: jobs.add_uploads(change(old), kept.uploads))
        except BaseException:
            self._desk.folder.drop_uploads(kept)
            raise
        replaced = {name: one for name, one in before.uploads.items() if one not in job.uploads.values()}
        await asyncio.to_thread(self._desk.folder.drop_uploads, replace(job, uploads=replaced))
        return self._see(request, job)

    async def error(self, request: Request, parameters: Parameters) -> Response:
        job = await self._find(request)
        if not job.error:
            return Response("this job has no error\n", status_code=404, headers=_TEXT)
        return _error(job, 200)

    async def results(self, request: Request, parameters: Parameters) -> Response:
        return _xml(jobs_xml.results_document(await self._find(request), self._base(request)))

    async def result(self, request: Request, parameters: Parameters) -> Response:
        job = await self._find(request)
        if job.error:  # there are clients who look here only
            return _error(job, 404)
        if job.phase is not Phase.COMPLETED:
            return Response(f"this job is {job.phase.value}: it has no result\n", status_code=404, headers=_TEXT)
        path = await asyncio.to_thread(self._desk.folder.result, job)
        if not path.is_file():
            raise DataError(f"the result of job {job.id} is lost", hint="run the query again")
        # Set by hand: Starlette would add a charset to text types, and the media type is to be echoed.
        headers = {
            "content-type": str(job.result["media_type"]),
            STATUS_HEADER: "OVERFLOW" if job.result["is_overflow"] else "OK",
            MAXREC_HEADER: str(job.result["maxrec"]),
        }
        return FileResponse(path, headers=headers)

    # -- what they share ------------------------------------------------------------------------------------------------------

    def _keep(self, job: Job, tables: Mapping[str, pa.Table], limits: Limits) -> Job:
        """Keep tables beside the results of a job, if its owner may keep so much, and return the job that has them."""
        kept = self._desk.folder.save_uploads(job, tables) if tables else job
        try:
            added = sum(int(one["bytes"]) for one in kept.uploads.values())
            kept_bytes, table_bytes = self._store.kept_bytes, self._desk.tables.bytes_of
            check_storage(lambda: kept_bytes(job.owner) + table_bytes(job.owner) + added, limits)
        except BaseException:
            self._desk.folder.drop_uploads(kept)
            raise
        return kept

    async def _find(self, request: Request) -> Job:
        return _visible(await asyncio.to_thread(self._store.find, request.path_params["job"]), request)

    async def _edit(self, request: Request, change: Callable[[Job], Job]) -> Job:
        return await asyncio.to_thread(self._store.edit, request.path_params["job"], lambda old: change(_visible(old, request)))

    def _see(self, request: Request, job: Job) -> Response:
        return RedirectResponse(f"{self._base(request)}/async/{job.id}", status_code=303)

    def _begun(self, job: Job) -> None:
        """Have a job run that is queued now, and estimate its end meanwhile."""
        if job.phase is Phase.QUEUED:
            self._desk.runner.wake()
            task = asyncio.create_task(self._estimate(job))
            self._quoting.add(task)
            task.add_done_callback(self._quoting.discard)

    async def _estimate(self, job: Job) -> None:
        given = jobs.query_parameters(job)
        try:
            language, text = check_statement(given)
            work = self._desk.service.explain(
                text,
                language=language,
                snapshots=check_snapshots(given) or None,
                max_cost=check_max_cost(given),
                identity=jobs.identity_of_job(job),
                uploads=await asyncio.to_thread(self._desk.folder.uploads, job),
            )
            plan = (await asyncio.wait_for(work, _QUOTE_S)).to_json()
            seconds = plan.get("estimated", {}).get("seconds")
            if isinstance(seconds, int | float):
                await asyncio.to_thread(self._store.edit, job.id, lambda old: _quoted(old, float(seconds)))
        except Exception as error:  # what is wrong with the query is said when it runs
            log.debug("job %s has no quote: %s", job.id, error)


def _quoted(job: Job, seconds: float) -> Job:
    return jobs.expected_end(job, seconds, at=now()) if job.phase.is_active else job


def _visible(job: Job, request: Request) -> Job:
    identity = identity_of(request)
    if job.owner and job.owner != identity.user and not identity.is_admin:
        raise unknown_job(job.id)
    return job


def _asked_phase(parameters: Parameters, *, allowed: tuple[str, ...]) -> str:
    wanted = parameters.one("PHASE").upper()
    if wanted and wanted not in allowed:
        raise QueryError(f"PHASE={wanted} cannot be asked for here", hint=f"use PHASE={' or PHASE='.join(allowed)}")
    return wanted


def _wait(text: str) -> float:
    """Return how long WAIT asks to wait: 0 not at all, less as long as there is."""
    if not text:
        return 0.0
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdigit():
        raise QueryError(f"WAIT={text} is not a number of seconds", hint="give a whole number, or -1")
    return float(text[:10])


def _error(job: Job, status: int) -> Response:
    return Response(error_document(error_from_json(job.error)), status, {**_XML, "content-type": "application/x-votable+xml"})


def _xml(document: str) -> Response:
    return Response(document, headers=_XML)


def _text(words: str) -> Response:
    return Response(words, headers=_TEXT)
