"""A HATS catalogue is attached as it lies: nothing is claimed that its footers do not prove, and nothing changes when it is bad."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from qengine.catalog.model import TableKind, TableSnapshot
from qengine.catalog.registry import LoadState, Registry
from qengine.catalog.types import BIGINT, DOUBLE
from qengine.errors import ConfigError, ConflictError, InputError, QEngineError, SchemaError
from qengine.loader.attach import attach
from qengine.sky.cells import LINE_END
from qengine.storage.objects import Store
from tests.support.hats_trees import PROPERTIES, Style, sky, with_cells, write_catalog, write_leaf, write_properties


class Desk:
    """A store with its registry, and one way to attach."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        self.registry = Registry.open(root)

    def attach(self, path: Path, table: str = "Gaia", **options: object) -> TableSnapshot:
        number = attach(path, catalog="ext", table=table, registry=self.registry, store=self.store, **options)
        found = self.registry.catalog().find("ext", table)
        assert found is not None
        assert found.number == number
        return found


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "store")


def rows_of(snapshot: TableSnapshot, role: str = "home") -> pa.Table:
    """What a scan reads: the rows of every part, within the part's range when there is a line column."""
    parts = getattr(snapshot, role)
    line = snapshot.table.line_column
    tables = []
    for number, uri in enumerate(parts.uri.to_pylist()):
        rows = pq.ParquetFile(uri).read()
        if line and role == "home":
            cells = rows[line].to_numpy()
            rows = rows.filter(pa.array((cells >= parts.start[number]) & (cells < parts.stop[number])))
        tables.append(rows)
    return pa.concat_tables(tables)


def test_catalogue_with_line_column(tmp_path: Path, desk: Desk) -> None:
    written = with_cells(sky())
    files = {p: hashlib.sha256(p.read_bytes()).digest() for p in write_catalog(tmp_path / "c", written).rglob("*") if p.is_file()}
    found = desk.attach(tmp_path / "c", key="id")
    table = found.table
    assert (table.kind, table.family, table.key, table.ra, table.dec) == (TableKind.DIRECTOR, "ext.Gaia", "id", "ra", "dec")
    assert (table.line_column, table.is_key_proven, table.has_nan, table.locality_key) == ("_healpix_29", False, True, "")
    assert [(c.name, c.hidden) for c in table.columns][-2:] == [("name", False), ("_healpix_29", True)]
    assert found.rows == 300
    read = rows_of(found).sort_by("id")
    assert read.drop_columns(["mag"]).equals(written.sort_by("id").drop_columns(["mag"]))
    np.testing.assert_array_equal(read["mag"].to_numpy(), written.sort_by("id")["mag"].to_numpy())
    assert set(found.home.digest.to_pylist()) == {""}
    assert all(Path(uri).is_absolute() for uri in found.home.uri.to_pylist())
    assert (found.home.lowest >= found.home.start).all()
    assert (found.home.highest < found.home.stop).all()
    groups = found.home.row_groups
    assert (groups.highest - groups.lowest < 4**28).all()
    assert groups.rows.sum() == 300
    assert found.home.stats["id"].minimum.min() == 0
    assert (found.home.stats["mag"].nulls == -1).all()
    assert {p: hashlib.sha256(p.read_bytes()).digest() for p in files} == files
    [load] = desk.registry.loads()
    assert (load.state, load.context["operation"], load.context["rows"]) == (LoadState.FINISHED, "attach", 300)


def test_catalogue_without_line_column_is_read_by_whole_tiles(tmp_path: Path, desk: Desk) -> None:
    found = desk.attach(write_catalog(tmp_path / "c", sky(), style=Style(suffix="/")))
    assert found.table.line_column == ""
    assert found.rows == 300
    assert len(found.home) == 96
    assert (found.home.lowest == found.home.start).all()
    assert (found.home.highest == found.home.stop - 1).all()
    offset = found.home.row_groups.offset
    assert (found.home.row_groups.lowest == np.repeat(found.home.start, np.diff(offset))).all()


def test_line_column_of_another_name_or_order(tmp_path: Path, desk: Desk) -> None:
    named = write_catalog(
        tmp_path / "a", with_cells(sky(), "pix"), properties={"hats_col_healpix": "pix", "hats_col_healpix_order": "29"}
    )
    found = desk.attach(named, "A")
    assert (found.table.line_column, found.table.column("pix").hidden) == ("pix", True)
    coarse = write_catalog(
        tmp_path / "b", with_cells(sky(), "pix", 13), properties={"hats_col_healpix": "pix", "hats_col_healpix_order": "13"}
    )
    assert desk.attach(coarse, "B").table.line_column == ""


@pytest.mark.parametrize("spoil", ["null", "outside", "no statistics"])
def test_line_column_that_cannot_be_trusted_is_not_used(tmp_path: Path, desk: Desk, spoil: str) -> None:
    write_catalog(tmp_path / "c", with_cells(sky()))
    path = next(tmp_path.glob("c/dataset/Norder=1/Dir=0/*.parquet"))
    rows = pq.read_table(path, partitioning=None)
    cells = rows["_healpix_29"].to_pylist()
    if spoil == "null":
        cells[0] = None
    elif spoil == "outside":
        cells[0] = 47 * 4**28 if "Npix=47." not in path.name else 0
    rows = rows.set_column(rows.schema.get_field_index("_healpix_29"), "_healpix_29", pa.array(cells, pa.int64()))
    pq.write_table(rows, path, write_statistics=spoil != "no statistics")
    found = desk.attach(tmp_path / "c")
    assert found.table.line_column == ""
    assert (found.home.highest == found.home.stop - 1).all()
    assert found.rows == 300


def test_rows_without_position_are_counted_once(tmp_path: Path, desk: Desk) -> None:
    write_catalog(tmp_path / "c", sky(), style=Style(partition_info=False))
    lost = sky(2).set_column(1, "ra", pa.array([None, float("nan")], pa.float64()))
    write_leaf(
        tmp_path / "c", 1, 20, pa.concat_tables([lost, pq.read_table(path_of(tmp_path / "c", 20), partitioning=None)]), Style()
    )
    found = desk.attach(tmp_path / "c")
    assert found.rows == 302
    assert rows_of(found).num_rows == 302
    assert found.table.column("ra").nullable


def path_of(root: Path, tile: int) -> Path:
    return root / "dataset" / "Norder=1" / "Dir=0" / f"Npix={tile}.parquet"


def test_other_position_columns_and_metadata(tmp_path: Path, desk: Desk) -> None:
    schema = pa.schema(
        [
            pa.field("RAJ2000", pa.float64(), metadata={"unit": "deg", "ucd": "pos.eq.ra;meta.main", "description": "position"}),
            pa.field("DEJ2000", pa.float64()),
        ]
    )
    rows = sky().select(["ra", "dec"]).rename_columns(["RAJ2000", "DEJ2000"]).cast(schema)
    words = {
        "hats_col_ra": "RAJ2000", "hats_col_dec": "DEJ2000", "hats_coordinate_epoch": "J2015.5", "obs_title": "A catalogue",
        "bib_reference": "2022A&A", "hats_frame": "ICRS",
    }  # fmt: skip
    table = desk.attach(write_catalog(tmp_path / "c", rows, properties=words)).table
    assert (table.ra, table.dec, table.epoch) == ("RAJ2000", "DEJ2000", 2015.5)
    assert (table.release.title, table.release.citation) == ("A catalogue", "2022A&A")
    column = table.column("RAJ2000")
    assert (column.unit, column.ucd, column.description) == ("deg", "pos.eq.ra;meta.main", "position")


def test_columns_that_cannot_be_used_are_left_out(tmp_path: Path, desk: Desk) -> None:
    rows = sky()
    nested = pa.array([{"mjd": [1.0], "mag": [2.0]}] * 300)
    rows = rows.append_column("lc", nested).append_column("list", pa.array([[1.0, 2.0]] * 300))
    rows = rows.append_column("by_band", pa.array([[("r", 1.0)]] * 300, pa.map_(pa.string(), pa.float64())))
    table = desk.attach(write_catalog(tmp_path / "c", rows)).table
    assert table.column("by_band") is None
    assert table.column("lc").type.name == 'STRUCT("mjd" DOUBLE[], "mag" DOUBLE[])'
    assert table.column("list").type.name == "DOUBLE[]"
    assert desk.registry.loads()[0].context["left_out"] == ["by_band"]


def test_columns_of_old_writers_are_hidden(tmp_path: Path, desk: Desk) -> None:
    rows = sky()
    for name in ("Norder", "Dir", "Npix"):
        rows = rows.append_column(name, pa.array(np.zeros(300, np.int64)))
    table = desk.attach(write_catalog(tmp_path / "in_files", rows), "InFiles").table
    assert [c.name for c in table.columns if c.hidden] == ["Norder", "Dir", "Npix"]
    # an old _common_metadata has them while the files do not
    write_catalog(tmp_path / "only_schema", sky())
    pq.write_metadata(rows.schema, tmp_path / "only_schema/dataset/_common_metadata")
    assert desk.attach(tmp_path / "only_schema", "OnlySchema").table.column("Norder") is None


def test_column_dropped_from_the_schema_is_not_seen(tmp_path: Path, desk: Desk) -> None:
    write_catalog(tmp_path / "c", sky())
    pq.write_metadata(sky().drop_columns(["name"]).schema, tmp_path / "c/dataset/_common_metadata")
    assert desk.attach(tmp_path / "c").table.column("name") is None


def margin_collection(root: Path, *, cells: bool = True, threshold: str = "7200", **margin_columns: object) -> Path:
    """A catalogue with margins of two degrees, made by brute force."""
    rows = with_cells(sky(2000)) if cells else sky(2000)
    write_catalog(root / "main", rows)
    margin_rows = rows.slice(0, 60)
    write_leaf(root / "margin", 1, 47, margin_rows, Style())
    write_leaf(root / "margin", 1, 3, rows.slice(1900, 50), Style())
    pq.write_metadata(rows.schema, root / "margin/dataset/_common_metadata")
    words = PROPERTIES | {"dataproduct_type": "margin", "hats_margin_threshold": threshold, "hats_primary_table_url": "main"}
    write_properties(root / "margin/properties", words | {k: str(v) for k, v in margin_columns.items()})
    write_properties(root / "collection.properties", {"hats_primary_table_url": "main", "all_margins": "missing margin"})
    return root


def test_margin_of_a_collection(tmp_path: Path, desk: Desk) -> None:
    found = desk.attach(margin_collection(tmp_path / "c"))
    assert found.margin_arcsec == 7200
    assert found.margin.rows.tolist() == [50, 60]
    assert found.margin.start.tolist() == [3 * 4**28, 47 * 4**28]
    assert (found.margin.lowest[1], found.margin.highest[1] < 47 * 4**28) == (rows_of(found)["_healpix_29"].to_numpy().min(), True)
    assert found.rows == 2000
    # attached without its collection, the catalogue has no margin
    alone = desk.attach(tmp_path / "c/main", "Alone")
    assert (len(alone.margin), alone.margin_arcsec) == (0, 0.0)


@pytest.mark.parametrize(
    ("options", "note"),
    [
        ({"cells": False}, "without a line column"),
        ({"threshold": ""}, "threshold"),
        ({"threshold": "wide"}, "threshold"),
        ({"dataproduct_type": "object"}, "not a margin"),
        ({"hats_col_healpix": "_healpix_29", "hats_col_healpix_order": "19"}, "of order 29"),
    ],
)
def test_margin_that_cannot_be_used_is_left_out(tmp_path: Path, desk: Desk, options: dict[str, object], note: str) -> None:
    found = desk.attach(margin_collection(tmp_path / "c", **options))
    assert (len(found.margin), found.margin_arcsec, found.rows) == (0, 0.0, 2000)
    assert note in desk.registry.loads()[0].context["margin"]


def test_replicated(tmp_path: Path, desk: Desk) -> None:
    words = {"hats_col_ra": "ra", "hats_col_dec": "dec"}
    found = desk.attach(write_catalog(tmp_path / "c", with_cells(sky()), properties=words), kind=TableKind.REPLICATED)
    assert (found.table.kind, found.table.family, found.table.line_column) == (TableKind.REPLICATED, "", "")
    assert set(zip(found.home.start.tolist(), found.home.stop.tolist(), strict=True)) == {(0, LINE_END)}
    assert found.rows == 300


def drop(root: Path, name: str) -> None:
    path = next(root.glob("dataset/Norder=1/Dir=0/*.parquet"))
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns([name]), path)


def retype(root: Path) -> None:
    path = next(root.glob("dataset/Norder=1/Dir=0/*.parquet"))
    rows = pq.read_table(path, partitioning=None)
    pq.write_table(rows.set_column(0, "id", pc.cast(rows["id"], pa.string())), path)


def cut(root: Path) -> None:
    path = next(root.glob("dataset/Norder=1/Dir=0/*.parquet"))
    path.write_bytes(path.read_bytes()[:-20])


def redeclare(**words: str) -> object:
    return lambda root: write_properties(root / "hats.properties", PROPERTIES | words)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda root: drop(root, "ra"), "column ra is missing.*must be in every file"),
        (retype, "column id is string, but the catalogue declares BIGINT"),
        (cut, "not a readable Parquet file"),
        (redeclare(dataproduct_type="index"), "a index catalogue|no table of its own"),
        (redeclare(hats_col_ra="right_ascension"), "right_ascension, which is not"),
        (redeclare(hats_col_ra="name"), "name, which is not"),
        (redeclare(hats_col_ra=""), "do not say hats_col_ra"),
        (redeclare(hats_frame="galactic"), "galactic, not icrs"),
    ],
)
def test_bad_catalogues_change_nothing(tmp_path: Path, desk: Desk, spoil: object, words: str) -> None:
    write_catalog(tmp_path / "c", sky())
    spoil(tmp_path / "c")
    before = sorted(desk.store.root.rglob("*"))
    with pytest.raises(InputError, match=words):
        desk.attach(tmp_path / "c")
    assert desk.registry.loads() == ()
    assert desk.registry.snapshot_number("ext") == 0
    assert [p for p in sorted(desk.store.root.rglob("*")) if "sqlite" not in p.name] == [
        p for p in before if "sqlite" not in p.name
    ]


def test_radians_are_refused(tmp_path: Path, desk: Desk) -> None:
    rows = sky()
    rows = rows.cast(rows.schema.set(1, pa.field("ra", pa.float64(), metadata={"unit": "rad"})))
    with pytest.raises(InputError, match="rad, not in degrees"):
        desk.attach(write_catalog(tmp_path / "c", rows))


def test_wrong_requests(tmp_path: Path, desk: Desk) -> None:
    write_catalog(tmp_path / "c", sky())
    with pytest.raises(InputError, match="no column nokey"):
        desk.attach(tmp_path / "c", key="nokey")
    with pytest.raises(ConfigError):
        desk.attach(tmp_path / "c", kind=TableKind.CHILD)
    with pytest.raises(InputError):
        desk.attach(tmp_path / "nowhere")
    with pytest.raises(SchemaError):
        desk.attach(tmp_path / "c", "no/name")
    assert [load.state for load in desk.registry.loads()] == [LoadState.ABORTED]


@pytest.mark.parametrize("has_schema", [True, False])
@pytest.mark.parametrize("has_cells", [True, False])
def test_files_of_different_ages_are_read_as_one_table(tmp_path: Path, desk: Desk, has_schema: bool, has_cells: bool) -> None:
    import qengine

    rows = with_cells(sky(600)) if has_cells else sky(600)
    write_catalog(tmp_path / "c", rows, style=Style(schema_file="_common_metadata" if has_schema else ""))
    first, second, third, *rest = sorted((tmp_path / "c").glob("dataset/*/*/*.parquet"))
    drop_column = pq.read_table(first, partitioning=None).drop_columns(["mag"])
    pq.write_table(drop_column, first)
    narrow = pq.read_table(second, partitioning=None)
    pq.write_table(
        narrow.set_column(0, "id", narrow["id"].cast(pa.int16())).set_column(3, "mag", narrow["mag"].cast(pa.float32())), second
    )
    extra = pq.read_table(third, partitioning=None)
    pq.write_table(
        extra.append_column("seen", pa.array([True] * len(extra))).select(
            ["name", "seen", *extra.schema.names[:-1]] if not has_cells else [*extra.schema.names, "seen"]
        ),
        third,
    )
    found = desk.attach(tmp_path / "c", key="id")
    names = [column.name for column in found.table.columns if not column.hidden]
    assert names == ["id", "ra", "dec", "mag", "name"] if has_schema else set(names) == {"id", "ra", "dec", "mag", "name", "seen"}
    assert found.table.column("id").type == BIGINT
    digests = dict(zip(found.home.uri.to_pylist(), found.home.digest.to_pylist(), strict=True))
    differing = {first, second} if has_schema else {first, second, *rest}
    assert {Path(uri) for uri, digest in digests.items() if digest} == differing
    assert all(digest in ("", hashlib.sha256(Path(uri).read_bytes()).hexdigest()) for uri, digest in digests.items())
    desk.registry.close()
    true = pa.concat_tables(
        [pq.read_table(path, partitioning=None) for path in (first, second, third, *rest)], promote_options="permissive"
    ).to_pandas()
    with qengine.connect(desk.store.root) as client:

        def one(text: str) -> object:
            return client.query(text).to_arrow()["n"][0].as_py()

        assert one("SELECT COUNT(*) AS n FROM ext.Gaia") == 600
        assert one("SELECT COUNT(mag) AS n FROM ext.Gaia") == int(true["mag"].notna().sum())
        assert one("SELECT MAX(mag) AS n FROM ext.Gaia") == pytest.approx(true["mag"].max())
        assert one("SELECT COUNT(*) AS n FROM ext.Gaia WHERE mag IS NULL") == int(true["mag"].isna().sum())
        assert one("SELECT SUM(id) AS n FROM ext.Gaia WHERE id > 100") == int(true["id"][true["id"] > 100].sum())
        assert one("SELECT MAX(id) AS n FROM ext.Gaia") == 599
        is_north = np.degrees(np.arccos(np.sin(np.radians(true["dec"])))) < 50
        text = "SELECT COUNT(*) AS n FROM ext.Gaia WHERE CONTAINS(POINT(ra, dec), CIRCLE(45, 90, 50)) = 1 AND mag < 0"
        assert one(text) == int((is_north & (true["mag"] < 0)).sum()) > 0
        if not has_schema:
            assert one("SELECT COUNT(seen) AS n FROM ext.Gaia") == int(true["seen"].notna().sum()) > 0


def test_a_file_that_differed_is_known_when_it_changes(tmp_path: Path, desk: Desk) -> None:
    import qengine
    from qengine.errors import IntegrityError

    write_catalog(tmp_path / "c", sky())
    path = next(tmp_path.glob("c/dataset/Norder=1/Dir=0/*.parquet"))
    drop(tmp_path / "c", "mag")
    desk.attach(tmp_path / "c")
    desk.registry.close()
    rows = pq.read_table(path, partitioning=None)
    pq.write_table(rows.drop_columns(["name"]).append_column("name", pa.array(["x"] * len(rows))), path)
    with qengine.connect(desk.store.root) as client, pytest.raises(IntegrityError, match="damaged"):
        client.query("SELECT COUNT(mag) AS n FROM ext.Gaia").to_arrow()


def test_column_that_no_file_has_is_left_out(tmp_path: Path, desk: Desk) -> None:
    write_catalog(tmp_path / "c", sky())
    pq.write_metadata(sky().schema.append(pa.field("never", pa.int64())), tmp_path / "c/dataset/_common_metadata")
    found = desk.attach(tmp_path / "c")
    assert found.table.column("never") is None
    assert set(found.home.digest.to_pylist()) == {""}
    assert desk.registry.loads()[0].context["left_out"] == ["never"]


def test_attach_again_is_refused_or_takes_the_new_files(tmp_path: Path, desk: Desk) -> None:
    write_catalog(tmp_path / "c", sky(), style=Style(partition_info=False))
    assert desk.attach(tmp_path / "c").number == 1
    write_catalog(tmp_path / "d", sky(500, seed=3))
    with pytest.raises(ConflictError, match=r"ext\.Gaia is attached already.*--replace"):
        desk.attach(tmp_path / "d")
    again = desk.attach(tmp_path / "d", is_replacing=True)
    assert (again.number, again.rows) == (2, 500)
    assert desk.registry.catalog(snapshots={"ext": 1}).find("ext", "Gaia").rows == 300


def test_a_loaded_table_is_not_replaced(tmp_path: Path, desk: Desk) -> None:
    from tests.unit.catalog.snapshots import snapshot

    load = desk.registry.begin_load({})
    desk.registry.publish(load, "ext", [snapshot("Gaia", schema="ext")], expected=0)
    write_catalog(tmp_path / "c", sky())
    with pytest.raises(ConflictError, match="loaded, not attached"):
        desk.attach(tmp_path / "c")


def test_errors_are_ours(tmp_path: Path, desk: Desk) -> None:
    (tmp_path / "c").mkdir()
    for content in ("", "a=b", "dataproduct_type=object\nhats_col_ra=ra"):
        (tmp_path / "c/properties").write_text(content)
        with pytest.raises(QEngineError):
            desk.attach(tmp_path / "c")


@pytest.mark.slow
def test_catalogue_written_by_lsdb(tmp_path: Path, desk: Desk) -> None:
    import lsdb
    import pandas as pd

    rows = sky(3000).to_pandas()
    catalog = lsdb.from_dataframe(
        pd.DataFrame(rows),
        catalog_name="Stars",
        ra_column="ra",
        dec_column="dec",
        margin_threshold=3600.0,
        highest_order=3,
        partition_rows=200,
    )
    catalog.write_catalog(tmp_path / "Stars")
    found = desk.attach(tmp_path / "Stars", key="id")
    assert found.rows == 3000
    assert found.table.line_column == "_healpix_29"
    assert found.margin_arcsec == 3600.0
    assert found.margin.rows.sum() > 0
    assert sorted(rows_of(found)["id"].to_pylist()) == list(range(3000))
    assert (found.table.column("id").type, found.table.column("mag").type) == (BIGINT, DOUBLE)
    # every margin row lies outside its tile
    for number in range(len(found.margin)):
        cells = pq.ParquetFile(found.margin.uri[number].as_py()).read(["_healpix_29"])["_healpix_29"].to_numpy()
        assert not ((cells >= found.margin.start[number]) & (cells < found.margin.stop[number])).any()


@pytest.mark.slow
@pytest.mark.parametrize("has_cells", [True, False])
@pytest.mark.parametrize("suffix", [".parquet", "/"])
def test_queries_of_attached_catalogues(tmp_path: Path, desk: Desk, has_cells: bool, suffix: str) -> None:
    import qengine

    written = sky(3000)
    rows = with_cells(written) if has_cells else written
    desk.attach(
        write_catalog(tmp_path / "c", rows, order=2, style=Style(suffix=suffix), properties={"hats_npix_suffix": suffix}), key="id"
    )
    desk.registry.close()
    mag, ra, dec = (written[name].to_numpy() for name in ("mag", "ra", "dec"))
    place = np.c_[
        np.cos(np.radians(dec)) * np.cos(np.radians(ra)), np.cos(np.radians(dec)) * np.sin(np.radians(ra)), np.sin(np.radians(dec))
    ]
    pole = np.array([0.0, 0.0, 1.0])
    expected = {
        "SELECT COUNT(*) AS n FROM ext.Gaia": 3000,
        "SELECT COUNT(mag) AS n FROM ext.Gaia": int(np.isfinite(mag).sum()),
        "SELECT COUNT(*) AS n FROM ext.Gaia WHERE mag < 0": int((mag < 0).sum()),
        "SELECT MAX(id) AS n FROM ext.Gaia WHERE id < 78": 77,
        "SELECT COUNT(*) AS n FROM ext.Gaia WHERE CONTAINS(POINT(ra, dec), CIRCLE(0, 90, 20)) = 1": int(
            (place @ pole > np.cos(np.radians(20))).sum()
        ),
        "SELECT COUNT(*) AS n FROM ext.Gaia a JOIN ext.Gaia b ON DISTANCE(a.ra, a.dec, b.ra, b.dec) < 0.5 WHERE a.id < b.id": int(
            (np.triu(place @ place.T, 1) > np.cos(np.radians(0.5))).sum()
        ),
    }
    with qengine.connect(desk.store.root, workers=2) as client:
        assert {text: client.query(text).to_arrow()["n"][0].as_py() for text in expected} == expected
