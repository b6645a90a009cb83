"""Fields of VOTables and their cells: from text (TABLEDATA) and from bytes (BINARY, BINARY2) to Arrow.

A cell is a scalar, a text, or an array whose dimensions `arraysize` gives, fastest first; the last one may vary. Arrays become
lists, one level per dimension. An empty cell of TABLEDATA is NULL, as is a value that VALUES declares to be; BINARY2 flags its own.
Points, circles and polygons are NULL where one of their numbers is NaN.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from qengine.errors import InputError
from qengine.loader.sources.source import described

_TYPES: dict[str, tuple[pa.DataType, str]] = {
    "boolean": (pa.bool_(), "S1"),
    "bit": (pa.bool_(), "u1"),
    "unsignedByte": (pa.uint8(), "u1"),
    "short": (pa.int16(), ">i2"),
    "int": (pa.int32(), ">i4"),
    "long": (pa.int64(), ">i8"),
    "float": (pa.float32(), ">f4"),
    "double": (pa.float64(), ">f8"),
    "char": (pa.string(), "S1"),
    "unicodeChar": (pa.string(), ">u2"),
}
"""datatype -> (type of an element, bytes of an element)"""
_TEXTS = ("char", "unicodeChar")
_TRUE, _FALSE = frozenset("1tT") | {"true", "True", "TRUE"}, frozenset("0fF") | {"false", "False", "FALSE"}
_VARIES = -1
_SHAPES = {"point": 2, "circle": 3, "polygon": _VARIES}
"""xtype of DALI 1.1 (sections 3.3.5 to 3.3.7) -> the numbers of one."""
_INTERVAL = "interval"

Fail = Callable[[int, str], InputError]
"""Makes the error for a row of a batch and a reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """One FIELD. `sizes` are its dimensions, fastest first, -1 where it varies; of a text without the characters, whose number is
    `width` (-1 if it varies)."""

    name: str
    datatype: str
    sizes: tuple[int, ...]
    width: int
    null: str
    is_time: bool
    words: Mapping[str, str]

    @property
    def is_text(self) -> bool:
        return self.datatype in _TEXTS

    @property
    def shape(self) -> str:
        """Return the geometry that a cell is, if it is one."""
        xtype = self.words.get("xtype", "")
        return xtype if xtype in _SHAPES else ""

    @property
    def element(self) -> pa.DataType:
        return _TYPES[self.datatype][0]

    @property
    def field(self) -> pa.Field:
        """Return the column."""
        found = pa.timestamp("us") if self.is_time else self.element
        for _ in self.sizes:
            found = pa.list_(found)
        return described(self.name, found, self.words)

    @property
    def varies(self) -> bool:
        """Return whether cells differ in size: their bytes then begin with the number of elements."""
        return _VARIES in self.sizes or (self.is_text and self.width == _VARIES)

    @property
    def fixed_bytes(self) -> int:
        """Return the bytes of a cell of fixed size."""
        return self.bytes_of(int(np.prod(self.sizes, dtype=np.int64)) * (self.width if self.is_text else 1))

    def bytes_of(self, count: int) -> int:
        """Return the bytes of so many elements."""
        return -(-count // 8) if self.datatype == "bit" else count * np.dtype(_TYPES[self.datatype][1]).itemsize


def cells_of(attributes: Mapping[str, str], null: str, description: str, system: str, number: int, where: str) -> Cells:
    """Return what a FIELD with these attributes holds, of this `system`. Raise `InputError` if queries cannot use it."""
    name = attributes.get("name") or attributes.get("ID") or f"col{number}"
    datatype = attributes.get("datatype", "")
    if datatype not in _TYPES:
        raise InputError(f"{where}: column {name!r} is of datatype {datatype!r}, which queries cannot use")
    text = attributes.get("arraysize", "").strip()
    sizes = tuple(_VARIES if piece.endswith("*") else int(piece) for piece in text.split("x") if piece) if _is_shape(text) else None
    if sizes is None or _VARIES in sizes[:-1]:
        raise InputError(f"{where}: column {name!r} has the arraysize {text!r}, which is none")
    width = 1
    if datatype in _TEXTS and sizes:
        width, sizes = sizes[0], sizes[1:]
    elif sizes == (1,):
        sizes = ()  # a vector of one value is how many writers mean the value
    xtype = attributes.get("xtype", "").strip()
    is_time = datatype in _TEXTS and not sizes and xtype.lower() in ("timestamp", "adql:timestamp")
    words = {key: attributes.get(key, "") for key in ("unit", "ucd", "utype")}
    if not is_time and _is_possible(xtype, datatype, sizes):
        words["xtype"] = xtype.lower() if xtype.lower() in _SHAPES else xtype
    return Cells(
        name=name, datatype=datatype, sizes=sizes, width=width, null=null, is_time=is_time,
        words={**words, "description": " ".join(description.split()), "system": system},
    )  # fmt: skip


def _is_possible(xtype: str, datatype: str, sizes: tuple[int, ...]) -> bool:
    """Return whether a column can be what its xtype says, of those xtypes that say how many numbers it has."""
    if xtype == _INTERVAL:
        return datatype not in _TEXTS and sizes == (2,)
    length = _SHAPES.get(xtype.lower())
    return length is None or (datatype in ("float", "double") and len(sizes) == 1 and length in (sizes[0], _VARIES))


def _is_shape(text: str) -> bool:
    return not text or re.fullmatch(r"(\d+\*?|\*)(x(\d+\*?|\*))*", text) is not None


# -- text ---------------------------------------------------------------------------------------------------------------------


def from_text(cells: Cells, texts: Sequence[str], fail: Fail) -> pa.Array:
    """Return the cells of one column of TABLEDATA. `fail(row, reason)` makes the error for a row of the batch."""
    if cells.is_text:
        return _texts(cells, texts, fail)
    if not cells.sizes:
        return _scalars(cells, texts, fail)
    split = [text.split() if text.strip() else None for text in texts]
    if cells.datatype == "bit":
        split = [None if pieces is None else [c for piece in pieces for c in piece] for pieces in split]
    flat = _scalars(
        cells, [piece for pieces in split for piece in pieces or ()], lambda _, reason: _blame(split, cells, fail, reason)
    )
    return _listed(flat, [None if pieces is None else len(pieces) for pieces in split], cells, fail)


def _blame(split: Sequence[Sequence[str] | None], cells: Cells, fail: Fail, reason: str) -> InputError:
    for row, pieces in enumerate(split):
        for piece in pieces or ():
            try:
                _scalar(cells, piece)
            except ValueError:
                return fail(row, f"{piece!r} is no {cells.datatype}")
    return fail(0, reason)


def _texts(cells: Cells, texts: Sequence[str], fail: Fail) -> pa.Array:
    values = [None if text in ("", cells.null or None) else text for text in texts]
    if cells.is_time:
        return _times(values, fail)
    if not cells.sizes:
        return pa.array(values, pa.string())
    flat, counts = [], []
    for text in values:
        pieces = [] if text is None else [text[i : i + cells.width].rstrip() for i in range(0, len(text), max(cells.width, 1))]
        flat += pieces
        counts.append(None if text is None else len(pieces))
    return _listed(pa.array(flat, pa.string()), counts, cells, fail)


def _scalars(cells: Cells, texts: Sequence[str], fail: Fail) -> pa.Array:
    stripped = [text.strip() or None for text in texts]
    kind = cells.element
    if not pa.types.is_boolean(kind):
        try:
            return _without_null(pc.cast(pa.array(stripped, pa.string()), kind), cells)
        except pa.ArrowInvalid:
            pass  # hexadecimal, or words that Arrow does not know; or a bad value, which is looked for one by one
    found = []
    for row, text in enumerate(stripped):
        try:
            found.append(None if text is None else _scalar(cells, text))
        except ValueError as error:
            raise fail(row, f"{text!r} is no {cells.datatype}") from error
    try:
        return _without_null(pa.array(found, kind), cells)
    except (pa.ArrowInvalid, OverflowError) as error:
        row = next(i for i, value in enumerate(found) if not _is_in(value, kind))
        raise fail(row, f"{stripped[row]!r} is no {cells.datatype}") from error


def _is_in(value: object, kind: pa.DataType) -> bool:
    try:
        pa.array([value], kind)
    except (pa.ArrowInvalid, OverflowError):
        return False
    return True


def _scalar(cells: Cells, text: str) -> bool | int | float | None:
    if cells.datatype in ("boolean", "bit"):
        if text in _TRUE:
            return True
        if text in _FALSE:
            return False
        if text == "?":
            return None
        raise ValueError(text)
    if cells.datatype in ("float", "double"):
        return float(text)
    return int(text, 16) if text.lower().startswith("0x") else int(text)


def _without_null(values: pa.Array, cells: Cells) -> pa.Array:
    """Return the values with the declared one as NULL."""
    if not cells.null or not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        return values
    try:
        null = _scalar(cells, cells.null.strip())
    except ValueError:
        return values
    if null is None or null != null or not _is_in(null, values.type):
        return values
    return pc.if_else(pc.equal(values, pa.scalar(null, values.type)), pa.scalar(None, values.type), values)


def _times(values: Sequence[str | None], fail: Fail) -> pa.Array:
    # DALI allows a Z at the end, which Arrow would read as a type with a time zone
    plain = [None if value is None else value.strip().removesuffix("Z") or None for value in values]
    try:
        return pc.cast(pa.array(plain, pa.string()), pa.timestamp("us"))
    except pa.ArrowInvalid as error:
        for row, value in enumerate(plain):
            try:
                pc.cast(pa.array([value], pa.string()), pa.timestamp("us"))
            except pa.ArrowInvalid:
                raise fail(row, f"{value!r} is no time") from error
        raise


# -- bytes --------------------------------------------------------------------------------------------------------------------


def from_bytes(
    cells: Cells,
    raw: NDArray[np.uint8],
    counts: NDArray[np.int64],
    is_null: NDArray[np.bool_] | None,
    fail: Fail,
) -> pa.Array:
    """Return the cells of one column of BINARY or BINARY2: all their bytes one after another, and the elements of each.

    `is_null` are the flags of BINARY2.
    """
    if cells.is_text:
        return _texts_of_bytes(cells, raw, counts, is_null, fail)
    if cells.datatype == "bit" and not cells.sizes:
        flat = pa.array(raw != 0)  # the standard says the highest bit, astropy writes another
    elif cells.datatype == "bit":
        sizes = -(-counts // 8)
        ends = np.cumsum(sizes)
        parts = [np.unpackbits(raw[e - s : e])[:c] for s, e, c in zip(sizes, ends, counts, strict=True)]
        flat = pa.array(np.concatenate(parts).astype(bool) if parts else np.empty(0, bool))
    elif cells.datatype == "boolean":
        is_true, is_false = np.isin(raw, _codes(_TRUE)), np.isin(raw, _codes(_FALSE))
        flat = pa.array(is_true, mask=~(is_true | is_false))
    else:
        stored = raw.view(_TYPES[cells.datatype][1])
        flat = _without_null(pa.array(stored.astype(stored.dtype.newbyteorder("="))), cells)
    if not cells.sizes:
        return flat if is_null is None else pc.if_else(pa.array(is_null), pa.scalar(None, flat.type), flat)
    flags = np.zeros(len(counts), bool) if is_null is None else is_null
    return _listed(flat, [None if null else int(count) for count, null in zip(counts, flags, strict=True)], cells, fail, counts)


def _codes(words: frozenset[str]) -> list[int]:
    return [ord(word) for word in words if len(word) == 1]


def _texts_of_bytes(
    cells: Cells,
    raw: NDArray[np.uint8],
    counts: NDArray[np.int64],
    is_null: NDArray[np.bool_] | None,
    fail: Fail,
) -> pa.Array:
    content, at, found = raw.tobytes(), 0, []
    width = 2 if cells.datatype == "unicodeChar" else 1
    codec = "utf-16-be" if width == 2 else "utf-8"
    for row, count in enumerate(counts.tolist()):
        piece = content[at : at + count * width]
        at += count * width
        try:
            text: str | None = piece.decode(codec)
        except UnicodeDecodeError as error:
            raise fail(row, f"not a text of {codec}: {error.reason}") from error
        if is_null is not None and is_null[row]:
            text = None
        found.append(text if text is None or cells.sizes else text.split("\0", 1)[0])
    if cells.sizes or cells.is_time or cells.null:
        return _texts(cells, ["" if text is None else text.replace("\0", " ") if cells.sizes else text for text in found], fail)
    return pa.array(found, pa.string())


def _listed(
    flat: pa.Array,
    counts: Sequence[int | None],
    cells: Cells,
    fail: Fail,
    stored: NDArray[np.int64] | None = None,
) -> pa.Array:
    """Return flat elements as lists, one per cell: `counts` elements each, None for a NULL; `stored` elements lie in `flat`."""
    inner = int(np.prod(cells.sizes[:-1], dtype=np.int64))
    lengths = np.array([count or 0 for count in counts], np.int64) if stored is None else stored
    for row, count in enumerate(counts):
        is_wrong = count is not None and (count % inner if inner else count)
        if is_wrong or (count is not None and cells.sizes[-1] != _VARIES and count != inner * cells.sizes[-1]):
            raise fail(row, f"{count} values, where the array has {'x'.join(map(str, cells.sizes)).replace('-1', '*')}")
        if count and cells.shape and (count != _SHAPES[cells.shape] if cells.shape != "polygon" else count < 6 or count % 2):
            raise fail(row, f"{count} values are no {cells.shape}")
    for size in cells.sizes[:-1]:
        groups = len(flat) // size if size else 0
        flat = pa.ListArray.from_arrays(pa.array(np.arange(groups + 1, dtype=np.int32) * size), flat)
    offsets = np.concatenate([[0], np.cumsum(lengths // max(inner, 1))]).astype(np.int32)
    is_null = np.array([count is None for count in counts], bool)
    if cells.shape:
        is_null |= lengths == 0
        is_null[np.repeat(np.arange(len(counts)), lengths)[np.isnan(flat.to_numpy(zero_copy_only=False))]] = True
    return pa.ListArray.from_arrays(pa.array(offsets), flat, mask=pa.array(is_null) if is_null.any() else None)
