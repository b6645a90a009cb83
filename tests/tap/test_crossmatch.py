"""CROSSMATCH of two catalogues of different epochs, from a sidecar with `[motion]` through a load to the command line and TAP."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pyvo

from qengine.app import connect
from qengine.cli import run

ROWS, YEARS = 400, 16.0
SCHEMA = """
name: sky
"@id": "#sky"
tables:
- name: Now
  "@id": "#Now"
  primaryKey: "#Now.id"
  columns:
  - {name: id, "@id": "#Now.id", datatype: long}
  - {name: ra, "@id": "#Now.ra", datatype: double, "fits:tunit": deg}
  - {name: dec, "@id": "#Now.dec", datatype: double, "fits:tunit": deg}
  - {name: pmra, "@id": "#Now.pmra", datatype: double, "fits:tunit": mas/yr}
  - {name: pmdec, "@id": "#Now.pmdec", datatype: double, "fits:tunit": mas/yr}
- name: Plates
  "@id": "#Plates"
  primaryKey: "#Plates.plate"
  columns:
  - {name: plate, "@id": "#Plates.plate", datatype: long}
  - {name: ra, "@id": "#Plates.ra", datatype: double, "fits:tunit": deg}
  - {name: dec, "@id": "#Plates.dec", datatype: double, "fits:tunit": deg}
"""
SIDECAR = """
[motion]
pmra = "pmra"
pmdec = "pmdec"
[tables.Now]
kind = "director"
ra = "ra"
dec = "dec"
epoch = 2016.0
rows_per_tile = 50
[tables.Plates]
kind = "director"
ra = "ra"
dec = "dec"
epoch = 2000.0
rows_per_tile = 80
"""
TEXT = "SELECT m.id, m.plate, m.separation_arcsec FROM CROSSMATCH(sky.Now, sky.Plates, 0.5, '{how}') AS m ORDER BY m.id, m.plate"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crossmatch")
    (folder / "schema.yaml").write_text(SCHEMA)
    (folder / "sharding.toml").write_text(SIDECAR)
    rng = np.random.default_rng(3)
    ids = np.arange(ROWS)
    ra, dec = rng.uniform(0, 360, ROWS), np.degrees(np.arcsin(rng.uniform(-0.98, 0.98, ROWS)))
    pmra, pmdec = rng.normal(0, 1500, ROWS), rng.normal(0, 1500, ROWS)
    # In a straight line and small: so flat that the difference does not matter at half an arcsecond.
    then_dec = dec - pmdec * YEARS / 3.6e6
    then_ra = (ra - pmra * YEARS / 3.6e6 / np.cos(np.radians(dec))) % 360.0
    now = pa.table({"id": ids, "ra": ra, "dec": dec, "pmra": pmra, "pmdec": pmdec})
    pq.write_table(now, folder / "now.parquet")
    pq.write_table(pa.table({"plate": 1000 + ids, "ra": then_ra, "dec": then_dec}), folder / "plates.parquet")
    for name in ("Now", "Plates"):
        options = ["--store", str(folder / "store"), "--into", "sky", "--schema", str(folder / "schema.yaml")]
        assert run(["load", str(folder / f"{name.lower()}.parquet"), "--table", name, *options]) == 0
    return folder / "store"


@pytest.fixture(scope="module")
def tap(store: Path) -> Iterator[str]:
    program = "import sys, qengine.app; qengine.app.serve(sys.argv[1], workers=0, port=0)"
    with subprocess.Popen([sys.executable, "-c", program, str(store)], stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            yield next(line for line in server.stderr if line.startswith("TAP at ")).split()[2].rstrip(",")
        finally:
            server.terminate()


@pytest.mark.parametrize("how", ["all", "nearest"])
def test_stars_that_moved_by_many_radii_are_found(store: Path, how: str) -> None:
    with connect(store) as client:
        found = client.query(TEXT.format(how=how)).to_arrow()
        assert "pm" in str(client.query("SELECT column_name FROM TAP_SCHEMA.columns WHERE column_name = 'pmra'").to_arrow())
        unmoved = client.query(
            "SELECT COUNT(*) AS n FROM sky.Now a, sky.Plates b WHERE DISTANCE(a.ra, a.dec, b.ra, b.dec) <= 0.5 / 3600"
        ).to_arrow()
    assert found["id"].to_pylist() == list(range(ROWS))
    assert found["plate"].to_pylist() == [1000 + i for i in range(ROWS)]
    assert max(found["separation_arcsec"].to_pylist()) < 0.05
    assert unmoved["n"].to_pylist()[0] < ROWS / 10


def test_through_the_command_line(store: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run(["query", TEXT.format(how="nearest"), "--store", str(store), "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capfdbinary.readouterr().out.decode())))
    assert [(int(row["id"]), int(row["plate"])) for row in rows] == [(i, 1000 + i) for i in range(ROWS)]
    assert run(["explain", TEXT.format(how="all"), "--store", str(store)]) == 0
    assert "found by the compiled kernel" in capfdbinary.readouterr().out.decode()


def test_through_tap(tap: str) -> None:
    found = pyvo.dal.TAPService(tap).run_sync(TEXT.format(how="all")).to_table()
    assert found["id"].tolist() == list(range(ROWS))
    assert found["plate"].tolist() == [1000 + i for i in range(ROWS)]
