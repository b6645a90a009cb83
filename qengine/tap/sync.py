"""/sync: one request, one streamed result.

The first batch is awaited before anything is sent, so that whatever fails until then is an honest HTTP error. Afterwards the
stream goes out as it comes (a little of it not alone: each piece that is sent wakes up the other side); a failure then is a
trailing QUERY_STATUS where the format has one, and a broken connection otherwise. A client that goes away ends the query, at
whatever point it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import pyarrow as pa
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from qengine.tap.failure import as_known, error_response
from qengine.tap.formats.writer import ResultHeader, ResultWriter
from qengine.tap.parameters import Parameters, SyncRequest, check_sync
from qengine.tap.provenance import provenance
from qengine.tap.service import Answer, AnsweringService, TapSettings

QUERY_ID_HEADER = "X-Query-Id"
"""In the response: the id for `/tap/progress/<id>`. In a request: the id that the
client wants, so that it can ask before rows come."""

_SLICE_ROWS = 65_536
"""Rows that are formatted at once; the event loop serves others in between."""

_THREAD_ROWS = 5_000
"""From here on formatting is left to a thread."""

_SENT_BYTES = 65_536
"""What is sent at once, at least, while rows come."""

_PATIENCE_S = 0.005
"""How long a smaller piece waits for what comes next: a small answer is sent whole, and others begin at once all the same."""

T = TypeVar("T")


async def respond(request: Request, parameters: Parameters, service: AnsweringService, settings: TapSettings) -> Response:
    """Return the response to a /sync request."""
    try:
        checked = check_sync(parameters, default_maxrec=settings.maxrec, maxrec_limit=settings.maxrec_limit)
        return await _answer(request, checked, service)
    except ClientDisconnect:
        raise
    except Exception as error:  # the edge of the service: whatever failed is answered as TAP asks, the rest is logged
        return error_response(as_known(error))


async def _answer(request: Request, checked: SyncRequest, service: AnsweringService) -> Response:
    answer = await while_connected(
        request,
        service.query(
            checked.text,
            language=checked.language,
            maxrec=checked.maxrec,
            snapshots=checked.snapshots or None,
            query_id=request.headers.get(QUERY_ID_HEADER),
            max_cost=checked.max_cost,
        ),
    )
    try:
        batches = aiter(answer.batches)
        # MAXREC=0 asks for the columns only, and TAP wants it called an overflow.
        first = await while_connected(request, _next(batches)) if checked.maxrec else None
        header = ResultHeader(
            columns=answer.columns,
            schema=answer.schema,
            statement=answer.statement,
            warnings=answer.warnings,
            snapshots=answer.snapshots,
            provenance=provenance(service.catalog(), answer.snapshots),
        )
        writer = checked.format.writer(header)
    except BaseException:
        await answer.close()
        raise
    stream = _stream(writer, first, batches, answer, is_cut=not checked.maxrec)
    return _ClosingResponse(stream, answer, media_type=checked.content_type)


class _ClosingResponse(StreamingResponse):
    """Ends the query when the response ends, whether it was sent, broken off, or never begun."""

    def __init__(self, content: AsyncIterator[bytes], answer: Answer, *, media_type: str) -> None:
        # Set by hand: Starlette would add a charset to text types, and the media type is to be echoed.
        super().__init__(content, headers={"content-type": media_type, QUERY_ID_HEADER: answer.query})
        self._answer = answer

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._answer.close()


async def _stream(
    writer: ResultWriter, first: pa.RecordBatch | None, batches: AsyncIterator[pa.RecordBatch], answer: Answer, *, is_cut: bool
) -> AsyncIterator[bytes]:
    pieces, size = [writer.begin()], 0
    waiting: asyncio.Task[pa.RecordBatch | None] | None = None
    try:
        batch = first
        while batch is not None:
            for start in range(0, batch.num_rows, _SLICE_ROWS):
                piece = batch.slice(start, _SLICE_ROWS)
                pieces.append(
                    await asyncio.to_thread(writer.write, piece) if piece.num_rows > _THREAD_ROWS else writer.write(piece)
                )
                size += len(pieces[-1])
                if size >= _SENT_BYTES:
                    yield b"".join(pieces)
                    pieces, size = [], 0
            waiting = asyncio.ensure_future(_next(batches))
            if pieces and not (await asyncio.wait({waiting}, timeout=_PATIENCE_S))[0]:
                yield b"".join(pieces)
                pieces, size = [], 0
            batch = await waiting
    except Exception as error:  # after HTTP 200 the only way to tell is the stream itself
        known = as_known(error)
        end = writer.fail(known)
        if end is None:
            raise known from error
        yield b"".join((*pieces, end))
        return
    finally:
        if waiting is not None and not waiting.done():
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
    yield b"".join((*pieces, writer.finish(is_overflow=answer.is_overflow or is_cut)))


async def _next(batches: AsyncIterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    return await anext(batches, None)


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
