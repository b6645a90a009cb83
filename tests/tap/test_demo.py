"""The demonstration as users start it: a process with two workers, asked by pyvo, Python and the command line."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import pyvo
from rich.console import Console

from qengine import connect
from qengine.cli import run
from qengine.demo import SCHEMA, gaia_table, ngc_table, prepare, summary
from qengine.errors import QuerySyntaxError

ROOT = Path(__file__).resolve().parents[2]

CONES = [
    (56.75, 24.1167, 2, 230),
    (84.05, -1.2, 5, 1276),
    (192.85948, 27.12825, 5, 348),
    (0, 0, 1, 22),
    (0, -90, 3, 285),
    (80.8942, -69.7561, 5, 764),
]
STARS_BY_MAGNITUDE = [1, 5, 12, 47, 155, 484, 1534, 4596, 14565, 41394, 114703, 304680]
_START_S = 120


def cone(ra: float, dec: float, radius: float) -> str:
    return f"SELECT COUNT(*) AS n FROM demo.gaia WHERE CONTAINS(POINT(ra, dec), CIRCLE({ra}, {dec}, {radius})) = 1"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "demo-store"
    prepare(folder, Console(quiet=True))
    return folder


@pytest.fixture(scope="module")
def url(store: Path) -> Iterator[str]:
    command = [sys.executable, "-u", "-m", "qengine.demo", "--store", str(store)]
    with (store.parent / "demo.log").open("w+") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + _START_S
            while "Ctrl-C stops" not in (said := (store.parent / "demo.log").read_text()):
                assert process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.1)
            found = re.search(r"http://127\.0\.0\.1:\d+", said)
            assert found, said
            yield found[0]
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()
    assert "stopped" in (store.parent / "demo.log").read_text()


@pytest.fixture(scope="module")
def tap(url: str) -> pyvo.dal.TAPService:
    return pyvo.dal.TAPService(f"{url}/tap")


@pytest.mark.parametrize(("ra", "dec", "radius", "rows"), CONES)
def test_cones_by_pyvo(tap: pyvo.dal.TAPService, ra: float, dec: float, radius: float, rows: int) -> None:
    assert tap.search(cone(ra, dec, radius))["n"][0] == rows


@pytest.mark.parametrize(("ra", "dec", "radius", "rows"), CONES[:2])
def test_cones_by_python(store: Path, ra: float, dec: float, radius: float, rows: int) -> None:
    with connect(store) as client:
        assert client.query(cone(ra, dec, radius)).to_arrow()["n"].to_pylist() == [rows]


def test_cone_by_the_command_line(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["query", cone(*CONES[4][:3]), "--url", url]) == 0
    assert "285" in capsys.readouterr().out.split()


def test_the_whole_sky(url: str) -> None:
    text = "SELECT FLOOR(mag) AS m, COUNT(*) AS n FROM demo.gaia GROUP BY FLOOR(mag) ORDER BY m"
    with connect(url) as client:
        table = client.query(text).to_arrow()
    assert table["m"].to_pylist() == list(range(-2, 10))
    assert table["n"].to_pylist() == STARS_BY_MAGNITUDE


def test_close_pairs(url: str) -> None:
    text = (
        "SELECT COUNT(*) AS n FROM demo.gaia AS a JOIN demo.gaia AS b ON DISTANCE(a.ra, a.dec, b.ra, b.dec) < 30.0 / 3600.0 "
        "WHERE a.source_id < b.source_id"
    )
    with connect(url) as client:
        assert client.query(text).to_arrow()["n"].to_pylist() == [6141]


def test_metadata_reaches_astropy(tap: pyvo.dal.TAPService, url: str) -> None:
    assert str(tap.search("SELECT TOP 3 ra, dec, mag FROM demo.gaia").to_table()["mag"].unit) == "mag"
    with connect(url) as client:
        table = client.query("SELECT TOP 3 name, ra, v_mag FROM demo.ngc WHERE messier IS NOT NULL").to_astropy()
        assert str(table["ra"].unit) == "deg"
        assert {found.full_name: found.rows for found in client.tables()}["demo.gaia"] == 482_176
    assert "demo.ngc" in tap.tables.keys()  # noqa: SIM118


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("stilts") is None, reason="stilts is not installed")
def test_taplint_has_nothing_to_say(url: str) -> None:
    stages = "stages=TMV TME TMS TMC CPV CAP AVV QGE QPO MDQ"
    command = ["stilts", "taplint", f"tapurl={url}/tap", stages, "format=json", "report=EWF"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=250).stdout)
    reports = [report for section in found["sections"] for report in section["reports"]]
    assert (found["totals"]["ERROR"], found["totals"]["WARNING"], found["totals"]["FAILURE"]) == (0, 0, 0), reports


def test_errors_cross_the_wire(url: str) -> None:
    with connect(url) as client, pytest.raises(QuerySyntaxError) as caught:
        client.query("SELECT FROM demo.gaia")
    assert caught.value.span is not None


def test_a_second_run_uses_the_store(store: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in store.rglob("*.parquet"))
    began = time.monotonic()
    prepare(store, Console(quiet=True))
    assert time.monotonic() - began < 5
    assert sorted((path, path.stat().st_mtime_ns) for path in store.rglob("*.parquet")) == before
    assert not list(store.glob("input-*"))


def test_tables_are_what_the_packages_hold() -> None:
    stars = gaia_table()
    assert stars.num_rows == 482_176
    assert (stars["pmra"].null_count, stars["pmdec"].null_count) == (363, 359)
    objects = ngc_table()
    assert objects.num_rows == 14_033
    assert objects["ra"].null_count == 7
    andromeda = [row for row in objects.to_pylist() if row["name"] == "NGC0224"][0]  # noqa: RUF015
    assert abs(andromeda["ra"] - 10.6848) < 0.001
    assert andromeda["messier"] == "031"


def test_summary_leaves_the_sql_out() -> None:
    assert (
        summary("Query\n  r0: rows\n      SELECT 1\n  final on the coordinator: SELECT 2\n  estimated: x")
        == "  Query\n    r0: rows\n    estimated: x"
    )
    assert SCHEMA.is_file()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
