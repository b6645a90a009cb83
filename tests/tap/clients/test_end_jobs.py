"""Jobs that run for long are ended, and jobs deleted, by the clients that can: pyvo, astroquery, curl and STILTS.

TOPCAT does both in `test_topcat`. `stilts tapquery` deletes when it ends, or is interrupted, and never asks for ABORT. Its `delete=now`
fails in STILTS 3.4.7 itself, which looks at a phase that it has not read. `stilts tapskymatch` leaves its jobs to the service. astroquery
deletes by `/deletejobs`, an extension of the Gaia archive that is served for it; it aborts only what does not run yet, and takes the
303 that UWS 1.1 prescribes for an error, though the job is aborted.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import pyvo
import requests
from astroquery.utils.tap.core import TapPlus

from tests.tap.clients.test_live import LONG, needs_curl, needs_stilts


def _status(address: str) -> int:
    return httpx.get(address, trust_env=False).status_code


def _phase(address: str) -> str:
    return httpx.get(f"{address}/phase", trust_env=False).text


def until_quiet(live: str) -> None:
    """The work has ended, not only the job."""
    _until(live, lambda running: running == 0)


def _until_running(live: str) -> None:
    _until(live, lambda running: running > 0)


def _until(live: str, fits: Callable[[float], bool]) -> None:
    end = time.monotonic() + 20
    while not fits(running := _running(live)) and time.monotonic() < end:
        time.sleep(0.05)
    assert fits(running), running


def _running(live: str) -> float:
    """How many queries of anybody have not ended."""
    said = httpx.get(f"{live.removesuffix('/tap')}/metrics", trust_env=False).raise_for_status().text
    counts = re.findall(r"(?m)^qengine_queries_running\{[^}]*\} (\S+)$", said)
    assert counts, said
    return sum(map(float, counts))


def _until_executing(address: str) -> None:
    end = time.monotonic() + 20
    while _phase(address) in ("PENDING", "QUEUED") and time.monotonic() < end:
        time.sleep(0.05)
    assert _phase(address) == "EXECUTING"


def test_pyvo(live: str) -> None:
    job = pyvo.dal.TAPService(live).submit_job(LONG)
    job.run().wait(phases=["EXECUTING"], timeout=20)
    small = httpx.get(
        f"{live}/sync", params={"LANG": "ADQL", "QUERY": "SELECT TOP 1 ra FROM demo.gaia"}, trust_env=False, timeout=20
    )
    assert small.status_code == 200, "others need not wait for it, though the worker has one slot"
    assert _phase(job.url) == "EXECUTING"
    _until_running(live)
    job.abort()
    assert (job.phase, _phase(job.url)) == ("ABORTED", "ABORTED")
    until_quiet(live)
    address = job.url
    job.delete()
    assert _status(address) == 404


def test_astroquery(live: str) -> None:
    job = TapPlus(url=live, verbose=False).launch_job_async(LONG, background=True, autorun=False)
    address = f"{live}/async/{job.jobid}"
    assert _phase(address) == "PENDING"
    with pytest.raises(requests.HTTPError, match="303"):
        job.abort()
    assert _phase(address) == "ABORTED"


def test_astroquery_deletes_what_it_cannot_abort(live: str) -> None:
    service = TapPlus(url=live, verbose=False)
    made = [service.launch_job_async(LONG, background=True) for _ in range(2)]
    with pytest.raises(ValueError, match="Cannot start a job in phase"):
        made[0].abort()
    addresses = [f"{live}/async/{one.jobid}" for one in made]
    for address in addresses:
        _until_executing(address)
    for wrong in (["nothing", made[0].jobid], []):
        with pytest.raises(requests.HTTPError):
            service.remove_jobs(wrong)
    assert [_status(address) for address in addresses] == [200, 200], "all or nothing"
    service.remove_jobs([one.jobid for one in made])
    assert [_status(address) for address in addresses] == [404, 404]
    until_quiet(live)


@needs_curl
def test_curl(live: str) -> None:
    def curl(*arguments: str) -> str:
        command = ["curl", "-sS", "--noproxy", "*", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    def begin() -> str:
        said = curl("-i", "-d", "LANG=ADQL", "-d", "PHASE=RUN", "--data-urlencode", f"QUERY={LONG}", f"{live}/async")
        address = re.search(r"(?im)^location: (\S+)", said)
        assert address is not None, said
        _until_executing(address[1])
        return address[1]

    aborted, deleted = begin(), begin()
    _until_running(live)
    assert "<uws:phase>ABORTED</uws:phase>" in curl("-L", "-d", "PHASE=ABORT", f"{aborted}/phase")
    curl("-X", "DELETE", deleted)
    curl("-d", "ACTION=DELETE", aborted)
    assert (_status(aborted), _status(deleted)) == (404, 404)
    until_quiet(live)


@needs_stilts
@pytest.mark.parametrize("when", ["always", "never"])
def test_stilts(live: str, tmp_path: Path, when: str) -> None:
    words = ["adql=SELECT TOP 1 ra FROM demo.gaia", "sync=false", f"delete={when}", f"out={tmp_path / 'x.csv'}", "progress=true"]
    done = subprocess.run(["stilts", "tapquery", f"tapurl={live}", *words], check=True, capture_output=True, text=True, timeout=60)
    address = re.search(rf"{re.escape(live)}/async/\w+", done.stdout + done.stderr)
    assert address is not None, done
    assert _status(address[0]) == (404 if when == "always" else 200)


@needs_stilts
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_stilts_is_interrupted(live: str, how: signal.Signals) -> None:
    words = [f"adql={LONG}", "sync=false", "delete=always", "progress=true"]
    command = ["stilts", "tapquery", f"tapurl={live}", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        said = ""
        while "EXECUTING" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        address = re.search(rf"{re.escape(live)}/async/\w+", said)
        assert address is not None, said
        assert _phase(address[0]) == "EXECUTING"
        _until_running(live)
        os.killpg(process.pid, how)
        process.communicate(timeout=20)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert _status(address[0]) == 404
    until_quiet(live)
