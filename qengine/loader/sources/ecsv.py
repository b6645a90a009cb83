"""ECSV, astropy's text with a header in YAML, as a loader source.

The header declares types, units and descriptions, so nothing is inferred. An empty field is NULL, quoted or not, as astropy has it.
Columns with several values in a field hold JSON, which becomes lists; objects are refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from qengine.errors import InputError
from qengine.loader.sources.astropy_yaml import ColumnHeader, TableHeader, read_header
from qengine.loader.sources.csv import CsvOptions, CsvSource, Dialect
from qengine.loader.sources.file import Place, width_of
from qengine.loader.sources.source import described
from qengine.storage import remote

SUFFIXES = (".ecsv",)
_TYPES = {
    "bool": pa.bool_(), "int8": pa.int8(), "int16": pa.int16(), "int32": pa.int32(), "int64": pa.int64(), "uint8": pa.uint8(),
    "uint16": pa.uint16(), "uint32": pa.uint32(), "uint64": pa.uint64(), "float16": pa.float32(), "float32": pa.float32(),
    "float64": pa.float64(), "float128": pa.float64(), "string": pa.string(),
}  # fmt: skip
_HEADER_BYTES = 16 << 20


class EcsvSource(CsvSource):
    """One ECSV file."""

    format = "ecsv"

    def __init__(self, path: Place | Path | str) -> None:
        self._lists: dict[str, pa.DataType] = {}
        place = Place.of(path)
        header = self._read_header(place.uri)
        text = {}
        for column in header.columns:
            kind = _type_of(column, place.uri)
            if pa.types.is_list(kind):
                self._lists[column.name] = kind
            text[column.name] = pa.string() if column.name in self._lists else kind
        options = CsvOptions(delimiter=header.delimiter, nulls=("",))
        super().__init__(place, types=text, options=options)
        declared = [column.name for column in header.columns]
        if list(self._dialect.names) != declared:
            raise InputError(f"{self.name}: the line of names is {list(self._dialect.names)}, but the header declares {declared}")
        self._schema = pa.schema(
            [described(column.name, self._lists.get(column.name, text[column.name]), column.words) for column in header.columns]
        )
        self._row_bytes = max(self._row_bytes, width_of(self._schema))

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows in file order. Raise `InputError` with row and column of a value that does not fit."""
        wanted = self._check_columns(columns)
        types = {name: pa.string() if name in self._lists else self._schema.field(name).type for name in wanted}
        schema = pa.schema([self._schema.field(name) for name in wanted])
        row = 0
        self._check_quotes()
        for batch in self._stream(wanted, types):
            values = [self._parsed(batch.column(number), name, row) for number, name in enumerate(wanted)]
            yield pa.record_batch(values, schema=schema)
            row += batch.num_rows

    def _cut(self, sample: str, *, is_whole: bool) -> Dialect:
        comments = sum(1 for _ in _comments(sample))
        found = super()._cut("\n".join(sample.splitlines()[comments:]), is_whole=is_whole)
        return Dialect(delimiter=found.delimiter, skipped=found.skipped + comments, names=found.names)

    @property
    def _is_quoted_null(self) -> bool:
        return True

    @property
    def _skips_blank(self) -> bool:
        return True  # astropy quotes what is empty, and takes no notice of blank lines

    def _options(self) -> Mapping[str, Any]:
        return {}

    def _parsed(self, values: pa.Array, name: str, row: int) -> pa.Array:
        kind = self._lists.get(name)
        if kind is None:
            return values
        found = []
        for number, text in enumerate(values.to_pylist()):
            try:
                found.append(None if text is None else json.loads(text))
            except ValueError as error:
                raise InputError(f"{self.name}: data row {row + number + 1}, column {name!r}: not JSON: {text[:60]!r}") from error
        try:
            return pa.array(found, kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise InputError(f"{self.name}: column {name!r}: {error}") from error

    def _read_header(self, uri: str) -> TableHeader:
        try:
            with _decoded(uri) as stream:
                sample = bytes(stream.read(_HEADER_BYTES)).decode("utf-8", "replace")
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{uri}: cannot be read: {error}") from error
        lines = [line.lstrip("#").removeprefix(" ") for line in _comments(sample)]
        if not sample:
            raise InputError(f"{uri}: the file is empty: it has not even a header", hint="was it copied to the end?")
        if not lines or not lines[0].startswith("%ECSV"):
            raise InputError(f"{uri}: not an ECSV file: its first line must begin with '# %ECSV'")
        return read_header("\n".join(line for line in lines[1:] if not line.startswith("%")), uri)


def _comments(sample: str) -> Iterator[str]:
    for line in sample.splitlines():
        if not line.startswith("#"):
            return
        yield line


def _decoded(uri: str) -> pa.NativeFile:
    stream = remote.open_arrow(uri)
    return pa.CompressedInputStream(stream, "gzip") if uri.lower().endswith(".gz") else stream


def _type_of(column: ColumnHeader, where: str) -> pa.DataType:
    if column.datatype == "string" and column.subtype not in ("", "string"):
        element = column.subtype.partition("[")[0]
        if element == "json":
            return pa.string()
        if element in _TYPES:
            depth = max(1, column.subtype.count(",") + 1)
            found = _TYPES[element]
            for _ in range(depth):
                found = pa.list_(found)
            return found
    elif column.datatype in _TYPES:
        return _TYPES[column.datatype]
    raise InputError(f"{where}: column {column.name!r} is of type {column.subtype or column.datatype}, which queries cannot use")
