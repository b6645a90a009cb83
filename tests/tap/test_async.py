"""/async over HTTP as any client uses it: the whole life of jobs, every child, and what must not be possible."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
from lxml import etree

from qengine.tap.jobs import JobSettings
from qengine.tap.service import TapSettings
from tests.support.fake_service import FakeService
from tests.support.postgres import empty_database
from tests.support.tap_server import serving_tap
from tests.support.uws_schema import uws_schema
from tests.tap.test_sync import error_of, status_of

UWS = "{http://www.ivoa.net/xml/UWS/v1.0}"
HREF = "{http://www.w3.org/1999/xlink}href"
NIL = "{http://www.w3.org/2001/XMLSchema-instance}nil"
COUNT = "SELECT COUNT(*) AS n FROM demo.stars"
HANG = "SELECT source_id FROM demo.stars /* hang after 200 rows */"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    tap = TapSettings(maxrec=500, maxrec_limit=5000)
    jobs = JobSettings(
        lists_anonymous=True, wait_s=1.0, running=8, duration_limit_s=7200, retention_limit_s=86400, retention_s=3600
    )
    with ExitStack() as stack:
        database = None
        if request.param == "postgresql":
            database = stack.enter_context(empty_database(request.getfixturevalue("postgres_url")))
        root = tmp_path_factory.mktemp("store")
        yield stack.enter_context(serving_tap(FakeService(), root, url=database, tap=tap, jobs=jobs))


class Client:
    """A client of one service, who checks every UWS document against the schema."""

    def __init__(self, url: str, http: httpx.Client, schema: etree.XMLSchema | None) -> None:
        self.url, self.http, self.schema = url, http, schema

    def post(self, place: str = "", **given: str) -> httpx.Response:
        return self.http.post(self.url + "/async" + place, data=given)

    def make(self, text: str, **given: str) -> str:
        """Make a job and return its place under /async."""
        response = self.post(LANG="ADQL", QUERY=text, **given)
        assert response.status_code == 303, response.text
        assert response.headers["location"].startswith(self.url + "/async/")
        return response.headers["location"].removeprefix(self.url + "/async")

    def get(self, place: str, **given: str) -> httpx.Response:
        return self.http.get(self.url + "/async" + place, params=given)

    def xml(self, place: str, **given: str) -> etree._Element:
        response = self.get(place, **given)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "text/xml"
        root = etree.fromstring(response.content)
        if self.schema is not None:
            self.schema.assertValid(root)
        return root

    def phase(self, place: str) -> str:
        return self.get(f"{place}/phase").text

    def ended(self, place: str) -> etree._Element:
        deadline = time.monotonic() + 20
        while (job := self.xml(place, WAIT="-1")).findtext(f"{UWS}phase") in ("QUEUED", "EXECUTING"):
            assert time.monotonic() < deadline
        return job

    def executing(self, place: str) -> None:
        deadline = time.monotonic() + 20
        while self.phase(place) != "EXECUTING":
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture(scope="module")
def client(url: str, http: httpx.Client) -> Client:
    return Client(url, http, uws_schema())


def test_the_whole_life(client: Client) -> None:
    place = client.make(COUNT, RUNID="mine <&>", RESPONSEFORMAT="csv")
    job = client.xml(place)
    assert job.tag == f"{UWS}job"
    assert job.get("version") == "1.1"
    names = [child.tag.removeprefix(UWS) for child in job]
    assert names == [
        "jobId", "runId", "ownerId", "phase", "quote", "creationTime", "startTime", "endTime", "executionDuration", "destruction",
        "parameters", "results",
    ]  # fmt: skip
    assert {child.tag.removeprefix(UWS) for child in job if child.get(NIL)} == {"ownerId", "quote", "startTime", "endTime"}
    assert (job.findtext(f"{UWS}phase"), job.findtext(f"{UWS}runId")) == ("PENDING", "mine <&>")
    assert place == "/" + (job.findtext(f"{UWS}jobId") or "")
    assert client.phase(place) == "PENDING"
    response = client.post(f"{place}/phase", PHASE="RUN")
    assert (response.status_code, response.headers["location"]) == (303, client.url + "/async" + place)
    job = client.ended(place)
    assert job.findtext(f"{UWS}phase") == "COMPLETED"
    assert [child.get(NIL) for child in job.iter(f"{UWS}startTime", f"{UWS}endTime")] == [None, None]
    (result,) = job.iter(f"{UWS}result")
    assert (result.get("id"), result.get("mime-type"), result.get("size")) == ("result", "text/csv;header=present", "9")
    rows = client.http.get(result.get(HREF) or "")
    assert (rows.status_code, rows.headers["content-type"], rows.text) == (200, "text/csv;header=present", "n\r\n1000\r\n")
    assert client.get(f"{place}/results/result").content == rows.content
    assert client.http.get(result.get(HREF) or "", headers={"range": "bytes=3-6"}).text == "1000"
    (alone,) = client.xml(f"{place}/results")
    assert alone.attrib == result.attrib
    assert client.get(f"{place}/error").status_code == 404


def test_phase_run_in_the_creating_post_and_a_quote(client: Client) -> None:
    place = client.make("SELECT TOP 5 source_id FROM demo.stars", PHASE="RUN", RESPONSEFORMAT="votable/td")
    job = client.ended(place)
    assert job.findtext(f"{UWS}phase") == "COMPLETED"
    response = client.get(f"{place}/results/result")
    assert response.headers["content-type"] == "application/x-votable+xml;serialization=tabledata"
    assert response.text.count("<TR>") == 5
    assert "OVERFLOW" not in response.text
    info = {child.tag: dict(child.attrib) for child in job.iterfind(f"{UWS}jobInfo/*")}
    assert info["result"]["rows"] == "5"
    assert "truncated" not in info


def test_what_was_cut_says_so(client: Client) -> None:
    place = client.make("SELECT source_id FROM demo.stars", PHASE="RUN", MAXREC="7", FORMAT="csv")
    job = client.ended(place)
    info = {child.tag: child.text for child in job.iterfind(f"{UWS}jobInfo/*")}
    assert info["truncated"] == "the result was cut at MAXREC = 7 rows; there are more"
    found = client.get(f"{place}/results/result").headers
    assert (found["x-query-status"], found["x-query-maxrec"]) == ("OVERFLOW", "7")


def test_wrong_queries_are_jobs_that_fail(client: Client) -> None:
    for given, words in (
        ({"QUERY": "SELECT brightness FROM demo.stars", "LANG": "ADQL"}, "line 1, column 8"),
        ({"QUERY": "SELECT 1", "LANG": "COBOL"}, "LANG=COBOL is not known"),
        ({"QUERY": "SELECT 1", "LANG": "ADQL", "MAXREC": "many"}, "MAXREC=many is not a number"),
        ({"LANG": "ADQL"}, "QUERY is missing"),
        ({}, "LANG is missing"),
    ):
        response = client.post(PHASE="RUN", **given)
        assert response.status_code == 303
        place = response.headers["location"].removeprefix(client.url + "/async")
        job = client.ended(place)
        assert job.findtext(f"{UWS}phase") == "ERROR"
        summary = job.find(f"{UWS}errorSummary")
        assert summary is not None
        assert dict(summary.attrib) == {"type": "fatal", "hasDetail": "true"}
        assert words in (summary.findtext(f"{UWS}message") or "")
        response = client.get(f"{place}/error")
        assert (response.status_code, response.headers["content-type"]) == (200, "application/x-votable+xml")
        assert words in status_of(response)[0][1]
        # the same as at once, with its hint and place
        assert error_of(response) == error_of(client.http.post(f"{client.url}/sync", data=given))
        response = client.get(f"{place}/results/result")
        assert (response.status_code, words in response.text) == (404, True)
        assert len(client.xml(f"{place}/results")) == 0


def test_parameters_change_while_pending(client: Client) -> None:
    place = client.make("SELECT nothing", X="\x01 ]]> <b>")
    assert client.post(f"{place}/parameters", query=COUNT, responseformat="csv").status_code == 303
    assert client.post(place, MAXREC="5").status_code == 303
    found = {child.get("id"): child.text for child in client.xml(f"{place}/parameters")}
    assert found == {"LANG": "ADQL", "QUERY": COUNT, "X": "\ufffd ]]> <b>", "RESPONSEFORMAT": "csv", "MAXREC": "5"}
    client.post(f"{place}/phase", PHASE="RUN")
    assert client.ended(place).findtext(f"{UWS}phase") == "COMPLETED"
    response = client.post(f"{place}/parameters", QUERY="SELECT 2")
    assert (response.status_code, "is COMPLETED and cannot get parameters" in response.text) == (400, True)
    assert client.get(f"{place}/results/result").text == "n\r\n1000\r\n"


def test_durations_and_destruction(client: Client) -> None:
    place = client.make(HANG)
    assert client.get(f"{place}/executionduration").text == "7200"
    assert client.post(f"{place}/executionduration", EXECUTIONDURATION="1").status_code == 303
    assert client.get(f"{place}/executionduration").text == "1"
    assert client.post(f"{place}/executionduration", EXECUTIONDURATION="soon").status_code == 400
    assert client.post(f"{place}/destruction", DESTRUCTION="2099-01-01T00:00:00Z").status_code == 303
    within = (
        time.time()
        + 86400
        - time.mktime(time.strptime(client.get(f"{place}/destruction").text[:19], "%Y-%m-%dT%H:%M:%S"))
        + time.timezone
    )
    assert abs(within) < 60
    assert client.post(f"{place}/destruction", DESTRUCTION="never").status_code == 400
    client.post(f"{place}/phase", PHASE="RUN")
    job = client.ended(place)
    assert job.findtext(f"{UWS}phase") == "ERROR"
    assert "longer than its limit of 1 s" in (job.findtext(f"{UWS}errorSummary/{UWS}message") or "")


def test_abort(client: Client) -> None:
    for start in ("PENDING", "EXECUTING"):
        place = client.make(HANG)
        if start == "EXECUTING":
            client.post(f"{place}/phase", PHASE="RUN")
            client.executing(place)
        assert client.post(f"{place}/phase", PHASE="ABORT").status_code == 303
        assert client.phase(place) == "ABORTED"
        assert client.post(f"{place}/phase", PHASE="ABORT").status_code == 303
        assert client.post(f"{place}/phase", PHASE="RUN").status_code == 400
        assert client.xml(place).find(f"{UWS}endTime").get(NIL) is None  # type: ignore[union-attr]


def test_deletion(client: Client) -> None:
    for form in (False, True):
        place = client.make(HANG, PHASE="RUN")
        client.executing(place)
        response = client.post(place, ACTION="DELETE") if form else client.http.delete(client.url + "/async" + place)
        assert (response.status_code, response.headers["location"]) == (303, client.url + "/async?LAST=20")
        for child in ("", "/phase", "/results", "/results/result", "/parameters", "/error", "/owner", "/quote"):
            assert client.get(place + child).status_code == 404, child
        assert client.post(f"{place}/phase", PHASE="RUN").status_code == 404
        assert client.http.delete(client.url + "/async" + place).status_code == 404


def test_what_is_not_understood(client: Client) -> None:
    place = client.make(COUNT)
    for response in (
        client.post(f"{place}/phase", PHASE="STOP"),
        client.post(f"{place}/phase"),
        client.post(place, ACTION="CLONE"),
        client.get("", PHASE="RUNNING"),
        client.get("", LAST="0"),
        client.get("", LAST="-3"),
        client.get("", AFTER="yesterday"),
        client.get(place, WAIT="long"),
        client.post(RUNID="x" * 65),
        client.post(RUNID="nul \0"),
    ):
        assert response.status_code == 400
        assert 'value="ERROR"' in response.text
    assert client.http.put(client.url + "/async").status_code == 405
    for strange in ("/nothing", "/../../etc/passwd", "/%2e%2e", "/%00", "/%ff", "/" + "a" * 5000, "/\u00e4"):
        assert client.get(strange).status_code in (404, 405)
    assert client.get(f"{place}/results/other").status_code == 404


def test_the_list_and_its_filters(client: Client) -> None:
    places = [client.make(COUNT) for _ in range(3)]
    client.post(f"{places[1]}/phase", PHASE="ABORT")
    refs = {ref.get("id"): ref for ref in client.xml("")}
    assert {place[1:] for place in places} <= refs.keys()
    ref = refs[places[1][1:]]
    assert (ref.findtext(f"{UWS}phase"), ref.get(HREF)) == ("ABORTED", client.url + "/async" + places[1])

    def ids(**given: str) -> list[str | None]:
        return [one.get("id") for one in client.xml("", **given)]

    assert ids(LAST="2") == [places[2][1:], places[1][1:]]
    assert ids(last="2", phase="PENDING") == [places[2][1:], places[0][1:]]
    both = client.http.get(client.url + "/async?PHASE=PENDING&PHASE=ABORTED&LAST=3")
    assert both.text.count("<uws:jobref ") == 3
    made = refs[places[0][1:]].findtext(f"{UWS}creationTime") or ""
    assert set(ids(AFTER=made)) >= {places[1][1:], places[2][1:]}
    assert ids(AFTER="2099-01-01T00:00:00") == []


def test_waiting(client: Client) -> None:
    place = client.make(HANG)

    def waited(**given: str) -> float:
        began = time.monotonic()
        client.xml(place, **given)
        return time.monotonic() - began

    assert waited(WAIT="-1", PHASE="EXECUTING") < 0.5  # it is PENDING
    assert waited(WAIT="0") < 0.5
    assert 0.9 < waited(WAIT="-1") < 3  # the cap
    assert 0.9 < waited(WAIT="3600", PHASE="PENDING") < 3
    client.post(f"{place}/phase", PHASE="RUN")
    client.executing(place)
    client.post(f"{place}/phase", PHASE="ABORT")
    assert waited(WAIT="-1") < 0.5


def test_waiting_ends_with_the_job(client: Client) -> None:
    place = client.make(COUNT, PHASE="RUN")
    began = time.monotonic()
    client.ended(place)
    assert time.monotonic() - began < 1.5


def test_progress_is_in_the_job_info(client: Client) -> None:
    place = client.make(HANG, PHASE="RUN")
    deadline = time.monotonic() + 10
    while (info := client.xml(place).find(f"{UWS}jobInfo/progress")) is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert info.get("rows") == "200"
    client.http.delete(client.url + "/async" + place)
