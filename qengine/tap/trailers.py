"""Trailers: fields after the body, for what is known only when the last row has been sent.

uvicorn does not know the ASGI extension `http.response.trailers`; its protocol over h11 is extended here by that. An application
that announces trailers (`"trailers": True` when a response starts) has the end of its body held back until it has sent them. They
are offered in the scope where a client takes them, which it says with `TE: trailers`, and where they are possible: in HTTP/1.1.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

EXTENSION = "http.response.trailers"
_HEAD_BYTES = 65_536
"""The longest head of a request, as uvicorn has it; `tap.web` limits addresses to less."""


class TrailingProtocol(H11Protocol):
    """HTTP/1.1 with trailers."""

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: asyncio.AbstractEventLoop | None = None):
        super().__init__(config, server_state, app_state, _loop)
        self.conn = self._trailing = _Connection(h11.SERVER, config.h11_max_incomplete_event_size or _HEAD_BYTES)
        self._inner: ASGIApp = self.app
        self.app = self._offering

    async def _offering(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _are_taken(scope):
            await self._inner(scope, receive, send)
            return
        held: list[Message] = []
        has_trailers = False

        async def send_on(message: Message) -> None:
            nonlocal has_trailers
            if message["type"] == "http.response.start":
                has_trailers = bool(message.get("trailers"))
            elif message["type"] == "http.response.body" and has_trailers and not message.get("more_body", False):
                held.append(message)
                return
            elif message["type"] == EXTENSION:
                self._trailing.trailers += message["headers"]
                if not message.get("more_trailers", False):
                    await send(held.pop())
                return
            await send(message)

        await self._inner({**scope, "extensions": {**scope.get("extensions", {}), EXTENSION: {}}}, receive, send_on)


class _Connection(h11.Connection):
    """Adds the trailers that there are when a body ends."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.trailers: list[tuple[bytes, bytes]] = []

    def send(self, event: Any) -> Any:
        if isinstance(event, h11.EndOfMessage) and self.trailers:
            event = h11.EndOfMessage(headers=self.trailers)
            self.trailers = []
        return super().send(event)


def takes_trailers(scope: Scope) -> bool:
    """Return whether the answer to a request can have trailers."""
    return EXTENSION in scope.get("extensions", ())


def _are_taken(scope: Scope) -> bool:
    return scope["http_version"] == "1.1" and scope["method"] != "HEAD" and "trailers" in _words(scope["headers"])


def _words(headers: Iterable[tuple[bytes, bytes]]) -> set[str]:
    found = b",".join(value for name, value in headers if name == b"te")
    return {word.split(b";")[0].strip().lower().decode("latin-1") for word in found.split(b",")}
