"""What holds for every request, whatever it asks for: limits of its size, and errors in one form.

A request may have an address, a body and a number of parameters that are as long as `HttpSettings` says; a longer one is refused
before anybody reads it (414, 413, 400). What no route answers is told in the form of all errors (404, 405 with Allow); OPTIONS says
which methods there are. What nobody foresaw is 500, without a word of what is inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qengine.errors import ConfigError, LimitError, QueryError, RequestTooLargeError, UnknownNameError
from qengine.tap.failure import as_known, error_response
from qengine.tap.forms import is_multipart


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """How the service speaks HTTP.

    `url_bytes` bounds the path and query of an address, `parameters` the number of parameters in either place. Pages of the sites
    in `cors_origins` may use the service (`*`: of all; nothing: of none). `has_metrics` offers /metrics. `log` is `json`, one line
    on standard error for each request, or `none`. At the end, requests that run get `shutdown_s` to finish.
    """

    url_bytes: int = 32_768
    parameters: int = 1_000
    cors_origins: tuple[str, ...] = ("*",)
    has_metrics: bool = True
    log: str = "json"
    shutdown_s: float = 30.0

    def __post_init__(self) -> None:
        if self.log not in ("json", "none"):
            raise ConfigError(f"http.log is {self.log!r}", hint="it can be json or none")


class TrimmingMiddleware:
    """Takes the slashes off the end of a path: clients write them, and a redirection would name the address that this process has
    behind its proxy."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": scope["path"].rstrip("/") or "/"}
        await self._app(scope, receive, send)


class SizeMiddleware:
    """Refuses requests that are too large: addresses at once, bodies as they come. One that may have files may be so much larger;
    who sends it may be allowed less (`forms`)."""

    def __init__(self, app: ASGIApp, settings: HttpSettings, *, body_bytes: int, file_bytes: int = 0) -> None:
        self._app = app
        self._settings = settings
        self._body_bytes = body_bytes
        self._file_bytes = file_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        allowed = self._allowed(scope)
        if (refusal := self._refusal(scope, allowed)) is not None:
            await refusal(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                if read > allowed:
                    raise _too_large(allowed)
            return message

        await self._app(scope, counted, send)

    def _allowed(self, scope: Scope) -> int:
        kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
        may_have_files = scope["method"] == "PUT" or is_multipart(kind.decode("latin-1"))
        return self._body_bytes + (self._file_bytes if may_have_files else 0)

    def _refusal(self, scope: Scope, allowed: int) -> Response | None:
        query = scope.get("query_string", b"")
        if len(scope.get("raw_path") or scope["path"].encode()) + len(query) > self._settings.url_bytes:
            error = LimitError(f"the address is longer than {self._settings.url_bytes} bytes", hint="send the parameters by POST")
            return error_response(error, status=414)
        if query.count(b"&") >= self._settings.parameters and len(parse_qsl(query)) > self._settings.parameters:
            return error_response(QueryError(f"there are more than {self._settings.parameters} parameters"))
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if length.isdigit() and int(length) > allowed:
            return error_response(_too_large(allowed))
        return None


def _too_large(allowed: int) -> RequestTooLargeError:
    return RequestTooLargeError(f"the request is larger than {allowed} bytes", hint="send less at a time")


async def refused(request: Request, error: Exception) -> Response:
    """Return what is said to a request that no route answers."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = _methods(request.app.routes, request.scope)
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"allow": allowed})
        response = error_response(QueryError(f"{request.method} is not possible here", hint=f"possible are {allowed}"), status=405)
        response.headers["allow"] = allowed
        return response
    if error.status_code == 404:
        return error_response(UnknownNameError("there is nothing at this address", hint="see /tap"), status=404)
    return error_response(QueryError(str(error.detail)), status=error.status_code)


async def failed(request: Request, error: Exception) -> Response:
    """Return what is said when something failed outside of all handlers."""
    return error_response(as_known(error))


def _methods(routes: Sequence[BaseRoute], scope: Scope) -> str:
    found = {"OPTIONS"}
    for route in routes:
        if route.matches(scope)[0] is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    return ", ".join(sorted(found))
