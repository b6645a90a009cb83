"""What every result format must do: each is read back by a reader that is not ours."""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import json
import re
import warnings
from typing import Any

import astropy.io.fits
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io.votable import parse
from astropy.table import Table

from qengine.catalog.output import HEADER_KEY, STATUS_KEY, from_arrow_schema
from qengine.catalog.types import to_votable
from qengine.errors import QueryError, QueryTimeoutError
from qengine.tap.formats.choose import ARROW, BINARY, BINARY2, CSV, ECSV, FITS, FORMATS, JSON, PARQUET, TABLEDATA, TSV
from qengine.tap.formats.writer import Format, ResultHeader
from tests.support.result_samples import COLUMNS, HEADER, SCHEMA, VALUES, sample_table

EVERY = pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.aliases[0])
VOTABLES = pytest.mark.parametrize("kind", [BINARY2, TABLEDATA], ids=["binary2", "tabledata"])
_RESERVED = ("tiny", "small", "whole", "source_id")
"""Columns of the sample that have the smallest number of their type, which BINARY and FITS need for NULL."""


def storable(kind: Format, table: pa.Table) -> pa.Table:
    """The sample as the format can hold it."""
    if kind not in (BINARY, FITS):
        return table
    for name in _RESERVED:
        place, field = table.schema.get_field_index(name), table.schema.field(name)
        smallest = {"tiny": -(2**15), "small": -(2**15), "whole": -(2**31), "source_id": -(2**63)}[name]
        values = [v + 1 if v == smallest else v for v in table[name].to_pylist()]
        table = table.set_column(place, field, pa.array(values, field.type))
    return table


def written(kind: Format, table: pa.Table, *, header: ResultHeader = HEADER, is_overflow: bool = False, chunk: int = 3) -> bytes:
    writer = kind.writer(header)
    pieces = [writer.begin()]
    pieces += [writer.write(batch) for batch in table.to_batches(max_chunksize=chunk)]
    pieces += [*writer.held(), writer.finish(is_overflow=is_overflow)]
    writer.close()
    return b"".join(pieces)


def read_votable(document: bytes) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return parse(io.BytesIO(document))


def read_rows(kind: Format, document: bytes) -> list[tuple[Any, ...]]:
    """Rows as tuples, by an independent reader."""
    if kind is FITS:
        with astropy.io.fits.open(io.BytesIO(document)) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = Table.read(file[1])
        return [tuple(row) for row in table.filled().iterrows()] if len(table.columns) == 1 else [tuple(row) for row in table]
    if kind is ECSV:
        table = Table.read(document.decode(), format="ascii.ecsv")
        return [tuple(None if value is np.ma.masked else value for value in row) for row in table]
    if kind is JSON:
        return [tuple(row) for row in json.loads(document)["data"]]
    if kind in (BINARY, BINARY2, TABLEDATA):
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
    rows = read_rows(kind, written(kind, storable(kind, sample_table(repeat=25)), chunk=chunk))
    assert len(rows) == 100
    small = [column.name for column in COLUMNS].index("small")
    found = [str(row[small]) for row in rows if str(row[small]) not in ("", "--", "None")]
    assert found == ["-32767" if kind in (BINARY, FITS) else "-32768", "0", "32767"] * 25


@EVERY
def test_no_rows(kind: Format) -> None:
    assert read_rows(kind, written(kind, sample_table().slice(0, 0))) == []


@EVERY
def test_sliced_batches(kind: Format) -> None:
    table = storable(kind, sample_table(repeat=3))
    whole = table.combine_chunks().to_batches()[0]
    writer = kind.writer(HEADER)
    pieces = [writer.begin(), writer.write(whole.slice(2, 5)), writer.write(whole.slice(7, 2)), *writer.held()]
    document = b"".join([*pieces, writer.finish(is_overflow=False)])
    writer.close()
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


@pytest.mark.parametrize("kind", [BINARY, FITS], ids=["binary", "fits"])
def test_a_number_that_would_mean_null_is_refused(kind: Format) -> None:
    writer = kind.writer(_part("small"))
    with pytest.raises(QueryError, match="column small has the value -32768"):
        writer.write(sample_table().select(["small"]).to_batches()[0])
    writer.close()


def test_binary_nulls_by_the_book() -> None:
    table = read_votable(written(BINARY, storable(BINARY, sample_table()))).get_first_table()
    for name in ("small", "whole", "source_id", "flag"):
        assert table.array.mask[name].tolist() == [False, False, True, False]
    assert np.isnan(np.asarray(table.array["ra"])[2])
    assert table.array["name"][0] == "NGC 224"
    assert list(table.array["shape"][0]) == VALUES["shape"][0]


def test_fits_values_nulls_and_metadata() -> None:
    document = written(FITS, storable(FITS, sample_table()), is_overflow=True)
    assert len(document) % 2880 == 0
    with astropy.io.fits.open(io.BytesIO(document)) as file:
        file.verify("exception")
        assert [one.name for one in file] == ["PRIMARY", "RESULT", "OVERFLOW"]
        header = file[1].header
        raw = file[1].data
        table = Table.read(file[1])
    place = 1 + [column.name for column in COLUMNS].index("ra")
    assert (header[f"TUNIT{place}"], header[f"TCOMM{place}"]) == ("deg", "Right <ascension>")
    assert table["whole"].tolist() == [-(2**31) + 1, 0, None, 2**31 - 1]
    assert table["source_id"].tolist() == [-(2**63) + 1, 0, None, 2**63 - 1]
    assert raw["ra"][[0, 1, 3]].tolist() == [VALUES["ra"][i] for i in (0, 1, 3)]
    assert np.isnan(raw["ra"][2])
    assert raw["flag"].tolist()[:2] == [True, False]
    assert raw["name"][0] == "NGC 224"
    assert raw["greek"][3] == "? Centauri"
    assert "characters beyond ASCII are shown as ?: greek" in list(header["COMMENT"])
    assert raw["place"][0].tolist() == [10.5, -20.25]
    assert raw["shape"].shape == (4, 8)
    assert raw["when"][0] == "2026-11-22T01:02:03.45"
    assert raw["huge"][0] == str(10**30)


def test_fits_says_what_the_result_is() -> None:
    header = dataclasses.replace(HEADER, provenance=(("citation", "Müller et al. 2020"), ("rights", "CC BY 4.0")))
    with astropy.io.fits.open(io.BytesIO(written(FITS, sample_table().slice(1, 1), header=header))) as file:
        comments = "".join(file[0].header["COMMENT"])
    assert "SNAPSHOT: demo:3" in comments
    assert "citation: M?ller et al. 2020" in comments


def test_json_has_types_values_and_an_end() -> None:
    found = json.loads(written(JSON, sample_table(), is_overflow=True))
    assert found["status"] == "OVERFLOW"
    assert found["metadata"][8] == {"name": "ra", "datatype": "double", "unit": "deg", "description": "Right <ascension>"}
    assert found["info"]["SNAPSHOT"] == ["demo:3"]
    first, last = (dict(zip([c.name for c in COLUMNS], found["data"][i], strict=True)) for i in (0, 3))
    assert (first["flag"], first["source_id"], first["huge"], first["odd"]) == (True, -(2**63), str(10**30), "Infinity")
    assert (last["odd"], last["name"], last["ra"]) == (None, VALUES["name"][3], VALUES["ra"][3])
    assert first["place"] == [10.5, -20.25]
    assert first["when"] == "2026-11-22T01:02:03.45"
    assert set(found["data"][2]) == {None}


def test_json_carries_a_failure() -> None:
    writer = JSON.writer(HEADER)
    document = writer.begin() + writer.write(sample_table().to_batches()[0]) + (writer.fail(QueryTimeoutError("too slow")) or b"")
    found = json.loads(document)
    assert (found["status"], found["error"]["code"], len(found["data"])) == ("ERROR", "timeout", 4)


def test_ecsv_round_trip() -> None:
    names = ("flag", "small", "source_id", "ra", "odd", "name", "greek", "when", "place", "shape")
    table = sample_table().select(list(names))
    found = Table.read(written(ECSV, table, header=_part(*names), is_overflow=True).decode(), format="ascii.ecsv")
    assert str(found["ra"].unit) == "deg"
    assert found["ra"].description == "Right <ascension>"
    assert found["source_id"].tolist() == VALUES["source_id"]
    assert found["flag"].tolist() == VALUES["flag"]
    # astropy takes blanks from the ends of lines, also inside quotes
    assert found["name"][0] == "NGC 224"
    assert [line.strip() for line in found["name"][3].split("\n")] == [line.strip() for line in VALUES["name"][3].split("\n")]
    assert [found["greek"][i] for i in (0, 1, 3)] == [VALUES["greek"][i] for i in (0, 1, 3)]
    assert [found["ra"][i] for i in (0, 1, 3)] == [VALUES["ra"][i] for i in (0, 1, 3)]
    assert np.isposinf(found["odd"][0])
    assert list(found["shape"][0]) == VALUES["shape"][0]


def test_provenance_is_in_every_votable() -> None:
    header = dataclasses.replace(HEADER, provenance=(("citation", "doi:10.1/x & y"),))
    for kind in (BINARY, BINARY2, TABLEDATA):
        resource = read_votable(written(kind, storable(kind, sample_table()), header=header)).resources[0]
        assert ("citation", "doi:10.1/x & y") in [(info.name, info.value) for info in resource.infos]


def _part(*names: str) -> ResultHeader:
    columns = tuple(next(column for column in COLUMNS if column.name == name) for name in names)
    return ResultHeader(columns=columns, schema=pa.schema([SCHEMA.field(name) for name in names]))
