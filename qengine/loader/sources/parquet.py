"""Parquet files as a loader source.

Unit, UCD and description come from the metadata of fields; where a field has none, from the VOTable that VOParquet keeps in the
file's metadata, or from the header that astropy (and the Butler's storage class ArrowAstropy) keeps there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from qengine.errors import InputError
from qengine.loader.sources.astropy_yaml import words_of
from qengine.loader.sources.file import FileSource, Place, width_of
from qengine.loader.sources.source import batch_rows, checked_schema
from qengine.loader.sources.votable import described_columns
from qengine.storage import remote

SUFFIXES = (".parquet", ".parq", ".pq")
_ASTROPY = b"table_meta_yaml"
_VOPARQUET = b"IVOA.VOTable-Parquet.content"


class ParquetSource(FileSource):
    """One Parquet file. Opening it reads the footer only. Columns named in `hidden` are left out."""

    format = "parquet"

    def __init__(self, path: Place | Path | str, *, hidden: Sequence[str] = ()) -> None:
        super().__init__(path)
        self._hidden = tuple(hidden)
        self._groups: tuple[int, int] | None = None
        self._first_row = 0
        try:
            with self._opened() as file:
                self._schema = _described(file.schema_arrow.serialize().to_pybytes(), self._hidden)
                self._rows = int(file.metadata.num_rows)
                groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
                self._group_rows = tuple(int(group.num_rows) for group in groups)
                encoded = sum(group.total_byte_size for group in groups)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputError(
                f"{self.name}: not a readable Parquet file: {error}", hint="the file may be truncated, or is none"
            ) from error
        self._row_bytes = max(width_of(self._schema), int(encoded) // max(self._rows, 1))

    @property
    def group_rows(self) -> tuple[int, ...]:
        """Return the rows of each row group of the file."""
        return self._group_rows

    def piece(self, first: int, last: int) -> Self:
        """Return the row groups [first, last) as a source of their own; messages count rows as in the whole file."""
        found = copy(self)
        found._groups = (first, last)
        found._first_row = sum(self._group_rows[:first])
        found._rows = sum(self._group_rows[first:last])
        return found

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows in file order. Raise `InputError` with the first row of the batch that cannot be decoded."""
        yield from self._read(self._check_columns(columns))

    def _read(self, wanted: list[str]) -> Iterator[pa.RecordBatch]:
        row = 0
        try:
            with self._opened() as file:
                groups = range(*self._groups) if self._groups is not None else None
                for batch in file.iter_batches(batch_rows(self._row_bytes), row_groups=groups, columns=wanted, use_threads=False):
                    chosen = batch.select(wanted)
                    for column in chosen.columns:
                        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                            column.validate(full=True)  # the reader takes any bytes for text
                    yield chosen
                    row += batch.num_rows
        except (pa.ArrowException, OSError, ValueError) as error:
            place = self._first_row + row + 1
            raise InputError(f"{self.name}: cannot read past row {place}: {error}", hint="the file may be damaged") from error
        if row != self._rows:
            raise InputError(f"{self.name}: has {row:,} rows, but had {self._rows:,}", hint="load files that nobody writes to")

    @contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        if not remote.is_remote(self._uri):
            with pq.ParquetFile(remote.local_path(self._uri)) as file:
                yield file
            return
        # Far away each request costs time, so the ranges of a row group are asked for together.
        with remote.open_arrow(self._uri) as stream, pq.ParquetFile(stream, pre_buffer=True) as file:
            yield file

    def _options(self) -> Mapping[str, Any]:
        return {"hidden": list(self._hidden)} if self._hidden else {}


@lru_cache(maxsize=64)
def _described(content: bytes, hidden: tuple[str, ...]) -> pa.Schema:
    """Return the schema of a source. Files of one table have equal ones, which are made and kept once: a wide one is a megabyte."""
    given = pa.ipc.read_schema(pa.py_buffer(content))
    metadata = given.metadata or {}
    plain = checked_schema(given)
    known: dict[str, Mapping[str, str]] = {}
    # A description that cannot be read is no reason to refuse rows: the quality of a load says how many columns have one.
    with suppress(InputError):
        if (header := metadata.get(_ASTROPY)) is not None:
            known |= words_of(header.decode(errors="replace"), "header")
    with suppress(InputError):
        if (votable := metadata.get(_VOPARQUET)) is not None:
            known |= described_columns(votable, "header")
    return pa.schema([_merged(field, known.get(field.name, {})) for field in plain if field.name not in hidden])


def _merged(field: pa.Field, words: Mapping[str, str]) -> pa.Field:
    own = dict(field.metadata or {})
    added = {key.encode(): value.encode() for key, value in words.items() if value and key.encode() not in own}
    return field.with_metadata(own | added) if added else field
