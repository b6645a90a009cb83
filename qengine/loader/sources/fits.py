"""Binary tables of FITS files as a loader source.

The table is mapped into memory and read in slices, column by column: big-endian numbers become native, TSCAL and TZERO are
applied (an integer with a whole TZERO stays one, signed or unsigned; any other scaling makes a double), a value equal to TNULL
is NULL, a logical that is neither T nor F is NULL, text loses trailing blanks and NULs, bits become lists of booleans, vectors
become lists, with one level per dimension of TDIM; arrays of variable length are read from the heap. Units (TUNIT), UCDs (TUCD)
and descriptions (TCOMM, else the comment of TTYPE) go into the metadata of fields. Complex numbers are refused, because no
query could use them.

Compressed and remote files are first copied to a temporary file.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from qengine.errors import InputError
from qengine.loader.sources.file import FileSource, Place
from qengine.loader.sources.source import batch_rows, described

SUFFIXES = (".fits", ".fit", ".fts")

_NUMBERS = {
    "B": pa.uint8(), "I": pa.int16(), "J": pa.int32(), "K": pa.int64(), "E": pa.float32(), "D": pa.float64(),
}  # fmt: skip
_OFFSET = {"B": (-(2**7), pa.int8()), "I": (2**15, pa.uint16()), "J": (2**31, pa.uint32()), "K": (2**63, pa.uint64())}
"""TZERO that turns the sign of an integer over, and what it makes of it."""
_DTYPES = {"L": "S1", "X": "u1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8", "A": "S1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """A column of the table: `code` is its TFORM letter, `heap` that of its elements where they are in the heap, `shape` the
    dimensions of a value, slowest first, `text` the characters of one text, and `at` where the column begins in a row."""

    name: str
    code: str
    heap: str
    repeat: int
    shape: tuple[int, ...]
    text: int
    at: int
    bytes: int
    scale: float
    zero: float
    null: int | None
    words: Mapping[str, str]

    @property
    def element(self) -> pa.DataType:
        """Type of one element."""
        code = self.heap or self.code
        if code == "A":
            return pa.string()
        if code in ("L", "X"):
            return pa.bool_()
        if self.scale == 1 and self.zero == 0:
            return _NUMBERS[code]
        if self.scale == 1 and code in _OFFSET and self.zero == _OFFSET[code][0]:
            return _OFFSET[code][1]
        if self.scale == 1 and code in _OFFSET and self.zero.is_integer() and abs(self.zero) < 2**53:
            return pa.int64()
        return pa.float64()

    @property
    def type(self) -> pa.DataType:
        """Type of the column."""
        found = self.element
        for _ in (0,) if self.heap and self.heap != "A" else self.shape:
            found = pa.list_(found)
        return found


class FitsSource(FileSource):
    """One binary table of a FITS file. `hdu` is its number or its EXTNAME; empty if the file has but one."""

    format = "fits"

    def __init__(self, path: Place | Path | str, *, hdu: str = "") -> None:
        super().__init__(path)
        self._hdu = hdu
        header, self._start = self._find(hdu)
        self._columns = self._read_header(header)
        end = self._start + self._rows * self._stride
        if self._mapped.path.stat().st_size < end:
            raise InputError(
                f"{self.name}: the file ends within the table, which needs {end:,} bytes", hint="the file is truncated"
            )
        self._schema = pa.schema([described(each.name, each.type, each.words) for each in self._columns.values()])
        self._row_bytes = max(1, self._stride)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows in file order. Raise `InputError` with row and column of a value that cannot be taken."""
        wanted = [self._columns[name] for name in self._check_columns(columns)]
        schema = pa.schema([self._schema.field(each.name) for each in wanted])
        if not self._rows:
            return
        rows: NDArray[np.uint8] = np.memmap(self._mapped.path, np.uint8, "r", offset=self._start, shape=(self._rows, self._stride))
        most = batch_rows(self._row_bytes)
        for start in range(0, self._rows, most):
            slab = rows[start : start + most]
            yield pa.record_batch([self._convert(slab, each, start) for each in wanted], schema=schema)

    def _options(self) -> Mapping[str, Any]:
        return {"hdu": self._hdu}

    def _read_header(self, header: Any) -> dict[str, _Column]:
        """Take what the header says of rows, and return its columns."""
        from astropy.io.fits import VerifyError

        try:
            columns = {column.name: column for column in _columns_of(header, self.name)}
            self._rows, self._stride = int(header["NAXIS2"]), int(header["NAXIS1"])
            self._heap = self._start + int(header.get("THEAP", self._rows * self._stride))
            if len(columns) < int(header["TFIELDS"]):
                raise InputError(f"{self.name}: two columns of the table have the same name")
        except (VerifyError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.name}: the header of the table is broken: {error}") from error
        if self._rows < 0 or self._stride < 0 or self._heap < self._start:
            raise InputError(f"{self.name}: the header of the table is broken: a size is negative")
        return columns

    def _find(self, hdu: str) -> tuple[Any, int]:
        """Return the header of the table and where its data begin."""
        from astropy.io import fits
        from astropy.utils.exceptions import AstropyUserWarning

        found = []
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", AstropyUserWarning)  # "file may have been truncated": checked above
                with fits.open(self._mapped.path, memmap=True, lazy_load_hdus=False) as units:
                    for number, unit in enumerate(units):
                        if unit.header.get("XTENSION", "").strip() == "BINTABLE" and not unit.header.get("ZIMAGE", False):
                            found.append((str(number), str(unit.name), unit.header.copy(), int(unit.fileinfo()["datLoc"])))
        except (OSError, ValueError, TypeError, KeyError, fits.VerifyError) as error:
            raise InputError(f"{self.name}: not a readable FITS file: {error}", hint="the file may be truncated") from error
        known = ", ".join(f"{number}{f' ({name})' if name else ''}" for number, name, _, _ in found)
        if not found:
            raise InputError(f"{self.name}: there is no binary table in this FITS file", hint="convert other extensions first")
        chosen = [each for each in found if not hdu or hdu == each[0] or hdu.upper() == each[1].upper()]
        if chosen and chosen[0][2].get("ZTABLE", False):
            raise InputError(f"{self.name}: the table is compressed by columns (ZTABLE)", hint="unpack it with funpack")
        if len(chosen) != 1:
            what = f"there is no table {hdu!r}" if hdu and not chosen else "there are several tables"
            raise InputError(f"{self.name}: {what} in this FITS file", hint=f"name one of {known}")
        return chosen[0][2], chosen[0][3]

    def _convert(self, slab: NDArray[np.uint8], column: _Column, first: int) -> pa.Array:
        raw = np.ascontiguousarray(slab[:, column.at : column.at + column.bytes])
        if column.heap:
            return self._from_heap(raw, column, first)
        if column.code == "A":
            flat = _texts(raw.reshape(-1, column.text), self.name, column.name, first) if column.text else [""] * len(raw)
            return _nested(pa.array(flat, pa.string()), column.shape, len(raw))
        try:
            values = _elements(raw.reshape(-1), column)
        except pa.ArrowInvalid as error:
            raise InputError(f"{self.name}: past row {first + 1}, column {column.name!r}: {error}") from error
        return _nested(values, column.shape, len(raw))

    def _from_heap(self, raw: NDArray[np.uint8], column: _Column, first: int) -> pa.Array:
        pairs = raw.view(">i4" if column.code == "P" else ">i8").astype(np.int64)
        width = np.dtype(_DTYPES[column.heap]).itemsize
        size = self._mapped.path.stat().st_size
        heap = np.memmap(self._mapped.path, np.uint8, "r")
        pieces = []
        for number, (count, at) in enumerate(pairs):
            length = -(-int(count) // 8) if column.heap == "X" else int(count) * width
            start = self._heap + int(at)
            if count < 0 or at < 0 or start + length > size:
                raise InputError(
                    f"{self.name}: row {first + number + 1}, column {column.name!r}: its array lies beyond the end of the file"
                )
            pieces.append(heap[start : start + length])
        if column.heap == "A":
            return pa.array([_text(bytes(piece), self.name, column.name, first + n) for n, piece in enumerate(pieces)], pa.string())
        if column.heap == "X":
            parts = [np.unpackbits(piece)[: int(count)] for piece, (count, _) in zip(pieces, pairs, strict=True)]
            values = pa.array(np.concatenate(parts).astype(bool) if parts else np.empty(0, bool))
        else:
            values = _elements(np.concatenate(pieces) if pieces else np.empty(0, np.uint8), column)
        offsets = np.concatenate([[0], np.cumsum(pairs[:, 0])]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), values)


def _elements(raw: NDArray[np.uint8], column: _Column) -> pa.Array:
    """Return the elements in a run of bytes."""
    code = column.heap or column.code
    if code == "X":
        bits = np.unpackbits(raw.reshape(-1, column.bytes), axis=1)[:, : column.repeat]
        return pa.array(bits.reshape(-1).astype(bool))
    if code == "L":
        return pa.array(raw == ord("T"), mask=(raw != ord("T")) & (raw != ord("F")))
    stored = raw.view(_DTYPES[code])
    values = stored.astype(stored.dtype.newbyteorder("="))
    is_null = values == column.null if column.null is not None and values.dtype.kind in "iu" else None
    wanted = column.element
    if wanted != _NUMBERS[code] or column.zero:
        if wanted == pa.int64() and column.zero != _OFFSET["K"][0]:
            return pc.add_checked(pa.array(values, mask=is_null).cast(pa.int64()), pa.scalar(int(column.zero), pa.int64()))
        if pa.types.is_integer(wanted):
            # Adding 2^(n-1) modulo 2^n turns the highest bit over.
            half = 1 << (8 * values.dtype.itemsize - 1)
            top = values.view(f"u{values.dtype.itemsize}") ^ np.array(half, f"u{values.dtype.itemsize}")
            values = top.view(wanted.to_pandas_dtype())
        else:
            values = values.astype(np.float64) * column.scale + column.zero
    return pa.array(values, wanted, mask=is_null)


def _nested(values: pa.Array, shape: tuple[int, ...], rows: int) -> pa.Array:
    """Return flat elements as lists of the given shape, one a row."""
    for size in reversed(shape):
        count = len(values) // size if size else rows
        offsets = np.arange(count + 1, dtype=np.int32) * size
        values = pa.ListArray.from_arrays(pa.array(offsets), values)
    return values


def _texts(raw: NDArray[np.uint8], name: str, column: str, first: int) -> list[str]:
    width = raw.shape[1]
    stripped = np.char.rstrip(np.ascontiguousarray(raw).view(f"S{width}").reshape(-1), b" \0").tolist()
    return [_text(value, name, column, first + number) for number, value in enumerate(stripped)]


def _text(value: bytes, name: str, column: str, row: int) -> str:
    try:
        # a NUL ends the text, whatever follows
        return value.split(b"\0", 1)[0].rstrip(b" ").decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: row {row + 1}, column {column!r}: not UTF-8 text: {error}") from error


def _columns_of(header: Any, name: str) -> Iterator[_Column]:
    at = 0
    for number in range(1, int(header["TFIELDS"]) + 1):
        column = _column_of(header, number, at, name)
        at += column.bytes
        yield column
    if at != int(header["NAXIS1"]):
        raise InputError(f"{name}: the columns fill {at} bytes of a row, but NAXIS1 is {header['NAXIS1']}")


def _column_of(header: Any, number: int, at: int, name: str) -> _Column:
    label = str(header.get(f"TTYPE{number}", f"col{number}")).strip()
    form = str(header[f"TFORM{number}"]).strip().upper()
    match = re.fullmatch(r"(\d*)([A-Z])(.*)", form)
    if match is None or match[2] not in (*_DTYPES, "P", "Q"):
        hint = "store real and imaginary part as two columns" if match and match[2] in "CM" else ""
        raise InputError(f"{name}: column {label!r} has the format {form}, which queries cannot use", hint=hint)
    repeat, code, heap = int(match[1] or 1), match[2], ""
    if code in "PQ":
        heap = match[3][:1]
        if repeat > 1 or heap not in _DTYPES:
            raise InputError(f"{name}: column {label!r} has the format {form}, which queries cannot use")
        size = (8 if code == "P" else 16) * repeat
    elif code == "X":
        size = -(-repeat // 8)
    else:
        size = repeat * np.dtype(_DTYPES[code]).itemsize
    shape, text = _shape(header.get(f"TDIM{number}"), code, repeat)
    null = header.get(f"TNULL{number}")
    words = {
        "unit": header.get(f"TUNIT{number}"),
        "ucd": header.get(f"TUCD{number}"),
        "utype": header.get(f"TUTYP{number}"),
        "description": header.get(f"TDESC{number}") or header.get(f"TCOMM{number}") or _comment(header, number),
    }
    return _Column(
        name=label, code=code, heap=heap, repeat=repeat, shape=() if heap else shape, text=text, at=at, bytes=size,
        scale=float(header.get(f"TSCAL{number}", 1)), zero=float(header.get(f"TZERO{number}", 0)),
        null=int(null) if null is not None else None, words={k: str(v).strip() for k, v in words.items() if v},
    )  # fmt: skip


def _shape(declared: Any, code: str, repeat: int) -> tuple[tuple[int, ...], int]:
    """Return the dimensions of a value, slowest first, and the characters of a text."""
    sizes = [int(size) for size in re.findall(r"\d+", str(declared or ""))]
    fits = bool(sizes) and int(np.prod(sizes)) == repeat
    if code == "A":
        return (tuple(reversed(sizes[1:])), sizes[0]) if fits else ((), repeat)
    if fits:
        return tuple(reversed(sizes)), 0
    return ((), 0) if repeat == 1 else ((repeat,), 0)


def _comment(header: Any, number: int) -> str:
    comment = str(header.comments[f"TTYPE{number}"]) if f"TTYPE{number}" in header else ""
    # what FITS libraries write by themselves says nothing of the column
    return "" if re.fullmatch(r"(label for (field|column)\s*\d+|name of (field|column).*|)", comment.strip(), re.I) else comment
