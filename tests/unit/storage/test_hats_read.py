"""HATS catalogues of all writers are read, and what contradicts itself is named."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qengine.errors import InputError
from qengine.sky.cells import Tile
from qengine.storage.hats_read import read_catalog, read_hats, read_properties
from tests.support.hats_trees import Style, sky, with_cells, write_catalog, write_leaf, write_properties


def rows_in(paths: list[Path]) -> int:
    return sum(pq.read_metadata(path).num_rows for path in paths)


@pytest.mark.parametrize("suffix", [".parquet", ".parq", ".snappy.parquet", "/"])
@pytest.mark.parametrize("partition_info", [True, False])
@pytest.mark.parametrize("is_declared", [True, False])
def test_tiles_are_found_in_every_layout(tmp_path: Path, suffix: str, partition_info: bool, is_declared: bool) -> None:
    if suffix == ".snappy.parquet" and not is_declared:
        pytest.skip("nobody could know this suffix")
    style = Style(suffix=suffix, partition_info=partition_info)
    write_catalog(tmp_path, sky(), style=style, properties={"hats_npix_suffix": suffix if is_declared else ""})
    found = read_catalog(tmp_path)
    assert rows_in([file.path for file in found.files]) == 300
    assert len({file.tile for file in found.files}) == 48
    starts = [file.tile.range[0] for file in found.files]
    assert starts == sorted(starts)


@pytest.mark.parametrize("name", ["properties", "hats.properties"])
def test_either_properties_file(tmp_path: Path, name: str) -> None:
    write_catalog(tmp_path / "c", sky(), style=Style(properties_file=name))
    assert read_hats(tmp_path / "c").primary.properties["hats_col_ra"] == "ra"
    assert read_hats(tmp_path / "c" / "hats.properties").primary.root == tmp_path / "c"


@pytest.mark.parametrize("schema_file", ["_common_metadata", "_metadata", ""])
def test_schema_is_found(tmp_path: Path, schema_file: str) -> None:
    write_catalog(tmp_path, sky(), style=Style(schema_file=schema_file))
    assert read_catalog(tmp_path).schema.names == ["id", "ra", "dec", "mag", "name"]


def test_partition_info_decides_what_is_visible(tmp_path: Path) -> None:
    write_catalog(tmp_path, sky())
    lines = (tmp_path / "partition_info.csv").read_text().splitlines()
    (tmp_path / "partition_info.csv").write_text("\n".join(lines[:3]))
    assert len(read_catalog(tmp_path).files) == 2
    (tmp_path / "partition_info.csv").write_text("Norder,Npix\n1,0\n1,0\n")
    assert len(read_catalog(tmp_path).files) == 1
    (tmp_path / "partition_info.csv").write_text("Norder,Npix\n3,700\n")
    with pytest.raises(InputError, match="Npix=700"):
        read_catalog(tmp_path)
    for text in ("Norder,Npix\n1,48\n", "Norder,Npix\n-1,0\n", "order,pixel\n1,2\n", "Norder,Npix\na,b\n", "Norder,Npix\n1\n"):
        (tmp_path / "partition_info.csv").write_text(text)
        with pytest.raises(InputError, match=r"partition_info\.csv"):
            read_catalog(tmp_path)


def test_hidden_files_in_leaves_are_no_data(tmp_path: Path) -> None:
    write_catalog(tmp_path, sky(), style=Style(suffix="/"))
    [leaf, *_] = (path for path in tmp_path.glob("dataset/Norder=1/Dir=0/Npix=*"))
    (leaf / "_stage.parquet").write_bytes(b"x")
    (leaf / ".hidden").write_bytes(b"x")
    assert rows_in([file.path for file in read_catalog(tmp_path).files]) == 300


def test_overlapping_tiles(tmp_path: Path) -> None:
    write_catalog(tmp_path, sky(), style=Style(partition_info=False))
    write_leaf(tmp_path, 3, 16 * 5 + 7, sky(3), Style())
    with pytest.raises(InputError, match=r"order 1 pixel 5 .*order 3 pixel 87|order 3 pixel 87 .*order 1 pixel 5"):
        read_catalog(tmp_path)


@pytest.mark.parametrize(
    ("columns", "properties", "line"),
    [
        ({}, {}, ""),
        ({"name": "_healpix_29"}, {}, "_healpix_29"),
        ({"name": "_healpix_29"}, {"hats_col_healpix": "_healpix_29", "hats_col_healpix_order": "29"}, "_healpix_29"),
        ({"name": "pix"}, {"hats_col_healpix": "pix", "hats_col_healpix_order": "29"}, "pix"),
        ({"name": "pix"}, {}, ""),
        ({"name": "_healpix_19", "order": 19}, {"hats_col_healpix": "_healpix_19", "hats_col_healpix_order": "19"}, ""),
        ({}, {"hats_col_healpix": "_healpix_29"}, ""),
    ],
)
def test_line_column(tmp_path: Path, columns: dict[str, object], properties: dict[str, str], line: str) -> None:
    rows = with_cells(sky(), **columns) if columns else sky()
    assert read_catalog(write_catalog(tmp_path, rows, properties=properties)).line_column == line


def test_line_column_of_another_type(tmp_path: Path) -> None:
    rows = with_cells(sky())
    rows = rows.set_column(rows.schema.get_field_index("_healpix_29"), "_healpix_29", rows["_healpix_29"].cast(pa.string()))
    assert read_catalog(write_catalog(tmp_path, rows)).line_column == ""


def test_collections(tmp_path: Path) -> None:
    write_catalog(tmp_path / "snapshots" / "7", sky())
    write_properties(
        tmp_path / "collection.properties",
        {"hats_primary_table_url": "snapshots/7", "all_margins": "m_5 m_10", "default_margin": "m_10"},
    )
    found = read_hats(tmp_path)
    assert found.primary.root == tmp_path / "snapshots/7"
    assert found.margins == (tmp_path / "m_10", tmp_path / "m_5")
    for url, words in (
        ("https://x.org/c", "not a local path"),
        ("nothing", "not a HATS catalogue"),
        ("", "hats_primary_table_url"),
    ):
        write_properties(tmp_path / "collection.properties", {"obs_collection": "x", "hats_primary_table_url": url})
        with pytest.raises(InputError, match=words):
            read_hats(tmp_path)
    write_properties(tmp_path / "collection.properties", {"hats_primary_table_url": f"file://{tmp_path}/snapshots/7"})
    assert len(read_hats(tmp_path).primary.files) == 48


def test_directories_that_are_no_catalogues(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such directory"):
        read_hats(tmp_path / "none")
    with pytest.raises(InputError, match="no properties file"):
        read_hats(tmp_path)
    (tmp_path / "catalog_info.json").write_text("{}")
    with pytest.raises(InputError, match="HiPSCat"):
        read_hats(tmp_path)
    write_properties(tmp_path / "properties", {"dataproduct_type": "object"})
    with pytest.raises(InputError, match="no tiles"):
        read_hats(tmp_path)
    (tmp_path / "properties").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        read_hats(tmp_path)


def test_properties_are_java_properties(tmp_path: Path) -> None:
    path = tmp_path / "p"
    path.write_text(
        "#comment\n! more\n\n a = 1 \nb:2\nc d e\nurl=http\\://x.org/\\u00e9\nkey\\ with\\=signs=v=w\nlong=one\\\n   two\nempty=\nwin=C\\\\x\n"
    )
    assert read_properties(path) == {
        "a": "1", "b": "2", "c": "d e", "url": "http://x.org/é", "key with=signs": "v=w", "long": "onetwo", "empty": "", "win": "C\\x",
    }  # fmt: skip


def test_tiles_have_ranges() -> None:
    assert Tile(0, 11).range == (11 * 4**29, 12 * 4**29)
