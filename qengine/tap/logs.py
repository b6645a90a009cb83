"""What is told about each request: to a log, one line of JSON for each, and to whoever counts (`tap.metrics`).

    {"time": "2026-11-23T15:55:00.123Z", "level": "info", "event": "request", "user": "ann", "address": "10.0.0.7",
     "method": "POST", "path": "/tap/sync", "endpoint": "/tap/sync", "status": 200, "seconds": 0.0153, "bytes": 5120, "rows": 100,
     "query": "5f0c..."}

The outermost middleware makes a `RequestRecord` of a request when its response has ended, however it has. Parameters are not in
it: statements are in the log of queries (`catalog.query_log`), and tokens have no business in any. `endpoint` is the pattern of the
route, so that a job's id is no name of a metric. Handlers can add what they know to `notes_of(scope)`.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NOTES = "qengine.notes"
"""Key of the scope that holds what handlers add."""

UNKNOWN = "unknown"
"""The endpoint of a path that no route has."""

_SHOWN = 300
_log = logging.getLogger("qengine.request")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """A request that has ended. `status` is 499 if the client left before there was one; `rows` is -1 if there are none to count;
    `is_whole` says that the response was sent to its end, `run_id` is what the client calls the request (RUNID of TAP)."""

    method: str
    path: str
    endpoint: str
    status: int
    seconds: float
    bytes: int
    rows: int
    user: str
    address: str
    agent: str
    query: str
    is_whole: bool
    run_id: str = ""


Observer = Callable[[RequestRecord], None]


class ObservingMiddleware:
    """Tells observers of each request when it has ended."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute], observers: Sequence[Observer]) -> None:
        self._app = app
        self._routes = routes
        self._observers = tuple(observers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        notes: dict[str, Any] = {}
        seen: dict[str, Any] = {"status": 499, "bytes": 0, "is_whole": False}
        headers: dict[bytes, bytes] = {}

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen["status"] = message["status"]
                headers.update((name.lower(), value) for name, value in message.get("headers", ()))
            elif message["type"] == "http.response.body":
                seen["bytes"] += len(message.get("body", b""))
                seen["is_whole"] = not message.get("more_body", False)
            await send(message)

        began = time.perf_counter()
        try:
            await self._app({**scope, NOTES: notes}, receive, watch)
        except Exception:
            seen["status"] = 500 if seen["status"] == 499 else seen["status"]
            raise
        finally:
            client = scope.get("client")
            record = RequestRecord(
                method=scope["method"],
                path=scope["path"],
                endpoint=endpoint_of(self._routes, scope),
                seconds=time.perf_counter() - began,
                rows=notes.get("rows", -1),
                user=headers.get(b"x-vo-authenticated", b"").decode("latin-1"),
                address=client[0] if client else "",
                agent=_header(scope, b"user-agent"),
                run_id=notes.get("run_id", ""),
                query=headers.get(b"x-query-id", b"").decode("latin-1"),
                **seen,
            )
            for observer in self._observers:
                observer(record)


def notes_of(scope: Scope) -> MutableMapping[str, Any]:
    """Return where a handler can note `rows`, which it has sent, and `run_id`; nobody reads it where nobody observes."""
    found: MutableMapping[str, Any] = scope.get(NOTES, {})
    return found


def endpoint_of(routes: Sequence[BaseRoute], scope: Scope) -> str:
    """Return the pattern of the route that a request goes to, such as `/tap/async/{job}`."""
    for route in routes:
        if route.matches(scope)[0] is not Match.NONE:
            return str(getattr(route, "path", UNKNOWN))
    return UNKNOWN


def to_log(record: RequestRecord) -> None:
    """Write a request to the log `qengine.request`; what failed by our fault is an error there."""
    words: dict[str, Any] = {
        "event": "request", "user": record.user, "address": record.address, "method": record.method, "path": record.path[:_SHOWN],
        "endpoint": record.endpoint, "status": record.status, "seconds": round(record.seconds, 4), "bytes": record.bytes,
    }  # fmt: skip
    if record.rows >= 0:
        words["rows"] = record.rows
    if record.query:
        words["query"] = record.query
    if record.run_id:
        words["run_id"] = record.run_id[:_SHOWN]
    if record.agent:
        words["agent"] = record.agent[:_SHOWN]
    if not record.is_whole:
        words["is_whole"] = False
    _log.log(logging.ERROR if record.status in (500, 503) else logging.INFO, "request", extra={"words": words})


class JsonFormatter(logging.Formatter):
    """One JSON object in a line: time in UTC, level, event, what the record brings as `words`, and the exception if any."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        words: dict[str, Any] = {
            "time": f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z",
            "level": record.levelname.lower(),
        }
        words |= getattr(record, "words", None) or {"event": record.getMessage(), "logger": record.name}
        if record.exc_info:
            words["exception"] = self.formatException(record.exc_info)
        return json.dumps(words, ensure_ascii=False, default=str)


def start_logging(*, stream: TextIO | None = None) -> logging.Handler:
    """Have requests, and the warnings of all loggers of qengine, written as JSON lines to `stream` (None: standard error).

    What else is told of each query, a dozen lines, would take a quarter of a small query's time: the log of queries has the sum.
    Return the handler.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("qengine")
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    _log.setLevel(logging.INFO)
    return handler


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")
