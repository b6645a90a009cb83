"""Columns as VOTable and text formats want them: few physical types, text where a type has no other form.

`present` maps an Arrow column to the Arrow type that its VOTable datatype is written from: widened integers, decimals as
double, times as ISO text with a T, huge integers as text; structures, and lists of anything but numbers and truth values, as JSON.
`to_text` goes on to strings.
"""

from __future__ import annotations

import json
import math
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from qengine.catalog.types import SqlType, to_votable

_PRESENTED: dict[str, pa.DataType] = {
    "boolean": pa.bool_(),
    "short": pa.int16(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
}


def present(column: pa.Array, sql_type: SqlType) -> pa.Array:
    """Return `column` in the Arrow type from which its VOTable datatype is written; NULLs are kept."""
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    target = to_votable(sql_type)
    arrow = column.type
    if pa.types.is_timestamp(arrow):
        return iso_text(column)
    if pa.types.is_date(arrow):
        return column.cast(pa.string())
    if is_nested(arrow):
        if target.datatype == "unicodeChar":
            return pa.array([None if value is None else to_json(value) for value in column.to_pylist()], pa.string())
        return column.cast(pa.list_(_PRESENTED.get(target.datatype, pa.float64())))
    if target.datatype in ("char", "unicodeChar"):
        return column.cast(pa.string())
    if target.datatype == "unsignedByte":
        return column.cast(pa.binary())
    return column.cast(_PRESENTED[target.datatype])


def is_nested(arrow: pa.DataType) -> bool:
    """Return whether values of a type have parts."""
    is_list = pa.types.is_list(arrow) or pa.types.is_large_list(arrow) or pa.types.is_fixed_size_list(arrow)
    return bool(is_list or pa.types.is_struct(arrow))


def to_json(value: object) -> str:
    """Return a value with parts as JSON, which knows no numbers that are none: NaN is null, infinities are words."""
    return json.dumps(_plain(value), ensure_ascii=False, default=str)


def _plain(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, date):  # or a time
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else value


def fill_items(column: pa.Array, item: int) -> pa.Array:
    """Return lists of numbers with `item` where one of their elements is NULL."""
    mask = pc.is_null(column) if column.null_count else None
    return pa.ListArray.from_arrays(_offsets(column), pc.fill_null(column.flatten(), item), mask=mask)


def iso_text(column: pa.Array) -> pa.Array:
    """Return times as `YYYY-MM-DDThh:mm:ss[.f]` without trailing zeros in the fraction."""
    text = column.cast(pa.timestamp(column.type.unit)).cast(pa.string())
    text = pc.replace_substring(text, " ", "T", max_replacements=1)
    if column.type.unit == "s":
        return text
    return pc.utf8_rtrim(pc.utf8_rtrim(text, "0"), ".")


def to_text(column: pa.Array, sql_type: SqlType) -> pa.Array:
    """Return a string column: shortest exact decimals, `true` and `false`, DALI arrays separated by blanks."""
    shown = present(column, sql_type) if not _is_decimal(column.type) else column.cast(pa.string())
    arrow = shown.type
    if pa.types.is_list(arrow):
        return _lists_to_text(shown)
    if pa.types.is_binary(arrow):
        return pa.array([None if value is None else value.hex() for value in shown.to_pylist()], pa.string())
    if pa.types.is_floating(arrow):
        return _floats_to_text(shown)
    return shown.cast(pa.string())


def _is_decimal(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_decimal(arrow))


def _floats_to_text(column: pa.Array) -> pa.Array:
    text = column.cast(pa.string())
    if pc.any(pc.invert(pc.is_finite(column))).as_py():
        # VOTable spells these +Inf, -Inf and NaN; Java and C readers know no other form.
        for arrow_word, word in (("inf", "+Inf"), ("-inf", "-Inf"), ("nan", "NaN")):
            text = pc.if_else(pc.equal(text, arrow_word), word, text)
    return text


def _lists_to_text(column: pa.Array) -> pa.Array:
    items = column.flatten()
    words = _floats_to_text(items) if pa.types.is_floating(items.type) else items.cast(pa.string())
    return lists_of_words(column, pc.fill_null(words, "NaN"))


def lists_of_words(column: pa.Array, words: pa.Array) -> pa.Array:
    """Return lists with their elements as `words`, separated by blanks."""
    lists = pa.ListArray.from_arrays(_offsets(column), words, mask=pc.is_null(column) if column.null_count else None)
    return pc.binary_join(lists, " ")


def _offsets(column: pa.Array) -> pa.Array:
    lengths = pc.fill_null(pc.list_value_length(column), 0)
    return pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths).cast(pa.int32())])
