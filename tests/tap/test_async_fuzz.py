"""Whatever is sent to /async: no answer of 5xx, none that takes long, and no document that is not valid."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from qengine.tap.jobs import JobSettings
from tests.support.fake_service import FakeService
from tests.support.postgres import empty_database
from tests.support.tap_server import serving_tap
from tests.support.uws_schema import uws_schema

NAMES = (
    "QUERY", "LANG", "PHASE", "RUNID", "MAXREC", "FORMAT", "RESPONSEFORMAT", "WAIT", "LAST", "AFTER", "ACTION", "DESTRUCTION",
    "EXECUTIONDURATION", "UPLOAD", "SNAPSHOT", "MAXCOST", "REQUEST", "phase", "Query",
)  # fmt: skip
WORDS = (
    "RUN", "ABORT", "DELETE", "PENDING", "ERROR", "ADQL", "csv", "votable", "0", "-1", "1", "99999999999999999999", "1e9", "NaN",
    "2026-01-01", "2026-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "2020-02-30",
    "SELECT TOP 1 source_id FROM demo.stars", "SELECT", "a,param:b", "demo:1", "doQuery", "",
)  # fmt: skip
CHILDREN = (
    "", "/", "/phase", "/quote", "/executionduration", "/destruction", "/error", "/parameters", "/results", "/results/result", "/owner",
    "/results/", "/other", "//", "/phase/x", "/%00", "/..%2f..",
)  # fmt: skip

texts = st.sampled_from(WORDS) | st.text(max_size=20)
pairs = st.lists(st.tuples(st.sampled_from(NAMES) | st.text(max_size=6), texts), max_size=4)
requests = st.tuples(
    st.sampled_from(["GET", "GET", "POST", "POST", "DELETE", "PUT", "HEAD", "OPTIONS"]),
    st.sampled_from(["list", "job", "job", "job", "none"]),
    st.sampled_from(CHILDREN),
    pairs,
    pairs,
    st.sampled_from(["form", "multipart", "raw"]),
)


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    jobs = JobSettings(lists_anonymous=True, wait_s=0.1, active_limit=50)
    root = tmp_path_factory.mktemp("store")
    if request.param == "sqlite":
        with serving_tap(FakeService(), root, jobs=jobs) as address:
            yield address
        return
    with (
        empty_database(request.getfixturevalue("postgres_url")) as database,
        serving_tap(FakeService(), root, url=database, jobs=jobs) as address,
    ):
        yield address


def check(url: str, http: httpx.Client, count: int) -> None:
    job = ""

    @settings(max_examples=count, derandomize=True)
    @given(requests)
    def each(asked: tuple[str, str, str, list[tuple[str, str]], list[tuple[str, str]], str]) -> None:
        nonlocal job
        method, what, child, query, form, kind = asked
        if not job:
            response = http.post(f"{url}/async", data={"LANG": "ADQL", "QUERY": "SELECT 1 AS x"})
            assert response.status_code in (303, 429)
            job = response.headers.get("location", f"{url}/async/x").rpartition("/")[2]
        place = f"{url}/async" + {"list": "", "job": f"/{job}", "none": f"/{'0' * 32}"}[what] + child
        fields = {name: value for name, value in form if name}
        body = {}
        if method in ("POST", "PUT"):
            body = {
                "form": {"data": fields},
                "multipart": {"files": {name: (None, value) for name, value in fields.items()} or {"x": ("f", b"\xff\0")}},
                "raw": {"content": repr(form).encode(), "headers": {"content-type": "multipart/form-data; boundary=x"}},
            }[kind]
        began = time.monotonic()
        response = http.request(method, place, params=query, **body)  # type: ignore[arg-type]
        assert time.monotonic() - began < 10
        assert response.status_code < 500, (asked, response.text)
        for secret in ("Traceback", "/main/", "sqlalchemy", "psycopg"):
            assert secret not in response.text
        if response.status_code == 200 and response.headers.get("content-type") == "text/xml" and method == "GET":
            root = etree.fromstring(response.content)
            if (schema := uws_schema()) is not None:
                schema.assertValid(root)
        if http.get(f"{url}/async/{job}/phase").status_code != 200:
            job = ""

    each()


def test_a_few(url: str, http: httpx.Client) -> None:
    check(url, http, 60)


@pytest.mark.slow
def test_many(url: str, http: httpx.Client) -> None:
    check(url, http, 2000)
