"""The schemas of Rubin's releases with the sidecars that ship: every table is loaded with made-up rows, described and queried."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qengine import connect
from qengine.catalog.felis_schema import Declared, declared
from qengine.catalog.model import Table, TableKind
from qengine.catalog.names import quoted
from qengine.catalog.schema import to_arrow_schema
from qengine.catalog.types import to_arrow
from tests.loader.stores import Site

ROWS = 40
_ORDER = {TableKind.DIRECTOR: 0, TableKind.REPLICATED: 1, TableKind.CHILD: 2, TableKind.MATCH: 3}
SCHEMAS = ("dp02", "dp1", "dp2", "apdb")


def made_up(table: Table, keys: Mapping[str, str], rng: np.random.Generator) -> pa.Table:
    """Return rows of the declared columns: keys are numbers that directors and children share."""
    arrays = []
    for column in table.columns:
        kind = to_arrow(column.type)
        numbers = np.arange(1, ROWS + 1)
        values: Any
        if column.name == table.ra:
            values = pa.array(rng.uniform(0, 360, ROWS), kind)
        elif column.name == table.dec:
            values = pa.array(rng.uniform(-90, 90, ROWS), kind)
        elif column.name in keys:
            values = pa.array([str(n) for n in numbers] if pa.types.is_string(kind) else numbers, kind)
        elif pa.types.is_floating(kind):
            values = pa.array(rng.normal(0, 100, ROWS), kind)
        elif pa.types.is_boolean(kind):
            values = pa.array(rng.random(ROWS) > 0.5)
        elif pa.types.is_integer(kind):
            values = pa.array(rng.integers(0, 100, ROWS), kind)
        elif pa.types.is_timestamp(kind):
            values = pa.array(numbers.astype("datetime64[us]"), kind)
        else:
            values = pa.array([f"{column.name} {n}" for n in numbers], kind)
        arrays.append(values)
    schema = to_arrow_schema(table.columns)
    return pa.table(arrays, schema=schema)


def key_columns(table: Table, found: Declared) -> dict[str, str]:
    layout = found.layouts[table.name]
    sides = {side.rpartition(".")[2] for side in (layout.left, layout.right) if side}
    return {name: "" for name in (table.key, table.director_key, *sides) if name}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEMAS)
def test_every_table_loads_and_answers(tmp_path: Path, name: str) -> None:
    site = Site(tmp_path)
    found = declared(name)
    rng = np.random.default_rng(7)
    for table in sorted(found.tables, key=lambda table: _ORDER[table.kind]):
        path = tmp_path / "in" / f"{table.name}.parquet"
        pq.write_table(made_up(table, key_columns(table, found), rng), path)
        report = site.load(path, catalog=name, table=table.name, schema=name, rows_per_tile=None)
        assert (report.read, report.stored, report.without_director) == (ROWS, ROWS, 0), table.name
    catalog = site.registry.catalog()
    with connect(site.store.root) as client:
        for table in found.tables:
            made = catalog.find(name, table.name)
            assert made is not None
            assert made.table.kind is table.kind
            assert client.query(f"SELECT COUNT(*) AS n FROM {name}.{table.name}").to_arrow().column("n").to_pylist() == [ROWS]
            described = client.query(
                f"SELECT column_name, unit FROM TAP_SCHEMA.columns WHERE table_name = '{name}.{table.name}'"
            ).to_arrow()
            assert set(described.column("column_name").to_pylist()) >= {quoted(c.name) for c in table.shown} - {"size"}
            some = client.query(f"SELECT TOP 5 * FROM {name}.{table.name}").to_arrow()
            assert some.num_rows == 5
            assert some.num_columns == len(table.shown)
        types = client.query(f"SELECT table_name, table_type FROM TAP_SCHEMA.tables WHERE schema_name = '{name}'").to_arrow()
        assert set(types.column("table_type").to_pylist()) == {"table"}


def test_small_tables_of_a_release(tmp_path: Path) -> None:
    site = Site(tmp_path)
    found = declared("apdb")
    rng = np.random.default_rng(1)
    for name in ("DiaObjectLast", "DiaObject_To_Object_Match", "metadata"):
        table = found.table(name)
        path = tmp_path / "in" / f"{name}.parquet"
        rows = made_up(table, key_columns(table, found), rng)
        pq.write_table(rows, path)
        site.load(path, catalog="apdb", table=name, schema="resource://lsst.sdm.schemas/apdb.yaml")
    last = site.registry.catalog().find("apdb", "DiaObjectLast")
    assert last is not None
    assert (last.table.key, last.margin_arcsec, last.table.times[0].scale) == ("diaObjectId", 60.0, "TAI")
    with connect(site.store.root) as client:
        sql = (
            "SELECT COUNT(*) AS n FROM apdb.DiaObjectLast o JOIN apdb.DiaObject_To_Object_Match m ON o.diaObjectId = m.diaObjectId"
        )
        assert client.query(sql).to_arrow().column("n").to_pylist() == [ROWS]


def test_magnitudes_are_virtual_columns(tmp_path: Path) -> None:
    site = Site(tmp_path)
    found = declared("dp1")
    table = found.table("Source")
    rows = made_up(table, key_columns(table, found), np.random.default_rng(2))
    flux = rows.column("psfFlux").to_numpy()
    path = tmp_path / "in" / "Source.parquet"
    pq.write_table(rows, path)
    site.load(path, catalog="dp1", table="Source", schema="dp1")
    with connect(site.store.root) as client:
        got = client.query("SELECT psfFlux, psfMag FROM dp1.Source").to_arrow()
        count = client.query("SELECT COUNT(psfMag) AS n FROM dp1.Source WHERE psfMag < 27").to_arrow().column("n")[0].as_py()
        listed = client.query(
            "SELECT unit FROM TAP_SCHEMA.columns WHERE table_name = 'dp1.Source' AND column_name = 'psfMag'"
        ).to_arrow()
    with np.errstate(invalid="ignore"):
        expected = np.where(flux > 0, -2.5 * np.log10(flux) + 31.4, np.nan)
    assert sorted(v for v in got.column("psfMag").to_pylist() if v is not None) == pytest.approx(sorted(expected[flux > 0]))
    assert got.column("psfMag").null_count == int((flux <= 0).sum())
    assert count == int((expected < 27).sum())
    assert listed.column("unit").to_pylist() == ["mag"]
