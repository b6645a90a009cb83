"""What the loader reads from: one `Source` per input.

A source is read more than once (positions first, rows later) and must give the same rows in the same order each time: a
row is named by its place in its input. It knows nothing about tables or the sky.

An input is *who* it is (`Identity.label`) and *which version* of that (`Source.version`). A file is who its label or its path
says, and its version is the sha256 of its bytes; a dataset of the Butler is its dataset type and data id, and its version is its
UUID. The same version of the same label is loaded once; a new version replaces the rows of the old one.

A `Recipe` is all that is needed to open the input again in another process, or after the first one was killed.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from qengine.errors import InputError

BATCH_ROWS = 131_072
BATCH_BYTES = 48 << 20
MIN_BATCH_ROWS = 1024

FILE = "file"
BUTLER = "butler"
QUERY = "query"
HATS = "hats"
STREAM = "stream"
KINDS = (FILE, BUTLER, QUERY, HATS, STREAM)
"""Where inputs come from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who an input is and where its bytes lie: kept as provenance of a load. `kind` is one of `KINDS`, `modified` is seconds since
    1970 (0 where nobody knows)."""

    label: str
    kind: str
    uri: str
    bytes: int
    modified: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to open an input again. `version` is empty where it is the sha256 of the content; `options` are plain JSON values."""

    format: str
    uri: str
    label: str
    kind: str = FILE
    version: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, words: Mapping[str, Any]) -> Recipe:
        """Return the recipe that `to_json` wrote."""
        return cls(**words)


class Source(Protocol):
    """One input: a schema and an ordered stream of rows."""

    @property
    def name(self) -> str:
        """Return how messages call the input: its path as given, or its address."""

    @property
    def schema(self) -> pa.Schema:
        """Return the columns, in the input's order; unit, UCD, utype and description are in the metadata of fields."""

    @property
    def rows(self) -> int:
        """Return the number of rows, estimated where the format does not say."""

    @property
    def row_bytes(self) -> int:
        """Return the estimated size of a row in memory."""

    @property
    def identity(self) -> Identity:
        """Return who this is."""

    @property
    def recipe(self) -> Recipe:
        """Return how to open it again."""

    def sha256(self) -> str:
        """Return the sha256 of its bytes in hexadecimal, computed when it is first asked for."""

    def version(self) -> str:
        """Return which version of the input this is: declared by where it comes from, else the sha256."""

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order with just `columns`, in that order. Raise `InputError` naming input and place."""


def batch_rows(row_bytes: int) -> int:
    """Return how many rows to read at a time so that a batch stays small however wide the table is."""
    return max(MIN_BATCH_ROWS, min(BATCH_ROWS, BATCH_BYTES // max(row_bytes, 1)))


def described(name: str, arrow: pa.DataType, words: Mapping[str, str], *, nullable: bool = True) -> pa.Field:
    """Return a field that carries those of unit, ucd, utype, xtype, description and system that are not empty."""
    metadata = {key: value for key, value in words.items() if value}
    return pa.field(name, arrow, nullable=nullable, metadata=metadata or None)


def fixed_width(arrow: pa.DataType) -> int:
    """Return the bytes of one value, a guess where values differ in size."""
    if pa.types.is_fixed_size_list(arrow):
        return int(arrow.list_size) * fixed_width(arrow.value_type)
    try:
        return max(1, int(arrow.bit_width) // 8)
    except ValueError:
        return 16


def checked_schema(schema: pa.Schema) -> pa.Schema:
    """Return the schema without the metadata of the file. Raise `ValueError` if names or words of its fields are not UTF-8, which
    Arrow finds out only when they are asked for."""
    for column in schema:
        for words in ((column.name.encode(),), *(column.metadata or {}).items()):
            b"".join(words).decode()
    return schema.remove_metadata()


def packed(schema: pa.Schema) -> str:
    """Return a schema as text for a recipe."""
    return base64.b64encode(schema.serialize()).decode()


def unpacked(text: str) -> pa.Schema:
    """Return the schema that `packed` wrote."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


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
        for field_ in first:
            other_type = schema.field(field_.name).type
            if other_type != field_.type:
                raise InputError(
                    f"{source.name}: column {field_.name!r} is {other_type}, but {field_.type} in {sources[0].name}",
                    hint="convert the inputs to one type",
                )
    return first
