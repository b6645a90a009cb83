"""Real TAP clients: pyvo, and STILTS where it is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import httpx
import numpy as np
import pytest
import pyvo
from pyvo.dal import DALOverflowWarning, DALQueryError

from tests.support.fake_service import FakeService

needs_stilts = pytest.mark.skipif(shutil.which("stilts") is None, reason="stilts is not installed")


@pytest.fixture(scope="module")
def tap(url: str) -> pyvo.dal.TAPService:
    return pyvo.dal.TAPService(url)


def test_search(tap: pyvo.dal.TAPService) -> None:
    table = tap.search("SELECT TOP 100 source_id, ra, mag, name FROM demo.stars ORDER BY source_id").to_table()
    assert list(table["source_id"]) == list(range(100))
    assert str(table["ra"].unit) == "deg"
    assert table["mag"].mask.sum() == 10
    assert table["name"][0] == "star <0> é"


def test_a_cut_result_warns(tap: pyvo.dal.TAPService) -> None:
    with pytest.warns(DALOverflowWarning):
        assert len(tap.search("SELECT source_id FROM demo.stars")) == 500
    assert tap.search("SELECT source_id FROM demo.stars", maxrec=5).status[0] == "OVERFLOW"


def test_error_text_reaches_the_user(tap: pyvo.dal.TAPService) -> None:
    with pytest.raises(DALQueryError, match="line 1, column 8"):
        tap.search("SELECT brightness FROM demo.stars")


def test_tables(tap: pyvo.dal.TAPService) -> None:
    stars = tap.tables["demo.stars"]
    assert stars.description == "Stars of a test"
    columns = {column.name: column for column in stars.columns}
    assert list(columns) == ["source_id", "ra", "dec", "mag", "name"]
    assert (columns["ra"].unit, columns["ra"].ucd, columns["ra"].description) == ("deg", "pos.eq.ra;meta.main", "Right ascension")
    assert columns["mag"].description == "A < magnitude & more"
    assert columns["name"].datatype.arraysize == "*"
    assert "TAP_SCHEMA.columns" in tap.tables.keys()  # noqa: SIM118


def test_tap_schema_is_queryable(tap: pyvo.dal.TAPService) -> None:
    found = tap.search("SELECT column_name, datatype FROM TAP_SCHEMA.columns WHERE table_name = 'demo.stars'")
    assert {row["column_name"]: row["datatype"] for row in found}["source_id"] == "long"


@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyDeprecationWarning")
def test_capabilities(tap: pyvo.dal.TAPService) -> None:
    assert tap.available
    assert tap.maxrec == 500
    assert tap.hardlimit == 5000
    ids = [capability.standardid for capability in tap.capabilities]
    assert ids.count("ivo://ivoa.net/std/TAP") == 1
    language = next(c for c in tap.capabilities if c.standardid == "ivo://ivoa.net/std/TAP").get_adql()
    assert language is not None
    assert {version.content for version in language.versions} == {"2.0", "2.1", "2.1-strict"}
    assert language.get_feature("ivo://ivoa.net/std/TAPRegExt#features-adqlgeo", "CIRCLE") is not None


def test_one_table(http: httpx.Client, url: str) -> None:
    assert "<name>demo.stars</name>" in http.get(f"{url}/tables/demo.stars").text
    assert "<name>demo.stars</name>" in http.get(f"{url}/tables/DEMO.Stars").text
    assert http.get(f"{url}/tables/demo.nothing").status_code == 404


def test_detail(http: httpx.Client, url: str) -> None:
    assert "<column" not in http.get(f"{url}/tables?detail=min").text
    document = http.get(f"{url}/tables").text
    assert "<targetTable>demo.stars</targetTable>" in document
    assert http.get(f"{url}/tables?detail=none").status_code == 400


def test_page_for_people(http: httpx.Client, url: str) -> None:
    page = http.get(url)
    assert page.headers["content-type"].startswith("text/html")
    assert f'pyvo.dal.TAPService("{url}")' in page.text
    assert "demo.stars" in page.text
    assert http.get(url.removesuffix("/tap"), follow_redirects=True).text == page.text


def test_availability_tells_what_is_wrong(http: httpx.Client) -> None:
    from qengine.errors import RegistryError
    from qengine.tap.app import create_app
    from tests.support.http_server import serving

    class Broken(FakeService):
        def catalog(self, *, identity):  # type: ignore[no-untyped-def]
            raise RegistryError("the registry is gone")

        def __init__(self) -> None:
            pass

    with serving(create_app(Broken())) as address:
        document = http.get(f"{address}/tap/availability").text
        assert "<vosi:available>false</vosi:available>" in document
        assert "the registry is gone" in document
        assert http.get(f"{address}/tap/tables").status_code == 500


@needs_stilts
def test_stilts_tapquery(url: str, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    text = "SELECT TOP 20 source_id, ra, mag, name FROM demo.stars ORDER BY source_id"
    command = ["stilts", "tapquery", f"tapurl={url}", f"adql={text}", "sync=true", "ofmt=csv", f"out={out}"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    lines = out.read_text().splitlines()
    assert len(lines) == 21
    assert lines[1].startswith("0,0.0,")
    assert "star <0> é" in lines[1]


@needs_stilts
def test_stilts_shows_the_error(url: str) -> None:
    done = subprocess.run(
        ["stilts", "tapquery", f"tapurl={url}", "adql=SELECT brightness FROM demo.stars", "sync=true"],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert "line 1, column 8" in done.stderr


@needs_stilts
@pytest.mark.parametrize("kind", ["votable", "votable/td"])
def test_votlint_is_content(http: httpx.Client, url: str, tmp_path: Path, kind: str) -> None:
    document = http.post(f"{url}/sync", data={"LANG": "ADQL", "QUERY": "SELECT * FROM demo.stars", "RESPONSEFORMAT": kind}).content
    path = tmp_path / "result.xml"
    path.write_bytes(document)
    done = subprocess.run(["stilts", "votlint", f"votable={path}"], check=False, capture_output=True, text=True, timeout=60)
    assert [line for line in (done.stdout + done.stderr).splitlines() if line.strip()] == []


@needs_stilts
@pytest.mark.slow
def test_taplint_finds_no_errors_in_metadata(url: str) -> None:
    stages = "TMV TME TMS TMC CPV CAP AVV QGE QPO"
    done = subprocess.run(
        ["stilts", "taplint", f"tapurl={url}", f"stages={stages}", "format=json", "report=EWF"],
        check=True, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    found = json.loads(done.stdout)
    problems = [report for section in found["sections"] for report in section["reports"] if report["level"] in ("ERROR", "E")]
    assert found["totals"]["ERROR"] == 0, problems


def test_integers_are_integers(tap: pyvo.dal.TAPService) -> None:
    assert tap.search("SELECT TOP 3 source_id FROM demo.stars").to_table()["source_id"].dtype == np.int64
