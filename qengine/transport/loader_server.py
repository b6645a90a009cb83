"""The gRPC side of a loader: messages in, messages out; what they mean is decided elsewhere (`loader.service`).

Calls run in threads: many contributors send at once. A commit runs in a thread of its own, which goes on if its caller leaves.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import grpc

from qengine.errors import BugError, ConfigError, ProtocolError, QEngineError
from qengine.transport.error_message import parse, to_message
from qengine.transport.generated import loader_pb2
from qengine.transport.grpc_options import SERVER_OPTIONS, server_credentials
from qengine.transport.tls import TlsFiles

PROTOCOL = 1
SERVICE = "qengine.v1.Loader"
_THREADS = 64
_SILENCE_S = 1.0

Telling = Callable[[str, int, int], None]
Context = grpc.ServicerContext


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadWords:
    """What both sides know of a load."""

    id: str
    number: int
    catalog: str
    state: str
    snapshot: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamWords:
    """An input whose bytes are sent. See `Stream` in loader.proto."""

    label: str
    version: str
    format: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContributionWords:
    """A contribution: by addresses `uris`, or by a `stream`. `request` and `options` are JSON objects."""

    load: str
    request: Mapping[str, Any]
    options: Mapping[str, Any]
    contributor: str
    uris: tuple[str, ...] = ()
    stream: StreamWords | None = None


class LoaderService(Protocol):
    """What a loader does for its callers, several at once. All raise `QEngineError`."""

    def begin(self, catalog: str, context: Mapping[str, Any]) -> LoadWords: ...

    def contribute(self, words: ContributionWords, data: Iterator[bytes]) -> Mapping[str, Any]:
        """Return the receipt."""
        ...

    def commit(self, load: str, wait_s: float, tell: Telling) -> tuple[LoadWords, Sequence[Mapping[str, Any]]]:
        """Return the load and its reports."""
        ...

    def abort(self, load: str, why: str) -> LoadWords: ...

    def find(self, load: str) -> LoadWords: ...


class LoaderServer:
    """Serves one `LoaderService`."""

    def __init__(self, service: LoaderService, listen: str, *, tls: TlsFiles | None = None) -> None:
        self._service = service
        self._server = grpc.server(ThreadPoolExecutor(_THREADS, "loader"), options=list(SERVER_OPTIONS))
        handlers = {
            "Begin": grpc.unary_unary_rpc_method_handler(self._begin),
            "Contribute": grpc.stream_unary_rpc_method_handler(self._contribute),
            "Commit": grpc.unary_stream_rpc_method_handler(self._commit),
            "Abort": grpc.unary_unary_rpc_method_handler(self._abort),
            "Find": grpc.unary_unary_rpc_method_handler(self._find),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        try:
            if tls is None:
                port = self._server.add_insecure_port(listen)
            else:
                port = self._server.add_secure_port(listen, server_credentials(tls))
        except RuntimeError as error:
            raise ConfigError(f"cannot listen on {listen}: {error}", hint="choose another address or port 0") from error
        self.address = f"{listen.rpartition(':')[0]}:{port}"

    def start(self) -> None:
        """Take calls."""
        self._server.start()

    def stop(self, grace_s: float) -> None:
        """Take no new calls, give those that run some time, then end them."""
        self._server.stop(grace_s).wait()

    def wait(self) -> None:
        """Return when the server has stopped."""
        self._server.wait_for_termination()

    def _begin(self, payload: bytes, context: Context) -> bytes:
        def work() -> LoadWords:
            request = parse(loader_pb2.BeginRequest, payload)
            _check(request.protocol)
            return self._service.begin(request.catalog, json.loads(request.context_json or "{}"))

        return _load_reply(work)

    def _abort(self, payload: bytes, context: Context) -> bytes:
        def work() -> LoadWords:
            request = parse(loader_pb2.AbortRequest, payload)
            _check(request.protocol)
            return self._service.abort(request.load, request.why)

        return _load_reply(work)

    def _find(self, payload: bytes, context: Context) -> bytes:
        def work() -> LoadWords:
            request = parse(loader_pb2.FindRequest, payload)
            _check(request.protocol)
            return self._service.find(request.load)

        return _load_reply(work)

    def _contribute(self, payloads: Iterator[bytes], context: Context) -> bytes:
        try:
            first = parse(loader_pb2.ContributeRequest, next(payloads, b""))
            if not first.HasField("contribution"):
                raise ProtocolError("a contribution begins with what it is about")
            said = first.contribution
            _check(said.protocol)
            stream = None
            if said.HasField("stream"):
                one = said.stream
                stream = StreamWords(label=one.label, version=one.version, format=one.format, sha256=one.sha256)
            words = ContributionWords(
                load=said.load, request=json.loads(said.request_json), options=json.loads(said.options_json or "{}"),
                contributor=said.contributor, uris=tuple(said.uris), stream=stream,
            )  # fmt: skip
            data = (parse(loader_pb2.ContributeRequest, payload).data for payload in payloads)
            receipt = self._service.contribute(words, data)
        except Exception as error:
            return bytes(loader_pb2.ContributeReply(error=to_message(_said(error))).SerializeToString())
        return bytes(loader_pb2.ContributeReply(receipt_json=json.dumps(receipt, default=str)).SerializeToString())

    def _commit(self, payload: bytes, context: Context) -> Iterator[bytes]:
        events: queue.SimpleQueue[loader_pb2.CommitEvent] = queue.SimpleQueue()

        def tell(stage: str, done: int, total: int) -> None:
            events.put(loader_pb2.CommitEvent(progress=loader_pb2.CommitProgress(stage=stage, done=done, total=total)))

        def work() -> None:
            try:
                request = parse(loader_pb2.CommitRequest, payload)
                _check(request.protocol)
                load, reports = self._service.commit(request.load, request.wait_s, tell)
                done = loader_pb2.CommitDone(load=_to_load(load), reports_json=json.dumps(list(reports), default=str))
                events.put(loader_pb2.CommitEvent(done=done))
            except Exception as error:
                events.put(loader_pb2.CommitEvent(error=to_message(_said(error))))

        threading.Thread(target=work, name="commit", daemon=True).start()
        while True:
            try:
                event = events.get(timeout=_SILENCE_S)
            except queue.Empty:
                event = loader_pb2.CommitEvent(progress=loader_pb2.CommitProgress())
            yield bytes(event.SerializeToString())
            if not event.HasField("progress"):
                return


def _check(theirs: int) -> None:
    if theirs != PROTOCOL:
        raise ProtocolError(
            f"the loader and the contributor speak different versions of the protocol ({PROTOCOL} and {theirs})",
            hint="run the same release of qengine on both",
        )


def _said(error: Exception) -> QEngineError:
    if isinstance(error, QEngineError):
        return error
    if isinstance(error, OSError):
        return ConfigError(f"{error.filename or 'the store'}: {error.strerror or error}")
    return BugError(f"{type(error).__name__}: {error}")


def _load_reply(work: Callable[[], LoadWords]) -> bytes:
    try:
        return bytes(loader_pb2.LoadReply(load=_to_load(work())).SerializeToString())
    except Exception as error:
        return bytes(loader_pb2.LoadReply(error=to_message(_said(error))).SerializeToString())


def _to_load(words: LoadWords) -> loader_pb2.Load:
    return loader_pb2.Load(
        id=words.id, number=words.number, catalog=words.catalog, state=words.state, snapshot=words.snapshot, error=words.error
    )
