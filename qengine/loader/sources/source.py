"""What the loader reads from: one `Source` per input file.

A source is read more than once (positions first, rows later) and must give the same rows in the same order each time: a
row is named by its place in its file. It knows nothing about tables or the sky.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from qengine.errors import InputError

BATCH_ROWS = 131_072
BATCH_BYTES = 48 << 20
MIN_BATCH_ROWS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which bytes a source was: kept as provenance of a load. `modified` is seconds since 1970."""

    path: str
    bytes: int
    modified: float


class Source(Protocol):
    """One input: a schema and an ordered stream of rows."""

    @property
    def name(self) -> str:
        """Return how messages call the input: its path as given."""

    @property
    def schema(self) -> pa.Schema:
        """Return the columns, in the file's order and with their metadata."""

    @property
    def rows(self) -> int:
        """Return the number of rows, estimated where the format does not say."""

    @property
    def row_bytes(self) -> int:
        """Return the estimated size of a row in memory."""

    @property
    def identity(self) -> Identity:
        """Return which bytes these are."""

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows in file order with just `columns`, in that order. Raise `InputError` naming file and place."""


def batch_rows(row_bytes: int) -> int:
    """Return how many rows to read at a time so that a batch stays small however wide the table is."""
    return max(MIN_BATCH_ROWS, min(BATCH_ROWS, BATCH_BYTES // max(row_bytes, 1)))


def check_same_columns(sources: Sequence[Source]) -> pa.Schema:
    """Return the schema that all sources share (columns may be in any order).

    Raise `InputError` naming file and column where one differs: silently dropped or NULL-filled columns are how catalogues rot.
    """
    first = sources[0].schema
    seen: dict[str, str] = {}
    for name in first.names:
        other = seen.setdefault(name.lower(), name)
        if other != name or first.names.count(name) > 1:
            raise InputError(
                f"{sources[0].name}: columns {other!r} and {name!r} are equal but for case", hint="rename one of them in the input"
            )
    for source in sources[1:]:
        schema = source.schema
        if missing := [n for n in first.names if n not in schema.names]:
            raise InputError(f"{source.name}: column {missing[0]!r} is missing, which {sources[0].name} has")
        if extra := [n for n in schema.names if n not in first.names]:
            raise InputError(f"{source.name}: column {extra[0]!r} is not in {sources[0].name}")
        for field in first:
            other_type = schema.field(field.name).type
            if other_type != field.type:
                raise InputError(
                    f"{source.name}: column {field.name!r} is {other_type}, but {field.type} in {sources[0].name}",
                    hint="convert the inputs to one type",
                )
    return first
