"""Views and virtual columns of a sidecar: published by loads, listed, queried; and definitions of tables that are there."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from astropy.io import votable

from qengine import connect
from qengine.errors import ConflictError, InputError, SchemaError
from qengine.loader.definition import define_for
from qengine.loader.request import ExtraColumns, LoadRequest, MissingColumns
from qengine.loader.sources.open import open_sources
from qengine.tap.formats.choose import find_format
from qengine.tap.formats.writer import ResultHeader
from tests.loader.stores import Site

FELIS = """
name: own
tables:
- name: star
  primaryKey: '#star.id'
  columns:
  - {name: id, datatype: long, nullable: false, description: d}
  - {name: ra, datatype: double, description: d}
  - {name: dec, datatype: double, description: d}
  - {name: flux, datatype: float, ivoa:unit: nJy, description: d}
- name: seen
  columns:
  - {name: star, datatype: long, description: d}
  - {name: visit, datatype: int, description: d}
"""
SIDECAR = """
[tables.star]
kind = "director"
ra = "ra"
dec = "dec"
margin_arcsec = 5
[tables.star.virtual.mag]
expression = "CASE WHEN flux > 0 THEN -2.5 * LOG10(flux) + 31.4 END"
unit = "mag"
description = "magnitude"
[tables.seen]
kind = "child"
director = "star"
director_key = "star"
[views.bright]
sql = "SELECT id, ra, dec, mag FROM star WHERE mag < 28"
description = "the bright ones"
[views.visits]
sql = "SELECT b.id, COUNT(*) AS n FROM bright b JOIN seen s ON s.star = b.id GROUP BY b.id"
"""


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    folder = tmp_path / "schema"
    folder.mkdir()
    (folder / "schema.yaml").write_text(FELIS)
    (folder / "sharding.toml").write_text(SIDECAR)
    return folder


def stars(first: int = 0, **more: Any) -> dict[str, Any]:
    count = 10
    rows = {
        "id": pa.array(range(first, first + count), pa.int64()), "ra": [10.0 + i for i in range(count)], "dec": [5.0] * count,
        "flux": pa.array([-1.0, None, *(10.0 * i for i in range(8))], pa.float32()),
    }  # fmt: skip
    return {name: values for name, values in {**rows, **more}.items() if values is not None}


def test_views_are_published_when_their_tables_are_there(site: Site, schema: Path) -> None:
    site.load(site.write("s.parquet", stars()), catalog="own", table="star", schema=schema)
    names = {(t.table.name, bool(t.table.view)) for t in site.registry.catalog() if t.table.schema == "own"}
    assert names == {("star", False), ("bright", True)}
    seen = {"star": pa.array([5, 5, 9, 2], pa.int64()), "visit": pa.array([1, 2, 3, 4], pa.int32())}
    site.load(site.write("v.parquet", seen), catalog="own", table="seen", schema=schema)
    with connect(site.store.root, workers=1) as client:
        bright = client.query("SELECT id, mag FROM own.bright ORDER BY id").to_arrow().to_pylist()
        # flux of id i is 10 (i - 2): magnitude 28.9 of 10 nJy, 27.97 of 23.5
        assert [row["id"] for row in bright] == [5, 6, 7, 8, 9]
        assert bright[0]["mag"] == pytest.approx(27.7072, abs=1e-4)
        assert client.query("SELECT * FROM own.visits ORDER BY id").to_arrow().to_pylist() == [{"id": 5, "n": 2}, {"id": 9, "n": 1}]
        near = "SELECT id FROM own.bright WHERE CONTAINS(POINT(ra, dec), CIRCLE(15, 5, 0.1)) = 1"
        assert client.query(near).to_arrow().column("id").to_pylist() == [5]
        # what is a view to the user is a cone on the table to the planner
        assert "tiles 1 of" in client.explain(near).to_text() or "own.star" in client.explain(near).to_text()
        listed = client.query(
            "SELECT table_name, table_type, description FROM TAP_SCHEMA.tables WHERE schema_name = 'own'"
        ).to_arrow()
        assert {row["table_name"]: row["table_type"] for row in listed.to_pylist()} == {
            "own.star": "table", "own.seen": "table", "own.bright": "view", "own.visits": "view",
        }  # fmt: skip
        columns = (
            client.query("SELECT column_name, unit FROM TAP_SCHEMA.columns WHERE table_name = 'own.bright'").to_arrow().to_pylist()
        )
        assert {row["column_name"]: row["unit"] for row in columns}["mag"] == "mag"
        summary = {table.full_name: table for table in client.tables()}
        assert (summary["own.bright"].kind, summary["own.star"].columns[-1].name) == ("view", "mag")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("mag < 28", "magnitude < 28", "sharding.toml: views.bright.sql: "),
        ("FROM bright b", "FROM visits b", "sharding.toml: views.visits.sql: .*defined by itself"),
        ("LOG10(flux)", "LOG10(fluxx)", "sharding.toml: tables.star.virtual.mag.expression: .*fluxx"),
        ("[views.bright]", "[views.seen]", "sharding.toml: views.seen: a table has this name"),
    ],
)
def test_mistakes_are_refused_before_anything_is_loaded(site: Site, schema: Path, old: str, new: str, words: str) -> None:
    assert old in SIDECAR
    (schema / "sharding.toml").write_text(SIDECAR.replace(old, new))
    with pytest.raises(SchemaError, match=words):
        site.load(site.write("s.parquet", stars()), catalog="own", table="star", schema=schema)
    assert site.registry.catalog().find("own", "star") is None


def test_results_say_frame_epoch_and_clock(site: Site, schema: Path) -> None:
    (schema / "schema.yaml").write_text(
        FELIS.replace(
            "{name: visit, datatype: int, description: d}", "{name: when, datatype: double, ivoa:unit: d, description: d}"
        )
    )
    sidecar = SIDECAR.replace('kind = "child"', 'kind = "replicated"').replace(
        'director = "star"\ndirector_key = "star"', 'time = { when = { scale = "tai", origin = "mjd", format = "mjd" } }'
    )
    (schema / "sharding.toml").write_text("[position]\nepoch = 2016.0\n" + sidecar[: sidecar.index("[views.visits]")])
    site.load(site.write("s.parquet", stars()), catalog="own", table="star", schema=schema)
    site.load(site.write("v.parquet", {"star": [5, 6], "when": [59000.5, 59001.5]}), catalog="own", table="seen", schema=schema)
    with connect(site.store.root) as client:
        result = client.query(
            "SELECT b.ra, b.dec, MAX(s.when) AS last FROM own.bright b JOIN own.seen s ON s.star = b.id GROUP BY b.ra, b.dec"
        )
        header = ResultHeader(
            columns=result.columns,
            schema=result.schema,
            statement=result.statement,
            warnings=result.warnings,
            snapshots=result.snapshots,
        )
        kind, _ = find_format("votable")
        writer = kind.writer(header)
        data = writer.begin() + b"".join(writer.write(batch) for batch in result) + writer.finish(is_overflow=False)
    table = votable.parse(io.BytesIO(data), verify="exception")
    assert [(c.system, c.epoch) for c in table.iter_coosys()] == [("ICRS", "J2016.0")]
    [clock] = table.iter_timesys()
    assert (clock.timescale, clock.timeorigin) == ("TAI", "MJD-origin")
    fields = {field.name: field.ref for field in table.get_first_table().fields}
    assert fields["ra"] == fields["dec"] != fields["last"] == clock.ID


# -- tables that are there ------------------------------------------------------------------------------------------------------


def again(site: Site, columns: dict[str, Any], **words: Any) -> Any:
    path = site.write("again.parquet", columns)
    request = LoadRequest(inputs=(path,), catalog="own", table="star", **words)
    return define_for(request, open_sources((path,)), site.registry.catalog())


@pytest.fixture
def there(site: Site, schema: Path) -> Site:
    site.load(site.write("s.parquet", stars()), catalog="own", table="star", schema=schema, rows_per_tile=7)
    return site


def test_a_table_that_is_there_says_what_it_is(there: Site) -> None:
    found = again(there, stars(20))
    assert found.previous is not None
    assert (found.table.key, found.table.ra, found.margin_arcsec, found.rows_per_tile) == ("id", "ra", 5.0, 7)
    assert not found.evolution
    assert [c.name for c in found.table.virtual] == ["mag"]
    assert found.table.column("flux").unit == "nJy"


def test_columns_change_only_when_that_is_asked_for(there: Site, schema: Path) -> None:
    with pytest.raises(InputError, match=r"again\.parquet: column new is not declared"):
        again(there, stars(20, new=[1] * 10))
    kept = again(there, stars(20, new=[1] * 10), extra_columns=ExtraColumns.KEEP)
    assert (kept.evolution.added, kept.columns.names[-1]) == (("new",), "new")
    dropped = again(there, stars(20, new=[1] * 10), extra_columns=ExtraColumns.DROP)
    assert not dropped.evolution
    lacking = again(there, stars(20, flux=None), missing_columns=MissingColumns.NULL)
    assert not lacking.evolution
    assert "flux" in lacking.columns.names
    [source] = open_sources((there.write("b.parquet", stars(20, flux=None)),))
    [batch] = lacking.fit(source).batches(["id", "flux"])
    assert batch.column("flux").null_count == 10
    wider = FELIS.replace("name: flux, datatype: float", "name: flux, datatype: double").replace(
        "- name: seen", "  - {name: more, datatype: int, description: d}\n- name: seen"
    )
    (schema / "schema.yaml").write_text(wider)
    rows = stars(20, flux=[1.0] * 10, more=pa.array([1] * 10, pa.int32()))
    with pytest.raises(SchemaError, match=r"own\.star: the load adds more, makes flux DOUBLE") as caught:
        again(there, rows, schema=schema)
    assert "--evolve" in caught.value.hint
    made = again(there, rows, schema=schema, evolve=True)
    assert (made.evolution.added, made.evolution.widened) == (("more",), (("flux", "FLOAT", "DOUBLE"),))
    assert made.table.virtual[0].type.name == "DOUBLE"
    (schema / "schema.yaml").write_text(FELIS.replace("name: flux,", "name: fluxes,"))
    (schema / "sharding.toml").write_text(SIDECAR.replace("flux", "fluxes"))
    with pytest.raises(SchemaError, match="adds fluxes, drops flux") as caught:
        again(there, stars(20, flux=None, fluxes=pa.array([1.0] * 10, pa.float32())), schema=schema)
    assert "renamed" in caught.value.hint


def test_what_places_rows_stays(there: Site) -> None:
    with pytest.raises(SchemaError, match="its key is id, not k"):
        again(there, stars(20, k=pa.array(range(10), pa.int64())), key="k", extra_columns=ExtraColumns.KEEP)
    with pytest.raises(ConflictError, match="has margins of 5 arcsec, not 7"):
        again(there, stars(20), margin_arcsec=7.0)
    from qengine.catalog.model import TableKind

    with pytest.raises(ConflictError, match="is a director, not a replicated"):
        again(there, stars(20), kind=TableKind.REPLICATED)
