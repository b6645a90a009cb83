"""Tables that astronomers' programs send along, on a live service: pyvo, astroquery, STILTS, curl. Each answer is compared with one
that numpy makes of all positions."""

from __future__ import annotations

import csv
import functools
import http.server
import io
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
import pyvo
from astropy.table import Table
from astroquery.utils.tap.core import TapPlus
from numpy.typing import NDArray

from tests.tap.clients.conftest import ELSEWHERE

RADIUS = 0.1
MINE = 400
MATCH = (
    "SELECT m.id, COUNT(*) AS n FROM TAP_UPLOAD.mine AS m JOIN demo.gaia AS g "
    f"ON DISTANCE(POINT('ICRS', m.ra, m.dec), POINT('ICRS', g.ra, g.dec)) < {RADIUS} GROUP BY m.id"
)

needs_stilts = pytest.mark.skipif(shutil.which("stilts") is None, reason="stilts is not installed")
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

Floats = NDArray[np.float64]


def _vectors(ra: Floats, dec: Floats) -> Floats:
    ra, dec = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)


@pytest.fixture(scope="module")
def mine(live: str) -> Table:
    """Positions: near stars, everywhere, and at the poles."""
    rng = np.random.default_rng(7)
    words = {"LANG": "ADQL", "RESPONSEFORMAT": "parquet", "QUERY": "SELECT TOP 200 ra, dec FROM demo.gaia ORDER BY source_id"}
    near = pq.read_table(io.BytesIO(httpx.get(f"{live}/sync", params=words, trust_env=False, timeout=60).content))
    count = MINE - 200
    ra = np.concatenate([near["ra"].to_numpy(), rng.uniform(0, 360, count)])
    dec = np.concatenate([near["dec"].to_numpy(), np.degrees(np.arcsin(rng.uniform(-1, 1, count)))])
    ra[-4:], dec[-4:] = [0.0, 359.9999, 12.0, 100.0], [89.99, 0.0, -90.0, 90.0]
    return Table({"id": np.arange(MINE), "ra": ra, "dec": dec})


@pytest.fixture(scope="module")
def counts(live: str, mine: Table) -> dict[int, int]:
    """How many stars are near each position that has any."""
    words = {"LANG": "ADQL", "RESPONSEFORMAT": "parquet", "QUERY": "SELECT ra, dec FROM demo.gaia"}
    stars = pq.read_table(io.BytesIO(httpx.get(f"{live}/sync", params=words, trust_env=False, timeout=60).content))
    theirs = _vectors(stars["ra"].to_numpy(), stars["dec"].to_numpy())
    limit = 2 * np.sin(np.radians(RADIUS) / 2)
    own = _vectors(np.asarray(mine["ra"]), np.asarray(mine["dec"]))
    found = {
        int(key): int(np.sum(np.linalg.norm(theirs - place, axis=1) < limit)) for key, place in zip(mine["id"], own, strict=True)
    }
    kept = {key: number for key, number in found.items() if number}
    assert len(kept) > 200
    return kept


@pytest.fixture(scope="module")
def folder(mine: Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mine")
    mine.write(root / "mine.vot", format="votable")
    mine.write(root / "mine.csv", format="ascii.csv")
    mine.write(root / "mine.fits")
    return root


@pytest.fixture(scope="module")
def elsewhere(folder: Path) -> Iterator[str]:
    """The address of a server that has the files."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer((ELSEWHERE, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://{ELSEWHERE}:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def _counted(table: Table) -> dict[int, int]:
    return {int(key): int(number) for key, number in zip(table["id"], table["n"], strict=True)}


def _counted_csv(text: str) -> dict[int, int]:
    return {int(row["id"]): int(row["n"]) for row in csv.DictReader(io.StringIO(text))}


def stilts(*arguments: str) -> str:
    done = subprocess.run(["stilts", *arguments], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def curl(*arguments: str) -> str:
    done = subprocess.run(["curl", "-sS", "--noproxy", "*", *arguments], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout


def test_uploads_are_declared(live: str) -> None:
    service = pyvo.dal.TAPService(live)
    methods = {method.ivo_id.rpartition("#")[2] for method in service.upload_methods}
    assert methods == {"upload-inline", "upload-http", "upload-https"}


@pytest.mark.parametrize("method", ["run_sync", "run_async"])
def test_pyvo(live: str, mine: Table, counts: dict[int, int], method: str) -> None:
    found = getattr(pyvo.dal.TAPService(live), method)(MATCH, uploads={"mine": mine})
    assert _counted(found.to_table()) == counts


def test_pyvo_by_address(live: str, counts: dict[int, int], elsewhere: str) -> None:
    found = pyvo.dal.TAPService(live).run_sync(MATCH, uploads={"mine": f"{elsewhere}/mine.vot"})
    assert _counted(found.to_table()) == counts


@pytest.mark.parametrize("method", ["launch_job", "launch_job_async"])
def test_astroquery(live: str, folder: Path, counts: dict[int, int], method: str) -> None:
    job = getattr(TapPlus(url=live, verbose=False), method)(
        MATCH, upload_resource=str(folder / "mine.vot"), upload_table_name="mine", verbose=False
    )
    assert _counted(job.get_results()) == counts


@needs_stilts
@pytest.mark.parametrize("sync", ["true", "false"])
def test_stilts_tapquery(live: str, folder: Path, counts: dict[int, int], sync: str) -> None:
    words = ["nupload=1", f"upload1={folder / 'mine.fits'}", "upname1=mine", f"sync={sync}", "ofmt=csv"]
    assert _counted_csv(stilts("tapquery", f"tapurl={live}", f"adql={MATCH}", *words)) == counts


@needs_stilts
@pytest.mark.parametrize("sync", ["true", "false"])
def test_stilts_tapskymatch(live: str, folder: Path, counts: dict[int, int], sync: str) -> None:
    out = stilts(
        "tapskymatch", f"tapurl={live}", "taptable=demo.gaia", "taplon=ra", "taplat=dec", "tapcols=source_id",
        f"in={folder / 'mine.csv'}", "ifmt=csv", "inlon=ra", "inlat=dec", f"sr={RADIUS}", "find=all", "blocksize=150",
        f"sync={sync}", "ofmt=csv",
    )  # fmt: skip
    rows = [int(row["id"]) for row in csv.DictReader(io.StringIO(out))]
    assert {key: rows.count(key) for key in set(rows)} == counts


@needs_curl
@pytest.mark.parametrize("name", ["mine.vot", "mine.csv", "mine.fits"])
def test_curl(live: str, folder: Path, elsewhere: str, counts: dict[int, int], name: str) -> None:
    words = ["-F", "LANG=ADQL", "-F", "FORMAT=csv", "-F", f"QUERY={MATCH}"]
    inline = curl(*words, "-F", "UPLOAD=mine,param:table", "-F", f"table=@{folder / name}", f"{live}/sync")
    assert _counted_csv(inline) == counts
    address = curl(*words, "-F", f"UPLOAD=mine,{elsewhere}/{name}", f"{live}/sync")
    assert _counted_csv(address) == counts
    assert "no public address" in curl(*words, "-F", f"UPLOAD=mine,http://127.0.0.1:1/{name}", f"{live}/sync")


@needs_curl
def test_curl_in_a_job(live: str, folder: Path, counts: dict[int, int]) -> None:
    words = ["-F", "LANG=ADQL", "-F", "FORMAT=csv", "-F", f"QUERY={MATCH}", "-F", "UPLOAD=mine,param:table", "-F", "PHASE=RUN"]
    said = curl("-i", *words, "-F", f"table=@{folder / 'mine.vot'}", f"{live}/async")
    address = re.search(r"(?im)^location: (\S+)", said)
    assert address is not None, said
    end = time.monotonic() + 60
    while (phase := curl(f"{address[1]}/phase")) in ("PENDING", "QUEUED", "EXECUTING") and time.monotonic() < end:
        curl(f"{address[1]}?WAIT=5")
    assert phase == "COMPLETED"
    assert _counted_csv(curl("-L", f"{address[1]}/results/result")) == counts
