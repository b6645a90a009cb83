"""Children lie where their director lies; replicated tables lie everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qengine.catalog.model import HEALPIX, TableKind
from qengine.errors import ConfigError, DuplicateKeyError, InputError, SchemaError
from qengine.sky.cells import BEYOND_END, LINE_END, beyond_cell
from tests.loader.stores import Site, sky

CHILD: dict[str, Any] = {"table": "src", "kind": TableKind.CHILD, "director": "obj", "director_key": "oid"}


def family(site: Site, *, as_text: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
    """Load a director of which two rows have no position, and return it with columns of a child with every kind of key."""
    objects = sky(1000)
    objects["ra"][5] = np.nan
    objects["dec"][6] = np.nan
    rng = np.random.default_rng(3)
    picked = np.concatenate([rng.integers(0, 1000, 4000), [5, 5, 6], np.full(300, 7)])
    keys: list[Any] = [*objects["id"][picked].tolist(), -1, -1, 10**12, None, None]
    count = len(keys)
    if as_text:
        objects["id"] = [f"k{i}" for i in objects["id"].tolist()]
        keys = [None if key is None else f"k{key}" for key in keys]
    order = rng.permutation(count)
    child = {
        "sid": np.arange(count) * 3,
        "oid": pa.array([keys[i] for i in order], pa.string() if as_text else pa.int64()),
        "ra": rng.uniform(0, 360, count),
        "dec": rng.uniform(-90, 90, count),
        "flux": rng.normal(size=count),
    }
    site.load(site.write("obj.parquet", objects), key="id")
    return objects, child


@pytest.mark.parametrize("as_text", [False, True])
def test_children_are_in_the_cell_of_their_director(site: Site, as_text: bool) -> None:
    objects, child = family(site, as_text=as_text)
    report = site.load(site.write("src.parquet", child), key="sid", **CHILD)
    director, snapshot = site.snapshot(), site.snapshot("src")
    assert report.stored == snapshot.rows == len(child["sid"])
    assert report.without_director == 5
    assert report.orphaned == 5 + sum(key in (objects["id"][5], objects["id"][6]) for key in child["oid"].to_pylist())
    assert snapshot.table.family == director.table.family == "demo.obj"

    kin = pa.concat_tables([site.read(director.home), site.read(director.orphan)])
    cell_of = dict(zip(kin["id"].to_pylist(), kin[HEALPIX].to_pylist(), strict=True))
    rows = pa.concat_tables([site.read(snapshot.home), site.read(snapshot.orphan)])
    keys = rows["oid"].combine_chunks()
    lost = beyond_cell(keys)
    expected = [cell_of.get(key, int(lost[i])) for i, key in enumerate(keys.to_pylist())]
    assert rows[HEALPIX].to_pylist() == expected
    assert sorted(rows["sid"].to_pylist()) == child["sid"].tolist()

    by_sid = rows.sort_by("sid")
    given = pa.table(child).sort_by("sid")
    for name in child:
        assert by_sid[name].combine_chunks().equals(given[name].combine_chunks()), name


def test_children_carry_their_directors_position(site: Site) -> None:
    objects, child = family(site)
    site.load(site.write("src.parquet", child), key="sid", **CHILD)
    rows = site.read(site.snapshot("src").home)
    where = {key: (ra, dec) for key, ra, dec in zip(objects["id"].tolist(), objects["ra"], objects["dec"], strict=True)}
    expected = [where[key] for key in rows["oid"].to_pylist()]
    assert list(zip(rows["_director_ra"].to_pylist(), rows["_director_dec"].to_pylist(), strict=True)) == expected
    hidden = [column.name for column in site.snapshot("src").table.columns if column.hidden]
    assert hidden == ["_healpix_29", "_load", "_input", "_director_ra", "_director_dec"]


def test_parts_of_children_cut_tiles_at_cells(site: Site) -> None:
    _, child = family(site)
    site.load(site.write("src.parquet", child), key="sid", **CHILD, rows_per_tile=5)
    snapshot, tiles = site.snapshot("src"), site.snapshot().home
    home = snapshot.home
    assert len(home) > len(tiles)
    assert (home.start[1:] >= home.stop[:-1]).all()
    seen: set[int] = set()
    for i, uri in enumerate(home.uri.to_pylist()):
        part = pq.read_table(site.store.path(uri))
        cells = part[HEALPIX].to_numpy()
        assert home.start[i] <= cells[0]
        assert cells[-1] < home.stop[i]
        at = int(np.searchsorted(tiles.start, home.start[i], "right")) - 1
        assert tiles.start[at] <= home.start[i]
        assert home.stop[i] <= tiles.stop[at]
        keys = set(part["oid"].to_pylist())
        assert not keys & seen
        seen |= keys
        assert len(cells) <= 20 or cells[0] == cells[-1]
        assert np.array_equal(np.lexsort((part["sid"].to_numpy(), part["oid"].to_numpy(), cells)), np.arange(len(cells)))


def test_orphans_of_both_tables_share_cells_and_range(site: Site) -> None:
    objects, child = family(site)
    site.load(site.write("src.parquet", child), key="sid", **CHILD)
    orphans = site.snapshot("src").orphan
    assert (orphans.start >= LINE_END).all()
    assert orphans.stop[-1] == BEYOND_END
    director = site.read(site.snapshot().orphan)
    assert set(director["id"].to_pylist()) == {int(objects["id"][5]), int(objects["id"][6])}
    rows = site.read(orphans)
    assert set(director[HEALPIX].to_pylist()) < set(rows[HEALPIX].to_pylist())
    assert rows["_director_ra"].null_count == rows.num_rows


def test_the_load_says_which_director_it_was_placed_by(site: Site) -> None:
    _, child = family(site)
    site.load(site.write("src.parquet", child), **CHILD)
    load = site.registry.loads()[-1]
    assert load.context["base"] == {"demo.obj": site.registry.manifest_digests()["demo.obj"]}
    assert load.context["director"] == "obj"
    assert [one.uri for one in site.registry.inputs_of_load(load.number)] == [str(site.inputs / "src.parquet")]


def test_keys_of_a_director_cannot_come_twice(site: Site) -> None:
    objects, child = family(site)
    site.load(site.write("src.parquet", child), **CHILD)
    with pytest.raises(DuplicateKeyError, match="are there already"):
        site.load(site.write("again.parquet", objects), key="id")


def test_empty_child(site: Site) -> None:
    family(site)
    empty = pa.table({"sid": pa.array([], pa.int64()), "oid": pa.array([], pa.int64())})
    assert site.load(site.write("src.parquet", empty), key="sid", **CHILD).stored == 0
    assert site.snapshot("src").rows == 0


@pytest.mark.parametrize(
    ("words", "error", "text"),
    [
        ({"director": ""}, ConfigError, "needs its director"),
        ({"director": "nobody"}, ConfigError, "not a director"),
        ({"director_key": ""}, ConfigError, "which column"),
        ({"director_key": "zz"}, ConfigError, "no such column"),
        ({"director_key": "word"}, SchemaError, "an integer"),
        ({"director_key": "flux"}, SchemaError, "integer or text"),
    ],
)
def test_wrong_children_are_explained(site: Site, words: dict[str, Any], error: type[Exception], text: str) -> None:
    _, child = family(site)
    path = site.write("src.parquet", {**child, "word": ["a"] * len(child["sid"])})
    with pytest.raises(error, match=text):
        site.load(path, **{**CHILD, **words})


def test_a_director_without_a_key_places_no_children(site: Site) -> None:
    site.load(site.write("obj.parquet", sky(10)), key="")
    with pytest.raises(ConfigError, match="no proven key"):
        site.load(site.write("src.parquet", {"oid": [1]}), **CHILD)


def test_replicated_tables_keep_their_order(site: Site) -> None:
    columns = {"band": list("ugrizy") * 30, "width": [float("nan"), *range(179)], "n": list(range(180))}
    report = site.load(site.write("bands.parquet", columns), table="bands", kind=TableKind.REPLICATED)
    snapshot = site.snapshot("bands")
    assert report.stored == snapshot.rows == 180
    assert report.nan == {"width": 1}
    assert set(snapshot.home.start.tolist()) == {0}
    assert snapshot.table.line_column == ""
    rows = site.read(snapshot.home).sort_by("n")
    assert rows["band"].to_pylist() == columns["band"]
    assert rows["width"].to_pylist()[:2] == [None, 0.0]


def test_inputs_that_are_null_where_the_schema_forbids_it(site: Site) -> None:
    schema = pa.schema([pa.field("a", pa.int64(), nullable=False), pa.field("b", pa.float64(), nullable=False)])
    path = site.write("a.parquet", pa.table([[1, 2], [1.0, float("nan")]], schema=schema))
    site.load(path, table="t", kind=TableKind.REPLICATED)
    assert site.read(site.snapshot("t").home)["b"].to_pylist() == [1.0, None]
    felis = site.inputs / "s.yaml"
    felis.write_text(
        "name: s\ntables:\n- name: u\n  columns:\n  - {name: a, datatype: long, nullable: false, description: x}\n"
        "  - {name: b, datatype: double, description: x, 'ivoa:unit': s}\n"
    )
    loose = site.write("b.parquet", {"a": [1, None], "b": [1.0, 2.0]})
    with pytest.raises(InputError, match="'a' has NULL"):
        site.load(loose, table="u", kind=TableKind.REPLICATED, schema=felis)
    site.load(path, table="u", kind=TableKind.REPLICATED, schema=felis)
    assert site.snapshot("u").table.column("b").unit == "s"
    with pytest.raises(InputError, match="column b is missing"):
        site.load(site.write("c.parquet", {"a": [1]}), table="u", catalog="other", kind=TableKind.REPLICATED, schema=felis)
