"""Every function on a table in many tiles: the answer is that of one DuckDB with all the rows.

The examples of the function table are asked of a cluster with several workers, over a director of a few hundred rows in tiles of
at most forty: scalars in the select list of all rows, aggregates of the whole table and by groups, windows over all rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qengine.catalog.model import Catalog, TableKind
from qengine.catalog.registry import Registry
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.sky.healpix import cells_of
from qengine.sql.bind import bind
from qengine.sql.functions import FUNCTIONS, Function, Role
from qengine.sql.macros import MACROS
from qengine.sql.parse import parse
from qengine.sql.render import render
from qengine.storage.objects import Store
from tests.support.cluster import LocalCluster, in_process_cluster

ROWS = 400
LEFT_OUT = {"APPROX_QUANTILE", "IN_UNIT"}
"""One depends on the order of rows; the other needs units, which Parquet files do not declare."""


def sky_table() -> pa.Table:
    """The columns of the examples, with NULLs in some; positions all over the sky, some in one place."""
    rng = np.random.default_rng(5)
    number = np.arange(1, ROWS + 1)
    ra, dec = rng.uniform(0, 360, ROWS), np.degrees(np.arcsin(rng.uniform(-1, 1, ROWS)))
    ra[:60], dec[:60] = 10 + rng.normal(0, 0.4, 60), 20 + rng.normal(0, 0.4, 60)
    missing = rng.random(ROWS) < 0.1
    return pa.table({
        "id": pa.array(number, pa.int64()),
        "ra": ra,
        "dec": dec,
        "n": pa.array(rng.integers(1, 9, ROWS), pa.int64()),
        "x": pa.array(rng.permutation(number) / 64.0, mask=missing),
        "name": pa.array([f"star {i % 37}" for i in number], mask=missing[::-1]),
        "flag": pa.array(rng.random(ROWS) < 0.5, mask=missing),
        "seen": pa.array(1577836800_000000 + number * 3_700_123_457, pa.timestamp("us")),
        "times": pa.array([[float(i), 2.0, i / 8] for i in number], pa.list_(pa.float64())),
        "curve": pa.array(
            [{"mjd": [1.0 * i, 2.0], "flux": [3.0]} for i in number],
            pa.struct([("mjd", pa.list_(pa.float64())), ("flux", pa.list_(pa.float64()))]),
        ),
    })  # fmt: skip


class Both:
    """The cluster and the oracle."""

    def __init__(self, cluster: LocalCluster, catalog: Catalog, rows: pa.Table) -> None:
        self.cluster = cluster
        self.catalog = catalog
        self.db = duckdb.connect()
        for macro in MACROS:
            self.db.execute(macro)
        cells = cells_of(rows.column("ra").to_numpy(), rows.column("dec").to_numpy())
        rows = rows.append_column("_healpix_29", pa.array(cells))
        self.db.execute("CREATE SCHEMA sky")
        self.db.register("rows", rows)
        self.db.execute("CREATE TABLE sky.t AS SELECT * FROM rows")

    def check(self, text: str) -> None:
        found = [tuple(row.values()) for row in self.cluster.query(text).to_pylist()]
        expected = self.db.execute(render(bind(parse(text, "adql"), self.catalog).tree)).fetchall()
        assert len(found) == len(expected), text
        for one, two in zip(sorted(map(plain, found), key=repr), sorted(map(plain, expected), key=repr), strict=True):
            assert one == two, text


def plain(value: object) -> object:
    """Floats to ten digits: sums may differ in the last ones."""
    if isinstance(value, float):
        return float(f"{value:.10g}") + 0.0
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    root = tmp_path_factory.mktemp("functions")
    rows = sky_table()
    store_root = root / "store"
    store_root.mkdir()
    pq.write_table(rows, root / "t.parquet")
    registry = Registry.open(store_root)
    request = LoadRequest(
        inputs=(root / "t.parquet",), catalog="sky", table="t", kind=TableKind.DIRECTOR, key="id", ra="ra", dec="dec",
        rows_per_tile=40, margin_arcsec=5.0, workers=1,
    )  # fmt: skip
    load(request, registry, Store(Path(store_root)))
    with in_process_cluster(store_root, root / "work") as cluster:
        yield Both(cluster, registry.catalog(), rows)


def statements(function: Function) -> list[str]:
    if function.example.startswith("SELECT"):
        return [function.example]
    if function.role is Role.AGGREGATE:
        every = f"SELECT {function.example} AS v FROM sky.t"
        groups = f"SELECT MOD(id, 3) AS g, {function.example} AS v FROM sky.t WHERE x IS NOT NULL GROUP BY MOD(id, 3)"
        return [every, groups]
    if function.role is Role.WINDOW:
        return [f"SELECT id, {function.example.replace('ORDER BY ', 'ORDER BY id, ')} AS v FROM sky.t"]
    return [f"SELECT id, {function.example} AS v FROM sky.t"]


ALL = tuple(f for f in FUNCTIONS.values() if not f.is_volatile and f.name not in LEFT_OUT)


@pytest.mark.parametrize("function", [f for f in ALL if f.role in (Role.AGGREGATE, Role.WINDOW)], ids=lambda f: f.name)
def test_aggregate(both: Both, function: Function) -> None:
    for text in statements(function):
        both.check(text)


NOTEBOOK = (
    "SELECT id, scisql_nanojanskyToAbMag(x * 1000) AS mag FROM sky.t WHERE scisql_s2PtInCircle(ra, dec, 10, 20, 0.5) = 1",
    "SELECT COUNT(*) AS n FROM sky.t WHERE qserv_areaspec_box(9.8, 19.5, 10.2, 20.5) AND x > 1",
    "SELECT COUNT(*) AS n FROM sky.t AS o WHERE qserv_areaspec_circle(10, 20, 0.3) AND scisql_fluxToAbMag(o.x) IS NOT NULL",
    "SELECT o.id, p.id AS other, scisql_angSep(o.ra, o.dec, p.ra, p.dec) AS d FROM sky.t o, sky.t p "
    "WHERE qserv_areaspec_circle(10, 20, 0.3) AND scisql_angSep(o.ra, o.dec, p.ra, p.dec) < 0.05 AND o.id <> p.id",
    "SELECT COUNT(*) AS n FROM sky.t WHERE scisql_s2PtInEllipse(ra, dec, 10, 20, 3600, 900, 30) = 1",
    "SELECT COUNT(*) AS n FROM sky.t WHERE scisql_s2PtInCPoly(ra, dec, 9, 19, 11, 19, 10, 21) = 1 AND flag = 1",
    "SELECT COUNT(*) AS n FROM sky.t WHERE scisql_s2PtInBox(ra, dec, 350, -10, 20, 40) = 0",
    "SELECT MOD(id, 5) AS g, scisql_median(x) AS m, scisql_percentile(x, 90) AS p FROM sky.t GROUP BY MOD(id, 5)",
    "SELECT COUNT(*) AS n FROM sky.t WHERE CONTAINS(POINT(ra, dec), MOC('3/245-300 5/1 29/')) = 1",
    "SELECT COUNT(*) AS n FROM sky.t WHERE CONTAINS(POINT(ra, dec), MOC('3/245-300')) = 0 OR id < 5",
    "SELECT COUNT(*) AS n FROM sky.t WHERE CONTAINS(POINT(ra, dec), MOC('2/70-90')) = 1 AND CONTAINS(POINT(ra, dec), "
    "CIRCLE(10, 20, 5)) = 1",
    "SELECT COUNT(*) AS n FROM sky.t WHERE ivo_healpix_index(1, ra, dec) IN (4, 17, 18)",
    "SELECT ivo_healpix_index(0, ra, dec) AS p, COUNT(*) AS n FROM sky.t GROUP BY ivo_healpix_index(0, ra, dec)",
    "SELECT id FROM sky.t WHERE CONTAINS(POINT(ra, dec), REGION('Intersection ICRS (Circle 10 20 1 Not (Circle 10 20 0.3))')) = 1",
    "SELECT id FROM sky.t WHERE CONTAINS(POINT(ra, dec), "
    "REGION('Union ICRS (Circle 10 20 0.2 Box 100 30 40 40 Range 200 210 -5 60)')) = 1",
    "SELECT id FROM sky.t WHERE INTERSECTS(CIRCLE(ra, dec, 0.2), POLYGON(9.5, 19.5, 10.5, 19.5, 10, 20.5)) = 1",
    "SELECT id FROM sky.t WHERE CONTAINS(CIRCLE(ra, dec, 0.2), POLYGON(9.5, 19.5, 10.5, 19.5, 10, 20.5)) = 1",
    "SELECT id FROM sky.t WHERE CONTAINS(BOX(ra, dec, 0.1, 0.1), CIRCLE(10, 20, 0.5)) = 1",
    "SELECT id FROM sky.t WHERE INTERSECTS(BOX(ra, dec, 0.5, 0.5), BOX(10, 20, 0.5, 0.5)) = 1",
    "SELECT id, AREA(BOX(ra, dec, 1, 1)) AS a, CENTROID(POLYGON(ra, dec / 2, ra + 1, dec / 2, ra, dec / 2 "
    "+ 1)) AS c FROM sky.t WHERE id < 50",
)


def test_every_kind_of_region_and_pasted_notebooks(both: Both) -> None:
    for text in NOTEBOOK:
        both.check(text)


def test_scalars(both: Both) -> None:
    for function in ALL:
        if function.role not in (Role.AGGREGATE, Role.WINDOW):
            for text in statements(function):
                both.check(text)
