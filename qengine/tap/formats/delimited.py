"""CSV and TSV. Both have a header line; a NULL is an empty field.

In CSV every text is quoted, so that an empty text ("") differs from NULL. TSV knows no quotes: tabs and line breaks in values
become blanks, as the format demands.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from qengine.catalog.output import OutputColumn
from qengine.catalog.types import to_votable
from qengine.errors import QEngineError
from qengine.tap.formats.values import to_text
from qengine.tap.formats.votable import joined
from qengine.tap.formats.writer import Flowing, ResultHeader


class CsvWriter(Flowing):
    """Comma-separated values by RFC 4180."""

    def __init__(self, header: ResultHeader) -> None:
        self._columns = header.columns

    def begin(self) -> bytes:
        return (",".join(_quoted(column.name) for column in self._columns) + "\r\n").encode()

    def write(self, batch: pa.RecordBatch) -> bytes:
        # A line that holds nothing is skipped by many readers, and with it the row.
        null = "" if len(self._columns) > 1 else '""'
        found = zip(batch.columns, self._columns, strict=True)
        return _lines([pc.fill_null(self.cells(array, column), null) for array, column in found], ",", "\r\n")

    def cells(self, array: pa.Array, column: OutputColumn) -> pa.Array:
        """Return the fields of a column, NULL where the value is."""
        words = to_text(array, column.type)
        return quoted_cells(words) if to_votable(column.type).datatype == "unicodeChar" else words

    def finish(self, *, is_overflow: bool) -> bytes:
        return b""

    def fail(self, error: QEngineError) -> None:
        return None


class TsvWriter(Flowing):
    """Tab-separated values without quoting."""

    def __init__(self, header: ResultHeader) -> None:
        self._columns = header.columns

    def begin(self) -> bytes:
        return ("\t".join(_blank(column.name) for column in self._columns) + "\n").encode()

    def write(self, batch: pa.RecordBatch) -> bytes:
        cells = [
            pc.fill_null(pc.replace_substring_regex(to_text(array, column.type), r"[\t\r\n]", " "), "")
            for array, column in zip(batch.columns, self._columns, strict=True)
        ]
        return _lines(cells, "\t", "\n")

    def finish(self, *, is_overflow: bool) -> bytes:
        return b""

    def fail(self, error: QEngineError) -> None:
        return None


def quoted_cells(words: pa.Array) -> pa.Array:
    """Return texts as fields that may hold anything."""
    return pc.binary_join_element_wise('"', pc.replace_substring(words, '"', '""'), '"', "")


def _lines(cells: list[pa.Array], separator: str, end: str) -> bytes:
    parts: list[pa.Array | str] = [cells[0]]
    for column in cells[1:]:
        parts += [separator, column]
    return joined(pc.binary_join_element_wise(*parts, end, ""))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if any(c in name for c in ',"\r\n') else name


def _blank(name: str) -> str:
    return name.translate({9: " ", 10: " ", 13: " "})
