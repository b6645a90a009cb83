"""What astronomers use, on a live service: pyvo, astroquery, STILTS, curl. Small tables, real statements."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from pathlib import Path

import httpx
import numpy as np
import pytest
import pyvo
from astropy.table import Table
from astroquery.utils.tap.core import TapPlus

CONE = "SELECT source_id, ra, dec, mag FROM demo.gaia WHERE CONTAINS(POINT('ICRS', ra, dec), CIRCLE('ICRS', 56.75, 24.1167, 2)) = 1"
CONE_ROWS = 230
LONG = "SELECT COUNT(*) AS n FROM demo.gaia AS a, demo.gaia AS b, demo.ngc AS c WHERE a.mag + b.mag + c.ra < -999"
"""Minutes of work, if nobody ends it."""

needs_stilts = pytest.mark.skipif(shutil.which("stilts") is None, reason="stilts is not installed")
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.fixture(scope="module")
def has_uploads(live: str) -> bool:
    return "<uploadMethod" in httpx.get(f"{live}/capabilities", trust_env=False).text


@pytest.fixture(scope="module")
def tap(live: str) -> pyvo.dal.TAPService:
    return pyvo.dal.TAPService(live)


def stilts(*arguments: str) -> str:
    done = subprocess.run(["stilts", *arguments], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("method", ["search", "run_sync", "run_async"])
def test_pyvo(tap: pyvo.dal.TAPService, method: str) -> None:
    assert len(getattr(tap, method)(CONE)) == CONE_ROWS


def test_pyvo_runs_every_example(tap: pyvo.dal.TAPService) -> None:
    examples = tap.examples
    assert len(examples) > 10
    for example in examples:
        assert example.execute() is not None


def test_pyvo_lists_tables(tap: pyvo.dal.TAPService) -> None:
    names = set(tap.tables.keys())
    assert {"demo.gaia", "demo.ngc", "dp1.Object", "dp1.ForcedSource", "TAP_SCHEMA.tables"} <= names
    columns = {column.name: column for column in tap.tables["dp1.Object"].columns}
    assert len(columns) > 1000
    assert columns["coord_ra"].unit == "deg"


def test_pyvo_errors_name_the_place(tap: pyvo.dal.TAPService) -> None:
    for method in (tap.run_sync, tap.run_async):
        with pytest.raises(pyvo.dal.DALQueryError, match="colour"):
            method("SELECT colour FROM demo.gaia")


def test_pyvo_uploads(tap: pyvo.dal.TAPService, has_uploads: bool) -> None:
    if not has_uploads:
        pytest.skip("the service takes no uploads")
    mine = Table({"id": np.arange(3), "ra": [56.75, 84.05, 0.0], "dec": [24.1167, -1.2, 0.0]})
    text = (
        "SELECT m.id, COUNT(*) AS n FROM TAP_UPLOAD.mine AS m JOIN demo.gaia AS g "
        "ON DISTANCE(POINT('ICRS', m.ra, m.dec), POINT('ICRS', g.ra, g.dec)) < 0.5 GROUP BY m.id ORDER BY id"
    )
    for method in (tap.run_sync, tap.run_async):
        assert list(method(text, uploads={"mine": mine})["id"]) == [0, 1, 2]


def test_pyvo_follows_links(tap: pyvo.dal.TAPService, live: str) -> None:
    found = tap.search("SELECT TOP 3 objectId, coord_ra FROM dp1.Object ORDER BY objectId")
    services = {str(service.description): service for service in found.iter_adhocservices()}
    assert len(services) == 2
    later = tap.run_async("SELECT TOP 3 objectId, coord_ra FROM dp1.Object ORDER BY objectId")
    assert {str(service.description) for service in later.iter_adhocservices()} == set(services)
    rows = {name: next(param.value for param in service.params if param.name == "accessURL") for name, service in services.items()}
    assert all(url.startswith(f"{live}/links/dp1.Object/") for url in rows.values())
    for url in rows.values():
        key = int(found["objectId"][0])
        answer = httpx.get(url, params={"ID": str(key), "RESPONSEFORMAT": "csv"}, trust_env=False)
        assert answer.status_code == 200, answer.text
        curve = tap.search(f"SELECT COUNT(*) AS n FROM dp1.ForcedSource WHERE objectId = {key}")["n"][0]
        assert len(answer.text.splitlines()) == curve + 1 or url.endswith("light-curve")
    for wrong, status in ((f"{url}?ID=1%20OR%201=1", 400), (url, 400), (f"{live}/links/dp1.Object/nothing?ID=1", 404)):
        assert httpx.get(wrong, trust_env=False).status_code == status
    assert (
        b"adhoc:service"
        not in httpx.get(
            f"{live}/sync", params={"LANG": "ADQL", "QUERY": "SELECT TOP 1 coord_ra FROM dp1.Object"}, trust_env=False
        ).content
    )


def test_what_is_not_adql_is_named(live: str) -> None:
    words = {"LANG": "ADQL", "QUERY": "SELECT TOP 1 CASE WHEN mag < 5 THEN 1 ELSE 0 END AS bright FROM demo.gaia"}
    answer = httpx.get(f"{live}/sync", params=words, trust_env=False)
    assert b'<INFO name="WARNING" value="not ADQL 2.1: CASE' in answer.content
    strict = httpx.get(f"{live}/sync", params=words | {"LANG": "ADQL-2.1-strict"}, trust_env=False)
    assert strict.status_code == 400


@pytest.mark.parametrize("how", ["launch_job", "launch_job_async"])
def test_astroquery(live: str, how: str) -> None:
    service = TapPlus(url=live, verbose=False)
    job = getattr(service, how)(CONE, verbose=False)
    assert len(job.get_results()) == CONE_ROWS


@needs_stilts
@pytest.mark.parametrize("sync", ["true", "false"])
def test_stilts_tapquery(live: str, sync: str) -> None:
    out = stilts("tapquery", f"tapurl={live}", f"adql={CONE}", f"sync={sync}", "ofmt=csv")
    assert len(out.splitlines()) == CONE_ROWS + 1


@needs_stilts
def test_stilts_tapskymatch(live: str, tmp_path: Path, has_uploads: bool) -> None:
    if not has_uploads:
        pytest.skip("the service takes no uploads")
    mine = tmp_path / "mine.csv"
    mine.write_text("id,ra,dec\n1,56.75,24.1167\n2,84.05,-1.2\n")
    out = stilts(
        "tapskymatch", f"tapurl={live}", "taptable=demo.gaia", "taplon=ra", "taplat=dec", f"in={mine}", "ifmt=csv", "inlon=ra",
        "inlat=dec", "sr=0.5", "find=all", "ofmt=csv",
    )  # fmt: skip
    found = list(csv.DictReader(io.StringIO(out)))
    assert {row["id"] for row in found} == {"1", "2"}


@needs_curl
def test_curl(live: str) -> None:
    def curl(*arguments: str) -> str:
        done = subprocess.run(["curl", "-sS", "--noproxy", "*", *arguments], check=True, capture_output=True, text=True, timeout=60)
        return done.stdout

    wanted = ["-F", "LANG=ADQL", "-F", "FORMAT=csv", "-F", f"QUERY={CONE}"]
    assert len(curl(*wanted, f"{live}/sync").splitlines()) == CONE_ROWS + 1
    plain = ["-d", "LANG=ADQL", "-d", "FORMAT=csv", "--data-urlencode", f"QUERY={CONE}"]
    assert len(curl(*plain, f"{live}/sync").splitlines()) == CONE_ROWS + 1
    assert len(curl("-G", *plain, f"{live}/sync").splitlines()) == CONE_ROWS + 1
    job = [
        line for line in curl("-i", *plain, "-d", "PHASE=RUN", f"{live}/async").splitlines() if line.lower().startswith("location:")
    ]
    address = job[0].split()[1]
    while "EXECUTING" in (said := curl(f"{address}?WAIT=8")) or "QUEUED" in said:
        pass
    assert "COMPLETED" in said
    assert len(curl("-L", f"{address}/results/result").splitlines()) == CONE_ROWS + 1
    assert "303" in curl("-o", "/dev/null", "-w", "%{http_code}", "-X", "DELETE", address)
    assert "404" in curl("-o", "/dev/null", "-w", "%{http_code}", address)
