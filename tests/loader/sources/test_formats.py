"""What is special about single formats."""

from __future__ import annotations

import base64
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits as astropy_fits
from astropy.io.votable import parse
from astropy.table import Table

from qengine.errors import ConfigError, InputError
from qengine.loader.sources.csv import CsvOptions
from qengine.loader.sources.ecsv import EcsvSource
from qengine.loader.sources.fits import FitsSource
from qengine.loader.sources.open import InputOptions, open_sources, reopen
from qengine.loader.sources.parquet import ParquetSource
from qengine.loader.sources.source import HATS, Source
from qengine.loader.sources.votable import VotableSource
from tests.support.hats_trees import sky, with_cells, write_catalog


def rows_of(source: Source, *columns: str) -> list[dict[str, object]]:
    return pa.Table.from_batches(list(source.batches(columns or source.schema.names))).to_pylist()


def words_of(source: Source, name: str) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in (source.schema.field(name).metadata or {}).items()}


# -- FITS ---------------------------------------------------------------------------------------------------------------------


def write_fits(path: Path, *columns: astropy_fits.Column, **cards: object) -> Path:
    unit = astropy_fits.BinTableHDU.from_columns(columns, name="SOURCES")
    unit.header.update(cards)
    astropy_fits.HDUList([astropy_fits.PrimaryHDU(), unit]).writeto(path, overwrite=True)
    return path


def test_fits_scaled_unsigned_and_null_columns(tmp_path: Path) -> None:
    column = astropy_fits.Column
    path = write_fits(
        tmp_path / "t.fits",
        column("u16", "I", bzero=2**15, array=np.array([0, 1, 65535], np.uint16)),
        column("u32", "J", bzero=2**31, array=np.array([0, 1, 2**32 - 1], np.uint32)),
        column("u64", "K", bzero=2**63, array=np.array([0, 1, 2**64 - 1], np.uint64)),
        column("i8", "B", bzero=-128, array=np.array([-128, 0, 127], np.int8)),
        column("u8", "B", array=np.array([0, 1, 255], np.uint8)),
        column("scaled", "I", array=np.array([0, 1, 2], np.int16)),
        column("nulls", "J", null=-99, array=np.array([1, -99, 3], np.int32)),
        column("shifted", "K", null=-99, array=np.array([2**60 + 1, -99, 3], np.int64)),
        TSCAL6=0.5,
        TZERO6=10.0,
        TZERO8=100,
    )
    source = FitsSource(path)
    assert [str(kind) for kind in source.schema.types] == [
        "uint16",
        "uint32",
        "uint64",
        "int8",
        "uint8",
        "double",
        "int32",
        "int64",
    ]
    columns = pa.Table.from_batches(list(source.batches(source.schema.names))).to_pydict()
    assert columns == {
        "u16": [0, 1, 65535], "u32": [0, 1, 2**32 - 1], "u64": [0, 1, 2**64 - 1], "i8": [-128, 0, 127], "u8": [0, 1, 255],
        "scaled": [10.0, 10.5, 11.0], "nulls": [1, None, 3], "shifted": [2**60 + 101, None, 103],
    }  # fmt: skip


def test_fits_bits_logicals_vectors_and_texts(tmp_path: Path) -> None:
    column = astropy_fits.Column
    ragged = np.empty(2, object)
    ragged[:] = [np.array([1.5, 2.5]), np.array([], float)]
    path = write_fits(
        tmp_path / "t.fits",
        column("bits", "10X", array=np.array([[1, 0] * 5, [0] * 9 + [1]], bool)),
        column("bit", "1X", array=np.array([[1], [0]], bool)),
        column("logical", "L", array=np.array([True, False])),
        column("vector", "3E", array=np.array([[1, 2, 3], [4, 5, np.nan]], np.float32)),
        column("matrix", "6J", dim="(3,2)", array=np.arange(12, dtype=np.int32).reshape(2, 2, 3)),
        column("ragged", "PD()", array=ragged),
        column("text", "8A", array=np.array(["ab  ", "e@"])),
        column("texts", "6A", dim="(3,2)", array=np.array([["abc", "d"], ["", "ef"]])),
        TUCD4="phot.mag", TUNIT4="mag", TCOMM4="magnitudes in g, r, i",
    )  # fmt: skip
    raw = path.read_bytes().replace(b"e@", "é".encode())
    path.write_bytes(raw)
    source = FitsSource(path)
    assert words_of(source, "vector") == {"unit": "mag", "ucd": "phot.mag", "description": "magnitudes in g, r, i"}
    first, second = rows_of(source)
    assert first == {
        "bits": [True, False] * 5, "bit": True, "logical": True, "vector": [1, 2, 3], "matrix": [[0, 1, 2], [3, 4, 5]],
        "ragged": [1.5, 2.5], "text": "ab", "texts": ["abc", "d"],
    }  # fmt: skip
    assert (second["bits"], second["ragged"], second["text"], second["texts"]) == ([False] * 9 + [True], [], "é", ["", "ef"])
    # a logical that is neither T nor F is not known: 2 + 1 bytes of bits lie before it
    place = raw.index(b"END", raw.index(b"SOURCES")) // 2880 * 2880 + 2880 + 3
    assert raw[place : place + 1] == b"T"
    path.write_bytes(raw[:place] + b"\0" + raw[place + 1 :])
    assert [row["logical"] for row in rows_of(FitsSource(path), "logical")] == [None, False]


def test_fits_with_several_tables_asks_which(tmp_path: Path) -> None:
    units = [astropy_fits.BinTableHDU(Table({"a": [n]}), name=f"T{n}") for n in (1, 2)]
    astropy_fits.HDUList([astropy_fits.PrimaryHDU(), *units]).writeto(tmp_path / "t.fits")
    with pytest.raises(InputError, match=r"several tables.*\(name one of 1 \(T1\), 2 \(T2\)\)"):
        FitsSource(tmp_path / "t.fits")
    for name in ("2", "t2"):
        [source] = open_sources([tmp_path / "t.fits"], options=InputOptions(table=name))
        assert rows_of(source) == rows_of(reopen(source.recipe)) == [{"a": 2}]
    with pytest.raises(InputError, match="no table 'T3'"):
        FitsSource(tmp_path / "t.fits", hdu="T3")


def test_fits_that_cannot_be_used(tmp_path: Path) -> None:
    astropy_fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "image.fits")
    with pytest.raises(InputError, match="no binary table"):
        FitsSource(tmp_path / "image.fits")
    write_fits(tmp_path / "c.fits", astropy_fits.Column("z", "M", array=np.array([1 + 2j])))
    with pytest.raises(InputError, match="column 'z' has the format M"):
        FitsSource(tmp_path / "c.fits")
    write_fits(tmp_path / "z.fits", astropy_fits.Column("z", "J", array=np.array([1], np.int32)), ZTABLE=True)
    with pytest.raises(InputError, match="compressed by columns"):
        FitsSource(tmp_path / "z.fits")


def test_compressed_fits(tmp_path: Path) -> None:
    Table({"a": [1, 2]}).write(tmp_path / "t.fits.gz")
    [source] = open_sources([tmp_path / "t.fits.gz"])
    assert rows_of(source) == [{"a": 1}, {"a": 2}]


# -- VOTable ------------------------------------------------------------------------------------------------------------------

HEAD = '<?xml version="1.0"?>\n<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE type="results">'
FIELDS = """<TABLE name="t">
<FIELD name="i" datatype="int"><DESCRIPTION>a  number,
 with &lt;markup&gt;</DESCRIPTION><VALUES null="-1"/></FIELD>
<FIELD name="x" datatype="double" unit="deg" ucd="pos.eq.ra;meta.main" utype="a:b"/>
<FIELD name="s" datatype="unicodeChar" arraysize="*"/>
<FIELD name="v" datatype="short" arraysize="2x*"/>
<FIELD name="t" datatype="char" arraysize="*" xtype="timestamp"/>
<FIELD name="b" datatype="boolean"/>
<FIELD name="flags" datatype="bit" arraysize="3"/>
<FIELD name="words" datatype="char" arraysize="2x2"/>
"""
TAIL = "</TABLE></RESOURCE></VOTABLE>"


def votable(path: Path, data: str, fields: str = FIELDS) -> VotableSource:
    path.write_text(f"{HEAD}{fields}<DATA>{data}</DATA>{TAIL}")
    return VotableSource(path)


EXPECTED = [
    {"i": 1, "x": 1.5, "s": "é <x>", "v": [[1, 2], [3, 4]], "t": "2025-01-02 03:04:05", "b": True, "flags": [True, False, True],
     "words": ["ab", "cd"]},
    {"i": None, "x": None, "s": None, "v": None, "t": None, "b": None, "flags": None, "words": None},
]  # fmt: skip


def test_votable_text(tmp_path: Path) -> None:
    source = votable(
        tmp_path / "t.vot",
        "<TABLEDATA><TR><TD>0x1</TD><TD> 1.5 </TD><TD>é &lt;x&gt;</TD><TD>1 2 3 4</TD><TD>2025-01-02T03:04:05Z</TD><TD>T</TD>"
        "<TD>1 0 1</TD><TD>abcd</TD></TR>\n<TR><TD>-1</TD><TD/><TD></TD><TD/><TD/><TD>?</TD><TD/><TD/></TR></TABLEDATA>",
    )
    assert words_of(source, "x") == {"unit": "deg", "ucd": "pos.eq.ra;meta.main", "utype": "a:b"}
    assert words_of(source, "i") == {"description": "a number, with <markup>"}
    found = rows_of(source)
    assert [{**row, "t": row["t"] and str(row["t"])} for row in found] == EXPECTED
    assert source.rows == 2


def binary_row(flags: bytes) -> bytes:
    return (
        flags + struct.pack(">id", 1, 1.5) + struct.pack(">i", 5) + "é <x>".encode("utf-16-be") + struct.pack(">i4h", 4, 1, 2, 3, 4)
        + struct.pack(">i", 20) + b"2025-01-02T03:04:05Z" + b"T" + bytes([0b1010_0000]) + b"abcd"
    )  # fmt: skip


def test_votable_binary2(tmp_path: Path) -> None:
    null = b"\xff" + struct.pack(">id", 7, 2.0) + struct.pack(">3i", 0, 0, 0) + b"T\0abcd"
    content = base64.encodebytes(binary_row(b"\0") + null).decode()
    source = votable(tmp_path / "t.vot", f'<BINARY2><STREAM encoding="base64">\n{content}</STREAM></BINARY2>')
    assert [{**row, "t": row["t"] and str(row["t"])} for row in rows_of(source)] == EXPECTED
    assert rows_of(source, "words", "i") == [{"words": ["ab", "cd"], "i": 1}, {"words": None, "i": None}]


def test_votable_binary(tmp_path: Path) -> None:
    content = base64.b64encode(binary_row(b"") * 3).decode()
    source = votable(tmp_path / "t.vot", f'<BINARY><STREAM encoding="base64">{content}</STREAM></BINARY>')
    assert [{**row, "t": str(row["t"])} for row in rows_of(source)] == EXPECTED[:1] * 3
    cut = base64.b64encode((binary_row(b"") * 3)[:-2]).decode()
    source = votable(tmp_path / "t.vot", f'<BINARY><STREAM encoding="base64">{cut}</STREAM></BINARY>')
    with pytest.raises(InputError, match="the data end within a row"):
        rows_of(source)


ONE = '<TABLE><FIELD name="a" datatype="int"/>'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "b">]>' + HEAD[22:] + ONE + TAIL, "DOCTYPE"),
        (HEAD + ONE + '<DATA><BINARY2><STREAM href="http://elsewhere/"/></BINARY2></DATA>' + TAIL, "href"),
        (HEAD + ONE + "</TABLE>" + ONE + TAIL, "several tables"),
        (HEAD + "</RESOURCE></VOTABLE>", "no TABLE"),
        (HEAD + '<TABLE><FIELD name="a" datatype="doubleComplex"/>' + TAIL, "column 'a' is of datatype 'doubleComplex'"),
        (HEAD + '<TABLE><FIELD name="a" datatype="int" arraysize="*x2"/>' + TAIL, "arraysize"),
        (HEAD + ONE + "<DATA><TABLEDATA><TR><TD>1</TD></TR><TR><TD>x2</TD></TR></TABLEDATA></DATA>" + TAIL, "row 2, column 'a'.*'x2'"),
        (HEAD + ONE + "<DATA><TABLEDATA><TR><TD>3000000000</TD></TR></TABLEDATA></DATA>" + TAIL, "row 1, column 'a'"),
        (HEAD + ONE + "<DATA><TABLEDATA><TR><TD>1</TD><TD>2</TD></TR></TABLEDATA></DATA>" + TAIL, "2 cells, not 1"),
        (HEAD + ONE + "<DATA><TABLEDATA><TR><TD>1</TR></TABLEDATA></DATA>" + TAIL, "mismatched tag"),
        (HEAD + '<TABLE><FIELD name="a" datatype="int" arraysize="2"/><DATA><TABLEDATA><TR><TD>1 2 3</TD></TR></TABLEDATA></DATA>' + TAIL,
         "row 1, column 'a': 3 values, where the array has 2"),
    ],
)  # fmt: skip
def test_votables_that_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "t.vot"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as error:
        rows_of(VotableSource(path))
    assert str(path) in error.value.message


def test_votable_with_several_tables(tmp_path: Path) -> None:
    second = ONE.replace("<TABLE>", '<TABLE name="b">') + "<DATA><TABLEDATA><TR><TD>2</TD></TR></TABLEDATA></DATA></TABLE>"
    (tmp_path / "t.xml").write_text(HEAD + ONE + "</TABLE>" + second + "</RESOURCE></VOTABLE>")
    for name in ("2", "b"):
        [source] = open_sources([tmp_path / "t.xml"], options=InputOptions(table=name))
        assert rows_of(source) == rows_of(reopen(source.recipe)) == [{"a": 2}]


@pytest.mark.parametrize("layout", ["tabledata", "binary", "binary2"])
def test_votables_of_astropy_with_arrays(tmp_path: Path, layout: str) -> None:
    made = Table(
        {"m": np.arange(12, dtype=np.int16).reshape(2, 3, 2), "f": np.array([[1.5, 2.5], [3.5, np.inf]]), "s": ["a", "bcd"]}
    )
    made.write(tmp_path / "t.vot", format="votable", tabledata_format=layout)
    again = parse(str(tmp_path / "t.vot")).get_first_table().to_table()
    found = rows_of(VotableSource(tmp_path / "t.vot"))
    assert [row["m"] for row in found] == again["m"].tolist()
    assert [row["f"] for row in found] == again["f"].tolist()
    assert [row["s"] for row in found] == ["a", "bcd"]


# -- ECSV, Parquet of astropy -------------------------------------------------------------------------------------------------


def test_ecsv_lists_and_objects(tmp_path: Path) -> None:
    Table({"a": [[1, 2], [3, 4]], "b": ["x y", ""], "c": [1.5, 2.5]}).write(tmp_path / "t.ecsv", delimiter=",")
    source = EcsvSource(tmp_path / "t.ecsv")
    assert rows_of(source) == [{"a": [1, 2], "b": "x y", "c": 1.5}, {"a": [3, 4], "b": None, "c": 2.5}]
    Table({"z": [1 + 2j]}).write(tmp_path / "z.ecsv")
    with pytest.raises(InputError, match="column 'z' is of type complex"):
        EcsvSource(tmp_path / "z.ecsv")
    (tmp_path / "bad.ecsv").write_text("# %ECSV 1.0\n# ---\n# datatype: [\na\n1\n")
    with pytest.raises(InputError, match="not astropy's YAML"):
        EcsvSource(tmp_path / "bad.ecsv")


def test_ecsv_makes_no_objects(tmp_path: Path) -> None:
    (tmp_path / "t.ecsv").write_text(
        "# %ECSV 1.0\n# ---\n# datatype:\n# - {name: a, datatype: int64, unit: !astropy.units.Unit {unit: deg}}\n"
        "# meta: !!python/object/apply:os.system ['false']\n# schema: astropy-2.0\na\n1\n"
    )
    source = EcsvSource(tmp_path / "t.ecsv")
    assert (rows_of(source), words_of(source, "a")) == ([{"a": 1}], {"unit": "deg"})


def test_parquet_with_the_header_of_astropy(tmp_path: Path) -> None:
    header = "datatype:\n- {name: ra, unit: deg, datatype: float64, description: right ascension}\n- {name: id, datatype: int64}\n"
    rows = pa.table({"ra": [1.0], "id": [2]}).replace_schema_metadata({"table_meta_yaml": header})
    pq.write_table(rows, tmp_path / "t.parquet")
    assert words_of(ParquetSource(tmp_path / "t.parquet"), "ra") == {"unit": "deg", "description": "right ascension"}


def test_parquet_with_the_votable_of_voparquet(tmp_path: Path) -> None:
    content = (
        f'{HEAD}<TABLE><FIELD name="ra" datatype="double" unit="deg" ucd="pos.eq.ra"><DESCRIPTION>d</DESCRIPTION></FIELD>{TAIL}'
    )
    field = pa.field("ra", pa.float64(), metadata={"unit": "rad"})
    schema = pa.schema([field], metadata={"IVOA.VOTable-Parquet.version": "1.0", "IVOA.VOTable-Parquet.content": content})
    pq.write_table(pa.table({"ra": [1.0]}, schema=schema), tmp_path / "t.parquet")
    # the field's own word counts
    assert words_of(ParquetSource(tmp_path / "t.parquet"), "ra") == {"unit": "rad", "ucd": "pos.eq.ra", "description": "d"}
    broken = schema.with_metadata({"IVOA.VOTable-Parquet.content": "<VOTABLE>"})
    pq.write_table(pa.table({"ra": [1.0]}, schema=broken), tmp_path / "t.parquet")
    assert words_of(ParquetSource(tmp_path / "t.parquet"), "ra") == {"unit": "rad"}


# -- CSV options --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("1 2\n3 --\n", CsvOptions(delimiter=" ", names=("a", "b"), nulls=("--",)), [{"a": 1, "b": 2}, {"a": 3, "b": None}]),
        ("a;b\n1,5;'x;y'\n", CsvOptions(decimal=",", delimiter=";", quote="'"), [{"a": 1.5, "b": "x;y"}]),
        ("a,b\n-99,NULL\n", CsvOptions(nulls=("-99",)), [{"a": None, "b": "NULL"}]),
        ('a,b\nx\\,y,"\n', CsvOptions(quote="", escape="\\"), [{"a": "x,y", "b": '"'}]),
    ],
)
def test_csv_dialects_that_are_declared(tmp_path: Path, text: str, options: CsvOptions, expected: list[object]) -> None:
    (tmp_path / "t.csv").write_text(text)
    [source] = open_sources([tmp_path / "t.csv"], options=InputOptions(csv=options))
    assert rows_of(source) == rows_of(reopen(source.recipe)) == expected


def test_csv_of_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("a\né\n".encode("latin-1"))
    [source] = open_sources([tmp_path / "t.csv"], options=InputOptions(csv=CsvOptions(encoding="latin-1")))
    assert rows_of(source) == [{"a": "é"}]
    with pytest.raises(ConfigError, match="one character"):
        CsvOptions(delimiter="::")


# -- several files ------------------------------------------------------------------------------------------------------------


def test_a_directory_of_mixed_formats_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text("a\n2\n")
    with pytest.raises(InputError, match=r"several formats: .*a\.parquet is parquet, .*b\.csv is csv"):
        open_sources([tmp_path])
    assert len(open_sources([tmp_path], options=InputOptions(format="csv"))) == 1
    assert len(open_sources([tmp_path / "a.parquet", tmp_path / "b.csv"])) == 2


def test_formats_without_a_suffix_are_known_by_their_first_bytes(tmp_path: Path) -> None:
    Table({"a": [1]}).write(tmp_path / "t.fits")
    Table({"a": [1]}).write(tmp_path / "t.ecsv")
    Table({"a": [1]}).write(tmp_path / "t.vot", format="votable")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "t.parquet")
    for name in ("t.fits", "t.ecsv", "t.vot", "t.parquet"):
        plain = tmp_path / f"{name.replace('.', '_')}_plain"
        plain.write_bytes((tmp_path / name).read_bytes())
        assert rows_of(open_sources([plain])[0]) == [{"a": 1}]
    (tmp_path / "x_plain").write_text("a,b\n")
    with pytest.raises(InputError, match="unknown format"):
        open_sources([tmp_path / "x_plain"])
    with pytest.raises(ConfigError, match="no format cvs"):
        open_sources([tmp_path / "x_plain"], options=InputOptions(format="cvs"))


def test_two_equal_files_with_different_labels_are_two_inputs(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet"):
        pq.write_table(pa.table({"a": [1]}), tmp_path / name)
    a, b = open_sources([tmp_path])
    assert (a.identity.label != b.identity.label, a.version() == b.version()) == (True, True)
    with pytest.raises(InputError, match="the label 'x' is for one input, but there are 2"):
        open_sources([tmp_path], options=InputOptions(label="x"))


# -- HATS ---------------------------------------------------------------------------------------------------------------------


def test_hats_catalogue_is_its_leaf_files_without_what_says_where_rows_lie(tmp_path: Path) -> None:
    write_catalog(tmp_path / "c", with_cells(sky(300)))
    sources = open_sources([tmp_path / "c"])
    assert {source.identity.kind for source in sources} == {HATS}
    assert sources[0].schema.names == ["id", "ra", "dec", "mag", "name"]
    rows = [row for source in sources for row in rows_of(source, "id")]
    assert sorted(row["id"] for row in rows) == list(range(300))
    again = [row for source in sources for row in rows_of(reopen(source.recipe), "id")]
    assert again == rows


def test_hats_files_of_different_ages(tmp_path: Path) -> None:
    write_catalog(tmp_path / "c", sky(300))
    [first, second, *_] = sorted((tmp_path / "c").glob("dataset/Norder=1/Dir=0/*.parquet"))
    old = pq.read_table(first, partitioning=None)
    pq.write_table(old.drop_columns(["mag"]).set_column(0, "id", old["id"].cast(pa.int16())), first)
    newer = pq.read_table(second, partitioning=None)
    pq.write_table(newer.append_column("extra", newer["id"]), second)
    sources = {Path(source.name): source for source in open_sources([tmp_path / "c"])}
    assert len({source.schema for source in sources.values()}) == 1
    assert {row["mag"] for row in rows_of(sources[first], "mag")} == {None}
    assert pa.Table.from_batches(list(sources[first].batches(["mag", "id"]))).schema.types == [pa.float64(), pa.int64()]
    assert "extra" not in sources[second].schema.names
    assert sum(len(rows_of(source, "mag")) for source in sources.values()) == 300
    pq.write_table(old.set_column(0, "id", old["id"].cast(pa.string())), first)
    with pytest.raises(InputError, match="column 'id' is string, but the catalogue declares int64"):
        open_sources([tmp_path / "c"])
