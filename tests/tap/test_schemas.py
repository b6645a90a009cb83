"""Every XML document of the service against the official schemas, and every VOTable by the eyes of votlint and astropy."""

from __future__ import annotations

import io
import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from astropy.io.votable import parse
from lxml import etree

from qengine.tap.formats.votable import Binary2Writer, BinaryWriter, TableDataWriter
from qengine.tap.formats.writer import ResultHeader, ResultWriter
from tests.support.result_samples import HEADER, sample_table
from tests.support.vo_schemas import faults, vo_schemas

needs_schemas = pytest.mark.skipif(not vo_schemas(), reason="neither python3-gavo nor stilts is installed")
needs_stilts = pytest.mark.skipif(shutil.which("stilts") is None, reason="stilts is not installed")

STARS = "SELECT * FROM demo.stars ORDER BY source_id"
SERIALISATIONS = ("votable", "votable/b", "votable/td")
STATEMENTS = {
    "rows": STARS,
    "one": "SELECT TOP 1 ra FROM demo.stars",
    "none": "SELECT * FROM demo.stars WHERE source_id < 0",
    "kinds": (
        "SELECT source_id, mag > 5 AS bright, TIMESTAMP '2026-01-02 03:04:05.678' + to_days(source_id::INTEGER) AS seen, "
        "'a & <b> \"c\" ]]>' AS odd, [ra, dec] AS place, NULL AS nothing FROM demo.stars"
    ),
}
GETS = ("/capabilities", "/availability", "/tables", "/tables?detail=min", "/tables/demo.stars", "/tables/TAP_SCHEMA.columns")


@needs_schemas
@pytest.mark.parametrize("path", GETS)
def test_documents_of_vosi(http: httpx.Client, url: str, path: str) -> None:
    answer = http.get(url + path)
    assert answer.status_code == 200
    assert faults(answer.content) == []


@needs_schemas
@pytest.mark.parametrize("kind", SERIALISATIONS)
@pytest.mark.parametrize("statement", STATEMENTS)
def test_results(http: httpx.Client, url: str, statement: str, kind: str) -> None:
    answer = ask(http, url, STATEMENTS[statement], RESPONSEFORMAT=kind)
    assert answer.status_code == 200
    assert faults(answer.content) == []


@needs_schemas
@pytest.mark.parametrize("writer", [Binary2Writer, BinaryWriter, TableDataWriter])
def test_all_types(writer: Callable[[ResultHeader], ResultWriter]) -> None:
    table = sample_table().slice(1)  # the first row has the values that mean NULL in BINARY
    made = writer(HEADER)
    rows = b"".join(made.write(batch) for batch in table.to_batches())
    assert faults(made.begin() + rows + made.finish(is_overflow=True)) == []


@needs_schemas
@pytest.mark.parametrize("maxrec", ["0", "10"])
def test_cut_results(http: httpx.Client, url: str, maxrec: str) -> None:
    assert faults(ask(http, url, STARS, MAXREC=maxrec).content) == []


@needs_schemas
def test_errors(http: httpx.Client, url: str) -> None:
    answers = [
        ask(http, url, "SELECT brightness FROM demo.stars"),
        ask(http, url, "SELECT <&>\x00 FROM ]]>"),
        ask(http, url, f"{STARS} /* fail after 200 rows */"),
        ask(http, url, STARS, LANG="PQL"),
        http.get(f"{url}/sync"),
        http.get(f"{url}/tables/demo.nothing"),
        http.get(f"{url}/async/nothing"),
    ]
    for answer in answers:
        assert b'name="QUERY_STATUS" value="ERROR"' in answer.content
        assert faults(answer.content) == []


@needs_schemas
def test_jobs(http: httpx.Client, url: str) -> None:
    made = http.post(f"{url}/async", data={"LANG": "ADQL", "QUERY": STARS, "PHASE": "RUN", "RUNID": "<a> & b"})
    job = made.headers["location"]
    assert faults(http.get(f"{job}?WAIT=5").content) == []
    failed = http.post(f"{url}/async", data={"LANG": "ADQL", "QUERY": "SELECT <nothing> FROM &", "PHASE": "RUN"}).headers[
        "location"
    ]
    assert faults(http.get(f"{failed}?WAIT=5").content) == []
    for path in ("", "/parameters", "/results", "/results/result"):
        assert faults(http.get(job + path).content) == [], path
    assert faults(http.get(f"{failed}/error").content) == []
    assert faults(http.get(f"{url}/async").content) == []
    for one in (job, failed):
        http.delete(one)


def test_a_wrong_document_is_found() -> None:
    if not vo_schemas():
        pytest.skip("no schemas")
    wrong = b'<v:availability xmlns:v="http://www.ivoa.net/xml/VOSIAvailability/v1.0"><v:available>perhaps</v:available></v:availability>'
    assert len(faults(wrong)) >= len(vo_schemas())


@pytest.mark.parametrize("kind", SERIALISATIONS)
@pytest.mark.parametrize("statement", STATEMENTS)
def test_astropy_has_nothing_to_say(http: httpx.Client, url: str, statement: str, kind: str) -> None:
    document = ask(http, url, STATEMENTS[statement], RESPONSEFORMAT=kind).content
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parse(io.BytesIO(document), verify="exception")


@needs_stilts
def test_votlint_has_nothing_to_say(http: httpx.Client, url: str, tmp_path: Path) -> None:
    documents = {
        f"{name}-{kind.replace('/', '-')}": ask(http, url, text, RESPONSEFORMAT=kind)
        for name, text in STATEMENTS.items()
        for kind in SERIALISATIONS
    }
    documents["error"] = ask(http, url, "SELECT brightness FROM demo.stars")
    documents["cut"] = ask(http, url, STARS, MAXREC="7")
    for name, answer in documents.items():
        (tmp_path / f"{name}.xml").write_bytes(answer.content)
        done = subprocess.run(
            ["stilts", "votlint", f"votable={tmp_path / name}.xml"], check=False, capture_output=True, text=True, timeout=60
        )
        assert (done.stdout + done.stderr).split() == [], name


def test_documents_have_no_document_types(http: httpx.Client, url: str) -> None:
    for path in GETS:
        assert etree.fromstring(http.get(url + path).content).getroottree().docinfo.internalDTD is None


def ask(http: httpx.Client, url: str, text: str, **parameters: str) -> httpx.Response:
    return http.post(f"{url}/sync", data={"LANG": "ADQL", "QUERY": text, **parameters})
