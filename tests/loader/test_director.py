"""Directors: every row once, in its place; orphans, quarantine, NaN, keys, tiles and margins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qengine.catalog.model import HEALPIX, HIDDEN_COLUMNS
from qengine.errors import ConfigError, DuplicateKeyError, InputError, SchemaError
from qengine.sky.cells import BEYOND_END, LINE_END, RangeSet, beyond_cell
from qengine.sky.coverage import ring
from qengine.sky.healpix import cells_of
from tests.loader.stores import Site, sky


def test_every_row_is_stored_once_in_the_part_of_its_cell(site: Site) -> None:
    columns = sky()
    report = site.load(site.write("a.parquet", columns), key="id")
    snapshot = site.snapshot()
    stored = site.read(snapshot.home)
    count = len(columns["id"])
    assert report.stored == report.read == snapshot.rows == stored.num_rows == count
    assert report.tiles == len(snapshot.home) > 40

    by_id = stored.sort_by("id")
    given = pa.table(columns).sort_by("id")
    for name in columns:
        assert by_id[name].combine_chunks().equals(given[name].combine_chunks()), name
    expected = cells_of(given["ra"].to_numpy(), given["dec"].to_numpy())
    assert np.array_equal(by_id[HEALPIX].to_numpy(), expected)

    home = snapshot.home
    assert (home.start[1:] >= home.stop[:-1]).all()
    for i, uri in enumerate(home.uri.to_pylist()):
        part = pq.read_table(site.store.path(uri))
        cells = part[HEALPIX].to_numpy()
        assert part.column_names[:3] == list(HIDDEN_COLUMNS)
        assert home.start[i] <= cells[0] == home.lowest[i]
        assert home.highest[i] == cells[-1] < home.stop[i]
        order = np.lexsort((part["id"].to_numpy(), cells))
        assert np.array_equal(order, np.arange(len(cells)))
        assert len(cells) <= 50 or cells[0] == cells[-1]


def test_tiles_are_pixels_that_do_not_overlap(site: Site) -> None:
    site.load(site.write("a.parquet", sky()), key="id")
    home = site.snapshot().home
    width = home.stop - home.start
    order = 29 - np.rint(np.log2(width.astype(float)) / 2).astype(int)
    assert np.array_equal(width, 4 ** (29 - order).astype(np.int64))
    assert (home.start % width == 0).all()
    assert len(set(order.tolist())) > 3


def test_rows_without_a_position_go_beyond_the_sky_by_their_key(site: Site) -> None:
    columns = {
        "id": [1, 2, 3, 4, None],
        "ra": [10.0, None, float("nan"), 20.0, None],
        "dec": [10.0, 5.0, 5.0, float("nan"), None],
        "mag": [1.0, float("nan"), None, float("inf"), float("-inf")],
    }
    report = site.load(site.write("a.parquet", columns), key="id")
    snapshot = site.snapshot()
    orphans = site.read(snapshot.orphan).sort_by("id")
    assert report.orphaned == 4
    assert report.stored == 5
    assert orphans["id"].to_pylist() == [2, 3, 4, None]
    assert np.array_equal(orphans[HEALPIX].to_numpy(), beyond_cell(pa.array([2, 3, 4, None], pa.int64())))
    assert ((orphans[HEALPIX].to_numpy() >= LINE_END) & (orphans[HEALPIX].to_numpy() < BEYOND_END)).all()
    assert orphans["ra"].to_pylist() == [None, None, 20.0, None]
    assert report.nan == {"ra": 1, "dec": 1, "mag": 1}
    assert orphans["mag"].to_pylist() == [None, None, float("inf"), float("-inf")]
    assert (snapshot.orphan.start >= LINE_END).all()
    assert not len(snapshot.margin) or (site.read(snapshot.margin)[HEALPIX].to_numpy() < LINE_END).all()


def test_impossible_positions_are_quarantined_with_their_reason(site: Site) -> None:
    columns = {"id": [1, 2, 3, 4], "ra": [1.0, 2.0, float("inf"), 4.0], "dec": [0.0, 90.0000001, 0.0, float("-inf")]}
    report = site.load(site.write("a.parquet", columns), key="id")
    assert (report.read, report.stored, report.quarantined) == (4, 1, 3)
    refused = pq.read_table(site.store.path(report.quarantine)).to_pydict()
    assert refused["id"] == [2, 3, 4]
    assert "declination" in refused["_reason"][0]
    assert "infinite" in refused["_reason"][1]
    assert "infinite" in refused["_reason"][2]
    assert "quarantined: 3" in report.to_text()


@pytest.mark.parametrize("ra", [-1e-9, 360.0, 370.0, -90.0])
def test_right_ascension_outside_is_refused_with_file_and_row(site: Site, ra: float) -> None:
    path = site.write("odd.parquet", {"ra": [1.0, 2.0, ra], "dec": [0.0, 0.0, 0.0]})
    with pytest.raises(InputError, match=r"odd\.parquet: row 3, column 'ra'") as error:
        site.load(path)
    assert "--ra-wrap" in error.value.hint
    assert site.registry.catalog().find("demo", "obj") is None


def test_right_ascension_is_wrapped_when_asked(site: Site) -> None:
    path = site.write("a.parquet", {"id": [1, 2, 3, 4], "ra": [-10.0, 360.0, 725.0, -1e-20], "dec": [0.0] * 4})
    report = site.load(path, key="id", ra_wrap=True)
    assert report.wrapped == 4
    assert site.read(site.snapshot().home).sort_by("id")["ra"].to_pylist() == [350.0, 0.0, 5.0, 0.0]


def test_duplicate_keys_are_named_and_nothing_is_published(site: Site) -> None:
    path = site.write("a.parquet", {"id": [5, 6, 5, 7, 7], "ra": [1.0, 2.0, 300.0, None, 8.0], "dec": [0.0] * 5})
    with pytest.raises(DuplicateKeyError, match=r"'id' is not unique: 2 rows .* 5, 7"):
        site.load(path, key="id")
    assert site.registry.catalog().find("demo", "obj") is None
    assert site.registry.snapshot_number("demo") == 0
    assert [load.state.value for load in site.registry.loads()] == ["aborted"]
    site.load(path, key="")
    snapshot = site.snapshot()
    assert snapshot.rows == 5
    assert not snapshot.table.is_key_proven
    assert snapshot.key_index is None


@pytest.mark.parametrize("as_text", [False, True])
def test_key_index_is_sorted_and_leads_to_the_cell(site: Site, as_text: bool) -> None:
    columns = sky(300)
    if as_text:
        columns["id"] = [f"Ä{i}" for i in columns["id"].tolist()]
    columns["ra"][3] = np.nan
    site.load(site.write("a.parquet", columns), key="id")
    snapshot = site.snapshot()
    index = snapshot.key_index
    assert index is not None
    found = pa.concat_tables(pq.read_table(site.store.path(uri)) for uri in index.uri)
    keys = found["key"].to_pylist()
    assert keys == sorted(columns["id"] if as_text else columns["id"].tolist())
    assert index.rows == len(keys)
    rows = pa.concat_tables([site.read(snapshot.home), site.read(snapshot.orphan)])
    cells = dict(zip(rows["id"].to_pylist(), rows[HEALPIX].to_pylist(), strict=True))
    assert [cells[key] for key in keys] == found[HEALPIX].to_pylist()


def test_margins_hold_all_rows_of_the_cells_of_the_ring_and_no_others(site: Site) -> None:
    columns = sky(3000)
    site.load(site.write("a.parquet", columns), key="id", margin_arcsec=30.0)
    snapshot = site.snapshot()
    assert snapshot.margin_arcsec == 30.0
    home = site.read(snapshot.home)
    cells, ids = home[HEALPIX].to_numpy(), home["id"].to_numpy()
    margins = {int(start): uri for start, uri in zip(snapshot.margin.start, snapshot.margin.uri.to_pylist(), strict=True)}
    assert len(margins) == len(snapshot.margin) > 10
    for start, stop in zip(snapshot.home.start.tolist(), snapshot.home.stop.tolist(), strict=True):
        around = ring(RangeSet.from_ranges(np.array([start]), np.array([stop])), 30 / 3600)
        expected = sorted(ids[around.contains(cells)].tolist())
        found = pq.read_table(site.store.path(margins[start]))["id"].to_pylist() if start in margins else []
        assert sorted(found) == expected


def test_margins_hold_every_row_within_the_radius(site: Site) -> None:
    columns = sky(1500)
    site.load(site.write("a.parquet", columns), key="id", margin_arcsec=20.0)
    snapshot = site.snapshot()
    home = site.read(snapshot.home)
    ra, dec = np.radians(home["ra"].to_numpy()), np.radians(home["dec"].to_numpy())
    xyz = np.column_stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    tile = np.searchsorted(snapshot.home.start, home[HEALPIX].to_numpy(), "right") - 1
    near = np.linalg.norm(xyz[:, None, :] - xyz[None, :, :], axis=2) < np.radians(20 / 3600)
    left, right = np.nonzero(near & (tile[:, None] != tile[None, :]))
    assert len(left) > 10
    starts = snapshot.margin.start.tolist()
    held = {
        start: set(pq.read_table(site.store.path(uri))["id"].to_pylist())
        for start, uri in zip(starts, snapshot.margin.uri.to_pylist(), strict=True)
    }
    ids = home["id"].to_pylist()
    for a, b in zip(left.tolist(), right.tolist(), strict=True):
        assert ids[b] in held[int(snapshot.home.start[tile[a]])]


def test_the_same_inputs_give_the_same_parts(tmp_path: Path) -> None:
    digests = []
    for name, workers in (("one", 1), ("two", 4)):
        site = Site(tmp_path / name)
        columns = sky(2000) | {"id": [0] * 2009}
        site.load(site.write("a.parquet", columns), key="", workers=workers)
        snapshot = site.snapshot()
        digests.append([parts.digest.to_pylist() for parts in (snapshot.home, snapshot.margin)])
    assert digests[0] == digests[1]


def test_spilling_changes_nothing(tmp_path: Path) -> None:
    digests = []
    for name, memory in (("small", 100_000), ("large", 0)):
        site = Site(tmp_path / name)
        columns = sky(2500)
        report = site.load(site.write("a.parquet", columns), key="id", memory_bytes=memory)
        assert report.stored == 2509
        digests.append(sorted(site.snapshot().home.digest.to_pylist()))
        assert not list(site.store.root.glob("demo/obj/tmp-*"))
    assert digests[0] == digests[1]


@pytest.mark.parametrize("rows", [0, 1])
def test_tiny_inputs(site: Site, rows: int) -> None:
    columns = {name: values[:rows] for name, values in sky(5).items()}
    columns["name"] = pa.array(columns["name"], pa.string())
    report = site.load(site.write("a.parquet", columns), key="id")
    snapshot = site.snapshot()
    assert report.stored == snapshot.rows == rows
    assert len(snapshot.home) == rows
    assert snapshot.table.column("name") is not None


def test_many_rows_in_one_cell_stay_together(site: Site) -> None:
    columns = {"id": list(range(500)), "ra": [12.5] * 500, "dec": [-33.25] * 500}
    site.load(site.write("a.parquet", columns), key="id")
    home = site.snapshot().home
    assert home.rows.tolist() == [500]


def test_position_is_found_by_ucd_before_name(site: Site) -> None:
    def field(name: str, ucd: str) -> pa.Field:
        return pa.field(name, pa.float64(), metadata={"ucd": ucd, "unit": "deg"})

    schema = pa.schema(
        [
            pa.field("ra", pa.float64()),
            pa.field("dec", pa.float64()),
            field("alpha", "pos.eq.ra;meta.main"),
            field("delta", "pos.eq.dec;meta.main"),
        ]
    )
    site.load(site.write("a.parquet", pa.table([[500.0], [2.0], [3.0], [4.0]], schema=schema)))
    table = site.snapshot().table
    assert (table.ra, table.dec) == ("alpha", "delta")
    assert table.column("alpha").unit == "deg"


@pytest.mark.parametrize(
    ("words", "error", "text"),
    [
        ({"ra": "x"}, ConfigError, "both --ra and --dec"),
        ({"ra": "RA", "dec": "dec"}, ConfigError, "--ra RA"),
        ({"key": "oid"}, ConfigError, "--key oid"),
        ({"key": "mag"}, SchemaError, "a key is an integer or text"),
        ({"ra": "name", "dec": "dec"}, InputError, "not a number"),
        ({"table": "a b"}, ConfigError, "no name for a table"),
        ({"rows_per_tile": 0}, ConfigError, "positive"),
    ],
)
def test_wrong_requests_are_explained(site: Site, words: dict[str, object], error: type[Exception], text: str) -> None:
    path = site.write("a.parquet", sky(20))
    with pytest.raises(error, match=text):
        site.load(path, **words)
    assert site.registry.snapshot_number("demo") == 0


def test_no_position_is_an_error_with_a_hint(site: Site) -> None:
    with pytest.raises(SchemaError, match=r"pos\.eq\.ra") as error:
        site.load(site.write("a.parquet", {"id": [1], "x": [2.0]}))
    assert "--ra" in error.value.hint


def test_an_input_is_loaded_once(site: Site) -> None:
    path = site.write("a.parquet", sky(20))
    site.load(path, key="id")
    for table in ("obj", "OBJ"):
        report = site.load(path, key="id", table=table)
        assert (report.read, report.skipped_inputs, report.snapshot) == (0, 1, 1)
    assert "nothing new, one input is there already" in report.to_text()
    assert site.registry.snapshot_number("demo") == 1
