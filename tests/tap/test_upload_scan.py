"""Uploads are read in every format that is sent, and what is made to do harm is refused with its place."""

from __future__ import annotations

import gzip
import io
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import votable
from astropy.table import MaskedColumn
from astropy.table import Table as AstropyTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qengine.errors import UploadError
from qengine.tap.upload_read import read_upload
from qengine.tap.upload_scan import UploadLimits

_HEAD = '<?xml version="1.0"?>\n<VOTABLE version="1.4"><RESOURCE><TABLE>'
_TAIL = "</TABLE></RESOURCE></VOTABLE>"
_FIELDS = '<FIELD name="id" datatype="long"/><FIELD name="my ra" datatype="double" unit="deg" ucd="pos.eq.ra;meta.main"/>'
_ROWS = "<DATA><TABLEDATA><TR><TD>1</TD><TD>2.5</TD></TR><TR><TD>2</TD><TD/></TR></TABLEDATA></DATA>"
_GOOD = f"{_HEAD}{_FIELDS}{_ROWS}{_TAIL}"


def _read(folder: Path, content: bytes | str, limits: UploadLimits | None = None) -> pa.Table:
    path = folder / "sent"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_upload(path, "mine", limits)


def _astropy() -> AstropyTable:
    found = AstropyTable({"id": np.arange(5), "ra": np.linspace(0, 359, 5), "flag": [True, False, True, True, False]})
    found["name"] = MaskedColumn(["a", "é", "c", "d", ""], mask=[False, False, True, False, False])
    found["v"] = np.arange(15.0).reshape(5, 3)
    found["ra"].unit = "deg"
    found["ra"].description = "where it is"
    return found


def _as_votable(table: AstropyTable, form: str) -> bytes:
    stream = io.BytesIO()
    votable.from_table(table).to_xml(stream, tabledata_format=form)
    return stream.getvalue()


@pytest.mark.parametrize("header", ["# %ECSV", "# %ECSV 1.0\n# ---\n# a", "# %ECSV 1.0\n# ---\n# datatype: [1]\nx"])
def test_headers_that_describe_nothing(tmp_path: Path, header: str) -> None:
    with pytest.raises(UploadError) as caught:
        _read(tmp_path, header)
    assert "object" not in str(caught.value)


@pytest.mark.parametrize("form", ["tabledata", "binary", "binary2"])
@pytest.mark.parametrize("is_packed", [False, True])
def test_votables_of_astropy(tmp_path: Path, form: str, *, is_packed: bool) -> None:
    content = _as_votable(_astropy(), form)
    found = _read(tmp_path, gzip.compress(content) if is_packed else content)
    assert found.column("id").to_pylist() == [0, 1, 2, 3, 4]
    assert found.column("flag").to_pylist() == [True, False, True, True, False]
    assert found.column("name").to_pylist()[1] == "é"
    assert found.column("v").to_pylist()[2] == [6.0, 7.0, 8.0]
    assert found.schema.field("ra").metadata == {b"unit": b"deg", b"description": b"where it is"}


def test_other_formats(tmp_path: Path) -> None:
    plain = pa.table({"id": [1, 2, 3], "x": [1.5, float("nan"), None]})
    sink = io.BytesIO()
    pq.write_table(plain, sink)
    assert _read(tmp_path, sink.getvalue()).column("x").to_pylist() == [1.5, None, None]
    for text in ("id,x\n1,1.5\n2,\n3,NaN\n", "id\tx\n1\t1.5\n2\t\n3\tNaN\n"):
        assert _read(tmp_path, text).to_pydict() == {"id": [1, 2, 3], "x": [1.5, None, None]}
    table = AstropyTable({"id": [1, 2], "x": [1.5, 2.5]})
    fits = tmp_path / "t.fits"
    table.write(fits)
    assert _read(tmp_path, fits.read_bytes()).to_pydict() == {"id": [1, 2], "x": [1.5, 2.5]}
    ecsv = tmp_path / "t.ecsv"
    table.write(ecsv, format="ascii.ecsv")
    assert _read(tmp_path, ecsv.read_bytes()).to_pydict() == {"id": [1, 2], "x": [1.5, 2.5]}


def test_names_units_nulls_and_times(tmp_path: Path) -> None:
    field = '<FIELD name="t" datatype="char" arraysize="*" xtype="timestamp"/>'
    rows = "<TR><TD>1</TD><TD>2.5</TD><TD>2026-01-02T03:04:05</TD></TR><TR><TD>2</TD><TD/><TD/></TR>"
    found = _read(tmp_path, f"{_HEAD}{_FIELDS}{field}<DATA><TABLEDATA>{rows}</TABLEDATA></DATA>{_TAIL}")
    assert found.column("my ra").to_pylist() == [2.5, None]
    assert found.schema.field("my ra").metadata[b"ucd"] == b"pos.eq.ra;meta.main"
    assert found.schema.field("t").type == pa.timestamp("us")
    assert found.column("t").null_count == 1


_BOMB = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + "]><VOTABLE>&i;</VOTABLE>"
)
_EVIL = {
    "entities": (_BOMB, "DOCTYPE"),
    "external": (f'<?xml version="1.0"?><!DOCTYPE x SYSTEM "file:///etc/passwd">{_GOOD[22:]}', "DOCTYPE"),
    "deep": ("<VOTABLE>" + "<RESOURCE>" * 100_000, "deep"),
    "long attribute": (f'{_HEAD}<FIELD name="{"x" * 100_000}" datatype="int"/>{_TAIL}', "letters"),
    "huge tag": ('<VOTABLE a="' + "x" * 4_000_000, "bytes"),
    "many attributes": ("<VOTABLE " + " ".join(f'a{i}="1"' for i in range(1000)) + "/>", "attributes"),
    "many fields": (_HEAD + '<FIELD name="a" datatype="int"/>' * 2000 + _TAIL, "FIELDs"),
    "elsewhere": (_HEAD + _FIELDS + '<DATA><BINARY2><STREAM href="http://127.0.0.1/"/></BINARY2></DATA>' + _TAIL, "elsewhere"),
    "wrong type": (_GOOD.replace("<TD>1</TD>", "<TD>one</TD>"), "row 1, column 'id'"),
    "too few cells": (_GOOD.replace("<TD/>", ""), "1 cells, not 2"),
    "no columns": (_HEAD + _TAIL, "FIELD"),
    "strange type": (_GOOD.replace('"long"', '"quaternion"'), "quaternion"),
    "long number": (_GOOD.replace('datatype="long"', f'datatype="long" arraysize="{"9" * 6000}"'), "upload mine"),
    "same names": (_GOOD.replace("my ra", "ID"), "equal but for case"),
    "quote in a name": (_GOOD.replace("my ra", "a&quot;b"), "name of a column"),
    "empty": ("", "empty"),
    "nothing": ("<VOTABLE/>", "no TABLE"),
    "html": ("<html><body><p>404</body></html>", "mismatched tag"),
}


@pytest.mark.parametrize("name", _EVIL)
def test_evil_documents(tmp_path: Path, name: str) -> None:
    content, words = _EVIL[name]
    with pytest.raises(UploadError, match="upload mine") as caught:
        _read(tmp_path, content)
    assert words in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert "/tmp" not in str(caught.value)


def test_limits(tmp_path: Path) -> None:
    for limits, words in (
        (UploadLimits(rows=1), "1 rows"), (UploadLimits(bytes=100), "100 bytes"), (UploadLimits(memory_bytes=8), "8 bytes"),
    ):  # fmt: skip
        with pytest.raises(UploadError, match=words):
            _read(tmp_path, _GOOD, limits)
    with pytest.raises(UploadError, match="bytes"):  # 100 MB of zeros in 100 kB
        _read(tmp_path, gzip.compress(b"0" * 100_000_000), UploadLimits(bytes=1 << 20))


def test_memory_does_not_follow_markup_that_never_ends(tmp_path: Path) -> None:
    content = b'<VOTABLE a="' + b"x" * 50_000_000
    (tmp_path / "sent").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(UploadError):
            read_upload(tmp_path / "sent", "mine")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", ["tabledata", "binary", "binary2"])
def test_truncated_anywhere_is_refused(tmp_path: Path, form: str) -> None:
    content = _as_votable(_astropy(), form).rstrip()
    for cut in range(1, len(content), 97):
        with pytest.raises(UploadError):
            _read(tmp_path, content[:cut])
    packed = gzip.compress(content)
    with pytest.raises(UploadError, match="truncated"):
        _read(tmp_path, packed[: len(packed) // 2])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(_GOOD)), st.integers(0, 30), st.binary(max_size=20))
def test_damaged_documents_are_read_or_refused(tmp_path: Path, at: int, gone: int, put: bytes) -> None:
    content = _GOOD.encode()
    with suppress(UploadError):
        _read(tmp_path, content[:at] + put + content[at + gone :])
