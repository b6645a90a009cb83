"""Jobs by real clients: pyvo, and STILTS and astroquery where they are installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import pyvo
from pyvo.dal import AsyncTAPJob, DALQueryError

from qengine.tap.jobs import JobSettings
from qengine.tap.service import TapSettings
from tests.support.fake_service import FakeService
from tests.support.tap_server import serving_tap

needs_stilts = pytest.mark.skipif(shutil.which("stilts") is None, reason="stilts is not installed")
HANG = "SELECT source_id FROM demo.stars /* hang after 200 rows */"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    tap = TapSettings(maxrec=500, maxrec_limit=5000)
    jobs = JobSettings(lists_anonymous=True, running=8, wait_s=2.0)
    with serving_tap(FakeService(), tmp_path_factory.mktemp("store"), tap=tap, jobs=jobs) as address:
        yield address


@pytest.fixture(scope="module")
def tap(url: str) -> pyvo.dal.TAPService:
    return pyvo.dal.TAPService(url)


def test_pyvo_runs_waits_and_fetches(tap: pyvo.dal.TAPService, http: httpx.Client) -> None:
    job = tap.submit_job("SELECT TOP 100 source_id, name FROM demo.stars ORDER BY source_id", maxrec=50, runid="of a test")
    assert (job.phase, job.owner) == ("PENDING", None)
    job.execution_duration = 60
    assert job.execution_duration.sec == 60
    assert job.run().wait(timeout=30).phase == "COMPLETED"
    assert [result.id_ for result in job.results] == ["result"]
    found = job.fetch_result()
    assert found.status[0] == "OVERFLOW"
    assert list(found.to_table()["source_id"]) == list(range(50))
    assert job.result_uri.endswith("/results/result")
    again = AsyncTAPJob(job.url)
    assert (again.phase, again.query) == ("COMPLETED", job.query)
    assert again.job.runid == "of a test"
    assert again.destruction > again.job.creationtime
    place = job.url
    job.delete()
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        http.get(place).raise_for_status()


def test_pyvo_in_one_call(tap: pyvo.dal.TAPService) -> None:
    assert tap.run_async("SELECT COUNT(*) AS n FROM demo.stars").to_table()["n"][0] == 1000
    with pytest.raises(DALQueryError, match="line 1, column 8"):
        tap.run_async("SELECT brightness FROM demo.stars")


def test_pyvo_aborts_and_sees_errors(tap: pyvo.dal.TAPService) -> None:
    job = tap.submit_job(HANG)
    job.run()
    job.wait(phases=["EXECUTING"], timeout=20)
    job.abort()
    assert job.phase == "ABORTED"
    wrong = tap.submit_job("SELECT brightness FROM demo.stars")
    wrong.run().wait(timeout=20)
    assert wrong.phase == "ERROR"
    with pytest.raises(DALQueryError, match="brightness"):
        wrong.raise_if_error()


def test_pyvo_lists_jobs(tap: pyvo.dal.TAPService) -> None:
    jobs = [tap.submit_job("SELECT 1 AS x") for _ in range(3)]
    listed = [job.jobid for job in tap.get_job_list(last=2)]
    assert listed == [jobs[2].job_id, jobs[1].job_id]
    assert {job.job_id for job in jobs} <= {job.jobid for job in tap.get_job_list(phases=["PENDING"])}


def test_astroquery(url: str) -> None:
    tapplus = pytest.importorskip("astroquery.utils.tap.core")
    client = tapplus.TapPlus(url=url)
    job = client.launch_job_async("SELECT TOP 20 source_id, ra FROM demo.stars ORDER BY source_id")
    assert list(job.get_results()["source_id"]) == list(range(20))
    with pytest.raises(Exception, match="brightness"):
        client.launch_job_async("SELECT brightness FROM demo.stars").get_results()


def test_curl(url: str, http: httpx.Client) -> None:
    """As a person does it by hand: make and run in one request, follow the location, wait, fetch."""
    response = http.post(f"{url}/async", data={"LANG": "ADQL", "QUERY": "SELECT 7 AS x", "PHASE": "RUN", "FORMAT": "csv"})
    job = response.headers["location"]
    while "COMPLETED" not in http.get(f"{job}?WAIT=5").text:
        pass
    assert http.get(f"{job}/results/result").text == "x\r\n7\r\n"


@needs_stilts
def test_stilts_tapquery(url: str, tmp_path: Path, http: httpx.Client) -> None:
    out = tmp_path / "out.csv"
    text = "SELECT TOP 20 source_id, ra, mag, name FROM demo.stars ORDER BY source_id"
    command = ["stilts", "tapquery", f"tapurl={url}", f"adql={text}", "sync=false", "poll=200", "ofmt=csv", f"out={out}"]
    subprocess.run(command, check=True, capture_output=True, timeout=90)
    lines = out.read_text().splitlines()
    assert (len(lines), lines[1][:6]) == (21, "0,0.0,")
    wrong = [*command[:3], "adql=SELECT brightness FROM demo.stars", *command[4:]]
    done = subprocess.run(wrong, check=False, capture_output=True, text=True, timeout=90)
    assert done.returncode != 0
    assert "line 1, column 8" in done.stderr


@needs_stilts
@pytest.mark.slow
def test_taplint_finds_nothing_in_async(url: str) -> None:
    done = subprocess.run(
        ["stilts", "taplint", f"tapurl={url}", "stages=TMV CPV CAP QAS UWS", "format=json", "report=EWF"],
        check=True, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    found = json.loads(done.stdout)
    reports = [report for section in found["sections"] for report in section["reports"]]
    assert [one for one in reports if one["level"] in ("ERROR", "FAILURE", "WARNING", "E", "F", "W")] == []
    assert found["totals"] == {"ERROR": 0, "FAILURE": 0, "WARNING": 0}
