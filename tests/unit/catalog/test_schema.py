"""Felis, sidecars and Arrow schemas become table definitions, and mistakes in them are named."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from qengine.catalog.definition import from_json, to_json
from qengine.catalog.felis_schema import SIDECAR as SIDECAR_NAME
from qengine.catalog.felis_schema import declared, read_layouts, read_schema, to_felis
from qengine.catalog.model import Column, ForeignKey, Release, TableKind, Threshold, TimeSystem
from qengine.catalog.schema import differences, fits, infer_table, to_arrow_schema
from qengine.catalog.types import BIGINT, DOUBLE, FLOAT, INTEGER, POINT, SMALLINT, TIMESTAMP, VARCHAR, SqlType
from qengine.errors import SchemaError

FELIS = """
name: demo
description: A demonstration
tables:
- name: Object
  description: Things
  primaryKey: '#Object.id'
  tap:table_index: 1
  columns:
  - {name: id, datatype: long, nullable: false, ivoa:ucd: meta.id;src, description: key}
  - {name: ra, datatype: double, ivoa:unit: deg, ivoa:ucd: pos.eq.ra;meta.main, tap:principal: 1, tap:column_index: 2}
  - {name: dec, datatype: double, fits:tunit: deg}
  - {name: name, datatype: string, length: 20}
  - {name: seen, datatype: timestamp}
  - {name: centre, datatype: double, votable:arraysize: 2, votable:xtype: point}
  - {name: curve, datatype: float, votable:arraysize: "*"}
- name: Visit
  columns:
  - {name: visit, datatype: long}
- name: Forced
  columns:
  - {name: objectId, datatype: long}
  - {name: visit, datatype: long}
  - {name: flux, datatype: float, ivoa:unit: nJy}
  constraints:
  - {name: fk, '@type': ForeignKey, columns: ['#Forced.visit'], referencedColumns: ['#Visit.visit'], description: when}
  indexes:
  - {name: ix, columns: ['#Forced.objectId', '#Forced.visit']}
"""
SIDECAR = """
[position]
epoch = 2016.0
[release]
title = "Demo"
date = 2026-01-02
[tables.Object]
kind = "director"
ra = "ra"
dec = "dec"
rows_per_tile = 1000
margin_arcsec = 5
[tables.Forced]
kind = "child"
director = "Object"
director_key = "objectId"
[tables.Visit]
kind = "replicated"
key = "visit"
"""


def write(folder: Path, felis: str = FELIS, sidecar: str | None = SIDECAR) -> Path:
    (folder / "schema.yaml").write_text(felis)
    if sidecar is not None:
        (folder / "sharding.toml").write_text(sidecar)
    return folder / "schema.yaml"


def test_felis_with_sidecar(tmp_path: Path) -> None:
    path = write(tmp_path)
    thing, visit, forced = read_schema(path)
    assert [table.full_name for table in (thing, visit, forced)] == ["demo.Object", "demo.Visit", "demo.Forced"]
    assert (thing.kind, thing.family, thing.key, thing.ra, thing.dec) == (TableKind.DIRECTOR, "demo.Object", "id", "ra", "dec")
    assert (thing.epoch, thing.frame, thing.table_index, thing.description) == (2016.0, "icrs", 1, "Things")
    assert thing.release == Release(title="Demo", date="2026-01-02")
    assert (visit.kind, visit.family, visit.key) == (TableKind.REPLICATED, "", "visit")
    assert (forced.kind, forced.family, forced.director, forced.director_key, forced.key) == (
        TableKind.CHILD, "demo.Object", "Object", "objectId", "",
    )  # fmt: skip
    assert forced.foreign_keys == (ForeignKey(columns=("visit",), target="Visit", target_columns=("visit",), description="when"),)
    assert thing.column("id") == Column(name="id", type=BIGINT, nullable=False, ucd="meta.id;src", description="key", indexed=True)
    assert thing.column("ra") == Column(
        name="ra", type=DOUBLE, unit="deg", ucd="pos.eq.ra;meta.main", principal=True, column_index=2
    )
    assert [thing.column(name).type for name in ("name", "seen", "centre", "curve")] == [
        VARCHAR, TIMESTAMP, POINT, SqlType("FLOAT[]"),
    ]  # fmt: skip
    assert thing.column("dec").unit == "deg"
    assert [column.name for column in forced.columns if column.indexed] == ["objectId"]
    layout = read_layouts(path)["Object"]
    assert (layout.rows_per_tile, layout.margin_arcsec) == (1000, 5.0)


def test_felis_without_sidecar_declares_no_positions(tmp_path: Path) -> None:
    path = write(tmp_path, sidecar=None)
    first = read_schema(path)[0]
    assert (first.kind, first.ra, first.family) == (TableKind.DIRECTOR, "", "demo.Object")
    assert read_layouts(path) == {}
    other = tmp_path / "other.toml"
    other.write_text('[tables.Visit]\nkind = "replicated"')
    assert read_schema(path, sidecar=other)[1].kind is TableKind.REPLICATED


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[release]", "[relaese]", "relaese: is not known"),
        ('title = "Demo"', 'titel = "Demo"', "release.titel: is not known"),
        ('title = "Demo"', "title = 3", "release.title: must be text"),
        ("epoch = 2016.0", 'frame = "b1950"', "frame: must be one of icrs"),
        ("epoch = 2016.0", 'unit = "arcsec"', "unit: must be one of deg, rad, hour"),
        ("epoch = 2016.0", "[time]\nscale = 'tia'", "time.scale: must be one of tai"),
        ("rows_per_tile = 1000", "time = { when = {} }", "tables.Object.time: there is no column when"),
        ("rows_per_tile = 1000", "time = { seen = { sclae = 'tai' } }", "tables.Object.time.seen.sclae: is not known"),
        ("rows_per_tile = 1000", "statistics = ['flux']", "tables.Object.statistics: there is no column flux"),
        ("rows_per_tile = 1000", "index = 'name'", "tables.Object.index: must be a list of texts"),
        ("rows_per_tile = 1000", "quality = { max_nan_fraction = 2 }", "quality.max_nan_fraction: must be a fraction"),
        ("rows_per_tile = 1000", "quality = { min_rows = { ra = 2 } }", "quality.min_rows: is of the whole table"),
        ("rows_per_tile = 1000", "quality = { max_null_fraction = { x = 0.5 } }", "tables.Object.quality: there is no column x"),
        ("rows_per_tile = 1000", "quality = { action = 'no' }", "quality.action: must be one of fail, warn"),
        ("rows_per_tile = 1000", "virtual = { m = { unit = 'mag' } }", "virtual.m.expression: is missing"),
        ("rows_per_tile = 1000", "virtual = { RA = { expression = '1' } }", "tables.Object.virtual has a column RA beside ra"),
        ("rows_per_tile = 1000", "line = 'time'", "tables.Object.line: a series lies on the line of times"),
        ("rows_per_tile = 1000", "line = 'hash'\nkey = 'none'", "tables.Object.key: is missing: the line hash is made of it"),
        ("rows_per_tile = 1000", "line = 'hash'", "tables.Forced.line: Object lies on the line hash, not sky"),
        ("[release]", "[views.v]\ndescription = 'x'\n[release]", "views.v.sql: is missing"),
        ("[release]", "[views.visit]\nsql = 'SELECT 1'\n[release]", "views.visit: a table has this name"),
        ('key = "visit"', 'key = "visit"\nleft = "Object.id"', "tables.Visit.left: does not belong to a replicated"),
        ("[position]", "confirmed = false\n[position]", "confirmed: nobody has confirmed"),
        ("epoch = 2016.0", 'epoch = "J2016"', "epoch: must be a number"),
        ('kind = "child"', 'kind = "kid"', "tables.Forced.kind: must be one of"),
        ("rows_per_tile = 1000", "rows_per_tile = 0", "tables.Object.rows_per_tile"),
        ("rows_per_tile = 1000", "rows_per_tiel = 10", "tables.Object.rows_per_tiel: is not known"),
        ("margin_arcsec = 5", "margin_arcsec = -1", "tables.Object.margin_arcsec"),
        ('dec = "dec"', "", "tables.Object.dec: is missing"),
        ('dec = "dec"', 'dec = "decl"', "there is no column decl"),
        ('dec = "dec"', 'dec = "name"', "not a floating-point number"),
        ('key = "visit"', 'director = "Object"', "does not belong to a replicated"),
        ('director = "Object"', 'director = "Visit"', "Visit is not declared as a director"),
        ('director_key = "objectId"', "", "tables.Forced.director_key: is missing"),
        ("[tables.Visit]", "[tables.Visits]", "tables.Visits: .* no such table"),
        ("[release]", "[release", "cannot be read"),
    ],
)
def test_mistakes_in_sidecars_are_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in SIDECAR
    path = write(tmp_path, sidecar=SIDECAR.replace(old, new))
    with pytest.raises(SchemaError, match=words) as caught:
        read_schema(path)
    assert "sharding.toml" in str(caught.value)


WORDS = """
schema = "felis.yaml"
[time]
scale = "TAI"
origin = "mjd"
format = "mjd"
[tables.Object]
kind = "director"
ra = "ra"
dec = "dec"
bytes_per_tile = 1000
statistics = ["ra", "dec"]
index = ["name"]
time = { seen = { scale = "utc", format = "iso" } }
[tables.Object.quality]
action = "warn"
min_rows = 3
max_null_fraction = { ra = 0.0, name = 0.5 }
max_orphaned_fraction = { limit = 0.1, action = "fail" }
[tables.Object.virtual.twice]
expression = "2 * ra"
unit = "deg"
[tables.Forced]
kind = "match"
left = "Object.objectId"
right = "other.Object.visit"
[tables.Visit]
kind = "series"
time_key = "visit"
time = { visit = {} }
[views.North]
sql = "SELECT * FROM Object WHERE dec > 0"
description = "the north"
"""


def test_all_words_of_a_sidecar_are_kept(tmp_path: Path) -> None:
    (tmp_path / "felis.yaml").write_text(FELIS)
    (tmp_path / "words.toml").write_text(WORDS)
    found = declared(tmp_path / "words.toml")
    thing, visit, forced = found.tables
    assert (thing.bytes_per_tile, thing.rows_per_tile, thing.statistics, thing.indexes) == (1000, 0, ("ra", "dec"), ("name",))
    assert thing.times == (TimeSystem(column="seen", scale="UTC", origin=None, form="iso"),)
    assert thing.quality == (
        Threshold(measure="min_rows", limit=3.0, is_fatal=False),
        Threshold(measure="max_null_fraction", limit=0.0, column="ra", is_fatal=False),
        Threshold(measure="max_null_fraction", limit=0.5, column="name", is_fatal=False),
        Threshold(measure="max_orphaned_fraction", limit=0.1, is_fatal=True),
    )
    assert [(c.name, c.expression, c.unit) for c in thing.virtual] == [("twice", "2 * ra", "deg")]
    assert thing.shown[-1] is thing.virtual[0]
    assert (visit.kind, visit.line, visit.time_key, visit.times[0].scale) == (TableKind.SERIES, "time", "visit", "TAI")
    assert forced.kind is TableKind.MATCH
    assert (found.layouts["Forced"].left, found.layouts["Forced"].right) == ("Object.objectId", "other.Object.visit")
    assert [(view.name, view.description) for view in found.views] == [("North", "the north")]
    for table in found.tables:
        assert from_json(to_json(table)) == table


def test_schemas_are_found_by_path_folder_and_name(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert read_schema(path) == read_schema(tmp_path / SIDECAR_NAME) == read_schema(path.parent)
    assert read_schema("demo")[0].name == "gaia"
    with pytest.raises(SchemaError, match="there is no schema dp7") as caught:
        read_schema("dp7")
    assert "dp02, dp1, dp2" in caught.value.hint


def test_no_unique_key(tmp_path: Path) -> None:
    path = write(tmp_path, sidecar=SIDECAR.replace('ra = "ra"', 'ra = "ra"\nkey = "none"'))
    assert read_schema(path)[0].key == ""


def test_bad_felis_files_are_named(tmp_path: Path) -> None:
    for text in ("name: [", "name: x\ntables: 3", FELIS.replace("datatype: long", "datatype: huge")):
        with pytest.raises(SchemaError, match=r"schema\.yaml"):
            read_schema(write(tmp_path, text))
    with pytest.raises(SchemaError, match=r"none\.yaml"):
        read_schema(tmp_path / "none.yaml")
    with pytest.raises(SchemaError, match="case only"):
        read_schema(write(tmp_path, FELIS.replace("name: dec,", "name: RA,").replace("tap:principal: 1, ", ""), sidecar=None))
    with pytest.raises(SchemaError):
        read_schema("resource://no.such.package/x.yaml")


def test_schemas_of_rubin() -> None:
    tables = {table.name: table for table in read_schema("resource://lsst.sdm.schemas/dp1.yaml")}
    assert len(tables) == 12
    assert sum(len(table.columns) for table in tables.values()) == 1838
    assert sum(len(table.foreign_keys) for table in tables.values()) == 12
    assert tables["Object"].key == "objectId"
    assert tables["Object"].column("coord_ra").ucd == "pos.eq.ra;meta.main"
    # columns that another schema lends are there too
    assert sum(len(table.columns) for table in read_schema("resource://lsst.sdm.schemas/ppdb.yaml")) == 390


def test_inferred_tables_keep_metadata_and_come_back_as_felis(tmp_path: Path) -> None:
    arrow = pa.schema(
        [
            pa.field("_healpix_29", pa.int64()),
            pa.field("id", pa.int64(), nullable=False),
            pa.field("ra", pa.float64(), metadata={"unit": "deg", "ucd": "pos.eq.ra;meta.main", "description": "right ascension"}),
            pa.field("f", pa.float32(), metadata={"ivoa:unit": "nJy", "doc": "flux"}),
            pa.field("odd", pa.float32(), metadata={"unit": "furlongs per eon"}),
            pa.field("t", pa.dictionary(pa.int32(), pa.string())),
            pa.field("u", pa.uint16()),
            pa.field("curve", pa.list_(pa.float64())),
        ]
    )
    table = infer_table(arrow, schema="demo", name="Things", kind=TableKind.DIRECTOR)
    assert [column.hidden for column in table.columns][:2] == [True, False]
    assert (table.column("ra").unit, table.column("ra").ucd, table.column("f").description) == (
        "deg",
        "pos.eq.ra;meta.main",
        "flux",
    )
    assert [
        column.name for column in infer_table(to_arrow_schema(table.columns), schema="d", name="t", kind=table.kind).columns
    ] == [column.name for column in table.columns]
    (tmp_path / "x.yaml").write_text(to_felis(table))
    [read] = read_schema(tmp_path / "x.yaml")
    assert [(c.name, c.type) for c in read.columns] == [
        ("id", BIGINT), ("ra", DOUBLE), ("f", FLOAT), ("odd", FLOAT), ("t", VARCHAR), ("u", INTEGER), ("curve", SqlType("DOUBLE[]")),
    ]  # fmt: skip
    assert (read.column("ra").unit, read.column("ra").description) == ("deg", "right ascension")
    assert (read.column("odd").unit, "furlongs" in read.column("odd").description) == ("", True)
    assert read.column("id").nullable is False


def test_columns_that_cannot_be_inferred() -> None:
    with pytest.raises(SchemaError, match="case only"):
        infer_table(pa.schema([("a", pa.int64()), ("A", pa.int64())]), schema="s", name="t", kind=TableKind.DIRECTOR)
    with pytest.raises(SchemaError, match="twice"):
        infer_table(pa.schema([("a", pa.int64()), ("a", pa.int64())]), schema="s", name="t", kind=TableKind.DIRECTOR)
    with pytest.raises(SchemaError, match="column m"):
        infer_table(pa.schema([("m", pa.map_(pa.string(), pa.int64()))]), schema="s", name="t", kind=TableKind.DIRECTOR)
    huge = infer_table(pa.schema([("h", pa.uint64())]), schema="s", name="t", kind=TableKind.DIRECTOR)
    with pytest.raises(SchemaError, match="Felis has no type"):
        to_felis(huge)


def test_differences_between_file_and_table(tmp_path: Path) -> None:
    [table, *_] = read_schema(write(tmp_path))
    good = to_arrow_schema(table.columns)
    assert differences(good, table) == ()
    assert differences(good.set(0, pa.field("id", pa.int16())), table) == ()
    assert differences(good.set(0, pa.field("id", pa.float64())), table) == ("column id is double, not BIGINT",)
    assert differences(good.set(0, pa.field("ID", pa.int64())), table) == (
        "column id is missing (there is ID)", "column ID is not declared (is it id?)",
    )  # fmt: skip
    assert differences(good.remove(3), table) == ("column name is missing",)


def test_types_that_fit() -> None:
    assert fits(SMALLINT, INTEGER)
    assert not fits(INTEGER, SMALLINT)
    assert fits(SqlType("USMALLINT"), INTEGER)
    assert not fits(SqlType("UINTEGER"), INTEGER)
    assert not fits(SMALLINT, SqlType("UINTEGER"))
    assert fits(FLOAT, DOUBLE)
    assert not fits(DOUBLE, FLOAT)
    assert fits(INTEGER, DOUBLE)
    assert not fits(BIGINT, DOUBLE)  # above 2^53 neighbours fall together
    assert not fits(INTEGER, FLOAT)
    assert not fits(VARCHAR, DOUBLE)
