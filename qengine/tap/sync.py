"""/sync: one request, one streamed result.

The first batch is awaited before anything is sent, so that whatever fails until then is an honest HTTP error. Afterwards the
stream goes out as it comes (`tap.stream`); a failure then is a trailing QUERY_STATUS where the format has one, and a broken
connection otherwise. A client that goes away ends the query, at whatever point it does.

Not all formats can say that MAXREC has cut the rows (CSV and TSV cannot). So X-Query-Status says it of all: in the head of an
answer that is whole when it begins, which small ones are, and else in the trailer of those clients that take trailers. The head
has X-Query-Maxrec, too: whoever gets as many rows knows that there may be more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from qengine.tap.failure import as_known, error_response
from qengine.tap.identity import address_of, identity_of, origin_of
from qengine.tap.limits import Gate, Limits, Slot, limited
from qengine.tap.logs import notes_of
from qengine.tap.parameters import Parameters, SyncRequest, check_sync
from qengine.tap.service import AnsweringService
from qengine.tap.stream import Opened, ask, in_time, opened, pieces
from qengine.tap.trailers import EXTENSION, takes_trailers
from qengine.tap.uploads import Uploads

QUERY_ID_HEADER = "X-Query-Id"
"""In the response: the id for `/tap/progress/<id>`. In a request: the id that the
client wants, so that it can ask before rows come."""

STATUS_HEADER = "X-Query-Status"
"""OK, OVERFLOW or ERROR, as QUERY_STATUS is in VOTables."""

MAXREC_HEADER = "X-Query-Maxrec"

T = TypeVar("T")


async def respond(
    request: Request, parameters: Parameters, service: AnsweringService, gate: Gate, uploads: Uploads, *, base_url: str = ""
) -> Response:
    """Return the response to a /sync request; `base_url` is the service's address, for links in results."""
    identity = identity_of(request)
    try:
        settings = gate.settings_for(identity)
        maxrec, limit = settings.maxrec, settings.maxrec_limit
        # What is wrong with the statement is said before tables are read.
        accept = ",".join(request.headers.getlist("accept"))
        checked = check_sync(parameters, default_maxrec=maxrec, maxrec_limit=limit, uploads={}, accept=accept)
        slot = await while_connected(request, gate.take(identity, address_of(request)))
        try:
            if parameters.values.get("UPLOAD"):
                work = uploads.received(parameters, allowed=gate.limits_of(identity).upload)
                checked = replace(checked, uploads=await while_connected(request, work))
            return await _answer(request, checked, service, gate.limits_of(identity), slot, base_url=base_url)
        except BaseException:
            slot.release()
            raise
    except ClientDisconnect:
        raise
    except Exception as error:  # the edge of the service: whatever failed is answered as TAP asks, the rest is logged
        return error_response(as_known(error))


async def _answer(
    request: Request, checked: SyncRequest, service: AnsweringService, limits: Limits, slot: Slot, *, base_url: str
) -> Response:
    identity = identity_of(request)
    wanted = request.headers.get(QUERY_ID_HEADER)
    until = None if limits.seconds is None else asyncio.get_running_loop().time() + limits.seconds
    work = ask(service, limited(checked, limits), query_id=wanted, identity=identity, origin=origin_of(request, "sync"))
    catalog = partial(service.catalog, identity=identity)
    async with in_time(until):
        answer = await while_connected(request, work)
        result = await opened(answer, checked, catalog, wait=lambda first: while_connected(request, first), base_url=base_url)
    result.allowed_bytes, result.until = limits.bytes, until
    return _ClosingResponse(result, slot, media_type=checked.content_type, maxrec=checked.maxrec)


class _ClosingResponse(StreamingResponse):
    """Ends the query when the response ends, whether it was sent, broken off, or never begun, and lets the next one in."""

    def __init__(self, result: Opened, slot: Slot, *, media_type: str, maxrec: int) -> None:
        # Set by hand: Starlette would add a charset to text types, and the media type is to be echoed.
        headers = {"content-type": media_type, "vary": "Accept", QUERY_ID_HEADER: result.answer.query, MAXREC_HEADER: str(maxrec)}
        super().__init__(_stream(result), headers=headers)
        self._result = result
        self._slot = slot
        self._has_trailers = False

    async def stream_response(self, send: Send) -> None:
        pieces = aiter(self.body_iterator)
        first = await anext(pieces, b"")
        is_all = self._result.is_whole
        if is_all:
            self.headers["content-length"] = str(len(first))
            self.headers[STATUS_HEADER] = self._result.status
            self._has_trailers = False
        elif self._has_trailers:
            self.headers["trailer"] = STATUS_HEADER
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await send({**start, "trailers": True} if self._has_trailers else start)
        await send({"type": "http.response.body", "body": first, "more_body": not is_all})
        async for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if not is_all:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        if self._has_trailers:
            await send({"type": EXTENSION, "headers": [(STATUS_HEADER.lower().encode(), self._result.status.encode())]})

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self._has_trailers = takes_trailers(scope)
        try:
            await super().__call__(scope, receive, send)
        finally:
            notes_of(scope)["rows"] = self._result.rows
            try:
                self._result.writer.close()
                await self._result.answer.close()
            finally:
                self._slot.release()


async def _stream(result: Opened) -> AsyncIterator[bytes]:
    try:
        async with aclosing(pieces(result)) as stream:
            async for piece in stream:
                yield piece
    except Exception as error:  # after HTTP 200 the only way to tell is the stream itself
        known = as_known(error)
        result.is_failed = True
        end = result.writer.fail(known)
        if end is None:
            raise known from error
        yield end


async def received(request: Request, parameters: Parameters, uploads: Uploads, gate: Gate) -> dict[str, pa.Table]:
    """Return the tables that came with a request, which counts meanwhile as one of those that its sender may have at a time."""
    if not parameters.values.get("UPLOAD"):
        return {}
    identity = identity_of(request)
    slot = await while_connected(request, gate.take(identity, address_of(request)))
    try:
        return await while_connected(request, uploads.received(parameters, allowed=gate.limits_of(identity).upload))
    finally:
        slot.release()


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`, or cancel it and raise `ClientDisconnect` when the client goes away first."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
