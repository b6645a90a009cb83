"""/tap/mydb: the tables that users keep for themselves.

    GET    /tap/mydb          all of them, and how much they may have
    PUT    /tap/mydb/<name>   makes a table of a file (VOTable, Parquet, FITS, CSV, ECSV, Arrow), which is the body
    GET    /tap/mydb/<name>   one of them
    PATCH  /tap/mydb/<name>   {"group": "dp1"}, {"public": true}: shares it; with "shared": false or "public": false, no longer
    DELETE /tap/mydb/<name>   drops it

Answers are JSON, errors as everywhere in TAP. Others' tables cannot be told from tables that there are not; who does not say who
they are gets 401. `openapi.json` has the details; what SELECT INTO does is in `mydb_into`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from qengine.catalog.rights import grantee_of, user_catalog
from qengine.catalog.user_tables import ALIAS
from qengine.catalog.who import Identity
from qengine.errors import (
    ConfigError,
    ConflictError,
    CredentialsError,
    LimitError,
    QueryError,
    QueryTimeoutError,
    RequestTooLargeError,
    TooManyRequestsError,
    UnknownNameError,
    UploadError,
)
from qengine.tap.failure import error_response
from qengine.tap.identity import address_of, identity_of
from qengine.tap.limits import Gate
from qengine.tap.mydb_keep import Keeper, Spooled, Spooler
from qengine.tap.parameters import Parameters
from qengine.tap.upload_read import read_upload
from qengine.tap.upload_scan import UploadLimits
from qengine.tap.uploads import Uploads

_UNCACHED = {"cache-control": "no-store"}
_TEXT_BYTES = 10_000
_OTHER_STATUS = (QueryTimeoutError, TooManyRequestsError)

Handle = Callable[[Request, Parameters], Awaitable[Response]]
Guard = Callable[[Request, Handle], Awaitable[Response]]


def routes(keeper: Keeper, gate: Gate, uploads: Uploads, guard: Guard, *, path: str) -> list[Route]:
    """Return the routes of /mydb below `path`."""
    handlers = _Handlers(keeper, gate, uploads)

    def route(end: str, **handles: Handle) -> Route:
        async def answer(request: Request) -> Response:
            return await guard(request, _with_status(handles["GET" if request.method == "HEAD" else request.method]))

        return Route(f"{path}/mydb{end}", answer, methods=list(handles))

    return [
        route("", GET=handlers.listed),
        route("/{name}", GET=handlers.described, PUT=handlers.made, PATCH=handlers.shared, DELETE=handlers.dropped),
    ]


def _with_status(handle: Handle) -> Handle:
    """Return a handler that answers with the status that REST clients go by."""

    async def answer(request: Request, parameters: Parameters) -> Response:
        try:
            return await handle(request, parameters)
        except UnknownNameError as error:
            return error_response(error, status=404)
        except ConflictError as error:
            return error_response(error, status=409)
        except LimitError as error:
            return error_response(error, status=0 if isinstance(error, _OTHER_STATUS) else 413)

    return answer


class _Handlers:
    def __init__(self, keeper: Keeper, gate: Gate, uploads: Uploads) -> None:
        self._keeper = keeper
        self._gate = gate
        self._uploads = uploads

    async def listed(self, request: Request, parameters: Parameters) -> Response:
        identity = _known(request)
        found = await asyncio.to_thread(self._keeper.tables.of, identity.user)
        words = {
            "catalog": user_catalog(identity.user),
            "bytes": sum(one.bytes for one in found),
            "allowed_bytes": self._gate.limits_of(identity).storage,
            "tables": [one.to_json() for one in found],
        }
        return JSONResponse(words, headers=_UNCACHED)

    async def described(self, request: Request, parameters: Parameters) -> Response:
        identity = _known(request)
        found = await asyncio.to_thread(self._keeper.tables.find, identity.user, request.path_params["name"])
        return JSONResponse(found.to_json(), headers=_UNCACHED)

    async def made(self, request: Request, parameters: Parameters) -> Response:
        identity, name = _known(request), request.path_params["name"]
        await self._keeper.check_new(identity, name)
        slot = await self._gate.take(identity, address_of(request))
        try:
            async with self._keeper.folder() as folder:
                allowed = self._uploads.bytes_for(self._gate.limits_of(identity).upload)
                await _received(request, folder / "file", allowed)
                rows = await asyncio.to_thread(_spooled, folder, name, self._uploads.limits)
                made = await self._keeper.keep(identity, name, rows)
        finally:
            slot.release()
        return JSONResponse(made.to_json(), status_code=201, headers=_UNCACHED)

    async def shared(self, request: Request, parameters: Parameters) -> Response:
        identity, name = _known(request), request.path_params["name"]
        grantee, is_ending = _share(await _json(request))
        found = await asyncio.to_thread(self._keeper.tables.share, identity.user, name, grantee, is_ending=is_ending)
        return JSONResponse(found.to_json(), headers=_UNCACHED)

    async def dropped(self, request: Request, parameters: Parameters) -> Response:
        identity = _known(request)
        await self._keeper.drop(identity, request.path_params["name"])
        return Response(status_code=204)


def _known(request: Request) -> Identity:
    identity = identity_of(request)
    if identity.is_anonymous:
        raise CredentialsError(f"{ALIAS} is for those who say who they are", hint="send a token, or name and password")
    return identity


async def _received(request: Request, path: Path, allowed: int) -> None:
    """Write the body of a request to a file. Raise `RequestTooLargeError` if it has more bytes than allowed."""
    size = 0
    with path.open("wb") as file:
        async for piece in request.stream():
            size += len(piece)
            if size > allowed:
                raise RequestTooLargeError(f"the table has more than {allowed} bytes", hint="send the columns that are needed")
            await asyncio.to_thread(file.write, piece)
    if not size:
        raise UploadError("the request has no table", hint="send a VOTable, Parquet, FITS or CSV file as its body")


def _spooled(folder: Path, name: str, limits: UploadLimits) -> Spooled:
    found = read_upload(folder / "file", name, limits)
    (folder / "file").unlink()
    with Spooler(folder / "rows.arrow", found.schema) as sink:
        for batch in found.to_batches():
            sink.write(batch)
    return Spooled(folder / "rows.arrow", f"PUT {ALIAS}.{name}")


async def _json(request: Request) -> dict[str, Any]:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _TEXT_BYTES:
            raise RequestTooLargeError(f"the request is larger than {_TEXT_BYTES} bytes")
    try:
        words = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise QueryError("the body is no JSON", hint=_SHARE_HINT) from error
    if not isinstance(words, dict):
        raise QueryError("the body is no JSON object", hint=_SHARE_HINT)
    return words


_SHARE_HINT = 'for example {"group": "dp1"}, {"group": "dp1", "shared": false}, {"public": true}'


def _share(words: dict[str, Any]) -> tuple[str, bool]:
    """Return with whom a table is shared, and whether that ends."""
    group, public, shared = words.get("group"), words.get("public"), words.get("shared", True)
    is_known = words.keys() <= {"group", "public", "shared"} and isinstance(shared, bool)
    try:
        if is_known and isinstance(group, str) and public is None:
            return grantee_of(group=group), not shared
        if is_known and isinstance(public, bool) and group is None and "shared" not in words:
            return grantee_of(is_public=True), not public
    except ConfigError as error:
        raise QueryError(error.message, hint=error.hint) from error
    raise QueryError("the request does not say with whom to share", hint=_SHARE_HINT)
