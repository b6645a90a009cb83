"""The error tree: every failure that a user, an operator or another process can see.

An error has a stable `code`, says who is to `blame`, whether the same request may succeed when it is `retryable`, and, where
it concerns a statement, the `span` of the text. All of it survives gRPC (`transport.codec`) and becomes the TAP error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, ClassVar, Self


class Blame(Enum):
    """Who has to act."""

    USER = "user"
    LIMIT = "limit"
    CLUSTER = "cluster"
    DATA = "data"
    BUG = "bug"


@dataclass(frozen=True, slots=True)
class Span:
    """A place in a statement: `line` and `column` count from 1; `start` and `end` are character offsets, end exclusive."""

    line: int
    column: int
    start: int
    end: int

    def __deepcopy__(self, memo: object) -> Span:
        """A value is its own copy: trees that carry spans are copied often."""
        return self

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}"


_EXCERPT = 100
"""Characters of a line that an excerpt shows."""


def excerpt(text: str, span: Span) -> str:
    """Return the line of the text in which the span begins, with a mark below it; a part of the line if it is long."""
    lines = text.split("\n")
    if not 1 <= span.line <= len(lines):
        return ""
    line, column = lines[span.line - 1].rstrip("\r").replace("\t", " "), span.column - 1
    width = max(1, min(span.end - span.start, len(line) - column))
    first = max(0, column - _EXCERPT // 2) if len(line) > _EXCERPT else 0
    shown = line[first : first + _EXCERPT]
    before = ".." if first else ""
    after = ".." if first + _EXCERPT < len(line) else ""
    mark = "^" * max(1, min(width, len(shown) - (column - first)))
    return f"  {before}{shown}{after}\n  {' ' * (len(before) + column - first)}{mark}"


class QEngineError(Exception):
    """Base of all errors that qengine raises on purpose.

    `message` says what is wrong and where, `hint` what to do next. An error about a statement shows its line (`located`).
    """

    code: ClassVar[str] = "internal"
    blame: ClassVar[Blame] = Blame.BUG
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, span: Span | None = None, hint: str = "", details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.span = span
        self.hint = hint
        self.details = dict(details or {})

    @property
    def excerpt(self) -> str:
        """The line of the statement with a mark below the place, empty if it is not known."""
        return str(self.details.get("excerpt", ""))

    def located(self, statement: str) -> Self:
        """Keep the line of `statement` that the error is about, and return the error. The first call counts."""
        if self.span is not None and not self.excerpt and (shown := excerpt(statement, self.span)):
            self.details["excerpt"] = shown
        return self

    def to_json(self) -> dict[str, Any]:
        """Return code, message, hint, place and excerpt for programs; `error_from_json` reads it."""
        place = asdict(self.span) if self.span else None
        return {"code": self.code, "message": self.message, "hint": self.hint, "span": place, "excerpt": self.excerpt}

    def __str__(self) -> str:
        where = f"{self.span}: " if self.span else ""
        hint = f" ({self.hint})" if self.hint else ""
        shown = f"\n{self.excerpt}" if self.excerpt else ""
        return f"{where}{self.message}{hint}{shown}"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.span, self.hint, self.details))


def _rebuild(kind: type[QEngineError], message: str, span: Span | None, hint: str, details: dict[str, Any]) -> QEngineError:
    return kind(message, span=span, hint=hint, details=details)


# -- the statement ------------------------------------------------------------------------------------------------------------


class QueryError(QEngineError):
    """The statement cannot be run as it is written."""

    code = "query"
    blame = Blame.USER


class QuerySyntaxError(QueryError):
    """The text is not a statement of the language."""

    code = "syntax"


class UnknownNameError(QueryError):
    """A table, column or function that does not exist here."""

    code = "unknown_name"


class QueryTypeError(QueryError):
    """An operator or function is given arguments of a type that it does not take."""

    code = "type"


class UnsupportedQueryError(QueryError):
    """The statement is valid, but there is no exact way to answer it yet."""

    code = "unsupported"


class ExecutionError(QueryError):
    """The statement failed on the data: overflow, a bad cast, a division that the language forbids."""

    code = "execution"


class UploadError(QueryError):
    """What was uploaded cannot be read as a table."""

    code = "upload"


class CredentialsError(QEngineError):
    """What was sent to prove who asks does not prove it, or nothing was sent and something is needed."""

    code = "credentials"
    blame = Blame.USER


# -- limits -------------------------------------------------------------------------------------------------------------------


class LimitError(QEngineError):
    """A configured limit was reached; nothing is wrong with the statement or the data."""

    code = "limit"
    blame = Blame.LIMIT


class QueryTooLargeError(LimitError):
    """Memory, rows or bytes beyond the limit."""

    code = "too_large"


class RequestTooLargeError(LimitError):
    """Somebody sends more than the service reads."""

    code = "request_too_large"


class QueryTooExpensiveError(LimitError):
    """The estimate is beyond what a query may cost here; nothing has run."""

    code = "too_expensive"


class QueryTimeoutError(LimitError):
    """The deadline passed."""

    code = "timeout"


class QueryCancelledError(LimitError):
    """Somebody asked for the end of it."""

    code = "cancelled"


class TooManyRequestsError(LimitError):
    """Somebody asks for more at a time than they may; `details["retry_after_s"]` says when it is worth to try again."""

    code = "too_many_requests"
    retryable = True


class PoisonTaskError(LimitError):
    """A task ended the processes that ran it; it is not tried again, so that it cannot end them all."""

    code = "poison"


# -- cluster ------------------------------------------------------------------------------------------------------------------


class ClusterError(QEngineError):
    """A process or a connection failed."""

    code = "cluster"
    blame = Blame.CLUSTER
    retryable = True


class WorkerLostError(ClusterError):
    """The worker died, fell silent or cannot be reached."""

    code = "worker_lost"


class StoreUnavailableError(ClusterError):
    """The object store does not answer, or does not allow what was asked of it."""

    code = "store_unavailable"


class RelationMissingError(ClusterError):
    """A worker does not have a relation that was put on it: it has been restarted since."""

    code = "relation_missing"


class PartitionLostError(ClusterError):
    """Partitions of an exchange cannot be read any more; `details["partitions"]` names them."""

    code = "partition_lost"


class RangesUnavailableError(ClusterError):
    """No living worker can serve some ranges of the line; the message names them."""

    code = "ranges_unavailable"
    retryable = False


class ProtocolError(ClusterError):
    """The other side speaks another version, or breaks the protocol."""

    code = "protocol"
    retryable = False


# -- data ---------------------------------------------------------------------------------------------------------------------


class DataError(QEngineError):
    """Input or stored data is not what it must be."""

    code = "data"
    blame = Blame.DATA


class SchemaError(DataError):
    """A schema, sidecar or declared property contradicts itself or the data."""

    code = "schema"


class InputError(DataError):
    """A file or row given to the loader cannot be taken; the message names file and column or row."""

    code = "input"


class DuplicateKeyError(DataError):
    """A key that must be unique is not."""

    code = "duplicate_key"


class IntegrityError(DataError):
    """A part's bytes are not the bytes that were published."""

    code = "integrity"
    retryable = True


class RegistryError(DataError):
    """The registry cannot be opened or does not know what was asked for."""

    code = "registry"


class UnknownSnapshotError(RegistryError):
    """There is no catalogue, snapshot or tag of this name."""

    code = "unknown_snapshot"
    blame = Blame.USER


class SnapshotExpiredError(DataError):
    """The snapshot has been expired by policy."""

    code = "snapshot_expired"
    blame = Blame.USER


class ConflictError(DataError):
    """Two writers changed the same table; the second has to start again."""

    code = "conflict"


class ConfigError(QEngineError):
    """A setting or command-line argument is wrong."""

    code = "config"
    blame = Blame.USER


class BugError(QEngineError):
    """An invariant of qengine itself is broken."""

    code = "bug"


def _tree(kind: type[QEngineError]) -> dict[str, type[QEngineError]]:
    found = {kind.code: kind}
    for child in kind.__subclasses__():
        found.update(_tree(child))
    return found


def by_code(code: str) -> type[QEngineError]:
    """Return the error class with this code, for rebuilding an error that crossed a process; `ClusterError` if unknown."""
    return _tree(QEngineError).get(code, ClusterError)


def error_from_json(plain: Mapping[str, Any]) -> QEngineError:
    """Return the error that `QEngineError.to_json` has described."""
    span = Span(**place) if (place := plain.get("span")) else None
    details = {"excerpt": plain["excerpt"]} if plain.get("excerpt") else None
    return by_code(plain.get("code", ""))(plain.get("message", ""), span=span, hint=plain.get("hint", ""), details=details)
