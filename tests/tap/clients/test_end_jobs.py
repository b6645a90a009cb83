"""Jobs that run for long are ended, and jobs deleted, by the clients that can: pyvo, astroquery, curl and STILTS.

TOPCAT does both in `test_topcat`. `stilts tapskymatch` has no jobs, and `stilts tapquery` deletes but does not abort. astroquery has
no way to delete a job (its `remove_jobs` speaks to an extension of the Gaia archive); it aborts only what does not run yet, and takes
the 303 that UWS 1.1 prescribes for an error, though the job is aborted.
"""

from __future__ import annotations

import re
import subprocess
import time
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
    job.abort()
    assert (job.phase, _phase(job.url)) == ("ABORTED", "ABORTED")
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
    assert "<uws:phase>ABORTED</uws:phase>" in curl("-L", "-d", "PHASE=ABORT", f"{aborted}/phase")
    curl("-X", "DELETE", deleted)
    curl("-d", "ACTION=DELETE", aborted)
    assert (_status(aborted), _status(deleted)) == (404, 404)


@needs_stilts
@pytest.mark.parametrize("when", ["always", "never"])
def test_stilts(live: str, tmp_path: Path, when: str) -> None:
    words = ["adql=SELECT TOP 1 ra FROM demo.gaia", "sync=false", f"delete={when}", f"out={tmp_path / 'x.csv'}", "progress=true"]
    done = subprocess.run(["stilts", "tapquery", f"tapurl={live}", *words], check=True, capture_output=True, text=True, timeout=60)
    address = re.search(rf"{re.escape(live)}/async/\w+", done.stdout + done.stderr)
    assert address is not None, done
    assert _status(address[0]) == (404 if when == "always" else 200)
