"""Requests by chance that a service understands: most of them reach the workers, with values at which things break.

Statements are derived from a grammar over the tables of `sky_builder`, parameters are those of a request that is answered with one
or two replaced, and uploads are whole tables of all types in all formats, of which a few bytes may have changed.
"""

from __future__ import annotations

import base64
import io
import struct
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.feather
import pyarrow.parquet as pq
from astropy.table import Table
from hypothesis import strategies as st

NUMBERS = st.sampled_from(["0", "1", "-1", "2.5", "1e308", "-1e-308", "9223372036854775807", "1e0", "0.1", "100", "NULL"])
TEXTS = st.sampled_from(["'a'", "''", "'é%_'", "'it''s'", "'\x01'", "'" + "x" * 300 + "'"])
NUMERIC = {
    "Object": ("objectId", "ra", "dec", "gMag", "rMag", "flags", "grade"),
    "Source": ("sourceId", "objectId", "ra", "dec", "flux", "mjd", "flags"),
    "Star": ("starId", "raj2000", "dej2000", "mag", "pm", "grade"),
    "Forced": ("objectId", "visit", "psfFlux"),
    "Filter": ("wavelength", "rank"),
}
TEXTUAL = {"Object": ("name",), "Source": ("band",), "Star": ("spType",), "Forced": ("band",), "Filter": ("band",)}
PLACES = {"Object": ("ra", "dec"), "Source": ("ra", "dec"), "Star": ("raj2000", "dej2000")}
KEYS = {"Object": "objectId", "Source": "objectId", "Forced": "objectId"}


def _numeric(columns: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def more(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.builds("({} {} {})".format, inner, st.sampled_from(["+", "-", "*", "/"]), inner),
            st.builds("{}({})".format, st.sampled_from(["ABS", "SQRT", "LOG10", "LOG", "EXP", "COS", "ACOS", "FLOOR", "SIGN", "RADIANS", "SIN", "CEILING"]), inner),
            st.builds("{}({}, {})".format, st.sampled_from(["POWER", "MOD", "ATAN2", "ROUND", "TRUNCATE", "COALESCE", "NULLIF"]), inner, inner),
            st.builds("CAST({} AS {})".format, inner, st.sampled_from(["SMALLINT", "INTEGER", "BIGINT", "REAL", "DOUBLE", "VARCHAR"])).filter(lambda text: "VARCHAR" not in text),
            st.builds("CASE WHEN {} < {} THEN {} ELSE {} END".format, inner, inner, inner, inner),
            st.builds("-({})".format, inner),
        )  # fmt: skip

    return st.recursive(columns | NUMBERS, more, max_leaves=6)


@st.composite
def statements(draw: st.DrawFn, sky: str) -> str:
    """Return a statement about tables of the sky: most have an answer."""
    table = draw(st.sampled_from(sorted(NUMERIC)))
    second = draw(st.sampled_from([None, None, *sorted(NUMERIC)]))
    columns = st.sampled_from(
        [f"a.{name}" for name in NUMERIC[table]] + ([f"b.{name}" for name in NUMERIC[second]] if second else [])
    )
    numeric = _numeric(columns)
    texts = st.sampled_from([f"a.{name}" for name in TEXTUAL[table]]) | st.builds(
        "{}({})".format, st.sampled_from(["UPPER", "LOWER"]), st.sampled_from([f"a.{name}" for name in TEXTUAL[table]])
    )
    circle = st.builds("CIRCLE({}, {}, {})".format, st.sampled_from(["0", "359.99", "45", "-10"]), st.sampled_from(["0", "90", "-90", "41.8"]), st.sampled_from(["0", "0.1", "10", "180"]))  # fmt: skip
    region = circle | st.just("POLYGON(0, 0, 20, 0, 10, 20)") | st.just("BOX(10, 10, 20, 20)")
    predicates = [
        st.builds("{} {} {}".format, numeric, st.sampled_from(["<", ">=", "=", "<>"]), numeric),
        st.builds("{} BETWEEN {} AND {}".format, columns, numeric, numeric),
        st.builds("{} IS {}NULL".format, columns, st.sampled_from(["", "NOT "])),
        st.builds("{} LIKE {}".format, texts, TEXTS),
        st.builds("{} IN ({}, {})".format, columns, NUMBERS, NUMBERS),
    ]
    if table in PLACES:
        ra, dec = PLACES[table]
        predicates += [st.builds(f"{{}} = CONTAINS(POINT(a.{ra}, a.{dec}), {{}})".format, st.sampled_from("01"), region)]
    predicate = st.recursive(
        st.one_of(predicates),
        lambda inner: (
            st.builds("({} {} {})".format, inner, st.sampled_from(["AND", "OR"]), inner) | st.builds("NOT ({})".format, inner)
        ),
        max_leaves=4,
    )
    source = f"{sky}.{table} AS a"
    if second:
        if table in PLACES and second in PLACES and draw(st.booleans()):
            on = "DISTANCE(POINT(a.{}, a.{}), POINT(b.{}, b.{})) < {}".format(
                *PLACES[table], *PLACES[second], draw(st.sampled_from(["0.001", "0.1", "2"]))
            )
        elif table in KEYS and second in KEYS:
            on = "a.objectId = b.objectId"
        else:
            on = draw(predicate)
        source += f" {draw(st.sampled_from(['', 'LEFT ', 'RIGHT ', 'FULL ']))}JOIN {sky}.{second} AS b ON {on}"
    where = f" WHERE {draw(predicate)}" if draw(st.booleans()) else ""
    top = draw(st.sampled_from(["", "TOP 5 ", "TOP 0 ", "DISTINCT ", "DISTINCT TOP 3 "]))
    if draw(st.booleans()):
        items = [f"{draw(numeric | texts)} AS c{n}" for n in range(draw(st.integers(1, 4)))]
        rest = draw(st.sampled_from(["", " ORDER BY c0", " ORDER BY c0 DESC, 1", " ORDER BY 1 OFFSET 2"]))
        return f"SELECT {top}{', '.join(items)} FROM {source}{where}{rest}"
    group = draw(columns)
    functions = st.sampled_from(["COUNT", "SUM", "AVG", "MIN", "MAX", "COUNT(DISTINCT", "STDDEV", "VARIANCE"])
    made = [f"{name}({value})" + (")" if "(" in name else "") for name, value in draw(st.lists(st.tuples(functions, numeric), min_size=1, max_size=3))]  # fmt: skip
    having = draw(st.sampled_from(["", " HAVING COUNT(*) > 1"]))
    return f"SELECT {group} AS g, {', '.join(f'{one} AS m{n}' for n, one in enumerate(made))} FROM {source}{where} GROUP BY {group}{having} ORDER BY 1"


@st.composite
def parameters(draw: st.DrawFn, sky: str) -> dict[str, list[str]]:
    """Return the parameters of a request, of which one or two are not what they should be."""
    found = {
        "REQUEST": ["doQuery"], "LANG": ["ADQL"], "MAXREC": ["10"], "RESPONSEFORMAT": ["csv"], "SNAPSHOT": [f"{sky}:1"], "RUNID": ["x"], "MAXCOST": ["10GB,60s"],
        "QUERY": [f"SELECT objectId, ra FROM {sky}.Object WHERE ra > 3"],
    }  # fmt: skip
    values = {
        "LANG": ["adql", "ADQL-2.0", "ADQL-2.1-strict", "SQL", "PQL", "ADQL\x00", ""],
        "MAXREC": ["0", "-1", "1e3", "99999999999999999999", "1.5", "", "ten", "١٠"],
        "RESPONSEFORMAT": ["votable", "votable/td", "application/x-votable+xml;serialization=tabledata", "VOTABLE/B2", "fits", "parquet", "text/html", "a/b;c=", "\n", "application/json"],
        "SNAPSHOT": [f"{sky}:99", f"{sky}:x", f"{sky}:2026-01-01", f"{sky}:0", f"{sky}:-1", f"{sky}:99999999999999999999", f"{sky}:", ":1", "nothing:1", "TAP_SCHEMA:1", "qengine_meta:1", f"{sky}:1;x:2", f"{sky}:2100-01-01T00:00:00Z", f"{sky}:0001-01-01"],
        "REQUEST": ["getCapabilities", "DOQUERY", "", "x"], "MAXCOST": ["0s", "1B", "-1GB", "1e999GB", "GB", "nan"], "RUNID": ["é" * 100, "\x00", "<a>"],
        "QUERY": ["", ";", "SELECT 1", f"SELECT TOP 3 * FROM {sky}.Star ORDER BY 1", f"SELECT * FROM {sky}.Object AT (VERSION => 1)", f"SELECT * FROM {sky}.Object AT (VERSION => 7)", f"SELECT * FROM {sky}.Object AT (TIMESTAMP => '2026-13-01')"],
        "FORMAT": ["csv", "votable"], "UPLOAD": ["t,param:t", "t", "t,file:///etc/passwd", "t,http://127.0.0.1:1/", "t,ftp://x/", "t,http://[::1]/", "t,param:"], "VERSION": ["1.0", "9"], "PHASE": ["RUN"],
    }  # fmt: skip
    for name in draw(st.lists(st.sampled_from(sorted(values)), max_size=2)):
        chosen = draw(st.sampled_from(values[name]) | st.text(max_size=12))
        found[name] = [*found.get(name, []), chosen] if draw(st.integers(0, 4)) == 0 else [chosen]
    return found


# -- uploads ------------------------------------------------------------------------------------------------------------------

_TYPES = {
    "boolean": ["T", "f", "1", "", "?", "x"], "bit": ["1", "0", "1 0 1", "2"], "unsignedByte": ["0", "255", "256", "-1", "0x1F"],
    "short": ["-32768", "32768", "", "7"], "int": ["1", "2147483648", "", "0x7f", "1.0"], "long": ["9223372036854775807", "-1", "9223372036854775808", "1e3"],
    "float": ["1.5", "NaN", "+Inf", "-Inf", "1e39", "", "x"], "double": ["1.5", "NaN", "-Infinity", "1e309", "", "-0"],
    "char": ["a", "", "&amp;&lt;", "é", " b ", "2026-01-02T03:04:05", "2026-13-45"], "unicodeChar": ["é", "\U0001f600", ""],
    "floatComplex": ["1 2"], "doubleComplex": ["1 2 3"],
}  # fmt: skip
_WIDTHS = {"boolean": 1, "bit": 1, "unsignedByte": 1, "short": 2, "int": 4, "long": 8, "float": 4, "double": 8, "char": 1, "unicodeChar": 2, "floatComplex": 8, "doubleComplex": 16}  # fmt: skip
_SIZES = st.sampled_from(["", "", "", "*", "2", "3", "2x*", "3x2", "8*", "0", "1", "1000000"])
_XTYPES = st.sampled_from(["", "", "", "timestamp", "point", "circle", "polygon", "interval", "adql:POINT"])
_NAMES = st.sampled_from(["id", "ra", "dec", "v", "name", "select", "a b", "RA", "x" * 70, "é", "a.b", "1"])


@st.composite
def votables(draw: st.DrawFn) -> bytes:
    """Return a VOTable of any columns in any serialisation, which need not fit each other."""
    kinds = draw(st.lists(st.sampled_from(sorted(_TYPES)), min_size=1, max_size=4))
    is_plain = draw(st.booleans())  # scalars with values that fit
    fields, cells = "", []
    for number, kind in enumerate(kinds):
        size = ("*" if "har" in kind else "") if is_plain else draw(_SIZES)
        words = f' arraysize="{size}"' if size else ""
        xtype = "" if is_plain else draw(_XTYPES)
        words += f' xtype="{xtype}"' if xtype else ""
        null = draw(st.sampled_from(["", "", "-1", "0", "x", ""]))
        inner = f'<VALUES null="{null}"/>' if null and not is_plain else ""
        name = f"c{number}" if is_plain else draw(_NAMES)
        fields += f'<FIELD name="{name}" datatype="{kind}" unit="deg" ucd="pos.eq.ra"{words}>{inner}</FIELD>'
        cells.append(st.sampled_from(_TYPES[kind][:2]) if is_plain else st.lists(st.sampled_from(_TYPES[kind]), max_size=4).map(" ".join))  # fmt: skip
    rows = draw(st.integers(0, 5))
    form = draw(st.sampled_from(["TABLEDATA", "TABLEDATA", "BINARY", "BINARY2", "BINARY2", "FITS"]))
    if form == "TABLEDATA":
        data = "".join("<TR>" + "".join(f"<TD>{draw(cell)}</TD>" for cell in cells) + "</TR>" for _ in range(rows))
    else:
        width = sum(_WIDTHS[kind] for kind in kinds) + (form == "BINARY2") * -(-len(kinds) // 8)
        raw = draw(st.binary(min_size=rows * width, max_size=rows * width) | st.binary(max_size=80))
        if not is_plain or any("har" in kind for kind in kinds):
            raw = b"".join(struct.pack(">i", draw(st.sampled_from([0, 1, 2, -1, 2**31 - 1]))) + raw[: 3 * n] for n in range(rows))
        data = f'<STREAM encoding="{draw(st.sampled_from(["base64", "base64", "gzip", "none"]))}">{base64.b64encode(raw).decode()}</STREAM>'
    version = draw(st.sampled_from(["1.1", "1.3", "1.4", "9"]))
    text = (
        f'<?xml version="1.0"?><VOTABLE version="{version}" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE>'
        f"<TABLE>{fields}<DATA><{form}>{data}</{form}></DATA></TABLE></RESOURCE></VOTABLE>"
    )
    return text.encode()


_ARROW = [
    pa.int8(), pa.uint64(), pa.int32(), pa.float16(), pa.float32(), pa.float64(), pa.bool_(), pa.string(), pa.large_string(), pa.binary(), pa.date32(), pa.time64("us"), pa.timestamp("ns"),
    pa.timestamp("us", "UTC"), pa.duration("s"), pa.decimal128(20, 3), pa.decimal256(50, 2), pa.list_(pa.float64()), pa.list_(pa.int32(), 2), pa.struct([("a", pa.int32())]), pa.map_(pa.string(), pa.int32()), pa.dictionary(pa.int32(), pa.string()), pa.null(),
]  # fmt: skip


@st.composite
def arrow_tables(draw: st.DrawFn) -> pa.Table:
    """Return a table of any types, some of which no query can use."""
    rows = draw(st.integers(0, 4))
    columns = {}
    for number, kind in enumerate(draw(st.lists(st.sampled_from(_ARROW), min_size=1, max_size=3))):
        columns[f"c{number}"] = pa.nulls(rows, kind)
    for name, kind in (("id", pa.int64()), ("ra", pa.float64()), ("dec", pa.float64())):
        values = st.sampled_from([0, 1, -90, 359, None]) if kind == pa.int64() else st.sampled_from([0.0, 359.9, -90.0, 95.0, float("nan"), float("inf"), None])  # fmt: skip
        columns[name] = pa.array([draw(values) for _ in range(rows)], kind)
    return pa.table(columns)


@st.composite
def other_files(draw: st.DrawFn) -> bytes:
    """Return a Parquet, Arrow, CSV or FITS file."""
    table, sink = draw(arrow_tables()), io.BytesIO()
    kind = draw(st.sampled_from(["parquet", "parquet", "arrow", "csv", "fits"]))
    plain = table.select(["id", "ra", "dec"])
    if kind == "parquet":
        try:
            pq.write_table(table, sink)
        except pa.ArrowException:
            pq.write_table(plain, sink)
    elif kind == "arrow":
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    elif kind == "csv":
        pc.write_csv(plain, sink)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Table({"ra": np.array(table["ra"].to_pylist(), float), "dec": np.array(table["dec"].to_pylist(), float), "id": np.arange(len(table))}).write(sink, format="fits")  # fmt: skip
    return sink.getvalue()


UPLOADED = st.sampled_from([
    "SELECT * FROM TAP_UPLOAD.t", "SELECT COUNT(*) AS n FROM TAP_UPLOAD.t", "SELECT TOP 2 * FROM TAP_UPLOAD.t", "SELECT c0 FROM TAP_UPLOAD.t ORDER BY 1", "SELECT DISTINCT * FROM TAP_UPLOAD.t",
    "SELECT t.ra, o.ra AS r FROM TAP_UPLOAD.t AS t JOIN SKY.Object AS o ON DISTANCE(t.ra, t.dec, o.ra, o.dec) < 0.5", "SELECT t.id FROM TAP_UPLOAD.t AS t JOIN SKY.Object AS o ON o.objectId = t.id",
    "SELECT a.* FROM TAP_UPLOAD.t AS a, TAP_UPLOAD.t AS b", "SELECT MAX(c0) AS m FROM TAP_UPLOAD.t",
])  # fmt: skip
