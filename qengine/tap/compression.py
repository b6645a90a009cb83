"""Answers as gzip, for clients that take it, where it makes them smaller.

Level 1, in threads where pieces are large. Formats that are compressed already are left alone, and so are small answers. What is
compressed is another representation of the same: parts of a result that was sent so cannot be asked for by their bytes.
"""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qengine.tap.formats.choose import ARROW, PARQUET

_LEAST_BYTES = 4096
_COMPRESSED = tuple(name for kind in (ARROW, PARQUET) for name in (kind.media_type, *kind.also))


class CompressionMiddleware:
    """Compresses what is sent."""

    def __init__(self, app: ASGIApp) -> None:
        excluded = (*DEFAULT_EXCLUDED_CONTENT_TYPES, *_COMPRESSED)
        self._app = GZipMiddleware(app, minimum_size=_LEAST_BYTES, compresslevel=1, exclude_content_types=excluded)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("content-encoding") == "gzip":
                    if "accept-ranges" in headers:
                        del headers["accept-ranges"]
                    if headers.get("etag", "").startswith('"'):
                        headers["etag"] = f"W/{headers['etag']}"
            await send(message)

        await self._app(scope, receive, send_on)
