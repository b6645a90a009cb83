"""Whatever is sent, the answer is one that its sender can act on: no fault of ours, no hang, nothing of the inside, no row of others.

The service is a real one: a coordinator and a worker in this process over a small sky, so that statements go all the way. The default
suite sends some hundred requests, the slow one twenty thousand in twenty slices, each of which can be run alone:

    pytest -m slow tests/tap/test_fuzz.py -k slice03              one of them
    QENGINE_FUZZ=7 pytest -m slow tests/tap/test_fuzz.py           other twenty thousand
"""

from __future__ import annotations

import gzip
import io
import os
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from astropy.io import votable
from astropy.table import MaskedColumn, Table
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.support import deep_inputs
from tests.support.tap_fuzz import PRIVATE, FuzzedService, fuzzed_service

QUICK, SLICES, SLICE = 40, 20, 1000
KINDS_OF_REQUESTS = 10

WORDS = (
    "SELECT", "TOP 5", "TOP -1", "*", "FROM", "WHERE", "AND", "OR", "NOT", "GROUP BY", "ORDER BY", "HAVING", "JOIN", "LEFT JOIN", "ON", "USING (id)", "UNION", "WITH q AS (",
    "CASE WHEN", "THEN", "END", "COUNT(*)", "SUM(", "MAX(", "ABS(", "LOG(", "SQRT(", "MOD(", "POWER(", "CAST(", "AS INTEGER)", "AS TIMESTAMP)", "POINT(", "CIRCLE(", "POLYGON(",
    "CONTAINS(", "DISTANCE(", "AREA(", "IN_UNIT(", "COALESCE(", ")", ",", "= 1", "< 2", "0", "1e308", "-9223372036854775808", "99999999999999999999", "'", "'a'", "NULL", "IS NULL",
    "BETWEEN 1 AND 2", "LIKE '%'", "/ 0", "% 0", "||", ";", "--", "/*", '"', "\x00", "\ud7ff", "é", "TAP_SCHEMA.tables", "TAP_SCHEMA.columns", "qengine_meta.parts",
    "read_parquet('/etc/passwd')", "'/etc/passwd'", '"/etc/passwd"', "PRAGMA", "ATTACH", "COPY", "INSTALL httpfs", "OFFSET 3", "id", "ra", "dec", "a.id", "SKY.Object AS a",
    "SKY.Object", f"{PRIVATE}.Object", f"{PRIVATE}.Source AS p", "qengine_meta.queries", "SKY.Star AS b", "SKY.Source", "DISTANCE(a.ra, a.dec, b.ra, b.dec) < 0.01", "CIRCLE(0, 90, 1)",
)  # fmt: skip


STATEMENTS = st.one_of(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=25).map(" ".join),
    st.lists(st.sampled_from(WORDS), max_size=12).map(lambda words: "SELECT " + " ".join(words)),
    st.builds(
        lambda columns, table, rest: f"SELECT TOP 5 {', '.join(columns)} FROM {table} {' '.join(rest)}",
        st.lists(st.sampled_from(["id", "ra", "dec", "*", "COUNT(*)", "ra / 0", "SQRT(-1)", "LOG(0)", "ACOS(2)", "id * 9223372036854775807", "CAST('x' AS INTEGER)", "POINT(ra, dec)", "AREA(CIRCLE(1, 2, 3))", "1e308 * 1e308", "CAST(ra AS SMALLINT)"]), min_size=1, max_size=4),
        st.sampled_from(["SKY.Object", "SKY.Source", "SKY.Object AS a JOIN SKY.Star AS b ON DISTANCE(a.ra, a.dec, b.ra, b.dec) < 0.01", "TAP_SCHEMA.columns"]),
        st.lists(st.sampled_from(["WHERE ra > 0", "WHERE CONTAINS(POINT(ra, dec), CIRCLE(0, 90, 1)) = 1", "ORDER BY 1", "GROUP BY id", "OFFSET 2"]), max_size=2),
    ),
    st.text(max_size=200),
)  # fmt: skip
PAIRS = st.lists(
    st.tuples(
        st.sampled_from(["LANG", "QUERY", "MAXREC", "FORMAT", "RESPONSEFORMAT", "REQUEST", "SNAPSHOT", "MAXCOST", "UPLOAD", "RUNID", "lang", "PHASE", "VERSION"])
        | st.text(max_size=10),
        st.sampled_from(["ADQL", "SQL", "csv", "votable", "fits", "parquet", "0", "-1", "1e9", "99999999999999999999999", "doQuery", "SKY:1", "SKY:x", "t,param:t", "t,http://127.0.0.1/", "SELECT 1 FROM TAP_SCHEMA.tables"])
        | st.text(max_size=30),
    ),
    max_size=8,
)  # fmt: skip
BODIES = st.one_of(
    st.binary(max_size=400),
    st.builds(
        lambda name, value, kind, end: (
            b"--x\r\nContent-Disposition: form-data; " + name + b"\r\n" + kind + b"\r\n\r\n" + value + b"\r\n--x" + end
        ),
        st.sampled_from(
            [b'name="QUERY"', b'name="UPLOAD"', b'name="t"; filename="t.xml"', b"name=", b'name="LANG"; filename*=x', b""]
        ),
        st.sampled_from(
            [b"SELECT", b"t,param:t", b"<VOTABLE/>", b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>']
        )
        | st.binary(max_size=200),
        st.sampled_from([b"", b"Content-Type: text/xml", b"Content-Type: x; charset=utf-99", b"Content-Transfer-Encoding: base64"]),
        st.sampled_from([b"--\r\n", b"\r\n", b"", b"--"]),
    ),
)
KINDS = st.sampled_from(
    [
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/json",
        "text/xml",
        "",
    ]
)
PATHS = st.sampled_from(["", "/sync", "/tables", "/tables/x", "/capabilities", "/examples", "/query-plan", "/progress", "/progress/x", "/links/a/b", "/async", "/../x", "/%00", "/openapi.json"])  # fmt: skip


def _table() -> Table:
    found = Table({"id": np.arange(8), "ra": np.linspace(0, 359, 8), "dec": np.linspace(-80, 80, 8), "flag": [True, False] * 4})
    found["name"] = MaskedColumn(list("aébc") * 2, mask=[False, True] * 4)
    found["v"] = np.arange(24.0).reshape(8, 3)
    found["few"] = np.arange(8, dtype=np.uint8)
    found["ra"].unit = "deg"
    return found


def _documents() -> list[bytes]:
    """Return whole documents of every format that is read."""
    table, found = _table(), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for form in ("tabledata", "binary", "binary2"):
            stream = io.BytesIO()
            votable.from_table(table).to_xml(stream, tabledata_format=form)
            found.append(stream.getvalue())
        stream = io.BytesIO()
        table.write(stream, format="fits")
        found.append(stream.getvalue())
        text = io.StringIO()
        table.write(text, format="ascii.ecsv")
        found.append(text.getvalue().encode())
    plain = pa.table({"id": [1, 2, 3], "ra": [1.5, float("nan"), None], "w": ["a", None, "é"], "l": [[1], None, [2, 3]]})
    stream = io.BytesIO()
    pq.write_table(plain, stream)
    found.append(stream.getvalue())
    stream = io.BytesIO()
    pc.write_csv(plain.drop_columns(["l"]), stream)
    found += [stream.getvalue(), stream.getvalue().replace(b",", b"\t"), gzip.compress(found[0])]
    return found


DOCUMENTS = _documents()
PIECES = st.sampled_from(
    [
        b"", b"<", b">", b"&", b"&amp;", b"&x;", b"]]>", b"<TR>", b"</TR>", b"<TD>", b"</TD>", b"<FIELD/>", b"<TABLE>", b"</TABLE>", b"<BINARY/>", b"<DATA>", b"\x00", b"\xff\xfe",
        b'arraysize="99999999999*"', b'arraysize="-1"', b'arraysize="*x*"', b'datatype="double"', b'datatype="char"', b'datatype="bit"', b'datatype="floatComplex"', b'name="id"',
        b'encoding="UTF-16"', b'<!DOCTYPE a [<!ENTITY b "c">]>', b"<!--", b"-->", b"<![CDATA[", b"NaN", b"Inf", b"1e999", b"99999999999999999999", b'null="-"', b'"', b"'", b",", b"\n", b"\r",
        b"PAR1", b"SIMPLE  =                    T", b"NAXIS1  =          99999999999", b"NAXIS2  =                   -1", b"TFORM1  = 'PD(9)'", b"TFIELDS =                  999", b"BITPIX", b"END",
        b"\x1f\x8b", b"A" * 300, b"<a>" * 50,
    ]
) | st.binary(max_size=8)  # fmt: skip
CHANGES = st.lists(st.tuples(st.sampled_from(["put", "over", "cut", "drop", "twice"]), st.integers(0, 1 << 16), st.integers(0, 64), PIECES), max_size=6)  # fmt: skip
UPLOADED = st.sampled_from(["SELECT * FROM TAP_UPLOAD.t", "SELECT COUNT(*) FROM TAP_UPLOAD.t", "SELECT t.*, o.ra FROM TAP_UPLOAD.t AS t JOIN SKY.Object AS o ON DISTANCE(t.ra, t.dec, o.ra, o.dec) < 0.1", "SELECT t.id FROM TAP_UPLOAD.t AS t JOIN SKY.Object AS o ON o.id = t.id", 'SELECT "v", few FROM TAP_UPLOAD.t WHERE flag = 1 ORDER BY ra'])  # fmt: skip


def changed(document: bytes, changes: list[tuple[str, int, int, bytes]]) -> bytes:
    """Return a document that is no longer quite what it was."""
    for how, place, length, piece in changes:
        at = place % (len(document) + 1)
        rest = {"put": document[at:], "over": document[at + len(piece) :], "cut": b"", "drop": document[at + length :], "twice": document[max(at - length, 0) :]}  # fmt: skip
        document = document[:at] + piece + rest[how]
    return document


JOB_PATHS = st.sampled_from(["", "/JOB", "/JOB/phase", "/JOB/parameters", "/JOB/results", "/JOB/results/result", "/JOB/error", "/JOB/owner", "/JOB/quote", "/JOB/destruction", "/JOB/executionduration"])  # fmt: skip
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])


class Fuzz:
    """Requests of all kinds, `count` in all."""

    def __init__(self, service: FuzzedService, count: int, number: int | None) -> None:
        self.service = service
        self.number = number
        self.headers: tuple[dict[str, str], ...] = ({}, {"Authorization": f"Bearer {service.bob}"})
        self.settings = settings(
            max_examples=count // KINDS_OF_REQUESTS, deadline=None, database=None, derandomize=number is None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        )  # fmt: skip

    def each(self, test: Callable[..., None], *inputs: st.SearchStrategy[object]) -> None:
        given_test = self.settings(given(*inputs)(test))
        (given_test if self.number is None else seed(self.number)(given_test))()

    def run(self) -> None:
        check, sky, whom = self.service.check, self.service.sky, st.sampled_from(self.headers)
        formats = st.sampled_from(["votable", "votable/td", "csv", "json", "fits", "parquet", "arrow", "ecsv", "tsv"])
        languages = st.sampled_from(["ADQL", "ADQL-2.1-strict", "SQL"])

        def statements(text: str, lang: str, kind: str, headers: dict[str, str]) -> None:
            words = {"LANG": lang, "QUERY": text.replace("SKY", sky), "RESPONSEFORMAT": kind, "MAXREC": "10"}
            check("POST", "/sync", data=words, headers=headers)

        def parameters(pairs: list[tuple[str, str]], method: str) -> None:
            gathered: dict[str, list[str]] = {}
            for name, value in pairs:
                gathered.setdefault(name, []).append(value)
            check(method, "/sync", **{"params" if method == "GET" else "data": gathered})

        def bodies(content: bytes, kind: str, path: str) -> None:
            check("POST", path, content=content, headers={"Content-Type": kind} if kind else {})

        def paths(method: str, path: str, pairs: list[tuple[str, str]], headers: dict[str, str]) -> None:
            check(method, path, params=pairs, headers=headers)

        def of_jobs(method: str, path: str, pairs: list[tuple[str, str]], headers: dict[str, str]) -> None:
            found = check(method, "/async" + path.replace("JOB", self.service.job), params=pairs, headers=headers)
            assert found.status_code != 200 or not path or method == "OPTIONS", (method, path)

        def plans(text: str, kind: str, analyze: str) -> None:
            words = {"LANG": "ADQL", "QUERY": text.replace("SKY", sky), "RESPONSEFORMAT": kind, "ANALYZE": analyze}
            check("GET", "/query-plan", params=words)

        def uploads(document: bytes, changes: list[tuple[str, int, int, bytes]], text: str, kind: str) -> None:
            words = {
                "LANG": "ADQL",
                "QUERY": text.replace("SKY", sky),
                "RESPONSEFORMAT": kind,
                "UPLOAD": "t,param:p",
                "MAXREC": "10",
            }
            check("POST", "/sync", data=words, files={"p": ("x", changed(document, changes))})

        def deep_parameters(found: dict[str, list[str]], method: str) -> None:
            check(method, "/sync", **{"params" if method == "GET" else "data": found})

        def deep_uploads(document: bytes, changes: list[tuple[str, int, int, bytes]], text: str, kind: str) -> None:
            uploads(document, changes, text, kind)

        def deep_statements(text: str, kind: str, headers: dict[str, str]) -> None:
            statements(text, "ADQL", kind, headers)

        few = st.just([]) | CHANGES.map(lambda changes: changes[:1])
        self.each(deep_statements, deep_inputs.statements(sky), formats, whom)
        self.each(deep_parameters, deep_inputs.parameters(sky), st.sampled_from(["GET", "POST"]))
        self.each(deep_uploads, deep_inputs.votables() | deep_inputs.other_files(), few, deep_inputs.UPLOADED, formats)
        self.each(statements, STATEMENTS, languages, formats, whom)
        self.each(parameters, PAIRS, st.sampled_from(["GET", "POST"]))
        self.each(bodies, BODIES, KINDS, st.sampled_from(["/sync", "/async", "/query-plan"]))
        self.each(paths, METHODS, PATHS, PAIRS, whom)
        self.each(of_jobs, METHODS, JOB_PATHS, PAIRS, whom)
        self.each(plans, STATEMENTS, st.sampled_from(["", "json", "x"]), st.sampled_from(["0", "1"]))
        self.each(uploads, st.sampled_from(DOCUMENTS), CHANGES, UPLOADED, formats)
        assert check("GET", "/availability").status_code == 200


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FuzzedService]:
    with fuzzed_service(tmp_path_factory.mktemp("fuzz")) as one:
        yield one


def test_requests(service: FuzzedService) -> None:
    Fuzz(service, QUICK * KINDS_OF_REQUESTS, None).run()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", range(SLICES), ids=lambda number: f"slice{number:02}")
def test_many_requests(service: FuzzedService, number: int) -> None:
    Fuzz(service, SLICE, int(os.environ.get("QENGINE_FUZZ", "0")) * SLICES + number).run()
    print(f"{service.sent} requests, the longest took {service.longest_s:.2f} s")
