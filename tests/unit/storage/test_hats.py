"""The HATS tree: paths, links, properties, map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qengine.storage.hats import (
    Leaf,
    catalogue_properties,
    draft_tree,
    fill_tree,
    leaf_folder,
    link,
    read_properties,
    write_collection,
    write_map,
    write_properties,
)

SCHEMA = pa.schema([("_healpix_29", pa.int64()), ("ra", pa.float64()), ("dec", pa.float64())])


@pytest.mark.parametrize(
    ("order", "index", "path"),
    [
        (0, 11, "dataset/Norder=0/Dir=0/Npix=11"),
        (7, 19_999, "dataset/Norder=7/Dir=10000/Npix=19999"),
        (29, 3458764513820540927, "dataset/Norder=29/Dir=3458764513820540000/Npix=3458764513820540927"),
    ],
)
def test_leaf_folders(order: int, index: int, path: str) -> None:
    assert leaf_folder(order, index) == path


def test_tree_has_what_readers_need(tmp_path: Path) -> None:
    part = tmp_path / f"{'ab' * 32}.parquet"
    pq.write_table(SCHEMA.empty_table(), part)
    leaves = [Leaf(order=2, index=5, parts=(part,), rows=7, bytes=9), Leaf(order=1, index=9, parts=(part,), rows=3, bytes=9)]
    properties = catalogue_properties(
        name="c", product="object", ra="ra", dec="dec", leaves=leaves, schema=SCHEMA, builder="test", created="2026-01-01T00:00UTC"
    )
    draft_tree(tmp_path / "t", leaves, SCHEMA, root=tmp_path, properties=properties, point_map=np.zeros(12, np.int64))
    fill_tree(tmp_path / "t", tmp_path)
    files = {p.relative_to(tmp_path / "t").as_posix() for p in (tmp_path / "t").rglob("*") if p.is_file()}
    assert files == {
        "properties", "hats.properties", "partition_info.csv", "point_map.fits", "skymap.fits", "dataset/_common_metadata",
        "dataset/Norder=2/Dir=0/Npix=5/abababababababababababab.parquet", "dataset/Norder=1/Dir=0/Npix=9/abababababababababababab.parquet",
    }  # fmt: skip
    assert pq.read_schema(tmp_path / "t/dataset/_common_metadata").names == SCHEMA.names
    found = read_properties(tmp_path / "t/hats.properties")
    assert found == {key: value for key, value in properties.items() if value} | {"hats_skymap_order": "0"}
    assert (found["hats_nrows"], found["hats_order"], found["hats_max_rows"]) == ("10", "2", "7")
    assert found["hats_cols_default"] == "ra dec"
    assert float(found["moc_sky_fraction"]) == pytest.approx(1 / 192 + 1 / 48, abs=1e-5)


def test_a_tree_whose_links_were_interrupted_is_filled_anew(tmp_path: Path) -> None:
    part = tmp_path / f"store/p/{'ab' * 32}.parquet"
    part.parent.mkdir(parents=True)
    pq.write_table(SCHEMA.empty_table(), part)
    leaves = [Leaf(order=2, index=index, parts=(part,), rows=1, bytes=1) for index in range(3)]
    draft_tree(tmp_path / "store/t", leaves, SCHEMA, root=tmp_path / "store", properties={})
    half = tmp_path / f"store/t/{leaf_folder(2, 1)}"
    half.mkdir(parents=True)
    (half / "abababababababababababab.parquet").write_bytes(b"half a copy")
    moved = (tmp_path / "store").rename(tmp_path / "moved")
    for _ in range(2):  # the second time there is nothing to do
        fill_tree(moved / "t", moved)
        found = sorted((moved / "t").rglob("Npix=*/*.parquet"))
        assert [path.parent.name for path in found] == ["Npix=0", "Npix=1", "Npix=2"]
        assert {path.stat().st_ino for path in found} == {(moved / "p" / part.name).stat().st_ino}
    assert not [path for path in (moved / "t").iterdir() if path.name.startswith(".")]


def test_links_share_bytes_and_do_not_copy(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").stat().st_ino == (tmp_path / "a").stat().st_ino


def test_properties_are_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "p"
    write_properties(path, {"a": "1", "text": "two = three", "empty": ""})
    write_properties(path, {"b": "line\nbreak"})
    assert read_properties(path) == {"b": "line break"}
    assert [p.name for p in tmp_path.iterdir()] == ["p"]


def test_collection_names_tree_and_margins(tmp_path: Path) -> None:
    write_collection(tmp_path, name="c", primary="snapshots/3", margins=["snapshots/3_10arcs"])
    found = read_properties(tmp_path / "collection.properties")
    assert found["hats_primary_table_url"] == "snapshots/3"
    assert found["default_margin"] == "snapshots/3_10arcs"
    write_collection(tmp_path, name="c", primary="snapshots/4", margins=[])
    assert "all_margins" not in read_properties(tmp_path / "collection.properties")


def test_map_is_fits_that_astropy_reads(tmp_path: Path) -> None:
    fits = pytest.importorskip("astropy.io.fits")
    counts = np.arange(12 * 4**3, dtype=np.int64) * 10**10
    write_map(counts, tmp_path / "point_map.fits")
    with fits.open(tmp_path / "point_map.fits") as found:
        assert np.array_equal(found[1].data["VALUE"], counts)
        header = found[1].header
    assert (header["ORDERING"], header["NSIDE"], header["INDXSCHM"]) == ("NESTED", 8, "IMPLICIT")


def test_maps_are_sky_maps_of_several_orders(tmp_path: Path) -> None:
    healpy = pytest.importorskip("healpy")
    hats = pytest.importorskip("hats")
    from hats.io.skymap import read_skymap

    counts = np.random.default_rng(1).integers(0, 1000, 12 * 4**5)
    schema = pa.schema([pa.field("_healpix_29", pa.int64()), *SCHEMA])
    table = pa.table({field.name: pa.array([1], field.type) for field in schema}, schema=schema)
    part = tmp_path / f"{'ab' * 32}.parquet"
    pq.write_table(table, part)
    leaves = [Leaf(order=0, index=0, parts=(part,), rows=1, bytes=9)]
    words = catalogue_properties(
        name="c", product="object", ra="ra", dec="dec", leaves=leaves, schema=schema, builder="test", created="2026-01-01T00:00UTC"
    )
    draft_tree(tmp_path / "t", leaves, schema, root=tmp_path, properties=words, point_map=counts)
    fill_tree(tmp_path / "t", tmp_path)
    catalog = hats.read_hats(tmp_path / "t")
    assert (catalog.catalog_info.skymap_order, catalog.catalog_info.skymap_alt_orders) == (5, [2, 4])
    for order in (None, 5, 4, 3, 2, 1, 0):
        expected = counts if order is None else counts.reshape(12 * 4**order, -1).sum(axis=1)
        assert np.array_equal(read_skymap(catalog, order), expected), order
    assert np.array_equal(healpy.read_map(tmp_path / "t/skymap.fits", nest=True, dtype=np.int64), counts)
    assert np.array_equal(
        healpy.read_map(tmp_path / "t/skymap.4.fits", nest=True, dtype=np.int64), counts.reshape(12 * 4**4, 4).sum(axis=1)
    )
