"""CSV, TSV and their relatives as a loader source.

Nothing needs to be configured: leading `#` lines are skipped (the last one is the header if the rest has none), the delimiter is
the one of `, tab ; |` that splits all first lines into equally many fields, compression follows the name (`.gz`, `.bz2`, `.zst`),
and types are inferred from the first block. What is not so may be declared by `CsvOptions`. A value later in the file that does not
fit the type is an error that names row and column, never a silent NULL. A blank line is nothing, but in a text of one column, where
it is a row whose value is NULL (also at the end: what ends a text is the end of its last line).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from qengine.errors import ConfigError, InputError
from qengine.loader.sources.csv_quotes import check_quotes
from qengine.loader.sources.file import FileSource, Place
from qengine.loader.sources.source import packed
from qengine.storage import remote

SUFFIXES = (".csv", ".tsv", ".txt", ".dat", ".psv")
COMPRESSIONS = (".gz", ".bz2", ".zst")
NULL_WORDS = ("", "NULL", "null", "\\N", "NaN", "nan", "NAN", "N/A", "n/a")
"""Fields that mean NULL. `NA`, `None` and `--` are words in some catalogues and are left alone unless they are declared."""

_SAMPLE_BYTES = 1 << 20
_BLOCK_BYTES = 8 << 20
_EXACT_IN_FLOAT = 2.0**53
_LONG = r"^[+-]?\d{16,}$"
_DELIMITERS = (",", "\t", ";", "|")
_CODECS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvOptions:
    """What is declared of a text: the delimiter (empty: found), the column names (empty: in the header), the words that mean NULL
    (in addition to an empty field), the quote and the escape character (empty: none), the decimal mark and the encoding."""

    delimiter: str = ""
    names: tuple[str, ...] = ()
    nulls: tuple[str, ...] = NULL_WORDS
    quote: str = '"'
    escape: str = ""
    decimal: str = "."
    encoding: str = "utf8"

    def __post_init__(self) -> None:
        for word, value in (("delimiter", self.delimiter), ("quote", self.quote), ("escape", self.escape)):
            if len(value) > 1:
                raise ConfigError(f"the {word} of a text is one character, not {value!r}")
        if len(self.decimal) != 1:
            raise ConfigError(f"the decimal mark of a text is one character, not {self.decimal!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How the text is cut: `skipped` lines before the first row, and the column names that were found in one of them."""

    delimiter: str
    skipped: int
    names: tuple[str, ...]


class CsvSource(FileSource):
    """One delimited text file. `types` overrides the inferred type of columns."""

    format = "csv"

    def __init__(
        self, path: Place | Path | str, *, types: Mapping[str, pa.DataType] | None = None, options: CsvOptions | None = None
    ) -> None:
        super().__init__(path)
        self._csv = options or CsvOptions()
        self._types = dict(types or {})
        self._undetermined: frozenset[str] = frozenset()
        self._exact: frozenset[str] = frozenset()
        self._is_checked = False
        raw = self._read_sample()
        sample = str(raw, "utf-8-sig" if self._csv.encoding == "utf8" else self._csv.encoding, "replace")
        is_whole = len(raw) < _SAMPLE_BYTES
        self._dialect = self._cut(sample, is_whole=is_whole)
        lines = max(0 if is_whole else 1, _count_lines(sample) - self._dialect.skipped)
        line_bytes = max(1, len(raw) // max(lines, 1))
        inflation = 4 if self._codec else 1
        self._rows = lines if is_whole else self._status.bytes * inflation // line_bytes
        inferred = self._infer(self._types)
        self._schema = pa.schema([pa.field(name, inferred[name]) for name in self._dialect.names])
        self._row_bytes = max(line_bytes, 8 * len(self._schema))

    @property
    def exact(self) -> frozenset[str]:
        """Columns of integers that are too large for a float."""
        return self._exact

    @property
    def undetermined(self) -> frozenset[str]:
        """Columns in which the file has no value, so that nothing says what type they are of; they are read as text."""
        return self._undetermined

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows in file order. Raise `InputError` with row and column of a value that does not fit."""
        types = {name: self._schema.field(name).type for name in self._check_columns(columns)}
        self._check_quotes()
        yield from self._stream(columns, types)

    def _cut(self, sample: str, *, is_whole: bool) -> Dialect:
        return detect_dialect(sample, name=self.name, is_whole=is_whole, options=self._csv)

    def _options(self) -> Mapping[str, Any]:
        words = asdict(self._csv) | {"names": list(self._csv.names), "nulls": list(self._csv.nulls)}
        return {"schema": packed(self._schema), "csv": words}

    def _stream(self, columns: Sequence[str], types: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        try:
            with self._open(columns, types, is_threaded=True) as reader:
                for batch in reader:
                    if batch.num_rows:
                        yield batch
        except pa.ArrowInvalid as error:
            raise self._located(error, columns, types) from error
        except OSError as error:
            raise InputError(f"{self.name}: cannot be read: {error}") from error

    def _check_quotes(self) -> None:
        is_wide = self._csv.encoding.lower().startswith(("utf16", "utf-16", "utf32", "utf-32"))
        if self._is_checked or not self._csv.quote or self._csv.escape or is_wide:
            return
        with self._bytes() as stream:
            check_quotes(
                stream.read, name=self.name, delimiter=self._dialect.delimiter, quote=self._csv.quote,
                skipped=self._dialect.skipped,
            )  # fmt: skip
        self._is_checked = True

    def _open(self, columns: Sequence[str], types: Mapping[str, pa.DataType], *, is_threaded: bool) -> pacsv.CSVStreamingReader:
        names = list(self._dialect.names)
        return pacsv.open_csv(
            self._bytes(),
            read_options=pacsv.ReadOptions(
                column_names=names,
                skip_rows=self._dialect.skipped,
                block_size=_BLOCK_BYTES,
                use_threads=is_threaded,
                encoding=self._csv.encoding,
            ),
            parse_options=pacsv.ParseOptions(
                delimiter=self._dialect.delimiter,
                newlines_in_values=True,
                quote_char=self._csv.quote or False,
                escape_char=self._csv.escape or False,
                ignore_empty_lines=self._skips_blank,
            ),
            convert_options=pacsv.ConvertOptions(
                column_types=dict(types),
                include_columns=list(columns),
                null_values=["", *self._csv.nulls],
                strings_can_be_null=True,
                quoted_strings_can_be_null=self._is_quoted_null,
                true_values=["true", "True", "TRUE", "t", "T"],
                false_values=["false", "False", "FALSE", "f", "F"],
                decimal_point=self._csv.decimal,
            ),
        )

    @property
    def _is_quoted_null(self) -> bool:
        return False

    @property
    def _skips_blank(self) -> bool:
        return len(self._dialect.names) > 1

    @property
    def _codec(self) -> str:
        return next((codec for suffix, codec in _CODECS.items() if self._uri.lower().endswith(suffix)), "")

    def _bytes(self) -> pa.NativeFile:
        stream = remote.open_arrow(self._uri)
        return pa.CompressedInputStream(stream, self._codec) if self._codec else stream

    def _located(self, error: pa.ArrowInvalid, columns: Sequence[str], types: Mapping[str, pa.DataType]) -> InputError:
        # Arrow knows the row only when it parses in one thread, so the failing file is read once more.
        message = str(error)
        try:
            with self._open(columns, types, is_threaded=False) as reader:
                for _ in reader:
                    pass
        except pa.ArrowInvalid as again:
            message = str(again)
        column = re.search(r"CSV column #(\d+)", message)
        row = re.search(r"Row #(\d+)", message)
        reason = re.sub(r"^(In CSV column #\d+: )?(CSV parse error: )?(Row #\d+: )?", "", message)
        where = f"row {row[1]}, " if row else ""
        if column:
            where += f"column {self._dialect.names[int(column[1])]!r}: "
        return InputError(f"{self.name}: {where}{reason}", hint="correct the row, or declare the column's type with --schema")

    def _read_sample(self) -> bytes:
        try:
            with self._bytes() as stream:
                return bytes(stream.read(_SAMPLE_BYTES))
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{self.name}: cannot be read: {error}") from error

    def _infer(self, types: Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
        names = self._dialect.names
        try:
            with self._open(names, types, is_threaded=True) as reader:
                found = {field.name: field.type for field in reader.schema}
                first = next(iter(reader), None) if len(types) < len(names) else None
        except pa.ArrowInvalid as error:
            if "Empty CSV" in str(error):
                self._undetermined = frozenset(names).difference(types)
                return {name: types.get(name, pa.string()) for name in names}
            raise self._located(error, names, types) from error
        except OSError as error:
            raise InputError(f"{self.name}: cannot be read: {error}") from error
        if first is not None:
            self._check_integers({name: found[name] for name in names if name not in types}, first)
        unknown = [name for name in names if pa.types.is_null(found[name])]
        if unknown:
            found |= self._infer_late(unknown)
        return found

    def _check_integers(self, inferred: Mapping[str, pa.DataType], first: pa.RecordBatch) -> None:
        """Note columns of integers that no float holds. Raise `InputError` if there are some in a column of floats: read so, they
        would be rounded."""
        self._exact = frozenset(
            name for name, kind in inferred.items() if pa.types.is_integer(kind) and _largest(first.column(name)) > _EXACT_IN_FLOAT
        )
        floats = [name for name, kind in inferred.items() if pa.types.is_floating(kind)]
        large = [name for name in floats if _largest(first.column(name)) > _EXACT_IN_FLOAT]
        if not large:
            return
        with self._open(large, dict.fromkeys(large, pa.string()), is_threaded=True) as reader:
            texts = next(iter(reader))
        for name in large:
            is_long = pc.fill_null(pc.match_substring_regex(texts.column(name), _LONG), False)
            if pc.any(is_long).as_py():
                word = texts.column(name).filter(is_long)[0].as_py()
                raise InputError(
                    f"{self.name}: column {name!r} has integers such as {word} and other numbers, which would round them",
                    hint="declare the column's type with --schema",
                )

    def _infer_late(self, unknown: Sequence[str]) -> dict[str, pa.DataType]:
        """Look further for values of columns that are NULL in the whole first block."""
        found = dict.fromkeys(unknown, pa.string())
        pending = list(unknown)
        for batch in self._stream(pending, found):
            for name in list(pending):
                values = batch.column(name).drop_null()
                if len(values):
                    found[name] = _narrowest(values)
                    pending.remove(name)
            if not pending:
                break
        self._undetermined = frozenset(pending)
        return found


def _largest(values: pa.Array) -> float:
    found = pc.max(pc.abs(pc.cast(values, pa.float64(), safe=False))).as_py() if len(values) else None
    return found if found is not None else 0.0


def _count_lines(sample: str) -> int:
    return sample.count("\n") + (bool(sample) and not sample.endswith("\n"))


def detect_dialect(sample: str, *, name: str, is_whole: bool, options: CsvOptions | None = None) -> Dialect:
    """Return how the text that begins with `sample` is cut. Raise `InputError` if it is empty or has no header."""
    wanted = options or CsvOptions()
    lines = sample.splitlines()
    comments = 0
    while comments < len(lines) and (lines[comments].startswith("#") or not lines[comments].strip()):
        comments += 1
    body = [line for line in lines[comments : comments + 21] if line.strip()]
    if not is_whole and len(body) > 1:
        body = body[:-1]
    comment_header = lines[comments - 1].lstrip("# ") if comments and lines[comments - 1].startswith("#") else ""
    if not body and not comment_header and not wanted.names:
        raise InputError(f"{name}: the file is empty", hint="a header line is needed even when there are no rows")
    delimiter = wanted.delimiter or _delimiter(body or [comment_header])
    if wanted.names:
        if len(wanted.names) == 1:  # without a header, blank lines behind the comments are rows
            comments = max((number for number, line in enumerate(lines[:comments], 1) if line.startswith("#")), default=0)
        return Dialect(delimiter=delimiter, skipped=comments, names=_checked_names(wanted.names, name))
    first = _fields(body[0], delimiter) if body else []
    skipped = comments + 1
    if not body or (comment_header and all(_is_number(field) for field in first)):
        first, skipped = _fields(comment_header, delimiter), comments
    names = tuple(field.strip() for field in first)
    if all(_is_number(field) for field in names):
        raise InputError(f"{name}: no header line: the first line holds numbers only", hint="put them into line 1, or declare them")
    return Dialect(delimiter=delimiter, skipped=skipped, names=_checked_names(names, name))


def _checked_names(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    if empty := [i for i, field in enumerate(names) if not field]:
        raise InputError(f"{name}: column {empty[0] + 1} has no name")
    if doubled := [field for i, field in enumerate(names) if field in names[:i]]:
        raise InputError(f"{name}: two columns are named {doubled[0]!r}")
    return names


def unify_types(sources: Sequence[CsvSource]) -> dict[str, pa.DataType]:
    """Return for each column the narrowest type that holds the values of all files: integer < float < text. Files without a value
    in a column have no say."""
    found: dict[str, pa.DataType] = {}
    for source in sources:
        for field in source.schema:
            if field.name not in source.undetermined:
                known = found.get(field.name, field.type)
                found[field.name] = known if known == field.type else _wider(known, field.type)
    for source in sources:
        for name in source.exact:
            if pa.types.is_floating(found[name]):
                raise InputError(
                    f"{source.name}: column {name!r} has large integers, but other numbers in other inputs, which would round them",
                    hint="declare the column's type with --schema",
                )
    return found


def _wider(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    is_number = all(pa.types.is_integer(t) or pa.types.is_floating(t) for t in (a, b))
    return pa.float64() if is_number else pa.string()


def _delimiter(lines: Sequence[str]) -> str:
    best, most = ",", 1
    for candidate in _DELIMITERS:
        counts = {len(_fields(line, candidate)) for line in lines}
        if len(counts) == 1 and (count := counts.pop()) > most:
            best, most = candidate, count
    if most == 1:
        # ragged lines: take the header's word, so that the error can name the bad row
        best = max(_DELIMITERS, key=lambda candidate: len(_fields(lines[0], candidate)))
    return best


def _fields(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _narrowest(values: pa.Array) -> pa.DataType:
    for candidate in (pa.int64(), pa.float64()):
        try:
            pc.cast(values, candidate)
        except pa.ArrowInvalid:
            continue
        return candidate
    return pa.string()
