"""What we load is HATS: LSDB opens it, counts it, searches cones and cross-matches it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from qengine.catalog.model import TableKind
from tests.loader.stores import Site, sky

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def vectors(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.float64]:
    a, d = np.radians(ra), np.radians(dec)
    return np.column_stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])


def loaded(site: Site) -> tuple[dict[str, NDArray[np.float64]], Path]:
    columns = sky(4000)
    columns["ra"][10] = np.nan
    site.load(site.write("a.parquet", columns), key="id", rows_per_tile=300)
    is_placed = np.isfinite(columns["ra"])
    return {name: np.asarray(columns[name])[is_placed] for name in ("id", "ra", "dec")}, site.store.root / "demo/obj"


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
