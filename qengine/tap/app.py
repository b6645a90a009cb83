"""The TAP web application: routes to thin handlers.

    /tap                   page for people        /tap/sync               queries (GET, POST form or multipart)
    /tap/tables[/<name>]   VOSI, or JSON          /tap/capabilities       TAPRegExt
    /tap/availability      VOSI                   /tap/query-plan         EXPLAIN as text or JSON
    /tap/progress          running queries and workers, as JSON
    /tap/progress/<id>     one query, as JSON; DELETE cancels it
    /tap/examples          statements to begin with, XHTML (`examples`)
    /tap/openapi.json      what of this no standard describes (`openapi`); /metrics is for Prometheus (`metrics`)
    /tap/links             what belongs to a row (`datalink`)
    /tap/async             jobs, UWS (`jobs_http`)
    /tap/mydb              tables of users (`mydb`)

What a request means is decided in `parameters.py`, answers come from the service, bytes from `formats/`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from qengine.catalog.model import Catalog
from qengine.catalog.summary import summarise
from qengine.catalog.who import LOCAL, Identity
from qengine.errors import QueryError, UnknownNameError
from qengine.tap import datalink, examples, jobs_http, metadata, metrics, mydb, openapi, sync
from qengine.tap.access import AccessMiddleware, Doorkeeper, security_methods
from qengine.tap.compression import CompressionMiddleware
from qengine.tap.cors import cors
from qengine.tap.failure import as_known, error_response
from qengine.tap.forms import parameters_of
from qengine.tap.identity import address_of, identity_of
from qengine.tap.jobs import JobSettings
from qengine.tap.jobs_http import JobDesk
from qengine.tap.limits import UNLIMITED, Gate
from qengine.tap.logs import Observer, ObservingMiddleware, notes_of, to_log
from qengine.tap.metrics import Metrics
from qengine.tap.mydb_keep import Keeper
from qengine.tap.page import landing_page
from qengine.tap.parameters import Parameters, check_max_cost, check_snapshots, check_statement
from qengine.tap.service import AnsweringService, TapSettings
from qengine.tap.upload_scan import UploadLimits
from qengine.tap.uploads import Uploads
from qengine.tap.web import HttpSettings, SizeMiddleware, TrimmingMiddleware, failed, refused

_XML = "text/xml"
_UNCACHED = {"cache-control": "no-store"}

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]


def create_app(
    service: AnsweringService,
    settings: TapSettings | None = None,
    *,
    base_url: str = "",
    jobs: JobDesk | None = None,
    door: Doorkeeper | None = None,
    gate: Gate | None = None,
    http: HttpSettings | None = None,
    uploads: UploadLimits | None = None,
    keeper: Keeper | None = None,
) -> Starlette:
    """Return the ASGI application that serves `service` under `/tap`, with asynchronous queries if there is a desk for them.

    `door` finds out who sends a request; without one all are anonymous. `gate` says who may ask for how much. `http` is how
    it speaks HTTP, `uploads` what tables may come with a request, `keeper` has those of users. `base_url` overrides the one of
    `settings`.
    """
    chosen, spoken = settings or TapSettings(), http or HttpSettings()
    received = Uploads(uploads)
    desk = jobs.settings if jobs is not None else None
    handlers = _Handlers(service, chosen, base_url or chosen.base_url, desk, door, gate, received)
    routes = [
        Route("/", handlers.home),
        Route("/tap", handlers.page),
        Route("/tap/sync", handlers.sync, methods=["GET", "POST"]),
        Route("/tap/tables", handlers.tables),
        Route("/tap/tables/{name:path}", handlers.table),
        Route("/tap/capabilities", handlers.capabilities),
        Route("/tap/availability", handlers.availability),
        Route("/tap/query-plan", handlers.query_plan, methods=["GET", "POST"]),
        Route("/tap/progress", handlers.status),
        Route("/tap/progress/{query}", handlers.progress, methods=["GET", "DELETE"]),
    ]
    routes += examples.routes(handlers.catalog, handlers.guarded, chosen, path="/tap")
    routes += datalink.routes(handlers.answer, handlers.catalog, handlers.guarded, path="/tap")
    if jobs is not None:
        routes += jobs_http.routes(jobs, handlers.guarded, handlers.base, received, path="/tap")
    if keeper is not None:
        routes += mydb.routes(keeper, handlers.gate, received, handlers.guarded, path="/tap")
    routes += openapi.routes(handlers.base, path="/tap")
    observers: list[Observer] = [to_log] if spoken.log == "json" else []
    if spoken.has_metrics:
        counted = Metrics(service, jobs=jobs.store if jobs is not None else None)
        routes += metrics.routes(counted)
        observers.append(counted.observe)
    middleware = [Middleware(TrimmingMiddleware)]
    middleware += [Middleware(ObservingMiddleware, routes=routes, observers=observers)] if observers else []
    middleware += cors(spoken.cors_origins)
    middleware.append(
        Middleware(SizeMiddleware, settings=spoken, body_bytes=chosen.request_bytes, file_bytes=received.limits.bytes)
    )
    middleware += [Middleware(CompressionMiddleware)] if chosen.is_gzip else []
    if door is not None:
        middleware.append(Middleware(AccessMiddleware, door=door))
    return Starlette(routes=routes, middleware=middleware, exception_handlers={HTTPException: refused, Exception: failed})


class _Handlers:
    """Handlers of the routes over one service."""

    def __init__(
        self,
        service: AnsweringService,
        settings: TapSettings,
        base_url: str,
        jobs: JobSettings | None,
        door: Doorkeeper | None,
        gate: Gate | None,
        uploads: Uploads,
    ) -> None:
        self._service = service
        self._settings = settings
        self._jobs = jobs
        self._base_url = base_url.rstrip("/")
        self._door = door
        self._gate = gate or Gate(UNLIMITED, settings)
        self._uploads = uploads

    @property
    def gate(self) -> Gate:
        """Who may ask for how much."""
        return self._gate

    async def home(self, request: Request) -> Response:
        return RedirectResponse(self.base(request))

    async def page(self, request: Request) -> Response:
        tables = summarise(self.catalog(request))
        return HTMLResponse(landing_page(self._settings.title, self.base(request), tables, has_jobs=self._jobs is not None))

    async def sync(self, request: Request) -> Response:
        return await self.guarded(request, self.answer)

    async def query_plan(self, request: Request) -> Response:
        return await self.guarded(request, self._query_plan)

    async def tables(self, request: Request) -> Response:
        return await self.guarded(request, self._tables)

    async def table(self, request: Request) -> Response:
        return await self.guarded(request, self._table)

    async def capabilities(self, request: Request) -> Response:
        security = security_methods(self._door)
        identity = identity_of(request)
        uploaded = self._uploads.bytes_for(self._gate.limits_of(identity).upload)
        settings = self._gate.settings_for(identity)
        document = metadata.capabilities(self.base(request), settings, self._jobs, security, upload_bytes=uploaded)
        return Response(document, media_type=_XML)

    async def availability(self, request: Request) -> Response:
        try:
            self._service.catalog(identity=identity_of(request))
            workers = self._service.workers()
        except Exception as error:  # the answer to "are you well?" is itself never an error
            return Response(metadata.availability(is_available=False, note=str(as_known(error))), media_type=_XML)
        lost = [state.worker for state in workers if not state.is_alive]
        note = f"{len(lost)} of {len(workers)} workers cannot be used: {', '.join(lost)}" if lost else ""
        return Response(metadata.availability(is_available=len(lost) < len(workers), note=note), media_type=_XML)

    async def status(self, request: Request) -> Response:
        watcher = self._watcher(request)
        # Those who do not say who they are may be anybody: each knows the ids of their own queries.
        queries = () if watcher.is_anonymous else self._service.running(identity=watcher)
        return JSONResponse(
            {
                "queries": [one.to_json() for one in queries],
                "workers": [state.to_json() for state in self._service.workers()],
            },
            headers=_UNCACHED,
        )

    async def progress(self, request: Request) -> Response:
        query = request.path_params["query"]
        try:
            if request.method == "DELETE":
                await self._service.cancel(query, identity=self._watcher(request))
            return JSONResponse(self._service.progress(query, identity=self._watcher(request)).to_json(), headers=_UNCACHED)
        except UnknownNameError as error:
            return error_response(error, status=404)

    async def guarded(self, request: Request, handle: Callable[[Request, Parameters], Awaitable[Response]]) -> Response:
        try:
            parameters = await self._parameters(request)
            if run_id := parameters.values.get("RUNID"):
                notes_of(request.scope)["run_id"] = run_id[0]
            return await handle(request, parameters)
        except ClientDisconnect:
            # Nobody is there to read it; 499 is what logs call this.
            return Response(status_code=499)
        except Exception as error:  # the edge of the service: whatever failed is answered as TAP asks, the rest is logged
            return error_response(as_known(error))

    async def answer(self, request: Request, parameters: Parameters) -> Response:
        if request.method == "HEAD":  # nobody reads the rows
            parameters = Parameters({**parameters.values, "MAXREC": ("0",)}, parameters.files)
        return await sync.respond(request, parameters, self._service, self._gate, self._uploads, base_url=self.base(request))

    async def _query_plan(self, request: Request, parameters: Parameters) -> Response:
        language, text = check_statement(parameters)
        analyze = parameters.one("ANALYZE").lower() in ("1", "true")
        wanted = (parameters.one("RESPONSEFORMAT") or parameters.one("FORMAT")).lower()
        if not wanted:
            wanted = "json" if "application/json" in request.headers.get("accept", "") else "text"
        if wanted not in ("json", "application/json", "text", "text/plain"):
            raise QueryError(f"RESPONSEFORMAT {wanted!r} is not offered for plans", hint="offered are text, json")
        work = self._service.explain(
            text,
            language=language,
            analyze=analyze,
            snapshots=check_snapshots(parameters) or None,
            max_cost=check_max_cost(parameters),
            identity=identity_of(request),
            uploads=await sync.received(request, parameters, self._uploads, self._gate),
        )
        if analyze:  # it runs
            work = self._in_turn(request, work)
        plan = await sync.while_connected(request, work)
        if wanted in ("json", "application/json"):
            return JSONResponse({**plan.to_json(), "text": plan.to_text()})
        return Response(plan.to_text(), media_type="text/plain")

    async def _tables(self, request: Request, parameters: Parameters) -> Response:
        catalog = self.catalog(request)
        if parameters.one("RESPONSEFORMAT").lower() in ("json", "application/json"):
            return JSONResponse([table.to_json() for table in summarise(catalog)])
        detail = parameters.one("DETAIL").lower() or "max"
        if detail not in ("min", "max"):
            raise QueryError(f"detail={detail} is not known", hint="use min or max")
        return Response(metadata.tableset(catalog, with_columns=detail == "max"), media_type=_XML)

    async def _table(self, request: Request, parameters: Parameters) -> Response:
        name = request.path_params["name"]
        document = metadata.one_table(self.catalog(request), name)
        if document is None:
            return error_response(UnknownNameError(f"there is no table {name}"), status=404)
        return Response(document, media_type=_XML)

    async def _in_turn(self, request: Request, work: Coroutine[Any, Any, T]) -> T:
        try:
            slot = await self._gate.take(identity_of(request), address_of(request))
        except BaseException:
            work.close()
            raise
        try:
            return await work
        finally:
            slot.release()

    def catalog(self, request: Request) -> Catalog:
        return self._service.catalog(identity=identity_of(request))

    def _watcher(self, request: Request) -> Identity:
        """Return whose queries are shown: where there is no door, nobody's are secret."""
        return LOCAL if self._door is None else identity_of(request)

    def base(self, request: Request) -> str:
        return self._base_url or f"{request.url.scheme}://{request.url.netloc}/tap"

    async def _parameters(self, request: Request) -> Parameters:
        allowed = self._uploads.bytes_for(self._gate.limits_of(identity_of(request)).upload)
        return await parameters_of(request, text_bytes=self._settings.request_bytes, file_bytes=allowed)
