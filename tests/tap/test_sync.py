"""The /sync protocol: parameters, formats, errors, overflow, failures on the way, clients that leave."""

from __future__ import annotations

import csv
import io
import json
import socket
import time
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from qengine.catalog.output import STATUS_KEY
from tests.support.fake_service import FakeService

VOT = "{http://www.ivoa.net/xml/VOTable/v1.3}"
COUNT = "SELECT COUNT(*) AS n FROM demo.stars"


def post(http: httpx.Client, url: str, text: str, **parameters: str) -> httpx.Response:
    return http.post(f"{url}/sync", data={"LANG": "ADQL", "QUERY": text, **parameters})


def status_of(response: httpx.Response) -> list[tuple[str, str]]:
    root = ElementTree.fromstring(response.content)
    return [(e.get("value", ""), e.text or "") for e in root.iter(f"{VOT}INFO") if e.get("name") == "QUERY_STATUS"]


def error_of(response: httpx.Response) -> dict[str, Any]:
    """Return the error as the answer describes it for programs."""
    infos = {e.get("name"): e.get("value", "") for e in ElementTree.fromstring(response.content).iter(f"{VOT}INFO")}
    found: dict[str, Any] = json.loads(infos["QENGINE_ERROR"])
    return found


def csv_rows(response: httpx.Response) -> list[list[str]]:
    assert response.status_code == 200, response.text
    return list(csv.reader(io.StringIO(response.text, newline="")))


@pytest.mark.parametrize("method", ["get", "post", "multipart"])
def test_methods(http: httpx.Client, url: str, method: str) -> None:
    parameters = {"request": "doQuery", "Lang": "ADQL", "query": COUNT, "format": "csv", "tapclient": "x", "PHASE": "RUN"}
    if method == "get":
        response = http.get(f"{url}/sync", params=parameters)
    elif method == "post":
        response = http.post(f"{url}/sync", data=parameters)
    else:
        response = http.post(f"{url}/sync", files={name: (None, value) for name, value in parameters.items()})
    assert csv_rows(response) == [["n"], ["1000"]]


def test_chunked_multipart_with_an_odd_boundary(http: httpx.Client, url: str) -> None:
    # STILTS sends this.
    boundary = "<<--stilts-->>"
    fields = {"REQUEST": "doQuery", "LANG": "ADQL", "QUERY": COUNT, "RESPONSEFORMAT": "csv"}
    body = "".join(f'--{boundary}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items())
    chunks = [piece.encode() for piece in (body[:40], body[40:], f"--{boundary}--\r\n")]
    response = http.post(
        f"{url}/sync", content=iter(chunks), headers={"Content-Type": f'multipart/form-data; boundary="{boundary}"'}
    )
    assert csv_rows(response) == [["n"], ["1000"]]


@pytest.mark.parametrize(
    ("lang", "language"),
    [("ADQL", "adql"), ("adql-2.0", "adql"), ("ADQL-2.1", "adql"), ("ADQL-2.1-strict", "adql-strict"), ("SQL", "sql")],
)
def test_languages(http: httpx.Client, url: str, service: FakeService, lang: str, language: str) -> None:
    assert post(http, url, COUNT, LANG=lang).status_code == 200
    assert service.asked[-1][1] == language


@pytest.mark.parametrize(
    ("asked", "content_type"),
    [
        ("", "application/x-votable+xml"),
        ("votable", "application/x-votable+xml"),
        ("votable/td", "application/x-votable+xml;serialization=tabledata"),
        ("text/xml", "text/xml"),
        ("application/x-votable+xml;serialization=binary2", "application/x-votable+xml;serialization=binary2"),
        ("csv", "text/csv;header=present"),
        ("text/csv", "text/csv;header=present"),
        ("tsv", "text/tab-separated-values"),
        ("text/tab-separated-values", "text/tab-separated-values"),
        ("parquet", "application/vnd.apache.parquet"),
        ("application/vnd.apache.parquet", "application/vnd.apache.parquet"),
        ("arrow", "application/vnd.apache.arrow.stream"),
    ],
)
def test_format_and_content_type(http: httpx.Client, url: str, asked: str, content_type: str) -> None:
    response = post(http, url, COUNT, RESPONSEFORMAT=asked)
    assert (response.status_code, response.headers["content-type"]) == (200, content_type)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"LANG": ""}, "LANG is missing"),
        ({"LANG": "PQL"}, "LANG=PQL"),
        ({"QUERY": " "}, "QUERY is missing"),
        ({"MAXREC": "ten"}, "MAXREC=ten"),
        ({"MAXREC": "-1"}, "MAXREC=-1"),
        ({"RESPONSEFORMAT": "xlsx"}, "'xlsx' is not offered"),
        ({"REQUEST": "getCapabilities"}, "REQUEST=getCapabilities"),
        ({"SNAPSHOT": "demo"}, "SNAPSHOT=demo"),
        ({"UPLOAD": "t,param:t"}, "UPLOAD"),
    ],
)
def test_wrong_parameters(http: httpx.Client, url: str, parameters: dict[str, str], message: str) -> None:
    response = post(http, url, COUNT, **parameters)
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/x-votable+xml"
    [(status, text)] = status_of(response)
    assert status == "ERROR"
    assert message in text


def test_two_different_values(http: httpx.Client, url: str) -> None:
    response = http.get(f"{url}/sync", params=[("LANG", "ADQL"), ("lang", "SQL"), ("QUERY", COUNT)])
    assert "LANG is given 2 different values" in status_of(response)[0][1]


def test_error_in_the_statement_has_a_place(http: httpx.Client, url: str) -> None:
    response = post(http, url, "SELECT source_id,\n  brightness FROM demo.stars")
    assert response.status_code == 400
    [(status, text)] = status_of(response)
    assert status == "ERROR"
    assert "line 2, column 3" in text
    assert error_of(response)["span"]["line"] == 2


def test_unforeseen_error_gives_nothing_away(http: httpx.Client, url: str) -> None:
    response = post(http, url, "SELECT /* crash */ 1")
    assert response.status_code == 500
    assert status_of(response)[0][0] == "ERROR"
    assert "secret" not in response.text


@pytest.mark.parametrize(
    ("maxrec", "top", "rows", "overflow"),
    [
        ("", "", 500, True),
        ("10", "", 10, True),
        ("0", "", 0, True),
        ("1000", "", 1000, False),
        ("5001", "", 1000, False),
        ("10", "TOP 10", 10, False),
        ("10", "TOP 5", 5, False),
    ],
)
def test_maxrec(http: httpx.Client, url: str, maxrec: str, top: str, rows: int, overflow: bool) -> None:
    response = post(http, url, f"SELECT {top} source_id FROM demo.stars", MAXREC=maxrec, RESPONSEFORMAT="votable/td")
    root = ElementTree.fromstring(response.content)
    assert len(list(root.iter(f"{VOT}TR"))) == rows
    assert status_of(response) == [("OK", ""), ("OVERFLOW", "")][: 2 if overflow else 1]


def test_snapshot_parameter(http: httpx.Client, url: str, service: FakeService) -> None:
    response = post(http, url, COUNT, SNAPSHOT="demo:3")
    assert response.status_code == 200
    assert service.asked[-1][3] == {"demo": 3}


def test_failure_on_the_way_ends_a_votable_with_an_error(http: httpx.Client, url: str) -> None:
    response = post(http, url, "SELECT source_id FROM demo.stars /* fail after 200 rows */", RESPONSEFORMAT="votable/td")
    assert response.status_code == 200
    assert len(list(ElementTree.fromstring(response.content).iter(f"{VOT}TR"))) == 200
    assert status_of(response) == [("OK", ""), ("ERROR", "the query passed its deadline (narrow it)")]


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_failure_on_the_way_breaks_other_streams(http: httpx.Client, url: str, kind: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        post(http, url, "SELECT source_id FROM demo.stars /* fail after 200 rows */", RESPONSEFORMAT=kind)


def test_failure_before_the_first_row_is_an_http_error(http: httpx.Client, url: str) -> None:
    response = post(http, url, "SELECT source_id FROM demo.stars /* fail after 0 rows */", RESPONSEFORMAT="csv")
    assert response.status_code == 408
    assert "deadline" in response.text


def test_a_format_that_holds_rows_back_sends_them_all(http: httpx.Client, url: str) -> None:
    table = Table.read(
        io.BytesIO(post(http, url, "SELECT source_id FROM demo.stars", RESPONSEFORMAT="fits").content), format="fits"
    )
    assert len(table) == 500


def test_arrow_and_parquet(http: httpx.Client, url: str) -> None:
    text = "SELECT source_id, name, mag FROM demo.stars ORDER BY source_id"
    table = pq.read_table(io.BytesIO(post(http, url, text, RESPONSEFORMAT="parquet").content))
    reader = pa.ipc.open_stream(post(http, url, text, RESPONSEFORMAT="arrow").content)
    batches = []
    while True:
        try:
            batch = reader.read_next_batch_with_custom_metadata()
        except StopIteration:
            break
        batches.append(batch)
    assert pa.Table.from_batches([b.batch for b in batches]).equals(table)
    assert json.loads(batches[-1].custom_metadata[STATUS_KEY])["is_overflow"] is True
    assert table.schema.field("mag").metadata[b"unit"] == b"mag"


def test_answers_are_closed(http: httpx.Client, url: str, service: FakeService) -> None:
    post(http, url, COUNT)
    assert service.answers[-1].is_closed


@pytest.mark.parametrize("stage", ["before", "during"])
def test_a_client_that_leaves_ends_the_query(http: httpx.Client, url: str, service: FakeService, stage: str) -> None:
    if stage == "before":
        with pytest.raises(httpx.ReadTimeout):
            http.post(f"{url}/sync", data={"LANG": "ADQL", "QUERY": "SELECT /* hang after 0 rows */ 1"}, timeout=0.3)
    else:
        text = "SELECT source_id FROM demo.stars /* hang after 200 rows */"
        request = {"LANG": "ADQL", "QUERY": text, "RESPONSEFORMAT": "csv"}
        with http.stream("POST", f"{url}/sync", data=request) as response:
            next(response.iter_bytes(100))
    deadline = time.monotonic() + 5
    while not service.answers[-1].is_closed and time.monotonic() < deadline:
        time.sleep(0.02)
    assert service.answers[-1].is_closed


def test_a_slow_query_does_not_block_others(http: httpx.Client, url: str) -> None:
    with httpx.Client(trust_env=False) as other, pytest.raises(httpx.ReadTimeout):
        other.post(f"{url}/sync", data={"LANG": "ADQL", "QUERY": "SELECT /* hang after 0 rows */ 1"}, timeout=0.2)
    assert post(http, url, COUNT).status_code == 200


def test_query_plan(http: httpx.Client, url: str) -> None:
    parameters = {"LANG": "ADQL", "QUERY": COUNT}
    assert http.get(f"{url}/query-plan", params=parameters).text == f"plan of {COUNT}"
    response = http.post(f"{url}/query-plan", data={**parameters, "RESPONSEFORMAT": "json", "ANALYZE": "1"})
    plan = f"plan of {COUNT}, measured"
    assert response.json() == {"plan": plan, "text": plan}
    wrong = http.get(f"{url}/query-plan", params={"LANG": "ADQL", "QUERY": "SELECT nothing FROM demo.stars"})
    assert (wrong.status_code, status_of(wrong)[0][0]) == (400, "ERROR")


def test_oversize_request(http: httpx.Client, url: str) -> None:
    big = http.post(f"{url}/sync", data={"LANG": "ADQL", "QUERY": "x" * (17 << 20)})
    assert (big.status_code, status_of(big)[0][0]) == (413, "ERROR")


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "votable"])
def test_small_answers_say_in_their_head_whether_they_are_cut(http: httpx.Client, url: str, kind: str) -> None:
    whole = post(http, url, "SELECT TOP 3 source_id FROM demo.stars", RESPONSEFORMAT=kind)
    assert (whole.headers["x-query-status"], whole.headers["x-query-maxrec"]) == ("OK", "500")
    assert int(whole.headers["content-length"]) == len(whole.content)
    cut = post(http, url, "SELECT source_id FROM demo.stars", RESPONSEFORMAT=kind, MAXREC="7")
    assert (cut.headers["x-query-status"], cut.headers["x-query-maxrec"]) == ("OVERFLOW", "7")


def raw(url: str, text: str, *headers: str, **parameters: str) -> tuple[str, bytes]:
    """Send a request by hand, and return head and all that follows it."""
    place = httpx.URL(url)
    body = urlencode({"LANG": "ADQL", "QUERY": text, **parameters})
    head = [f"POST {place.path}/sync HTTP/1.1", f"Host: {place.host}", "Content-Type: application/x-www-form-urlencoded"]
    head += [f"Content-Length: {len(body)}", "Connection: close", *headers]
    with socket.create_connection((place.host, place.port or 80), timeout=20) as connection:
        connection.sendall("\r\n".join([*head, "", body]).encode())
        found = b"".join(iter(lambda: connection.recv(65536), b""))
    top, _, rest = found.partition(b"\r\n\r\n")
    return top.decode().lower(), rest


LARGE = "SELECT a.source_id, a.name, b.alias AS other, a.ra, a.dec FROM demo.stars AS a CROSS JOIN demo.names AS b"


@pytest.mark.parametrize(("maxrec", "status"), [("4000", b"OVERFLOW"), ("5000", b"OVERFLOW")])
def test_large_answers_say_it_in_their_trailer(url: str, maxrec: str, status: bytes) -> None:
    head, rest = raw(url, LARGE, "TE: trailers", RESPONSEFORMAT="csv", MAXREC=maxrec)
    assert "trailer: x-query-status" in head
    assert "\nx-query-status" not in head
    assert rest.endswith(b"\r\n0\r\nx-query-status: " + status + b"\r\n\r\n")
    head, rest = raw(url, LARGE, RESPONSEFORMAT="csv", MAXREC=maxrec)  # not to those who have not asked for it
    assert "trailer" not in head
    assert "x-query-maxrec: " + maxrec in head
    assert rest.endswith(b"\r\n0\r\n\r\n")


def test_an_error_on_the_way_is_in_the_trailer(url: str) -> None:
    text = "SELECT source_id FROM demo.stars /* fail after 200 rows */"
    _, rest = raw(url, text, "TE: gzip, trailers;q=0.5", RESPONSEFORMAT="votable/td")
    assert rest.endswith(b"\r\n0\r\nx-query-status: ERROR\r\n\r\n")


def test_trailers_and_connections_that_stay(http: httpx.Client, url: str) -> None:
    for _ in range(3):
        found = http.post(
            f"{url}/sync", data={"LANG": "ADQL", "QUERY": LARGE, "FORMAT": "csv", "MAXREC": "5000"}, headers={"TE": "trailers"}
        )
        assert len(csv_rows(found)) == 5001


def test_the_accept_header_chooses_where_no_parameter_does(http: httpx.Client, url: str) -> None:
    words = {"LANG": "ADQL", "QUERY": "SELECT TOP 1 ra FROM demo.stars"}
    found = http.post(f"{url}/sync", data=words, headers={"Accept": "text/csv, */*;q=0.1"})
    assert (found.headers["content-type"], found.text.split()) == ("text/csv;header=present", ["ra", "0"])
    assert "Accept" in found.headers["vary"]
    found = http.post(f"{url}/sync", data={**words, "RESPONSEFORMAT": "json"}, headers={"Accept": "text/csv"})
    assert found.headers["content-type"] == "application/json"
    found = http.post(f"{url}/sync", data=words, headers={"Accept": "image/png"})
    assert found.headers["content-type"] == "application/x-votable+xml"


def test_every_declared_language_is_taken(http: httpx.Client, url: str, service: FakeService) -> None:
    declared = ElementTree.fromstring(http.get(f"{url}/capabilities").text).iter("language")
    taken = {}
    for language in declared:
        name = language.findtext("name") or ""
        for lang in (name, *(f"{name}-{version.text}" for version in language.iter("version"))):
            assert post(http, url, COUNT, LANG=lang).status_code == 200
            taken[lang] = service.asked[-1][1]
    assert taken == {
        "ADQL": "adql", "ADQL-2.0": "adql", "ADQL-2.1": "adql", "ADQL-2.1-strict": "adql-strict", "SQL": "sql", "SQL-DuckDB": "sql",
    }  # fmt: skip
