"""The one way from Arrow batches to bytes: `ResultWriter`.

A writer is made for one result and is called in this order: `begin`, any number of `write`, then `held` and `finish`, or `fail`. It
returns bytes and never waits, so the same writers serve HTTP streams and files. `close` frees what it holds, whatever happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from qengine.catalog.output import OutputColumn
from qengine.errors import QEngineError


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLink:
    """A service at `url` that takes a value of a column (its number among those of the result) as the parameter ID."""

    column: int
    name: str
    title: str
    description: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultHeader:
    """What is known of a result before its first row. `schema` has the Arrow types of the batches that follow. `provenance` are
    pairs of name and value that say where the rows come from (`tap.provenance`), `links` where they lead to (`tap.datalink`)."""

    columns: tuple[OutputColumn, ...]
    schema: pa.Schema
    statement: str = ""
    warnings: tuple[str, ...] = ()
    snapshots: Mapping[str, int] = field(default_factory=dict)
    provenance: tuple[tuple[str, str], ...] = ()
    links: tuple[ServiceLink, ...] = ()


class ResultWriter(Protocol):
    """Turns one result into bytes."""

    def begin(self) -> bytes:
        """Return what precedes the first row."""

    def write(self, batch: pa.RecordBatch) -> bytes:
        """Return the rows of `batch`; may hold bytes back for a later call."""

    def held(self) -> Iterator[bytes]:
        """Yield what could not be written before all rows were known."""

    def finish(self, *, is_overflow: bool) -> bytes:
        """Return what follows the last row; `is_overflow` says that MAXREC cut the result."""

    def fail(self, error: QEngineError) -> bytes | None:
        """Return an end of the stream that reports `error`, or None if the format can only break off."""

    def close(self) -> None:
        """Free files and memory; may be called at any time, also twice."""


class Flowing:
    """What writers share that hold nothing back."""

    def held(self) -> Iterator[bytes]:
        yield from ()

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """An output format. `media_type` is sent unless the request spelled another one; `aliases` are the short names that
    RESPONSEFORMAT takes, `also` other spellings that clients have for it, which are not declared; `ivo_id` is declared in the
    capabilities if there is one."""

    media_type: str
    aliases: tuple[str, ...]
    suffix: str
    writer: Callable[[ResultHeader], ResultWriter]
    ivo_id: str = ""
    also: tuple[str, ...] = ()
