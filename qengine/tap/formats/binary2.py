"""VOTable BINARY and BINARY2 rows from Arrow, without a Python loop over rows.

A row of BINARY2 is a bitmap of NULL flags (first column in the highest bit) followed by its fields, big-endian. BINARY has no
bitmap: a NULL integer is the smallest number of its type (`null_value`, which the FIELD declares), other NULLs are NaN, `?` or of
length zero; and so are NULLs within arrays, of which no bitmap speaks. Runs of neighbouring fields of fixed size become one numpy
structured array, so that a table without variable fields is a single copy. With variable fields (text, arrays: a 4-byte count,
then the elements) the start of every row and segment follows from cumulative lengths, and segments are scattered into one buffer:
fixed ones through a view of the buffer whose items are as long as the segment and one byte apart, variable ones by index
arithmetic on their concatenated bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from qengine.catalog.output import OutputColumn
from qengine.catalog.types import to_votable
from qengine.errors import QueryError
from qengine.tap.formats.values import fill_items, present

Bytes = NDArray[np.uint8]

_NUMBERS = {"short": ">i2", "int": ">i4", "long": ">i8", "float": ">f4", "double": ">f8"}


def null_value(column: OutputColumn) -> int | None:
    """Return the number that stands for NULL in BINARY rows and in arrays, or None for types that have a NULL of their own."""
    dtype = _NUMBERS.get(to_votable(column.type).datatype, ">f8")
    return None if dtype[1] == "f" else int(np.iinfo(dtype).min)


def without_null_items(array: pa.Array, column: OutputColumn, *, where: str) -> pa.Array:
    """Return arrays of integers with the number for NULL where an element is none; anything else as it is. Raise `QueryError` if an
    element has that number; `where` is what it cannot be told apart in."""
    null = null_value(column)
    if null is None or not pa.types.is_list(array.type):
        return array
    items = array.flatten()
    if pc.any(pc.equal(items, null)).as_py():
        raise QueryError(
            f"column {column.name} has the value {null}, which means NULL in {where}", hint="ask for another format, such as JSON"
        )
    return fill_items(array, null) if items.null_count else array


@dataclass(frozen=True, slots=True)
class _Fixed:
    """Segment of the same size in every row: structured rows, shape (rows,)."""

    rows: NDArray[np.void]


@dataclass(frozen=True, slots=True)
class _Variable:
    """Segment of its own size in each row: `counts` elements of `width` bytes, concatenated in `data`."""

    counts: NDArray[np.int64]
    width: int
    data: Bytes


def encode(batch: pa.RecordBatch, columns: Sequence[OutputColumn], *, has_flags: bool = True) -> bytes:
    """Return the rows of `batch` in BINARY2 or, without flags, in BINARY, before base64.

    Raise `QueryError` if BINARY is asked for and a value is the one that means NULL.
    """
    if not batch.num_rows:
        return b""
    segments = tuple(_segments(batch, columns, has_flags=has_flags))
    if len(segments) == 1 and isinstance(segments[0], _Fixed):
        return segments[0].rows.tobytes()
    return _scatter(segments, batch.num_rows)


def _segments(batch: pa.RecordBatch, columns: Sequence[OutputColumn], *, has_flags: bool) -> Iterator[_Fixed | _Variable]:
    rows = batch.num_rows
    arrays = [present(array, column.type) for array, column in zip(batch.columns, columns, strict=True)]
    arrays = [without_null_items(array, column, where="arrays of VOTables") for array, column in zip(arrays, columns, strict=True)]
    if not has_flags:
        arrays = [_without_null(array, column) for array, column in zip(arrays, columns, strict=True)]
    run: list[NDArray[Any]] = [_flags(arrays, rows)] if has_flags else []
    for array, column in zip(arrays, columns, strict=True):
        target = to_votable(column.type)
        match target.datatype:
            case "boolean" if not target.arraysize:
                run.append(_booleans(array))
            case "unicodeChar" | "char" | "unsignedByte":
                yield _fixed(run, rows)
                run = []
                yield _text(array, is_wide=target.datatype == "unicodeChar")
            case name if not target.arraysize:
                run.append(_numbers(array, _NUMBERS[name]))
            case name if target.arraysize == "*":
                yield _fixed(run, rows)
                run = []
                yield _array(array, name)
            case name:
                run.append(_fixed_array(array, _NUMBERS[name], int(target.arraysize)))
    yield _fixed(run, rows)


def _without_null(array: pa.Array, column: OutputColumn) -> pa.Array:
    null = null_value(column)
    if null is None or pa.types.is_list(array.type):
        return array
    if pc.any(pc.equal(array, null)).as_py():
        raise QueryError(f"column {column.name} has the value {null}, which means NULL in BINARY", hint="ask for BINARY2")
    return pc.fill_null(array, pa.scalar(null, array.type))


def _fixed(run: Sequence[NDArray[Any]], rows: int) -> _Fixed:
    dtype = np.dtype([(f"f{i}", values.dtype, values.shape[1:]) for i, values in enumerate(run)])
    table: NDArray[np.void] = np.empty(rows, dtype)
    for i, values in enumerate(run):
        table[f"f{i}"] = values
    return _Fixed(table)


def _flags(arrays: Sequence[pa.Array], rows: int) -> Bytes:
    if not any(array.null_count for array in arrays):
        return np.zeros((rows, (len(arrays) + 7) // 8), np.uint8)
    flags = np.zeros((rows, len(arrays)), np.bool_)
    for i, array in enumerate(arrays):
        if array.null_count:
            flags[:, i] = array.is_null().to_numpy(zero_copy_only=False)
    return np.packbits(flags, axis=1)


def _numbers(array: pa.Array, dtype: str) -> NDArray[Any]:
    if array.null_count:
        array = pc.fill_null(array, float("nan") if dtype[1] == "f" else 0)
    return np.asarray(array.to_numpy(zero_copy_only=False)).astype(dtype)


def _booleans(array: pa.Array) -> Bytes:
    values = pc.fill_null(array, False).to_numpy(zero_copy_only=False)
    # A NULL is flagged in the bitmap; '?' says the same to readers that look at the value only.
    letters = np.where(values, ord("T"), ord("F")).astype(np.uint8)
    if array.null_count:
        letters[array.is_null().to_numpy(zero_copy_only=False)] = ord("?")
    return letters


def _fixed_array(array: pa.Array, dtype: str, size: int) -> NDArray[Any]:
    filled = np.full((len(array), size), np.nan if dtype[1] == "f" else np.iinfo(dtype).min, dtype)
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    chosen = lengths == size
    if (wrong := lengths[~chosen & array.is_valid().to_numpy(zero_copy_only=False)]).size:
        raise QueryError(f"a value has {wrong[0]} numbers, not {size}", hint="ask for another format, such as JSON")
    items = _numbers(array.filter(pa.array(chosen)).flatten(), dtype)
    filled[chosen] = items.reshape(-1, size)
    return filled


def _array(array: pa.Array, datatype: str) -> _Variable:
    counts = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    items = array.drop_null().flatten()
    values = _booleans(items) if datatype == "boolean" else _numbers(items, _NUMBERS[datatype])
    return _Variable(counts, values.itemsize, np.frombuffer(values.tobytes(), np.uint8))


def _text(array: pa.Array, *, is_wide: bool) -> _Variable:
    """Text or bytes. `is_wide`: UTF-16 as unicodeChar wants it; otherwise the bytes as they are."""
    if array.null_count:
        array = pc.fill_null(array, "" if pa.types.is_string(array.type) else b"")
    _, offset_buffer, data_buffer = array.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32, len(array) + 1, array.offset * 4).astype(np.int64)
    if data_buffer is None or offsets[0] == offsets[-1]:
        return _Variable(np.zeros(len(array), np.int64), 2 if is_wide else 1, np.empty(0, np.uint8))
    data = np.frombuffer(data_buffer, np.uint8, int(offsets[-1] - offsets[0]), int(offsets[0]))
    if not is_wide:
        return _Variable(np.diff(offsets), 1, data)
    if data.max() < 0x80:
        return _Variable(np.diff(offsets), 2, data.astype(">u2").view(np.uint8))
    # One UTF-16 unit per character, two beyond the basic plane: counted at the lead bytes of UTF-8.
    units = ((data & 0xC0) != 0x80).astype(np.int64) + (data >= 0xF0)
    ends = np.concatenate((np.zeros(1, np.int64), np.cumsum(units)))[offsets - offsets[0]]
    wide = data.tobytes().decode("utf-8").encode("utf-16-be")
    return _Variable(np.diff(ends), 2, np.frombuffer(wide, np.uint8))


def _scatter(segments: Sequence[_Fixed | _Variable], rows: int) -> bytes:
    sizes = [
        np.full(rows, segment.rows.itemsize, np.int64) if isinstance(segment, _Fixed) else 4 + segment.counts * segment.width
        for segment in segments
    ]
    row_ends = np.cumsum(np.sum(sizes, axis=0))
    position = row_ends - np.sum(sizes, axis=0)
    out = np.empty(int(row_ends[-1]), np.uint8)
    for segment, size in zip(segments, sizes, strict=True):
        if isinstance(segment, _Fixed):
            _put(out, position, segment.rows)
        else:
            _put(out, position, segment.counts.astype(">i4"))
            lengths = size - 4
            starts = np.cumsum(lengths) - lengths
            if len(segment.data):
                out[np.repeat(position + 4 - starts, lengths) + np.arange(len(segment.data))] = segment.data
        position = position + size
    return out.tobytes()


def _put(out: Bytes, position: NDArray[np.int64], items: NDArray[Any]) -> None:
    """Copy item i to the bytes that begin at position[i]."""
    width = items.itemsize
    if not width:
        return
    # Items overlap in this view, but the positions written are disjoint.
    window: NDArray[np.void] = np.ndarray((len(out) - width + 1,), f"V{width}", out, 0, (1,))
    window[position] = np.ascontiguousarray(items).view(f"V{width}")
