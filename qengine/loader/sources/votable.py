"""VOTables as a loader source: TABLEDATA, BINARY and BINARY2, read as a stream, whatever the size.

Before anything is parsed the bytes are scanned: a DOCTYPE (which could include other files, or grow without end) and data elsewhere
(a STREAM with href) are refused, and tables and rows are counted. The parser then gives events; cells are collected until a batch
is full and converted column by column (`votable_cells`).
"""

from __future__ import annotations

import binascii
import gzip
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast
from xml.parsers import expat

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qengine.catalog.systems import POSITION, TIME, from_element
from qengine.errors import InputError
from qengine.loader.sources.file import FileSource, Place, width_of
from qengine.loader.sources.source import batch_rows
from qengine.loader.sources.votable_cells import Cells, Fail, cells_of, from_bytes, from_text
from qengine.storage import remote

SUFFIXES = (".xml", ".vot", ".votable")
_BLOCK = 1 << 20
_OVERLAP = 4096
_TAG = re.compile(rb"<(?:[A-Za-z_][\w.-]*:)?(TABLE|TR|STREAM)(?=[\s>/])([^>]*)")


class VotableSource(FileSource):
    """One table of a VOTable file. `table` is its number in the file, from 1, or its name; empty if the file has but one."""

    format = "votable"

    def __init__(self, path: Place | Path | str, *, table: str = "") -> None:
        super().__init__(path)
        self._table = table
        tables, rows = self._scan()
        self._number = self._choose(table, tables)
        reader = _Reader(self.name, self._number)
        for block in self._blocks():
            reader.feed(block)
            if reader.is_in_data:
                break
        else:
            reader.finish()
        if reader.fields is None:
            raise InputError(f"{self.name}: there is no TABLE with a FIELD", hint="the file may hold an error of the service")
        self._fields = reader.fields
        self._schema = pa.schema([each.field for each in self._fields])
        self._row_bytes = width_of(self._schema)
        estimated = self._status.bytes * 3 // 4 // self._row_bytes if reader.is_binary else 0
        self._rows = rows[self._number] or reader.rows or estimated

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows in file order. Raise `InputError` with row and column of a value that cannot be taken."""
        wanted = self._check_columns(columns)
        most = batch_rows(self._row_bytes)
        reader = _Reader(self.name, self._number)
        first = 0
        for block in self._blocks():
            reader.feed(block)
            while reader.held >= most:
                yield (batch := self._batch(reader, wanted, most, first))
                first += batch.num_rows
        reader.finish()
        while reader.held:
            yield (batch := self._batch(reader, wanted, most, first))
            first += batch.num_rows

    def _options(self) -> Mapping[str, Any]:
        return {"table": self._table}

    def _batch(self, reader: _Reader, wanted: Sequence[str], most: int, first: int) -> pa.RecordBatch:
        names = self._schema.names

        def blame(name: str) -> Fail:
            return lambda row, reason: InputError(f"{self.name}: row {first + row + 1}, column {name!r}: {reason}")

        columns = reader.take(most, [names.index(name) for name in wanted], [blame(name) for name in wanted])
        return pa.record_batch(columns, schema=pa.schema([self._schema.field(name) for name in wanted]))

    def _blocks(self) -> Iterator[bytes]:
        try:
            with remote.open_bytes(self._uri) as stream:
                plain = cast(BinaryIO, gzip.GzipFile(fileobj=stream)) if self._uri.lower().endswith(".gz") else stream
                while block := plain.read(_BLOCK):
                    yield block
        except (OSError, EOFError) as error:
            raise InputError(f"{self.name}: cannot be read: {error}", hint="the file may be truncated") from error

    def _scan(self) -> tuple[list[str], list[int]]:
        """Return the names of the tables of the file and how many TR each has."""
        names: list[str] = []
        rows: list[int] = []
        tail = b""
        for block in self._blocks():
            if not tail and block[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise InputError(f"{self.name}: the file is UTF-16", hint="convert it to UTF-8")
            text = tail + block
            # what may be the beginning of a tag waits for the next block
            cut = text.rfind(b"<") if len(text) - text.rfind(b"<") < _OVERLAP else len(text)
            text, tail = text[:cut], text[cut:] or b""
            self._scan_piece(text, names, rows)
        self._scan_piece(tail, names, rows)
        if not names:
            raise InputError(f"{self.name}: there is no TABLE in this file", hint="is it a VOTable?")
        return names, rows

    def _scan_piece(self, text: bytes, names: list[str], rows: list[int]) -> None:
        if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
            raise InputError(f"{self.name}: has a DOCTYPE, which a VOTable must not have", hint="remove it")
        for match in _TAG.finditer(text):
            if match[1] == b"TABLE":
                name = re.search(rb"\bname\s*=\s*[\"']([^\"']*)", match[2])
                names.append(name[1].decode(errors="replace") if name else "")
                rows.append(0)
            elif match[1] == b"TR" and rows:
                rows[-1] += 1
            elif match[1] == b"STREAM" and re.search(rb"\bhref\s*=", match[2]):
                raise InputError(f"{self.name}: its data are elsewhere (STREAM with href)", hint="store the data in the file")

    def _choose(self, table: str, names: Sequence[str]) -> int:
        known = ", ".join(f"{number}{f' ({name})' if name else ''}" for number, name in enumerate(names, 1))
        chosen = [i for i, name in enumerate(names) if not table or table == name or table == str(i + 1)]
        if len(chosen) != 1:
            what = f"there is no table {table!r}" if table and not chosen else "there are several tables"
            raise InputError(f"{self.name}: {what} in this VOTable", hint=f"name one of {known}")
        return chosen[0]


def described_columns(content: bytes, where: str) -> dict[str, Mapping[str, str]]:
    """Return unit, UCD, utype, description and system of the columns of the one table of a VOTable.

    Raise `InputError` if it is none."""
    reader = _Reader(where, 0)
    reader.feed(content)
    reader.finish()
    return {cells.name: cells.words for cells in reader.fields or ()}


class _Reader:
    """What the parser has seen of one table: its fields, and cells that nobody has taken yet."""

    def __init__(self, name: str, number: int) -> None:
        self._name = name
        self._number = number
        self._seen = -1
        self.fields: tuple[Cells, ...] | None = None
        self.rows = 0
        self.is_in_data = False
        self.is_binary = False
        self._layout = ""
        self._fields: list[tuple[dict[str, str], str, str]] = []
        self._systems: dict[str, str] = {}
        self._text: list[str] | None = None
        self._inside: list[str] = []
        self._row: list[str] = []
        self._held: list[list[str]] = []
        self._base64 = b""
        self._bytes = bytearray()
        self._ends: list[int] = [0]
        parser = self._parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.buffer_size = 1 << 16
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.StartDoctypeDeclHandler = self._doctype

    @property
    def held(self) -> int:
        """Number of whole rows that are held."""
        return len(self._held) if not self.is_binary else len(self._ends) - 1

    def feed(self, block: bytes) -> None:
        """Read on. Raise `InputError` where the XML is broken."""
        try:
            self._parser.Parse(block, False)
        except expat.ExpatError as error:
            raise self._broken(error) from error
        except (LookupError, ValueError) as error:
            raise InputError(f"{self._name}: {error}", hint="write the file as UTF-8") from error
        if self.is_binary:
            self._find_rows()

    def finish(self) -> None:
        """Say that there is no more. Raise `InputError` if the file ends too early."""
        try:
            self._parser.Parse(b"", True)
        except expat.ExpatError as error:
            raise self._broken(error) from error
        except (LookupError, ValueError) as error:
            raise InputError(f"{self._name}: {error}", hint="write the file as UTF-8") from error
        if self.is_binary:
            self._find_rows()
            if self._base64.strip() or self._ends[-1] != len(self._bytes):
                raise InputError(f"{self._name}: the data end within a row", hint="the file may be truncated")

    def take(self, most: int, columns: Sequence[int], blame: Sequence[Fail]) -> list[pa.Array]:
        """Return the next `most` rows of these columns and forget them."""
        assert self.fields is not None
        if not self.is_binary:
            rows, self._held = self._held[:most], self._held[most:]
            return [from_text(self.fields[c], [row[c] for row in rows], fail) for c, fail in zip(columns, blame, strict=True)]
        rows_ = min(most, self.held)
        end = self._ends[rows_]
        content = np.frombuffer(bytes(self._bytes[:end]), np.uint8)
        ends = self._ends[: rows_ + 1]
        del self._bytes[:end]
        self._ends = [each - end for each in self._ends[rows_:]]
        return self._cut(content, ends, columns, blame)

    def _broken(self, error: expat.ExpatError) -> InputError:
        reason = expat.errors.messages[error.code] if error.code in expat.errors.messages else str(error)
        return InputError(
            f"{self._name}: line {error.lineno}, column {error.offset + 1}: {reason}", hint="the file may be truncated"
        )

    # -- events of the parser -------------------------------------------------------------------------------------------------

    def _doctype(self, *_: object) -> None:
        raise InputError(f"{self._name}: has a DOCTYPE, which a VOTable must not have", hint="remove it")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        tag = tag.rpartition(":")[2]
        self._inside.append(tag)
        if tag == "TABLE":
            self._seen += 1
            if self._seen == self._number:
                self.rows = int(attributes.get("nrows", "0")) if attributes.get("nrows", "0").isdigit() else 0
        elif tag in (POSITION, TIME):
            self._systems[attributes.get("ID", "")] = from_element(tag, attributes)
        elif self._seen == self._number:
            self._start_inside(tag, attributes)

    def _start_inside(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "TD":
            encoding = attributes.get("encoding")
            if encoding:
                raise InputError(f"{self._name}: a TD with encoding {encoding} cannot be read")
            self._text = []
        elif tag == "TR":
            self._row = []
        elif tag == "FIELD":
            self._fields.append((attributes, "", ""))
        elif tag == "VALUES" and "null" in attributes and self._inside[-2:-1] == ["FIELD"]:
            found, _, description = self._fields[-1]
            self._fields[-1] = (found, attributes["null"], description)
        elif tag == "DESCRIPTION" and self._inside[-2:-1] == ["FIELD"]:
            self._text = []
        elif tag == "DATA":
            self.is_in_data = True
            self._close_fields()
        elif tag in ("TABLEDATA", "BINARY", "BINARY2", "FITS"):
            self._layout = tag
            self.is_binary = tag in ("BINARY", "BINARY2")
            if tag == "FITS":
                raise InputError(f"{self._name}: its data are FITS", hint="load the FITS file")
        elif tag == "STREAM":
            if attributes.get("href") or attributes.get("encoding", "") not in ("base64",):
                raise InputError(f"{self._name}: the STREAM is not base64 in the file", hint="write the table anew")
            self._text = []

    def _end(self, tag: str) -> None:
        tag = tag.rpartition(":")[2]
        self._inside.pop()
        if self._seen != self._number:
            return
        if tag == "TD":
            self._row.append("".join(self._text or ()))
            self._text = None
        elif tag == "TR":
            if self.fields is None or len(self._row) != len(self.fields):
                line, wanted = self._parser.CurrentLineNumber, len(self.fields or ())
                raise InputError(f"{self._name}: line {line}: a row has {len(self._row)} cells, not {wanted}")
            self._held.append(self._row)
        elif tag == "DESCRIPTION" and self._inside[-1:] == ["FIELD"]:
            found, null, _ = self._fields[-1]
            self._fields[-1] = (found, null, "".join(self._text or ()))
            self._text = None
        elif tag == "STREAM":
            self._decode()
            self._text = None
        elif tag == "TABLE":
            self._close_fields()
            self._seen += self.fields is None  # a TABLE without FIELD is none

    def _characters(self, text: str) -> None:
        if self._text is None:
            return
        self._text.append(text)
        if self._inside[-1] == "STREAM" and len(self._text) > 64:
            self._decode()

    def _close_fields(self) -> None:
        if self.fields is None and self._fields:
            self.fields = tuple(
                cells_of(*field, self._systems.get(field[0].get("ref", ""), ""), number, self._name)
                for number, field in enumerate(self._fields, 1)
            )

    # -- binary ---------------------------------------------------------------------------------------------------------------

    def _decode(self) -> None:
        text = self._base64 + "".join(self._text or ()).translate(_SPACES).encode("ascii", "replace")
        self._text = []
        whole = len(text) // 4 * 4
        try:
            self._bytes += binascii.a2b_base64(text[:whole], strict_mode=False)
        except binascii.Error as error:
            raise InputError(f"{self._name}: line {self._parser.CurrentLineNumber}: not base64: {error}") from error
        self._base64 = text[whole:]

    @property
    def _flags(self) -> int:
        return -(-len(self.fields or ()) // 8) if self._layout == "BINARY2" else 0

    def _find_rows(self) -> None:
        """Note where rows end among the bytes that are held."""
        if self.fields is None:
            return
        at = self._ends[-1]
        if not any(each.varies for each in self.fields):
            size = self._flags + sum(each.fixed_bytes for each in self.fields)
            self._ends += range(at + size, len(self._bytes) + 1, size) if size else ()
            return
        while at < len(self._bytes):
            for each in (None, *self.fields):
                at = at + self._flags if each is None else self._after(each, at)
                if at > len(self._bytes):
                    return
            self._ends.append(at)

    def _after(self, cells: Cells, at: int) -> int:
        if not cells.varies:
            return at + cells.fixed_bytes
        if at + 4 > len(self._bytes):
            return len(self._bytes) + 1
        count = int.from_bytes(self._bytes[at : at + 4], "big", signed=True)
        if count < 0:
            raise InputError(f"{self._name}: column {cells.name!r}: an array of {count} values", hint="the file is damaged")
        return at + 4 + cells.bytes_of(count)

    def _cut(
        self,
        content: NDArray[np.uint8],
        ends: Sequence[int],
        columns: Sequence[int],
        blame: Sequence[Fail],
    ) -> list[pa.Array]:
        """Return columns of whole rows."""
        assert self.fields is not None
        rows, starts = len(ends) - 1, np.array(ends[:-1], np.int64)
        flags = None
        if self._flags:
            flags = np.unpackbits(content[starts[:, None] + np.arange(self._flags)], axis=1).astype(bool)
        at = starts + self._flags
        found: dict[int, pa.Array] = {}
        for number, cells in enumerate(self.fields):
            if cells.varies:
                heads = np.ascontiguousarray(content[at[:, None] + np.arange(4)])
                counts = heads.view(">i4").reshape(-1).astype(np.int64)
                sizes = -(-counts // 8) if cells.datatype == "bit" else counts * cells.bytes_of(8) // 8
                at = at + 4
            else:
                sizes = np.full(rows, cells.fixed_bytes, np.int64)
                counts = np.full(rows, _elements(cells), np.int64)
            if number in columns:
                raw = content[_places(at, sizes)]
                fail = blame[list(columns).index(number)]
                found[number] = from_bytes(cells, raw, counts, flags[:, number] if flags is not None else None, fail)
            at = at + sizes
        return [found[number] for number in columns]


_SPACES = str.maketrans("", "", " \t\r\n")


def _elements(cells: Cells) -> int:
    return int(np.prod(cells.sizes, dtype=np.int64)) * (cells.width if cells.is_text else 1)


def _places(starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places of all bytes of runs, one run after another."""
    total = int(sizes.sum())
    before = np.concatenate([[0], np.cumsum(sizes)[:-1]]) if len(sizes) else np.empty(0, np.int64)
    return np.repeat(starts - before, sizes) + np.arange(total)
