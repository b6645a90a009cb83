"""What every result format must do: each is read back by a reader that is not ours."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import warnings
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io.votable import parse

from qengine.catalog.output import HEADER_KEY, STATUS_KEY, from_arrow_schema
from qengine.catalog.types import to_votable
from qengine.errors import QueryTimeoutError
from qengine.tap.formats.choose import ARROW, BINARY2, CSV, FORMATS, PARQUET, TABLEDATA, TSV
from qengine.tap.formats.writer import Format, ResultHeader
from tests.support.result_samples import COLUMNS, HEADER, SCHEMA, VALUES, sample_table

EVERY = pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.aliases[0])
VOTABLES = pytest.mark.parametrize("kind", [BINARY2, TABLEDATA], ids=["binary2", "tabledata"])


def written(kind: Format, table: pa.Table, *, header: ResultHeader = HEADER, is_overflow: bool = False, chunk: int = 3) -> bytes:
    writer = kind.writer(header)
    pieces = [writer.begin()]
    pieces += [writer.write(batch) for batch in table.to_batches(max_chunksize=chunk)]
    return b"".join([*pieces, writer.finish(is_overflow=is_overflow)])


def read_votable(document: bytes) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return parse(io.BytesIO(document))


def read_rows(kind: Format, document: bytes) -> list[tuple[Any, ...]]:
    """Rows as tuples, by an independent reader."""
    if kind in (BINARY2, TABLEDATA):
        table = read_votable(document).get_first_table().array
        return [tuple(table[name][i] for name in table.dtype.names) for i in range(len(table))]
    if kind is PARQUET:
        return [tuple(row.values()) for row in pq.read_table(io.BytesIO(document)).to_pylist()]
    if kind is ARROW:
        return [tuple(row.values()) for row in pa.ipc.open_stream(document).read_all().to_pylist()]
    dialect = {"delimiter": ",", "lineterminator": "\r\n"} if kind is CSV else {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    return [tuple(row) for row in csv.reader(io.StringIO(document.decode(), newline=""), **dialect)][1:]


@EVERY
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_all_rows_arrive_in_order(kind: Format, chunk: int) -> None:
    rows = read_rows(kind, written(kind, sample_table(repeat=25), chunk=chunk))
    assert len(rows) == 100
    small = [column.name for column in COLUMNS].index("small")
    assert [str(row[small]) for row in rows if str(row[small]) not in ("", "--", "None")] == ["-32768", "0", "32767"] * 25


@EVERY
def test_no_rows(kind: Format) -> None:
    assert read_rows(kind, written(kind, sample_table().slice(0, 0))) == []


@EVERY
def test_sliced_batches(kind: Format) -> None:
    table = sample_table(repeat=3)
    whole = table.combine_chunks().to_batches()[0]
    writer = kind.writer(HEADER)
    document = b"".join(
        [writer.begin(), writer.write(whole.slice(2, 5)), writer.write(whole.slice(7, 2)), writer.finish(is_overflow=False)]
    )
    assert [str(row) for row in read_rows(kind, document)] == [
        str(row) for row in read_rows(kind, written(kind, table.slice(2, 7)))
    ]


@EVERY
def test_one_column(kind: Format) -> None:
    table = sample_table().select(["name"])
    column = next(column for column in COLUMNS if column.name == "name")
    header = ResultHeader(columns=(column,), schema=table.schema)
    rows = read_rows(kind, written(kind, table, header=header))
    assert rows[0][0] == "NGC 224"
    assert len(rows) == 4


@EVERY
def test_dictionary_columns(kind: Format) -> None:
    table = pa.table({"name": pa.array(["a", None, "b", "a"]).dictionary_encode()})
    column = next(column for column in COLUMNS if column.name == "name")
    header = ResultHeader(columns=(column,), schema=table.schema)
    rows = read_rows(kind, written(kind, table, header=header))
    assert [str(row[0]) for row in rows if row and row[0] not in (None, "", "--")] == ["a", "b", "a"]


@VOTABLES
def test_votable_values_and_nulls(kind: Format) -> None:
    table = read_votable(written(kind, sample_table())).get_first_table()
    for name in ("small", "whole", "source_id"):
        assert [table.array[name][i] for i in (0, 1, 3)] == [VALUES[name][i] for i in (0, 1, 3)]
        assert bool(table.array.mask[name][2])
    assert bool(table.array["flag"][0])
    assert bool(table.array.mask["flag"][2])
    for name in ("ra", "mag"):
        expected = np.array([VALUES[name][i] for i in (0, 1, 3)], table.array[name].dtype)
        assert np.array_equal(np.asarray(table.array[name])[[0, 1, 3]], expected)
    odd = np.asarray(table.array["odd"])
    assert np.isposinf(odd[0])
    assert np.isneginf(odd[1])
    assert np.isnan(odd[3])
    assert list(table.array["huge"])[:2] == [str(10**30), "0"]
    assert list(table.array["natural"])[1] == str(2**64 - 1)
    assert list(table.array["greek"])[0:2] == ["αβγ", "日本"]
    assert table.array["greek"][3] == "𝛼 Centauri"
    assert [v.replace("\r\n", "\n") for v in (table.array["name"][0], table.array["name"][1], table.array["name"][3])] == [
        VALUES["name"][i] for i in (0, 1, 3)
    ]
    assert list(table.array["day"])[:2] == ["2026-01-02", "1970-01-01"]
    assert table.array["when"][0] == "2026-11-22T01:02:03.45"
    assert table.array["when"][3] == "2000-01-01T00:00:00.000001"
    assert list(table.array["place"][0]) == [10.5, -20.25]
    assert list(table.array["shape"][0]) == VALUES["shape"][0]
    assert [float(v) for v in table.array["price"][[0, 1, 3]]] == [1.25, -3.5, 0.0]


@VOTABLES
def test_votable_fields_agree_with_the_type_table(kind: Format) -> None:
    document = read_votable(written(kind, sample_table()))
    for field, column in zip(document.get_first_table().fields, COLUMNS, strict=True):
        expected = to_votable(column.type)
        assert (field.name, field.datatype, field.arraysize or "", field.xtype or "") == (
            column.name,
            expected.datatype,
            expected.arraysize,
            expected.xtype,
        )
    ra = next(field for field in document.get_first_table().fields if field.name == "ra")
    assert str(ra.unit) == "deg"
    assert ra.description == "Right <ascension>"


@VOTABLES
def test_votable_infos(kind: Format) -> None:
    resource = read_votable(written(kind, sample_table(), is_overflow=True)).resources[0]
    assert resource.type == "results"
    infos = [(info.name, info.value) for info in resource.infos]
    assert ("QUERY", HEADER.statement) in infos
    assert ("SNAPSHOT", "demo:3") in infos
    assert ("WARNING", "CASE is an extension") in infos
    document = written(kind, sample_table(), is_overflow=True).decode()
    statuses = re.findall(r'name="QUERY_STATUS" value="(\w+)"|(</TABLE>)', document)
    assert [a or b for a, b in statuses] == ["OK", "</TABLE>", "OVERFLOW"]


@VOTABLES
def test_votable_failure_on_the_way_is_a_trailing_info(kind: Format) -> None:
    writer = kind.writer(HEADER)
    batch = sample_table().to_batches()[0]
    document = b"".join([writer.begin(), writer.write(batch), writer.fail(QueryTimeoutError("60 s passed", hint="use TOP")) or b""])
    resource = read_votable(document).resources[0]
    assert len(resource.tables[0].array) == 4
    last = [info for info in resource.infos if info.name == "QUERY_STATUS"][-1]
    assert (last.value, last.content) == ("ERROR", "60 s passed (use TOP)")


def test_binary2_layout_by_the_book() -> None:
    columns = tuple(column for column in COLUMNS if column.name in ("flag", "small", "name"))
    table = pa.table({"flag": [True, None], "small": pa.array([258, None], pa.int16()), "name": ["aé", None]})
    header = ResultHeader(columns=columns, schema=table.schema)
    document = written(BINARY2, table, header=header).decode()
    stream = re.search(r'<STREAM encoding="base64">(.*)</STREAM>', document, re.DOTALL)
    assert stream is not None
    raw = base64.b64decode(stream[1])
    assert raw == b"\x00T\x01\x02\x00\x00\x00\x02\x00a\x00\xe9" + b"\xe0?\x00\x00\x00\x00\x00\x00"


def test_csv_tells_null_from_empty_text() -> None:
    text = written(CSV, sample_table().select(["name", "whole"]), header=_part("name", "whole")).decode()
    assert text.split("\r\n")[:4] == ["name,whole", '"NGC 224",-2147483648', '"",0', ","]
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert rows[3]["name"] == VALUES["name"][3]


def test_csv_numbers_are_exact_and_bare() -> None:
    text = written(CSV, sample_table().select(["ra", "odd", "price", "when"]), header=_part("ra", "odd", "price", "when")).decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [float(rows[i]["ra"]) for i in (0, 1, 3)] == [VALUES["ra"][i] for i in (0, 1, 3)]
    assert [row["odd"] for row in rows] == ["+Inf", "-Inf", "", "NaN"]
    assert rows[0]["price"] == "1.25"
    assert rows[0]["when"] == "2026-11-22T01:02:03.45"
    assert '"' not in text


def test_tsv_has_no_tabs_in_values() -> None:
    text = written(TSV, sample_table()).decode()
    assert {line.count("\t") for line in text.splitlines()} == {len(COLUMNS) - 1}


@pytest.mark.parametrize("is_overflow", [False, True])
def test_parquet_carries_a_votable(is_overflow: bool) -> None:
    document = written(PARQUET, sample_table(), is_overflow=is_overflow)
    file = pq.ParquetFile(io.BytesIO(document))
    # NaN is not equal to itself in Arrow either.
    assert file.read().drop_columns(["odd"]).equals(sample_table().drop_columns(["odd"]))
    pairs = file.metadata.metadata
    assert pairs[b"IVOA.VOTable-Parquet.version"] == b"1.0"
    votable = read_votable(pairs[b"IVOA.VOTable-Parquet.content"])
    assert [field.name for field in votable.get_first_table().fields] == SCHEMA.names
    status = [info.value for info in votable.resources[0].infos if info.name == "QUERY_STATUS"]
    assert status == ["OVERFLOW" if is_overflow else "OK"]


def test_parquet_is_read_by_astropy_with_units(tmp_path: Any) -> None:
    from astropy.table import Table

    path = tmp_path / "result.parquet"
    path.write_bytes(written(PARQUET, sample_table().slice(0, 2).select(["ra", "whole"]), header=_part("ra", "whole")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = Table.read(path, format="parquet.votable")
    assert str(table["ra"].unit) == "deg"


def test_parquet_without_its_end_is_no_parquet() -> None:
    writer = PARQUET.writer(HEADER)
    document = writer.begin() + writer.write(sample_table().to_batches()[0])
    assert writer.fail(QueryTimeoutError("too slow")) is None
    with pytest.raises(pa.ArrowInvalid):
        pq.read_table(io.BytesIO(document))


def test_arrow_stream_describes_itself_and_its_end() -> None:
    reader = pa.ipc.open_stream(written(ARROW, sample_table(), is_overflow=True))
    assert from_arrow_schema(reader.schema) == COLUMNS
    assert json.loads(reader.schema.metadata[HEADER_KEY])["snapshots"] == {"demo": 3}
    last = None
    while True:
        try:
            last = reader.read_next_batch_with_custom_metadata()
        except StopIteration:
            break
    assert last is not None
    assert json.loads(last.custom_metadata[STATUS_KEY]) == {"is_overflow": True, "error": None}


def test_arrow_stream_carries_a_failure() -> None:
    writer = ARROW.writer(HEADER)
    reader = pa.ipc.open_stream(writer.begin() + (writer.fail(QueryTimeoutError("too slow")) or b""))
    last = reader.read_next_batch_with_custom_metadata()
    assert json.loads(last.custom_metadata[STATUS_KEY])["error"]["code"] == "timeout"


def _part(*names: str) -> ResultHeader:
    columns = tuple(next(column for column in COLUMNS if column.name == name) for name in names)
    return ResultHeader(columns=columns, schema=pa.schema([SCHEMA.field(name) for name in names]))
