"""HTTP for an ASGI application on a socket of ours, inside a running event loop."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn

from qengine.errors import ConfigError
from qengine.tap.trailers import TrailingProtocol

_SHUTDOWN_S = 5.0


@dataclass(frozen=True, slots=True)
class Listening:
    """A server that takes requests at `address`, `http://host:port`."""

    address: str
    _task: asyncio.Task[None]

    async def wait(self) -> None:
        """Return when the server has ended."""
        # Whoever is cancelled while waiting here wants the server to end in good order, and not in the middle of its work.
        await asyncio.wait({self._task})
        await self._task


class _Server(uvicorn.Server):
    """Leaves signals alone: they belong to whoever runs the event loop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def listening(
    app: Any, *, host: str = "127.0.0.1", port: int = 0, shutdown_s: float = _SHUTDOWN_S
) -> AsyncIterator[Listening]:
    """Serve `app` until the context ends; port 0 takes a free one. Raise `ConfigError` if the address cannot be had.

    At the end nobody is let in any more, and requests that still run get `shutdown_s` to finish; then they are cancelled.
    """
    # Who is at the other end is who really is: proxies that are believed are those of `tap.credentials`.
    config = uvicorn.Config(
        app,
        log_level="warning",
        timeout_graceful_shutdown=math.ceil(shutdown_s),
        lifespan="off",
        http=TrailingProtocol,
        proxy_headers=False,
        server_header=False,
        headers=[("server", "qengine")],
    )
    with _bound(host, port) as listener:
        server = _Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            while not server.started and not task.done():
                await asyncio.sleep(0.005)
            shown = f"[{host}]" if ":" in host else host
            yield Listening(f"http://{shown}:{listener.getsockname()[1]}", task)
        finally:
            server.should_exit = True
            await task


def _bound(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(
            f"{host}:{port} cannot be listened on: {error.strerror}", hint="choose another --port, or 0 for a free one"
        ) from error
