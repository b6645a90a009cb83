"""Arrays, structures and what lies in them: every result format says the same, or refuses."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.table import Table

from qengine.catalog.output import OutputColumn
from qengine.catalog.types import from_arrow
from qengine.errors import QueryError
from qengine.tap.formats.choose import BINARY, BINARY2, CSV, ECSV, FITS, FORMATS, JSON, TABLEDATA, TSV
from qengine.tap.formats.writer import Format, ResultHeader
from tests.contract.test_result_writers import read_votable, written

VOTABLES = pytest.mark.parametrize("kind", [BINARY2, BINARY, TABLEDATA], ids=["binary2", "binary", "tabledata"])
TEXTS = pytest.mark.parametrize("kind", [BINARY2, BINARY, TABLEDATA, CSV, TSV, ECSV, FITS, JSON], ids=lambda kind: kind.aliases[0])

_FLAGS = pa.array([[True, False], [True], [False, None, True], None, []], pa.list_(pa.bool_()))
_NUMBERS = pa.array([[1, None], [2], [], None, [-3, 4]], pa.list_(pa.int32()))


def _written(kind: Format, **columns: pa.Array) -> bytes:
    table = pa.table(columns)
    described = tuple(OutputColumn(name=field.name, type=from_arrow(field.type)) for field in table.schema)
    return written(kind, table, header=ResultHeader(columns=described, schema=table.schema))


@VOTABLES
def test_truth_values_in_arrays(kind: Format) -> None:
    array = read_votable(_written(kind, flags=_FLAGS)).get_first_table().array
    found = [list(np.ma.asarray(row)) if row is not None else None for row in array["flags"][:3]]
    assert found[:2] == [[True, False], [True]]
    assert (bool(found[2][0]), bool(found[2][2])) == (False, True)


def test_truth_values_in_arrays_as_text() -> None:
    document = _written(TABLEDATA, flags=_FLAGS).decode()
    assert "<TD>T F</TD>" in document
    assert "<TD>F ? T</TD>" in document


@VOTABLES
def test_a_missing_element_of_integers_is_no_number(kind: Format) -> None:
    document = _written(kind, numbers=_NUMBERS)
    assert b'<VALUES null="-2147483648"/>' in document
    row: Any = read_votable(document).get_first_table().array["numbers"][0]
    assert [int(value) for value in np.ma.getdata(row)] == [1, -(2**31)]


@pytest.mark.parametrize("kind", [BINARY2, BINARY, TABLEDATA, FITS], ids=lambda kind: kind.aliases[0])
def test_an_element_that_would_mean_null_is_refused(kind: Format) -> None:
    with pytest.raises(QueryError, match="has the value -2147483648, which means NULL"):
        _written(kind, numbers=pa.array([[1, -(2**31)]], pa.list_(pa.int32())))


def test_missing_elements_in_fits_have_a_tnull() -> None:
    with fits.open(io.BytesIO(_written(FITS, numbers=_NUMBERS))) as hdus:
        assert hdus[1].header["TNULL1"] == -(2**31)
        assert hdus[1].data["numbers"][0].tolist() == [1, -(2**31)]


@TEXTS
def test_structures_and_lists_of_texts_are_json(kind: Format) -> None:
    content = _written(
        kind,
        pair=pa.array([{"a": 1, "b": "x y"}, None]),
        words=pa.array([["a b", "c"], [None]], pa.list_(pa.string())),
        square=pa.array([[[1.0, 2.0], [3.0, None]], []], pa.list_(pa.list_(pa.float32()))),
    )
    expected = [{"a": 1, "b": "x y"}, ["a b", "c"], [[1.0, 2.0], [3.0, None]]]
    if kind is JSON:
        found: list[Any] = json.loads(content)["data"][0]
    elif kind in (CSV, TSV, ECSV):
        name = {CSV: "ascii.csv", TSV: "ascii.tab", ECSV: "ascii.ecsv"}[kind]
        quoting = {"quotechar": "~"} if kind is TSV else {}
        found = [json.loads(str(cell)) for cell in Table.read(content.decode(), format=name, **quoting)[0]]
    elif kind is FITS:
        with fits.open(io.BytesIO(content)) as hdus:
            found = [json.loads(cell) for cell in hdus[1].data[0]]
    else:
        found = [json.loads(str(cell)) for cell in read_votable(content).get_first_table().array[0]]
    assert found == expected


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.aliases[0])
def test_every_format_takes_structures(kind: Format) -> None:
    assert _written(kind, pair=pa.array([{"a": 1}]), pairs=pa.array([[{"a": 1.5}]]))
