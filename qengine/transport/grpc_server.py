"""The gRPC side of a worker: bytes in, bytes out, and who is served decided elsewhere (`worker.server`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

import grpc
import grpc.aio

from qengine.errors import ConfigError, QEngineError
from qengine.plan.physical import QueryId
from qengine.transport import codec
from qengine.transport.channel import WorkerStatus
from qengine.transport.grpc_options import CANCEL, FETCH, PULL, PUT, RELEASE, RUN, SERVER_OPTIONS, STATUS, server_credentials
from qengine.transport.tls import TlsFiles


class WorkerService(Protocol):
    """What a worker does for its callers. Events and frames are encoded already; they are passed on as they are."""

    @property
    def incarnation(self) -> str: ...

    def run(self, head: codec.RunHead, request: bytes) -> AsyncIterator[bytes]:
        """Run an attempt; closing the iterator cancels it."""
        ...

    def frames(self, spool: str, skip: int) -> AsyncIterator[bytes]: ...

    async def release(self, spool: str) -> None: ...

    async def put(self, query: QueryId, name: str, digest: str, chunks: AsyncIterator[bytes]) -> None: ...

    def pieces(self, query: QueryId, name: str) -> AsyncIterator[bytes]:
        """Yield the file of a partition."""
        ...

    async def cancel(self, query: QueryId) -> None: ...

    def status(self) -> WorkerStatus: ...


class GrpcServer:
    """Serves one `WorkerService`."""

    def __init__(self, service: WorkerService, listen: str, *, tls: TlsFiles | None = None) -> None:
        self._service = service
        self._server = grpc.aio.server(options=list(SERVER_OPTIONS))
        handlers = {
            RUN: grpc.unary_stream_rpc_method_handler(self._run),
            FETCH: grpc.unary_stream_rpc_method_handler(self._fetch),
            RELEASE: grpc.unary_unary_rpc_method_handler(self._release),
            PULL: grpc.unary_stream_rpc_method_handler(self._pull),
            PUT: grpc.stream_unary_rpc_method_handler(self._put),
            CANCEL: grpc.unary_unary_rpc_method_handler(self._cancel),
            STATUS: grpc.unary_unary_rpc_method_handler(self._status),
        }
        by_service: dict[str, dict[str, Any]] = {}
        for path, handler in handlers.items():
            _, service_name, method = path.split("/")
            by_service.setdefault(service_name, {})[method] = handler
        self._server.add_generic_rpc_handlers(
            tuple(grpc.method_handlers_generic_handler(name, methods) for name, methods in by_service.items())
        )
        asked = listen.rpartition(":")[2]
        if not (asked.isdecimal() and int(asked) < 1 << 16):  # gRPC would take the port modulo 65536
            raise ConfigError(f"cannot listen on {listen}", hint="give host:port, with a port up to 65535 or 0 for a free one")
        try:
            if tls is None:
                port = self._server.add_insecure_port(listen)
            else:
                port = self._server.add_secure_port(listen, server_credentials(tls))
        except RuntimeError as error:
            raise ConfigError(f"cannot listen on {listen}: {error}", hint="choose another address or port 0") from error
        self.address = f"{listen.rpartition(':')[0]}:{port}"

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Take no new calls, give those that run some time, then end them."""
        await self._server.stop(grace_s)

    async def _run(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
        try:
            head = codec.decode_run_head(request)
        except QEngineError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        events = self._service.run(head, request)
        try:
            async for event in events:
                yield event
        finally:
            # The caller left, or all was sent: the service must know at once, not when this generator is collected.
            await events.aclose()  # type: ignore[attr-defined]

    async def _fetch(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
        try:
            spool, skip = codec.decode_fetch(request)
            async for frame in self._service.frames(spool, skip):
                yield codec.encode_frame_message(frame)
        except QEngineError as error:
            yield codec.encode_frame_message(error)

    async def _release(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await self._service.release(codec.decode_release(request))
        return b""

    async def _pull(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
        try:
            query, name = codec.decode_pull(request)
            async for piece in self._service.pieces(query, name):
                yield codec.encode_frame_message(piece)
        except QEngineError as error:
            yield codec.encode_frame_message(error)

    async def _put(self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        try:
            query, name, digest = codec.decode_put(await anext(requests))
            await self._service.put(query, name, digest, (codec.decode_put_data(message) async for message in requests))
        except QEngineError as error:
            return codec.encode_put_reply(error)
        return codec.encode_put_reply(None)

    async def _cancel(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await self._service.cancel(codec.decode_cancel(request))
        return b""

    async def _status(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return codec.encode_status(self._service.status(), self._service.incarnation)
