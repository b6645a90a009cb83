"""Answers as gzip: who takes it gets it where it is worth it, and reads the same."""

from __future__ import annotations

import gzip
import io
import time

import httpx
import pyarrow.parquet as pq
import pytest

from qengine.tap.app import create_app
from qengine.tap.service import TapSettings
from tests.support.fake_service import FakeService
from tests.support.http_server import serving

STARS = "SELECT source_id, ra, dec FROM demo.stars"
PLAIN = {"Accept-Encoding": "identity"}
ZIPPED = {"Accept-Encoding": "gzip"}


def _raw(http: httpx.Client, method: str, url: str, headers: dict[str, str], **data: str) -> tuple[httpx.Response, bytes]:
    """Return a response with its bytes as they came over the wire."""
    with http.stream(method, url, headers=headers, data=data or None) as response:
        return response, b"".join(response.iter_raw())


@pytest.mark.parametrize("kind", ["votable", "votable/td", "csv", "json", "fits"])
def test_results_are_the_same(http: httpx.Client, url: str, kind: str) -> None:
    words = {"LANG": "ADQL", "QUERY": STARS, "RESPONSEFORMAT": kind}
    plain, content = _raw(http, "POST", f"{url}/sync", PLAIN, **words)
    zipped, packed = _raw(http, "POST", f"{url}/sync", ZIPPED, **words)
    assert "content-encoding" not in plain.headers
    assert zipped.headers["content-encoding"] == "gzip"
    assert "Accept-Encoding" in zipped.headers["vary"]
    assert len(packed) < len(content)
    assert zipped.headers.get("x-query-status") == plain.headers.get("x-query-status")
    stamp = b"request_date"
    unpacked = gzip.decompress(packed)
    assert [line for line in unpacked.split(b"\n") if stamp not in line] == [
        line for line in content.split(b"\n") if stamp not in line
    ]


def test_documents_are_compressed_and_little_ones_are_not(http: httpx.Client, url: str) -> None:
    response, packed = _raw(http, "GET", f"{url}/capabilities", ZIPPED)
    assert response.headers["content-encoding"] == "gzip"
    assert b"TableAccess" in gzip.decompress(packed)
    for path in ("availability", "sync?LANG=ADQL&RESPONSEFORMAT=csv&QUERY=SELECT+TOP+1+ra+FROM+demo.stars"):
        response, content = _raw(http, "GET", f"{url}/{path}", ZIPPED)
        assert "content-encoding" not in response.headers
        assert response.headers["content-length"] == str(len(content))


def test_what_is_compressed_already_is_left_alone(http: httpx.Client, url: str) -> None:
    response, content = _raw(http, "POST", f"{url}/sync", ZIPPED, LANG="ADQL", QUERY=STARS, RESPONSEFORMAT="parquet")
    assert "content-encoding" not in response.headers
    assert pq.read_table(io.BytesIO(content)).num_rows == 500


def test_parts_of_a_compressed_result_cannot_be_mixed_with_plain_ones(http: httpx.Client, url: str) -> None:
    words = {"LANG": "ADQL", "QUERY": STARS, "RESPONSEFORMAT": "csv", "PHASE": "RUN"}
    job = http.post(f"{url}/async", data=words).headers["location"]
    until = time.monotonic() + 30
    while http.get(f"{job}/phase").text != "COMPLETED" and time.monotonic() < until:
        time.sleep(0.05)
    result = f"{job}/results/result"
    plain, content = _raw(http, "GET", result, PLAIN)
    zipped, packed = _raw(http, "GET", result, ZIPPED)
    assert gzip.decompress(packed) == content
    assert "accept-ranges" not in zipped.headers
    assert (plain.headers["accept-ranges"], zipped.headers["etag"]) == ("bytes", f"W/{plain.headers['etag']}")
    again, rest = _raw(http, "GET", result, {**ZIPPED, "Range": "bytes=100-", "If-Range": zipped.headers["etag"]})
    assert (again.status_code, gzip.decompress(rest)) == (200, content)
    part, rest = _raw(http, "GET", result, {**ZIPPED, "Range": "bytes=100-", "If-Range": plain.headers["etag"]})
    assert (part.status_code, rest) == (206, content[100:])


def test_operators_can_leave_it_to_a_proxy(http: httpx.Client) -> None:
    with serving(create_app(FakeService(), TapSettings(is_gzip=False))) as address:
        assert "content-encoding" not in _raw(http, "GET", f"{address}/tap/capabilities", ZIPPED)[0].headers
