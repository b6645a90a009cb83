"""ECSV 1.0: CSV under a YAML header with types, units and descriptions, which astropy reads without loss.

(Astropy Proposal for Enhancement 6.) A NULL is an empty field; an empty text is `""`. Lists are JSON in a text column with a
subtype. How the result ended is a comment line behind the last row, which readers skip.
"""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.compute as pc

from qengine.catalog.output import OutputColumn
from qengine.catalog.types import to_votable
from qengine.errors import QEngineError
from qengine.tap.formats.delimited import CsvWriter, quoted_cells
from qengine.tap.formats.votable import infos
from qengine.tap.formats.writer import ResultHeader

_DATATYPES = {
    "boolean": "bool", "short": "int16", "int": "int32", "long": "int64", "float": "float32", "double": "float64",
}  # fmt: skip


class EcsvWriter(CsvWriter):
    """Enhanced character-separated values; see above."""

    def __init__(self, header: ResultHeader) -> None:
        super().__init__(header)
        self._header = header

    def begin(self) -> bytes:
        lines = ["%ECSV 1.0", "---", "delimiter: ','", "datatype:"]
        lines += [f"- {json.dumps(_about(column), ensure_ascii=False)}" for column in self._columns]
        told = infos(self._header)
        if told:
            lines += ["meta: !!omap", "- comments:", *(f"  - {json.dumps(f'{k}: {v}', ensure_ascii=False)}" for k, v in told)]
        lines.append("schema: astropy-2.0")
        return "".join(f"# {line}\n" for line in lines).encode() + super().begin()

    def cells(self, array: pa.Array, column: OutputColumn) -> pa.Array:
        if not to_votable(column.type).arraysize or to_votable(column.type).datatype not in _DATATYPES:
            cells = super().cells(array, column)
            # numpy's words for truth and for numbers that are none
            for word, known in (("true", "True"), ("false", "False"), ("+Inf", "inf"), ("-Inf", "-inf"), ("NaN", "nan")):
                cells = pc.if_else(pc.equal(cells, word), known, cells)
            return cells
        words = [None if value is None else json.dumps(value, default=float).replace("NaN", "null") for value in array.to_pylist()]
        return quoted_cells(pa.array(words, pa.string()))

    def finish(self, *, is_overflow: bool) -> bytes:
        return b"# OVERFLOW: MAXREC cut the rows\r\n" if is_overflow else b""

    def fail(self, error: QEngineError) -> None:
        return None


def _about(column: OutputColumn) -> dict[str, object]:
    kind = to_votable(column.type)
    is_list = kind.arraysize and kind.datatype in _DATATYPES
    words: dict[str, object] = {
        "name": column.name,
        "unit": column.unit,
        "datatype": "string" if is_list else _DATATYPES.get(kind.datatype, "string"),
        "subtype": f"{_DATATYPES[kind.datatype]}[null]" if is_list else "",
        "description": column.description,
        "meta": {"ucd": column.ucd} if column.ucd else None,
    }
    return {key: value for key, value in words.items() if value}
