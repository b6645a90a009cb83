"""What we load is HATS: LSDB opens it, counts it, searches cones and cross-matches it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from qengine import connect
from qengine.catalog.model import TableKind
from qengine.loader.once import compact
from qengine.loader.sources.open import InputOptions
from tests.loader.stores import Site, sky

pytestmark = pytest.mark.filterwarnings("ignore")


def vectors(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.float64]:
    a, d = np.radians(ra), np.radians(dec)
    return np.column_stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])


def loaded(site: Site) -> tuple[dict[str, NDArray[np.float64]], Path]:
    columns = sky(4000)
    columns["ra"][10] = np.nan
    site.load(site.write("a.parquet", columns), key="id", rows_per_tile=300)
    is_placed = np.isfinite(columns["ra"])
    return {name: np.asarray(columns[name])[is_placed] for name in ("id", "ra", "dec")}, site.store.root / "demo/obj"


@pytest.mark.slow
def test_director(site: Site) -> None:
    lsdb = pytest.importorskip("lsdb")
    from hats.io.validation import is_valid_catalog

    truth, path = loaded(site)
    assert is_valid_catalog(path, strict=True)
    catalog = lsdb.open_catalog(path)
    assert len(catalog) == len(truth["id"])
    everything = catalog.compute()
    assert sorted(everything["id"]) == sorted(truth["id"])
    assert list(everything.columns) == ["id", "ra", "dec", "mag", "name"]
    points = vectors(truth["ra"], truth["dec"])
    for ra, dec, radius in ((0.0, 41.81, 0.02), (0.0, 90.0, 5.0), (359.999, 0.0, 3.0), (200.0, -40.0, 20.0)):
        center = vectors(np.array([ra]), np.array([dec]))
        is_near = np.linalg.norm(points - center, axis=1) < 2 * np.sin(np.radians(radius) / 2)
        found = catalog.cone_search(ra, dec, radius * 3600).compute()
        assert sorted(found["id"]) == sorted(truth["id"][is_near]), (ra, dec, radius)


@pytest.mark.slow
def test_crossmatch_with_margin_finds_pairs_across_tiles(site: Site) -> None:
    lsdb = pytest.importorskip("lsdb")
    from scipy.spatial import cKDTree

    truth, path = loaded(site)
    catalog = lsdb.open_catalog(path)
    assert catalog.margin is not None
    matched = catalog.crossmatch(
        catalog, radius_arcsec=4, n_neighbors=50, suffixes=("_a", "_b"), suffix_method="all_columns"
    ).compute()
    tree = cKDTree(vectors(truth["ra"], truth["dec"]))
    pairs = len(tree.query_pairs(2 * np.sin(np.radians(4 / 3600) / 2)))
    assert len(matched) == 2 * pairs + len(truth["id"])


@pytest.mark.slow
def test_child(site: Site) -> None:
    lsdb = pytest.importorskip("lsdb")
    from hats.io.validation import is_valid_catalog

    truth, _ = loaded(site)
    rng = np.random.default_rng(2)
    picked = rng.integers(0, len(truth["id"]), 20_000)
    keys = pa.array([*truth["id"][picked].tolist(), -5, None])
    child = {"sid": np.arange(len(keys)), "oid": keys, "ra": rng.uniform(0, 360, len(keys)), "dec": rng.uniform(-90, 90, len(keys))}
    site.load(
        site.write("c.parquet", child),
        table="src",
        kind=TableKind.CHILD,
        director="obj",
        director_key="oid",
        key="sid",
        rows_per_tile=100,
    )
    path = site.store.root / "demo/src"
    assert is_valid_catalog(path, strict=True)
    catalog = lsdb.open_catalog(path)
    assert len(catalog) == 20_000
    center = vectors(np.array([0.0]), np.array([41.81]))
    is_near = np.linalg.norm(vectors(truth["ra"], truth["dec"]) - center, axis=1) < 2 * np.sin(np.radians(0.02) / 2)
    found = catalog.cone_search(0.0, 41.81, 72).compute()
    assert len(found) == int(np.isin(truth["id"][picked], truth["id"][is_near]).sum())


# -- the same after everything that may happen to a table ---------------------------------------------------------------------

CHILD: dict[str, Any] = {"table": "src", "kind": TableKind.CHILD, "director": "obj", "director_key": "oid", "key": "sid"}
MATCH: dict[str, Any] = {"table": "pair", "kind": TableKind.MATCH, "left": "obj.oid", "right": "star.sid"}
STATES = ("full", "appended", "replaced", "compacted")
CONES = ((0.0, 41.81, 0.02), (0.0, 90.0, 5.0), (359.999, 0.0, 3.0), (200.0, -40.0, 20.0))
NEAR_ARCSEC = 4.0


class Family:
    """Objects, stars beside them, sources of objects (some without), and pairs of objects and stars, in four states: as loaded,
    after an append to all, after inputs were replaced, after a compaction."""

    def __init__(self, site: Site, rows: int) -> None:
        self.site = site
        rng = np.random.default_rng(11)
        objects = sky(rows, seed=4)
        objects["ra"][10] = np.nan
        count = len(objects["id"])
        self.objects = pa.table(objects)
        shift = rng.uniform(-3 / 3600, 3 / 3600, count)
        self.stars = pa.table(
            {
                "id": np.arange(count) + 10**6,
                "ra": objects["ra"],
                "dec": np.clip(objects["dec"] + shift, -90, 90),
                "mag": rng.normal(size=count),
            }
        )
        keys = rng.choice(objects["id"], 5 * count)
        self.sources = pa.table(
            {"sid": np.arange(5 * count), "oid": pa.array([None, -5, *keys[2:].tolist()]), "flux": rng.normal(size=5 * count)}
        )
        self.pairs = pa.table({"oid": objects["id"], "sid": self.stars["id"], "rank": rng.integers(0, 9, count)})

    def _load(self, name: str, rows: pa.Table, label: str, **words: Any) -> None:
        options = InputOptions(label=label)
        self.site.load(self.site.write(f"{name}-{label}-{rows.num_rows}.parquet", rows), options=options, **words)

    def _load_all(self, label: str, start: float, stop: float) -> None:
        def piece(table: pa.Table) -> pa.Table:
            first, last = (int(table.num_rows * part) for part in (start, stop))
            return table.slice(first, last - first)

        self._load("obj", piece(self.objects), label, table="obj", key="id", rows_per_tile=300)
        self._load("star", piece(self.stars), label, table="star", key="id", rows_per_tile=200)
        self._load("src", piece(self.sources), label, rows_per_tile=100, **CHILD)
        self._load("pair", piece(self.pairs), label, rows_per_tile=100, **MATCH)

    def reach(self, state: str) -> None:
        """Bring all tables into a state."""
        if state == "full":
            return self._load_all("all", 0, 1)
        self._load_all("one", 0, 0.8)
        self._load_all("two", 0.8, 1)
        if state in ("replaced", "compacted"):
            # a new version of an input: half of its rows; sources whose objects go are orphans now
            words = {"allow_orphans": True}
            self._load("obj", self.objects.slice(int(self.objects.num_rows * 0.9)), "two", key="id", rows_per_tile=300, **words)
            self._load(
                "star", self.stars.slice(int(self.stars.num_rows * 0.9)), "two", table="star", key="id", rows_per_tile=200, **words
            )
        if state == "compacted":
            compact("demo", [], self.site.registry, self.site.store)
        return None

    def open(self, lsdb: Any, name: str) -> Any:
        from hats.io.validation import is_valid_catalog

        path = self.site.store.root / "demo" / name
        assert is_valid_catalog(path, strict=True), name
        return lsdb.open_catalog(path)


@pytest.mark.parametrize("state", [pytest.param(one, marks=() if one == "replaced" else pytest.mark.slow) for one in STATES])
def test_lsdb_counts_what_we_count(site: Site, state: str) -> None:
    lsdb = pytest.importorskip("lsdb")
    family = Family(site, 1000)
    family.reach(state)
    with connect(site.store.root) as client:

        def ours(statement: str) -> int:
            return int(client.query(statement).to_arrow()["n"][0].as_py())

        objects, stars, sources, pairs = (family.open(lsdb, name) for name in ("obj", "star", "src", "pair"))
        placed = "ra IS NOT NULL AND dec IS NOT NULL"
        known = f"oid IN (SELECT id FROM demo.obj WHERE {placed})"
        assert len(objects) == len(objects.compute()) == ours(f"SELECT COUNT(*) AS n FROM demo.obj WHERE {placed}")
        assert len(stars) == ours(f"SELECT COUNT(*) AS n FROM demo.star WHERE {placed}")
        assert len(sources) == len(sources.compute()) == ours(f"SELECT COUNT(*) AS n FROM demo.src WHERE {known}")
        assert len(pairs) == len(pairs.compute()) == ours(f"SELECT COUNT(*) AS n FROM demo.pair WHERE {known}")
        assert site.snapshot("src").orphan.rows.sum() > 0

        for ra, dec, radius in CONES:
            cone = f"CONTAINS(POINT(o.ra, o.dec), CIRCLE({ra}, {dec}, {radius})) = 1"
            inside = f"SELECT COUNT(*) AS n FROM demo.obj AS o WHERE {cone}"
            assert len(objects.cone_search(ra, dec, radius * 3600).compute()) == ours(inside)
            of_inside = f"SELECT COUNT(*) AS n FROM demo.obj AS o JOIN demo.src AS s ON s.oid = o.id WHERE {cone}"
            assert len(sources.cone_search(ra, dec, radius * 3600).compute()) == ours(of_inside)

        near = f"DISTANCE(o.ra, o.dec, s.ra, s.dec) < {NEAR_ARCSEC} / 3600"
        matched = objects.crossmatch(
            stars, radius_arcsec=NEAR_ARCSEC, n_neighbors=60, suffixes=("_o", "_s"), suffix_method="all_columns"
        )
        assert len(matched.compute()) == ours(f"SELECT COUNT(*) AS n FROM demo.obj AS o JOIN demo.star AS s ON {near}")

        joined = objects.join(sources, left_on="id", right_on="oid", suffixes=("_o", "_s"), suffix_method="all_columns").compute()
        by_key = "SELECT COUNT(*) AS n FROM demo.obj AS o JOIN demo.src AS s ON s.oid = o.id WHERE o.ra IS NOT NULL"
        assert len(joined) == ours(by_key)
        assert (joined["id_o"] == joined["oid_s"]).all()

        nested = objects.join_nested(sources, left_on="id", right_on="oid", nested_column_name="sources", how="inner").compute()
        assert len(nested) == ours(
            "SELECT COUNT(DISTINCT o.id) AS n FROM demo.obj AS o JOIN demo.src AS s ON s.oid = o.id WHERE o.ra IS NOT NULL"
        )
        assert len(nested["sources"].nest.to_flat()) == ours(by_key)

        paired = objects.join(pairs, left_on="id", right_on="oid", suffixes=("_o", "_p"), suffix_method="all_columns").compute()
        assert len(paired) == ours(
            "SELECT COUNT(*) AS n FROM demo.obj AS o JOIN demo.pair AS p ON p.oid = o.id WHERE o.ra IS NOT NULL"
        )
