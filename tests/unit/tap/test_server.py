from __future__ import annotations

import asyncio
import socket
import urllib.request

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from qengine.errors import ConfigError
from qengine.tap.server import listening


async def hello(request: object) -> PlainTextResponse:
    return PlainTextResponse("hello")


APP = Starlette(routes=[Route("/", hello)])


def fetch(address: str) -> bytes:
    with urllib.request.urlopen(address) as response:
        content: bytes = response.read()
        return content


def test_free_port_and_end() -> None:
    async def check() -> str:
        async with listening(APP) as server:
            assert await asyncio.to_thread(fetch, server.address) == b"hello"
            return server.address

    address = asyncio.run(check())
    with pytest.raises(OSError, match="refused"):
        fetch(address)


def test_taken_port_is_told() -> None:
    async def check(port: int) -> None:
        async with listening(APP, port=port):
            pass

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="cannot be listened on"):
        asyncio.run(check(taken.getsockname()[1]))


def test_cancelling_the_owner_ends_the_server() -> None:
    async def owner(ready: asyncio.Future[str]) -> None:
        async with listening(APP) as server:
            ready.set_result(server.address)
            await server.wait()

    async def check() -> str:
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(owner(ready))
        address = await ready
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)
        return address

    address = asyncio.run(check())
    with pytest.raises(OSError, match="refused"):
        fetch(address)
