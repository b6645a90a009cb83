"""JSON: one object with the columns, the rows as arrays, and how the result ended.

    {"metadata": [{"name": "ra", "datatype": "double", "unit": "deg", ..}, ..],
     "info": {"QUERY": .., ..},
     "data": [[10.5, "NGC 224", null],
              ..],
     "status": "OK"}

`status` is OK, OVERFLOW (MAXREC cut the rows) or ERROR, which has `error` beside it; being the last member it knows the end. A NULL
and NaN are null. Infinities, which JSON lacks, are the texts "Infinity" and "-Infinity". Integers beyond 64 bits and
decimals are texts, so that no reader rounds them; lists are arrays.
"""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.compute as pc

from qengine.catalog.output import OutputColumn
from qengine.catalog.types import to_votable
from qengine.errors import QEngineError
from qengine.tap.formats.values import is_nested, present, to_json, to_text
from qengine.tap.formats.votable import infos, joined
from qengine.tap.formats.writer import Flowing, ResultHeader

_CONTROL = r"[\x00-\x1f]"


class JsonWriter(Flowing):
    """JSON rows; see above."""

    def __init__(self, header: ResultHeader) -> None:
        self._header = header
        self._is_first = True

    def begin(self) -> bytes:
        metadata = json.dumps([_about(column) for column in self._header.columns], ensure_ascii=False)
        about: dict[str, list[str]] = {}
        for name, value in infos(self._header):
            about.setdefault(name, []).append(value)
        return f'{{"metadata": {metadata},\n"info": {json.dumps(about, ensure_ascii=False)},\n"data": [\n'.encode()

    def write(self, batch: pa.RecordBatch) -> bytes:
        if not batch.num_rows:
            return b""
        cells = [_cells(array, column) for array, column in zip(batch.columns, self._header.columns, strict=True)]
        parts: list[pa.Array | str] = ["[", cells[0]]
        for column in cells[1:]:
            parts += [",", column]
        rows = joined(pc.binary_join_element_wise(*parts, "],\n", ""))[: -len(",\n")]
        before, self._is_first = b"" if self._is_first else b",\n", False
        return before + rows

    def finish(self, *, is_overflow: bool) -> bytes:
        return f'\n],\n"status": "{"OVERFLOW" if is_overflow else "OK"}"}}\n'.encode()

    def fail(self, error: QEngineError) -> bytes:
        return f'\n],\n"status": "ERROR", "error": {json.dumps(error.to_json())}}}\n'.encode()


def _about(column: OutputColumn) -> dict[str, str]:
    kind = to_votable(column.type)
    words = {
        "name": column.name,
        "datatype": kind.datatype,
        "arraysize": kind.arraysize,
        "xtype": kind.xtype,
        "unit": column.unit,
        "ucd": column.ucd,
        "utype": column.utype,
        "description": column.description,
    }
    return {key: value for key, value in words.items() if value or key == "name"}


def _cells(array: pa.Array, column: OutputColumn) -> pa.Array:
    if isinstance(array, pa.DictionaryArray):
        array = array.dictionary_decode()
    arrow = array.type
    if is_nested(arrow):
        return pa.array([to_json(value) for value in array.to_pylist()], pa.string())
    shown = array if pa.types.is_decimal(arrow) else present(array, column.type)
    if pa.types.is_boolean(shown.type) or pa.types.is_integer(shown.type):
        return pc.fill_null(shown.cast(pa.string()), "null")
    words = to_text(array, column.type)
    if pa.types.is_floating(shown.type):
        for word, named in (("+Inf", '"Infinity"'), ("-Inf", '"-Infinity"'), ("NaN", "null")):
            words = pc.if_else(pc.equal(words, word), named, words)
        return pc.fill_null(words, "null")
    return pc.fill_null(_quoted(words), "null")


def _quoted(words: pa.Array) -> pa.Array:
    if pc.any(pc.match_substring_regex(words, _CONTROL)).as_py():
        return pa.array([None if word is None else json.dumps(word, ensure_ascii=False) for word in words.to_pylist()], pa.string())
    for plain, escaped in (("\\", "\\\\"), ('"', '\\"')):
        words = pc.replace_substring(words, plain, escaped)
    return pc.binary_join_element_wise('"', words, '"', "")
