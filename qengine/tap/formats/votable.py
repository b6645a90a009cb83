"""VOTable 1.4 with BINARY2, BINARY or TABLEDATA rows, written as text and bytes without an XML library.

The document is: one RESOURCE marked as results, INFO elements (QUERY_STATUS, statement, snapshots, warnings), one TABLE with
a FIELD per column, the rows, and after the TABLE a second QUERY_STATUS when MAXREC cut the result or the query failed on the
way. The same header without rows travels in VOParquet files.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape, quoteattr

import pyarrow as pa
import pyarrow.compute as pc

from qengine.catalog.output import OutputColumn
from qengine.catalog.systems import to_element
from qengine.catalog.types import to_votable
from qengine.errors import QEngineError
from qengine.tap.formats.binary2 import encode, null_value, without_null_items
from qengine.tap.formats.values import lists_of_words, present, to_text
from qengine.tap.formats.writer import Flowing, ResultHeader

_SLICE_ROWS = 32_768
"""Rows that are encoded at once; bounds the memory of intermediate arrays."""

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_FORBIDDEN_RE2 = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x{fffe}\x{ffff}]"

_ID = "column"
"""With the number of a column, the ID of its FIELD where something refers to it."""

_OPEN = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"'
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">\n'
    '<RESOURCE type="results">\n'
)
_END = "</RESOURCE>\n"
_CLOSE = "</VOTABLE>\n"


class Binary2Writer(Flowing):
    """VOTable with BINARY2 rows: small and fast."""

    _serialisation = "BINARY2"

    def __init__(self, header: ResultHeader) -> None:
        self._header = header
        self._has_flags = self._serialisation == "BINARY2"
        self._rest = b""

    def begin(self) -> bytes:
        head = _head(self._header, has_null_values=not self._has_flags)
        return f'{head}<DATA>\n<{self._serialisation}>\n<STREAM encoding="base64">\n'.encode()

    def write(self, batch: pa.RecordBatch) -> bytes:
        pieces = []
        for start in range(0, batch.num_rows, _SLICE_ROWS):
            raw = self._rest + encode(batch.slice(start, _SLICE_ROWS), self._header.columns, has_flags=self._has_flags)
            # Base64 turns three bytes into four: what is left over waits for the next rows.
            whole = len(raw) - len(raw) % 3
            pieces.append(base64.b64encode(memoryview(raw)[:whole]) + b"\n")
            self._rest = raw[whole:]
        return b"".join(pieces)

    def finish(self, *, is_overflow: bool) -> bytes:
        return self._end() + _foot(self._header, is_overflow=is_overflow)

    def fail(self, error: QEngineError) -> bytes:
        return self._end() + _error_foot(error)

    def _end(self) -> bytes:
        rest, self._rest = base64.b64encode(self._rest), b""
        return rest + f"\n</STREAM>\n</{self._serialisation}>\n</DATA>\n".encode()


class BinaryWriter(Binary2Writer):
    """VOTable with BINARY rows, for readers older than VOTable 1.3."""

    _serialisation = "BINARY"


class TableDataWriter(Flowing):
    """VOTable with TABLEDATA rows: text that people can read."""

    def __init__(self, header: ResultHeader) -> None:
        self._header = header

    def begin(self) -> bytes:
        return (_head(self._header) + "<DATA>\n<TABLEDATA>\n").encode()

    def write(self, batch: pa.RecordBatch) -> bytes:
        return b"".join(
            _rows(batch.slice(start, _SLICE_ROWS), self._header.columns) for start in range(0, batch.num_rows, _SLICE_ROWS)
        )

    def finish(self, *, is_overflow: bool) -> bytes:
        return b"</TABLEDATA>\n</DATA>\n" + _foot(self._header, is_overflow=is_overflow)

    def fail(self, error: QEngineError) -> bytes:
        return b"</TABLEDATA>\n</DATA>\n" + _error_foot(error)


def metadata_document(header: ResultHeader, *, is_overflow: bool) -> str:
    """Return a VOTable that has the columns and INFOs of a result and no rows."""
    return _head(header, status="OVERFLOW" if is_overflow else "OK") + f"</TABLE>\n{_END}{_services(header)}{_CLOSE}"


def error_document(error: QEngineError) -> bytes:
    """Return the VOTable that reports `error` as TAP asks: readable in QUERY_STATUS, for programs as JSON in QENGINE_ERROR."""
    return (_OPEN + _error_info(error) + _END + _CLOSE).encode()


def infos(header: ResultHeader) -> list[tuple[str, str]]:
    """Return what every format that has a place for it says about a result: statement, snapshots, warnings, provenance."""
    found = [("QUERY", header.statement)] if header.statement else []
    # a schema such as dp1@12 is catalogue dp1 at snapshot 12
    found += [("SNAPSHOT", f"{name.split('@')[0]}:{number}") for name, number in sorted(header.snapshots.items())]
    found += [("WARNING", warning) for warning in header.warnings]
    return [*found, *header.provenance]


def _error_info(error: QEngineError) -> str:
    return (
        f'<INFO name="QUERY_STATUS" value="ERROR">{text(str(error))}</INFO>\n'
        f'<INFO name="QENGINE_ERROR" value={attribute(json.dumps(error.to_json()))}/>\n'
    )


def _head(header: ResultHeader, *, status: str = "OK", has_null_values: bool = False) -> str:
    lines = [_OPEN, f'<INFO name="QUERY_STATUS" value="{status}"/>\n']
    lines += [f"<INFO name={attribute(name)} value={attribute(value)}/>\n" for name, value in infos(header)]
    systems = _systems(header.columns)
    lines += [f"<{element}/>\n" for element, _ in systems.values()]
    lines.append("<TABLE>\n")
    linked = {link.column for link in header.links}
    for number, column in enumerate(header.columns):
        _, name = systems.get(column.system, ("", ""))
        known = {"ID": f"{_ID}{number}" if number in linked else "", "ref": name}
        lines.append(_field(column, null_value(column) if has_null_values or to_votable(column.type).arraysize else None, known))
    return "".join(lines)


def _systems(columns: Sequence[OutputColumn]) -> dict[str, tuple[str, str]]:
    """Return the COOSYS and TIMESYS of the columns that say one, each with its ID."""
    found: dict[str, tuple[str, str]] = {}
    for system in dict.fromkeys(column.system for column in columns if column.system):
        kind, pairs = to_element(system)
        number = f"sys{len(found) + 1}"
        found[system] = kind + "".join(f" {key}={attribute(value)}" for key, value in ({"ID": number} | pairs).items()), number
    return found


def _field(column: OutputColumn, null: int | None, known: Mapping[str, str]) -> str:
    kind = to_votable(column.type)
    pairs = {
        "name": column.name,
        "datatype": kind.datatype,
        "arraysize": kind.arraysize,
        "xtype": kind.xtype,
        "unit": column.unit,
        "ucd": column.ucd,
        "utype": column.utype,
        **known,
    }
    attributes = "".join(f" {key}={attribute(value)}" for key, value in pairs.items() if value)
    inside = f"<DESCRIPTION>{text(column.description)}</DESCRIPTION>" if column.description else ""
    inside += f'<VALUES null="{null}"/>' if null is not None else ""
    return f"<FIELD{attributes}>{inside}</FIELD>\n" if inside else f"<FIELD{attributes}/>\n"


def _foot(header: ResultHeader, *, is_overflow: bool) -> bytes:
    overflow = '<INFO name="QUERY_STATUS" value="OVERFLOW"/>\n' if is_overflow else ""
    return f"</TABLE>\n{overflow}{_END}{_services(header)}{_CLOSE}".encode()


def _services(header: ResultHeader) -> str:
    """Return service descriptors as DataLink 1.1, section 4, has them."""
    return "".join(
        f'<RESOURCE type="meta" utype="adhoc:service" name={attribute(link.name)}>\n'
        f"<DESCRIPTION>{text(': '.join(filter(None, (link.title, link.description))))}</DESCRIPTION>\n"
        f'<PARAM name="accessURL" datatype="char" arraysize="*" value={attribute(link.url)}/>\n'
        '<PARAM name="contentType" datatype="char" arraysize="*" value="application/x-votable+xml"/>\n'
        '<GROUP name="inputParams">\n'
        f'<PARAM name="ID" datatype="char" arraysize="*" value="" ref="{_ID}{link.column}"/>\n</GROUP>\n</RESOURCE>\n'
        for link in header.links
    )


def _error_foot(error: QEngineError) -> bytes:
    return f"</TABLE>\n{_error_info(error)}{_END}{_CLOSE}".encode()


def _rows(batch: pa.RecordBatch, columns: Sequence[OutputColumn]) -> bytes:
    cells = [_cells(array, column) for array, column in zip(batch.columns, columns, strict=True)]
    opened = pa.scalar("<TR><TD>")
    between = pa.scalar("</TD><TD>")
    parts = [opened, cells[0]]
    for column_cells in cells[1:]:
        parts += [between, column_cells]
    lines = pc.binary_join_element_wise(*parts, pa.scalar("</TD></TR>\n"), "", null_handling="replace")
    return joined(lines)


def joined(lines: pa.Array) -> bytes:
    """Return the concatenated values of a string column without NULLs."""
    if not len(lines):
        return b""
    _, offsets, data = lines.buffers()
    width = 8 if pa.types.is_large_string(lines.type) else 4
    first = int.from_bytes(offsets[lines.offset * width : (lines.offset + 1) * width].to_pybytes(), "little")
    end = lines.offset + len(lines)
    last = int.from_bytes(offsets[end * width : (end + 1) * width].to_pybytes(), "little")
    return bytes(data[first:last].to_pybytes()) if data is not None else b""


def _cells(array: pa.Array, column: OutputColumn) -> pa.Array:
    kind = to_votable(column.type)
    if kind.arraysize and kind.datatype in ("boolean", "short", "int", "long"):
        return pc.fill_null(_items(present(array, column.type), column), "")
    words = to_text(array, column.type)
    if kind.datatype == "boolean":
        return pc.fill_null(pc.if_else(pc.equal(words, "true"), "T", "F"), "")
    if kind.datatype == "unsignedByte":
        words = pa.array([None if v is None else " ".join(str(b) for b in v) for v in array.to_pylist()], pa.string())
    if kind.datatype in ("char", "unicodeChar"):
        for plain, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
            words = pc.replace_substring(words, plain, escaped)
        if pc.any(pc.match_substring_regex(words, _FORBIDDEN_RE2)).as_py():
            words = pc.replace_substring_regex(words, _FORBIDDEN_RE2, "\ufffd")
    return pc.fill_null(words, "")


def _items(lists: pa.Array, column: OutputColumn) -> pa.Array:
    """Return the elements of arrays of truth values or integers as words."""
    if null_value(column) is not None:
        return to_text(without_null_items(lists, column, where="arrays of VOTables"), column.type)
    return lists_of_words(lists, pc.fill_null(pc.if_else(lists.flatten(), "T", "F"), "?"))


def text(value: str) -> str:
    """Return `value` as XML text; characters that XML forbids are replaced."""
    return escape(_FORBIDDEN.sub("\ufffd", value))


def attribute(value: str) -> str:
    """Return `value` as a quoted XML attribute; line breaks are kept as references."""
    return quoteattr(_FORBIDDEN.sub("\ufffd", value), {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})
