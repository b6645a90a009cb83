"""The gRPC side of those who contribute to a loader on another machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc

from qengine.errors import ClusterError
from qengine.transport.error_message import from_message, parse
from qengine.transport.generated import loader_pb2
from qengine.transport.grpc_options import CLIENT_OPTIONS, client_credentials
from qengine.transport.loader_server import PROTOCOL, SERVICE, ContributionWords, LoadWords
from qengine.transport.tls import TlsFiles

_CALL_S = 60.0


class LoaderClient:
    """A loader at `address` (host:port). Several threads may use it at once; the connection is made at the first call."""

    def __init__(self, address: str, *, tls: TlsFiles | None = None) -> None:
        self._address = address
        options = list(CLIENT_OPTIONS)
        if tls is None:
            self._channel = grpc.insecure_channel(address, options=options)
        else:
            names = [("grpc.ssl_target_name_override", tls.peer_name)] if tls.peer_name else []
            self._channel = grpc.secure_channel(address, client_credentials(tls), options=[*options, *names])

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def begin(self, catalog: str, context: Mapping[str, Any]) -> LoadWords:
        """Begin a load."""
        words = json.dumps(dict(context), default=str)
        return self._load("Begin", loader_pb2.BeginRequest(protocol=PROTOCOL, catalog=catalog, context_json=words))

    def contribute(self, words: ContributionWords, data: Iterator[bytes]) -> Mapping[str, Any]:
        """Add inputs to a load and return the receipt. `data` are the bytes of the stream, if there is one."""
        stream = None
        if (one := words.stream) is not None:
            stream = loader_pb2.Stream(label=one.label, version=one.version, format=one.format, sha256=one.sha256)
        said = loader_pb2.Contribution(
            protocol=PROTOCOL, load=words.load, request_json=json.dumps(dict(words.request), default=str),
            options_json=json.dumps(dict(words.options)), contributor=words.contributor, uris=words.uris, stream=stream,
        )  # fmt: skip

        def messages() -> Iterator[bytes]:
            yield bytes(loader_pb2.ContributeRequest(contribution=said).SerializeToString())
            for chunk in data:
                yield bytes(loader_pb2.ContributeRequest(data=chunk).SerializeToString())

        call = self._channel.stream_unary(f"/{SERVICE}/Contribute", None, None)
        reply = parse(loader_pb2.ContributeReply, self._asked(lambda: call(messages())))
        if reply.HasField("error"):
            raise from_message(reply.error)
        found: dict[str, Any] = json.loads(reply.receipt_json)
        return found

    def commit(self, load: str, wait_s: float, tell: Callable[[str, int, int], None]) -> tuple[LoadWords, list[Mapping[str, Any]]]:
        """Publish a load and return it with its reports."""
        request = loader_pb2.CommitRequest(protocol=PROTOCOL, load=load, wait_s=wait_s)
        call = self._channel.unary_stream(f"/{SERVICE}/Commit", None, None)
        try:
            for payload in call(bytes(request.SerializeToString())):
                event = parse(loader_pb2.CommitEvent, payload)
                if event.HasField("error"):
                    raise from_message(event.error)
                if event.HasField("done"):
                    return _from_load(event.done.load), json.loads(event.done.reports_json)
                if event.progress.stage:
                    tell(event.progress.stage, event.progress.done, event.progress.total)
        except grpc.RpcError as error:
            raise self._lost(error) from error
        raise ClusterError(f"loader {self._address} has left", hint="commit the load again")

    def abort(self, load: str, why: str) -> LoadWords:
        """End a load without publishing."""
        return self._load("Abort", loader_pb2.AbortRequest(protocol=PROTOCOL, load=load, why=why))

    def find(self, load: str) -> LoadWords:
        """Return what state a load is in."""
        return self._load("Find", loader_pb2.FindRequest(protocol=PROTOCOL, load=load))

    def _load(self, method: str, request: Any) -> LoadWords:
        call = self._channel.unary_unary(f"/{SERVICE}/{method}", None, None)
        reply = parse(loader_pb2.LoadReply, self._asked(lambda: call(bytes(request.SerializeToString()), timeout=_CALL_S)))
        if reply.HasField("error"):
            raise from_message(reply.error)
        return _from_load(reply.load)

    def _asked(self, call: Callable[[], bytes]) -> bytes:
        try:
            return call()
        except grpc.RpcError as error:
            raise self._lost(error) from error

    def _lost(self, error: grpc.RpcError) -> ClusterError:
        said = error.details() if isinstance(error, grpc.Call) else str(error)
        return ClusterError(f"loader {self._address} cannot be reached: {said}", hint="what it had heard stays; say it again")


def _from_load(message: loader_pb2.Load) -> LoadWords:
    return LoadWords(
        id=message.id, number=message.number, catalog=message.catalog, state=message.state, snapshot=message.snapshot,
        error=message.error,
    )  # fmt: skip
