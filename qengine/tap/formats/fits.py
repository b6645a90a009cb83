"""FITS binary tables (FITS 4.0, section 7.3).

The header of a FITS table says how many rows there are and how wide every text is, which is known only at the end: rows are kept
in a temporary Arrow file on disk, and written from it when they have all come. Memory stays constant.

Texts have the width of the longest one; characters beyond ASCII, which FITS forbids, are shown as `?`, and the header says so. A
NULL integer is the smallest number of its type (TNULL), other NULLs are NaN, zero bytes for logicals, blanks for text. Lists are as
long as the longest one, padded like NULLs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from qengine.catalog.output import OutputColumn
from qengine.catalog.types import to_votable
from qengine.errors import QEngineError, QueryError
from qengine.tap.formats.binary2 import without_null_items
from qengine.tap.formats.values import present
from qengine.tap.formats.votable import infos
from qengine.tap.formats.writer import ResultHeader

BLOCK = 2880
_ROWS = 32_768
_CODES = {"short": ("I", ">i2"), "int": ("J", ">i4"), "long": ("K", ">i8"), "float": ("E", ">f4"), "double": ("D", ">f8")}


@dataclass(slots=True)
class _Width:
    """How many characters, bytes or members the longest value of a column has."""

    longest: int = 0
    is_replaced: bool = False


class FitsWriter:
    """One binary table in the first extension; see above."""

    def __init__(self, header: ResultHeader) -> None:
        self._header = header
        self._columns = header.columns
        self._widths = [_Width() for _ in header.columns]
        self._rows = 0
        self._file: IO[bytes] | None = None
        self._stream: pa.ipc.RecordBatchStreamWriter | None = None

    def begin(self) -> bytes:
        return b""

    def write(self, batch: pa.RecordBatch) -> bytes:
        if not batch.num_rows:
            return b""
        arrays = [_flat(array, column) for array, column in zip(batch.columns, self._columns, strict=True)]
        for array, column, width in zip(arrays, self._columns, self._widths, strict=True):
            _measure(array, column, width)
        kept = pa.RecordBatch.from_arrays(arrays, [f"c{i}" for i in range(len(arrays))])
        if self._stream is None:
            self._file = tempfile.TemporaryFile(prefix="qengine-fits-")  # noqa: SIM115 - closed by `close`
            self._stream = pa.ipc.new_stream(self._file, kept.schema)
        self._stream.write_batch(kept)
        self._rows += batch.num_rows
        return b""

    def held(self) -> Iterator[bytes]:
        dtype = np.dtype([(f"c{i}", *_field(c, w)) for i, (c, w) in enumerate(zip(self._columns, self._widths, strict=True))])
        yield from _headers(self._header, self._widths, self._rows, dtype.itemsize)
        if self._stream is None or self._file is None:
            return
        self._stream.close()
        self._file.seek(0)
        with pa.ipc.open_stream(self._file) as reader:
            for batch in reader:
                for start in range(0, batch.num_rows, _ROWS):
                    yield self._encoded(batch.slice(start, _ROWS), dtype)

    def finish(self, *, is_overflow: bool) -> bytes:
        # The rows are padded to a block; an empty extension then says how the result ended.
        size = self._rows * sum(_bytes(c, w) for c, w in zip(self._columns, self._widths, strict=True))
        end = b"\0" * (-size % BLOCK)
        if not is_overflow:
            return end
        cards = [("XTENSION", "IMAGE"), ("BITPIX", 8), ("NAXIS", 0), ("PCOUNT", 0), ("GCOUNT", 1), ("EXTNAME", "OVERFLOW")]
        return end + _header(cards, comments=["MAXREC cut the rows: there are more"])

    def fail(self, error: QEngineError) -> None:
        """Leave the file without rows: no reader takes it for a whole one."""

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _encoded(self, batch: pa.RecordBatch, dtype: np.dtype[np.void]) -> bytes:
        rows: NDArray[np.void] = np.zeros(batch.num_rows, dtype)
        for i, (array, column) in enumerate(zip(batch.columns, self._columns, strict=True)):
            rows[f"c{i}"] = _values(array, column, dtype[f"c{i}"])
        return rows.tobytes()


def _flat(array: pa.Array, column: OutputColumn) -> pa.Array:
    shown = present(array, column.type)
    null = _null(column)
    if pa.types.is_list(shown.type):
        return without_null_items(shown, column, where="FITS")
    if null is not None and pc.any(pc.equal(shown, null)).as_py():
        raise QueryError(f"column {column.name} has the value {null}, which means NULL in FITS", hint="ask for another format")
    return shown


def _measure(array: pa.Array, column: OutputColumn, width: _Width) -> None:
    kind = to_votable(column.type).datatype
    if kind in ("char", "unicodeChar", "unsignedByte"):
        longest = pc.max(pc.utf8_length(array) if pa.types.is_string(array.type) else pc.binary_length(array)).as_py()
        if pa.types.is_string(array.type) and not pc.all(pc.string_is_ascii(array)).as_py():
            width.is_replaced = True
    elif pa.types.is_list(array.type):
        longest = pc.max(pc.list_value_length(array)).as_py()
    else:
        longest = 1
    width.longest = max(width.longest, longest or 0)


def _null(column: OutputColumn) -> int | None:
    code = _CODES.get(to_votable(column.type).datatype)
    return int(np.iinfo(code[1]).min) if code and code[1][1] == "i" else None


def _field(column: OutputColumn, width: _Width) -> tuple[Any, ...]:
    """Return dtype and shape of a column in a row."""
    target = to_votable(column.type)
    if target.datatype in ("char", "unicodeChar"):
        return (f"S{max(width.longest, 1)}",)
    if target.datatype == "unsignedByte":
        return ("u1", (width.longest,))
    dtype = "u1" if target.datatype == "boolean" else _CODES[target.datatype][1]
    return (dtype, (width.longest,)) if target.arraysize else (dtype,)


def _bytes(column: OutputColumn, width: _Width) -> int:
    return np.dtype([("c", *_field(column, width))]).itemsize


def _form(column: OutputColumn, width: _Width) -> str:
    target = to_votable(column.type)
    if target.datatype in ("char", "unicodeChar"):
        return f"{max(width.longest, 1)}A"
    code = {"unsignedByte": "B", "boolean": "L"}.get(target.datatype) or _CODES[target.datatype][0]
    return f"{width.longest}{code}" if target.arraysize else code


def _values(array: pa.Array, column: OutputColumn, dtype: np.dtype[Any]) -> Any:
    base, shape = dtype.subdtype if dtype.subdtype else (dtype, ())
    kind = to_votable(column.type).datatype
    if kind in ("char", "unicodeChar"):
        if not pc.all(pc.string_is_ascii(array)).as_py():
            array = pc.replace_substring_regex(array, r"[^\x00-\x7f]", "?")
        return np.array(pc.fill_null(array, "").to_pylist(), dtype)
    if kind == "unsignedByte":
        padded = np.zeros((len(array), *shape), np.uint8)
        for row, value in enumerate(array.to_pylist()):
            padded[row, : len(value or b"")] = np.frombuffer(value or b"", np.uint8)
        return padded
    if not pa.types.is_list(array.type):
        return _numbers(array, column, base)
    filled = np.full((len(array), *shape), _filler(column, base), base)
    counts = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    items = _numbers(array.drop_null().flatten(), column, base)
    filled[np.arange(shape[0]) < counts[:, None]] = items
    return filled


def _numbers(array: pa.Array, column: OutputColumn, dtype: np.dtype[Any]) -> NDArray[Any]:
    if pa.types.is_boolean(array.type):
        letters = np.where(pc.fill_null(array, False).to_numpy(zero_copy_only=False), ord("T"), ord("F")).astype(np.uint8)
        letters[array.is_null().to_numpy(zero_copy_only=False)] = 0
        return letters
    filled = pc.fill_null(array, pa.scalar(_filler(column, dtype), array.type)) if array.null_count else array
    return np.asarray(filled.to_numpy(zero_copy_only=False)).astype(dtype)


def _filler(column: OutputColumn, dtype: np.dtype[Any]) -> float | int:
    null = _null(column)
    return null if null is not None else 0 if dtype.kind == "u" else float("nan")


def _headers(header: ResultHeader, widths: list[_Width], rows: int, row_bytes: int) -> Iterator[bytes]:
    primary = [("SIMPLE", True), ("BITPIX", 8), ("NAXIS", 0), ("EXTEND", True)]
    comments = [f"{name}: {value}" for name, value in infos(header)]
    yield _header(primary, comments=comments)
    columns = header.columns
    cards: list[tuple[str, Any]] = [
        ("XTENSION", "BINTABLE"), ("BITPIX", 8), ("NAXIS", 2), ("NAXIS1", row_bytes), ("NAXIS2", rows), ("PCOUNT", 0),
        ("GCOUNT", 1), ("TFIELDS", len(columns)), ("EXTNAME", "RESULT"),
    ]  # fmt: skip
    for number, (column, width) in enumerate(zip(columns, widths, strict=True), 1):
        facts = {
            "TTYPE": column.name, "TFORM": _form(column, width), "TUNIT": column.unit, "TNULL": _null(column), "TUCD": column.ucd,
            "TCOMM": column.description,
        }  # fmt: skip
        cards += [(f"{key}{number}", value) for key, value in facts.items() if value not in ("", None)]
    replaced = [column.name for column, width in zip(columns, widths, strict=True) if width.is_replaced]
    yield _header(cards, comments=[f"characters beyond ASCII are shown as ?: {name}" for name in replaced])


def _header(cards: list[tuple[str, Any]], *, comments: list[str]) -> bytes:
    # astropy knows how long texts continue on further cards; it takes long to import, and only this format needs it.
    from astropy.io.fits import Header

    made = Header()
    for key, value in cards:
        made.append((key, _ascii(value) if isinstance(value, str) else value), end=True)
    for comment in comments:
        made.add_comment(_ascii(comment))
    text: str = made.tostring(sep="", endcard=True, padding=True)
    return text.encode("ascii")


def _ascii(value: str) -> str:
    return "".join(c if " " <= c <= "~" else " " if c in "\t\r\n" else "?" for c in value)
