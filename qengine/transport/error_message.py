"""Errors as protobuf messages, and back: code, blame, retryable flag, span, hint and details survive. Free of grpc."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.message import DecodeError

from qengine.errors import (
    Blame,
    BugError,
    ClusterError,
    DataError,
    LimitError,
    QEngineError,
    QueryError,
    RangesUnavailableError,
    Span,
    by_code,
)
from qengine.transport.generated import common_pb2

_BLAMES: dict[Blame, common_pb2.Blame] = {
    Blame.USER: common_pb2.BLAME_USER,
    Blame.LIMIT: common_pb2.BLAME_LIMIT,
    Blame.CLUSTER: common_pb2.BLAME_CLUSTER,
    Blame.DATA: common_pb2.BLAME_DATA,
    Blame.BUG: common_pb2.BLAME_BUG,
}
_BASES: dict[common_pb2.Blame, type[QEngineError]] = {
    _BLAMES[Blame.USER]: QueryError,
    _BLAMES[Blame.LIMIT]: LimitError,
    _BLAMES[Blame.DATA]: DataError,
    _BLAMES[Blame.BUG]: BugError,
}


def to_message(error: QEngineError) -> common_pb2.Error:
    """Return an error as a message, with everything that it says."""
    message = common_pb2.Error(
        code=error.code,
        blame=_BLAMES[error.blame],
        retryable=error.retryable,
        message=error.message,
        hint=error.hint,
        details_json=json.dumps(error.details, default=str),
    )
    if error.span is not None:
        span = error.span
        message.span.CopyFrom(common_pb2.Span(line=span.line, column=span.column, start=span.start, end=span.end))
    return message


def from_message(message: common_pb2.Error) -> QEngineError:
    """Return the error that a message is about."""
    kind = by_code(message.code)
    if kind.code != message.code:
        # A newer release knows kinds of errors that we do not: who is to blame, and whether to try again, still decide.
        kind = _BASES.get(message.blame, ClusterError if message.retryable else RangesUnavailableError)
    span = Span(message.span.line, message.span.column, message.span.start, message.span.end) if message.HasField("span") else None
    details: dict[str, Any] = json.loads(message.details_json) if message.details_json else {}
    return kind(message.message, span=span, hint=message.hint, details=details)


def parse(kind: Any, payload: bytes) -> Any:
    """Return the message of this kind. Raise `ClusterError` for bytes that are none."""
    try:
        return kind.FromString(payload)
    except DecodeError as error:
        raise ClusterError(f"a message cannot be decoded: {error}") from error
